//! What waits for nothing but room, and the machines that it asks for.
//!
//! ```text
//! items that wait --machines that are coming hold some--> the rest --where it costs least, as far as its limits go-->
//!                                                           the next cheapest --> ... --> no room: asks the cheapest
//! ```
//! Each item asks once, whatever clouds could take it: two that both make a machine for it would both be paid. A cloud
//! that is left in peace for a while, or that has all that it may have, is passed over; one whose machines go by a
//! scaling element makes none for what waits. Where work is to be spread between vendors [0057], clouds that cost about
//! the same take turns: the one with fewest machines is asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::demand::items_at_once;
use super::index::Class;
use super::place::{slots, suits_within};
use super::plan::Pass;
use super::reason::Reason;
use super::snapshot::Snapshot;
use crate::id::SolutionId;
use crate::instance::{InstanceFacts, InstanceState};
use crate::quantity::NanoUsd;
use crate::solution::{Machines, Solution};
use crate::task::Profile;

/// Machines wanted of one solution by one pass.
pub(super) const WANTED_PER_PASS_MAX: u32 = 64;
/// Parts of a slot that are counted, so that items of several classes share machines.
const PARTS: u64 = 1_000;

pub(super) fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

/// Machines of one size that a solution makes.
struct Size<'a> {
    solution: &'a SolutionId,
    facts: &'a InstanceFacts,
    price_per_hour: NanoUsd,
    slots: u32,
    /// Machines that are coming, and those that are asked for here.
    machines: u32,
    /// What these are to hold, parts of slots.
    parts: u64,
}

impl Size<'_> {
    fn all_parts(&self) -> u64 {
        u64::from(self.machines) * u64::from(self.slots) * PARTS
    }

    fn at_once(&self, profile: &Profile) -> u32 {
        items_at_once(profile, self.facts, self.slots)
    }

    /// What one item takes of a machine.
    fn parts_each(&self, profile: &Profile) -> u64 {
        (u64::from(self.slots) * PARTS / u64::from(self.at_once(profile))).max(1)
    }

    /// What a thousand items cost an hour on machines that are full of them.
    fn price(&self, profile: &Profile) -> NanoUsd {
        NanoUsd::charge(self.price_per_hour, 1_000, self.at_once(profile).into())
    }

    /// Puts as many as there is room for on machines that are counted already; says how many are left.
    fn hold(&mut self, items: u32, profile: &Profile) -> u32 {
        let each = self.parts_each(profile);
        let room = self.all_parts().saturating_sub(self.parts) / each;
        let held = items.min(u32::try_from(room).unwrap_or(u32::MAX));
        self.parts += u64::from(held) * each;
        items - held
    }
}

/// What may still be asked for: the solution's limits, and what its cloud lets us have.
pub(super) struct Room {
    machines: u32,
    cpus: Option<u32>,
}

impl Room {
    pub(super) fn of(snapshot: &Snapshot, solution: &SolutionId, machines: &Machines) -> Self {
        let alive = || snapshot.machines_in(solution, InstanceState::Wanted..=InstanceState::Ending);
        let cpus = |id| snapshot.instances.get(id).map_or(0, |i| i.facts.cpus);
        Self {
            machines: machines.max.saturating_sub(count(alive())),
            cpus: machines.cpus_max.map(|most| most.saturating_sub(alive().map(cpus).sum())),
        }
    }

    pub(super) fn holds(&self, facts: &InstanceFacts) -> bool {
        self.machines > 0 && self.cpus.is_none_or(|cpus| cpus >= facts.cpus)
    }

    pub(super) fn take(&mut self, facts: &InstanceFacts) -> bool {
        if !self.holds(facts) {
            return false;
        }
        self.machines -= 1;
        self.cpus = self.cpus.map(|cpus| cpus - facts.cpus);
        true
    }
}

/// How much is asked of each solution.
struct Vendor {
    room: Room,
    /// Makes machines for what waits, now.
    asked: bool,
    /// Machines alive, and asked for here.
    machines: u32,
    more: u32,
}

/// What is asked for, by solution and size.
#[derive(Default)]
pub(super) struct Asked<'a> {
    parts: BTreeMap<(&'a SolutionId, &'a Option<Arc<str>>), u64>,
}

impl<'a> Asked<'a> {
    /// What waits in this plan asks for.
    pub(super) fn of(pass: &Pass<'a>) -> Self {
        let mut waiting = pass.plan.waiting.iter().filter(|waiting| is_for_room(&waiting.reason)).peekable();
        let makes = |solution: &Solution| solution.machines().is_some();
        if waiting.peek().is_none() || !pass.overlay.snapshot.solutions.values().any(makes) {
            return Self::default();
        }
        let mut market = Market::of(pass);
        for waiting in waiting {
            let snapshot = pass.overlay.snapshot;
            let Some(node) = snapshot.node(waiting.node) else { continue };
            // What shared solutions could take too is followed by its worth.
            if snapshot.capacity_of(&node.profile.demand()).is_some_and(|plan| !plan.machines.is_empty()) {
                continue;
            }
            let Some(session) = snapshot.sessions.get(&waiting.node.session) else { continue };
            let items = if waiting.of_class {
                pass.left_of(&Class { user: session.spec.user.clone(), profile: node.profile.clone() })
            } else {
                pass.left(waiting.node)
            };
            market.ask(snapshot, items, &node.profile, pass.overlay.policy.goals.spread_ppm);
        }
        let parts = market.sizes.into_iter().map(|size| ((size.solution, &size.facts.instance_type), size.parts));
        Self { parts: parts.collect() }
    }

    /// Machines of a size, of so many slots.
    pub(super) fn machines(&self, solution: &SolutionId, facts: &InstanceFacts, slots: u32) -> u32 {
        let parts = self.parts.get(&(solution, &facts.instance_type)).copied().unwrap_or(0);
        u32::try_from(parts.div_ceil(u64::from(slots.max(1)) * PARTS)).unwrap_or(u32::MAX)
    }
}

struct Market<'a> {
    sizes: Vec<Size<'a>>,
    vendors: BTreeMap<&'a SolutionId, Vendor>,
}

impl<'a> Market<'a> {
    fn of(pass: &Pass<'a>) -> Self {
        let (snapshot, policy) = (pass.overlay.snapshot, pass.overlay.policy);
        let mut market = Self { sizes: Vec::new(), vendors: BTreeMap::new() };
        for (id, solution) in &snapshot.solutions {
            let Some((dedicated, machines)) = solution.dedicated().and_then(|d| Some((d, d.machines.as_ref()?))) else {
                continue;
            };
            market.vendors.insert(id, Vendor::of(pass, id, machines));
            for (price_per_hour, facts) in dedicated.sizes() {
                let coming = snapshot.machines_in(id, InstanceState::Wanted..=InstanceState::Booting);
                let coming = coming.filter(|i| {
                    snapshot.instances.get(i).is_some_and(|i| i.facts.instance_type == facts.instance_type)
                });
                let slots = slots(snapshot, id, facts, policy).max(1);
                let machines = count(coming);
                market.sizes.push(Size { solution: id, facts, price_per_hour, slots, machines, parts: 0 });
            }
        }
        market
    }

    /// Items of a profile ask.
    fn ask(&mut self, snapshot: &Snapshot, items: u32, profile: &Profile, spread_ppm: u32) {
        let suits = |size: &Size<'_>| suits_within(snapshot, size.solution, size.facts, profile).is_ok();
        let mut suited: Vec<usize> = (0..self.sizes.len()).filter(|at| suits(&self.sizes[*at])).collect();
        suited.sort_by_key(|at| self.sizes[*at].price(profile));
        let mut left = items;
        for at in &suited {
            left = self.sizes[*at].hold(left, profile);
        }
        while left > 0 {
            let Some(at) = self.cheapest(&suited, profile, spread_ppm) else { break };
            let size = &mut self.sizes[at];
            let Some(vendor) = self.vendors.get_mut(size.solution) else { break };
            // The next pass asks for more: nobody goes to a dearer cloud for that.
            if vendor.more >= WANTED_PER_PASS_MAX || !vendor.room.take(size.facts) {
                break;
            }
            vendor.more += 1;
            vendor.machines += 1;
            size.machines += 1;
            left = size.hold(left, profile);
        }
        // It counts as waiting where it would be best.
        if let Some(first) = suited.first() {
            let size = &mut self.sizes[*first];
            size.parts += u64::from(left) * size.parts_each(profile);
        }
    }

    /// Where the next machine is asked for.
    fn cheapest(&self, suited: &[usize], profile: &Profile, spread_ppm: u32) -> Option<usize> {
        let vendor = |at: usize| self.vendors.get(self.sizes[at].solution);
        let has_room = |at: &&usize| vendor(**at).is_some_and(|v| v.asked && v.room.holds(self.sizes[**at].facts));
        let price = |at: usize| self.sizes[at].price(profile);
        let mut open = suited.iter().filter(has_room).copied().peekable();
        let least = price(*open.peek()?);
        let most = i128::from(least.0) + i128::from(least.0) * i128::from(spread_ppm) / 1_000_000;
        let machines = |at: usize| if spread_ppm > 0 { vendor(at).map_or(0, |v| v.machines) } else { 0 };
        open.take_while(|at| i128::from(price(*at).0) <= most).min_by_key(|at| (machines(*at), price(*at)))
    }
}

impl Vendor {
    fn of(pass: &Pass<'_>, id: &SolutionId, machines: &Machines) -> Self {
        let snapshot = pass.overlay.snapshot;
        let avoided = snapshot.avoided.get(id).is_some_and(|(until, _)| *until > pass.now);
        Self {
            room: Room::of(snapshot, id, machines),
            asked: !avoided && machines.element.is_none(),
            machines: count(snapshot.machines_in(id, InstanceState::Wanted..=InstanceState::Ready)),
            more: 0,
        }
    }
}

/// Does it wait for nothing but room on an instance?
pub(super) fn is_for_room(reason: &Reason) -> bool {
    match reason {
        Reason::NoInstance { because, .. } => !matches!(**because, Reason::Reserved { .. }),
        Reason::NoneConfigured { what } => &**what == "instance",
        Reason::WaitsForCheaper { because, .. }
        | Reason::TogetherLacks { because, .. }
        | Reason::Instead { because, .. } => is_for_room(because),
        _ => false,
    }
}
