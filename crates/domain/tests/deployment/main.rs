//! Deployment plans against every assignment there is, on small cases from seeds; and one large case.
//!
//!     CASE=7 cargo test -p skein-domain --test deployment        # one case
//!     CASES=5000 cargo test -p skein-domain --test deployment    # many
#![allow(clippy::unwrap_used, reason = "tests")]

mod brute;
mod draw;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use brute::Case;
use skein_domain::decide::deployment::{Answer, Effort, Lack, plan};
use skein_domain::testing::Random;

/// Longest time for the large case in a debug build on a busy machine: what it may cost is counted in tries.
const LARGE_MAX: Duration = Duration::from_mins(1);
/// Cases with all of brute force behind them.
const CASES: u64 = 400;

#[expect(clippy::disallowed_methods, reason = "a test that says how long it took")]
fn now() -> Instant {
    Instant::now()
}

fn text(lack: &Lack) -> String {
    match lack {
        Lack::Size { member, .. } => format!("size of '{member}'"),
        other => other.to_string(),
    }
}

/// What every answer must be; true when there is a plan.
fn check(seed: u64, case: &Case) -> bool {
    let question = draw::question(case);
    let best = case.best(&|_| true);
    match plan(&question, Effort::default()) {
        Answer::Plan(found) => {
            let names = question.groups.members.iter().map(|member| &*member.name);
            let at: BTreeMap<&str, String> = names.zip(found.at.iter().map(ToString::to_string)).collect();
            let cost = case
                .judge(&at)
                .unwrap_or_else(|broken| panic!("seed {seed}: {broken} is broken by {at:?} in {case:#?}"));
            assert_eq!(cost, (found.crossed_mbps, found.servers), "seed {seed}: what it costs");
            assert!(found.proved, "seed {seed}: so small a case is proved");
            assert_eq!(Some(cost), best, "seed {seed}: the best, for {at:?} in {case:#?}");
            true
        }
        Answer::Never(conflict) => {
            assert_eq!(best, None, "seed {seed}: {conflict} in {case:#?}");
            assert!(conflict.minimal, "seed {seed}: so small a case is filtered to the end");
            let named: Vec<String> = conflict.lacks.iter().map(text).collect();
            assert!(!named.is_empty(), "seed {seed}");
            assert_eq!(case.best(&|rule| named.iter().any(|n| n == rule)), None, "seed {seed}: {named:?} can all hold");
            for one in &named {
                let without = |rule: &str| rule != one && named.iter().any(|n| n == rule);
                assert!(case.best(&without).is_some(), "seed {seed}: {one} can be left out of {named:?}");
            }
            false
        }
        Answer::Undecided { tries } => panic!("seed {seed}: undecided after {tries} tries"),
    }
}

#[test]
fn plans_are_feasible_and_the_best_and_conflicts_are_real_and_minimal() {
    let only: Option<u64> = std::env::var("CASE").ok().and_then(|seed| seed.parse().ok());
    let (mut plans, mut conflicts) = (0, 0);
    let many = std::env::var("CASES").ok().and_then(|many| many.parse().ok()).unwrap_or(CASES);
    for seed in only.map_or(0..many, |seed| seed..seed + 1) {
        let case = draw::case(&mut Random::new(seed));
        if check(seed, &case) { plans += 1 } else { conflicts += 1 }
    }
    // Cases of one kind alone would guard nothing.
    assert!(only.is_some() || plans > 80 && conflicts > 80, "{plans} plans, {conflicts} conflicts");
}

#[test]
fn the_order_of_members_groups_and_servers_changes_nothing() {
    for seed in 0..CASES {
        let mut random = Random::new(seed);
        let case = draw::case(&mut random);
        let answer = plan(&draw::question(&case), Effort::default());
        let mixed = draw::mixed(&case, &mut random);
        assert_eq!(plan(&draw::question(&mixed), Effort::default()), answer, "seed {seed}");
    }
}

#[test]
fn two_hundred_members_on_a_hundred_servers_find_a_plan_that_holds() {
    let case = draw::large();
    let question = draw::question(&case);
    let from = now();
    let Answer::Plan(found) = plan(&question, Effort::default()) else { panic!("there is a plan") };
    let took = from.elapsed();
    let names = question.groups.members.iter().map(|member| &*member.name);
    let at: BTreeMap<&str, String> = names.zip(found.at.iter().map(ToString::to_string)).collect();
    assert_eq!(case.judge(&at), Ok((found.crossed_mbps, found.servers)));
    println!("{} Mbit/s x levels on {} servers, proved: {}, {took:?}", found.crossed_mbps, found.servers, found.proved);
    // Generous: a debug build on a busy machine. What it takes is a count of tries, not a time.
    assert!(took < LARGE_MAX, "{took:?}");
}

#[test]
fn a_conflict_of_a_large_case_names_the_few_rules_that_are_in_it() {
    let case = draw::large_in_conflict();
    let question = draw::question(&case);
    let from = now();
    let Answer::Never(conflict) = plan(&question, Effort::default()) else { panic!("there is none") };
    println!("{conflict}: {:?}", from.elapsed());
    let named: Vec<String> = conflict.lacks.iter().map(text).collect();
    assert_eq!(named, ["affinity (rack) of group 'tight'", "diversity (rack) of group 'wide'"]);
    assert!(conflict.minimal);
}
