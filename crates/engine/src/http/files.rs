//! Content and logs for people.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use skein_domain::{AttemptKey, Digest};
use skein_wire::lane::Stream;
use tokio_util::io::ReaderStream;

use super::User;
use super::fail::Fail;
use crate::app::App;
use crate::content::ContentError;

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
