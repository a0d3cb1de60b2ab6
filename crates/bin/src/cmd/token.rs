//! `skein token new|list|revoke|join`.

use clap::Subcommand;

use crate::connect::Connect;
use crate::failure::{Ended, OK};
use crate::output::{self, Table};
use crate::show;

/// `skein token`.
#[derive(Debug, clap::Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make an API token for a user; it is shown this once
    New {
        /// The user whose sessions, attempts and costs it will stand for
        user: String,
    },
    /// List API tokens (without the tokens)
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke an API token
    Revoke {
        /// Its id ('skein token list')
        id: String,
    },
    /// Make a join token: it lets one agent in, once
    Join,
    /// Print the secret that webhooks (a task's reply_to) are signed with
    Reply,
}

/// Carries it out.
pub(crate) async fn run(args: TokenArgs) -> Ended {
    let client = args.connect.client().await?;
    match args.command {
        TokenCommand::New { user } => {
            let made = client.new_token(&user).await?;
            output::line(&made.token);
            output::note(&format!("for user '{user}', id {}; it is not shown again. Use it as SKEIN_TOKEN", made.id));
        }
        TokenCommand::List { json: true } => output::json(&client.tokens().await?)?,
        TokenCommand::List { json: false } => {
            let mut table = Table::new(&["id", "user", "made"]);
            for token in client.tokens().await? {
                table.row([token.id, token.user, show::moment(token.created_at)]);
            }
            table.print();
        }
        TokenCommand::Reply => output::line(&client.reply_secret().await?.secret),
        TokenCommand::Revoke { id } => {
            client.revoke_token(&id).await?;
            output::note(&format!("token {id} is revoked"));
        }
        TokenCommand::Join => {
            let made = client.join_token().await?;
            output::line(&made.token);
            output::note(&format!(
                "on the machine that shall join: SKEIN_JOIN=TOKEN skein agent --engine {}",
                client.url()
            ));
        }
    }
    Ok(OK)
}
