//! How a request says who asks. Secrets stay here.

mod azure;
mod bearer;
mod google;
mod keystone;
mod sigv4;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use reqwest::Url;

pub use azure::{AzureKey, AzureSas};
pub use bearer::{Bearer, Token, TokenSource};
pub use google::GoogleServiceAccount;
pub use keystone::{Keystone, KeystoneLogin};
pub use sigv4::{AwsKey, SigV4};

use crate::http::encode;
use crate::{Error, Result};

/// A request before it is signed. Header names are in lower case.
#[derive(Debug, Clone)]
pub struct Unsigned {
    /// `GET`, `PUT`, ...
    pub method: String,
    /// Scheme, host and port.
    pub base: Url,
    /// Path, encoded.
    pub path: String,
    /// Parameters, not encoded.
    pub query: Vec<(String, String)>,
    /// Headers; the signer adds its own.
    pub headers: Vec<(String, String)>,
    /// What is sent.
    pub body: Bytes,
}

impl Unsigned {
    /// Value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
    /// Host, with the port when it is not the scheme's own: as the client sends it.
    pub fn host(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        self.base.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
    /// Parameters, encoded, in the order in which they stand.
    pub fn query_text(&self) -> String {
        let pairs = self.query.iter().map(|(name, value)| format!("{}={}", encode(name, &[]), encode(value, &[])));
        pairs.collect::<Vec<_>>().join("&")
    }
    /// The whole address.
    pub fn url(&self) -> Result<Url> {
        let origin = self.base.origin().ascii_serialization();
        let query = self.query_text();
        let mark = if query.is_empty() { "" } else { "?" };
        let text = format!("{origin}{}{mark}{query}", self.path);
        Url::parse(&text).map_err(|e| Error::Usage(format!("no address can be made for {}: {e}", self.path)))
    }
}

/// Signs requests. One that fetches tokens does it when it is asked to sign.
pub trait Signer: Send + Sync {
    /// Adds what says who asks.
    fn sign<'a>(&'a self, request: &'a mut Unsigned, now: Timestamp) -> BoxFuture<'a, Result<()>>;
    /// The service did not take it. Is there something newer to try with?
    fn renew(&self) -> bool {
        false
    }
}

/// Nothing is said: for services that are open, and for addresses that are themselves secret.
#[derive(Debug, Clone, Copy)]
pub struct Anonymous;

impl Signer for Anonymous {
    fn sign<'a>(&'a self, _: &'a mut Unsigned, _: Timestamp) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

pub(crate) fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().concat()
}

pub(crate) fn hmac_sha256(key: &[u8], text: &[u8]) -> ring::hmac::Tag {
    ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key), text)
}

pub(crate) fn sha256(bytes: &[u8]) -> ring::digest::Digest {
    ring::digest::digest(&ring::digest::SHA256, bytes)
}

pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

pub(crate) fn hex(bytes: impl AsRef<[u8]>) -> String {
    use std::fmt::Write as _;
    bytes.as_ref().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}
