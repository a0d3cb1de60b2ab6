//! The local function host: the embedded shared solution, for one machine.
//!
//! | request | answer |
//! |---|---|
//! | `POST /invoke`, an [`Invocation`], header `Idempotency-Key` | 200 [`InvocationResult`]; 504 with one when the hard timeout struck, 502 when the runner died, 429 over the concurrency limit, 409 for a stale generation |
//! | the same with `Skein-Reattach: 1` | as above if the key is known (running, or done within 10 min), else 404 `{"error":"unknown"}` |
//! | `POST /cancel`, header `Idempotency-Key` | 204; the invocation ends as cancelled |
//! | `POST /scale`, `{"min_warm": N}` | [`Status`] |
//! | `GET /status` | [`Status`] |
//!
//! One invocation: `new -> (warm runner | cold start) -> running -> done -> forgotten`. It belongs to
//! the host, not to the connection that brought it: a caller that goes away may come back with the
//! same key, and a doubled key never runs twice. Failure paths: over time -> the runner is killed
//! with everything it started, then the answer goes out; the runner dies -> lost; the host dies ->
//! its runners read the end of their standard input and end, and so do their attempts.

mod calls;
mod pool;
mod runner;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use serde::{Deserialize, Serialize};
use serde_json::json;
use skein_domain::task::RunSpec;
use skein_wire::Invocation;
use skein_wire::lane::MESSAGES_BYTES_MAX;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::AgentError;
use crate::faces::http::has_key;
use crate::folder::private_dirs;
use crate::spawner::Programs;
use calls::{Calls, Known};
use pool::Pool;

/// Results are kept this long for callers that come back, ms.
pub(crate) const RESULT_KEPT_MS: u64 = 600_000;
/// Most warm runners that may be asked for.
pub(crate) const MIN_WARM_MAX: u32 = 1_000;
/// Warm runners and old results are looked after this often, ms.
const TEND_MS: u64 = 100;

/// How a function host is to run.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// Loopback address to listen on; port 0 = any.
    pub listen: SocketAddr,
    /// Its own folder.
    pub dir: PathBuf,
    /// Invocations at a time; more get 429.
    pub concurrency: u32,
    /// Hard limit of one invocation, ms.
    pub timeout_ms: u64,
    /// Runners kept warm.
    pub min_warm: u32,
    /// A warm runner beyond `min_warm` ends after idling this long, ms.
    pub idle_ms: u64,
    /// Bearer key that every request must carry.
    pub key: Option<String>,
    /// What tasks may call by name (`function = "NAME"`): program and arguments.
    pub functions: BTreeMap<String, Vec<String>>,
    /// The bound address is written here as a line, when the host is ready.
    pub announce_file: Option<PathBuf>,
    /// How our own binary is called; [`Programs::own`] when absent.
    pub programs: Option<Programs>,
}

impl HostOptions {
    /// A host on any loopback port: as many invocations as CPUs, 15 minutes, warm runners for 30 s.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            dir: dir.into(),
            concurrency: crate::facts::cpus(),
            timeout_ms: 900_000,
            min_warm: 0,
            idle_ms: 30_000,
            key: None,
            functions: BTreeMap::new(),
            announce_file: None,
            programs: None,
        }
    }
}

/// What `GET /status` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Invocations that run.
    pub running: u32,
    /// Runners that wait for one.
    pub warm: u32,
    /// Invocations at a time.
    pub concurrency: u32,
    /// Hard limit of one invocation, ms.
    pub timeout_ms: u64,
    /// Runners kept warm.
    pub min_warm: u32,
    /// A warm runner beyond that ends after idling this long, ms.
    pub idle_ms: u64,
    /// Invocations taken since the host started.
    pub invocations: u64,
    /// Those that had to wait for a new runner.
    pub cold_starts: u64,
    /// What that took, half of the last 1,000 times at most, ms.
    pub cold_start_ms_p50: Option<u64>,
    /// What that took, 99 % of the last 1,000 times at most, ms.
    pub cold_start_ms_p99: Option<u64>,
}

/// Binds, announces, serves until SIGTERM or Ctrl-C.
pub async fn run_function_host(options: HostOptions) -> Result<(), AgentError> {
    let host = FunctionHost::bind(options).await?;
    let signals = |kind| signal(kind).map_err(|e| AgentError::system("listening for signals", &e));
    let (mut terminate, mut interrupt) = (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
    tokio::select! {
        served = host.serve() => served,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// A host that listens.
pub struct FunctionHost {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    key: Option<String>,
    functions: BTreeMap<String, Vec<String>>,
    calls: Calls,
}

impl FunctionHost {
    /// Binds the address. Only loopback is accepted: the host speaks no TLS.
    pub async fn bind(options: HostOptions) -> Result<Self, AgentError> {
        let unheard = |why: String| AgentError::Listen { address: options.listen.to_string(), why };
        if !options.listen.ip().is_loopback() {
            return Err(unheard(
                "the function host speaks no TLS, so it listens on loopback only: use 127.0.0.1".into(),
            ));
        }
        private_dirs(&options.dir).map_err(|e| AgentError::folder("make", &options.dir, &e))?;
        let listener = TcpListener::bind(options.listen).await.map_err(|e| unheard(e.to_string()))?;
        let address = listener.local_addr().map_err(|e| unheard(e.to_string()))?;
        let pool = Pool::new(&options)?;
        let shared = Arc::new(Shared {
            key: options.key.clone(),
            functions: options.functions.clone(),
            calls: Calls::new(pool)?,
        });
        if let Some(file) = &options.announce_file {
            let part = file.with_extension("part");
            let write = std::fs::write(&part, format!("{address}\n")).and_then(|()| std::fs::rename(&part, file));
            write.map_err(|e| AgentError::folder("write", file, &e))?;
        }
        tracing::info!(%address, "function host ready");
        Ok(Self { listener, address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until dropped; then its runners end.
    pub async fn serve(self) -> Result<(), AgentError> {
        let router = Router::new()
            .route("/invoke", post(invoke))
            .route("/cancel", post(cancel))
            .route("/scale", post(scale))
            .route("/status", get(status))
            .layer(DefaultBodyLimit::max(MESSAGES_BYTES_MAX))
            .with_state(Arc::clone(&self.shared));
        let listener = self.listener.tap_io(|tcp| {
            tcp.set_nodelay(true).ok();
        });
        let address = self.address.to_string();
        let tend = async {
            loop {
                self.shared.calls.tend();
                tokio::time::sleep(Duration::from_millis(TEND_MS)).await;
            }
        };
        let served = tokio::select! {
            served = axum::serve(listener, router).into_future() => served,
            () = tend => Ok(()),
        };
        self.shared.calls.end();
        served.map_err(|e| AgentError::Listen { address, why: e.to_string() })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.calls.end();
    }
}

fn no(status: StatusCode, error: &str, why: impl std::fmt::Display) -> Response {
    (status, Json(json!({ "error": error, "why": why.to_string() }))).into_response()
}

fn unauthorized() -> Response {
    no(StatusCode::UNAUTHORIZED, "unauthorized", "the request bears no valid key of this function host")
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

async fn invoke(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    if !has_key(&headers, shared.key.as_deref()) {
        return unauthorized();
    }
    let reattach = header(&headers, "skein-reattach") == Some("1");
    let invocation = serde_json::from_slice::<Invocation>(&body).map_err(|e| e.to_string());
    let key = match (header(&headers, "idempotency-key"), &invocation) {
        (Some(key), _) => key.to_owned(),
        (None, Ok(invocation)) => format!("{}:{}", invocation.order.attempt, invocation.order.generation),
        (None, Err(why)) => return no(StatusCode::BAD_REQUEST, "malformed", why),
    };
    let known = match (shared.calls.find(&key), invocation) {
        (Some(known), _) => known,
        (None, _) if reattach => {
            return no(StatusCode::NOT_FOUND, "unknown", "no invocation with this key within 10 minutes");
        }
        (None, Err(why)) => return no(StatusCode::BAD_REQUEST, "malformed", format!("not an invocation: {why}")),
        (None, Ok(mut invocation)) => {
            if let RunSpec::Function { reference } = &invocation.order.run {
                match shared.functions.get(reference) {
                    Some(argv) => invocation.order.run = RunSpec::Command(argv.clone()),
                    None => return unknown_function(&shared, reference),
                }
            }
            match shared.calls.begin(&key, invocation) {
                Known::Call(call) => call,
                Known::Busy { limit } => {
                    return no(
                        StatusCode::TOO_MANY_REQUESTS,
                        "busy",
                        format!("{limit} invocations run, which is the concurrency limit"),
                    );
                }
                Known::Stale { last } => {
                    return no(
                        StatusCode::CONFLICT,
                        "stale",
                        format!("generation {last} of the same item was here before"),
                    );
                }
            }
        }
    };
    let answer = known.answer().await;
    (answer.status, Json(&answer.result)).into_response()
}

fn unknown_function(shared: &Shared, name: &str) -> Response {
    let known: Vec<&str> = shared.functions.keys().map(String::as_str).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    let why = format!(
        "there is no function '{name}' here (there are: {known}): start the host with --function {name}=PROGRAM"
    );
    no(StatusCode::UNPROCESSABLE_ENTITY, "unknown function", why)
}

async fn cancel(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    if !has_key(&headers, shared.key.as_deref()) {
        return unauthorized();
    }
    match header(&headers, "idempotency-key").and_then(|key| shared.calls.find(key)) {
        Some(call) => {
            call.cancel();
            StatusCode::NO_CONTENT.into_response()
        }
        None => no(StatusCode::NOT_FOUND, "unknown", "no invocation with this Idempotency-Key"),
    }
}

#[derive(Deserialize)]
struct Scale {
    min_warm: u32,
}

async fn scale(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    if !has_key(&headers, shared.key.as_deref()) {
        return unauthorized();
    }
    match serde_json::from_slice::<Scale>(&body) {
        Ok(Scale { min_warm }) if min_warm <= MIN_WARM_MAX => Json(shared.calls.scale(min_warm)).into_response(),
        Ok(_) => no(StatusCode::BAD_REQUEST, "malformed", format!("min_warm is at most {MIN_WARM_MAX}")),
        Err(e) => no(StatusCode::BAD_REQUEST, "malformed", format!("{e}; send {{\"min_warm\": N}}")),
    }
}

async fn status(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    if !has_key(&headers, shared.key.as_deref()) {
        return unauthorized();
    }
    Json(shared.calls.status()).into_response()
}
