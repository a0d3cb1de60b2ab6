//! One file a subcommand.

pub(crate) mod agent;
pub(crate) mod backup;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod demo;
pub(crate) mod documents;
pub(crate) mod functions;
pub(crate) mod image;
pub(crate) mod instance;
pub(crate) mod logs;
pub(crate) mod plan;
pub(crate) mod run;
pub(crate) mod scaling;
pub(crate) mod secret;
pub(crate) mod session;
pub(crate) mod simulate;
pub(crate) mod solution;
pub(crate) mod token;
pub(crate) mod up;
pub(crate) mod why;

use std::future::Future;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::cli::{Command, Example};
use crate::failure::{Ended, OK, report};
use crate::output;

/// Carries a command out and says what failed.
pub(crate) fn run(command: Command) -> ExitCode {
    let ended = match command {
        Command::Demo(args) => wait(demo::run(args)),
        Command::Run(args) => wait(run::run(args)),
        Command::Up(args) => wait(up::run(args)),
        Command::Agent(args) => wait(agent::run(args)),
        Command::Functions(args) => wait(functions::run(args)),
        Command::Plan(args) => wait(plan::run(args)),
        Command::Why(args) => wait(why::run(args)),
        Command::Logs(args) => wait(logs::run(args)),
        Command::Session(args) => wait(session::run(args)),
        Command::Task(args) => wait(documents::run_task(args)),
        Command::Thread(args) => wait(documents::run_thread(args)),
        Command::Instance(args) => wait(instance::run(args)),
        Command::Solution(args) => wait(solution::run(args)),
        Command::Secret(args) => wait(secret::run(args)),
        Command::Token(args) => wait(token::run(args)),
        Command::Config(args) => wait(config::run(args)),
        Command::Scaling(args) => wait(scaling::run(args)),
        Command::Simulate(args) => simulate::run(&args),
        Command::Image(args) => image::run(args),
        Command::Backup(args) => backup::backup(&args),
        Command::Restore(args) => backup::restore(&args),
        Command::Completions(args) => Ok(completions::run(&args)),
        Command::Openapi => {
            output::line(&skein_engine::openapi());
            Ok(OK)
        }
        Command::AgentSpawner => return skein_agent::spawner::main(),
        Command::FunctionRunner => wait(functions::runner()),
        Command::Example(args) => {
            let Example::Requests(args) = args.example;
            skein_example_requests::run(args).map(|()| OK)
        }
    };
    ended.map_or_else(|error| report(&error), ExitCode::from)
}

fn wait(command: impl Future<Output = Ended>) -> Ended {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("this machine gives no threads")?;
    let ended = runtime.block_on(command);
    // A read of standard input that nobody waits for must not hold up the end.
    runtime.shutdown_background();
    ended
}
