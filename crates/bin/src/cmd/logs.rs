//! `skein logs SESSION|ATTEMPT|SESSION/NODE[INDEX]`.

use skein_api::client::{Following, Sent};
use skein_api::{AttemptView, Client, LogPiece, SessionDetail};

use crate::address::LogAddress;
use crate::connect::Connect;
use crate::failure::{Ended, INTERRUPTED, OK};
use crate::follow::Follower;
use crate::log_printer::LogPrinter;
use crate::output;
use crate::results;
use crate::show;
use crate::signals::Signals;

/// Exit status of a search that found nothing, as `grep` has it.
const NOT_FOUND: u8 = 1;

/// `skein logs`.
#[derive(Debug, clap::Args)]
pub(crate) struct LogsArgs {
    /// A session (s-5g0), an item (s-5g0/count[3]), all items of a node (s-5g0/count), or an attempt (s-5g0.2.3.1)
    #[arg(value_name = "SESSION|ITEM|ATTEMPT")]
    of: LogAddress,
    /// Go on until the session ends
    #[arg(long, short)]
    follow: bool,
    /// Only lines that hold this text, with their attempt and number
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["follow", "stderr"])]
    search: Option<String>,
    /// The text is a regular expression
    #[arg(long, requires = "search")]
    regex: bool,
    /// Most lines of a search
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Standard error only, on standard output
    #[arg(long)]
    stderr: bool,
    #[command(flatten)]
    connect: Connect,
}

/// Prints logs.
pub(crate) async fn run(args: LogsArgs) -> Ended {
    let client = args.connect.client().await?;
    let id = match &args.of {
        LogAddress::Items(address) => &address.session,
        LogAddress::Attempt { session, .. } => session,
    };
    if let Some(text) = &args.search {
        return search(&client, id, text, &args).await;
    }
    let session = client.session(id).await?;
    if args.follow {
        return follow(&client, &session, &args).await;
    }
    let attempts = results::attempts(&client, id).await?;
    let chosen: Vec<&AttemptView> = attempts.iter().filter(|a| args.covers(&a.attempt, &a.node, a.index)).collect();
    if chosen.is_empty() {
        return none_there(&session, &args.of);
    }
    let mut printer = args.printer(&session, chosen.len() == 1);
    let streams: &[&str] = if args.stderr { &["err"] } else { &["out", "err"] };
    for attempt in chosen {
        for stream in streams {
            let bytes = client.log(&attempt.attempt, stream).await?;
            let piece = LogPiece {
                attempt: attempt.attempt.clone(),
                node: attempt.node.clone(),
                index: attempt.index,
                stream: (*stream).to_owned(),
                text: String::from_utf8_lossy(&bytes).into_owned(),
            };
            if printer.piece(&piece).is_err() {
                return Ok(OK);
            }
        }
    }
    printer.finish(&client).await?;
    Ok(OK)
}

async fn search(client: &Client, session: &str, text: &str, args: &LogsArgs) -> Ended {
    let node = match &args.of {
        LogAddress::Items(address) => address.node.as_deref(),
        LogAddress::Attempt { .. } => None,
    };
    let found = client.search_logs(session, text, args.regex, node, args.limit).await?;
    for hit in found.hits.iter().filter(|hit| args.covers(&hit.attempt, &hit.node, hit.index)) {
        let item = show::item(&hit.node, hit.index, true);
        output::line(&format!("{item} {} {}:{}: {}", hit.attempt, hit.stream, hit.line, hit.text));
    }
    if let Some(cut) = &found.cut {
        output::note(cut);
    }
    // As grep: nothing found is no error of ours, but can be asked for.
    Ok(if found.hits.is_empty() { NOT_FOUND } else { OK })
}

impl LogsArgs {
    fn covers(&self, attempt: &str, node: &str, index: u32) -> bool {
        match &self.of {
            LogAddress::Items(address) => address.covers(node, index),
            LogAddress::Attempt { attempt: own, .. } => own == attempt,
        }
    }

    /// With `--stderr` the only stream there is goes to standard output, so that it can be piped.
    fn printer(&self, session: &SessionDetail, one: bool) -> LogPrinter {
        let printer = if one { LogPrinter::plain() } else { LogPrinter::prefixed(session) };
        printer.one_way(self.stderr)
    }
}

/// A node that is there and has not started is no error; one that is not there is.
fn none_there(session: &SessionDetail, of: &LogAddress) -> Ended {
    let known = |name: &String| session.nodes.iter().any(|node| node.name == *name);
    match of {
        LogAddress::Items(address) if address.node.as_ref().is_none_or(known) => {
            output::note("nothing has started yet; -f follows it");
            Ok(OK)
        }
        LogAddress::Items(address) => {
            let names: Vec<&str> = session.nodes.iter().map(|node| node.name.as_str()).collect();
            let asked = address.node.as_deref().unwrap_or_default();
            anyhow::bail!("session {} has no node '{asked}' (it has: {})", address.session, names.join(", "))
        }
        LogAddress::Attempt { session, attempt } => {
            anyhow::bail!("session {session} has no attempt {attempt}: 'skein session attempts {session}' lists them")
        }
    }
}

async fn follow(client: &Client, session: &SessionDetail, args: &LogsArgs) -> Ended {
    let one = match &args.of {
        LogAddress::Items(address) => address.index.is_some() || session.summary.items.total == 1,
        LogAddress::Attempt { .. } => true,
    };
    let mut printer = args.printer(session, one);
    let mut signals = Signals::take()?;
    let mut follower = Follower::new(client, &session.summary.session, Following::Logs);
    loop {
        let sent = tokio::select! {
            sent = follower.next() => sent?,
            () = signals.next() => return Ok(INTERRUPTED),
        };
        match sent {
            Some(Sent::Log(piece)) if args.stderr && piece.stream != "err" => {}
            Some(Sent::Log(piece)) if args.covers(&piece.attempt, &piece.node, piece.index) => {
                if printer.piece(&piece).is_err() {
                    return Ok(OK);
                }
            }
            Some(_) => {}
            None => break,
        }
    }
    printer.finish(client).await?;
    Ok(OK)
}
