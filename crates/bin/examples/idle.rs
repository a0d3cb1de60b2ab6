//! `cargo xtask bench idle [AGENTS]`: what an engine costs that has nothing to do, alone and with a thousand
//! agents connected that have nothing to do either (heartbeat 5 s). Real agents, one process each.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use skein_api::Client;

const AGENTS: usize = 1_000;
/// Agents that start at a time.
const AT_ONCE: usize = 25;
const ALONE: Duration = Duration::from_secs(20);
const TOGETHER: Duration = Duration::from_mins(1);
const CONFIG: &str = r#"{"resource_time_check_s": 5, "lease_s": 30}"#;

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn main() -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider().install_default().ok().context("TLS provider")?;
    let agents = std::env::args().nth(1).map_or(Ok(AGENTS), |n| n.parse())?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(all(agents))
}

async fn all(agents: usize) -> anyhow::Result<()> {
    let own = std::env::current_exe()?;
    let skein = own.parent().and_then(Path::parent).context("the target folder")?.join("skein");
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("config.json");
    std::fs::write(&config, CONFIG)?;
    let state = dir.path().join(".local/share/skein");
    let mut command = command(&skein, &["up", "--listen", "127.0.0.1:0"], dir.path());
    let engine = Process(command.arg("--config").arg(&config).spawn()?);
    let client = connect(&state).await?;
    measure("engine alone", &engine, ALONE).await?;
    let mut running = Vec::new();
    let begun = Instant::now();
    while running.len() < agents {
        let first = running.len();
        for n in first..(first + AT_ONCE).min(agents) {
            let name = format!("a{n}");
            let own = dir.path().join(&name);
            let mut command = self::command(&skein, &["agent", "--slots", "1", "--name", &name], dir.path());
            running.push(Process(command.arg("--dir").arg(own).spawn()?));
        }
        connected(&client, running.len()).await?;
    }
    println!("{agents} agents joined and connected in {:.1?}", begun.elapsed());
    measure(&format!("engine with {agents} agents"), &engine, TOGETHER).await
}

fn command(skein: &Path, arguments: &[&str], home: &Path) -> Command {
    let mut command = Command::new(skein);
    command.args(arguments).env("HOME", home).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

async fn connect(state: &Path) -> anyhow::Result<Client> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let read = |name: &str| std::fs::read_to_string(PathBuf::from(state).join(name));
        let (Ok(text), Ok(token)) = (read("engine.json"), read("local.token")) else { continue };
        let whereabouts: serde_json::Value = serde_json::from_str(&text)?;
        let url = whereabouts["url"].as_str().context("engine.json names no url")?;
        let client = Client::new(reqwest::Client::new(), url, token.trim());
        if client.health().await.is_ok() {
            return Ok(client);
        }
    }
    bail!("the engine did not come up within 20 s")
}

async fn connected(client: &Client, wanted: usize) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_mins(2);
    while Instant::now() < deadline {
        if client.instances().await?.iter().filter(|i| i.connected).count() >= wanted {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("{wanted} agents did not connect within 2 min")
}

async fn measure(what: &str, engine: &Process, over: Duration) -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = cpu_s(engine)?;
    tokio::time::sleep(over).await;
    let used = (cpu_s(engine)? - before) / over.as_secs_f64() * 100.0;
    println!("{what}: {:.1} MiB resident, {used:.2} % of a core over {} s", resident_mib(engine)?, over.as_secs());
    Ok(())
}

fn cpu_s(process: &Process) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.0.id()))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("/proc stat")?.1.split_whitespace().collect();
    // utime and stime, in ticks of 1/100 s.
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}

fn resident_mib(process: &Process) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.0.id()))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("memory")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}
