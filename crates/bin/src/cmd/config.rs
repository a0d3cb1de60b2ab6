//! `skein config show|schema|check`.

use std::path::PathBuf;

use clap::Subcommand;

use crate::connect::Connect;
use crate::failure::{Ended, OK};
use crate::output;

/// `skein config`.
#[derive(Debug, clap::Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the configuration in force, defaults included (JSON)
    Show,
    /// Print the JSON Schema of the configuration file
    Schema,
    /// Check a configuration file without using it
    Check {
        /// The file
        file: PathBuf,
    },
}

/// Carries it out.
pub(crate) async fn run(args: ConfigArgs) -> Ended {
    match args.command {
        ConfigCommand::Show => output::json(&args.connect.client().await?.config().await?)?,
        ConfigCommand::Schema => output::line(&skein_engine::config_schema()),
        ConfigCommand::Check { file } => {
            skein_engine::check_config(&file)?;
            output::line(&format!("{} can be used", file.display()));
        }
    }
    Ok(OK)
}
