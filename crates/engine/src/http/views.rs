//! From rows and snapshots to the API's types.

use skein_api::{
    AttemptView, CandidateView, Counts, DeployedMember, DeployedPipe, DeploymentView, FileView, HeldRuleView,
    InstanceView, NodeView, SessionSummary,
};
use skein_domain::actions::{of_attempt, of_items};
use skein_domain::decide::deployment::{Deployment, held, way};
use skein_domain::decide::explain::Candidate;
use skein_domain::decide::{Snapshot, place};
use skein_domain::group::{Demand, Groups, Member};
use skein_domain::site::Spot;
use skein_domain::task::RunSpec;
use skein_domain::{AttemptState, EndCause, Instance, ItemState, Outcome, Place, SessionSpec, SessionState};
use skein_store::{AttemptRow, SessionRow};

/// Members of groups on their servers.
pub(super) fn deployment(groups: &Groups, deployment: &Deployment) -> DeploymentView {
    let planned = match deployment {
        Deployment::Planned(planned) => planned,
        Deployment::Waits { because, .. } => {
            return DeploymentView {
                state: "waits".to_owned(),
                because: Some(because.clone()),
                members: Vec::new(),
                rules: Vec::new(),
                pipes: Vec::new(),
                crossed_mbps: 0,
                servers: 0,
                proved: false,
            };
        }
    };
    let pipes = groups.rules.iter().filter_map(|rule| match rule.demand {
        Demand::Pipe { mbps } => Some((Groups::pairs(&rule.units), mbps)),
        _ => None,
    });
    let pipe = |(a, b): (u32, u32), mbps: u64| {
        let end = |at: u32| Some((groups.members.get(at as usize)?.name.to_string(), planned.at.get(at as usize)?));
        let ((from, here), (to, there)) = (end(a)?, end(b)?);
        Some(DeployedPipe { from, to, mbps, way: way(here, there).to_owned() })
    };
    DeploymentView {
        state: "planned".to_owned(),
        because: None,
        members: groups.members.iter().zip(&planned.at).map(|(member, spot)| deployed(member, spot)).collect(),
        rules: held(groups, &planned.at).into_iter().map(|h| HeldRuleView { rule: h.rule, by: h.by }).collect(),
        pipes: pipes.flat_map(|(pairs, mbps)| pairs.into_iter().filter_map(move |pair| pipe(pair, mbps))).collect(),
        crossed_mbps: planned.crossed_mbps,
        servers: planned.servers,
        proved: planned.proved,
    }
}

fn deployed(member: &Member, spot: &Spot) -> DeployedMember {
    DeployedMember {
        name: member.name.to_string(),
        kind: member.kind.map_or("task".to_owned(), |kind| format!("{kind:?}").to_lowercase()),
        site: spot.site.to_string(),
        rack: spot.rack.as_ref().map(ToString::to_string),
        server: spot.server.to_string(),
        vcpus: member.vcpus,
        memory_mb: member.memory_mb,
    }
}

pub(super) fn state_word(state: SessionState) -> &'static str {
    match state {
        SessionState::Running => "running",
        SessionState::Paused => "paused",
        SessionState::Stopping => "stopping",
        SessionState::Ended(Outcome::Succeeded) => "succeeded",
        SessionState::Ended(Outcome::Failed) => "failed",
        SessionState::Ended(Outcome::Cancelled) => "cancelled",
    }
}

pub(super) fn kind_word(place: &Place) -> &'static str {
    match place {
        Place::Instance(_) => "instance",
        Place::Gateway(_) => "function",
    }
}

/// Counts of one node; `running` is known for open sessions only.
fn counts(row: &skein_domain::decide::change::NodeRow, running: u64) -> Counts {
    let tally = row.tally;
    let ended = u64::from(tally.ended());
    Counts {
        total: row.count.into(),
        running,
        waiting: u64::from(row.count).saturating_sub(ended + running),
        succeeded: tally.succeeded.into(),
        failed: tally.failed.into(),
        cancelled: tally.cancelled.into(),
        lost: tally.lost.into(),
    }
}

/// Items with an open attempt, per node.
pub(super) fn running(snapshot: &Snapshot, session: skein_domain::SessionId) -> Vec<u64> {
    let Some(open) = snapshot.sessions.get(&session) else { return Vec::new() };
    let assigned = |state: &&ItemState| matches!(state, ItemState::Assigned { .. });
    open.nodes.iter().map(|node| node.open.values().filter(assigned).count() as u64).collect()
}

/// What can be done to items, per node.
pub(super) fn actions(
    snapshot: &Snapshot,
    session: skein_domain::SessionId,
    now: skein_domain::Timestamp,
) -> Vec<Vec<String>> {
    let Some(open) = snapshot.sessions.get(&session) else { return Vec::new() };
    let of = |node| of_items(node, open.state, now).iter().map(ToString::to_string).collect();
    open.nodes.iter().map(of).collect()
}

pub(super) fn summary(row: &SessionRow, running: &[u64]) -> SessionSummary {
    let mut items = Counts::default();
    for (at, node) in row.nodes.iter().enumerate() {
        let one = counts(node, running.get(at).copied().unwrap_or(0));
        items.total += one.total;
        items.running += one.running;
        items.waiting += one.waiting;
        items.succeeded += one.succeeded;
        items.failed += one.failed;
        items.cancelled += one.cancelled;
        items.lost += one.lost;
    }
    SessionSummary {
        session: row.id.to_string(),
        name: row.name.clone(),
        user: row.user.to_string(),
        state: state_word(row.state).to_owned(),
        created_at: row.created_at.0,
        ended_at: row.ended_at.map(|at| at.0),
        items,
    }
}

pub(super) fn nodes(row: &SessionRow, spec: &SessionSpec, running: &[u64], actions: &[Vec<String>]) -> Vec<NodeView> {
    let view = |(at, node): (usize, &skein_domain::NodeSpec)| NodeView {
        node: u32::try_from(at).unwrap_or(u32::MAX),
        name: node.name.to_string(),
        runs: runs(&node.task.run),
        after: node.after.iter().map(|l| spec.thread.nodes[l.node as usize].name.to_string()).collect(),
        items: row.nodes.get(at).map(|n| counts(n, running.get(at).copied().unwrap_or(0))).unwrap_or_default(),
        running_mode: node.task.running_mode.to_string(),
        mode_source: spec.mode_sources.get(at).cloned().unwrap_or_default(),
        actions: actions.get(at).cloned().unwrap_or_default(),
    };
    spec.thread.nodes.iter().enumerate().map(view).collect()
}

fn runs(run: &RunSpec) -> String {
    const SHOWN: usize = 120;
    let text = match run {
        RunSpec::Command(argv) => argv.join(" "),
        RunSpec::Container { image, args } => format!("container {image} {}", args.join(" ")),
        RunSpec::Function { reference } => format!("function {reference}"),
    };
    if text.chars().count() <= SHOWN { text } else { text.chars().take(SHOWN).collect::<String>() + "..." }
}

pub(super) fn attempt(row: &AttemptRow, spec: Option<&SessionSpec>) -> AttemptView {
    let (a, key) = (&row.attempt, row.attempt.key);
    let node = spec.and_then(|s| s.thread.nodes.get(key.item.node.node as usize));
    let end = row.ended.as_ref();
    let open = match a.state {
        AttemptState::Assigned => "assigned",
        AttemptState::Sent => "sent",
        AttemptState::Started => "started",
    };
    AttemptView {
        attempt: key.to_string(),
        user: spec.map(|s| s.user.to_string()).unwrap_or_default(),
        node: node.map_or_else(|| key.item.node.node.to_string(), |n| n.name.to_string()),
        index: key.item.index,
        number: key.number,
        place: a.place.to_string(),
        kind: kind_word(&a.place).to_owned(),
        state: end.map_or(open, |(end, _)| end.cause.word()).to_owned(),
        why: a.choice.to_string(),
        choice: serde_json::to_value(&a.choice).unwrap_or_default(),
        actions: match (&row.ended, node) {
            (None, Some(node)) => of_attempt(a, &node.task).iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        },
        ending: end.map(|(end, _)| end.cause.to_string()),
        exit_code: end.and_then(|(end, _)| match end.cause {
            EndCause::Succeeded => Some(0),
            EndCause::Failed { exit_code } => Some(exit_code),
            _ => None,
        }),
        assigned_at: a.assigned_at.0,
        started_at: a.started_at.map(|at| at.0),
        ended_at: end.map(|(_, at)| at.0),
        run_ms: end.map(|(end, _)| end.run_ms),
        cpu_ms: end.and_then(|(end, _)| end.cpu_ms),
        peak_memory_kb: end.and_then(|(end, _)| end.peak_memory_kb),
        cold_start_ms: end.and_then(|(end, _)| end.cold_start_ms),
        cost_estimate_nano_usd: a.cost_estimate.0,
        cost_nano_usd: a.cost.map(|cost| cost.0),
        outputs: end.map(|(end, _)| end.outputs.iter().map(file).collect()).unwrap_or_default(),
        notes: end.map(|(end, _)| end.notes.clone()).unwrap_or_default(),
    }
}

fn file(output: &skein_domain::OutputFile) -> FileView {
    FileView { path: output.path.clone(), digest: output.digest.to_string(), size: output.size }
}

pub(super) fn candidate(candidate: &Candidate) -> CandidateView {
    CandidateView {
        place: candidate.place.to_string(),
        kind: kind_word(&candidate.place).to_owned(),
        reason: candidate.reason.as_ref().map(ToString::to_string),
        cost_nano_usd: candidate.cost.0,
    }
}

pub(super) fn instance(
    snapshot: &Snapshot,
    instance: &Instance,
    policy: &skein_domain::decide::Policy,
) -> InstanceView {
    let live = snapshot.live(&instance.id);
    InstanceView {
        instance: instance.id.to_string(),
        solution: instance.solution.to_string(),
        state: format!("{:?}", instance.state).to_lowercase(),
        since: instance.since.0,
        cloud_id: instance.machine.as_ref().and_then(|machine| machine.cloud_id.clone()),
        connected: live.connected,
        free: instance.is_free(),
        held_by: instance.held_by.iter().map(ToString::to_string).collect(),
        slots: place::slots(snapshot, &instance.solution, &instance.facts, policy),
        attempts: snapshot.attempts_on(&instance.id).map(|a| a.key.to_string()).collect(),
        cpu_percent: live.cpu_percent,
        memory_used_mb: live.memory_mb,
        memory_mb: instance.facts.memory_mb,
        cpus: instance.facts.cpus,
        os: instance.facts.os.to_string(),
        arch: instance.facts.arch.to_string(),
    }
}
