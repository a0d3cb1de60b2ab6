//! qcow2, as clouds take it: one file, one layer, nothing beside it, counted right.

use anyhow::Result;

use crate::Findings;
use crate::input::{Input, be16, be32, be64};

const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// Clusters of a file that are counted at most.
const CLUSTERS_MAX: u64 = 1 << 26;

struct Image<'a, 'b> {
    input: &'a Input<'b>,
    header: Vec<u8>,
    bits: u32,
    /// How often each cluster of the file is used.
    used: Vec<u32>,
}

pub(crate) fn check(input: &Input<'_>, sizes: Option<(u64, u64)>, found: &mut Findings) {
    let Some(header) = found.readable("qcow2.magic", input.at(0, 72.max(input.len.min(112)))) else { return };
    let version = be32(&header, 4);
    if be32(&header, 0) != 0x5146_49fb || !matches!(version, 2 | 3) {
        return found.broken("qcow2.magic", format!("no header of version 2 or 3 (version {version})"));
    }
    fields(&header, version, found);
    let (size, bits) = (be64(&header, 24), be32(&header, 20));
    if let Some((least, most)) = sizes {
        found.expect("cloud.size", (least..=most).contains(&size), || {
            format!("{size} bytes, {least} to {most} are taken")
        });
    }
    let clusters = input.len.div_ceil(1 << bits.clamp(9, 21));
    if !(9..=21).contains(&bits) || clusters > CLUSTERS_MAX {
        return found.broken("qcow2.clusters", format!("clusters of 2^{bits} bytes, {clusters} of them"));
    }
    let used = vec![0; usize::try_from(clusters).unwrap_or(0)];
    let mut image = Image { input, header, bits, used };
    let walked = image.walk(size, found);
    found.readable("qcow2.tables", walked);
}

fn fields(header: &[u8], version: u32, found: &mut Findings) {
    found.expect("qcow2.no-backing", be64(header, 8) == 0, || "a backing file is named".to_owned());
    found.expect("qcow2.plain", be32(header, 32) == 0, || format!("encryption method {}", be32(header, 32)));
    found.expect("qcow2.no-snapshots", be32(header, 60) == 0, || format!("{} snapshots", be32(header, 60)));
    if version < 3 {
        return;
    }
    let features = be64(header, 72);
    found.expect("qcow2.no-data-file", features & 4 == 0, || "an external data file".to_owned());
    found.expect("qcow2.clean", features.trailing_zeros() >= 2, || "marked as dirty or damaged".to_owned());
    // Bit 4 (extended L2) is known to QEMU 5.2 and later, but not to the inspector of OpenStack.
    found.expect("qcow2.features", features & !0xf == 0, || format!("incompatible features {features:#x}"));
    let kind = if be32(header, 100) > 104 { header.get(104).copied().unwrap_or(0) } else { 0 };
    found.expect("qcow2.compression", (kind == 0) == (features & 8 == 0) && kind <= 1, || {
        format!("compression type {kind}, features {features:#x}")
    });
}

impl Image<'_, '_> {
    fn cluster(&self) -> u64 {
        1 << self.bits
    }

    /// Bytes of the file are used; whole clusters are counted.
    fn count(&mut self, at: u64, len: u64) -> Result<()> {
        let end = at.checked_add(len).filter(|end| *end <= self.input.len.next_multiple_of(self.cluster()));
        let Some(end) = end else { anyhow::bail!("{len} bytes at {at} are not in the file") };
        for cluster in at >> self.bits..end.div_ceil(self.cluster()) {
            self.used[usize::try_from(cluster)?] += 1;
        }
        Ok(())
    }

    fn table(&mut self, at: u64, len: u64) -> Result<Vec<u8>> {
        anyhow::ensure!(at > 0 && at.is_multiple_of(self.cluster()), "a table stands at {at}: no whole cluster");
        self.count(at, len)?;
        self.input.at(at, len)
    }

    fn walk(&mut self, size: u64, found: &mut Findings) -> Result<()> {
        let (l1_len, l1_at) = (u64::from(be32(&self.header, 36)), be64(&self.header, 40));
        let per_table = self.cluster() / 8;
        let needed = size.div_ceil(self.cluster() * per_table);
        found.expect("qcow2.l1", l1_len >= needed, || format!("{l1_len} entries, the size needs {needed}"));
        let extended = be32(&self.header, 4) == 3 && be64(&self.header, 72) & 16 != 0;
        self.count(0, self.cluster())?;
        let l1 = if l1_len == 0 { Vec::new() } else { self.table(l1_at, l1_len * 8)? };
        let mut copied = Vec::new();
        for entry in l1.chunks_exact(8).map(|entry| be64(entry, 0)).filter(|entry| entry & OFFSET != 0) {
            copied.push((entry & OFFSET, entry & COPIED != 0));
            let l2 = self.table(entry & OFFSET, self.cluster())?;
            for entry in l2.chunks_exact(if extended { 16 } else { 8 }).map(|entry| be64(entry, 0)) {
                self.data(entry, &mut copied)?;
            }
        }
        self.judge_counts(&copied, found)
    }

    fn data(&mut self, entry: u64, copied: &mut Vec<(u64, bool)>) -> Result<()> {
        if entry & COMPRESSED != 0 {
            let shift = 62 - (self.bits - 8);
            let at = entry & ((1 << shift) - 1);
            let sectors = (entry & (COMPRESSED - 1)) >> shift;
            return self.count(at, (at / 512 + sectors + 1) * 512 - at);
        }
        let at = entry & OFFSET;
        if at != 0 {
            anyhow::ensure!(at.is_multiple_of(self.cluster()), "data at {at}: no whole cluster");
            copied.push((at, entry & COPIED != 0));
            self.count(at, self.cluster())?;
        }
        Ok(())
    }

    fn judge_counts(&mut self, copied: &[(u64, bool)], found: &mut Findings) -> Result<()> {
        let (at, clusters) = (be64(&self.header, 48), u64::from(be32(&self.header, 56)));
        let order = if be32(&self.header, 4) == 3 { be32(&self.header, 96) } else { 4 };
        anyhow::ensure!(order <= 6, "refcounts of 2^{order} bits");
        let table = self.table(at, clusters << self.bits)?;
        let mut counts = Vec::new();
        let per_block = (self.cluster() * 8) >> order;
        for entry in table.chunks_exact(8).map(|entry| be64(entry, 0) & OFFSET) {
            if entry == 0 {
                counts.push(None);
                continue;
            }
            counts.push(Some(self.table(entry, self.cluster())?));
        }
        let stored = |cluster: u64| -> u64 {
            let block = usize::try_from(cluster / per_block).ok().and_then(|n| counts.get(n)).and_then(Option::as_ref);
            block.map_or(0, |block| one_count(block, cluster % per_block, order))
        };
        for (cluster, used) in (0..).zip(&self.used) {
            found.expect("qcow2.refcounts", stored(cluster) == u64::from(*used), || {
                format!("cluster {cluster} is used {used} times, {} are counted", stored(cluster))
            });
        }
        for (at, flag) in copied {
            let used = self.used[usize::try_from(at >> self.bits)?];
            found.expect("qcow2.copied", *flag == (used == 1), || format!("the entry of {at}, used {used} times"));
            found.expect("qcow2.once", used == 1, || format!("the cluster at {at} is used {used} times"));
        }
        Ok(())
    }
}

fn one_count(block: &[u8], number: u64, order: u32) -> u64 {
    let at = usize::try_from((number << order) / 8).unwrap_or(usize::MAX);
    match order {
        4 => u64::from(be16(block, at)),
        5 => u64::from(be32(block, at)),
        6 => be64(block, at),
        3 => u64::from(block.get(at).copied().unwrap_or(0)),
        _ => {
            let byte = u64::from(block.get(at).copied().unwrap_or(0));
            byte >> ((number << order) % 8) & ((1 << (1 << order)) - 1)
        }
    }
}
