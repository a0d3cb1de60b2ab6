//! `cargo xtask`: the repository checks and generates itself. Nothing here is in a shipped binary.

mod fuzz;
mod generated;
mod repo;
mod source;
mod steps;
mod tidy;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask COMMAND

  test       everything a change must pass: format, clippy, tests, tidy, generated files
  test --slow  the same, then what takes long: 1,000 kills, 10,000 worlds of faults,
             10,000 mutants of each format of images
  tidy       what no compiler checks: crate arrows, dependencies, purity, words, lengths, leaks
  bench decide
  bench ledger [ATTEMPTS]
  bench idle [AGENTS]
  bench image [MIB]
  bench plugin
             calls per second of a class in Luau: tables kept, patched, built anew
  bench sim  188,041 items with a peak of 840 machines, played under every rule: how long each takes
  sim faults [--seeds N] [--seed S]
  sim traces [NAME...] [--sensitivity | --rules]
             decisions on real and made loads: cost over the clairvoyant bound, beside the reference's figures
  bench dispatch [--json]
             tasks per second, latency and cost of the engine, beside the peers that are installed
  fuzz NAME|all [SECONDS]
             the parsers of foreign bytes, each with libFuzzer; says how many inputs were tried
  generate   writes the generated files: openapi/openapi.json, docs/config.schema.json
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["test"] => steps::test(),
        ["test", "--slow"] => steps::slow(),
        ["tidy"] => tidy::run().and_then(|()| generated::check()),
        ["bench", "dispatch", rest @ ..] => steps::bench("dispatch", rest),
        ["bench", "idle", rest @ ..] => steps::bench("idle", rest),
        ["bench", "ledger", rest @ ..] => steps::bench_ledger(rest),
        ["bench", "image", rest @ ..] => steps::bench_image(rest),
        ["bench", "plugin"] => steps::bench_plugin(),
        ["bench", "decide"] => steps::bench_decide(),
        ["bench", "sim"] => steps::sim_traces(&["made-large"]),
        ["sim", "faults", rest @ ..] => steps::sim_faults(rest),
        ["sim", "traces", rest @ ..] => steps::sim_traces(rest),
        ["fuzz", name] => fuzz::run(name, None),
        ["fuzz", name, seconds] => fuzz::run(name, Some(seconds)),
        ["generate"] => generated::write(),
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        other => {
            eprint!("{HELP}");
            Err(anyhow::anyhow!("there is no command '{}'", other.join(" ")))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
