//! The request log: a CSV of `arrival_s,context_tokens,generated_tokens`, plain or gzipped,
//! sorted by arrival.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use flate2::bufread::MultiGzDecoder;

use crate::numbers::SECOND;

/// The first line of every log and part.
pub(crate) const HEADER: &str = "arrival_s,context_tokens,generated_tokens";
/// Longest log taken: 31 days. Bounds the memory that a wrong file could ask for.
const LONGEST_LOG_S: u64 = 31 * 24 * 3600;
/// Most tokens taken for one request, for the same reason.
const MOST_TOKENS: u32 = 1_000_000;

/// One request of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    /// When it arrived, in microseconds from the start of the log.
    pub(crate) arrival_us: u64,
    /// Tokens it brought.
    pub(crate) context_tokens: u32,
    /// Tokens it was answered with.
    pub(crate) generated_tokens: u32,
}

impl Request {
    /// How long it keeps a server busy, in microseconds.
    pub(crate) fn service_us(self) -> u64 {
        service_us(self.generated_tokens)
    }
}

/// The duration model, in microseconds: 0.1 s + 0.03 s for each generated token.
pub(crate) fn service_us(generated_tokens: u32) -> u64 {
    100_000 + 30_000 * u64::from(generated_tokens)
}

/// Reads a log or a part; gzip is recognised by its first bytes, not by the name.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Request>> {
    let file = File::open(path).with_context(|| {
        format!(
            "cannot open the request log {}: check --input and that the file is an input of the task",
            path.display()
        )
    })?;
    let mut reader = BufReader::new(file);
    let start = reader.fill_buf().with_context(|| format!("cannot read {}", path.display()))?;
    let parsed = if start.starts_with(&[0x1f, 0x8b]) {
        parse(BufReader::new(MultiGzDecoder::new(reader)))
    } else {
        parse(reader)
    };
    parsed.with_context(|| format!("in the request log {}", path.display()))
}

fn parse(reader: BufReader<impl Read>) -> anyhow::Result<Vec<Request>> {
    let mut lines = reader.lines();
    let header = lines.next().transpose().context("line 1 is unreadable")?;
    ensure!(
        header.as_deref().map(str::trim_end) == Some(HEADER),
        "line 1 is not the header `{HEADER}`: is this a request log?"
    );
    let mut requests: Vec<Request> = Vec::new();
    for (position, line) in lines.enumerate() {
        let number = position + 2;
        let line = line.with_context(|| format!("line {number} is unreadable"))?;
        let request = parse_line(line.trim_end()).with_context(|| format!("line {number}"))?;
        if let Some(last) = requests.last() {
            ensure!(
                last.arrival_us <= request.arrival_us,
                "line {number} arrives before the line above it: sort the log by arrival_s"
            );
        }
        requests.push(request);
    }
    Ok(requests)
}

fn parse_line(line: &str) -> anyhow::Result<Request> {
    let mut fields = line.split(',');
    let (Some(arrival), Some(context), Some(generated), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        bail!("`{line}` does not have the 3 fields {HEADER}");
    };
    Ok(Request {
        arrival_us: parse_seconds(arrival)?,
        context_tokens: parse_tokens(context)?,
        generated_tokens: parse_tokens(generated)?,
    })
}

/// Decimal seconds to microseconds without a float in between; at most 6 decimals.
fn parse_seconds(text: &str) -> anyhow::Result<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    ensure!(!whole.is_empty() && whole.len() <= 9 && digits(whole), "arrival_s `{text}` is not a number of seconds");
    ensure!(fraction.len() <= 6 && digits(fraction), "arrival_s `{text}` is not a number with at most 6 decimals");
    let whole: u64 = whole.parse()?;
    ensure!(whole < LONGEST_LOG_S, "arrival_s `{text}` is past 31 days: cut the log first");
    let micros: u64 = format!("{fraction:0<6}").parse()?;
    Ok(whole * SECOND + micros)
}

fn parse_tokens(text: &str) -> anyhow::Result<u32> {
    match text.parse() {
        Ok(tokens) if tokens <= MOST_TOKENS => Ok(tokens),
        _ => bail!("`{text}` is not a number of tokens from 0 to {MOST_TOKENS}"),
    }
}

/// Requests as CSV with the header, in the form of the original log (milliseconds when exact).
pub(crate) fn to_csv(requests: &[Request]) -> String {
    let mut out = String::with_capacity(HEADER.len() + 1 + requests.len() * 20);
    out.push_str(HEADER);
    out.push('\n');
    for request in requests {
        let (whole, micros) = (request.arrival_us / SECOND, request.arrival_us % SECOND);
        let fraction =
            if micros.is_multiple_of(1000) { format!("{:03}", micros / 1000) } else { format!("{micros:06}") };
        let (context, generated) = (request.context_tokens, request.generated_tokens);
        // Writing to a String cannot fail.
        writeln!(out, "{whole}.{fraction},{context},{generated}").unwrap_or_default();
    }
    out
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A request at a time in milliseconds.
    pub(crate) fn request(arrival_ms: u64, generated_tokens: u32) -> Request {
        Request { arrival_us: arrival_ms * 1000, context_tokens: 10, generated_tokens }
    }

    fn parse_text(text: &str) -> anyhow::Result<Vec<Request>> {
        parse(BufReader::new(text.as_bytes()))
    }

    #[test]
    fn the_duration_model_is_the_documented_one() {
        assert_eq!(service_us(0), 100_000);
        assert_eq!(service_us(10), 400_000);
    }

    #[test]
    fn text_and_requests_round_trip() {
        let text = format!("{HEADER}\n0.000,4808,10\n1.052,3180,8\n1.052001,1,0\n");
        assert_eq!(to_csv(&parse_text(&text).unwrap()), text);
        assert_eq!(parse_seconds("12.5").unwrap(), 12_500_000);
        assert_eq!(parse_seconds("12").unwrap(), 12_000_000);
    }

    #[test]
    fn wrong_files_are_refused_with_the_line() {
        for (text, wanted) in [
            (String::new(), "header"),
            ("a,b\n1,2\n".into(), "header"),
            (format!("{HEADER}\n1.0,2\n"), "line 2"),
            (format!("{HEADER}\n1.0,2,3\n0.9,1,1\n"), "sort the log"),
            (format!("{HEADER}\n-1.0,2,3\n"), "not a number of seconds"),
            (format!("{HEADER}\n99999999,2,3\n"), "31 days"),
            (format!("{HEADER}\n1.0,2,9999999\n"), "number of tokens"),
        ] {
            let error = format!("{:#}", parse_text(&text).unwrap_err());
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn the_shipped_logs_are_read_whole() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
        let code = read(&data.join("azure_llm2023_code.csv.gz")).unwrap();
        let conv = read(&data.join("azure_llm2023_conv.csv.gz")).unwrap();
        assert_eq!((code.len(), conv.len()), (8_819, 19_366));
    }
}
