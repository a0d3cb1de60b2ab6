//! Balancing: which of the places that fit ([0069], [0071]).
//!
//! A pass sees the snapshot through an [`Overlay`]: what this pass has already given out. Only what it
//! touched is copied, so that a pass costs what it does, not what there is. The least loaded instances
//! of each kind are found by [`super::rooms`].

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::backfill::{Beside, Reserved};
use super::budget::below_minimum;
use super::deployment::{Deployment, Held, Kept};
use super::index::Load;
use super::place::{fits_gateway, fits_instance, may_wait_on, slots, slots_of, suits_within};
use super::policy::{Algorithm, Policy};
use super::reason::{Choice, Reason};
use super::rooms::{ByRoom, Holder, KindNo, OfKind, Part, Room, Rooms, cpu_taken_most};
use super::snapshot::Snapshot;
use super::{cost, place};
use crate::id::{InstanceId, SessionId, SolutionId};
use crate::instance::{Instance, InstanceFacts};
use crate::needs::CpuSetting;
use crate::quantity::{NanoUsd, Timestamp};
use crate::solution::Solution;
use crate::task::{Balance, Profile};

/// Most rooms looked at to name the commonest reason of a class that finds none; `explain` looks at
/// every instance.
const LOOKED_AT_MAX: usize = 64;

/// The snapshot plus what this pass gave out.
#[derive(Clone)]
pub(super) struct Overlay<'a> {
    pub snapshot: &'a Snapshot,
    pub policy: &'a Policy,
    pub now: Timestamp,
    loads: BTreeMap<InstanceId, Load>,
    gateways: BTreeMap<SolutionId, u32>,
    held: BTreeMap<InstanceId, BTreeSet<SessionId>>,
    held_count: BTreeMap<SessionId, usize>,
    groups: BTreeMap<(SessionId, Arc<str>), InstanceId>,
    /// Instances this pass touched, where they stand now.
    moved: Rooms,
    /// Up to where the instances of a room are all touched or reserved: looking starts behind it.
    passed: RefCell<BTreeMap<(KindNo, Part, Room), InstanceId>>,
    /// Places kept for groups.
    groups_kept: Kept,
    /// What this pass placed on instances.
    given: BTreeMap<InstanceId, Vec<Arc<Profile>>>,
    /// Room kept for items that need much at once.
    pub reserved: BTreeMap<InstanceId, Reserved>,
    /// Solutions at which less was used this month than is paid for: what was, and the least.
    paid: Arc<BTreeMap<SolutionId, (NanoUsd, NanoUsd)>>,
}

/// An instance that fits, with what it would cost there.
pub(super) struct OnInstance {
    pub id: InstanceId,
    pub cost: NanoUsd,
    pub balance: Balance,
    pub by_group: bool,
    /// It is reserved for another there, which it does not delay.
    pub beside: Option<Beside>,
}

/// A shared solution that fits, with what it would cost there.
pub(super) struct InGateway {
    pub id: SolutionId,
    pub cost: NanoUsd,
    /// What using it costs more than not using it.
    pub more: NanoUsd,
}

/// A kind whose instances suit a profile, with what it costs there and how much each takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Suited {
    no: KindNo,
    pub cost: NanoUsd,
    /// What using it costs more than not using it.
    pub more: NanoUsd,
    /// Machines that the engine has made: paid whether they are used or not.
    pub paid: bool,
    pub slots: u32,
    /// Most attempts at a time, of one slot each.
    attempts: u32,
    pub memory_mb: u32,
}

/// Held by others, order of the scheme, not held by this session, room, name: the least is the best.
type Rank<'r> = (bool, i64, bool, &'r Room, &'r InstanceId);

/// What is asked of an instance: to run now, or to wait there for one of its slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Run,
    Wait { per_slot: u32 },
}

/// One search for an instance.
struct Search<'o, 'a> {
    overlay: &'o Overlay<'a>,
    profile: &'o Profile,
    session: SessionId,
    balance: Balance,
    ask: Ask,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, policy: &'a Policy, now: Timestamp) -> Self {
        Self {
            snapshot,
            policy,
            now,
            loads: BTreeMap::new(),
            gateways: BTreeMap::new(),
            held: BTreeMap::new(),
            held_count: BTreeMap::new(),
            groups: BTreeMap::new(),
            moved: Rooms::default(),
            passed: RefCell::default(),
            groups_kept: Kept::of(snapshot, policy),
            given: BTreeMap::new(),
            reserved: BTreeMap::new(),
            paid: Arc::new(below_minimum(snapshot, now)),
        }
    }

    /// What this pass placed there.
    pub(super) fn given_on(&self, id: &InstanceId) -> &[Arc<Profile>] {
        self.given.get(id).map_or(&[], Vec::as_slice)
    }

    /// Has this pass touched it?
    pub(super) fn has_moved(&self, id: &InstanceId) -> bool {
        self.moved.has(id)
    }

    /// The instances of a kind as they were before this pass, and those that it touched.
    pub(super) fn of_kind(&self, kind: &Suited) -> (Option<&'a OfKind>, Option<&OfKind>) {
        (self.snapshot.index.rooms.of_kind(kind.no), self.moved.of_kind(kind.no))
    }

    pub(super) fn load(&self, id: &InstanceId) -> &Load {
        self.loads.get(id).unwrap_or_else(|| self.snapshot.load_of(id))
    }

    pub(super) fn open_in(&self, id: &SolutionId) -> u32 {
        self.gateways.get(id).copied().unwrap_or_else(|| self.snapshot.open_in(id))
    }

    /// Is the instance held by this session (in the ledger or by this pass)?
    pub(super) fn holds(&self, session: SessionId, instance: &Instance) -> bool {
        instance.held_by.contains(&session)
            || self.held.get(&instance.id).is_some_and(|sessions| sessions.contains(&session))
    }

    pub(super) fn holds_count(&self, session: SessionId) -> usize {
        let before = self.snapshot.sessions.get(&session).map_or(0, |s| s.holds.len());
        before + self.held_count.get(&session).copied().unwrap_or(0)
    }

    pub(super) fn take_instance(&mut self, session: SessionId, profile: &Arc<Profile>, id: &InstanceId) {
        if let Some(instance) = self.snapshot.instances.get(id) {
            self.take_reserved(session, profile, instance);
        }
        self.given.entry(id.clone()).or_default().push(profile.clone());
        let mut load = self.load(id).clone();
        load.add(&profile.needs);
        self.loads.insert(id.clone(), load);
        if self.snapshot.instances.get(id).is_some_and(|instance| !self.holds(session, instance)) {
            self.held.entry(id.clone()).or_default().insert(session);
            *self.held_count.entry(session).or_default() += 1;
        }
        if let Some(group) = &profile.group {
            self.groups.insert((session, group.clone()), id.clone());
        }
        self.moved_to(id);
    }

    fn moved_to(&mut self, id: &InstanceId) {
        let (Some(instance), Some(no)) = (self.snapshot.instances.get(id), self.snapshot.index.rooms.kind_no(id))
        else {
            return;
        };
        let here = self.held.get(id).into_iter().flatten().copied();
        let holder = Holder::of(instance.held_by.iter().copied().chain(here));
        let room = Room::of(self.load(id), self.snapshot.live(id));
        self.moved.set_moved(id, no, (holder, room));
    }

    pub(super) fn take_gateway(&mut self, id: &SolutionId) {
        let open = self.open_in(id);
        self.gateways.insert(id.clone(), open + 1);
    }

    /// Does the item fit on this instance now?
    pub(super) fn fits(&self, session: SessionId, profile: &Profile, instance: &Instance) -> Result<(), Reason> {
        let (live, load) = (self.snapshot.live(&instance.id), self.load(&instance.id));
        let slots = slots_of(self.snapshot, &instance.solution, &instance.facts);
        fits_instance(instance, live, load, slots, profile, self.policy)?;
        self.beside(session, profile, instance)?;
        self.groups_kept.check(self.policy, profile, instance)?;
        self.within_session_limit(session, instance)
    }

    pub(super) fn within_session_limit(&self, session: SessionId, instance: &Instance) -> Result<(), Reason> {
        match self.policy.instances_per_session_max {
            Some(most) if !self.holds(session, instance) && self.holds_count(session) >= most as usize => {
                Err(Reason::NotFree { what: "more instances for one session".into(), asked: 1, free: 0 })
            }
            _ => Ok(()),
        }
    }

    fn may_wait(&self, session: SessionId, profile: &Profile, instance: &Instance, per_slot: u32) -> bool {
        let slots = slots(self.snapshot, &instance.solution, &instance.facts, self.policy);
        let used = self.snapshot.live(&instance.id).cpu_percent;
        may_wait_on(instance, self.load(&instance.id), slots, slots.saturating_mul(per_slot), profile)
            && self.policy.cpu_ceiling_percent.is_none_or(|ceiling| used < ceiling)
            && !self.reserved.contains_key(&instance.id)
            && self.groups_kept.check(self.policy, profile, instance).is_ok()
            && self.within_session_limit(session, instance).is_ok()
    }

    /// Its cost there.
    pub(super) fn cost_on(&self, profile: &Profile, solution: &SolutionId, facts: &InstanceFacts) -> NanoUsd {
        let Some(dedicated) = self.snapshot.solutions.get(solution).and_then(|s| s.dedicated()) else {
            return NanoUsd::ZERO;
        };
        let slots = slots(self.snapshot, solution, facts, self.policy);
        let price = dedicated.price_of(facts);
        let out = self.snapshot.solutions.get(solution).map_or(NanoUsd::ZERO, |s| cost::expected_data_out(s, profile));
        cost::on_instance(price, slots, &profile.needs, cost::expected_ms(profile, self.policy)) + out
    }

    /// Could it ever be there, once what is there has ended?
    pub(super) fn may_ever(&self, instance: &Instance, profile: &Profile) -> bool {
        let held = self.groups_kept.check(self.policy, profile, instance);
        held.is_ok() && place::suits_instance(instance, profile).is_ok()
    }

    /// What using a solution at this cost costs more than not using it: nothing, while less was used there than
    /// is paid for in any case.
    fn more(&self, solution: &SolutionId, cost: NanoUsd) -> NanoUsd {
        if self.paid.contains_key(solution) { NanoUsd::ZERO } else { cost }
    }

    /// Why there, where that is why.
    pub(super) fn because_paid(&self, solution: &SolutionId, here: NanoUsd) -> Option<Choice> {
        let (spent, minimum) = *self.paid.get(solution)?;
        Some(Choice::MinimumPurchase { solution: solution.clone(), here, spent, minimum })
    }

    fn are_machines(&self, solution: &SolutionId) -> bool {
        let dedicated = self.snapshot.solutions.get(solution).and_then(|s| s.dedicated());
        dedicated.is_some_and(|d| d.machines.is_some())
    }

    fn scheme(&self, profile: &Profile) -> Balance {
        match (&self.policy.algorithm, profile.needs.cpu, profile.balance) {
            (_, _, Some(asked)) => asked,
            (Algorithm::Builtin(builtin), CpuSetting::Algorithm, None) => *builtin,
            _ => self.policy.balance,
        }
    }

    /// The custom algorithm that places items of this profile: nobody else does.
    pub(super) fn custom(&self, profile: &Profile) -> Option<&Arc<str>> {
        self.policy.custom(profile)
    }

    /// The best instance for one item that costs at most `cost_max`, or why there is none. Where its
    /// group is, the cost does not matter.
    pub(super) fn best_instance(
        &self,
        suited: &[Suited],
        session: SessionId,
        profile: &Profile,
        cost_max: Option<NanoUsd>,
    ) -> Result<OnInstance, Reason> {
        place::mode_allows_instances(profile)?;
        if let Some(name) = self.custom(profile) {
            return Err(Reason::NoProposal { class: name.clone() });
        }
        let balance = self.scheme(profile);
        let found = |instance: &Instance, by_group, beside| OnInstance {
            id: instance.id.clone(),
            cost: self.cost_on(profile, &instance.solution, &instance.facts),
            balance,
            by_group,
            beside,
        };
        let group = self.group_instance(session, profile);
        if let Some(instance) = group.filter(|instance| self.fits(session, profile, instance).is_ok()) {
            return Ok(found(instance, true, None));
        }
        let cheap = |kind: &&Suited| cost_max.is_none_or(|most| kind.more <= most);
        let within = |id: &InstanceId| {
            let no = self.snapshot.index.rooms.kind_no(id);
            suited.iter().filter(cheap).any(|kind| Some(kind.no) == no)
        };
        if let Some(instance) = self.own_reserved(session, profile, within) {
            return Ok(found(instance, false, None));
        }
        let search = Search { overlay: self, profile, session, balance, ask: Ask::Run };
        if let Some(instance) = search.best(suited.iter().filter(cheap)) {
            return Ok(found(instance, false, None));
        }
        match self.beside_reserved(session, profile, within) {
            Some((instance, beside)) => Ok(found(instance, false, Some(beside))),
            None => Err(self.why_none(session, profile, cost_max)),
        }
    }

    /// The best instance for an item to wait on, `per_slot` for each slot.
    pub(super) fn best_to_wait_on(
        &self,
        suited: &[Suited],
        session: SessionId,
        profile: &Profile,
        per_slot: u32,
    ) -> Option<OnInstance> {
        if self.custom(profile).is_some() || per_slot == 0 {
            return None;
        }
        let balance = Balance::FewestTasks;
        let search = Search { overlay: self, profile, session, balance, ask: Ask::Wait { per_slot } };
        let instance = match self.group_instance(session, profile) {
            Some(instance) => self.may_wait(session, profile, instance, per_slot).then_some(instance)?,
            None => search.best(suited.iter())?,
        };
        let cost = self.cost_on(profile, &instance.solution, &instance.facts);
        Some(OnInstance { id: instance.id.clone(), cost, balance, by_group: false, beside: None })
    }

    fn group_instance(&self, session: SessionId, profile: &Profile) -> Option<&'a Instance> {
        let group = profile.group.as_ref()?;
        let here = self.groups.get(&(session, group.clone()));
        let id = here.or_else(|| self.snapshot.sessions.get(&session)?.groups.get(group))?;
        self.snapshot.instances.get(id)
    }

    /// Rooms that are there, with the reason of each, commonest first.
    fn why_none(&self, session: SessionId, profile: &Profile, cost_max: Option<NanoUsd>) -> Reason {
        if let Some(held) = &profile.held {
            return self.why_not_there(session, profile, held);
        }
        let mut counts: BTreeMap<Reason, u32> = BTreeMap::new();
        let mut count = |reason, many: usize| {
            *counts.entry(reason).or_default() += u32::try_from(many).unwrap_or(u32::MAX);
        };
        let mut looked_at = 0;
        for (kind, no, of_kind) in self.snapshot.index.rooms.kinds() {
            if cost_max.is_some_and(|most| {
                self.more(&kind.solution, self.cost_on(profile, &kind.solution, &kind.facts)) > most
            }) {
                continue;
            }
            let usable = of_kind.usable;
            if let Err(reason) = suits_within(self.snapshot, &kind.solution, &kind.facts, profile) {
                count(reason, of_kind.members.len());
                continue;
            }
            if of_kind.members.len() > usable {
                count(Reason::Unreachable, of_kind.members.len() - usable);
            }
            for (id, many) in self.all_rooms(no, of_kind) {
                let Some(instance) = self.snapshot.instances.get(id) else { continue };
                looked_at += 1;
                if looked_at > LOOKED_AT_MAX {
                    break;
                }
                if let Err(reason) = self.fits(session, profile, instance) {
                    count(reason, many);
                }
            }
        }
        let draining = self.snapshot.index.draining.len();
        if draining > 0 {
            count(Reason::NotReady { state: crate::instance::InstanceState::Draining }, draining);
        }
        let looked_at = counts.values().sum();
        // The commonest; among equally common ones the first in the reasons' own order.
        match counts.into_iter().max_by(|(a, n), (b, m)| n.cmp(m).then(b.cmp(a))) {
            Some((because, _)) => Reason::NoInstance { looked_at, because: Box::new(because) },
            None => Reason::NoneConfigured { what: "instance".into() },
        }
    }

    /// Why the server to which a deployment plan holds an item does not take it.
    fn why_not_there(&self, session: SessionId, profile: &Profile, held: &Held) -> Reason {
        let Some(server) = &held.server else {
            let deployment = self.snapshot.sessions.get(&session).and_then(|s| s.deployment.as_deref());
            return match deployment {
                Some(Deployment::Waits { because, .. }) => Reason::NoDeployment { because: because.as_str().into() },
                _ => Reason::NoDeployment { because: "it is being made".into() },
            };
        };
        let there = |i: &&Instance| self.policy.sites.spot_of(&i.id, &i.solution) == *server;
        let instances = self.snapshot.instances.values().filter(there);
        let reasons: BTreeSet<Reason> = instances.filter_map(|i| self.fits(session, profile, i).err()).collect();
        // What changes by itself says more than what never will.
        let because = reasons.iter().find(|reason| !reason.is_lasting()).or(reasons.first()).cloned();
        let because = Box::new(because.unwrap_or(Reason::NoneConfigured { what: "instance".into() }));
        Reason::OnServer { server: server.to_string().into(), because }
    }

    /// The rooms of a kind as this pass sees them: an instance of each, and how many have it.
    fn all_rooms<'s>(&'s self, no: KindNo, of_kind: &'s OfKind) -> impl Iterator<Item = (&'s InstanceId, usize)> {
        let untouched = of_kind.rooms().take(LOOKED_AT_MAX).filter_map(|(_, ids)| {
            // Those this pass touched are few, and stand first.
            let first = ids.iter().find(|id| !self.moved.has(id))?;
            Some((first, ids.len()))
        });
        let moved = self.moved.of_kind(no).into_iter().flat_map(OfKind::rooms).take(LOOKED_AT_MAX);
        untouched.chain(moved.filter_map(|(_, ids)| Some((ids.first()?, ids.len()))))
    }

    /// The kinds whose instances could ever take it, or why none could.
    pub(super) fn suited(&self, profile: &Profile) -> Result<Vec<Suited>, Reason> {
        place::mode_allows_instances(profile)?;
        let (mut suited, mut why) = (Vec::new(), None);
        for (kind, no, of_kind) in self.snapshot.index.rooms.kinds() {
            let instance = |id: &InstanceId| self.snapshot.instances.get(id);
            let found = suits_within(self.snapshot, &kind.solution, &kind.facts, profile).and_then(|()| {
                let mut members = of_kind.members.iter().filter_map(instance);
                if profile.needs.storage_mb == 0 {
                    return Ok(());
                }
                let suits = |i: &Instance| place::suits_instance(i, profile);
                if members.clone().any(|i| suits(i).is_ok()) {
                    return Ok(());
                }
                members.next().map_or(Ok(()), suits)
            });
            match found {
                Ok(()) => suited.push(Suited {
                    no,
                    cost: self.cost_on(profile, &kind.solution, &kind.facts),
                    more: self.more(&kind.solution, self.cost_on(profile, &kind.solution, &kind.facts)),
                    paid: self.are_machines(&kind.solution),
                    slots: slots_of(self.snapshot, &kind.solution, &kind.facts),
                    attempts: slots(self.snapshot, &kind.solution, &kind.facts, self.policy),
                    memory_mb: kind.facts.memory_mb,
                }),
                Err(reason) => why = why.or(Some(reason)),
            }
        }
        if suited.is_empty() {
            return Err(why.unwrap_or_else(|| self.why_no_kind()));
        }
        Ok(suited)
    }

    fn why_no_kind(&self) -> Reason {
        if self.snapshot.index.draining.is_empty() {
            Reason::NoneConfigured { what: "instance".into() }
        } else {
            Reason::NotReady { state: crate::instance::InstanceState::Draining }
        }
    }

    /// Could any shared solution ever take it? The cheapest such cost, or why not.
    pub(super) fn any_gateway_ever(&self, profile: &Profile) -> Result<InGateway, Reason> {
        self.gateways_that(profile, |id, shared| place::suits_gateway(id, shared, profile))
    }

    /// The cheapest shared solution with room that costs at most `cost_max`, or why there is none.
    pub(super) fn best_gateway(&self, profile: &Profile, cost_max: Option<NanoUsd>) -> Result<InGateway, Reason> {
        let found = self.gateways_that(profile, |id, shared| fits_gateway(id, shared, self.open_in(id), profile))?;
        match cost_max {
            Some(most) if found.more > most => Err(self.why_no_gateway(profile, most)),
            _ => Ok(found),
        }
    }

    /// Why the ones that cost at most `most` do not take it.
    fn why_no_gateway(&self, profile: &Profile, most: NanoUsd) -> Reason {
        let shared = self.snapshot.solutions.iter().filter_map(|(id, s)| Some((id, s, s.shared()?)));
        let cost = |of: &Solution, s| cost::expected_in_gateway(of, s, profile, self.policy);
        let cheap = shared.filter(|(id, of, s)| self.more(id, cost(of, s)) <= most);
        let mut reasons = cheap.filter_map(|(id, _, s)| fits_gateway(id, s, self.open_in(id), profile).err());
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
        let mut fitting: Vec<InGateway> = Vec::new();
        let mut why = None;
        for (id, solution) in &self.snapshot.solutions {
            let Some(shared) = solution.shared() else { continue };
            match fits(id, shared) {
                Ok(()) => {
                    let cost = cost::expected_in_gateway(solution, shared, profile, self.policy);
                    fitting.push(InGateway { id: id.clone(), cost, more: self.more(id, cost) });
                }
                Err(reason) => why = why.or(Some(reason)),
            }
        }
        let none = || why.unwrap_or(Reason::NoneConfigured { what: "shared solution".into() });
        let least = fitting.iter().map(|found| found.more.0).min().unwrap_or(0);
        let more = i128::from(least) * i128::from(self.policy.goals.spread_ppm) / 1_000_000;
        let most = i64::try_from(i128::from(least) + more).unwrap_or(i64::MAX);
        // Spread between vendors [0057]: of those that cost about the same, the one with least open.
        let spread = |found: &InGateway| if more > 0 { self.open_in(&found.id) } else { 0 };
        let within = fitting.into_iter().filter(|found| found.more.0 <= most);
        within.min_by_key(|found| (spread(found), found.more, found.cost)).ok_or_else(none)
    }
}

impl<'a> Search<'_, 'a> {
    /// Instances as the scheme ranks them. Those that other sessions hold come after all others; among
    /// equals, one this session holds already comes first, then the one with the most CPU free.
    fn best<'s>(&self, suited: impl Iterator<Item = &'s Suited>) -> Option<&'a Instance> {
        let overlay = self.overlay;
        let kinds: Vec<_> = suited.collect();
        for parts in [&[Part::Own(self.session), Part::Free][..], &[Part::Held][..]] {
            let mut best: Option<(Rank<'_>, &'a Instance)> = None;
            for kind in &kinds {
                let base = overlay.snapshot.index.rooms.of_kind(kind.no);
                let moved = overlay.moved.of_kind(kind.no);
                for part in parts {
                    let here = base.and_then(|of_kind| of_kind.part(*part));
                    let here = here.and_then(|rooms| self.first(kind, *part, rooms, true));
                    let there = moved.and_then(|of_kind| of_kind.part(*part));
                    let there = there.and_then(|rooms| self.first(kind, *part, rooms, false));
                    for found in [here, there].into_iter().flatten() {
                        if best.as_ref().is_none_or(|(rank, _)| found.0 < *rank) {
                            best = Some(found);
                        }
                    }
                }
            }
            if let Some((_, instance)) = best {
                return Some(instance);
            }
        }
        None
    }

    /// The first instance in the scheme's order; `base` skips those that this pass touched.
    fn first<'r>(&self, kind: &Suited, part: Part, rooms: &'r ByRoom, base: bool) -> Option<(Rank<'r>, &'a Instance)> {
        let most = match self.ask {
            Ask::Run => kind.attempts,
            Ask::Wait { per_slot } => kind.attempts.saturating_mul(per_slot.saturating_add(1)),
        };
        let in_room = |(room, ids): (&'r Room, &'r BTreeSet<InstanceId>)| {
            let runs = self.ask == Ask::Run;
            if room.attempts >= most || runs && !room.may_fit(&self.profile.needs, kind.slots, kind.memory_mb) {
                return None;
            }
            let (id, instance) = self.in_room(kind.no, part, room, ids, base)?;
            Some((self.rank(kind, part, room, id), instance))
        };
        match self.balance {
            Balance::FewestTasks | Balance::ByNumber => self.ascending(rooms, most).find_map(in_room),
            Balance::Packing => rooms.iter().rev().find_map(in_room),
            Balance::FirstFit => rooms.iter().filter_map(in_room).min_by(|(a, _), (b, _)| a.4.cmp(b.4)),
            Balance::LowestLoad => lowest_load(rooms, in_room),
        }
    }

    /// Rooms with fewer than `most` attempts, fewest first, without those that have too little CPU free: they stand
    /// behind the others with as many attempts, and can be many.
    fn ascending<'r>(
        &self,
        rooms: &'r ByRoom,
        most: u32,
    ) -> impl Iterator<Item = (&'r Room, &'r BTreeSet<InstanceId>)> {
        let cpu_most = if self.ask == Ask::Run { cpu_taken_most(&self.profile.needs) } else { 100 };
        let mut left = rooms.range(Room::first_with(0)..);
        std::iter::from_fn(move || {
            loop {
                let (room, ids) = left.next().filter(|(room, _)| room.attempts < most)?;
                if room.cpu_percent <= cpu_most {
                    return Some((room, ids));
                }
                left = rooms.range(Room::first_with(room.attempts + 1)..);
            }
        })
    }

    fn rank<'r>(&self, kind: &Suited, part: Part, room: &'r Room, id: &'r InstanceId) -> Rank<'r> {
        let order = match self.balance {
            Balance::FewestTasks => i64::from(room.attempts),
            Balance::Packing => -i64::from(room.attempts),
            Balance::FirstFit => 0,
            Balance::LowestLoad => i64::from(room.cpu_percent),
            Balance::ByNumber => i64::from(room.attempts) * 1_000_000 / i64::from(kind.attempts.max(1)),
        };
        (part == Part::Held, order, part == Part::Free, room, id)
    }

    /// The first instance of a room that fits. All of a room fit, or none does, but for storage, for
    /// what is reserved, for what deployment plans say, and for the limit of instances for a session.
    fn in_room<'r>(
        &self,
        no: KindNo,
        part: Part,
        room: &'r Room,
        ids: &'r BTreeSet<InstanceId>,
        base: bool,
    ) -> Option<(&'r InstanceId, &'a Instance)> {
        let (overlay, needs) = (self.overlay, &self.profile.needs);
        let place = (no, part, room.clone());
        let passed = overlay.passed.borrow().get(&place).filter(|_| base).cloned();
        let from = passed.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let (mut last, mut all_of_them) = (None, true);
        for id in ids.range::<InstanceId, _>((from, Bound::Unbounded)) {
            if base && overlay.moved.has(id) || overlay.reserved.contains_key(id) {
                if all_of_them {
                    last = Some(id);
                }
                continue;
            }
            // Up to here none can be taken for the rest of this pass.
            if let Some(last) = last.take().filter(|_| base) {
                overlay.passed.borrow_mut().insert(place.clone(), last.clone());
            }
            all_of_them = false;
            let instance = overlay.snapshot.instances.get(id)?;
            if self.fits(instance) {
                return Some((id, instance));
            }
            let alike = needs.storage_mb == 0 && overlay.policy.instances_per_session_max.is_none();
            if alike && overlay.groups_kept.is_same_for_all(self.profile) {
                return None;
            }
        }
        if let Some(last) = last.filter(|_| base) {
            overlay.passed.borrow_mut().insert(place, last.clone());
        }
        None
    }

    fn fits(&self, instance: &Instance) -> bool {
        match self.ask {
            Ask::Run => self.overlay.fits(self.session, self.profile, instance).is_ok(),
            Ask::Wait { per_slot } => self.overlay.may_wait(self.session, self.profile, instance, per_slot),
        }
    }
}

/// The room with the least CPU in use that has an instance; rooms are in order of attempts.
fn lowest_load<'r, 'a>(
    rooms: &'r ByRoom,
    in_room: impl Fn((&'r Room, &'r BTreeSet<InstanceId>)) -> Option<(Rank<'r>, &'a Instance)>,
) -> Option<(Rank<'r>, &'a Instance)> {
    let mut best: Option<(Rank<'r>, &'a Instance)> = None;
    for (room, ids) in rooms {
        if best.as_ref().is_none_or(|(rank, _)| room.cpu_percent < rank.3.cpu_percent)
            && let Some(found) = in_room((room, ids))
        {
            best = Some(found);
        }
    }
    best
}
