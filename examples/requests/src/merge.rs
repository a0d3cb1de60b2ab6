//! `merge`: all partial results into one file, after checking them against each other.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};

use crate::numbers::{count, float, index, rounded, thousands};
use crate::records::{self, Band, Bin, Count, Figures, Fleet, LogFigures, Minute, PartFigures, Profile, Record, Split};

/// Arguments of `merge`.
#[derive(Debug, clap::Args)]
pub struct MergeArgs {
    /// Folder of the partial results (all its .json files are taken).
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Partial results.
    pub files: Vec<PathBuf>,
    /// Where to write the figures.
    #[arg(long)]
    pub output: PathBuf,
}

pub(crate) fn run(args: &MergeArgs) -> anyhow::Result<()> {
    let records = records::read_all(args.dir.as_deref(), &args.files)?;
    println!("{} partial results", records.len());
    let figures = merge(records)?;
    for log in &figures.logs {
        println!(
            "{}: {} requests and {} generated tokens in {} parts, all accounted for; {} servers, p99 wait {} s",
            log.log,
            thousands(log.requests),
            thousands(log.generated_tokens),
            log.parts.len(),
            log.fleet.servers,
            log.fleet.chosen.wait_s.p99
        );
    }
    records::write(&args.output, &Record::Figures(figures))
}

/// The partial results of one log as they come in.
#[derive(Default)]
struct Gathered {
    split: Option<Split>,
    fleet: Option<Fleet>,
    counts: BTreeMap<u32, Count>,
    profiles: BTreeMap<u32, Profile>,
    bands: BTreeMap<u32, Band>,
}

/// Sorts the partial results by log, checks each log, and puts the logs together by name.
pub(crate) fn merge(records: Vec<(PathBuf, Record)>) -> anyhow::Result<Figures> {
    let mut logs: BTreeMap<String, Gathered> = BTreeMap::new();
    for (path, record) in records {
        let kind = record.kind();
        ensure!(
            gather(&mut logs, record)?,
            "{} is a second {kind} for the same log and part: give each result once",
            path.display()
        );
    }
    ensure!(
        !logs.is_empty(),
        "there is nothing to merge: give the results of split, count.awk, profile, pick and bootstrap"
    );
    let logs = logs
        .into_iter()
        .map(|(log, gathered)| figures(gathered).with_context(|| format!("the results of `{log}` do not fit together")))
        .collect::<anyhow::Result<_>>()?;
    Ok(Figures { logs })
}

/// Files one result; false if its place is taken.
fn gather(logs: &mut BTreeMap<String, Gathered>, record: Record) -> anyhow::Result<bool> {
    Ok(match record {
        Record::Split(split) => {
            let log = logs.entry(split.log.clone()).or_default();
            log.split.replace(split).is_none()
        }
        Record::Fleet(fleet) => {
            let log = logs.entry(fleet.log.clone()).or_default();
            log.fleet.replace(fleet).is_none()
        }
        Record::Count(count) => {
            let log = logs.entry(count.log.clone()).or_default();
            log.counts.insert(count.part, count).is_none()
        }
        Record::Profile(profile) => {
            let log = logs.entry(profile.log.clone()).or_default();
            log.profiles.insert(profile.part, profile).is_none()
        }
        Record::Band(band) => {
            let log = logs.entry(band.log.clone()).or_default();
            log.bands.insert(band.part, band).is_none()
        }
        Record::Replay(replay) => bail!(
            "share {} of the replays of `{}` is here: give replays to `pick`, and its fleet to `merge`",
            replay.share,
            replay.log
        ),
        // Figures of an earlier merge in the same folder.
        Record::Figures(_) => true,
    })
}

fn figures(gathered: Gathered) -> anyhow::Result<LogFigures> {
    let split = gathered.split.context("the manifest of `split` is missing: give split.json")?;
    let fleet = gathered.fleet.context("the picked fleet is missing: give the file that `pick` wrote")?;
    ensure!(
        fleet.requests == split.requests,
        "the replays had {} requests but the log that was split has {}: one of them read another file",
        fleet.requests,
        split.requests
    );
    let parts = split.parts.iter().map(|window| window.requests).sum::<u64>();
    ensure!(
        parts == split.requests,
        "the parts hold {parts} requests but the log {}: run the split again",
        split.requests
    );
    complete("count", &split, &gathered.counts, |c| c.requests)?;
    complete("profile", &split, &gathered.profiles, |p| p.requests)?;
    complete("band", &split, &gathered.bands, |b| b.requests)?;
    for (part, count) in &gathered.counts {
        let profile = &gathered.profiles[part];
        ensure!(
            count.generated_tokens == profile.generated_tokens.sum
                && count.context_tokens == profile.context_tokens.sum,
            "part {part}: the count has other token sums than the profile: run both items again"
        );
    }
    if let Some(band) = gathered.bands.values().find(|b| b.servers != fleet.servers) {
        bail!(
            "part {}: the band is for {} servers but {} were picked: run the bootstrap after the pick",
            band.part,
            band.servers,
            fleet.servers
        );
    }
    Ok(LogFigures {
        requests: split.requests,
        covered_s: split.covered_s,
        context_tokens: gathered.counts.values().map(|c| c.context_tokens).sum(),
        generated_tokens: gathered.counts.values().map(|c| c.generated_tokens).sum(),
        bins: bins(&gathered.profiles, split.covered_s),
        minutes: minutes(&gathered.bands, split.covered_s)?,
        parts: part_figures(&split, &gathered.profiles, &gathered.bands),
        fleet,
        log: split.log,
        title: split.title,
    })
}

/// Every part has its result, no part has one too many, and each saw all its requests.
fn complete<T>(
    kind: &str,
    split: &Split,
    results: &BTreeMap<u32, T>,
    requests: impl Fn(&T) -> u64,
) -> anyhow::Result<()> {
    for window in &split.parts {
        let part = window.part;
        let result =
            results.get(&part).with_context(|| format!("the {kind} of part {part} is missing: run that item"))?;
        ensure!(
            requests(result) == window.requests,
            "the {kind} of part {part} saw {} requests but the split wrote {}: run that item again",
            requests(result),
            window.requests
        );
    }
    ensure!(
        results.len() == split.parts.len(),
        "there are {} results of kind {kind} for {} parts: results of two splits are mixed",
        results.len(),
        split.parts.len()
    );
    Ok(())
}

/// Adds the parts up and sums them up by 10 s; what runs on after the log is left out.
fn bins(profiles: &BTreeMap<u32, Profile>, covered_s: u64) -> Vec<Bin> {
    let mut busy = vec![0.0; index(covered_s)];
    for profile in profiles.values() {
        let own = busy.iter_mut().skip(index(profile.start_s));
        for (into, servers) in own.zip(&profile.busy) {
            *into += servers;
        }
    }
    // Windows begin on whole minutes, so the 10 s of the parts follow each other.
    let arrivals = profiles.values().flat_map(|p| p.arrivals_10s.iter());
    arrivals
        .zip(busy.chunks(10))
        .map(|(&requests, seconds)| Bin {
            requests,
            busy: rounded(seconds.iter().sum::<f64>() / float(count(seconds.len()))),
            busiest: rounded(seconds.iter().copied().fold(0.0, f64::max)),
        })
        .collect()
}

/// The minutes of all parts, which must be all whole minutes of the log.
fn minutes(bands: &BTreeMap<u32, Band>, covered_s: u64) -> anyhow::Result<Vec<Minute>> {
    let minutes: Vec<Minute> = bands.values().flat_map(|b| b.minutes.clone()).collect();
    let expected = 0..covered_s / 60;
    ensure!(
        expected.eq(minutes.iter().map(|minute| minute.number)),
        "the bands have {} minutes, not each of the {} whole minutes of the log once: run the bootstrap again",
        count(minutes.len()),
        covered_s / 60
    );
    Ok(minutes)
}

fn part_figures(split: &Split, profiles: &BTreeMap<u32, Profile>, bands: &BTreeMap<u32, Band>) -> Vec<PartFigures> {
    split
        .parts
        .iter()
        .map(|window| {
            let (profile, band) = (&profiles[&window.part], &bands[&window.part]);
            PartFigures {
                window: window.clone(),
                context_tokens: profile.context_tokens,
                generated_tokens: profile.generated_tokens,
                waits: band.waits.clone(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pick::tests::point;
    use crate::records::{Interval, Quantiles, Window};

    const ZERO: Interval = Interval { low: 0.0, value: 0.0, high: 0.0 };

    fn quantiles(sum: u64) -> Quantiles {
        Quantiles { sum, p50: 1, p95: 1, max: 1 }
    }

    fn of_part(part: u32) -> [Record; 3] {
        let log = || "x".to_string();
        [
            Record::Count(Count { log: log(), part, requests: 5, context_tokens: 50, generated_tokens: 7 }),
            Record::Profile(Profile {
                log: log(),
                part,
                requests: 5,
                context_tokens: quantiles(50),
                generated_tokens: quantiles(7),
                arrivals_10s: vec![1, 1, 1, 1, 1, 0],
                start_s: u64::from(part) * 60,
                busy: vec![1.5; 65],
            }),
            Record::Band(Band {
                log: log(),
                part,
                requests: 5,
                servers: 3,
                resamples: 20,
                seed: 1,
                minutes: vec![Minute { number: u64::from(part), requests: ZERO, load: ZERO }],
                waits: vec![],
            }),
        ]
    }

    /// Two parts of one minute each, with 5 requests each.
    fn all() -> Vec<Record> {
        let window =
            |part: u32| Window { part, start_s: u64::from(part) * 60, end_s: u64::from(part) * 60 + 60, requests: 5 };
        let mut records = vec![
            Record::Split(Split {
                log: "x".into(),
                title: "X".into(),
                requests: 10,
                covered_s: 120,
                parts: vec![window(0), window(1)],
            }),
            Record::Fleet(Fleet {
                log: "x".into(),
                requests: 10,
                target_p99_wait_s: 1.0,
                servers: 3,
                chosen: point(3, 100, 0.5),
                curve: vec![],
                what_if: vec![],
            }),
        ];
        records.extend(of_part(0));
        records.extend(of_part(1));
        records
    }

    fn merged(records: Vec<Record>) -> anyhow::Result<Figures> {
        let named = records.into_iter().enumerate();
        merge(named.map(|(n, record)| (PathBuf::from(format!("{n}.json")), record)).collect())
    }

    #[test]
    fn complete_results_are_merged_in_any_order() {
        let mut records = all();
        let figures = merged(records.clone()).unwrap();
        records.reverse();
        assert_eq!(merged(records).unwrap(), figures);
        let log = &figures.logs[0];
        assert_eq!((log.requests, log.generated_tokens), (10, 14));
        assert_eq!((log.bins.len(), log.minutes.len()), (12, 2));
        assert_eq!(log.bins.iter().map(|bin| bin.requests).sum::<u64>(), 10);
        // Part 0 runs on into the first 5 seconds of part 1.
        assert!((log.bins[5].busiest - 1.5).abs() < 1e-9);
        assert!((log.bins[6].busiest - 3.0).abs() < 1e-9);
        assert!((log.bins[6].busy - 2.25).abs() < 1e-9);
    }

    #[test]
    fn any_missing_result_is_named() {
        for missing in 0..all().len() {
            let mut records = all();
            let gone = records.remove(missing);
            let error = format!("{:#}", merged(records).unwrap_err());
            assert!(error.contains("missing"), "{}: {error}", gone.kind());
        }
    }

    #[test]
    fn doubles_and_contradictions_are_named() {
        let with = |change: fn(&mut Vec<Record>)| {
            let mut records = all();
            change(&mut records);
            format!("{:#}", merged(records).unwrap_err())
        };
        assert!(with(|r| r.push(r[2].clone())).contains("second count"));
        assert!(with(|r| r.extend(of_part(2))).contains("two splits"));
        let other_count = with(|r| {
            if let Record::Count(count) = &mut r[2] {
                count.requests = 4;
            }
        });
        assert!(other_count.contains("saw 4 requests but the split wrote 5"));
        let other_tokens = with(|r| {
            if let Record::Count(count) = &mut r[2] {
                count.generated_tokens += 1;
            }
        });
        assert!(other_tokens.contains("token sums"));
        let other_fleet = with(|r| {
            if let Record::Fleet(fleet) = &mut r[1] {
                fleet.servers = 4;
            }
        });
        assert!(other_fleet.contains("3 servers but 4"));
        let other_log = with(|r| {
            if let Record::Fleet(fleet) = &mut r[1] {
                fleet.requests = 11;
            }
        });
        assert!(other_log.contains("had 11 requests"));
        assert!(merged(vec![]).is_err());
    }
}
