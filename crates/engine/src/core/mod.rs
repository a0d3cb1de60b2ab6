//! The engine's core: a state machine without IO.
//!
//! ```text
//! inputs --turn--> events --apply--> snapshot --decide--> plan --> events --apply--> changes, outputs
//!                                                                                      |
//!                                              the writer commits the changes, <-------+
//!                                              and only then lets the outputs out
//! ```
//! Failure paths: a commit that fails drops this core; the writer loads a new one from the ledger, and
//! none of the turn's outputs leave. An order that was committed but not sent (a crash between the
//! two) is the attempt's row in state `assigned`: it is sent again when its agent says hello.
//! A restart gives every instance one full lease term.

mod agents;
mod control;
mod ends;
mod input;
mod machines;
mod output;
mod propose;
mod replies;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skein_domain::decide::budget::{refused, standings};
use skein_domain::decide::demand::{Demands, ElementMetric, Zones};
use skein_domain::decide::deployment::{Effort, REPLANNED_MAX, deploy, replan};
use skein_domain::decide::replay::deconflict;
use skein_domain::decide::{Policy, Snapshot, decide};
use skein_domain::event::Event;
use skein_domain::id::SESSIONS_PER_TURN_MAX;
use skein_domain::{
    AttemptKey, AttemptState, InstanceId, InstanceState, Live, Place, Session, SessionId, SolutionId, Timestamp,
    UserName, Withdrawal,
};
use skein_store::Side;

pub use input::{CloudEvent, GatewayEvent, Input, Listed, ReplyId, Settings};
pub use output::{Answer, OrderTo, Output, Refusal, RefusalKind};
pub use propose::{ANSWER_MS, ASK_AGAIN_MS, FAILURES_MAX, REST_MS};

/// Client keys remembered in memory; older ones are in the ledger, where the rim looks first.
const RECENT_KEYS_MAX: usize = 100_000;
/// After a turn that could not be written, the next is tried after this, ms, if nothing comes in.
const OWED_MS: u64 = 500;

/// What planning a deployment may cost within a turn: less than at the rim, since everybody waits for it.
const IN_TURN: Effort = Effort { tries_max: 10_000, conflict_tries_max: 20_000 };

/// What a turn produced: to be committed, then let out.
#[derive(Debug, Default)]
pub struct TurnResult {
    /// Its number.
    pub turn: u64,
    /// When.
    pub at: Timestamp,
    /// What happened.
    pub events: Vec<Event>,
    /// Events before a position happened in an earlier turn, at that moment.
    pub earlier: Vec<(usize, u64, Timestamp)>,
    /// Rows to write.
    pub changes: Vec<skein_domain::decide::change::Change>,
    /// Other rows to write.
    pub side: Vec<Side>,
    /// To let out after the commit.
    pub outputs: Vec<Output>,
    /// Nobody waits for this turn's rows: it may be written with a later one.
    pub lazy: bool,
    /// Inputs that nobody says a second time: if the turn cannot be written, the next core takes them
    /// again ([`Core::reloaded`]). Clients are told and ask again; agents repeat what is not recorded.
    pub owed: Vec<Input>,
    /// It took up again what gateways and machines of a former engine were at.
    pub resumes: bool,
}

impl TurnResult {
    /// Is there anything to write?
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.changes.is_empty() && self.side.is_empty()
    }
}

/// The core.
pub struct Core {
    snapshot: Snapshot,
    settings: Settings,
    /// What items are worth machines for.
    demands: Demands,
    /// When each instance's lease ends.
    leases: BTreeMap<InstanceId, Timestamp>,
    recent_keys: BTreeMap<(UserName, String), SessionId>,
    /// When unanswered orders were last sent again.
    repeated: BTreeMap<AttemptKey, Timestamp>,
    next_wake: Option<Timestamp>,
    /// Nothing of this start is on record yet.
    starts: bool,
    /// What was measured, as far as it is on record, and what differs from that.
    live_said: BTreeMap<InstanceId, Live>,
    live_changed: BTreeSet<InstanceId>,
    /// Orders to gateways that must be taken up again after a restart.
    resume: bool,
    /// Sessions that tell a receiver.
    tells: BTreeSet<SessionId>,
    /// When each cloud is asked next what it has.
    list_at: BTreeMap<SolutionId, Timestamp>,
    /// Machines that no one owned and that were said to be so.
    orphans: BTreeSet<(SolutionId, InstanceId)>,
    /// How it stands with asking the configured algorithm.
    asks: propose::Asks,
    /// Taken by a turn that could not be written.
    owed: Vec<Input>,
    /// Applied but not yet written (lazy turns), carried into the next turn.
    turn: TurnResult,
    now: Timestamp,
    ordinal: u64,
}

impl Core {
    /// A core over what the ledger has open.
    pub fn new(snapshot: Snapshot, settings: Settings, now: Timestamp) -> Self {
        let mut leases = BTreeMap::new();
        for instance in snapshot.instances.values() {
            if matches!(instance.state, InstanceState::Ready | InstanceState::Draining) {
                leases.insert(instance.id.clone(), now.after_ms(settings.lease_ms));
            }
        }
        let telling = |s: &&Session| Session::replies(&s.spec);
        let tells = snapshot.sessions.values().filter(telling).map(|s| s.id).collect();
        Self {
            tells,
            snapshot,
            settings,
            demands: Demands::new(Zones(crate::zone::ahead_s)),
            leases,
            recent_keys: BTreeMap::new(),
            repeated: BTreeMap::new(),
            next_wake: Some(now),
            starts: true,
            live_said: BTreeMap::new(),
            live_changed: BTreeSet::new(),
            resume: true,
            list_at: BTreeMap::new(),
            orphans: BTreeSet::new(),
            asks: propose::Asks::default(),
            owed: Vec::new(),
            turn: TurnResult::default(),
            now,
            ordinal: 0,
        }
    }

    /// A core over what the ledger has open, after a turn that could not be written: whoever waits for
    /// a gateway's answer still does, so nothing is taken up again, unless the failed turn was the one that was to:
    /// none of its orders went out (`resumes`). What it `owed` is taken with the next input, or after [`OWED_MS`].
    pub fn reloaded(snapshot: Snapshot, settings: Settings, now: Timestamp, resumes: bool, owed: Vec<Input>) -> Self {
        let fresh = Self::new(snapshot, settings, now);
        Self { resume: resumes, owed, next_wake: Some(now.after_ms(OWED_MS)), ..fresh }
    }

    /// Metrics of scaling elements that the engine carries out, by solution and name.
    pub fn element_metrics(&self) -> Vec<ElementMetric> {
        self.demands.metrics(&self.snapshot)
    }

    /// What the planner sees.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// How it decides.
    pub fn policy(&self) -> &Policy {
        &self.settings.policy
    }

    /// When to call [`Core::turn`] even without input.
    pub fn next_wake(&self) -> Option<Timestamp> {
        let lease = self.leases.values().min().copied();
        let list = self.list_at.values().min().copied();
        let due = [self.next_wake, lease, list, self.asks.wake, self.demands.next_look()];
        due.into_iter().flatten().min()
    }

    /// One turn over what came in.
    pub fn turn(&mut self, now: Timestamp, inputs: Vec<Input>) -> TurnResult {
        self.now = now;
        self.ordinal = 0;
        self.turn = TurnResult { turn: self.snapshot.turn + 1, at: now, lazy: true, ..TurnResult::default() };
        if std::mem::take(&mut self.starts) {
            self.say_what_holds();
        }
        if std::mem::take(&mut self.resume) {
            self.turn.resumes = true;
            self.resume_gateways();
            self.resume_machines();
        }
        for input in std::mem::take(&mut self.owed).into_iter().chain(inputs) {
            self.turn.owed.extend(input.said_once());
            self.take(input);
        }
        self.expire_leases();
        self.list_machines();
        self.expire_ask();
        self.look_at_demand();
        self.place();
        self.ask_algorithm();
        self.turn.changes = self.snapshot.take_changes();
        std::mem::take(&mut self.turn)
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Submit { reply, spec, client_key, digests, estimate } => {
                self.submit(reply, spec, client_key, digests, estimate);
            }
            Input::Stop { reply, session, by } => self.stop(reply, session, by),
            Input::Pause { reply, session, by, stop_running } => self.pause(reply, session, by, stop_running),
            Input::Resume { reply, session, by, budget } => self.resume(reply, session, by, budget),
            Input::Answer { reply, node, ranges, again } => self.answer_items(reply, node, &ranges, again),
            Input::RetryNow { reply, node, ranges, by } => self.retry_now(reply, node, &ranges, &by),
            Input::CancelItems { reply, node, ranges, by } => self.cancel_items(reply, node, &ranges, &by),
            Input::Command { reply, attempt, command } => self.command(reply, attempt, command),
            Input::SayMetric { reply, metric, solution, value, by } => {
                self.say_metric(reply, metric, solution, value, by);
            }
            Input::Drain { reply, instance, why } => self.drain(reply, &instance, why),
            Input::Notice { reply, instance, why } => self.notice(reply, &instance, why),
            Input::Write { reply, side } => {
                self.turn.side.extend(side);
                self.answer(reply, Ok(Answer::Done));
            }
            Input::Configure { settings, solutions } => self.configure(*settings, solutions),
            Input::Hello { hello, solution } => self.hello(*hello, solution),
            Input::Disconnected { instance, boot } => self.disconnected(&instance, &boot),
            Input::FromAgent { instance, boot, messages } => self.take_from_agent(&instance, &boot, messages),
            Input::FromGateway { solution, order, event } => self.take_from_gateway(&solution, order, event),
            Input::FromCloud { solution, event } => self.take_from_cloud(&solution, event),
            Input::OrderFailed { order, why } => self.order_failed(order, why),
            Input::Proposed { ask, answer } => self.proposed(ask, answer),
            Input::AlgorithmSet { class, digest } => self.algorithm_set(class, digest),
        }
    }

    /// Applies events, and what follows from them, to the snapshot and this turn.
    fn happen(&mut self, events: Vec<Event>) {
        let lazy = |event: &Event| {
            let unheard = |e: &Event| {
                matches!(e, Event::CapacitySet { .. } | Event::DemandSeen { .. } | Event::ElementWants { .. })
            };
            matches!(event, Event::Sent { .. } | Event::Started { .. }) || unheard(event)
        };
        self.learn_telling(&events);
        let telling = self.telling(&events);
        let all = self.snapshot.apply_all(self.turn.turn, self.now, events);
        self.tell(&telling, &all);
        self.turn.lazy &= all.iter().all(lazy);
        for event in &all {
            self.demands.observe(event, self.now);
            match event {
                Event::Cancelling { attempt } | Event::Recalling { attempt, .. } | Event::Moving { attempt, .. } => {
                    self.order_back(*attempt);
                }
                Event::Ended { attempt, end, .. } => {
                    let session = attempt.item.session();
                    let refer =
                        |output: &skein_domain::OutputFile| Side::FileRef { session, digest: output.digest.clone() };
                    self.turn.side.extend(end.outputs.iter().map(refer));
                }
                Event::InstanceWanted { instance, solution, .. } => self.order_make(solution, instance),
                Event::WarmSet { solution, warm, .. } => {
                    self.turn.outputs.push(Output::Scale { solution: solution.clone(), min_warm: *warm });
                }
                Event::InstanceEnding { instance, .. } => {
                    if let Some(solution) = self.snapshot.instances.get(instance).map(|i| i.solution.clone()) {
                        self.order_end(&solution, instance);
                    }
                }
                Event::InstanceDraining { instance, why } | Event::InstanceNoticed { instance, why } => {
                    self.turn.outputs.push(Output::DrainAgent { instance: instance.clone(), why: why.clone() });
                }
                _ => {}
            }
        }
        self.turn.events.extend(all);
    }

    fn answer(&mut self, reply: ReplyId, answer: Result<Answer, Refusal>) {
        self.turn.lazy = false;
        self.turn.outputs.push(Output::Reply { reply, answer });
    }

    fn submit(
        &mut self,
        reply: ReplyId,
        spec: Arc<skein_domain::SessionSpec>,
        client_key: Option<String>,
        digests: Vec<skein_domain::Digest>,
        estimate: Option<skein_domain::NanoUsd>,
    ) {
        let known = client_key.as_ref().and_then(|key| self.recent_keys.get(&(spec.user.clone(), key.clone())));
        if let Some(session) = known {
            let session = *session;
            return self.answer(reply, Ok(Answer::Session { session, new: false }));
        }
        if self.ordinal >= SESSIONS_PER_TURN_MAX {
            let why = format!("more than {SESSIONS_PER_TURN_MAX} sessions were submitted at once");
            return self.answer(reply, Err(Refusal::busy(why)));
        }
        if let Err(why) = self.within_queue(&spec) {
            return self.answer(reply, Err(Refusal::busy(why)));
        }
        let session = SessionId::derive(self.turn.turn, self.ordinal);
        if let Err(why) = self.within_budgets(session, &spec, estimate) {
            return self.answer(reply, Err(Refusal { kind: RefusalKind::OverBudget, why }));
        }
        let deployed = match deploy(&self.snapshot, &self.settings.policy, session, &spec.thread, IN_TURN) {
            Ok(deployed) => deployed,
            Err(why) => {
                let why = format!("its groups cannot be deployed: {why}");
                return self.answer(reply, Err(Refusal { kind: RefusalKind::Conflict, why }));
            }
        };
        self.ordinal += 1;
        if let Some(key) = client_key {
            self.turn.side.push(Side::ClientKey { user: spec.user.clone(), key: key.clone(), session });
            if self.recent_keys.len() >= RECENT_KEYS_MAX {
                self.recent_keys.clear();
            }
            self.recent_keys.insert((spec.user.clone(), key), session);
        }
        self.turn.side.extend(digests.into_iter().map(|digest| Side::FileRef { session, digest }));
        let why = "it was submitted".to_owned();
        let deployed = deployed.map(|d| Event::Deployed { session, deployment: Box::new(d), why });
        self.happen(std::iter::once(Event::SessionStarted { session, spec }).chain(deployed).collect());
        self.answer(reply, Ok(Answer::Session { session, new: true }));
    }

    /// Does every cap that refuses allow what the session is expected to cost?
    fn within_budgets(
        &self,
        session: SessionId,
        spec: &skein_domain::SessionSpec,
        estimate: Option<skein_domain::NanoUsd>,
    ) -> Result<(), String> {
        let Some(estimate) = estimate else { return Ok(()) };
        let (policy, of) = (&self.settings.policy, (&spec.user, session, spec.budget));
        let over = refused(&standings(&self.snapshot, policy, of, self.now), estimate);
        over.map_or(Ok(()), |over| {
            let raise = over.cap.raise();
            Err(format!(
                "the session is not started: {over}; {raise}, or start less ('skein plan' says what costs what)"
            ))
        })
    }

    /// Is there room for one more session's items in the queue?
    fn within_queue(&self, spec: &skein_domain::SessionSpec) -> Result<(), String> {
        let policy = &self.settings.policy;
        let items: u64 = spec.thread.nodes.iter().map(|node| u64::from(node.task.array)).sum();
        let check = |what: &str, key: &str, open: u64, most: Option<u64>| match most {
            Some(most) if open + items > most => Err(format!(
                "{what} has {open} items open, and these {items} would exceed the limit of {most} ({key}): wait, stop a session, or raise the limit"
            )),
            _ => Ok(()),
        };
        check(
            &format!("user '{}'", spec.user),
            "balancing.user_items_max",
            self.snapshot.items_open(&spec.user),
            policy.user_items_max,
        )?;
        check("the engine", "balancing.items_max", self.snapshot.all_items_open(), policy.items_max)
    }

    fn configure(&mut self, settings: Settings, solutions: Vec<skein_domain::Solution>) {
        let mut events = Vec::new();
        if self.settings.policy != settings.policy {
            events.push(Event::PolicySet { policy: Box::new(settings.policy.clone()) });
        }
        self.settings = settings;
        for known in self.snapshot.solutions.keys() {
            if !solutions.iter().any(|s| s.id == *known) {
                events.push(Event::SolutionRemoved { solution: known.clone() });
            }
        }
        for solution in solutions {
            if self.snapshot.solutions.get(&solution.id) != Some(&solution) {
                events.push(Event::SolutionSet { solution });
            }
        }
        if !events.is_empty() {
            self.happen(events);
        }
    }

    /// What became ready is followed; when it is time to, what it is worth goes on record before anything is
    /// placed by it.
    fn look_at_demand(&mut self) {
        self.demands.arrivals(&self.snapshot, &self.settings.policy, self.now);
        let events = self.demands.look(&self.snapshot, &self.settings.policy, self.now);
        if !events.is_empty() {
            self.happen(events);
        }
    }

    /// What holds from this start on, whatever an earlier one had in memory.
    fn say_what_holds(&mut self) {
        let known: Vec<(InstanceId, Live)> =
            self.snapshot.instances.keys().map(|id| (id.clone(), self.snapshot.live(id))).collect();
        let policy = Box::new(self.settings.policy.clone());
        self.happen(vec![Event::EngineStarted, Event::PolicySet { policy }]);
        for (id, live) in known {
            self.measured(&id, live);
        }
    }

    /// Takes a connection or a measurement; it goes on record when something is decided by it.
    pub(super) fn measured(&mut self, id: &InstanceId, live: Live) {
        self.snapshot.set_live(id, live);
        self.live_changed.insert(id.clone());
    }

    /// The events that follow are a plan's: what it saw beside what is on record goes first.
    fn say_what_was_seen(&mut self) {
        let mut live = Vec::new();
        for id in std::mem::take(&mut self.live_changed) {
            let seen = self.snapshot.live(&id);
            if self.live_said.get(&id).copied().unwrap_or_default() != seen {
                self.live_said.insert(id.clone(), seen);
                live.push((id, seen));
            }
        }
        self.happen(vec![Event::Decided { live }]);
    }

    fn place(&mut self) {
        let deployed = replan(&self.snapshot, &self.settings.policy, IN_TURN);
        let more = deployed.len() >= REPLANNED_MAX;
        if !deployed.is_empty() {
            self.happen(deployed);
        }
        let plan = decide(&self.snapshot, &self.settings.policy, self.now);
        self.next_wake = if more { Some(self.now) } else { plan.next_wake };
        if plan.is_idle() {
            return;
        }
        self.say_what_was_seen();
        let ordered: Vec<AttemptKey> = plan.assignments.iter().map(|a| a.item.attempt(a.number)).collect();
        let mut events = plan.into_events(&self.snapshot, self.turn.turn, self.now);
        deconflict(&self.snapshot, &self.settings.policy, &mut events);
        self.happen(events);
        for attempt in ordered {
            self.order_start(attempt, false);
        }
    }

    /// Lets out the order to start an open attempt.
    fn order_start(&mut self, key: AttemptKey, resume: bool) {
        let Some(attempt) = self.snapshot.attempts.get(&key) else { return };
        let Some(session) = self.snapshot.sessions.get(&key.item.session()) else { return };
        let order = OrderTo { spec: session.spec.clone(), attempt: attempt.clone() };
        self.turn.outputs.push(match &attempt.place {
            Place::Instance(_) => Output::StartOnAgent { order },
            Place::Gateway(_) => Output::StartInGateway { order, resume },
        });
    }

    /// Lets out the order to give back an attempt that was withdrawn.
    fn order_back(&mut self, key: AttemptKey) {
        let Some(attempt) = self.snapshot.attempts.get(&key) else { return };
        let (place, generation) = (attempt.place.clone(), attempt.generation);
        match (attempt.withdrawn, place) {
            (Some(Withdrawal::Recall), Place::Instance(instance)) if attempt.state != AttemptState::Started => {
                self.turn.outputs.push(Output::Recall { attempt: key, generation, instance });
            }
            (Some(how @ (Withdrawal::Cancel | Withdrawal::Move)), place) => {
                let moving = how == Withdrawal::Move;
                self.turn.outputs.push(Output::Cancel { attempt: key, generation, place, moving });
            }
            _ => {}
        }
    }

    /// After a restart nobody waits for the answers of open invocations: take them up again.
    fn resume_gateways(&mut self) {
        let gateway = |a: &&skein_domain::Attempt| matches!(a.place, Place::Gateway(_));
        let open: Vec<AttemptKey> = self.snapshot.attempts.values().filter(gateway).map(|a| a.key).collect();
        for attempt in open {
            self.order_start(attempt, true);
        }
        let warm = self.snapshot.solutions.values().filter_map(|s| Some((s.id.clone(), s.shared()?.min_warm)));
        let warm: Vec<(SolutionId, u32)> = warm.collect();
        self.turn.outputs.extend(warm.into_iter().map(|(solution, min_warm)| Output::Scale { solution, min_warm }));
    }
}
