//! What can be typed. Each subcommand's arguments stand in its own file under `cmd`.

use clap::{Parser, Subcommand};

use crate::cmd::{
    agent, backup, completions, config, demo, documents, functions, image, instance, logs, plan, run, scaling, secret,
    session, simulate, solution, token, up, why,
};

/// Runs threads of tasks over machines you own and functions of any cloud, from one binary.
///
/// Try 'skein demo', or 'skein run -- echo hi'. 'skein up' starts an engine for daily use; every
/// other command finds it by itself.
#[derive(Debug, Parser)]
#[command(name = "skein", version, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// A subcommand.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the example thread on this machine: an engine, two agents, functions
    Demo(demo::DemoArgs),
    /// Run a command, a task file or a thread file; follow its logs; exit with its status
    Run(run::RunArgs),
    /// Start an engine in the foreground
    Up(up::UpArgs),
    /// Start an agent: this machine then runs tasks for an engine
    Agent(agent::AgentArgs),
    /// Start a function host: a serverless place on this machine
    Functions(functions::FunctionsArgs),
    /// Show what a session would do: where, why, when, for how much
    Plan(plan::PlanArgs),
    /// Say why items wait, or are where they are
    Why(why::WhyArgs),
    /// Print or follow logs
    Logs(logs::LogsArgs),
    /// Sessions: list, show, stop, attempts, files
    Session(session::SessionArgs),
    /// Tasks of the repository: list, show, add, remove, run
    Task(documents::TaskArgs),
    /// Threads of the repository: list, show, add, remove, run
    Thread(documents::ThreadArgs),
    /// Instances: list, drain
    Instance(instance::InstanceArgs),
    /// Solutions: list
    Solution(solution::SolutionArgs),
    /// Secrets: set, list, remove
    Secret(secret::SecretArgs),
    /// API tokens and join tokens: new, list, revoke, join
    Token(token::TokenArgs),
    /// Configuration: show, schema, check
    Config(config::ConfigArgs),
    /// Scaling elements: check, port to a cloud's own form, adopt from it; metrics of those carried out here
    Scaling(scaling::ScalingArgs),
    /// Play traces under policies side by side: cost against the least possible, waits, machines
    Simulate(simulate::SimulateArgs),
    /// Disk images of machines: convert to what a cloud wants, keep, choose, deploy
    Image(image::ImageArgs),
    /// Write all that the engine needs to go on into one file, also while it is up
    Backup(backup::BackupArgs),
    /// Put a backup in the place of the engine's folder
    Restore(backup::RestoreArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
    /// Print the OpenAPI document of the HTTP API
    Openapi,
    /// A spawner: one of an agent's small processes that start attempts
    #[command(hide = true)]
    AgentSpawner,
    /// A function: the runner behind an HTTP server on $PORT
    #[command(hide = true)]
    FunctionRunner,
    /// Steps of the example threads
    #[command(hide = true)]
    Example(ExampleArgs),
}

/// `skein example ...`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExampleArgs {
    #[command(subcommand)]
    pub(crate) example: Example,
}

/// An example program.
#[derive(Debug, Subcommand)]
pub(crate) enum Example {
    /// How many servers does a real request log need?
    Requests(skein_example_requests::Args),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_holds_together() {
        super::Cli::command().debug_assert();
    }
}
