//! `pick`: the smallest fleet that keeps the p99 wait under the target, from all replays of a log.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};

use crate::records::{self, Fleet, Point, Record, Replay, WhatIf};

/// Arguments of `pick`.
#[derive(Debug, clap::Args)]
pub struct PickArgs {
    /// Folder of the replays; other results in it are left alone.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Replay files.
    pub files: Vec<PathBuf>,
    /// The p99 wait must stay under this many seconds.
    #[arg(long, default_value_t = 1.0)]
    pub target_s: f64,
    /// Where to write the picked fleet.
    #[arg(long)]
    pub output: PathBuf,
}

pub(crate) fn run(args: &PickArgs) -> anyhow::Result<()> {
    ensure!(args.target_s > 0.0, "--target-s must be a number of seconds above 0");
    let replays = records::read_all(args.dir.as_deref(), &args.files)?
        .into_iter()
        .filter_map(|(_, record)| match record {
            Record::Replay(replay) => Some(replay),
            _ => None,
        })
        .collect();
    let fleet = pick(replays, args.target_s)?;
    println!(
        "{}: {} servers are the fewest with a p99 wait under {} s (p99 {} s, {:.0} % busy, {:.1} slot-hours)",
        fleet.log,
        fleet.servers,
        fleet.target_p99_wait_s,
        fleet.chosen.wait_s.p99,
        fleet.chosen.utilisation * 100.0,
        fleet.chosen.slot_hours,
    );
    records::write(&args.output, &Record::Fleet(fleet))
}

/// Checks that the replays are all shares of one log, then picks.
pub(crate) fn pick(replays: Vec<Replay>, target_s: f64) -> anyhow::Result<Fleet> {
    let first = replays.first().context("there is no replay to pick from: give the files that `replay` wrote")?;
    let (log, requests, shares) = (first.log.clone(), first.requests, first.shares);
    let mut missing: BTreeSet<u32> = (0..shares).collect();
    let mut speeds: BTreeMap<u32, BTreeMap<u32, Point>> = BTreeMap::new();
    for replay in replays {
        ensure!(
            replay.log == log && replay.requests == requests && replay.shares == shares,
            "replay share {} is of `{}` with {} requests in {} shares, others are of `{log}` with {requests} in {shares}: pick one log at a time",
            replay.share,
            replay.log,
            replay.requests,
            replay.shares,
        );
        ensure!(
            missing.remove(&replay.share),
            "share {} of the replays of `{log}` is there twice: give each file once",
            replay.share
        );
        for point in replay.points {
            speeds.entry(point.speed_percent).or_default().insert(point.servers, point);
        }
    }
    ensure!(
        missing.is_empty(),
        "shares {missing:?} of the {shares} replays of `{log}` are missing: run these items of the replay task"
    );
    let Some(curve) = speeds.get(&100) else {
        bail!("no replay of `{log}` has speed 100 %: choose --speeds and --speed-step that hit it");
    };
    let chosen = smallest(curve, target_s).with_context(|| {
        format!("no replayed fleet keeps the p99 wait of `{log}` under {target_s} s: raise the end of --fleets")
    })?;
    Ok(Fleet {
        requests,
        target_p99_wait_s: target_s,
        servers: chosen.servers,
        chosen: chosen.clone(),
        curve: curve.values().cloned().collect(),
        what_if: speeds
            .iter()
            .map(|(&speed_percent, points)| WhatIf {
                speed_percent,
                servers: smallest(points, target_s).map(|point| point.servers),
            })
            .collect(),
        log,
    })
}

fn smallest(points: &BTreeMap<u32, Point>, target_s: f64) -> Option<&Point> {
    points.values().find(|point| point.wait_s.p99 < target_s)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::records::Waits;

    pub(crate) fn point(servers: u32, speed_percent: u32, p99: f64) -> Point {
        Point {
            servers,
            speed_percent,
            wait_s: Waits { p50: 0.0, p95: 0.0, p99, max: p99 },
            waited: 0,
            utilisation: 0.5,
            slot_hours: 1.0,
        }
    }

    fn replay(share: u32, points: Vec<Point>) -> Replay {
        Replay { log: "x".into(), requests: 9, share, shares: 2, points }
    }

    fn both() -> Vec<Replay> {
        vec![
            replay(1, vec![point(2, 100, 1.0), point(4, 100, 0.0)]),
            replay(0, vec![point(1, 50, 9.0), point(1, 100, 5.0), point(3, 100, 0.9)]),
        ]
    }

    #[test]
    fn the_smallest_fleet_strictly_under_the_target_wins() {
        let fleet = pick(both(), 1.0).unwrap();
        assert_eq!(fleet.servers, 3);
        assert_eq!(fleet.curve.iter().map(|p| p.servers).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(fleet.what_if[0].servers, None);
        assert_eq!(fleet.what_if[1].servers, Some(3));
    }

    #[test]
    fn missing_double_and_foreign_replays_are_named() {
        let error = |replays| pick(replays, 1.0).unwrap_err().to_string();
        assert!(error(vec![]).contains("no replay"));
        assert!(error(both().split_off(1)).contains("{1}"));
        assert!(error([both(), both()].concat()).contains("twice"));
        let mut foreign = both();
        foreign[1].requests = 8;
        assert!(error(foreign).contains("with 8 requests"));
        let slow = vec![replay(0, vec![point(1, 100, 5.0)]), replay(1, vec![point(2, 100, 4.0)])];
        assert!(error(slow).contains("raise the end of --fleets"));
    }
}
