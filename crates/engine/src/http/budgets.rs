//! What a session is expected to cost, and how it stands with the caps that hold for it.

use std::sync::Arc;

use skein_api::{BudgetView, DeploymentView};
use skein_domain::decide::Policy;
use skein_domain::decide::budget::{Standing, standings};
use skein_domain::decide::deployment::{Effort, deploy};
use skein_domain::decide::project::{Projection, project};
use skein_domain::decide::snapshot::Snapshot;
use skein_domain::event::Event;
use skein_domain::{NanoUsd, SessionId, SessionSpec};

use super::fail::Fail;
use super::views;
use crate::app::App;
use crate::clock;

/// What a session would do, the caps that would hold for it, and where its groups would be deployed.
type Projected = (Projection, Vec<Standing>, Option<DeploymentView>);

/// What a session would do if it were started now.
pub(super) async fn projected(app: &Arc<App>, spec: Arc<SessionSpec>) -> Result<Projected, Fail> {
    let (snapshot, policy) = app.writer.look(|core| (core.snapshot().clone(), core.policy().clone())).await?;
    tokio::task::spawn_blocking(move || play(snapshot, &policy, spec)).await.map_err(Fail::internal)
}

fn play(mut snapshot: Snapshot, policy: &Policy, spec: Arc<SessionSpec>) -> Projected {
    let (turn, now) = (snapshot.turn + 1, clock::now());
    let session = SessionId::derive(turn, 0);
    let caps = standings(&snapshot, policy, (&spec.user, session, spec.budget), now);
    // What could not be deployed was refused before: here it would be the same.
    let deployed = deploy(&snapshot, policy, session, &spec.thread, Effort::default()).unwrap_or_default();
    let view = deployed.as_ref().map(|deployed| views::deployment(&spec.thread.groups, deployed));
    let deployed = deployed.map(|d| Event::Deployed { session, deployment: Box::new(d), why: String::new() });
    let started = Event::SessionStarted { session, spec };
    snapshot.apply_all(turn, now, std::iter::once(started).chain(deployed).collect());
    (project(&snapshot, policy, session, now), caps, view)
}

/// The estimate of a session that is to be started, where a cap holds for it: projecting one is not for nothing.
pub(super) async fn estimate(
    app: &Arc<App>,
    spec: &Arc<SessionSpec>,
) -> Result<Option<(NanoUsd, Vec<BudgetView>)>, Fail> {
    let (of_user, now) = (spec.clone(), clock::now());
    let caps = app.writer.look(move |core| {
        let session = SessionId::derive(core.snapshot().turn + 1, 0);
        standings(core.snapshot(), core.policy(), (&of_user.user, session, of_user.budget), now)
    });
    if caps.await?.is_empty() {
        return Ok(None);
    }
    let (projection, caps, _) = projected(app, spec.clone()).await?;
    Ok(Some((projection.cost, caps.iter().map(|standing| view(standing, None)).collect())))
}

/// `warned`: the share of it that was said, percent.
pub(super) fn view(standing: &Standing, warned: Option<u8>) -> BudgetView {
    BudgetView {
        budget: standing.key.to_string(),
        action: standing.cap.action.to_string(),
        limit_nano_usd: standing.cap.limit.0,
        spent_nano_usd: standing.spent.0,
        open_nano_usd: standing.open.0,
        left_nano_usd: standing.left().0,
        warned_percent: warned,
    }
}

/// How an open session stands with its caps, and what pauses it.
pub(super) fn of_session(
    snapshot: &Snapshot,
    policy: &Policy,
    session: SessionId,
    now: skein_domain::Timestamp,
) -> (Vec<BudgetView>, Option<String>) {
    let Some(open) = snapshot.sessions.get(&session) else { return (Vec::new(), None) };
    let caps = standings(snapshot, policy, (&open.spec.user, session, open.budget), now);
    let warned = |standing: &Standing| {
        let said = snapshot.warned.get(&standing.key).filter(|said| said.limit == standing.cap.limit);
        view(standing, said.map(|said| said.percent))
    };
    let over = open.over.as_ref().map(|over| format!("{over}; {}", over.cap.next_step()));
    (caps.iter().map(warned).collect(), over)
}
