//! `bootstrap`: 90 % bands for one part.
//!
//! Requests come in bursts, so single requests must not be resampled on their own: both bands come
//! from a circular block bootstrap. For the load of a minute, blocks of 5 s are drawn from the
//! seconds of that minute. For the waits, blocks of 10 s are drawn from the whole part, laid end to
//! end, and replayed against the picked fleet and its neighbours, which start empty.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use anyhow::{bail, ensure};

use crate::log::{self, Request};
use crate::numbers::{MINUTE, SECOND, count, float, index, percentile, rounded};
use crate::queue::{Demand, Queue};
use crate::random::Random;
use crate::records::{self, Band, FleetWaits, Interval, Minute, Record, Window};
use crate::replay::demands;

/// Seconds of a block when a minute is resampled; divides 60.
const LOAD_BLOCK_S: u32 = 5;
/// Seconds of a block when a part is resampled.
const WAIT_BLOCK_S: u32 = 10;

/// Arguments of `bootstrap`.
#[derive(Debug, clap::Args)]
pub struct BootstrapArgs {
    /// The part, as `split` wrote it.
    #[arg(long)]
    pub input: PathBuf,
    /// The manifest that `split` wrote.
    #[arg(long)]
    pub split: PathBuf,
    /// Which part it is.
    #[arg(long)]
    pub part: u32,
    /// The fleet that `pick` wrote.
    #[arg(long)]
    pub fleet: PathBuf,
    /// Also do the waits of fleets of up to this many servers fewer and more than the picked one.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub around: u32,
    /// How many resamples.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(20..=1_000_000))]
    pub resamples: u32,
    /// Seed of the draws; the part is mixed in.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Where to write the bands.
    #[arg(long)]
    pub output: PathBuf,
}

pub(crate) fn run(args: &BootstrapArgs) -> anyhow::Result<()> {
    let requests = log::read(&args.input)?;
    let Record::Split(split) = records::read(&args.split)? else {
        bail!("{} is not a manifest of `split`", args.split.display());
    };
    let Record::Fleet(fleet) = records::read(&args.fleet)? else {
        bail!("{} is not a fleet that `pick` wrote", args.fleet.display());
    };
    ensure!(
        fleet.log == split.log,
        "the fleet is of `{}` and the split of `{}`: give files of one log",
        fleet.log,
        split.log
    );
    let window = split.window(args.part, requests.len())?;
    let mut draws = Random::new(args.seed, u64::from(args.part));
    let part = Part::new(&requests, window);
    let minutes = part.minutes(args.resamples, &mut draws);
    let fleets = fleet.servers.saturating_sub(args.around).max(1)..=fleet.servers + args.around;
    let waits = part.waits(fleets, args.resamples, &mut draws);
    println!(
        "{} part {}: {} resamples of {} requests, {} servers picked",
        split.log,
        args.part,
        args.resamples,
        requests.len(),
        fleet.servers
    );
    for wait in &waits {
        println!(
            "{} servers: p99 wait {} s, 90 % band {} to {} s",
            wait.servers, wait.p99_wait_s.value, wait.p99_wait_s.low, wait.p99_wait_s.high
        );
    }
    let band = Band {
        log: split.log,
        part: args.part,
        requests: count(requests.len()),
        servers: fleet.servers,
        resamples: args.resamples,
        seed: args.seed,
        minutes,
        waits,
    };
    records::write(&args.output, &Record::Band(band))
}

/// The requests of a part, by second.
struct Part {
    /// Sorted by arrival; arrivals are from the start of the part.
    demands: Vec<Demand>,
    /// `starts[s]..starts[s + 1]` are the demands that arrive in second `s`.
    starts: Vec<usize>,
    first_minute: u64,
}

impl Part {
    fn new(requests: &[Request], window: &Window) -> Self {
        let offset = window.start_s * SECOND;
        let demands: Vec<Demand> = demands(requests, 100)
            .into_iter()
            .map(|(arrival, service)| (arrival.saturating_sub(offset), service))
            .collect();
        let starts = (0..=window.end_s - window.start_s)
            .map(|second| demands.partition_point(|(arrival, _)| *arrival < second * SECOND))
            .collect();
        Self { demands, starts, first_minute: window.start_s / 60 }
    }

    fn seconds(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// The whole minutes of the part with their bands.
    fn minutes(&self, resamples: u32, draws: &mut Random) -> Vec<Minute> {
        (0..self.seconds() / 60)
            .map(|minute| {
                let counts: Vec<u64> = (0..60).map(|s| count(self.second(minute * 60 + s).len())).collect();
                let work: Vec<u64> = (0..60).map(|s| self.second(minute * 60 + s).iter().map(|d| d.1).sum()).collect();
                let (mut request_sums, mut work_sums) = (Vec::new(), Vec::new());
                for _ in 0..resamples {
                    let (requests, busy) = resampled_sums(&counts, &work, draws);
                    request_sums.push(requests);
                    work_sums.push(busy);
                }
                Minute {
                    number: self.first_minute + count(minute),
                    requests: interval(counts.iter().sum(), &mut request_sums, 1),
                    load: interval(work.iter().sum(), &mut work_sums, MINUTE),
                }
            })
            .collect()
    }

    /// The p95 and p99 waits of the part on each fleet, which starts empty, with their bands. All
    /// fleets see the same resamples, so that their bands can be compared.
    fn waits(&self, fleets: RangeInclusive<u32>, resamples: u32, draws: &mut Random) -> Vec<FleetWaits> {
        let mut queue = Queue::default();
        let mut samples: Vec<(u32, Vec<u64>, Vec<u64>)> =
            fleets.map(|servers| (servers, Vec::new(), Vec::new())).collect();
        let mut resample = Vec::new();
        for _ in 0..resamples {
            self.resample(draws, &mut resample);
            for (servers, p95, p99) in &mut samples {
                queue.replay(&resample, *servers);
                p95.push(queue.wait_us(95));
                p99.push(queue.wait_us(99));
            }
        }
        samples
            .into_iter()
            .map(|(servers, mut p95, mut p99)| {
                queue.replay(&self.demands, servers);
                FleetWaits {
                    servers,
                    p95_wait_s: interval(queue.wait_us(95), &mut p95, SECOND),
                    p99_wait_s: interval(queue.wait_us(99), &mut p99, SECOND),
                }
            })
            .collect()
    }

    fn second(&self, second: usize) -> &[Demand] {
        &self.demands[self.starts[second]..self.starts[second + 1]]
    }

    /// One resample of the part: blocks drawn with replacement, wrapping round at its end.
    fn resample(&self, draws: &mut Random, out: &mut Vec<Demand>) {
        out.clear();
        let Ok(seconds) = u32::try_from(self.seconds()) else {
            return;
        };
        let mut now = 0;
        while now < seconds {
            let source = draws.below(seconds);
            for step in 0..WAIT_BLOCK_S.min(seconds - now) {
                let from = (source + step) % seconds;
                let (to_us, from_us) = (u64::from(now + step) * SECOND, u64::from(from) * SECOND);
                let second = self.second(from as usize);
                out.extend(second.iter().map(|(arrival, service)| (arrival - from_us + to_us, *service)));
            }
            now += WAIT_BLOCK_S;
        }
    }
}

/// Requests and work of one resample of a minute.
fn resampled_sums(counts: &[u64], work: &[u64], draws: &mut Random) -> (u64, u64) {
    let (mut requests, mut busy) = (0, 0);
    for _ in 0..60 / LOAD_BLOCK_S {
        let source = draws.below(60);
        for step in 0..LOAD_BLOCK_S {
            let second = index(u64::from((source + step) % 60));
            requests += counts[second];
            busy += work[second];
        }
    }
    (requests, busy)
}

/// The value seen and the 5th and 95th percentile of the sample, all in `unit`s.
fn interval(seen: u64, sample: &mut [u64], unit: u64) -> Interval {
    let scaled = |value: u64| rounded(float(value) / float(unit));
    Interval { low: scaled(percentile(sample, 5)), value: scaled(seen), high: scaled(percentile(sample, 95)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tests::request;

    fn part() -> (Vec<Request>, Window) {
        // Minute 5 has a request each second, minute 6 has two, then 30 s with a burst of 40.
        let mut requests: Vec<_> = (0..60).map(|s| request(300_000 + s * 1000, 30)).collect();
        requests.extend((0..120).map(|n| request(360_000 + n * 500, 30)));
        requests.extend((0..40).map(|n| request(425_000 + n, 30)));
        let window = Window { part: 1, start_s: 300, end_s: 450, requests: 220 };
        (requests, window)
    }

    #[test]
    fn an_even_minute_has_no_spread_and_partial_minutes_are_left_out() {
        let (requests, window) = part();
        let minutes = Part::new(&requests, &window).minutes(200, &mut Random::new(1, 1));
        assert_eq!(minutes.len(), 2);
        assert_eq!((minutes[0].number, minutes[1].number), (5, 6));
        let (requests, load) = (minutes[0].requests, minutes[1].load);
        assert!((requests.low - 60.0).abs() < 1e-9 && (requests.high - 60.0).abs() < 1e-9);
        assert!((load.value - 2.0).abs() < 1e-9 && (load.high - 2.0).abs() < 1e-9);
    }

    #[test]
    fn resamples_are_sorted_and_inside_the_part() {
        let (requests, window) = part();
        let part = Part::new(&requests, &window);
        let mut draws = Random::new(3, 1);
        let mut out = Vec::new();
        for _ in 0..200 {
            part.resample(&mut draws, &mut out);
            assert!(out.is_sorted_by_key(|d| d.0));
            assert!(out.last().is_none_or(|d| d.0 < 150 * SECOND));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bands() {
        let (requests, window) = part();
        let part = Part::new(&requests, &window);
        let bands = |seed| part.waits(2..=4, 300, &mut Random::new(seed, 1));
        assert_eq!(bands(7), bands(7));
        assert_ne!(bands(7), bands(8));
        let waits = bands(7);
        assert_eq!(waits.iter().map(|w| w.servers).collect::<Vec<_>>(), [2, 3, 4]);
        let (p95, p99) = (waits[1].p95_wait_s, waits[1].p99_wait_s);
        assert!(p95.low <= p95.high && p95.value <= p99.value);
        assert!(p99.low < p99.high, "the burst is drawn 0, 1 or more times");
        assert!(waits.is_sorted_by(|a, b| a.p99_wait_s.high >= b.p99_wait_s.high));
    }

    #[test]
    fn an_empty_part_has_zero_bands() {
        let window = Window { part: 0, start_s: 0, end_s: 60, requests: 0 };
        let part = Part::new(&[], &window);
        let minutes = part.minutes(20, &mut Random::new(1, 0));
        assert!(minutes[0].requests.high.abs() < f64::EPSILON);
        let waits = part.waits(2..=2, 20, &mut Random::new(1, 0));
        assert!(waits[0].p99_wait_s.high.abs() < f64::EPSILON);
    }
}
