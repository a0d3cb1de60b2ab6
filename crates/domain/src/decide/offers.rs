//! Which of several shared solutions takes a class of items, and which of several machines is bought for it.
//!
//! Both are ranked by what a second of these very items costs there: a solution by its price, rounding, least
//! billed time, request fee and cold start; a machine by its price over the slots of it that are really used.
//! Whatever could not take the items, or not in time, is out, and says why.

use std::fmt;

use super::guard::{MachineFacts, SharedFacts};
use super::patience::PPM;
use crate::quantity::NanoUsd;

/// What is known of a class of items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lengths {
    /// How long they typically last, us.
    pub typical_us: u64,
    /// How long one may last at most, us; nothing when that is not known.
    pub longest_us: Option<u64>,
    /// How long one may wait, us.
    pub allowed_wait_us: u64,
}

/// Why a place is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Out {
    /// The cloud ends an invocation after this, us; and the items may last this long.
    TooLong {
        /// The cloud's limit.
        timeout_us: u64,
        /// The longest item.
        longest_us: u64,
    },
    /// It is not known how long items last, and the cloud ends an invocation after this, us.
    LengthUnknown {
        /// The cloud's limit.
        timeout_us: u64,
    },
    /// It starts later than an item may wait.
    TooSlow {
        /// 99 of 100 cold starts, us.
        cold_us: u64,
        /// What is allowed, us.
        allowed_us: u64,
    },
}

impl fmt::Display for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = |us: &u64| us / 1_000_000;
        match self {
            Self::TooLong { timeout_us, longest_us } => {
                write!(f, "items may last {} s, its limit is {} s", s(longest_us), s(timeout_us))
            }
            Self::LengthUnknown { timeout_us } => {
                write!(f, "it is not known how long items last, and its limit is {} s", s(timeout_us))
            }
            Self::TooSlow { cold_us, allowed_us } => {
                write!(f, "it starts in {} s, and {} s of wait are allowed", s(cold_us), s(allowed_us))
            }
        }
    }
}

/// One place, and what an hour of work costs there, or why it is out.
pub type Offer = (usize, Result<NanoUsd, Out>);

/// All places asked about: those that are in by price, then those that are out, each group in the order asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranking {
    /// Places by their place in the list that was asked about.
    pub offers: Vec<Offer>,
}

impl Ranking {
    fn of(offers: impl Iterator<Item = Result<NanoUsd, Out>>) -> Self {
        let mut offers: Vec<Offer> = offers.enumerate().collect();
        offers.sort_by_key(|(at, price)| (price.is_err(), price.unwrap_or(NanoUsd::ZERO), *at));
        Self { offers }
    }

    /// The cheapest that is in.
    pub fn best(&self) -> Option<usize> {
        self.offers.first().filter(|(_, price)| price.is_ok()).map(|(at, _)| *at)
    }
}

impl fmt::Display for Ranking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (offer, price)) in self.offers.iter().enumerate() {
            let comma = if at > 0 { "; " } else { "" };
            match price {
                Ok(price) => write!(f, "{comma}{offer}: {price} an hour of work")?,
                Err(out) => write!(f, "{comma}{offer} is out: {out}")?,
            }
        }
        Ok(())
    }
}

/// Shared solutions for a class of items.
pub fn shared(offers: &[SharedFacts], lengths: &Lengths) -> Ranking {
    Ranking::of(offers.iter().map(|offer| {
        fits(offer, lengths)?;
        let typical = lengths.typical_us.max(1);
        let cold = offer.keepalive_us == 0;
        Ok(NanoUsd::charge(offer.billed(typical, cold), 3_600_000_000, typical))
    }))
}

fn fits(offer: &SharedFacts, lengths: &Lengths) -> Result<(), Out> {
    /// A limit of a year or more is none.
    const NO_LIMIT_US: u64 = 365 * 86_400 * PPM;
    let timeout_us = offer.timeout_us;
    match lengths.longest_us {
        Some(longest_us) if longest_us > timeout_us => return Err(Out::TooLong { timeout_us, longest_us }),
        None if timeout_us < NO_LIMIT_US => return Err(Out::LengthUnknown { timeout_us }),
        _ => {}
    }
    let cold_us = offer.cold.at(990_000);
    if cold_us > lengths.allowed_wait_us {
        return Err(Out::TooSlow { cold_us, allowed_us: lengths.allowed_wait_us });
    }
    Ok(())
}

/// Machines for a class of items, each with the share of its paid slots that is used (ppm, measured by
/// [`super::capacity`] or by its own past): the price of a slot that works.
pub fn machines(offers: &[(MachineFacts, u64)]) -> Ranking {
    Ranking::of(offers.iter().map(|(machine, used_ppm)| {
        let slots = u64::from(machine.slots.max(1)).saturating_mul((*used_ppm).clamp(1, PPM));
        Ok(NanoUsd::charge(machine.price_per_hour, PPM, slots))
    }))
}

#[cfg(test)]
mod tests {
    use super::super::patience::DelayTable;
    use super::*;

    const S: u64 = 1_000_000;

    fn function() -> SharedFacts {
        SharedFacts {
            price_per_hour: NanoUsd(103_653_000),
            per_request: NanoUsd(200),
            granularity_us: 1_000,
            min_billed_us: 0,
            timeout_us: 900 * S,
            keepalive_us: 420 * S,
            bills_cold: true,
            concurrency: 1_000,
            cold: DelayTable::of_p99(800_000),
        }
    }

    /// A container without a server: cheaper, slower, billed a minute at least.
    fn container() -> SharedFacts {
        SharedFacts {
            price_per_hour: NanoUsd(49_370_040),
            per_request: NanoUsd::ZERO,
            granularity_us: S,
            min_billed_us: 60 * S,
            timeout_us: 1_000_000_000 * S,
            keepalive_us: 0,
            cold: DelayTable::of_p99(100 * S),
            ..function()
        }
    }

    #[test]
    fn price_rounding_wait_and_limit_choose_between_a_function_and_a_container() {
        let both = [function(), container()];
        let of = |typical, longest, wait| {
            let lengths = Lengths { typical_us: typical * S, longest_us: Some(longest * S), allowed_wait_us: wait * S };
            shared(&both, &lengths)
        };
        assert_eq!(of(600, 800, 300).best(), Some(1), "long items: the price per second decides");
        assert_eq!(of(10, 60, 300).best(), Some(0), "short ones: a minute billed is six times too much");
        assert_eq!(of(600, 800, 5).best(), Some(0), "the container starts too late");
        assert_eq!(of(600, 3_600, 300).best(), Some(1));
        let none = of(600, 3_600, 5);
        let out = Out::TooLong { timeout_us: 900 * S, longest_us: 3_600 * S };
        assert_eq!((none.best(), &none.offers[0]), (None, &(0, Err(out))));
        let said = "0 is out: items may last 3600 s, its limit is 900 s; 1 is out: it starts in 100 s, and 5 s of wait are allowed";
        assert_eq!(none.to_string(), said);
        let unknown = Lengths { typical_us: S, longest_us: None, allowed_wait_us: 300 * S };
        assert_eq!(shared(&both, &unknown).best(), Some(1));
    }

    #[test]
    fn a_small_machine_wins_when_more_of_it_is_used() {
        let machine = |slots, price| MachineFacts {
            slots,
            price_per_hour: NanoUsd(price),
            min_billed_us: 60 * S,
            boot_us: 41 * S,
        };
        let (small, large) = (machine(1, 42_500_000), machine(4, 160_000_000));
        let best = |a, b| machines(&[(small.clone(), a), (large.clone(), b)]).best();
        assert_eq!((best(800_000, 800_000), best(800_000, 580_000)), (Some(1), Some(0)));
    }
}
