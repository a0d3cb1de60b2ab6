//! `skein session list|show|stop|cancel|answer|retry-now|attempts|files`.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use skein_api::{AttemptView, BudgetView, Client, InputRequest, PageQuery, SessionDetail};

use crate::address::Address;
use crate::connect::Connect;
use crate::failure::{Ended, OK};
use crate::follow::arrays;
use crate::output::{self, Table};
use crate::results;
use crate::show;
use crate::show_deployment;

/// `skein session`.
#[derive(Debug, clap::Args)]
pub(crate) struct SessionArgs {
    #[command(subcommand)]
    command: SessionCommand,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Subcommand)]
enum SessionCommand {
    /// List sessions, newest first
    List {
        /// Most rows, 1 to 1000
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Rows to skip
        #[arg(long, default_value_t = 0)]
        offset: u64,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a session: its nodes, the instances it holds, what it cost
    Show {
        /// The session
        id: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Stop a session
    Stop {
        /// The session
        id: String,
    },
    /// Cancel items of a task; the session goes on
    Cancel {
        /// The item, or all items of the task
        #[arg(value_name = "SESSION/NODE[INDEX]")]
        item: Address,
        /// Only these indices, as in 3,7,20-99
        #[arg(long, value_name = "LIST", value_parser = ranges)]
        indices: Option<Ranges>,
    },
    /// Pause a session: nothing new starts
    Pause {
        /// The session
        id: String,
        /// Stop what runs too; it is started again when the session is resumed
        #[arg(long)]
        stop_running: bool,
    },
    /// Let a paused session go on
    Resume {
        /// The session
        id: String,
        /// The most that it may spend from now on, USD
        #[arg(long, value_name = "USD", value_parser = crate::watch::budget)]
        budget: Option<i64>,
    },
    /// Run a session's thread again: what did not succeed, and what comes after that; prints the new session's id
    Rerun {
        /// The session
        id: String,
        /// All of it
        #[arg(long)]
        all: bool,
    },
    /// Send what runs for an item a signal
    Signal {
        /// The item, or one of its attempts
        #[arg(value_name = "SESSION/NODE[INDEX]")]
        item: String,
        /// As in USR1, or a number
        signal: String,
    },
    /// Give what runs for an item a line on standard input (its task says `stdin = true`)
    Input {
        /// The item, or one of its attempts
        #[arg(value_name = "SESSION/NODE[INDEX]")]
        item: String,
        /// The line
        line: Option<String>,
        /// Then the end of its input
        #[arg(long)]
        end: bool,
    },
    /// Answer items whose place was lost and whose task says `on_lost = "ask"`
    Answer {
        /// The item, or the task with --indices or --all
        #[arg(value_name = "SESSION/NODE[INDEX]")]
        item: Address,
        /// Those of these indices that ask, as in 3,7,20-99
        #[arg(long, value_name = "LIST", value_parser = ranges)]
        indices: Option<Ranges>,
        /// All items of the task that ask
        #[arg(long, conflicts_with = "indices")]
        all: bool,
        /// Try again; without this they end as lost
        #[arg(long)]
        again: bool,
        /// End as lost: what happens without --again, said in so many words
        #[arg(long, conflicts_with = "again")]
        lost: bool,
    },
    /// Have items that wait for their back-off tried now
    RetryNow {
        /// The item, or all items of the task
        #[arg(value_name = "SESSION/NODE[INDEX]")]
        item: Address,
        /// Only these indices, as in 3,7,20-99
        #[arg(long, value_name = "LIST", value_parser = ranges)]
        indices: Option<Ranges>,
    },
    /// List a session's attempts: where, why there, how long, how they ended
    Attempts {
        /// The session
        id: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// List the files that a session's items left, or fetch them
    Files {
        /// The session
        id: String,
        /// Fetch them into this folder
        #[arg(long, value_name = "DIR")]
        download: Option<PathBuf>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Ranges of indices, the second one past the last.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ranges(Vec<(u32, u32)>);

fn ranges(text: &str) -> Result<Ranges, String> {
    let bad = || format!("'{text}': write indices and ranges, as in 3,7,20-99");
    let one = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (u32, u32) = (from.trim().parse().map_err(|_| bad())?, to.trim().parse().map_err(|_| bad())?);
        let end = to.checked_add(1).ok_or_else(bad)?;
        if from < end { Ok((from, end)) } else { Err(bad()) }
    };
    text.split(',').map(one).collect::<Result<_, _>>().map(Ranges)
}

/// Carries it out.
pub(crate) async fn run(args: SessionArgs) -> Ended {
    let client = args.connect.client().await?;
    match args.command {
        SessionCommand::List { limit, offset, json } => list(&client, PageQuery { offset, limit }, json).await?,
        SessionCommand::Show { id, json: true } => output::json(&client.session(&id).await?)?,
        SessionCommand::Show { id, json: false } => show(&client.session(&id).await?),
        SessionCommand::Stop { id } => {
            client.stop(&id).await?;
            output::line(&format!("session {id} is stopping"));
        }
        SessionCommand::Cancel { item, indices } => {
            let (node, ranges) = some_of(&item, indices)?;
            client.cancel(&item.session, node, ranges).await?;
            output::line("cancelled; what runs ends within its grace");
        }
        SessionCommand::Pause { id, stop_running } => {
            client.pause(&id, stop_running).await?;
            output::line(&format!("session {id} is paused; 'skein session resume {id}' lets it go on"));
        }
        SessionCommand::Resume { id, budget } => {
            client.resume(&id, budget).await?;
            output::line(&format!("session {id} goes on"));
        }
        SessionCommand::Rerun { id, all } => output::line(&client.rerun(&id, all).await?.session),
        SessionCommand::Signal { item, signal } => {
            let attempt = open_attempt(&client, &item).await?;
            client.signal(&attempt, &signal).await?;
            output::line(&format!("sent to {attempt}"));
        }
        SessionCommand::Input { item, line, end } => {
            let attempt = open_attempt(&client, &item).await?;
            client.input(&attempt, &InputRequest { line, end }).await?;
            output::line(&format!("sent to {attempt}"));
        }
        SessionCommand::Answer { item, indices, all, again, lost: _ } => {
            let several = all || indices.is_some();
            let (node, ranges) = some_of(&item, indices)?;
            match item.index {
                Some(_) if all => bail!("give the index in brackets or --all, not both"),
                index if !several => client.answer(&item.session, node, index.unwrap_or(0), again).await?,
                _ => client.answer_many(&item.session, node, again, ranges).await?,
            }
        }
        SessionCommand::RetryNow { item, indices } => {
            let (node, ranges) = some_of(&item, indices)?;
            client.retry_now(&item.session, node, ranges).await?;
            output::line("due now");
        }
        SessionCommand::Attempts { id, json } => {
            let attempts = results::attempts(&client, &id).await?;
            if json {
                output::json(&attempts)?;
            } else {
                show_attempts(&client.session(&id).await?, &attempts);
            }
        }
        SessionCommand::Files { id, download, json } => files(&client, &id, download, json).await?,
    }
    Ok(OK)
}

/// The task of an address, and the indices that are meant: none for all.
fn some_of(item: &Address, indices: Option<Ranges>) -> anyhow::Result<(&str, Vec<(u32, u32)>)> {
    let node = item.node.as_deref().context("name the task: SESSION/NODE or SESSION/NODE[INDEX]")?;
    let ranges = match (indices, item.index) {
        (Some(Ranges(ranges)), None) => ranges,
        (None, Some(index)) => vec![(index, index + 1)],
        (None, None) => Vec::new(),
        (Some(_), Some(_)) => bail!("give the index in brackets or with --indices, not both"),
    };
    Ok((node, ranges))
}

/// The attempt that a person means: named, or the open one of an item.
async fn open_attempt(client: &Client, text: &str) -> anyhow::Result<String> {
    if text.parse::<skein_domain::AttemptKey>().is_ok() {
        return Ok(text.to_owned());
    }
    let item: Address = text.parse().map_err(anyhow::Error::msg)?;
    let attempts = results::attempts(client, &item.session).await?;
    let mut open = attempts.iter().filter(|a| a.ended_at.is_none() && item.covers(&a.node, a.index));
    match (open.next(), open.next()) {
        (Some(one), None) => Ok(one.attempt.clone()),
        (None, _) => bail!("nothing runs for {text} now"),
        (Some(_), Some(_)) => bail!("several attempts run for {text}: name one item, as in SESSION/NODE[INDEX]"),
    }
}

async fn list(client: &Client, page: PageQuery, json: bool) -> anyhow::Result<()> {
    let sessions = client.sessions(page).await?;
    if json {
        return output::json(&sessions);
    }
    let mut table = Table::new(&["session", "name", "user", "state", "items", "started", "took"]).right(&[6]);
    for session in &sessions {
        let took = session.ended_at.map(|end| u64::try_from((end - session.created_at) / 1000).unwrap_or_default());
        table.row([
            session.session.clone(),
            session.name.clone(),
            session.user.clone(),
            session.state.clone(),
            show::counts(&session.items),
            show::moment(session.created_at),
            show::duration_or_dash(took),
        ]);
    }
    table.print();
    Ok(())
}

fn show(session: &SessionDetail) {
    let summary = &session.summary;
    output::line(&format!(
        "session {} '{}' of {}: {}, {}, started {}, cost so far {}",
        summary.session,
        summary.name,
        summary.user,
        summary.state,
        show::counts(&summary.items),
        show::moment(summary.created_at),
        show::usd(session.cost_nano_usd)
    ));
    if !session.description.is_empty() {
        output::line(&session.description);
    }
    for text in &session.overrides {
        output::line(&format!("override {text}"));
    }
    if let Some(over) = &session.over_budget {
        output::line(&format!("paused: {over}"));
    }
    if !session.budgets.is_empty() {
        output::line("");
        budgets_table(&session.budgets).print();
    }
    output::line("");
    let mut table = Table::new(&["node", "items", "mode", "after", "runs"]);
    for node in &session.nodes {
        let mode = format!("{} ({})", node.running_mode, node.mode_source);
        let after = if node.after.is_empty() { show::dash() } else { node.after.join(" ") };
        table.row([node.name.clone(), show::counts(&node.items), mode, after, node.runs.clone()]);
    }
    table.print();
    if !session.places.is_empty() {
        output::line("");
        let mut table = Table::new(&["place", "kind", "attempts"]).right(&[2]);
        for place in &session.places {
            table.row([place.place.clone(), place.kind.clone(), place.attempts.to_string()]);
        }
        table.print();
    }
    if let Some(earlier) = &session.earlier {
        output::line(&format!("\ntakes over what succeeded in {earlier}"));
    }
    for node in session.nodes.iter().filter(|node| !node.actions.is_empty()) {
        output::line(&format!("\npossible now for items of {}: {}", node.name, node.actions.join(", ")));
    }
    if !session.actions.is_empty() {
        output::line(&format!("\npossible now: {}", session.actions.join(", ")));
    }
    let holds = session.holds.iter().map(|hold| format!("{} ({} running)", hold.instance, hold.attempts));
    let holds = holds.collect::<Vec<_>>().join(", ");
    output::line(&format!("\nholds {}", if holds.is_empty() { "no instance" } else { &holds }));
    if let Some(deployment) = &session.deployment {
        show_deployment::print(deployment);
    }
}

/// A table of caps, as `plan` and `session show` have it.
pub(crate) fn budgets_table(budgets: &[BudgetView]) -> Table {
    let header = ["budget", "at its end", "limit", "spent", "open", "left", "said"];
    let mut table = Table::new(&header).right(&[2, 3, 4, 5]);
    for cap in budgets {
        table.row([
            cap.budget.clone(),
            cap.action.clone(),
            show::usd(cap.limit_nano_usd),
            show::usd(cap.spent_nano_usd),
            show::usd(cap.open_nano_usd),
            show::usd(cap.left_nano_usd),
            cap.warned_percent.map_or_else(show::dash, |percent| format!("{percent} % reached")),
        ]);
    }
    table
}

/// A table of attempts, as `session attempts` and the demo show it.
pub(crate) fn attempts_table(session: &SessionDetail, attempts: &[AttemptView]) -> Table {
    let arrays = arrays(session);
    let header = ["item", "try", "place", "why there", "run", "cpu", "cost", "state"];
    let mut table = Table::new(&header).right(&[1, 4, 5, 6]);
    for attempt in attempts {
        table.row([
            show::item(&attempt.node, attempt.index, arrays.contains(&attempt.node)),
            attempt.number.to_string(),
            attempt.place.clone(),
            show::short_why(attempt),
            show::duration_or_dash(attempt.run_ms),
            show::duration_or_dash(attempt.cpu_ms),
            show::usd_or_dash(attempt.cost_nano_usd),
            attempt.ending.clone().unwrap_or_else(|| attempt.state.clone()),
        ]);
    }
    table
}

fn show_attempts(session: &SessionDetail, attempts: &[AttemptView]) {
    attempts_table(session, attempts).print();
}

/// The session's attempts, and those of the earlier sessions whose results it takes over.
async fn attempts_and_earlier(client: &Client, session: &SessionDetail) -> anyhow::Result<Vec<AttemptView>> {
    let mut all = results::attempts(client, &session.summary.session).await?;
    let mut earlier = session.earlier.clone();
    while let Some(id) = earlier {
        let mut theirs = results::attempts(client, &id).await?;
        // What ran again counts as it ended then.
        theirs.retain(|a| !all.iter().any(|b| (&a.node, a.index) == (&b.node, b.index)));
        all.extend(theirs);
        earlier = client.session(&id).await?.earlier;
    }
    Ok(all)
}

async fn files(client: &Client, id: &str, download: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    let session = client.session(id).await?;
    let files = results::files(&attempts_and_earlier(client, &session).await?);
    if let Some(dir) = download {
        let one = session.summary.items.total == 1;
        let paths = results::download_all(client, &files, &arrays(&session), one, &dir).await?;
        for path in paths {
            output::line(&path.display().to_string());
        }
        return Ok(());
    }
    if json {
        let rows = files.iter().map(|f| {
            serde_json::json!({ "node": f.node, "index": f.index, "path": f.file.path, "digest": f.file.digest, "size": f.file.size })
        });
        return output::json(&rows.collect::<Vec<_>>());
    }
    let arrays = arrays(&session);
    let mut table = Table::new(&["item", "path", "size", "digest"]).right(&[2]);
    for file in &files {
        let item = show::item(&file.node, file.index, arrays.contains(&file.node));
        table.row([item, file.file.path.clone(), show::bytes(file.file.size), file.file.digest.clone()]);
    }
    table.print();
    Ok(())
}
