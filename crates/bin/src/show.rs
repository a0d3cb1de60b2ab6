//! How things are written for people: money, times, sizes, moments, reasons in a few words.

use std::path::Path;

use serde_json::Value;
use skein_api::{AttemptView, Counts};
use skein_domain::NanoUsd;

/// `$0.000012`.
pub(crate) fn usd(nano: i64) -> String {
    NanoUsd(nano).to_string()
}

/// Money that may be unknown.
pub(crate) fn usd_or_dash(nano: Option<i64>) -> String {
    nano.map_or_else(dash, usd)
}

/// `41 ms`, `1.41 s`, `12.3 s`, `2 min 05 s`, `3 h 02 min`.
pub(crate) fn duration(ms: u64) -> String {
    match ms {
        0 => "0 s".to_owned(),
        1..1_000 => format!("{ms} ms"),
        1_000..10_000 => format!("{}.{:02} s", ms / 1000, ms % 1000 / 10),
        10_000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        60_000..3_600_000 => format!("{} min {:02} s", ms / 60_000, ms / 1000 % 60),
        _ => format!("{} h {:02} min", ms / 3_600_000, ms / 60_000 % 60),
    }
}

/// A time that may be unknown.
pub(crate) fn duration_or_dash(ms: Option<u64>) -> String {
    ms.map_or_else(dash, duration)
}

/// `412 B`, `4.1 KiB`, `12.0 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let (mut rest, mut unit) = (count, 0);
    while rest >= 1024 * 1024 && unit + 1 < UNITS.len() {
        rest /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", rest / 1024, rest % 1024 * 10 / 1024, UNITS[unit])
}

/// A moment (microseconds since the epoch) in local time.
pub(crate) fn moment(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us).map_or_else(
        |_| us.to_string(),
        |at| at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
    )
}

/// `1 file`, `3 files`.
pub(crate) fn count(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A path as it is shortest to type here.
pub(crate) fn path(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let short = here.and_then(|here| path.strip_prefix(here).ok());
    short.filter(|short| !short.as_os_str().is_empty()).unwrap_or(path).display().to_string()
}

/// Nothing to show.
pub(crate) fn dash() -> String {
    "-".to_owned()
}

/// `split`, or `count[3]` when the node is an array.
pub(crate) fn item(node: &str, index: u32, array: bool) -> String {
    if array { format!("{node}[{index}]") } else { node.to_owned() }
}

/// `12/69, 4 running, 1 failed`.
pub(crate) fn counts(counts: &Counts) -> String {
    let ended = counts.succeeded + counts.failed + counts.cancelled + counts.lost;
    let words = [
        (counts.running, "running"),
        (counts.failed, "failed"),
        (counts.cancelled, "cancelled"),
        (counts.lost, "lost"),
    ];
    let parts = words.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}"));
    std::iter::once(format!("{ended}/{}", counts.total)).chain(parts).collect::<Vec<_>>().join(", ")
}

/// `0-5, 7`: indices in order, runs joined.
pub(crate) fn ranges(indices: &[u32]) -> String {
    let mut sorted = indices.to_vec();
    sorted.sort_unstable();
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for index in sorted {
        match parts.last_mut() {
            Some((_, last)) if index <= last.saturating_add(1) => *last = index,
            _ => parts.push((index, index)),
        }
    }
    let text = |(first, last): &(u32, u32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    let shown: Vec<String> = parts.iter().take(RANGES_MAX).map(text).collect();
    let more = if parts.len() > RANGES_MAX { format!(", ... ({} in all)", indices.len()) } else { String::new() };
    shown.join(", ") + &more
}

/// Ranges that are shown of a list of indices: more make a line that nobody reads.
const RANGES_MAX: usize = 6;

/// Why an attempt is where it is, in a few words, from the typed choice; the whole text when that is
/// a new one.
pub(crate) fn short_why(attempt: &AttemptView) -> String {
    let (choice, why) = (&attempt.choice, &attempt.why);
    let other = if attempt.kind == "instance" { "functions" } else { "instances" };
    let number = |field: &str| choice.get(field).and_then(Value::as_i64).unwrap_or_default();
    let reason = |field: &str| choice.get(field).and_then(|r| r.get("reason")).and_then(Value::as_str);
    match choice.get("choice").and_then(Value::as_str) {
        Some("only_kind") => match reason("other") {
            Some("none_configured") => format!("there are no {other}"),
            Some(reason) => format!("{other} cannot: {}", reason.replace('_', " ")),
            None => format!("{other} cannot"),
        },
        Some("cheaper") => format!("cheaper ({} against {})", usd(number("here")), usd(number("there"))),
        Some("overflow") => {
            let waited = number("waited_ms");
            let because = reason("because").unwrap_or("no room").replace('_', " ");
            format!("overflow after {}.{} s ({because})", waited / 1000, waited % 1000 / 100)
        }
        Some("urgent") => "urgent".to_owned(),
        _ => why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_and_sizes_keep_three_figures() {
        for (ms, text) in [
            (0, "0 s"),
            (414, "414 ms"),
            (1_414, "1.41 s"),
            (12_345, "12.3 s"),
            (125_000, "2 min 05 s"),
            (7_320_000, "2 h 02 min"),
        ] {
            assert_eq!(duration(ms), text);
        }
        for (count, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (12 << 20, "12.0 MiB"), (u64::MAX, "16383.9 PiB")]
        {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn index_runs_are_joined() {
        assert_eq!(ranges(&[5, 0, 1, 2, 7]), "0-2, 5, 7");
        assert_eq!(ranges(&[]), "");
        let odd: Vec<u32> = (0..40).map(|at| 2 * at + 1).collect();
        assert_eq!(ranges(&odd), "1, 3, 5, 7, 9, 11, ... (40 in all)");
    }

    #[test]
    fn a_choice_has_a_short_form_and_a_new_one_its_text() {
        let short = |choice: Value| {
            let mut attempt = json!({
                "attempt": "s-1.0.0.1", "user": "u", "node": "a", "index": 0, "number": 1, "place": "agent-1", "kind": "instance",
                "state": "succeeded", "why": "by the moon", "choice": null, "assigned_at": 0, "cost_estimate_nano_usd": 0,
                "outputs": [], "notes": [],
            });
            attempt["choice"] = choice;
            short_why(&serde_json::from_value(attempt).unwrap())
        };
        let because = json!({"reason": "concurrency_reached", "limit": 4});
        let overflow = json!({"choice": "overflow", "waited_ms": 1040, "here": 2, "there": 1, "because": because});
        assert_eq!(short(overflow), "overflow after 1.0 s (concurrency reached)");
        let only =
            json!({"choice": "only_kind", "other": {"reason": "over_time_limit", "longest_ms": 2, "limit_ms": 1}});
        assert_eq!(short(only), "functions cannot: over time limit");
        assert_eq!(short(json!({"choice": "moon"})), "by the moon");
    }
}
