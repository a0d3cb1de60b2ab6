//! One gzip member made by several threads: each piece is deflated for itself, and the pieces are joined.
//!
//! A deflate stream is a row of blocks, and only the last one bears the final bit. libdeflate, much the fastest, gives
//! whole streams only. So its blocks are walked over to where the last one begins (the final bit is cleared there) and
//! where it ends (an empty stored block follows, which ends at a byte). Nothing is decompressed for that: only the
//! lengths of the codes are followed.

use crate::{Error, Result};

/// Bits, the lowest first.
struct Bits<'a> {
    bytes: &'a [u8],
    /// Next byte to be taken into `held`.
    next: usize,
    held: u64,
    count: u32,
}

impl Bits<'_> {
    /// At least 48 bits, zeros beyond the end.
    #[inline]
    fn fill(&mut self) {
        if let Some(word) = self.bytes.get(self.next..self.next + 8) {
            let word = u64::from_le_bytes(word.try_into().unwrap_or([0; 8]));
            self.held |= word << self.count;
            let taken = (63 - self.count) / 8;
            self.next += taken as usize;
            self.count += taken * 8;
            // What lies above `count` came along and comes again: the same bits, so OR keeps them right.
            return;
        }
        while self.count <= 48 {
            let byte = self.bytes.get(self.next).copied().unwrap_or(0);
            self.held |= u64::from(byte) << self.count;
            self.next += 1;
            self.count += 8;
        }
    }
    #[inline]
    fn skip(&mut self, bits: u32) {
        self.held >>= bits;
        self.count -= bits;
    }
    #[inline]
    fn peek(&self, bits: u32) -> usize {
        usize::try_from(self.held & ((1 << bits) - 1)).unwrap_or(0)
    }
    fn take(&mut self, bits: u32) -> usize {
        self.fill();
        let value = self.peek(bits);
        self.skip(bits);
        value
    }
    /// The place of the next bit.
    fn at(&self) -> usize {
        self.next * 8 - self.count as usize
    }
    fn go_to_byte(&mut self, byte: usize) {
        (self.next, self.held, self.count) = (byte, 0, 0);
    }
}

const MAX_BITS: usize = 15;
const SLOTS: usize = 1 << MAX_BITS;
/// Entries: how many bits the code and what follows it have (low five bits), and what the symbol is. An entry of 0 is
/// no code. They are bytes so that the tables stay in the nearest cache.
const BITS: u8 = 0x1f;
const END: u8 = 0x20;
const LENGTH: u8 = 0x40;

/// Entries by the next bits, as many as the longest code has.
struct Table {
    entries: Vec<u8>,
    mask: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self { entries: vec![0; SLOTS], mask: 0 }
    }
}

impl Table {
    /// `entry` makes that of a symbol, from its number and its code's length.
    fn set(&mut self, lengths: &[u8], entry: impl Fn(usize, u8) -> u8) -> Result<()> {
        let mut counts = [0u32; MAX_BITS + 1];
        for len in lengths {
            counts[usize::from(*len)] += 1;
        }
        counts[0] = 0;
        let longest = counts.iter().rposition(|count| *count > 0).unwrap_or(0);
        self.mask = (1 << longest) - 1;
        self.entries[..=self.mask].fill(0);
        let (mut next, mut code) = ([0u32; MAX_BITS + 1], 0);
        for len in 1..=MAX_BITS {
            code = (code + counts[len - 1]) << 1;
            next[len] = code;
        }
        for (symbol, len) in lengths.iter().enumerate().filter(|(_, len)| **len > 0) {
            let code = &mut next[usize::from(*len)];
            if *code >> len != 0 {
                return Err(wrong());
            }
            let first = usize::try_from(code.reverse_bits() >> (32 - u32::from(*len))).unwrap_or(0);
            *code += 1;
            for slot in self.entries[first..=self.mask].iter_mut().step_by(1 << len) {
                *slot = entry(symbol, *len);
            }
        }
        Ok(())
    }
    #[inline]
    fn get(&self, bits: &Bits<'_>) -> u8 {
        self.entries.get(bits.peek(15) & self.mask).copied().unwrap_or(0)
    }
}

fn wrong() -> Error {
    Error::corrupt("a compressed piece is no deflate stream")
}

fn literal(symbol: usize, len: u8) -> u8 {
    match symbol {
        0..=255 => len,
        256 => END | len,
        257..=264 | 285.. => LENGTH | len,
        _ => LENGTH | (len + u8::try_from((symbol - 261) / 4).unwrap_or(0)),
    }
}

fn distance(symbol: usize, len: u8) -> u8 {
    len + u8::try_from(symbol.saturating_sub(2) / 2).unwrap_or(0)
}

/// Tables, kept from piece to piece.
#[derive(Default)]
pub(super) struct Joiner {
    literals: Table,
    distances: Table,
    code_lengths: Table,
}

impl Joiner {
    /// Makes a whole stream one that others can follow: no final bit, its end at a byte.
    pub(super) fn open_end(&mut self, stream: &mut Vec<u8>) -> Result<()> {
        let (last, end) = self.last_block(stream)?;
        stream[last / 8] &= !(1 << (last % 8));
        stream.truncate(end.div_ceil(8));
        // An empty stored block: three zero bits, zeros up to the byte, its length and the complement. The stream's
        // last byte is filled up with zeros already; do the three bits fit there?
        if end.is_multiple_of(8) || end % 8 > 5 {
            stream.push(0);
        }
        stream.extend_from_slice(&[0, 0, 0xff, 0xff]);
        Ok(())
    }

    /// Bit places: where the last block begins, and behind its end.
    fn last_block(&mut self, stream: &[u8]) -> Result<(usize, usize)> {
        let mut bits = Bits { bytes: stream, next: 0, held: 0, count: 0 };
        loop {
            let begin = bits.at();
            let (last, kind) = (bits.take(1) == 1, bits.take(2));
            match kind {
                0 => stored(&mut bits)?,
                1 => {
                    self.fixed()?;
                    self.skip_symbols(&mut bits)?;
                }
                2 => {
                    self.dynamic(&mut bits)?;
                    self.skip_symbols(&mut bits)?;
                }
                _ => return Err(wrong()),
            }
            if bits.at() > stream.len() * 8 {
                return Err(wrong());
            }
            if last {
                return Ok((begin, bits.at()));
            }
        }
    }

    fn fixed(&mut self) -> Result<()> {
        let mut lengths = [8u8; 288];
        lengths[144..256].fill(9);
        lengths[256..280].fill(7);
        self.literals.set(&lengths, literal)?;
        self.distances.set(&[5; 30], distance)
    }

    fn dynamic(&mut self, bits: &mut Bits<'_>) -> Result<()> {
        const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
        let (literals, distances, coded) = (bits.take(5) + 257, bits.take(5) + 1, bits.take(4) + 4);
        let mut code = [0u8; 19];
        for place in &ORDER[..coded] {
            code[*place] = u8::try_from(bits.take(3)).unwrap_or(0);
        }
        // Here the symbol counts: 19 of them in the upper five bits, a length of at most 7 in the lower three.
        self.code_lengths.set(&code, |symbol, len| u8::try_from(symbol << 3).unwrap_or(0) | len)?;
        let mut lengths = Vec::with_capacity(literals + distances);
        while lengths.len() < literals + distances {
            bits.fill();
            let entry = self.code_lengths.get(bits);
            let len = entry & 7;
            if len == 0 {
                return Err(wrong());
            }
            bits.skip(u32::from(len));
            let (value, times) = match entry >> 3 {
                16 => (lengths.last().copied().ok_or_else(wrong)?, 3 + bits.take(2)),
                17 => (0, 3 + bits.take(3)),
                18 => (0, 11 + bits.take(7)),
                len => (len, 1),
            };
            lengths.resize(lengths.len() + times, value);
        }
        if lengths.len() != literals + distances {
            return Err(wrong());
        }
        self.literals.set(&lengths[..literals], literal)?;
        self.distances.set(&lengths[literals..], distance)
    }

    /// Over the symbols of a block, to behind its end.
    fn skip_symbols(&self, bits: &mut Bits<'_>) -> Result<()> {
        let last_byte = bits.bytes.len() + 16;
        loop {
            bits.fill();
            let mut entry = self.literals.get(bits);
            if entry < END {
                bits.skip(u32::from(entry));
                // What was filled in has room for another code, not for what may follow that one.
                entry = self.literals.get(bits);
                if entry < END {
                    if entry == 0 || bits.next > last_byte {
                        return Err(wrong());
                    }
                    bits.skip(u32::from(entry));
                    continue;
                }
                bits.fill();
            }
            bits.skip(u32::from(entry & BITS));
            if entry & END != 0 {
                return Ok(());
            }
            let entry = self.distances.get(bits);
            if entry == 0 || bits.next > last_byte {
                return Err(wrong());
            }
            bits.skip(u32::from(entry));
        }
    }
}

fn stored(bits: &mut Bits<'_>) -> Result<()> {
    let at = bits.at().div_ceil(8);
    let header = bits.bytes.get(at..at + 4).ok_or_else(wrong)?;
    let len = usize::from(u16::from_le_bytes([header[0], header[1]]));
    bits.go_to_byte(at + 4 + len);
    Ok(())
}

/// CRC-32 of two parts joined, from those of each and the second one's length: the first moves on by `x^(8 len)`
/// modulo the polynomial.
pub(super) fn crc_joined(first: u32, second: u32, len: u64) -> u32 {
    let (mut power, mut factor, mut left) = (1u32 << 31, 1u32 << 23, len);
    while left > 0 {
        if left & 1 == 1 {
            power = times(power, factor);
        }
        factor = times(factor, factor);
        left >>= 1;
    }
    times(power, first) ^ second
}

/// The product of two polynomials modulo CRC-32's, highest power in the lowest bit.
fn times(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    for bit in (0..32).rev() {
        if a >> bit & 1 == 1 {
            product ^= b;
        }
        b = if b & 1 == 1 { b >> 1 ^ 0xedb8_8320 } else { b >> 1 };
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn noise(len: usize, seed: u64, mask: u8) -> Vec<u8> {
        let mut state = seed;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                state.to_le_bytes()[5] & mask
            })
            .collect()
    }

    #[test]
    fn joined_streams_inflate_to_the_joined_data_at_every_level_and_length() {
        let mut joiner = Joiner::default();
        for level in [0, 1, 3, 6, 9] {
            let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::new(level).unwrap());
            let (mut joined, mut data) = (Vec::new(), Vec::new());
            for (n, len) in [0, 1, 2, 7, 100, 4_096, 65_535, 65_536, 300_001, 700_000].into_iter().enumerate() {
                for mask in [0, 3, 31, 255] {
                    let part = noise(len, n as u64, mask);
                    let mut stream = vec![0; compressor.deflate_compress_bound(len)];
                    let written = compressor.deflate_compress(&part, &mut stream).unwrap();
                    stream.truncate(written);
                    joiner.open_end(&mut stream).unwrap();
                    joined.extend_from_slice(&stream);
                    data.extend_from_slice(&part);
                }
            }
            joined.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
            let mut back = Vec::new();
            flate2::read::DeflateDecoder::new(joined.as_slice()).read_to_end(&mut back).unwrap();
            assert!(back == data, "level {level}");
        }
    }

    #[test]
    fn a_joined_crc_is_that_of_the_whole() {
        let data = noise(300_000, 9, 255);
        for cut in [0, 1, 3, 4_096, 299_999, 300_000] {
            let (first, second) = data.split_at(cut);
            let joined = crc_joined(libdeflater::crc32(first), libdeflater::crc32(second), second.len() as u64);
            assert_eq!(joined, libdeflater::crc32(&data), "cut at {cut}");
        }
    }
}
