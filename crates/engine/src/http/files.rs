//! Content and logs for people.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use skein_api::{LogHit, LogSearch};
use skein_domain::{AttemptKey, Digest};
use skein_store::Reader as _;
use skein_wire::lane::Stream;
use tokio_util::io::ReaderStream;

use super::User;
use super::fail::Fail;
use crate::app::App;
use crate::content::ContentError;
use crate::log_search;

/// Content as a body.
pub(super) async fn send(app: &App, digest: &Digest) -> Result<Body, Fail> {
    let path = app.content().find(digest)?;
    let file = tokio::fs::File::open(path).await.map_err(ContentError::Io)?;
    Ok(Body::from_stream(ReaderStream::new(file)))
}

/// A body as content.
pub(super) async fn receive(app: &App, digest: &Digest, body: Body) -> Result<StatusCode, Fail> {
    let content = app.content();
    content.put(digest, body.into_data_stream()).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn get_file(_: User, State(app): State<Arc<App>>, Path(digest): Path<String>) -> Result<Body, Fail> {
    send(&app, &Digest::new(&digest)?).await
}

pub(super) async fn put_file(
    _: User,
    State(app): State<Arc<App>>,
    Path(digest): Path<String>,
    body: Body,
) -> Result<StatusCode, Fail> {
    receive(&app, &Digest::new(&digest)?, body).await
}

#[derive(serde::Deserialize)]
pub(super) struct From {
    #[serde(default)]
    offset: u64,
}

/// Most lines of one search.
const HITS_MAX: usize = 10_000;

#[derive(serde::Deserialize)]
pub(super) struct Search {
    text: String,
    #[serde(default)]
    regex: bool,
    node: Option<String>,
    limit: Option<usize>,
}

/// `GET /sessions/{session}/logs/search`.
pub(super) async fn search(
    _: User,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(search): Query<Search>,
) -> Result<Json<LogSearch>, Fail> {
    let session: skein_domain::SessionId = id.parse()?;
    let spec = app.readers.get()?.session_spec(session)?;
    let spec = spec.ok_or_else(|| Fail::not_found(format!("there is no session {session}")))?;
    let node = match &search.node {
        None => None,
        Some(name) => {
            let at = spec.thread.nodes.iter().position(|node| node.name.as_str() == name);
            let at = at.ok_or_else(|| Fail::not_found(format!("session {session} has no task '{name}'")))?;
            u32::try_from(at).ok()
        }
    };
    let pattern = if search.regex { search.text.clone() } else { regex::escape(&search.text) };
    let pattern = regex::bytes::Regex::new(&pattern).map_err(|e| Fail::bad(format!("the pattern: {e}")))?;
    let (dir, most) = (app.logs.of_session(session), search.limit.unwrap_or(200).clamp(1, HITS_MAX));
    let found = tokio::task::spawn_blocking(move || log_search::search(&dir, &pattern, node, most));
    let found = found.await.map_err(Fail::internal)?.map_err(Fail::internal)?;
    let hit = |hit: log_search::Hit| LogHit {
        attempt: log_search::attempt(session, hit.at).to_string(),
        node: spec.thread.nodes.get(hit.at.0 as usize).map(|node| node.name.to_string()).unwrap_or_default(),
        index: hit.at.1,
        stream: hit.stream.to_owned(),
        line: hit.line,
        text: hit.text,
    };
    Ok(Json(LogSearch { hits: found.hits.into_iter().map(hit).collect(), bytes: found.bytes, cut: found.cut }))
}

/// Largest piece of a log in one answer, bytes; ask again from the offset reached.
const LOG_ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

pub(super) async fn log(
    _: User,
    State(app): State<Arc<App>>,
    Path((attempt, stream)): Path<(String, String)>,
    Query(from): Query<From>,
) -> Result<Vec<u8>, Fail> {
    let attempt: AttemptKey = attempt.parse()?;
    let stream = match stream.as_str() {
        "out" => Stream::Out,
        "err" => Stream::Err,
        other => return Err(Fail::bad(format!("there is no log stream '{other}': give out or err"))),
    };
    app.logs.read(attempt, stream, from.offset, LOG_ANSWER_BYTES_MAX).map_err(Fail::internal)
}
