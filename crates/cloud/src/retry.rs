//! When a request is tried again, and after how long.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often and how patiently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Tries of one request, the first included.
    pub tries_max: u32,
    /// Longest wait before the second try, ms; it doubles from try to try.
    pub first_wait_ms: u64,
    /// Longest wait of our own choice, ms.
    pub wait_max_ms: u64,
    /// Longest wait that a service may ask for, ms; if it asks for more, the request fails at once.
    pub retry_after_max_ms: u64,
}

impl Default for Retry {
    fn default() -> Self {
        Self { tries_max: 8, first_wait_ms: 250, wait_max_ms: 20_000, retry_after_max_ms: 120_000 }
    }
}

impl Retry {
    /// How long to wait after this many tries: anything up to the backoff ("full jitter", so that many clients that
    /// were cut together do not come back together), but not less than the service asked for. None: not again.
    pub fn wait(&self, tries: u32, asked: Option<Duration>, random: u64) -> Option<Duration> {
        if tries >= self.tries_max {
            return None;
        }
        let asked_ms = asked.map_or(0, |asked| u64::try_from(asked.as_millis()).unwrap_or(u64::MAX));
        if asked_ms > self.retry_after_max_ms {
            return None;
        }
        let doubled = self.first_wait_ms.saturating_mul(1 << tries.saturating_sub(1).min(20));
        let most = doubled.min(self.wait_max_ms);
        Some(Duration::from_millis(asked_ms + random % (most + 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_are_random_end_and_honour_what_the_service_asks() {
        let retry = Retry::default();
        let ms = |tries, asked, random| retry.wait(tries, asked, random).map(|wait| wait.as_millis());
        assert_eq!(ms(1, None, 250), Some(250));
        assert_eq!(ms(3, None, 1_000), Some(1_000));
        assert_eq!(
            Retry { tries_max: 99, ..retry }.wait(40, None, 20_000).map(|w| w.as_millis()),
            Some(20_000),
            "wait_max_ms"
        );
        assert_eq!(ms(8, None, 0), None, "tries_max");
        assert_eq!(ms(1, Some(Duration::from_secs(3)), 0), Some(3_000));
        assert_eq!(ms(1, Some(Duration::from_secs(121)), 0), None, "retry_after_max_ms");
    }
}
