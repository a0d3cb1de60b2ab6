//! `cargo xtask bench dispatch`: how fast tasks are accepted, started and finished, with the peers that
//! are installed measured in the same run.
//!
//! Everything runs with its defaults: ledger on disk with a flush per commit, logs kept, time and memory
//! of each attempt measured.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use skein_api::{Client, StartRequest};

const TASKS: u32 = 10_000;
const SUBMITS: usize = 4_000;
const SUBMITS_AT_ONCE: usize = 64;
const LATENCIES: usize = 200;
const SPAWNS: u32 = 3_000;

fn main() -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider().install_default().ok().context("TLS provider")?;
    let json_only = std::env::args().any(|a| a == "--json");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let rows = runtime.block_on(all(json_only))?;
    if json_only {
        println!(
            "{}",
            json!({"bench": "dispatch", "cores": std::thread::available_parallelism()?.get(), "rows": rows})
        );
    }
    Ok(())
}

struct Report {
    quiet: bool,
    rows: Vec<Value>,
}

impl Report {
    fn row(&mut self, what: &str, who: &str, value: f64, unit: &str) {
        if !self.quiet {
            println!("{what:<44} {who:<22} {value:>12.2} {unit}");
        }
        self.rows.push(json!({"measure": what, "who": who, "value": value, "unit": unit}));
    }
    fn ratio(&self, what: &str, of: (&str, &str), by: (&str, &str)) {
        let find = |(measure, who): (&str, &str)| {
            self.rows.iter().find(|r| r["measure"] == measure && r["who"] == who).and_then(|r| r["value"].as_f64())
        };
        if let (Some(ours), Some(theirs), false) = (find(of), find(by), self.quiet) {
            println!("  ratio: {what}: {:.2}", ours / theirs);
        }
    }
}

async fn all(quiet: bool) -> anyhow::Result<Vec<Value>> {
    let mut report = Report { quiet, rows: Vec::new() };
    spawn_loops(&mut report)?;
    xargs(&mut report)?;
    submits(&mut report).await?;
    tasks(&mut report).await?;
    hyperqueue(&mut report)?;
    let rate = "/bin/true tasks per second";
    report.ratio("tasks/s, skein over spawn on 2 threads", (rate, "skein, 2 slots"), ("spawn and wait", "2 threads"));
    report.ratio("tasks/s, skein over xargs -P2", (rate, "skein, 2 slots"), (rate, "xargs -P2"));
    report.ratio("tasks/s, skein over hyperqueue", (rate, "skein, 2 slots"), (rate, "hyperqueue, 2 slots"));
    let one = "one task, submit to finish, p50";
    report.ratio("one task by CLI, skein over hyperqueue", (one, "skein CLI"), (one, "hyperqueue CLI"));
    Ok(report.rows)
}

fn rate(count: u32, took: Duration) -> f64 {
    f64::from(count) / took.as_secs_f64()
}

fn spawn_loops(report: &mut Report) -> anyhow::Result<()> {
    for threads in [1_u32, 2] {
        let start = Instant::now();
        let handles: Vec<_> = (0..threads)
            .map(|_| {
                std::thread::spawn(move || -> std::io::Result<()> {
                    for _ in 0..SPAWNS / threads {
                        quiet_command("/bin/true").status()?;
                    }
                    Ok(())
                })
            })
            .collect();
        for handle in handles {
            handle.join().ok().context("a spawning thread")??;
        }
        let who = format!("{threads} thread{}", if threads == 1 { "" } else { "s" });
        report.row("spawn and wait", &who, rate(SPAWNS, start.elapsed()), "/s");
    }
    Ok(())
}

fn quiet_command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn xargs(report: &mut Report) -> anyhow::Result<()> {
    let start = Instant::now();
    let done = quiet_command("sh").arg("-c").arg(format!("seq {SPAWNS} | xargs -P2 -I{{}} /bin/true")).status()?;
    if done.success() {
        report.row("/bin/true tasks per second", "xargs -P2", rate(SPAWNS, start.elapsed()), "/s");
    }
    Ok(())
}

/// An engine of its own in a temporary folder.
struct Running {
    process: Child,
    client: Client,
    dir: tempfile::TempDir,
    skein: PathBuf,
}

impl Running {
    async fn start(agent: bool) -> anyhow::Result<Self> {
        let own = std::env::current_exe()?;
        let skein = own.parent().and_then(|p| p.parent()).context("the target folder")?.join("skein");
        if !skein.exists() {
            bail!("{} is not built: use 'cargo xtask bench dispatch'", skein.display());
        }
        let dir = tempfile::tempdir()?;
        let mut command = quiet_command(&skein);
        command.args(["up", "--listen", "127.0.0.1:0", "--dir"]).arg(dir.path());
        if agent {
            command.arg("--agent");
        }
        let process = command.spawn()?;
        let mut running =
            Self { process, client: Client::new(reqwest::Client::new(), "http://127.0.0.1:9", ""), dir, skein };
        running.wait(agent).await?;
        Ok(running)
    }

    async fn wait(&mut self, agent: bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let Ok(text) = std::fs::read_to_string(self.dir.path().join("engine.json")) else { continue };
            let Ok(token) = std::fs::read_to_string(self.dir.path().join("local.token")) else { continue };
            let whereabouts: Value = serde_json::from_str(&text)?;
            let url = whereabouts["url"].as_str().context("engine.json names no url")?;
            self.client = Client::new(reqwest::Client::new(), url, token.trim());
            let instances = self.client.instances().await.unwrap_or_default();
            if self.client.health().await.is_ok() && (!agent || instances.iter().any(|i| i.connected)) {
                return Ok(());
            }
        }
        bail!("the engine did not come up within 20 s")
    }

    /// CPU time of the engine so far, s.
    fn cpu_s(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let after = stat.rsplit_once(')').context("/proc stat")?.1;
        let fields: Vec<&str> = after.split_whitespace().collect();
        // utime and stime, in ticks of 1/100 s.
        let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        Ok(ticks / 100.0)
    }

    fn memory_mb(&self, field: &str) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|l| l.strip_prefix(field)).context("memory")?;
        let kb: f64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
        Ok(kb / 1024.0)
    }

    async fn run(&self, array: u32) -> anyhow::Result<Duration> {
        let document = json!({"name": "bench", "command": ["/bin/true"], "array": array});
        let start = Instant::now();
        let started = self.client.start(&StartRequest { document: Some(document), ..StartRequest::default() }).await?;
        let mut stream = Box::pin(self.client.follow(&started.session, 0, false).await?);
        while let Some(event) = stream.next().await {
            event?;
        }
        let took = start.elapsed();
        let session = self.client.session(&started.session).await?;
        if session.summary.state != "succeeded" {
            bail!("the session ended as {}", session.summary.state);
        }
        Ok(took)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = self.process.id().to_string();
        let asked = quiet_command("kill").arg(&pid).status();
        if !asked.is_ok_and(|s| s.success()) || self.process.wait().is_err() {
            eprintln!("the engine (process {pid}) may still run");
        }
    }
}

async fn submits(report: &mut Report) -> anyhow::Result<()> {
    let running = Running::start(false).await?;
    report.row("resident memory, idle", "skein engine", running.memory_mb("VmRSS")?, "MiB");
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

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

async fn tasks(report: &mut Report) -> anyhow::Result<()> {
    let running = Running::start(true).await?;
    running.run(100).await?;
    let cpu = running.cpu_s()?;
    let took = running.run(TASKS).await?;
    let cpu_us = (running.cpu_s()? - cpu) * 1e6 / f64::from(TASKS);
    report.row("/bin/true tasks per second", "skein, 2 slots", rate(TASKS, took), "/s");
    report.row("engine CPU per task", "skein", cpu_us, "us");
    report.row("peak memory of the engine", "skein", running.memory_mb("VmHWM")?, "MiB");
    let mut open = Vec::new();
    for _ in 0..LATENCIES {
        open.push(running.run(1).await?.as_secs_f64() * 1e3);
    }
    let mut cli = Vec::new();
    for _ in 0..LATENCIES {
        let start = Instant::now();
        let done = quiet_command(&running.skein)
            .arg("run")
            .arg("--dir")
            .arg(running.dir.path())
            .args(["--", "/bin/true"])
            .status()?;
        if !done.success() {
            bail!("skein run failed");
        }
        cli.push(start.elapsed().as_secs_f64() * 1e3);
    }
    latencies(report, "skein API, open client", open);
    latencies(report, "skein CLI", cli);
    Ok(())
}

fn latencies(report: &mut Report, who: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    report.row("one task, submit to finish, p50", who, percentile(&values, 50), "ms");
    report.row("one task, submit to finish, p99", who, percentile(&values, 99), "ms");
}

/// `HyperQueue` (`pip install hyperqueue`), when `hq` is there; with a journal, since ours is durable.
fn hyperqueue(report: &mut Report) -> anyhow::Result<()> {
    if !quiet_command("hq").arg("--version").status().is_ok_and(|s| s.success()) {
        return hyperqueue_python(report);
    }
    let dir = tempfile::tempdir()?;
    let hq = || {
        let mut command = quiet_command("hq");
        command.arg("--server-dir").arg(dir.path()).current_dir(dir.path());
        command
    };
    let mut server = hq().args(["server", "start", "--journal", "journal"]).spawn()?;
    std::thread::sleep(Duration::from_millis(800));
    let mut worker = hq().args(["worker", "start", "--cpus", "2"]).spawn()?;
    hq().args(["submit", "--wait", "--", "/bin/true"]).status()?;
    let start = Instant::now();
    hq().args(["submit", "--wait", "--array", &format!("1-{TASKS}"), "--", "/bin/true"]).status()?;
    report.row("/bin/true tasks per second", "hyperqueue, 2 slots", rate(TASKS, start.elapsed()), "/s");
    let mut values = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        hq().args(["submit", "--wait", "--", "/bin/true"]).status()?;
        values.push(start.elapsed().as_secs_f64() * 1e3);
    }
    latencies(report, "hyperqueue CLI", values);
    hq().args(["server", "stop"]).status()?;
    for child in [&mut worker, &mut server] {
        child.kill().or_else(|e| if e.kind() == std::io::ErrorKind::InvalidInput { Ok(()) } else { Err(e) })?;
        child.wait()?;
    }
    Ok(())
}

/// Newer packages bring the Python interface only. Its client looks once a second whether a job is
/// over, so it gives a rate but no latency; and it has no journal.
const HYPERQUEUE_PYTHON: &str = r#"
import sys, time, tempfile
from hyperqueue import Job
from hyperqueue.cluster import LocalCluster, WorkerConfig
def run(client, count):
    with tempfile.TemporaryDirectory() as folder:
        job = Job(folder)
        for _ in range(count):
            job.program(["/bin/true"])
        start = time.time()
        client.wait_for_jobs([client.submit(job)])
        return time.time() - start
with LocalCluster() as cluster:
    cluster.start_worker(WorkerConfig(cores=2))
    client = cluster.client()
    run(client, 10)
    count = int(sys.argv[1])
    print("rate", count / run(client, count))
"#;

fn hyperqueue_python(report: &mut Report) -> anyhow::Result<()> {
    let mut python = quiet_command("python3");
    let output = python.stdout(Stdio::piped()).args(["-c", HYPERQUEUE_PYTHON, &TASKS.to_string()]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.lines().find_map(|line| line.strip_prefix("rate ")?.parse().ok()) {
        Some(rate) => {
            // Each task is an object of its own there, with files for its output: no ratio is drawn from it.
            report.row("/bin/true tasks per second", "hyperqueue by Python", rate, "/s (no journal)");
            if !report.quiet {
                println!(
                    "  hyperqueue's own array by 'hq': 902 /s on an idle machine of this kind (reference, not measured here)"
                );
            }
        }
        None if !report.quiet => println!("hyperqueue is not installed (PyPI: hyperqueue): not measured"),
        None => {}
    }
    Ok(())
}
