//! `skein agent`.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail};
use serde_json::Value;
use skein_agent::{AgentOptions, Labels};
use skein_domain::{InstanceId, SolutionId};

use crate::connect::{self, Connect};
use crate::engine_dir::DirArg;
use crate::failure::{Ended, OK};

/// `skein agent`.
#[derive(Debug, clap::Args)]
pub(crate) struct AgentArgs {
    /// Engine to join [default: the one that is up on this machine]
    #[arg(long, value_name = "URL", env = "SKEIN_URL", hide_env_values = true)]
    engine: Option<String>,
    /// Where the engine's addresses are: a URL or file of JSON with addresses.engine
    #[arg(long, value_name = "URL", conflicts_with = "engine")]
    config_url: Option<String>,
    /// One-time join token, needed the first time; better in SKEIN_JOIN, where no process list shows it
    #[arg(long, value_name = "TOKEN", env = "SKEIN_JOIN", hide_env_values = true)]
    join: Option<String>,
    /// Name of this instance [default: the host's]
    #[arg(long)]
    name: Option<InstanceId>,
    /// Attempts at a time [default: as many as CPUs]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4096))]
    slots: Option<u32>,
    /// Solution it belongs to
    #[arg(long, default_value = "own")]
    solution: SolutionId,
    /// Its own folder: identity, cache, attempts [default: $XDG_DATA_HOME/skein-agent or ~/.local/share/skein-agent]
    #[arg(long, value_name = "DIR", env = "SKEIN_AGENT_DIR", hide_env_values = true)]
    dir: Option<PathBuf>,
    /// Role that tasks may ask for
    #[arg(long)]
    role: Option<String>,
    /// The cloud's instance type
    #[arg(long)]
    instance_type: Option<String>,
    /// The VM image it runs
    #[arg(long)]
    image: Option<String>,
    /// A counted resource, as in gpu=2
    #[arg(long, value_name = "NAME=COUNT", value_parser = resource)]
    resource: Vec<(String, u64)>,
    /// How long what runs may go on after SIGTERM, s
    #[arg(long, value_name = "S", default_value_t = 30)]
    drain_s: u64,
    /// Where the cloud announces that it takes this instance away (AWS: http://169.254.169.254/latest/meta-data/spot/instance-action)
    #[arg(long, value_name = "URL")]
    notice_url: Option<String>,
    /// Keep the folders of ended attempts
    #[arg(long)]
    keep_folders: bool,
    /// End when standard input closes
    #[arg(long, hide = true)]
    leashed: bool,
}

fn resource(text: &str) -> Result<(String, u64), String> {
    let parts = text.split_once('=').and_then(|(name, count)| Some((name.to_owned(), count.parse().ok()?)));
    parts.filter(|(name, _)| !name.is_empty()).ok_or_else(|| format!("'{text}': write NAME=COUNT, as in gpu=2"))
}

/// Runs until it is drained, by SIGTERM or by the engine.
pub(crate) async fn run(args: AgentArgs) -> Ended {
    if args.leashed {
        crate::children::leash();
    }
    crate::logging::to_stderr("info");
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => default_dir()?,
    };
    let (url, join) = engine(&args, &dir).await?;
    let options = AgentOptions {
        join_token: join,
        name: args.name,
        solution: args.solution,
        slots: args.slots,
        labels: Labels {
            role: args.role,
            instance_type: args.instance_type,
            image: args.image,
            resources: args.resource.into_iter().collect(),
        },
        drain_ms: args.drain_s.saturating_mul(1000),
        notice_url: args.notice_url,
        keep_folders: args.keep_folders,
        ..AgentOptions::new(url, dir)?
    };
    skein_agent::run_agent(options).await?;
    Ok(OK)
}

fn default_dir() -> anyhow::Result<PathBuf> {
    let dir = DirArg::default().path().context("no folder for the agent")?;
    Ok(dir.with_file_name("skein-agent"))
}

/// The engine's URL and a join token. The engine of this machine gives a token by itself.
async fn engine(args: &AgentArgs, dir: &std::path::Path) -> anyhow::Result<(String, Option<String>)> {
    if let Some(url) = &args.engine {
        return Ok((url.clone(), args.join.clone()));
    }
    if let Some(from) = &args.config_url {
        return Ok((engine_address(from).await?, args.join.clone()));
    }
    let client = Connect::default().find().await?;
    let client = client.ok_or_else(|| {
        anyhow!("no engine is up on this machine: name one with --engine URL and a token of 'skein token join' there")
    })?;
    let join = match &args.join {
        Some(join) => Some(join.clone()),
        None if dir.join("identity.json").exists() => None,
        None => Some(client.join_token().await?.token),
    };
    Ok((client.url().to_owned(), join))
}

/// `addresses.engine` of a configuration, or `engine` of an engine's list of addresses.
async fn engine_address(from: &str) -> anyhow::Result<String> {
    let bytes = if from.starts_with("http://") || from.starts_with("https://") {
        let answer = connect::http(from, None)?.get(from).send().await.and_then(reqwest::Response::error_for_status);
        let answer = answer.with_context(|| format!("cannot read {from}"))?;
        answer.bytes().await.with_context(|| format!("cannot read {from}"))?.to_vec()
    } else {
        let path = from.strip_prefix("file://").unwrap_or(from);
        std::fs::read(path).with_context(|| format!("cannot read {path}"))?
    };
    let value: Value = serde_json::from_slice(&bytes).with_context(|| format!("{from} is not JSON"))?;
    let address = value.get("addresses").unwrap_or(&value).get("engine").and_then(Value::as_str);
    match address {
        Some(address) => Ok(address.to_owned()),
        None => bail!("{from} names no engine: it needs addresses.engine"),
    }
}
