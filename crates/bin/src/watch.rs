//! Starting a session and staying with it: logs as they come, Ctrl-C, the exit status, the files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use skein_api::client::{Following, Sent};
use skein_api::{AttemptView, BudgetView, Client, GoalsRequest, SessionDetail, StartRequest, Started};

use crate::failure::{Ended, FAILED, INTERRUPTED, OK};
use crate::follow::{Follower, arrays};
use crate::local::Local;
use crate::log_printer::LogPrinter;
use crate::output::{Table, line, note};
use crate::results;
use crate::show;
use crate::signals::Signals;

/// Failed items named at the end; the rest is counted.
const FAILURES_SHOWN: usize = 10;

/// How to stay with a session.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Say at the end where everything ran.
    pub(crate) verbose: bool,
    /// Bring the files that were left here.
    pub(crate) download: Option<PathBuf>,
}

/// Starts a session and leaves it to the engine.
pub(crate) async fn detach(client: &Client, request: &StartRequest) -> Ended {
    let started = client.start(request).await?;
    say_known(&started);
    line(&started.session);
    note(&format!("follow it with 'skein logs -f {0}'; see it with 'skein session show {0}'", started.session));
    Ok(OK)
}

/// Starts a session and stays with it to its end.
pub(crate) async fn attend(
    client: &Client,
    local: Option<&mut Local>,
    signals: &mut Signals,
    request: &StartRequest,
    watch: &Watch,
) -> Ended {
    let started = client.start(request).await?;
    say_known(&started);
    let id = started.session.as_str();
    // One item of one task: its bytes and its status are ours.
    let session = client.session(id).await?;
    let one = session.nodes.len() == 1 && session.summary.items.total == 1;
    let printer = if one { LogPrinter::plain() } else { LogPrinter::prefixed(&session) };
    let interrupted = match stay(client, local, signals, id, printer).await? {
        Stayed::Left => return Ok(INTERRUPTED),
        Stayed::ToEnd { interrupted } => interrupted,
    };
    let session = client.session(id).await?;
    let of_interest = watch.verbose || watch.download.is_some() || session.summary.state != "succeeded";
    let attempts = if of_interest { results::attempts(client, id).await? } else { Vec::new() };
    if watch.verbose {
        say_places(&session, &attempts);
    }
    say_failures(&session, &attempts, one);
    if let Some(dir) = &watch.download {
        let files = results::files(&attempts);
        let paths = results::download_all(client, &files, &arrays(&session), one, dir).await?;
        if !paths.is_empty() {
            note(&format!("{} in {}", show::count(paths.len(), "file"), dir.display()));
        }
    }
    Ok(if interrupted { INTERRUPTED } else { status(&session, &attempts, one) })
}

fn say_known(started: &Started) {
    if let Some(estimate) = started.estimate_nano_usd {
        let left = |cap: &BudgetView| format!("{} left of {}", show::usd(cap.left_nano_usd), cap.budget);
        let left: Vec<String> = started.budgets.iter().map(left).collect();
        note(&format!("expected to cost {}; {}", show::usd(estimate), left.join(", ")));
    }
    if !started.new {
        note(&format!("the client key is known: this is session {}, nothing was started again", started.session));
    }
}

enum Stayed {
    ToEnd { interrupted: bool },
    Left,
}

/// Prints logs until the session is over. The first Ctrl-C stops it, the second leaves it.
async fn stay(
    client: &Client,
    mut local: Option<&mut Local>,
    signals: &mut Signals,
    id: &str,
    mut printer: LogPrinter,
) -> anyhow::Result<Stayed> {
    let mut follower = Follower::new(client, id, Following::Logs);
    let mut interrupted = false;
    loop {
        tokio::select! {
            sent = follower.next() => match sent? {
                Some(Sent::Log(piece)) => {
                    // As in a pipe of a shell: what nobody reads need not be made.
                    if printer.piece(&piece).is_err() && !interrupted {
                        interrupted = true;
                        client.stop(id).await?;
                    }
                }
                Some(Sent::Event(_)) => {}
                None => break,
            },
            () = signals.next() => {
                if interrupted {
                    note(&format!("left; session {id} is stopping without us"));
                    return Ok(Stayed::Left);
                }
                interrupted = true;
                note(&format!("stopping session {id}; Ctrl-C again leaves at once"));
                client.stop(id).await?;
            }
            error = lost(&mut local) => return Err(error),
        }
    }
    printer.finish(client).await?;
    Ok(Stayed::ToEnd { interrupted })
}

/// A part of the private engine that ended by itself; never when there is none.
async fn lost(local: &mut Option<&mut Local>) -> anyhow::Error {
    match local {
        Some(local) => local.lost().await,
        None => std::future::pending().await,
    }
}

/// The exit status: of one command its own, else whether the session succeeded.
fn status(session: &SessionDetail, attempts: &[AttemptView], one: bool) -> u8 {
    if session.summary.state == "succeeded" {
        return OK;
    }
    let last = attempts.iter().max_by_key(|attempt| attempt.number);
    match last {
        Some(last) if one => own_status(last).unwrap_or(FAILED),
        _ => FAILED,
    }
}

/// The program's own status; of one that a signal ended, 128 and the signal, as a shell gives it.
fn own_status(attempt: &AttemptView) -> Option<u8> {
    let signal = || attempt.ending.as_deref()?.strip_prefix("ended by signal ")?.parse::<i32>().ok().map(|s| s + 128);
    let code = attempt.exit_code.filter(|code| *code != 0).or_else(signal)?;
    u8::try_from(code).ok()
}

/// Where every attempt ran, on standard error.
fn say_places(session: &SessionDetail, attempts: &[AttemptView]) {
    let arrays = arrays(session);
    let mut table = Table::new(&["item", "place", "why there", "run", "cost"]).right(&[3, 4]);
    for attempt in attempts {
        table.row([
            show::item(&attempt.node, attempt.index, arrays.contains(&attempt.node)),
            attempt.place.clone(),
            show::short_why(attempt),
            show::duration_or_dash(attempt.run_ms),
            show::usd_or_dash(attempt.cost_nano_usd),
        ]);
    }
    note(&format!("session {}: {}", session.summary.session, session.summary.state));
    note(&table.render());
    for text in attempts.iter().flat_map(|attempt| &attempt.notes).collect::<BTreeSet<_>>() {
        note(&format!("note: {text}"));
    }
}

/// What failed and how, by the last try at each item. One command that ended with its own status has
/// said so itself.
fn say_failures(session: &SessionDetail, attempts: &[AttemptView], one: bool) {
    let mut last: BTreeMap<(&str, u32), &AttemptView> = BTreeMap::new();
    for attempt in attempts {
        let entry = last.entry((&attempt.node, attempt.index)).or_insert(attempt);
        if entry.number < attempt.number {
            *entry = attempt;
        }
    }
    let failed = |attempt: &&AttemptView| !matches!(attempt.state.as_str(), "succeeded" | "cancelled");
    let failed: Vec<&AttemptView> =
        last.into_values().filter(failed).filter(|a| !(one && a.exit_code.is_some())).collect();
    let arrays = arrays(session);
    for attempt in failed.iter().take(FAILURES_SHOWN) {
        let item = show::item(&attempt.node, attempt.index, arrays.contains(&attempt.node));
        let how = attempt.ending.as_deref().unwrap_or(&attempt.state);
        note(&format!("skein: {item} on {}, try {}: {how}", attempt.place, attempt.number));
    }
    let id = &session.summary.session;
    if failed.len() > FAILURES_SHOWN {
        note(&format!("skein: and {} more: 'skein session attempts {id}'", failed.len() - FAILURES_SHOWN));
    }
    if !one && session.summary.state != "succeeded" {
        note(&format!("skein: session {id} {}: {}", session.summary.state, show::counts(&session.summary.items)));
    }
}

/// Parses `NAME=VALUE`.
pub(crate) fn name_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("'{text}': write NAME=VALUE")),
    }
}

const SCHEMES: [&str; 5] = ["fewest-tasks", "packing", "first-fit", "lowest-load", "by-number"];

/// `--set`, `--mode` and the like, shared by everything that starts or plans a session.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Launch {
    /// Override a parameter for this session: TASK.PARAMETER=VALUE ('*' for every task)
    #[arg(long, value_name = "T.P=V", value_parser = override_text)]
    pub(crate) set: Vec<String>,
    /// Only this task and what comes before it; may be given several times
    #[arg(long, value_name = "TASK")]
    pub(crate) until: Vec<String>,
    /// Running mode of every task
    #[arg(long, value_name = "MODE", value_parser = ["auto", "dedicated", "serverless", "hybrid"])]
    pub(crate) mode: Option<String>,
    /// The most that it may spend, USD; it is paused before what would exceed it
    #[arg(long, value_name = "USD", value_parser = budget)]
    pub(crate) budget: Option<i64>,
    /// What is best where the running mode is left to the engine
    #[arg(long, value_name = "WHAT", value_parser = ["cost", "speed"])]
    pub(crate) objective: Option<String>,
    /// Most that the session may cost, USD
    #[arg(long, value_name = "USD")]
    pub(crate) cost_max: Option<f64>,
    /// Time within which it is to end, s
    #[arg(long, value_name = "S")]
    pub(crate) within: Option<f64>,
    /// Most machines that may be made for it
    #[arg(long, value_name = "N")]
    pub(crate) machines_max: Option<u32>,
    /// Balancing of every task
    #[arg(long, value_name = "SCHEME", value_parser = SCHEMES)]
    pub(crate) balance: Option<String>,
}

/// Dollars, as nano-USD.
pub(crate) fn budget(text: &str) -> Result<i64, String> {
    let bad = || format!("'{text}' is no amount: write USD, as in 2.50");
    let (whole, part) =
        text.trim().trim_start_matches('$').split_once('.').unwrap_or((text.trim_start_matches('$'), "0"));
    let digits = |text: &str| text.len() <= 9 && !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) {
        return Err(bad());
    }
    let (whole, part): (i64, i64) =
        (whole.parse().map_err(|_| bad())?, format!("{part:0<9}").parse().map_err(|_| bad())?);
    Ok(whole * 1_000_000_000 + part)
}

fn override_text(text: &str) -> Result<String, String> {
    let parts = text.split_once('=').and_then(|(target, _)| target.split_once('.'));
    match parts {
        Some((task, parameter)) if !task.is_empty() && !parameter.is_empty() => Ok(text.to_owned()),
        _ => Err("write TASK.PARAMETER=VALUE, as in split.memory_mb=512".to_owned()),
    }
}

impl Launch {
    /// Into a request.
    pub(crate) fn request(&self) -> StartRequest {
        let goals = GoalsRequest {
            objective: self.objective.clone(),
            cost_max_usd: self.cost_max,
            within_s: self.within,
            machines_max: self.machines_max,
        };
        StartRequest {
            goals: (goals != GoalsRequest::default()).then_some(goals),
            running_mode: self.mode.clone(),
            balance: self.balance.clone(),
            set: self.set.clone(),
            until: self.until.clone(),
            budget_nano_usd: self.budget,
            ..StartRequest::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_and_environment_are_checked_when_typed() {
        assert!(override_text("split.memory_mb=512").is_ok() && override_text("*.env.A=").is_ok());
        for bad in ["split", "split=1", ".a=1", "a.=1", "a.b"] {
            assert!(override_text(bad).is_err(), "{bad}");
        }
        assert_eq!(name_value("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert_eq!(
            (budget("2.50"), budget("$3"), budget("0.000000001")),
            (Ok(2_500_000_000), Ok(3_000_000_000), Ok(1))
        );
        for bad in ["", "-1", "1.", "1,5", "1e3", "1.0000000001"] {
            assert!(budget(bad).is_err(), "{bad}");
        }
        assert!(name_value("=b").is_err() && name_value("A").is_err());
    }
}
