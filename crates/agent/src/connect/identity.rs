//! Who this agent is: an Ed25519 key pair that a join token was spent for, kept in the agent's dir.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde::{Deserialize, Serialize};
use skein_domain::{EngineId, InstanceId, SolutionId};
use skein_wire::join::{JoinRequest, JoinResponse, JoinToken};
use skein_wire::lane::JOIN_PATH;

use crate::error::AgentError;
use crate::lane::{Lane, retried};

/// A join is tried this long, ms: an engine that starts at the same time gets its chance.
pub(crate) const JOIN_MS_MAX: u64 = 30_000;

/// What is kept in `identity.json` (mode 0600).
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) engine: EngineId,
    pub(crate) instance: InstanceId,
    /// PKCS#8, base64.
    private_key: String,
    /// BLAKE3 of the engine's CA, when it speaks TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_digest: Option<String>,
    /// The CA itself, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_pem: Option<String>,
}

fn path(dir: &Path) -> PathBuf {
    dir.join("identity.json")
}

impl Identity {
    /// The identity kept in `dir`, if there is one.
    pub(crate) fn load(dir: &Path) -> Result<Option<Self>, AgentError> {
        let path = path(dir);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(AgentError::folder("read", &path, &e)),
        };
        let identity = serde_json::from_slice(&bytes)
            .map_err(|e| AgentError::Identity { path: path.display().to_string(), why: e.to_string() })?;
        Ok(Some(identity))
    }

    fn save(&self, dir: &Path) -> Result<(), AgentError> {
        let (path, part) = (path(dir), dir.join("identity.json.part"));
        let text = serde_json::to_vec_pretty(self)
            .map_err(|e| AgentError::Identity { path: path.display().to_string(), why: e.to_string() })?;
        let write = || {
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&part, &path)
        };
        write().map_err(|e| AgentError::folder("write", &path, &e))
    }

    fn key(&self) -> Option<Ed25519KeyPair> {
        Ed25519KeyPair::from_pkcs8(&BASE64.decode(&self.private_key).ok()?).ok()
    }

    /// Signs the engine's nonce (base64) together with this start's boot id; base64.
    pub(crate) fn sign(&self, nonce: &str, boot: &str) -> Option<String> {
        let mut message = BASE64.decode(nonce).ok()?;
        message.extend_from_slice(boot.as_bytes());
        Some(BASE64.encode(self.key()?.sign(&message)))
    }
}

/// Spends a join token for an identity and keeps it.
pub(crate) async fn join(
    token: &JoinToken,
    engine_url: &str,
    wished: &InstanceId,
    solution: &SolutionId,
    dir: &Path,
) -> Result<Identity, AgentError> {
    let failed = |why: String| AgentError::Join { engine_url: engine_url.to_owned(), why };
    let pkcs8 =
        Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| failed("no key could be made".into()))?;
    let key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).map_err(|e| failed(e.to_string()))?;
    let request = JoinRequest {
        secret: token.secret.clone(),
        engine: token.engine.clone(),
        instance: wished.clone(),
        solution: solution.clone(),
        public_key: BASE64.encode(key.public_key()),
    };
    let lane = Lane::new(engine_url, token.ca_digest.as_deref(), None, "").map_err(|e| failed(e.to_string()))?;
    let answer: JoinResponse =
        retried(JOIN_MS_MAX, || lane.post_json(JOIN_PATH, &request)).await.map_err(|e| failed(e.to_string()))?;
    if answer.engine != token.engine {
        return Err(failed(format!("engine '{}' answered, the token is of '{}'", answer.engine, token.engine)));
    }
    let identity = Identity {
        engine: answer.engine,
        instance: answer.instance,
        private_key: BASE64.encode(pkcs8.as_ref()),
        ca_digest: token.ca_digest.clone(),
        ca_pem: answer.ca_pem,
    };
    identity.save(dir)?;
    Ok(identity)
}
