//! Live progress: a bar for each node in a terminal, a line for each ended attempt elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use skein_api::{AttemptView, Client, Counts, SessionDetail};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::Say;
use crate::follow::arrays;
use crate::results;
use crate::show;

/// How often the engine is asked.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Shows a session as it goes.
pub(crate) struct Progress {
    client: Client,
    session: String,
    say: Say,
    looks: Interval,
    arrays: Vec<String>,
    seen: BTreeSet<String>,
    bars: Option<Bars>,
}

impl Progress {
    /// Of this session.
    pub(crate) async fn new(client: &Client, session: &str, say: Say) -> anyhow::Result<Self> {
        let view = client.session(session).await?;
        let terminal = std::io::stdout().is_terminal() && std::io::stderr().is_terminal() && !say.json;
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            client: client.clone(),
            session: session.to_owned(),
            say,
            looks,
            arrays: arrays(&view),
            seen: BTreeSet::new(),
            bars: terminal.then(|| Bars::new(&view)).transpose()?,
        })
    }

    /// Looks again and shows what is new. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> anyhow::Result<SessionDetail> {
        self.looks.tick().await;
        let session = self.client.session(&self.session).await?;
        let attempts = results::attempts(&self.client, &self.session).await?;
        match &self.bars {
            Some(bars) => bars.show(&session, &attempts),
            None => self.lines(&session, &attempts),
        }
        Ok(session)
    }

    fn lines(&mut self, session: &SessionDetail, attempts: &[AttemptView]) {
        let mut fresh: Vec<&AttemptView> =
            attempts.iter().filter(|a| a.ended_at.is_some() && !self.seen.contains(&a.attempt)).collect();
        fresh.sort_by_key(|attempt| attempt.ended_at);
        for attempt in fresh {
            self.seen.insert(attempt.attempt.clone());
            let since = attempt.ended_at.unwrap_or_default() - session.summary.created_at;
            let since = show::duration(u64::try_from(since / 1000).unwrap_or_default());
            let item = show::item(&attempt.node, attempt.index, self.arrays.contains(&attempt.node));
            let ending = attempt.ending.as_deref().unwrap_or(&attempt.state);
            let why = show::short_why(attempt);
            let run = show::duration_or_dash(attempt.run_ms);
            self.say
                .line(&format!("{since:>10}  {item:<19} {:<10} {run:>7}  {ending}; why there: {why}", attempt.place));
        }
    }

    /// A line that is not progress.
    pub(crate) fn line(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.all.suspend(|| self.say.line(text)),
            None => self.say.line(text),
        }
    }

    /// Leaves the last state standing.
    pub(crate) fn finish(self) {
        for bar in self.bars.iter().flat_map(|bars| bars.nodes.values().chain([&bars.total])) {
            bar.abandon();
        }
    }
}

struct Bars {
    all: MultiProgress,
    nodes: BTreeMap<String, ProgressBar>,
    total: ProgressBar,
}

impl Bars {
    fn new(session: &SessionDetail) -> anyhow::Result<Self> {
        let all = MultiProgress::new();
        let width = session.nodes.iter().map(|node| node.name.len()).max().unwrap_or_default().max("all".len());
        let style = ProgressStyle::with_template("{prefix} {bar:24} {pos:>3}/{len:<3} {msg}")?.progress_chars("=> ");
        let bar = |name: &str, length: u64| {
            let bar = ProgressBar::new(length).with_style(style.clone()).with_prefix(format!("{name:width$}"));
            all.add(bar)
        };
        let nodes = session.nodes.iter().map(|node| (node.name.clone(), bar(&node.name, node.items.total))).collect();
        let total = bar("all", session.summary.items.total);
        Ok(Self { all, nodes, total })
    }

    fn show(&self, session: &SessionDetail, attempts: &[AttemptView]) {
        for node in &session.nodes {
            let Some(bar) = self.nodes.get(&node.name) else { continue };
            let items = &node.items;
            let places = places(attempts.iter().filter(|attempt| attempt.node == node.name));
            let message = match items.failed + items.lost {
                0 => places,
                failed => format!("{places}, {failed} failed"),
            };
            update(bar, items, message);
        }
        let items = &session.summary.items;
        update(&self.total, items, format!("{} running; {}", items.running, places(attempts.iter())));
    }
}

/// Draws only what changed: a terminal at the end of a slow line is grateful.
fn update(bar: &ProgressBar, items: &Counts, message: String) {
    let ended = items.succeeded + items.failed + items.cancelled + items.lost;
    if bar.position() != ended {
        bar.set_position(ended);
    }
    if bar.message() != message {
        bar.set_message(message);
    }
}

/// `agent-1 3, functions 4`.
fn places<'a>(attempts: impl Iterator<Item = &'a AttemptView>) -> String {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for attempt in attempts {
        *counts.entry(&attempt.place).or_default() += 1;
    }
    counts.iter().map(|(place, count)| format!("{place} {count}")).collect::<Vec<_>>().join(", ")
}
