//! Invocations by key: each runs once, and its answer is kept for callers that come back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::StatusCode;
use skein_domain::{AttemptEnd, EndCause, ItemKey};
use skein_wire::message::AttemptRef;
use skein_wire::{Invocation, InvocationResult};
use tokio::sync::{Notify, watch};

use super::pool::Pool;
use super::runner::Runner;
use super::{RESULT_KEPT_MS, Status};
use crate::clock;
use crate::error::AgentError;
use crate::lane::{chain, plain_client};

/// What a caller gets.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) result: InvocationResult,
}

/// One invocation that runs or is done.
#[derive(Clone)]
pub(super) struct Call {
    order: AttemptRef,
    done: watch::Receiver<Option<Arc<Answer>>>,
    cancelled: Arc<Notify>,
}

impl Call {
    /// Waits for the answer.
    pub(super) async fn answer(mut self) -> Arc<Answer> {
        let done = self.done.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
        done.unwrap_or_else(|| Arc::new(lost(self.order, "the function host ended".to_owned())))
    }

    pub(super) fn cancel(&self) {
        self.cancelled.notify_one();
    }
}

/// What became of a new invocation.
pub(super) enum Known {
    /// It runs.
    Call(Call),
    /// Too many run.
    Busy { limit: u32 },
    /// A newer order for the same item was here.
    Stale { last: u64 },
}

#[derive(Default)]
struct State {
    calls: HashMap<String, (Call, Option<u64>)>,
    generations: HashMap<ItemKey, (u64, u64)>,
    running: u32,
    invocations: u64,
}

pub(super) struct Calls {
    pool: Arc<Pool>,
    http: reqwest::Client,
    state: Arc<Mutex<State>>,
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn lost(order: AttemptRef, why: String) -> Answer {
    Answer {
        status: StatusCode::BAD_GATEWAY,
        result: InvocationResult { order, end: AttemptEnd::bare(EndCause::Lost { why }) },
    }
}

impl Calls {
    pub(super) fn new(pool: Pool) -> Result<Self, AgentError> {
        let http = plain_client().map_err(|why| AgentError::system("making an HTTP client", &why))?;
        Ok(Self { pool: Arc::new(pool), http, state: Arc::default() })
    }

    /// A known invocation.
    pub(super) fn find(&self, key: &str) -> Option<Call> {
        lock(&self.state).calls.get(key).map(|(call, _)| call.clone())
    }

    /// Starts an invocation, unless the key came in meanwhile.
    pub(super) fn begin(&self, key: &str, invocation: Invocation) -> Known {
        let order = AttemptRef { attempt: invocation.order.attempt, generation: invocation.order.generation };
        let mut state = lock(&self.state);
        if let Some((call, _)) = state.calls.get(key) {
            return Known::Call(call.clone());
        }
        let last = state.generations.get(&order.attempt.item).map(|(generation, _)| *generation);
        if let Some(last) = last.filter(|last| order.generation <= *last) {
            return Known::Stale { last };
        }
        let limit = self.pool.concurrency;
        if state.running >= limit {
            return Known::Busy { limit };
        }
        state.running += 1;
        state.invocations += 1;
        state.generations.insert(order.attempt.item, (order.generation, clock::now_ms()));
        let (tell, done) = watch::channel(None);
        let call = Call { order, done, cancelled: Arc::new(Notify::new()) };
        state.calls.insert(key.to_owned(), (call.clone(), None));
        drop(state);
        let (pool, http, shared, key) =
            (Arc::clone(&self.pool), self.http.clone(), Arc::clone(&self.state), key.to_owned());
        let cancelled = Arc::clone(&call.cancelled);
        tokio::spawn(async move {
            let answer = carry_out(&pool, &http, &invocation, &cancelled).await;
            {
                let mut state = lock(&shared);
                state.running -= 1;
                if let Some((_, done_at)) = state.calls.get_mut(&key) {
                    *done_at = Some(clock::now_ms());
                }
            }
            tell.send(Some(Arc::new(answer))).ok();
        });
        Known::Call(call)
    }

    pub(super) fn scale(&self, min_warm: u32) -> Status {
        self.pool.scale(min_warm);
        self.pool.tend();
        self.status()
    }

    pub(super) fn status(&self) -> Status {
        let (running, invocations) = {
            let state = lock(&self.state);
            (state.running, state.invocations)
        };
        Status { running, invocations, ..self.pool.status() }
    }

    /// Forgets old results; looks after the runners.
    pub(super) fn tend(&self) {
        self.pool.tend();
        let oldest = clock::now_ms().saturating_sub(RESULT_KEPT_MS);
        let mut state = lock(&self.state);
        state.calls.retain(|_, (_, done_at)| done_at.is_none_or(|at| at >= oldest));
        state.generations.retain(|_, (_, at)| *at >= oldest);
    }

    pub(super) fn end(&self) {
        self.pool.end();
        for (call, done_at) in lock(&self.state).calls.values() {
            if done_at.is_none() {
                call.cancel();
            }
        }
    }
}

async fn carry_out(pool: &Arc<Pool>, http: &reqwest::Client, invocation: &Invocation, cancelled: &Notify) -> Answer {
    let order = AttemptRef { attempt: invocation.order.attempt, generation: invocation.order.generation };
    let bare = |status: StatusCode, cause: EndCause| Answer {
        status,
        result: InvocationResult { order, end: AttemptEnd::bare(cause) },
    };
    let (runner, cold_start_ms) = match pool.take().await {
        Ok(taken) => taken,
        Err(why) => {
            return bare(
                StatusCode::INTERNAL_SERVER_ERROR,
                EndCause::NotStarted { why: format!("no function runner: {why}") },
            );
        }
    };
    let began = clock::now_ms();
    let limit = Duration::from_millis(pool.timeout_ms);
    let mut answer = tokio::select! {
        called = tokio::time::timeout(limit, call(http, &runner, invocation)) => match called {
            Ok(Ok(result)) => {
                pool.give_back(runner);
                Answer { status: StatusCode::OK, result }
            }
            Ok(Err(why)) => {
                runner.kill().await;
                lost(order, format!("its function runner failed: {why}"))
            }
            Err(_) => {
                runner.kill().await;
                bare(StatusCode::GATEWAY_TIMEOUT, EndCause::TimedOut { limit_ms: pool.timeout_ms })
            }
        },
        () = cancelled.notified() => {
            runner.kill().await;
            bare(StatusCode::OK, EndCause::Cancelled)
        }
    };
    if answer.result.end.run_ms == 0 && answer.status != StatusCode::OK {
        answer.result.end.run_ms = clock::now_ms() - began;
    }
    answer.result.end.cold_start_ms = cold_start_ms;
    answer
}

async fn call(http: &reqwest::Client, runner: &Runner, invocation: &Invocation) -> Result<InvocationResult, String> {
    let answer =
        http.post(&runner.url).bearer_auth(&runner.key).json(invocation).send().await.map_err(|e| chain(&e))?;
    let status = answer.status();
    let body = answer.bytes().await.map_err(|e| chain(&e))?;
    if !status.is_success() {
        return Err(format!("{status} {}", String::from_utf8_lossy(&body)));
    }
    serde_json::from_slice(&body).map_err(|e| e.to_string())
}
