//! What users would take instead, measured in the same run where it is installed.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::running::quiet_command;
use crate::{RATE, Report, TASKS, latencies, rate};

const SPAWNS: u32 = 10_000;
const PARALLEL: u32 = 1_000;

pub(crate) fn spawn_loops(report: &mut Report) -> anyhow::Result<()> {
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

pub(crate) fn xargs(report: &mut Report) -> anyhow::Result<()> {
    let start = Instant::now();
    let done = quiet_command("sh").arg("-c").arg(format!("seq {SPAWNS} | xargs -P2 -I{{}} /bin/true")).status()?;
    if done.success() {
        report.row(RATE, "xargs -P2", rate(SPAWNS, start.elapsed()), "/s");
    }
    let start = Instant::now();
    let done = quiet_command("sh").arg("-c").arg(format!("seq {PARALLEL} | parallel -j2 /bin/true {{}}")).status()?;
    if done.success() {
        report.row(RATE, "GNU parallel -j2", rate(PARALLEL, start.elapsed()), "/s");
    } else {
        report.missing("GNU parallel", "Debian: parallel");
    }
    Ok(())
}

/// `HyperQueue` (`pip install hyperqueue`), when `hq` is there; with a journal, since ours is durable.
pub(crate) fn hyperqueue(report: &mut Report) -> anyhow::Result<()> {
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
    report.row(RATE, "hyperqueue, 2 slots", rate(TASKS, start.elapsed()), "/s");
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
            report.row(RATE, "hyperqueue by Python", rate, "/s (no journal)");
        }
        None => report.missing("hyperqueue", "PyPI: hyperqueue"),
    }
    Ok(())
}

/// Ray (`pip install ray`): tasks that start `/bin/true`, nothing durable.
const RAY: &str = r#"
import os, subprocess, time
os.environ["RAY_DEDUP_LOGS"] = "0"
import ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
@ray.remote
def work(*after):
    subprocess.run(["/bin/true"])
@ray.remote
def noop(*after):
    pass
ray.get([noop.remote() for _ in range(100)])
def timed(what):
    start = time.perf_counter()
    what()
    return time.perf_counter() - start
one = sorted(timed(lambda: ray.get(noop.remote())) for _ in range(300))
print("one", one[150] * 1e3)
def chain():
    last = noop.remote()
    for _ in range(199):
        last = noop.remote(last)
    ray.get(last)
print("link", timed(chain) / 200 * 1e3)
def layers():
    row = [work.remote() for _ in range(100)]
    for _ in range(19):
        row = [work.remote(row[i], row[(i + 1) % 100]) for i in range(100)]
    ray.get(row)
print("layers", 2000 / timed(layers))
"#;

pub(crate) fn ray(report: &mut Report) -> anyhow::Result<()> {
    let mut python = quiet_command("python3");
    let output = python.stdout(Stdio::piped()).args(["-c", RAY]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let find = |word: &str| text.lines().find_map(|l| l.strip_prefix(word)?.trim().parse::<f64>().ok());
    let (Some(one), Some(link), Some(layers)) = (find("one "), find("link "), find("layers ")) else {
        report.missing("ray", "PyPI: ray");
        return Ok(());
    };
    report.row(crate::ONE_P50, "ray, no-op, not durable", one, "ms");
    report.row(crate::CHAIN, "ray, no-op, not durable", link, "ms");
    report.row(crate::LAYERS, "ray, not durable", layers, "/s");
    Ok(())
}
