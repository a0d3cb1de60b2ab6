//! Instances, solutions, secrets, tokens, configuration, health and metrics.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use skein_api::{Health, InstanceView, NewToken, SecretValue, SecretView, SolutionView, TokenRequest, TokenView};
use skein_domain::{InstanceId, Place, SolutionKind, UserName};
use skein_store::{Reader as _, SecretRow, Side};

use super::User;
use super::fail::{Fail, typed_body};
use super::views;
use crate::app::App;
use crate::clock;
use crate::core::Input;
use crate::metrics::Gauges;
use crate::tokens::Tokens;

/// Largest secret, bytes.
const SECRET_BYTES_MAX: usize = 64 * 1024;

/// 503 while turns cannot be written: whoever shares out work by it sends none here until then.
pub(super) async fn health(State(app): State<Arc<App>>) -> (StatusCode, Json<Health>) {
    let why = app.writer.unwritten().map(|failure| failure.to_string());
    let (code, status) =
        if why.is_none() { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "unwritten") };
    let health = Health {
        status: status.to_owned(),
        engine: app.engine().to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        why,
    };
    (code, Json(health))
}

pub(super) async fn metrics(_: User, State(app): State<Arc<App>>) -> Result<String, Fail> {
    let gauges = app.writer.look(|core| Gauges::of(core.snapshot())).await?;
    Ok(app.metrics.render(&gauges))
}

/// Addresses of the parts [0052]: whoever knows this URL finds the rest. No token: nothing secret.
pub(super) async fn addresses(State(app): State<Arc<App>>) -> Json<serde_json::Value> {
    let settled = app.settled();
    let broker = settled.config.addresses.get("broker").or(settled.config.broker.url.as_ref()).cloned();
    let mut all = serde_json::json!({
        "engine": app.url(),
        "broker": broker.unwrap_or_else(|| app.url()),
        "identifier": app.engine(),
    });
    for (name, address) in &settled.config.addresses {
        all[name] = address.clone().into();
    }
    Json(all)
}

pub(super) async fn config(_: User, State(app): State<Arc<App>>) -> Result<Json<serde_json::Value>, Fail> {
    let mut value = serde_json::to_value(&app.settled().config).map_err(Fail::internal)?;
    if let Some(solutions) = value.get_mut("solutions").and_then(|s| s.as_object_mut()) {
        for solution in solutions.values_mut().filter(|s| !s["key"].is_null()) {
            solution["key"] = "(set)".into();
        }
    }
    Ok(Json(value))
}

pub(super) async fn instances(_: User, State(app): State<Arc<App>>) -> Result<Json<Vec<InstanceView>>, Fail> {
    let look = app.writer.look(|core| {
        let all = core.snapshot().instances.values();
        all.map(|i| views::instance(core.snapshot(), i, core.policy())).collect()
    });
    Ok(Json(look.await?))
}

pub(super) async fn drain(
    User(user): User,
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Fail> {
    let instance = InstanceId::new(&name)?;
    let why = format!("{user} asked for it");
    app.writer.ask(|reply| Input::Drain { reply, instance, why }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn reply_secret(_: User, State(app): State<Arc<App>>) -> Json<skein_api::ReplySecret> {
    Json(skein_api::ReplySecret { secret: app.keys.reply_secret() })
}

pub(super) async fn notice(
    User(user): User,
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Fail> {
    let instance = InstanceId::new(&name)?;
    let why = format!("{user} says that its cloud takes it away");
    app.writer.ask(|reply| Input::Notice { reply, instance, why }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn solutions(_: User, State(app): State<Arc<App>>) -> Result<Json<Vec<SolutionView>>, Fail> {
    let look = app.writer.look(|core| {
        let snapshot = core.snapshot();
        let view = |solution: &skein_domain::Solution| {
            let members: Vec<&InstanceId> =
                snapshot.instances.values().filter(|i| i.solution == solution.id).map(|i| &i.id).collect();
            let here = |place: &Place| match place {
                Place::Gateway(id) => *id == solution.id,
                Place::Instance(id) => members.contains(&id),
            };
            let (kind, facts) = match &solution.kind {
                SolutionKind::Dedicated(facts) => ("dedicated", serde_json::to_value(facts)),
                SolutionKind::Shared(facts) => ("shared", serde_json::to_value(facts)),
            };
            SolutionView {
                solution: solution.id.to_string(),
                kind: kind.to_owned(),
                facts: facts.unwrap_or_default(),
                attempts: snapshot.attempts.values().filter(|a| here(&a.place)).count() as u64,
                instances: members.len() as u64,
            }
        };
        snapshot.solutions.values().map(view).collect()
    });
    Ok(Json(look.await?))
}

pub(super) async fn secrets(_: User, State(app): State<Arc<App>>) -> Result<Json<Vec<SecretView>>, Fail> {
    let all = app.readers.get()?.secrets()?;
    Ok(Json(all.into_iter().map(|s| SecretView { name: s.name, at: s.at.0 }).collect()))
}

pub(super) async fn set_secret(
    _: User,
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<StatusCode, Fail> {
    skein_domain::TaskName::new(&name).map_err(|e| Fail::bad(e.to_string().replace("task name", "secret name")))?;
    let SecretValue { value } = typed_body(request).await?;
    if value.is_empty() || value.len() > SECRET_BYTES_MAX {
        return Err(Fail::bad(format!("a secret has 1 to {SECRET_BYTES_MAX} bytes")));
    }
    let sealed = app.keys.seal(&name, &value).map_err(Fail::internal)?;
    let side = vec![Side::Secret(SecretRow { name, sealed, at: clock::now() })];
    app.writer.ask(|reply| Input::Write { reply, side }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn remove_secret(
    _: User,
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Fail> {
    if !app.readers.get()?.secrets()?.iter().any(|s| s.name == name) {
        return Err(Fail::not_found(format!("there is no secret '{name}'")));
    }
    let side = vec![Side::SecretRemoved(name)];
    app.writer.ask(|reply| Input::Write { reply, side }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn tokens(_: User, State(app): State<Arc<App>>) -> Result<Json<Vec<TokenView>>, Fail> {
    let all = app.readers.get()?.tokens()?;
    let view = |t: skein_store::TokenRow| TokenView { id: t.id, user: t.user.to_string(), created_at: t.created_at.0 };
    Ok(Json(all.into_iter().map(view).collect()))
}

pub(super) async fn new_token(_: User, State(app): State<Arc<App>>, request: Request) -> Result<Json<NewToken>, Fail> {
    let TokenRequest { user } = typed_body(request).await?;
    let (token, row) = Tokens::make(UserName::new(&user)?, clock::now()).map_err(Fail::internal)?;
    let side = vec![Side::Token(row.clone())];
    app.writer.ask(|reply| Input::Write { reply, side }).await?;
    app.tokens.learn(&row);
    Ok(Json(NewToken { id: row.id, token }))
}

pub(super) async fn revoke_token(
    _: User,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Fail> {
    if !app.readers.get()?.tokens()?.iter().any(|t| t.id == id) {
        return Err(Fail::not_found(format!("there is no token '{id}': 'skein token list' shows them")));
    }
    let side = vec![Side::TokenRevoked(id.clone())];
    app.writer.ask(|reply| Input::Write { reply, side }).await?;
    app.tokens.forget(&id);
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn join_token(_: User, State(app): State<Arc<App>>) -> Result<Json<NewToken>, Fail> {
    let token = crate::new_join_token(&app).await.map_err(Fail::internal)?;
    Ok(Json(NewToken { id: String::new(), token }))
}
