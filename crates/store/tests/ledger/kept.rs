//! How long things are kept.

use skein_domain::event::{Event, Then};
use skein_domain::testing::{dedicated, facts, key, loose, task};
use skein_domain::{Digest, EndCause, ItemEnd, SessionId, TaskSpec};
use skein_store::{Ledger as _, Limits, Page, Reader as _, Removed, Side};

use crate::Kept;

const FOR_EVER: Limits = Limits { sessions_age_ms: u64::MAX, events_age_ms: u64::MAX, events_max: u64::MAX };

fn digest(digit: char) -> Digest {
    Digest::new(&digit.to_string().repeat(64)).unwrap()
}

/// A session of two items: one ends a second after the other.
fn with_session(kept: &mut Kept) -> SessionId {
    let session = kept.scene.start_nodes(vec![loose(TaskSpec { array: 2, ..task("t") }, &[])], &[]);
    let user = "tester".parse().unwrap();
    let key = session.to_string();
    let rows = [Side::ClientKey { user, key, session }, Side::FileRef { session, digest: digest('a') }];
    kept.commit(&[], &rows).unwrap();
    session
}

fn end_items(kept: &mut Kept, session: SessionId) {
    kept.pass();
    for index in 0..2 {
        kept.scene.after_ms(1_000);
        let attempt = key(session, 0, index).attempt(1);
        let end = skein_domain::AttemptEnd::bare(EndCause::Succeeded);
        kept.happen(vec![Event::Ended { attempt, end, then: Then::End(ItemEnd::Succeeded) }]);
    }
}

fn scene() -> Kept {
    let mut kept = Kept::new();
    kept.scene.solution(dedicated("own", 1));
    kept.scene.instance("a", "own", facts(100));
    kept.commit(&[], &[]).unwrap();
    kept
}

#[test]
fn ended_sessions_go_with_all_their_rows_after_their_time() {
    let mut kept = scene();
    let (old, open) = (with_session(&mut kept), with_session(&mut kept));
    end_items(&mut kept, old);
    let limits = Limits { sessions_age_ms: 5_000, ..FOR_EVER };
    kept.scene.after_ms(5_000);
    assert_eq!(kept.ledger.retain(&limits, kept.scene.now).unwrap(), Removed::default(), "exactly its age is kept");
    kept.scene.after_ms(1);
    let removed = kept.ledger.retain(&limits, kept.scene.now).unwrap();
    assert_eq!(removed, Removed { sessions: vec![old], events: 0 });
    let reader = kept.reader();
    assert_eq!(reader.sessions(Page::ALL).unwrap().iter().map(|s| s.id).collect::<Vec<_>>(), [open]);
    assert!(reader.attempts(old, Page::ALL).unwrap().is_empty() && reader.item(key(old, 0, 0)).unwrap().is_none());
    assert_eq!(reader.client_key("tester", &old.to_string()).unwrap(), None);
    assert_eq!(reader.client_key("tester", &open.to_string()).unwrap(), Some(open));
    assert_eq!(
        reader.referenced().unwrap().into_iter().collect::<Vec<_>>(),
        [digest('a')],
        "the open one refers to it"
    );
    let loaded = kept.loaded();
    assert_eq!(loaded, kept.scene.snapshot);
}

#[test]
fn events_go_by_age_and_by_number_and_their_numbers_are_never_used_again() {
    let mut kept = scene();
    let bounds = |kept: &Kept| kept.reader().event_bounds().unwrap();
    assert_eq!(bounds(&kept), (0, 1));
    for _ in 0..10 {
        kept.scene.after_ms(1_000);
        kept.happen(vec![Event::SolutionSet { solution: dedicated("own", 1) }]);
    }
    assert_eq!(bounds(&kept), (10, 1));
    let by_age = Limits { events_age_ms: 4_000, ..FOR_EVER };
    assert_eq!(kept.ledger.retain(&by_age, kept.scene.now).unwrap().events, 5);
    assert_eq!(bounds(&kept), (10, 6));
    let by_number = Limits { events_max: 2, ..FOR_EVER };
    assert_eq!(kept.ledger.retain(&by_number, kept.scene.now).unwrap().events, 3);
    assert_eq!(bounds(&kept), (10, 9));
    let numbers: Vec<u64> = kept.reader().events(9, None, 10).unwrap().iter().map(|e| e.seq).collect();
    assert_eq!(numbers, [10]);
    kept.scene.after_ms(10_000);
    assert_eq!(kept.ledger.retain(&by_age, kept.scene.now).unwrap().events, 2);
    assert_eq!(bounds(&kept), (10, 11), "nothing is left, but a client that saw event 10 is up to date");
    kept.happen(vec![Event::SolutionSet { solution: dedicated("own", 1) }]);
    assert_eq!(bounds(&kept), (11, 11));
}
