//! A short run of the simulation, and that it finds what is put in on purpose.

use skein_simfault::{Mutant, Setup, run, shrink};

/// Seeds of the short run; `cargo xtask sim faults --seeds 10000` is the long one.
const SEEDS: u64 = 24;
/// A mutant is found within so many seeds.
const MUTANT_SEEDS: u64 = 500;

#[test]
fn no_seed_loses_doubles_overlaps_or_hangs() {
    for seed in 0..SEEDS {
        let counts = run(seed, &Setup::default());
        assert!(counts.bad() == 0, "cargo xtask sim faults --seed {seed}: {:#?}", shrink(seed, &Setup::default()));
    }
}

/// A user's algorithm that answers anything, late, or never loses nothing either, and holds nothing up.
#[test]
fn no_seed_is_lost_by_an_algorithm_that_answers_anything() {
    let setup = Setup { items: 100, agents: 10, algorithm: true, ..Setup::default() };
    let mut asked = 0;
    for seed in 0..SEEDS {
        let counts = run(seed, &setup);
        assert!(counts.bad() == 0, "seed {seed} with an algorithm: {:#?}", shrink(seed, &setup));
        asked += counts.asked;
    }
    assert!(asked > SEEDS, "it was asked {asked} times");
}

/// Each of these was found by the simulation, and was a defect once.
#[test]
fn seeds_that_failed_once_do_not_fail_again() {
    for seed in [23, 37, 2462, 3345, 577, 1079, 1773, 2331, 2970, 7243, 718] {
        assert_eq!(run(seed, &Setup::default()).bad(), 0, "seed {seed}");
    }
}

#[test]
fn the_same_seed_is_the_same_world() {
    let setup = Setup { items: 60, agents: 6, ..Setup::default() };
    let (one, two) = (run(9, &setup), run(9, &setup));
    assert_eq!((one.crashes, one.again, one.cuts), (two.crashes, two.again, two.cuts));
    let setup = Setup { algorithm: true, ..setup };
    let (one, two) = (run(9, &setup), run(9, &setup));
    assert_eq!((one.crashes, one.again, one.asked), (two.crashes, two.again, two.asked));
}

fn caught(mutant: Mutant) -> u64 {
    let setup = Setup { items: 100, agents: 10, mutant: Some(mutant), ..Setup::default() };
    let found = (0..MUTANT_SEEDS).find(|seed| run(*seed, &setup).bad() > 0);
    found.unwrap_or_else(|| panic!("{mutant:?} was not caught within {MUTANT_SEEDS} seeds"))
}

#[test]
fn an_agent_that_does_not_check_its_lease_is_caught() {
    println!("caught at seed {}", caught(Mutant::NoLeaseCheck));
}

#[test]
fn an_engine_that_does_not_check_generations_is_caught() {
    println!("caught at seed {}", caught(Mutant::NoGenerationCheck));
}

#[test]
fn a_drain_outside_the_transaction_is_caught() {
    println!("caught at seed {}", caught(Mutant::DrainOutside));
}
