//! EASY backfilling: what needs much at once gets its turn, and what fits before it goes first.
//!
//! ```text
//! an item needs an instance alone, several slots, or more than is free, and is next
//!   --> reserved: an instance, and when its room is there (the reserved time)
//!         what comes behind it is placed there only if it
//!           surely ends by the reserved time, or fits into what is spare beside the reserved room
//! the room is there --> the item takes it, and nothing is reserved any more
//! ```
//! Nothing of this is written down: each pass makes its reservations anew, from the same limits, so the same
//! instance is found again as long as it is the first. Times are upper bounds: an attempt ends at its time limit
//! (the task's longest run time, or its solution's limit where the task names none), since its agent stops it
//! then. What is only expected is no bound: whoever overstays it would hold up the item that is first.
//!
//! An item that is next in the order of service reserves when it finds no room. One that has waited for longer
//! than `exclusive_wait_ms` reserves before what may be a stream that never ends: an array that is being given
//! out, or what came later and ranks higher. A `together` set reserves on as many instances as it needs, for one moment.
//!
//! Failure paths: a service has no limit, so what it leaves no room for is never reserved there; an attempt that
//! overstays its limit (its grace, a lost agent) delays the item by that, and nothing is backfilled there by time
//! meanwhile; an instance that goes takes its reservation along, and the next pass makes another.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::balance::{Overlay, Suited};
use super::index::{Class, Load};
use super::place::{fits_beside, slots_of};
use super::plan::Pass;
use super::reason::Reason;
use super::rooms::{ByRoom, Part, Room};
use crate::id::{InstanceId, ItemKey, NodeKey, SessionId};
use crate::instance::Instance;
use crate::needs::{CpuSetting, Needs};
use crate::quantity::Timestamp;
use crate::task::{Profile, ServiceLevel};

/// Most instances with a reservation at a time; and no more than an eighth of what there is, but for the first.
const RESERVED_MAX: usize = 64;
/// Instances looked at for one reservation, the least loaded first.
const LOOKED_AT_MAX: usize = 64;
/// The same for what needs little more than others.
const LOOKED_AT_FEW: usize = 16;
/// Largest `together` set that has reservations, items.
const SET_MAX: usize = 256;

/// Room on one instance that is kept for an item.
#[derive(Debug, Clone)]
pub(super) struct Reserved {
    /// For whom: the first of a `together` set.
    pub item: ItemKey,
    /// When it has its room, at the latest: the reserved time; none when something there has no limit.
    pub at: Option<Timestamp>,
    /// What of it goes here.
    profiles: Vec<Arc<Profile>>,
    /// It is a set that starts together: nobody else of its profile takes its room.
    together: bool,
    /// What is taken at that time, its own room included.
    then: Load,
    /// Slots that are free at that time beside it.
    spare: u32,
}

impl Reserved {
    fn new(item: ItemKey, at: Option<Timestamp>, profiles: Vec<Arc<Profile>>, then: Load, slots: u32) -> Self {
        let spare = if then.exclusive > 0 { 0 } else { slots.saturating_sub(then.slots) };
        Self { item, at, profiles, together: false, then, spare }
    }

    /// Surely nothing for it: it ends too late, and takes more slots than are spare.
    fn surely_not(&self, profile: &Profile, now: Timestamp) -> bool {
        let late = profile.longest_run_ms.is_some_and(|most| self.at.is_none_or(|at| now.after_ms(most) > at));
        late && profile.needs.slots > self.spare
    }

    fn is_for(&self, session: SessionId, profile: &Profile) -> bool {
        (!self.together || self.item.session() == session) && self.profiles.iter().any(|own| **own == *profile)
    }
}

/// What has waited for too long: its rank, since when, its first node; its class, or none for a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Overdue<'a>(Reverse<(ServiceLevel, u8)>, Timestamp, NodeKey, Option<&'a Class>);

/// Placed beside a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Beside {
    /// It takes what is spare, and does not end before the reserved room is had.
    pub spare: bool,
    /// When that is.
    pub at: Option<Timestamp>,
    /// Whose reservation.
    pub item: ItemKey,
}

/// What is on an instance and when it ends.
struct Course<'a> {
    instance: &'a Instance,
    slots: u32,
    load: Load,
    /// By when they end; what has no limit is last. Services are not here: they do not end.
    ends: Vec<(bool, Option<Timestamp>, Arc<Profile>)>,
}

impl Course<'_> {
    /// What is taken there at `at`; at none, when all that ends has ended.
    fn load_at(&self, at: Option<Timestamp>) -> Load {
        let mut load = self.load.clone();
        let over = |end: &Option<Timestamp>| at.is_none_or(|at| end.is_some_and(|end| end <= at));
        self.ends.iter().filter(|(_, end, _)| over(end)).for_each(|(_, _, profile)| load.remove(&profile.needs));
        load
    }
}

/// Where a set goes: by instance, what is taken then and what of it is there.
type Places<'c> = BTreeMap<&'c InstanceId, (Load, Vec<Arc<Profile>>)>;

/// Does it take a large part of an instance, so that small ones can always be in front of it?
fn needs_several(needs: &Needs) -> bool {
    needs.cpu == CpuSetting::Exclusive || needs.slots > 1 || !needs.resources.is_empty()
}

impl<'a> Overlay<'a> {
    /// May it go where something is reserved? None where nothing is, or it is what that is for.
    pub(super) fn beside(
        &self,
        session: SessionId,
        profile: &Profile,
        instance: &Instance,
    ) -> Result<Option<Beside>, Reason> {
        let Some(reserved) = self.reserved.get(&instance.id) else { return Ok(None) };
        if reserved.is_for(session, profile) {
            return Ok(None);
        }
        let Reserved { item, at, .. } = *reserved;
        if self.ends_by(profile, instance, at) {
            return Ok(Some(Beside { spare: false, at, item }));
        }
        let slots = slots_of(self.snapshot, &instance.solution, &instance.facts);
        match fits_beside(&instance.facts, &reserved.then, slots, &profile.needs, self.policy) {
            Ok(()) => Ok(Some(Beside { spare: true, at, item })),
            Err(_) => Err(Reason::Reserved { item, at }),
        }
    }

    /// Does it surely end by then, if it starts now?
    fn ends_by(&self, profile: &Profile, instance: &Instance, at: Option<Timestamp>) -> bool {
        self.bound_ms(profile, instance).zip(at).is_some_and(|(most, at)| self.now.after_ms(most) <= at)
    }

    /// After how long it is stopped at the latest, ms.
    fn bound_ms(&self, profile: &Profile, instance: &Instance) -> Option<u64> {
        let of_place = || self.snapshot.solutions.get(&instance.solution)?.dedicated().map(|d| d.timeout_ms);
        profile.longest_run_ms.or_else(of_place).filter(|_| !profile.service)
    }

    /// Counts what is placed on an instance against what is reserved there.
    pub(super) fn take_reserved(&mut self, session: SessionId, profile: &Arc<Profile>, instance: &Instance) {
        let Some(reserved) = self.reserved.get(&instance.id) else { return };
        let (own, ends) = (reserved.is_for(session, profile), self.ends_by(profile, instance, reserved.at));
        let Some(reserved) = self.reserved.get_mut(&instance.id) else { return };
        if own {
            // It is in `load` from now on, and what else is reserved here stays.
            if let Some(at) = reserved.profiles.iter().position(|other| other == profile) {
                reserved.profiles.swap_remove(at);
            }
            if reserved.profiles.is_empty() {
                self.reserved.remove(&instance.id);
            }
        } else if !ends {
            reserved.then.add(&profile.needs);
            reserved.spare = reserved.spare.saturating_sub(profile.needs.slots);
        }
    }

    /// The instance that is reserved for it, when it fits there now.
    pub(super) fn own_reserved(
        &self,
        session: SessionId,
        profile: &Profile,
        within: impl Fn(&InstanceId) -> bool,
    ) -> Option<&'a Instance> {
        // Others have theirs only after their class was asked.
        if !needs_several(&profile.needs) && !self.reserved.values().any(|reserved| reserved.together) {
            return None;
        }
        let own = self.reserved.iter().filter(|(id, reserved)| reserved.is_for(session, profile) && within(id));
        let mut instances = own.filter_map(|(id, _)| self.snapshot.instances.get(id));
        instances.find(|instance| self.fits(session, profile, instance).is_ok())
    }

    /// An instance that is reserved for another, and takes it nevertheless: rather one where it ends in time
    /// than one where it takes what is spare.
    pub(super) fn beside_reserved(
        &self,
        session: SessionId,
        profile: &Profile,
        within: impl Fn(&InstanceId) -> bool,
    ) -> Option<(&'a Instance, Beside)> {
        let open = self.reserved.iter().filter(|(id, own)| !own.surely_not(profile, self.now) && within(id));
        let fitting = open.filter_map(|(id, _)| {
            let instance = self.snapshot.instances.get(id)?;
            let beside = self.beside(session, profile, instance).ok()??;
            self.fits(session, profile, instance).ok()?;
            Some((instance, beside))
        });
        fitting.min_by_key(|(instance, beside)| (beside.spare, &instance.id))
    }

    /// How many have a reservation for items of that profile.
    fn reserved_for(&self, profile: &Arc<Profile>) -> usize {
        self.reserved.values().filter(|own| !own.together && own.profiles.contains(profile)).count()
    }

    /// How many more instances may have a reservation.
    fn reserved_left(&self) -> usize {
        let most = self.snapshot.index.rooms.usable().len().div_ceil(8).min(RESERVED_MAX);
        most.saturating_sub(self.reserved.len())
    }

    /// Does it ask for more than a slot's share of the memory, or for storage, and is a slot free on an instance
    /// that suits? Then what asks for less passes it by.
    fn is_bypassed(&self, needs: &Needs, suited: &[Suited]) -> bool {
        suited.iter().any(|kind| {
            let more = u64::from(needs.memory_mb) * u64::from(kind.slots) > u64::from(kind.memory_mb);
            let open = |(rooms, base): (&ByRoom, bool)| {
                rooms.iter().take(LOOKED_AT_FEW).any(|(room, ids)| {
                    let mut here = ids.iter().take(LOOKED_AT_MAX);
                    room.has_slots(1, kind.slots) && here.any(|id| !(base && self.has_moved(id)))
                })
            };
            (more || needs.storage_mb > 0) && self.rooms_of(kind).into_iter().any(open)
        })
    }

    /// The least loaded instances of each kind that suits, at most `most` in all (one of each kind, at least),
    /// without those that have a reservation.
    fn least_loaded(&self, suited: &[Suited], most: usize) -> Vec<&'a Instance> {
        let each = (most / suited.len().max(1)).max(1);
        let mut found = Vec::new();
        for kind in suited.iter().take(most) {
            let mut of_kind: Vec<(&Room, &InstanceId)> = Vec::new();
            for (rooms, base) in self.rooms_of(kind) {
                let members = rooms.iter().flat_map(|(room, ids)| ids.iter().map(move |id| (room, id)));
                let free =
                    |(_, id): &(_, &InstanceId)| !(base && self.has_moved(id) || self.reserved.contains_key(*id));
                of_kind.extend(members.filter(free).take(each));
            }
            of_kind.sort_unstable();
            of_kind.truncate(each);
            found.extend(of_kind.into_iter().filter_map(|(_, id)| self.snapshot.instances.get(id)));
        }
        found
    }

    /// The rooms of a kind, and whether they are those of before this pass.
    fn rooms_of(&self, kind: &Suited) -> Vec<(&ByRoom, bool)> {
        let (before, moved) = self.of_kind(kind);
        let before = before.into_iter().flat_map(|k| [k.part(Part::Free), k.part(Part::Held)]).flatten();
        let moved = moved.into_iter().flat_map(|k| [k.part(Part::Free), k.part(Part::Held)]).flatten();
        before.map(|rooms| (rooms, true)).chain(moved.map(|rooms| (rooms, false))).collect()
    }

    fn course(&self, instance: &'a Instance) -> Course<'a> {
        let snapshot = self.snapshot;
        let mut ends = Vec::new();
        for attempt in snapshot.attempts_on(&instance.id) {
            let Some(node) = snapshot.node(attempt.key.item.node).filter(|node| !node.profile.service) else {
                continue;
            };
            let from = attempt.started_at.unwrap_or(attempt.assigned_at);
            let end = attempt.limit_ms.map(|most| from.after_ms(most));
            ends.push((end.is_none(), end, node.profile.clone()));
        }
        for profile in self.given_on(&instance.id).iter().filter(|profile| !profile.service) {
            let end = self.bound_ms(profile, instance).map(|most| self.now.after_ms(most));
            ends.push((end.is_none(), end, profile.clone()));
        }
        ends.sort_by_key(|(unknown, end, _)| (*unknown, *end));
        let slots = slots_of(snapshot, &instance.solution, &instance.facts);
        Course { instance, slots, load: self.load(&instance.id).clone(), ends }
    }

    /// When it would fit on the instance as what is there ends, and what is taken then, without it. The first is
    /// a moment in the past when it would fit now.
    fn when_it_fits(&self, course: &Course<'_>, needs: &Needs) -> Option<(bool, Option<Timestamp>, Load)> {
        let fits = |load: &Load| fits_beside(&course.instance.facts, load, course.slots, needs, self.policy).is_ok();
        let mut load = course.load.clone();
        if fits(&load) {
            return Some((false, Some(Timestamp(0)), load));
        }
        for (unknown, end, profile) in &course.ends {
            load.remove(&profile.needs);
            if fits(&load) {
                // What ends at the same moment is gone too.
                return Some((*unknown, *end, if *unknown { load } else { course.load_at(*end) }));
            }
        }
        None
    }

    /// How many reservations an item that is next and its kin, `items` of them, may have; none for what would only
    /// be waited for by others of its size.
    pub(super) fn may_reserve(&self, profile: &Profile, suited: &[Suited], items: impl Fn() -> usize) -> Option<usize> {
        let left = self.reserved_left();
        let count = match &profile.needs {
            _ if left == 0 => 0,
            needs if needs_several(needs) => items().min(left),
            // What needs little more than others leaves half of them to what needs much.
            needs if needs.cpu != CpuSetting::Algorithm || self.is_bypassed(needs, suited) => {
                usize::from(self.reserved.is_empty() || left > self.reserved.len())
            }
            _ => 0,
        };
        (count > 0).then_some(count)
    }

    /// Reserves for the next `count` items of a node's class that find no room. `before_all` is for what has
    /// waited for too long: also where it would fit now, so that nothing else takes that.
    pub(super) fn reserve(
        &mut self,
        item: ItemKey,
        profile: &Arc<Profile>,
        suited: &[Suited],
        count: usize,
        before_all: bool,
    ) {
        if self.custom(profile).is_some() {
            return; // Nobody but that algorithm places it.
        }
        let looked_at = if needs_several(&profile.needs) { LOOKED_AT_MAX } else { LOOKED_AT_FEW };
        let mut found = Vec::new();
        for instance in self.least_loaded(suited, looked_at) {
            let suits = self.may_ever(instance, profile);
            if !suits || self.within_session_limit(item.session(), instance).is_err() {
                continue;
            }
            let course = self.course(instance);
            let Some((unknown, at, then)) = self.when_it_fits(&course, &profile.needs) else { continue };
            // Where it would fit but for what is measured, waiting for ends is no help.
            if at > Some(Timestamp(0)) || unknown || before_all {
                found.push((unknown, at, &instance.id, then, course.slots));
            }
        }
        found.sort_by(|a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));
        for (_, at, id, mut then, slots) in found.into_iter().take(count) {
            then.add(&profile.needs);
            let at = at.map(|at| if at == Timestamp(0) { self.now } else { at });
            let profiles = vec![profile.clone()];
            self.reserved.insert(id.clone(), Reserved::new(item, at, profiles, then, slots));
        }
    }

    /// Reserves for a set that starts together: the first moment at which all of it has room, by giving each its
    /// place in the order of `profiles`, without trying back.
    fn reserve_together(&mut self, item: ItemKey, items: &[Arc<Profile>], before_all: bool) {
        let left = self.reserved_left();
        // What would never be placed has nothing reserved.
        let most = self.set_max();
        let proposed = items.iter().any(|profile| self.custom(profile).is_some());
        let is_known = proposed || self.reserved.values().any(|reserved| reserved.item == item);
        if items.is_empty() || items.len() > most || is_known || left == 0 && !self.reserved.is_empty() {
            return;
        }
        let mut courses: BTreeMap<&InstanceId, Course<'a>> = BTreeMap::new();
        let mut suited: BTreeMap<&Arc<Profile>, BTreeSet<&InstanceId>> = BTreeMap::new();
        for profile in items {
            if suited.contains_key(profile) {
                continue;
            }
            let kinds = self.suited(profile).unwrap_or_default();
            let suits = |i: &&Instance| self.may_ever(i, profile);
            let instances: Vec<_> = self.least_loaded(&kinds, LOOKED_AT_MAX).into_iter().filter(suits).collect();
            for instance in &instances {
                courses.entry(&instance.id).or_insert_with(|| self.course(instance));
            }
            suited.insert(profile, instances.into_iter().map(|i| &i.id).collect());
        }
        let ends = courses.values().flat_map(|course| &course.ends).filter_map(|(_, end, _)| *end);
        let times: Vec<Option<Timestamp>> = ends.collect::<BTreeSet<_>>().into_iter().map(Some).chain([None]).collect();
        let all_at = |at| self.all_at(&courses, &suited, items, at);
        let now = Some(Timestamp(0));
        let fit_now = all_at(now);
        if fit_now.is_some() && !before_all {
            return; // What is measured, or a limit of its session, is in the way.
        }
        // The first time at which all fit: later more has ended.
        let first = times.partition_point(|at| all_at(*at).is_none());
        let later = || times.get(first).and_then(|at| Some((*at, all_at(*at)?)));
        let found = fit_now.map(|places| (Some(self.now), places)).or_else(later);
        let Some((at, places)) = found else { return };
        let new = |id: &&&InstanceId| courses.get(**id).is_some_and(|c| !self.holds(item.session(), c.instance));
        let held = self.holds_count(item.session()) + places.keys().filter(new).count();
        if self.policy.instances_per_session_max.is_some_and(|most| held > most as usize) {
            return;
        }
        // The first in the queue has what it needs; others what an eighth of the instances leaves.
        if places.len() > left && !self.reserved.is_empty() {
            return;
        }
        for (id, (then, profiles)) in places {
            let slots = courses.get(id).map_or(0, |course| course.slots);
            let reserved = Reserved::new(item, at, profiles, then, slots);
            self.reserved.insert(id.clone(), Reserved { together: true, ..reserved });
        }
    }

    /// Largest set that has reservations: what does not fit in one plan is never placed.
    fn set_max(&self) -> usize {
        SET_MAX.min(self.policy.plan_orders_max as usize)
    }

    /// Items of the set that a node is of which are to be placed, now or later.
    fn items_of_set(&self, of: NodeKey) -> usize {
        let Some(session) = self.snapshot.sessions.get(&of.session) else { return 0 };
        let set = session.spec.thread.together.iter().find(|set| set.contains(&of.node));
        let nodes = set.into_iter().flatten().filter_map(|node| session.nodes.get(*node as usize));
        nodes.map(|node| node.untouched() as usize + node.retry.len()).sum()
    }

    /// Where each item of a set goes at that time, if all do: by instance, what is taken then and what of it is
    /// there.
    fn all_at<'c>(
        &self,
        courses: &BTreeMap<&'c InstanceId, Course<'a>>,
        suited: &BTreeMap<&Arc<Profile>, BTreeSet<&'c InstanceId>>,
        items: &[Arc<Profile>],
        at: Option<Timestamp>,
    ) -> Option<Places<'c>> {
        let mut loads: BTreeMap<&InstanceId, Load> = courses.iter().map(|(id, c)| (*id, c.load_at(at))).collect();
        let mut places: BTreeMap<&'c InstanceId, Vec<Arc<Profile>>> = BTreeMap::new();
        for profile in items {
            let fits = |id: &&&InstanceId| {
                let (Some(course), Some(load)) = (courses.get(**id), loads.get(**id)) else { return false };
                fits_beside(&course.instance.facts, load, course.slots, &profile.needs, self.policy).is_ok()
            };
            let id = *suited.get(profile)?.iter().find(fits)?;
            loads.get_mut(id)?.add(&profile.needs);
            places.entry(id).or_default().push(profile.clone());
        }
        let with_load = |(id, profiles)| Some((id, (loads.remove(id)?, profiles)));
        places.into_iter().map(with_load).collect()
    }

    /// Items of a class that have waited for too long, as far as reservations reach.
    fn overdue_items(&self, class: &Class) -> usize {
        let nodes = self.snapshot.index.ready.get(class).into_iter().flatten();
        let due = nodes.take_while(|(since, _)| since.after_ms(self.policy.exclusive_wait_ms) <= self.now);
        let mut items: usize = 0;
        for (_, key) in due {
            items += self.snapshot.node(*key).map_or(0, |n| n.untouched() as usize + n.retry.len());
            if items >= RESERVED_MAX {
                break;
            }
        }
        items
    }

    /// The first item of a node that waits.
    pub(super) fn first_item(&self, key: NodeKey) -> Option<ItemKey> {
        let node = self.snapshot.node(key)?;
        let untouched = (node.untouched() > 0).then_some(node.next);
        let index = node.retry.first().map(|(_, index)| *index).or(untouched)?;
        Some(key.item(index))
    }
}

impl Pass<'_> {
    /// What is next and finds no room on any instance has room reserved.
    pub(super) fn reserve(&mut self, class: &Class, node: NodeKey, reason: &Reason, of_class: bool) {
        match reason {
            Reason::NoInstance { .. } => {}
            Reason::WaitsForCheaper { because, .. } if matches!(**because, Reason::NoInstance { .. }) => {}
            Reason::TogetherLacks { because, .. } if matches!(**because, Reason::NoInstance { .. }) => {
                return self.reserve_set(node, false);
            }
            _ => return,
        }
        let (Some(ever), Some(item)) = (self.ever.get(&class.profile), self.overlay.first_item(node)) else { return };
        let items = || if of_class { self.left_of(class) } else { self.left(node) };
        let count = self.overlay.may_reserve(&class.profile, ever.suited(), || items() as usize);
        if let Some(count) = count {
            let suited = ever.suited().to_vec();
            self.overlay.reserve(item, &class.profile, &suited, count, false);
        }
        self.has_reserved |= !self.overlay.reserved.is_empty();
    }

    /// The same of all items of the `together` set that a node is of.
    fn reserve_set(&mut self, of: NodeKey, before_all: bool) {
        let Some(session) = self.overlay.snapshot.sessions.get(&of.session) else { return };
        let Some(set) = session.spec.thread.together.iter().find(|set| set.contains(&of.node)) else { return };
        let ready = set.iter().all(|node| session.nodes[*node as usize].links_open == 0);
        let mut keys: Vec<NodeKey> = set.iter().map(|node| NodeKey { session: of.session, node: *node }).collect();
        let first = keys.iter().find_map(|key| self.overlay.first_item(*key));
        let Some(item) = first.filter(|_| ready) else { return };
        keys.sort_by_cached_key(|key| (self.choosiness(session, *key), *key));
        let profile = |key: &NodeKey| session.nodes[key.node as usize].profile.clone();
        let items = keys.iter().flat_map(|key| std::iter::repeat_n(profile(key), self.left(*key) as usize));
        let items: Vec<_> = items.take(SET_MAX + 1).collect();
        self.overlay.reserve_together(item, &items, before_all);
        self.has_reserved |= !self.overlay.reserved.is_empty();
    }

    /// What needs much, and sets, that have waited for longer than the policy says, in the order of rank and age.
    /// Wakes when the next has.
    pub(super) fn find_overdue(&mut self) {
        let (snapshot, now) = (self.overlay.snapshot, self.now);
        let index = &snapshot.index;
        let wait_ms = self.overlay.policy.exclusive_wait_ms;
        for (class, nodes) in index.ready.iter().filter(|(class, _)| needs_several(&class.profile.needs)) {
            let mut alone = nodes.iter().filter(|node| !index.sets.contains(node));
            let mut next = alone.next();
            if let Some((since, node)) = next.filter(|(since, _)| since.after_ms(wait_ms) <= now) {
                self.overdue.push(Overdue(Reverse(class.profile.rank), *since, *node, Some(class)));
                next = alone.find(|(since, _)| since.after_ms(wait_ms) > now);
            }
            if let Some((since, _)) = next {
                self.plan.wake_at(since.after_ms(wait_ms));
            }
        }
        for (since, node) in &index.sets {
            if self.overlay.items_of_set(*node) > self.overlay.set_max() {
                continue;
            }
            if since.after_ms(wait_ms) > now {
                self.plan.wake_at(since.after_ms(wait_ms));
                break;
            }
            let Some(of) = snapshot.node(*node) else { continue };
            self.overdue.push(Overdue(Reverse(of.profile.rank), *since, *node, None));
        }
        self.overdue.sort_unstable();
        self.waited_long = self.overdue.iter().map(|overdue| overdue.2).collect();
    }

    /// Instances that are reserved for what has waited for too long.
    pub(super) fn reserved_for_long(&self) -> BTreeSet<InstanceId> {
        let long = self.overlay.reserved.iter().filter(|(_, own)| self.waited_long.contains(&own.item.node));
        long.map(|(id, _)| id.clone()).collect()
    }

    /// Reserves for what is overdue before this node is served, unless the node is in front of the first of that by
    /// age and rank, and none of its items was given out yet: of such there is an end, and each waits for its turn
    /// itself. An array that is being given out, or what ranks higher and came later, may go on for ever.
    pub(super) fn reserve_overdue_before(&mut self, class: &Class, since: Timestamp, node: NodeKey) {
        if self.overdue.is_empty() {
            return;
        }
        // What is asked now has its turn, and reserves for itself.
        self.overdue.retain(|overdue| overdue.2 != node);
        let Some(Overdue(rank, first, ..)) = self.overdue.first() else { return };
        let is_whole = self.overlay.snapshot.node(node).is_some_and(|node| node.next == 0 || node.untouched() == 0);
        if is_whole && Reverse(class.profile.rank) <= *rank && since <= *first {
            return;
        }
        for Overdue(_, _, node, class) in std::mem::take(&mut self.overdue) {
            if self.overlay.reserved_left() == 0 {
                break;
            }
            let Some(class) = class else {
                self.reserve_set(node, true);
                continue;
            };
            let (Ok(suited), Some(item)) = (self.overlay.suited(&class.profile), self.overlay.first_item(node)) else {
                continue;
            };
            let items = self.overlay.overdue_items(class).saturating_sub(self.overlay.reserved_for(&class.profile));
            self.overlay.reserve(item, &class.profile, &suited, items.min(self.overlay.reserved_left()), true);
        }
        self.cleared = self.overlay.reserved.keys().cloned().collect();
        self.has_reserved |= !self.cleared.is_empty();
    }
}
