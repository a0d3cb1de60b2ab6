//! `cargo xtask sim traces [NAME...] [--sensitivity | --rules [--choice]]`: every scenario under every rule, beside the
//! figures of the reference; then scenarios from seeds; then geometric means of both kinds. Each is played twice by the
//! engine: with the one machine and the one shared solution that it names, and with all that there are.
//!
//! The shipped scenarios are in `crates/sim/data`. With `SKEIN_TRACES` set, the scenarios of the
//! `scenarios.json` in that folder are played instead, and those whose trace is not there are skipped by name.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "that is what it is for")]
#![allow(clippy::disallowed_methods, reason = "says how long a replay takes; nothing is decided by it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use skein_domain::decide::capacity::{Family, Settings};
use skein_sim::{
    Bounds, BoundsPlan, Defaults, Engine, FixedAtPeak, Keda, Metrics, Rule, Scaled, Scenario, ScenarioError, Scenarios,
    ServerlessOnly, bounds, bounds_of_choice, made, simulate,
};

/// The engine where size and kind are decided too.
const CHOICE: &str = "size, kind too";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (options, names): (Vec<String>, Vec<String>) = arguments.into_iter().partition(|a| a.starts_with("--"));
    let result = match options.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => tables(&names),
        ["--sensitivity"] => variants_table(&names, &sensitivity(), false),
        ["--rules"] => variants_table(&names, &rules(), false),
        ["--sensitivity", "--choice"] => variants_table(&names, &sensitivity(), true),
        ["--rules", "--choice"] => variants_table(&names, &rules(), true),
        other => {
            eprintln!("traces: there is no option {other:?}: [NAME...] [--sensitivity | --rules [--choice]]");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = result {
        eprintln!("traces: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

/// All scenarios that are asked for and can be played: those of traces, then those from seeds.
fn scenarios(names: &[String]) -> Result<Vec<(bool, Scenario)>, ScenarioError> {
    let folder = std::env::var_os("SKEIN_TRACES").map_or_else(data, PathBuf::from);
    let file = folder.join("scenarios.json");
    let all = Scenarios::read(&file)?;
    let asked = |name: &str| names.is_empty() || names.iter().any(|n| n == name);
    let mut found = Vec::new();
    for (name, trace) in all.list().filter(|(name, _)| asked(name)) {
        if folder.join(trace).exists() {
            found.push((true, all.load(name, &folder)?));
        } else {
            eprintln!("{name}: skipped: there is no {trace} in {}", folder.display());
        }
    }
    let shipped = Scenarios::read(&data().join("scenarios.json"))?;
    for name in made::names().filter(|name| asked(name)) {
        found.extend(made::make(name, &shipped).transpose()?.map(|scenario| (false, scenario)));
    }
    Ok(found)
}

/// Figures of the reference: scenario and rule, with cost over the bound and share late.
fn reference() -> BTreeMap<(String, String), (f64, f64)> {
    let rows = csv::Reader::from_path(data().join("reference.csv")).map(csv::Reader::into_records);
    let number = |row: &csv::StringRecord, at: usize| row.get(at).and_then(|text| text.parse().ok()).unwrap_or(0.0);
    let rows = rows.into_iter().flatten().filter_map(Result::ok);
    rows.map(|row| ((row[0].to_owned(), row[1].to_owned()), (number(&row, 2), number(&row, 15)))).collect()
}

fn tables(names: &[String]) -> Result<(), ScenarioError> {
    let reference = reference();
    let offers = Scenarios::read(&data().join("scenarios.json"))?;
    let mut means: BTreeMap<(bool, &str), Vec<f64>> = BTreeMap::new();
    for (traced, scenario) in scenarios(names)? {
        let bounds = bounds(&scenario);
        heading(&scenario, &bounds);
        let (mut engine, mut paid) = (Engine::new(Defaults::default()), 0.0);
        let rules: [(&'static str, &mut dyn Rule); 7] = [
            ("static-peak", &mut FixedAtPeak),
            ("serverless-only", &mut ServerlessOnly::default()),
            ("keda+ca", &mut Keda::default()),
            ("thresholds", &mut Scaled::by_share()),
            ("by projection", &mut Scaled::by_projection()),
            ("engine", &mut engine),
            ("oracle-schedule", &mut BoundsPlan::new(&scenario)),
        ];
        for (name, rule) in rules {
            let start = Instant::now();
            let metrics = simulate(&scenario, rule);
            let beside = reference.get(&(scenario.name.clone(), name.to_owned()));
            line(name, &metrics, &bounds, start.elapsed().as_secs_f64(), beside);
            means.entry((traced, name)).or_default().push(metrics.cost / bounds.clairvoyant);
            if name == "engine" {
                paid = metrics.cost;
            }
        }
        println!("  {}", beside_fixed_modes(&scenario, paid, &engine));
        chosen(&made::with_choice(scenario.clone(), &offers)?, traced, &mut means);
        best_of(&reference, &scenario.name);
    }
    println!();
    for ((traced, name), costs) in means {
        let kind = if traced { "traces" } else { "seeds" };
        let worst = costs.iter().copied().fold(0.0, f64::max);
        println!("{kind:<7} {name:<16} geometric mean {:.3}  worst {worst:.3}  of {}", mean(&costs), costs.len());
    }
    Ok(())
}

/// The engine where size and kind are decided too, over the bound of that.
fn chosen(scenario: &Scenario, traced: bool, means: &mut BTreeMap<(bool, &'static str), Vec<f64>>) {
    let bounds = bounds_of_choice(scenario);
    let mut engine = Engine::new(Defaults::default());
    let start = Instant::now();
    let metrics = simulate(scenario, &mut engine);
    line(CHOICE, &metrics, &bounds, start.elapsed().as_secs_f64(), None);
    println!("  over its own bound, {:.2} USD: any machine, any solution that starts in time", bounds.clairvoyant);
    println!("  {}", beside_fixed_modes(scenario, metrics.cost, &engine));
    means.entry((traced, CHOICE)).or_default().push(metrics.cost / bounds.clairvoyant);
}

/// What the engine paid of the cheapest fixed mode: one machine by the rule of KEDA, or one shared solution for all.
fn beside_fixed_modes(scenario: &Scenario, cost: f64, engine: &Engine) -> String {
    let machines = scenario.machines.iter().map(|machine| {
        let alone = Scenario { machines: vec![machine.clone()], ..scenario.clone() };
        (machine.name.as_str(), simulate(&alone, &mut Keda::default()).cost)
    });
    let in_time = scenario.shared.iter().filter(|shared| scenario.starts_in_time(shared));
    let shared = in_time.map(|shared| {
        let alone = Scenario { shared: vec![shared.clone()], ..scenario.clone() };
        (shared.name.as_str(), simulate(&alone, &mut ServerlessOnly::default()).cost)
    });
    let Some((name, fixed)) = machines.chain(shared).min_by(|a, b| a.1.total_cmp(&b.1)) else { return String::new() };
    let last = engine.last.as_ref().map_or(String::new(), |last| {
        format!("; at the end {last} of {}", scenario.machines[last.chosen.machine].name)
    });
    format!("{:.3} of the cheapest fixed mode, {name}{last}", cost / fixed)
}

fn mean(costs: &[f64]) -> f64 {
    let logs: f64 = costs.iter().map(|cost| cost.ln()).sum();
    (logs / f64::from(u32::try_from(costs.len()).unwrap_or(1))).exp()
}

fn heading(scenario: &Scenario, bounds: &Bounds) {
    let peak_to_mean = f64::from(u32::try_from(bounds.peak).unwrap_or(0)) / bounds.mean;
    println!(
        "\n== {}: {} items, at once {:.1} in the mean and {} at most ({peak_to_mean:.1} x), bound {:.2} USD",
        scenario.name,
        scenario.items.len(),
        bounds.mean,
        bounds.peak,
        bounds.clairvoyant
    );
    println!(
        "{:<16} {:>9} {:>7} {:>8} {:>7} {:>8} {:>7} {:>7} {:>7} {:>6}  reference",
        "rule", "USD", "/bound", "late %", "sls %", "p99 s", "starts", "cold", "used", "s"
    );
}

fn line(name: &str, m: &Metrics, bounds: &Bounds, took_s: f64, beside: Option<&(f64, f64)>) {
    let over = m.cost / bounds.clairvoyant;
    let beside = beside.map_or(String::new(), |(cost, _)| format!("{cost:.4} ({:+.3} %)", 100.0 * (over / cost - 1.0)));
    println!(
        "{name:<16} {:>9.2} {over:>7.4} {:>8.4} {:>7.1} {:>8.2} {:>7} {:>7} {:>7.2} {took_s:>6.2}  {beside}",
        m.cost,
        100.0 * m.late,
        100.0 * m.shared_share,
        m.wait_p99,
        m.launches,
        m.cold_starts,
        m.used
    );
}

/// The cheapest of the reference's rules that is late as seldom as we promise, where it has figures.
fn best_of(reference: &BTreeMap<(String, String), (f64, f64)>, scenario: &str) {
    let of = reference.iter().filter(|((name, _), (_, late))| name == scenario && *late <= 0.001);
    if let Some(((_, rule), (cost, late))) = of.min_by(|a, b| a.1.0.total_cmp(&b.1.0)) {
        println!("  the reference's best at 0.1 % late or less: {rule} {cost:.4}, {:.3} % late", 100.0 * late);
    }
}

/// The engine with other settings, side by side; with a `choice` of size and kind, over the bound of that.
fn variants_table(names: &[String], variants: &[(String, Defaults)], choice: bool) -> Result<(), ScenarioError> {
    let mut scenarios = scenarios(names)?;
    let offers = Scenarios::read(&data().join("scenarios.json"))?;
    for (_, scenario) in scenarios.iter_mut().filter(|_| choice) {
        *scenario = made::with_choice(scenario.clone(), &offers)?;
    }
    let bounds = scenarios.iter().map(|(_, s)| if choice { bounds_of_choice(s) } else { bounds(s) }.clairvoyant);
    let bounds: Vec<f64> = bounds.collect();
    print!("{:<52}", "settings");
    for (_, scenario) in &scenarios {
        print!(" {:>18}", scenario.name.split(',').next().unwrap_or_default());
    }
    println!(" {:>8}", "mean");
    for (name, defaults) in variants {
        print!("{name:<52}");
        let mut costs = Vec::new();
        for ((_, scenario), bound) in scenarios.iter().zip(&bounds) {
            let metrics = simulate(scenario, &mut Engine::new(defaults.clone()));
            let cost = metrics.cost / bound;
            print!(" {:>10.4} {:>6.3}%", cost, 100.0 * metrics.late);
            costs.push(cost);
        }
        println!(" {:>8.4}", mean(&costs));
    }
    Ok(())
}

/// Each rule followed by itself, whatever it costs: what a choice among them could gain.
fn rules() -> Vec<(String, Defaults)> {
    let base = Defaults::default();
    let rules = Family::<u32>::rules(&base.capacity);
    let with = |rule| Settings { fixed: Some(rule), ..base.capacity.clone() };
    let fixed = rules.into_iter().map(|rule| (rule.to_string(), Defaults { capacity: with(rule), ..base.clone() }));
    [("as it is".to_owned(), base.clone())].into_iter().chain(fixed).collect()
}

/// Each default changed by itself.
fn sensitivity() -> Vec<(String, Defaults)> {
    let base = Defaults::default();
    let mut all = vec![("as it is".to_owned(), base.clone())];
    let mut add = |name: &str, change: &dyn Fn(&mut Defaults)| {
        let mut defaults = base.clone();
        change(&mut defaults);
        all.push((name.to_owned(), defaults));
    };
    add("tick / 2", &|d| d.capacity.tick_us /= 2);
    add("tick x 2", &|d| d.capacity.tick_us *= 2);
    add("idle 0", &|d| d.capacity.idle_us = 0);
    add("idle x 4 (60 s)", &|d| d.capacity.idle_us *= 4);
    add("memory / 4", &|d| d.capacity.memory_us /= 4);
    add("memory x 4", &|d| d.capacity.memory_us *= 4);
    add("switch / 3", &|d| d.capacity.switch_ppm /= 3);
    add("switch x 3", &|d| d.capacity.switch_ppm *= 3);
    add("settle / 3", &|d| d.capacity.settle_looks /= 3);
    add("settle x 3", &|d| d.capacity.settle_looks *= 3);
    add("windows / 4", &|d| d.capacity.windows_us.iter_mut().for_each(|window| *window /= 4));
    add("windows x 4", &|d| d.capacity.windows_us.iter_mut().for_each(|window| *window *= 4));
    add("shares x 3 / 4", &|d| d.capacity.shares_ppm.iter_mut().for_each(|share| *share = *share * 3 / 4));
    add("shares x 4 / 3", &|d| d.capacity.shares_ppm.iter_mut().for_each(|share| *share = *share * 4 / 3));
    add("late budget / 2", &|d| d.late_budget_ppm /= 2);
    add("late budget x 2", &|d| d.late_budget_ppm *= 2);
    all
}
