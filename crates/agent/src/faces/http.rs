//! The HTTP face, `skein function-runner`: the contract of Cloud Run, Knative and an Azure custom
//! handler. A server on `$PORT`; `POST` on any path with an [`Invocation`] runs it and answers with
//! its [`InvocationResult`]; `GET` answers that it lives. One attempt at a time: more get 429.
//!
//! The environment says more where our own function host starts it:
//!
//! | variable | meaning |
//! |---|---|
//! | `PORT` | port to listen on; 0 = any, told as a line `{"port": N}` on standard output |
//! | `SKEIN_RUNNER_DIR` | its folder; one below the system's temporary folder when absent |
//! | `SKEIN_RUNNER_KEY` | bearer key that every request must carry |
//! | `SKEIN_RUNNER_HOSTED` | `1`: listen on loopback, and exit at the end of standard input |

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::serve::ListenerExt;
use serde_json::json;
use skein_wire::lane::MESSAGES_BYTES_MAX;
use skein_wire::message::AttemptRef;
use skein_wire::{Invocation, InvocationResult};
use tokio::sync::Mutex;

use crate::error::AgentError;
use crate::folder::private_dirs;
use crate::lane::Lane;
use crate::room::Room;
use crate::spawner::Programs;

/// Port where the platform names none.
const PORT_DEFAULT: u16 = 8080;

pub(crate) const DIR_ENV: &str = "SKEIN_RUNNER_DIR";
pub(crate) const KEY_ENV: &str = "SKEIN_RUNNER_KEY";
pub(crate) const HOSTED_ENV: &str = "SKEIN_RUNNER_HOSTED";

struct Face {
    room: Mutex<Room>,
    key: Option<String>,
}

/// Serves invocations until it is told to end (SIGTERM, or the end of standard input where a
/// function host started it).
pub async fn run_function_face() -> Result<(), AgentError> {
    let hosted = std::env::var(HOSTED_ENV).is_ok_and(|v| v == "1");
    let port = match std::env::var("PORT") {
        Ok(text) => text
            .parse()
            .map_err(|_| AgentError::Listen { address: format!("PORT={text}"), why: "it is no port number".into() })?,
        Err(_) => PORT_DEFAULT,
    };
    let dir = std::env::var_os(DIR_ENV)
        .map_or_else(|| std::env::temp_dir().join(format!("skein-runner-{}", std::process::id())), PathBuf::from);
    private_dirs(&dir).map_err(|e| AgentError::folder("make", &dir, &e))?;
    let programs = Programs::own().map_err(|e| AgentError::system("finding our own executable", &e))?;
    let face = Arc::new(Face { room: Mutex::new(Room::open(&dir, programs).await?), key: std::env::var(KEY_ENV).ok() });
    let ip = if hosted { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
    let address = SocketAddr::new(IpAddr::V4(ip), port);
    let unheard = |e: std::io::Error| AgentError::Listen { address: address.to_string(), why: e.to_string() };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(unheard)?;
    let bound = listener.local_addr().map_err(unheard)?;
    println!("{}", json!({ "port": bound.port() }));
    let router = Router::new().fallback(handle).layer(DefaultBodyLimit::max(MESSAGES_BYTES_MAX)).with_state(face);
    let listener = listener.tap_io(|tcp| {
        tcp.set_nodelay(true).ok();
    });
    let ended = tokio::select! {
        served = axum::serve(listener, router).into_future() => served.map_err(unheard),
        () = told_to_end(hosted) => Ok(()),
    };
    std::fs::remove_dir_all(&dir).ok();
    ended
}

async fn told_to_end(hosted: bool) {
    let (tell, host_is_gone) = tokio::sync::oneshot::channel::<()>();
    let mut tell = Some(tell);
    if let Some(tell) = tell.take_if(|_| hosted) {
        // Blocking reads, so a thread; the end of the process ends it.
        std::thread::spawn(move || {
            std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()).ok();
            drop(tell);
        });
    }
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = host_is_gone => {}
        () = terminated => {}
    }
}

async fn handle(
    State(face): State<Arc<Face>>,
    method: Method,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Response {
    let no = |status: StatusCode, error: &str, why: String| {
        (status, Json(json!({ "error": error, "why": why }))).into_response()
    };
    if !has_key(&headers, face.key.as_deref()) {
        return no(StatusCode::UNAUTHORIZED, "unauthorized", "the request bears no valid key".into());
    }
    if method == Method::GET {
        return (StatusCode::OK, "skein function runner\n").into_response();
    }
    if method != Method::POST {
        return no(StatusCode::METHOD_NOT_ALLOWED, "method", "POST an invocation".into());
    }
    let invocation: Invocation = match serde_json::from_slice(&body) {
        Ok(invocation) => invocation,
        Err(e) => return no(StatusCode::BAD_REQUEST, "malformed", format!("not an invocation: {e}")),
    };
    let Ok(mut room) = face.room.try_lock() else {
        return no(
            StatusCode::TOO_MANY_REQUESTS,
            "busy",
            "this runner has an attempt already; it takes one at a time".into(),
        );
    };
    let lane = match Lane::new(&invocation.engine_url, invocation.ca_digest.as_deref(), None, &invocation.lane_token) {
        Ok(lane) => lane,
        Err(e) => return no(StatusCode::BAD_REQUEST, "engine_url", e.to_string()),
    };
    let order = AttemptRef { attempt: invocation.order.attempt, generation: invocation.order.generation };
    let end = room.run(invocation.order, &lane).await;
    Json(InvocationResult { order, end }).into_response()
}

/// Does a request bear the key? Always, where none is asked for.
pub(crate) fn has_key(headers: &HeaderMap, key: Option<&str>) -> bool {
    let Some(key) = key else { return true };
    let given = headers
        .get(axum::http::header::AUTHORIZATION)
        .and_then(|h| h.to_str().ok())
        .and_then(|h| h.strip_prefix("Bearer "));
    // Compared by digest: the time it takes says nothing about how much of the key was right.
    given.is_some_and(|given| blake3::hash(given.as_bytes()) == blake3::hash(key.as_bytes()))
}
