//! Runs one attempt from beginning to end, without leases or generations: what a function does.
//! The spawner, the files and the logs are the same as on an agent.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use skein_domain::task::{RunSpec, check_path};
use skein_domain::{AttemptEnd, EndCause};
use skein_wire::StartOrder;
use skein_wire::message::AttemptRef;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::core::{CollectFailure, LOG_WAIT_MS, end_of};
use crate::error::AgentError;
use crate::files::{self, Cache};
use crate::folder::{Folder, Folders};
use crate::lane::Lane;
use crate::launch;
use crate::logs::{Pump, Watch};
use crate::spawner::{CgroupBase, Event, Exit, Programs, Spawner, SpawnerEvent, StopSignal, prepare_cgroups};

/// A spawner that waits, and what it says.
struct Ready {
    spawner: Spawner,
    events: mpsc::UnboundedReceiver<SpawnerEvent>,
    notes: Vec<String>,
}

/// Room for one attempt at a time, kept between invocations.
pub(crate) struct Room {
    programs: Programs,
    cgroups: CgroupBase,
    folders: Folders,
    cache: Cache,
    ready: Option<Ready>,
    launches: u64,
}

impl Room {
    /// A room in `dir`, with its spawner started beforehand.
    pub(crate) async fn open(dir: &Path, programs: Programs) -> Result<Self, AgentError> {
        let made = |e: std::io::Error| AgentError::folder("make", dir, &e);
        let mut room = Self {
            programs,
            cgroups: prepare_cgroups(),
            folders: Folders::open(dir, false).map_err(made)?,
            cache: Cache::open(dir).map_err(made)?,
            ready: None,
            launches: 0,
        };
        room.ready = Some(room.spawner().await.map_err(|why| AgentError::system("starting a spawner", &why))?);
        Ok(room)
    }

    async fn spawner(&self) -> Result<Ready, String> {
        let (sender, mut events) = mpsc::unbounded_channel();
        let tell = move |event| {
            sender.send(event).ok();
        };
        let spawner = Spawner::launch(&self.programs, 0, &self.cgroups, tell).map_err(|e| e.to_string())?;
        match events.recv().await {
            Some(SpawnerEvent::Said(Event::Ready { notes })) => Ok(Ready { spawner, events, notes }),
            other => Err(format!("it said {other:?} instead of being ready")),
        }
    }

    /// Runs an order; whatever happens, it has an end.
    pub(crate) async fn run(&mut self, order: StartOrder, lane: &Lane) -> AttemptEnd {
        let order = Arc::new(order);
        let not_started = |why: String| AttemptEnd::bare(EndCause::NotStarted { why });
        let argv = match &order.run {
            RunSpec::Command(argv) => argv.clone(),
            RunSpec::Container { image, .. } => {
                return not_started(format!(
                    "a function cannot start container '{image}': run it on an instance with a container engine"
                ));
            }
            RunSpec::Function { reference } => {
                return not_started(format!("function '{reference}' is not this runner: its gateway calls it itself"));
            }
        };
        if let Err(why) = order.inputs.iter().map(|i| &i.path).chain(&order.outputs).try_for_each(|p| check_path(p)) {
            return not_started(why);
        }
        let folder = match self.folders.take(format!("{}.{}", order.attempt, order.generation)) {
            Ok(folder) => Arc::new(folder),
            Err(e) => return not_started(format!("no folder could be made for it: {e}")),
        };
        if let Err(why) = files::place_inputs(&order, Arc::clone(&folder), self.cache.clone(), lane).await {
            return not_started(why);
        }
        self.process(&order, argv, &folder, lane).await
    }

    async fn process(
        &mut self,
        order: &Arc<StartOrder>,
        argv: Vec<String>,
        folder: &Arc<Folder>,
        lane: &Lane,
    ) -> AttemptEnd {
        let mut ready = match self.ready.take() {
            Some(ready) => ready,
            None => match self.spawner().await {
                Ok(ready) => ready,
                Err(why) => {
                    return AttemptEnd::bare(EndCause::NotStarted {
                        why: format!("no spawner could be started: {why}"),
                    });
                }
            },
        };
        self.launches += 1;
        let pump = Pump::start(lane.clone(), &Handle::current());
        let of = AttemptRef { attempt: order.attempt, generation: order.generation };
        pump.watch(Watch::new(order, Arc::clone(folder)));
        ready.spawner.start(launch::launch(order, argv, self.launches, folder, &self.programs));
        let (ended, timed_out) = follow(&mut ready, self.launches, order).await;
        let mut end = match ended {
            Ended::Exited(exit) => {
                if !exit.notes.is_empty() {
                    folder.taint();
                }
                let end = end_of(exit, order.memory_mb, ready.notes.clone());
                self.ready = Some(ready);
                end
            }
            Ended::NotStarted(why) => {
                self.ready = Some(ready);
                return AttemptEnd::bare(EndCause::NotStarted { why });
            }
            Ended::SpawnerGone => {
                folder.taint();
                AttemptEnd::bare(EndCause::Lost {
                    why: "the process that watched it is gone (killed, or out of memory)".into(),
                })
            }
        };
        if let Some(limit_ms) = timed_out {
            end.cause = EndCause::TimedOut { limit_ms };
        }
        let (logged, log_note) = oneshot::channel();
        pump.finish(of, move |note| drop(logged.send(note)));
        bring_outputs(order, folder, lane, &mut end).await;
        match tokio::time::timeout(Duration::from_millis(LOG_WAIT_MS), log_note).await {
            Ok(note) => end.notes.extend(note.ok().flatten()),
            Err(_) => end.notes.push(format!("the end of its log was not taken by the engine within {LOG_WAIT_MS} ms")),
        }
        end
    }
}

async fn bring_outputs(order: &Arc<StartOrder>, folder: &Arc<Folder>, lane: &Lane, end: &mut AttemptEnd) {
    if end.cause != EndCause::Succeeded || order.outputs.is_empty() {
        return;
    }
    match files::bring_outputs(order, Arc::clone(folder), lane).await {
        Ok(outputs) => end.outputs = outputs,
        Err(CollectFailure::Task(why)) => {
            end.cause = EndCause::Failed { exit_code: 0 };
            end.notes.push(why);
        }
        Err(CollectFailure::Place(why)) => end.cause = EndCause::Lost { why },
    }
}

enum Ended {
    Exited(Exit),
    NotStarted(String),
    SpawnerGone,
}

/// Waits for the end; at the time limit SIGTERM, after the grace SIGKILL. The limit comes back when
/// it was reached.
async fn follow(ready: &mut Ready, launch: u64, order: &StartOrder) -> (Ended, Option<u64>) {
    let began = Instant::now();
    let after = |ms: u64| began + Duration::from_millis(ms);
    let mut timed_out = None;
    let mut next = order.limit_ms.map(|limit| (after(limit), StopSignal::Term));
    loop {
        let event = tokio::select! {
            event = ready.events.recv() => event,
            () = sleep_until(next.map_or(began, |(at, _)| at)), if next.is_some() => {
                let Some((at, signal)) = next.take() else { continue };
                ready.spawner.signal(launch, signal);
                timed_out = order.limit_ms;
                if signal == StopSignal::Term {
                    next = Some((at + Duration::from_millis(order.grace_ms), StopSignal::Kill));
                }
                continue;
            }
        };
        let ended = match event {
            Some(SpawnerEvent::Said(Event::Exited(exit))) => Ended::Exited(exit),
            Some(SpawnerEvent::Said(Event::StartFailed { why, .. })) => Ended::NotStarted(why),
            Some(SpawnerEvent::Said(_)) => continue,
            Some(SpawnerEvent::Gone) | None => Ended::SpawnerGone,
        };
        return (ended, timed_out);
    }
}
