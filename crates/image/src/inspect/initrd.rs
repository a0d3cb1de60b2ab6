//! The names of what is in an initial RAM disk: cpio archives one behind the other, the last one compressed.
//! <https://docs.kernel.org/driver-api/early-userspace/buffer-format.html>

use std::collections::BTreeSet;
use std::io::Read;

/// Most bytes that one gives, unpacked.
const UNPACKED_BYTES_MAX: u64 = 512 << 20;
/// Length of a "newc" header.
const HEADER: usize = 110;
/// Longest name in an archive, bytes.
const NAME_BYTES_MAX: usize = 4096;

/// Kernel modules in it, without their ending; none when it is packed in a way that is not read here.
pub(super) fn modules(initrd: &[u8]) -> Option<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut rest = initrd;
    loop {
        while let [0, more @ ..] = rest {
            rest = more;
        }
        if rest.is_empty() {
            return Some(found);
        }
        if rest.starts_with(b"07070") {
            let (names, used) = archive(rest);
            found.extend(names.iter().filter_map(|name| module(name)));
            // Not even a header: what follows is no archive.
            rest = rest.get(used.max(HEADER)..).unwrap_or_default();
            continue;
        }
        let unpacked = unpack(rest)?;
        let (names, _) = archive(&unpacked);
        found.extend(names.iter().filter_map(|name| module(name)));
        return Some(found);
    }
}

fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let mut unpacked = Vec::new();
    let reader: Box<dyn Read> = match packed {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::GzDecoder::new(packed)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::stream::read::Decoder::new(packed).ok()?),
        _ => return None,
    };
    // What comes behind a damaged place is not needed: the names up to there are.
    let read = reader.take(UNPACKED_BYTES_MAX).read_to_end(&mut unpacked);
    (read.is_ok() || !unpacked.is_empty()).then_some(unpacked)
}

/// Names in an archive, and where it ends.
fn archive(bytes: &[u8]) -> (Vec<String>, usize) {
    let (mut names, mut at) = (Vec::new(), 0);
    while let Some(header) = bytes.get(at..at + HEADER).filter(|header| header.starts_with(b"07070")) {
        let number = |field: usize| {
            let text = header.get(6 + field * 8..14 + field * 8).and_then(|text| std::str::from_utf8(text).ok());
            text.and_then(|text| usize::from_str_radix(text, 16).ok()).unwrap_or(0)
        };
        let (size, name_len) = (number(6), number(11).min(NAME_BYTES_MAX));
        let name = bytes.get(at + HEADER..at + HEADER + name_len).unwrap_or_default();
        let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
        let content = (at + HEADER + name_len).next_multiple_of(4);
        at = content.saturating_add(size).min(bytes.len()).next_multiple_of(4);
        if name == "TRAILER!!!" {
            break;
        }
        names.push(name);
    }
    (names, at)
}

/// The module that a file holds, under the name that the kernel gives it.
pub(super) fn module(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let (name, ending) = file.split_once(".ko")?;
    matches!(ending, "" | ".xz" | ".zst" | ".gz").then(|| name.replace('-', "_"))
}
