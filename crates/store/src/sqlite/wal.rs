//! The write-ahead log as it lies on the disk, looked at before the database opens it.
//!
//! SQLite takes the first frame that is not right for the end of the log. After a power cut that is what it is:
//! the transaction that was being written is there in part. But every turn is synced before the next begins, so
//! a frame of a later transaction says that the bad one was whole once, and that acknowledged turns would go
//! without a word. The format is that of <https://www.sqlite.org/fileformat2.html#walformat>.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// The lowest bit says in which order of bytes the sums are made.
const MAGIC: u32 = 0x377F_0682;
/// The size of our pages, should the log's header not tell.
const PAGE: u32 = 4096;

/// A cumulative checksum.
type Sum = (u32, u32);

/// What is wrong with the log at `path`, if acknowledged turns are lost by it.
pub(super) fn damage(path: &Path) -> std::io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut from = BufReader::with_capacity(1 << 20, file);
    let mut header = [0; HEADER];
    if !filled(&mut from, &mut header)? {
        return Ok(None);
    }
    let log = Log::of(&header);
    let bad = log.salts.is_none().then_some(Bad { at: 0, ended: false, says_end: false });
    let mut scan = Scan { log, chain: log.start, at: 0, committed: None, bad };
    let mut frame = vec![0; FRAME_HEADER + log.page];
    while filled(&mut from, &mut frame)? {
        if let Some(bad) = scan.take(&frame) {
            let at = HEADER + bad * frame.len();
            return Ok(Some(match log.salts {
                Some(_) => {
                    format!("its write-ahead log is spoilt at byte {at}, and acknowledged turns stand behind that")
                }
                None => "the head of its write-ahead log is spoilt, and acknowledged turns stand behind it".to_owned(),
            }));
        }
    }
    Ok(None)
}

/// Reads a whole buffer; false when the file ends before.
fn filled(from: &mut impl Read, to: &mut [u8]) -> std::io::Result<bool> {
    match from.read_exact(to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(four)
}

/// What the log's header says.
#[derive(Debug, Clone, Copy)]
struct Log {
    big_endian: bool,
    page: usize,
    /// Frames with others are left from before the log began anew. None: the header is spoilt.
    salts: Option<Sum>,
    start: Sum,
}

impl Log {
    fn of(header: &[u8; HEADER]) -> Self {
        let big_endian = word(header, 0) == MAGIC | 1;
        let start = (word(header, 24), word(header, 28));
        let right = word(header, 0) & !1 == MAGIC && sum(big_endian, (0, 0), &header[..24]) == start;
        let page = match word(header, 8) {
            1 => 1 << 16,
            size if right => size,
            _ => PAGE,
        };
        let salts = right.then(|| (word(header, 16), word(header, 20)));
        Self { big_endian, page: page as usize, salts, start }
    }
}

fn sum(big_endian: bool, start: Sum, bytes: &[u8]) -> Sum {
    bytes.chunks_exact(8).fold(start, |(one, two), eight| {
        let read = |at| if big_endian { word(eight, at) } else { word(eight, at).swap_bytes() };
        let one = one.wrapping_add(read(0)).wrapping_add(two);
        (one, two.wrapping_add(read(4)).wrapping_add(one))
    })
}

/// The way through the frames, in order.
struct Scan {
    log: Log,
    /// The sum that the frame before holds.
    chain: Sum,
    at: usize,
    /// The last transaction before the bad frame: its last frame, and the size of the database then, in pages.
    committed: Option<(usize, u32)>,
    bad: Option<Bad>,
}

/// The first frame that is not right, and what came after it.
struct Bad {
    at: usize,
    /// A transaction has ended behind it.
    ended: bool,
    /// The frame before this one says that a transaction ends with it.
    says_end: bool,
}

impl Scan {
    /// Takes the next frame. The bad frame's number, as soon as there is one of a later transaction.
    fn take(&mut self, frame: &[u8]) -> Option<usize> {
        let (number, pages, stored) = (word(frame, 0), word(frame, 4), (word(frame, 16), word(frame, 20)));
        let salts = (word(frame, 8), word(frame, 12));
        let ours = number != 0 && salts == *self.log.salts.get_or_insert(salts);
        let linked = ours && self.sum_of(pages, frame) == stored;
        let plausible = ours && pages >= number && self.could_be(pages) && self.sum_of(0, frame) != stored;
        let found = match &mut self.bad {
            None if linked => {
                if pages != 0 {
                    self.committed = Some((self.at, pages));
                }
                None
            }
            None => {
                self.bad = Some(Bad { at: self.at, ended: false, says_end: plausible });
                None
            }
            // Its sum continues that of the frame before, so both were written one after the other.
            Some(bad) if linked && (bad.ended || bad.says_end) => Some(bad.at),
            Some(bad) => {
                bad.ended |= linked && pages != 0;
                bad.says_end = plausible;
                None
            }
        };
        (self.chain, self.at) = (stored, self.at + 1);
        found
    }

    /// What a frame's sum has to be, with this for the size of the database at the end of its transaction.
    fn sum_of(&self, pages: u32, frame: &[u8]) -> Sum {
        let mut start = [0; 8];
        start[..4].copy_from_slice(&frame[..4]);
        start[4..].copy_from_slice(&pages.to_be_bytes());
        let start = sum(self.log.big_endian, self.chain, &start);
        sum(self.log.big_endian, start, &frame[FRAME_HEADER..])
    }

    /// Could the database have this size after the transaction of the frame? It only grows.
    fn could_be(&self, pages: u32) -> bool {
        self.committed.is_none_or(|(end, before)| pages >= before && (pages - before) as usize <= self.at - end)
    }
}
