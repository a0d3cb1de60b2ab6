//! `skein instance list|drain`.

use clap::Subcommand;

use crate::connect::Connect;
use crate::failure::{Ended, OK};
use crate::output::{self, Table};
use crate::show;

/// `skein instance`.
#[derive(Debug, clap::Args)]
pub(crate) struct InstanceArgs {
    #[command(subcommand)]
    command: InstanceCommand,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Subcommand)]
enum InstanceCommand {
    /// List instances: state, slots, load, which sessions hold them
    List {
        /// Those that are gone too
        #[arg(long)]
        all: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Say that its cloud takes an instance away soon: what can move moves, what ends with it was preempted
    Notice {
        /// The instance
        name: String,
    },
    /// Give an instance nothing new; what runs there may finish
    Drain {
        /// The instance
        name: String,
    },
}

/// Carries it out.
pub(crate) async fn run(args: InstanceArgs) -> Ended {
    let client = args.connect.client().await?;
    match args.command {
        InstanceCommand::List { json, all } => {
            let mut instances = client.instances().await?;
            instances.retain(|instance| all || instance.state != "gone");
            if json { output::json(&instances)? } else { list(&instances) }
        }
        InstanceCommand::Notice { name } => {
            client.notice(&name).await?;
            output::line(&format!("{name} is going: it takes nothing new, and what says that it may be moved moves"));
        }
        InstanceCommand::Drain { name } => {
            client.drain(&name).await?;
            output::line(&format!("{name} drains: it takes nothing new, and what runs there may finish"));
        }
    }
    Ok(OK)
}

fn list(instances: &[skein_api::InstanceView]) {
    if instances.is_empty() {
        output::line("no instances; 'skein token join' says how to start an agent");
        return;
    }
    let mut table = Table::new(&["instance", "solution", "state", "slots", "cpu", "memory", "machine", "held by"])
        .right(&[3, 4, 5]);
    for instance in instances {
        let silent = !instance.connected && matches!(instance.state.as_str(), "ready" | "draining");
        let connected = if silent { " (not connected)" } else { "" };
        let held = if instance.held_by.is_empty() { "-".to_owned() } else { instance.held_by.join(" ") };
        let held = if instance.free { "free".to_owned() } else { held };
        table.row([
            instance.instance.clone(),
            instance.solution.clone(),
            format!("{}{connected}", instance.state),
            format!("{}/{}", instance.attempts.len(), instance.slots),
            format!("{} %", instance.cpu_percent),
            format!("{}/{} MiB", instance.memory_used_mb, instance.memory_mb),
            format!("{} CPUs, {} {}", instance.cpus, instance.os, instance.arch),
            held,
        ]);
    }
    table.print();
    let free = instances.iter().filter(|instance| instance.free).count();
    output::line(&format!("{}, {free} free", show::count(instances.len(), "instance")));
}
