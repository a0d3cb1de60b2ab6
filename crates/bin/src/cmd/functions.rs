//! `skein functions`, and the hidden `function-runner`.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use skein_agent::HostOptions;

use crate::engine_dir::DirArg;
use crate::failure::{Ended, OK};

/// `skein functions`.
#[derive(Debug, clap::Args)]
pub(crate) struct FunctionsArgs {
    /// Loopback address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7717")]
    listen: SocketAddr,
    /// Its own folder [default: $XDG_DATA_HOME/skein-functions or ~/.local/share/skein-functions]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Invocations at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4096))]
    concurrency: u32,
    /// Hard time limit of an invocation, s
    #[arg(long, value_name = "S", default_value_t = 900)]
    timeout_s: u64,
    /// Instances kept warm
    #[arg(long, value_name = "N", default_value_t = 0)]
    min_warm: u32,
    /// An idle instance ends after this, s
    #[arg(long, value_name = "S", default_value_t = 60)]
    idle_s: u64,
    /// Bearer key that callers must give; better in SKEIN_FUNCTIONS_KEY, where no process list shows it
    #[arg(long, value_name = "KEY", env = "SKEIN_FUNCTIONS_KEY", hide_env_values = true)]
    key: Option<String>,
    /// A function that tasks call by name (function = "NAME"); may be given several times
    #[arg(long, value_name = "NAME=PROGRAM ARGS", value_parser = function)]
    function: Vec<(String, Vec<String>)>,
    /// Write the address to this file when it listens
    #[arg(long, value_name = "FILE")]
    announce: Option<PathBuf>,
    /// End when standard input closes
    #[arg(long, hide = true)]
    leashed: bool,
}

fn function(text: &str) -> Result<(String, Vec<String>), String> {
    let parts = text
        .split_once('=')
        .map(|(name, line)| (name.trim().to_owned(), line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()));
    let whole = parts.filter(|(name, argv)| !name.is_empty() && !argv.is_empty());
    whole.ok_or_else(|| format!("'{text}': write NAME=PROGRAM ARGS, as in thumb=convert - -resize 64x64 -"))
}

/// Runs until SIGTERM or Ctrl-C.
pub(crate) async fn run(args: FunctionsArgs) -> Ended {
    if args.leashed {
        crate::children::leash();
    }
    crate::logging::to_stderr("info");
    let dir = match args.dir {
        Some(dir) => dir,
        None => DirArg::default().path().context("no folder for the functions")?.with_file_name("skein-functions"),
    };
    let options = HostOptions {
        listen: args.listen,
        concurrency: args.concurrency,
        timeout_ms: args.timeout_s.saturating_mul(1000),
        min_warm: args.min_warm,
        idle_ms: args.idle_s.saturating_mul(1000),
        key: args.key,
        functions: args.function.into_iter().collect(),
        announce_file: args.announce,
        ..HostOptions::new(dir)
    };
    skein_agent::run_function_host(options).await?;
    Ok(OK)
}

/// `skein function-runner`: serves invocations on $PORT.
pub(crate) async fn runner() -> Ended {
    skein_agent::run_function_face().await?;
    Ok(OK)
}
