//! The binary that tests of this crate start as real processes: the same entry points as `skein`.

use std::process::ExitCode;

use skein_agent::{AgentOptions, HostOptions, Programs, run_agent, run_function_face, run_function_host, spawner};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["agent-spawner"] => spawner::main(),
        ["agent", engine_url, token, dir, slots] => block_on(async {
            let mut options = AgentOptions::new(engine_url, dir)?;
            options.join_token = Some(token.to_owned()).filter(|t| !t.is_empty());
            options.slots = slots.parse().ok();
            options.drain_ms = 2_000;
            options.programs = Some(Programs::own().map_err(|e| e.to_string())?);
            Ok(run_agent(options).await?)
        }),
        ["function-runner"] => block_on(async { Ok(run_function_face().await?) }),
        ["function-host", options] => block_on(async { Ok(run_function_host(host_options(options)?).await?) }),
        _ => {
            eprintln!("unknown arguments {args:?}");
            ExitCode::FAILURE
        }
    }
}

/// `dir,announce file`.
fn host_options(text: &str) -> Result<HostOptions, String> {
    let (dir, announce) = text.split_once(',').ok_or("no comma")?;
    let mut options = HostOptions::new(dir);
    options.announce_file = Some(announce.into());
    options.programs = Some(Programs::own().map_err(|e| e.to_string())?);
    Ok(options)
}

fn block_on(work: impl Future<Output = Result<(), Box<dyn std::error::Error>>>) -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("no runtime: {e}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(work) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}
