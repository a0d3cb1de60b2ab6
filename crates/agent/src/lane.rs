//! The bulk lane's client: files, logs, large messages and orders, each a plain HTTP request.

use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use skein_domain::Digest;
use skein_wire::StartOrder;
use skein_wire::lane::{FILES_PATH, LOGS_PATH, LogCredit, MESSAGES_PATH, ORDERS_PATH};
use skein_wire::message::AttemptRef;
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;

use crate::clock;
use crate::tls;

/// A connection to the engine that is not made within this is given up, ms.
pub(crate) const CONNECT_MS_MAX: u64 = 5_000;
/// An answer that stands still this long is given up, ms.
pub(crate) const STALL_MS_MAX: u64 = 30_000;
/// Longest pause between two tries, ms.
const BACKOFF_MS_MAX: u64 = 2_000;

/// A request of the bulk lane that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LaneError {
    /// The engine answered no; trying again is no use.
    #[error("the engine refused {what}: {status} {text}")]
    Refused {
        /// Method and path.
        what: String,
        /// HTTP status.
        status: u16,
        /// The answer's text.
        text: String,
    },
    /// No answer, or one that may change: worth another try.
    #[error("{what} failed: {why}; is the engine up and reachable?")]
    Unreachable {
        /// Method and path.
        what: String,
        /// The last error.
        why: String,
    },
    /// The bytes are not what the digest says.
    #[error("{what} gave other bytes than its digest says ({got}); the engine's content folder may be damaged")]
    WrongBytes {
        /// Method and path.
        what: String,
        /// Digest of what came.
        got: String,
    },
    /// A file of this machine.
    #[error("{what}: {why}")]
    Local {
        /// What was tried.
        what: String,
        /// The operating system's error.
        why: String,
    },
}

/// One engine's bulk lane. Clones share the token.
#[derive(Debug, Clone)]
pub(crate) struct Lane {
    http: Client,
    base: Arc<str>,
    token: Arc<RwLock<String>>,
}

impl Lane {
    /// A lane to `engine_url` (`http://host:port` or `https://...` with the CA's digest).
    pub(crate) fn new(
        engine_url: &str,
        ca_digest: Option<&str>,
        ca_pem: Option<&str>,
        token: &str,
    ) -> Result<Self, LaneError> {
        let unusable = |why: String| LaneError::Local { what: format!("engine URL '{engine_url}'"), why };
        let url =
            reqwest::Url::parse(engine_url).map_err(|e| unusable(format!("{e}; it looks like http://host:port")))?;
        if url.scheme() == "https" && ca_digest.is_none() {
            return Err(unusable(
                "https needs the digest of the engine's CA; use the join token the engine printed".into(),
            ));
        }
        let tls = tls::client_config(ca_digest, ca_pem).map_err(|e| unusable(e.to_string()))?;
        let http = Client::builder()
            .tls_backend_preconfigured(tls)
            .connect_timeout(Duration::from_millis(CONNECT_MS_MAX))
            .read_timeout(Duration::from_millis(STALL_MS_MAX))
            .tcp_nodelay(true)
            .no_proxy()
            .build()
            .map_err(|e| unusable(e.to_string()))?;
        let base = url.as_str().trim_end_matches('/').into();
        Ok(Self { http, base, token: Arc::new(RwLock::new(token.to_owned())) })
    }

    /// The token of the newest welcome.
    pub(crate) fn set_token(&self, token: &str) {
        let mut held = self.token.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        token.clone_into(&mut held);
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let token = self.token.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&*token)
    }

    async fn ask(&self, method: Method, path: &str, body: Option<reqwest::Body>) -> Result<Response, LaneError> {
        let what = format!("{method} {path}");
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.body(body);
        }
        match request.send().await {
            Ok(answer) => checked(what, answer).await,
            Err(e) => Err(LaneError::Unreachable { what, why: chain(&e) }),
        }
    }

    /// Fetches content into a new file, checking size and digest.
    pub(crate) async fn get_file(&self, digest: &Digest, to: &Path) -> Result<u64, LaneError> {
        let path = format!("{FILES_PATH}{digest}");
        let what = format!("GET {path}");
        let answer = self.ask(Method::GET, &path, None).await?;
        let local =
            |e: std::io::Error| LaneError::Local { what: format!("writing {}", to.display()), why: e.to_string() };
        let mut file = tokio::fs::File::create(to).await.map_err(local)?;
        let mut hasher = blake3::Hasher::new();
        let mut size = 0;
        let mut chunks = answer.bytes_stream();
        loop {
            let chunk = chunks.try_next().await;
            let Some(chunk) = chunk.map_err(|e| LaneError::Unreachable { what: what.clone(), why: chain(&e) })? else {
                break;
            };
            hasher.update(&chunk);
            size += chunk.len() as u64;
            file.write_all(&chunk).await.map_err(local)?;
        }
        file.flush().await.map_err(local)?;
        let got = hasher.finalize().to_hex();
        if got.as_str() == digest.as_str() {
            Ok(size)
        } else {
            Err(LaneError::WrongBytes { what, got: got.to_string() })
        }
    }

    /// Does the engine have this content?
    pub(crate) async fn has_file(&self, digest: &Digest) -> Result<bool, LaneError> {
        match self.ask(Method::HEAD, &format!("{FILES_PATH}{digest}"), None).await {
            Ok(_) => Ok(true),
            Err(LaneError::Refused { status: 404, .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Sends content; the engine checks it against the digest.
    pub(crate) async fn put_file(&self, digest: &Digest, content: Content) -> Result<(), LaneError> {
        let path = format!("{FILES_PATH}{digest}");
        let what = format!("PUT {path}");
        let request = match content {
            Content::Bytes(bytes) => self.request(Method::PUT, &path).body(bytes),
            Content::File(file, size) => self
                .request(Method::PUT, &path)
                .header(reqwest::header::CONTENT_LENGTH, size)
                .body(reqwest::Body::wrap_stream(ReaderStream::with_capacity(file, 256 * 1024))),
        };
        let answer = request.send().await.map_err(|e| LaneError::Unreachable { what: what.clone(), why: chain(&e) })?;
        checked(what, answer).await.map(|_| ())
    }

    /// Sends log chunks; the answer says how much may follow.
    pub(crate) async fn logs(&self, body: Vec<u8>) -> Result<LogCredit, LaneError> {
        let answer = self.ask(Method::POST, LOGS_PATH, Some(body.into())).await?;
        json(format!("POST {LOGS_PATH}"), answer).await
    }

    /// Sends messages that outgrow a frame.
    pub(crate) async fn messages(&self, body: String) -> Result<(), LaneError> {
        self.ask(Method::POST, MESSAGES_PATH, Some(body.into())).await.map(|_| ())
    }

    /// Fetches an order that outgrew a frame.
    pub(crate) async fn order(&self, of: AttemptRef) -> Result<Box<StartOrder>, LaneError> {
        let path = format!("{ORDERS_PATH}{}?generation={}", of.attempt, of.generation);
        let answer = self.ask(Method::GET, &path, None).await?;
        json(format!("GET {path}"), answer).await
    }

    /// Posts JSON to a path without a lane token: joining.
    pub(crate) async fn post_json<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<T, LaneError> {
        let what = format!("POST {path}");
        let request = self.http.post(format!("{}{path}", self.base)).json(body);
        let answer = request.send().await.map_err(|e| LaneError::Unreachable { what: what.clone(), why: chain(&e) })?;
        json(what.clone(), checked(what, answer).await?).await
    }
}

/// What is sent.
pub(crate) enum Content {
    /// From memory.
    Bytes(Bytes),
    /// A file and its size, bytes.
    File(tokio::fs::File, u64),
}

async fn json<T: serde::de::DeserializeOwned>(what: String, answer: Response) -> Result<T, LaneError> {
    answer.json().await.map_err(|e| LaneError::Unreachable { what, why: chain(&e) })
}

/// 401 may be an old token (the engine came back, a new one is on its way); the other 4xx stay no.
async fn checked(what: String, answer: Response) -> Result<Response, LaneError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let text: String = answer.text().await.unwrap_or_default().chars().take(400).collect();
    let may_change = [StatusCode::UNAUTHORIZED, StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    if status.is_client_error() && !may_change.contains(&status) {
        return Err(LaneError::Refused { what, status: status.as_u16(), text });
    }
    Err(LaneError::Unreachable { what, why: format!("{status} {text}") })
}

/// An error with its causes: reqwest's own text alone does not name them.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Tries until it succeeds, is refused, or `limit_ms` have passed.
pub(crate) async fn retried<T, F>(limit_ms: u64, mut attempt: impl FnMut() -> F) -> Result<T, LaneError>
where
    F: Future<Output = Result<T, LaneError>>,
{
    let deadline = clock::now_ms() + limit_ms;
    let mut backoff_ms = 50;
    loop {
        let error = match attempt().await {
            Err(e @ LaneError::Unreachable { .. }) => e,
            done => return done,
        };
        if clock::now_ms() + backoff_ms >= deadline {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(clock::jittered(backoff_ms))).await;
        backoff_ms = (backoff_ms * 2).min(BACKOFF_MS_MAX);
    }
}

/// A client for plain HTTP on this machine.
pub(crate) fn plain_client() -> Result<Client, String> {
    let tls = tls::client_config(None, None).map_err(|e| e.to_string())?;
    let client = Client::builder().tls_backend_preconfigured(tls).tcp_nodelay(true).no_proxy();
    client.build().map_err(|e| chain(&e))
}
