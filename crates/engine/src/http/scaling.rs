//! Metrics of scaling elements: as they stand, and values of custom ones.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use skein_api::{MetricValue, MetricView};
use skein_domain::SolutionId;
use skein_domain::scaling::Milli;

use super::User;
use super::fail::{Fail, typed_body};
use crate::app::App;
use crate::core::{Core, Input};

pub(super) async fn metrics(_: User, State(app): State<Arc<App>>) -> Result<Json<Vec<MetricView>>, Fail> {
    Ok(Json(app.writer.look(views).await?))
}

fn views(core: &Core) -> Vec<MetricView> {
    let view = |seen: skein_domain::decide::demand::ElementMetric| {
        let wants = core.snapshot().element_wants(&seen.solution);
        MetricView {
            solution: seen.solution.to_string(),
            element: seen.element,
            metric: seen.name,
            unit: word(&seen.metric.unit),
            statistic: word(&seen.metric.statistic),
            period_s: seen.metric.period_s,
            custom: seen.custom,
            value: seen.value.map(Milli::to_number),
            wants: wants.map(|(machines, _)| *machines),
            why: wants.map(|(_, why)| why.clone()),
        }
    };
    core.element_metrics().into_iter().map(view).collect()
}

/// As it is written in files.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

pub(super) async fn say(
    User(by): User,
    State(app): State<Arc<App>>,
    Path(metric): Path<String>,
    request: Request,
) -> Result<StatusCode, Fail> {
    let MetricValue { value, solution } = typed_body(request).await?;
    let solution = solution.map(|id| SolutionId::new(&id)).transpose()?;
    let value = Milli::from_number(value)
        .ok_or_else(|| Fail::bad(format!("{value} is too large to be kept to a thousandth: give at most 1e12")))?;
    app.writer.ask(|reply| Input::SayMetric { reply, metric, solution, value, by }).await?;
    Ok(StatusCode::NO_CONTENT)
}
