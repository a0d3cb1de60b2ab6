//! Sessions: start, look, stop, why, plan.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use skein_api::{
    AnswerRequest, AnswersRequest, AttemptQuery, AttemptView, BudgetView, CancelRequest, HoldView, InputRequest,
    PageQuery, PauseRequest, PlaceCount, PlanView, PlannedItem, RerunRequest, ResumeRequest, RetryNowRequest,
    SessionDetail, SessionSummary, SignalRequest, StartRequest, Started, StuckView, Why,
};
use skein_domain::actions::{Action, of_session};
use skein_domain::decide::deployment::{Effort, deploy};
use skein_domain::decide::explain::{Explanation, explain, never_fits};
use skein_domain::session::Earlier;
use skein_domain::{AttemptKey, ItemKey, NanoUsd, NodeKey, SessionId, SessionSpec, UserName};
use skein_store::{AttemptRow, DocumentKind, Page, Reader as _};
use skein_wire::AttemptCommand;

use super::User;
use super::budgets;
use super::documents::find_task;
use super::fail::{Fail, typed_body};
use super::views;
use crate::app::App;
use crate::clock;
use crate::core::{Answer, Input};
use crate::submit::{self, Submission};

/// Longest client key, bytes.
const CLIENT_KEY_BYTES_MAX: usize = 256;
/// Attempts of a session looked at to say where it ran.
const PLACES_OF_MAX: u32 = 100_000;
/// Most rows of one page.
const PAGE_MAX: u32 = 1000;

fn page(query: PageQuery) -> Page {
    Page { offset: query.offset, limit: query.limit.clamp(1, PAGE_MAX) }
}

/// Settles and checks what is to be started.
pub(super) async fn prepare(app: &Arc<App>, user: &UserName, request: &StartRequest) -> Result<Submission, Fail> {
    let submission = as_written(app, user, request).await?;
    super::goals::settle_mode(app, request, submission).await
}

/// The same, with the running modes that are left to the engine still open.
pub(super) async fn as_written(app: &Arc<App>, user: &UserName, request: &StartRequest) -> Result<Submission, Fail> {
    budget_of(request.budget_nano_usd)?;
    let (document, version) = document_of(app, request)?;
    let settled = app.settled();
    let submission = submit::settle(document, request, version, user, &settled, |name| find_task(app, name))?;
    for digest in &submission.digests {
        app.content().size(digest)?;
    }
    known_solutions(&submission.spec, &settled)?;
    known_secrets(app, &submission.spec)?;
    known_receivers(&submission.spec, &settled)?;
    let spec = submission.spec.clone();
    let now = crate::clock::now();
    let refused = app.writer.look(move |core| {
        let mut nodes = spec.thread.nodes.iter();
        let never = |task: &skein_domain::TaskSpec| never_fits(core.snapshot(), core.policy(), &task.profile(), now);
        nodes.find_map(|node| Some((node.name.clone(), never(&node.task)?)))
    });
    if let Some((node, reason)) = refused.await? {
        let why = format!("task '{node}' is to run serverless, but no shared solution can ever take it: {reason}");
        return Err(Fail::new(StatusCode::UNPROCESSABLE_ENTITY, why, reason.next_step()));
    }
    deployable(app, &submission.spec).await?;
    Ok(submission)
}

/// Groups whose rules cannot hold on any server that there is, or is declared, are refused at once.
async fn deployable(app: &Arc<App>, spec: &SessionSpec) -> Result<(), Fail> {
    if spec.thread.groups.is_empty() {
        return Ok(());
    }
    let thread = spec.thread.clone();
    let (snapshot, policy) = app.writer.look(|core| (core.snapshot().clone(), core.policy().clone())).await?;
    let asked = tokio::task::spawn_blocking(move || {
        let session = SessionId::derive(snapshot.turn + 1, 0);
        deploy(&snapshot, &policy, session, &thread, Effort::default()).map(drop)
    });
    asked.await.map_err(Fail::internal)?.map_err(|why| {
        let why = format!("its groups cannot be deployed: {why}");
        Fail::new(StatusCode::UNPROCESSABLE_ENTITY, why, Some("take out one of these, or add servers to 'sites'"))
    })
}

fn known_solutions(spec: &SessionSpec, settled: &crate::config::Settled) -> Result<(), Fail> {
    for node in &spec.thread.nodes {
        let Some(asked) = &node.task.needs.solution else { continue };
        if !settled.solutions.iter().any(|s| s.id == *asked) {
            let known: Vec<&str> = settled.solutions.iter().map(|s| s.id.as_str()).collect();
            let why = format!(
                "task '{}' asks for solution '{asked}', which is not configured (there are: {})",
                node.name,
                known.join(", ")
            );
            return Err(Fail::bad(why));
        }
    }
    Ok(())
}

/// What nobody allowed is refused at once, not a day later.
fn known_receivers(spec: &SessionSpec, settled: &crate::config::Settled) -> Result<(), Fail> {
    let command =
        |node: &&skein_domain::NodeSpec| matches!(node.task.reply_to, Some(skein_domain::ReplyTo::Command(_)));
    match spec.thread.nodes.iter().find(command) {
        Some(node) if !settled.config.replies.commands => {
            let why = format!("task '{}' tells a command, which this engine does not allow", node.name);
            Err(Fail::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                why,
                Some("set replies.commands in its configuration, or give a URL or file:NAME"),
            ))
        }
        _ => Ok(()),
    }
}

fn known_secrets(app: &App, spec: &SessionSpec) -> Result<(), Fail> {
    let known = app.readers.get()?.secrets()?;
    for node in &spec.thread.nodes {
        for value in node.task.env.values() {
            let skein_domain::EnvValue::Secret { secret } = value else { continue };
            if !known.iter().any(|s| s.name == *secret) {
                let why = format!("task '{}' uses secret '{secret}', which is not set", node.name);
                let next = format!("set it with 'skein secret set {secret}'");
                return Err(Fail::new(StatusCode::UNPROCESSABLE_ENTITY, why, Some(&next)));
            }
        }
    }
    Ok(())
}

fn document_of(app: &App, request: &StartRequest) -> Result<(serde_json::Value, Option<u64>), Fail> {
    let (kind, name) = match (&request.document, &request.task, &request.thread) {
        (Some(document), None, None) => return Ok((document.clone(), None)),
        (None, Some(name), None) => (DocumentKind::Task, name),
        (None, None, Some(name)) => (DocumentKind::Thread, name),
        _ => return Err(Fail::bad("give one of 'document', 'task' and 'thread'")),
    };
    let found = app.readers.get()?.document(kind, name, request.version)?;
    let found = found.ok_or_else(|| {
        Fail::not_found(format!(
            "there is no '{name}' in the repository: see 'skein task list' and 'skein thread list'"
        ))
    })?;
    Ok((found.body, Some(found.version)))
}

pub(super) async fn start(
    User(user): User,
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Started>, Fail> {
    let request: StartRequest = typed_body(request).await?;
    if request.client_key.as_ref().is_some_and(|key| key.is_empty() || key.len() > CLIENT_KEY_BYTES_MAX) {
        return Err(Fail::bad(format!("client_key: give 1 to {CLIENT_KEY_BYTES_MAX} bytes")));
    }
    if let Some(key) = &request.client_key
        && let Some(known) = app.readers.get()?.client_key(user.as_str(), key)?
    {
        return Ok(Json(started(known, false, None)));
    }
    let Submission { spec, digests } = prepare(&app, &user, &request).await?;
    submit(&app, spec, request.client_key, digests).await
}

/// Starts it, unless a cap does not allow what it is expected to cost.
async fn submit(
    app: &Arc<App>,
    spec: SessionSpec,
    client_key: Option<String>,
    digests: Vec<skein_domain::Digest>,
) -> Result<Json<Started>, Fail> {
    let spec = Arc::new(spec);
    let estimated = budgets::estimate(app, &spec).await?;
    let estimate = estimated.as_ref().map(|(cost, _)| *cost);
    match app.writer.ask(|reply| Input::Submit { reply, spec, client_key, digests, estimate }).await? {
        Answer::Session { session, new } => Ok(Json(started(session, new, estimated))),
        Answer::Done => Err(Fail::internal("the engine started no session")),
    }
}

fn started(session: SessionId, new: bool, estimated: Option<(NanoUsd, Vec<BudgetView>)>) -> Started {
    let (estimate, budgets) = estimated.filter(|_| new).unzip();
    let estimate_nano_usd = estimate.map(|cost| cost.0);
    Started { session: session.to_string(), new, estimate_nano_usd, budgets: budgets.unwrap_or_default() }
}

pub(super) async fn list(
    _: User,
    State(app): State<Arc<App>>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Vec<SessionSummary>>, Fail> {
    let rows = app.readers.get()?.sessions(page(query))?;
    let ids: Vec<SessionId> = rows.iter().map(|r| r.id).collect();
    let running =
        app.writer.look(move |core| ids.iter().map(|id| views::running(core.snapshot(), *id)).collect::<Vec<_>>());
    let running = running.await?;
    Ok(Json(rows.iter().zip(&running).map(|(row, running)| views::summary(row, running)).collect()))
}

fn unknown(id: SessionId) -> Fail {
    Fail::not_found(format!("there is no session {id}: 'skein session list' shows them"))
}

pub(super) async fn show(
    _: User,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<SessionDetail>, Fail> {
    let id: SessionId = id.parse()?;
    let (row, spec, places) = {
        let reader = app.readers.get()?;
        let row = reader.session(id)?.ok_or_else(|| unknown(id))?;
        let spec = reader.session_spec(id)?.ok_or_else(|| unknown(id))?;
        (row, spec, reader.places(id, PLACES_OF_MAX)?)
    };
    let shared: Vec<String> =
        app.settled().solutions.iter().filter(|s| s.shared().is_some()).map(|s| s.id.to_string()).collect();
    let place = |(place, attempts): (String, u64)| {
        let kind = if shared.contains(&place) { "gateway" } else { "instance" };
        PlaceCount { place, kind: kind.to_owned(), attempts }
    };
    let places: Vec<PlaceCount> = places.into_iter().map(place).collect();
    let counted: u64 = places.iter().map(|place| place.attempts).sum();
    let now = clock::now();
    let (running, holds, actions, deployment, (budgets, over_budget)) = app
        .writer
        .look(move |core| {
            let session = core.snapshot().sessions.get(&id);
            let holds = session.map(|s| s.holds.iter().map(|(i, h)| (i.to_string(), h.attempts)).collect::<Vec<_>>());
            let deployed =
                session.and_then(|s| Some(views::deployment(&s.spec.thread.groups, s.deployment.as_deref()?)));
            let money = budgets::of_session(core.snapshot(), core.policy(), id, now);
            let running = views::running(core.snapshot(), id);
            (running, holds.unwrap_or_default(), views::actions(core.snapshot(), id, now), deployed, money)
        })
        .await?;
    Ok(Json(SessionDetail {
        summary: views::summary(&row, &running),
        actions: of_session(row.state).iter().map(ToString::to_string).collect(),
        earlier: spec.earlier.as_ref().map(|earlier| earlier.session.to_string()),
        description: spec.thread.description.clone(),
        nodes: views::nodes(&row, &spec, &running, &actions),
        holds: holds.into_iter().map(|(instance, attempts)| HoldView { instance, attempts }).collect(),
        overrides: spec.overrides.clone(),
        cost_nano_usd: row.cost().0,
        deployment,
        budgets,
        over_budget,
        places_cut: counted >= u64::from(PLACES_OF_MAX),
        places,
    }))
}

fn attempt_views(spec: &SessionSpec, rows: &[AttemptRow]) -> Vec<AttemptView> {
    rows.iter().map(|row| views::attempt(row, Some(spec))).collect()
}

pub(super) async fn attempts(
    _: User,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(query): Query<AttemptQuery>,
) -> Result<Json<Vec<AttemptView>>, Fail> {
    let id: SessionId = id.parse()?;
    let (spec, rows) = {
        let reader = app.readers.get()?;
        let after = query.after.as_deref().map(str::parse).transpose()?;
        let spec = reader.session_spec(id)?.ok_or_else(|| unknown(id))?;
        let rows = match after {
            None if query.offset > 0 => reader.attempts(id, page(query.into()))?,
            after => reader.attempts_after(id, after, query.limit.clamp(1, PAGE_MAX))?,
        };
        (spec, rows)
    };
    Ok(Json(attempt_views(&spec, &rows)))
}

pub(super) async fn attempt(
    _: User,
    State(app): State<Arc<App>>,
    Path(key): Path<String>,
) -> Result<Json<AttemptView>, Fail> {
    let key: AttemptKey = key.parse()?;
    let unknown = || Fail::not_found(format!("there is no attempt {key}"));
    let (spec, row) = {
        let reader = app.readers.get()?;
        let row = reader.attempt(key)?.ok_or_else(unknown)?;
        (reader.session_spec(key.item.session())?.ok_or_else(unknown)?, row)
    };
    attempt_views(&spec, &[row]).pop().map(Json).ok_or_else(unknown)
}

pub(super) async fn stop(
    User(by): User,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Fail> {
    let session: SessionId = id.parse()?;
    let known = app.readers.get()?.session(session)?.ok_or_else(|| unknown(session))?;
    if known.ended_at.is_none() {
        app.writer.ask(|reply| Input::Stop { reply, session, by }).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /sessions/{id}/rerun`: a new session of the same thread.
pub(super) async fn rerun(
    User(user): User,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: axum::extract::Request,
) -> Result<Json<Started>, Fail> {
    let before: SessionId = id.parse()?;
    let RerunRequest { all } = typed_body(request).await?;
    let (row, mut spec) = {
        let reader = app.readers.get()?;
        let row = reader.session(before)?.ok_or_else(|| unknown(before))?;
        (row, reader.session_spec(before)?.ok_or_else(|| unknown(before))?)
    };
    let wanted = if all { Action::RerunAll } else { Action::Rerun };
    if !of_session(row.state).contains(&wanted) {
        let why = match row.ended_at {
            None => format!("session {before} has not ended: wait for it, or stop it"),
            Some(_) => format!("everything in session {before} succeeded: run all of it again with --all"),
        };
        return Err(Fail::new(StatusCode::CONFLICT, why, None));
    }
    let mut digests = submit::digests(spec.thread.nodes.iter().map(|node| &*node.task));
    spec.earlier = if all { None } else { Some(earlier(&app, &row, &spec, &mut digests)?) };
    spec.user = user;
    known_secrets(&app, &spec)?;
    submit(&app, spec, None, digests).await
}

/// What the new session takes over; the files of that are its own too, so that they are kept with it.
fn earlier(
    app: &App,
    row: &skein_store::SessionRow,
    spec: &SessionSpec,
    digests: &mut Vec<skein_domain::Digest>,
) -> Result<Earlier, Fail> {
    let reader = app.readers.get()?;
    let tallies: Vec<_> = row.nodes.iter().map(|node| node.tally).collect();
    let earlier = Earlier::of(row.id, spec, &tallies, |node| {
        let rows = reader.items(NodeKey { session: row.id, node }, Page::ALL)?;
        let good = rows.iter().filter(|row| matches!(row.ended, Some((skein_domain::ItemEnd::Succeeded, _))));
        Ok::<_, skein_store::StoreError>(good.map(|row| row.key.index).collect())
    })?;
    for node in earlier.done.keys() {
        let outputs = reader.outputs(NodeKey { session: row.id, node: *node })?;
        digests.extend(outputs.into_iter().flat_map(|(_, files)| files).map(|file| file.digest));
    }
    digests.sort_unstable();
    digests.dedup();
    Ok(earlier)
}

/// The node that a path names, and ranges of its indices: all of them when none is given.
fn indices(app: &App, id: &str, name: &str, mut ranges: Vec<(u32, u32)>) -> Result<(NodeKey, Vec<(u32, u32)>), Fail> {
    let (spec, item) = item_at(app, id, name, 0)?;
    let count = spec.thread.nodes.get(item.node.node as usize).map_or(0, |node| node.task.array);
    if let Some((from, to)) = ranges.iter().find(|(from, to)| from >= to || *to > count) {
        return Err(Fail::bad(format!("{from}..{to} is no range of the indices 0..{count} of '{name}'")));
    }
    if ranges.is_empty() {
        ranges.push((0, count));
    }
    Ok((item.node, ranges))
}

/// `POST /sessions/{session}/nodes/{node}/cancel`.
pub(super) async fn cancel(
    User(by): User,
    State(app): State<Arc<App>>,
    Path((id, name)): Path<(String, String)>,
    request: axum::extract::Request,
) -> Result<StatusCode, Fail> {
    let CancelRequest { ranges } = typed_body(request).await?;
    let (node, ranges) = indices(&app, &id, &name, ranges)?;
    app.writer.ask(|reply| Input::CancelItems { reply, node, ranges, by }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /sessions/{session}/nodes/{node}/retry-now`.
pub(super) async fn retry_now(
    User(by): User,
    State(app): State<Arc<App>>,
    Path((id, name)): Path<(String, String)>,
    request: axum::extract::Request,
) -> Result<StatusCode, Fail> {
    let RetryNowRequest { ranges } = typed_body(request).await?;
    let (node, ranges) = indices(&app, &id, &name, ranges)?;
    app.writer.ask(|reply| Input::RetryNow { reply, node, ranges, by }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /sessions/{session}/nodes/{node}/answer`.
pub(super) async fn answer_many(
    _: User,
    State(app): State<Arc<App>>,
    Path((id, name)): Path<(String, String)>,
    request: axum::extract::Request,
) -> Result<StatusCode, Fail> {
    let AnswersRequest { again, ranges } = typed_body(request).await?;
    let (node, ranges) = indices(&app, &id, &name, ranges)?;
    app.writer.ask(|reply| Input::Answer { reply, node, ranges, again }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /attempts/{attempt}/signal`.
pub(super) async fn signal(
    _: User,
    State(app): State<Arc<App>>,
    Path(key): Path<String>,
    request: axum::extract::Request,
) -> Result<StatusCode, Fail> {
    let SignalRequest { signal } = typed_body(request).await?;
    let number = signal_number(&signal).ok_or_else(|| {
        Fail::bad(format!(
            "'{signal}' is no signal: give {} or a number from 1 to 31",
            SIGNALS.map(|(n, _)| n).join(", ")
        ))
    })?;
    command(&app, &key, AttemptCommand::Signal(number)).await
}

/// `POST /attempts/{attempt}/input`.
pub(super) async fn input(
    _: User,
    State(app): State<Arc<App>>,
    Path(key): Path<String>,
    request: axum::extract::Request,
) -> Result<StatusCode, Fail> {
    let InputRequest { line, end } = typed_body(request).await?;
    if line.as_ref().is_some_and(|line| line.len() > INPUT_BYTES_MAX || line.contains('\n')) {
        return Err(Fail::bad(format!("line: give one line of at most {INPUT_BYTES_MAX} bytes")));
    }
    if let Some(line) = line {
        command(&app, &key, AttemptCommand::Line(line)).await?;
    }
    if end {
        command(&app, &key, AttemptCommand::EndOfInput).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn command(app: &App, key: &str, command: AttemptCommand) -> Result<StatusCode, Fail> {
    let attempt: AttemptKey = key.parse()?;
    app.writer.ask(|reply| Input::Command { reply, attempt, command }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Longest line for an attempt's standard input, bytes.
const INPUT_BYTES_MAX: usize = 4096;
/// Signals by name, as Linux numbers them on the architectures that agents run on.
const SIGNALS: [(&str, i32); 12] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("KILL", 9),
    ("USR1", 10),
    ("USR2", 12),
    ("ALRM", 14),
    ("TERM", 15),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("WINCH", 28),
];

fn signal_number(text: &str) -> Option<i32> {
    let name = text.trim().to_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let named = SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    named.or_else(|| name.parse().ok().filter(|number| (1..=31).contains(number)))
}

pub(super) async fn pause(
    User(by): User,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: axum::extract::Request,
) -> Result<StatusCode, Fail> {
    let session: SessionId = id.parse()?;
    let ask: PauseRequest = typed_body(request).await?;
    app.readers.get()?.session(session)?.ok_or_else(|| unknown(session))?;
    app.writer.ask(|reply| Input::Pause { reply, session, by, stop_running: ask.stop_running }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The body may be left out.
async fn resume_budget(request: axum::extract::Request) -> Result<Option<NanoUsd>, Fail> {
    let none = request.headers().get("content-length").is_none_or(|length| length == "0");
    if none && !request.headers().contains_key("transfer-encoding") {
        return Ok(None);
    }
    let ResumeRequest { budget_nano_usd } = typed_body(request).await?;
    budget_of(budget_nano_usd)
}

fn budget_of(nano_usd: Option<i64>) -> Result<Option<NanoUsd>, Fail> {
    match nano_usd {
        Some(nano_usd) if nano_usd < 0 => Err(Fail::bad("budget_nano_usd: give 0 or more")),
        given => Ok(given.map(NanoUsd)),
    }
}

pub(super) async fn resume(
    User(by): User,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: axum::extract::Request,
) -> Result<StatusCode, Fail> {
    let session: SessionId = id.parse()?;
    let budget = resume_budget(request).await?;
    app.readers.get()?.session(session)?.ok_or_else(|| unknown(session))?;
    app.writer.ask(|reply| Input::Resume { reply, session, by, budget }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The item that a path names, with its session's spec.
fn item_at(app: &App, id: &str, node: &str, index: u32) -> Result<(SessionSpec, ItemKey), Fail> {
    let id: SessionId = id.parse()?;
    let spec = app.readers.get()?.session_spec(id)?.ok_or_else(|| unknown(id))?;
    let at = spec.thread.nodes.iter().position(|n| n.name.as_str() == node);
    let at = at.ok_or_else(|| Fail::not_found(format!("session {id} has no task '{node}'")))?;
    let count = spec.thread.nodes[at].task.array;
    if index >= count {
        return Err(Fail::not_found(format!("task '{node}' has indices 0 to {}", count - 1)));
    }
    let item = NodeKey { session: id, node: u32::try_from(at).unwrap_or(u32::MAX) }.item(index);
    Ok((spec, item))
}

pub(super) async fn answer(
    _: User,
    State(app): State<Arc<App>>,
    Path((id, node, index)): Path<(String, String, u32)>,
    request: Request,
) -> Result<StatusCode, Fail> {
    let AnswerRequest { again } = typed_body(request).await?;
    let (_, item) = item_at(&app, &id, &node, index)?;
    let (node, ranges) = (item.node, vec![(index, index + 1)]);
    app.writer.ask(|reply| Input::Answer { reply, node, ranges, again }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn why(
    _: User,
    State(app): State<Arc<App>>,
    Path((id, node, index)): Path<(String, String, u32)>,
) -> Result<Json<Why>, Fail> {
    let (spec, item) = item_at(&app, &id, &node, index)?;
    let now = clock::now();
    let of = spec.thread.nodes.get(item.node.node as usize).map(|node| node.task.profile().demand());
    let (explained, class) = app
        .writer
        .look(move |core| {
            let class = of.and_then(|class| Some(core.snapshot().capacity_of(&class)?.why.clone()));
            (explain(core.snapshot(), core.policy(), item, now), class)
        })
        .await?;
    let (rows, ended) = {
        let reader = app.readers.get()?;
        (reader.attempts_at(item)?, reader.item(item)?.and_then(|row| row.ended))
    };
    let attempts = attempt_views(&spec, &rows);
    let mut why = Why {
        item: item.to_string(),
        node,
        index,
        state: "ended".to_owned(),
        text: String::new(),
        next_step: None,
        detail: serde_json::Value::Null,
        class,
        candidates: Vec::new(),
        attempts,
    };
    match explained {
        None => why.text = ended_text(&why.attempts, ended.map(|(end, _)| format!("{end:?}").to_lowercase())),
        Some(explanation) => fill(&mut why, explanation),
    }
    Ok(Json(why))
}

fn ended_text(attempts: &[AttemptView], ended: Option<String>) -> String {
    match (attempts.last(), ended) {
        (Some(last), end) => format!(
            "{} on {} (attempt {}): {}; it was placed there because: {}",
            end.unwrap_or_else(|| "ended".to_owned()),
            last.place,
            last.number,
            last.ending.as_deref().unwrap_or("open"),
            last.why
        ),
        (None, _) => {
            "cancelled before it was placed: a link it needs did not open, or the session was stopped".to_owned()
        }
    }
}

fn fill(why: &mut Why, explanation: Explanation) {
    match explanation {
        Explanation::Waiting { reason, candidates } => {
            why.state = "waiting".to_owned();
            why.text = reason.to_string();
            why.next_step = reason.next_step().map(str::to_owned);
            why.detail = detail(&reason);
            why.candidates = candidates.iter().map(views::candidate).collect();
        }
        Explanation::Placeable { place, choice, candidates } => {
            why.state = "placeable".to_owned();
            why.text = format!("goes to {place} in the next turn: {choice}");
            why.detail = detail(&choice);
            why.candidates = candidates.iter().map(views::candidate).collect();
        }
        Explanation::Placed { place, choice, .. } => {
            why.state = "placed".to_owned();
            why.text = format!("on {place}: {choice}");
            why.detail = detail(&choice);
        }
    }
}

/// Typed reasons and choices as JSON.
fn detail(value: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}

pub(super) async fn plan(
    User(user): User,
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<PlanView>, Fail> {
    let request: StartRequest = typed_body(request).await?;
    let super::goals::Modes { spec, views: modes, picked, missed } = super::goals::modes(&app, &user, &request).await?;
    let spec = Arc::new(spec);
    let (projection, caps, deployment) = budgets::projected(&app, spec.clone()).await?;
    let name = |node: NodeKey| spec.thread.nodes[node.node as usize].name.to_string();
    let unknown_time = |n: &&skein_domain::NodeSpec| n.task.expected_run_ms.is_none();
    Ok(Json(PlanView {
        items: projection
            .items
            .iter()
            .map(|i| PlannedItem {
                node: name(i.item.node),
                index: i.item.index,
                place: i.place.to_string(),
                kind: views::kind_word(&i.place).to_owned(),
                why: i.choice.to_string(),
                start_ms: i.start_ms,
                end_ms: i.end_ms,
                cost_nano_usd: i.cost.0,
            })
            .collect(),
        stuck: projection
            .stuck
            .iter()
            .map(|(node, reason)| StuckView {
                node: name(*node),
                reason: reason.to_string(),
                next_step: reason.next_step().map(str::to_owned),
            })
            .collect(),
        total_ms: projection.total_ms,
        cost_nano_usd: projection.cost.0,
        assumed: spec.thread.nodes.iter().filter(unknown_time).map(|n| n.name.to_string()).collect(),
        cut: projection.cut,
        modes,
        picked,
        missed,
        deployment,
        budgets: caps.iter().map(|standing| budgets::view(standing, None)).collect(),
    }))
}
