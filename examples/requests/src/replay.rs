//! `replay`: the log against a grid of fleet sizes and server speeds. This is the long
//! computation of the thread, so it is shared out over the items of an array.

use std::path::PathBuf;

use anyhow::ensure;

use crate::args::{Share, Span};
use crate::log::{self, Request};
use crate::numbers::{count, rounded, seconds};
use crate::queue::{Demand, Queue};
use crate::records::{self, Point, Record, Replay, Waits};

/// Arguments of `replay`.
#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    /// The request log or a part of it, plain or gzipped CSV.
    #[arg(long)]
    pub input: PathBuf,
    /// Short name of the log.
    #[arg(long)]
    pub log: String,
    /// Fleet sizes in servers, A..B with both ends.
    #[arg(long)]
    pub fleets: Span,
    /// Server speeds in percent of the duration model, A..B with both ends.
    #[arg(long, default_value = "100..100")]
    pub speeds: Span,
    /// Step between speeds, in percent points.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub speed_step: u32,
    /// Which share of the fleet sizes to do, K/N: item K of an array of N.
    #[arg(long, default_value = "0/1")]
    pub share: Share,
    /// Where to write the results.
    #[arg(long)]
    pub output: PathBuf,
}

pub(crate) fn run(args: &ReplayArgs) -> anyhow::Result<()> {
    let requests = log::read(&args.input)?;
    ensure!(!requests.is_empty(), "{} has no request to replay: check --input", args.input.display());
    let points = grid(&requests, args);
    println!(
        "{}: {} replays of {} requests ({} fleet sizes out of {}..{}, speeds {}..{} %)",
        args.log,
        points.len(),
        requests.len(),
        args.share.of(args.fleets).count(),
        args.fleets.first,
        args.fleets.last,
        args.speeds.first,
        args.speeds.last,
    );
    if let Some(point) = points.iter().rfind(|point| point.speed_percent == 100) {
        println!(
            "at speed 100 %, {} servers: p99 wait {} s, {:.0} % busy",
            point.servers,
            point.wait_s.p99,
            point.utilisation * 100.0
        );
    }
    let replay = Replay {
        log: args.log.clone(),
        requests: count(requests.len()),
        share: args.share.index,
        shares: args.share.of,
        points,
    };
    records::write(&args.output, &Record::Replay(replay))
}

/// Every fleet size of the share at every speed.
fn grid(requests: &[Request], args: &ReplayArgs) -> Vec<Point> {
    let mut queue = Queue::default();
    let mut points = Vec::new();
    for speed in (args.speeds.first..=args.speeds.last).step_by(args.speed_step as usize) {
        let demands = demands(requests, speed);
        for servers in args.share.of(args.fleets) {
            queue.replay(&demands, servers);
            points.push(point(&mut queue, servers, speed));
        }
    }
    points
}

/// What the requests ask of servers of a speed (in percent; service rounded to the microsecond).
pub(crate) fn demands(requests: &[Request], speed_percent: u32) -> Vec<Demand> {
    let speed = u64::from(speed_percent.max(1));
    requests
        .iter()
        .map(|request| {
            let service = (request.service_us() * 100 + speed / 2) / speed;
            (request.arrival_us, service)
        })
        .collect()
}

fn point(queue: &mut Queue, servers: u32, speed_percent: u32) -> Point {
    Point {
        servers,
        speed_percent,
        wait_s: Waits {
            p50: seconds(queue.wait_us(50)),
            p95: seconds(queue.wait_us(95)),
            p99: seconds(queue.wait_us(99)),
            max: seconds(queue.wait_us(100)),
        },
        waited: queue.waited(),
        utilisation: rounded(queue.utilisation()),
        slot_hours: rounded(queue.slot_hours()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tests::request;

    #[test]
    fn speed_divides_the_service_time() {
        let requests = [request(5, 30)]; // 1.0 s
        assert_eq!(demands(&requests, 100), [(5_000, 1_000_000)]);
        assert_eq!(demands(&requests, 200), [(5_000, 500_000)]);
        assert_eq!(demands(&requests, 30), [(5_000, 3_333_333)]);
    }

    #[test]
    fn a_grid_has_every_point_of_its_share() {
        let args = ReplayArgs {
            input: PathBuf::new(),
            log: "x".into(),
            fleets: "1..5".parse().unwrap(),
            speeds: "50..100".parse().unwrap(),
            speed_step: 25,
            share: "1/2".parse().unwrap(),
            output: PathBuf::new(),
        };
        let points = grid(&[request(0, 30), request(0, 30), request(0, 30)], &args);
        let keys: Vec<_> = points.iter().map(|p| (p.speed_percent, p.servers)).collect();
        assert_eq!(keys, [(50, 2), (50, 4), (75, 2), (75, 4), (100, 2), (100, 4)]);
        // Three services of 2 s at once on two servers of speed 50 %: the third waits 2 s.
        assert!((points[0].wait_s.max - 2.0).abs() < 1e-9);
        assert!(points[1].wait_s.max.abs() < 1e-9);
    }
}
