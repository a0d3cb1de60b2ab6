//! Machines: what clouds say of those that the ledger wants, and what they have that it does not.
//!
//! ```text
//! plan --InstanceWanted--> commit --Make--> cloud --Asked, Made--> requested, booting --hello--> ready
//! plan --InstanceDraining--> ... nothing on it --InstanceEnding--> commit --End--> cloud --Ended--> gone
//! ```
//! Failure paths: an answer that never comes, a machine made twice, late or never, and one that the cloud
//! lost are all found by comparing what the cloud lists with the ledger (docs/decisions/0008).

use std::collections::BTreeMap;

use skein_domain::event::Event;
use skein_domain::solution::Machines;
use skein_domain::{InstanceId, InstanceState, Solution, SolutionId, Timestamp};

use super::input::{CloudEvent, Listed};
use super::{Core, Output};

/// A machine that the cloud does not list is asked for again this long after it was wanted, ms.
const ASK_AGAIN_MS: u64 = 30_000;

impl Core {
    pub(super) fn take_from_cloud(&mut self, solution: &SolutionId, event: CloudEvent) {
        match event {
            CloudEvent::Asked(instance) => {
                if self.state_of(&instance) == Some(InstanceState::Wanted) {
                    self.happen(vec![Event::InstanceRequested { instance }]);
                }
            }
            CloudEvent::Made { instance, cloud_id } => self.made(&instance, cloud_id),
            CloudEvent::NotMade { instance, why } => self.not_made(solution, instance, why),
            CloudEvent::Ended(instance) => {
                if self.state_of(&instance) == Some(InstanceState::Ending) {
                    let why = "the cloud ended it".to_owned();
                    self.happen(vec![Event::InstanceGone { instance, why }]);
                }
            }
            CloudEvent::Listed { asked_at, machines } => self.compare(solution, asked_at, machines),
        }
    }

    fn state_of(&self, instance: &InstanceId) -> Option<InstanceState> {
        self.snapshot.instances.get(instance).map(|i| i.state)
    }

    fn made(&mut self, instance: &InstanceId, cloud_id: String) {
        // Else its agent was quicker than the cloud's answer; the list says the rest.
        if let Some(InstanceState::Wanted | InstanceState::Requested) = self.state_of(instance) {
            self.happen(vec![Event::InstanceBooting { instance: instance.clone(), cloud_id }]);
        }
    }

    /// The cloud made none: whatever waits for it may go elsewhere, and the cloud is left in peace.
    fn not_made(&mut self, solution: &SolutionId, instance: InstanceId, why: String) {
        if !matches!(self.state_of(&instance), Some(InstanceState::Wanted | InstanceState::Requested)) {
            return;
        }
        if let Some(machines) = self.machines_of(solution) {
            let until = self.now.after_ms(machines.avoid_ms);
            let (solution, why) = (solution.clone(), why.clone());
            self.happen(vec![Event::SolutionAvoided { solution, until, why }]);
        }
        self.happen(vec![Event::InstanceGone { instance, why }]);
    }

    fn machines_of(&self, solution: &SolutionId) -> Option<&Machines> {
        self.snapshot.solutions.get(solution)?.dedicated()?.machines.as_ref()
    }

    /// What the cloud has under our engine's identifier, against what the ledger owns.
    fn compare(&mut self, solution: &SolutionId, asked_at: Timestamp, machines: Vec<Listed>) {
        let mut listed: BTreeMap<InstanceId, Vec<String>> = BTreeMap::new();
        for machine in machines {
            listed.entry(machine.instance).or_default().push(machine.cloud_id);
        }
        self.orphans.retain(|(of, instance)| of != solution || listed.contains_key(instance));
        let known = self.snapshot.machines_in(solution, InstanceState::Wanted..=InstanceState::Ending);
        let missing: Vec<InstanceId> = known.filter(|id| !listed.contains_key(*id)).cloned().collect();
        for (instance, ids) in listed {
            self.is_listed(solution, instance, ids);
        }
        for instance in missing {
            self.is_missing(solution, &instance, asked_at);
        }
    }

    fn is_listed(&mut self, solution: &SolutionId, instance: InstanceId, mut ids: Vec<String>) {
        let first = ids.swap_remove(0);
        let owned = self.snapshot.instances.get(&instance).filter(|i| i.machine.is_some() && i.solution == *solution);
        match owned.map(|i| i.state) {
            None | Some(InstanceState::Gone) => {
                let protected = self.settings.policy.do_not_terminate.contains(&instance);
                if !protected {
                    self.order_end(solution, &instance);
                }
                // Said once, not with every list until it is gone.
                if self.orphans.insert((solution.clone(), instance.clone())) {
                    let solution = solution.clone();
                    self.happen(vec![Event::OrphanFound { solution, instance, cloud_id: first, protected }]);
                }
            }
            Some(InstanceState::Ending) => self.order_end(solution, &instance),
            Some(_) if !ids.is_empty() => self.drain_machine(&instance, "the cloud made it twice"),
            Some(InstanceState::Wanted | InstanceState::Requested) => self.made(&instance, first),
            Some(_) => {}
        }
    }

    fn is_missing(&mut self, solution: &SolutionId, instance: &InstanceId, asked_at: Timestamp) {
        let Some(known) = self.snapshot.instances.get(instance) else { return };
        // What changed while the cloud was asked says nothing.
        if known.since >= asked_at {
            return;
        }
        match known.state {
            InstanceState::Wanted | InstanceState::Requested if asked_at.ms_since(known.since) >= ASK_AGAIN_MS => {
                self.order_make(solution, instance);
            }
            InstanceState::Booting | InstanceState::Ending => {
                let why = "the cloud does not have it".to_owned();
                self.happen(vec![Event::InstanceGone { instance: instance.clone(), why }]);
            }
            // Its agent's lease says whether it is there; a cloud's list may be late.
            _ => {}
        }
    }

    fn drain_machine(&mut self, instance: &InstanceId, why: &str) {
        let protected = self.settings.policy.do_not_terminate.contains(instance);
        if !protected && self.state_of(instance).is_some_and(|state| state < InstanceState::Draining) {
            self.happen(vec![Event::InstanceDraining { instance: instance.clone(), why: why.to_owned() }]);
        }
    }

    pub(super) fn order_make(&mut self, solution: &SolutionId, instance: &InstanceId) {
        let instance_type = self.snapshot.instances.get(instance).and_then(|i| i.facts.instance_type.clone());
        let (solution, instance) = (solution.clone(), instance.clone());
        self.turn.outputs.push(Output::MakeMachine { solution, instance, instance_type });
    }

    pub(super) fn order_end(&mut self, solution: &SolutionId, instance: &InstanceId) {
        self.turn.outputs.push(Output::EndMachine { solution: solution.clone(), instance: instance.clone() });
    }

    /// Asks the clouds what they have, where it is time to.
    pub(super) fn list_machines(&mut self) {
        let listed = |s: &Solution| s.dedicated().and_then(|d| d.machines.as_ref()).map(|machines| machines.list_ms);
        let solutions = &self.snapshot.solutions;
        // One that is configured no more would be due for ever.
        self.list_at.retain(|id, _| solutions.get(id).and_then(listed).is_some());
        for (id, list_ms) in solutions.values().filter_map(|s| Some((&s.id, listed(s)?))) {
            if self.list_at.get(id).is_none_or(|due| *due <= self.now) {
                self.turn.outputs.push(Output::ListMachines { solution: id.clone() });
                self.list_at.insert(id.clone(), self.now.after_ms(list_ms));
            }
        }
    }

    /// After a restart: what was wanted and perhaps not asked for is asked for again, by the same name; so
    /// is every end.
    pub(super) fn resume_machines(&mut self) {
        let solutions: Vec<SolutionId> = self.snapshot.solutions.keys().cloned().collect();
        for solution in solutions {
            let of = |states| self.snapshot.machines_in(&solution, states).cloned().collect::<Vec<_>>();
            let wanted = of(InstanceState::Wanted..=InstanceState::Requested);
            let ending = of(InstanceState::Ending..=InstanceState::Ending);
            for instance in wanted {
                self.order_make(&solution, &instance);
            }
            for instance in ending {
                self.order_end(&solution, &instance);
            }
        }
    }
}
