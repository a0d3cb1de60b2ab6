//! Headers of tar in the old GNU form, the one that Google asks for: numbers, checksums, the map of a sparse member.

use crate::{Error, Result};

pub(super) const RECORD: usize = 512;
/// Map entries in the header itself, and in each record that follows it.
pub(super) const ENTRIES_FIRST: usize = 4;
pub(super) const ENTRIES_MORE: usize = 21;
pub(super) const ENTRY: usize = 24;

/// A number in `width` bytes: octal while it fits, else base 256 with the first bit set.
fn number(value: u64, field: &mut [u8]) {
    let digits = field.len() - 1;
    let octal = format!("{value:0digits$o}");
    if octal.len() == digits {
        field[..digits].copy_from_slice(octal.as_bytes());
        field[digits] = 0;
        return;
    }
    field.fill(0);
    let len = field.len();
    field[len - 8..].copy_from_slice(&value.to_be_bytes());
    field[0] |= 0x80;
}

/// The number in `field`.
pub(in crate::format) fn parse(field: &[u8]) -> Result<u64> {
    let bad = || Error::corrupt("a number in a tar header is none");
    if field.first().is_some_and(|first| first & 0x80 != 0) {
        let (first, rest) = (field[0] & 0x7f, &field[1..]);
        let joined = rest.iter().try_fold(u64::from(first), |value, byte| {
            if value >> 56 == 0 { Ok(value << 8 | u64::from(*byte)) } else { Err(bad()) }
        });
        return joined;
    }
    let text = field.split(|byte| *byte == 0).next().unwrap_or_default().trim_ascii();
    if text.is_empty() {
        return Ok(0);
    }
    if text.len() > 21 {
        return Err(bad());
    }
    text.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8).map(|value| value + u64::from(digit - b'0')).ok_or_else(bad),
        _ => Err(bad()),
    })
}

/// The sum over a header, its own field counted as spaces.
pub(in crate::format) fn sum(header: &[u8]) -> u64 {
    let counted = |(n, byte): (usize, &u8)| u64::from(if (148..156).contains(&n) { b' ' } else { *byte });
    header.iter().enumerate().map(counted).sum()
}

/// The headers of a sparse member: `ranges` of (offset, length) hold data, the rest are holes.
pub(super) fn sparse_headers(name: &str, real_size: u64, ranges: &[(u64, u64)]) -> Vec<u8> {
    let stored: u64 = ranges.iter().map(|range| range.1).sum();
    let mut map = ranges.to_vec();
    // A hole at the end is closed by an empty entry, as GNU tar itself does.
    if ranges.last().is_none_or(|(offset, len)| offset + len < real_size) {
        map.push((real_size, 0));
    }
    let mut header = vec![0; RECORD];
    header[..name.len()].copy_from_slice(name.as_bytes());
    number(0o644, &mut header[100..108]);
    number(0, &mut header[108..116]);
    number(0, &mut header[116..124]);
    number(stored, &mut header[124..136]);
    number(0, &mut header[136..148]);
    header[156] = b'S';
    header[257..265].copy_from_slice(b"ustar  \0");
    let (first, more) = map.split_at(map.len().min(ENTRIES_FIRST));
    entries(first, &mut header[386..482]);
    header[482] = u8::from(!more.is_empty());
    number(real_size, &mut header[483..495]);
    let sum = sum(&header);
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut chunks = more.chunks(ENTRIES_MORE).peekable();
    while let Some(chunk) = chunks.next() {
        let mut record = vec![0; RECORD];
        entries(chunk, &mut record[..ENTRIES_MORE * ENTRY]);
        record[504] = u8::from(chunks.peek().is_some());
        header.append(&mut record);
    }
    header
}

fn entries(map: &[(u64, u64)], field: &mut [u8]) {
    for ((offset, len), entry) in map.iter().zip(field.chunks_exact_mut(ENTRY)) {
        number(*offset, &mut entry[..12]);
        number(*len, &mut entry[12..]);
    }
}

/// The header of an ordinary member, for an appliance.
pub(in crate::format) fn plain_header(name: &str, size: u64) -> Result<Vec<u8>> {
    if name.is_empty() || name.len() > 99 {
        return Err(Error::Usage(format!("'{name}' is no name for a member of a tar: 1 to 99 bytes")));
    }
    let mut header = vec![0; RECORD];
    header[..name.len()].copy_from_slice(name.as_bytes());
    number(0o644, &mut header[100..108]);
    number(0, &mut header[108..116]);
    number(0, &mut header[116..124]);
    number(size, &mut header[124..136]);
    number(0, &mut header[136..148]);
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum = sum(&header);
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(header)
}
