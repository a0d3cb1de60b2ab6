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
use skein_domain::event::{Event, Then};
use skein_domain::needs::CpuSetting;
use skein_domain::testing::{Random, Scene, dedicated, facts, key, loose, task};
use skein_domain::{AttemptEnd, AttemptKey, EndCause, ItemEnd, ItemKey, RunningMode, SessionId, TaskSpec, Timestamp};

const SEEDS: [u64; 3] = [1, 2, 3];
const ITEMS: usize = 300;

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
const MANY: Shape = Shape { instances: 16, slots: 8, sizes: &[1, 4, 8, 8] };

/// A load that keeps `percent` of all slots in use: sizes as the shape says, 8 % alone, times from a second to
/// half an hour (each doubling as likely), limits up to `slack` times as long, arrivals at any moment as likely.
fn load(seed: u64, shape: Shape, percent: u64, slack: u64) -> Vec<Work> {
    let mut random = Random::new(seed);
    let mut all: Vec<Work> = (0..ITEMS)
        .map(|_| {
            let alone = random.chance(8);
            let ms = (1_000 << random.below(11)) + random.below(1_000);
            let limit_ms = ms * (1 + random.below(slack));
            Work { at_ms: 0, slots: random.pick(shape.sizes), alone, ms, limit_ms }
        })
        .collect();
    let area: u64 = all.iter().map(|w| u64::from(taken(w, shape)) * w.ms).sum();
    let span = area * 100 / percent / (shape.instances as u64 * u64::from(shape.slots));
    for work in &mut all {
        work.at_ms = random.below(span);
    }
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
        for held in &mut held {
            held.retain(|(_, end, _)| *end > now);
        }
        while next < works.len() && works[next].at_ms <= now {
            queue.push(next);
            next += 1;
        }
        let mut reserved: Option<(usize, u64, u32)> = None;
        let mut left = Vec::new();
        for at in std::mem::take(&mut queue) {
            let (work, asked) = (&works[at], taken(&works[at], shape));
            let delays = |n: usize| match reserved {
                Some((instance, time, spare)) if instance == n => now + work.limit_ms > time && asked > spare,
                _ => false,
            };
            let fits = |n: &usize| free(&held[*n]) >= asked && !delays(*n);
            let blocked = !backfill && !left.is_empty();
            let is_reserved = |n: usize| reserved.is_some_and(|(instance, ..)| instance == n);
            let found = (0..shape.instances)
                .filter(fits)
                .min_by_key(|n| (is_reserved(*n), held[*n].len(), shape.slots - free(&held[*n]), *n));
            if let Some(n) = found.filter(|_| !blocked) {
                if let Some((instance, time, spare)) = &mut reserved
                    && *instance == n
                    && now + work.limit_ms > *time
                {
                    *spare -= asked;
                }
                held[n].push((now + work.limit_ms, now + work.ms, asked));
                waits[at] = now - work.at_ms;
                continue;
            }
            if left.is_empty() {
                reserved =
                    (0..shape.instances).map(|n| when_free(&held[n], n, asked, shape)).min_by_key(|r| (r.1, r.0));
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
fn when_free(held: &Held, n: usize, asked: u32, shape: Shape) -> (usize, u64, u32) {
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
        let reference = plain(&works, shape, true);
        // On one instance there is nothing to choose but who goes first: item by item the same.
        assert!(shape.instances > 1 || waits == reference, "{name} at {percent} %, seed {seed}: another order");
        ours.extend(waits);
        easy.extend(reference);
        fcfs.extend(plain(&works, shape, false));
        backfilled += count;
    }
    let (ours, easy, fcfs) = (mean_s(&ours), mean_s(&easy), mean_s(&fcfs));
    println!(
        "{name:<28} {percent} %: ours {ours:.0} s, EASY {easy:.0} s, first come {fcfs:.0} s, {backfilled} backfilled"
    );
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

/// Two instances of four slots, and an array of small items that is older than everything else and never ends:
/// each takes 20 to 60 s, and 60 s is its limit, if it has one.
struct Stream {
    scene: Scene,
    random: Random,
    ends: BTreeSet<(Timestamp, AttemptKey)>,
}

impl Stream {
    fn new(limit_ms: Option<u64>) -> Self {
        let mut scene = scene(Shape { instances: 2, slots: 4, sizes: &[] });
        let small = TaskSpec { array: 100_000, longest_run_ms: limit_ms, expected_run_ms: None, ..spec_of(1, 1) };
        scene.start_task(small);
        let mut stream = Self { scene, random: Random::new(5), ends: BTreeSet::new() };
        stream.until(120_000, |_| false);
        stream
    }

    /// Goes on for so long, or until `done`; after how long that was, ms.
    fn until(&mut self, most_ms: u64, done: impl Fn(&ItemKey) -> bool) -> Option<u64> {
        let begin = self.scene.now;
        while self.scene.now.ms_since(begin) <= most_ms {
            while let Some((_, attempt)) = self.ends.first().copied().filter(|(end, _)| *end <= self.scene.now) {
                self.ends.pop_first();
                let assigned_at = self.scene.snapshot.attempts[&attempt].assigned_at;
                let run_ms = self.scene.now.ms_since(assigned_at);
                let end = AttemptEnd { run_ms, ..AttemptEnd::bare(EndCause::Succeeded) };
                self.scene.happen(vec![Event::Ended { attempt, end, then: Then::End(ItemEnd::Succeeded) }]);
            }
            let plan = self.scene.pass();
            for placed in &plan.assignments {
                let ms = 20_000 + self.random.below(40_001);
                self.ends.insert((self.scene.now.after_ms(ms), placed.item.attempt(placed.number)));
            }
            if plan.assignments.iter().any(|placed| done(&placed.item)) {
                return Some(self.scene.now.ms_since(begin));
            }
            let wakes = [self.ends.first().map(|(end, _)| *end), plan.next_wake];
            self.scene.now = wakes.into_iter().flatten().min().unwrap().max(self.scene.now);
        }
        None
    }
}

fn spec_of(slots: u32, memory_mb: u32) -> TaskSpec {
    let mut spec = TaskSpec { running_mode: RunningMode::Dedicated, ..task("t") };
    (spec.needs.slots, spec.needs.memory_mb) = (slots, memory_mb);
    spec
}

fn alone() -> TaskSpec {
    let mut spec = spec_of(1, 1);
    spec.needs.cpu = CpuSetting::Exclusive;
    spec
}

#[test]
fn what_needs_much_waits_for_its_turn_and_what_runs_at_most_under_a_ceaseless_stream() {
    for limit_ms in [Some(60_000), None] {
        for (what, spec) in [("alone", alone()), ("four slots", spec_of(4, 1)), ("three slots", spec_of(3, 1))] {
            let mut stream = Stream::new(limit_ms);
            let session = stream.scene.start_task(spec);
            let wait_ms = stream.until(600_000, |item| item.session() == session);
            println!("{what}, limits of the stream {limit_ms:?} ms: waits {wait_ms:?} ms");
            let most_ms = stream.scene.policy.exclusive_wait_ms + 60_000;
            assert!(wait_ms.is_some_and(|ms| ms <= most_ms), "{what}, {limit_ms:?}: {wait_ms:?}");
        }
    }
}

#[test]
fn a_set_that_starts_together_on_several_instances_does_not_starve() {
    for limit_ms in [Some(60_000), None] {
        for nodes in [vec![alone(), alone()], vec![spec_of(3, 1), spec_of(3, 1), spec_of(1, 1)]] {
            let mut stream = Stream::new(limit_ms);
            let named = |(spec, name): (TaskSpec, &str)| TaskSpec { name: name.parse().unwrap(), ..spec };
            let nodes: Vec<TaskSpec> = nodes.into_iter().zip(["x", "y", "z"]).map(named).collect();
            let names = nodes.iter().map(|spec| spec.name.to_string()).collect();
            let session = stream.scene.start_nodes(nodes.into_iter().map(|spec| loose(spec, &[])).collect(), &[names]);
            let wait_ms = stream.until(600_000, |item| item.session() == session);
            let most_ms = stream.scene.policy.exclusive_wait_ms + 60_000;
            assert!(wait_ms.is_some_and(|ms| ms <= most_ms), "{limit_ms:?}: {wait_ms:?}");
        }
    }
}

/// One instance of four slots, of which three are taken for 60 s. The first that waits needs `slots`.
fn reserved(slots: u32) -> (Scene, ItemKey, Timestamp) {
    let mut scene = scene(Shape { instances: 1, slots: 4, sizes: &[] });
    scene.start_task(spec_of(3, 1));
    scene.pass();
    let until = scene.now.after_ms(60_000);
    scene.after_ms(1_000);
    let first = key(scene.start_task(spec_of(slots, 1)), 0, 0);
    assert!(scene.pass().assignments.is_empty());
    (scene, first, until)
}

fn limited(scene: &mut Scene, longest_run_ms: Option<u64>, service: bool) -> ItemKey {
    scene.after_ms(1_000);
    key(scene.start_task(TaskSpec { longest_run_ms, service, ..spec_of(1, 1) }), 0, 0)
}

#[test]
fn what_surely_ends_in_time_goes_first_and_why_says_so() {
    let (mut scene, first, until) = reserved(4);
    let long = limited(&mut scene, Some(58_000), false);
    let unlimited = limited(&mut scene, None, false);
    let service = limited(&mut scene, None, true);
    for item in [long, unlimited, service] {
        let Some(Explanation::Waiting { reason: Reason::NoInstance { because, .. }, candidates }) = scene.explain(item)
        else {
            panic!("{item} does not wait for an instance")
        };
        let reserved = Reason::Reserved { item: first, at: Some(until) };
        assert_eq!((*because, candidates[0].reason.clone()), (reserved.clone(), Some(reserved)));
    }
    // 54 s are left.
    scene.after_ms(1_000);
    let exact = key(scene.start_task(TaskSpec { longest_run_ms: Some(55_000), ..spec_of(1, 1) }), 0, 0);
    let placed = scene.pass().assignments;
    assert_eq!(placed.iter().map(|a| a.item).collect::<Vec<_>>(), [exact]);
    assert_eq!(placed[0].choice, Choice::Backfilled { item: first, before: Some(until) });
    assert!(placed[0].choice.to_string().starts_with("backfilled: ends before 2023-"), "{}", placed[0].choice);
    // The item itself is told what is in its way, not its own reservation.
    let Some(Explanation::Waiting { candidates, .. }) = scene.explain(first) else { panic!() };
    assert!(!matches!(candidates[0].reason, Some(Reason::Reserved { .. }) | None));
}

#[test]
fn what_fits_beside_the_reserved_room_goes_first_but_never_more_than_that() {
    let (mut scene, first, _) = reserved(2);
    let (one, two) = (limited(&mut scene, Some(3_600_000), false), limited(&mut scene, None, true));
    let placed = scene.pass().assignments;
    assert_eq!(placed.iter().map(|a| a.item).collect::<Vec<_>>(), [one]);
    assert_eq!(placed[0].choice, Choice::Backfilled { item: first, before: None });
    // The slots of now are taken; once the three are free, the first has its two and the service the last.
    let three = scene.snapshot.attempts.keys().next().copied().unwrap();
    scene.succeed(three);
    assert_eq!(scene.pass().assignments.iter().map(|a| a.item).collect::<Vec<_>>(), [first, two]);
}
