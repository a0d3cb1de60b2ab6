//! What moves a world; and the rules of reference, which other tools use and the engine is compared with.

use std::collections::VecDeque;

use crate::SECOND_US;
use crate::trace::concurrency;
use crate::world::World;

/// Decides in a world.
pub trait Rule {
    /// Time between two ticks, us; 0 for none.
    fn interval_us(&self) -> i64 {
        0
    }
    /// Before anything arrives.
    fn begin(&mut self, _world: &mut World) {}
    /// Regularly.
    fn tick(&mut self, _world: &mut World) {}
    /// An item arrives.
    fn arrive(&mut self, world: &mut World, item: u32) {
        if !world.place(item) {
            world.queue(item);
        }
    }
    /// An item asked for by [`World::call_at`] has not started.
    fn late(&mut self, _world: &mut World, _item: u32) {}
    /// A moment asked for by [`World::wake_at`], by its number.
    fn woken(&mut self, _world: &mut World, _number: usize) {}
    /// A machine is ready, and took what was queued.
    fn ready(&mut self, _world: &mut World) {}
    /// An item ended, on a machine or in a shared solution.
    fn ended(&mut self, _world: &mut World, _item: u32, _shared: Option<usize>) {}
}

/// A fixed pool, sized with hindsight at the peak of what would run at once without waiting.
#[derive(Debug, Default)]
pub struct FixedAtPeak;

impl Rule for FixedAtPeak {
    fn begin(&mut self, world: &mut World) {
        let peak = concurrency(world.items().iter().copied()).into_iter().map(|(_, items)| items).max().unwrap_or(0);
        let slots = i64::from(world.machine_offers()[0].slots);
        let machines = u32::try_from((peak + slots - 1) / slots).unwrap_or(u32::MAX);
        world.launch(0, machines.max(1).saturating_sub(world.alive(0)));
    }
}

/// Every item goes to the shared solution.
#[derive(Debug, Default)]
pub struct ServerlessOnly {
    waiting: VecDeque<u32>,
}

impl Rule for ServerlessOnly {
    fn arrive(&mut self, world: &mut World, item: u32) {
        if !world.call(item, 0) {
            self.waiting.push_back(item);
            world.queue(item);
        }
    }
    fn ended(&mut self, world: &mut World, _: u32, _: Option<usize>) {
        if let Some(item) = self.waiting.front().copied()
            && world.call(item, 0)
        {
            self.waiting.pop_front();
            world.unqueue(item);
        }
    }
}

/// KEDA on the length of the queue (one item a replica, polled every 30 s), scaled down to the most of the last
/// 300 s, over the cluster autoscaler (an empty machine goes after 600 s).
#[derive(Debug, Default)]
pub struct Keda {
    wanted: VecDeque<(i64, u32)>,
}

const KEDA_STABLE_US: i64 = 300 * SECOND_US;
const KEDA_IDLE_US: i64 = 600 * SECOND_US;

impl Rule for Keda {
    fn interval_us(&self) -> i64 {
        30 * SECOND_US
    }
    fn tick(&mut self, world: &mut World) {
        let now = world.now_us();
        self.wanted.push_back((now, world.busy() + world.queued()));
        while self.wanted.front().is_some_and(|(at, _)| *at < now - KEDA_STABLE_US) {
            self.wanted.pop_front();
        }
        let most = self.wanted.iter().map(|(_, wanted)| *wanted).max().unwrap_or(0);
        let need = most.div_ceil(world.machine_offers()[0].slots);
        let alive = world.alive(0);
        if need > alive {
            world.launch(0, need - alive);
        } else if need < alive {
            world.stop_idle(0, alive - need, KEDA_IDLE_US);
        }
    }
}
