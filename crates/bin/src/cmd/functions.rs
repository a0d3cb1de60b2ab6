//! `skein functions`, and the hidden `function-runner`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::failure::{Ended, OK};

/// `skein functions`.
#[derive(Debug, clap::Args)]
pub(crate) struct FunctionsArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7717")]
    listen: SocketAddr,
    /// Its own folder
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
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
    /// Write the URL to this file when it listens
    #[arg(long, value_name = "FILE")]
    announce: Option<PathBuf>,
    /// End when standard input closes
    #[arg(long, hide = true)]
    leashed: bool,
}

/// Runs until SIGTERM or Ctrl-C.
pub(crate) async fn run(args: FunctionsArgs) -> Ended {
    if args.leashed {
        crate::children::leash();
    }
    crate::logging::to_stderr("info");
    todo!()
}

/// Says where it listens: whole or not at all, for whoever waits for the file.
fn announce(path: &Path, address: SocketAddr) -> anyhow::Result<()> {
    let part = path.with_added_extension("part");
    let written = std::fs::write(&part, format!("http://{address}\n")).and_then(|()| std::fs::rename(&part, path));
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// `skein function-runner`: serves invocations on $PORT.
pub(crate) async fn runner() -> Ended {
    todo!()
}
