//! Goals of a session: which running mode it gets when it leaves that to the engine.

use std::sync::Arc;

use axum::http::StatusCode;
use skein_api::{ModeView, StartRequest};
use skein_domain::decide::goals::{Goals, Projected, choose_mode, compare, in_mode, is_open};
use skein_domain::{Place, RunningMode, SessionSpec, UserName};

use super::fail::Fail;
use super::sessions::as_written;
use crate::app::App;
use crate::clock;
use crate::submit::Submission;

fn goals_of(app: &App, request: &StartRequest) -> Result<Goals, Fail> {
    let configured = app.settled().settings.policy.goals.clone();
    match &request.goals {
        Some(asked) => {
            let asked = crate::config::asked_goals(asked).map_err(|e| Fail::bad(e.to_string()))?;
            Ok(asked.or(&configured))
        }
        None => Ok(configured),
    }
}

async fn projected(app: &Arc<App>, spec: SessionSpec, goals: Goals) -> Result<Vec<Projected>, Fail> {
    let (snapshot, policy) = app.writer.look(|core| (core.snapshot().clone(), core.policy().clone())).await?;
    let now = clock::now();
    let compared = tokio::task::spawn_blocking(move || compare(&snapshot, &policy, &spec, &goals, now));
    compared.await.map_err(Fail::internal)
}

/// The spec in the mode that its goals pick, and why that one; as it is where there is no goal, or nothing left open.
/// An error has every mode's figures.
fn picked(spec: &SessionSpec, goals: &Goals, projected: &[Projected]) -> Result<Option<(SessionSpec, String)>, String> {
    if !goals.asks() || !is_open(spec) {
        return Ok(None);
    }
    let choice = choose_mode(spec, goals, projected).map_err(|figures| format!("{NONE}: {figures}"))?;
    let mut settled = in_mode(spec, choice.mode);
    for (source, node) in settled.mode_sources.iter_mut().zip(&spec.thread.nodes) {
        if node.task.running_mode == RunningMode::Auto {
            *source = format!("goal ({})", choice.why);
        }
    }
    Ok(Some((settled, choice.why)))
}

const NONE: &str = "no running mode reaches the goals";
const NEXT: &str = "raise the goal (--cost-max, --within, --machines-max, or 'goals' in the configuration), or name a mode with --mode";

/// The submission in the mode that its goals pick.
pub(super) async fn settle_mode(
    app: &Arc<App>,
    request: &StartRequest,
    submission: Submission,
) -> Result<Submission, Fail> {
    let goals = goals_of(app, request)?;
    if !goals.asks() || !is_open(&submission.spec) {
        return Ok(submission);
    }
    let projected = projected(app, submission.spec.clone(), goals.clone()).await?;
    let picked = picked(&submission.spec, &goals, &projected)
        .map_err(|why| Fail::new(StatusCode::UNPROCESSABLE_ENTITY, why, Some(NEXT)))?;
    Ok(match picked {
        Some((spec, _)) => Submission { spec, ..submission },
        None => submission,
    })
}

/// A dry run of modes: each, and every solution by itself; the spec in the mode that the goals pick, and why, or why
/// none does.
pub(super) struct Modes {
    pub(super) spec: SessionSpec,
    pub(super) views: Vec<ModeView>,
    pub(super) picked: Option<String>,
    pub(super) missed: Option<String>,
}

/// Every mode and every solution by itself, for a dry run.
pub(super) async fn modes(app: &Arc<App>, user: &UserName, request: &StartRequest) -> Result<Modes, Fail> {
    let spec = as_written(app, user, request).await?.spec;
    let goals = goals_of(app, request)?;
    let projected = projected(app, spec.clone(), goals.clone()).await?;
    let views = projected.iter().map(view).collect();
    Ok(match picked(&spec, &goals, &projected) {
        Ok(Some((spec, why))) => Modes { spec, views, picked: Some(why), missed: None },
        Ok(None) => Modes { spec, views, picked: None, missed: None },
        Err(why) => Modes { spec, views, picked: None, missed: Some(format!("{why}; {NEXT}")) },
    })
}

fn view(of: &Projected) -> ModeView {
    let course = &of.course;
    let in_gateways = course.items.iter().filter(|item| matches!(item.place, Place::Gateway(_))).count();
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    ModeView {
        mode: of.mode.to_string(),
        solution: of.solution.as_ref().map(ToString::to_string),
        items_nano_usd: course.cost.0,
        machines_nano_usd: course.machine_cost.0,
        fixed_nano_usd: course.fixed_cost.0,
        total_ms: course.total_ms,
        wait_mean_ms: course.wait_mean_ms,
        wait_max_ms: course.wait_max_ms,
        machines: course.machines,
        on_instances: number(course.items.len() - in_gateways),
        in_gateways: number(in_gateways),
        instance_ms: course.instance_ms,
        gateway_ms: course.gateway_ms,
        miss: of.miss.as_ref().map(ToString::to_string),
    }
}
