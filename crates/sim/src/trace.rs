//! Reading a trace: when items arrive, and how long each lasts.

use std::collections::BTreeMap;
use std::path::Path;

use crate::quantiles::us;
use crate::scenario::{ScenarioError, Source};

/// Most items of a trace.
const ITEMS_MAX: usize = 10_000_000;

/// One item of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// When it arrives, us from the start.
    pub arrival_us: i64,
    /// How long it lasts once started, us. No rule may look at it before it ended.
    pub lasts_us: i64,
}

/// Reads a trace from a CSV file, packed by gzip or not, and changes it as the scenario says.
pub fn read(folder: &Path, source: &Source) -> Result<Vec<Item>, ScenarioError> {
    let path = folder.join(&source.trace);
    let failed = |what: String| ScenarioError::Trace { path: path.clone(), what };
    let file = std::fs::File::open(&path).map_err(|error| failed(error.to_string()))?;
    let packed = path.extension().is_some_and(|e| e == "gz");
    let reader: Box<dyn std::io::Read> =
        if packed { Box::new(flate2::read::MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut rows = csv::Reader::from_reader(std::io::BufReader::new(reader));
    let mut items: Vec<Item> = Vec::new();
    for row in rows.deserialize::<BTreeMap<String, String>>() {
        let row = row.map_err(|error| failed(error.to_string()))?;
        if source.filter.iter().any(|(column, value)| row.get(column) != Some(value)) {
            continue;
        }
        let number = |column: &str| -> Result<f64, ScenarioError> {
            let text = row.get(column).ok_or_else(|| failed(format!("it has no column '{column}'")))?;
            let value: f64 = text.trim().parse().map_err(|_| failed(format!("'{text}' in '{column}' is no number")))?;
            if value.is_finite() { Ok(value) } else { Err(failed(format!("'{text}' in '{column}' is no number"))) }
        };
        let (base, factor) = source.dur_affine;
        let lasts = (base + factor * number(&source.dur)?).max(source.min_dur);
        items.push(Item { arrival_us: us(number("arrival_s")?), lasts_us: us(lasts) });
        if items.len() > ITEMS_MAX {
            return Err(failed(format!("it has more than {ITEMS_MAX} rows: split it")));
        }
    }
    if items.is_empty() {
        return Err(failed("no row is left of it: check 'filter'".to_owned()));
    }
    Ok(changed(items, source.fold_s()?))
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
