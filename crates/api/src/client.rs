//! The typed client. Every call says what failed and what to do next.

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use reqwest::{Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::images::{
    ChooseRequest, DeployRequest, ImageChoiceView, ImageView, ImportRequest, LabelRequest, Missing, MissingRequest,
    OperationView,
};
use crate::types::{
    AnswerRequest, AnswersRequest, AttemptQuery, AttemptView, CancelRequest, DocumentView, ErrorBody, EventView,
    Health, InputRequest, InstanceView, LogPiece, LogSearch, MetricValue, MetricView, NewToken, PageQuery,
    PauseRequest, PlanView, ReplySecret, RerunRequest, ResumeRequest, RetryNowRequest, SecretValue, SecretView,
    SessionDetail, SessionSummary, SignalRequest, SolutionView, StartRequest, Started, TokenRequest, TokenView, Why,
};

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No engine answers there.
    #[error("no engine answers at {url}: {source}; start one with 'skein up', or name another with --engine")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The engine refused.
    #[error("{}{}", .body.error, .body.next_step.as_ref().map(|n| format!("; {n}")).unwrap_or_default())]
    Refused {
        /// HTTP status.
        status: u16,
        /// What and next step.
        body: ErrorBody,
    },
    /// The answer makes no sense.
    #[error("the engine's answer cannot be read ({0}): is it another version?")]
    Answer(String),
}

/// A client of one engine.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Client {
    /// A client of the engine at `url` (`http://host:port`), with an API token.
    pub fn new(http: reqwest::Client, url: &str, token: &str) -> Self {
        Self { http, url: url.trim_end_matches('/').to_owned(), token: token.to_owned() }
    }

    /// Where the engine is.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ApiError> {
        let response =
            request.send().await.map_err(|source| ApiError::Unreachable { url: self.url.clone(), source })?;
        let status = response.status().as_u16();
        if status < 400 {
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        let body = serde_json::from_str(&text)
            .unwrap_or(ErrorBody { error: format!("status {status}: {text}"), next_step: None });
        Err(ApiError::Refused { status, body })
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ApiError> {
        let response = self.send(request).await?;
        response.json().await.map_err(|e| ApiError::Answer(e.to_string()))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.json(self.request(Method::GET, path)).await
    }

    async fn with_body<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T, ApiError> {
        self.json(self.request(method, path).json(body)).await
    }

    /// A request whose path has parts that people give.
    fn at(&self, method: Method, parts: &[&str]) -> RequestBuilder {
        let mut path = "/api/v1".to_owned();
        for part in parts {
            path.push('/');
            // RFC 3986, section 2.3: what needs no escape.
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or('0').to_ascii_uppercase();
            for byte in part.bytes() {
                if plain(byte) {
                    path.push(char::from(byte));
                } else {
                    path.extend(['%', digit(byte >> 4), digit(byte & 15)]);
                }
            }
        }
        self.request(method, &path)
    }

    /// A body as it is; none when there is no such thing.
    async fn bytes(&self, request: RequestBuilder) -> Result<Option<Bytes>, ApiError> {
        match self.send(request).await {
            Ok(response) => response.bytes().await.map(Some).map_err(|e| ApiError::Answer(e.to_string())),
            Err(ApiError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn done(&self, request: RequestBuilder) -> Result<(), ApiError> {
        self.send(request).await.map(|_| ())
    }

    /// Is it up, and well? (No token needed.) An engine that is up and not well says why.
    pub async fn health(&self) -> Result<Health, ApiError> {
        let request = self.request(Method::GET, "/healthz");
        let response =
            request.send().await.map_err(|source| ApiError::Unreachable { url: self.url.clone(), source })?;
        response.json().await.map_err(|e| ApiError::Answer(e.to_string()))
    }
    /// Starts a session.
    pub async fn start(&self, request: &StartRequest) -> Result<Started, ApiError> {
        self.with_body(Method::POST, "/api/v1/sessions", request).await
    }
    /// What a session would do.
    pub async fn plan(&self, request: &StartRequest) -> Result<PlanView, ApiError> {
        self.with_body(Method::POST, "/api/v1/plan", request).await
    }
    /// Sessions, newest first.
    pub async fn sessions(&self, page: PageQuery) -> Result<Vec<SessionSummary>, ApiError> {
        self.get(&format!("/api/v1/sessions?offset={}&limit={}", page.offset, page.limit)).await
    }
    /// One session.
    pub async fn session(&self, id: &str) -> Result<SessionDetail, ApiError> {
        self.get(&format!("/api/v1/sessions/{id}")).await
    }
    /// Stops a session.
    pub async fn stop(&self, id: &str) -> Result<(), ApiError> {
        self.done(self.request(Method::POST, &format!("/api/v1/sessions/{id}/stop"))).await
    }
    /// Starts nothing new in a session; with `stop_running`, what runs is stopped to be started again.
    pub async fn pause(&self, id: &str, stop_running: bool) -> Result<(), ApiError> {
        let path = format!("/api/v1/sessions/{id}/pause");
        self.done(self.request(Method::POST, &path).json(&PauseRequest { stop_running })).await
    }
    /// Lets a paused session go on.
    pub async fn resume(&self, id: &str, budget_nano_usd: Option<i64>) -> Result<(), ApiError> {
        let ask = ResumeRequest { budget_nano_usd };
        self.done(self.request(Method::POST, &format!("/api/v1/sessions/{id}/resume")).json(&ask)).await
    }
    /// Runs a session's thread again: what did not succeed, or all of it.
    pub async fn rerun(&self, id: &str, all: bool) -> Result<Started, ApiError> {
        self.with_body(Method::POST, &format!("/api/v1/sessions/{id}/rerun"), &RerunRequest { all }).await
    }
    /// Cancels items of a task, by ranges of indices; all when there is none.
    pub async fn cancel(&self, session: &str, node: &str, ranges: Vec<(u32, u32)>) -> Result<(), ApiError> {
        let path = format!("/api/v1/sessions/{session}/nodes/{node}/cancel");
        self.done(self.request(Method::POST, &path).json(&CancelRequest { ranges })).await
    }
    /// Sends an attempt a signal.
    pub async fn signal(&self, attempt: &str, signal: &str) -> Result<(), ApiError> {
        let body = SignalRequest { signal: signal.to_owned() };
        self.done(self.request(Method::POST, &format!("/api/v1/attempts/{attempt}/signal")).json(&body)).await
    }
    /// Gives an attempt's standard input a line, or its end.
    pub async fn input(&self, attempt: &str, input: &InputRequest) -> Result<(), ApiError> {
        self.done(self.request(Method::POST, &format!("/api/v1/attempts/{attempt}/input")).json(input)).await
    }
    /// A session's attempts behind one, or from the first.
    pub async fn attempts(&self, id: &str, after: Option<&str>, limit: u32) -> Result<Vec<AttemptView>, ApiError> {
        let query = AttemptQuery { after: after.map(str::to_owned), offset: 0, limit };
        self.json(self.request(Method::GET, &format!("/api/v1/sessions/{id}/attempts")).query(&query)).await
    }
    /// Why an item is where it is.
    pub async fn why(&self, session: &str, node: &str, index: u32) -> Result<Why, ApiError> {
        self.get(&format!("/api/v1/sessions/{session}/nodes/{node}/items/{index}/why")).await
    }
    /// Answers an item whose place was lost: try it again, or let it end.
    pub async fn answer(&self, session: &str, node: &str, index: u32, again: bool) -> Result<(), ApiError> {
        let path = format!("/api/v1/sessions/{session}/nodes/{node}/items/{index}/answer");
        self.done(self.request(Method::POST, &path).json(&AnswerRequest { again })).await
    }
    /// Answers the items of a task that ask, in ranges of indices; all that ask when there is none.
    pub async fn answer_many(
        &self,
        session: &str,
        node: &str,
        again: bool,
        ranges: Vec<(u32, u32)>,
    ) -> Result<(), ApiError> {
        let path = format!("/api/v1/sessions/{session}/nodes/{node}/answer");
        self.done(self.request(Method::POST, &path).json(&AnswersRequest { again, ranges })).await
    }
    /// Has items of a task that wait for their back-off tried now, by ranges of indices; all when there is none.
    pub async fn retry_now(&self, session: &str, node: &str, ranges: Vec<(u32, u32)>) -> Result<(), ApiError> {
        let path = format!("/api/v1/sessions/{session}/nodes/{node}/retry-now");
        self.done(self.request(Method::POST, &path).json(&RetryNowRequest { ranges })).await
    }
    /// Tasks (`kind` = `tasks`) or threads (`threads`) of the repository.
    pub async fn documents(&self, kind: &str) -> Result<Vec<DocumentView>, ApiError> {
        self.get(&format!("/api/v1/{kind}")).await
    }
    /// One of them.
    pub async fn document(&self, kind: &str, name: &str, version: Option<u64>) -> Result<DocumentView, ApiError> {
        let version = version.map(|v| format!("?version={v}")).unwrap_or_default();
        self.get(&format!("/api/v1/{kind}/{name}{version}")).await
    }
    /// Stores a new version.
    pub async fn put_document(
        &self,
        kind: &str,
        name: &str,
        document: &serde_json::Value,
    ) -> Result<DocumentView, ApiError> {
        self.with_body(Method::PUT, &format!("/api/v1/{kind}/{name}"), document).await
    }
    /// Removes one from the repository.
    pub async fn remove_document(&self, kind: &str, name: &str) -> Result<(), ApiError> {
        self.done(self.request(Method::DELETE, &format!("/api/v1/{kind}/{name}"))).await
    }
    /// Solutions.
    pub async fn solutions(&self) -> Result<Vec<SolutionView>, ApiError> {
        self.get("/api/v1/solutions").await
    }
    /// Instances.
    pub async fn instances(&self) -> Result<Vec<InstanceView>, ApiError> {
        self.get("/api/v1/instances").await
    }
    /// Drains an instance.
    pub async fn drain(&self, instance: &str) -> Result<(), ApiError> {
        self.done(self.request(Method::POST, &format!("/api/v1/instances/{instance}/drain"))).await
    }

    /// The secret that webhooks are signed with.
    pub async fn reply_secret(&self) -> Result<ReplySecret, ApiError> {
        self.get("/api/v1/reply-secret").await
    }
    /// Says that its cloud takes an instance away.
    pub async fn notice(&self, instance: &str) -> Result<(), ApiError> {
        self.done(self.request(Method::POST, &format!("/api/v1/instances/{instance}/notice"))).await
    }
    /// Metrics of scaling elements that the engine carries out.
    pub async fn metrics(&self) -> Result<Vec<MetricView>, ApiError> {
        self.get("/api/v1/metrics").await
    }
    /// Says a value of a custom metric.
    pub async fn say_metric(&self, metric: &str, value: &MetricValue) -> Result<(), ApiError> {
        self.done(self.request(Method::PUT, &format!("/api/v1/metrics/{metric}")).json(value)).await
    }
    /// Names of secrets.
    pub async fn secrets(&self) -> Result<Vec<SecretView>, ApiError> {
        self.get("/api/v1/secrets").await
    }
    /// Sets a secret.
    pub async fn set_secret(&self, name: &str, value: &str) -> Result<(), ApiError> {
        let body = SecretValue { value: value.to_owned() };
        self.done(self.request(Method::PUT, &format!("/api/v1/secrets/{name}")).json(&body)).await
    }
    /// Removes a secret.
    pub async fn remove_secret(&self, name: &str) -> Result<(), ApiError> {
        self.done(self.request(Method::DELETE, &format!("/api/v1/secrets/{name}"))).await
    }
    /// API tokens.
    pub async fn tokens(&self) -> Result<Vec<TokenView>, ApiError> {
        self.get("/api/v1/tokens").await
    }
    /// Makes an API token.
    pub async fn new_token(&self, user: &str) -> Result<NewToken, ApiError> {
        self.with_body(Method::POST, "/api/v1/tokens", &TokenRequest { user: user.to_owned() }).await
    }
    /// Revokes an API token.
    pub async fn revoke_token(&self, id: &str) -> Result<(), ApiError> {
        self.done(self.request(Method::DELETE, &format!("/api/v1/tokens/{id}"))).await
    }
    /// Makes a one-time join token.
    pub async fn join_token(&self) -> Result<NewToken, ApiError> {
        self.json(self.request(Method::POST, "/api/v1/join-tokens")).await
    }
    /// The configuration in force.
    pub async fn config(&self) -> Result<serde_json::Value, ApiError> {
        self.get("/api/v1/config").await
    }
    /// The image catalogue, newest first.
    pub async fn images(&self) -> Result<Vec<ImageView>, ApiError> {
        self.get("/api/v1/images").await
    }
    /// One image, by id, the beginning of one, or name.
    pub async fn image(&self, image: &str) -> Result<ImageView, ApiError> {
        self.json(self.at(Method::GET, &["images", image])).await
    }
    /// Changes its name and tags.
    pub async fn label_image(&self, image: &str, labels: &LabelRequest) -> Result<ImageView, ApiError> {
        self.json(self.at(Method::PATCH, &["images", image]).json(labels)).await
    }
    /// Forgets it.
    pub async fn remove_image(&self, image: &str) -> Result<(), ApiError> {
        self.done(self.at(Method::DELETE, &["images", image])).await
    }
    /// What its store says of it; none when it is not there.
    pub async fn image_manifest(&self, id: &str) -> Result<Option<Bytes>, ApiError> {
        self.bytes(self.at(Method::GET, &["images", id, "manifest"])).await
    }
    /// Makes an image of the chunks and lists that were sent; the engine reads it before it answers.
    pub async fn put_image_manifest(&self, id: &str, manifest: Vec<u8>) -> Result<ImageView, ApiError> {
        self.json(self.at(Method::PUT, &["images", id, "manifest"]).body(manifest)).await
    }
    /// A list of its chunks: `chunks` of its disk, `native` of the file that it came in.
    pub async fn image_list(&self, id: &str, list: &str) -> Result<Option<Bytes>, ApiError> {
        self.bytes(self.at(Method::GET, &["images", id, "lists", list])).await
    }
    /// Sends a list.
    pub async fn put_image_list(&self, id: &str, list: &str, bytes: Vec<u8>) -> Result<(), ApiError> {
        self.done(self.at(Method::PUT, &["images", id, "lists", list]).body(bytes)).await
    }
    /// Which of these chunks does the store lack?
    pub async fn missing_chunks(&self, chunks: Vec<String>) -> Result<Vec<bool>, ApiError> {
        let request = self.request(Method::POST, "/api/v1/images/missing").json(&MissingRequest { chunks });
        Ok(self.json::<Missing>(request).await?.missing)
    }
    /// Sends chunks: for each the length of its packed bytes (4 bytes, little-endian), then those.
    pub async fn put_chunks(&self, framed: Vec<u8>) -> Result<(), ApiError> {
        self.done(self.request(Method::POST, "/api/v1/images/chunks").body(framed)).await
    }
    /// A chunk, packed.
    pub async fn chunk(&self, chunk: &str) -> Result<Option<Bytes>, ApiError> {
        self.bytes(self.at(Method::GET, &["images", "chunks", chunk])).await
    }
    /// Has the engine take an image in from a URL.
    pub async fn import_image(&self, request: &ImportRequest) -> Result<OperationView, ApiError> {
        self.with_body(Method::POST, "/api/v1/images/import", request).await
    }
    /// Has it bring an image to a destination.
    pub async fn deploy_image(&self, image: &str, request: &DeployRequest) -> Result<OperationView, ApiError> {
        self.json(self.at(Method::POST, &["images", image, "deploy"]).json(request)).await
    }
    /// Has it collect what no image has (`gc`), or read all of the store (`scrub`).
    pub async fn image_upkeep(&self, what: &str) -> Result<OperationView, ApiError> {
        self.json(self.at(Method::POST, &["images", what])).await
    }
    /// Chooses an image for a machine.
    pub async fn choose_image(&self, request: &ChooseRequest) -> Result<ImageChoiceView, ApiError> {
        self.with_body(Method::POST, "/api/v1/images/choose", request).await
    }
    /// Operations, newest first; those that are over are forgotten after an hour.
    pub async fn operations(&self) -> Result<Vec<OperationView>, ApiError> {
        self.get("/api/v1/operations").await
    }
    /// One operation.
    pub async fn operation(&self, id: &str) -> Result<OperationView, ApiError> {
        self.json(self.at(Method::GET, &["operations", id])).await
    }
    /// Ends an operation.
    pub async fn cancel_operation(&self, id: &str) -> Result<(), ApiError> {
        self.done(self.at(Method::DELETE, &["operations", id])).await
    }
    /// Is this content there?
    pub async fn has_file(&self, digest: &str) -> Result<bool, ApiError> {
        match self.send(self.request(Method::HEAD, &format!("/api/v1/files/{digest}"))).await {
            Ok(_) => Ok(true),
            Err(ApiError::Refused { status: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
    /// Stores content under its digest.
    pub async fn put_file(&self, digest: &str, body: reqwest::Body) -> Result<(), ApiError> {
        self.done(self.request(Method::PUT, &format!("/api/v1/files/{digest}")).body(body)).await
    }
    /// Content by digest, as a stream.
    pub async fn get_file(
        &self,
        digest: &str,
    ) -> Result<impl Stream<Item = Result<Bytes, reqwest::Error>> + use<>, ApiError> {
        Ok(self.send(self.request(Method::GET, &format!("/api/v1/files/{digest}"))).await?.bytes_stream())
    }
    /// Lines of a session's logs that hold `text`, or that it matches as a regular expression.
    pub async fn search_logs(
        &self,
        session: &str,
        text: &str,
        regex: bool,
        node: Option<&str>,
        limit: u32,
    ) -> Result<LogSearch, ApiError> {
        let request = self.request(Method::GET, &format!("/api/v1/sessions/{session}/logs/search"));
        let limit = limit.to_string();
        let mut query = vec![("text", text), ("regex", if regex { "true" } else { "false" }), ("limit", &limit)];
        query.extend(node.map(|node| ("node", node)));
        self.json(request.query(&query)).await
    }
    /// One attempt's log stream (`out` or `err`) as it is now.
    pub async fn log(&self, attempt: &str, stream: &str) -> Result<Bytes, ApiError> {
        let response =
            self.send(self.request(Method::GET, &format!("/api/v1/attempts/{attempt}/log/{stream}"))).await?;
        response.bytes().await.map_err(|e| ApiError::Answer(e.to_string()))
    }
    /// A session's logs and events from `after` on, as server-sent events; the stream ends with the
    /// session.
    pub async fn follow(
        &self,
        session: &str,
        after: u64,
        what: Following,
    ) -> Result<impl Stream<Item = Result<Sent, ApiError>> + use<>, ApiError> {
        let (logs, events) = match what {
            Following::Events => (false, true),
            Following::Logs => (true, false),
            Following::Both => (true, true),
            Following::End => (false, false),
        };
        let path = format!("/api/v1/sessions/{session}/stream?after={after}&logs={logs}&events={events}");
        let response = self.send(self.request(Method::GET, &path)).await?;
        Ok(server_sent(response))
    }
}

/// What a follower of a session is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Following {
    /// What happens.
    Events,
    /// What its attempts write.
    Logs,
    /// Both, in order.
    Both,
    /// Nothing: the stream ends with the session.
    End,
}

/// One server-sent event of a session's stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Sent {
    /// A change.
    Event(EventView),
    /// A piece of a log.
    Log(LogPiece),
}

/// Reads `event:`/`data:` blocks.
fn server_sent(response: Response) -> impl Stream<Item = Result<Sent, ApiError>> {
    let mut buffer: Vec<u8> = Vec::new();
    response.bytes_stream().flat_map(move |piece| {
        let mut out = Vec::new();
        match piece {
            Err(error) => out.push(Err(ApiError::Answer(error.to_string()))),
            Ok(bytes) => {
                buffer.extend_from_slice(&bytes);
                while let Some(at) = buffer.windows(2).position(|w| w == b"\n\n") {
                    let block: Vec<u8> = buffer.drain(..at + 2).collect();
                    out.extend(parse_block(&String::from_utf8_lossy(&block)));
                }
            }
        }
        futures_util::stream::iter(out)
    })
}

fn parse_block(block: &str) -> Option<Result<Sent, ApiError>> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim_start);
    let data = field("data:")?;
    let parsed = match field("event:") {
        Some("log") => serde_json::from_str(data).map(Sent::Log),
        _ => serde_json::from_str(data).map(Sent::Event),
    };
    Some(parsed.map_err(|e| ApiError::Answer(e.to_string())))
}
