//! Instances by what they offer and what is free there: what makes finding a place cost what there is
//! of *different* instances, not how many there are.
//!
//! ```text
//! kind (solution, facts) --> free      --> room (attempts, CPU, memory taken) --> names
//!                        --> held      --> ...   (held by any session)
//!                        --> held by S --> ...   (held by session S alone)
//! ```
//! What never changes while an instance works is its [`Kind`]: whether a profile suits it is asked once
//! a kind. What changes is its [`Room`]: whether a profile fits is asked once a room. Rooms stand in
//! order of attempts, so the least loaded come first. Storage differs from machine to machine, so it
//! belongs to neither and is looked at by instance, where it is asked for at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::id::{InstanceId, SessionId, SolutionId};
use crate::instance::{Instance, InstanceFacts, Live};
use crate::needs::{CpuSetting, Needs};

use super::index::Load;

/// What does not change while an instance works.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    pub solution: SolutionId,
    /// With storage left out.
    pub facts: InstanceFacts,
}

impl Kind {
    pub(super) fn of(instance: &Instance) -> Self {
        Self { solution: instance.solution.clone(), facts: InstanceFacts { storage_mb: 0, ..instance.facts.clone() } }
    }
}

/// What changes, in the order in which instances are preferred: fewest attempts, then least CPU in use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Room {
    pub attempts: u32,
    pub cpu_percent: u32,
    /// Slots taken.
    pub slots: u32,
    memory_mb: u32,
    memory_mb_most: u32,
    exclusive: bool,
    resources: Option<Arc<BTreeMap<Arc<str>, u64>>>,
}

impl Room {
    pub(super) fn of(load: &Load, live: Live) -> Self {
        Self {
            attempts: load.attempts,
            cpu_percent: live.cpu_percent.max(load.cpu_percent).min(100),
            slots: load.slots,
            memory_mb: load.memory_mb,
            memory_mb_most: load.memory_mb_most(),
            exclusive: load.exclusive > 0,
            resources: (!load.resources.is_empty()).then(|| Arc::new(load.resources.clone())),
        }
    }
}

impl Room {
    /// Does it leave room to run? For an instance of `memory_mb` with `slots`, as `fits_instance` says of each
    /// instance here; storage and counted resources are not looked at.
    pub(super) fn may_fit(&self, needs: &Needs, slots: u32, memory_mb: u32) -> bool {
        self.has_slots(needs.slots, slots)
            && (needs.cpu != CpuSetting::Exclusive || self.attempts == 0)
            && needs.memory_mb <= memory_mb.saturating_sub(self.memory_mb)
            && self.cpu_percent <= cpu_taken_most(needs)
    }

    /// Are so many of its `slots` free?
    pub(super) fn has_slots(&self, asked: u32, slots: u32) -> bool {
        !self.exclusive && self.slots.saturating_add(asked) <= slots
    }

    /// Before all rooms with so many attempts.
    pub(super) fn first_with(attempts: u32) -> Self {
        let nothing = (0, 0, 0, 0, false, None);
        let (cpu_percent, slots, memory_mb, memory_mb_most, exclusive, resources) = nothing;
        Self { attempts, cpu_percent, slots, memory_mb, memory_mb_most, exclusive, resources }
    }
}

/// Most CPU that may be taken where something with these needs still fits, percent.
pub(super) fn cpu_taken_most(needs: &Needs) -> u32 {
    match needs.cpu {
        CpuSetting::AtLeast(asked) => 100_u32.saturating_sub(asked.into()),
        _ => 100,
    }
}

/// Who holds an instance, as far as placing asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    /// Nobody.
    Nobody,
    /// One session.
    One(SessionId),
    /// Several.
    Several,
}

impl Holder {
    pub(super) fn of(mut holders: impl Iterator<Item = SessionId>) -> Self {
        match (holders.next(), holders.next()) {
            (None, _) => Self::Nobody,
            (Some(session), None) => Self::One(session),
            (Some(_), Some(_)) => Self::Several,
        }
    }
}

/// Instances by room.
pub(super) type ByRoom = BTreeMap<Room, BTreeSet<InstanceId>>;

/// Which of a kind's instances: a part of the choice that is preferred to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// Held by the session alone.
    Own(SessionId),
    /// Held by nobody.
    Free,
    /// Held by anybody.
    Held,
}

/// All instances of one kind.
#[derive(Debug, Clone, Default)]
pub(super) struct OfKind {
    /// Everything that could take work now or later.
    pub members: BTreeSet<InstanceId>,
    /// How many can take work now.
    pub usable: usize,
    free: ByRoom,
    held: ByRoom,
    own: BTreeMap<SessionId, ByRoom>,
}

impl OfKind {
    /// The instances of one part that can take work, by room.
    pub(super) fn part(&self, part: Part) -> Option<&ByRoom> {
        match part {
            Part::Own(session) => self.own.get(&session),
            Part::Free => Some(&self.free),
            Part::Held => Some(&self.held),
        }
    }

    /// Every room there is, with how many instances have it.
    pub(super) fn rooms(&self) -> impl Iterator<Item = (&Room, &BTreeSet<InstanceId>)> {
        self.free.iter().chain(&self.held)
    }

    fn put(&mut self, id: &InstanceId, at: &(Holder, Room)) {
        self.usable += 1;
        let put = |rooms: &mut ByRoom| rooms.entry(at.1.clone()).or_default().insert(id.clone());
        match at.0 {
            Holder::Nobody => {
                put(&mut self.free);
            }
            Holder::Several => {
                put(&mut self.held);
            }
            Holder::One(session) => {
                put(&mut self.held);
                put(self.own.entry(session).or_default());
            }
        }
    }

    fn take(&mut self, id: &InstanceId, at: &(Holder, Room)) {
        self.usable -= 1;
        let take = |rooms: &mut ByRoom| {
            if let Some(ids) = rooms.get_mut(&at.1) {
                ids.remove(id);
                if ids.is_empty() {
                    rooms.remove(&at.1);
                }
            }
        };
        match at.0 {
            Holder::Nobody => take(&mut self.free),
            Holder::Several => take(&mut self.held),
            Holder::One(session) => {
                take(&mut self.held);
                if let Some(rooms) = self.own.get_mut(&session) {
                    take(rooms);
                    if rooms.is_empty() {
                        self.own.remove(&session);
                    }
                }
            }
        }
    }
}

/// A kind's number, for as long as the snapshot lives. Numbers depend on history: nothing that is
/// decided may depend on their order.
pub(super) type KindNo = u32;

/// All instances.
#[derive(Debug, Clone, Default)]
pub(super) struct Rooms {
    kinds: BTreeMap<Kind, KindNo>,
    of_kind: BTreeMap<KindNo, OfKind>,
    member_of: BTreeMap<InstanceId, KindNo>,
    usable: BTreeMap<InstanceId, (Holder, Room)>,
}

impl Rooms {
    /// Kinds in order, each with its instances.
    pub(super) fn kinds(&self) -> impl Iterator<Item = (&Kind, KindNo, &OfKind)> {
        self.kinds.iter().filter_map(|(kind, no)| Some((kind, *no, self.of_kind.get(no)?)))
    }

    pub(super) fn of_kind(&self, no: KindNo) -> Option<&OfKind> {
        self.of_kind.get(&no)
    }

    pub(super) fn kind_no(&self, id: &InstanceId) -> Option<KindNo> {
        self.member_of.get(id).copied()
    }

    /// Is it among those that can take work now?
    pub(super) fn has(&self, id: &InstanceId) -> bool {
        self.usable.contains_key(id)
    }

    /// Where each instance that can take work now stands.
    pub(super) fn usable(&self) -> &BTreeMap<InstanceId, (Holder, Room)> {
        &self.usable
    }

    /// Makes it a member of its kind, or of none.
    pub(super) fn set_member(&mut self, id: &InstanceId, kind: Option<Kind>) {
        let no = kind.map(|kind| {
            let next = self.kinds.values().max().map_or(0, |no| no + 1);
            *self.kinds.entry(kind).or_insert(next)
        });
        let before = self.member_of.get(id).copied();
        if before == no {
            return;
        }
        self.set_room(id, None);
        if let Some(before) = before {
            self.leave(id, before);
        }
        if let Some(no) = no {
            self.member_of.insert(id.clone(), no);
            self.of_kind.entry(no).or_default().members.insert(id.clone());
        }
    }

    fn leave(&mut self, id: &InstanceId, no: KindNo) {
        self.member_of.remove(id);
        if let Some(of_kind) = self.of_kind.get_mut(&no) {
            of_kind.members.remove(id);
            if of_kind.members.is_empty() {
                self.of_kind.remove(&no);
                self.kinds.retain(|_, other| *other != no);
            }
        }
    }

    /// Puts a member where it stands now; none takes it out of those that can take work.
    pub(super) fn set_room(&mut self, id: &InstanceId, at: Option<(Holder, Room)>) {
        let Some(of_kind) = self.member_of.get(id).and_then(|no| self.of_kind.get_mut(no)) else { return };
        match (self.usable.get_mut(id), at) {
            (Some(before), Some(at)) => {
                if *before != at {
                    of_kind.take(id, before);
                    of_kind.put(id, &at);
                    *before = at;
                }
            }
            (Some(before), None) => {
                of_kind.take(id, before);
                self.usable.remove(id);
            }
            (None, Some(at)) => {
                of_kind.put(id, &at);
                self.usable.insert(id.clone(), at);
            }
            (None, None) => {}
        }
    }

    /// In a part of the choice of its own, of the same kind number as elsewhere: for an overlay.
    pub(super) fn set_moved(&mut self, id: &InstanceId, no: KindNo, at: (Holder, Room)) {
        self.member_of.insert(id.clone(), no);
        self.of_kind.entry(no).or_default();
        self.set_room(id, Some(at));
    }
}
