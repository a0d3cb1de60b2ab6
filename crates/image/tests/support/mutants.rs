//! Good images, changed at random from a seed, read by a process of its own: none may panic, take long, or take much
//! memory. `SKEIN_MUTANTS` says how many of each kind; then the figures are written out.

use std::ops::Range;
use std::time::Duration;

use skein_image::Result;

use super::{Dice, MIB, usage};

/// Of each kind, where nothing else is said.
const MUTANTS: u64 = 1_000;
/// CPU time that one may take.
const CPU_MAX: Duration = Duration::from_secs(2);
/// Memory that a reader may take: the tables that the default budget allows, and as much again for what is read, the
/// mutants and the harness around them.
pub(crate) const PEAK_BYTES_MAX: u64 = 2 * 48 * MIB;

/// An image and where its tables are.
pub(crate) type Good = (Vec<u8>, Vec<Range<usize>>);

/// Tries mutants of `images`. `test` is the name of the test that calls.
pub(crate) fn try_all(
    test: &str,
    peak_bytes_max: u64,
    images: impl FnOnce() -> Vec<Good>,
    mut try_one: impl FnMut(Vec<u8>) -> Result<()>,
) {
    let wanted = std::env::var("SKEIN_MUTANTS").ok();
    let count = wanted.as_ref().map_or(MUTANTS, |count| count.parse().unwrap());
    let used = usage::alone(test, || {
        let images = images();
        for (image, _) in &images {
            try_one(image.clone()).expect("the image that is changed must itself be good");
        }
        let (mut dice, mut refused, mut slowest) = (Dice(2024), 0, Duration::ZERO);
        for n in 0..count {
            let (image, hot) = &images[usize::try_from(n).unwrap() % images.len()];
            let mut image = image.clone();
            mutate(&mut image, &mut dice, hot);
            let began = usage::thread_cpu();
            refused += u64::from(try_one(image).is_err());
            let took = usage::thread_cpu().saturating_sub(began);
            assert!(took < CPU_MAX, "mutant {n} took {took:?} of CPU");
            slowest = slowest.max(took);
        }
        // Both happen: the mutants are neither all harmless nor all broken at once.
        assert!(refused > count / 20 && refused < count, "{refused} of {count} were refused");
        println!("\n{count} mutants, {refused} refused, the slowest took {} ms of CPU", slowest.as_millis());
    });
    let Some(used) = used else { return };
    let figures = used.said.lines().find_map(|line| line.find(" mutants, ").map(|_| line)).expect("the figures");
    assert!(used.peak_bytes < peak_bytes_max, "{} MiB at the most; {figures}", used.peak_bytes / MIB);
    if wanted.is_some() {
        super::said(&format!("{test}: {figures}, {} MiB at the most", used.peak_bytes / MIB));
    }
}

/// Changes up to four places, most of them where the tables are.
pub(crate) fn mutate(bytes: &mut Vec<u8>, dice: &mut Dice, hot: &[Range<usize>]) {
    for _ in 0..=dice.below(4) {
        let range = &hot[usize::try_from(dice.below(hot.len() as u64)).unwrap()];
        let span = if dice.below(8) == 0 { 0..bytes.len() } else { range.start..range.end.min(bytes.len()) };
        if span.is_empty() {
            continue;
        }
        let at = span.start + usize::try_from(dice.below(span.len() as u64)).unwrap();
        match dice.below(8) {
            0 => bytes[at] ^= 1 << dice.below(8),
            1 => bytes[at] = 0xff,
            2 => bytes[at] = 0,
            3 if dice.below(3) == 0 => bytes.truncate(at.max(1)),
            3 | 4 => bytes[at] = dice.roll().to_le_bytes()[0],
            _ => number(bytes, at, dice),
        }
    }
}

/// A number that is a limit, or a place that exists, where a table would have one.
fn number(bytes: &mut [u8], at: usize, dice: &mut Dice) {
    let number = match dice.below(4) {
        0 => u64::MAX,
        1 => 0,
        2 => 1 << dice.below(64),
        _ => dice.below(bytes.len() as u64) / 512 * 512,
    };
    let (at, len) = (at / 4 * 4, if dice.below(2) == 0 { 8 } else { 4 });
    let stored = if dice.below(2) == 0 {
        number.to_be_bytes()[8 - len..].to_vec()
    } else {
        number.to_le_bytes()[..len].to_vec()
    };
    for (to, byte) in bytes[at..].iter_mut().zip(stored) {
        *to = byte;
    }
}
