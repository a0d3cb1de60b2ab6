//! Images that are compressed as a whole.
#![allow(clippy::cast_possible_truncation, reason = "sizes of tests")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};

use skein_image::{Budget, Bytes, Error, Progress, Result, Wrapper, detect_wrapper, unwrap_to};
use support::{MIB, mutants, scattered};

const WRAPPERS: [Wrapper; 3] = [Wrapper::Gzip, Wrapper::Xz, Wrapper::Zstd];

/// Compressed by this library's dependencies where they can, else (xz) by its program.
fn wrap(wrapper: Wrapper, bytes: &[u8]) -> Option<Vec<u8>> {
    match wrapper {
        Wrapper::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            Some(encoder.finish().unwrap())
        }
        Wrapper::Zstd => Some(zstd::stream::encode_all(bytes, 1).unwrap()),
        Wrapper::Xz => by_program("xz", &["-1", "-c"], bytes),
    }
}

fn by_program(program: &str, args: &[&str], bytes: &[u8]) -> Option<Vec<u8>> {
    let child = Command::new(program).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        support::skipped(&format!("there is no {program} on this machine"));
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    let written = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(bytes).unwrap());
        let mut out = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut out).unwrap();
        out
    });
    assert!(child.wait().unwrap().success(), "{program} {args:?}");
    Some(written)
}

fn unwrapped_within(bytes: &dyn Bytes, budget: &Budget) -> Result<Vec<u8>> {
    let mut file = tempfile::tempfile().unwrap();
    // What it held before must not show through.
    file.write_all(&vec![0xaa; 100_000]).unwrap();
    let len = unwrap_to(bytes, &file, budget, &())?;
    let mut whole = Vec::new();
    std::io::Seek::rewind(&mut file).unwrap();
    file.read_to_end(&mut whole).unwrap();
    assert_eq!(len, whole.len() as u64);
    Ok(whole)
}

fn unwrapped(bytes: Vec<u8>) -> Result<Vec<u8>> {
    unwrapped_within(&bytes, &Budget::default())
}

fn disk(size: u64, seed: u64) -> Vec<u8> {
    let mut disk = vec![0; size as usize];
    for (at, bytes) in if size == 0 { Vec::new() } else { scattered(size, 8, seed) } {
        let end = (at as usize + bytes.len()).min(disk.len());
        disk[at as usize..end].copy_from_slice(&bytes[..end - at as usize]);
    }
    disk
}

#[test]
fn what_was_wrapped_comes_out() {
    for size in [0, 1, 511, 65_536, 65_537, 3 * MIB + 7, 9 * MIB] {
        let disk = disk(size, size);
        for wrapper in WRAPPERS {
            let Some(wrapped) = wrap(wrapper, &disk) else { continue };
            assert_eq!(detect_wrapper(&wrapped).unwrap(), Some(wrapper));
            assert!(unwrapped(wrapped).unwrap() == disk, "{wrapper:?} {size}");
        }
    }
}

#[test]
fn what_the_usual_programs_write_comes_out() {
    let disk = disk(5 * MIB + 3, 5);
    for (program, args) in [
        ("gzip", &["-9c"][..]),
        ("xz", &["-9c"]),
        ("xz", &["-c", "--check=sha256", "--block-size=1MiB"]),
        ("zstd", &["-19", "-c"]),
    ] {
        if let Some(wrapped) = by_program(program, args, &disk) {
            assert!(unwrapped(wrapped).unwrap() == disk, "{program} {args:?}");
        }
    }
}

#[test]
fn parts_that_were_joined_come_out_joined() {
    for wrapper in WRAPPERS {
        let (first, second) = (disk(MIB + 5, 1), disk(70_000, 2));
        let (Some(mut wrapped), Some(more)) = (wrap(wrapper, &first), wrap(wrapper, &second)) else { continue };
        wrapped.extend(more);
        assert!(unwrapped(wrapped).unwrap() == [first, second].concat(), "{wrapper:?}");
    }
}

#[test]
fn what_is_zero_takes_no_room() {
    let mut disk = vec![0; 24 << 20];
    disk[20 << 20] = 1;
    for wrapper in WRAPPERS {
        let Some(wrapped) = wrap(wrapper, &disk) else { continue };
        let file = tempfile::tempfile().unwrap();
        assert_eq!(unwrap_to(&wrapped, &file, &Budget::default(), &()).unwrap(), 24 << 20);
        let taken = file.metadata().unwrap().blocks() * 512;
        assert!(taken <= 1 << 18, "{wrapper:?}: {taken} bytes are taken");
    }
}

#[test]
fn bombs_are_stopped_within_the_budget() {
    let budget = Budget { data_bytes_max: 3 * MIB, ..Budget::default() };
    let bomb = vec![b'!'; 16 << 20];
    for wrapper in WRAPPERS {
        let Some(wrapped) = wrap(wrapper, &bomb) else { continue };
        let file = tempfile::tempfile().unwrap();
        let error = unwrap_to(&wrapped, &file, &budget, &()).unwrap_err();
        assert!(matches!(error, Error::OverBudget { limit: "data_bytes_max", .. }), "{wrapper:?}: {error}");
        assert!(file.metadata().unwrap().len() <= 4 * MIB);
    }
    // Zeros are no data, but a disk of them has a size.
    let budget = Budget { virtual_bytes_max: 10 * MIB, ..Budget::default() };
    for wrapper in WRAPPERS {
        let Some(wrapped) = wrap(wrapper, &vec![0; 16 << 20]) else { continue };
        let error = unwrapped_within(&wrapped, &budget).unwrap_err();
        assert!(matches!(error, Error::OverBudget { limit: "virtual_bytes_max", .. }), "{wrapper:?}: {error}");
    }
}

#[test]
fn a_window_that_is_too_large_is_refused() {
    // A frame with a window of 2^31 bytes, a block of one letter.
    let frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3, 0x0b, 0, 0x10, b'!'];
    let error = unwrapped(frame).unwrap_err();
    assert!(error.to_string().contains("memory"), "{error}");
    let Some(mut xz) = wrap(Wrapper::Xz, b"a disk") else { return };
    // The dictionary's size is the last byte of the block header's filter; the header's checksum is made right.
    let at = (12..40).find(|at| xz[*at..*at + 2] == [0x21, 1]).unwrap() + 2;
    xz[at] = 40;
    let end = 12 + (usize::from(xz[12]) + 1) * 4 - 4;
    let mut crc = flate2::Crc::new();
    crc.update(&xz[12..end]);
    xz[end..end + 4].copy_from_slice(&crc.sum().to_le_bytes());
    let error = unwrapped(xz).unwrap_err();
    assert!(error.to_string().contains("window"), "{error}");
}

#[test]
fn what_is_cut_off_or_changed_is_refused() {
    let disk = disk(MIB, 3);
    for wrapper in WRAPPERS {
        let Some(wrapped) = wrap(wrapper, &disk) else { continue };
        for len in [7, wrapped.len() / 2, wrapped.len() - 1] {
            let error = unwrapped(wrapped[..len].to_vec()).unwrap_err();
            assert!(matches!(error, Error::Corrupt(_)), "{wrapper:?} {len}: {error}");
        }
    }
    // gzip and xz have checksums; one of the data's bytes is another.
    for wrapper in [Wrapper::Gzip, Wrapper::Xz] {
        let Some(mut wrapped) = wrap(wrapper, &disk) else { continue };
        let at = wrapped.len() / 2;
        wrapped[at] ^= 0x10;
        assert!(unwrapped(wrapped).is_err(), "{wrapper:?}");
    }
}

#[test]
fn what_is_no_wrapper_is_said_to_be_none() {
    for bytes in [&b""[..], b"\x1f", b"\x1f\x8b\x07", b"BZh9", b"QFI\xfb"] {
        assert_eq!(detect_wrapper(&bytes.to_vec()).unwrap(), None);
        assert!(matches!(unwrapped(bytes.to_vec()).unwrap_err(), Error::Usage(_)));
    }
}

struct Stop;

impl Progress for Stop {
    fn is_cancelled(&self) -> bool {
        true
    }
}

#[test]
fn it_ends_when_nobody_wants_it() {
    let wrapped = wrap(Wrapper::Gzip, &disk(MIB, 3)).unwrap();
    let file: File = tempfile::tempfile().unwrap();
    assert!(matches!(unwrap_to(&wrapped, &file, &Budget::default(), &Stop), Err(Error::Cancelled)));
}

/// Besides what every reader may take: the window that a decoder may ask for.
const PEAK_BYTES_MAX: u64 = mutants::PEAK_BYTES_MAX + 128 * MIB;

#[test]
fn mutants_do_no_harm() {
    let images = || {
        let disk = disk(200_000, 9);
        WRAPPERS.into_iter().filter_map(|wrapper| Some((wrap(wrapper, &disk)?, vec![0..12, 12..40]))).collect()
    };
    let budget = Budget { virtual_bytes_max: 64 * MIB, ..Budget::default() };
    mutants::try_all("mutants_do_no_harm", PEAK_BYTES_MAX, images, |image| {
        unwrapped_within(&image, &budget).map(|_| ())
    });
}
