//! Google: a gzipped tar in the old GNU form whose only member is `disk.raw`.

use std::io::{BufRead as _, BufReader, Read};

use anyhow::{Context as _, Result, bail};

use crate::input::{Input, is_zero};
use crate::tar::{self, Header, RECORD, number};
use crate::{Findings, GIB, gpt};

/// What is kept of the disk's beginning and end, for its partition tables, bytes.
const EDGE: u64 = 1 << 20;
/// Runs of data that a disk may have here.
const RUNS_MAX: usize = 8 << 20;

pub(crate) fn check(input: &Input<'_>, found: &mut Findings) {
    let Some(head) = found.readable("gce.gzip", input.at(0, 10)) else { return };
    if head[..3] != [0x1f, 0x8b, 8] {
        return found.broken("gce.gzip", "it does not begin like a gzip with deflate");
    }
    let mut gzip = flate2::bufread::GzDecoder::new(BufReader::with_capacity(1 << 18, input.file));
    let archive = archive(&mut gzip, found);
    if found.readable("gce.gzip", archive).is_none() {
        return;
    }
    let rest = std::io::copy(&mut gzip, &mut std::io::sink()).context("the gzip");
    if found.readable("gce.gzip", rest).is_some() {
        let more = gzip.into_inner().fill_buf().is_ok_and(|rest| !rest.is_empty());
        found.expect("gce.gzip", !more, || "bytes follow behind the first gzip member".to_owned());
    }
}

/// The whole tar. An error is one of the gzip: the tar's own are in `found`.
fn archive(from: &mut dyn Read, found: &mut Findings) -> Result<()> {
    let Some(Some(header)) = found.readable("gce.tar", tar::header(&record(from)?)) else {
        found.broken("gce.tar", "there is no member");
        return Ok(());
    };
    found.expect("gce.member", header.name == "disk.raw", || format!("the first member is '{}'", header.name));
    found.expect("gce.old-gnu", header.magic == *b"ustar  \0" && matches!(header.kind, b'0' | b'S'), || {
        format!("magic '{}', type '{}'", header.magic.escape_ascii(), char::from(header.kind))
    });
    found.expect("gce.tar-sum", header.sum_is_right, || "the header's checksum is wrong".to_owned());
    let map = map(&header, from)?;
    let Some((size, runs)) = found.readable("gce.map", map) else { return Ok(()) };
    found.expect("gce.size", size > 0 && size.is_multiple_of(GIB), || format!("{size} bytes are no whole GiB"));
    judge_map(&header, size, &runs, found);
    let mut edges = Edges { size, first: vec![0; edge(size)], last: vec![0; edge(size)] };
    let mut left = header.size;
    for (offset, len) in runs {
        edges.take(offset, len.min(left), from)?;
        left -= len.min(left);
    }
    skip(from, left + padding(header.size))?;
    end(from, found)?;
    gpt::check(size, &|offset, len| edges.read(offset, len), found);
    Ok(())
}

fn record(from: &mut dyn Read) -> Result<Vec<u8>> {
    let mut record = vec![0; RECORD];
    from.read_exact(&mut record).context("the gzip ends early or is damaged")?;
    Ok(record)
}

fn padding(len: u64) -> u64 {
    len.next_multiple_of(RECORD as u64) - len
}

fn skip(from: &mut dyn Read, len: u64) -> Result<()> {
    let skipped = std::io::copy(&mut from.take(len), &mut std::io::sink())?;
    if skipped < len {
        bail!("the gzip ends {} bytes early", len - skipped)
    }
    Ok(())
}

type Map = Result<(u64, Vec<(u64, u64)>)>;

/// The disk's size and its runs of data. The outer error is one of reading.
fn map(header: &Header, from: &mut dyn Read) -> Result<Map> {
    if header.kind != b'S' {
        return Ok(Ok((header.size, vec![(0, header.size)])));
    }
    let mut runs = Vec::new();
    let mut take = |entries: &[u8]| -> Result<()> {
        for entry in entries.chunks_exact(24).filter(|entry| entry[0] != 0) {
            runs.push((number(&entry[..12])?, number(&entry[12..])?));
        }
        if runs.len() > RUNS_MAX {
            bail!("the map has over {RUNS_MAX} entries")
        }
        Ok(())
    };
    let mut more = header.bytes[482] != 0;
    if let Err(error) = take(&header.bytes[386..482]) {
        return Ok(Err(error));
    }
    while more {
        let record = record(from)?;
        if let Err(error) = take(&record[..504]) {
            return Ok(Err(error));
        }
        more = record[504] != 0;
    }
    Ok(number(&header.bytes[483..495]).map(|size| (size, runs)))
}

fn judge_map(header: &Header, size: u64, runs: &[(u64, u64)], found: &mut Findings) {
    let stored: u64 = runs.iter().map(|run| run.1).sum();
    found.expect("gce.map", stored == header.size, || format!("{stored} bytes in the map, {} stored", header.size));
    let ordered = runs.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0);
    let within = runs.iter().all(|(offset, len)| offset.checked_add(*len).is_some_and(|end| end <= size));
    found.expect("gce.map", ordered && within, || "runs of data overlap or leave the disk".to_owned());
    let closed = runs.last().is_some_and(|(offset, len)| offset + len == size);
    found.expect("gce.map", closed, || "the map does not reach the disk's end".to_owned());
}

fn end(from: &mut dyn Read, found: &mut Findings) -> Result<()> {
    for _ in 0..2 {
        let record = record(from)?;
        if let Ok(Some(header)) = tar::header(&record) {
            found.broken("gce.member", format!("a second member, '{}'", header.name));
            return Ok(());
        }
    }
    let mut rest = Vec::new();
    from.take(1 << 20).read_to_end(&mut rest)?;
    found.expect("gce.tar", is_zero(&rest), || "something follows behind the archive's end".to_owned());
    Ok(())
}

fn edge(size: u64) -> usize {
    usize::try_from(size.min(EDGE)).unwrap_or(0)
}

/// The disk's beginning and end.
struct Edges {
    size: u64,
    first: Vec<u8>,
    last: Vec<u8>,
}

impl Edges {
    fn take(&mut self, offset: u64, len: u64, from: &mut dyn Read) -> Result<()> {
        let (mut at, end, mut buffer) = (offset, offset + len, vec![0; 1 << 16]);
        while at < end {
            let part = usize::try_from((end - at).min(buffer.len() as u64))?;
            from.read_exact(&mut buffer[..part]).context("the gzip ends early or is damaged")?;
            let start = self.size - self.last.len() as u64;
            for (edge, base) in [(&mut self.first, 0), (&mut self.last, start)] {
                copy_shared(edge, base, &buffer[..part], at);
            }
            at += part as u64;
        }
        Ok(())
    }
    fn read(&self, offset: u64, len: u64) -> Result<Vec<u8>> {
        let start = self.size - self.last.len() as u64;
        for (edge, base) in [(&self.first, 0), (&self.last, start)] {
            let from = offset.checked_sub(base).and_then(|from| usize::try_from(from).ok());
            let part = from.and_then(|from| edge.get(from..from.checked_add(usize::try_from(len).ok()?)?));
            if let Some(part) = part {
                return Ok(part.to_vec());
            }
        }
        bail!("{len} bytes at {offset} are neither at the disk's beginning nor at its end")
    }
}

/// What `part` at `at` shares with `edge` at `base`.
fn copy_shared(edge: &mut [u8], base: u64, part: &[u8], at: u64) {
    let (from, to) = (at.max(base), (at + part.len() as u64).min(base + edge.len() as u64));
    if from < to {
        let place = |offset: u64, base: u64| usize::try_from(offset - base).unwrap_or(0);
        edge[place(from, base)..place(to, base)].copy_from_slice(&part[place(from, at)..place(to, at)]);
    }
}
