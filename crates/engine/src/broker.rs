//! The embedded broker: one WebSocket per agent, dialled by the agent, on the API's port.
//!
//! Sending never blocks: messages go to the connection's own queue and a task writes them. An agent
//! that connects again replaces its old connection; what was queued there is in the ledger and is sent
//! again after its hello.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use skein_domain::InstanceId;
use skein_wire::ToAgent;
use skein_wire::broker::{Broker, Unreachable};
use tokio::sync::mpsc::UnboundedSender;

/// Agents connected now.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    by_instance: Mutex<HashMap<InstanceId, Connection>>,
    next: std::sync::atomic::AtomicU64,
}

#[derive(Debug)]
struct Connection {
    number: u64,
    /// The boot of the agent that said hello on it.
    boot: String,
    queue: UnboundedSender<Vec<ToAgent>>,
}

impl Connections {
    /// Takes a connection; returns its number, for [`Connections::remove`].
    pub(crate) fn add(&self, instance: &InstanceId, boot: &str, queue: UnboundedSender<Vec<ToAgent>>) -> u64 {
        let number = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.lock().insert(instance.clone(), Connection { number, boot: boot.to_owned(), queue });
        number
    }

    /// Sends to this boot of an agent, and to no other: one that was started anew and whose hello waits for its turn
    /// would start what that turn takes for lost and gives to another.
    pub(crate) fn send_to_boot(&self, to: &InstanceId, boot: &str, messages: Vec<ToAgent>) -> Result<(), Unreachable> {
        let all = self.lock();
        let connection = all.get(to).filter(|c| c.boot == boot).ok_or_else(|| Unreachable(to.clone()))?;
        connection.queue.send(messages).map_err(|_| Unreachable(to.clone()))
    }

    /// Forgets a connection that ended; false when a newer one has taken its place.
    pub(crate) fn remove(&self, instance: &InstanceId, number: u64) -> bool {
        let mut all = self.lock();
        let newer = all.get(instance).is_some_and(|c| c.number != number);
        if !newer {
            all.remove(instance);
        }
        !newer
    }

    /// Ends every connection.
    pub(crate) fn close_all(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<InstanceId, Connection>> {
        self.by_instance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broker for Connections {
    fn send(&self, to: &InstanceId, messages: Vec<ToAgent>) -> Result<(), Unreachable> {
        let all = self.lock();
        let connection = all.get(to).ok_or_else(|| Unreachable(to.clone()))?;
        connection.queue.send(messages).map_err(|_| Unreachable(to.clone()))
    }

    fn disconnect(&self, agent: &InstanceId) {
        self.lock().remove(agent);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use skein_wire::ToAgent;
    use tokio::sync::mpsc::unbounded_channel;

    use super::Connections;

    #[test]
    fn an_order_to_an_earlier_boot_does_not_reach_the_one_that_took_its_place() {
        let (connections, instance) = (Connections::default(), "a".parse().unwrap());
        let order = || vec![ToAgent::Drain { why: "any".into() }];
        let ((old, mut to_old), (new, mut to_new)) = (unbounded_channel(), unbounded_channel());
        connections.add(&instance, "1", old);
        connections.send_to_boot(&instance, "1", order()).unwrap();
        assert!(to_old.try_recv().is_ok());
        connections.add(&instance, "2", new);
        connections.send_to_boot(&instance, "1", order()).unwrap_err();
        assert!(to_new.try_recv().is_err());
        connections.send_to_boot(&instance, "2", order()).unwrap();
        assert!(to_new.try_recv().is_ok());
    }
}
