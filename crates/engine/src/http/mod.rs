//! HTTP: the API `/api/v1`, the agents' lanes `/agent/v1`, `/healthz` and `/metrics`, on one port.

mod admin;
mod agents;
mod budgets;
mod documents;
mod fail;
mod files;
mod goals;
mod images;
mod lanes;
mod openapi;
mod scaling;
mod sessions;
mod stream;
mod views;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::{delete, get, post, put};
use skein_domain::UserName;

use crate::app::App;
pub(crate) use fail::Fail;
pub(crate) use images::image_view;

pub use openapi::document as openapi;

/// Everything.
pub(crate) fn router(app: Arc<App>) -> Router {
    agent_routes()
        .merge(api_routes())
        .route("/healthz", get(admin::health))
        .route("/metrics", get(admin::metrics))
        .fallback(|| async { Fail::not_found("there is nothing here; the API is under /api/v1") })
        .layer(axum::middleware::from_fn_with_state(app.clone(), count))
        .with_state(app)
}

/// What agents and functions use; served alone on the broker's own listener.
pub(crate) fn agent_router(app: Arc<App>) -> Router {
    agent_routes().with_state(app)
}

fn agent_routes() -> Router<Arc<App>> {
    use skein_wire::lane;
    Router::new()
        .route(lane::CONNECT_PATH, get(agents::connect))
        .route(lane::JOIN_PATH, post(agents::join))
        .route("/agent/v1/files/{digest}", get(lanes::get_file).put(lanes::put_file))
        .route(lane::LOGS_PATH, post(lanes::logs))
        .route(lane::MESSAGES_PATH, post(lanes::messages))
        .route("/agent/v1/orders/{attempt}", get(lanes::order))
        .route("/api/v1/addresses", get(admin::addresses))
}

fn api_routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/v1/sessions", get(sessions::list).post(sessions::start))
        .route("/api/v1/sessions/{session}", get(sessions::show))
        .route("/api/v1/sessions/{session}/stop", post(sessions::stop))
        .route("/api/v1/sessions/{session}/rerun", post(sessions::rerun))
        .route("/api/v1/sessions/{session}/nodes/{node}/cancel", post(sessions::cancel))
        .route("/api/v1/sessions/{session}/nodes/{node}/answer", post(sessions::answer_many))
        .route("/api/v1/sessions/{session}/nodes/{node}/retry-now", post(sessions::retry_now))
        .route("/api/v1/attempts/{attempt}/signal", post(sessions::signal))
        .route("/api/v1/attempts/{attempt}/input", post(sessions::input))
        .route("/api/v1/sessions/{session}/pause", post(sessions::pause))
        .route("/api/v1/sessions/{session}/resume", post(sessions::resume))
        .route("/api/v1/sessions/{session}/attempts", get(sessions::attempts))
        .route("/api/v1/sessions/{session}/logs/search", get(files::search))
        .route("/api/v1/sessions/{session}/stream", get(stream::session))
        .route("/api/v1/sessions/{session}/nodes/{node}/items/{index}/why", get(sessions::why))
        .route("/api/v1/sessions/{session}/nodes/{node}/items/{index}/answer", post(sessions::answer))
        .route("/api/v1/plan", post(sessions::plan))
        .route("/api/v1/events", get(stream::events))
        .route("/api/v1/attempts/{attempt}", get(sessions::attempt))
        .route("/api/v1/attempts/{attempt}/log/{stream}", get(files::log))
        .route("/api/v1/tasks", get(documents::list_tasks))
        .route("/api/v1/tasks/{name}", get(documents::task).put(documents::put_task).delete(documents::remove_task))
        .route("/api/v1/threads", get(documents::list_threads))
        .route(
            "/api/v1/threads/{name}",
            get(documents::thread).put(documents::put_thread).delete(documents::remove_thread),
        )
        .route("/api/v1/solutions", get(admin::solutions))
        .route("/api/v1/instances", get(admin::instances))
        .route("/api/v1/instances/{instance}/drain", post(admin::drain))
        .route("/api/v1/instances/{instance}/notice", post(admin::notice))
        .route("/api/v1/metrics", get(scaling::metrics))
        .route("/api/v1/metrics/{metric}", put(scaling::say))
        .route("/api/v1/secrets", get(admin::secrets))
        .route("/api/v1/secrets/{name}", put(admin::set_secret).delete(admin::remove_secret))
        .route("/api/v1/tokens", get(admin::tokens).post(admin::new_token))
        .route("/api/v1/tokens/{id}", delete(admin::revoke_token))
        .route("/api/v1/join-tokens", post(admin::join_token))
        .route("/api/v1/reply-secret", get(admin::reply_secret))
        .route("/api/v1/config", get(admin::config))
        .route("/api/v1/openapi.json", get(|| async { openapi() }))
        .route("/api/v1/files/{digest}", get(files::get_file).put(files::put_file))
        .merge(image_routes())
}

fn image_routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/v1/images", get(images::list))
        .route("/api/v1/images/import", post(images::import))
        .route("/api/v1/images/choose", post(images::choose))
        .route("/api/v1/images/gc", post(images::gc))
        .route("/api/v1/images/scrub", post(images::scrub))
        .route("/api/v1/images/missing", post(images::missing))
        .route("/api/v1/images/chunks", post(images::put_chunks))
        .route("/api/v1/images/chunks/{chunk}", get(images::chunk))
        .route("/api/v1/images/{image}", get(images::show).patch(images::label).delete(images::remove))
        .route("/api/v1/images/{image}/deploy", post(images::deploy))
        .route("/api/v1/images/{image}/manifest", get(images::manifest).put(images::put_manifest))
        .route("/api/v1/images/{image}/lists/{list}", get(images::chunk_list).put(images::put_chunk_list))
        .route("/api/v1/operations", get(images::operations))
        .route("/api/v1/operations/{operation}", get(images::operation).delete(images::cancel))
}

async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    app.metrics.requests.fetch_add(1, Ordering::Relaxed);
    next.run(request).await
}

/// Who asks: proved by an API token.
pub(crate) struct User(pub(crate) UserName);

fn bearer(parts: &Parts) -> Option<&str> {
    parts.headers.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ")
}

impl FromRequestParts<Arc<App>> for User {
    type Rejection = Fail;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Fail> {
        let user = bearer(parts).and_then(|token| app.tokens.user(token));
        user.map(Self).ok_or_else(|| {
            app.metrics.refused.fetch_add(1, Ordering::Relaxed);
            Fail::unauthorized(
                "the request bears no API token that this engine knows",
                "use the token in the engine's folder (local.token), or one of 'skein token new USER'",
            )
        })
    }
}

/// A part of the system that proved itself by a lane token.
pub(crate) struct LaneOf(pub(crate) crate::keys::Lane);

impl FromRequestParts<Arc<App>> for LaneOf {
    type Rejection = Fail;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Fail> {
        let lane = bearer(parts).and_then(|token| app.keys.check_lane(token));
        lane.map(Self).ok_or_else(|| {
            app.metrics.refused.fetch_add(1, Ordering::Relaxed);
            Fail::unauthorized("the lane token is not this engine's", "connect again: the welcome brings a new one")
        })
    }
}

/// Stores a document for the local user: the watched folder's way in.
pub(crate) async fn store_document(
    app: &Arc<App>,
    kind: skein_store::DocumentKind,
    name: &str,
    document: serde_json::Value,
) -> Result<(), String> {
    let user = app.local_user.clone();
    documents::store(app, &user, kind, name, document).await.map(|_| ()).map_err(Fail::text)
}
