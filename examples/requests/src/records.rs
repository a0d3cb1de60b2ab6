//! The partial results: JSON files that name their own `kind`, so that `pick` and `merge` can
//! take whatever lies in a folder. Times are seconds, loads are servers.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

/// Any partial result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Record {
    Split(Split),
    Count(Count),
    Profile(Profile),
    Replay(Replay),
    Fleet(Fleet),
    Band(Band),
    Figures(Figures),
}

impl Record {
    /// The kind as written in the file.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Split(_) => "split",
            Self::Count(_) => "count",
            Self::Profile(_) => "profile",
            Self::Replay(_) => "replay",
            Self::Fleet(_) => "fleet",
            Self::Band(_) => "band",
            Self::Figures(_) => "figures",
        }
    }
}

/// What went where when a log was cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Split {
    /// Short name of the log, which all its partial results carry.
    pub(crate) log: String,
    /// Name for people.
    pub(crate) title: String,
    pub(crate) requests: u64,
    /// Whole seconds from the start of the log that hold all its arrivals.
    pub(crate) covered_s: u64,
    pub(crate) parts: Vec<Window>,
}

/// One part: arrivals from `start_s` up to, not including, `end_s`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Window {
    pub(crate) part: u32,
    pub(crate) start_s: u64,
    pub(crate) end_s: u64,
    pub(crate) requests: u64,
}

impl Split {
    /// The window of a part, checked against the rows that arrived with it.
    pub(crate) fn window(&self, part: u32, rows: usize) -> anyhow::Result<&Window> {
        let window = self.parts.iter().find(|window| window.part == part).with_context(|| {
            format!(
                "the split of `{}` has no part {part}, only {} parts from 0: check --part",
                self.log,
                self.parts.len()
            )
        })?;
        ensure!(
            window.requests == crate::numbers::count(rows),
            "part {part} of `{}` has {rows} requests but the split wrote {}: --input is not that part, or was cut short",
            self.log,
            window.requests
        );
        Ok(window)
    }
}

/// The plain counts of a part, written by `count.awk`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Count {
    pub(crate) log: String,
    pub(crate) part: u32,
    pub(crate) requests: u64,
    pub(crate) context_tokens: u64,
    pub(crate) generated_tokens: u64,
}

/// The shape of a part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Profile {
    pub(crate) log: String,
    pub(crate) part: u32,
    pub(crate) requests: u64,
    pub(crate) context_tokens: Quantiles,
    pub(crate) generated_tokens: Quantiles,
    /// Requests that arrived in each 10 s from the start of the window.
    pub(crate) arrivals_10s: Vec<u64>,
    /// Start of the first entry of `busy`, in seconds from the start of the log.
    pub(crate) start_s: u64,
    /// Mean busy servers of each second if every request starts at once. It runs on past the
    /// window while the last requests are being served, so that all parts add up to the log.
    pub(crate) busy: Vec<f64>,
}

/// Quantiles of a whole-number quantity.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    pub(crate) sum: u64,
    pub(crate) p50: u64,
    pub(crate) p95: u64,
    pub(crate) max: u64,
}

/// Part of a grid of replays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Replay {
    pub(crate) log: String,
    pub(crate) requests: u64,
    /// This is share `share` of `shares` of the fleet sizes.
    pub(crate) share: u32,
    pub(crate) shares: u32,
    pub(crate) points: Vec<Point>,
}

/// One replay: a log against one fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) servers: u32,
    /// Speed of a server, in percent of the duration model.
    pub(crate) speed_percent: u32,
    pub(crate) wait_s: Waits,
    /// Requests that did not start at once.
    pub(crate) waited: u64,
    /// Busy time over paid time, 0 to 1.
    pub(crate) utilisation: f64,
    pub(crate) slot_hours: f64,
}

/// Waits between arrival and start, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Waits {
    pub(crate) p50: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

/// The fleet picked for a log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Fleet {
    pub(crate) log: String,
    pub(crate) requests: u64,
    pub(crate) target_p99_wait_s: f64,
    /// The smallest fleet that meets the target at speed 100 %.
    pub(crate) servers: u32,
    pub(crate) chosen: Point,
    /// All sizes at speed 100 %, smallest first.
    pub(crate) curve: Vec<Point>,
    /// The same pick at every replayed speed.
    pub(crate) what_if: Vec<WhatIf>,
}

/// The fleet that would do if servers had another speed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct WhatIf {
    pub(crate) speed_percent: u32,
    /// None: no replayed size meets the target.
    pub(crate) servers: Option<u32>,
}

/// Bootstrap bands of a part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Band {
    pub(crate) log: String,
    pub(crate) part: u32,
    pub(crate) requests: u64,
    /// The picked fleet.
    pub(crate) servers: u32,
    pub(crate) resamples: u32,
    pub(crate) seed: u64,
    /// The whole minutes of the part.
    pub(crate) minutes: Vec<Minute>,
    /// Waits on the picked fleet and on those a few servers smaller and larger.
    pub(crate) waits: Vec<FleetWaits>,
}

/// Waits of a part on a fleet that starts empty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FleetWaits {
    pub(crate) servers: u32,
    pub(crate) p95_wait_s: Interval,
    pub(crate) p99_wait_s: Interval,
}

/// One minute of a log with its bands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Minute {
    /// Counted from the start of the log.
    pub(crate) number: u64,
    /// Requests that arrived.
    pub(crate) requests: Interval,
    /// Offered load in servers: server-seconds that arrived, over 60 s.
    pub(crate) load: Interval,
}

/// What the log has, and its 90 % band.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Interval {
    pub(crate) low: f64,
    pub(crate) value: f64,
    pub(crate) high: f64,
}

/// Everything merged: what the chart draws.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) logs: Vec<LogFigures>,
}

/// All that is known of one log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LogFigures {
    pub(crate) log: String,
    pub(crate) title: String,
    pub(crate) requests: u64,
    pub(crate) covered_s: u64,
    pub(crate) context_tokens: u64,
    pub(crate) generated_tokens: u64,
    pub(crate) fleet: Fleet,
    /// Each 10 s from the start of the log.
    pub(crate) bins: Vec<Bin>,
    /// Whole minutes from the start of the log.
    pub(crate) minutes: Vec<Minute>,
    pub(crate) parts: Vec<PartFigures>,
}

/// Ten seconds of a log.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bin {
    /// Requests that arrived.
    pub(crate) requests: u64,
    /// Mean busy servers if every request starts at once.
    pub(crate) busy: f64,
    /// The same in the busiest of the 10 seconds.
    pub(crate) busiest: f64,
}

/// One part in the merged figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PartFigures {
    pub(crate) window: Window,
    pub(crate) context_tokens: Quantiles,
    pub(crate) generated_tokens: Quantiles,
    pub(crate) waits: Vec<FleetWaits>,
}

/// Reads one partial result.
pub(crate) fn read(path: &Path) -> anyhow::Result<Record> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read {}: check that it is an input of the task", path.display()))?;
    serde_json::from_str(&text).with_context(|| {
        format!("{} is not a partial result of this example: make it again with the task that wrote it", path.display())
    })
}

/// Writes one partial result on one line.
pub(crate) fn write(path: &Path, record: &Record) -> anyhow::Result<()> {
    let mut text = serde_json::to_string(record).context("cannot put the result into JSON")?;
    text.push('\n');
    write_text(path, &text)
}

/// Writes a file, and says which one if that fails.
pub(crate) fn write_text(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text)
        .with_context(|| format!("cannot write {}: check that its folder exists and has room", path.display()))
}

/// Reads the `.json` files of a folder in the order of their names, and the files named.
pub(crate) fn read_all(dir: Option<&Path>, files: &[PathBuf]) -> anyhow::Result<Vec<(PathBuf, Record)>> {
    let mut paths = files.to_vec();
    if let Some(dir) = dir {
        let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.with_context(|| format!("cannot list {}", dir.display()))?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                found.push(path);
            }
        }
        found.sort();
        paths.extend(found);
    }
    ensure!(!paths.is_empty(), "there is no .json file to read: name files, or a folder with --dir");
    paths.into_iter().map(|path| read(&path).map(|record| (path, record))).collect()
}
