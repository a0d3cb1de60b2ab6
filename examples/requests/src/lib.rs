//! The `requests` example: how many servers does a real log of language-model requests need?
//!
//! Two public logs (57 minutes of code completion, 58 minutes of conversation) are cut into parts,
//! counted, profiled, replayed against thousands of fleets, put through a bootstrap, merged, and
//! drawn. `thread.toml` beside this crate is the thread that does so; every task of it is either
//! a line of `sh` with `awk`, or one subcommand of this crate (`skein example requests ...`).
//!
//! Every subcommand reads files named by its arguments, writes files named by its arguments, and
//! prints a few lines for the attempt's log. None uses the network, the clock or a source of
//! randomness other than its `--seed`: the same inputs give the same bytes wherever an item runs.
//!
//! # The model
//! A request that generates `n` tokens keeps one server busy for `0.1 s + 0.03 s x n`
//! ([`log::service_us`]). A server does one request at a time, requests queue first in first out,
//! and nothing is ever killed.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod args;
mod bootstrap;
mod chart;
mod log;
mod merge;
mod numbers;
mod pick;
mod profile;
mod queue;
mod random;
mod records;
mod replay;
mod split;

use clap::Subcommand;

pub use bootstrap::BootstrapArgs;
pub use chart::ChartArgs;
pub use merge::MergeArgs;
pub use pick::PickArgs;
pub use profile::ProfileArgs;
pub use replay::ReplayArgs;
pub use split::SplitArgs;

/// Size a fleet for a real request log (the work behind the demo thread).
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

/// One step of the example thread.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Cut a log into equal windows of whole minutes, and say in a manifest what went where.
    Split(SplitArgs),
    /// Describe one part: requests and busy servers per 10 s, and token quantiles.
    Profile(ProfileArgs),
    /// Replay a log against a grid of fleet sizes and server speeds.
    Replay(ReplayArgs),
    /// From all replays of a log, pick the smallest fleet that keeps the p99 wait under target.
    Pick(PickArgs),
    /// 90 % bands for one part: its load, and its waits at the picked fleet.
    Bootstrap(BootstrapArgs),
    /// Check all partial results against each other and put them into one file.
    Merge(MergeArgs),
    /// Draw the merged figures as an SVG.
    Chart(ChartArgs),
}

/// Runs one subcommand in the current folder.
pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Split(args) => split::run(&args),
        Command::Profile(args) => profile::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Pick(args) => pick::run(&args),
        Command::Bootstrap(args) => bootstrap::run(&args),
        Command::Merge(args) => merge::run(&args),
        Command::Chart(args) => chart::run(&args),
    }
}
