//! The change stream: server-sent events, resumable by `Last-Event-ID`, and a session's logs in the
//! same stream for those who follow it.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event as SseEvent, KeepAlive};
use futures_util::Stream;
use skein_api::{EventView, LogPiece};
use skein_domain::event::Event;
use skein_domain::{AttemptKey, SessionId, SessionSpec};
use skein_store::{EventRow, Page, Reader as _};
use skein_wire::lane::Stream as LogStream;
use tokio::sync::broadcast;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::User;
use super::fail::Fail;
use crate::app::App;

/// Events read at a time.
const EVENTS_PER_READ: u32 = 1000;
/// Bytes of a log in one piece.
const LOG_PIECE_BYTES_MAX: usize = 64 * 1024;

#[derive(serde::Deserialize)]
pub(super) struct From {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    logs: bool,
    #[serde(default = "yes")]
    events: bool,
}

fn yes() -> bool {
    true
}

/// What the client has seen: the header of a reconnecting client holds over the query.
fn after(headers: &HeaderMap, from: &From) -> u64 {
    let header = headers.get("last-event-id").and_then(|v| v.to_str().ok()?.parse().ok());
    header.unwrap_or(from.after)
}

type Sent = Result<SseEvent, Infallible>;

fn answer(receiver: Receiver<Sent>) -> Sse<impl Stream<Item = Sent>> {
    let stream = futures_util::stream::unfold(receiver, |mut r| async move { r.recv().await.map(|e| (e, r)) });
    Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
}

/// All events, for as long as the client stays.
pub(super) async fn events(
    _: User,
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Query(from): Query<From>,
) -> Result<Sse<impl Stream<Item = Sent>>, Fail> {
    let mut seen = after(&headers, &from);
    let (newest, oldest) = app.readers.get()?.event_bounds()?;
    if seen > newest {
        return Err(Fail::bad(format!("event {seen} is not there yet; the newest is {newest}")));
    }
    let (sender, receiver) = channel(256);
    if seen > 0 && seen + 1 < oldest {
        let gap = serde_json::json!({"oldest": oldest, "asked_after": seen});
        sender.send(Ok(SseEvent::default().event("gap").data(gap.to_string()))).await.unwrap_or_default();
    }
    tokio::spawn(async move {
        let mut committed = app.writer.committed();
        loop {
            committed.mark_unchanged();
            let Ok(rows) = read_events(&app, seen, None) else { return };
            let more = rows.len() == EVENTS_PER_READ as usize;
            for row in rows {
                seen = row.seq;
                if sender.send(Ok(event_of(&row))).await.is_err() {
                    return;
                }
            }
            if !more && wait(&mut committed, &sender).await.is_err() {
                return;
            }
        }
    });
    Ok(answer(receiver))
}

/// Until the next commit; an error when the client left or the engine stops.
async fn wait(committed: &mut tokio::sync::watch::Receiver<u64>, sender: &Sender<Sent>) -> Result<(), ()> {
    tokio::select! {
        changed = committed.changed() => changed.map_err(|_| ()),
        () = sender.closed() => Err(()),
    }
}

fn read_events(app: &App, after: u64, session: Option<SessionId>) -> Result<Vec<EventRow>, skein_store::StoreError> {
    app.readers.get()?.events(after, session, EVENTS_PER_READ)
}

fn event_of(row: &EventRow) -> SseEvent {
    let view = EventView { seq: row.seq, at: row.at.0, event: serde_json::to_value(&row.event).unwrap_or_default() };
    SseEvent::default().id(row.seq.to_string()).event("change").data(serde_json::to_string(&view).unwrap_or_default())
}

/// One session's events, and its logs when asked for, until it has ended and everything was sent.
pub(super) async fn session(
    _: User,
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Path(id): Path<String>,
    Query(from): Query<From>,
) -> Result<Sse<impl Stream<Item = Sent>>, Fail> {
    let id: SessionId = id.parse()?;
    let spec = app.readers.get()?.session_spec(id)?;
    let spec = spec.ok_or_else(|| Fail::not_found(format!("there is no session {id}")))?;
    let (sender, receiver) = channel(256);
    // Before the first look at the ledger, so that nothing that grows in between is missed.
    let grown = app.logs.grown();
    let (seen, read) = (after(&headers, &from), BTreeMap::new());
    let (logs, events, growing, early) = (from.logs, from.events, BTreeSet::new(), BTreeSet::new());
    let follower = Follower { app, id, spec, sender, seen, logs, events, grown, read, growing, early, first: true };
    tokio::spawn(follower.run());
    Ok(answer(receiver))
}

struct Follower {
    app: Arc<App>,
    id: SessionId,
    spec: SessionSpec,
    sender: Sender<Sent>,
    seen: u64,
    logs: bool,
    /// Who only shows logs need not be sent what happened.
    events: bool,
    grown: broadcast::Receiver<AttemptKey>,
    /// Log streams of attempts that have not ended.
    read: BTreeMap<(AttemptKey, LogStream), Sending>,
    /// Of these, the ones with more to send: a pass costs what grew, not what there is.
    growing: BTreeSet<(AttemptKey, LogStream)>,
    /// Attempts of this session whose log grew before their order was read here.
    early: BTreeSet<AttemptKey>,
    /// What is found in the first pass may have grown before we listened.
    first: bool,
}

/// How far a log stream was sent. Most attempts write nothing: their files are never looked for.
#[derive(Debug, Clone, Copy)]
struct Sending {
    bytes: u64,
    /// There may be more.
    more: bool,
}

impl Follower {
    async fn run(mut self) {
        let mut committed = self.app.writer.committed();
        if self.logs {
            self.known_attempts(self.seen == 0 && self.events);
        }
        loop {
            committed.mark_unchanged();
            let passed = if self.events { self.pass().await } else { self.pass_over_logs().await };
            match passed {
                Ok(false) => {}
                Ok(true) | Err(()) => return,
            }
            self.first = false;
            let logs = self.logs;
            let woken = tokio::select! {
                changed = committed.changed() => changed.map(|()| None).map_err(|_| ()),
                grown = self.grown.recv(), if logs => Ok(Some(grown)),
                () = self.sender.closed() => Err(()),
            };
            match woken {
                Ok(None) => {}
                Ok(Some(Ok(attempt))) => self.has_grown(attempt),
                Ok(Some(Err(_))) => self.any_has_grown(),
                Err(()) => return,
            }
        }
    }

    /// Attempts that began before the events we were asked for.
    fn known_attempts(&mut self, events_tell: bool) {
        if events_tell {
            return;
        }
        let Ok(reader) = self.app.readers.get() else { return };
        // Those that ended since are among them: their end is still to come in the stream.
        let known = reader.attempts(self.id, Page::ALL).unwrap_or_default();
        drop(reader);
        for row in &known {
            self.begin(row.attempt.key);
        }
    }

    fn begin(&mut self, attempt: AttemptKey) {
        for stream in [LogStream::Out, LogStream::Err] {
            self.read.entry((attempt, stream)).or_insert(Sending { bytes: 0, more: self.first });
            if self.first {
                self.growing.insert((attempt, stream));
            }
        }
    }

    fn has_grown(&mut self, attempt: AttemptKey) {
        if attempt.item.session() == self.id && !self.read.contains_key(&(attempt, LogStream::Out)) {
            if self.events {
                self.early.insert(attempt);
            } else {
                self.begin(attempt);
            }
        }
        for stream in [LogStream::Out, LogStream::Err] {
            if let Some(sending) = self.read.get_mut(&(attempt, stream)) {
                sending.more = true;
                self.growing.insert((attempt, stream));
            }
        }
    }

    /// Too many to name: look at all.
    fn any_has_grown(&mut self) {
        if !self.events {
            self.known_attempts(false);
        }
        self.read.values_mut().for_each(|sending| sending.more = true);
        self.growing.extend(self.read.keys());
    }

    /// What grew since the last look.
    fn look_at_grown(&mut self) {
        loop {
            match self.grown.try_recv() {
                Ok(attempt) => self.has_grown(attempt),
                Err(broadcast::error::TryRecvError::Lagged(_)) => self.any_has_grown(),
                Err(_) => return,
            }
        }
    }

    /// The same for who is sent no events: no row is read for each attempt.
    async fn pass_over_logs(&mut self) -> Result<bool, ()> {
        // Looked at first: what an attempt wrote is here before its end is in the ledger.
        let over = self.app.readers.get().and_then(|r| r.session_is_over(self.id)).map_err(|_| ())?;
        if self.logs {
            self.send_grown().await?;
        }
        Ok(over)
    }

    async fn send_grown(&mut self) -> Result<(), ()> {
        self.look_at_grown();
        for key in std::mem::take(&mut self.growing) {
            self.send_log(key).await?;
        }
        Ok(())
    }

    /// Sends what is new; true when the session has ended and everything was sent.
    async fn pass(&mut self) -> Result<bool, ()> {
        loop {
            let rows = read_events(&self.app, self.seen, Some(self.id)).map_err(|_| ())?;
            let last = rows.len() < EVENTS_PER_READ as usize;
            for row in rows {
                self.seen = row.seq;
                self.before(&row.event).await?;
                self.sender.send(Ok(event_of(&row))).await.map_err(|_| ())?;
                if matches!(row.event, Event::SessionEnded { .. }) {
                    return Ok(true);
                }
            }
            if last {
                break;
            }
        }
        self.send_grown().await?;
        Ok(false)
    }

    /// An attempt's log comes before its end.
    async fn before(&mut self, event: &Event) -> Result<(), ()> {
        if !self.logs {
            return Ok(());
        }
        match event {
            Event::Assigned { attempt } => {
                // It may have grown before its order was read here.
                self.begin(attempt.key);
                if self.early.remove(&attempt.key) {
                    self.has_grown(attempt.key);
                }
            }
            Event::Ended { attempt, .. } => {
                self.look_at_grown();
                for stream in [LogStream::Out, LogStream::Err] {
                    self.send_log((*attempt, stream)).await?;
                    self.read.remove(&(*attempt, stream));
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn send_log(&mut self, key: (AttemptKey, LogStream)) -> Result<(), ()> {
        let (attempt, stream) = key;
        loop {
            let Some(sending) = self.read.get_mut(&key).filter(|sending| sending.more) else { return Ok(()) };
            let bytes = self.app.logs.read(attempt, stream, sending.bytes, LOG_PIECE_BYTES_MAX).map_err(|_| ())?;
            let whole = whole_characters(&bytes);
            if whole == 0 {
                sending.more = false;
                return Ok(());
            }
            sending.bytes += whole as u64;
            let node = self.spec.thread.nodes.get(attempt.item.node.node as usize);
            let piece = LogPiece {
                attempt: attempt.to_string(),
                node: node.map(|n| n.name.to_string()).unwrap_or_default(),
                index: attempt.item.index,
                stream: if stream == LogStream::Out { "out" } else { "err" }.to_owned(),
                text: String::from_utf8_lossy(&bytes[..whole]).into_owned(),
            };
            let data = serde_json::to_string(&piece).unwrap_or_default();
            self.sender.send(Ok(SseEvent::default().event("log").data(data))).await.map_err(|_| ())?;
        }
    }
}

/// Length without a character cut off at the end (unless that is all there is).
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(e) if e.error_len().is_none() && e.valid_up_to() > 0 => e.valid_up_to(),
        _ => bytes.len(),
    }
}
