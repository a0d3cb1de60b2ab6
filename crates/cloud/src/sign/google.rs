//! Google: a service account's key for a token ("Using OAuth 2.0 for Server to Server Applications").

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde::Deserialize;
use serde_json::json;

use super::{Anonymous, Token, TokenSource};
use crate::http::{Ask, Caller, encode};
use crate::transport::{Control, Underway};
use crate::{Endpoint, Error, Result, Retry, Secret, Surroundings};

/// What the token may be used for.
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";
/// How long the signed claim counts, seconds: the longest that Google takes.
const CLAIM_S: i64 = 3600;

#[derive(Deserialize)]
struct KeyFile {
    client_email: String,
    private_key: Secret,
    private_key_id: String,
    token_uri: String,
}

/// Tokens for a service account, from the JSON file of its key.
pub struct GoogleServiceAccount {
    caller: Caller,
    file: KeyFile,
    pair: RsaKeyPair,
}

impl GoogleServiceAccount {
    /// `json` is the key file's text; tokens come from `at`, or from where the file says.
    pub fn new(json: &Secret, at: Option<&Endpoint>, retry: Retry, around: Surroundings) -> Result<Self> {
        let bad = |why: String| {
            Error::Usage(format!(
                "the service account's key cannot be used: {why}; it is the JSON file that Google made"
            ))
        };
        let file: KeyFile = serde_json::from_str(json.expose()).map_err(|e| bad(e.to_string()))?;
        let body: String = file.private_key.expose().lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(body.trim()).map_err(|_| bad("its private key is no PEM".to_owned()))?;
        let pair = RsaKeyPair::from_pkcs8(&der).map_err(|e| bad(format!("its private key: {e}")))?;
        let at = at.cloned().unwrap_or_else(|| Endpoint::new(&file.token_uri));
        Ok(Self { caller: Caller::new(&at, Arc::new(Anonymous), retry, around)?, file, pair })
    }

    fn claim(&self, now: Timestamp) -> Result<String> {
        let begin = now.as_second();
        let head = json!({ "alg": "RS256", "typ": "JWT", "kid": self.file.private_key_id });
        let claim = json!({
            "iss": self.file.client_email, "scope": SCOPE, "aud": self.file.token_uri,
            "iat": begin, "exp": begin + CLAIM_S,
        });
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&head), part(&claim));
        let mut signature = vec![0; self.pair.public().modulus_len()];
        let random = ring::rand::SystemRandom::new();
        self.pair
            .sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature)
            .map_err(|_| Error::Usage("the service account's key cannot sign".to_owned()))?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    async fn ask(&self, now: Timestamp) -> Result<Token> {
        let what = "asking Google for a token";
        let grant = encode("urn:ietf:params:oauth:grant-type:jwt-bearer", &[]);
        let body = format!("grant_type={grant}&assertion={}", self.claim(now)?);
        let ask =
            Ask::new(Method::POST, "", what).header("content-type", "application/x-www-form-urlencoded").body(body);
        let control = Control::default();
        let answer = self.caller.call(&ask, &Underway::new(&control)).await?.json(what)?;
        let token = answer["access_token"].as_str().ok_or_else(|| Error::answer(what, "no access_token"))?;
        let ends = answer["expires_in"].as_i64().and_then(|s| now.checked_add(SignedDuration::from_secs(s)).ok());
        Ok(Token { token: Secret::new(token), ends })
    }
}

impl TokenSource for GoogleServiceAccount {
    fn fetch(&self, now: Timestamp) -> BoxFuture<'_, Result<Token>> {
        Box::pin(self.ask(now))
    }
}
