//! What came of a scenario under its policies: a table, JSON, a chart.

use std::path::Path;

use serde_json::json;
use skein_sim::{Bounds, Course, Metrics, Scenario, bounds_of_offers};

use super::chart;
use super::policies::Policy;
use crate::failure::usage;
use crate::output::{Table, line, note};

/// What came of one policy.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) policy: String,
    pub(super) metrics: Metrics,
    pub(super) course: Course,
    /// What the engine's policy decided last, and why.
    pub(super) why: Option<String>,
}

/// How it is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form<'a> {
    pub(super) json: bool,
    pub(super) wide: bool,
    pub(super) charts: Option<&'a Path>,
}

/// Plays a scenario under policies; prints them side by side and writes their chart, or gives them as JSON.
pub(super) fn compare(scenario: &Scenario, policies: &[Policy], form: Form<'_>) -> anyhow::Result<serde_json::Value> {
    let bounds = bounds_of_offers(scenario);
    let outcomes: Vec<Outcome> = policies.iter().filter_map(|policy| policy.play(scenario)).collect();
    if scenario.left_out > 0 {
        let what = "lines of its trace are left out: they never started, or are not known to have";
        note(&format!("{}: {} {what}", scenario.name, scenario.left_out));
    }
    let chart = form.charts.map(|dir| draw(dir, scenario, &bounds, &outcomes)).transpose()?;
    if !form.json {
        print(scenario, &bounds, &outcomes, form.wide);
        if let Some(path) = &chart {
            line(&format!("chart: {path}"));
        }
        line("");
    }
    Ok(as_json(scenario, &bounds, &outcomes, chart))
}

fn draw(dir: &Path, scenario: &Scenario, bounds: &Bounds, outcomes: &[Outcome]) -> anyhow::Result<String> {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_+".contains(c) { c } else { '_' };
    let path = dir.join(format!("{}.svg", scenario.name.chars().map(plain).collect::<String>()));
    let failed = |error: std::io::Error| usage(format!("the chart {} cannot be written: {error}", path.display()));
    std::fs::create_dir_all(dir).map_err(failed)?;
    std::fs::write(&path, chart::draw(scenario, bounds, outcomes)).map_err(failed)?;
    Ok(path.display().to_string())
}

/// Cost over the bound, in words around it; nothing where the bound is nothing.
pub(super) fn over(outcome: &Outcome, bounds: &Bounds, before: &str, after: &str) -> String {
    let over = outcome.metrics.cost / bounds.clairvoyant;
    if over.is_finite() { format!("{before}{over:.3}{after}") } else { String::new() }
}

fn as_json(scenario: &Scenario, bounds: &Bounds, outcomes: &[Outcome], chart: Option<String>) -> serde_json::Value {
    let figures = |metrics: &Metrics| -> serde_json::Map<String, serde_json::Value> {
        Metrics::NAMES.into_iter().zip(metrics.values()).map(|(name, value)| (name.to_owned(), json!(value))).collect()
    };
    let policies: Vec<_> = outcomes
        .iter()
        .map(|o| {
            let over = o.metrics.cost / bounds.clairvoyant;
            json!({"policy": o.policy, "cost_over_bound": over, "figures": figures(&o.metrics), "why": o.why})
        })
        .collect();
    json!({
        "scenario": scenario.name, "items": scenario.items.len(), "left_out": scenario.left_out,
        "bound_usd": bounds.clairvoyant, "at_once_mean": bounds.mean, "at_once_peak": bounds.peak,
        "policies": policies, "chart": chart,
    })
}

type Column = (&'static str, fn(&Metrics) -> String);

/// Columns after the policy, its cost and its cost over the bound.
const COLUMNS: [Column; 9] = [
    ("late", |m| percent(m.late, 3)),
    ("wait p50", |m| format!("{:.2} s", m.wait_p50)),
    ("p95", |m| format!("{:.2} s", m.wait_p95)),
    ("p99", |m| format!("{:.2} s", m.wait_p99)),
    ("on shared", |m| percent(m.shared_share, 1)),
    ("machines", |m| format!("{:.0}", m.launches)),
    ("used", |m| percent(m.used, 0)),
    ("too little", |m| percent(m.under, 2)),
    ("too much", |m| percent(m.over, 1)),
];

/// And with `--wide`.
const WIDE: [Column; 8] = [
    ("time too little", |m| percent(m.under_time, 1)),
    ("time too much", |m| percent(m.over_time, 1)),
    ("for machines", |m| format!("{} USD", money(m.machine_cost))),
    ("for shared", |m| format!("{} USD", money(m.shared_cost))),
    ("machine hours", |m| format!("{:.1}", m.machine_hours)),
    ("cold starts", |m| format!("{:.0}", m.cold_starts)),
    ("longest wait", |m| format!("{:.1} s", m.wait_max)),
    ("slowdown", |m| format!("{:.3}", m.slowdown)),
];

/// US dollars with as many digits as small amounts need.
pub(super) fn money(usd: f64) -> String {
    match usd {
        usd if usd == 0.0 || usd >= 1.0 => format!("{usd:.2}"),
        usd if usd >= 0.01 => format!("{usd:.4}"),
        usd => format!("{usd:.6}"),
    }
}

fn percent(share: f64, digits: usize) -> String {
    format!("{:.digits$} %", 100.0 * share)
}

fn print(scenario: &Scenario, bounds: &Bounds, outcomes: &[Outcome], wide: bool) {
    line(&format!(
        "{}: {} items, at once {:.1} in the mean and {} at most; nobody could pay less than {} USD",
        scenario.name,
        scenario.items.len(),
        bounds.mean,
        bounds.peak,
        money(bounds.clairvoyant)
    ));
    let more = if wide { &WIDE[..] } else { &[] };
    let columns: Vec<&Column> = COLUMNS.iter().chain(more).collect();
    let header: Vec<&str> =
        ["policy", "USD", "over bound"].into_iter().chain(columns.iter().map(|(name, _)| *name)).collect();
    let mut table = Table::new(&header).right(&(1..header.len()).collect::<Vec<_>>());
    for outcome in outcomes {
        let metrics = &outcome.metrics;
        let over = over(outcome, bounds, "", " x");
        let first = [outcome.policy.clone(), money(metrics.cost), over];
        table.row(first.into_iter().chain(columns.iter().map(|(_, cell)| cell(metrics))));
    }
    table.print();
    for (policy, why) in outcomes.iter().filter_map(|o| Some((&o.policy, o.why.as_ref()?))) {
        line(&format!("{policy}, at the end: {why}"));
    }
}
