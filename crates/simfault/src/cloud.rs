//! A simulated cloud: it makes machines late, twice or never, loses answers, and lists late what it has.

use std::collections::{BTreeMap, BTreeSet};

use skein_domain::InstanceId;
use skein_engine::core::Listed;

/// What one cloud has.
#[derive(Debug, Default)]
pub(crate) struct Cloud {
    made: u64,
    /// By the cloud's own name: ours, and the machine of the world that runs it.
    has: BTreeMap<String, (InstanceId, usize)>,
    /// Names asked for; the same name again is the same machine, as with a client token.
    asked: BTreeSet<InstanceId>,
}

impl Cloud {
    /// Is this the first time that the name is asked for?
    pub(crate) fn ask(&mut self, name: &InstanceId) -> bool {
        self.asked.insert(name.clone())
    }

    /// It makes one.
    pub(crate) fn make(&mut self, name: InstanceId, machine: usize) -> String {
        self.made += 1;
        let cloud_id = format!("i-{}", self.made);
        self.has.insert(cloud_id.clone(), (name, machine));
        cloud_id
    }

    /// The cloud's name for a machine of ours.
    pub(crate) fn id_of(&self, name: &InstanceId) -> Option<String> {
        self.has.iter().find(|(_, (n, _))| n == name).map(|(id, _)| id.clone())
    }

    /// Ends every machine of a name; which they were.
    pub(crate) fn end(&mut self, name: &InstanceId) -> Vec<usize> {
        let mine = |(_, (n, machine)): (&String, &(InstanceId, usize))| (n == name).then_some(*machine);
        let machines = self.has.iter().filter_map(mine).collect();
        self.has.retain(|_, (n, _)| n != name);
        machines
    }

    /// One machine is gone without anybody having asked for it.
    pub(crate) fn lose(&mut self, machine: usize) {
        self.has.retain(|_, (_, m)| *m != machine);
    }

    pub(crate) fn list(&self) -> Vec<Listed> {
        let listed = |(cloud_id, (name, _)): (&String, &(InstanceId, usize))| Listed {
            instance: name.clone(),
            cloud_id: cloud_id.clone(),
        };
        self.has.iter().map(listed).collect()
    }

    /// Names of what it has.
    pub(crate) fn names(&self) -> impl Iterator<Item = &InstanceId> {
        self.has.values().map(|(name, _)| name)
    }
}
