//! The active layer of an image as a disk. L1 is held; L2 tables are read when they are needed, and the first time
//! each of their entries must point at a place that nothing else uses: so an image cannot give more than its file
//! holds, except by compression, and that is limited by [`Budget::data`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::OFFSET_MASK;
use super::cluster::{Cluster, PARTS, Unpackers};
use super::header::Header;
use super::taken::{Taken, Use};
use crate::bytes::{field, read_vec};
use crate::{Budget, Bytes, Disk, Error, Extent, Kind, Result};

/// Most bytes of L2 tables held, if the budget allows it.
const CACHE_BYTES_MAX: u64 = 16 << 20;

/// A data extent is at most so long: who asks again and again must not go over a whole table each time.
const RUN_MAX: u64 = 16 << 20;

type Table = Arc<Vec<u8>>;

/// A qcow2 image.
pub(in crate::format) struct Qcow2 {
    bytes: Arc<dyn Bytes>,
    budget: Budget,
    header: Header,
    l1: Vec<u64>,
    tables: Mutex<Tables>,
    unpackers: Unpackers,
}

/// L2 tables that were read.
struct Tables {
    /// By L1 entry, and when it was last used.
    cached: HashMap<usize, (Table, u64)>,
    cached_max: usize,
    uses: u64,
    /// L1 entries whose tables were looked over.
    checked: Vec<bool>,
    taken: Taken,
    /// Data that those tables give, bytes.
    data_bytes: u64,
}

/// A part of the disk and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Zero,
    At(u64),
    Packed(u64, u64),
}

impl Qcow2 {
    /// Of these bytes.
    pub(in crate::format) fn open(bytes: Arc<dyn Bytes>, budget: &Budget) -> Result<Self> {
        let header = Header::read(&*bytes, budget)?;
        let l1_bytes = header.l1_len * 8;
        // One byte more for each L1 entry: was its table looked over.
        let fixed = l1_bytes + header.l1_len + Taken::bytes_for(bytes.len(), header.cluster_bits);
        budget.metadata("what the qcow2's tables need", fixed + 2 * header.cluster())?;
        let share = CACHE_BYTES_MAX.min(budget.metadata_bytes_max - fixed);
        let l1 = read_vec(&*bytes, header.l1_at, usize::try_from(l1_bytes).unwrap_or(usize::MAX))?;
        let l1: Vec<u64> = l1.chunks_exact(8).map(|entry| field::be64(entry, 0)).collect();
        let tables = Tables {
            cached: HashMap::new(),
            cached_max: usize::try_from(share / header.cluster()).unwrap_or(2).max(2),
            uses: 0,
            checked: vec![false; l1.len()],
            taken: metadata(&*bytes, &header, &l1)?,
            data_bytes: 0,
        };
        let unpackers = Unpackers::new(&header);
        Ok(Self { bytes, budget: budget.clone(), header, l1, tables: Mutex::new(tables), unpackers })
    }

    /// The L2 table of an L1 entry, if it has one.
    fn table(&self, index: usize) -> Result<Option<Table>> {
        let host = self.l1.get(index).copied().unwrap_or(0) & OFFSET_MASK;
        if host == 0 {
            return Ok(None);
        }
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.uses += 1;
        let uses = tables.uses;
        if let Some((table, used)) = tables.cached.get_mut(&index) {
            *used = uses;
            return Ok(Some(Arc::clone(table)));
        }
        // Read under the lock: two threads that want the same table want it once.
        let len = usize::try_from(self.header.cluster()).unwrap_or(usize::MAX);
        let table = Arc::new(read_vec(&*self.bytes, host, len)?);
        if tables.checked.get(index) == Some(&false) {
            self.look_over(&mut tables, index, &table)?;
            if let Some(checked) = tables.checked.get_mut(index) {
                *checked = true;
            }
        }
        tables.make_room();
        tables.cached.insert(index, (Arc::clone(&table), uses));
        Ok(Some(table))
    }

    /// Does every entry point at a place of its own, and is there not too much in all?
    fn look_over(&self, tables: &mut Tables, index: usize, table: &[u8]) -> Result<()> {
        let cluster = self.header.cluster();
        let mut packed = Vec::new();
        let mut data = 0;
        for n in 0..self.header.l2_len() {
            match Cluster::decode(&self.header, table, n)? {
                Cluster::Zero { reserved: None } => continue,
                Cluster::Zero { reserved: Some(host) } => {
                    tables.taken.take(host, 1, Use::Alone, "an L2 entry")?;
                    continue;
                }
                Cluster::Plain(host) | Cluster::Parts(host, _) => {
                    tables.taken.take(host, 1, Use::Alone, "an L2 entry")?;
                }
                Cluster::Packed(host, len) => {
                    packed.push(host);
                    // The last sector may be cut off by the file's end.
                    let len = len.min(self.bytes.len().saturating_sub(host)).max(1);
                    tables.taken.take(host, len, Use::Packed, "an L2 entry")?;
                }
            }
            data += cluster;
        }
        packed.sort_unstable();
        if let Some([twice, _]) = packed.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::corrupt(format!(
                "the L2 table of entry {index} has the compressed cluster at {twice} twice"
            )));
        }
        tables.data_bytes = tables.data_bytes.saturating_add(data);
        self.budget.data(self.bytes.len(), tables.data_bytes)
    }

    /// The L1 index and the L2 index of an offset.
    fn indexes(&self, offset: u64) -> (usize, u64) {
        let cluster = offset >> self.header.cluster_bits;
        (usize::try_from(cluster / self.header.l2_len()).unwrap_or(usize::MAX), cluster % self.header.l2_len())
    }

    /// Where `offset` is, and up to where that is so within its cluster.
    fn place(&self, table: &[u8], offset: u64) -> Result<(Place, u64)> {
        let (_, n) = self.indexes(offset);
        let cluster = self.header.cluster();
        let within = offset % cluster;
        Ok(match Cluster::decode(&self.header, table, n)? {
            Cluster::Zero { .. } => (Place::Zero, cluster - within),
            Cluster::Plain(host) => (Place::At(host + within), cluster - within),
            Cluster::Packed(host, len) => (Place::Packed(host, len), cluster - within),
            Cluster::Parts(host, there) => {
                let part = cluster / PARTS;
                let is_there = there >> (within / part) & 1 == 1;
                let place = if is_there { Place::At(host + within) } else { Place::Zero };
                (place, part - within % part)
            }
        })
    }

    /// Fills `buffer` from `host`; a cluster that the file's end cuts off goes on with zeros.
    fn read_host(&self, host: u64, buffer: &mut [u8]) -> Result<()> {
        let there = usize::try_from(self.bytes.len().saturating_sub(host)).unwrap_or(usize::MAX).min(buffer.len());
        let (read, beyond) = buffer.split_at_mut(there);
        self.bytes.read_at(host, read)?;
        beyond.fill(0);
        Ok(())
    }

    /// The part of a read that one L2 table tells about.
    fn read_by_table(&self, table: &[u8], offset: u64, buffer: &mut [u8]) -> Result<()> {
        let cluster = usize::try_from(self.header.cluster()).unwrap_or(usize::MAX);
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let (place, mut len) = self.place(table, at)?;
            let left = (buffer.len() - done) as u64;
            if let Place::At(host) = place {
                // Neighbours on the disk are often neighbours in the file: one read for all of them.
                while len < left {
                    match self.place(table, at + len)? {
                        (Place::At(next), more) if next == host + len => len += more,
                        _ => break,
                    }
                }
            }
            let len = usize::try_from(len.min(left)).unwrap_or(usize::MAX);
            let part = &mut buffer[done..done + len];
            match place {
                Place::Zero => part.fill(0),
                Place::At(host) => self.read_host(host, part)?,
                Place::Packed(host, packed) if len == cluster => {
                    self.unpackers.unpack(&*self.bytes, host, packed, part)?;
                }
                Place::Packed(host, packed) => {
                    let within = usize::try_from(at % self.header.cluster()).unwrap_or(0);
                    self.unpackers.part(&*self.bytes, (host, packed), cluster, within, part)?;
                }
            }
            done += len;
        }
        Ok(())
    }

    /// Up to where the L2 table of `offset` reaches, at most to the disk's end.
    fn table_end(&self, offset: u64) -> u64 {
        let covers = self.header.l2_covers();
        (offset / covers).saturating_add(1).saturating_mul(covers).min(self.header.size)
    }
}

impl Tables {
    /// Drops the half that was used least lately, when there are too many.
    fn make_room(&mut self) {
        if self.cached.len() < self.cached_max {
            return;
        }
        let mut uses: Vec<u64> = self.cached.values().map(|(_, used)| *used).collect();
        uses.sort_unstable();
        let oldest_kept = uses[uses.len() / 2];
        self.cached.retain(|_, (_, used)| *used > oldest_kept);
    }
}

impl Disk for Qcow2 {
    fn size(&self) -> u64 {
        self.header.size
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let (mut at, size) = (offset, self.header.size);
        let mut kind = None;
        while at < size {
            let end = self.table_end(at);
            let Some(table) = self.table(self.indexes(at).0)? else {
                if *kind.get_or_insert(Kind::Zero) != Kind::Zero {
                    break;
                }
                at = end;
                continue;
            };
            while at < end {
                let (place, len) = self.place(&table, at)?;
                let found = if place == Place::Zero { Kind::Zero } else { Kind::Data };
                if *kind.get_or_insert(found) != found {
                    return Ok(Extent { kind: found.other(), len: at - offset });
                }
                at = (at + len).min(end);
                if found == Kind::Data && at - offset >= RUN_MAX {
                    break;
                }
            }
            // One table at a time: whoever wants one extent should not wait for a whole disk's tables.
            break;
        }
        Ok(Extent { kind: kind.unwrap_or(Kind::Zero), len: at - offset })
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.header.size) {
            return Err(Error::corrupt(format!(
                "{} bytes at {offset} are asked for, but the disk ends at {}",
                buffer.len(),
                self.header.size
            )));
        }
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let reach = usize::try_from(self.table_end(at) - at).unwrap_or(usize::MAX).min(buffer.len() - done);
            let part = &mut buffer[done..done + reach];
            match self.table(self.indexes(at).0)? {
                None => part.fill(0),
                Some(table) => self.read_by_table(&table, at, part)?,
            }
            done += reach;
        }
        Ok(())
    }

    fn piece_bytes(&self) -> u64 {
        self.header.cluster()
    }
}

impl Kind {
    fn other(self) -> Self {
        match self {
            Self::Zero => Self::Data,
            Self::Data => Self::Zero,
        }
    }
}

/// All tables of the file: each has a place of its own.
fn metadata(bytes: &dyn Bytes, header: &Header, l1: &[u64]) -> Result<Taken> {
    const L1_RESERVED: u64 = 0x7f00_0000_0000_01ff;
    let (cluster, file_len) = (header.cluster(), bytes.len());
    let mut taken = Taken::new(file_len, header.cluster_bits);
    taken.take(0, 1, Use::Alone, "the header")?;
    taken.take(header.l1_at, header.l1_len * 8, Use::Alone, "the header (L1 table)")?;
    taken.take(header.refcounts_at, header.refcounts_bytes, Use::Alone, "the header (refcount table)")?;
    let len = usize::try_from(header.refcounts_bytes).unwrap_or(usize::MAX);
    for entry in read_vec(bytes, header.refcounts_at, len)?.chunks_exact(8) {
        let at = field::be64(entry, 0) & !0x1ff;
        if at != 0 {
            table_at(&mut taken, at, cluster, file_len, "a refcount block")?;
        }
    }
    snapshots(bytes, header, &mut taken)?;
    for (n, entry) in l1.iter().enumerate() {
        if entry & L1_RESERVED != 0 {
            return Err(Error::corrupt(format!("the L1 entry {n} ({entry:#018x}) is none")));
        }
        let at = entry & OFFSET_MASK;
        if at != 0 {
            table_at(&mut taken, at, cluster, file_len, "an L2 table")?;
        }
    }
    Ok(taken)
}

fn table_at(taken: &mut Taken, at: u64, cluster: u64, file_len: u64, what: &str) -> Result<()> {
    if !at.is_multiple_of(cluster) || at.checked_add(cluster).is_none_or(|end| end > file_len) {
        return Err(Error::corrupt(format!("{what} at {at} is no whole cluster of the file")));
    }
    taken.take(at, cluster, Use::Alone, what)
}

/// Internal snapshots are not read, but their tables must not be data.
fn snapshots(bytes: &dyn Bytes, header: &Header, taken: &mut Taken) -> Result<()> {
    let mut at = header.snapshots_at;
    for _ in 0..header.snapshots {
        let head = read_vec(bytes, at, 40)?;
        let l1_bytes = u64::from(field::be32(&head, 8)) * 8;
        taken.take(field::be64(&head, 0), l1_bytes, Use::Alone, "a snapshot's L1 table")?;
        let named = u64::from(field::be16(&head, 12)) + u64::from(field::be16(&head, 14));
        at = (at + 40 + u64::from(field::be32(&head, 36)) + named).next_multiple_of(8);
    }
    taken.take(header.snapshots_at, at - header.snapshots_at, Use::Alone, "the snapshot table")
}
