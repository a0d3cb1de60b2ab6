//! `skein simulate`: traces under policies, side by side, by the engine's own decision functions.

mod chart;
mod ledger;
mod policies;
mod report;

use std::path::{Path, PathBuf};

use skein_sim::Scenarios;

use crate::failure::{Ended, OK, usage};
use crate::output::{self, note};
use report::{Form, compare};

/// `skein simulate`.
#[derive(Debug, clap::Args)]
pub(crate) struct SimulateArgs {
    /// What there is: traces (CSV, SWF), machines, shared solutions, allowed waits (JSON)
    #[arg(long, value_name = "FILE", required_unless_present = "from_ledger")]
    scenarios: Option<PathBuf>,
    /// Instead: what the engine of this folder did, decided once more and compared with its orders on record; then
    /// its items played under the policy on record and those of --policy
    #[arg(long, value_name = "DIR", conflicts_with_all = ["scenarios", "traces", "scenario"])]
    from_ledger: Option<PathBuf>,
    /// With --from-ledger: only orders about this session, and its items
    #[arg(long, value_name = "ID", requires = "from_ledger")]
    session: Option<String>,
    /// Folder of the traces [default: the scenarios' own]
    #[arg(long, value_name = "DIR")]
    traces: Option<PathBuf>,
    /// Only this scenario; may be given again
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
    /// Only this policy: engine, keda, thresholds, projection, serverless-only, fixed-at-peak; or a file with the
    /// configuration's `scaling` (and `thresholds`), beside those; may be given again
    #[arg(long, value_name = "NAME|FILE")]
    policy: Vec<String>,
    /// Writes a chart of each scenario into this folder (SVG)
    #[arg(long, value_name = "DIR")]
    charts: Option<PathBuf>,
    /// More columns: time with too little and too much, what is paid for, cold starts, longest wait, slowdown
    #[arg(long)]
    wide: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Plays them.
pub(crate) fn run(args: &SimulateArgs) -> Ended {
    let form = Form { json: args.json, wide: args.wide, charts: args.charts.as_deref() };
    if let Some(dir) = &args.from_ledger {
        return ledger::run(dir, args.session.as_deref(), &args.policy, form);
    }
    let Some(scenarios) = &args.scenarios else { return Err(usage("give --scenarios FILE or --from-ledger DIR")) };
    let policies = policies::asked(&args.policy, true)?;
    let all = Scenarios::read(scenarios).map_err(|e| usage(e.to_string()))?;
    let own = scenarios.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = args.traces.as_deref().unwrap_or(own);
    let known: Vec<(String, String)> = all.list().map(|(name, trace)| (name.to_owned(), trace.to_owned())).collect();
    if let Some(unknown) = args.scenario.iter().find(|name| !known.iter().any(|(known, _)| known == *name)) {
        let names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
        return Err(usage(format!("there is no scenario '{unknown}' (there are: {})", names.join(", "))));
    }
    let is_asked = |name: &String| args.scenario.is_empty() || args.scenario.contains(name);
    let mut played = Vec::new();
    for (name, trace) in known.iter().filter(|(name, _)| is_asked(name)) {
        if !folder.join(trace).exists() {
            note(&format!("{name}: skipped: there is no {trace} in {} (--traces names another)", folder.display()));
            continue;
        }
        let scenario = all.load(name, folder).map_err(|e| usage(e.to_string()))?;
        played.push(compare(&scenario, &policies, form)?);
    }
    if args.json {
        output::json(&played)?;
    }
    Ok(OK)
}
