//! `cargo xtask test`: the steps in order, with times; the first that fails ends it.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::{generated, repo, tidy};

type Step = (&'static str, fn() -> Result<()>);

const STEPS: &[Step] = &[
    ("format", || cargo(&["fmt", "--all", "--check"])),
    ("clippy", || cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
    ("tests", || cargo(&["test", "--workspace"])),
    ("tidy", tidy::run),
    ("generated files", generated::check),
];

/// Runs every step.
pub(crate) fn test() -> Result<()> {
    let mut times = Vec::new();
    for (name, step) in STEPS {
        println!("==> {name}");
        let (result, took) = timed(*step);
        times.push((*name, took));
        if let Err(error) = result {
            summary(&times);
            bail!("FAILED: {name}: {error:#}");
        }
    }
    summary(&times);
    println!("everything passed");
    Ok(())
}

/// What takes too long for every change: a thousand kills of real processes, ten thousand worlds of faults.
pub(crate) fn slow() -> Result<()> {
    test()?;
    println!("==> 1,000 kills");
    let kills = ["test", "--package", "skein", "--test", "chaos", "--", "--nocapture"];
    cargo_with(&[("SKEIN_CHAOS_KILLS", "1000")], &kills)?;
    println!("==> disks of 2 TiB in every format");
    let matrix = ["test", "--package", "skein-image", "--test", "matrix"];
    cargo_with(&[("SKEIN_MATRIX", "all")], &matrix)?;
    println!("==> a whole Debian from every form; what pairs of Debians take in the store");
    for test in ["linux", "pairs"] {
        let debian = ["test", "--package", "skein-image", "--test", test, "--", "--nocapture"];
        cargo_with(&[("SKEIN_DEBIAN", "1")], &debian)?;
    }
    println!("==> 10,000 mutants of every format");
    let mutants = ["test", "--package", "skein-image", "--tests", "--", "mutants", "qemu_img_refuses", "--nocapture"];
    cargo_with(&[("SKEIN_MUTANTS", "10000")], &mutants)?;
    println!("==> 10,000 worlds of faults");
    sim_faults(&["--seeds", "10000"])
}

#[expect(clippy::disallowed_methods, reason = "measures how long a step takes; nothing is decided by it")]
fn timed(step: fn() -> Result<()>) -> (Result<()>, Duration) {
    let start = std::time::Instant::now();
    let result = step();
    (result, start.elapsed())
}

/// Builds the release binary and runs a benchmark of the `skein` crate against it.
pub(crate) fn bench(name: &str, arguments: &[&str]) -> Result<()> {
    cargo(&["build", "--release", "--package", "skein", "--bins", "--example", name])?;
    cargo(&[&["run", "--quiet", "--release", "--package", "skein", "--example", name, "--"], arguments].concat())
}

/// Placing alone, without an engine around it.
pub(crate) fn bench_decide() -> Result<()> {
    cargo(&["run", "--quiet", "--release", "--package", "skein-domain", "--features", "testing", "--example", "decide"])
}

/// Asking a class in Luau, without an engine around it.
pub(crate) fn bench_plugin() -> Result<()> {
    cargo(&["run", "--quiet", "--release", "--package", "skein-engine", "--features", "testing", "--example", "plugin"])
}

/// The ledger alone: many ended attempts, and pages of them.
pub(crate) fn bench_ledger(arguments: &[&str]) -> Result<()> {
    let run = ["run", "--quiet", "--release", "--package", "skein-store", "--example", "ledger", "--"];
    cargo(&[&run, arguments].concat())
}

/// Conversions of disk images beside `qemu-img`.
pub(crate) fn bench_image(arguments: &[&str]) -> Result<()> {
    let run = ["run", "--quiet", "--release", "--package", "skein-image", "--example", "image", "--"];
    cargo(&[&run, arguments].concat())
}

/// Worlds full of faults, from seeds.
pub(crate) fn sim_faults(arguments: &[&str]) -> Result<()> {
    let run = ["run", "--quiet", "--release", "--package", "skein-simfault", "--example", "faults", "--"];
    cargo(&[&run, arguments].concat())
}

/// Plays scenarios under the engine's decisions and under rules of reference.
pub(crate) fn sim_traces(arguments: &[&str]) -> Result<()> {
    let run = ["run", "--quiet", "--release", "--package", "skein-sim", "--example", "traces", "--"];
    cargo(&[&run, arguments].concat())
}

fn summary(times: &[(&str, Duration)]) {
    println!();
    for (name, took) in times {
        println!("{name:<16} {:>7.1} s", took.as_secs_f64());
    }
    let all: Duration = times.iter().map(|(_, took)| *took).sum();
    println!("{:<16} {:>7.1} s", "all", all.as_secs_f64());
}

fn cargo(arguments: &[&str]) -> Result<()> {
    cargo_with(&[], arguments)
}

fn cargo_with(environment: &[(&str, &str)], arguments: &[&str]) -> Result<()> {
    let status = repo::cargo().args(arguments).envs(environment.iter().copied()).status()?;
    if !status.success() {
        bail!("cargo {} ended with {status}", arguments.join(" "));
    }
    Ok(())
}
