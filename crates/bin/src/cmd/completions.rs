//! `skein completions SHELL`.

use clap::CommandFactory as _;

use crate::cli::Cli;
use crate::failure::OK;
use crate::output;

/// `skein completions`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

/// Prints the script.
pub(crate) fn run(args: &CompletionsArgs) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "skein", &mut script);
    output::raw(&script);
    OK
}
