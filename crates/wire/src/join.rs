//! Joining: a one-time token buys an identity; the identity is proved at each connect.

use serde::{Deserialize, Serialize};
use skein_domain::{EngineId, InstanceId, SolutionId};

/// What a join token carries: `skein-join.<engine>.<secret>[.<ca digest>]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// The engine that gave it.
    pub engine: EngineId,
    /// 32 random bytes, hexadecimal; the engine keeps their hash only.
    pub secret: String,
    /// BLAKE3 of the engine's CA certificate (DER), hexadecimal, when the engine speaks TLS:
    /// the agent trusts that CA and no other.
    pub ca_digest: Option<String>,
}

/// Not a join token.
#[derive(Debug, thiserror::Error)]
#[error("not a join token: {0}; make one with 'skein token join'")]
pub struct BadJoinToken(&'static str);

impl JoinToken {
    /// The token as text.
    pub fn encode(&self) -> String {
        // '~' is in no engine identifier, hexadecimal number or base64 text.
        let ca = self.ca_digest.as_ref().map(|d| format!("~{d}")).unwrap_or_default();
        format!("skein-join~{}~{}{ca}", self.engine, self.secret)
    }

    /// A token from text.
    pub fn decode(text: &str) -> Result<Self, BadJoinToken> {
        let mut parts = text.trim().split('~');
        if parts.next() != Some("skein-join") {
            return Err(BadJoinToken("it does not begin with 'skein-join~'"));
        }
        let engine = parts.next().and_then(|e| EngineId::new(e).ok()).ok_or(BadJoinToken("it names no engine"))?;
        let hex = |t: &&str| t.len() == 64 && t.bytes().all(|b| b.is_ascii_hexdigit());
        let secret = parts.next().filter(hex).ok_or(BadJoinToken("its secret is not 64 hexadecimal digits"))?;
        let ca = match parts.next() {
            None => None,
            Some(d) if hex(&d) => Some(d.to_owned()),
            Some(_) => return Err(BadJoinToken("its CA digest is not 64 hexadecimal digits")),
        };
        Ok(Self { engine, secret: secret.to_owned(), ca_digest: ca })
    }
}

/// `POST /agent/v1/join`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The token's secret.
    pub secret: String,
    /// The engine it is meant for: another one refuses.
    pub engine: EngineId,
    /// The instance's wished name.
    pub instance: InstanceId,
    /// The solution it belongs to.
    pub solution: SolutionId,
    /// Ed25519 public key, base64.
    pub public_key: String,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinResponse {
    /// The name it got.
    pub instance: InstanceId,
    /// The engine.
    pub engine: EngineId,
    /// The engine's CA certificate (PEM), when it speaks TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
}
