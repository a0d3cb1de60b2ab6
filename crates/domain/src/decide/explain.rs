//! `explain`: why one item is where it is, from the same predicates as `decide`.

use serde::{Deserialize, Serialize};

use super::balance::Overlay;
use super::choose::{Asking, Ever, choose};
use super::place;
use super::policy::Policy;
use super::proposal::{self, Proposal};
use super::reason::{Choice, Reason};
use super::snapshot::Snapshot;
use crate::attempt::Place;
use crate::id::{AttemptKey, ItemKey, NodeKey, SessionId};
use crate::instance::InstanceState;
use crate::quantity::{NanoUsd, Timestamp};
use crate::session::{ItemState, Session, SessionState};
use crate::task::Profile;

/// Why an open item is where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Explanation {
    /// It waits.
    Waiting {
        /// Why.
        reason: Reason,
        /// What each place says.
        candidates: Vec<Candidate>,
    },
    /// The next pass will place it.
    Placeable {
        /// Where.
        place: Place,
        /// Why there.
        choice: Choice,
        /// What each place says.
        candidates: Vec<Candidate>,
    },
    /// An attempt is open.
    Placed {
        /// Which.
        attempt: AttemptKey,
        /// Where.
        place: Place,
        /// Why there.
        choice: Choice,
    },
}

/// One place's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The place.
    pub place: Place,
    /// Why it does not take the item now; absent when it would.
    pub reason: Option<Reason>,
    /// Expected cost there.
    pub cost: NanoUsd,
}

/// Explains an item of an open session; `None` when it has ended or is unknown.
pub fn explain(snapshot: &Snapshot, policy: &Policy, item: ItemKey, now: Timestamp) -> Option<Explanation> {
    let session = snapshot.sessions.get(&item.session())?;
    let node = session.nodes.get(item.node.node as usize)?;
    let spec = &session.spec.thread.nodes[item.node.node as usize];
    if item.index >= node.count {
        return None;
    }
    let (since, backoff) = match node.open.get(&item.index) {
        Some(ItemState::Assigned { attempt, .. }) => {
            let open = snapshot.attempts.get(attempt)?;
            let (place, choice) = (open.place.clone(), open.choice.clone());
            return Some(Explanation::Placed { attempt: *attempt, place, choice });
        }
        Some(ItemState::Asking { .. }) => return Some(waiting(Reason::AsksPerson)),
        Some(ItemState::Ready { not_before, .. }) => ((*not_before).max(node.ready_at), Some(*not_before)),
        None if item.index < node.next => return None,
        None => (node.ready_at, None),
    };
    match session.state {
        SessionState::Running => {}
        SessionState::Paused => {
            let over = session.over.clone().map(Reason::OverBudget);
            return Some(waiting(over.unwrap_or(Reason::SessionPaused)));
        }
        SessionState::Stopping | SessionState::Ended(_) => return Some(waiting(Reason::SessionStops)),
    }
    if node.links_open > 0 {
        let open = |link: &&crate::thread::Link| !session.nodes[link.node as usize].is_over();
        let name = |link: &crate::thread::Link| session.spec.thread.nodes[link.node as usize].name.clone();
        return Some(waiting(Reason::WaitsFor { nodes: spec.after.iter().filter(open).map(name).collect() }));
    }
    if let Some(until) = backoff.filter(|until| *until > now) {
        return Some(waiting(Reason::Backoff { until }));
    }
    Some(explain_ready(snapshot, policy, item, since, now))
}

fn waiting(reason: Reason) -> Explanation {
    Explanation::Waiting { reason, candidates: Vec::new() }
}

fn explain_ready(snapshot: &Snapshot, policy: &Policy, item: ItemKey, since: Timestamp, now: Timestamp) -> Explanation {
    let pass = super::plan::passed(snapshot, policy, now);
    let plan = pass.plan;
    let mut overlay = Overlay::new(snapshot, policy, now);
    overlay.reserved = pass.overlay.reserved;
    let session = &snapshot.sessions[&item.session()];
    let profile = session.nodes[item.node.node as usize].profile.clone();
    let candidates = candidates(&overlay, item.session(), &profile);
    if let Some(placed) = plan.assignments.iter().find(|a| a.item == item) {
        return Explanation::Placeable { place: placed.place.clone(), choice: placed.choice.clone(), candidates };
    }
    if let Some(waiting) = plan.waiting.iter().find(|w| asked_with(session, w.node, item.node)) {
        return Explanation::Waiting { reason: waiting.reason.clone(), candidates };
    }
    // Another node of its class was asked first; or everything was given to earlier items.
    let ever = Ever::of(&overlay, &profile);
    let asking = Asking { session: item.session(), profile: &profile, since, now };
    let reason = match proposal::of(&overlay, &profile, item, now) {
        Proposal::Default(algorithm, instead) => {
            let profile = proposal::by_default(&overlay, &profile);
            let found = choose(&overlay, &Ever::of(&overlay, &profile), Asking { profile: &profile, ..asking });
            found.err().map(|reason| instead.reason(&algorithm, reason))
        }
        Proposal::Place(_) => None,
        Proposal::AsItIs => match choose(&overlay, &ever, asking).err() {
            Some(Reason::NoProposal { class }) if proposal::waits(&overlay, item) => {
                Some(Reason::LeftWaiting { class })
            }
            reason => reason,
        },
    };
    let of_class = || plan.reason_of(snapshot, item.node).cloned();
    let machine = of_class().filter(|reason| matches!(reason, Reason::Machine { .. }));
    let reason = machine.or(reason).or_else(of_class).unwrap_or(Reason::PlanFull);
    Explanation::Waiting { reason, candidates }
}

/// Is `node` the node `asked`, or one that starts together with it?
fn asked_with(session: &Session, asked: NodeKey, node: NodeKey) -> bool {
    let mut sets = session.spec.thread.together.iter();
    asked == node
        || asked.session == node.session && sets.any(|set| set.contains(&asked.node) && set.contains(&node.node))
}

/// Every place's answer to one item of the session with that profile, now.
fn candidates(overlay: &Overlay<'_>, session: SessionId, profile: &Profile) -> Vec<Candidate> {
    let (snapshot, policy) = (overlay.snapshot, overlay.policy);
    let there = snapshot.instances.values().filter(|i| i.state != InstanceState::Gone);
    let instances = there.map(|instance| Candidate {
        place: Place::Instance(instance.id.clone()),
        reason: overlay.fits(session, profile, instance).err(),
        cost: overlay.cost_on(profile, &instance.solution, &instance.facts),
    });
    let gateways = snapshot.solutions.iter().filter_map(|(id, solution)| {
        let shared = solution.shared()?;
        Some(Candidate {
            place: Place::Gateway(id.clone()),
            reason: place::fits_gateway(id, shared, overlay.open_in(id), profile).err(),
            cost: super::cost::expected_in_gateway(solution, shared, profile, policy),
        })
    });
    instances.chain(gateways).collect()
}

/// Why a task asked for serverless mode could never run there: refused at submit.
pub fn never_fits(snapshot: &Snapshot, policy: &Policy, profile: &Profile, now: Timestamp) -> Option<Reason> {
    let overlay = Overlay::new(snapshot, policy, now);
    if profile.mode != crate::task::RunningMode::Serverless {
        return None;
    }
    overlay.any_gateway_ever(profile).err()
}
