//! Which machines are wanted, and which may go.
//!
//! Deconfliction [0060]: what may go is marked first (`draining`, a turn of its own), and ended only by a
//! later pass that finds nothing on it. How many are wanted is what classes of items are worth that shared
//! solutions could take too ([`super::demand`]), and for the others what waits for nothing but room.

use super::asked::{Asked, Room, WANTED_PER_PASS_MAX, count, is_for_room};
use super::demand::CapacityPlan;
use super::place::{slots, suits_within};
use super::plan::{NewMachine, Pass, Plan};
use super::reason::{MachinesAre, Reason};
use super::snapshot::Snapshot;
use super::threshold::{Held, Load, Scale, Thresholds, scale as scale_by};
use crate::id::{InstanceId, SolutionId};
use crate::instance::{Instance, InstanceFacts, InstanceState};
use crate::quantity::{NanoUsd, Timestamp};
use crate::solution::{Dedicated, Machines};

/// What goes and what is wanted, into the plan.
pub(super) fn scale(pass: &mut Pass<'_>) {
    let snapshot = pass.overlay.snapshot;
    end(pass);
    let asked = Asked::of(pass);
    for (id, solution) in &snapshot.solutions {
        if let Some((dedicated, machines)) = solution.dedicated().and_then(|d| Some((d, d.machines.as_ref()?))) {
            end_what_never_came(pass, id, machines);
            want(pass, id, dedicated, &asked);
        }
    }
    drain_free(pass, &asked);
    forget(pass);
    tell(pass);
}

/// Draining machines with nothing on them are ended. Holds of sessions that run nothing there end first.
fn end(pass: &mut Pass<'_>) {
    let snapshot = pass.overlay.snapshot;
    for id in &snapshot.index.draining {
        let Some(instance) = snapshot.instances.get(id) else { continue };
        if may_end(snapshot, pass.overlay.policy, instance).is_ok() {
            pass.plan.ended.push((id.clone(), "it was drained, and nothing is on it".to_owned()));
        }
    }
}

/// May the cloud be asked to end this machine? Asked by the planner, and again by the engine's core in the
/// turn that writes it down.
pub fn may_end(snapshot: &Snapshot, policy: &super::Policy, instance: &Instance) -> Result<(), &'static str> {
    let attempts = snapshot.load_of(&instance.id).attempts;
    match instance.state {
        _ if instance.machine.is_none() => Err("people end it, not the engine"),
        _ if policy.do_not_terminate.contains(&instance.id) => Err("it is on the do-not-terminate list"),
        _ if attempts > 0 => Err("attempts are on it"),
        _ if !instance.held_by.is_empty() => Err("a session holds it"),
        InstanceState::Ready => Err("it takes work"),
        InstanceState::Ending | InstanceState::Gone => Err("it is ended already"),
        _ => Ok(()),
    }
}

fn end_what_never_came(pass: &mut Pass<'_>, solution: &SolutionId, machines: &Machines) {
    let snapshot = pass.overlay.snapshot;
    for id in snapshot.machines_in(solution, InstanceState::Wanted..=InstanceState::Booting) {
        let Some(instance) = snapshot.instances.get(id) else { continue };
        // Its name says when it was wanted; each state has the whole time, so that a slow cloud is no fault.
        let due = instance.since.after_ms(machines.boot_ms);
        if due > pass.now {
            pass.plan.wake_at(due);
        } else if may_end(snapshot, pass.overlay.policy, instance).is_ok() {
            let why = format!("its agent did not say hello within {} s", machines.boot_ms / 1000);
            pass.plan.ended.push((id.clone(), why));
        }
    }
}

/// How it stands with the machines of one size in one solution.
struct Standing<'a> {
    id: &'a SolutionId,
    machines: &'a Machines,
    facts: &'a InstanceFacts,
    slots: u32,
    /// Wanted, coming and taking work.
    serving: u32,
    coming: u32,
    /// Taking work and held by no session, after this pass.
    free: u32,
    /// Machines that would hold what waits for nothing but room and asks for these.
    asked_for: u32,
}

impl<'a> Standing<'a> {
    fn of(
        pass: &Pass<'a>,
        id: &'a SolutionId,
        dedicated: &'a Dedicated,
        facts: &'a InstanceFacts,
        asked: &Asked<'_>,
    ) -> Option<Self> {
        let (snapshot, machines) = (pass.overlay.snapshot, dedicated.machines.as_ref()?);
        let alike = |instance: &InstanceId| {
            let of_it = snapshot.instances.get(instance).filter(|i| i.solution == *id);
            of_it.is_some_and(|i| i.facts.instance_type == facts.instance_type)
        };
        let free =
            snapshot.index.free_machines.iter().filter(|(_, instance)| {
                alike(instance) && !pass.plan.holds.iter().any(|hold| hold.instance == *instance)
            });
        let within = |states| count(snapshot.machines_in(id, states).filter(|instance| alike(instance)));
        let slots = slots(snapshot, id, facts, pass.overlay.policy).max(1);
        Some(Self {
            id,
            machines,
            facts,
            slots,
            serving: within(InstanceState::Wanted..=InstanceState::Ready),
            coming: within(InstanceState::Wanted..=InstanceState::Booting),
            free: count(free),
            asked_for: asked.machines(id, facts, slots),
        })
    }

    /// Only of the solution's own size are some kept, and counted by thresholds.
    fn is_own_size(&self) -> bool {
        std::ptr::eq(self.facts, &raw const self.machines.facts)
    }

    fn least(&self) -> u32 {
        if self.is_own_size() { self.machines.min } else { 0 }
    }

    fn free_least(&self, snapshot: &Snapshot) -> u32 {
        if !self.is_own_size() {
            return 0;
        }
        let seen = snapshot.demand_of(self.id);
        let deviation = seen.map_or(0, |s| s.deviation_slots);
        let ahead = seen.map_or(0, |s| s.upper_slots.unwrap_or(0).saturating_sub(s.now_slots));
        self.machines.free.least(self.facts, self.slots, deviation, ahead)
    }

    /// What the thresholds say, when people gave some.
    fn by_thresholds(&self, snapshot: &Snapshot, now: Timestamp) -> Option<Scale> {
        let thresholds = self.machines.thresholds.as_ref().filter(|_| self.is_own_size())?;
        let ready = snapshot.machines_in(self.id, InstanceState::Ready..=InstanceState::Ready);
        let loads = ready.map(|id| snapshot.load_of(id).slots);
        let load = Load {
            machines: self.serving,
            slots: self.slots,
            used: loads.sum(),
            waiting: self.asked_for.saturating_mul(self.slots),
            projected: snapshot.demand_of(self.id).and_then(|seen| seen.upper_slots),
            empty: self.free,
        };
        let limits = Thresholds { min: self.machines.min, max: self.machines.max, ..*thresholds };
        let changes = snapshot.changes.get(self.id).copied().unwrap_or_default();
        Some(scale_by(&load, &limits, &changes, now))
    }

    /// What a scaling element wants, where there is one.
    fn by_element<'s>(&self, snapshot: &'s Snapshot) -> Option<&'s (u32, String)> {
        let goes_by_one = self.machines.element.is_some() && self.is_own_size();
        snapshot.elements.get(self.id).filter(|_| goes_by_one)
    }

    /// Machines wished for, each wish with its reason: the most of them is what is wanted.
    fn wishes(&self, pass: &mut Pass<'_>) -> Vec<(u32, String)> {
        let snapshot = pass.overlay.snapshot;
        let for_minimum = self.least().saturating_sub(self.serving);
        let mut wishes = vec![(for_minimum, "the solution's minimum".to_owned())];
        if let Some((machines, why)) = self.by_element(snapshot) {
            wishes.push((machines.saturating_sub(self.serving), why.clone()));
            return wishes;
        }
        match self.by_thresholds(snapshot, pass.now) {
            Some(scale @ Scale::Up { machines, .. }) => wishes.push((machines, scale.to_string())),
            Some(Scale::Stay(Held::Cooldown(until))) => pass.plan.wake_at(until),
            Some(_) => {}
            None => {
                let for_work = self.asked_for.saturating_sub(self.coming);
                wishes.push((for_work, "items wait for room".to_owned()));
                let for_worth = snapshot.worth(self.id, self.facts).unwrap_or(0).saturating_sub(self.serving);
                wishes.push((for_worth, worth_why(snapshot, self.id)));
            }
        }
        if let Some((machines, why)) = snapshot.proposals.machines_asked(self.id).filter(|_| self.is_own_size()) {
            wishes.push((*machines, why.clone()));
        }
        let most = wishes.iter().map(|(machines, _)| *machines).max().unwrap_or(0);
        // Who comes for what waits is not free.
        let free = self.free + (self.coming + most).saturating_sub(self.asked_for);
        let least = self.free_least(snapshot);
        wishes.push((most.saturating_add(least.saturating_sub(free)), format!("{least} are to be free")));
        wishes
    }
}

fn want(pass: &mut Pass<'_>, solution: &SolutionId, dedicated: &Dedicated, asked: &Asked<'_>) {
    let snapshot = pass.overlay.snapshot;
    let Some(machines) = dedicated.machines.as_ref() else { return };
    let Some((id, _)) = snapshot.solutions.get_key_value(solution) else { return };
    if let Some(until) = snapshot.avoided.get(solution).filter(|(until, _)| *until > pass.now) {
        return pass.plan.wake_at(until.0);
    }
    let mut room = Room::of(snapshot, solution, machines);
    let mut more = 0;
    let sizes: Vec<&InstanceFacts> = dedicated.sizes().map(|(_, facts)| facts).collect();
    for facts in sizes {
        let Some(standing) = Standing::of(pass, id, dedicated, facts, asked) else { continue };
        let wishes = standing.wishes(pass);
        let all = wishes.iter().map(|(machines, _)| *machines).max().unwrap_or(0);
        for ordinal in 0..all {
            if more == WANTED_PER_PASS_MAX || !room.take(facts) {
                break;
            }
            more += 1;
            let wish = wishes.iter().find(|(machines, _)| ordinal < *machines);
            let why = wish.map(|(_, why)| why.clone()).unwrap_or_default();
            pass.plan.wanted.push(NewMachine { solution: solution.clone(), facts: facts.clone(), why });
        }
    }
}

/// What the class that asks for most machines says of them.
fn worth_why(snapshot: &Snapshot, solution: &SolutionId) -> String {
    let asks = |(_, plan): (_, &CapacityPlan)| {
        let wanted = plan.machines.iter().find(|w| w.solution == *solution && w.machines > 0)?;
        Some((wanted.machines, plan.why.clone()))
    };
    let most = snapshot.capacity().filter_map(asks).max_by_key(|(machines, _)| *machines);
    most.map(|(_, why)| why).unwrap_or_default()
}

/// Free machines beyond what is to be kept, that no session has held for long, are marked as going, unless
/// something waits for room in their solution.
fn drain_free(pass: &mut Pass<'_>, asked: &Asked<'_>) {
    let snapshot = pass.overlay.snapshot;
    let mut kept = std::collections::BTreeMap::<(&SolutionId, &Option<std::sync::Arc<str>>), Kept>::new();
    for (since, id) in &snapshot.index.free_machines {
        let Some(instance) = snapshot.instances.get(id) else { continue };
        let given_back = snapshot.proposals.given_back(id);
        let taken = pass.plan.holds.iter().any(|hold| hold.instance == *id);
        let protected = pass.overlay.policy.do_not_terminate.contains(id);
        if taken || protected || pass.plan.wanted.iter().any(|w| w.solution == instance.solution) {
            continue;
        }
        let size = (&instance.solution, &instance.facts.instance_type);
        let kept = kept.entry(size).or_insert_with(|| Kept::of(pass, &instance.solution, &instance.facts, asked));
        if kept.may_go == 0 {
            continue;
        }
        let at_once = kept.over_most > 0 || given_back.is_some();
        let due = since.after_ms(if at_once { 0 } else { kept.idle_ms });
        if due > pass.now {
            pass.plan.wake_at(due);
            continue;
        }
        let why = given_back.cloned().unwrap_or_else(|| kept.why(*since, pass.now));
        kept.may_go -= 1;
        kept.over_most = kept.over_most.saturating_sub(1);
        pass.plan.drained.push((id.clone(), why));
    }
}

/// How many free machines of a solution may go, and when.
struct Kept {
    may_go: u32,
    /// Free beyond the most that may be: they go at once.
    over_most: u32,
    idle_ms: u64,
    said: Option<String>,
}

impl Kept {
    fn of(pass: &Pass<'_>, solution: &SolutionId, facts: &InstanceFacts, asked: &Asked<'_>) -> Self {
        let snapshot = pass.overlay.snapshot;
        let configured = snapshot.solutions.get_key_value(solution).and_then(|(id, s)| {
            let dedicated = s.dedicated()?;
            let alike = |(_, size): &(NanoUsd, &InstanceFacts)| size.instance_type == facts.instance_type;
            let size = dedicated.sizes().find(alike).or_else(|| dedicated.sizes().next())?.1;
            Some((dedicated.machines.as_ref()?, Standing::of(pass, id, dedicated, size, asked)?))
        });
        // One whose solution is configured no more has no minimum either.
        let Some((machines, standing)) = configured else {
            return Self { may_go: u32::MAX, over_most: 0, idle_ms: 0, said: None };
        };
        let worth = snapshot.worth(solution, standing.facts);
        let least = standing.least().max(worth.unwrap_or(0));
        let spare = standing.free.saturating_sub(standing.free_least(snapshot));
        let may_go = standing.serving.saturating_sub(least).min(spare);
        let over_most = machines.free.max.map_or(0, |most| standing.free.saturating_sub(most)).min(may_go);
        // Beyond what they are worth they go soon: each look is a chance to, and waiting costs.
        let soon_ms = pass.overlay.policy.capacity.family.idle_us / 1_000;
        let idle_ms = worth.map_or(machines.idle_ms, |_| machines.idle_ms.min(soon_ms));
        if let Some((wanted, why)) = standing.by_element(snapshot) {
            let may_go = standing.serving.saturating_sub((*wanted).max(least)).min(standing.free);
            return Self { may_go, over_most: 0, idle_ms: 0, said: Some(why.clone()) };
        }
        match standing.by_thresholds(snapshot, pass.now) {
            None => Self { may_go, over_most, idle_ms, said: None },
            Some(scale @ Scale::Down { machines, .. }) => {
                Self { may_go: may_go.min(machines), over_most, idle_ms: 0, said: Some(scale.to_string()) }
            }
            Some(_) => Self { may_go: over_most, over_most, idle_ms, said: None },
        }
    }

    fn why(&self, since: Timestamp, now: Timestamp) -> String {
        match &self.said {
            Some(said) => said.clone(),
            None if self.over_most > 0 => "more are free than may be".to_owned(),
            None => format!("free for {} s", now.ms_since(since) / 1_000),
        }
    }
}

/// What has been gone for long is no longer listed.
fn forget(pass: &mut Pass<'_>) {
    for (since, id) in &pass.overlay.snapshot.index.gone {
        let due: Timestamp = since.after_ms(pass.overlay.policy.forget_gone_ms);
        if due > pass.now {
            return pass.plan.wake_at(due);
        }
        pass.plan.forgotten.push(id.clone());
    }
}

/// What waits for room hears how it stands with the machines that would be it.
fn tell(pass: &mut Pass<'_>) {
    let snapshot = pass.overlay.snapshot;
    let mut waiting = std::mem::take(&mut pass.plan.waiting);
    for entry in waiting.iter_mut().filter(|w| is_for_room(&w.reason)) {
        let Some(node) = snapshot.node(entry.node) else { continue };
        let suits = |(id, solution): (_, &crate::solution::Solution)| {
            let dedicated = solution.dedicated()?;
            let most = dedicated.machines.as_ref()?.max;
            let mut sizes = dedicated.sizes();
            sizes.any(|(_, facts)| suits_within(snapshot, id, facts, &node.profile).is_ok()).then(|| (id.clone(), most))
        };
        let stands = |(solution, max): (SolutionId, u32)| {
            let coming = count(snapshot.machines_in(&solution, InstanceState::Wanted..=InstanceState::Booting))
                + count(pass.plan.wanted.iter().filter(|w| w.solution == solution));
            let avoided = snapshot.avoided.get(&solution).filter(|(until, _)| *until > pass.now);
            (solution, max, coming, avoided)
        };
        let suited = snapshot.solutions.iter().filter_map(suits).map(stands);
        // Of several clouds, the one that does something about it.
        let best = suited.min_by_key(|(.., coming, avoided)| (*coming == 0, avoided.is_some()));
        let Some((solution, max, coming, avoided)) = best else { continue };
        let machines = match avoided {
            _ if coming > 0 => MachinesAre::Coming(coming),
            Some((_, why)) => MachinesAre::NotMade(why.clone()),
            None => MachinesAre::AtMost(max),
        };
        let because = Box::new(std::mem::replace(&mut entry.reason, Reason::PlanFull));
        entry.reason = Reason::Machine { solution, machines, because };
    }
    pass.plan.waiting = waiting;
}

impl Plan {
    /// Names of the machines that it wants: made of the turn, so that no two are ever alike.
    pub(super) fn name(solution: &SolutionId, turn: u64, ordinal: usize) -> Option<InstanceId> {
        InstanceId::new(&format!("{solution}-{turn}-{ordinal}")).ok()
    }
}
