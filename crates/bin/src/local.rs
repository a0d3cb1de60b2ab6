//! An engine in this process, with its agents and function host as processes beside it: what `demo`,
//! a private `run` and `up --agent` start.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde_json::{Value, json};
use skein_api::Client;
use skein_domain::EngineId;
use skein_engine::{Engine, EngineOptions};

use crate::children::OwnChild;
use crate::connect;

/// Longest wait for a function host or an agent to be there.
const READY_MAX: Duration = Duration::from_secs(30);
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A function host with the prices and limits that the engine shall reckon with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Functions {
    /// Invocations at a time.
    pub(crate) concurrency: u32,
    /// Hard time limit, s.
    pub(crate) timeout_s: u32,
}

/// What to start.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The engine's folder.
    pub(crate) dir: PathBuf,
    /// Agents.
    pub(crate) agents: u32,
    /// Slots of each; as many as CPUs when absent.
    pub(crate) slots: Option<u32>,
    /// A function host.
    pub(crate) functions: Option<Functions>,
    /// Price of an agent's machine, USD per hour.
    pub(crate) price_per_hour_usd: f64,
}

/// The engine and its processes.
pub(crate) struct Local {
    engine: Engine,
    children: Vec<OwnChild>,
    agents: usize,
    client: Client,
}

/// AWS Lambda, x86-64, us-east-1, list price.
pub(crate) fn function_price() -> Value {
    json!({ "per_request_usd": 0.000_000_2, "per_gb_s_usd": 0.000_016_666_7, "granularity_ms": 1, "min_billed_ms": 1 })
}

impl Local {
    /// Starts everything; agents connect in their own time ([`Local::ready`]).
    pub(crate) async fn start(wanted: &Wanted) -> anyhow::Result<Self> {
        let dir = &wanted.dir;
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
        let mut children = Vec::new();
        let mut config = None;
        if let Some(functions) = wanted.functions {
            let (host, url, key) = start_functions(dir, functions).await?;
            children.push(host);
            config = Some(write_config(wanted, functions, &url, &key)?);
        }
        let options = EngineOptions {
            dir: dir.clone(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            config,
            engine: EngineId::new("skein")?,
            tls: false,
        };
        let engine = Engine::start(options).await?;
        for number in 1..=wanted.agents {
            children.push(start_agent(&engine, dir, &format!("agent-{number}"), wanted.slots).await?);
        }
        let client = connect::client(&engine.url(), engine.local_token(), None)?;
        Ok(Self { engine, children, agents: wanted.agents as usize, client })
    }

    /// A client of the engine.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Waits until every agent is connected.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        let client = self.client();
        let wanted = self.agents;
        let connected = async {
            loop {
                let instances = client.instances().await?;
                if instances.iter().filter(|instance| instance.connected).count() >= wanted {
                    return Ok(());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            done = tokio::time::timeout(READY_MAX, connected) => {
                done.unwrap_or_else(|_| Err(anyhow!("the agents did not connect within {} s; see their logs", READY_MAX.as_secs())))
            }
            error = self.lost() => Err(error),
        }
    }

    /// Waits until one of the processes ends, which it should not; says which and how, once.
    pub(crate) async fn lost(&mut self) -> anyhow::Error {
        if self.children.is_empty() {
            return std::future::pending().await;
        }
        let ends = self.children.iter_mut().map(|child| Box::pin(child.lost()));
        let (error, at, _) = futures_util::future::select_all(ends).await;
        self.children.remove(at);
        error
    }

    /// Ends the processes, then the engine.
    pub(crate) async fn stop(self) {
        futures_util::future::join_all(self.children.into_iter().map(OwnChild::stop)).await;
        self.engine.stop().await;
    }
}

/// Starts an agent of this engine; its folder is `agents/NAME` in the engine's.
pub(crate) async fn start_agent(
    engine: &Engine,
    dir: &Path,
    name: &str,
    slots: Option<u32>,
) -> anyhow::Result<OwnChild> {
    let own = dir.join("agents").join(name);
    std::fs::create_dir_all(&own).with_context(|| format!("cannot make the folder {}", own.display()))?;
    let join = engine.join_token().await?;
    let mut args = vec![
        "agent".into(),
        "--engine".into(),
        engine.url().into(),
        "--name".into(),
        name.into(),
        "--dir".into(),
        own.clone().into_os_string(),
    ];
    if let Some(slots) = slots {
        args.extend(["--slots".into(), slots.to_string().into()]);
    }
    OwnChild::start(&format!("agent '{name}'"), args, &[("SKEIN_JOIN", &join)], &own.join("agent.log"))
}

/// Starts a function host on a free port; gives its URL and the key it wants.
async fn start_functions(dir: &Path, functions: Functions) -> anyhow::Result<(OwnChild, String, String)> {
    let own = dir.join("functions");
    std::fs::create_dir_all(&own).with_context(|| format!("cannot make the folder {}", own.display()))?;
    let announce = own.join("address");
    if announce.exists() {
        std::fs::remove_file(&announce).with_context(|| format!("cannot remove {}", announce.display()))?;
    }
    let key = skein_engine::clock::hex(&skein_engine::clock::random_32()?);
    let (concurrency, timeout_s) = (functions.concurrency.to_string(), functions.timeout_s.to_string());
    let args = [
        "functions".as_ref(),
        "--listen".as_ref(),
        "127.0.0.1:0".as_ref(),
        "--concurrency".as_ref(),
        concurrency.as_ref(),
        "--timeout-s".as_ref(),
        timeout_s.as_ref(),
        "--dir".as_ref(),
        own.as_os_str(),
        "--announce".as_ref(),
        announce.as_os_str(),
    ];
    let mut host = OwnChild::start("the function host", args, &[("SKEIN_FUNCTIONS_KEY", &key)], &own.join("host.log"))?;
    let announced = async {
        loop {
            if let Ok(text) = std::fs::read_to_string(&announce) {
                return format!("http://{}", text.trim());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let url = tokio::select! {
        url = tokio::time::timeout(READY_MAX, announced) => url.map_err(|_| anyhow!("the function host did not say where it is"))?,
        error = host.lost() => return Err(error),
    };
    Ok((host, url, key))
}

/// The engine's configuration: own servers and functions with their prices.
fn write_config(wanted: &Wanted, functions: Functions, url: &str, key: &str) -> anyhow::Result<PathBuf> {
    let config = json!({
        "solutions": {
            "own": { "kind": "dedicated", "price_per_hour_usd": wanted.price_per_hour_usd, "timeout_s": 86_400 },
            "functions": {
                "kind": "shared",
                "url": url,
                "key": key,
                "timeout_s": functions.timeout_s,
                "concurrency": functions.concurrency,
                "memory_mb_max": 2048,
                "price": function_price(),
                "cold_start_ms": 300,
                "min_warm": 0,
            },
        },
    });
    let path = wanted.dir.join("skein.json");
    write_private(&path, &serde_json::to_vec_pretty(&config)?)?;
    Ok(path)
}

/// Writes a file that only its owner may read.
fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(bytes)).with_context(|| format!("cannot write {}", path.display()))
}
