//! Azure Storage: `SharedKey` ("Authorize with Shared Key") and shared access signatures.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use jiff::Timestamp;

use super::{Signer, Unsigned, base64, hmac_sha256, joined};
use crate::{Error, Result, Secret};

/// The version of the protocol that is spoken.
const VERSION: &str = "2021-12-02";

fn stamp(request: &mut Unsigned, now: Timestamp) {
    let date = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    request.headers.push(("x-ms-date".to_owned(), date));
    request.headers.push(("x-ms-version".to_owned(), VERSION.to_owned()));
}

/// A storage account's key.
#[derive(Debug, Clone)]
pub struct AzureKey {
    account: String,
    key: Secret,
}

impl AzureKey {
    /// `key` is base64, as the portal shows it.
    pub fn new(account: impl Into<String>, key: Secret) -> Result<Self> {
        let (account, bad) = (account.into(), "the key of a storage account is base64: copy it whole from the portal");
        STANDARD.decode(key.expose()).map_err(|_| Error::Usage(bad.to_owned()))?;
        Ok(Self { account, key })
    }

    fn text(&self, request: &Unsigned) -> String {
        let header = |name| request.header(name).unwrap_or_default();
        let length = if request.body.is_empty() { String::new() } else { request.body.len().to_string() };
        let standard = [
            header("content-encoding"),
            header("content-language"),
            &length,
            header("content-md5"),
            header("content-type"),
            "", // Date: x-ms-date is given instead.
            header("if-modified-since"),
            header("if-match"),
            header("if-none-match"),
            header("if-unmodified-since"),
            header("range"),
        ];
        let mut own: Vec<&(String, String)> =
            request.headers.iter().filter(|(name, _)| name.starts_with("x-ms-")).collect();
        own.sort();
        let own = joined(own.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())));
        let mut query: Vec<(String, &str)> =
            request.query.iter().map(|(name, value)| (name.to_lowercase(), value.as_str())).collect();
        query.sort();
        let query = joined(query.iter().map(|(name, value)| format!("\n{name}:{value}")));
        let (method, account, path) = (&request.method, &self.account, &request.path);
        format!("{method}\n{}\n{own}/{account}{path}{query}", standard.join("\n"))
    }
}

impl Signer for AzureKey {
    fn sign<'a>(&'a self, request: &'a mut Unsigned, now: Timestamp) -> BoxFuture<'a, Result<()>> {
        stamp(request, now);
        let key = STANDARD.decode(self.key.expose()).unwrap_or_default();
        let signature = base64(hmac_sha256(&key, self.text(request).as_bytes()));
        request.headers.push(("authorization".to_owned(), format!("SharedKey {}:{signature}", self.account)));
        Box::pin(async { Ok(()) })
    }
}

/// A shared access signature: the part of its address behind the question mark.
#[derive(Debug, Clone)]
pub struct AzureSas {
    query: Vec<(String, Secret)>,
}

impl AzureSas {
    /// `sv=...&sig=...`, with or without the question mark.
    pub fn new(text: &Secret) -> Result<Self> {
        let address = format!("http://x/?{}", text.expose().trim_start_matches('?'));
        let bad = || Error::Usage("a shared access signature looks like sv=...&sig=...: copy it whole".to_owned());
        let url = reqwest::Url::parse(&address).map_err(|_| bad())?;
        let query: Vec<(String, Secret)> =
            url.query_pairs().map(|(name, value)| (name.into_owned(), Secret::new(value))).collect();
        if query.iter().any(|(name, _)| name == "sig") { Ok(Self { query }) } else { Err(bad()) }
    }
}

impl Signer for AzureSas {
    fn sign<'a>(&'a self, request: &'a mut Unsigned, now: Timestamp) -> BoxFuture<'a, Result<()>> {
        stamp(request, now);
        request.query.extend(self.query.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())));
        Box::pin(async { Ok(()) })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// The string to sign of "Authorize with Shared Key", version 2015-02-21 and later: Get Container Metadata.
    #[test]
    fn the_string_that_is_signed_is_the_documented_one() {
        let own = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let request = Unsigned {
            method: "GET".to_owned(),
            base: "http://myaccount.blob.core.windows.net".parse().unwrap(),
            path: "/mycontainer".to_owned(),
            query: own(&[("timeout", "20"), ("restype", "container"), ("comp", "metadata")]),
            headers: own(&[("x-ms-version", "2015-02-21"), ("x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT")]),
            body: bytes::Bytes::new(),
        };
        let key = AzureKey::new("myaccount", Secret::new("a2V5")).unwrap();
        assert_eq!(
            key.text(&request),
            "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n\
             /myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20"
        );
    }

    #[test]
    fn wrong_secrets_are_noticed_and_not_shown() {
        let key = AzureKey::new("a", Secret::new("not base64!")).unwrap_err().to_string();
        let sas = AzureSas::new(&Secret::new("?sv=2020&secret=5")).unwrap_err().to_string();
        assert!(key.contains("portal") && sas.contains("sig=") && !sas.contains("secret"), "{key} {sas}");
    }
}
