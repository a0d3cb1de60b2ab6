//! Rows that the planner does not look at, and what readers see.

use serde_json::json;
use skein_domain::event::{Event, Then};
use skein_domain::session::ItemState;
use skein_domain::testing::{Random, dedicated, facts, key, loose, name, task};
use skein_domain::{AttemptEnd, Digest, EndCause, Image, ItemEnd, NodeKey, OutputFile, SessionId, TaskSpec, Timestamp};
use skein_store::{
    AgentIdentity, Document, DocumentKind, JoinTokenRow, Page, Reader as _, SecretRow, Side, StoreError, TokenRow,
};

use crate::Kept;

#[test]
fn a_client_key_stands_for_one_session_and_a_refused_turn_leaves_nothing() {
    let mut kept = Kept::new();
    let user = || name("tester");
    let mine = |session| Side::ClientKey { user: user(), key: "k".into(), session };
    kept.write(mine(SessionId(1))).unwrap();
    kept.write(Side::ClientKey { user: name("other"), key: "k".into(), session: SessionId(2) }).unwrap();
    let before = kept.loaded();
    let events = kept.scene.happen(vec![Event::SolutionSet { solution: dedicated("own", 1) }]);
    let refused = kept.commit(&events, &[mine(SessionId(3))]).unwrap_err();
    assert!(matches!(refused, StoreError::Sqlite(_)), "{refused}");
    assert_eq!((kept.loaded(), kept.reader().event_bounds().unwrap()), (before, (0, 1)), "all of a turn or nothing");
    let reader = kept.reader();
    assert_eq!(reader.client_key("tester", "k").unwrap(), Some(SessionId(1)));
    assert_eq!(reader.client_key("other", "k").unwrap(), Some(SessionId(2)));
    assert_eq!(reader.client_key("tester", "unknown").unwrap(), None);
}

#[test]
fn documents_keep_their_versions() {
    let mut kept = Kept::new();
    let document = |version, body| Document {
        kind: DocumentKind::Task,
        name: "t".into(),
        version,
        body,
        user: name("tester"),
        at: Timestamp(7),
    };
    let digest = "b".repeat(64);
    let (first, second) = (document(1, json!({"cpu": 1})), document(2, json!({"inputs": [{"digest": digest}]})));
    kept.write(Side::Document(first.clone())).unwrap();
    kept.write(Side::Document(second.clone())).unwrap();
    let reader = kept.reader();
    let newest = |version| reader.document(DocumentKind::Task, "t", version).unwrap();
    assert_eq!(reader.documents(DocumentKind::Task).unwrap(), std::slice::from_ref(&second));
    assert_eq!((newest(None), newest(Some(1)), newest(Some(3))), (Some(second), Some(first.clone()), None));
    assert_eq!(reader.document(DocumentKind::Thread, "t", None).unwrap(), None, "another kind");
    assert_eq!(reader.referenced().unwrap().into_iter().collect::<Vec<_>>(), [Digest::new(&digest).unwrap()]);
    assert!(kept.write(Side::Document(first.clone())).is_err(), "a version is never written over");

    kept.write(Side::DocumentRemoved(DocumentKind::Task, "t".into())).unwrap();
    assert!(reader.documents(DocumentKind::Task).unwrap().is_empty() && reader.referenced().unwrap().is_empty());
    assert_eq!((newest(None), newest(Some(1))), (None, Some(first)));
    assert_eq!(reader.last_version(DocumentKind::Task, "t").unwrap(), 2, "a removed name goes on counting");
}

#[test]
fn tokens_join_tokens_identities_and_secrets() {
    let mut kept = Kept::new();
    let token = TokenRow { id: "i".into(), hash: "h".into(), user: name("tester"), created_at: Timestamp(1) };
    let join = JoinTokenRow { hash: "j".into(), expires_at: Timestamp(9), used: false };
    let agent = |key: &str| AgentIdentity { instance: name("a"), solution: name("own"), public_key: key.into() };
    let secret = |sealed: &str| SecretRow { name: "S".into(), sealed: sealed.into(), at: Timestamp(2) };
    for side in [
        Side::Token(token.clone()),
        Side::JoinToken(join.clone()),
        Side::Identity(agent("old")),
        Side::Identity(agent("new")),
        Side::Secret(secret("old")),
        Side::Secret(secret("new")),
    ] {
        kept.write(side).unwrap();
    }
    let reader = kept.reader();
    assert_eq!(reader.tokens().unwrap(), [token]);
    assert_eq!(reader.join_token("j").unwrap(), Some(join.clone()));
    assert_eq!(reader.identities().unwrap(), [agent("new")]);
    assert_eq!(reader.identity(&name("a")).unwrap(), Some(agent("new")));
    assert_eq!(reader.secrets().unwrap(), [secret("new")]);
    for side in [Side::TokenRevoked("i".into()), Side::JoinTokenUsed("j".into()), Side::SecretRemoved("S".into())] {
        kept.write(side).unwrap();
    }
    assert!(reader.tokens().unwrap().is_empty() && reader.secrets().unwrap().is_empty());
    assert_eq!(reader.join_token("j").unwrap(), Some(JoinTokenRow { used: true, ..join }));
}

#[test]
fn the_image_catalogue_is_listed_newest_first_and_an_image_that_changed_is_one_row() {
    let mut kept = Kept::new();
    let image = |digit: &str, at: i64| Image {
        id: Digest::new(&digit.repeat(64)).unwrap(),
        name: "base".into(),
        tags: ["web".to_owned()].into(),
        parent: None,
        native: "qcow2".into(),
        virtual_bytes: 1 << 30,
        data_bytes: 1 << 20,
        offers: skein_domain::image::Offers::default(),
        user: name("tester"),
        at: Timestamp(at),
        deployed: Vec::new(),
    };
    let (old, new) = (image("a", 1), image("b", 2));
    let renamed = Image { name: "other".into(), ..old.clone() };
    for image in [&old, &new, &renamed] {
        kept.write(Side::Image(Box::new(image.clone()))).unwrap();
    }
    let reader = kept.reader();
    assert_eq!(reader.images().unwrap(), [new.clone(), renamed.clone()]);
    assert_eq!(reader.image(&old.id).unwrap(), Some(renamed));
    kept.write(Side::ImageRemoved(new.id.clone())).unwrap();
    assert_eq!((reader.image(&new.id).unwrap(), reader.images().unwrap().len()), (None, 1));
}

#[test]
fn every_state_of_an_open_item_is_loaded_again() {
    let mut kept = Kept::new();
    kept.scene.solution(dedicated("own", 1));
    kept.scene.instance("a", "own", facts(3));
    let session = kept.scene.start_nodes(vec![loose(TaskSpec { array: 5, ..task("t") }, &[])], &[]);
    kept.pass();
    let lost = || EndCause::Lost { why: "gone".into() };
    for (index, then) in [(0, Then::Ask), (1, Then::Retry { not_before: Timestamp(i64::MAX) })] {
        let attempt = key(session, 0, index).attempt(1);
        kept.happen(vec![Event::Ended { attempt, end: AttemptEnd::bare(lost()), then }]);
    }
    let states = &kept.scene.snapshot.sessions[&session].nodes[0].open;
    let word = |state: &ItemState| match state {
        ItemState::Asking { .. } => "asking",
        ItemState::Ready { .. } => "ready",
        ItemState::Assigned { .. } => "assigned",
    };
    assert_eq!(states.values().map(word).collect::<Vec<_>>(), ["asking", "ready", "assigned"]);
    assert_eq!(kept.loaded(), kept.scene.snapshot);
}

#[test]
fn numbers_that_a_user_wrote_come_back_as_written() {
    let mut kept = Kept::new();
    let mut spec = task("t");
    // Many decimals are misread by one in the last place unless the reader takes care.
    let mut random = Random::new(1);
    let drawn = std::iter::repeat_with(|| f64::from_bits(random.number())).filter(|f| f.is_finite());
    spec.custom = drawn.take(500).enumerate().map(|(at, f)| (at.to_string(), json!(f))).collect();
    kept.scene.start_nodes(vec![loose(spec, &[])], &[]);
    kept.commit(&[], &[]).unwrap();
    assert_eq!(kept.loaded(), kept.scene.snapshot);
}

#[test]
fn readers_see_outputs_pages_and_the_events_of_one_session() {
    let mut kept = Kept::new();
    kept.scene.solution(dedicated("own", 1));
    kept.scene.instance("a", "own", facts(100));
    let session = kept.scene.start_nodes(vec![loose(TaskSpec { array: 3, retries: 1, ..task("t") }, &[])], &[]);
    kept.commit(&[Event::SolutionSet { solution: dedicated("own", 1) }], &[]).unwrap();
    kept.pass();
    let file = |digit: &str| OutputFile { path: "o".into(), digest: Digest::new(&digit.repeat(64)).unwrap(), size: 5 };
    let retry = Then::Retry { not_before: kept.scene.now };
    let success = Then::End(ItemEnd::Succeeded);
    for (index, number, cause, digit, then) in [
        (0, 1, EndCause::Failed { exit_code: 1 }, "a", retry),
        (1, 1, EndCause::Succeeded, "b", success),
        (0, 2, EndCause::Succeeded, "c", success),
    ] {
        let attempt = key(session, 0, index).attempt(number);
        let end = AttemptEnd { outputs: vec![file(digit)], run_ms: 7, ..AttemptEnd::bare(cause) };
        kept.happen(vec![Event::Ended { attempt, end, then }]);
        kept.pass();
    }
    let (reader, node) = (kept.reader(), NodeKey { session, node: 0 });
    assert_eq!(reader.outputs(node).unwrap(), [(0, vec![file("c")]), (1, vec![file("b")])]);
    let attempts = |offset, limit| -> Vec<String> {
        let rows = reader.attempts(session, Page { offset, limit }).unwrap();
        rows.iter().map(|a| a.attempt.key.to_string().replace(&session.to_string(), "s")).collect()
    };
    assert_eq!(attempts(0, 9), ["s.0.0.1", "s.0.0.2", "s.0.1.1", "s.0.2.1"]);
    assert_eq!(attempts(1, 2), ["s.0.0.2", "s.0.1.1"]);
    // The third is at its first attempt, whose row says all there is to say of it.
    let items: Vec<u32> =
        reader.items(node, Page { offset: 0, limit: 9 }).unwrap().iter().map(|item| item.key.index).collect();
    assert_eq!(items, [0, 1]);
    assert_eq!(reader.items(node, Page { offset: 1, limit: 9 }).unwrap()[0].key, key(session, 0, 1));
    let open = reader.attempt(key(session, 0, 2).attempt(1)).unwrap().unwrap();
    assert_eq!((open.ended, &open.attempt), (None, &kept.scene.snapshot.attempts[&key(session, 0, 2).attempt(1)]));
    let words =
        |session| -> Vec<&str> { reader.events(0, session, 100).unwrap().iter().map(|e| e.event.word()).collect() };
    assert_eq!(
        (words(Some(session)), words(None)),
        (vec!["ended"; 3], vec!["solution_set", "ended", "ended", "ended"])
    );
}
