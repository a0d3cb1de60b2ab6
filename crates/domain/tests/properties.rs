//! Properties of the decisions on capacity, patience, thresholds and forecasts, on whatever comes.

use proptest::prelude::*;
use skein_domain::decide::capacity::{Capacity, Family, Settings};
use skein_domain::decide::forecast::{Forecaster, Season};
use skein_domain::decide::guard::{MachineFacts, SharedFacts};
use skein_domain::decide::patience::{DelayTable, LateBudget, patience};
use skein_domain::decide::threshold::{Changes, Load, Scale, Threshold, Thresholds, scale};
use skein_domain::{NanoUsd, Timestamp};

const SECOND: u64 = 1_000_000;

fn machine(slots: u32) -> MachineFacts {
    let price_per_hour = NanoUsd(42_500_000 * i64::from(slots));
    MachineFacts { slots, price_per_hour, min_billed_us: 60 * SECOND, boot_us: 40 * SECOND }
}

fn shared(keepalive_s: u64) -> SharedFacts {
    SharedFacts {
        price_per_hour: NanoUsd(79_200_000),
        per_request: NanoUsd(200),
        granularity_us: 100_000,
        min_billed_us: 60 * SECOND,
        timeout_us: 604_800 * SECOND,
        keepalive_us: keepalive_s * SECOND,
        bills_cold: true,
        concurrency: 1_000,
        cold: DelayTable::of_p99(60 * SECOND),
    }
}

/// In seconds.
#[derive(Debug, Clone, Copy)]
struct Item {
    arrival: i64,
    lasts: u64,
    wait: u64,
}

fn items() -> impl Strategy<Value = Vec<Item>> {
    let item = (0..4_000_i64, prop_oneof![0..30_u64, 0..5_000_u64], 0..200_u64);
    let item = item.prop_map(|(arrival, lasts, wait)| Item { arrival, lasts, wait });
    proptest::collection::vec(item, 0..120)
}

/// What a family says at every look, and the most items at once by then.
fn play(items: &[Item], slots: u32, keepalive_s: u64) -> Vec<(Capacity, u32)> {
    let mut family = Family::new(Settings::default(), &[machine(slots), machine(1)], shared(keepalive_s));
    let mut events: Vec<(i64, bool, usize)> = Vec::new();
    for (at, item) in items.iter().enumerate() {
        events.push((item.arrival, false, at));
        events.push((item.arrival.saturating_add_unsigned(item.lasts), true, at));
    }
    events.sort_unstable();
    let (mut now, mut most, mut said, mut next) = (0_u32, 0, Vec::new(), events.into_iter().peekable());
    for tick in (0..10_000).step_by(15) {
        while let Some((at, ends, item)) = next.next_if(|(at, ..)| *at <= tick) {
            let moment = Timestamp(at * 1_000_000);
            if ends {
                now -= 1;
                family.ended(item, items[item].lasts * SECOND, keepalive_s == 0, moment);
            } else {
                now += 1;
                most = most.max(now);
                family.arrived(item, items[item].wait * SECOND, moment);
            }
        }
        said.push((family.tick(Timestamp(tick * 1_000_000)), most));
    }
    said
}

fn thresholds() -> impl Strategy<Value = Thresholds> {
    let threshold = prop_oneof![
        (1..=1_000_000_u32).prop_map(Threshold::Share),
        (0..20_u32).prop_map(Threshold::Free),
        Just(Threshold::Projected)
    ];
    (threshold.clone(), threshold, 0..5_u32, 5..60_u32).prop_map(|(up, down, min, max)| Thresholds {
        up,
        down,
        min,
        max,
        ..Thresholds::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Sequence numbers do not matter, machines are never wanted for more than there ever was, what is done is
    /// one of the alternatives, and they are in order of price.
    #[test]
    fn capacity_is_of_what_came(items in items(), slots in 1..9_u32, keepalive_s in prop_oneof![Just(0), Just(420)]) {
        let said = play(&items, slots, keepalive_s);
        let again = play(&items, slots, keepalive_s);
        prop_assert_eq!(&said, &again);
        for (capacity, most) in said {
            let slots = if capacity.chosen.machine == 0 { slots } else { 1 };
            prop_assert!(capacity.chosen.target <= most.div_ceil(slots) + 1, "{}", capacity);
            prop_assert!(capacity.alternatives.contains(&capacity.chosen));
            prop_assert!(capacity.alternatives.is_sorted_by_key(|a| a.cost));
            prop_assert!(capacity.alternatives.iter().all(|a| a.cost >= NanoUsd::ZERO));
        }
    }

    /// An item is never kept so long that its cold start, at the quantile that is reckoned with, makes it late;
    /// unless it goes at once.
    #[test]
    fn patience_leaves_room_for_the_cold_start(
        allowed_s in 0..400_u64, p99_s in 0..200_u64, budget_ppm in 1..100_000_u32, overflows in 0..100_u64
    ) {
        let (cold, mut budget) = (DelayTable::of_p99(p99_s * SECOND), LateBudget::new(budget_ppm));
        for at in 0..2_000_u64 {
            budget.item();
            let now = patience(allowed_s * SECOND, &cold, &budget);
            prop_assert!(now.wait_us == 0 || now.wait_us + now.cold_us <= allowed_s * SECOND);
            prop_assert!(now.wait_us <= allowed_s * SECOND);
            if at * 37 % 100 < overflows {
                budget.overflowed_cold(now.late_ppm, true);
            }
        }
    }

    /// Nothing goes that has work, no limit is passed, and a load that stands still never turns it round.
    #[test]
    fn thresholds_come_to_rest(thresholds in thresholds(), slots in 1..9_u32, demand in 0..300_u32, first in 0..60_u32) {
        let (mut machines, mut changes) = (first.clamp(thresholds.min, thresholds.max), Changes::default());
        let mut turns: Vec<bool> = Vec::new();
        for minute in 0..120_i64 {
            let now = Timestamp(minute * 60_000_000);
            let used = demand.min(machines * slots);
            let empty = machines - used.div_ceil(slots);
            let load = Load { machines, slots, used, waiting: demand - used, projected: Some(demand), empty };
            match scale(&load, &thresholds, &changes, now) {
                Scale::Up { machines: more, .. } => {
                    machines += more;
                    changes.up = Some(now);
                    turns.push(true);
                }
                Scale::Down { machines: fewer, .. } => {
                    prop_assert!(fewer <= empty);
                    machines -= fewer;
                    changes.down = Some(now);
                    turns.push(false);
                }
                Scale::Stay(_) => {}
            }
            prop_assert!((thresholds.min..=thresholds.max).contains(&machines));
        }
        turns.dedup();
        prop_assert!(turns.len() <= 1, "{:?}", turns);
    }

    /// Bounds are in order, and the same values give the same forecast.
    #[test]
    fn forecasts_are_in_order(
        values in proptest::collection::vec(any::<i64>(), 1..200), day in 1..30_usize, horizon in 1..40_usize
    ) {
        let season = Season { day, week: 7 * day, horizon };
        let (mut once, mut twice) = (Forecaster::new(season), Forecaster::new(season));
        for value in values {
            once.observe(value);
            twice.observe(value);
            let forecast = once.forecast().expect("a value was seen");
            prop_assert!(forecast.lower <= forecast.upper, "{:?}", forecast);
            prop_assert_eq!(Some(forecast), twice.forecast());
        }
    }
}
