//! `skein simulate`: traces under policies, side by side, by the engine's own decision functions.

mod ledger;

use std::path::{Path, PathBuf};

use serde_json::json;
use skein_sim::{
    Bounds, Defaults, Engine, FixedAtPeak, Keda, Metrics, Rule, Scaled, Scenario, Scenarios, ServerlessOnly, bounds,
    simulate,
};

use crate::failure::{Ended, OK, usage};
use crate::output::{self, Table, line, note};

/// `skein simulate`.
#[derive(Debug, clap::Args)]
pub(crate) struct SimulateArgs {
    /// What there is: traces, machines, shared solutions, allowed waits (JSON)
    #[arg(long, value_name = "FILE", required_unless_present = "from_ledger")]
    scenarios: Option<PathBuf>,
    /// Instead: what the engine of this folder did, decided once more and compared with its orders on record
    #[arg(long, value_name = "DIR", conflicts_with_all = ["scenarios", "traces", "scenario", "policy"])]
    from_ledger: Option<PathBuf>,
    /// With --from-ledger: only orders about this session
    #[arg(long, value_name = "ID", requires = "from_ledger")]
    session: Option<String>,
    /// Folder of the traces [default: the scenarios' own]
    #[arg(long, value_name = "DIR")]
    traces: Option<PathBuf>,
    /// Only this scenario; may be given again
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
    /// Only this policy: engine, keda, thresholds, projection, serverless-only, fixed-at-peak; may be given again
    #[arg(long, value_name = "NAME", value_parser = POLICIES)]
    policy: Vec<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

const POLICIES: [&str; 6] = ["engine", "keda", "thresholds", "projection", "serverless-only", "fixed-at-peak"];

/// A policy from its beginning: one that was played has learnt.
fn policy(name: &str) -> Box<dyn Rule> {
    match name {
        "keda" => Box::new(Keda::default()),
        "thresholds" => Box::new(Scaled::by_share()),
        "projection" => Box::new(Scaled::by_projection()),
        "serverless-only" => Box::new(ServerlessOnly::default()),
        "fixed-at-peak" => Box::new(FixedAtPeak),
        _ => Box::new(Engine::new(Defaults::default())),
    }
}

/// Plays them.
pub(crate) fn run(args: &SimulateArgs) -> Ended {
    if let Some(dir) = &args.from_ledger {
        return ledger::run(dir, args.session.as_deref(), args.json);
    }
    let Some(scenarios) = &args.scenarios else { return Err(usage("give --scenarios FILE or --from-ledger DIR")) };
    let all = Scenarios::read(scenarios).map_err(|e| usage(e.to_string()))?;
    let own = scenarios.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = args.traces.as_deref().unwrap_or(own);
    let known: Vec<(String, String)> = all.list().map(|(name, trace)| (name.to_owned(), trace.to_owned())).collect();
    if let Some(unknown) = args.scenario.iter().find(|name| !known.iter().any(|(known, _)| known == *name)) {
        let names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
        return Err(usage(format!("there is no scenario '{unknown}' (there are: {})", names.join(", "))));
    }
    let policies: Vec<&str> = POLICIES.into_iter().filter(|name| is_asked(&args.policy, name)).collect();
    let mut played = Vec::new();
    for (name, trace) in known.iter().filter(|(name, _)| is_asked(&args.scenario, name)) {
        if !folder.join(trace).exists() {
            note(&format!("{name}: skipped: there is no {trace} in {} (--traces names another)", folder.display()));
            continue;
        }
        let scenario = all.load(name, folder).map_err(|e| usage(e.to_string()))?;
        let bounds = bounds(&scenario);
        let came_of: Vec<(&str, Metrics)> =
            policies.iter().map(|name| (*name, simulate(&scenario, policy(name).as_mut()))).collect();
        if args.json {
            played.push(as_json(&scenario, &bounds, &came_of));
        } else {
            print(&scenario, &bounds, &came_of);
        }
    }
    if args.json {
        output::json(&played)?;
    }
    Ok(OK)
}

fn is_asked(asked: &[String], name: &str) -> bool {
    asked.is_empty() || asked.iter().any(|one| one == name)
}

fn as_json(scenario: &Scenario, bounds: &Bounds, came_of: &[(&str, Metrics)]) -> serde_json::Value {
    let figures = |metrics: &Metrics| -> serde_json::Map<String, serde_json::Value> {
        Metrics::NAMES.into_iter().zip(metrics.values()).map(|(name, value)| (name.to_owned(), json!(value))).collect()
    };
    let policies: Vec<_> = came_of
        .iter()
        .map(|(name, metrics)| {
            json!({"policy": name, "cost_over_bound": metrics.cost / bounds.clairvoyant, "figures": figures(metrics)})
        })
        .collect();
    json!({
        "scenario": scenario.name, "items": scenario.items.len(), "bound_usd": bounds.clairvoyant,
        "at_once_mean": bounds.mean, "at_once_peak": bounds.peak, "policies": policies,
    })
}

fn print(scenario: &Scenario, bounds: &Bounds, came_of: &[(&str, Metrics)]) {
    line(&format!(
        "{}: {} items, at once {:.1} in the mean and {} at most; nobody could pay less than {:.2} USD",
        scenario.name,
        scenario.items.len(),
        bounds.mean,
        bounds.peak,
        bounds.clairvoyant
    ));
    let header = ["policy", "USD", "over bound", "late", "wait p50", "p95", "p99", "on shared", "machines", "used"];
    let mut table = Table::new(&header).right(&[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    for (name, m) in came_of {
        table.row([
            (*name).to_owned(),
            format!("{:.2}", m.cost),
            format!("{:.3} x", m.cost / bounds.clairvoyant),
            format!("{:.3} %", 100.0 * m.late),
            format!("{:.2} s", m.wait_p50),
            format!("{:.2} s", m.wait_p95),
            format!("{:.2} s", m.wait_p99),
            format!("{:.1} %", 100.0 * m.shared_share),
            format!("{:.0}", m.launches),
            format!("{:.0} %", 100.0 * m.used),
        ]);
    }
    table.print();
    line("");
}
