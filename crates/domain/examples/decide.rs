//! `cargo xtask bench decide`: how fast the real `decide` places, with every kind of constraint mixed,
//! and how that grows with the number of instances.
//!
//! One core, no ledger: `decide`, then `apply` of its events, then the ends of what it placed, again and
//! again. The mix: half of the items ask for nothing, 39 % for 1-30 % of CPU, 1 % for an instance alone,
//! 10 % for one of eight solutions; four users; memory of 64 to 512 MiB.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]
#![allow(clippy::print_stdout, reason = "that is what it is for")]

use std::time::{Duration, Instant};

use skein_domain::decide::{Policy, Snapshot, decide};
use skein_domain::event::{Event, Then};
use skein_domain::needs::CpuSetting;
use skein_domain::testing::{Random, Scene, dedicated, facts, loose, name, spec_of, task};
use skein_domain::thread::assemble;
use skein_domain::{
    AttemptEnd, AttemptKey, EndCause, HoldPolicy, ItemEnd, Live, Needs, RunningMode, SessionId, TaskSpec,
};

const SITES: u64 = 8;
const USERS: [&str; 4] = ["ada", "ben", "cho", "dia"];

fn main() {
    println!("{:<52} {:>12} {:>14} {:>14}", "instances, items", "places/s", "pass p50", "pass p99");
    let mut per_item = Vec::new();
    for (instances, items) in [(100, 100_000), (1_000, 300_000), (10_000, 1_000_000)] {
        let rate = placements(instances, items);
        per_item.push(1e6 / rate);
    }
    println!("growth per item from 100 to 10,000 instances: {:.2} x", per_item[2] / per_item[0]);
    passes();
    println!("published: kube-scheduler 680-1,100/s, Nomad 1,500-3,750/s (whole systems); placement alone, in a");
    println!("spike of this mix: 1,430,000/s (reference, not measured here)");
}

fn scene(instances: u64) -> Scene {
    let mut scene = Scene::default();
    scene.policy = Policy { plan_orders_max: 4096, ..Policy::default() };
    for site in 0..SITES {
        scene.solution(dedicated(&format!("site-{site}"), 0));
    }
    for n in 0..instances {
        scene.instance(&format!("i-{n:05}"), &format!("site-{}", n % SITES), facts(8));
    }
    scene
}

/// One array of the mix.
fn spec(random: &mut Random, array: u32) -> TaskSpec {
    let mut needs = Needs { memory_mb: 64 << random.below(4), ..task("t").needs };
    match random.below(100) {
        0 => needs.cpu = CpuSetting::Exclusive,
        1..=39 => needs.cpu = CpuSetting::AtLeast(u8::try_from(1 + random.below(30)).unwrap_or(1)),
        40..=49 => needs.solution = Some(name(&format!("site-{}", random.below(SITES)))),
        _ => {}
    }
    TaskSpec { array, needs, running_mode: RunningMode::Dedicated, ..task("t") }
}

fn start(scene: &mut Scene, random: &mut Random, items: u32) {
    const ARRAY: u32 = 500;
    for n in 0..items.div_ceil(ARRAY) {
        let thread = assemble(
            name("bench"),
            String::new(),
            vec![loose(spec(random, ARRAY), &[])],
            &[],
            HoldPolicy::IdleMs(1_000_000),
        );
        let Ok(thread) = thread else { continue };
        let mut spec = (*spec_of(thread)).clone();
        spec.user = name(USERS[n as usize % USERS.len()]);
        let session = SessionId::derive(1_000_000 + u64::from(n), 0);
        scene.happen(vec![Event::SessionStarted { session, spec: spec.into() }]);
    }
}

fn ended(attempt: AttemptKey) -> Event {
    let end = AttemptEnd { run_ms: 60_000, ..AttemptEnd::bare(EndCause::Succeeded) };
    Event::Ended { attempt, end, then: Then::End(ItemEnd::Succeeded) }
}

/// One pass, applied; the attempts it made, and how long `decide` took.
fn pass(snapshot: &mut Snapshot, policy: &Policy, scene_now: skein_domain::Timestamp) -> (Vec<AttemptKey>, Duration) {
    let begin = Instant::now();
    let plan = decide(snapshot, policy, scene_now);
    let took = begin.elapsed();
    let made = plan.assignments.iter().map(|a| a.item.attempt(a.number)).collect();
    let turn = snapshot.turn + 1;
    let events = plan.into_events(snapshot, turn, scene_now);
    snapshot.apply_all(turn, scene_now, events);
    snapshot.take_changes();
    (made, took)
}

fn placements(instances: u64, items: u32) -> f64 {
    let (mut scene, mut random) = (scene(instances), Random::new(7));
    start(&mut scene, &mut random, items);
    let policy = scene.policy.clone();
    let (mut placed, mut passes, mut open) = (0_u64, Vec::new(), Vec::new());
    let begin = Instant::now();
    loop {
        scene.now = scene.now.after_ms(100);
        let (made, took) = pass(&mut scene.snapshot, &policy, scene.now);
        placed += made.len() as u64;
        passes.push(took);
        open.extend(made);
        if open.is_empty() {
            break;
        }
        // The oldest end: as many as a pass may order, or all.
        let ends: Vec<Event> = open.drain(..open.len().min(4096)).map(ended).collect();
        let turn = scene.snapshot.turn + 1;
        scene.snapshot.apply_all(turn, scene.now, ends);
        scene.snapshot.take_changes();
        if begin.elapsed() > Duration::from_secs(30) {
            println!("  (cut after 30 s)");
            break;
        }
    }
    let rate = placed as f64 / begin.elapsed().as_secs_f64();
    report(&format!("{instances} instances, {placed} items placed, decide and apply"), rate, &mut passes);
    rate
}

fn report(what: &str, rate: f64, passes: &mut [Duration]) {
    passes.sort_unstable();
    let at = |percent: usize| passes[(passes.len() * percent / 100).min(passes.len() - 1)].as_secs_f64() * 1e3;
    println!("{what:<52} {rate:>12.0} {:>11.2} ms {:>11.2} ms", at(50), at(99));
}

/// 10,000 instances, 100,000 queued items: the first pass, and passes after 1,000 events each.
fn passes() {
    let (mut scene, mut random) = (scene(10_000), Random::new(11));
    start(&mut scene, &mut random, 300_000);
    let policy = scene.policy.clone();
    let begin = Instant::now();
    let (mut open, first) = pass(&mut scene.snapshot, &policy, scene.now);
    println!("first pass over 10,000 instances and 300,000 items: {:.1} ms", first.as_secs_f64() * 1e3);
    while scene.snapshot.ready_items() > 100_000 {
        let (made, _) = pass(&mut scene.snapshot, &policy, scene.now);
        if made.is_empty() {
            break;
        }
        open.extend(made);
    }
    let mut took = Vec::new();
    for _ in 0..100 {
        scene.now = scene.now.after_ms(100);
        let mut events: Vec<Event> = open.drain(..open.len().min(900)).map(ended).collect();
        for attempt in open.iter().rev().take(1_000 - events.len()) {
            events.push(Event::Started { attempt: *attempt });
        }
        let turn = scene.snapshot.turn + 1;
        scene.snapshot.apply_all(turn, scene.now, events);
        for n in 0..50 {
            let id = format!("i-{:05}", random.below(10_000));
            let cpu_percent = u32::try_from(random.below(60)).unwrap_or(0);
            scene.live(&id, Live { connected: true, cpu_percent, memory_mb: n });
        }
        let (made, pass) = pass(&mut scene.snapshot, &policy, scene.now);
        open.extend(made);
        took.push(pass);
    }
    let queued = scene.snapshot.ready_items();
    report(&format!("10,000 instances, {queued} queued, 1,000 events between"), 0.0, &mut took);
    let hwm = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let hwm = hwm.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("VmHWM unknown");
    println!("peak memory {}; {:.1} s in all", hwm.trim_start_matches("VmHWM:").trim(), begin.elapsed().as_secs_f64());
}
