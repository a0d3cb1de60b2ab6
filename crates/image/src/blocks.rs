//! The engine of every writer: a disk in blocks, zero blocks left out, worked on by several threads, handed on in
//! order.
//!
//! ```text
//! cursor (skips zero extents) --claims--> thread: read, drop zero blocks, work --+
//!                             --claims--> thread: ...                            +--> put, in order
//! ```
//! A thread claims [`SPAN_BYTES`] at a time. At most [`SPANS_AHEAD`] spans a thread are under way, so that memory
//! does not depend on the disk's size. The first error ends all.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::convert::Progress;
use crate::{Disk, Error, Kind, Result};

/// Bytes a thread claims at a time.
const SPAN_BYTES: u64 = 1 << 20;
/// Spans under way, for each thread.
const SPANS_AHEAD: u64 = 4;

/// How to go over a disk.
pub(crate) struct Walk<'a> {
    pub(crate) disk: &'a dyn Disk,
    /// Bytes of a block: a power of two.
    pub(crate) block_bytes: usize,
    pub(crate) threads: usize,
    pub(crate) progress: &'a dyn Progress,
}

struct State<T> {
    /// Where the next span begins.
    next: u64,
    /// Number of the next span to be claimed, and of the next to be handed on.
    claimed: u64,
    handed_on: u64,
    done: BTreeMap<u64, Vec<(u64, T)>>,
    /// Disk offset up to which each claimed span reaches, for progress.
    ends: BTreeMap<u64, u64>,
    failed: Option<Error>,
    /// Threads that still work.
    working: usize,
}

impl Walk<'_> {
    /// Hands each block that is not all zero, worked on by `work`, to `put`, in order: block number and result. The
    /// last block is filled up with zeros. `fresh` makes what a thread keeps from block to block (a compressor).
    pub(crate) fn run<K, T: Send>(
        &self,
        fresh: impl Fn() -> K + Sync,
        work: impl Fn(&mut K, u64, &[u8]) -> Result<T> + Sync,
        mut put: impl FnMut(u64, T) -> Result<()>,
    ) -> Result<()> {
        let threads = self.threads.max(1);
        let state = Mutex::new(State {
            next: 0,
            claimed: 0,
            handed_on: 0,
            done: BTreeMap::new(),
            ends: BTreeMap::new(),
            failed: None,
            working: threads,
        });
        let changed = Condvar::new();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let worked = self.thread(&state, &changed, &fresh, &work);
                    let mut state = lock(&state);
                    state.working -= 1;
                    if let Err(error) = worked {
                        state.failed.get_or_insert(error);
                    }
                    drop(state);
                    changed.notify_all();
                });
            }
            let handed = self.hand_on(&state, &changed, &mut put);
            if let Err(error) = handed {
                lock(&state).failed.get_or_insert(error);
                changed.notify_all();
            }
        });
        match state.into_inner().unwrap_or_else(PoisonError::into_inner).failed {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn thread<K, T>(
        &self,
        state: &Mutex<State<T>>,
        changed: &Condvar,
        fresh: &impl Fn() -> K,
        work: &impl Fn(&mut K, u64, &[u8]) -> Result<T>,
    ) -> Result<()> {
        let (mut kept, mut buffer) = (fresh(), Vec::new());
        let ahead = SPANS_AHEAD * self.threads.max(1) as u64;
        loop {
            let mut now = lock(state);
            while now.failed.is_none() && now.claimed - now.handed_on >= ahead {
                now = changed.wait(now).unwrap_or_else(PoisonError::into_inner);
            }
            if now.failed.is_some() {
                return Ok(());
            }
            let Some((from, to)) = self.next_span(now.next)? else { return Ok(()) };
            let number = now.claimed;
            now.claimed += 1;
            now.next = to;
            now.ends.insert(number, to);
            drop(now);
            if self.progress.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let results = self.span(from, to, &mut buffer, &mut kept, work)?;
            lock(state).done.insert(number, results);
            changed.notify_all();
        }
    }

    /// The next part of the disk, from `from` on, that may hold something: whole blocks.
    fn next_span(&self, from: u64) -> Result<Option<(u64, u64)>> {
        let (size, block) = (self.disk.size(), self.block_bytes as u64);
        let mut at = from;
        while at < size {
            let extent = self.disk.extent_at(at)?;
            if extent.kind == Kind::Data {
                let first = at / block * block;
                let span = SPAN_BYTES.max(block);
                return Ok(Some((first.max(from), (first + span).min(size))));
            }
            at = at.saturating_add(extent.len.max(1));
        }
        Ok(None)
    }

    fn span<K, T>(
        &self,
        from: u64,
        to: u64,
        buffer: &mut Vec<u8>,
        kept: &mut K,
        work: &impl Fn(&mut K, u64, &[u8]) -> Result<T>,
    ) -> Result<Vec<(u64, T)>> {
        let len = usize::try_from(to - from).unwrap_or(usize::MAX);
        // Only what is not read over is made zero.
        buffer.resize(len.next_multiple_of(self.block_bytes), 0);
        buffer[len..].fill(0);
        self.disk.read_at(from, &mut buffer[..len])?;
        let mut results = Vec::new();
        for (n, block) in buffer.chunks_exact(self.block_bytes).enumerate() {
            if !is_zero(block) {
                let number = from / self.block_bytes as u64 + n as u64;
                results.push((number, work(kept, number, block)?));
            }
        }
        Ok(results)
    }

    fn hand_on<T>(
        &self,
        state: &Mutex<State<T>>,
        changed: &Condvar,
        put: &mut impl FnMut(u64, T) -> Result<()>,
    ) -> Result<()> {
        let mut now = lock(state);
        loop {
            if now.failed.is_some() {
                return Ok(());
            }
            let number = now.handed_on;
            if let Some(results) = now.done.remove(&number) {
                let end = now.ends.remove(&number).unwrap_or(0);
                drop(now);
                for (block, result) in results {
                    put(block, result)?;
                }
                self.progress.at(end);
                now = lock(state);
                now.handed_on += 1;
                changed.notify_all();
            } else if now.working == 0 {
                return Ok(());
            } else {
                now = changed.wait(now).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

fn lock<T>(state: &Mutex<State<T>>) -> std::sync::MutexGuard<'_, State<T>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Are all bytes zero? Compared in steps that the compiler turns into vector instructions.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (head, rest) = bytes.split_at(bytes.len().min(64));
    head.iter().all(|b| *b == 0) && rest.chunks(4096).all(|part| part.iter().fold(0, |sum, byte| sum | byte) == 0)
}

/// The runs of pieces of `piece` bytes that are not all zero.
pub(crate) fn runs(bytes: &[u8], piece: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let piece_at = |at: usize| &bytes[at..bytes.len().min(at + piece)];
        while at < bytes.len() && is_zero(piece_at(at)) {
            at = bytes.len().min(at + piece);
        }
        let from = at;
        while at < bytes.len() && !is_zero(piece_at(at)) {
            at = bytes.len().min(at + piece);
        }
        (from < at).then_some(from..at)
    })
}

/// Buffers for blocks that go from a thread to the writer, and back when they are written: memory that is given
/// back to the system and asked for again costs more than the copy.
#[derive(Default)]
pub(crate) struct Spare(Mutex<Vec<Vec<u8>>>);

impl Spare {
    /// A copy of the block.
    pub(crate) fn copy(&self, block: &[u8]) -> Vec<u8> {
        let mut buffer = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(block);
        buffer
    }
    /// It was written.
    pub(crate) fn give_back(&self, buffer: Vec<u8>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}
