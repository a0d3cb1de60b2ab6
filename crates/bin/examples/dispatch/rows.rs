//! Our own rows.

use std::time::Instant;

use anyhow::bail;
use futures_util::StreamExt as _;
use serde_json::{Map, Value, json};
use skein_api::StartRequest;

use crate::running::{Running, quiet_command};
use crate::{CHAIN, LAYERS, RATE, Report, TASKS, latencies, percentile, rate};

const SUBMITS: usize = 4_000;
const SUBMITS_AT_ONCE: usize = 64;
const LATENCIES: usize = 200;
const MANY: u32 = 100_000;
const ARRAY: u32 = 1_000_000;
const LINKS: u32 = 500;
const LAYER: u32 = 100;
const PAGES: usize = 200;

pub(crate) async fn submits(report: &mut Report) -> anyhow::Result<()> {
    let running = Running::start(false).await?;
    report.row("5 resident memory, idle", "skein engine", running.memory_mb("VmRSS")?, "MiB");
    let document = json!({"name": "bench", "command": ["/bin/true"]});
    let request = StartRequest { document: Some(document), ..StartRequest::default() };
    let start = Instant::now();
    let mut done = futures_util::stream::iter(0..SUBMITS)
        .map(|_| running.client.start(&request))
        .buffer_unordered(SUBMITS_AT_ONCE);
    let mut count = 0_u32;
    while let Some(started) = done.next().await {
        started?;
        count += 1;
    }
    report.row("durable submits per second, 64 at once", "skein", rate(count, start.elapsed()), "/s");
    Ok(())
}

pub(crate) async fn tasks(report: &mut Report) -> anyhow::Result<()> {
    let running = Running::start(true).await?;
    running.run(100).await?;
    let cpu = running.cpu_s()?;
    let took = running.run(TASKS).await?;
    let cpu_us = (running.cpu_s()? - cpu) * 1e6 / f64::from(TASKS);
    report.row(RATE, "skein, 2 slots", rate(TASKS, took), "/s");
    report.row("4 engine CPU per task", "skein, 10,000 tasks", cpu_us, "us");
    let command = || {
        let mut command = quiet_command(&running.skein);
        command.arg("run").arg("--dir").arg(running.dir.path());
        command
    };
    let start = Instant::now();
    let done = command().args(["--array", &TASKS.to_string(), "--", "/bin/true"]).status()?;
    if !done.success() {
        bail!("skein run failed");
    }
    report.row(RATE, "skein run, whole command", rate(TASKS, start.elapsed()), "/s");
    let mut open = Vec::new();
    for _ in 0..LATENCIES {
        open.push(running.run(1).await?.as_secs_f64() * 1e3);
    }
    let mut cli = Vec::new();
    for _ in 0..LATENCIES {
        let start = Instant::now();
        if !command().args(["--", "/bin/true"]).status()?.success() {
            bail!("skein run failed");
        }
        cli.push(start.elapsed().as_secs_f64() * 1e3);
    }
    latencies(report, "skein API", open);
    latencies(report, "skein CLI", cli);
    Ok(())
}

/// A chain, and layers in which each task waits for two of the layer before.
pub(crate) async fn graphs(report: &mut Report) -> anyhow::Result<()> {
    let running = Running::start(true).await?;
    running.run(100).await?;
    let task = |after: Vec<String>| json!({"command": ["/bin/true"], "after": after});
    let chain: Map<String, Value> = (0..LINKS)
        .map(|n| (format!("t{n}"), task(n.checked_sub(1).map(|b| format!("t{b}")).into_iter().collect())))
        .collect();
    let took = running.run_document(json!({"name": "chain", "tasks": chain})).await?;
    report.row(CHAIN, "skein", took.as_secs_f64() * 1e3 / f64::from(LINKS), "ms");
    let name = |layer: u32, at: u32| format!("t{layer}-{}", at % LAYER);
    let after = |layer: u32, at: u32| match layer.checked_sub(1) {
        Some(before) => vec![name(before, at), name(before, at + 1)],
        None => Vec::new(),
    };
    let places = (0..TASKS / LAYER).flat_map(|layer| (0..LAYER).map(move |at| (layer, at)));
    let layers: Map<String, Value> = places.map(|(layer, at)| (name(layer, at), task(after(layer, at)))).collect();
    let cpu = running.cpu_s()?;
    let took = running.run_document(json!({"name": "layers", "tasks": layers})).await?;
    report.row(LAYERS, "skein", rate(TASKS, took), "/s");
    report.row("4 engine CPU per task", "skein, layers", (running.cpu_s()? - cpu) * 1e6 / f64::from(TASKS), "us");
    Ok(())
}

/// A million indices: accepted, and cancelled.
pub(crate) async fn array(report: &mut Report) -> anyhow::Result<()> {
    let running = Running::start(false).await?;
    let document = json!({"name": "bench", "command": ["/bin/true"], "array": ARRAY});
    let start = Instant::now();
    let started = running.client.start(&StartRequest { document: Some(document), ..StartRequest::default() }).await?;
    report.row("10 array of 1,000,000 accepted", "skein", start.elapsed().as_secs_f64() * 1e3, "ms");
    let start = Instant::now();
    running.client.stop(&started.session).await?;
    while running.client.session(&started.session).await?.summary.state != "cancelled" {
        tokio::task::yield_now().await;
    }
    report.row("array of 1,000,000 cancelled", "skein", start.elapsed().as_secs_f64() * 1e3, "ms");
    report.row("5 peak memory of the engine", "skein, array of 1,000,000", running.memory_mb("VmHWM")?, "MiB");
    Ok(())
}

pub(crate) async fn many(report: &mut Report) -> anyhow::Result<()> {
    let running = Running::start(true).await?;
    running.run(100).await?;
    let cpu = running.cpu_s()?;
    let took = running.run(MANY).await?;
    report.row(RATE, "skein, 100,000 tasks", rate(MANY, took), "/s");
    let cpu_us = (running.cpu_s()? - cpu) * 1e6 / f64::from(MANY);
    report.row("4 engine CPU per task", "skein, 100,000 tasks", cpu_us, "us");
    report.row("5 peak memory of the engine", "skein, 100,000 tasks", running.memory_mb("VmHWM")?, "MiB");
    let sessions = running.client.sessions(skein_api::PageQuery { limit: 1, offset: 0 }).await?;
    let Some(session) = sessions.first().map(|s| s.session.clone()) else { bail!("no session is listed") };
    let (mut took, mut after) = (Vec::new(), None);
    for _ in 0..PAGES {
        let start = Instant::now();
        let page = running.client.attempts(&session, after.as_deref(), 100).await?;
        took.push(start.elapsed().as_secs_f64() * 1e3);
        after = page.last().map(|attempt| attempt.attempt.clone());
    }
    took.sort_by(f64::total_cmp);
    report.row("20 page of 100 of 100,000 over HTTP, p99", "skein", percentile(&took, 99), "ms");
    Ok(())
}
