//! Runners: started on demand, kept warm, ended when idle.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::clock;
use crate::error::AgentError;
use crate::spawner::{CgroupBase, Programs, prepare_cgroups};

use super::runner::Runner;
use super::{HostOptions, Status};

/// Cold starts that the percentiles are made of.
const SAMPLES_MAX: usize = 1_000;

struct State {
    warm: Vec<Runner>,
    min_warm: u32,
    /// Runners being started to keep `min_warm`.
    warming: u32,
    cold_starts: u64,
    samples: VecDeque<u64>,
    ended: bool,
}

/// The runners of one host.
pub(super) struct Pool {
    programs: Programs,
    dir: PathBuf,
    cgroups: CgroupBase,
    pub(super) concurrency: u32,
    pub(super) timeout_ms: u64,
    idle_ms: u64,
    state: Mutex<State>,
}

impl Pool {
    pub(super) fn new(options: &HostOptions) -> Result<Self, AgentError> {
        let programs = match &options.programs {
            Some(programs) => programs.clone(),
            None => Programs::own().map_err(|e| AgentError::system("finding our own executable", &e))?,
        };
        let state = State {
            warm: Vec::new(),
            min_warm: options.min_warm,
            warming: 0,
            cold_starts: 0,
            samples: VecDeque::new(),
            ended: false,
        };
        Ok(Self {
            programs,
            dir: options.dir.clone(),
            cgroups: prepare_cgroups(),
            concurrency: options.concurrency,
            timeout_ms: options.timeout_ms,
            idle_ms: options.idle_ms,
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The runner used last (the others may idle out), or a new one and what its start took, ms.
    pub(super) async fn take(&self) -> Result<(Runner, Option<u64>), String> {
        loop {
            let warm = self.state().warm.pop();
            match warm {
                Some(runner) if runner.is_dead() => {}
                Some(runner) => return Ok((runner, None)),
                None => break,
            }
        }
        let began = clock::now_us();
        let runner = Runner::start(&self.programs, &self.dir, &self.cgroups).await?;
        let took_ms = (clock::now_us() - began).div_ceil(1000);
        let mut state = self.state();
        state.cold_starts += 1;
        if state.samples.len() >= SAMPLES_MAX {
            state.samples.pop_front();
        }
        state.samples.push_back(took_ms);
        Ok((runner, Some(took_ms)))
    }

    /// A runner whose invocation is done.
    pub(super) fn give_back(&self, mut runner: Runner) {
        runner.idle_since = clock::now_ms();
        let mut state = self.state();
        if !state.ended && !runner.is_dead() {
            state.warm.push(runner);
        }
    }

    pub(super) fn scale(&self, min_warm: u32) {
        self.state().min_warm = min_warm;
    }

    /// Ends what idles for too long, starts what is to be warm.
    pub(super) fn tend(self: &Arc<Self>) {
        let now = clock::now_ms();
        let mut over = Vec::new();
        let missing = {
            let mut state = self.state();
            let (dead, warm): (Vec<_>, Vec<_>) = std::mem::take(&mut state.warm).into_iter().partition(Runner::is_dead);
            state.warm = warm;
            over.extend(dead);
            let min_warm = usize::try_from(state.min_warm).unwrap_or(usize::MAX);
            // The least recently used are in front.
            while state.warm.len() > min_warm && state.warm.first().is_some_and(|r| now > r.idle_since + self.idle_ms) {
                over.push(state.warm.remove(0));
            }
            let coming = u32::try_from(state.warm.len()).unwrap_or(u32::MAX).saturating_add(state.warming);
            let missing = if state.ended { 0 } else { state.min_warm.saturating_sub(coming) };
            state.warming += missing;
            missing
        };
        drop(over);
        for _ in 0..missing {
            let pool = Arc::clone(self);
            tokio::spawn(async move {
                let started = Runner::start(&pool.programs, &pool.dir, &pool.cgroups).await;
                pool.state().warming -= 1;
                match started {
                    Ok(runner) => pool.give_back(runner),
                    Err(error) => tracing::warn!(error, "a runner could not be warmed"),
                }
            });
        }
    }

    /// Ends every warm runner and keeps none any more.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        state.warm.clear();
    }

    pub(super) fn status(&self) -> Status {
        let state = self.state();
        let mut samples: Vec<u64> = state.samples.iter().copied().collect();
        samples.sort_unstable();
        let at = |percent: usize| samples.get((samples.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Status {
            warm: u32::try_from(state.warm.len()).unwrap_or(u32::MAX),
            concurrency: self.concurrency,
            timeout_ms: self.timeout_ms,
            min_warm: state.min_warm,
            idle_ms: self.idle_ms,
            cold_starts: state.cold_starts,
            cold_start_ms_p50: at(50),
            cold_start_ms_p99: at(99),
            ..Status::default()
        }
    }
}
