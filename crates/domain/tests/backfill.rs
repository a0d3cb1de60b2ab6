//! EASY backfilling as `decide` does it, beside a plain EASY and first-come-first-served, both written here and
//! sharing nothing with it: mean waits on loads from seeds. And that what needs much has a bounded wait.
//!
//! `cargo test -p skein-domain --test backfill -- --nocapture` prints the figures.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing has failed")]
#![allow(clippy::cast_precision_loss, reason = "means and shares for people")]
#![allow(clippy::print_stdout, reason = "the figures")]

use std::collections::{BTreeMap, BTreeSet};

use skein_domain::decide::explain::Explanation;
use skein_domain::decide::{Choice, Reason};
use skein_domain::needs::CpuSetting;
use skein_domain::testing::{Random, Scene, dedicated, facts, key, loose, task};
use skein_domain::{AttemptKey, ItemKey, RunningMode, SessionId, TaskSpec, Timestamp};

const SEEDS: [u64; 4] = [1, 2, 3, 4];
const ITEMS: usize = 400;

/// One item of a load.
#[derive(Debug, Clone, Copy)]
struct Work {
    at_ms: u64,
    slots: u32,
    alone: bool,
    ms: u64,
    /// Its time limit, at least `ms`.
    limit_ms: u64,
}

/// Instances of so many slots.
#[derive(Debug, Clone, Copy)]
struct Shape {
    instances: usize,
    slots: u32,
    sizes: &'static [u32],
}

const ONE: Shape = Shape { instances: 1, slots: 128, sizes: &[1, 1, 2, 4, 8, 16, 32, 64] };
const MANY: Shape = Shape { instances: 16, slots: 8, sizes: &[1, 1, 1, 2, 2, 4, 8] };

/// A load that keeps `percent` of all slots in use: sizes as the shape says, 4 % alone, times from a second to
/// two hours (each doubling as likely), limits up to `slack` times as long, arrivals at any moment as likely.
fn load(seed: u64, shape: Shape, percent: u64, slack: u64) -> Vec<Work> {
    let mut random = Random::new(seed);
    let mut all: Vec<Work> = (0..ITEMS)
        .map(|_| {
            let alone = random.chance(4);
            let ms = (1_000 << random.below(13)) + random.below(1_000);
            let limit_ms = ms * (1 + random.below(slack));
            Work { at_ms: 0, slots: random.pick(shape.sizes), alone, ms, limit_ms }
        })
        .collect();
    let area: u64 = all.iter().map(|w| u64::from(taken(w, shape)) * w.ms).sum();
    let span = area * 100 / percent / (shape.instances as u64 * u64::from(shape.slots));
    all.iter_mut().for_each(|work| work.at_ms = random.below(span));
    all.sort_by_key(|work| work.at_ms);
    all
}

fn taken(work: &Work, shape: Shape) -> u32 {
    if work.alone { shape.slots } else { work.slots }
}

fn mean_s(waits: &[u64]) -> f64 {
    waits.iter().sum::<u64>() as f64 / waits.len() as f64 / 1000.0
}

/// What is on an instance of the reference: by when each is taken to end, when it does, and its slots.
type Held = Vec<(u64, u64, u32)>;

/// First come, first served, or EASY: for the first in the queue the earliest time at which an instance has its
/// slots, as limits say; all others in order, wherever they do not delay it. Waits in order of `works`.
fn plain(works: &[Work], shape: Shape, backfill: bool) -> Vec<u64> {
    let mut held: Vec<Held> = vec![Vec::new(); shape.instances];
    let free = |held: &Held| shape.slots - held.iter().map(|(_, _, slots)| slots).sum::<u32>();
    let (mut queue, mut next, mut waits, mut now) = (Vec::<usize>::new(), 0, vec![0; works.len()], 0);
    loop {
        held.iter_mut().for_each(|held| held.retain(|(_, end, _)| *end > now));
        while next < works.len() && works[next].at_ms <= now {
            queue.push(next);
            next += 1;
        }
        let mut reserved: Option<(usize, u64, u32)> = None;
        let mut left = Vec::new();
        for at in std::mem::take(&mut queue) {
            let (work, asked) = (&works[at], taken(&works[at], shape));
            let delays = |n: usize| match reserved {
                Some((instance, shadow, spare)) if instance == n => now + work.limit_ms > shadow && asked > spare,
                _ => false,
            };
            let fits = |n: &usize| free(&held[*n]) >= asked && !delays(*n);
            let blocked = !backfill && !left.is_empty();
            let is_reserved = |n: usize| reserved.is_some_and(|(instance, ..)| instance == n);
            let found = (0..shape.instances).filter(fits).min_by_key(|n| (is_reserved(*n), held[*n].len(), *n));
            if let Some(n) = found.filter(|_| !blocked) {
                if let Some((instance, shadow, spare)) = &mut reserved
                    && *instance == n
                    && now + work.limit_ms > *shadow
                {
                    *spare -= asked;
                }
                held[n].push((now + work.limit_ms, now + work.ms, asked));
                waits[at] = now - work.at_ms;
                continue;
            }
            if left.is_empty() {
                reserved = (0..shape.instances).map(|n| shadow(&held[n], n, asked, shape)).min_by_key(|r| (r.1, r.0));
            }
            left.push(at);
        }
        queue = left;
        let ends = held.iter().flatten().map(|(_, end, _)| *end);
        let Some(then) = ends.chain(works.get(next).map(|w| w.at_ms)).min() else { return waits };
        now = then;
    }
}

/// When an instance has so many slots, and what is spare beside them then.
fn shadow(held: &Held, n: usize, asked: u32, shape: Shape) -> (usize, u64, u32) {
    let mut times: Vec<u64> = held.iter().map(|(limit, ..)| *limit).collect();
    times.sort_unstable();
    let free_at = |t: u64| shape.slots - held.iter().filter(|(l, ..)| *l > t).map(|(_, _, slots)| slots).sum::<u32>();
    let at = times.into_iter().find(|t| free_at(*t) >= asked).unwrap();
    (n, at, free_at(at) - asked)
}

fn spec(work: &Work) -> TaskSpec {
    let mut spec = TaskSpec { running_mode: RunningMode::Dedicated, ..task("t") };
    spec.needs.memory_mb = 1;
    spec.needs.slots = if work.alone { 1 } else { work.slots };
    spec.needs.cpu = if work.alone { CpuSetting::Exclusive } else { CpuSetting::Algorithm };
    (spec.expected_run_ms, spec.longest_run_ms) = (Some(work.ms), Some(work.limit_ms));
    spec
}

fn scene(shape: Shape) -> Scene {
    let mut scene = Scene::default();
    scene.solution(dedicated("own", 1));
    if let Ok(w) = std::env::var("W") { scene.policy.exclusive_wait_ms = w.parse().unwrap(); }
    for n in 0..shape.instances {
        scene.instance(&format!("i-{n:02}"), "own", facts(shape.slots));
    }
    scene
}

/// The real thing: `decide` and `apply`, each item a session of its own. Waits, and how many were backfilled.
fn real(works: &[Work], shape: Shape) -> (Vec<u64>, usize) {
    let mut scene = scene(shape);
    let begin = scene.now;
    let at = |ms: u64| begin.after_ms(ms);
    let mut ends: BTreeSet<(Timestamp, AttemptKey)> = BTreeSet::new();
    let mut open: BTreeMap<SessionId, usize> = BTreeMap::new();
    let (mut next, mut waits, mut backfilled) = (0, vec![0; works.len()], 0);
    loop {
        while let Some((_, attempt)) = ends.first().copied().filter(|(end, _)| *end <= scene.now) {
            ends.pop_first();
            scene.succeed(attempt);
        }
        while next < works.len() && at(works[next].at_ms) <= scene.now {
            let session = scene.start_nodes(vec![loose(spec(&works[next]), &[])], &[]);
            open.insert(session, next);
            next += 1;
        }
        let plan = scene.pass();
        for placed in &plan.assignments {
            let which = open[&placed.item.session()];
            waits[which] = scene.now.ms_since(at(works[which].at_ms));
            ends.insert((scene.now.after_ms(works[which].ms), placed.item.attempt(placed.number)));
            backfilled += usize::from(matches!(placed.choice, Choice::Backfilled { .. }));
        }
        if plan.next_wake.is_some_and(|at| at <= scene.now) {
            continue;
        }
        let then = [ends.first().map(|(end, _)| *end), works.get(next).map(|w| at(w.at_ms)), plan.next_wake];
        let Some(then) = then.into_iter().flatten().min() else { break };
        scene.now = then;
    }
    assert!(scene.snapshot.sessions.is_empty(), "something never started: {:?}", scene.decide().waiting);
    (waits, backfilled)
}

/// Over all seeds: the mean wait of ours, of EASY and of first-come-first-served, s.
fn compare(name: &str, shape: Shape, percent: u64, slack: u64) {
    let (mut ours, mut easy, mut fcfs, mut backfilled) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for seed in SEEDS {
        let works = load(seed, shape, percent, slack);
        let (waits, count) = real(&works, shape);
        ours.extend(waits);
        easy.extend(plain(&works, shape, true));
        fcfs.extend(plain(&works, shape, false));
        backfilled += count;
    }
    let (ours, easy, fcfs) = (mean_s(&ours), mean_s(&easy), mean_s(&fcfs));
    println!("{name:<28} {percent} %: ours {ours:.0} s, EASY {easy:.0} s, first come {fcfs:.0} s, {backfilled} backfilled");
    assert!(ours <= easy * 1.05, "{name} at {percent} %: {ours:.0} s, EASY {easy:.0} s");
    assert!(ours < fcfs, "{name} at {percent} %: {ours:.0} s, first come {fcfs:.0} s");
    assert!(backfilled > 0 || shape.instances > 1);
}

#[test]
fn on_one_instance_of_128_slots_the_mean_wait_is_that_of_easy() {
    for percent in [70, 90] {
        compare("1 x 128, exact limits", ONE, percent, 1);
        compare("1 x 128, limits up to 5 x", ONE, percent, 5);
    }
}

#[test]
fn on_16_instances_of_8_slots_the_mean_wait_is_that_of_easy() {
    for percent in [70, 90] {
        compare("16 x 8, exact limits", MANY, percent, 1);
        compare("16 x 8, limits up to 5 x", MANY, percent, 5);
    }
}
