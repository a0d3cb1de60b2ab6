//! What the tests of uploads share.

pub mod aws;
pub mod child;
pub mod emulator;
pub mod fake_ebs;
pub mod image;
pub mod openstack;
pub mod proxy;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use skein_cloud::{Retry, Surroundings};

/// Numbers from a seed: the same in every run.
pub struct Seed(pub u64);

impl Seed {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ self.0 >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ mixed >> 32
    }
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(len);
        bytes
    }
}

/// The real time (signatures need it), and chance from a seed.
pub fn surroundings() -> Surroundings {
    let drawn = AtomicU64::new(1);
    Surroundings {
        now: Arc::new(jiff::Timestamp::now),
        random: Arc::new(move || Seed(drawn.fetch_add(1, Ordering::Relaxed)).next()),
    }
}

/// Impatient: tests inject more faults than a bad day has.
pub fn retry() -> Retry {
    Retry { tries_max: 12, first_wait_ms: 5, wait_max_ms: 200, ..Retry::default() }
}

/// Says that something is not tested here.
pub fn skipped(why: &str) {
    use std::io::Write as _;
    std::io::stderr().write_all(format!("SKIPPED: {why}\n").as_bytes()).unwrap();
}

/// Waits for a condition; `what` names it when it does not come.
#[expect(clippy::disallowed_methods, reason = "a test's deadline")]
pub async fn until(what: &str, seconds: u64, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: not within {seconds} s");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
