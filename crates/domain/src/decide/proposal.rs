//! What the configured algorithm (CPU setting 0) has said, and what a pass makes of it.
//!
//! ```text
//! (nothing said) --Proposed--> on an instance --fits------------> placed there
//!        |           |              +-----------does not fit----> the default scheme, and why
//!        |           +-------> to wait
//!        +-----AlgorithmFailed--> the default scheme, and why; while it rests, for all items
//! ```
//! Kept in memory only: after a restart the algorithm is asked again. What it asks for and gives back holds
//! for the turn in which it said so.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::balance::Overlay;
use super::choose::Chosen;
use super::reason::{Choice, Fault, Instead, Reason};
use super::snapshot::Snapshot;
use crate::attempt::Place;
use crate::event::Event;
use crate::id::{InstanceId, ItemKey, SessionId, SolutionId};
use crate::quantity::Timestamp;
use crate::task::Profile;

/// What was said of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is to run there.
    On(InstanceId),
    /// It is to wait.
    Wait,
    /// Nothing that could be used.
    Failed(Arc<Fault>),
}

/// Everything the algorithm has said that still holds.
#[derive(Debug, Clone, Default)]
pub(super) struct Proposals {
    pub items: BTreeMap<ItemKey, Standing>,
    /// Machines asked for in this turn, and what for.
    machines: BTreeMap<SolutionId, (u32, String)>,
    /// Machines given back in this turn, and why.
    give_back: BTreeMap<InstanceId, String>,
    /// It is not asked until then.
    rests: Option<(Timestamp, Arc<Fault>)>,
}

impl Proposals {
    /// A new turn begins: what was asked for in the last has been done, or could not be.
    pub(super) fn next_turn(&mut self) {
        self.machines.clear();
        self.give_back.clear();
    }

    pub(super) fn apply(&mut self, event: &Event) {
        match event {
            Event::Proposed { items, machines, give_back, .. } => {
                self.rests = None;
                let standing = |on: &Option<InstanceId>| on.clone().map_or(Standing::Wait, Standing::On);
                self.items.extend(items.iter().map(|place| (place.item, standing(&place.on))));
                self.machines = machines.iter().map(|m| (m.solution.clone(), (m.count, m.why.clone()))).collect();
                self.give_back = give_back.iter().map(|g| (g.instance.clone(), g.why.clone())).collect();
            }
            Event::AlgorithmFailed { items, fault, rests_until, .. } => {
                let fault = Arc::new(fault.clone());
                self.items.extend(items.iter().map(|item| (*item, Standing::Failed(fault.clone()))));
                self.rests = rests_until.map(|until| (until, fault));
            }
            Event::AlgorithmSet { .. } => *self = Self::default(),
            Event::InstanceWanted { solution, .. } => {
                if let Some((left, _)) = self.machines.get_mut(solution) {
                    *left = left.saturating_sub(1);
                }
            }
            _ => {}
        }
    }

    /// Nothing of the session waits any more.
    pub(super) fn forget_session(&mut self, session: SessionId) {
        self.items.retain(|item, _| item.session() != session);
    }

    pub(super) fn machines_asked(&self, solution: &SolutionId) -> Option<&(u32, String)> {
        self.machines.get(solution).filter(|(count, _)| *count > 0)
    }

    pub(super) fn given_back(&self, instance: &InstanceId) -> Option<&String> {
        self.give_back.get(instance)
    }
}

impl Snapshot {
    /// Until when the algorithm is not asked.
    pub fn algorithm_rests(&self) -> Option<Timestamp> {
        self.proposals.rests.as_ref().map(|(until, _)| *until)
    }

    /// Would this event say anything that is not so already?
    pub fn is_news(&self, event: &Event) -> bool {
        let Event::Proposed { items, machines, give_back, .. } = event else { return true };
        let same = |place: &crate::event::ProposedPlace| {
            place.on.is_none() && self.proposals.items.get(&place.item) == Some(&Standing::Wait)
        };
        !(machines.is_empty() && give_back.is_empty() && items.iter().all(same) && self.proposals.rests.is_none())
    }
}

/// What a pass is to do about an item.
pub(super) enum Proposal {
    /// No algorithm places it, or it has said nothing, or that it waits.
    AsItIs,
    /// It runs there.
    Place(Chosen),
    /// The default scheme places it, and why.
    Default(Arc<str>, Instead),
}

/// What was said of an item, checked like any other placement.
pub(super) fn of(overlay: &Overlay<'_>, profile: &Profile, item: ItemKey, now: Timestamp) -> Proposal {
    let Some(class) = overlay.policy.custom(profile) else { return Proposal::AsItIs };
    let said = &overlay.snapshot.proposals;
    if let Some((_, fault)) = said.rests.as_ref().filter(|(until, _)| *until > now) {
        return Proposal::Default(class.clone(), Instead::Rests { fault: (**fault).clone() });
    }
    match said.items.get(&item) {
        None | Some(Standing::Wait) => Proposal::AsItIs,
        Some(Standing::Failed(fault)) => Proposal::Default(class.clone(), Instead::Failed { fault: (**fault).clone() }),
        Some(Standing::On(id)) => match place_on(overlay, item.session(), profile, id) {
            Ok(cost) => {
                let choice = Choice::Algorithm { class: class.clone() };
                Proposal::Place(Chosen { place: Place::Instance(id.clone()), choice, cost })
            }
            Err(reason) => {
                let because = Box::new(reason);
                Proposal::Default(class.clone(), Instead::Refused { instance: id.clone(), because })
            }
        },
    }
}

fn place_on(
    overlay: &Overlay<'_>,
    session: SessionId,
    profile: &Profile,
    id: &InstanceId,
) -> Result<crate::quantity::NanoUsd, Reason> {
    let gone = Reason::NotReady { state: crate::instance::InstanceState::Gone };
    let instance = overlay.snapshot.instances.get(id).ok_or(gone)?;
    overlay.fits(session, profile, instance)?;
    Ok(overlay.cost_on(profile, &instance.solution, &instance.facts))
}

/// The profile as the default scheme places it.
pub(super) fn by_default(overlay: &Overlay<'_>, profile: &Profile) -> Profile {
    Profile { balance: Some(overlay.policy.balance), ..profile.clone() }
}

/// Was it said that the item is to wait?
pub(super) fn waits(overlay: &Overlay<'_>, item: ItemKey) -> bool {
    overlay.snapshot.proposals.items.get(&item) == Some(&Standing::Wait)
}

impl Instead {
    pub(super) fn choice(self, class: &Arc<str>, then: Choice) -> Choice {
        Choice::Instead { class: class.clone(), why: self, then: Box::new(then) }
    }

    pub(super) fn reason(self, class: &Arc<str>, because: Reason) -> Reason {
        match because {
            // Waiting is no fault of the algorithm's.
            Reason::PlanFull => because,
            because => Reason::Instead { class: class.clone(), why: self, because: Box::new(because) },
        }
    }
}
