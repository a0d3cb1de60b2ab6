//! The reader. Nothing in a gzip stream can be found without reading what stands before it: the disk is spooled to a
//! file, sparse, and read there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt as _;

use super::{MEMBER, tar};
use crate::blocks::is_zero;
use crate::bytes::InOrder;
use crate::convert::{Progress, Report};
use crate::{Budget, Bytes, Error, Result};

/// What is written at a time, and left out when it is zero.
const PIECE: usize = 1 << 16;
/// Bytes of an extended (PAX) header.
const PAX_MAX: u64 = 64 << 10;
/// What an entry of a sparse map counts against the budget for tables: its memory, and the time that reading it
/// takes. So a map has at most some 800,000 entries; a disk that needs more is better sent in another format.
const MAP_ENTRY_BYTES: u64 = 64;

/// Spools the disk of a gzipped tar to `to`, whose holes are the disk's zeros. The archive may hold one member only,
/// and that must be called `disk.raw`: no name in it becomes a path.
pub fn unpack(bytes: &dyn Bytes, to: &File, budget: &Budget, progress: &dyn Progress) -> Result<Report> {
    let source = InOrder::new(bytes);
    let gunzip = flate2::read::MultiGzDecoder::new(std::io::BufReader::with_capacity(1 << 18, source));
    let mut unpacking = Unpacking { from: gunzip, to, budget, progress, file_bytes: bytes.len(), data: 0 };
    let (member, ranges) = unpacking.member()?;
    budget.virtual_size(member.real_size)?;
    let data = member.stored.checked_sub(member.map_bytes);
    check_ranges(
        &ranges,
        data.ok_or_else(|| Error::corrupt("a sparse member shorter than its map"))?,
        member.real_size,
    )?;
    to.set_len(0).map_err(Error::io("emptying the spool file"))?;
    to.set_len(member.real_size).map_err(Error::io("setting the spool file's length"))?;
    for (offset, len) in &ranges {
        unpacking.range(*offset, *len)?;
    }
    unpacking.padding(member.stored)?;
    unpacking.nothing_more()?;
    Ok(Report { bytes: member.real_size, virtual_bytes: member.real_size, data_bytes: unpacking.data })
}

struct Member {
    /// Bytes that stand in the archive, a map at their beginning counted.
    stored: u64,
    map_bytes: u64,
    real_size: u64,
}

struct Unpacking<'a, R> {
    from: R,
    to: &'a File,
    budget: &'a Budget,
    progress: &'a dyn Progress,
    file_bytes: u64,
    data: u64,
}

type Ranges = Vec<(u64, u64)>;

impl<R: Read> Unpacking<'_, R> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.from.read_exact(buffer).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData => {
                Error::corrupt(format!("the archive ends early or is no gzip: {error}"))
            }
            _ => Error::io("reading the archive")(error),
        })
    }

    fn record(&mut self) -> Result<[u8; tar::RECORD]> {
        let mut record = [0; tar::RECORD];
        self.fill(&mut record)?;
        Ok(record)
    }

    /// The first member's headers and its map.
    fn member(&mut self) -> Result<(Member, Ranges)> {
        let mut pax = None;
        loop {
            let header = self.record()?;
            if tar::sum(&header) != tar::parse(&header[148..156])? || header[257..262] != *b"ustar" {
                return Err(Error::corrupt("the archive holds no tar, or its header's checksum is wrong"));
            }
            let size = tar::parse(&header[124..136])?;
            match header[156] {
                b'x' if pax.is_none() => pax = Some(self.pax(size)?),
                b'0' | 0 => return self.plain(&header, size, pax.unwrap_or_default()),
                b'S' if pax.is_none() => return self.old_gnu(&header, size),
                other => {
                    return Err(Error::Refused(format!(
                        "the archive begins with a member of type '{}': only one ordinary or sparse file {MEMBER} is read",
                        char::from(other).escape_default()
                    )));
                }
            }
        }
    }

    fn pax(&mut self, size: u64) -> Result<BTreeMap<String, String>> {
        if size > PAX_MAX {
            return Err(Error::Refused(format!("an extended tar header of {size} bytes; read are at most {PAX_MAX}")));
        }
        let len = usize::try_from(size).unwrap_or(0);
        let mut text = vec![0; len.next_multiple_of(tar::RECORD)];
        self.fill(&mut text)?;
        let bad = || Error::corrupt("an extended tar header is malformed");
        let (mut fields, mut rest) = (BTreeMap::new(), &text[..len]);
        while !rest.is_empty() {
            let space = rest.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
            let len: usize = std::str::from_utf8(&rest[..space]).ok().and_then(|n| n.parse().ok()).ok_or_else(bad)?;
            let line = rest.get(space + 1..len).and_then(|line| line.strip_suffix(b"\n")).ok_or_else(bad)?;
            let (key, value) = std::str::from_utf8(line).ok().and_then(|line| line.split_once('=')).ok_or_else(bad)?;
            fields.insert(key.to_owned(), value.to_owned());
            rest = &rest[len..];
        }
        Ok(fields)
    }

    fn plain(&mut self, header: &[u8], size: u64, pax: BTreeMap<String, String>) -> Result<(Member, Ranges)> {
        let number = |key: &str| pax.get(key).map(|value| value.parse().map_err(|_| bad_number(key))).transpose();
        let stored = number("size")?.unwrap_or(size);
        if !pax.keys().any(|key| key.starts_with("GNU.sparse.")) {
            check_name(pax.get("path").map_or_else(|| name(header), |path| path.as_bytes()))?;
            return Ok((Member { stored, map_bytes: 0, real_size: stored }, vec![(0, stored)]));
        }
        let version =
            (pax.get("GNU.sparse.major").map(String::as_str), pax.get("GNU.sparse.minor").map(String::as_str));
        let (Some(real_name), Some(real_size)) = (pax.get("GNU.sparse.name"), number("GNU.sparse.realsize")?) else {
            return Err(Error::corrupt("a sparse member without name or size"));
        };
        if version != (Some("1"), Some("0")) {
            return Err(Error::Unsupported {
                what: "a sparse tar of another PAX version than 1.0".to_owned(),
                next_step: "make it with `tar --format=oldgnu -S`".to_owned(),
            });
        }
        check_name(real_name.as_bytes())?;
        let (ranges, map_bytes) = self.pax_map(stored)?;
        Ok((Member { stored, map_bytes, real_size }, ranges))
    }

    /// The map of PAX 1.0: decimal lines before the data, padded to a record.
    fn pax_map(&mut self, stored: u64) -> Result<(Ranges, u64)> {
        let (mut numbers, mut current, mut digits, mut read) = (Vec::<u64>::new(), 0u64, 0, 0);
        loop {
            if read + tar::RECORD as u64 > stored.next_multiple_of(tar::RECORD as u64) {
                return Err(Error::corrupt("the map of a sparse member is longer than the member"));
            }
            let record = self.record()?;
            read += tar::RECORD as u64;
            for byte in record {
                match byte {
                    b'0'..=b'9' if digits < 19 => {
                        current = current * 10 + u64::from(byte - b'0');
                        digits += 1;
                    }
                    b'\n' if digits > 0 => {
                        numbers.push(std::mem::take(&mut current));
                        digits = 0;
                        self.budget.metadata("the map of a sparse member", numbers.len() as u64 * MAP_ENTRY_BYTES)?;
                        if numbers.len() as u64 == numbers[0].saturating_mul(2).saturating_add(1) {
                            let pairs = numbers[1..].chunks_exact(2).map(|pair| (pair[0], pair[1]));
                            return Ok((pairs.collect(), read));
                        }
                    }
                    _ => return Err(Error::corrupt("the map of a sparse member holds something else than numbers")),
                }
            }
        }
    }

    fn old_gnu(&mut self, header: &[u8], stored: u64) -> Result<(Member, Ranges)> {
        check_name(name(header))?;
        let real_size = tar::parse(&header[483..495])?;
        let mut ranges = Vec::new();
        let first = tar::ENTRIES_FIRST * tar::ENTRY;
        entries(&header[386..386 + first], &mut ranges)?;
        let mut more = header[482] != 0;
        while more {
            self.budget.metadata("the map of a sparse member", ranges.len() as u64 * MAP_ENTRY_BYTES)?;
            let record = self.record()?;
            entries(&record[..tar::ENTRIES_MORE * tar::ENTRY], &mut ranges)?;
            more = record[504] != 0;
        }
        Ok((Member { stored, map_bytes: 0, real_size }, ranges))
    }

    /// Data of the disk at `offset`.
    fn range(&mut self, offset: u64, len: u64) -> Result<()> {
        let (mut at, end, mut buffer) = (offset, offset + len, vec![0; PIECE]);
        while at < end {
            let piece = PIECE as u64;
            let len = usize::try_from((end - at).min(piece - at % piece)).unwrap_or(PIECE);
            self.fill(&mut buffer[..len])?;
            if !is_zero(&buffer[..len]) {
                self.data += len as u64;
                self.budget.data(self.file_bytes, self.data)?;
                self.to.write_all_at(&buffer[..len], at).map_err(Error::io("writing the spool file"))?;
            }
            at += len as u64;
            if at.is_multiple_of(1 << 20) {
                self.progress.at(at);
                if self.progress.is_cancelled() {
                    return Err(Error::Cancelled);
                }
            }
        }
        Ok(())
    }

    fn padding(&mut self, stored: u64) -> Result<()> {
        let len = usize::try_from(stored.next_multiple_of(tar::RECORD as u64) - stored).unwrap_or(0);
        self.fill(&mut vec![0; len])
    }

    /// Only zeros until the archive's end, and not many: an archive is padded, at most to a few MiB.
    fn nothing_more(&mut self) -> Result<()> {
        let (mut buffer, mut seen) = (vec![0; PIECE], 0);
        loop {
            let len = self
                .from
                .read(&mut buffer)
                .map_err(|error| Error::corrupt(format!("the archive's end is damaged: {error}")))?;
            seen += len;
            if !is_zero(&buffer[..len]) || seen > 16 << 20 {
                return Err(Error::Refused(format!("the archive holds more than {MEMBER}")));
            }
            if len == 0 {
                return Ok(());
            }
        }
    }
}

fn bad_number(key: &str) -> Error {
    Error::corrupt(format!("'{key}' in a tar header is no number"))
}

fn name(header: &[u8]) -> &[u8] {
    let field = &header[..100];
    &field[..field.iter().position(|byte| *byte == 0).unwrap_or(field.len())]
}

fn check_name(name: &[u8]) -> Result<()> {
    if name == MEMBER.as_bytes() || name.strip_prefix(b"./") == Some(MEMBER.as_bytes()) {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "the archive holds '{}'; only {MEMBER} is read",
        String::from_utf8_lossy(name).escape_debug()
    )))
}

/// Entries of an old-GNU map; the first one of which nothing is set ends it.
fn entries(field: &[u8], ranges: &mut Ranges) -> Result<()> {
    for entry in field.chunks_exact(tar::ENTRY) {
        if entry[0] == 0 && entry[12] == 0 {
            return Ok(());
        }
        ranges.push((tar::parse(&entry[..12])?, tar::parse(&entry[12..])?));
    }
    Ok(())
}

/// In order, without overlap, inside the disk, and as much as the member holds.
fn check_ranges(ranges: &[(u64, u64)], stored: u64, real_size: u64) -> Result<()> {
    let (mut end, mut total) = (0, 0u64);
    for (offset, len) in ranges {
        let stop = offset.checked_add(*len).filter(|stop| *offset >= end && *stop <= real_size);
        end = stop.ok_or_else(|| Error::corrupt("the map of a sparse member is out of order or beyond its size"))?;
        total += len;
    }
    if total != stored {
        return Err(Error::corrupt(format!(
            "the map of a sparse member counts {total} bytes, the member has {stored}"
        )));
    }
    Ok(())
}
