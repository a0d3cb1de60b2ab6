//! The standard workload format: how logs of large parallel machines are written and archived.
//!
//! Chapin, Cirne, Feitelson, Jones, Leutenegger, Schwiegelshohn, Smith and Talby, *Benchmarks and Standards for the
//! Evaluation of Parallel Job Schedulers*, 1999; the Parallel Workloads Archive keeps the definition. A line is an
//! entry of 18 numbers with blanks between them ([`FIELDS`]), or begins with `;` and is a remark. -1 is "not known".
//! An entry is one item for every processor it was given (asked for, where that is not known; else one), since an
//! item takes one slot here. What never ran, or is not known to have, is left out and counted.

use std::io::BufRead;

use crate::quantiles::us;
use crate::scenario::Source;
use crate::trace::{Item, Trace, bounded, lasts, number};

/// Fields of a line, by the names that a scenario's `dur` and `filter` may use.
pub(crate) const FIELDS: [&str; 18] = [
    "number",
    "submit_s",
    "wait_s",
    "run_s",
    "processors",
    "cpu_s",
    "memory_kb",
    "processors_asked",
    "time_asked_s",
    "memory_asked_kb",
    "status",
    "user",
    "group",
    "application",
    "queue",
    "partition",
    "preceding",
    "think_s",
];

const SUBMIT: usize = 1;
const RUN: usize = 3;
const PROCESSORS: usize = 4;
const PROCESSORS_ASKED: usize = 7;
const STATUS: usize = 10;
/// It was cancelled; where it also did not run, it never started.
const CANCELLED: f64 = 5.0;
/// Statuses of lines that tell a part of an entry (it was swapped out): the entry has a line for all of it.
const PARTS: std::ops::RangeInclusive<f64> = 2.0..=4.0;
/// Fields that a line must have; those after it may be missing at its end, and are then not known.
const FIELDS_MIN: usize = 5;
/// Most processors of one entry.
const PROCESSORS_MAX: f64 = 1_000_000.0;

/// Reads it. Errors name the line.
pub(crate) fn read(reader: impl BufRead, source: &Source) -> Result<Trace, String> {
    let field = |name: &str| {
        let at = FIELDS.iter().position(|field| *field == name);
        at.ok_or_else(|| format!("the format has no field '{name}' (it has {})", FIELDS.join(", ")))
    };
    let dur = if source.dur.is_empty() { RUN } else { field(&source.dur)? };
    let filter = source.filter.iter().map(|(name, value)| Ok((field(name)?, value.as_str())));
    let filter = filter.collect::<Result<Vec<_>, String>>()?;
    let mut trace = Trace::default();
    for (line, at) in reader.lines().zip(1_u64..) {
        let wrong = |why: String| format!("line {at}: {why}");
        let line = line.map_err(|error| wrong(error.to_string()))?;
        let text = line.trim();
        if text.is_empty() || text.starts_with(';') {
            continue;
        }
        let written: Vec<&str> = text.split_ascii_whitespace().collect();
        if !(FIELDS_MIN..=FIELDS.len()).contains(&written.len()) {
            return Err(wrong(format!("it has {} fields where the format has {}", written.len(), FIELDS.len())));
        }
        if filter.iter().any(|(field, value)| written.get(*field) != Some(value)) {
            continue;
        }
        let value = |field: usize| {
            let Some(text) = written.get(field) else { return Ok(-1.0) };
            number(text).ok_or_else(|| wrong(format!("'{text}' in '{}' is no number", FIELDS[field])))
        };
        let (submit, run, written) = (value(SUBMIT)?, value(RUN)?, value(dur)?);
        let (given, asked) = (value(PROCESSORS)?, value(PROCESSORS_ASKED)?);
        let status = value(STATUS)?;
        if PARTS.contains(&status) {
            continue;
        }
        let never_ran = run < 0.0 || (run == 0.0 && status == CANCELLED);
        if submit < 0.0 || written < 0.0 || never_ran {
            trace.left_out += 1;
            continue;
        }
        let mut processors = [given, asked, 1.0].into_iter().find(|count| *count >= 1.0).unwrap_or(1.0);
        if processors > PROCESSORS_MAX {
            return Err(wrong(format!("{processors} processors: an entry has at most {PROCESSORS_MAX}")));
        }
        let item = Item { arrival_us: us(submit), lasts_us: lasts(source, written) };
        while processors >= 1.0 {
            trace.items.push(item);
            processors -= 1.0;
        }
        bounded(&trace.items).map_err(wrong)?;
    }
    Ok(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(json: &str) -> Source {
        let mut all =
            serde_json::json!({"trace": "t.swf", "vm": "m", "serverless": "s", "slo_wait_s": 1, "loose_slo_s": 1});
        let more: serde_json::Value = serde_json::from_str(json).unwrap();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    const LOG: &str = "; Version: 2.2\n;\n  1 0 5 100 2 -1 -1 2 200 -1 1 7 1 1 1 -1 -1 -1\n\
                       2 10 -1 -1 4 -1 -1 4 200 -1 5 7 1 1 1 -1 -1 -1\n3 20 0 30.5 -1 -1 -1 3 60 -1 0 8 1 1 1 -1 -1 -1\n\
                       4 25 0 0 -1\n";

    #[test]
    fn an_entry_is_an_item_for_each_processor_and_what_never_ran_is_left_out_and_counted() {
        let item = |at: i64, ms: i64| Item { arrival_us: at * 1_000_000, lasts_us: ms * 1_000 };
        let trace = read(LOG.as_bytes(), &source("{}")).unwrap();
        assert_eq!(trace.left_out, 1);
        let third = item(20, 30_500);
        assert_eq!(trace.items, [item(0, 100_000), item(0, 100_000), third, third, third, item(25, 1_000)]);
        let one = read(LOG.as_bytes(), &source(r#"{"filter": {"user": "8"}, "dur": "time_asked_s"}"#)).unwrap();
        assert_eq!((one.left_out, one.items), (0, vec![item(20, 60_000); 3]));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let said = |log: &str, json: &str| read(log.as_bytes(), &source(json)).unwrap_err();
        assert_eq!(said("; x\n1 0 0 abc 1\n", "{}"), "line 2: 'abc' in 'run_s' is no number");
        assert_eq!(said("1 0 0\n", "{}"), "line 1: it has 3 fields where the format has 18");
        assert!(
            said("", r#"{"filter": {"color": "8"}}"#).starts_with("the format has no field 'color' (it has number,")
        );
        assert!(said("1 0 0 1 2000000\n", "{}").starts_with("line 1: 2000000 processors"));
    }
}
