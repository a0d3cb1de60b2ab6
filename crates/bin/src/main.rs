//! The `skein` command. `cli` says what can be typed, `cmd` holds one file a subcommand, the rest is
//! what they share.

#![allow(clippy::doc_markdown, reason = "doc comments here are help texts in a terminal")]

mod address;
mod children;
mod cli;
mod cmd;
mod connect;
mod engine_dir;
mod failure;
mod follow;
mod image_shelf;
mod local;
mod log_printer;
mod logging;
mod output;
mod results;
mod show;
mod show_deployment;
mod signals;
mod submit;
mod watch;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    // The one TLS provider of every part in this process; a second installation cannot happen.
    rustls::crypto::ring::default_provider().install_default().unwrap_or_default();
    cmd::run(cli::Cli::parse().command)
}
