//! The rim: carries out what the core says, and tells it what happened.

mod outputs;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use skein_domain::{AttemptKey, InstanceFacts};
use skein_wire::message::{AttemptRef, Hello};
use skein_wire::{FromAgent, PROTOCOL, StartOrder, ToAgent, frame};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::clock;
use crate::connect::identity::Identity;
use crate::connect::link::LinkEvent;
use crate::container::ContainerEngine;
use crate::core::{Core, Input};
use crate::files::Cache;
use crate::folder::{Folder, Folders};
use crate::lane::{Lane, retried};
use crate::logs::Pump;
use crate::spawner::{CgroupBase, Event as Said, Programs, Spawner, SpawnerEvent, StopSignal};

/// Large messages are offered this long, ms; an end is sent again by the core anyway.
const MESSAGES_MS_MAX: u64 = 30_000;
/// First pause before a spawner that died is started again, ms.
const RELAUNCH_MS_MIN: u64 = 100;
/// Longest such pause, ms.
const RELAUNCH_MS_MAX: u64 = 5_000;

/// Everything that can wake the agent.
#[derive(Debug)]
pub(crate) enum Event {
    Spawner(usize, SpawnerEvent),
    Link(LinkEvent),
    Core(Input),
    Relaunch(usize),
}

impl From<LinkEvent> for Event {
    fn from(event: LinkEvent) -> Self {
        Self::Link(event)
    }
}

/// What the rim knows of an attempt that is not over.
#[derive(Default)]
struct Local {
    order: Option<Arc<StartOrder>>,
    folder: Option<Arc<Folder>>,
    task: Option<AbortHandle>,
    runs: bool,
    watched: bool,
}

/// What starts attempts in one slot.
#[derive(Default)]
struct SlotRim {
    spawner: Option<Spawner>,
    attempt: Option<AttemptRef>,
    container: Option<mpsc::UnboundedSender<StopSignal>>,
    failures: u32,
}

/// What does not change while the agent runs.
pub(crate) struct Fixed {
    pub(crate) programs: Programs,
    pub(crate) cgroups: CgroupBase,
    pub(crate) facts: InstanceFacts,
    pub(crate) boot: String,
    pub(crate) cache: Cache,
    pub(crate) folders: Folders,
    pub(crate) containers: Option<ContainerEngine>,
}

/// Why the loop ends.
#[derive(Debug)]
pub(crate) enum Over {
    /// Drained.
    Left,
    /// The engine does not want this identity.
    Refused { why: String, next_step: String },
}

pub(crate) struct Rim {
    fixed: Fixed,
    identity: Identity,
    core: Core,
    lane: Lane,
    pump: Pump,
    events: mpsc::UnboundedSender<Event>,
    /// Where bulk work runs: not on the thread of the control lane.
    bulk: Handle,
    slots: Vec<SlotRim>,
    attempts: BTreeMap<AttemptKey, (u64, Local)>,
    frames: Option<mpsc::UnboundedSender<String>>,
    outbox: Vec<FromAgent>,
    /// Acknowledgements that may still become needless: a start or an end says as much.
    acknowledged: BTreeMap<AttemptKey, AttemptRef>,
    pub(crate) over: Option<Over>,
}

impl Rim {
    pub(crate) fn new(
        fixed: Fixed,
        identity: Identity,
        core: Core,
        lane: Lane,
        events: mpsc::UnboundedSender<Event>,
        bulk: Handle,
    ) -> Self {
        let slots = (0..fixed.facts.slots).map(|_| SlotRim::default()).collect();
        let pump = Pump::start(lane.clone(), &bulk);
        Self {
            fixed,
            identity,
            core,
            lane,
            pump,
            events,
            bulk,
            slots,
            attempts: BTreeMap::new(),
            frames: None,
            outbox: Vec::new(),
            acknowledged: BTreeMap::new(),
            over: None,
        }
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// Starts (or starts again) the spawner of a slot.
    pub(crate) fn launch_spawner(&mut self, slot: usize) -> std::io::Result<()> {
        let events = self.events.clone();
        let tell = move |event| {
            events.send(Event::Spawner(slot, event)).ok();
        };
        let spawner = Spawner::launch(&self.fixed.programs, slot, &self.fixed.cgroups, tell)?;
        self.slots[slot].spawner = Some(spawner);
        Ok(())
    }

    /// Takes one event in; what is to be sent waits for [`Rim::flush`].
    pub(crate) fn take(&mut self, event: Event) {
        match event {
            Event::Core(input) => self.step(input),
            Event::Spawner(slot, SpawnerEvent::Said(said)) => self.said(slot, said),
            Event::Spawner(slot, SpawnerEvent::Gone) => self.spawner_gone(slot),
            Event::Link(LinkEvent::Up(frames)) => self.frames = Some(frames),
            Event::Link(LinkEvent::Message(message)) => self.message(message),
            Event::Link(LinkEvent::Down(why)) => {
                if self.frames.take().is_some() {
                    tracing::warn!(why, "not connected to the engine any more");
                } else {
                    tracing::debug!(why, "the engine cannot be reached");
                }
                self.outbox.clear();
                self.acknowledged.clear();
                self.step(Input::Disconnected);
            }
            Event::Relaunch(slot) => {
                if let Err(error) = self.launch_spawner(slot) {
                    tracing::error!(slot, %error, "cannot start a spawner");
                    self.relaunch_later(slot);
                }
            }
        }
    }

    pub(crate) fn step(&mut self, input: Input) {
        for output in self.core.step(clock::now_ms(), input) {
            self.carry_out(output);
        }
    }

    fn message(&mut self, message: ToAgent) {
        match message {
            ToAgent::Challenge { nonce, engine, .. } => {
                let signature = self.identity.sign(&nonce, &self.fixed.boot);
                let (Some(signature), true) = (signature, engine == self.identity.engine) else {
                    tracing::error!(%engine, expected = %self.identity.engine, "another engine answers, or its challenge makes no sense");
                    self.frames = None;
                    return;
                };
                let hello = Hello {
                    protocol: PROTOCOL,
                    engine,
                    instance: self.identity.instance.clone(),
                    boot: self.fixed.boot.clone(),
                    facts: self.fixed.facts.clone(),
                    holding: self.core.holding(),
                    signature,
                    draining: self.core.draining(),
                };
                self.step(Input::HelloSent);
                self.outbox.push(FromAgent::Hello(Box::new(hello)));
            }
            ToAgent::Refused { why, next_step, retry } => {
                tracing::warn!(why, next_step, retry, "the engine refused this agent");
                self.frames = None;
                if !retry {
                    self.over = Some(Over::Refused { why, next_step });
                }
            }
            ToAgent::Welcome { ref lane_token, .. } => {
                tracing::info!(instance = %self.identity.instance, engine = %self.identity.engine, "connected");
                self.lane.set_token(lane_token);
                self.step(Input::Message(message));
            }
            message => self.step(Input::Message(message)),
        }
    }

    fn said(&mut self, slot: usize, said: Said) {
        match said {
            Said::Ready { notes } => {
                self.slots[slot].failures = 0;
                self.step(Input::SlotReady { slot, notes });
            }
            Said::Started { id, pid } => self.process_started(slot, id, Some(pid).filter(|pid| *pid > 0)),
            Said::StartFailed { id, why } => {
                self.container_over(slot);
                self.step(Input::StartFailed { slot, launch: id, why });
            }
            Said::Exited(exit) => self.process_ended(slot, exit),
        }
    }

    fn process_started(&mut self, slot: usize, launch: u64, pid: Option<i32>) {
        if let Some(local) = self.local_in(slot) {
            local.runs = true;
        }
        self.step(Input::Started { slot, launch, pid });
    }

    fn process_ended(&mut self, slot: usize, exit: crate::spawner::Exit) {
        if let Some(local) = self.local_in(slot) {
            local.runs = false;
            if let Some(folder) = &local.folder {
                // A note here means that something may have been left behind.
                if !exit.notes.is_empty() {
                    folder.taint();
                } else if exit.clean {
                    folder.pristine();
                }
            }
        }
        self.container_over(slot);
        self.step(Input::Exited { slot, exit });
    }

    /// The container that ran in a slot is removed, if there was one.
    fn container_over(&mut self, slot: usize) {
        if self.slots[slot].container.take().is_some()
            && let (Some(engine), Some(spawner)) = (&self.fixed.containers, &self.slots[slot].spawner)
        {
            spawner.will(engine.socket.clone(), None);
        }
    }

    fn local_in(&mut self, slot: usize) -> Option<&mut Local> {
        let of = self.slots.get(slot)?.attempt?;
        self.attempts
            .get_mut(&of.attempt)
            .filter(|(generation, _)| *generation == of.generation)
            .map(|(_, local)| local)
    }

    fn spawner_gone(&mut self, slot: usize) {
        (self.slots[slot].spawner, self.slots[slot].container) = (None, None);
        if let Some(folder) = self.local_in(slot).and_then(|local| local.folder.as_ref()) {
            folder.taint();
        }
        tracing::warn!(slot, "the spawner of a slot is gone; another is started");
        self.step(Input::SlotDown { slot });
        self.relaunch_later(slot);
    }

    fn relaunch_later(&mut self, slot: usize) {
        let failures = &mut self.slots[slot].failures;
        let pause_ms = (RELAUNCH_MS_MIN << (*failures).min(10)).min(RELAUNCH_MS_MAX);
        *failures += 1;
        let events = self.events.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            events.send(Event::Relaunch(slot)).ok();
        });
    }

    fn local(&mut self, of: AttemptRef) -> &mut Local {
        let entry = self.attempts.entry(of.attempt).or_insert_with(|| (of.generation, Local::default()));
        if entry.0 != of.generation {
            *entry = (of.generation, Local::default());
        }
        &mut entry.1
    }

    /// The folder of an order, taken when it is first needed.
    fn folder(&mut self, order: &Arc<StartOrder>) -> Result<Arc<Folder>, String> {
        let of = AttemptRef { attempt: order.attempt, generation: order.generation };
        if let Some(folder) = &self.local(of).folder {
            return Ok(Arc::clone(folder));
        }
        let name = format!("{}.{}", order.attempt, order.generation);
        let taken = self.fixed.folders.take(name);
        let folder =
            Arc::new(taken.map_err(|e| format!("no folder could be made for it: {e}; is the agent's disk full?"))?);
        let local = self.local(of);
        (local.folder, local.order) = (Some(Arc::clone(&folder)), Some(Arc::clone(order)));
        Ok(folder)
    }

    /// Follows the logs of attempts that run for longer than a moment: called now and then, so that
    /// short attempts never come near the pump.
    pub(crate) fn watch_running(&mut self) {
        let unwatched = |(attempt, (generation, local)): (&AttemptKey, &(u64, Local))| {
            (local.runs && !local.watched).then_some(AttemptRef { attempt: *attempt, generation: *generation })
        };
        let new: Vec<AttemptRef> = self.attempts.iter().filter_map(unwatched).collect();
        for of in new {
            self.watch(of);
        }
    }

    pub(crate) fn has_unwatched(&self) -> bool {
        self.attempts.values().any(|(_, local)| local.runs && !local.watched)
    }

    /// Is there anything to send that somebody waits for? Acknowledgements can go with it, and while
    /// there is work at hand for every slot, results too: two attempts a slot, since a turn of the engine
    /// takes longer than a short attempt.
    pub(crate) fn is_pressing(&self) -> bool {
        let busy = self.core.at_hand() > 2 * self.slots.len();
        self.outbox.iter().any(|message| match message {
            FromAgent::Started(_) => false,
            FromAgent::Ended { .. } => !busy,
            _ => true,
        })
    }

    /// Are there results among what may wait?
    pub(crate) fn has_results(&self) -> bool {
        self.outbox.iter().any(|message| matches!(message, FromAgent::Ended { .. }))
    }

    /// Takes a message to be sent.
    fn post(&mut self, message: FromAgent) {
        match &message {
            FromAgent::Accepted(of) => {
                self.acknowledged.insert(of.attempt, *of);
                return;
            }
            FromAgent::Started(of) | FromAgent::OrderRefused { order: of, .. } => {
                self.acknowledged.remove(&of.attempt);
            }
            FromAgent::Ended { order, .. } => {
                self.acknowledged.remove(&order.attempt);
                // The end says how long it ran.
                self.outbox.retain(|earlier| !matches!(earlier, FromAgent::Started(of) if of == order));
            }
            _ => {}
        }
        self.outbox.push(message);
    }

    /// Acknowledges what is neither started nor refused by now.
    pub(crate) fn acknowledge(&mut self) {
        let acknowledged = std::mem::take(&mut self.acknowledged);
        self.outbox.extend(acknowledged.into_values().map(FromAgent::Accepted));
    }

    pub(crate) fn has_acknowledgements(&self) -> bool {
        !self.acknowledged.is_empty()
    }

    pub(crate) fn has_mail(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Sends what has gathered: small messages packed into few frames, large ones over the bulk lane.
    pub(crate) fn flush(&mut self) {
        if self.outbox.is_empty() {
            return;
        }
        let messages = std::mem::take(&mut self.outbox);
        let Some(frames) = &self.frames else { return };
        let (texts, large) = match frame::pack(&messages) {
            Ok(packed) => packed,
            Err(error) => {
                tracing::error!(%error, "messages that cannot be written");
                return;
            }
        };
        for text in texts {
            frames.send(text).ok();
        }
        for message in large {
            let lane = self.lane.clone();
            self.bulk.spawn(async move {
                let Ok(body) = frame::encode(&[message]) else { return };
                if let Err(error) = retried(MESSAGES_MS_MAX, || lane.messages(body.clone())).await {
                    tracing::warn!(%error, "a large message did not reach the engine");
                }
            });
        }
    }

    /// A sender of events, for work outside the loop.
    pub(crate) fn events(&self) -> mpsc::UnboundedSender<Event> {
        self.events.clone()
    }

    /// Ends the connection and the spawners; so many ends are to be waited for.
    pub(crate) fn close(&mut self) -> usize {
        let connection = self.frames.take().map(|_| 1);
        let spawners = self.slots.iter_mut().filter_map(|slot| slot.spawner.take()).count();
        connection.unwrap_or(0) + spawners
    }

    /// Is this one of the ends that follow [`Rim::close`]?
    pub(crate) fn is_end(event: &Event) -> bool {
        matches!(event, Event::Link(LinkEvent::Down(_)) | Event::Spawner(_, SpawnerEvent::Gone))
    }

    /// Removes all attempts' folders.
    pub(crate) fn remove_folders(&self) {
        self.fixed.folders.remove();
    }
}
