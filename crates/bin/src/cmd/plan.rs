//! `skein plan`: a dry run by the very functions that decide.

use std::path::PathBuf;

use skein_api::{ModeView, PlanView, PlannedItem};

use crate::connect::Connect;
use crate::failure::{Ended, FAILED, OK};
use crate::output::{self, Table};
use crate::submit::Document;
use crate::watch::Launch;
use crate::{show, show_deployment};

/// `skein plan`.
#[derive(Debug, clap::Args)]
#[group(id = "what", required = true, multiple = false, args = ["file", "task", "thread"])]
pub(crate) struct PlanArgs {
    /// A task or thread file
    file: Option<PathBuf>,
    /// A task of the repository
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// A thread of the repository
    #[arg(long, value_name = "NAME")]
    thread: Option<String>,
    #[command(flatten)]
    launch: Launch,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// Shows what a session would do. Exit status 1 when part of it would find no place.
pub(crate) async fn run(args: PlanArgs) -> Ended {
    let client = args.connect.client().await?;
    let mut request = args.launch.request();
    if let Some(file) = &args.file {
        request.document = Some(Document::read_to_start(file)?.upload(&client).await?);
    }
    (request.task, request.thread) = (args.task, args.thread);
    let plan = client.plan(&request).await?;
    if args.json {
        output::json(&plan)?;
    } else {
        show(&plan);
    }
    Ok(if plan.stuck.is_empty() && plan.missed.is_none() { OK } else { FAILED })
}

/// Items of one node at one place for one reason: a row.
struct Row<'a> {
    first: &'a PlannedItem,
    indices: Vec<u32>,
    end_ms: u64,
    cost: i64,
}

fn rows(items: &[PlannedItem]) -> Vec<Row<'_>> {
    let mut rows: Vec<Row> = Vec::new();
    for item in items {
        let same =
            |row: &&mut Row| row.first.node == item.node && row.first.place == item.place && row.first.why == item.why;
        if let Some(row) = rows.iter_mut().rev().find(same) {
            row.indices.push(item.index);
            row.end_ms = row.end_ms.max(item.end_ms);
            row.cost = row.cost.saturating_add(item.cost_nano_usd);
        } else {
            rows.push(Row { first: item, indices: vec![item.index], end_ms: item.end_ms, cost: item.cost_nano_usd });
        }
    }
    rows
}

fn show(plan: &PlanView) {
    let mut table = Table::new(&["node", "index", "place", "why there", "starts", "ends", "cost"]).right(&[4, 5, 6]);
    for row in rows(&plan.items) {
        table.row([
            row.first.node.clone(),
            show::ranges(&row.indices),
            row.first.place.clone(),
            row.first.why.clone(),
            show::duration(row.first.start_ms),
            show::duration(row.end_ms),
            show::usd(row.cost),
        ]);
    }
    table.print();
    let cut = if plan.cut { " (cut at the limit)" } else { "" };
    let cost = show::usd(plan.cost_nano_usd);
    output::line(&format!(
        "\n{}, {} in all, {cost}{cut}",
        show::count(plan.items.len(), "item"),
        show::duration(plan.total_ms)
    ));
    if !plan.assumed.is_empty() {
        output::line(&format!("run time assumed, since none is stated: {}", plan.assumed.join(", ")));
    }
    if let Some(deployment) = &plan.deployment {
        output::line("");
        show_deployment::print(deployment);
    }
    show_modes(&plan.modes, plan.picked.as_deref());
    if let Some(missed) = &plan.missed {
        output::line(&format!("it would not be started: {missed}"));
    }
    if !plan.budgets.is_empty() {
        output::line("");
        super::session::budgets_table(&plan.budgets).print();
        for cap in plan.budgets.iter().filter(|cap| plan.cost_nano_usd > cap.left_nano_usd) {
            let over = show::usd(plan.cost_nano_usd.saturating_sub(cap.left_nano_usd));
            output::line(&format!("over budget: {cost} is {over} more than is left of {}", cap.budget));
        }
    }
    for stuck in &plan.stuck {
        let next = stuck.next_step.as_ref().map(|next| format!("; {next}")).unwrap_or_default();
        output::line(&format!("stuck: {} finds no place: {}{next}", stuck.node, stuck.reason));
    }
}

/// The same in each mode, and in each solution by itself, cheapest to reach first as the engine says them.
fn show_modes(modes: &[ModeView], picked: Option<&str>) {
    if modes.is_empty() {
        return;
    }
    output::line("\nin other running modes, and in one solution by itself:");
    let header =
        ["mode", "items", "machines", "there anyway", "ends", "mean wait", "on instances", "functions", "made"];
    let mut table = Table::new(&header).right(&[1, 2, 3, 4, 5, 6, 7, 8]);
    for mode in modes {
        let name = mode.solution.as_ref().map_or_else(|| mode.mode.clone(), |solution| format!("only {solution}"));
        table.row([
            name,
            show::usd(mode.items_nano_usd),
            show::usd(mode.machines_nano_usd),
            show::usd(mode.fixed_nano_usd),
            show::duration(mode.total_ms),
            show::duration(mode.wait_mean_ms),
            mode.on_instances.to_string(),
            mode.in_gateways.to_string(),
            mode.machines.to_string(),
        ]);
    }
    table.print();
    for mode in modes {
        let Some(miss) = &mode.miss else { continue };
        let name = mode.solution.as_ref().map_or_else(|| mode.mode.clone(), |solution| format!("only {solution}"));
        output::line(&format!("{name}: {miss}"));
    }
    if let Some(why) = picked {
        output::line(&format!("by the goals: {why}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(node: &str, index: u32, place: &str, start_ms: u64) -> PlannedItem {
        PlannedItem {
            node: node.to_owned(),
            index,
            place: place.to_owned(),
            kind: "instance".to_owned(),
            why: "cheaper".to_owned(),
            start_ms,
            end_ms: start_ms + 10,
            cost_nano_usd: 5,
        }
    }

    #[test]
    fn equal_items_are_one_row() {
        let items = [item("a", 0, "x", 0), item("a", 1, "y", 0), item("a", 2, "x", 10), item("b", 0, "x", 20)];
        let rows = rows(&items);
        assert_eq!(rows.len(), 3);
        assert_eq!((rows[0].indices.as_slice(), rows[0].end_ms, rows[0].cost), ([0, 2].as_slice(), 20, 10));
    }
}
