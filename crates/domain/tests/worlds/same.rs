//! The same input gives the same bytes: twice, rebuilt from the kept parts, and in another order.

use skein_domain::Timestamp;
use skein_domain::decide::snapshot::Stored;
use skein_domain::decide::{Assignment, Plan, Policy, Snapshot, decide};
use skein_domain::event::Event;
use skein_domain::testing::{Random, Record, World, apply_live};

fn bytes(plan: &Plan) -> String {
    format!("{plan:?}")
}

fn plan_bytes(snapshot: &Snapshot, policy: &Policy, now: Timestamp) -> String {
    bytes(&decide(snapshot, policy, now))
}

/// The kept parts of a snapshot, in an order that the seed makes.
fn reloaded(snapshot: &Snapshot, random: &mut Random) -> Snapshot {
    let mut stored = Stored {
        turn: snapshot.turn,
        solutions: snapshot.solutions.values().cloned().collect(),
        instances: snapshot.instances.values().cloned().collect(),
        sessions: snapshot.sessions.values().cloned().collect(),
        attempts: snapshot.attempts.values().cloned().collect(),
        spent: snapshot.spent.iter().map(|(key, cost)| (key.clone(), cost)).collect(),
        warned: snapshot.warned.iter().map(|(cap, said)| (cap.clone(), *said)).collect(),
    };
    random.shuffle(&mut stored.solutions);
    random.shuffle(&mut stored.instances);
    random.shuffle(&mut stored.sessions);
    random.shuffle(&mut stored.attempts);
    let mut loaded = Snapshot::load(stored);
    let mut ids: Vec<_> = snapshot.instances.keys().collect();
    random.shuffle(&mut ids);
    for id in ids {
        loaded.set_live(id, snapshot.live(id));
    }
    loaded
}

pub(crate) fn same_again(world: &World, record: &Record) {
    assert_eq!(plan_bytes(&record.before, &record.policy, record.at), bytes(&record.plan));
    assert_eq!(
        plan_bytes(&world.scene.snapshot.clone(), &record.policy, record.at),
        plan_bytes(&world.scene.snapshot, &record.policy, record.at)
    );
}

pub(crate) fn loaded(world: &World) {
    let scene = &world.scene;
    let loaded = reloaded(&scene.snapshot, &mut Random::new(scene.snapshot.turn));
    assert_eq!(loaded, scene.snapshot);
    assert!(loaded.usable().eq(scene.snapshot.usable()));
    assert!(scene.snapshot.is_well_indexed() && loaded.is_well_indexed());
    let now = scene.now;
    // What an algorithm of a user's has said is not kept: it is asked again.
    let mut known = scene.snapshot.clone();
    known.apply(known.turn, now, &Event::AlgorithmSet { class: "mine".into(), digest: String::new() });
    assert_eq!(plan_bytes(&loaded, &scene.policy, now), plan_bytes(&known, &scene.policy, now));
}

pub(crate) fn any_order(record: &Record, world: &World) {
    let mut random = Random::new(record.turn ^ 0xabcd);
    let (mut live, mut inputs) = (record.live.clone(), record.inputs.clone());
    random.shuffle(&mut live);
    random.shuffle(&mut inputs);
    // What an attempt cost is settled by the prices of the moment at which it ends; and whether an item was
    // cancelled before it ended is no matter of taste.
    inputs.sort_by_key(|event| matches!(event, Event::Ended { .. } | Event::Answered { .. }));
    let mut other = record.start.clone();
    apply_live(&mut other, &live);
    other.apply_all(record.turn, record.at, inputs);
    assert_eq!(other, record.before);
    let plan = decide(&other, &record.policy, record.at);
    assert_eq!(bytes(&plan), bytes(&record.plan));
    let events = plan.into_events(&other, record.turn, record.at);
    other.apply_all(record.turn, record.at, events);
    assert_eq!(other, world.scene.snapshot);
}

/// An event that comes twice changes nothing the second time: but for a person's word about whatever waits then.
pub(crate) fn doubled_events(record: &Record, after: &Snapshot) {
    let mut doubled = after.clone();
    let settled = record.events.iter().filter(|e| !matches!(e, Event::ItemsCancelled { .. } | Event::ItemsDue { .. }));
    settled.for_each(|event| doubled.apply(record.turn, record.at, event));
    assert_eq!(doubled, *after, "doubled events changed something: {:?}", record.events);
}

/// What an earlier turn already settled changes nothing when it comes again.
pub(crate) fn stale_events(earlier: &Record, record: &Record, after: &Snapshot) {
    let mut stale = after.clone();
    for event in &earlier.events {
        if matches!(
            event,
            Event::Assigned { .. }
                | Event::Sent { .. }
                | Event::Started { .. }
                | Event::Cancelling { .. }
                | Event::Recalling { .. }
                | Event::Moving { .. }
                | Event::Ended { .. }
                | Event::NodeCancelled { .. }
        ) {
            stale.apply(record.turn, record.at, event);
        }
    }
    assert_eq!(stale, *after, "stale events changed something: {:?}", earlier.events);
}

/// Once a plan is carried out, the same moment gives no further order, unless the plan asked to be
/// called again at once.
pub(crate) fn fixpoint(world: &World, record: &Record) {
    let again = decide(&world.scene.snapshot, &record.policy, record.at);
    if record.plan.next_wake.is_none_or(|wake| wake > record.at) {
        // A set that starts together is placed without trying back: what others took may let it fit.
        let in_a_set = |a: &Assignment| {
            let session = &record.before.sessions[&a.item.session()];
            session.spec.thread.together.iter().any(|set| set.contains(&a.item.node.node))
        };
        // Calling back for balance is not urgent: what one pass did may free the way for another's.
        let urgent = again.withdrawn.iter().any(|w| !w.why.contains("has a slot free"));
        let nothing = again.releases.is_empty() && !urgent;
        assert!(
            again.assignments.iter().all(in_a_set) && nothing,
            "not all at once: {again:?}\nafter {:?}",
            record.plan
        );
    } else {
        assert!(!record.plan.is_idle(), "asks to be called again at once, but did nothing: it would spin");
    }
}

/// Before `next_wake`, time alone changes nothing.
pub(crate) fn next_wake(record: &Record) {
    let plan = &record.plan;
    if !plan.is_idle() {
        return;
    }
    let most = plan.next_wake.map_or(86_400_000_000, |wake| wake.0 - record.at.0);
    assert!(most > 0, "wakes in the past");
    let mut random = Random::new(record.turn);
    for _ in 0..2 {
        let ahead = random.below(most.unsigned_abs());
        let later = decide(&record.before, &record.policy, Timestamp(record.at.0 + i64::try_from(ahead).unwrap()));
        assert!(later.is_idle(), "{ahead} us later, though {:?}: {later:?}", plan.next_wake);
    }
}

/// What the sessions that are left wait for.
pub(crate) fn stuck(world: &World) -> Vec<String> {
    let plan = world.scene.decide();
    let waiting = plan.waiting.iter().map(|w| format!("{} waits: {}", w.node, w.reason));
    let open = world.scene.snapshot.attempts.values().map(|a| format!("{:?} on {}", a.key, a.place));
    waiting.chain(open).collect()
}
