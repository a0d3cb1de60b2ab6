//! A shadow: what a rule would have paid on the work that really came.
//!
//! It keeps machines of its own that exist on paper only, puts every item that arrives on one of them (the
//! fullest with room), lets it wait as long as it may, and else charges the shared solution for it. An item
//! ends in the shadow as long after its start there as it really lasted, which is known when it really ends.
//! So what no formula of demand shows is paid by the shadow too: slots that stay empty beside a long item,
//! machines that drain late, boots, least billed times.
//!
//! ```text
//! arrive -> placed ---------------------------> ended (when it has really ended, and lasted as long here)
//!       \-> waits -> placed (a slot got free) -/
//!               \--> shared (its wait is over; no machine is there or coming) -> ended
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};

use super::super::guard::{MachineFacts, SharedFacts};
use crate::quantity::NanoUsd;

/// Where an item is in one shadow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    Waits,
    On { machine: u32, since_us: i64 },
    Shared,
    Over,
}

/// An item that has not really ended, or that a shadow still has waiting.
#[derive(Debug, Clone)]
pub(super) struct Open {
    /// In each shadow.
    pub(super) at: Vec<At>,
    /// How long it lasted, once it is known.
    pub(super) lasted_us: Option<u64>,
    /// Shadows in which it waits.
    pub(super) waiting: u32,
}

#[derive(Debug, Clone, Copy)]
struct Machine {
    launched_us: i64,
    idle_since_us: i64,
    free: u32,
    stamp: u64,
}

/// Machines on paper, and what they cost.
#[derive(Debug, Clone)]
pub(super) struct Shadow {
    pub(super) machine: MachineFacts,
    machines: Vec<Machine>,
    /// Places in `machines` of those that were stopped.
    spare: Vec<u32>,
    stamp: u64,
    /// Ready machines by free slots, the one longest in that state first.
    rooms: Vec<BTreeSet<(u64, u32)>>,
    booting: VecDeque<(i64, u32)>,
    alive: u32,
    waiting: VecDeque<(i64, usize)>,
    ends: BinaryHeap<Reverse<(i64, u32)>>,
    /// Items in the shared solution now.
    shared: u32,
    /// When each idle invocation became idle.
    warm: Vec<i64>,
    accrued_us: i64,
    /// What it cost since it was last asked.
    cost: NanoUsd,
}

impl Shadow {
    pub(super) fn new(machine: MachineFacts) -> Self {
        let slots = usize::try_from(machine.slots.max(1)).unwrap_or(1);
        Self {
            machine,
            machines: Vec::new(),
            spare: Vec::new(),
            stamp: 0,
            rooms: vec![BTreeSet::new(); slots + 1],
            booting: VecDeque::new(),
            alive: 0,
            waiting: VecDeque::new(),
            ends: BinaryHeap::new(),
            shared: 0,
            warm: Vec::new(),
            accrued_us: 0,
            cost: NanoUsd::ZERO,
        }
    }

    /// Machines it has or waits for.
    pub(super) fn alive(&self) -> u32 {
        self.alive
    }

    /// What it cost since this was last asked.
    pub(super) fn take_cost(&mut self) -> NanoUsd {
        std::mem::take(&mut self.cost)
    }

    /// Time goes on: machines come, items end, waits are over, in that order.
    pub(super) fn advance(&mut self, now: i64, me: usize, open: &mut [Open], shared: &SharedFacts) {
        loop {
            let ready = self.booting.front().map(|(at, _)| *at);
            let ended = self.ends.peek().map(|Reverse((at, _))| *at);
            let late = self.waiting.front().map(|(at, _)| *at);
            let Some(next) = [ready, ended, late].into_iter().flatten().min().filter(|at| *at <= now) else { break };
            if ready == Some(next) {
                let Some((at, machine)) = self.booting.pop_front() else { break };
                self.machines[place(machine)].free = self.machine.slots.max(1);
                self.enter(machine, at);
                self.take_waiting(at, me, open);
            } else if ended == Some(next) {
                let Some(Reverse((at, machine))) = self.ends.pop() else { break };
                self.free(machine, at, me, open);
            } else if let Some((at, item)) = self.waiting.pop_front()
                && open[item].at[me] == At::Waits
            {
                open[item].waiting -= 1;
                self.call(at, item, me, open, shared);
            }
        }
    }

    /// Charges for the time since the last time.
    pub(super) fn accrue(&mut self, now: i64, shared: &SharedFacts) {
        let past = u64::try_from(now - self.accrued_us).unwrap_or(0);
        self.accrued_us = now;
        self.cost += self.machine.charge(past.saturating_mul(u64::from(self.alive)));
        self.cost += shared.charge(past.saturating_mul(u64::from(self.shared)));
    }

    /// An item arrives; it may wait until `until`.
    pub(super) fn arrive(
        &mut self,
        now: i64,
        until: i64,
        item: usize,
        me: usize,
        open: &mut [Open],
        shared: &SharedFacts,
    ) {
        if self.put(now, item, me, open) {
            return;
        }
        // Without a machine there or coming, there is nothing to wait for.
        if self.alive == 0 || until <= now {
            self.call(now, item, me, open, shared);
        } else {
            open[item].at[me] = At::Waits;
            open[item].waiting += 1;
            self.waiting.push_back((until, item));
        }
    }

    /// An item really ended after `lasted_us`.
    pub(super) fn ended(
        &mut self,
        now: i64,
        lasted_us: u64,
        item: usize,
        me: usize,
        open: &mut [Open],
        shared: &SharedFacts,
    ) {
        match open[item].at[me] {
            At::Waits | At::Over => {}
            At::On { machine, since_us } => {
                open[item].at[me] = At::Over;
                let end = since_us.saturating_add_unsigned(lasted_us);
                if end <= now {
                    self.free(machine, now, me, open);
                } else {
                    self.ends.push(Reverse((end, machine)));
                }
            }
            At::Shared => {
                open[item].at[me] = At::Over;
                self.accrue(now, shared);
                self.shared -= 1;
                self.warm.push(now);
                // Its time was charged as it went by; what is rounded up is charged now.
                self.cost += shared.billed(lasted_us, false) - shared.charge(lasted_us);
            }
        }
    }

    /// Buys up to, or stops down to, a number of machines. Only empty ones go, and only after they have been
    /// so for `idle_us`.
    pub(super) fn aim(&mut self, now: i64, target: u32, idle_us: i64) {
        while self.alive < target {
            let fresh = Machine { launched_us: now, idle_since_us: now, free: 0, stamp: 0 };
            let machine = if let Some(machine) = self.spare.pop() {
                self.machines[place(machine)] = fresh;
                machine
            } else {
                self.machines.push(fresh);
                u32::try_from(self.machines.len() - 1).unwrap_or(u32::MAX)
            };
            self.alive += 1;
            self.booting.push_back((now.saturating_add_unsigned(self.machine.boot_us), machine));
        }
        while self.alive > target {
            let empty = self.rooms.last().and_then(|room| room.first()).copied();
            let Some((_, machine)) = empty else { break };
            let found = self.machines[place(machine)];
            if now - found.idle_since_us < idle_us {
                break;
            }
            self.leave(machine);
            self.alive -= 1;
            self.spare.push(machine);
            let paid = u64::try_from(now - found.launched_us).unwrap_or(0);
            self.cost += self.machine.charge(self.machine.min_billed_us.saturating_sub(paid));
        }
    }

    fn put(&mut self, now: i64, item: usize, me: usize, open: &mut [Open]) -> bool {
        let Some((_, machine)) = self.rooms[1..].iter().find_map(|room| room.first()).copied() else { return false };
        self.leave(machine);
        self.machines[place(machine)].free -= 1;
        self.enter(machine, now);
        if let Some(lasted) = open[item].lasted_us {
            open[item].at[me] = At::Over;
            self.ends.push(Reverse((now.saturating_add_unsigned(lasted), machine)));
        } else {
            open[item].at[me] = At::On { machine, since_us: now };
        }
        true
    }

    fn call(&mut self, now: i64, item: usize, me: usize, open: &mut [Open], shared: &SharedFacts) {
        let warm = self.warm.pop().is_some_and(|since| {
            let fresh = u64::try_from(now - since).unwrap_or(0) <= shared.keepalive_us && shared.keepalive_us > 0;
            if !fresh {
                self.warm.clear();
            }
            fresh
        });
        if !warm && shared.bills_cold {
            self.cost += shared.charge(shared.cold.mean());
        }
        if let Some(lasted) = open[item].lasted_us {
            open[item].at[me] = At::Over;
            self.cost += shared.billed(lasted, false);
        } else {
            self.accrue(now.max(self.accrued_us), shared);
            self.shared += 1;
            open[item].at[me] = At::Shared;
        }
    }

    fn free(&mut self, machine: u32, now: i64, me: usize, open: &mut [Open]) {
        self.leave(machine);
        self.machines[place(machine)].free += 1;
        self.enter(machine, now);
        self.take_waiting(now, me, open);
    }

    fn take_waiting(&mut self, now: i64, me: usize, open: &mut [Open]) {
        while let Some((_, item)) = self.waiting.front().copied() {
            if open[item].at[me] == At::Waits {
                if !self.put(now, item, me, open) {
                    break;
                }
                open[item].waiting -= 1;
            }
            self.waiting.pop_front();
        }
    }

    fn leave(&mut self, machine: u32) {
        let found = self.machines[place(machine)];
        if found.free > 0 {
            self.rooms[place(found.free)].remove(&(found.stamp, machine));
        }
    }

    fn enter(&mut self, machine: u32, now: i64) {
        self.stamp += 1;
        let found = &mut self.machines[place(machine)];
        (found.stamp, found.idle_since_us) = (self.stamp, now);
        if found.free > 0 {
            self.rooms[place(found.free)].insert((self.stamp, machine));
        }
    }
}

fn place(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
