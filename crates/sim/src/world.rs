//! The world of a simulation: machines, invocations and a queue, moved on by events in order of time.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};

use skein_domain::NanoUsd;

use crate::HOUR_US;
use crate::metrics::Metrics;
use crate::rule::Rule;
use crate::scenario::{MachineOffer, Scenario, SharedOffer};
use crate::trace::Item;

/// What happens, in the order in which events of one moment go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Ready { machine: u32 },
    Ended { item: u32, machine: u32 },
    Tick,
    Late { item: u32 },
    Woken { number: usize },
    InvocationEnded { item: u32, offer: u32 },
}

impl Kind {
    fn rank(self) -> u8 {
        match self {
            Self::Ready { .. } => 0,
            Self::Ended { .. } => 1,
            Self::Tick | Self::Late { .. } | Self::Woken { .. } => 2,
            Self::InvocationEnded { .. } => 3,
        }
    }
}

/// A machine.
#[derive(Debug, Clone, Copy)]
struct Machine {
    offer: usize,
    launched_us: i64,
    ready: bool,
    stopped: bool,
    free: u32,
    /// Since when it is in its present state; also its place among those like it.
    stamp: u64,
    idle_since_us: i64,
}

/// Invocations of one shared solution.
#[derive(Debug, Clone, Default)]
struct Pool {
    inflight: u32,
    /// When each idle instance became idle: the last is used first.
    warm: Vec<i64>,
}

/// Where an item ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ran {
    Not,
    Machine,
    Shared,
}

/// Sums over the whole course.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sums {
    pub(crate) machine_cost: NanoUsd,
    pub(crate) machine_us: i64,
    pub(crate) shared_cost: NanoUsd,
    pub(crate) invocations: u64,
    pub(crate) cold_starts: u64,
    pub(crate) launches: u64,
    /// Slots with an item on them, x us.
    pub(crate) busy_slot_us: i128,
    /// Slots of ready machines, x us.
    pub(crate) ready_slot_us: i128,
    /// Slots and invocations there were, from each moment on.
    pub(crate) supply: Vec<(i64, i64)>,
    /// Slots of ready machines alone, the same.
    pub(crate) slots: Vec<(i64, i64)>,
    pub(crate) started_us: Vec<i64>,
    pub(crate) ran: Vec<Ran>,
    pub(crate) end_us: i64,
}

/// The world. A [`Rule`] looks at it and moves it by [`World::launch`], [`World::stop_idle`],
/// [`World::place`] and [`World::call`].
#[derive(Debug)]
pub struct World {
    items: Vec<Item>,
    machine_offers: Vec<MachineOffer>,
    shared_offers: Vec<SharedOffer>,
    allowed_wait_us: i64,
    allowed_waits_us: Vec<i64>,
    now_us: i64,
    events: BinaryHeap<Reverse<(i64, u8, u64, Kind)>>,
    sequence: u64,
    machines: Vec<Machine>,
    /// Ready machines by free slots: those with an item on them first, then the one longest in that state.
    rooms: Vec<BTreeSet<(bool, u64, u32)>>,
    /// Empty machines of each offer, the one idle longest first.
    idle: Vec<BTreeSet<(u64, u32)>>,
    alive: Vec<u32>,
    pools: Vec<Pool>,
    queue: VecDeque<u32>,
    busy: i64,
    ready_slots: i64,
    ended: usize,
    last_us: i64,
    sums: Sums,
}

impl World {
    fn new(scenario: &Scenario) -> Self {
        let slots = scenario.machines.iter().map(|m| m.slots).max().unwrap_or(1);
        Self {
            items: scenario.items.clone(),
            machine_offers: scenario.machines.clone(),
            shared_offers: scenario.shared.clone(),
            allowed_wait_us: scenario.allowed_wait_us,
            allowed_waits_us: scenario.allowed_waits_us.clone(),
            now_us: 0,
            events: BinaryHeap::new(),
            sequence: 0,
            machines: Vec::new(),
            rooms: vec![BTreeSet::new(); index(slots) + 1],
            idle: vec![BTreeSet::new(); scenario.machines.len()],
            alive: vec![0; scenario.machines.len()],
            pools: vec![Pool::default(); scenario.shared.len()],
            queue: VecDeque::new(),
            busy: 0,
            ready_slots: 0,
            ended: 0,
            last_us: 0,
            sums: Sums {
                started_us: vec![-1; scenario.items.len()],
                ran: vec![Ran::Not; scenario.items.len()],
                supply: vec![(0, 0)],
                slots: vec![(0, 0)],
                ..Sums::default()
            },
        }
    }

    /// The time, us from the start.
    pub fn now_us(&self) -> i64 {
        self.now_us
    }

    /// All items. What has not ended has no length that a rule may look at.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Machines that can be bought.
    pub fn machine_offers(&self) -> &[MachineOffer] {
        &self.machine_offers
    }

    /// Shared solutions that can be called.
    pub fn shared_offers(&self) -> &[SharedOffer] {
        &self.shared_offers
    }

    /// Longest wait that is in time, us.
    pub fn allowed_wait_us(&self) -> i64 {
        self.allowed_wait_us
    }

    /// Longest wait of an item that is in time, us.
    pub fn allowed_wait_of_us(&self, item: u32) -> i64 {
        self.allowed_waits_us.get(index(item)).copied().unwrap_or(self.allowed_wait_us)
    }

    /// Machines of an offer that are paid now, those that boot among them.
    pub fn alive(&self, offer: usize) -> u32 {
        self.alive[offer]
    }

    /// Items on machines.
    pub fn busy(&self) -> u32 {
        count(self.busy)
    }

    /// Items that wait for a place.
    pub fn queued(&self) -> u32 {
        u32::try_from(self.queue.len()).unwrap_or(u32::MAX)
    }

    /// Invocations in flight in a shared solution.
    pub fn inflight(&self, offer: usize) -> u32 {
        self.pools[offer].inflight
    }

    /// Cold starts so far.
    pub fn cold_starts(&self) -> u64 {
        self.sums.cold_starts
    }

    /// Machines of an offer with nothing on them.
    pub fn empty(&self, offer: usize) -> u32 {
        u32::try_from(self.idle[offer].len()).unwrap_or(u32::MAX)
    }

    /// How long an item that has not started has waited, us.
    pub fn waits_us(&self, item: u32) -> i64 {
        self.now_us - self.items[index(item)].arrival_us
    }

    /// How long an item that has started waited, us.
    pub fn waited_us(&self, item: u32) -> i64 {
        self.sums.started_us[index(item)] - self.items[index(item)].arrival_us
    }

    /// Has it started?
    pub fn has_started(&self, item: u32) -> bool {
        self.sums.started_us[index(item)] >= 0
    }

    /// Buys machines, as far as there may be more of them.
    pub fn launch(&mut self, offer: usize, machines: u32) {
        let room = self.machine_offers[offer].most.saturating_sub(self.alive[offer]);
        for _ in 0..machines.min(room) {
            let boot_us = self.draw_boot(offer);
            self.launch_taking(offer, boot_us);
        }
    }

    /// How long the boot of the next machine of an offer takes, us. Only who knows the future asks.
    pub(crate) fn draw_boot(&mut self, offer: usize) -> i64 {
        self.machine_offers[offer].boot.draw()
    }

    /// Buys a machine whose boot takes so long, us.
    pub(crate) fn launch_taking(&mut self, offer: usize, boot_us: i64) {
        let machine = u32::try_from(self.machines.len()).unwrap_or(u32::MAX);
        self.machines.push(Machine {
            offer,
            launched_us: self.now_us,
            ready: false,
            stopped: false,
            free: 0,
            stamp: 0,
            idle_since_us: 0,
        });
        self.alive[offer] += 1;
        self.sums.launches += 1;
        self.push(self.now_us + boot_us, Kind::Ready { machine });
    }

    /// Stops at most so many machines of an offer that have been empty for `idle_us`, the one idle longest
    /// first. A machine with an item on it is never among them, nor one of those that are always there. Answers how
    /// many.
    pub fn stop_idle(&mut self, offer: usize, most: u32, idle_us: i64) -> u32 {
        let most = most.min(self.alive[offer].saturating_sub(self.machine_offers[offer].least));
        let mut stopped = 0;
        while stopped < most {
            let Some((_, machine)) = self.idle[offer].first().copied() else { break };
            if self.now_us - self.machines[index(machine)].idle_since_us < idle_us {
                break;
            }
            self.leave_room(machine);
            self.stop(machine);
            stopped += 1;
        }
        stopped
    }

    /// Puts an item on the fullest machine with room. Answers whether there was one.
    pub fn place(&mut self, item: u32) -> bool {
        let Some((_, _, machine)) = self.rooms[1..].iter().find_map(|room| room.first()).copied() else { return false };
        self.leave_room(machine);
        self.machines[index(machine)].free -= 1;
        self.enter_room(machine);
        self.busy += 1;
        self.sums.started_us[index(item)] = self.now_us;
        self.sums.ran[index(item)] = Ran::Machine;
        let end = self.now_us + self.items[index(item)].lasts_us;
        self.push(end, Kind::Ended { item, machine });
        true
    }

    /// Calls a shared solution for an item. Answers whether it had room.
    pub fn call(&mut self, item: u32, offer: usize) -> bool {
        let (Some(pool), Some(shared)) = (self.pools.get_mut(offer), self.shared_offers.get_mut(offer)) else {
            return false;
        };
        let now = self.now_us;
        if pool.inflight >= shared.concurrency {
            return false;
        }
        let lasts_us = self.items[index(item)].lasts_us;
        let warm = (shared.keepalive_us > 0).then(|| pool.warm.pop()).flatten();
        let (start_us, billed_us) = match warm {
            Some(since) if now - since <= shared.keepalive_us => (shared.warm_us, lasts_us),
            old => {
                if old.is_some() {
                    pool.warm.clear();
                }
                let cold_us = shared.cold.draw();
                self.sums.cold_starts += 1;
                (cold_us, lasts_us + if shared.bills_cold { cold_us } else { 0 })
            }
        };
        self.sums.shared_cost += shared.charge(billed_us);
        self.sums.invocations += 1;
        pool.inflight += 1;
        self.sums.started_us[index(item)] = now + start_us;
        self.sums.ran[index(item)] = Ran::Shared;
        let offer = u32::try_from(offer).unwrap_or(u32::MAX);
        self.push(now + start_us + lasts_us, Kind::InvocationEnded { item, offer });
        self.supply_changed();
        true
    }

    /// Puts an item at the end of the queue.
    pub fn queue(&mut self, item: u32) {
        self.queue.push_back(item);
    }

    /// Takes an item out of the queue.
    pub fn unqueue(&mut self, item: u32) {
        if let Some(at) = self.queue.iter().position(|queued| *queued == item) {
            self.queue.remove(at);
        }
    }

    /// Calls [`Rule::late`] for an item at a moment, if it has not started by then.
    pub fn call_at(&mut self, at_us: i64, item: u32) {
        self.push(at_us, Kind::Late { item });
    }

    /// Calls [`Rule::woken`] at a moment.
    pub(crate) fn wake_at(&mut self, at_us: i64, number: usize) {
        self.push(at_us, Kind::Woken { number });
    }

    fn push(&mut self, at: i64, kind: Kind) {
        self.sequence += 1;
        self.events.push(Reverse((at, kind.rank(), self.sequence, kind)));
    }

    fn leave_room(&mut self, machine: u32) {
        let m = self.machines[index(machine)];
        let empty = m.free == self.machine_offers[m.offer].slots;
        if m.free > 0 {
            self.rooms[index(m.free)].remove(&(empty, m.stamp, machine));
        }
        if empty {
            self.idle[m.offer].remove(&(m.stamp, machine));
        }
    }

    fn enter_room(&mut self, machine: u32) {
        self.sequence += 1;
        let m = &mut self.machines[index(machine)];
        m.stamp = self.sequence;
        let empty = m.free == self.machine_offers[m.offer].slots;
        if m.free > 0 {
            self.rooms[index(m.free)].insert((empty, m.stamp, machine));
        }
        if empty {
            m.idle_since_us = self.now_us;
            self.idle[m.offer].insert((m.stamp, machine));
        }
    }

    fn stop(&mut self, machine: u32) {
        let m = &mut self.machines[index(machine)];
        m.stopped = true;
        let offer = &self.machine_offers[m.offer];
        let paid_us = (self.now_us - m.launched_us).max(offer.min_billed_us);
        self.sums.machine_us += paid_us;
        self.sums.machine_cost += charge(offer.price_per_hour, paid_us);
        self.alive[m.offer] -= 1;
        if m.ready {
            self.ready_slots -= i64::from(offer.slots);
            self.supply_changed();
        }
    }

    fn supply_changed(&mut self) {
        let supply = self.ready_slots + self.pools.iter().map(|pool| i64::from(pool.inflight)).sum::<i64>();
        put(&mut self.sums.supply, self.now_us, supply);
        put(&mut self.sums.slots, self.now_us, self.ready_slots);
    }

    fn advance(&mut self, to_us: i64) {
        let past = i128::from(to_us - self.last_us);
        self.sums.busy_slot_us += i128::from(self.busy) * past;
        self.sums.ready_slot_us += i128::from(self.ready_slots) * past;
        self.last_us = to_us;
        self.now_us = to_us;
    }

    fn drain_queue(&mut self) {
        while let Some(item) = self.queue.front().copied() {
            if !self.place(item) {
                break;
            }
            self.queue.pop_front();
        }
    }

    /// What an event does by itself, before the rule hears of it.
    fn carry_out(&mut self, kind: Kind) {
        match kind {
            Kind::Ready { machine } => {
                let m = &mut self.machines[index(machine)];
                let slots = self.machine_offers[m.offer].slots;
                (m.ready, m.free) = (true, slots);
                self.ready_slots += i64::from(slots);
                self.enter_room(machine);
                self.supply_changed();
                self.drain_queue();
            }
            Kind::Ended { machine, .. } => {
                self.leave_room(machine);
                self.machines[index(machine)].free += 1;
                self.enter_room(machine);
                self.busy -= 1;
                self.ended += 1;
                self.drain_queue();
            }
            Kind::InvocationEnded { offer, .. } => {
                let now = self.now_us;
                let pool = &mut self.pools[index(offer)];
                pool.inflight -= 1;
                pool.warm.push(now);
                self.ended += 1;
                self.supply_changed();
            }
            Kind::Tick | Kind::Late { .. } | Kind::Woken { .. } => {}
        }
    }

    fn finish(mut self) -> (Vec<Item>, Sums) {
        for machine in 0..u32::try_from(self.machines.len()).unwrap_or(u32::MAX) {
            if !self.machines[index(machine)].stopped {
                self.stop(machine);
            }
        }
        self.sums.end_us = self.now_us;
        (self.items, self.sums)
    }
}

/// How it went: what figures leave out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Course {
    /// Slots of ready machines and invocations, from each moment (us) on.
    pub supply: Vec<(i64, i64)>,
    /// Slots of ready machines alone, the same.
    pub slots: Vec<(i64, i64)>,
    /// When the last item ended, us.
    pub end_us: i64,
    /// Items that never started: nothing could take them.
    pub never: u64,
}

/// Plays a scenario under a rule until the last item has ended.
pub fn simulate(scenario: &Scenario, rule: &mut dyn Rule) -> Metrics {
    play(scenario, rule).0
}

/// The same, and tells how it went.
pub fn play(scenario: &Scenario, rule: &mut dyn Rule) -> (Metrics, Course) {
    let mut world = World::new(scenario);
    let interval_us = rule.interval_us();
    for offer in 0..world.machine_offers.len() {
        world.launch(offer, world.machine_offers[offer].least);
    }
    rule.begin(&mut world);
    if interval_us > 0 {
        world.push(0, Kind::Tick);
    }
    let (mut next, all) = (0_u32, u32::try_from(world.items.len()).unwrap_or(u32::MAX));
    while world.ended < world.items.len() {
        let arrival = (next < all).then(|| world.items[index(next)].arrival_us);
        let due = world.events.peek().map(|Reverse((at, ..))| *at);
        let event = due.filter(|at| arrival.is_none_or(|arrival| *at <= arrival)).and_then(|_| world.events.pop());
        match (event, arrival) {
            (Some(Reverse((at, _, _, kind))), _) => {
                world.advance(at);
                world.carry_out(kind);
                match kind {
                    Kind::Tick => {
                        rule.tick(&mut world);
                        world.push(at + interval_us, Kind::Tick);
                    }
                    Kind::Late { item } if !world.has_started(item) => rule.late(&mut world, item),
                    Kind::Ended { item, .. } => rule.ended(&mut world, item, None),
                    Kind::InvocationEnded { item, offer } => rule.ended(&mut world, item, Some(index(offer))),
                    Kind::Woken { number } => rule.woken(&mut world, number),
                    Kind::Ready { .. } => rule.ready(&mut world),
                    Kind::Late { .. } => {}
                }
            }
            (None, Some(arrival)) => {
                world.advance(arrival);
                rule.arrive(&mut world, next);
                next += 1;
            }
            // Nothing will ever happen again: a rule that never places what it queued.
            (None, None) => break,
        }
    }
    let (items, sums) = world.finish();
    let metrics = Metrics::of(scenario, &items, &sums);
    let never = sums.started_us.iter().filter(|started| **started < 0).count();
    let never = u64::try_from(never).unwrap_or(u64::MAX);
    (metrics, Course { supply: sums.supply, slots: sums.slots, end_us: sums.end_us, never })
}

/// What a curve is from a moment on.
fn put(curve: &mut Vec<(i64, i64)>, now_us: i64, value: i64) {
    match curve.last_mut() {
        Some((_, last)) if *last == value => {}
        Some((at, last)) if *at == now_us => *last = value,
        _ => curve.push((now_us, value)),
    }
}

impl SharedOffer {
    /// What an invocation of a length costs.
    pub fn charge(&self, billed_us: i64) -> NanoUsd {
        let granularity = self.granularity_us.max(1);
        let rounded = (billed_us + granularity - 1) / granularity * granularity;
        charge(self.price_per_hour, rounded.max(self.min_billed_us)) + self.per_request
    }
}

fn charge(per_hour: NanoUsd, us: i64) -> NanoUsd {
    NanoUsd::charge(per_hour, u64::try_from(us).unwrap_or(0), HOUR_US.unsigned_abs())
}

fn count(value: i64) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

/// A number of ours as a place in a list.
pub(crate) fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
