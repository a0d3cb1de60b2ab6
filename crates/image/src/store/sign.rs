//! Who vouches for an image: Ed25519 (RFC 8032) over its manifest.

use std::io::Write as _;
use std::path::Path;

use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::digest::hex;
use crate::{Error, Result};

/// A manifest's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Public key, 64 hexadecimal digits.
    pub key: String,
    /// Over the manifest's JSON without this field, 128 hexadecimal digits.
    pub signature: String,
}

/// The key of a store.
pub struct Signer(Ed25519KeyPair);

impl Signer {
    /// The key in `path`, PKCS #8; made, readable by its owner alone, if it is not there.
    pub fn open(path: &Path) -> Result<Self> {
        let what = || format!("reading {}", path.display());
        let bytes = match std::fs::read(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => make(path)?,
            read => read.map_err(Error::io(what()))?,
        };
        let key = Ed25519KeyPair::from_pkcs8(&bytes).map_err(|e| {
            Error::Usage(format!("{} is no Ed25519 key ({e}): restore it, or remove it for a new one", path.display()))
        })?;
        Ok(Self(key))
    }

    /// Its public key, 64 hexadecimal digits.
    pub fn public(&self) -> String {
        hex(self.0.public_key().as_ref())
    }

    pub(super) fn sign(&self, bytes: &[u8]) -> Signature {
        Signature { key: self.public(), signature: hex(self.0.sign(bytes).as_ref()) }
    }
}

/// Two that make one at once agree: the first name wins, the other reads it.
fn make(path: &Path) -> Result<Vec<u8>> {
    let what = || format!("writing {}", path.display());
    let random = |_| Error::io("asking the system for random numbers")(std::io::Error::other("it gave none"));
    let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(random)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut part = tempfile::NamedTempFile::new_in(folder).map_err(Error::io(what()))?;
    part.write_all(made.as_ref()).and_then(|()| part.as_file().sync_all()).map_err(Error::io(what()))?;
    match part.persist_noclobber(path) {
        Err(e) if e.error.kind() != std::io::ErrorKind::AlreadyExists => Err(Error::io(what())(e.error)),
        _ => std::fs::read(path).map_err(Error::io(what())),
    }
}

/// Is it the signature of these bytes?
pub(super) fn holds(bytes: &[u8], signature: &Signature) -> bool {
    let (Some(key), Some(mark)) = (unhex(&signature.key), unhex(&signature.signature)) else { return false };
    UnparsedPublicKey::new(&ED25519, key).verify(bytes, &mark).is_ok()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}
