//! `profile`: the shape of one part.

use std::path::PathBuf;

use anyhow::bail;

use crate::log::{self, Request};
use crate::numbers::{SECOND, count, index, percentile, seconds};
use crate::records::{self, Profile, Quantiles, Record};

/// Arguments of `profile`.
#[derive(Debug, clap::Args)]
pub struct ProfileArgs {
    /// The part, as `split` wrote it.
    #[arg(long)]
    pub input: PathBuf,
    /// The manifest that `split` wrote.
    #[arg(long)]
    pub split: PathBuf,
    /// Which part it is.
    #[arg(long)]
    pub part: u32,
    /// Where to write the profile.
    #[arg(long)]
    pub output: PathBuf,
}

pub(crate) fn run(args: &ProfileArgs) -> anyhow::Result<()> {
    let requests = log::read(&args.input)?;
    let Record::Split(split) = records::read(&args.split)? else {
        bail!("{} is not a manifest of `split`", args.split.display());
    };
    let window = split.window(args.part, requests.len())?;
    let profile = Profile {
        log: split.log.clone(),
        part: args.part,
        requests: count(requests.len()),
        context_tokens: quantiles(requests.iter().map(|r| r.context_tokens)),
        generated_tokens: quantiles(requests.iter().map(|r| r.generated_tokens)),
        arrivals_10s: arrivals_10s(&requests, window.start_s, window.end_s),
        start_s: window.start_s,
        busy: busy(&requests, window.start_s),
    };
    let busiest = profile.busy.iter().copied().fold(0.0, f64::max);
    println!(
        "{} part {}: {} requests, busiest second keeps {:.1} servers busy, generated tokens p50 {} p95 {} max {}",
        profile.log,
        profile.part,
        profile.requests,
        busiest,
        profile.generated_tokens.p50,
        profile.generated_tokens.p95,
        profile.generated_tokens.max,
    );
    records::write(&args.output, &Record::Profile(profile))
}

fn quantiles(values: impl Iterator<Item = u32>) -> Quantiles {
    let mut values: Vec<u64> = values.map(u64::from).collect();
    Quantiles {
        sum: values.iter().sum(),
        p50: percentile(&mut values, 50),
        p95: percentile(&mut values, 95),
        max: percentile(&mut values, 100),
    }
}

/// Arrivals in each 10 s of the window, which begins on a whole 10 s.
fn arrivals_10s(requests: &[Request], start_s: u64, end_s: u64) -> Vec<u64> {
    let mut bins = vec![0; index((end_s - start_s).div_ceil(10))];
    for request in requests {
        let bin = index((request.arrival_us / SECOND).saturating_sub(start_s) / 10);
        if let Some(bin) = bins.get_mut(bin) {
            *bin += 1;
        }
    }
    bins
}

/// Mean busy servers of each second from `start_s` on, if every request starts at once. The last
/// seconds may lie past the part.
pub(crate) fn busy(requests: &[Request], start_s: u64) -> Vec<f64> {
    let mut busy_us: Vec<u64> = Vec::new();
    for request in requests {
        let end = request.arrival_us + request.service_us();
        let last = index((end / SECOND).saturating_sub(start_s));
        if busy_us.len() <= last {
            busy_us.resize(last + 1, 0);
        }
        let mut from = request.arrival_us;
        while from < end {
            let until = end.min((from / SECOND + 1) * SECOND);
            busy_us[index((from / SECOND).saturating_sub(start_s))] += until - from;
            from = until;
        }
    }
    busy_us.into_iter().map(seconds).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tests::request;
    use crate::split::cut;

    #[test]
    fn busy_time_falls_where_it_is_spent() {
        // 0.1 + 0.03 x 30 = 1 s, from 8.75 s to 9.75 s.
        let busy = busy(&[request(8_750, 30)], 8);
        assert_eq!(busy, [0.25, 0.75]);
    }

    #[test]
    fn every_arrival_is_in_one_bin() {
        let requests = [request(60_000, 1), request(69_999, 1), request(70_000, 1)];
        assert_eq!(arrivals_10s(&requests, 60, 85), [2, 1, 0]);
    }

    #[test]
    fn the_seconds_of_all_parts_add_up_to_those_of_the_log() {
        let requests: Vec<_> = (0..900).map(|n| request(n * 631, u32::try_from(n % 400).unwrap())).collect();
        let whole = busy(&requests, 0);
        let mut sum = vec![0.0; whole.len()];
        let mut begin = 0;
        for window in cut(&requests, 5) {
            let end = begin + index(window.requests);
            let part = busy(&requests[begin..end], window.start_s);
            for (offset, servers) in part.iter().enumerate() {
                sum[index(window.start_s) + offset] += servers;
            }
            begin = end;
        }
        assert!(whole.iter().zip(&sum).all(|(a, b)| (a - b).abs() < 0.01));
    }
}
