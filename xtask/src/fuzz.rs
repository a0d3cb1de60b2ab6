//! `cargo xtask fuzz`: builds the targets of `fuzz/` with libFuzzer's instrumentation, makes their first inputs, runs
//! them one after the other, and says how many inputs each has tried. A stable compiler is enough: the instrumentation
//! is a pass of LLVM's. What `cargo fuzz` does besides is a sanitizer of addresses, which needs a nightly one; nothing of ours
//! is unsafe.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::repo;

/// How long a target runs where nothing is said, s.
const SECONDS: u64 = 60;
/// What one input may take, s and MiB. Instrumented code is several times slower.
const LIMITS: [&str; 3] = ["-timeout=10", "-rss_limit_mb=1024", "-max_len=262144"];

const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0 --cfg fuzzing";

/// One target, or all when the name is `all`.
pub(crate) fn run(name: &str, seconds: Option<&str>) -> Result<()> {
    let seconds = seconds.map_or(Ok(SECONDS), str::parse).context("SECONDS is a number")?;
    let folder = repo::root().join("fuzz");
    let known = targets(&folder)?;
    let wanted: Vec<&String> = known.iter().filter(|target| name == "all" || *target == name).collect();
    if wanted.is_empty() {
        bail!("there is no fuzz target '{name}' (there are: all, {})", known.join(", "));
    }
    let programs = build(&folder)?;
    seeds(&folder)?;
    for target in wanted {
        let (tried, failed) = one(&folder, &programs.join(target), target, seconds)?;
        println!("{target:<12} {tried} executions in {seconds} s");
        if failed {
            bail!("{target} found something: the input is in fuzz/artifacts/{target}");
        }
    }
    Ok(())
}

fn targets(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder.join("targets"))? {
        let path = entry?.path();
        names.extend(path.file_stem().and_then(|name| name.to_str()).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// With a target given, the flags are not used for what runs while building. Where the programs are.
fn build(folder: &Path) -> Result<PathBuf> {
    let host = repo::output_of(Command::new("rustc").arg("-vV"))?;
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc does not say its host")?;
    let mut cargo = repo::cargo();
    let status = cargo
        .current_dir(folder)
        .args(["build", "--release", "--locked", "--bins", "--target", host])
        .env("RUSTFLAGS", FLAGS)
        .status()?;
    if !status.success() {
        bail!("building the fuzz targets ended with {status}");
    }
    Ok(folder.join("target").join(host).join("release"))
}

fn seeds(folder: &Path) -> Result<()> {
    let status =
        repo::cargo().current_dir(folder).args(["run", "--quiet", "--release", "--example", "seeds"]).status()?;
    if !status.success() {
        bail!("making the first inputs ended with {status}");
    }
    Ok(())
}

/// How many inputs it tried, and whether one of them failed.
fn one(folder: &Path, program: &Path, target: &str, seconds: u64) -> Result<(u64, bool)> {
    let (corpus, artifacts) = (folder.join("corpus").join(target), folder.join("artifacts").join(target));
    std::fs::create_dir_all(&corpus)?;
    std::fs::create_dir_all(&artifacts)?;
    let output = Command::new(program)
        .arg(&corpus)
        .args(LIMITS)
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(["-print_final_stats=1", &format!("-max_total_time={seconds}")])
        .stdout(Stdio::inherit())
        .output()
        .with_context(|| format!("running {}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let tried = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:")?.trim().parse().ok());
    if !output.status.success() {
        eprintln!(
            "{}",
            said.lines().rev().take(40).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
        );
    }
    Ok((tried.unwrap_or(0), !output.status.success()))
}
