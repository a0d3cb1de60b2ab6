//! From a document to what a session is: overrides, running modes, defaults, checks.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use skein_api::StartRequest;
use skein_domain::decide::running_mode::{ModeSource, ModeWishes};
use skein_domain::draft::{AfterDraft, BadDraft, TaskDraft, ThreadDraft, apply_override};
use skein_domain::group;
use skein_domain::task::InputSource;
use skein_domain::thread::{LooseNode, assemble};
use skein_domain::{Balance, Digest, RunningMode, SessionSpec, TaskName, TaskSpec, ThreadSpec, UserName};

use crate::config::Settled;

/// What a document settles to.
#[derive(Debug, Clone)]
pub(crate) struct Submission {
    /// The session's spec.
    pub spec: SessionSpec,
    /// Content it refers to.
    pub digests: Vec<Digest>,
}

/// Settles a document for `user`. `lookup` finds a task of the repository by name (`use = "NAME"`).
pub(crate) fn settle(
    mut document: Value,
    request: &StartRequest,
    version: Option<u64>,
    user: &UserName,
    settled: &Settled,
    lookup: impl Fn(&str) -> Result<Option<Value>, BadDraft>,
) -> Result<Submission, BadDraft> {
    if !document.is_object() {
        return Err(BadDraft::from("the document is not a table of fields: see the README for its form".to_owned()));
    }
    if document.get("tasks").is_some() {
        inherit(&mut document, &lookup)?;
    }
    for text in &request.set {
        apply_override(&mut document, text)?;
    }
    let launch = request.running_mode.as_deref().map(parse_mode).transpose()?;
    let balance = request.balance.as_deref().map(parse_balance).transpose()?;
    let thread = if document.get("tasks").is_some() { read(document)? } else { as_thread(document)? };
    let thread = if request.until.is_empty() { thread } else { until(thread, &request.until)? };
    let name = thread.name.clone().unwrap_or_else(|| "thread".to_owned());
    let name = TaskName::new(&name).map_err(|e| BadDraft::from(e.to_string()))?;
    let mut wrong = Vec::new();
    let (mut loose, mut sources) = (Vec::new(), Vec::new());
    for (node, draft) in &thread.tasks {
        let wishes = ModeWishes {
            launch: draft.running_mode.filter(|_| overridden(&request.set, node, "running_mode")).or(launch),
            context: settled.config.context_mode(&thread.labels),
            user: settled.config.user_mode(user.as_str()),
            task: draft.running_mode,
            thread: thread.running_mode,
            default: settled.mode,
        };
        let (mode, source) = wishes.resolve();
        // The same order for balancing, whoever names one: the launch, the task, the thread.
        let set_here = draft.balance.filter(|_| overridden(&request.set, node, "balance"));
        let scheme = set_here.or(balance).or(draft.balance).or(thread.balance);
        match draft.resolve(Some(node), mode, &settled.defaults) {
            Ok(spec) => {
                let spec = TaskSpec { balance: scheme, ..spec };
                sources.push((spec.name.clone(), source));
                loose.push(LooseNode { name: spec.name.clone(), after: links(draft), task: Arc::new(spec) });
            }
            Err(BadDraft(why)) => wrong.extend(why.into_iter().map(|w| format!("task '{node}': {w}"))),
        }
    }
    if !wrong.is_empty() {
        return Err(BadDraft(wrong));
    }
    let hold = thread.hold.as_ref().map_or(Ok(settled.hold), skein_domain::draft::HoldDraft::resolve)?;
    let mut assembled = assemble(name, thread.description.clone(), loose, &thread.together, hold)
        .map_err(|e| BadDraft::from(e.to_string()))?;
    assembled.groups = group::resolve(&thread.groups, &thread.members, &assembled.nodes)?;
    grouped_on_instances(&assembled)?;
    let digests = digests(assembled.nodes.iter().map(|n| &*n.task));
    let mode_sources = assembled.nodes.iter().map(|n| source_of(&sources, &n.name).to_string()).collect();
    let spec = SessionSpec {
        thread: assembled,
        user: user.clone(),
        version,
        overrides: request.set.clone(),
        mode_sources,
        earlier: None,
        budget: request.budget_nano_usd.map(skein_domain::NanoUsd),
    };
    Ok(Submission { spec, digests })
}

/// A gateway does not say where it is: what rules hold together or apart needs instances.
fn grouped_on_instances(thread: &ThreadSpec) -> Result<(), BadDraft> {
    let members = thread.groups.members.iter().filter_map(|member| thread.nodes.get(member.node? as usize));
    let on_function = |node: &&skein_domain::NodeSpec| {
        let profile = node.task.profile();
        profile.mode == RunningMode::Serverless || profile.function_only
    };
    match members.into_iter().find(on_function) {
        Some(node) => Err(format!(
            "task '{}' is in a group and runs serverless only, where no one knows its server: take it out of the group, or let it run on instances",
            node.name
        )
        .into()),
        None => Ok(()),
    }
}

fn source_of(sources: &[(TaskName, ModeSource)], name: &TaskName) -> ModeSource {
    sources.iter().find(|(n, _)| n == name).map_or(ModeSource::Default, |(_, s)| *s)
}

/// Only these tasks and what comes before them.
fn until(mut thread: ThreadDraft, until: &[String]) -> Result<ThreadDraft, BadDraft> {
    let mut wanted: BTreeSet<String> = BTreeSet::new();
    let mut open: Vec<String> = until.to_vec();
    while let Some(name) = open.pop() {
        let Some(task) = thread.tasks.get(&name) else {
            let there: Vec<&str> = thread.tasks.keys().map(String::as_str).collect();
            return Err(format!("until '{name}': the thread has no such task (there are: {})", there.join(", ")).into());
        };
        if wanted.insert(name) {
            open.extend(links(task).into_iter().map(|(before, _)| before));
        }
    }
    let gone = thread.tasks.keys().filter(|name| !wanted.contains(*name)).cloned().collect();
    group::without(&mut thread.groups, &mut thread.members, &gone);
    thread.tasks.retain(|name, _| wanted.contains(name));
    for set in &mut thread.together {
        set.retain(|name| wanted.contains(name));
    }
    thread.together.retain(|set| set.len() > 1);
    Ok(thread)
}

fn read(document: Value) -> Result<ThreadDraft, BadDraft> {
    serde_json::from_value(document).map_err(|e| BadDraft::from(e.to_string()))
}

/// A lone task is a thread of one node.
fn as_thread(document: Value) -> Result<ThreadDraft, BadDraft> {
    let draft = TaskDraft::read(document.clone())?;
    let Some(name) = draft.name.clone() else {
        let complaints = draft.resolve(None, RunningMode::Auto, &skein_domain::draft::TaskDefaults::default());
        return Err(complaints.err().unwrap_or_else(|| BadDraft::from("'name' is missing".to_owned())));
    };
    let labels = draft.labels.clone();
    read(json!({"name": name, "labels": labels, "tasks": {name: document}}))
}

/// `use = "NAME"` in a node: the repository's task, with the node's own fields over it.
fn inherit(document: &mut Value, lookup: &impl Fn(&str) -> Result<Option<Value>, BadDraft>) -> Result<(), BadDraft> {
    let Some(tasks) = document.get_mut("tasks").and_then(Value::as_object_mut) else {
        return Err(BadDraft::from("'tasks' is not a table of tasks by name".to_owned()));
    };
    for (node, task) in tasks {
        let Some(fields) = task.as_object_mut() else {
            return Err(format!("task '{node}' is not a table of fields").into());
        };
        let Some(base) = fields.get("use").and_then(Value::as_str).map(str::to_owned) else { continue };
        let found = lookup(&base)?;
        let found = found.ok_or_else(|| {
            format!("task '{node}' uses '{base}', which is not in the repository: add it with 'skein task add'")
        })?;
        for (field, value) in found.as_object().into_iter().flatten().filter(|(field, _)| *field != "name") {
            fields.entry(field.clone()).or_insert_with(|| value.clone());
        }
    }
    Ok(())
}

fn overridden(set: &[String], node: &str, parameter: &str) -> bool {
    let named = |text: &String| {
        text.split_once('=').and_then(|(target, _)| target.split_once('.')).map(|(t, p)| (t.to_owned(), p.to_owned()))
    };
    set.iter().filter_map(named).any(|(task, param)| param == parameter && (task == "*" || task == node))
}

fn parse_mode(text: &str) -> Result<RunningMode, BadDraft> {
    serde_json::from_value(Value::String(text.to_owned()))
        .map_err(|_| format!("running mode '{text}': give auto, dedicated, serverless or hybrid").into())
}

fn parse_balance(text: &str) -> Result<Balance, BadDraft> {
    serde_json::from_value(Value::String(text.to_owned()))
        .map_err(|_| format!("balance '{text}': give {}", crate::config::SCHEMES).into())
}

fn links(draft: &TaskDraft) -> Vec<(String, skein_domain::When)> {
    let link = |after: &AfterDraft| match after {
        AfterDraft::Name(name) => (name.clone(), skein_domain::When::Success),
        AfterDraft::When { task, when } => (task.clone(), *when),
    };
    draft.after.iter().map(link).collect()
}

pub(crate) fn digests<'a>(tasks: impl Iterator<Item = &'a TaskSpec>) -> Vec<Digest> {
    let of = |task: &'a TaskSpec| {
        task.inputs.iter().filter_map(|input| match &input.source {
            InputSource::Digest(digest) => Some(digest.clone()),
            InputSource::Output { .. } => None,
        })
    };
    tasks.flat_map(of).collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_launch_names_the_balancing_before_the_task_and_the_task_before_the_thread() {
        use Balance::{ByNumber, FirstFit, LowestLoad, Packing};
        let settled = crate::config::Config::default().settle().unwrap();
        let document = json!({"name": "t", "balance": "packing", "tasks": {
            "a": {"command": ["x"], "balance": "first-fit"}, "b": {"command": ["x"]}}});
        let schemes = |launch: Option<&str>, set: &[&str]| {
            let set = set.iter().map(|text| (*text).to_owned()).collect();
            let request = StartRequest { balance: launch.map(str::to_owned), set, ..StartRequest::default() };
            let user = "tester".parse().unwrap();
            let settled = settle(document.clone(), &request, None, &user, &settled, |_| Ok(None));
            settled.map(|s| s.spec.thread.nodes.iter().map(|node| node.task.balance).collect::<Vec<_>>())
        };
        assert_eq!(schemes(None, &[]).unwrap(), [Some(FirstFit), Some(Packing)]);
        assert_eq!(schemes(Some("by-number"), &[]).unwrap(), [Some(ByNumber), Some(ByNumber)]);
        let one = schemes(Some("by-number"), &["b.balance=lowest-load"]).unwrap();
        assert_eq!(one, [Some(ByNumber), Some(LowestLoad)]);
        let bad = schemes(Some("worst"), &[]).unwrap_err().to_string();
        assert!(bad.contains("'worst'") && bad.contains("lowest-load"), "{bad}");
    }
}
