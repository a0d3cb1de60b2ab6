//! Sends the logs of all attempts of one agent, one request at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use skein_domain::AttemptKey;
use skein_wire::StartOrder;
use skein_wire::lane::{LOGS_BYTES_MAX, LogChunk, LogCredit, Stream, encode_logs};
use skein_wire::message::AttemptRef;
use tokio::sync::mpsc;

use super::tail::Tail;
use super::{LOG_BYTES_MAX, LOG_OFFER_MS_MAX, LOG_POLL_MS, Redactor};
use crate::clock;
use crate::folder::Folder;
use crate::lane::{Lane, LaneError};

/// Room for the headers of chunks in a request, bytes.
const HEADERS_BYTES: usize = 64 * 1024;
/// Chunks in one request.
const CHUNKS_MAX: usize = 256;
/// Longest pause after a request that failed, ms.
const BACKOFF_MS_MAX: u64 = 2_000;

/// Called once with a note, or none when the whole log is with the engine.
type Done = Box<dyn FnOnce(Option<String>) + Send>;

/// An attempt whose log is to be sent. Holds the folder as long as the log is not through.
#[derive(Debug)]
pub struct Watch {
    /// Whose.
    pub of: AttemptRef,
    /// Where the files are.
    pub folder: Arc<Folder>,
    redactor: Redactor,
}

impl Watch {
    /// The log of an order's attempt.
    pub fn new(order: &StartOrder, folder: Arc<Folder>) -> Self {
        let secrets = order.secret_env.iter().filter_map(|name| order.env.get(name)).map(String::as_str);
        let of = AttemptRef { attempt: order.attempt, generation: order.generation };
        Self { of, folder, redactor: Redactor::new(secrets) }
    }
}

enum Command {
    Watch(Watch),
    Finish(AttemptRef, Done),
    Forget(AttemptRef),
}

/// The handle of the task that sends logs; the task ends with it.
#[derive(Debug, Clone)]
pub struct Pump {
    commands: mpsc::UnboundedSender<Command>,
}

impl Pump {
    /// Starts the task on a runtime.
    pub(crate) fn start(lane: Lane, on: &tokio::runtime::Handle) -> Self {
        let (commands, received) = mpsc::unbounded_channel();
        let sender =
            Sender { lane, logs: BTreeMap::new(), credit: LOGS_BYTES_MAX as u64, not_before: 0, failures: 0, alone: 0 };
        on.spawn(sender.run(received));
        Self { commands }
    }

    /// Follows a running attempt's log.
    pub fn watch(&self, watch: Watch) {
        self.commands.send(Command::Watch(watch)).ok();
    }

    /// The attempt has ended: sends the rest, then calls `done`. Must follow a `watch`.
    pub fn finish(&self, of: AttemptRef, done: impl FnOnce(Option<String>) + Send + 'static) {
        self.commands.send(Command::Finish(of, Box::new(done))).ok();
    }

    /// Nothing (more) of this attempt is to be sent, unless its end is already being sent.
    pub fn forget(&self, of: AttemptRef) {
        self.commands.send(Command::Forget(of)).ok();
    }
}

struct Log {
    watch: Watch,
    tails: [Tail; 2],
    left: u64,
    over_at: Option<u64>,
    done: Option<Done>,
    refused: Option<String>,
}

struct Sender {
    lane: Lane,
    logs: BTreeMap<(AttemptKey, u64), Log>,
    credit: u64,
    not_before: u64,
    failures: u32,
    /// Send this many requests with one attempt each, to find the one that is refused.
    alone: usize,
}

/// What a request carried: whose stream, and how many bytes.
type Sent = Vec<((AttemptKey, u64), Stream, usize)>;

impl Sender {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut poll = tokio::time::interval(Duration::from_millis(LOG_POLL_MS));
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                _ = poll.tick(), if !self.logs.is_empty() => {}
            }
            while let Ok(command) = commands.try_recv() {
                self.command(command);
            }
            self.pump().await;
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Watch(watch) => {
                let key = (watch.of.attempt, watch.of.generation);
                self.logs.entry(key).or_insert_with(|| Log::new(watch));
            }
            Command::Finish(of, done) => match self.logs.get_mut(&(of.attempt, of.generation)) {
                Some(log) => (log.over_at, log.done) = (Some(clock::now_ms()), Some(done)),
                None => done(None),
            },
            Command::Forget(of) => {
                let key = (of.attempt, of.generation);
                if self.logs.get(&key).is_some_and(|log| log.over_at.is_none()) {
                    self.logs.remove(&key);
                }
            }
        }
    }

    /// Sends until nothing new is there, the credit is used up, or a request fails.
    async fn pump(&mut self) {
        loop {
            for log in self.logs.values_mut() {
                log.read();
            }
            self.settle();
            let now = clock::now_ms();
            if now < self.not_before {
                return;
            }
            let (chunks, sent) = self.batch();
            if chunks.is_empty() {
                return;
            }
            let answer = self.lane.logs(encode_logs(&chunks)).await;
            self.answered(answer, &sent);
        }
    }

    /// Logs that are through, or never will be.
    fn settle(&mut self) {
        let now = clock::now_ms();
        let over: Vec<_> = self.logs.iter().filter(|(_, log)| log.is_settled(now)).map(|(key, _)| *key).collect();
        for key in over {
            let Some(mut log) = self.logs.remove(&key) else { continue };
            if let Some(done) = log.done.take() {
                done(log.note());
            }
        }
    }

    /// As much as the credit allows; ended attempts first, since their results wait for it.
    fn batch(&mut self) -> (Vec<LogChunk>, Sent) {
        let mut room = usize::try_from(self.credit).unwrap_or(usize::MAX).min(LOGS_BYTES_MAX - HEADERS_BYTES);
        let (mut chunks, mut sent) = (Vec::new(), Vec::new());
        let (over, running): (Vec<_>, Vec<_>) = self.logs.iter().partition(|(_, log)| log.over_at.is_some());
        for (key, log) in over.into_iter().chain(running) {
            for tail in &log.tails {
                let Some((offset, bytes)) = tail.next(room).filter(|_| log.refused.is_none()) else { continue };
                room -= bytes.len();
                sent.push((*key, tail.stream, bytes.len()));
                chunks.push(LogChunk { attempt: key.0, stream: tail.stream, offset, bytes: bytes.to_vec() });
            }
            if room == 0 || chunks.len() >= CHUNKS_MAX || (self.alone > 0 && !chunks.is_empty()) {
                break;
            }
        }
        (chunks, sent)
    }

    fn answered(&mut self, answer: Result<LogCredit, LaneError>, sent: &Sent) {
        self.alone = self.alone.saturating_sub(1);
        match answer {
            Ok(credit) => {
                self.failures = 0;
                self.credit = credit.credit_bytes;
                // No credit and no wait would be a closed door without a time: look again soon.
                let wait_ms = if credit.credit_bytes == 0 { credit.wait_ms.max(LOG_POLL_MS) } else { credit.wait_ms };
                self.not_before = clock::now_ms() + wait_ms;
                if self.credit == 0 {
                    self.credit = HEADERS_BYTES as u64;
                }
                for (key, stream, bytes) in sent {
                    let tails = self.logs.get_mut(key).map(|log| &mut log.tails);
                    if let Some(tail) = tails.and_then(|tails| tails.iter_mut().find(|t| t.stream == *stream)) {
                        tail.accept(*bytes);
                    }
                }
            }
            Err(refused @ LaneError::Refused { .. }) => self.refused(&refused, sent),
            Err(error) => {
                tracing::debug!(%error, "a log request failed; it is sent again");
                let backoff = (50_u64 << self.failures.min(10)).min(BACKOFF_MS_MAX);
                self.failures += 1;
                self.not_before = clock::now_ms() + clock::jittered(backoff);
            }
        }
    }

    /// A request with several attempts is split to find the one the engine does not want.
    fn refused(&mut self, error: &LaneError, sent: &Sent) {
        let mut attempts: Vec<_> = sent.iter().map(|(key, ..)| *key).collect();
        attempts.dedup();
        if attempts.len() > 1 {
            self.alone = attempts.len();
        } else if let Some(log) = attempts.first().and_then(|key| self.logs.get_mut(key)) {
            tracing::warn!(attempt = %log.watch.of.attempt, %error, "the engine does not take this log");
            log.refused = Some(format!("its log was not taken: {error}"));
        }
    }
}

impl Log {
    fn new(watch: Watch) -> Self {
        let tail = |stream, path| Tail::new(stream, path, watch.redactor.clone());
        let tails = [tail(Stream::Out, watch.folder.out_log()), tail(Stream::Err, watch.folder.err_log())];
        Self { tails, watch, left: LOG_BYTES_MAX, over_at: None, done: None, refused: None }
    }

    fn read(&mut self) {
        for tail in &mut self.tails {
            if let Err(e) = tail.read(&mut self.left, self.over_at.is_some()) {
                self.refused.get_or_insert_with(|| format!("its log could not be read: {e}"));
            }
        }
    }

    fn is_settled(&self, now: u64) -> bool {
        let Some(over_at) = self.over_at else { return false };
        self.refused.is_some() || now > over_at + LOG_OFFER_MS_MAX || self.tails.iter().all(Tail::is_done)
    }

    fn note(&self) -> Option<String> {
        if self.refused.is_some() {
            return self.refused.clone();
        }
        if self.tails.iter().any(|tail| !tail.is_done()) {
            let bytes: usize = self.tails.iter().map(Tail::waiting).sum();
            return Some(format!(
                "the end of its log ({bytes} bytes or more) was not taken within {} s",
                LOG_OFFER_MS_MAX / 1000
            ));
        }
        self.tails.iter().any(Tail::was_cut).then(|| format!("its log was cut at {} MiB", LOG_BYTES_MAX >> 20))
    }
}
