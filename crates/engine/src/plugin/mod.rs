//! The custom algorithm for CPU setting 0 ([0068], [0069]): a class in Luau, in a thread of its own.
//!
//! ```text
//! core --Output::AskAlgorithm--> dispatch --> Plugin --(queue)--> caller: Vm::ask
//!  ^                                                                   |
//!  +-----------------------Input::Proposed(Answer | Fault)-------------+
//! ```
//! Nobody waits for the caller: the core takes what it says when it comes, and has the default scheme place the
//! items when nothing does. Failure paths: a fault throws the VM away, and the next question gets a new one;
//! a caller that does not come back (a call that no interrupt reaches) is left behind and replaced,
//! [`LEFT_BEHIND_MAX`] of them at the most; until one of those ends, every question is answered at once
//! with a fault.

mod answer;
mod records;
mod script;
mod tables;
#[cfg(test)]
mod tests;
mod vm;

pub use script::Script;
pub use vm::{INTERRUPTS_MAX, Limits, MEMORY_MB, WALL_MS};

use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use skein_domain::Timestamp;
use skein_domain::decide::{Answer, Fault, Question};

use self::vm::Vm;
use crate::clock;
use crate::core::{ANSWER_MS, Input};

/// A caller that has been at one question for this long, ms, is left behind.
const STUCK_MS: u64 = 2 * ANSWER_MS;
/// Callers left behind that have not ended.
const LEFT_BEHIND_MAX: usize = 2;
/// Stack of a caller, bytes.
const STACK_BYTES: usize = 8 << 20;

/// Where answers go.
type Tell = Arc<dyn Fn(Input) + Send + Sync>;

/// The way to the algorithm.
pub(crate) struct Plugin {
    tell: Tell,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    script: Option<Arc<Script>>,
    caller: Option<Caller>,
    left_behind: Vec<std::thread::JoinHandle<()>>,
}

struct Caller {
    questions: Sender<(u64, Arc<Question>)>,
    /// Since when it has been at a question.
    busy: Arc<Mutex<Option<Timestamp>>>,
    thread: std::thread::JoinHandle<()>,
}

impl Plugin {
    pub(crate) fn new(tell: impl Fn(Input) + Send + Sync + 'static) -> Self {
        Self { tell: Arc::new(tell), state: Mutex::default() }
    }

    /// This file from now on, or none. The same again changes nothing.
    pub(crate) fn set(&self, script: Option<Arc<Script>>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |a: &Arc<Script>, b: &Arc<Script>| a.digest == b.digest && a.class == b.class;
        if matches!((&state.script, &script), (Some(a), Some(b)) if same(a, b)) {
            return;
        }
        state.script.clone_from(&script);
        state.retire();
        if let Some(script) = script {
            tracing::info!(class = &*script.class, "the algorithm for CPU setting 0 was read");
            (self.tell)(Input::AlgorithmSet { class: script.class.clone(), digest: script.digest.clone() });
        }
    }

    /// Asks; the answer comes as an input.
    pub(crate) fn ask(&self, ask: u64, question: Arc<Question>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(fault) = state.pass_on(&self.tell, ask, question) {
            (self.tell)(Input::Proposed { ask, answer: Err(fault) });
        }
    }
}

impl State {
    /// The caller ends when it has answered what it is at.
    fn retire(&mut self) {
        if let Some(caller) = self.caller.take() {
            self.left_behind.push(caller.thread);
        }
    }

    fn pass_on(&mut self, tell: &Tell, ask: u64, question: Arc<Question>) -> Result<(), Fault> {
        let panicked = |what: &str| Fault::Panicked { what: what.into() };
        let script = self.script.clone().ok_or_else(|| panicked("no class file is loaded"))?;
        let stuck = |caller: &Caller| {
            let since = *caller.busy.lock().unwrap_or_else(PoisonError::into_inner);
            caller.thread.is_finished() || since.is_some_and(|since| clock::now().ms_since(since) > STUCK_MS)
        };
        if self.caller.as_ref().is_some_and(stuck) {
            tracing::error!(
                class = &*script.class,
                "the algorithm does not come back from a question; it is left behind"
            );
            self.retire();
        }
        self.left_behind.retain(|thread| !thread.is_finished());
        if self.caller.is_none() {
            if self.left_behind.len() >= LEFT_BEHIND_MAX {
                return Err(Fault::NoAnswer { after_ms: ANSWER_MS });
            }
            self.caller = Some(Caller::start(script, tell.clone()).map_err(|e| panicked(&e.to_string()))?);
        }
        let sent = self.caller.as_ref().map(|caller| caller.questions.send((ask, question)));
        sent.and_then(Result::ok).ok_or_else(|| panicked("its thread has ended"))
    }
}

impl Caller {
    fn start(script: Arc<Script>, tell: Tell) -> std::io::Result<Self> {
        let (questions, inbox) = channel();
        let busy = Arc::new(Mutex::new(None));
        let working = busy.clone();
        let thread = std::thread::Builder::new()
            .name("algorithm".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || work(&script, &tell, &inbox, &working))?;
        Ok(Self { questions, busy, thread })
    }
}

/// Answers questions until nobody asks any more. Of several that wait, only the last still matters.
fn work(script: &Script, tell: &Tell, inbox: &Receiver<(u64, Arc<Question>)>, busy: &Mutex<Option<Timestamp>>) {
    let mut vm = None;
    while let Ok(first) = inbox.recv() {
        let (ask, question) = inbox.try_iter().last().unwrap_or(first);
        *busy.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock::now());
        let answer = answer(script, &mut vm, &question);
        *busy.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if answer.is_err() {
            vm = None;
        }
        tell(Input::Proposed { ask, answer });
    }
}

/// One answer. Nothing that happens in it leaves it but as a fault.
fn answer(script: &Script, vm: &mut Option<Vm>, question: &Question) -> Result<Answer, Fault> {
    let asked = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let vm = match vm {
            Some(vm) => vm,
            None => vm.insert(Vm::load(script)?),
        };
        vm.ask(question)
    }));
    asked.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        Err(Fault::Panicked { what: said.into() })
    })
}

/// One VM, asked directly: for measuring.
pub struct Asker(Vm);

impl Asker {
    /// A VM with the class of this file, and what one call may use.
    pub fn new(script: &Script, limits: Limits) -> Result<Self, Fault> {
        Vm::load_with(script, limits).map(Self)
    }

    /// One question; with `anew`, every table is built for it.
    pub fn ask(&mut self, question: &Question, anew: bool) -> Result<Answer, Fault> {
        if anew {
            self.0.forget()?;
        }
        self.0.ask(question)
    }
}
