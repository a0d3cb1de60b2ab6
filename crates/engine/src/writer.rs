//! The writer: one thread that owns the core and the ledger.
//!
//! ```text
//! inputs (channel) --> drain all --> core.turn --> commit --> outputs
//!                                                    |
//!                                                    +-- failed: nothing leaves; callers get an error,
//!                                                        core and snapshot are loaded anew
//! ```
//! Group commit is what draining all of the channel does: while one commit waits for the disk, the next
//! turn's inputs gather. Results of agents that still have work at hand gather for up to [`GATHER_MS`]:
//! nobody waits for them, and a turn costs the same for one as for fifty. Turns that nobody waits for (`sent`, `started`) are written with the next one
//! that somebody does, or after [`LAZY_MS`].

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use skein_domain::Timestamp;
use skein_domain::decide::Snapshot;
use skein_domain::event::Event;
use skein_store::{Ledger, Limits, Removed, StoreError, Turn};
use tokio::sync::{oneshot, watch};

use crate::clock;
use crate::core::{Answer, Core, Input, Output, Refusal, ReplyId, Settings, TurnResult};

/// Most inputs of one turn.
const INPUTS_PER_TURN_MAX: usize = 4096;
/// Results that no agent waits for gather for at most this, ms.
const GATHER_MS: u64 = 5;
/// A turn that nobody waits for is written after this, ms.
const LAZY_MS: u64 = 50;
/// After a turn that could not be written the next waits for this, ms, times the failures in a row ...
const RETRY_MS: u64 = 50;
/// ... but not longer than this, ms: leases must not end because of it.
const RETRY_MS_MAX: u64 = 1_000;
/// How often the ledger is read after that before the engine gives up.
const LOADS_MAX: u32 = 20;

/// What the writer thread is told.
enum Command {
    Input(Box<Input>),
    Look(Box<dyn FnOnce(&Core) + Send>),
    Retain(Limits, oneshot::Sender<Result<Removed, String>>),
    Stop,
}

/// The way to the writer, for any number of threads.
#[derive(Clone)]
pub struct Writer {
    commands: Sender<Command>,
    replies: Arc<Replies>,
    committed: watch::Receiver<u64>,
    unwritten: watch::Receiver<Option<Failure>>,
}

#[derive(Default)]
struct Replies {
    next: std::sync::atomic::AtomicU64,
    open: Mutex<HashMap<ReplyId, oneshot::Sender<Result<Answer, Failure>>>>,
}

/// Why an input was not done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// The core refused.
    #[error("{}", .0.why)]
    Refused(Refusal),
    /// The ledger could not be written.
    #[error("the ledger could not be written ({0}); nothing was changed: try again")]
    Ledger(String),
    /// Its disk is full.
    #[error(
        "the disk of the engine's folder is full: nothing new is taken, and nothing was changed; make room there and try again"
    )]
    DiskFull,
    /// Its disk only reads.
    #[error(
        "the disk of the engine's folder is read-only: nothing new is taken, and nothing was changed; make it writable (the system's log says why it is not) and try again"
    )]
    ReadOnly,
    /// The engine is stopping.
    #[error("the engine is stopping")]
    Stopping,
}

/// Receives outputs after their commit. Must not block.
pub trait Rim: Send {
    /// Carries out what one commit let out, in order.
    fn deliver(&mut self, outputs: Vec<Output>);
}

impl Writer {
    /// Starts the thread over `ledger`.
    pub fn start(
        mut ledger: Box<dyn Ledger>,
        settings: Settings,
        rim: Box<dyn Rim>,
    ) -> Result<(Self, std::thread::JoinHandle<()>), StoreError> {
        let (commands, inbox) = channel();
        let (announce, committed) = watch::channel(0);
        let (say, unwritten) = watch::channel(None);
        let core = Core::new(Snapshot::load(ledger.load()?), settings.clone(), clock::now());
        let replies = Arc::new(Replies::default());
        let thread = Thread {
            ledger,
            core,
            settings,
            rim,
            inbox,
            failures: 0,
            say,
            announce,
            replies: replies.clone(),
            held: None,
        };
        let handle = std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || thread.run())
            .map_err(|source| StoreError::Io { what: "starting the writer", path: "thread".into(), source })?;
        Ok((Self { commands, replies, committed, unwritten }, handle))
    }

    /// Tells without waiting.
    pub fn tell(&self, input: Input) {
        // A closed channel means that the engine is stopping; the ledger keeps what matters.
        self.commands.send(Command::Input(Box::new(input))).unwrap_or_default();
    }

    /// Asks, and waits for the commit.
    pub async fn ask(&self, input: impl FnOnce(ReplyId) -> Input) -> Result<Answer, Failure> {
        let reply = self.replies.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.replies.open.lock().unwrap_or_else(PoisonError::into_inner).insert(reply, sender);
        self.tell(input(reply));
        receiver.await.unwrap_or(Err(Failure::Stopping))
    }

    /// Looks at the core between two turns. Keep it short: the engine waits.
    pub async fn look<T: Send + 'static>(&self, look: impl FnOnce(&Core) -> T + Send + 'static) -> Result<T, Failure> {
        let (sender, receiver) = oneshot::channel();
        let look = move |core: &Core| {
            // The asker may have gone away.
            sender.send(look(core)).map_err(|_| ()).unwrap_or_default();
        };
        self.commands.send(Command::Look(Box::new(look))).map_err(|_| Failure::Stopping)?;
        receiver.await.map_err(|_| Failure::Stopping)
    }

    /// Removes what is beyond its limits.
    pub async fn retain(&self, limits: Limits) -> Result<Removed, Failure> {
        let (sender, receiver) = oneshot::channel();
        self.commands.send(Command::Retain(limits, sender)).map_err(|_| Failure::Stopping)?;
        receiver.await.map_err(|_| Failure::Stopping)?.map_err(Failure::Ledger)
    }

    /// Changes with every commit.
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.committed.clone()
    }

    /// Why the ledger cannot be written to, as far as is known now.
    pub fn unwritten(&self) -> Option<Failure> {
        self.unwritten.borrow().clone()
    }

    /// Ends the thread after what is in hand.
    pub fn stop(&self) {
        self.commands.send(Command::Stop).unwrap_or_default();
    }
}

struct Thread {
    ledger: Box<dyn Ledger>,
    core: Core,
    settings: Settings,
    rim: Box<dyn Rim>,
    inbox: Receiver<Command>,
    /// Turns in a row that could not be written.
    failures: u32,
    /// Tells why the last could not.
    say: watch::Sender<Option<Failure>>,
    announce: watch::Sender<u64>,
    replies: Arc<Replies>,
    /// Turns not written yet because nobody waits for them, and until when.
    held: Option<(TurnResult, Timestamp)>,
}

impl Thread {
    fn run(mut self) {
        loop {
            let mut commands = Vec::new();
            match self.wait() {
                Ok(command) => commands.push(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            commands.extend(self.inbox.try_iter().take(INPUTS_PER_TURN_MAX));
            self.gather(&mut commands);
            if !self.handle(commands) {
                break;
            }
        }
        self.flush();
        self.replies.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Takes more in while all that came is news of agents that have work at hand.
    fn gather(&self, commands: &mut Vec<Command>) {
        let mut at_hand = BTreeMap::new();
        let until = clock::now().after_ms(GATHER_MS);
        let mut looked = 0;
        while commands.len() < INPUTS_PER_TURN_MAX {
            let pressing = |command: &Command| match command {
                Command::Input(input) => !self.core.can_wait(input, &mut at_hand),
                _ => true,
            };
            if commands.is_empty() || commands[looked..].iter().any(pressing) {
                return;
            }
            looked = commands.len();
            let left = Duration::from_micros(wait_us(until, clock::now()));
            match self.inbox.recv_timeout(left) {
                Ok(command) => commands.push(command),
                Err(_) => return,
            }
            commands.extend(self.inbox.try_iter().take(INPUTS_PER_TURN_MAX));
        }
    }

    fn wait(&self) -> Result<Command, RecvTimeoutError> {
        let again = (self.failures > 0).then(|| clock::now().after_ms(RETRY_MS_MAX));
        let due = [self.core.next_wake(), self.held.as_ref().map(|(_, until)| *until), again];
        let due = due.into_iter().flatten().min();
        match due {
            Some(due) => self.inbox.recv_timeout(Duration::from_micros(wait_us(due, clock::now()))),
            None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// One turn over the inputs among `commands`; false when the thread is to end.
    fn handle(&mut self, commands: Vec<Command>) -> bool {
        let (mut inputs, mut looks, mut go_on) = (Vec::new(), Vec::new(), true);
        for command in commands {
            match command {
                Command::Input(input) => {
                    if let Input::Configure { settings, .. } = &*input {
                        self.settings = (**settings).clone();
                    }
                    inputs.push(*input);
                }
                Command::Look(look) => looks.push(look),
                Command::Retain(limits, reply) => {
                    let removed = self.ledger.retain(&limits, clock::now()).map_err(|e| e.to_string());
                    reply.send(removed).map_err(|_| ()).unwrap_or_default();
                }
                Command::Stop => go_on = false,
            }
        }
        let now = clock::now();
        let turn = self.core.turn(now, inputs);
        self.finish(turn, now);
        for look in looks {
            look(&self.core);
        }
        go_on
    }

    fn finish(&mut self, turn: TurnResult, now: Timestamp) {
        let (mut turn, until) = match self.held.take() {
            Some((held, until)) => (merge(held, turn), until),
            None => (turn, now.after_ms(LAZY_MS)),
        };
        if turn.lazy && !turn.is_empty() && now < until {
            self.let_out(&mut turn);
            self.held = Some((turn, until));
        } else {
            self.write(turn);
        }
    }

    fn flush(&mut self) {
        if let Some((turn, _)) = self.held.take() {
            self.write(turn);
        }
    }

    /// Outputs of a turn that nobody waits for say nothing that a lost commit could make untrue.
    fn let_out(&mut self, turn: &mut TurnResult) {
        let is_reply = |output: &mut Output| matches!(output, Output::Reply { .. });
        for output in turn.outputs.extract_if(.., is_reply) {
            if let Output::Reply { reply, answer } = output {
                self.reply(reply, answer.map_err(Failure::Refused));
            }
        }
        if !turn.outputs.is_empty() {
            self.rim.deliver(std::mem::take(&mut turn.outputs));
        }
    }

    fn write(&mut self, mut turn: TurnResult) {
        if !turn.is_empty() {
            let row = Turn {
                turn: turn.turn,
                at: turn.at,
                events: &turn.events,
                earlier: &turn.earlier,
                changes: &turn.changes,
                side: &turn.side,
            };
            if let Err(error) = self.ledger.commit(&row) {
                return self.recover(turn, &error);
            }
            self.written();
        }
        turn.events.iter().for_each(say_budget);
        self.let_out(&mut turn);
        if self.failures > 0 {
            // Whoever waits for the engine to be well again may send nothing until it says so.
            match self.ledger.probe() {
                Ok(()) => self.written(),
                Err(error) => self.not_written(&error),
            }
        }
        if !turn.events.is_empty() {
            self.announce.send_replace(turn.turn);
        }
    }

    fn written(&mut self) {
        if self.failures > 0 {
            tracing::info!(failures = self.failures, "the ledger can be written again");
            self.failures = 0;
            self.say.send_replace(None);
        }
    }

    fn not_written(&mut self, error: &StoreError) {
        if matches!(error, StoreError::Fenced { .. }) {
            // Another writes this ledger now: whatever is decided here would be refused for ever.
            tracing::error!(%error, "the engine stops");
            self.replies.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
            std::process::exit(70);
        }
        self.failures += 1;
        self.say.send_replace(Some(Failure::of(error)));
    }

    fn reply(&self, reply: ReplyId, answer: Result<Answer, Failure>) {
        let waiting = self.replies.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&reply);
        if let Some(waiting) = waiting {
            // The asker may have gone away.
            waiting.send(answer).map_err(|_| ()).unwrap_or_default();
        }
    }

    /// What the ledger has. A disk that gives no answer now may give one soon.
    fn load(&mut self) -> Result<skein_domain::decide::snapshot::Stored, StoreError> {
        for _ in 1..LOADS_MAX {
            match self.ledger.load() {
                Ok(stored) => return Ok(stored),
                Err(error) => tracing::error!(%error, "the ledger cannot be read; trying again"),
            }
            std::thread::sleep(Duration::from_millis(RETRY_MS_MAX));
        }
        self.ledger.load()
    }

    /// The turn is not in the ledger: nobody may act on it. Start again from what the ledger has.
    fn recover(&mut self, turn: TurnResult, error: &StoreError) {
        self.not_written(error);
        tracing::error!(%error, failures = self.failures, "a turn could not be written; starting again from the ledger");
        for output in &turn.outputs {
            if let Output::Reply { reply, .. } = output {
                self.reply(*reply, Err(Failure::of(error)));
            }
        }
        // Leases are not in the ledger, and every agent gets a full term below: what runs must not be stopped
        // because the disk takes no turns.
        let is_lease = |output: &Output| matches!(output, Output::Lease { .. });
        self.rim.deliver(turn.outputs.into_iter().filter(is_lease).collect());
        // What comes in waits meanwhile: each try reads the whole open state.
        std::thread::sleep(Duration::from_millis((u64::from(self.failures) * RETRY_MS).min(RETRY_MS_MAX)));
        match self.load() {
            Ok(stored) => {
                let mut live = Vec::new();
                for id in self.core.snapshot().instances.keys() {
                    live.push((id.clone(), self.core.snapshot().live(id)));
                }
                let mut snapshot = Snapshot::load(stored);
                for (id, known) in live {
                    snapshot.set_live(&id, known);
                }
                self.core = Core::reloaded(snapshot, self.settings.clone(), clock::now(), turn.resumes, turn.owed);
            }
            Err(error) => {
                tracing::error!(%error, "the ledger cannot be read either, however often it is tried; the engine stops");
                self.replies.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
                std::process::exit(70);
            }
        }
    }
}

impl Failure {
    fn of(error: &StoreError) -> Self {
        match error {
            full if full.is_full() => Self::DiskFull,
            fixed if fixed.is_read_only() => Self::ReadOnly,
            other => Self::Ledger(other.to_string()),
        }
    }
}

fn wait_us(due: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(due.0.saturating_sub(now.0)).unwrap_or(0)
}

/// Two turns written as one: later rows replace earlier ones because each is written whole.
fn merge(mut first: TurnResult, second: TurnResult) -> TurnResult {
    first.earlier.push((first.events.len(), first.turn, first.at));
    (first.turn, first.at) = (second.turn, second.at);
    first.events.extend(second.events);
    first.changes.extend(second.changes);
    first.side.extend(second.side);
    first.outputs.extend(second.outputs);
    first.owed.extend(second.owed);
    first.lazy = second.lazy;
    first
}

/// What a cap stops, or soon will, is said in the engine's log too.
fn say_budget(event: &Event) {
    match event {
        Event::BudgetReached { session, over } => tracing::warn!(%session, "paused: {over}; {}", over.cap.next_step()),
        Event::BudgetWarned { cap, said, spent, open } => {
            let (percent, limit) = (said.percent, said.limit);
            tracing::warn!(
                "{cap} is {limit}: {percent} % of it reached ({spent} spent, {open} expected of what is open)"
            );
        }
        _ => {}
    }
}
