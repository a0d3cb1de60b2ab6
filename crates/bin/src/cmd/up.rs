//! `skein up`: the engine, for daily use.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use skein_domain::EngineId;
use skein_engine::{Engine, EngineOptions};

use crate::children::OwnChild;
use crate::engine_dir::DirArg;
use crate::failure::{Ended, OK};
use crate::local;
use crate::output::{line, note};
use crate::signals::Signals;

/// Name of the agent that `--agent` starts.
const OWN_AGENT: &str = "local";

/// `skein up`.
#[derive(Debug, clap::Args)]
pub(crate) struct UpArgs {
    /// Address to listen on; one that is not loopback needs --tls. Port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7716")]
    listen: SocketAddr,
    /// Configuration file (JSON), re-read when it changes; 'skein config schema' describes it
    #[arg(long, value_name = "FILE", env = "SKEIN_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Identifier of this engine: agents and tokens carry it
    #[arg(long, value_name = "NAME", default_value = "skein")]
    identifier: EngineId,
    /// Serve HTTPS by a CA of the engine's own (ca.pem in its folder)
    #[arg(long)]
    tls: bool,
    /// Start an agent too, so that this machine runs tasks
    #[arg(long)]
    agent: bool,
    #[command(flatten)]
    dir: DirArg,
}

/// Runs until SIGTERM or Ctrl-C.
pub(crate) async fn run(args: UpArgs) -> Ended {
    let mut signals = Signals::take()?;
    let dir = args.dir.path()?;
    let options = EngineOptions {
        dir: dir.clone(),
        listen: args.listen,
        config: args.config.clone(),
        engine: args.identifier.clone(),
        tls: args.tls,
    };
    skein_engine::logging::install();
    let engine = Engine::start(options).await?;
    let mut agent = None;
    if args.agent {
        agent = Some(local::start_agent(&engine, &dir, OWN_AGENT, None).await?);
    }
    say(&args, &dir, &engine);
    loop {
        tokio::select! {
            () = signals.next() => break,
            error = lost(&mut agent) => {
                note(&format!("skein: {error:#}"));
                agent = None;
            }
        }
    }
    note("stopping; Ctrl-C again leaves at once");
    let stop = async {
        if let Some(agent) = agent {
            agent.stop().await;
        }
        engine.stop().await;
    };
    tokio::select! {
        () = stop => {}
        () = signals.next() => {}
    }
    Ok(OK)
}

async fn lost(agent: &mut Option<OwnChild>) -> anyhow::Error {
    match agent {
        Some(agent) => agent.lost().await,
        None => std::future::pending().await,
    }
}

fn say(args: &UpArgs, dir: &Path, engine: &Engine) {
    let url = engine.url();
    line(&format!("engine '{}' is up at {url}, its state in {}", args.identifier, dir.display()));
    let here = if args.dir.dir.is_some() { format!(" --dir {}", dir.display()) } else { String::new() };
    if args.agent {
        line(&format!(
            "agent '{OWN_AGENT}' runs here, its log in {}",
            dir.join("agents").join(OWN_AGENT).join("agent.log").display()
        ));
    } else {
        line("run tasks here:        skein agent");
        line(&format!("run tasks elsewhere:   SKEIN_JOIN=$(skein token join{here}) skein agent --engine {url}"));
    }
    line(&format!("try it:                skein run{here} -- echo hi"));
}
