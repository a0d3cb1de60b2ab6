//! The bulk lane: files, logs and what outgrows a frame. A lane token of an attempt opens that
//! attempt's lane only.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use skein_domain::{AttemptKey, Digest, Place};
use skein_wire::lane::{LOGS_BYTES_MAX, LogCredit, MESSAGES_BYTES_MAX, decode_logs};
use skein_wire::{FromAgent, StartOrder, frame};

use super::LaneOf;
use super::fail::Fail;
use super::files;
use crate::app::App;
use crate::core::Input;
use crate::keys::Lane;

pub(super) async fn get_file(_: LaneOf, State(app): State<Arc<App>>, Path(digest): Path<String>) -> Result<Body, Fail> {
    files::send(&app, &Digest::new(&digest)?).await
}

pub(super) async fn put_file(
    _: LaneOf,
    State(app): State<Arc<App>>,
    Path(digest): Path<String>,
    body: Body,
) -> Result<StatusCode, Fail> {
    files::receive(&app, &Digest::new(&digest)?, body).await
}

/// May this lane speak for this attempt?
fn allowed(app: &App, lane: &Lane, attempt: AttemptKey) -> Result<bool, Fail> {
    match lane {
        Lane::Attempt(order) => Ok(order.attempt == attempt),
        Lane::Agent(instance) => {
            use skein_store::Reader as _;
            let row = app.readers.get()?.attempt(attempt)?;
            Ok(row.is_some_and(|row| row.attempt.place == Place::Instance(instance.clone())))
        }
    }
}

pub(super) async fn logs(
    LaneOf(lane): LaneOf,
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<LogCredit>, Fail> {
    let body = axum::body::to_bytes(request.into_body(), LOGS_BYTES_MAX).await;
    let body = body.map_err(|_| {
        Fail::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a log request may carry {LOGS_BYTES_MAX} bytes"), None)
    })?;
    let chunks = decode_logs(&body).map_err(|e| Fail::bad(e.to_string()))?;
    let mut checked = None;
    for chunk in &chunks {
        if checked != Some(chunk.attempt) {
            if !allowed(&app, &lane, chunk.attempt)? {
                return Err(Fail::new(
                    StatusCode::FORBIDDEN,
                    format!("attempt {} is not this lane's", chunk.attempt),
                    None,
                ));
            }
            checked = Some(chunk.attempt);
        }
        app.metrics.log_bytes.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
    }
    let worker = app.clone();
    let written = tokio::task::spawn_blocking(move || chunks.iter().try_for_each(|chunk| worker.logs.append(chunk)));
    written.await.map_err(Fail::internal)?.map_err(Fail::internal)?;
    Ok(Json(LogCredit { credit_bytes: LOGS_BYTES_MAX as u64, wait_ms: 0 }))
}

pub(super) async fn messages(
    LaneOf(lane): LaneOf,
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<StatusCode, Fail> {
    let Lane::Agent(instance) = lane else {
        return Err(Fail::new(StatusCode::FORBIDDEN, "only agents send messages", None));
    };
    let body = axum::body::to_bytes(request.into_body(), MESSAGES_BYTES_MAX).await;
    let body = body.map_err(|_| Fail::bad(format!("messages may have {MESSAGES_BYTES_MAX} bytes at most")))?;
    let messages = frame::decode_large::<FromAgent>(&body).map_err(|e| Fail::bad(e.to_string()))?;
    let asked = instance.clone();
    let boot = app.writer.look(move |core| core.snapshot().instances.get(&asked).map(|i| i.boot.clone())).await?;
    let boot = boot.ok_or_else(|| Fail::not_found(format!("there is no instance '{instance}'")))?;
    app.writer.tell(Input::FromAgent { instance, boot, messages });
    Ok(StatusCode::NO_CONTENT)
}

#[derive(serde::Deserialize)]
pub(super) struct Generation {
    generation: u64,
}

pub(super) async fn order(
    LaneOf(lane): LaneOf,
    State(app): State<Arc<App>>,
    Path(attempt): Path<String>,
    Query(asked): Query<Generation>,
) -> Result<Json<StartOrder>, Fail> {
    let attempt: AttemptKey = attempt.parse()?;
    let gone = || Fail::not_found(format!("attempt {attempt} is not open with generation {}", asked.generation));
    if !allowed(&app, &lane, attempt)? {
        return Err(gone());
    }
    let order = app.order_of(attempt)?.filter(|o| o.attempt.generation == asked.generation).ok_or_else(gone)?;
    app.make_order(&order).map(Json).map_err(Fail::bad)
}
