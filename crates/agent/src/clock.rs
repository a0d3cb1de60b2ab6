//! The only place in this crate that reads a clock or draws a random number.

use ring::rand::{SecureRandom, SystemRandom};
use rustix::time::{ClockId, clock_gettime};

/// Microseconds since this machine booted, time asleep included: a lease must run out also while
/// a laptop sleeps or a VM is suspended, which `CLOCK_MONOTONIC` would not see.
pub fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds * 1_000_000 + nanos / 1000
}

/// Milliseconds since this machine booted, time asleep included.
pub fn now_ms() -> u64 {
    now_us() / 1000
}

/// Random bytes of the operating system. Zeros when it has none, which no supported system says.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        tracing::error!("the operating system gives no random bytes");
    }
    bytes
}

/// A random text of 32 hexadecimal digits.
pub(crate) fn random_hex() -> String {
    use std::fmt::Write as _;
    random_bytes::<16>().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").ok();
        text
    })
}

/// `ms` less a random part of up to a half, so that many agents do not come back in one moment.
pub(crate) fn jittered(ms: u64) -> u64 {
    let draw = u64::from(u16::from_le_bytes(random_bytes::<2>()));
    ms - ms / 2 * draw / u64::from(u16::MAX)
}

/// The wall clock, for the age of cached files only: it may jump.
#[allow(clippy::disallowed_methods, reason = "this is the clock module")]
pub(crate) fn wall() -> std::time::SystemTime {
    std::time::SystemTime::now()
}
