//! One request to a cloud, tried again where that helps.
//!
//! ```text
//! ask --sign--> send --> 2xx, or a status that is expected ----------------> answer
//!                  \--> throttled, server, cut, checksum --wait--> sign, send again (tries_max)
//!                  \--> unauthorized --new token, once--> sign, send again
//!                  \--> missing, refused ----------------------------------> fault, with the cloud's words
//! ```
//! A request may reach the service twice: whoever uses this sends only what may.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Class, Error, Fault, Result};
use crate::retry::Retry;
use crate::sign::{Signer, Unsigned};
use crate::transport::Underway;
use crate::xml;

/// Bytes of an answer that are read; more is an error. The longest answers are pages of lists.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Bytes of an answer that is no known error, which are kept as the cloud's words.
const WORDS_BYTES_MAX: usize = 400;
/// How long a connection may take, seconds.
const CONNECT_S: u64 = 10;
/// How long an answer may take after the last byte, seconds.
const ANSWER_S: u64 = 90;
/// The slowest line that is waited for, bytes a second.
const SLOWEST_BYTES_PER_S: u64 = 64 << 10;

/// Where a service is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Its address: `https://host[:port][/path]`, or `http://` on this machine.
    pub url: String,
    /// Certificates (PEM) that are trusted for it besides those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
}

impl Endpoint {
    /// At this address.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), ca_pem: None }
    }

    fn parsed(&self) -> Result<Url> {
        let bad = |why: &str| Error::Usage(format!("the endpoint '{}' cannot be used: {why}", self.url));
        let url = Url::parse(&self.url).map_err(|e| bad(&format!("{e}; it looks like https://host")))?;
        let local = match url.host_str() {
            Some("localhost") => true,
            Some(host) => host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()),
            None => false,
        };
        match url.scheme() {
            "https" => Ok(url),
            "http" if local => Ok(url),
            _ => Err(bad("plain http is for this machine only: give https")),
        }
    }
}

type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;
type Random = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What is outside: the time, and chance.
#[derive(Clone)]
pub struct Surroundings {
    /// The time of day: signatures carry it.
    pub now: Now,
    /// A random number: waits are spread by it.
    pub random: Random,
}

impl std::fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Surroundings")
    }
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    /// What is being done, for messages: "uploading part 7 of b/k".
    pub(crate) what: String,
    pub(crate) method: Method,
    /// Below the endpoint, encoded.
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    /// Statuses besides 2xx that are answers, not faults.
    pub(crate) expected: &'static [u16],
}

impl Ask {
    pub(crate) fn new(method: Method, path: impl Into<String>, what: impl Into<String>) -> Self {
        let (path, what) = (path.into(), what.into());
        Self { what, method, path, query: Vec::new(), headers: Vec::new(), body: Bytes::new(), expected: &[] }
    }
    pub(crate) fn query(mut self, name: &str, value: impl Into<String>) -> Self {
        self.query.push((name.to_owned(), value.into()));
        self
    }
    /// Names are given in lower case.
    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
    pub(crate) fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }
    pub(crate) fn expect(mut self, statuses: &'static [u16]) -> Self {
        self.expected = statuses;
        self
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    pub(crate) fn json(&self, what: &str) -> Result<Value> {
        serde_json::from_slice(&self.body).map_err(|e| Error::answer(what, format!("no JSON: {e}")))
    }

    /// Code and words of an error, as the cloud gives them.
    fn error(&self) -> (String, String) {
        let text = self.text();
        let header = self.header("x-ms-error-code").or_else(|| self.header("x-amzn-errortype"));
        let header = header.map(|code| code.split(':').next().unwrap_or(code).to_owned());
        let (code, words) = match serde_json::from_str::<Value>(&text) {
            Ok(json) => json_error(&json),
            Err(_) => (xml::text(&text, "Code").unwrap_or_default(), xml::text(&text, "Message").unwrap_or_default()),
        };
        let words = if words.is_empty() { plain(&text) } else { words };
        let mut code = header.unwrap_or(code);
        // EBS names a kind and a reason.
        let reason =
            serde_json::from_str(&text).ok().and_then(|json: Value| json["Reason"].as_str().map(str::to_owned));
        if let Some(reason) = reason {
            code = format!("{code}/{reason}");
        }
        (code, words.trim().to_owned())
    }
}

/// Google's, `OpenStack`'s and AWS's JSON errors.
fn json_error(json: &Value) -> (String, String) {
    let error = match json {
        Value::Object(fields) => fields.get("error").unwrap_or(json),
        _ => json,
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let reason = text(&error["errors"][0]["reason"]);
    let kind = text(&json["__type"]);
    let kind = kind.rsplit('#').next().unwrap_or_default().to_owned();
    let code = [reason, kind, text(&error["title"]), text(&json["error"])];
    let words = [text(&error["message"]), text(&json["Message"]), text(&json["error_description"])];
    let first = |texts: &[String]| texts.iter().find(|text| !text.is_empty()).cloned().unwrap_or_default();
    (first(&code), first(&words))
}

/// A page for people, without its marks.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut inside = false;
    for c in text.chars() {
        match c {
            '<' => inside = true,
            '>' => inside = false,
            _ if inside => {}
            c if c.is_whitespace() && plain.ends_with(' ') => {}
            c => plain.push(if c.is_whitespace() { ' ' } else { c }),
        }
        if plain.len() >= WORDS_BYTES_MAX {
            break;
        }
    }
    plain
}

/// Codes that mean something else than their status says.
const THROTTLED: &[&str] = &[
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestLimitExceeded",
    "ServerBusy",
    "TooManyRequests",
    "rateLimitExceeded",
    "userRateLimitExceeded",
];
const CHECKSUM: &[&str] = &[
    "BadDigest",
    "Md5Mismatch",
    "Crc64Mismatch",
    "XAmzContentSHA256Mismatch",
    "IncompleteBody",
    "InvalidChecksum",
    "INVALID_BLOCK",
];
const UNAUTHORIZED: &[&str] = &[
    "AuthFailure",
    "AuthenticationFailed",
    "AuthorizationFailure",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "ExpiredToken",
    "ExpiredTokenException",
];
/// A signature covers what is sent: one that is wrong says that the key is, or that the bytes are.
const SIGNATURE: &[&str] = &["SignatureDoesNotMatch", "InvalidSignatureException"];
/// From this many bytes on, a wrong signature is taken for changed bytes: what goes before it is shorter, and would
/// have shown a wrong key.
const SIGNED_CONTENT_BYTES: usize = 16 << 10;

fn class(status: u16, code: &str, sent_bytes: usize) -> Class {
    let is = |codes: &[&str]| code.split('/').any(|code| codes.contains(&code));
    match status {
        _ if is(SIGNATURE) && sent_bytes >= SIGNED_CONTENT_BYTES => Class::Checksum,
        _ if is(SIGNATURE) => Class::Unauthorized,
        _ if is(THROTTLED) => Class::Throttled,
        _ if is(CHECKSUM) => Class::Checksum,
        _ if is(UNAUTHORIZED) => Class::Unauthorized,
        429 => Class::Throttled,
        408 => Class::Cut,
        400 if code == "RequestTimeout" => Class::Cut,
        501 | 505 => Class::Refused,
        500.. => Class::Server,
        401 => Class::Unauthorized,
        404 | 410 => Class::Missing,
        _ => Class::Refused,
    }
}

/// `Retry-After`: seconds or a date.
fn retry_after(answer: &Answer, now: Timestamp) -> Option<Duration> {
    let value = answer.header("retry-after")?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    u64::try_from(at.as_second() - now.as_second()).ok().map(Duration::from_secs)
}

/// One service and who asks it.
pub(crate) struct Caller {
    http: reqwest::Client,
    base: Url,
    signer: Arc<dyn Signer>,
    pub(crate) retry: Retry,
    pub(crate) around: Surroundings,
}

impl Caller {
    pub(crate) fn new(at: &Endpoint, signer: Arc<dyn Signer>, retry: Retry, around: Surroundings) -> Result<Self> {
        let base = at.parsed()?;
        let bad = |e: reqwest::Error| Error::Usage(format!("no client for {} can be made: {e}", at.url));
        // No redirects: they would carry signed requests to a host that nobody configured. No proxy from the
        // environment, for the same reason.
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(Duration::from_secs(CONNECT_S))
            .pool_idle_timeout(Duration::from_secs(20));
        if let Some(pem) = &at.ca_pem {
            for certificate in reqwest::Certificate::from_pem_bundle(pem.as_bytes()).map_err(bad)? {
                builder = builder.add_root_certificate(certificate);
            }
        }
        Ok(Self { http: builder.build().map_err(bad)?, base, signer, retry, around })
    }

    /// The service did not know who asks: is there something newer to try with?
    pub(crate) fn renew(&self) -> bool {
        self.signer.renew()
    }

    /// Sends it until it is answered.
    pub(crate) async fn call(&self, ask: &Ask, underway: &Underway<'_>) -> Result<Answer> {
        let (mut tries, mut renewed) = (0, false);
        loop {
            tries += 1;
            let (mut fault, asked) = match self.attempt(ask, underway).await? {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            fault.tries = tries;
            if fault.class == Class::Unauthorized && !renewed && self.signer.renew() {
                renewed = true;
                continue;
            }
            self.pause(fault, asked, underway).await?;
        }
    }

    /// Waits before another try of what failed so; an error when there is none.
    pub(crate) async fn pause(&self, fault: Fault, asked: Option<Duration>, underway: &Underway<'_>) -> Result<()> {
        let again = matches!(fault.class, Class::Throttled | Class::Server | Class::Cut | Class::Checksum);
        let wait = if again { self.retry.wait(fault.tries, asked, (self.around.random)()) } else { None };
        let Some(wait) = wait else { return Err(Error::Cloud(Box::new(fault))) };
        tokio::select! {
            () = underway.cancelled() => Err(Error::Cancelled),
            () = tokio::time::sleep(wait) => Ok(()),
        }
    }

    /// One try. The outer error is not the service's; the inner one has what it asks to be waited.
    pub(crate) async fn attempt(&self, ask: &Ask, underway: &Underway<'_>) -> Result<Tried> {
        let mut request = self.signed(ask).await?;
        let size = ask.body.len() as u64;
        if size == 0 && matches!(ask.method, Method::PUT | Method::POST) {
            // The client leaves it out, and some services then ask for it (411, or 400).
            request = request.header(reqwest::header::CONTENT_LENGTH, 0);
        }
        underway.sends(size);
        let limit = Duration::from_secs(ANSWER_S + size / SLOWEST_BYTES_PER_S);
        let sent = request.body(ask.body.clone()).timeout(limit).send();
        tokio::select! {
            () = underway.cancelled() => Err(Error::Cancelled),
            answered = self.answered(ask, sent) => Ok(answered),
        }
    }

    /// One try, with a body that is made while it is sent.
    pub(crate) async fn stream(&self, ask: &Ask, body: reqwest::Body, underway: &Underway<'_>) -> Result<Tried> {
        let request = self.signed(ask).await?;
        let sent = request.body(body).send();
        tokio::select! {
            () = underway.cancelled() => Err(Error::Cancelled),
            answered = self.answered(ask, sent) => Ok(answered),
        }
    }

    async fn signed(&self, ask: &Ask) -> Result<reqwest::RequestBuilder> {
        let mut unsigned = Unsigned {
            method: ask.method.as_str().to_owned(),
            base: self.base.clone(),
            path: format!("{}{}", self.base.path().trim_end_matches('/'), ask.path),
            query: ask.query.clone(),
            headers: ask.headers.clone(),
            body: ask.body.clone(),
        };
        self.signer.sign(&mut unsigned, (self.around.now)()).await?;
        let url = unsigned.url()?;
        let mut headers = HeaderMap::new();
        for (name, value) in &unsigned.headers {
            let bad =
                |e: &dyn std::fmt::Display| Error::Usage(format!("{}: the header {name} cannot be: {e}", ask.what));
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| bad(&e))?;
            headers.append(name.clone(), HeaderValue::from_str(value).map_err(|e| bad(&e))?);
        }
        Ok(self.http.request(ask.method.clone(), url).headers(headers))
    }

    async fn answered(&self, ask: &Ask, sent: impl Future<Output = reqwest::Result<reqwest::Response>>) -> Tried {
        let fault = |class, status, code, words| Fault { class, what: ask.what.clone(), status, code, words, tries: 1 };
        let answer = match read(sent).await {
            Ok(answer) => answer,
            Err(words) => return Err((fault(Class::Cut, None, String::new(), words), None)),
        };
        // S3 answers 200 before it knows, and then says the error in the body.
        let late = answer.status == 200 && answer.body.starts_with(b"<?xml") && answer.text().contains("<Error>");
        if !late && ((200..300).contains(&answer.status) || ask.expected.contains(&answer.status)) {
            return Ok(answer);
        }
        let (code, words) = answer.error();
        let status = if late { 500 } else { answer.status };
        let fault = fault(class(status, &code, ask.body.len()), Some(answer.status), code, words);
        Err((fault, retry_after(&answer, (self.around.now)())))
    }
}

/// An answer, or a fault with the wait that the service asks for.
pub(crate) type Tried = std::result::Result<Answer, (Fault, Option<Duration>)>;

async fn read(sent: impl Future<Output = reqwest::Result<reqwest::Response>>) -> std::result::Result<Answer, String> {
    let response = sent.await.map_err(|e| chain(&e))?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let mut body = BytesMut::new();
    let mut stream = response.bytes_stream();
    while let Some(part) = stream.next().await {
        let part = part.map_err(|e| chain(&e))?;
        if body.len() + part.len() > ANSWER_BYTES_MAX {
            return Err(format!("the answer is longer than {ANSWER_BYTES_MAX} bytes (ANSWER_BYTES_MAX)"));
        }
        body.extend_from_slice(&part);
    }
    Ok(Answer { status, headers, body: body.freeze() })
}

/// An error with its causes, without the address: it may hold a signature.
fn chain(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() { "it took too long".to_owned() } else { String::new() };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Everything but unreserved characters as `%XX`, as RFC 3986 and the signing rules of AWS want it.
pub(crate) fn encode(text: &str, keep: &[char]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-._~".contains(c) || keep.contains(&c) {
            out.push(c);
        } else {
            write!(out, "%{byte:02X}").unwrap_or_default();
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str, headers: &[(&str, &str)]) -> Answer {
        let headers = headers.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse().unwrap()));
        Answer { status, headers: headers.collect(), body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    #[test]
    fn errors_of_every_cloud_are_read() {
        let s3 = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
        let google = r#"{"error":{"code":412,"message":"no","errors":[{"reason":"conditionNotMet"}]}}"#;
        let ebs = r#"{"Message":"gone","Reason":"SNAPSHOT_NOT_FOUND"}"#;
        let page = "<html><body><h1>503</h1>\n  busy</body></html>";
        let code = |body, headers: &[(&str, &str)]| answer(400, body, headers).error();
        assert_eq!(code(s3, &[]), ("AccessDenied".to_owned(), "Access Denied".to_owned()));
        assert_eq!(code(google, &[]), ("conditionNotMet".to_owned(), "no".to_owned()));
        let typed = [("x-amzn-errortype", "ValidationException:http://x")];
        assert_eq!(code(ebs, &typed), ("ValidationException/SNAPSHOT_NOT_FOUND".to_owned(), "gone".to_owned()));
        assert_eq!(code(page, &[]), (String::new(), "503 busy".to_owned()));
    }

    #[test]
    fn faults_have_the_class_that_decides_what_is_done() {
        let class = |status, code| class(status, code, 100);
        assert_eq!(class(503, "SlowDown"), Class::Throttled);
        assert_eq!(class(400, "ValidationException/INVALID_BLOCK"), Class::Checksum);
        assert_eq!(super::class(403, "SignatureDoesNotMatch", 1 << 20), Class::Checksum);
        assert_eq!(class(503, ""), Class::Server);
        assert_eq!(class(429, ""), Class::Throttled);
        assert_eq!(class(400, "BadDigest"), Class::Checksum);
        assert_eq!(class(400, "RequestTimeout"), Class::Cut);
        assert_eq!(class(403, "SignatureDoesNotMatch"), Class::Unauthorized);
        assert_eq!(class(403, "AccessDenied"), Class::Refused);
        assert_eq!(class(404, "NoSuchUpload"), Class::Missing);
        assert_eq!(class(501, "NotImplemented"), Class::Refused);
    }

    #[test]
    fn a_service_may_say_when_to_come_back() {
        let now: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        let wait = |value| retry_after(&answer(503, "", &[("retry-after", value)]), now);
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("Tue, 24 Nov 2026 10:00:59 GMT"), Some(Duration::from_secs(59)));
        assert_eq!(wait("soon"), None);
    }

    #[test]
    fn plain_http_leaves_this_machine_not() {
        assert!(Endpoint::new("http://127.0.0.1:9000").parsed().is_ok());
        assert!(Endpoint::new("http://[::1]:9000").parsed().is_ok());
        let error = Endpoint::new("http://s3.example.org").parsed().unwrap_err().to_string();
        assert!(error.contains("give https"), "{error}");
    }

    #[test]
    fn names_are_encoded_once() {
        assert_eq!(encode("a b/ü~", &['/']), "a%20b/%C3%BC~");
    }
}
