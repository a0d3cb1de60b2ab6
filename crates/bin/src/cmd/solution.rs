//! `skein solution list`.

use clap::Subcommand;
use serde_json::Value;
use skein_api::SolutionView;

use crate::connect::Connect;
use crate::failure::{Ended, OK};
use crate::output::{self, Table};
use crate::show;

/// `skein solution`.
#[derive(Debug, clap::Args)]
pub(crate) struct SolutionArgs {
    #[command(subcommand)]
    command: SolutionCommand,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Subcommand)]
enum SolutionCommand {
    /// List solutions with their limits and prices
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Carries it out.
pub(crate) async fn run(args: SolutionArgs) -> Ended {
    let SolutionCommand::List { json } = args.command;
    let solutions = args.connect.client().await?.solutions().await?;
    if json {
        output::json(&solutions)?;
        return Ok(OK);
    }
    let mut table = Table::new(&["solution", "kind", "instances", "attempts", "limits and prices"]).right(&[2, 3]);
    for solution in &solutions {
        table.row([
            solution.solution.clone(),
            solution.kind.clone(),
            solution.instances.to_string(),
            solution.attempts.to_string(),
            facts(solution),
        ]);
    }
    table.print();
    Ok(OK)
}

/// The facts that people look for first.
fn facts(solution: &SolutionView) -> String {
    let number = |field: &str| solution.facts.get(field).and_then(Value::as_i64);
    let price = |field: &str| solution.facts.get("price").and_then(|price| price.get(field)).and_then(Value::as_i64);
    let seconds = |ms: i64| show::duration(u64::try_from(ms).unwrap_or_default());
    let parts = [
        number("price_per_hour").map(|p| format!("{} an hour", show::usd(p))),
        price("per_request").map(|p| format!("{} a request", show::usd(p))),
        price("per_gb_s").map(|p| format!("{} a GB-second", show::usd(p))),
        number("timeout_ms").map(|ms| format!("at most {}", seconds(ms))),
        number("concurrency").map(|n| format!("{n} at a time")),
        number("memory_mb_max").map(|mb| format!("up to {mb} MiB")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
