//! What the engine's decisions must hold on every load: late within the budget, never much dearer than a fixed
//! mode, close to the clairvoyant bound; the same figures every time.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::{Path, PathBuf};

use skein_sim::{
    Defaults, Engine, Keda, Metrics, Scenario, Scenarios, ServerlessOnly, bounds, bounds_of_choice, bounds_of_offers,
    made, simulate,
};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

fn scenarios() -> Scenarios {
    Scenarios::read(&data().join("scenarios.json")).unwrap()
}

fn engine(scenario: &Scenario) -> Metrics {
    simulate(scenario, &mut Engine::new(Defaults::default()))
}

/// Cost over the bound, after checking what holds for each scenario.
fn check(scenario: &Scenario) -> f64 {
    let name = &scenario.name;
    let (ours, bounds) = (engine(scenario), bounds(scenario));
    assert!(ours.late <= 0.001, "{name}: {} late", ours.late);
    let fixed =
        simulate(scenario, &mut Keda::default()).cost.min(simulate(scenario, &mut ServerlessOnly::default()).cost);
    assert!(ours.cost <= 1.05 * fixed, "{name}: {} where a fixed mode pays {fixed}", ours.cost);
    let over = ours.cost / bounds.clairvoyant;
    eprintln!("{name}: {over:.4} of the bound, {:.4} % late", 100.0 * ours.late);
    over
}

#[test]
fn on_real_arrivals_it_pays_little_more_than_who_knows_the_future() {
    let scenarios = scenarios();
    let over = ["azllm-code", "azllm-conv"].map(|name| check(&scenarios.load(name, &data()).unwrap()));
    let mean = (over[0] * over[1]).sqrt();
    assert!(mean <= 1.20, "geometric mean {mean}");
}

#[test]
fn on_made_loads_no_fixed_mode_is_much_cheaper() {
    let scenarios = scenarios();
    for name in ["made-flash", "made-heavy", "made-heavy-fargate"] {
        check(&made::make(name, &scenarios).unwrap().unwrap());
    }
}

/// On work that lasts from seconds to a day, machines of four slots are half empty, and no rule makes them pay: size is
/// what has to be chosen.
#[test]
fn where_one_size_fits_badly_it_chooses_another() {
    let scenarios = scenarios();
    let scenario = made::make("made-heavy", &scenarios).unwrap().unwrap();
    let free = made::with_choice(scenario.clone(), &scenarios).unwrap();
    let (bounds, of_choice) = (bounds(&scenario), bounds_of_choice(&free));
    assert!(of_choice.clairvoyant < bounds.clairvoyant, "more to choose from is no dearer");
    let ours = engine(&free);
    assert!(ours.late <= 0.001 && ours.cost <= 1.20 * of_choice.clairvoyant, "{ours:?} of {of_choice:?}");
}

#[test]
fn the_same_scenario_gives_the_same_figures() {
    let scenario = scenarios().load("azllm-code", &data()).unwrap();
    assert_eq!(engine(&scenario), engine(&scenario));
}

#[test]
fn where_no_shared_solution_starts_in_time_machines_take_everything() {
    let mut scenario = made::make("made-flash", &scenarios()).unwrap().unwrap();
    scenario.shared = vec![scenarios().shared("fargate-1x2").unwrap()];
    let metrics = engine(&scenario);
    assert!(metrics.shared_share == 0.0 && metrics.launches > 0.0, "{metrics:?}");
}

/// Of one machine and one solution both bounds speak of the same prices, the second of layers as small as can be.
#[test]
fn the_bound_of_a_choice_of_one_is_that_of_its_smallest_layers() {
    let mut scenario = made::make("made-flash", &scenarios()).unwrap().unwrap();
    scenario.machines = vec![scenarios().machine("gcp:t2d-standard-1").unwrap()];
    assert_eq!(bounds(&scenario), bounds_of_choice(&scenario));
    assert_eq!(bounds(&scenario), bounds_of_offers(&scenario));
}
