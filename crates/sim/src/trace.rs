//! Reading a trace: when items arrive, and how long each lasts. CSV, or the standard workload format ([`crate::swf`])
//! where the file's name ends in `.swf`; either may be packed by gzip.

use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::quantiles::us;
use crate::scenario::{ScenarioError, Source};
use crate::swf;

/// Most items of a trace.
pub(crate) const ITEMS_MAX: usize = 10_000_000;

/// One item of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// When it arrives, us from the start.
    pub arrival_us: i64,
    /// How long it lasts once started, us. No rule may look at it before it ended.
    pub lasts_us: i64,
}

/// What a file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// In order of arrival.
    pub items: Vec<Item>,
    /// Lines that are no items, as they never started or it is not known when they came or how long they lasted.
    pub left_out: u64,
}

/// Reads a trace and changes it as the scenario says. Errors name the line.
pub fn read(folder: &Path, source: &Source) -> Result<Trace, ScenarioError> {
    let path = folder.join(&source.trace);
    let failed = |what: String| ScenarioError::Trace { path: path.clone(), what };
    let file = std::fs::File::open(&path).map_err(|error| failed(error.to_string()))?;
    let name = source.trace.to_ascii_lowercase();
    let plain = name.strip_suffix(".gz").unwrap_or(&name);
    let reader: Box<dyn BufRead> = if plain.len() < name.len() {
        Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(file)))
    } else {
        Box::new(BufReader::new(file))
    };
    let standard = Path::new(plain).extension().is_some_and(|e| e == "swf");
    let trace = if standard { swf::read(reader, source) } else { rows(reader, source) }.map_err(failed)?;
    if trace.items.is_empty() {
        return Err(failed("no item is left of it: check 'filter'".to_owned()));
    }
    Ok(Trace { items: changed(trace.items, source.fold_s()?), ..trace })
}

/// CSV with a line of names: `arrival_s`, and what the scenario's `dur` names.
fn rows(reader: impl BufRead, source: &Source) -> Result<Trace, String> {
    let mut rows = csv::Reader::from_reader(reader);
    let header = rows.headers().map_err(|error| error.to_string())?.clone();
    let column = |name: &str| {
        let known = || header.iter().collect::<Vec<_>>().join(", ");
        let at = header.iter().position(|column| column.trim() == name);
        at.ok_or_else(|| format!("it has no column '{name}' (it has {})", known()))
    };
    let (arrival, dur) = (column("arrival_s")?, column(&source.dur)?);
    let filter = source.filter.iter().map(|(name, value)| Ok((column(name)?, value.as_str())));
    let filter = filter.collect::<Result<Vec<_>, String>>()?;
    let mut trace = Trace::default();
    for row in rows.records() {
        let row = row.map_err(|error| error.to_string())?;
        if filter.iter().any(|(at, value)| row.get(*at) != Some(*value)) {
            continue;
        }
        let number = |at: usize| {
            let text = row.get(at).unwrap_or_default();
            let line = row.position().map_or(0, csv::Position::line);
            number(text).ok_or_else(|| format!("line {line}: '{text}' in '{}' is no number", &header[at]))
        };
        trace.items.push(Item { arrival_us: us(number(arrival)?), lasts_us: lasts(source, number(dur)?) });
        bounded(&trace.items)?;
    }
    Ok(trace)
}

/// A number that is one.
pub(crate) fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|value: &f64| value.is_finite())
}

/// How long an item lasts, us, by what is written of it.
pub(crate) fn lasts(source: &Source, written: f64) -> i64 {
    let (base, factor) = source.dur_affine;
    us((base + factor * written).max(source.min_dur))
}

pub(crate) fn bounded(items: &[Item]) -> Result<(), String> {
    if items.len() > ITEMS_MAX { Err(format!("it has more than {ITEMS_MAX} items: split it")) } else { Ok(()) }
}
/// In order of arrival, from 0; or all of it laid over one stretch of time.
fn changed(mut items: Vec<Item>, fold_s: Option<f64>) -> Vec<Item> {
    if let Some(fold) = fold_s.map(us) {
        for item in &mut items {
            item.arrival_us = item.arrival_us.rem_euclid(fold.max(1));
        }
    }
    items.sort_by_key(|item| item.arrival_us);
    let first = items.first().map_or(0, |item| item.arrival_us);
    if fold_s.is_none() {
        for item in &mut items {
            item.arrival_us -= first;
        }
    }
    items
}

/// How many items would be running if none ever waited: the number from each moment on, in order of time.
pub fn concurrency(items: impl Iterator<Item = Item>) -> Vec<(i64, i64)> {
    let mut changes: Vec<(i64, i64)> =
        items.flat_map(|item| [(item.arrival_us, 1), (item.arrival_us + item.lasts_us, -1)]).collect();
    changes.sort_unstable();
    let mut curve: Vec<(i64, i64)> = Vec::new();
    let mut now = 0;
    for (at, change) in changes {
        now += change;
        match curve.last_mut() {
            Some((last, value)) if *last == at => *value = now,
            _ => curve.push((at, now)),
        }
    }
    curve
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_folded_over_a_day_or_start_at_nothing() {
        let item = |arrival_us, lasts_us| Item { arrival_us, lasts_us };
        let day = 86_400 * crate::SECOND_US;
        let items = vec![item(day + 7, 1), item(5, 2)];
        assert_eq!(changed(items.clone(), Some(86_400.0)), [item(5, 2), item(7, 1)]);
        assert_eq!(changed(items, None), [item(0, 2), item(day + 2, 1)]);
    }

    #[test]
    fn concurrency_counts_what_runs_at_once() {
        let item = |arrival_us, lasts_us| Item { arrival_us, lasts_us };
        let curve = concurrency([item(0, 10), item(5, 10), item(10, 1)].into_iter());
        assert_eq!(curve, [(0, 1), (5, 2), (10, 2), (11, 1), (15, 0)]);
    }
}
