//! What takes its time: asked for by one request, followed and ended by others. Kept in memory: what an operation
//! came to is in the store and the ledger, and one that an engine's end cuts short is asked for again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use skein_api::OperationView;
use skein_domain::Timestamp;
use skein_image::Progress;

use crate::clock;
use crate::http::Fail;

/// Those that are over are forgotten after this, ms.
const KEPT_MS: u64 = 3_600_000;
/// Most at a time.
const RUNNING_MAX: usize = 16;

/// All of them, by number.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    all: Mutex<BTreeMap<u64, Arc<Operation>>>,
    last: AtomicU64,
}

/// One.
#[derive(Debug)]
pub(crate) struct Operation {
    number: u64,
    kind: &'static str,
    cancelled: AtomicBool,
    done: AtomicU64,
    stage: Mutex<Stage>,
}

#[derive(Debug)]
struct Stage {
    at: String,
    total: Option<u64>,
    since: Timestamp,
    /// Elapsed in this stage when it ended.
    over: Option<(Timestamp, Result<serde_json::Value, Over>)>,
}

#[derive(Debug, Clone)]
enum Over {
    Cancelled,
    Failed(String),
}

impl Operations {
    /// A new one, under way.
    pub(crate) fn begin(&self, kind: &'static str) -> Result<Arc<Operation>, Fail> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        all.retain(|_, operation| operation.lock().over.as_ref().is_none_or(|(at, _)| now.ms_since(*at) < KEPT_MS));
        if all.values().filter(|operation| operation.lock().over.is_none()).count() >= RUNNING_MAX {
            return Err(Fail::busy(format!(
                "{RUNNING_MAX} operations are under way, as many as there may be (operations_max): try again later"
            )));
        }
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let stage = Stage { at: "starting".to_owned(), total: None, since: clock::now(), over: None };
        let operation = Operation {
            number,
            kind,
            cancelled: AtomicBool::new(false),
            done: AtomicU64::new(0),
            stage: Mutex::new(stage),
        };
        let operation = Arc::new(operation);
        all.insert(number, Arc::clone(&operation));
        Ok(operation)
    }

    /// One of them.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<Operation>, Fail> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let found = id.parse().ok().and_then(|number: u64| all.get(&number).cloned());
        found.ok_or_else(|| Fail::not_found(format!("there is no operation '{id}'; an engine's end forgets them")))
    }

    /// All, newest first.
    pub(crate) fn views(&self) -> Vec<OperationView> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().rev().map(|operation| operation.view()).collect()
    }
}

impl Operation {
    fn lock(&self) -> std::sync::MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new part of it begins.
    pub(crate) fn stage(&self, at: impl Into<String>, total: Option<u64>) {
        let mut stage = self.lock();
        self.done.store(0, Ordering::Relaxed);
        (stage.at, stage.total, stage.since) = (at.into(), total, clock::now());
    }

    /// How far it is, of how much.
    pub(crate) fn is_at(&self, done: u64, total: Option<u64>) {
        self.done.store(done, Ordering::Relaxed);
        self.lock().total = total;
    }

    /// It is over.
    pub(crate) fn end(&self, result: Result<serde_json::Value, Fail>) {
        let result = result.map_err(|fail| {
            let was_asked = self.is_cancelled();
            if was_asked { Over::Cancelled } else { Over::Failed(fail.text()) }
        });
        self.lock().over = Some((clock::now(), result));
    }

    /// Somebody wants it to end.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// As others see it.
    pub(crate) fn view(&self) -> OperationView {
        let stage = self.lock();
        let done_bytes = self.done.load(Ordering::Relaxed);
        let until = stage.over.as_ref().map_or_else(clock::now, |(at, _)| *at);
        let spent_ms = until.ms_since(stage.since).max(1);
        let bytes_per_s = done_bytes.saturating_mul(1000) / spent_ms;
        let left = stage.total.map(|total| total.saturating_sub(done_bytes));
        let left_ms = left.filter(|_| bytes_per_s > 0).map(|left| left.saturating_mul(1000) / bytes_per_s.max(1));
        let (state, error, result) = match &stage.over {
            None => ("running", None, None),
            Some((_, Ok(result))) => ("done", None, Some(result.clone())),
            Some((_, Err(Over::Cancelled))) => ("cancelled", None, None),
            Some((_, Err(Over::Failed(why)))) => ("failed", Some(why.clone()), None),
        };
        OperationView {
            id: self.number.to_string(),
            kind: self.kind.to_owned(),
            state: state.to_owned(),
            at: stage.at.clone(),
            done_bytes,
            total_bytes: stage.total,
            bytes_per_s,
            left_ms: left_ms.filter(|_| stage.over.is_none()),
            error,
            result,
        }
    }
}

impl super::fetch::Fetching for Operation {
    fn begins(&self, total: Option<u64>) {
        let at = self.lock().at.clone();
        self.stage(at, total);
    }
}

impl Progress for Operation {
    fn at(&self, offset: u64) {
        self.done.store(offset, Ordering::Relaxed);
    }
    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}
