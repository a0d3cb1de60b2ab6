//! `imagecheck CLOUD FILE`: which of the cloud's written rules the image breaks. Ends with 1 when there is one.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for a terminal")]

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("imagecheck: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [cloud, path] = arguments.as_slice() else { bail!("imagecheck CLOUD FILE") };
    let file = std::fs::File::open(path).with_context(|| format!("opening {path}"))?;
    let broken = skein_imagecheck::check(cloud, &file)?;
    for one in &broken {
        println!("{}: {}\n    {}\n    {}", one.rule.name, one.why, one.rule.says, one.rule.source);
    }
    println!("{}: {} rules broken", cloud, broken.len());
    Ok(broken.is_empty())
}
