//! `skein why SESSION[/NODE[INDEX]]`: the same reasons that the planner used.

use skein_api::{Client, NodeView, Why};

use crate::address::Address;
use crate::connect::Connect;
use crate::failure::{Ended, OK};
use crate::output::{self, Table};
use crate::show;

/// Items of an array that are looked at to find one that waits.
const LOOKS_MAX: u32 = 64;

/// `skein why`.
#[derive(Debug, clap::Args)]
pub(crate) struct WhyArgs {
    /// A session (every node that waits), a node (s-5g0/count) or an item (s-5g0/count[3])
    #[arg(value_name = "SESSION[/NODE[INDEX]]")]
    of: Address,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// Says why.
pub(crate) async fn run(args: WhyArgs) -> Ended {
    let client = args.connect.client().await?;
    let Some(node) = &args.of.node else { return whole(&client, &args).await };
    let session = client.session(&args.of.session).await?;
    let found = session.nodes.iter().find(|view| view.name == *node);
    let why = match (args.of.index, found) {
        (None, Some(view)) if view.items.waiting > 0 => waiting(&client, &args.of.session, view).await?,
        (index, _) => client.why(&args.of.session, node, index.unwrap_or(0)).await?,
    };
    if args.json {
        output::json(&why)?;
    } else {
        let array = found.is_some_and(|view| view.items.total > 1);
        say(&why, array);
    }
    Ok(OK)
}

/// Every node that waits, one line each.
async fn whole(client: &Client, args: &WhyArgs) -> Ended {
    let session = client.session(&args.of.session).await?;
    let mut found = Vec::new();
    for node in session.nodes.iter().filter(|node| node.items.waiting > 0) {
        found.push((node, waiting(client, &args.of.session, node).await?));
    }
    if args.json {
        output::json(&found.iter().map(|(_, why)| why).collect::<Vec<_>>())?;
        return Ok(OK);
    }
    if found.is_empty() {
        let summary = &session.summary;
        output::line(&format!(
            "nothing waits: session {} {}, {}",
            summary.session,
            summary.state,
            show::counts(&summary.items)
        ));
        return Ok(OK);
    }
    let mut table = Table::new(&["node", "waiting", "why", "next step"]).right(&[1]);
    for (node, why) in found {
        let next = why.next_step.unwrap_or_else(show::dash);
        table.row([node.name.clone(), node.items.waiting.to_string(), why.text, next]);
    }
    table.print();
    Ok(OK)
}

/// Why the first item of a node that waits does so. Items are taken from the front, so one that
/// waits is likely at the end.
async fn waiting(client: &Client, session: &str, node: &NodeView) -> anyhow::Result<Why> {
    let total = u32::try_from(node.items.total).unwrap_or(u32::MAX);
    let last = total.saturating_sub(1);
    let why = client.why(session, &node.name, last).await?;
    if matches!(why.state.as_str(), "waiting" | "placeable") {
        return Ok(why);
    }
    for index in 0..last.min(LOOKS_MAX) {
        let why = client.why(session, &node.name, index).await?;
        if matches!(why.state.as_str(), "waiting" | "placeable") {
            return Ok(why);
        }
    }
    Ok(why)
}

fn say(why: &Why, array: bool) {
    output::line(&format!("{} {}: {}", show::item(&why.node, why.index, array), why.state, why.text));
    if let Some(next) = &why.next_step {
        output::line(&format!("next step: {next}"));
    }
    if let Some(class) = &why.class {
        output::line(&format!("its class: {class}"));
    }
    if !why.candidates.is_empty() {
        output::line("");
        let mut table = Table::new(&["place", "kind", "expected cost", "says"]).right(&[2]);
        for candidate in &why.candidates {
            let says = candidate.reason.clone().unwrap_or_else(|| "would take it now".to_owned());
            table.row([candidate.place.clone(), candidate.kind.clone(), show::usd(candidate.cost_nano_usd), says]);
        }
        table.print();
    }
    if !why.attempts.is_empty() {
        output::line("");
        let mut table = Table::new(&["attempt", "place", "why there", "state", "run"]).right(&[4]);
        for attempt in &why.attempts {
            let state = attempt.ending.clone().unwrap_or_else(|| attempt.state.clone());
            let run = show::duration_or_dash(attempt.run_ms);
            table.row([attempt.attempt.clone(), attempt.place.clone(), attempt.why.clone(), state, run]);
        }
        table.print();
    }
}
