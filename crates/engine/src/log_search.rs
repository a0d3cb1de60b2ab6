//! Search in a session's logs: line by line through the files, within limits that say when they cut.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use regex::bytes::Regex;
use skein_domain::SessionId;

/// Most bytes looked through for one search.
pub(crate) const SEARCH_BYTES_MAX: u64 = 2 << 30;
/// Longest line that is looked at; the rest of a longer one is passed over.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// Most characters of a line in an answer.
const SHOWN_CHARS_MAX: usize = 500;

/// A line that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hit {
    /// Node, index and number of the attempt.
    pub at: (u32, u32, u32),
    /// `out` or `err`.
    pub stream: &'static str,
    /// Counted from 1.
    pub line: u64,
    /// The line, or its beginning.
    pub text: String,
}

/// What was found, and why not more.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub hits: Vec<Hit>,
    pub bytes: u64,
    pub cut: Option<String>,
}

/// Lines of the logs below `dir` that `pattern` matches; of one node only when it is given.
pub(crate) fn search(dir: &Path, pattern: &Regex, node: Option<u32>, hits_max: usize) -> std::io::Result<Found> {
    let mut found = Found::default();
    for (at, stream, path) in files(dir)? {
        if node.is_some_and(|node| node != at.0) {
            continue;
        }
        let mut reader = BufReader::with_capacity(256 * 1024, File::open(path)?);
        let (mut bytes, mut line) = (Vec::new(), 0);
        loop {
            bytes.clear();
            let read = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes)?;
            if read == 0 {
                break;
            }
            line += 1;
            found.bytes += read as u64;
            let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
            if pattern.is_match(text) {
                let text = String::from_utf8_lossy(text).chars().take(SHOWN_CHARS_MAX).collect();
                found.hits.push(Hit { at, stream, line, text });
                if found.hits.len() >= hits_max {
                    found.cut = Some(format!("there may be more: the search ended at {hits_max} lines"));
                    return Ok(found);
                }
            }
            if read as u64 == LINE_BYTES_MAX && !bytes.ends_with(b"\n") {
                found.bytes += reader.skip_until(b'\n')? as u64;
            }
            if found.bytes >= SEARCH_BYTES_MAX {
                let gib = SEARCH_BYTES_MAX >> 30;
                found.cut = Some(format!("only the first {gib} GiB were looked through: name a task"));
                return Ok(found);
            }
        }
    }
    Ok(found)
}

type LogFile = ((u32, u32, u32), &'static str, PathBuf);

/// The log files of a session, by node, index and number.
fn files(dir: &Path) -> std::io::Result<Vec<LogFile>> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if let Some((at, stream)) = path.file_name().and_then(|name| named(name.to_str()?)) {
            all.push((at, stream, path));
        }
    }
    all.sort_unstable();
    Ok(all)
}

fn named(name: &str) -> Option<((u32, u32, u32), &'static str)> {
    let mut parts = name.split('.');
    let mut number = || parts.next()?.parse().ok();
    let at = (number()?, number()?, number()?);
    let stream = match parts.next()? {
        "out" => "out",
        "err" => "err",
        _ => return None,
    };
    Some((at, stream))
}

/// The attempt of a hit.
pub(crate) fn attempt(session: SessionId, (node, index, number): (u32, u32, u32)) -> skein_domain::AttemptKey {
    skein_domain::NodeKey { session, node }.item(index).attempt(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_where_they_are_and_limits_say_so() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let long = "x".repeat(200_000);
        write("0.10.1.out", &format!("one\n{long} lost end\nneedle two\n"));
        write("0.9.1.err", "a needle\nno\nNEEDLE");
        write("1.0.1.out", "needle\n");
        write("other", "needle\n");
        let find = |text: &str, node, most| search(dir.path(), &Regex::new(text).unwrap(), node, most).unwrap();
        let found = find("(?i)needle", None, 100);
        let lines: Vec<_> = found.hits.iter().map(|hit| (hit.at, hit.stream, hit.line)).collect();
        let nine = ((0, 9, 1), "err");
        assert_eq!(lines, [(nine.0, nine.1, 1), (nine.0, nine.1, 3), ((0, 10, 1), "out", 3), ((1, 0, 1), "out", 1)]);
        assert!(found.cut.is_none() && find("lost end", None, 9).hits.is_empty());
        assert_eq!(find("needle", Some(1), 9).hits.len(), 1);
        assert!(find("needle", None, 2).cut.unwrap().contains("2 lines"));
    }
}
