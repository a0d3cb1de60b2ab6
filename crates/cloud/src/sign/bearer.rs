//! Bearer tokens: fetched when they are needed, fetched again before they end and when a service refuses them.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};

use super::{Signer, Unsigned};
use crate::{Result, Secret};

/// A token is not used in its last seconds: a request may wait that long on its way.
const MARGIN_S: i64 = 120;

/// What a service of identity gave.
#[derive(Debug, Clone)]
pub struct Token {
    /// The token.
    pub token: Secret,
    /// When it ends; none: it does not, or nobody knows.
    pub ends: Option<Timestamp>,
}

/// Where tokens come from.
pub trait TokenSource: Send + Sync {
    /// A new one.
    fn fetch(&self, now: Timestamp) -> BoxFuture<'_, Result<Token>>;
    /// Would it be another one than before?
    fn is_fixed(&self) -> bool {
        false
    }
}

impl TokenSource for Secret {
    fn fetch(&self, _: Timestamp) -> BoxFuture<'_, Result<Token>> {
        Box::pin(async { Ok(Token { token: self.clone(), ends: None }) })
    }
    fn is_fixed(&self) -> bool {
        true
    }
}

/// Adds a token to each request.
pub struct Bearer {
    header: &'static str,
    prefix: &'static str,
    source: Arc<dyn TokenSource>,
    kept: Mutex<Option<Token>>,
}

impl Bearer {
    /// `Authorization: Bearer ...`.
    pub fn new(source: Arc<dyn TokenSource>) -> Self {
        Self { header: "authorization", prefix: "Bearer ", source, kept: Mutex::default() }
    }
    /// `X-Auth-Token: ...`, as `OpenStack` wants it.
    pub fn openstack(source: Arc<dyn TokenSource>) -> Self {
        Self { header: "x-auth-token", prefix: "", ..Self::new(source) }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<Token>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn token(&self, now: Timestamp) -> Result<Secret> {
        let margin = SignedDuration::from_secs(MARGIN_S);
        let lives = |token: &Token| token.ends.is_none_or(|ends| ends.duration_since(now) > margin);
        if let Some(token) = self.kept().as_ref().filter(|token| lives(token)) {
            return Ok(token.token.clone());
        }
        // Two that ask at once may fetch two tokens: both are good.
        let token = self.source.fetch(now).await?;
        *self.kept() = Some(token.clone());
        Ok(token.token)
    }
}

impl Signer for Bearer {
    fn sign<'a>(&'a self, request: &'a mut Unsigned, now: Timestamp) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let token = self.token(now).await?;
            request.headers.push((self.header.to_owned(), format!("{}{}", self.prefix, token.expose())));
            Ok(())
        })
    }
    fn renew(&self) -> bool {
        *self.kept() = None;
        !self.source.is_fixed()
    }
}
