//! The log: changes of the tables that were not yet made in the file. They are laid over it, in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Guid, checksum};
use crate::bytes::field::{le32, le64};
use crate::bytes::read_vec;
use crate::{Bytes, Error, Result};

const PAGE: usize = 4096;
const PAGE_LEN: u64 = 4096;
/// Ranges of zeros that a log may write: each read looks at all of them.
const ZERO_RANGES_MAX: usize = 1024;
/// Steps while the entries are put in order.
const STEPS_MAX: usize = 1 << 20;
/// Bytes that are checksummed, for each byte of the log: entries do not overlap, so that honest ones need one.
const CHECKED_MAX: u64 = 4;

/// The file with its log's changes.
struct Replayed {
    under: Arc<dyn Bytes>,
    len: u64,
    /// Pages by their offset; they cover `zeros`.
    pages: BTreeMap<u64, Vec<u8>>,
    /// From and to.
    zeros: Vec<(u64, u64)>,
}

impl Bytes for Replayed {
    fn len(&self) -> u64 {
        self.len
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.len);
        let end = end.ok_or_else(|| Error::corrupt(format!("{offset} is beyond the file's end at {}", self.len)))?;
        let there = usize::try_from(self.under.len().saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        self.under.read_at(offset.min(self.under.len() - there as u64), &mut buffer[..there])?;
        buffer[there..].fill(0);
        for (from, to) in &self.zeros {
            let (from, to) = ((*from).max(offset), (*to).min(end));
            if from < to {
                buffer[place(from - offset)..place(to - offset)].fill(0);
            }
        }
        for (at, page) in self.pages.range(offset.saturating_sub(PAGE_LEN - 1)..end) {
            let (from, to) = ((*at).max(offset), (at + PAGE_LEN).min(end));
            buffer[place(from - offset)..place(to - offset)].copy_from_slice(&page[place(from - at)..place(to - at)]);
        }
        Ok(())
    }
}

fn place(at: u64) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

struct Entry {
    len: u64,
    tail: u64,
    sequence: u64,
}

struct Log {
    bytes: Vec<u8>,
    id: Guid,
    entries: BTreeMap<u64, Entry>,
}

/// The file as it is after its log, which has `len` bytes at `at`, the caller has checked that they are few.
pub(super) fn replay(under: Arc<dyn Bytes>, at: u64, len: usize, id: Guid) -> Result<Arc<dyn Bytes>> {
    let mut log = Log { bytes: read_vec(under.as_ref(), at, len)?, id, entries: BTreeMap::new() };
    log.find_entries()?;
    let order = log.active()?;
    let mut replayed = Replayed { len: under.len(), under, pages: BTreeMap::new(), zeros: Vec::new() };
    for place in order {
        log.apply(place, &mut replayed)?;
    }
    Ok(Arc::new(replayed))
}

impl Log {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// An entry, which may go on at the log's beginning.
    fn raw(&self, at: u64, len: u64) -> Vec<u8> {
        let (at, len) = (place(at), place(len));
        let first = len.min(self.bytes.len() - at);
        let mut raw = self.bytes[at..at + first].to_vec();
        raw.extend_from_slice(&self.bytes[..len - first]);
        raw
    }

    fn find_entries(&mut self) -> Result<()> {
        let (mut at, mut checked) = (0, 0);
        while at < self.len() {
            let head = &self.bytes[place(at)..place(at + PAGE_LEN)];
            let (len, tail, sequence) = (u64::from(le32(head, 8)), u64::from(le32(head, 12)), le64(head, 16));
            let sound =
                head.starts_with(b"loge") && len.is_multiple_of(PAGE_LEN) && (PAGE_LEN..=self.len()).contains(&len);
            if !sound || head[32..48] != self.id || tail >= self.len() || sequence == 0 {
                at += PAGE_LEN;
                continue;
            }
            checked += len;
            if checked > self.len() * CHECKED_MAX {
                return Err(Error::Refused("the entries of the VHDX's log overlap".to_owned()));
            }
            let raw = self.raw(at, len);
            if le32(&raw, 4) != checksum(&raw) {
                at += PAGE_LEN;
                continue;
            }
            self.entries.insert(at, Entry { len, tail, sequence });
            at += len;
        }
        Ok(())
    }

    /// The newest unbroken row of entries: its last one says where the first one is.
    fn active(&self) -> Result<Vec<u64>> {
        let mut heads: Vec<(&u64, &Entry)> = self.entries.iter().collect();
        heads.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.sequence));
        let mut steps = 0;
        for (head, last) in heads {
            let (mut at, mut row, mut expected) = (last.tail, Vec::new(), None);
            while let Some(entry) = self.entries.get(&at) {
                steps += 1;
                if steps > STEPS_MAX {
                    return Err(Error::Refused("the entries of the VHDX's log are in no order".to_owned()));
                }
                if expected.is_some_and(|expected| expected != entry.sequence) {
                    break;
                }
                row.push(at);
                if at == *head {
                    return Ok(row);
                }
                expected = Some(entry.sequence.wrapping_add(1));
                at = (at + entry.len) % self.len();
            }
        }
        Err(Error::corrupt("the VHDX was not closed properly, and its log holds no whole row of entries"))
    }

    fn apply(&self, at: u64, to: &mut Replayed) -> Result<()> {
        let Some(entry) = self.entries.get(&at) else { return Ok(()) };
        let raw = self.raw(at, entry.len);
        let (count, flushed, last) = (place(u64::from(le32(&raw, 24))), le64(&raw, 48), le64(&raw, 56));
        if flushed > to.under.len() {
            return Err(Error::corrupt(format!(
                "the VHDX's log was written when the file had {flushed} bytes; it has {}: it was cut",
                to.under.len()
            )));
        }
        to.len = to.len.max(last);
        let descriptors_end = count.checked_mul(32).and_then(|len| len.checked_add(64)).filter(|end| *end <= raw.len());
        let end = descriptors_end.ok_or_else(|| Error::corrupt("an entry of the VHDX's log has too many parts"))?;
        let mut sector = end.next_multiple_of(PAGE);
        for descriptor in raw[64..end].chunks_exact(32) {
            let (offset, sequence) = (le64(descriptor, 16), le64(descriptor, 24));
            let aligned = offset.is_multiple_of(PAGE_LEN) && offset.checked_add(PAGE_LEN).is_some();
            if sequence != entry.sequence || !aligned {
                return Err(Error::corrupt("a part of the VHDX's log is not of its entry"));
            }
            match &descriptor[..4] {
                b"zero" => to.zero(offset, le64(descriptor, 8))?,
                b"desc" => {
                    let data = raw.get(sector..sector + PAGE).ok_or_else(|| Error::corrupt("a log entry is cut"))?;
                    to.page(offset, descriptor, data, sequence)?;
                    sector += PAGE;
                }
                _ => return Err(Error::corrupt("a part of the VHDX's log is of an unknown kind")),
            }
        }
        Ok(())
    }
}

impl Replayed {
    fn zero(&mut self, offset: u64, len: u64) -> Result<()> {
        let end = offset.checked_add(len).filter(|_| len.is_multiple_of(PAGE_LEN));
        let end = end.ok_or_else(|| Error::corrupt("a range of zeros in the VHDX's log is no range"))?;
        if self.zeros.len() == ZERO_RANGES_MAX {
            return Err(Error::Refused("the VHDX's log writes more ranges of zeros than any writer does".to_owned()));
        }
        // What was written there before is gone.
        self.pages.retain(|at, _| !(offset..end).contains(at));
        self.zeros.push((offset, end));
        Ok(())
    }

    /// A page: its first 8 and last 4 bytes stand in the descriptor, where the data sector has its own marks.
    fn page(&mut self, offset: u64, descriptor: &[u8], data: &[u8], sequence: u64) -> Result<()> {
        let of_data = u64::from(le32(data, 4)) << 32 | u64::from(le32(data, PAGE - 4));
        if !data.starts_with(b"data") || of_data != sequence {
            return Err(Error::corrupt("a page of the VHDX's log is not of its entry"));
        }
        let mut page = data.to_vec();
        page[..8].copy_from_slice(&descriptor[8..16]);
        page[PAGE - 4..].copy_from_slice(&descriptor[4..8]);
        self.len = self.len.max(offset + PAGE_LEN);
        self.pages.insert(offset, page);
        Ok(())
    }
}
