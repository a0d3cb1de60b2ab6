//! Headers of tar, old GNU and POSIX.

use anyhow::{Result, bail};

/// Bytes of a record.
pub(crate) const RECORD: usize = 512;

/// One member's header.
pub(crate) struct Header {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) kind: u8,
    pub(crate) magic: [u8; 8],
    pub(crate) sum_is_right: bool,
    pub(crate) bytes: Vec<u8>,
}

/// A header; none when the record is all zeros.
pub(crate) fn header(record: &[u8]) -> Result<Option<Header>> {
    if record.len() != RECORD {
        bail!("the archive ends within a header");
    }
    if crate::input::is_zero(record) {
        return Ok(None);
    }
    let name = record[..100].split(|byte| *byte == 0).next().unwrap_or_default();
    let sum: u64 =
        record.iter().enumerate().map(|(n, b)| u64::from(if (148..156).contains(&n) { b' ' } else { *b })).sum();
    Ok(Some(Header {
        name: String::from_utf8_lossy(name).into_owned(),
        size: number(&record[124..136])?,
        kind: record[156],
        magic: *record[257..].first_chunk::<8>().unwrap_or(&[0; 8]),
        sum_is_right: number(&record[148..156])? == sum,
        bytes: record.to_vec(),
    }))
}

/// Octal digits, or base 256 when the first bit is set.
pub(crate) fn number(field: &[u8]) -> Result<u64> {
    if field[0] & 0x80 != 0 {
        return Ok(field.iter().skip(field.len() - 8).fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
    }
    let text = String::from_utf8_lossy(field);
    let text = text.trim_matches(|c: char| c == '\0' || c == ' ');
    if text.is_empty() {
        return Ok(0);
    }
    u64::from_str_radix(text, 8).map_err(|_| anyhow::anyhow!("'{}' is no octal number", text.escape_debug()))
}
