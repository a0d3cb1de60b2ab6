//! Carries out what the writer let out: orders to agents and gateways, acknowledgements, leases.

use std::sync::{Arc, OnceLock};

use skein_domain::{InstanceId, Place};
use skein_wire::broker::Broker as _;
use skein_wire::{AttemptRef, OrderBody, ToAgent};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use crate::app::App;
use crate::core::{Input, OrderTo, Output};
use crate::writer::Rim;

/// The writer's way out: a queue, so that the writer never waits.
pub(crate) struct Queue(pub UnboundedSender<Vec<Output>>);

impl Rim for Queue {
    fn deliver(&mut self, outputs: Vec<Output>) {
        // The queue closes when the engine stops; what is undone is in the ledger.
        self.0.send(outputs).map_err(|_| ()).unwrap_or_default();
    }
}

/// Carries out outputs until the writer ends.
pub(crate) async fn run(app: Arc<OnceLock<Arc<App>>>, mut queue: UnboundedReceiver<Vec<Output>>) {
    while let Some(outputs) = queue.recv().await {
        let Some(app) = app.get() else { continue };
        let mut mail = Mail { app, to: None, messages: Vec::new() };
        for output in outputs {
            carry_out(app, &mut mail, output);
        }
        mail.send();
    }
}

/// Messages to one agent in a row travel together: a frame and a wake-up cost the same for one as for fifty.
struct Mail<'a> {
    app: &'a App,
    /// The agent, and its boot where the messages are for that one only.
    to: Option<(InstanceId, Option<String>)>,
    messages: Vec<ToAgent>,
}

impl Mail<'_> {
    fn add(&mut self, to: &InstanceId, message: ToAgent) {
        self.put(to, None, message);
    }

    fn put(&mut self, to: &InstanceId, boot: Option<&str>, message: ToAgent) {
        if self.to.as_ref().is_none_or(|(id, of)| id != to || of.as_deref() != boot) {
            self.send();
            self.to = Some((to.clone(), boot.map(str::to_owned)));
        }
        self.messages.push(message);
    }

    fn send(&mut self) {
        let Some((to, boot)) = self.to.take() else { return };
        let (messages, connections) = (std::mem::take(&mut self.messages), &self.app.connections);
        let sent = match boot {
            Some(boot) => connections.send_to_boot(&to, &boot, messages),
            None => connections.send(&to, messages),
        };
        if let Err(unreachable) = sent {
            tracing::debug!(%unreachable, "sent again when it says hello");
        }
    }
}

fn carry_out(app: &Arc<App>, mail: &mut Mail<'_>, output: Output) {
    match output {
        Output::StartOnAgent { order } => start_on_agent(app, mail, &order),
        Output::StartInGateway { order, resume } => crate::gateway::start(app, order, resume),
        Output::Cancel { attempt, generation, place: Place::Instance(instance), moving } => {
            mail.add(&instance, ToAgent::Cancel { attempt, generation, moving });
        }
        Output::Cancel { attempt, generation, place: Place::Gateway(solution), .. } => {
            crate::gateway::cancel(app, solution, AttemptRef { attempt, generation });
        }
        Output::Recall { attempt, generation, instance } => {
            mail.add(&instance, ToAgent::Recall { attempt, generation });
        }
        Output::Command { order, instance, command } => {
            let AttemptRef { attempt, generation } = order;
            mail.add(&instance, ToAgent::Command { attempt, generation, command });
        }
        Output::Recorded { instance, attempts } => mail.add(&instance, ToAgent::Recorded { attempts }),
        Output::DrainAgent { instance, why } => mail.add(&instance, ToAgent::Drain { why }),
        Output::Lease { instance, boot, heartbeat } => {
            app.metrics.heartbeats.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let settled = app.settled();
            let (lease_ms, heartbeat_ms) = (settled.settings.lease_ms, settled.heartbeat_ms);
            mail.put(&instance, Some(&boot), ToAgent::Lease { heartbeat, lease_ms, heartbeat_ms });
        }
        Output::TellReceivers => app.to_tell.notify_one(),
        Output::MakeMachine { solution, instance, instance_type } => {
            crate::machines::make(app, solution, instance, instance_type.as_deref());
        }
        Output::EndMachine { solution, instance } => crate::machines::end(app, solution, instance),
        Output::ListMachines { solution } => crate::machines::list(app, solution),
        Output::Scale { solution, min_warm } => crate::gateway::scale(app, solution, min_warm),
        Output::AskAlgorithm { ask, question } => app.plugin.ask(ask, question),
        Output::AlgorithmFailed { class, fault, rests } => {
            app.metrics.algorithm_failed(fault.word());
            tracing::warn!(class = &*class, %fault, rests, "the algorithm for CPU setting 0 failed; the default scheme places its items");
        }
        // The writer answers these itself.
        Output::Reply { .. } => {}
    }
}

fn start_on_agent(app: &App, mail: &mut Mail<'_>, order: &OrderTo) {
    let (attempt, generation) = (order.attempt.key, order.attempt.generation);
    let Place::Instance(instance) = &order.attempt.place else { return };
    match app.make_order(order) {
        Ok(made) => {
            let body = OrderBody::Inline(Box::new(made));
            mail.put(instance, Some(&order.attempt.boot), ToAgent::Start { attempt, generation, order: body });
        }
        Err(why) => {
            app.writer.tell(Input::OrderFailed { order: AttemptRef { attempt, generation }, why });
        }
    }
}
