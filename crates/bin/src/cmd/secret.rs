//! `skein secret set|list|remove`. A value comes from standard input only: an argument would stand
//! in the process list and the shell's history.

use std::io::{IsTerminal as _, Read as _};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::connect::Connect;
use crate::failure::{Ended, OK};
use crate::output::{self, Table};
use crate::show;

/// Longest value, bytes: it travels in an environment.
const SECRET_BYTES_MAX: usize = 64 * 1024;

/// `skein secret`.
#[derive(Debug, clap::Args)]
pub(crate) struct SecretArgs {
    #[command(subcommand)]
    command: SecretCommand,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Subcommand)]
enum SecretCommand {
    /// Set a secret; its value is read from standard input
    Set {
        /// Its name, as in env = { TOKEN = { secret = "NAME" } }
        name: String,
    },
    /// List the names; values are never given out
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a secret
    Remove {
        /// Its name
        name: String,
    },
}

/// Carries it out.
pub(crate) async fn run(args: SecretArgs) -> Ended {
    let client = args.connect.client().await?;
    match args.command {
        SecretCommand::Set { name } => {
            client.set_secret(&name, &value(&name)?).await?;
            output::note(&format!("secret '{name}' is set"));
        }
        SecretCommand::List { json: true } => output::json(&client.secrets().await?)?,
        SecretCommand::List { json: false } => {
            let mut table = Table::new(&["secret", "set"]);
            for secret in client.secrets().await? {
                table.row([secret.name, show::moment(secret.at)]);
            }
            table.print();
        }
        SecretCommand::Remove { name } => {
            client.remove_secret(&name).await?;
            output::note(&format!("secret '{name}' is removed"));
        }
    }
    Ok(OK)
}

/// All of standard input, less one line end; a terminal is asked for one line that it does not show.
fn value(name: &str) -> anyhow::Result<String> {
    let stdin = std::io::stdin();
    let mut bytes = Vec::new();
    if stdin.is_terminal() {
        let shown = tcgetattr(&stdin).context("cannot hide what is typed; pipe the value in")?;
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        output::note(&format!("value of '{name}' (not shown):"));
        tcsetattr(&stdin, OptionalActions::Flush, &hidden).context("cannot hide what is typed; pipe the value in")?;
        let mut line = String::new();
        let read = stdin.read_line(&mut line);
        tcsetattr(&stdin, OptionalActions::Flush, &shown).context("cannot show what is typed again; type 'reset'")?;
        read.context("cannot read the value")?;
        bytes = line.into_bytes();
    } else {
        let limit = SECRET_BYTES_MAX as u64 + 2;
        stdin.lock().take(limit).read_to_end(&mut bytes).context("cannot read the value")?;
    }
    let text = String::from_utf8(bytes).ok().context("the value is not UTF-8: an environment value must be text")?;
    let text = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if text.is_empty() {
        bail!("the value is empty: pipe it in, as in 'printf %s \"$TOKEN\" | skein secret set {name}'");
    }
    if text.len() > SECRET_BYTES_MAX {
        bail!("the value has more than {SECRET_BYTES_MAX} bytes: pass large things as files");
    }
    Ok(text.to_owned())
}
