//! `skein demo`: the whole system on one machine, on real data.
//!
//! An engine in this process, two agents and a function host as processes beside it, the example
//! thread as one session in hybrid mode. Where each item runs is the engine's to decide.

mod example;
mod progress;
mod summary;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use skein_api::{Client, SessionDetail, StartRequest};
use tokio::time::Instant;

use crate::cmd::run::new_folder;
use crate::connect;
use crate::engine_dir;
use crate::failure::{Ended, FAILED, INTERRUPTED, OK};
use crate::follow::is_over;
use crate::local::{Functions, Local, Wanted};
use crate::output;
use crate::show;
use crate::signals::Signals;
use crate::submit::Document;

use progress::Progress;
use summary::Summary;

/// Agents, each a server of its own for the engine.
const AGENTS: u32 = 2;
/// Slots of each.
const SLOTS: u32 = 2;
/// An agent's machine: AWS c6i.large (2 vCPU), us-east-1, list price, USD per hour.
const PRICE_PER_HOUR_USD: f64 = 0.085;
/// What both prices are, for people.
const PRICES: &str =
    "list prices, us-east-1: an agent as AWS c6i.large (2 vCPU), functions as AWS Lambda (x86-64); nothing is billed";
/// The function host's limits.
const FUNCTIONS: Functions = Functions { concurrency: 4, timeout_s: 60 };

/// `skein demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Keep everything up at the end, to look around [default: in a terminal]
    #[arg(long, overrides_with = "no_stay")]
    stay: bool,
    /// Stop everything at the end
    #[arg(long)]
    no_stay: bool,
    /// Print one summary object as the last line; everything else goes to standard error
    #[arg(long)]
    json: bool,
    /// Folder for everything the demo writes [default: a new one, .skein/skein-demo]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Where the demo talks to people.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Say {
    json: bool,
}

impl Say {
    /// A line for people.
    pub(crate) fn line(self, text: &str) {
        if self.json { output::note(text) } else { output::line(text) }
    }
}

/// Runs it.
pub(crate) async fn run(args: DemoArgs) -> Ended {
    let begun = Instant::now();
    let mut signals = Signals::take()?;
    let say = Say { json: args.json };
    let dir = folder(&args)?;
    if let Some(url) = connect::up_in(&dir, engine_dir::ca_file(&dir).as_deref()).await? {
        bail!("an engine is up in {} ({url}): stop it, or name another folder with --dir", show::path(&dir));
    }
    crate::logging::to_file(&dir.join("engine.log"), "info").context("no log file")?;
    say.line(&format!("demo folder  {}", show::path(&dir)));
    let wanted = Wanted {
        dir: dir.clone(),
        agents: AGENTS,
        slots: Some(SLOTS),
        functions: Some(FUNCTIONS),
        price_per_hour_usd: PRICE_PER_HOUR_USD,
    };
    let mut local = tokio::select! {
        local = start(&wanted) => local?,
        () = signals.next() => return Ok(INTERRUPTED),
    };
    let client = local.client();
    say.line(&format!("engine       {} (in this process)", client.url()));
    say.line(&format!(
        "places       {AGENTS} agents with {SLOTS} slots each; functions, {} at a time, {} s at most",
        FUNCTIONS.concurrency, FUNCTIONS.timeout_s
    ));
    say.line(&format!("prices       {PRICES}"));
    let ended = session(&client, &mut local, &mut signals, &dir, say, begun).await;
    let code = match ended {
        Ok(Some(summary)) => {
            let code = if summary.state == "succeeded" { OK } else { FAILED };
            if args.json {
                output::line(&serde_json::to_string(&summary.json())?);
            }
            if stays(&args) {
                stay(&client, &mut local, &mut signals, &dir, say, &summary.session).await;
            }
            Ok(code)
        }
        Ok(None) => Ok(INTERRUPTED),
        Err(error) => Err(error),
    };
    local.stop().await;
    code
}

async fn start(wanted: &Wanted) -> anyhow::Result<Local> {
    let mut local = Local::start(wanted).await?;
    local.ready().await?;
    Ok(local)
}

/// A new folder below `.skein` here, or below the temporary folder where nothing can be written here.
fn folder(args: &DemoArgs) -> anyhow::Result<PathBuf> {
    if let Some(dir) = &args.dir {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
        return std::path::absolute(dir).with_context(|| format!("cannot use the folder {}", dir.display()));
    }
    let below = |base: &Path| {
        let own = std::path::absolute(base.join(".skein"))?;
        std::fs::create_dir_all(&own)?;
        // What is in it is nobody's source.
        std::fs::write(own.join(".gitignore"), "*\n")?;
        let dir = new_folder(&own.join("skein-demo"));
        std::fs::create_dir(&dir).map(|()| dir)
    };
    let made = below(Path::new(".")).or_else(|_| below(&std::env::temp_dir()));
    made.context("no folder can be made here or in the temporary folder; name one with --dir")
}

fn stays(args: &DemoArgs) -> bool {
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    args.stay || (terminal && !args.no_stay && !args.json)
}

/// Starts the session, shows it to its end, brings the results. None when it was left by Ctrl-C.
async fn session(
    client: &Client,
    local: &mut Local,
    signals: &mut Signals,
    dir: &Path,
    say: Say,
    begun: Instant,
) -> anyhow::Result<Option<Summary>> {
    let id = begin(client, dir, say).await?;
    let mut progress = Progress::new(client, &id, say).await?;
    let mut stopping = false;
    let session: SessionDetail = loop {
        tokio::select! {
            session = progress.next() => {
                let session = session?;
                if is_over(&session.summary.state) {
                    break session;
                }
            }
            () = signals.next() => {
                if stopping {
                    return Ok(None);
                }
                stopping = true;
                progress.line(&format!("stopping session {id}; Ctrl-C again leaves at once"));
                client.stop(&id).await?;
            }
            error = local.lost() => progress.line(&format!("{error:#}")),
        }
    };
    progress.finish();
    let summary = Summary::collect(client, session, dir, begun.elapsed()).await?;
    summary.say(say, dir);
    Ok(Some(summary))
}

/// The session that an earlier demo left open in this folder, or a new one.
async fn begin(client: &Client, dir: &Path, say: Say) -> anyhow::Result<String> {
    let open = client.sessions(skein_api::PageQuery::default()).await?;
    if let Some(open) = open.iter().find(|session| session.name == example::NAME && !is_over(&session.state)) {
        say.line(&format!("session      {} was not over: it goes on", open.session));
        return Ok(open.session.clone());
    }
    let path = example::write(&dir.join("example"))?;
    let document = Document::read(&path)?.upload(client).await?;
    client.put_document("threads", example::NAME, &document).await?;
    let request = StartRequest { thread: Some(example::NAME.to_owned()), ..StartRequest::default() };
    let started = client.start(&request).await?;
    let session = client.session(&started.session).await?;
    let (items, nodes) = (session.summary.items.total, session.nodes.len());
    say.line(&format!("session      {}: {nodes} tasks, {items} items: {}", started.session, session.description));
    Ok(started.session)
}

/// Until Ctrl-C.
async fn stay(client: &Client, local: &mut Local, signals: &mut Signals, dir: &Path, say: Say, id: &str) {
    let dir = show::path(dir);
    say.line(&format!("\nThe engine stays at {}; Ctrl-C stops it. From another terminal:", client.url()));
    for command in [format!("session attempts {id}"), format!("why {id}/merge"), "instance list".to_owned()] {
        say.line(&format!("  skein {command} --dir {dir}"));
    }
    loop {
        tokio::select! {
            () = signals.next() => return,
            error = local.lost() => say.line(&format!("{error:#}")),
        }
    }
}
