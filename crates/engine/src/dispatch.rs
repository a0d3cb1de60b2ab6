//! Carries out what the writer let out: orders to agents and gateways, acknowledgements, leases.

use std::sync::{Arc, OnceLock};

use skein_domain::Place;
use skein_wire::broker::Broker as _;
use skein_wire::{AttemptRef, FRAME_BYTES_MAX, OrderBody, ToAgent};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use crate::app::App;
use crate::core::{Input, OrderTo, Output};
use crate::writer::Rim;

/// Room for a frame's own text around an order.
const FRAME_OVERHEAD_BYTES: usize = 1024;

/// The writer's way out: a queue, so that the writer never waits.
pub(crate) struct Queue(pub UnboundedSender<Output>);

impl Rim for Queue {
    fn deliver(&mut self, output: Output) {
        // The queue closes when the engine stops; what is undone is in the ledger.
        self.0.send(output).map_err(|_| ()).unwrap_or_default();
    }
}

/// Carries out outputs until the writer ends.
pub(crate) async fn run(app: Arc<OnceLock<Arc<App>>>, mut queue: UnboundedReceiver<Output>) {
    while let Some(output) = queue.recv().await {
        if let Some(app) = app.get() {
            carry_out(app, output);
        }
    }
}

fn carry_out(app: &Arc<App>, output: Output) {
    match output {
        Output::StartOnAgent { order } => start_on_agent(app, &order),
        Output::StartInGateway { order, resume } => crate::gateway::start(app, order, resume),
        Output::Cancel { attempt, generation, place: Place::Instance(instance), moving } => {
            send(app, &instance, ToAgent::Cancel { attempt, generation, moving });
        }
        Output::Cancel { attempt, generation, place: Place::Gateway(solution), .. } => {
            crate::gateway::cancel(app, solution, AttemptRef { attempt, generation });
        }
        Output::Recall { attempt, generation, instance } => {
            send(app, &instance, ToAgent::Recall { attempt, generation });
        }
        Output::Command { order, instance, command } => {
            let AttemptRef { attempt, generation } = order;
            send(app, &instance, ToAgent::Command { attempt, generation, command });
        }
        Output::Recorded { instance, attempts } => send(app, &instance, ToAgent::Recorded { attempts }),
        Output::DrainAgent { instance, why } => send(app, &instance, ToAgent::Drain { why }),
        Output::Lease { instance, heartbeat } => {
            app.metrics.heartbeats.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let settled = app.settled();
            let (lease_ms, heartbeat_ms) = (settled.settings.lease_ms, settled.heartbeat_ms);
            send(app, &instance, ToAgent::Lease { heartbeat, lease_ms, heartbeat_ms });
        }
        Output::TellReceivers => app.to_tell.notify_one(),
        Output::MakeMachine { solution, instance } => crate::machines::make(app, solution, instance),
        Output::EndMachine { solution, instance } => crate::machines::end(app, solution, instance),
        Output::ListMachines { solution } => crate::machines::list(app, solution),
        Output::Scale { solution, min_warm } => crate::gateway::scale(app, solution, min_warm),
        // The writer answers these itself.
        Output::Reply { .. } => {}
    }
}

fn send(app: &App, instance: &skein_domain::InstanceId, message: ToAgent) {
    if let Err(unreachable) = app.connections.send(instance, vec![message]) {
        tracing::debug!(%unreachable, "sent again when it says hello");
    }
}

fn start_on_agent(app: &App, order: &OrderTo) {
    let (attempt, generation) = (order.attempt.key, order.attempt.generation);
    let Place::Instance(instance) = &order.attempt.place else { return };
    match app.make_order(order) {
        Ok(made) => {
            let small = serde_json::to_string(&made).is_ok_and(|t| t.len() + FRAME_OVERHEAD_BYTES < FRAME_BYTES_MAX);
            let body = if small { OrderBody::Inline(Box::new(made)) } else { OrderBody::Fetch };
            let start = ToAgent::Start { attempt, generation, order: body };
            if let Err(unreachable) = app.connections.send_to_boot(instance, &order.attempt.boot, start) {
                tracing::debug!(%unreachable, "sent again when it says hello");
            }
        }
        Err(why) => {
            app.writer.tell(Input::OrderFailed { order: AttemptRef { attempt, generation }, why });
        }
    }
}
