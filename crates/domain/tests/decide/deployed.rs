//! Sessions with groups: their items go where the deployment plan says, and nowhere else.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use skein_domain::decide::Reason;
use skein_domain::decide::deployment::{Deployment, Effort, deploy, replan};
use skein_domain::decide::explain::Explanation;
use skein_domain::event::Event;
use skein_domain::group::resolve;
use skein_domain::site::{Rack, Server, Site, Sites};
use skein_domain::testing::{Scene, dedicated, facts, key, loose, name, shared, spec_of, task};
use skein_domain::thread::{ThreadSpec, assemble};
use skein_domain::{HoldPolicy, NodeKey, Place, SessionId};

/// Two racks in one site: instances `a1`, `a2` on server `a` in rack `r1`, `b1` on `b` in `r2`.
fn scene() -> Scene {
    let server = |instances: &str| Server {
        instances: vec![instances.into()],
        vcpus: None,
        memory_mb: None,
        nic_mbps: None,
        overcommit_percent: 100,
    };
    let rack = |name: &str| {
        let servers = BTreeMap::from([(Arc::from(name), server(&format!("{name}*")))]);
        Rack { uplink_mbps: None, servers }
    };
    let racks = BTreeMap::from([(Arc::from("r1"), rack("a")), (Arc::from("r2"), rack("b"))]);
    let sites = BTreeMap::from([(Arc::from("north"), Site { uplink_mbps: None, racks })]);
    let mut scene = Scene::default();
    scene.policy.sites = Arc::new(Sites::new(sites).unwrap());
    scene.solution(dedicated("own", 0));
    for instance in ["a1", "a2", "b1"] {
        scene.instance(instance, "own", facts(2));
    }
    scene
}

fn thread(groups: Value, members: Value) -> ThreadSpec {
    let nodes = ["x", "y", "z"].map(|node| loose(task(node), &[])).to_vec();
    let mut thread = assemble(name("thread"), String::new(), nodes, &[], HoldPolicy::IdleMs(0)).unwrap();
    let groups: Vec<_> = serde_json::from_value(groups).unwrap();
    thread.groups = resolve(&groups, &serde_json::from_value(members).unwrap(), &thread.nodes).unwrap();
    thread
}

fn start(scene: &mut Scene, groups: Value) -> SessionId {
    deployed(scene, thread(groups, json!({})))
}

fn deployed(scene: &mut Scene, thread: ThreadSpec) -> SessionId {
    let session = SessionId::derive(scene.snapshot.turn + 1, 0);
    let deployed = deploy(&scene.snapshot, &scene.policy, session, &thread, Effort::default()).unwrap().unwrap();
    let deployed = Event::Deployed { session, deployment: Box::new(deployed), why: "it was submitted".into() };
    scene.happen(vec![Event::SessionStarted { session, spec: spec_of(thread) }, deployed]);
    session
}

/// Plans again where that is needed, as the engine does before each pass; how many sessions that was.
fn again(scene: &mut Scene) -> usize {
    let events = replan(&scene.snapshot, &scene.policy, Effort::default());
    let many = events.len();
    if many > 0 {
        scene.happen(events);
    }
    assert!(scene.snapshot.is_well_indexed());
    many
}

/// One pass; where each node of the session went.
fn places(scene: &mut Scene, session: SessionId) -> Vec<(u32, String)> {
    let plan = scene.pass();
    let of = plan.assignments.iter().filter(|a| a.item.session() == session);
    of.map(|a| (a.item.node.node, a.place.to_string())).collect()
}

fn reason(scene: &Scene, session: SessionId, node: u32) -> Reason {
    match scene.explain(key(session, node, 0)) {
        Some(Explanation::Waiting { reason, .. }) => reason,
        other => panic!("it waits: {other:?}"),
    }
}

fn gone(scene: &mut Scene, instance: &str) {
    scene.happen(vec![Event::InstanceGone { instance: name(instance), why: "its lease is over".into() }]);
}

#[test]
fn what_is_apart_goes_to_two_servers_and_what_is_together_to_one() {
    let mut scene = scene();
    let groups = json!([
        {"name": "pair", "members": ["x", "y"], "affinity": "server"},
        {"name": "all", "members": ["pair", "z"], "diversity": "rack"},
    ]);
    let session = start(&mut scene, groups);
    let mut went = places(&mut scene, session);
    went.sort();
    let servers: Vec<&str> = went.iter().map(|(_, place)| &place[..1]).collect();
    assert_eq!(servers, ["a", "a", "b"], "{went:?}");
    assert!(scene.snapshot.is_well_indexed());
}

#[test]
fn an_item_waits_for_its_server_even_when_others_are_free_and_says_so() {
    let mut scene = scene();
    scene.solution(shared("cloud", 1, 900_000, 8));
    // Three tasks with the door on `b`, which has two slots.
    let groups = json!([{"name": "g", "members": ["x", "y", "z", "door"], "affinity": "server"}]);
    let session = deployed(&mut scene, thread(groups, json!({"door": {"kind": "ingress", "at": "north/r2"}})));
    assert_eq!(places(&mut scene, session), [(0, "b1".to_owned()), (1, "b1".to_owned())]);
    let Reason::OnServer { server, because } = reason(&scene, session, 2) else { panic!("held to its server") };
    assert_eq!((&*server, *because), ("north/r2/b", Reason::SlotsTaken { slots: 2 }));
    let Some(Explanation::Waiting { candidates, .. }) = scene.explain(key(session, 2, 0)) else { panic!("it waits") };
    let of = |place: &str| candidates.iter().find(|c| c.place.to_string() == place).unwrap().reason.clone().unwrap();
    assert!(matches!(of("a1"), Reason::OtherServer { .. }) && of("cloud") == Reason::HeldToServer, "{candidates:?}");
    // No machine is made for it either: another server would not do.
    assert!(scene.decide().wanted.is_empty());
}

#[test]
fn a_place_of_its_own_keeps_others_away_and_waits_for_those_that_were_there() {
    let mut scene = scene();
    // Something runs everywhere.
    let mut before = Vec::new();
    for _ in 0..3 {
        let session = scene.start_task(task("other"));
        before.push((session, places(&mut scene, session)));
    }
    let session = start(&mut scene, json!([{"name": "g", "members": ["x"], "exclusivity": "server"}]));
    let server = scene.snapshot.sessions[&session].deployment.clone().unwrap().planned().unwrap().at[0].clone();
    assert_eq!(places(&mut scene, session).iter().filter(|(node, _)| *node == 0).count(), 0);
    let Reason::OnServer { because, .. } = reason(&scene, session, 0) else { panic!("held to its server") };
    assert!(matches!(*because, Reason::OthersThere { attempts: 1.., .. }), "{because:?}");
    // Others of the same session stay out too, and so do other sessions: six items on two other instances.
    let more: Vec<SessionId> = (0..6).map(|_| scene.start_task(task("later"))).collect();
    let plan = scene.pass();
    let there = |place: &Place| {
        let Place::Instance(id) = place else { return false };
        scene.policy.sites.spot_of(id, &name("own")) == server
    };
    assert!(plan.assignments.iter().all(|a| !there(&a.place)), "{:?}", plan.assignments);
    let mut kept = more.iter().filter_map(|session| {
        let candidates = scene.explain(key(*session, 0, 0))?;
        let Explanation::Waiting { candidates, .. } = candidates else { return None };
        Some(candidates.into_iter().any(|c| matches!(c.reason, Some(Reason::KeptForGroup { .. }))))
    });
    assert!(kept.next_back().unwrap(), "who waits hears whom the server is kept for");
    // Those that were there end: it begins.
    let open: Vec<_> = scene.snapshot.attempts.values().filter(|a| there(&a.place)).map(|a| a.key).collect();
    for attempt in open {
        scene.succeed(attempt);
    }
    let went = places(&mut scene, session);
    assert!(went.iter().any(|(node, place)| *node == 0 && place.starts_with(&*server.server)), "{went:?}");
}

#[test]
fn a_server_that_is_gone_takes_its_members_elsewhere_and_the_others_stay() {
    let mut scene = scene();
    scene.instance("c", "own", facts(2));
    let session = start(&mut scene, json!([{"name": "g", "members": ["x", "y"], "diversity": "server"}]));
    let at =
        |scene: &Scene| scene.snapshot.sessions[&session].deployment.clone().unwrap().planned().unwrap().at.clone();
    let before = at(&scene);
    assert_eq!(before.iter().map(ToString::to_string).collect::<Vec<_>>(), ["north/r1/a", "north/r2/b"]);
    assert_eq!(again(&mut scene), 0, "nothing changed");
    gone(&mut scene, "b1");
    assert_eq!(again(&mut scene), 1);
    let after = at(&scene);
    assert_eq!((after[0].clone(), after[1].to_string()), (before[0].clone(), "own/c".to_owned()));
    assert_eq!(again(&mut scene), 0);
}

#[test]
fn what_is_possible_but_not_now_waits_with_what_is_in_conflict_until_a_server_comes() {
    let mut scene = scene();
    gone(&mut scene, "b1");
    let session = start(&mut scene, json!([{"name": "g", "members": ["x", "y"], "diversity": "rack"}]));
    assert!(matches!(scene.snapshot.sessions[&session].deployment.as_deref(), Some(Deployment::Waits { .. })));
    assert!(places(&mut scene, session).iter().all(|(node, _)| *node == 2), "only what is in no group");
    let said = reason(&scene, session, 0).to_string();
    assert!(said.contains("diversity (rack) of group 'g'"), "{said}");
    assert_eq!(again(&mut scene), 0, "the same servers are not asked twice");
    scene.instance("b1", "own", facts(2));
    assert_eq!(again(&mut scene), 1);
    assert_eq!(places(&mut scene, session).len(), 2);
}

#[test]
fn what_can_never_hold_is_refused_with_the_rules_that_are_in_conflict() {
    let scene = scene();
    let groups = json!([{"name": "g", "members": ["x", "y", "z"], "diversity": "rack"},
        {"name": "near", "members": ["x"], "affinity": "site"}]);
    let (thread, session) = (thread(groups, json!({})), SessionId::derive(9, 0));
    let why = deploy(&scene.snapshot, &scene.policy, session, &thread, Effort::default()).unwrap_err();
    assert!(why.contains("diversity (rack) of group 'g'") && !why.contains("near"), "{why}");
}

#[test]
fn an_element_that_is_no_task_takes_room_and_holds_others_to_its_place() {
    let mut scene = scene();
    let groups = json!([{"name": "g", "members": ["x", "edge"], "locality": "near"}]);
    let thread = thread(groups, json!({"edge": {"kind": "ingress", "at": "north/r2", "vcpus": 2}}));
    let session = SessionId::derive(scene.snapshot.turn + 1, 0);
    let Some(Deployment::Planned(planned)) =
        deploy(&scene.snapshot, &scene.policy, session, &thread, Effort::default()).unwrap()
    else {
        panic!("there is a plan")
    };
    assert!(planned.at.iter().all(|spot| spot.is_in("north/r2")), "{planned:?}");
    let started = Event::SessionStarted { session, spec: spec_of(thread) };
    scene.happen(vec![started]);
    // Without its event nothing of the group is placed: the engine plans before it decides.
    assert!(scene.decide().assignments.iter().all(|a| a.item.node != NodeKey { session, node: 0 }));
    assert_eq!(again(&mut scene), 1);
    assert!(places(&mut scene, session).contains(&(0, "b1".to_owned())));
}

#[test]
fn plans_leave_each_other_their_room_and_their_places() {
    let mut scene = scene();
    let large = |scene: &mut Scene, rule: Value| {
        let mut group = json!({"name": "g", "members": ["x"]});
        group.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
        deployed(scene, thread(json!([group]), json!({"x": {"vcpus": 3}})))
    };
    let at = |scene: &Scene, session: SessionId| {
        let deployment = scene.snapshot.sessions[&session].deployment.clone().unwrap();
        deployment.planned().map(|planned| planned.at[0].to_string())
    };
    // Three of four CPUs each: two sessions fill both servers, and the third waits for one of them to end.
    let (first, second) = (large(&mut scene, json!({})), large(&mut scene, json!({"security": "hypervisor"})));
    assert_eq!(at(&scene, first).as_deref(), Some("north/r1/a"));
    assert_eq!(at(&scene, second).as_deref(), Some("north/r2/b"), "alone, and not where the first is");
    let third = large(&mut scene, json!({}));
    let said = reason(&scene, third, 0).to_string();
    assert!(said.contains("the size of 'x' (3 vCPUs"), "{said}");
    let small = start(&mut scene, json!([{"name": "g", "members": ["y"], "affinity": "server"}]));
    assert_eq!(at(&scene, small).as_deref(), Some("north/r1/a"), "what is kept for a group is for no one else");
    scene.happen(vec![Event::SessionStopping { session: first, by: name("tester") }]);
    assert_eq!(again(&mut scene), 1);
    assert_eq!(at(&scene, third).as_deref(), Some("north/r1/a"));
}

#[test]
fn what_is_loaded_again_holds_the_same_items_to_the_same_servers() {
    let mut scene = scene();
    let groups = json!([{"name": "g", "members": ["x", "y"], "diversity": "rack", "exclusivity": "server"}]);
    let session = start(&mut scene, groups);
    let mut sessions: Vec<_> = scene.snapshot.sessions.values().cloned().collect();
    for node in sessions.iter_mut().flat_map(|session| &mut session.nodes) {
        // As the ledger gives it back: the profile is the task's own.
        node.profile = Arc::new(skein_domain::task::Profile { held: None, ..(*node.profile).clone() });
    }
    let mut loaded = skein_domain::decide::Snapshot::load(skein_domain::decide::snapshot::Stored {
        turn: scene.snapshot.turn,
        solutions: scene.snapshot.solutions.values().cloned().collect(),
        instances: scene.snapshot.instances.values().cloned().collect(),
        sessions,
        ..skein_domain::decide::snapshot::Stored::default()
    });
    assert_eq!(loaded, scene.snapshot);
    for instance in ["a1", "a2", "b1"] {
        loaded.set_live(&name(instance), scene.snapshot.live(&name(instance)));
    }
    let plan = skein_domain::decide::decide(&loaded, &scene.policy, scene.now);
    assert_eq!(plan, scene.decide());
    assert!(plan.assignments.iter().any(|a| a.item.session() == session));
}
