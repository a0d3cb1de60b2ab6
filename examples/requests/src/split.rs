//! `split`: cut a log by time into equal windows of whole minutes.

use std::path::{Path, PathBuf};

use anyhow::ensure;

use crate::log::{self, Request};
use crate::numbers::{SECOND, count, seconds};
use crate::records::{self, Record, Split, Window};

/// Arguments of `split`.
#[derive(Debug, clap::Args)]
pub struct SplitArgs {
    /// The request log, plain or gzipped CSV.
    #[arg(long)]
    pub input: PathBuf,
    /// Short name of the log; all its results carry it.
    #[arg(long)]
    pub log: String,
    /// Name for people, as on the chart (the short name if not given).
    #[arg(long)]
    pub title: Option<String>,
    /// How many parts. Windows are rounded up to whole minutes; the last ones may be shorter.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub parts: u32,
    /// Parts are written to <prefix>0.csv, <prefix>1.csv and so on.
    #[arg(long, default_value = "part-")]
    pub prefix: String,
    /// Where to write the manifest.
    #[arg(long, default_value = "split.json")]
    pub manifest: PathBuf,
}

pub(crate) fn run(args: &SplitArgs) -> anyhow::Result<()> {
    let requests = log::read(&args.input)?;
    ensure!(!requests.is_empty(), "{} has a header but no request: there is nothing to split", args.input.display());
    let cuts = cut(&requests, args.parts);
    let mut rest = requests.as_slice();
    let mut windows = Vec::new();
    for window in cuts {
        let (rows, after) = rest.split_at(rest.len().min(crate::numbers::index(window.requests)));
        rest = after;
        let path = format!("{}{}.csv", args.prefix, window.part);
        records::write_text(Path::new(&path), &log::to_csv(rows))?;
        println!("{path}: {} requests, {} to {} s", window.requests, window.start_s, window.end_s);
        windows.push(window);
    }
    let split = Split {
        log: args.log.clone(),
        title: args.title.clone().unwrap_or_else(|| args.log.clone()),
        requests: count(requests.len()),
        covered_s: covered_s(&requests),
        parts: windows,
    };
    println!(
        "{}: {} requests over {:.0} s in {} parts",
        split.log,
        split.requests,
        seconds(split.covered_s * SECOND),
        split.parts.len()
    );
    records::write(&args.manifest, &Record::Split(split))
}

/// Whole seconds from the start that hold all arrivals.
fn covered_s(requests: &[Request]) -> u64 {
    requests.last().map_or(0, |last| last.arrival_us / SECOND + 1)
}

/// The windows of `parts` parts and how many requests fall into each.
pub(crate) fn cut(requests: &[Request], parts: u32) -> Vec<Window> {
    let covered = covered_s(requests);
    let width = covered.div_ceil(u64::from(parts)).div_ceil(60) * 60;
    let mut begin = 0;
    (0..parts)
        .map(|part| {
            let start_s = (u64::from(part) * width).min(covered);
            let end_s = (start_s + width).min(covered);
            let end = requests.partition_point(|request| request.arrival_us < end_s * SECOND);
            let window = Window { part, start_s, end_s, requests: count(end - begin) };
            begin = end;
            window
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tests::request;

    #[test]
    fn windows_are_whole_minutes_and_lose_no_request() {
        for length in [1_u64, 2, 59, 60, 61, 500, 1801] {
            let requests: Vec<_> = (0..length).map(|s| request(s * 1_000 + 7, 1)).collect();
            for parts in [1, 2, 3, 7, 12, 40] {
                let windows = cut(&requests, parts);
                assert_eq!(windows.len(), parts as usize);
                assert_eq!(windows.iter().map(|w| w.requests).sum::<u64>(), length);
                assert!(windows.iter().all(|w| w.start_s.is_multiple_of(60) || w.start_s == length));
                assert!(windows.windows(2).all(|w| w[0].end_s == w[1].start_s));
            }
        }
    }

    #[test]
    fn a_request_on_the_edge_opens_the_next_part() {
        let requests = [request(0, 1), request(60_000, 1), request(119_999, 1)];
        let windows = cut(&requests, 2);
        assert_eq!((windows[0].requests, windows[1].requests), (1, 2));
    }
}
