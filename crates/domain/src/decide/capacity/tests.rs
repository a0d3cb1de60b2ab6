use super::super::patience::DelayTable;
use super::*;

const S: i64 = 1_000_000;
const SECOND: u64 = 1_000_000;

fn machine() -> MachineFacts {
    MachineFacts { slots: 4, price_per_hour: NanoUsd(170_000_000), min_billed_us: 60 * SECOND, boot_us: 40 * SECOND }
}

fn function() -> SharedFacts {
    SharedFacts {
        price_per_hour: NanoUsd(103_653_000),
        per_request: NanoUsd(200),
        granularity_us: 1_000,
        min_billed_us: 0,
        timeout_us: 900 * SECOND,
        keepalive_us: 420 * SECOND,
        bills_cold: true,
        concurrency: 1_000,
        cold: DelayTable::of_p99(800_000),
    }
}

/// Plays items (arrival and length, s) to a family for so long, and answers what it said at every look.
fn play(items: &[(i64, i64)], until_s: i64) -> Vec<Capacity> {
    play_with(Settings::default(), items, until_s)
}

fn play_with(settings: Settings, items: &[(i64, i64)], until_s: i64) -> Vec<Capacity> {
    let mut family = Family::new(settings, &[machine()], function());
    let mut events: Vec<(i64, bool, usize)> = Vec::new();
    for (at, (arrival, lasts)) in items.iter().enumerate() {
        events.push((*arrival, true, at));
        events.push((arrival + lasts, false, at));
    }
    events.sort_unstable();
    let mut events = events.into_iter().peekable();
    let mut said = Vec::new();
    for tick in (0..until_s).step_by(15) {
        while let Some((at, arrives, item)) = events.next_if(|(at, ..)| *at < tick) {
            let now = Timestamp(at * S);
            if arrives {
                family.arrived(item, 3 * SECOND, now);
            } else {
                family.ended(item, u64::try_from(items[item].1).unwrap() * SECOND, false, now);
            }
        }
        said.push(family.tick(Timestamp(tick * S)));
    }
    said
}

/// `count` items at once, each of 30 s, one after the other for so long.
fn steady(count: i64, until_s: i64) -> Vec<(i64, i64)> {
    (0..until_s / 30).flat_map(|round| (0..count).map(move |_| (round * 30, 30))).collect()
}

#[test]
fn steady_work_gets_machines_and_seldom_work_none() {
    let busy = play(&steady(8, 7_200), 7_200).pop().unwrap();
    assert_eq!(busy.chosen.target, 2, "{busy}");
    let seldom: Vec<(i64, i64)> = (0..60).map(|at| (at * 120, 5)).collect();
    let idle = play(&seldom, 7_200).pop().unwrap();
    assert_eq!(idle.chosen.target, 0, "{idle}");
    assert!(idle.to_string().starts_with("0 machines by '"), "{idle}");
}

#[test]
fn without_work_nothing_is_bought_and_nothing_costs() {
    for capacity in play(&[], 3_600) {
        assert_eq!(capacity.chosen.target, 0);
        assert!(capacity.alternatives.iter().all(|a| a.cost == NanoUsd::ZERO), "{capacity}");
    }
}

#[test]
fn the_same_events_give_the_same_answers_and_alternatives_are_in_order_of_price() {
    let mixed: Vec<(i64, i64)> = (0..500_i64).map(|at| (at * 7 % 3_000, 1 + at * at % 400)).collect();
    let (once, twice) = (play(&mixed, 5_000), play(&mixed, 5_000));
    assert_eq!(once, twice);
    for capacity in once {
        assert!(capacity.alternatives.is_sorted_by_key(|a| a.cost));
    }
}

/// A rule that never buys pays exactly what the shared solution bills: shadows charge what is charged.
#[test]
fn the_shadow_without_machines_pays_what_is_billed() {
    let items: Vec<(i64, i64)> = (0..40).map(|at| (at * 20, 10)).collect();
    let last = play(&items, 810).pop().unwrap();
    let none = last.alternatives.iter().find(|a| a.rule == Rule::None).unwrap();
    let shared = function();
    let billed =
        NanoUsd((0..40).map(|_| shared.billed(10 * SECOND, false).0).sum()) + shared.charge(shared.cold.mean());
    // Older costs fade, by less than 810 s of 6 h.
    assert!(none.cost <= billed && none.cost.0 * 100 > billed.0 * 95, "{} of {billed}", none.cost);
}

#[test]
fn machines_for_everything_are_had_whatever_windows_the_other_rules_look_at() {
    let settings = Settings { windows_us: vec![900 * SECOND], fixed: Some(DEDICATED), ..Settings::default() };
    let last = play_with(settings, &steady(8, 1_200), 1_200).pop().unwrap();
    assert_eq!(last.chosen.target, 2, "{last}");
}

/// What was seen of the first minutes does not change the rule; the same for longer does.
#[test]
fn a_few_minutes_of_another_rule_being_cheaper_are_not_enough() {
    let crowds = (0..8).flat_map(|at| steady(8, 300).into_iter().map(move |(from, lasts)| (at * 1_800 + from, lasts)));
    let crowds: Vec<(i64, i64)> = crowds.collect();
    let settings = Settings { settle_looks: 240, ..Settings::default() };
    let changes = |settings: Settings| {
        let said = play_with(settings, &crowds, 14_400);
        let first = said.iter().position(|capacity| capacity.chosen.rule != FIRST);
        first.map_or(14_400, |look| look * 15)
    };
    let (hasty, patient) = (changes(Settings { settle_looks: 0, ..settings.clone() }), changes(settings));
    assert!(hasty < patient && patient < 14_400, "{hasty} s, {patient} s");
}
