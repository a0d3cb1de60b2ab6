//! Keys derived from one 32-byte engine key (file `engine.key`, mode 0600): for sealing secrets, and
//! for lane tokens that stay good over a restart without being stored.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use skein_domain::InstanceId;
use skein_wire::AttemptRef;

use crate::clock;

/// Keys of this engine.
pub(crate) struct Keys {
    lane: [u8; 32],
    seal: LessSafeKey,
    reply: [u8; 32],
}

/// Whom a lane token is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lane {
    /// A connected agent.
    Agent(InstanceId),
    /// One attempt in a function.
    Attempt(AttemptRef),
}

impl Keys {
    /// The folder's key; made when there is none.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("engine.key");
        let key: [u8; 32] = match std::fs::read(&path) {
            Ok(bytes) => match bytes.try_into() {
                Ok(key) => key,
                Err(_) => bail!("{} is not a key of 32 bytes: restore it from a backup", path.display()),
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let key = clock::random_32()?;
                write_private(&path, &key)?;
                key
            }
            Err(e) => return Err(e).with_context(|| format!("reading {}", path.display())),
        };
        let seal = blake3::derive_key("skein 2026 secrets", &key);
        let seal = UnboundKey::new(&CHACHA20_POLY1305, &seal).ok().context("sealing key")?;
        Ok(Self {
            lane: blake3::derive_key("skein 2026 lane tokens", &key),
            seal: LessSafeKey::new(seal),
            reply: blake3::derive_key("skein 2026 replies", &key),
        })
    }

    /// Signs what receivers are told.
    pub(crate) fn reply_key(&self) -> [u8; 32] {
        self.reply
    }

    /// The same as a receiver wants it: `whsec_` and base64.
    pub(crate) fn reply_secret(&self) -> String {
        format!("whsec_{}", STANDARD.encode(self.reply))
    }

    /// A lane token for an agent or an attempt.
    pub(crate) fn lane_token(&self, lane: &Lane) -> String {
        let text = match lane {
            Lane::Agent(id) => format!("agent:{id}"),
            Lane::Attempt(order) => format!("attempt:{}:{}", order.attempt, order.generation),
        };
        let mac = blake3::keyed_hash(&self.lane, text.as_bytes());
        format!("{}.{}", URL_SAFE_NO_PAD.encode(text), URL_SAFE_NO_PAD.encode(mac.as_bytes()))
    }

    /// Whom a lane token is for, when it is ours.
    pub(crate) fn check_lane(&self, token: &str) -> Option<Lane> {
        let (text, mac) = token.split_once('.')?;
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let mac: [u8; 32] = URL_SAFE_NO_PAD.decode(mac).ok()?.try_into().ok()?;
        // blake3::Hash compares in constant time.
        if blake3::keyed_hash(&self.lane, text.as_bytes()) != blake3::Hash::from(mac) {
            return None;
        }
        let mut parts = text.split(':');
        match (parts.next()?, parts.next()?, parts.next()) {
            ("agent", id, None) => Some(Lane::Agent(InstanceId::new(id).ok()?)),
            ("attempt", key, Some(generation)) => {
                Some(Lane::Attempt(AttemptRef { attempt: key.parse().ok()?, generation: generation.parse().ok()? }))
            }
            _ => None,
        }
    }

    /// Encrypts a secret; its name is bound to it.
    pub(crate) fn seal(&self, name: &str, value: &str) -> anyhow::Result<String> {
        let random = clock::random_32()?;
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&random[..NONCE_LEN]);
        let mut bytes = value.as_bytes().to_vec();
        self.seal
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(name.as_bytes()), &mut bytes)
            .ok()
            .context("sealing the secret")?;
        Ok(STANDARD.encode([&nonce[..], &bytes].concat()))
    }

    /// Decrypts a secret.
    pub(crate) fn unseal(&self, name: &str, sealed: &str) -> anyhow::Result<String> {
        let wrong = || format!("secret '{name}' was sealed with another key: set it again");
        let bytes = STANDARD.decode(sealed).with_context(wrong)?;
        let (nonce, rest) = bytes.split_at_checked(NONCE_LEN).with_context(wrong)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok().with_context(wrong)?;
        let mut rest = rest.to_vec();
        let plain = self.seal.open_in_place(nonce, Aad::from(name.as_bytes()), &mut rest).ok().with_context(wrong)?;
        String::from_utf8(plain.to_vec()).with_context(wrong)
    }
}

/// Writes a file that only its owner can read, all at once.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// Makes a file readable for its owner only.
pub(crate) fn only_ours(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("protecting {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_secrets_are_bound_to_the_key_and_the_name() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (ours, other) = (Keys::open(a.path()).unwrap(), Keys::open(b.path()).unwrap());
        let lane = Lane::Agent(InstanceId::new("a-1").unwrap());
        let token = ours.lane_token(&lane);
        assert_eq!(ours.check_lane(&token), Some(lane.clone()));
        assert_eq!(Keys::open(a.path()).unwrap().check_lane(&token), Some(lane), "good after a restart");
        assert_eq!(other.check_lane(&token), None);
        let sealed = ours.seal("DB", "hunter2").unwrap();
        assert_eq!(ours.unseal("DB", &sealed).unwrap(), "hunter2");
        assert!(ours.unseal("OTHER", &sealed).is_err());
        assert!(other.unseal("DB", &sealed).unwrap_err().to_string().contains("set it again"));
    }
}
