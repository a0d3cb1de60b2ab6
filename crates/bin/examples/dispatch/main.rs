//! `cargo xtask bench dispatch [--quick]`: how fast tasks are accepted, started and finished, with the peers
//! that are installed measured in the same run. `--quick` leaves out what takes a minute.
//!
//! Everything runs with its defaults: ledger on disk with a flush per commit, logs kept, time and memory
//! of each attempt measured. What a peer reached elsewhere is printed as a reference, and no ratio of what was
//! measured here is called by another name.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

mod nats;
mod noop;
mod peers;
mod rows;
mod running;

use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

pub(crate) const TASKS: u32 = 10_000;
pub(crate) const RATE: &str = "1 /bin/true tasks per second";
pub(crate) const ONE_P50: &str = "7 one task, submit to finish, p50";
pub(crate) const CHAIN: &str = "8 chain, per link";
pub(crate) const LAYERS: &str = "9 layers of 100, two links each";

fn main() -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider().install_default().ok().context("TLS provider")?;
    let has = |flag: &str| std::env::args().any(|a| a == flag);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut report = Report { quiet: has("--json"), rows: Vec::new() };
    runtime.block_on(all(&mut report, has("--quick")))?;
    if report.quiet {
        let cores = std::thread::available_parallelism()?.get();
        println!("{}", json!({"bench": "dispatch", "cores": cores, "rows": report.rows}));
    }
    Ok(())
}

/// What was measured; the number before a measure is its row in the goals.
pub(crate) struct Report {
    pub(crate) quiet: bool,
    rows: Vec<Value>,
}

impl Report {
    pub(crate) fn row(&mut self, what: &str, who: &str, value: f64, unit: &str) {
        if !self.quiet {
            println!("{what:<46} {who:<26} {value:>12.2} {unit}");
        }
        self.rows.push(json!({"measure": what, "who": who, "value": value, "unit": unit}));
    }
    pub(crate) fn missing(&self, who: &str, package: &str) {
        if !self.quiet {
            println!("  {who} is not installed ({package}): not measured");
        }
    }
    fn find(&self, (measure, who): (&str, &str)) -> Option<f64> {
        self.rows.iter().find(|r| r["measure"] == measure && r["who"] == who).and_then(|r| r["value"].as_f64())
    }
    fn ratio(&self, what: &str, of: (&str, &str), by: (&str, &str)) {
        if let (Some(ours), Some(theirs), false) = (self.find(of), self.find(by), self.quiet) {
            println!("  ratio: {what}: {:.2}", ours / theirs);
        }
    }
    /// Against a figure from another run on a machine of this kind.
    fn against(&self, what: &str, of: (&str, &str), reference: f64) {
        if let (Some(ours), false) = (self.find(of), self.quiet) {
            println!("  ratio: {what} {reference} (reference, not measured here): {:.2}", ours / reference);
        }
    }
}

pub(crate) fn rate(count: u32, took: Duration) -> f64 {
    f64::from(count) / took.as_secs_f64()
}

pub(crate) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

pub(crate) fn latencies(report: &mut Report, who: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    report.row(ONE_P50, who, percentile(&values, 50), "ms");
    report.row("7 one task, submit to finish, p99", who, percentile(&values, 99), "ms");
}

async fn all(report: &mut Report, quick: bool) -> anyhow::Result<()> {
    peers::spawn_loops(report)?;
    peers::xargs(report)?;
    rows::submits(report).await?;
    rows::tasks(report).await?;
    rows::graphs(report).await?;
    rows::array(report).await?;
    if !quick {
        rows::many(report).await?;
    }
    noop::rows(report).await?;
    nats::rows(report).await?;
    peers::hyperqueue(report)?;
    peers::ray(report)?;
    ratios(report);
    Ok(())
}

fn ratios(report: &Report) {
    let ours = (RATE, "skein, 2 slots");
    report.ratio("1 tasks/s, skein over spawn on 2 threads", ours, ("spawn and wait", "2 threads"));
    report.against("1 tasks/s, skein over hq's array", ours, 902.0);
    report.ratio("2 100,000 tasks over 10,000", (RATE, "skein, 100,000 tasks"), ours);
    report.against("3 no-op tasks/s over hq's zero worker", (noop::RATE, "skein, 64 slots"), 2321.0);
    let cpu = "4 engine CPU per task";
    report.against("4 engine CPU over hq's server with journal", (cpu, "skein, 100,000 tasks"), 42.0);
    let cli = (ONE_P50, "skein CLI");
    report.ratio("6 one task by CLI, skein over hyperqueue", cli, (ONE_P50, "hyperqueue CLI"));
    report.against("6 one task by CLI over hq's ms", cli, 57.0);
    report.ratio("7 one task, skein over ray", (ONE_P50, "skein API"), (ONE_P50, "ray, no-op, not durable"));
    report.ratio("8 chain, skein over ray", (CHAIN, "skein"), (CHAIN, "ray, no-op, not durable"));
    report.against("8 chain over hq's ms", (CHAIN, "skein"), 44.5);
    report.ratio("9 layers, skein over ray", (LAYERS, "skein"), (LAYERS, "ray, not durable"));
    report.against("9 layers over hq's /s", (LAYERS, "skein"), 686.0);
    report.ratio("9 layers over own array", (LAYERS, "skein"), ours);
    report.ratio("17 results recorded over JetStream", (noop::RATE, "skein, 64 slots"), (nats::PUBLISH, "JetStream"));
    report.ratio("18 round trip over NATS", (noop::TRIP, "skein"), (noop::TRIP, "NATS core"));
    report.ratio("19 skein run over xargs", (RATE, "skein run, whole command"), (RATE, "xargs -P2"));
    report.ratio("19 skein run over parallel", (RATE, "skein run, whole command"), (RATE, "GNU parallel -j2"));
}
