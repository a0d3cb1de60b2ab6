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
    queue: UnboundedSender<Vec<ToAgent>>,
}

impl Connections {
    /// Takes a connection; returns its number, for [`Connections::remove`].
    pub(crate) fn add(&self, instance: &InstanceId, queue: UnboundedSender<Vec<ToAgent>>) -> u64 {
        let number = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.lock().insert(instance.clone(), Connection { number, queue });
        number
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
