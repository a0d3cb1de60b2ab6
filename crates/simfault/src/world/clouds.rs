//! What the cloud of a world does when it is asked, and what must be true of it in the end.

use std::collections::BTreeSet;

use skein_domain::{InstanceId, InstanceState};
use skein_engine::core::{CloudEvent, Input};

use super::{Coming, World};
use crate::agents::Machine;
use crate::things::{CLOUD, CLOUD_SLOTS};

impl World {
    /// How long a cloud takes to hear, ms.
    pub(super) fn cloud_ms(&mut self) -> u64 {
        if self.has("cloud") && self.dice.chance(100) { self.dice.below(20_000) } else { 20 + self.dice.below(300) }
    }

    /// The driver of the engine's process that asked hears the answer, if it comes.
    pub(super) fn cloud_says(&mut self, engine: u64, event: CloudEvent) {
        if self.has("cloud") && self.dice.chance(100) {
            return;
        }
        let ms = self.cloud_ms();
        let input = Input::FromCloud { solution: CLOUD.parse().unwrap(), event };
        self.later(ms, Coming::Engine(engine, None, input));
    }

    /// The cloud is asked for a machine. What a dead engine asked for still comes.
    pub(super) fn make(&mut self, engine: u64, name: InstanceId) {
        if engine == self.engine {
            let event = CloudEvent::Asked(name.clone());
            self.turn(vec![Input::FromCloud { solution: CLOUD.parse().unwrap(), event }]);
        }
        if self.cloud.ask(&name) {
            if self.has("cloud") && self.dice.chance(80) {
                let why = "no capacity".to_owned();
                return self.cloud_says(engine, CloudEvent::NotMade { instance: name, why });
            }
            let never = self.has("cloud") && self.dice.chance(60);
            let twice = self.has("cloud") && self.dice.chance(60);
            for _ in 0..u32::from(!never) + u32::from(twice) {
                let late = self.has("cloud") && self.dice.chance(100);
                let ms = if late { self.dice.below(60_000) } else { 100 };
                self.later(ms, Coming::Appear(name.clone()));
            }
        }
        let cloud_id = self.cloud.id_of(&name).unwrap_or_else(|| "i-unknown".into());
        self.cloud_says(engine, CloudEvent::Made { instance: name, cloud_id });
    }

    pub(super) fn appear(&mut self, name: InstanceId) {
        let skew = i64::try_from(self.dice.below(21)).unwrap() - 10;
        let n = self.machines.len();
        self.machines.push(Machine::named(name.clone(), CLOUD, CLOUD_SLOTS, skew));
        self.cloud.make(name.clone(), n);
        self.counts.made += 1;
        // The join token is good for one of them: the other never gets in.
        let first = self.machines.iter().filter(|m| m.id == name).count() == 1;
        let boots = !self.has("cloud") || self.dice.chance(900);
        if first && boots {
            let ms = 2_000 + self.dice.below(8_000);
            self.later(ms, Coming::Dial(n));
        } else {
            self.machines[n].up = false;
        }
    }

    /// The cloud ends every machine of a name, and whatever runs there with it.
    pub(super) fn end_machines(&mut self, engine: u64, name: InstanceId) {
        for n in self.cloud.end(&name) {
            let open: Vec<_> = self.machines[n].processes.values().map(|p| p.attempt).collect();
            let snapshot = self.core.as_ref().unwrap().snapshot();
            let killed: Vec<_> = open.into_iter().filter(|key| snapshot.attempts.contains_key(key)).collect();
            self.counts.killed += killed.len() as u64;
            for key in killed {
                self.books.blame(key.item, format!("{key} runs on {name}, which the cloud was asked to end"));
            }
            self.vanish(n);
        }
        self.cloud_says(engine, CloudEvent::Ended(name));
    }

    /// A machine is no more.
    pub(super) fn vanish(&mut self, n: usize) {
        self.disconnect(n);
        self.machines[n].reboot(self.now);
        (self.machines[n].up, self.machines[n].left) = (false, true);
    }

    pub(super) fn list_machines(&mut self, engine: u64) {
        let event = CloudEvent::Listed { asked_at: self.now, machines: self.cloud.list() };
        self.cloud_says(engine, event);
    }

    /// Machines that the cloud has and the ledger does not, and the other way round; and more than are wanted.
    pub(super) fn without_owner(&mut self) -> u64 {
        let snapshot = self.core.as_ref().unwrap().snapshot();
        let solution = CLOUD.parse().unwrap();
        let owned: BTreeSet<&InstanceId> =
            snapshot.machines_in(&solution, InstanceState::Wanted..=InstanceState::Ending).collect();
        let there: BTreeSet<&InstanceId> = self.cloud.names().collect();
        let mut wrong: Vec<String> = owned.symmetric_difference(&there).map(ToString::to_string).collect();
        if there.len() != 1 {
            wrong.push(format!("{} machines, 1 wanted", there.len()));
        }
        for name in &wrong {
            self.books.say(format!("!! {name} is without owner: ledger {owned:?}, cloud {there:?}"));
        }
        wrong.len() as u64
    }
}
