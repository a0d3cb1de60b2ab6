//! Discrete-event replay of one first-in-first-out queue in front of a fleet of equal servers.
//!
//! Because nothing is killed and the order is the order of arrival, a request starts at the later
//! of its arrival and the moment the first server is free. A heap of those moments is the whole
//! state (the Kiefer-Wolfowitz recursion), so a replay costs one heap update per request.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::numbers::{count, float, rank};

/// What a request asks of the fleet: `(arrival, service)` in microseconds.
pub(crate) type Demand = (u64, u64);

/// A replay that keeps its buffers between runs.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// When each server is next free.
    free_at: BinaryHeap<Reverse<u64>>,
    /// The waits that were not zero.
    waits_us: Vec<u64>,
    requests: usize,
    busy_us: u64,
    end_us: u64,
    servers: u32,
}

impl Queue {
    /// Replays demands (sorted by arrival) against `servers` servers that are all free at first.
    pub(crate) fn replay(&mut self, demands: &[Demand], servers: u32) {
        self.servers = servers.max(1);
        self.requests = demands.len();
        self.waits_us.clear();
        self.busy_us = 0;
        self.end_us = 0;
        self.free_at.clear();
        self.free_at.extend(std::iter::repeat_n(Reverse(0), self.servers as usize));
        for &(arrival, service) in demands {
            let Some(mut first_free) = self.free_at.peek_mut() else {
                return;
            };
            let start = arrival.max(first_free.0);
            if start > arrival {
                self.waits_us.push(start - arrival);
            }
            let end = start + service;
            *first_free = Reverse(end);
            self.busy_us += service;
            self.end_us = self.end_us.max(end);
        }
    }

    /// Nearest-rank percentile of the waits of the last replay, in microseconds.
    pub(crate) fn wait_us(&mut self, percent: usize) -> u64 {
        let at_once = self.requests - self.waits_us.len();
        let wanted = rank(percent, self.requests);
        if wanted <= at_once || self.waits_us.is_empty() {
            return 0;
        }
        let position = (wanted - at_once).min(self.waits_us.len()) - 1;
        *self.waits_us.select_nth_unstable(position).1
    }

    /// Busy time over paid time, 0 to 1: the fleet is paid from 0 to the last end.
    pub(crate) fn utilisation(&self) -> f64 {
        let paid_us = u64::from(self.servers) * self.end_us;
        if paid_us == 0 {
            return 0.0;
        }
        float(self.busy_us) / float(paid_us)
    }

    /// Hours of a slot paid for, from 0 to the last end.
    pub(crate) fn slot_hours(&self) -> f64 {
        f64::from(self.servers) * float(self.end_us) / 3.6e9
    }

    /// Requests that did not start at once.
    pub(crate) fn waited(&self) -> u64 {
        count(self.waits_us.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbers::{SECOND, percentile};
    use crate::random::Random;

    fn replayed(demands: &[Demand], servers: u32) -> Queue {
        let mut queue = Queue::default();
        queue.replay(demands, servers);
        queue
    }

    /// Waits in order of arrival, by a second method: scan all servers for the first free one.
    fn waits_by_scan(demands: &[Demand], servers: usize) -> Vec<u64> {
        let mut free = vec![0_u64; servers];
        demands
            .iter()
            .map(|&(arrival, service)| {
                let server = (0..servers).min_by_key(|&s| free[s]).unwrap();
                let start = arrival.max(free[server]);
                free[server] = start + service;
                start - arrival
            })
            .collect()
    }

    fn random_demands(seed: u64, length: usize) -> Vec<Demand> {
        let mut random = Random::new(seed, 0);
        let mut now = 0;
        (0..length)
            .map(|_| {
                now += u64::from(random.below(300_000));
                (now, 100_000 + u64::from(random.below(900_000)))
            })
            .collect()
    }

    #[test]
    fn a_case_worked_by_hand() {
        // Services of 4 s at 0, 1, 2, 3 s. Two servers: A 0-4, B 1-5, then A 4-8 (waits 2 s),
        // then B 5-9 (waits 2 s).
        let demands: Vec<Demand> = (0..4).map(|s| (s * SECOND, 4 * SECOND)).collect();
        let mut two = replayed(&demands, 2);
        assert_eq!(two.wait_us(50), 0);
        assert_eq!(two.wait_us(95), 2 * SECOND);
        assert_eq!(two.waited(), 2);
        assert_eq!(two.end_us, 9 * SECOND);
        assert!((two.utilisation() - 16.0 / 18.0).abs() < 1e-12);
        assert!((two.slot_hours() - 18.0 / 3600.0).abs() < 1e-12);
        // One server: starts at 0, 4, 8, 12, so waits of 0, 3, 6, 9 s.
        let mut one = replayed(&demands, 1);
        assert_eq!(one.wait_us(50), 3 * SECOND);
        assert_eq!(one.wait_us(100), 9 * SECOND);
        assert!((one.utilisation() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_heap_agrees_with_a_scan() {
        for seed in 0..20 {
            let demands = random_demands(seed, 300);
            for servers in [1, 2, 3, 5, 8] {
                let mut expected = waits_by_scan(&demands, servers);
                let mut queue = replayed(&demands, u32::try_from(servers).unwrap());
                for percent in [1, 50, 95, 99, 100] {
                    assert_eq!(queue.wait_us(percent), percentile(&mut expected, percent));
                }
            }
        }
    }

    #[test]
    fn more_servers_never_wait_longer() {
        for seed in 0..10 {
            let demands = random_demands(seed, 400);
            let mut before = [u64::MAX; 4];
            for servers in 1..12 {
                let mut queue = replayed(&demands, servers);
                let now = [50, 95, 99, 100].map(|percent| queue.wait_us(percent));
                assert!(now.iter().zip(before).all(|(n, b)| *n <= b));
                before = now;
            }
        }
    }

    #[test]
    fn nothing_to_do_costs_nothing() {
        let mut queue = replayed(&[], 3);
        assert_eq!((queue.wait_us(99), queue.end_us), (0, 0));
        assert!(queue.utilisation().abs() < f64::EPSILON);
    }
}
