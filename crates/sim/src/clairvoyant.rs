//! The bound's own course, carried out: what one who knows the future pays when items stay where they started.
//!
//! It has the machines of [`crate::bounds`], each ordered early enough to be ready in time, and what finds no slot goes
//! to the shared solution. The bound lets items move between layers, so it is lower than what anybody reaches; this
//! says by how much at least the bound's own plan misses it. It does not know how to pack, so it is no bound from above
//! for a rule that does.

use std::collections::VecDeque;

use crate::bound::plan;
use crate::rule::Rule;
use crate::scenario::Scenario;
use crate::world::World;

/// What is due.
#[derive(Debug, Clone, Copy)]
enum Due {
    /// A machine that is to be ready at a moment, us, and whose boot is not known yet.
    Order { ready_us: i64 },
    /// The machine's boot takes so long, us, from now on.
    Launch { boot_us: i64 },
    /// So many machines are wanted from now on.
    Want { machines: u32 },
}

/// The bound's plan, its items fixed in place.
#[derive(Debug)]
pub struct BoundsPlan {
    plan: Vec<(i64, u32)>,
    due: Vec<Due>,
    wanted: u32,
    waiting: VecDeque<u32>,
}

impl BoundsPlan {
    /// For a scenario that has a machine and a shared solution.
    pub fn new(scenario: &Scenario) -> Self {
        Self { plan: plan(scenario), due: Vec::new(), wanted: 0, waiting: VecDeque::new() }
    }

    fn at(&mut self, world: &mut World, at_us: i64, due: Due) {
        world.wake_at(at_us.max(world.now_us()), self.due.len());
        self.due.push(due);
    }

    /// Machines beyond the plan stop as soon as they are empty.
    fn trim(&mut self, world: &mut World) {
        let beyond = world.alive(0).saturating_sub(self.wanted);
        if beyond > 0 {
            world.stop_idle(0, beyond, 0);
        }
    }

    fn call_waiting(&mut self, world: &mut World) {
        while self.waiting.front().is_some_and(|item| world.has_started(*item)) {
            self.waiting.pop_front();
        }
        if let Some(item) = self.waiting.front().copied()
            && world.call(item, 0)
        {
            self.waiting.pop_front();
            world.unqueue(item);
        }
    }
}

impl Rule for BoundsPlan {
    fn begin(&mut self, world: &mut World) {
        let longest_us = world.machine_offers()[0].boot.most();
        let mut before = 0;
        for (at, machines) in std::mem::take(&mut self.plan) {
            for _ in before..machines {
                self.at(world, at - longest_us, Due::Order { ready_us: at });
            }
            self.at(world, at, Due::Want { machines });
            before = machines;
        }
    }

    fn arrive(&mut self, world: &mut World, item: u32) {
        if !world.place(item) && !world.call(item, 0) {
            self.waiting.push_back(item);
            world.queue(item);
        }
    }

    fn woken(&mut self, world: &mut World, number: usize) {
        match self.due[number] {
            Due::Order { ready_us } => {
                let boot_us = world.draw_boot(0);
                self.at(world, ready_us - boot_us, Due::Launch { boot_us });
            }
            Due::Launch { boot_us } => world.launch_taking(0, boot_us),
            Due::Want { machines } => self.wanted = machines,
        }
        self.trim(world);
    }

    fn ready(&mut self, world: &mut World) {
        self.trim(world);
    }

    fn ended(&mut self, world: &mut World, _: u32, shared: Option<usize>) {
        if shared.is_some() {
            self.call_waiting(world);
        }
        self.trim(world);
    }
}
