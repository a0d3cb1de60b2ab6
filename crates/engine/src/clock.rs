//! The one place that reads the clock or draws random bytes.

use ring::rand::SecureRandom as _;
use skein_domain::Timestamp;

/// Now, microseconds since the Unix epoch: the wall clock as it was when the process first asked, and
/// from then on the monotonic clock. A wall clock that is set forward would end every lease at once, and
/// work would start elsewhere while its agent still runs it; one that is set back would hold leases open.
#[expect(clippy::disallowed_methods, reason = "the clock module")]
pub fn now() -> Timestamp {
    static FIRST: std::sync::OnceLock<(std::time::Instant, i64)> = std::sync::OnceLock::new();
    let (since, wall_us) = FIRST.get_or_init(|| {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        (std::time::Instant::now(), i64::try_from(wall.as_micros()).unwrap_or(i64::MAX))
    });
    Timestamp(wall_us.saturating_add(i64::try_from(since.elapsed().as_micros()).unwrap_or(i64::MAX)))
}

/// The system's source of random bytes gives none; nothing safe can be done without.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandom;

/// 32 random bytes.
pub fn random_32() -> Result<[u8; 32], NoRandom> {
    let mut bytes = [0; 32];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(bytes)
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}
