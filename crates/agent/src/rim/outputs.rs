//! Carrying out what the core says.

use std::sync::Arc;

use skein_domain::task::RunSpec;
use skein_wire::message::AttemptRef;
use skein_wire::{AttemptCommand, StartOrder};
use tokio::sync::mpsc;

use super::{Event, Over, Rim, SlotRim};
use crate::container::ContainerRun;
use crate::core::{Input, Output};
use crate::files::{self, FETCH_MS_MAX};
use crate::lane::retried;
use crate::launch;
use crate::logs::Watch;
use crate::spawner::{SpawnerEvent, StopSignal};

impl Rim {
    pub(super) fn carry_out(&mut self, output: Output) {
        match output {
            Output::Send(message) => self.post(message),
            Output::FetchOrder(of) => {
                let lane = self.lane.clone();
                self.in_background(of, async move {
                    let order = retried(FETCH_MS_MAX, || lane.order(of)).await.map_err(|e| e.to_string());
                    Input::OrderFetched(of, order)
                });
            }
            Output::Prepare(order) => self.prepare(order),
            Output::Spawn { slot, launch, order } => self.spawn(slot, launch, &order),
            Output::Signal { slot, launch, signal } => self.signal(slot, launch, signal),
            Output::Command { slot, launch, command } => self.command(slot, launch, command),
            Output::KillGroup(pid) => {
                if let Some(group) = rustix::process::Pid::from_raw(pid) {
                    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).ok();
                }
            }
            Output::Collect(order) => self.collect(order),
            Output::FlushLog(of) => self.flush_log(of),
            Output::Discard(of) => self.discard(of),
            Output::Leave => self.over = Some(Over::Left),
        }
    }

    /// Runs for one attempt; ends early when the attempt is discarded.
    fn in_background(&mut self, of: AttemptRef, work: impl Future<Output = Input> + Send + 'static) {
        let events = self.events.clone();
        let task = self.bulk.spawn(async move {
            events.send(Event::Core(work.await)).ok();
        });
        self.local(of).task = Some(task.abort_handle());
    }

    fn prepare(&mut self, order: Arc<StartOrder>) {
        let of = AttemptRef { attempt: order.attempt, generation: order.generation };
        match self.folder(&order) {
            Err(why) => {
                // Not now: the core is in the middle of a step.
                self.events.send(Event::Core(Input::Prepared(of, Err(why)))).ok();
            }
            Ok(folder) => {
                let (lane, cache) = (self.lane.clone(), self.fixed.cache.clone());
                self.in_background(of, async move {
                    Input::Prepared(of, files::place_inputs(&order, folder, cache, &lane).await)
                });
            }
        }
    }

    fn spawn(&mut self, slot: usize, launch: u64, order: &Arc<StartOrder>) {
        let failed = |why: String| Event::Core(Input::StartFailed { slot, launch, why });
        let folder = match self.folder(order) {
            Ok(folder) => folder,
            Err(why) => {
                self.events.send(failed(why)).ok();
                return;
            }
        };
        self.slots[slot].attempt = Some(AttemptRef { attempt: order.attempt, generation: order.generation });
        match (&order.run, &self.fixed.containers, &self.slots[slot].spawner) {
            (RunSpec::Command(argv), _, Some(spawner)) => {
                spawner.start(launch::launch(order, argv.clone(), launch, &folder, &self.fixed.programs));
            }
            (RunSpec::Container { image, args }, Some(engine), Some(spawner)) => {
                spawner.will(engine.socket.clone(), Some(ContainerRun::name(order)));
                let run =
                    ContainerRun { launch, image: image.clone(), args: args.clone(), order: Arc::clone(order), folder };
                let (signals, received) = mpsc::unbounded_channel();
                self.slots[slot].container = Some(signals);
                let (engine, events) = (engine.clone(), self.events.clone());
                self.bulk.spawn(async move {
                    let tell = |said| {
                        events.send(Event::Spawner(slot, SpawnerEvent::Said(said))).ok();
                    };
                    engine.run(run, received, tell).await;
                });
            }
            (RunSpec::Container { image, .. }, None, _) => {
                let why =
                    format!("container '{image}' needs a Docker or Podman socket, and none answers on this instance");
                self.events.send(failed(why)).ok();
            }
            (_, _, None) => {
                self.events.send(failed("the slot has no spawner just now".into())).ok();
            }
            (RunSpec::Function { reference }, ..) => {
                self.events.send(failed(format!("function '{reference}' cannot run on an instance"))).ok();
            }
        }
    }

    fn signal(&self, slot: usize, launch: u64, signal: StopSignal) {
        let SlotRim { spawner, container, .. } = &self.slots[slot];
        if let Some(container) = container {
            container.send(signal).ok();
        } else if let Some(spawner) = spawner {
            spawner.signal(launch, signal);
        }
    }

    fn command(&self, slot: usize, launch: u64, command: AttemptCommand) {
        let line = match command {
            AttemptCommand::Signal(number) => return self.signal(slot, launch, StopSignal::Other(number)),
            AttemptCommand::Line(line) => Some(line),
            AttemptCommand::EndOfInput => None,
        };
        if let Some(spawner) = &self.slots[slot].spawner {
            spawner.input(launch, line);
        }
    }

    fn collect(&mut self, order: Arc<StartOrder>) {
        let of = AttemptRef { attempt: order.attempt, generation: order.generation };
        let Some(folder) = self.local(of).folder.clone() else { return };
        let lane = self.lane.clone();
        self.in_background(of, async move { Input::Collected(of, files::bring_outputs(&order, folder, &lane).await) });
    }

    fn flush_log(&mut self, of: AttemptRef) {
        self.watch(of);
        let events = self.events.clone();
        self.pump.finish(of, move |note| {
            events.send(Event::Core(Input::LogFlushed(of, note))).ok();
        });
    }

    pub(super) fn watch(&mut self, of: AttemptRef) {
        let local = self.local(of);
        if local.watched {
            return;
        }
        if let (Some(order), Some(folder)) = (&local.order, &local.folder) {
            let watch = Watch::new(order, Arc::clone(folder));
            local.watched = true;
            self.pump.watch(watch);
        }
    }

    fn discard(&mut self, of: AttemptRef) {
        if self.attempts.get(&of.attempt).is_none_or(|(generation, _)| *generation != of.generation) {
            return;
        }
        let Some((_, local)) = self.attempts.remove(&of.attempt) else { return };
        if let Some(task) = local.task {
            task.abort();
        }
        if local.watched {
            self.pump.forget(of);
        }
    }
}
