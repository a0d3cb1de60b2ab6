//! AWS Signature Version 4, as "Authenticating Requests" and "Create a signed AWS API request" of AWS describe it.
//! Held to the published vectors in the tests below.

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Signer, Unsigned, hex, hmac_sha256, joined, sha256};
use crate::http::encode;
use crate::{Result, Secret};

/// A key of AWS or of a service that speaks its protocol.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsKey {
    /// Access key id.
    pub access_key: String,
    /// Secret access key.
    pub secret_key: Secret,
    /// Of temporary credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<Secret>,
}

/// Signs for one service in one region.
#[derive(Debug, Clone)]
pub struct SigV4 {
    /// Whose.
    pub key: AwsKey,
    /// `eu-central-1`, ...
    pub region: String,
    /// `s3`, `ebs`, `ec2`.
    pub service: &'static str,
}

impl SigV4 {
    fn sign_now(&self, request: &mut Unsigned, now: Timestamp) {
        let time = now.strftime("%Y%m%dT%H%M%SZ").to_string();
        let day = &time[..8];
        let digest = hex(sha256(&request.body));
        request.headers.push(("x-amz-date".to_owned(), time.clone()));
        if self.service == "s3" {
            request.headers.push(("x-amz-content-sha256".to_owned(), digest.clone()));
        }
        if let Some(token) = &self.key.session_token {
            request.headers.push(("x-amz-security-token".to_owned(), token.expose().to_owned()));
        }
        let (canonical, signed) = self.canonical(request, &digest);
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(sha256(canonical.as_bytes())));
        let mut key = hmac_sha256(format!("AWS4{}", self.key.secret_key.expose()).as_bytes(), day.as_bytes());
        for part in [self.region.as_str(), self.service, "aws4_request"] {
            key = hmac_sha256(key.as_ref(), part.as_bytes());
        }
        let signature = hex(hmac_sha256(key.as_ref(), text.as_bytes()));
        let credential = format!("{}/{scope}", self.key.access_key);
        let header = format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={signed}, Signature={signature}");
        request.headers.push(("authorization".to_owned(), header));
    }

    /// The canonical request, and the names of the headers that are signed: all.
    fn canonical(&self, request: &Unsigned, digest: &str) -> (String, String) {
        // S3 signs the path as it is sent; all others encode it once more.
        let path = if self.service == "s3" { request.path.clone() } else { encode(&request.path, &['/']) };
        let path = if path.is_empty() { "/".to_owned() } else { path };
        let mut query: Vec<(String, String)> =
            request.query.iter().map(|(name, value)| (encode(name, &[]), encode(value, &[]))).collect();
        query.sort();
        let query = query.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
        let mut headers: Vec<(&str, String)> = vec![("host", request.host())];
        headers.extend(
            request
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.split_whitespace().collect::<Vec<_>>().join(" "))),
        );
        headers.sort();
        let signed = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let lines = joined(headers.iter().map(|(name, value)| format!("{name}:{value}\n")));
        (format!("{}\n{path}\n{query}\n{lines}\n{signed}\n{digest}", request.method), signed)
    }
}

impl Signer for SigV4 {
    fn sign<'a>(&'a self, request: &'a mut Unsigned, now: Timestamp) -> BoxFuture<'a, Result<()>> {
        self.sign_now(request, now);
        Box::pin(async { Ok(()) })
    }
    /// A signature is also wrong when the request was changed on its way: it is signed once more.
    fn renew(&self) -> bool {
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn signed(service: &'static str, secret: &str, access: &str, time: &str, mut request: Unsigned) -> String {
        let key = AwsKey { access_key: access.to_owned(), secret_key: Secret::new(secret), session_token: None };
        let signer = SigV4 { key, region: "us-east-1".to_owned(), service };
        signer.sign_now(&mut request, time.parse().unwrap());
        request.header("authorization").unwrap().rsplit('=').next().unwrap().to_owned()
    }

    fn request(method: &str, base: &str, path: &str, query: &[(&str, &str)], headers: &[(&str, &str)]) -> Unsigned {
        let own = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Unsigned {
            method: method.to_owned(),
            base: base.parse().unwrap(),
            path: path.to_owned(),
            query: own(query),
            headers: own(headers),
            body: bytes::Bytes::new(),
        }
    }

    /// "aws-sig-v4-test-suite": get-vanilla, get-vanilla-query-order-key-case, post-vanilla.
    #[test]
    fn the_test_suite_that_aws_publishes() {
        let of = |method, query: &[(&str, &str)]| {
            let request = request(method, "https://example.amazonaws.com", "/", query, &[]);
            let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
            signed("service", secret, "AKIDEXAMPLE", "2015-08-30T12:36:00Z", request)
        };
        assert_eq!(of("GET", &[]), "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
        assert_eq!(
            of("GET", &[("Param2", "value2"), ("Param1", "value1")]),
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"
        );
        assert_eq!(of("POST", &[]), "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b");
    }

    /// "Examples of signature calculations" of the S3 reference: GET Object with a range, GET Bucket lifecycle.
    #[test]
    fn the_examples_of_the_s3_reference() {
        let of = |query: &[(&str, &str)], path, headers: &[(&str, &str)]| {
            let request = request("GET", "https://examplebucket.s3.amazonaws.com", path, query, headers);
            let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
            signed("s3", secret, "AKIAIOSFODNN7EXAMPLE", "2013-05-24T00:00:00Z", request)
        };
        assert_eq!(
            of(&[], "/test.txt", &[("range", "bytes=0-9")]),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        assert_eq!(
            of(&[("lifecycle", "")], "/", &[]),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
        );
    }
}
