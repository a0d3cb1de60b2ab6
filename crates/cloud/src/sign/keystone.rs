//! `OpenStack`: a password for a token (Identity API v3, "Password authentication with scoped authorization").

use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Anonymous, Token, TokenSource};
use crate::http::{Ask, Caller};
use crate::transport::{Control, Underway};
use crate::{Endpoint, Error, Result, Retry, Secret, Surroundings};

/// Who asks, in the words of an `openrc` file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeystoneLogin {
    /// `OS_USERNAME`.
    pub user: String,
    /// `OS_PASSWORD`.
    pub password: Secret,
    /// `OS_PROJECT_NAME`.
    pub project: String,
    /// `OS_USER_DOMAIN_NAME` and `OS_PROJECT_DOMAIN_NAME`.
    #[serde(default = "default_domain")]
    pub domain: String,
}

fn default_domain() -> String {
    "Default".to_owned()
}

/// Tokens of Keystone.
pub struct Keystone {
    caller: Caller,
    login: KeystoneLogin,
}

impl Keystone {
    /// `at` is `OS_AUTH_URL`, with its `/v3`.
    pub fn new(at: &Endpoint, login: KeystoneLogin, retry: Retry, around: Surroundings) -> Result<Self> {
        Ok(Self { caller: Caller::new(at, Arc::new(Anonymous), retry, around)?, login })
    }

    async fn ask(&self) -> Result<Token> {
        let (login, what) = (&self.login, "asking Keystone for a token");
        let domain = json!({ "name": login.domain });
        let user = json!({ "name": login.user, "domain": domain, "password": login.password.expose() });
        let body = json!({ "auth": {
            "identity": { "methods": ["password"], "password": { "user": user } },
            "scope": { "project": { "name": login.project, "domain": domain } },
        }});
        let ask = Ask::new(Method::POST, "/auth/tokens", what).json(&body);
        let control = Control::default();
        let answer = self.caller.call(&ask, &Underway::new(&control)).await?;
        let token = answer.header("x-subject-token").ok_or_else(|| Error::answer(what, "no X-Subject-Token"))?;
        let ends = answer.json(what)?["token"]["expires_at"].as_str().and_then(|ends| ends.parse().ok());
        Ok(Token { token: Secret::new(token), ends })
    }
}

impl TokenSource for Keystone {
    fn fetch(&self, _: Timestamp) -> BoxFuture<'_, Result<Token>> {
        Box::pin(self.ask())
    }
}
