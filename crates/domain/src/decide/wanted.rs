//! What the configured algorithm (CPU setting 0) is asked, and whether an answer is one ([0068], [0069]).
//!
//! ```text
//! snapshot --wanted--> Question --(the algorithm, outside)--> Answer --check--> Event::Proposed
//!                                                                 |
//!                                                                 +-- no answer to this question: Fault
//! ```
//! Pure on both sides: the algorithm itself is asked elsewhere, and what it answers is an event, so that a
//! replay needs no algorithm. An answer is checked here for names and numbers only; whether a place takes
//! an item is asked when the item is placed ([`super::proposal`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::balance::Overlay;
use super::place::{slots, suits_kind};
use super::policy::{Algorithm, Policy};
use super::reason::Fault;
use super::snapshot::Snapshot;
use crate::event::{Event, GivenBack, MachinesAsked, ProposedPlace};
use crate::id::{InstanceId, ItemKey, NodeKey, SessionId, SolutionId, UserName};
use crate::instance::{Instance, InstanceState};
use crate::quantity::{NanoUsd, Timestamp};
use crate::session::{ItemState, Node};
use crate::task::Profile;

/// Items of one question.
pub const ITEMS_MAX: usize = 64;
/// Instances of one question.
pub const INSTANCES_MAX: usize = 256;
/// Sessions named as holders of one instance.
const HOLDERS_MAX: usize = 16;
/// Machines asked for in one answer, of one solution.
pub const MACHINES_ASKED_MAX: u32 = 64;

/// What the algorithm is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The algorithm's class name.
    pub class: Arc<str>,
    /// Items to place, in the order in which they would be.
    pub items: Vec<AskedItem>,
    /// Instances that take at least one of them now, and free machines; by name.
    pub instances: Vec<AskedInstance>,
    /// For each profile of the items: which instances take one of it now, as places in `instances`.
    pub fits: Vec<Vec<u32>>,
    /// Solutions in which machines are made.
    pub solutions: Vec<AskedSolution>,
}

/// An item of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedItem {
    /// Which.
    pub item: ItemKey,
    /// Its task.
    pub task: Arc<str>,
    /// Whose.
    pub user: UserName,
    /// Its group.
    pub group: Option<Arc<str>>,
    /// Where its group's items of this session are.
    pub group_on: Option<InstanceId>,
    /// Which entry of `fits` is its.
    pub profile: u32,
    /// Memory it asks for, MiB.
    pub memory_mb: u32,
    /// Storage it asks for, MiB.
    pub storage_mb: u32,
    /// Counted resources it asks for.
    pub resources: BTreeMap<Arc<str>, u64>,
    /// 0-100.
    pub urgency: u8,
    /// Since when it could be placed.
    pub since: Timestamp,
    /// Attempts so far.
    pub attempts: u32,
    /// How long it is said to run, ms.
    pub expected_run_ms: Option<u64>,
    /// How long its node's items have typically run, ms.
    pub typical_run_ms: Option<u32>,
}

/// An instance of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedInstance {
    /// Which.
    pub id: InstanceId,
    /// Its solution.
    pub solution: SolutionId,
    /// Attempts it takes at a time.
    pub slots: u32,
    /// Open attempts there.
    pub attempts: u32,
    /// Logical CPUs.
    pub cpus: u32,
    /// CPU in use: the larger of what is measured and what is set aside, percent.
    pub cpu_percent: u32,
    /// Memory, MiB.
    pub memory_mb: u32,
    /// Memory not set aside, MiB.
    pub memory_free_mb: u32,
    /// Storage not set aside, MiB.
    pub storage_free_mb: u32,
    /// Its price per hour.
    pub price_per_hour: NanoUsd,
    /// The cloud's type.
    pub instance_type: Option<Arc<str>>,
    /// Its role.
    pub role: Option<Arc<str>>,
    /// The image it runs.
    pub image: Option<Arc<str>>,
    /// A machine: it can be given back while no session holds it.
    pub machine: bool,
    /// Since when no session has held it.
    pub free_since: Option<Timestamp>,
    /// Sessions that hold it, up to 16.
    pub held_by: Vec<SessionId>,
}

/// A solution of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedSolution {
    /// Which.
    pub id: SolutionId,
    /// Price of one machine per hour.
    pub price_per_hour: NanoUsd,
    /// Attempts that one takes at a time.
    pub slots: u32,
    /// Fewest machines.
    pub min: u32,
    /// Most machines.
    pub max: u32,
    /// Machines that are not gone.
    pub alive: u32,
    /// Of these, those on their way.
    pub coming: u32,
    /// Profiles of the items that its machines could take, as places in `fits`.
    pub suits: Vec<u32>,
}

/// What an algorithm says: places in the question's lists, and names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// By the item's place in the question: the instance for it. What is not named waits.
    pub places: BTreeMap<usize, String>,
    /// Machines wanted: solution, how many, what for.
    pub machines: Vec<(String, u32, String)>,
    /// Machines given back, and why.
    pub give_back: Vec<(String, String)>,
}

impl Policy {
    /// The custom algorithm that places items of this profile, when one does.
    pub fn custom(&self, profile: &Profile) -> Option<&Arc<str>> {
        use crate::needs::CpuSetting;
        match (&self.algorithm, profile.needs.cpu, profile.balance) {
            (Algorithm::Custom { class }, CpuSetting::Algorithm, None) => Some(class),
            _ => None,
        }
    }
}

/// What the algorithm is to be asked now: nothing without a custom algorithm, or when nothing waits for it
/// and no machine is free.
pub fn wanted(snapshot: &Snapshot, policy: &Policy, now: Timestamp) -> Option<Question> {
    let Algorithm::Custom { class } = &policy.algorithm else { return None };
    let nodes = nodes(snapshot, policy, now);
    let mut profiles: Vec<&Arc<Profile>> = Vec::new();
    let mut items = Vec::new();
    for key in nodes {
        let Some(node) = snapshot.node(key) else { continue };
        let at = profiles.iter().position(|known| **known == node.profile).unwrap_or_else(|| {
            profiles.push(&node.profile);
            profiles.len() - 1
        });
        items_of(snapshot, key, node, u32::try_from(at).unwrap_or(u32::MAX), now, &mut items);
        if items.len() >= ITEMS_MAX {
            break;
        }
    }
    if items.is_empty() && snapshot.index.free_machines.is_empty() {
        return None;
    }
    let overlay = Overlay::new(snapshot, policy, now);
    let sessions: Vec<SessionId> = profiles
        .iter()
        .enumerate()
        .filter_map(|(at, _)| items.iter().find(|i| i.profile as usize == at).map(|i| i.item.session()))
        .collect();
    let asks: Vec<(SessionId, &Profile)> = sessions.into_iter().zip(profiles.iter().map(|p| &***p)).collect();
    let chosen = instances(&overlay, &asks);
    let fits = asks.iter().map(|(session, profile)| {
        let takes = |(_, instance): &(u32, &&Instance)| overlay.fits(*session, profile, instance).is_ok();
        (0..).zip(&chosen).filter(takes).map(|(at, _)| at).collect()
    });
    Some(Question {
        class: class.clone(),
        fits: fits.collect(),
        instances: chosen.iter().map(|instance| asked_instance(&overlay, instance)).collect(),
        solutions: solutions(&overlay, &asks),
        items,
    })
}

/// Nodes with items for the algorithm, in the order in which they are served, as far as one question asks.
fn nodes(snapshot: &Snapshot, policy: &Policy, now: Timestamp) -> Vec<NodeKey> {
    let classes = snapshot.index.ready.iter().filter(|(class, _)| policy.custom(&class.profile).is_some());
    let due = classes.flat_map(|(class, nodes)| {
        let nodes = nodes.iter().take_while(|(since, _)| *since <= now).take(ITEMS_MAX);
        nodes.map(|(since, node)| (std::cmp::Reverse(class.profile.rank), *since, *node))
    });
    let ordered: BTreeSet<_> = due.collect();
    ordered.into_iter().take(ITEMS_MAX).map(|(_, _, node)| node).collect()
}

/// The next items of a node, in the order in which they are given out.
fn items_of(snapshot: &Snapshot, key: NodeKey, node: &Node, profile: u32, now: Timestamp, items: &mut Vec<AskedItem>) {
    let Some(session) = snapshot.sessions.get(&key.session) else { return };
    let Some(spec) = session.spec.thread.nodes.get(key.node as usize) else { return };
    let needs = &node.profile.needs;
    let again = node.retry.iter().take_while(|(at, _)| *at <= now).filter_map(|(at, index)| {
        let Some(ItemState::Ready { attempts, .. }) = node.open.get(index) else { return None };
        Some((*index, (*at).max(node.ready_at), *attempts))
    });
    let untouched = (node.next..node.count).map(|index| (index, node.ready_at, 0));
    let left = ITEMS_MAX.saturating_sub(items.len());
    items.extend(again.chain(untouched).take(left).map(|(index, since, attempts)| AskedItem {
        item: key.item(index),
        task: spec.name.as_str().into(),
        user: session.spec.user.clone(),
        group: node.profile.group.clone(),
        group_on: node.profile.group.as_ref().and_then(|group| session.groups.get(group)).cloned(),
        profile,
        memory_mb: needs.memory_mb,
        storage_mb: needs.storage_mb,
        resources: needs.resources.clone(),
        urgency: node.profile.rank.1,
        since,
        attempts,
        expected_run_ms: node.profile.expected_run_ms,
        typical_run_ms: node.typical_run_ms,
    }));
}

/// Instances that take at least one of the profiles, least loaded first of each kind, and free machines; by name.
fn instances<'a>(overlay: &Overlay<'a>, asks: &[(SessionId, &Profile)]) -> Vec<&'a Instance> {
    let snapshot = overlay.snapshot;
    let suits = |kind: &super::rooms::Kind| {
        asks.iter().any(|(_, profile)| suits_kind(&kind.solution, &kind.facts, profile).is_ok())
    };
    let kinds: Vec<_> = snapshot.index.rooms.kinds().filter(|(kind, ..)| suits(kind)).collect();
    let each = (INSTANCES_MAX / kinds.len().max(1)).max(1);
    let mut chosen: BTreeMap<&InstanceId, &Instance> = BTreeMap::new();
    for (kind, _, of_kind) in kinds {
        let most = slots(snapshot, &kind.solution, &kind.facts, overlay.policy);
        let rooms = of_kind.rooms().filter(|(room, _)| room.attempts < most).flat_map(|(_, ids)| ids);
        let there = rooms.filter_map(|id| snapshot.instances.get(id));
        let takes = |instance: &&Instance| {
            asks.iter().any(|(session, profile)| overlay.fits(*session, profile, instance).is_ok())
        };
        chosen.extend(there.filter(takes).take(each).map(|instance| (&instance.id, instance)));
    }
    let free = snapshot.index.free_machines.iter().filter_map(|(_, id)| snapshot.instances.get(id));
    for instance in free {
        if chosen.len() >= INSTANCES_MAX {
            break;
        }
        chosen.insert(&instance.id, instance);
    }
    chosen.into_values().take(INSTANCES_MAX).collect()
}

fn asked_instance(overlay: &Overlay<'_>, instance: &Instance) -> AskedInstance {
    let snapshot = overlay.snapshot;
    let (live, load, facts) = (snapshot.live(&instance.id), snapshot.load_of(&instance.id), &instance.facts);
    let dedicated = snapshot.solutions.get(&instance.solution).and_then(|s| s.dedicated());
    AskedInstance {
        id: instance.id.clone(),
        solution: instance.solution.clone(),
        slots: slots(snapshot, &instance.solution, facts, overlay.policy),
        attempts: load.attempts,
        cpus: facts.cpus,
        cpu_percent: live.cpu_percent.max(load.cpu_percent).min(100),
        memory_mb: facts.memory_mb,
        memory_free_mb: facts.memory_mb.saturating_sub(load.memory_mb),
        storage_free_mb: facts.storage_mb.saturating_sub(load.storage_mb),
        price_per_hour: dedicated.map_or(NanoUsd::ZERO, |d| d.price_per_hour),
        instance_type: facts.instance_type.clone(),
        role: facts.role.clone(),
        image: facts.image.clone(),
        machine: instance.machine.is_some(),
        free_since: instance.is_free().then_some(instance.since),
        held_by: instance.held_by.iter().take(HOLDERS_MAX).copied().collect(),
    }
}

fn solutions(overlay: &Overlay<'_>, asks: &[(SessionId, &Profile)]) -> Vec<AskedSolution> {
    let snapshot = overlay.snapshot;
    let made = snapshot.solutions.iter().filter_map(|(id, solution)| {
        let dedicated = solution.dedicated()?;
        Some((id, dedicated.price_per_hour, dedicated.machines.as_ref()?))
    });
    let count = |id, states| u32::try_from(snapshot.machines_in(id, states).count()).unwrap_or(u32::MAX);
    let asked = made.map(|(id, price_per_hour, machines)| AskedSolution {
        id: id.clone(),
        price_per_hour,
        slots: slots(snapshot, id, &machines.facts, overlay.policy),
        min: machines.min,
        max: machines.max,
        alive: count(id, InstanceState::Wanted..=InstanceState::Ending),
        coming: count(id, InstanceState::Wanted..=InstanceState::Booting),
        suits: (0..)
            .zip(asks)
            .filter(|(_, a)| suits_kind(id, &machines.facts, a.1).is_ok())
            .map(|(at, _)| at)
            .collect(),
    });
    asked.collect()
}

impl Question {
    /// The answer as an event, or why it is no answer to this question. Of one node's items, which are alike,
    /// the first get the places that were given to any of them: they are started in order.
    pub fn check(&self, answer: Answer) -> Result<Event, Fault> {
        let wrong = |what: String| Fault::Answer { what: what.as_str().into() };
        let mut by_node: BTreeMap<NodeKey, Vec<InstanceId>> = BTreeMap::new();
        for (at, name) in answer.places {
            let item = self.items.get(at);
            let item = item.ok_or_else(|| wrong(format!("item {} is not one of {}", at + 1, self.items.len())))?;
            let instance = self.instance(&name);
            let instance = instance.ok_or_else(|| wrong(format!("'{name}' is none of the instances asked about")))?;
            by_node.entry(item.item.node).or_default().push(instance.id.clone());
        }
        let mut given: BTreeMap<NodeKey, std::vec::IntoIter<InstanceId>> =
            by_node.into_iter().map(|(node, places)| (node, places.into_iter())).collect();
        let place = |asked: &AskedItem| ProposedPlace {
            item: asked.item,
            on: given.get_mut(&asked.item.node).and_then(Iterator::next),
        };
        let items = self.items.iter().map(place).collect();
        let machines = answer.machines.into_iter().map(|(solution, count, why)| {
            let known = self.solutions.iter().find(|s| s.id.as_str() == solution);
            let known = known.ok_or_else(|| wrong(format!("no machines are made in '{solution}'")))?;
            if count > MACHINES_ASKED_MAX {
                return Err(wrong(format!("{count} machines of '{solution}': at most {MACHINES_ASKED_MAX} at a time")));
            }
            Ok(MachinesAsked { solution: known.id.clone(), count, why })
        });
        let give_back = answer.give_back.into_iter().map(|(name, why)| match self.instance(&name) {
            None => Err(wrong(format!("'{name}' is none of the instances asked about"))),
            Some(instance) if !instance.machine => Err(wrong(format!("'{name}' is no machine: people end it"))),
            Some(instance) if instance.free_since.is_none() => {
                Err(wrong(format!("'{name}' cannot be given back: a session holds it")))
            }
            Some(instance) => Ok(GivenBack { instance: instance.id.clone(), why }),
        });
        let (class, machines) = (self.class.clone(), machines.collect::<Result<_, _>>()?);
        Ok(Event::Proposed { class, items, machines, give_back: give_back.collect::<Result<_, _>>()? })
    }

    fn instance(&self, name: &str) -> Option<&AskedInstance> {
        let at = self.instances.binary_search_by(|instance| instance.id.as_str().cmp(name));
        at.ok().and_then(|at| self.instances.get(at))
    }
}
