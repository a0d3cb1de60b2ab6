//! The task repository [0046]: tasks and threads by name, every version kept.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use serde_json::Value;
use skein_api::{DocumentView, StartRequest};
use skein_domain::draft::{BadDraft, TaskDraft};
use skein_domain::{TaskName, UserName};
use skein_store::{Document, DocumentKind, Reader as _, Side};

use super::User;
use super::fail::{Fail, document_body};
use crate::app::App;
use crate::clock;
use crate::core::Input;
use crate::submit;

#[derive(serde::Deserialize)]
pub(super) struct Version {
    version: Option<u64>,
}

pub(super) async fn list_tasks(user: User, app: State<Arc<App>>) -> Result<Json<Vec<DocumentView>>, Fail> {
    list(user, app, DocumentKind::Task)
}
pub(super) async fn list_threads(user: User, app: State<Arc<App>>) -> Result<Json<Vec<DocumentView>>, Fail> {
    list(user, app, DocumentKind::Thread)
}

fn list(_: User, State(app): State<Arc<App>>, kind: DocumentKind) -> Result<Json<Vec<DocumentView>>, Fail> {
    let all = app.readers.get()?.documents(kind)?;
    Ok(Json(all.into_iter().map(|d| view(&app, d)).collect()))
}

pub(super) async fn task(
    user: User,
    app: State<Arc<App>>,
    name: Path<String>,
    version: Query<Version>,
) -> Result<Json<DocumentView>, Fail> {
    show(user, app, name, version, DocumentKind::Task)
}
pub(super) async fn thread(
    user: User,
    app: State<Arc<App>>,
    name: Path<String>,
    version: Query<Version>,
) -> Result<Json<DocumentView>, Fail> {
    show(user, app, name, version, DocumentKind::Thread)
}

fn show(
    _: User,
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(asked): Query<Version>,
    kind: DocumentKind,
) -> Result<Json<DocumentView>, Fail> {
    let found = app.readers.get()?.document(kind, &name, asked.version)?;
    let found =
        found.ok_or_else(|| Fail::not_found(format!("there is no {} '{name}' in the repository", word(kind))))?;
    Ok(Json(view(&app, found)))
}

pub(super) async fn put_task(
    user: User,
    app: State<Arc<App>>,
    name: Path<String>,
    request: Request,
) -> Result<Json<DocumentView>, Fail> {
    put(user, app, name, request, DocumentKind::Task).await
}
pub(super) async fn put_thread(
    user: User,
    app: State<Arc<App>>,
    name: Path<String>,
    request: Request,
) -> Result<Json<DocumentView>, Fail> {
    put(user, app, name, request, DocumentKind::Thread).await
}

async fn put(
    User(user): User,
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    request: Request,
    kind: DocumentKind,
) -> Result<Json<DocumentView>, Fail> {
    let body = document_body(request).await?;
    let stored = store(&app, &user, kind, &name, body).await?;
    Ok(Json(view(&app, stored)))
}

pub(super) async fn remove_task(user: User, app: State<Arc<App>>, name: Path<String>) -> Result<StatusCode, Fail> {
    remove(user, app, name, DocumentKind::Task).await
}
pub(super) async fn remove_thread(user: User, app: State<Arc<App>>, name: Path<String>) -> Result<StatusCode, Fail> {
    remove(user, app, name, DocumentKind::Thread).await
}

async fn remove(
    _: User,
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    kind: DocumentKind,
) -> Result<StatusCode, Fail> {
    if app.readers.get()?.document(kind, &name, None)?.is_none() {
        return Err(Fail::not_found(format!("there is no {} '{name}' in the repository", word(kind))));
    }
    let side = vec![Side::DocumentRemoved(kind, name)];
    app.writer.ask(|reply| Input::Write { reply, side }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Checks a document as if it were started, then stores it as a new version (or returns the newest
/// one when it is the same).
pub(crate) async fn store(
    app: &Arc<App>,
    user: &UserName,
    kind: DocumentKind,
    name: &str,
    mut body: Value,
) -> Result<Document, Fail> {
    let name = TaskName::new(name)?;
    let fields = body.as_object_mut().ok_or_else(|| Fail::bad("the document is not a table of fields"))?;
    match fields.get("name").and_then(Value::as_str) {
        Some(own) if own != name.as_str() => {
            return Err(Fail::bad(format!("the document is named '{own}', the request '{name}': make them equal")));
        }
        _ => fields.insert("name".to_owned(), Value::String(name.to_string())),
    };
    let is_thread = body.get("tasks").is_some();
    if is_thread != (kind == DocumentKind::Thread) {
        let (is, asked) = if is_thread { ("a thread", "a task") } else { ("a task", "a thread") };
        return Err(Fail::bad(format!(
            "'{name}' is {is} (it has{} 'tasks'), but {asked} was asked for",
            if is_thread { "" } else { " no" }
        )));
    }
    let lookup = |task: &str| find_task(app, task);
    submit::settle(body.clone(), &StartRequest::default(), None, user, &app.settled(), lookup)?;
    let newest = app.readers.get()?.document(kind, name.as_str(), None)?;
    if let Some(same) = newest.filter(|d| d.body == body) {
        return Ok(same);
    }
    let last = app.readers.get()?.last_version(kind, name.as_str())?;
    let document =
        Document { kind, name: name.to_string(), version: last + 1, body, user: user.clone(), at: clock::now() };
    let side = vec![Side::Document(document.clone())];
    app.writer.ask(|reply| Input::Write { reply, side }).await?;
    Ok(document)
}

/// A task of the repository, for `use = "NAME"`.
pub(crate) fn find_task(app: &App, name: &str) -> Result<Option<Value>, BadDraft> {
    let reader = app.readers.get().map_err(|e| BadDraft::from(e.to_string()))?;
    let found = reader.document(DocumentKind::Task, name, None).map_err(|e| BadDraft::from(e.to_string()))?;
    Ok(found.map(|d| d.body))
}

fn word(kind: DocumentKind) -> &'static str {
    match kind {
        DocumentKind::Task => "task",
        DocumentKind::Thread => "thread",
    }
}

fn view(app: &App, document: Document) -> DocumentView {
    let resolved = (document.kind == DocumentKind::Task)
        .then(|| TaskDraft::read(document.body.clone()).ok())
        .flatten()
        .and_then(|draft| {
            let settled = app.settled();
            let mode = draft.running_mode.unwrap_or(settled.mode);
            draft.resolve(None, mode, &settled.defaults).ok()
        })
        .and_then(|spec| serde_json::to_value(spec).ok());
    DocumentView {
        name: document.name,
        version: document.version,
        user: document.user.to_string(),
        at: document.at.0,
        document: document.body,
        resolved,
    }
}
