//! A small engine: it serves the control lane and the bulk lane, and remembers what it got.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use skein_domain::task::RunSpec;
use skein_domain::{AttemptEnd, Digest, EngineId};
use skein_wire::join::{JoinRequest, JoinResponse, JoinToken};
use skein_wire::lane::{
    CONNECT_PATH, FILES_PATH, JOIN_PATH, LOGS_PATH, LogCredit, MESSAGES_PATH, ORDERS_PATH, Stream, decode_logs,
};
use skein_wire::message::AttemptRef;
use skein_wire::{FromAgent, Hello, InputFile, OrderBody, StartOrder, ToAgent, frame};
use tokio::sync::mpsc;

pub const LANE_TOKEN: &str = "lane-token";
pub const NONCE: [u8; 32] = [7; 32];

#[derive(Default)]
pub struct Seen {
    pub files: HashMap<String, Vec<u8>>,
    pub logs: BTreeMap<(String, Stream), Vec<u8>>,
    pub log_requests: usize,
    pub messages: Vec<FromAgent>,
    pub hellos: Vec<Hello>,
    pub orders: HashMap<String, StartOrder>,
    pub public_key: Vec<u8>,
    pub connections: usize,
    pub heartbeats: Vec<std::time::Instant>,
    to_agent: Option<mpsc::UnboundedSender<ToAgent>>,
}

/// How it behaves; may change while it runs.
#[derive(Clone, Copy)]
pub struct Manners {
    pub lease_ms: u64,
    pub heartbeat_ms: u64,
    pub answers_heartbeats: bool,
    pub records: bool,
    pub takes_connections: bool,
    pub takes_logs: bool,
}

#[derive(Clone)]
pub struct FakeEngine {
    pub url: String,
    pub ca_digest: Option<String>,
    seen: Arc<Mutex<Seen>>,
    manners: Arc<Mutex<Manners>>,
}

impl FakeEngine {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (engine, router) = Self::new(url, None);
        let listener = axum::serve::ListenerExt::tap_io(listener, |tcp: &mut tokio::net::TcpStream| {
            tcp.set_nodelay(true).unwrap();
        });
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        engine
    }

    /// The same behind TLS, with a CA of its own.
    pub async fn start_tls() -> Self {
        let (acceptor, ca_der) = crate::tls::acceptor();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (engine, router) = Self::new(url, Some(blake3::hash(&ca_der).to_hex().to_string()));
        let listener = crate::tls::TlsListener { listener, acceptor };
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        engine
    }

    fn new(url: String, ca_digest: Option<String>) -> (Self, Router) {
        let manners = Manners {
            lease_ms: 10_000,
            heartbeat_ms: 200,
            answers_heartbeats: true,
            records: true,
            takes_connections: true,
            takes_logs: true,
        };
        let engine = Self { url, ca_digest, seen: Arc::default(), manners: Arc::new(Mutex::new(manners)) };
        let router = Router::new()
            .route(JOIN_PATH, post(join))
            .route(CONNECT_PATH, get(connect))
            .route(&format!("{FILES_PATH}{{digest}}"), get(get_file).put(put_file))
            .route(LOGS_PATH, post(logs))
            .route(MESSAGES_PATH, post(messages))
            .route(&format!("{ORDERS_PATH}{{attempt}}"), get(large_order))
            .layer(DefaultBodyLimit::max(64 << 20))
            .with_state(engine.clone());
        (engine, router)
    }

    pub fn id() -> EngineId {
        EngineId::new("test-engine").unwrap()
    }

    pub fn token(&self) -> String {
        JoinToken { engine: Self::id(), secret: "ab".repeat(32), ca_digest: self.ca_digest.clone() }.encode()
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().unwrap())
    }

    pub fn manners(&self, change: impl FnOnce(&mut Manners)) -> Manners {
        let mut manners = self.manners.lock().unwrap();
        change(&mut manners);
        *manners
    }

    pub fn send(&self, message: ToAgent) {
        self.with(|seen| seen.to_agent.as_ref().unwrap().send(message).unwrap());
    }

    pub fn start_order(&self, order: &StartOrder) {
        let order = order.clone();
        self.send(ToAgent::Start {
            attempt: order.attempt,
            generation: order.generation,
            order: OrderBody::Inline(Box::new(order)),
        });
    }

    /// Cuts the connection.
    pub fn cut(&self) {
        self.with(|seen| seen.to_agent = None);
    }

    pub fn add_file(&self, path: &str, bytes: &[u8]) -> InputFile {
        let digest = Digest::new(blake3::hash(bytes).to_hex().as_str()).unwrap();
        self.with(|seen| seen.files.insert(digest.to_string(), bytes.to_vec()));
        InputFile { path: path.into(), digest, size: bytes.len() as u64 }
    }

    pub fn log(&self, of: AttemptRef, stream: Stream) -> String {
        let bytes = self.with(|seen| seen.logs.get(&(of.attempt.to_string(), stream)).cloned().unwrap_or_default());
        String::from_utf8(bytes).unwrap()
    }

    /// Waits for a message; messages before it stay for others.
    pub async fn wait<T>(&self, name: &str, find: impl Fn(&FromAgent) -> Option<T>) -> T {
        for _ in 0..10_000 {
            if let Some(found) = self.with(|seen| seen.messages.iter().find_map(&find)) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("waited 20 s for {name}; got {:?}", self.with(|seen| seen.messages.clone()));
    }

    pub async fn end_of(&self, of: AttemptRef) -> AttemptEnd {
        self.wait(&format!("the end of {of:?}"), |m| match m {
            FromAgent::Ended { order, end } if *order == of => Some((**end).clone()),
            _ => None,
        })
        .await
    }

    pub async fn started(&self, of: AttemptRef) {
        self.wait(&format!("the start of {of:?}"), |m| (*m == FromAgent::Started(of)).then_some(())).await;
    }

    /// Waits for the `n`-th hello (from 1).
    pub async fn hello(&self, n: usize) -> Hello {
        for _ in 0..10_000 {
            if let Some(hello) = self.with(|seen| seen.hellos.get(n - 1).cloned()) {
                return hello;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("waited 20 s for hello {n}");
    }

    fn got(&self, message: FromAgent) -> Vec<ToAgent> {
        let manners = *self.manners.lock().unwrap();
        let answer = match &message {
            FromAgent::Hello(hello) => {
                self.check(hello);
                let Manners { lease_ms, heartbeat_ms, .. } = manners;
                vec![ToAgent::Welcome { lease_ms, heartbeat_ms, lane_token: LANE_TOKEN.into() }]
            }
            FromAgent::Heartbeat { number, .. } if manners.answers_heartbeats => {
                vec![ToAgent::Lease {
                    heartbeat: *number,
                    lease_ms: manners.lease_ms,
                    heartbeat_ms: manners.heartbeat_ms,
                }]
            }
            FromAgent::Ended { order, .. } if manners.records => vec![ToAgent::Recorded { attempts: vec![*order] }],
            _ => vec![],
        };
        self.with(|seen| match message {
            FromAgent::Hello(hello) => seen.hellos.push(*hello),
            FromAgent::Heartbeat { .. } => seen.heartbeats.push(std::time::Instant::now()),
            message => seen.messages.push(message),
        });
        answer
    }

    fn check(&self, hello: &Hello) {
        let mut signed = NONCE.to_vec();
        signed.extend_from_slice(hello.boot.as_bytes());
        let key = self.with(|seen| seen.public_key.clone());
        let signature = BASE64.decode(&hello.signature).unwrap();
        ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key).verify(&signed, &signature).unwrap();
    }
}

/// An attempt at item `item` that runs `argv`.
pub fn order(item: u32, generation: u64, argv: &[&str]) -> StartOrder {
    StartOrder {
        engine: FakeEngine::id(),
        attempt: format!("s-1.0.{item}.1").parse().unwrap(),
        generation,
        node: "node".into(),
        run: RunSpec::Command(argv.iter().map(ToString::to_string).collect()),
        env: BTreeMap::new(),
        secret_env: vec![],
        inputs: vec![],
        outputs: vec![],
        cpu: 0,
        memory_mb: 256,
        slots: 1,
        limit_ms: Some(30_000),
        grace_ms: 300,
        stdin: false,
        proprietary: None,
    }
}

pub fn of(order: &StartOrder) -> AttemptRef {
    AttemptRef { attempt: order.attempt, generation: order.generation }
}

async fn join(State(engine): State<FakeEngine>, Json(request): Json<JoinRequest>) -> Response {
    if request.secret != "ab".repeat(32) || request.engine != FakeEngine::id() {
        return (StatusCode::FORBIDDEN, "wrong token").into_response();
    }
    engine.with(|seen| seen.public_key = BASE64.decode(&request.public_key).unwrap());
    Json(JoinResponse { instance: request.instance, engine: request.engine, ca_pem: None }).into_response()
}

async fn connect(State(engine): State<FakeEngine>, upgrade: WebSocketUpgrade) -> Response {
    if !engine.manners(|_| ()).takes_connections {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    upgrade.on_upgrade(move |socket| converse(engine, socket))
}

async fn converse(engine: FakeEngine, mut socket: WebSocket) {
    let (sender, mut to_agent) = mpsc::unbounded_channel();
    engine.with(|seen| {
        seen.to_agent = Some(sender);
        seen.connections += 1;
    });
    let challenge = ToAgent::Challenge { nonce: BASE64.encode(NONCE), engine: FakeEngine::id(), protocol: 1 };
    let text = |messages: &[ToAgent]| Message::Text(frame::encode(messages).unwrap().into());
    socket.send(text(&[challenge])).await.unwrap();
    loop {
        let answer = tokio::select! {
            message = to_agent.recv() => match message {
                Some(message) => vec![message],
                None => return,
            },
            received = socket.recv() => match received {
                Some(Ok(Message::Text(text))) => frame::decode(&text).unwrap().into_iter().flat_map(|m| engine.got(m)).collect(),
                Some(Ok(_)) => continue,
                _ => return,
            },
        };
        if !answer.is_empty() && socket.send(text(&answer)).await.is_err() {
            return;
        }
    }
}

fn allowed(headers: &HeaderMap) -> bool {
    headers.get("authorization").is_some_and(|h| h.to_str().unwrap() == format!("Bearer {LANE_TOKEN}"))
}

async fn get_file(State(engine): State<FakeEngine>, Path(digest): Path<String>, headers: HeaderMap) -> Response {
    if !allowed(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    match engine.with(|seen| seen.files.get(&digest).cloned()) {
        Some(bytes) => bytes.into_response(),
        None => (StatusCode::NOT_FOUND, "no such content").into_response(),
    }
}

async fn put_file(
    State(engine): State<FakeEngine>,
    Path(digest): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !allowed(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    assert_eq!(blake3::hash(&body).to_hex().as_str(), digest);
    engine.with(|seen| seen.files.insert(digest, body.to_vec()));
    StatusCode::NO_CONTENT.into_response()
}

async fn logs(State(engine): State<FakeEngine>, headers: HeaderMap, body: Bytes) -> Response {
    if !allowed(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if !engine.manners(|_| ()).takes_logs {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    engine.with(|seen| {
        seen.log_requests += 1;
        for chunk in decode_logs(&body).unwrap() {
            let log = seen.logs.entry((chunk.attempt.to_string(), chunk.stream)).or_default();
            assert!(usize::try_from(chunk.offset).unwrap() <= log.len(), "a gap");
            log.truncate(usize::try_from(chunk.offset).unwrap());
            log.extend(chunk.bytes);
        }
    });
    Json(LogCredit { credit_bytes: 1 << 20, wait_ms: 0 }).into_response()
}

async fn messages(State(engine): State<FakeEngine>, headers: HeaderMap, body: Bytes) -> Response {
    if !allowed(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    for message in frame::decode_large(&body).unwrap() {
        for answer in engine.got(message) {
            engine.send(answer);
        }
    }
    StatusCode::NO_CONTENT.into_response()
}

async fn large_order(State(engine): State<FakeEngine>, Path(attempt): Path<String>, headers: HeaderMap) -> Response {
    if !allowed(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    match engine.with(|seen| seen.orders.get(&attempt).cloned()) {
        Some(order) => Json(order).into_response(),
        None => (StatusCode::NOT_FOUND, "no such order").into_response(),
    }
}
