//! Balancing: which of the places that fit ([0069], [0071]).
//!
//! A pass sees the snapshot through an [`Overlay`]: what this pass has already given out. Only what it
//! touched is copied, so that a pass costs what it does, not what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::index::{Class, Load};
use super::place::{fits_gateway, fits_instance, slots};
use super::policy::{Algorithm, Policy};
use super::reason::Reason;
use super::snapshot::Snapshot;
use super::{cost, place};
use crate::id::{InstanceId, SessionId, SolutionId};
use crate::instance::{Instance, InstanceState};
use crate::needs::CpuSetting;
use crate::quantity::NanoUsd;
use crate::task::{Balance, Profile};

/// Most instances looked at to name the commonest reason of a class that finds none; `explain`
/// looks at all.
const LOOKED_AT_MAX: usize = 64;

/// The snapshot plus what this pass gave out.
#[derive(Clone)]
pub(super) struct Overlay<'a> {
    pub snapshot: &'a Snapshot,
    pub policy: &'a Policy,
    loads: BTreeMap<InstanceId, Load>,
    gateways: BTreeMap<SolutionId, u32>,
    held: BTreeSet<(SessionId, InstanceId)>,
    groups: BTreeMap<(SessionId, Arc<str>), InstanceId>,
}

/// An instance that fits, with what it would cost there.
pub(super) struct OnInstance {
    pub id: InstanceId,
    pub cost: NanoUsd,
    pub balance: Balance,
    pub by_group: bool,
}

/// Held by others, order of the scheme, not held by this session, name: the least is the best.
type Rank<'a> = (bool, i64, bool, &'a InstanceId);

/// A shared solution that fits, with what it would cost there.
pub(super) struct InGateway {
    pub id: SolutionId,
    pub cost: NanoUsd,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, policy: &'a Policy) -> Self {
        Self {
            snapshot,
            policy,
            loads: BTreeMap::new(),
            gateways: BTreeMap::new(),
            held: BTreeSet::new(),
            groups: BTreeMap::new(),
        }
    }

    fn load(&self, id: &InstanceId) -> &Load {
        self.loads.get(id).unwrap_or_else(|| self.snapshot.load_of(id))
    }

    pub(super) fn open_in(&self, id: &SolutionId) -> u32 {
        self.gateways.get(id).copied().unwrap_or_else(|| self.snapshot.open_in(id))
    }

    /// Is the instance held by this session (in the ledger or by this pass)?
    pub(super) fn holds(&self, session: SessionId, instance: &Instance) -> bool {
        instance.held_by.contains(&session) || self.held.contains(&(session, instance.id.clone()))
    }

    fn held_by_others(&self, session: SessionId, instance: &Instance) -> bool {
        instance.held_by.iter().any(|s| *s != session)
            || self.held.iter().any(|(s, id)| *s != session && *id == instance.id)
    }

    fn holds_count(&self, session: SessionId) -> usize {
        let before = self.snapshot.sessions.get(&session).map_or(0, |s| s.holds.len());
        before + self.held.iter().filter(|(s, _)| *s == session).count()
    }

    pub(super) fn take_instance(&mut self, class: &Class, id: &InstanceId) {
        let mut load = self.load(id).clone();
        load.add(&class.profile.needs);
        self.loads.insert(id.clone(), load);
        if self.snapshot.instances.get(id).is_some_and(|instance| !self.holds(class.session, instance)) {
            self.held.insert((class.session, id.clone()));
        }
        if let Some(group) = &class.profile.group {
            self.groups.insert((class.session, group.clone()), id.clone());
        }
    }

    pub(super) fn take_gateway(&mut self, id: &SolutionId) {
        let open = self.open_in(id);
        self.gateways.insert(id.clone(), open + 1);
    }

    /// Does the item fit on this instance now?
    pub(super) fn fits(&self, class: &Class, instance: &Instance) -> Result<(), Reason> {
        let (live, load) = (self.snapshot.live(&instance.id), self.load(&instance.id));
        let slots = slots(self.snapshot, instance, self.policy);
        fits_instance(instance, live, load, slots, &class.profile, self.policy)?;
        match self.policy.instances_per_session_max {
            Some(most) if !self.holds(class.session, instance) && self.holds_count(class.session) >= most as usize => {
                Err(Reason::NotFree { what: "more instances for one session".into(), asked: 1, free: 0 })
            }
            _ => Ok(()),
        }
    }

    /// Its cost there.
    pub(super) fn cost_on(&self, profile: &Profile, instance: &Instance) -> NanoUsd {
        let Some(dedicated) = self.snapshot.solutions.get(&instance.solution).and_then(|s| s.dedicated()) else {
            return NanoUsd::ZERO;
        };
        let slots = slots(self.snapshot, instance, self.policy);
        cost::on_instance(dedicated, slots, profile.needs.cpu, cost::expected_ms(profile, self.policy))
    }

    fn scheme(&self, profile: &Profile) -> Balance {
        match (&self.policy.algorithm, profile.needs.cpu, profile.balance) {
            (_, _, Some(asked)) => asked,
            (Algorithm::Builtin(builtin), CpuSetting::Algorithm, None) => *builtin,
            _ => self.policy.balance,
        }
    }

    /// The custom algorithm that places items of this profile: nobody else does.
    fn custom(&self, profile: &Profile) -> Option<&Arc<str>> {
        match (&self.policy.algorithm, profile.needs.cpu, profile.balance) {
            (Algorithm::Custom { class }, CpuSetting::Algorithm, None) => Some(class),
            _ => None,
        }
    }

    /// The best instance for one item of the class that costs at most `cost_max`, or why there is
    /// none. Where its group is, the cost does not matter.
    pub(super) fn best_instance(&self, class: &Class, cost_max: Option<NanoUsd>) -> Result<OnInstance, Reason> {
        place::mode_allows_instances(&class.profile)?;
        if let Some(name) = self.custom(&class.profile) {
            return Err(Reason::NoProposal { class: name.clone() });
        }
        let balance = self.scheme(&class.profile);
        let found = |instance: &Instance, by_group| OnInstance {
            id: instance.id.clone(),
            cost: self.cost_on(&class.profile, instance),
            balance,
            by_group,
        };
        if let Some(instance) = self.group_instance(class).filter(|i| self.fits(class, i).is_ok()) {
            return Ok(found(instance, true));
        }
        match self.best_by(balance, class, cost_max) {
            Some(instance) => Ok(found(instance, false)),
            None => Err(self.why_none(class, cost_max)),
        }
    }

    fn within(&self, profile: &Profile, instance: &Instance, cost_max: Option<NanoUsd>) -> bool {
        cost_max.is_none_or(|most| self.cost_on(profile, instance) <= most)
    }

    fn group_instance(&self, class: &Class) -> Option<&'a Instance> {
        let group = class.profile.group.as_ref()?;
        let here = self.groups.get(&(class.session, group.clone()));
        let id = here.or_else(|| self.snapshot.sessions.get(&class.session)?.groups.get(group))?;
        self.snapshot.instances.get(id)
    }

    /// Instances as the scheme ranks them. Those that other sessions hold come after all others;
    /// among equals, one this session holds already comes first.
    fn best_by(&self, balance: Balance, class: &Class, cost_max: Option<NanoUsd>) -> Option<&'a Instance> {
        let mut best: Option<(Rank<'_>, &Instance)> = None;
        let mut look = |instance: &'a Instance| {
            let attempts = i64::from(self.load(&instance.id).attempts);
            let order = match balance {
                Balance::FewestTasks => attempts,
                Balance::Packing => -attempts,
                Balance::FirstFit => 0,
            };
            let others = self.held_by_others(class.session, instance);
            let rank = (others, order, !self.holds(class.session, instance), &instance.id);
            let better = best.as_ref().is_none_or(|(b, _)| rank < *b);
            if better && self.within(&class.profile, instance, cost_max) && self.fits(class, instance).is_ok() {
                best = Some((rank, instance));
            }
        };
        for id in self.snapshot.usable() {
            if let Some(instance) = self.snapshot.instances.get(id) {
                look(instance);
            }
        }
        best.map(|(_, instance)| instance)
    }

    fn why_none(&self, class: &Class, cost_max: Option<NanoUsd>) -> Reason {
        let mut counts: BTreeMap<Reason, u32> = BTreeMap::new();
        let mut looked_at = 0;
        let there = self.snapshot.instances.values().filter(|i| i.state != InstanceState::Gone);
        let asked = there.filter(|i| self.within(&class.profile, i, cost_max));
        for instance in asked.take(LOOKED_AT_MAX) {
            looked_at += 1;
            if let Err(reason) = self.fits(class, instance) {
                *counts.entry(reason).or_default() += 1;
            }
        }
        // The commonest; among equally common ones the first in the reasons' own order.
        match counts.into_iter().max_by(|(a, n), (b, m)| n.cmp(m).then(b.cmp(a))) {
            Some((because, _)) => Reason::NoInstance { looked_at, because: Box::new(because) },
            None => Reason::NoneConfigured { what: "instance".into() },
        }
    }

    /// Could any instance ever take it? The cheapest such cost, or why not.
    pub(super) fn any_instance_ever(&self, profile: &Profile) -> Result<NanoUsd, Reason> {
        place::mode_allows_instances(profile)?;
        let mut cheapest: Option<NanoUsd> = None;
        let mut why = None;
        for instance in self.snapshot.instances.values().filter(|i| i.state != InstanceState::Gone) {
            match place::could_take(instance, profile) {
                Ok(()) => {
                    let cost = self.cost_on(profile, instance);
                    cheapest = Some(cheapest.map_or(cost, |c| c.min(cost)));
                }
                Err(reason) => why = why.or(Some(reason)),
            }
        }
        cheapest.ok_or_else(|| why.unwrap_or(Reason::NoneConfigured { what: "instance".into() }))
    }

    /// Could any shared solution ever take it? The cheapest such cost, or why not.
    pub(super) fn any_gateway_ever(&self, profile: &Profile) -> Result<NanoUsd, Reason> {
        self.gateways_that(profile, |id, shared| place::suits_gateway(id, shared, profile)).map(|found| found.cost)
    }

    /// The cheapest shared solution with room that costs at most `cost_max`, or why there is none.
    pub(super) fn best_gateway(&self, profile: &Profile, cost_max: Option<NanoUsd>) -> Result<InGateway, Reason> {
        let found = self.gateways_that(profile, |id, shared| fits_gateway(id, shared, self.open_in(id), profile))?;
        match cost_max {
            Some(most) if found.cost > most => Err(self.why_no_gateway(profile, most)),
            _ => Ok(found),
        }
    }

    /// Why the ones that cost at most `most` do not take it.
    fn why_no_gateway(&self, profile: &Profile, most: NanoUsd) -> Reason {
        let run_ms = cost::expected_ms(profile, self.policy);
        let shared = self.snapshot.solutions.iter().filter_map(|(id, s)| Some((id, s.shared()?)));
        let cheap = shared.filter(|(_, s)| cost::in_gateway(s, profile.needs.memory_mb, run_ms) <= most);
        let mut reasons = cheap.filter_map(|(id, s)| fits_gateway(id, s, self.open_in(id), profile).err());
        reasons.next().unwrap_or(Reason::NoneConfigured { what: "shared solution".into() })
    }

    /// The longest cold start of any shared solution, ms.
    pub(super) fn cold_start_ms(&self) -> u64 {
        let shared = self.snapshot.solutions.values().filter_map(|s| s.shared());
        shared.map(|s| s.cold_start_ms).max().unwrap_or(0)
    }

    fn gateways_that(
        &self,
        profile: &Profile,
        fits: impl Fn(&SolutionId, &crate::solution::Shared) -> Result<(), Reason>,
    ) -> Result<InGateway, Reason> {
        let mut best: Option<InGateway> = None;
        let mut why = None;
        for (id, solution) in &self.snapshot.solutions {
            let Some(shared) = solution.shared() else { continue };
            match fits(id, shared) {
                Ok(()) => {
                    let run_ms = cost::expected_ms(profile, self.policy);
                    let cost = cost::in_gateway(shared, profile.needs.memory_mb, run_ms);
                    if best.as_ref().is_none_or(|b| cost < b.cost) {
                        best = Some(InGateway { id: id.clone(), cost });
                    }
                }
                Err(reason) => why = why.or(Some(reason)),
            }
        }
        best.ok_or_else(|| why.unwrap_or(Reason::NoneConfigured { what: "shared solution".into() }))
    }
}
