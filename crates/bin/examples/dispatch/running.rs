//! An engine of its own, with an agent or without.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use skein_api::client::Following;
use skein_api::{Client, StartRequest};

pub(crate) fn quiet_command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// An engine of its own in a temporary folder.
pub(crate) struct Running {
    process: Child,
    pub(crate) client: Client,
    pub(crate) url: String,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) skein: PathBuf,
}

impl Running {
    pub(crate) async fn start(agent: bool) -> anyhow::Result<Self> {
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
        let mut running = Self {
            process,
            client: Client::new(reqwest::Client::new(), "http://127.0.0.1:9", ""),
            url: String::new(),
            dir,
            skein,
        };
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
            self.url = url.to_owned();
            self.client = Client::new(reqwest::Client::new(), url, token.trim());
            let instances = self.client.instances().await.unwrap_or_default();
            if self.client.health().await.is_ok() && (!agent || instances.iter().any(|i| i.connected)) {
                return Ok(());
            }
        }
        bail!("the engine did not come up within 20 s")
    }

    /// CPU time of the engine so far, s.
    pub(crate) fn cpu_s(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let after = stat.rsplit_once(')').context("/proc stat")?.1;
        let fields: Vec<&str> = after.split_whitespace().collect();
        // utime and stime, in ticks of 1/100 s.
        let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        Ok(ticks / 100.0)
    }

    pub(crate) fn memory_mb(&self, field: &str) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|l| l.strip_prefix(field)).context("memory")?;
        let kb: f64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
        Ok(kb / 1024.0)
    }

    /// An array of `/bin/true`, to its end.
    pub(crate) async fn run(&self, array: u32) -> anyhow::Result<Duration> {
        self.run_document(json!({"name": "bench", "command": ["/bin/true"], "array": array})).await
    }

    /// Any document, from the request to the end of its session.
    pub(crate) async fn run_document(&self, document: Value) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let started = self.client.start(&StartRequest { document: Some(document), ..StartRequest::default() }).await?;
        let mut stream = Box::pin(self.client.follow(&started.session, 0, Following::End).await?);
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
