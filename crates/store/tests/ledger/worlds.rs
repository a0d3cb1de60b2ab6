//! Random worlds, written turn by turn.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use skein_domain::decide::change::Change;
use skein_domain::decide::{Policy, Snapshot, decide};
use skein_domain::event::Event;
use skein_domain::testing::{Random, Record, World};
use skein_domain::{ItemEnd, ItemKey, SessionId, SessionState, Timestamp};
use skein_store::{Ledger as _, Page, Reader as _, SqliteLedger, Turn};

use crate::open;

const WORLDS: u64 = 6;
const TURNS: u32 = 30;
const CALM_TURNS_MAX: u32 = 200;

fn commit(ledger: &mut SqliteLedger, record: &Record) {
    let (turn, at) = (record.turn, record.at);
    ledger
        .commit(&Turn { turn, at, events: &record.events, earlier: &[], changes: &record.changes, side: &[] })
        .unwrap();
}

/// The same in what is kept, and the same plan bytes.
fn assert_same(ledger: &mut SqliteLedger, built: &Snapshot, policy: &Policy, now: Timestamp) {
    let mut loaded = Snapshot::load(ledger.load().unwrap());
    assert_eq!(loaded.turn, built.turn);
    assert!(loaded == *built, "what was loaded after turn {} is not what was built", built.turn);
    for id in built.instances.keys() {
        loaded.set_live(id, built.live(id));
    }
    let plan = |snapshot| format!("{:?}", decide(snapshot, policy, now));
    // What an algorithm of a user's has said is not kept: it is asked again.
    let mut known = built.clone();
    known.apply(known.turn, now, &Event::AlgorithmSet { class: "mine".into(), digest: String::new() });
    assert_eq!(plan(&loaded), plan(&known));
}

/// Plays a world until all its sessions have ended, committing each turn.
fn play(seed: u64, ledger: &mut SqliteLedger, mut each: impl FnMut(&mut SqliteLedger, &World, &Record)) {
    let mut world = World::new(seed);
    for turn in 0..TURNS + CALM_TURNS_MAX {
        if turn == TURNS {
            world.calm_down();
        }
        let record = world.turn();
        if !record.events.is_empty() {
            commit(ledger, &record);
            each(ledger, &world, &record);
        }
        if turn > TURNS && world.scene.snapshot.sessions.is_empty() {
            return;
        }
    }
    panic!("world {seed} never comes to its end");
}

#[test]
fn what_is_loaded_equals_what_was_built_by_events() {
    for seed in 0..WORLDS {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = open(dir.path());
        let mut events: Vec<(u64, Timestamp, Event)> = Vec::new();
        let mut ends: BTreeMap<ItemKey, ItemEnd> = BTreeMap::new();
        play(seed, &mut ledger, |ledger, world, record| {
            assert_same(ledger, &world.scene.snapshot, &record.policy, record.at);
            events.extend(record.events.iter().map(|e| (record.turn, record.at, e.clone())));
            for change in &record.changes {
                if let Change::ItemEnded(key, end, _) = change {
                    ends.insert(*key, *end);
                }
            }
        });
        let reader = ledger.reader().unwrap();
        let stored = reader.events(0, None, u32::MAX).unwrap().into_iter().map(|row| (row.turn, row.at, row.event));
        assert!(stored.eq(events), "events of world {seed}");
        ended_rows(&reader, &ends);
    }
}

/// What ended has left the snapshot, but its rows tell the same.
fn ended_rows(reader: &impl skein_store::Reader, ends: &BTreeMap<ItemKey, ItemEnd>) {
    let sessions = reader.sessions(Page::ALL).unwrap();
    assert!(!sessions.is_empty() && sessions.is_sorted_by_key(|s| std::cmp::Reverse(s.id)));
    for session in &sessions {
        assert!(matches!(session.state, SessionState::Ended(_)) && session.ended_at.is_some());
        assert_eq!(u64::from(session.tally().ended()), session.count());
        let spec = reader.session_spec(session.id).unwrap().unwrap();
        assert_eq!(spec.thread.nodes.len(), session.nodes.len());
    }
    for (key, end) in ends {
        let row = reader.item(*key).unwrap().unwrap();
        assert_eq!((row.open, row.ended.map(|(end, _)| end)), (None, Some(*end)), "{key}");
        let attempts = reader.attempts_at(*key).unwrap();
        assert!(attempts.iter().all(|a| a.ended.is_some()), "an attempt at {key} is still open");
        assert!(attempts.iter().map(|a| a.attempt.key.number).eq(1..=u32::try_from(attempts.len()).unwrap()));
    }
    assert_eq!(reader.session(SessionId(u64::MAX >> 1)).unwrap(), None);
}

/// What a copy of the folder holds when the machine stops now: the database and its log, the log cut
/// off somewhere in what was written since `written` bytes.
fn copy(from: &Path, to: &Path, cut_at: Option<u64>) {
    fs::copy(from.join("ledger.sqlite"), to.join("ledger.sqlite")).unwrap();
    fs::copy(from.join("ledger.sqlite-wal"), to.join("ledger.sqlite-wal")).unwrap();
    if let Some(bytes) = cut_at {
        fs::OpenOptions::new().write(true).open(to.join("ledger.sqlite-wal")).unwrap().set_len(bytes).unwrap();
    }
}

#[test]
fn a_copy_at_any_commit_has_every_acknowledged_turn() {
    for seed in 100..100 + WORLDS {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = open(dir.path());
        let mut random = Random::new(seed);
        let wal = dir.path().join("ledger.sqlite-wal");
        let mut written = fs::metadata(&wal).unwrap().len();
        play(seed, &mut ledger, |_, world, record| {
            let now_written = fs::metadata(&wal).unwrap().len();
            if random.chance(30) {
                let whole = tempfile::tempdir().unwrap();
                copy(dir.path(), whole.path(), None);
                assert_same(&mut open(whole.path()), &world.scene.snapshot, &record.policy, record.at);
            }
            if random.chance(30) && now_written > written {
                let torn = tempfile::tempdir().unwrap();
                copy(dir.path(), torn.path(), Some(written + random.below(now_written - written)));
                let loaded = Snapshot::load(open(torn.path()).load().unwrap());
                assert_eq!(loaded.turn, record.start.turn, "the turn that was being written is there in part");
                assert!(loaded == record.start);
            }
            written = now_written;
        });
    }
}
