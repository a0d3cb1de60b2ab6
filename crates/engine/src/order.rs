//! From an order of the core to the message its place understands: indices and secrets put in, inputs
//! named by digest. Nothing is chosen here.

use std::collections::BTreeMap;
use std::sync::Arc;

use skein_domain::task::{EnvValue, InputSource, InputSpec, RunSpec, with_index};
use skein_domain::{AttemptEnd, EndCause, EngineId, NodeKey, OutputFile, Place, SessionSpec, TaskSpec};
use skein_store::Reader;
use skein_wire::{InputFile, StartOrder};

use crate::content::Content;
use crate::core::OrderTo;

/// What is needed to make orders.
pub(crate) struct OrderMaker<'a> {
    /// This engine.
    pub engine: &'a EngineId,
    /// The ledger's reader, for outputs of earlier items.
    pub reader: &'a dyn Reader,
    /// The content folder, for sizes.
    pub content: &'a Content,
    /// Finds a secret's value.
    pub secret: &'a dyn Fn(&str) -> Result<String, String>,
}

impl OrderMaker<'_> {
    /// The order, or why it cannot be made.
    pub(crate) fn make(&self, order: &OrderTo) -> Result<StartOrder, String> {
        let item = order.attempt.key.item;
        let node = order.spec.thread.nodes.get(item.node.node as usize).ok_or("its thread has no such node")?;
        let task = &node.task;
        let (env, secret_env) = self.env(task, item.index)?;
        let proprietary = match &order.attempt.place {
            Place::Gateway(id) => task.proprietary.get(id).cloned(),
            Place::Instance(_) => None,
        };
        Ok(StartOrder {
            engine: self.engine.clone(),
            attempt: order.attempt.key,
            generation: order.attempt.generation,
            node: node.name.to_string(),
            run: run(&task.run, item.index),
            env,
            secret_env,
            inputs: self.inputs(&order.spec, task, item)?,
            outputs: task.outputs.iter().map(|o| with_index(o, item.index)).collect(),
            cpu: task.needs.cpu.into(),
            memory_mb: task.needs.memory_mb,
            slots: task.needs.slots,
            limit_ms: order.attempt.limit_ms,
            grace_ms: task.grace_ms,
            stdin: task.stdin,
            proprietary,
        })
    }

    fn env(&self, task: &TaskSpec, index: u32) -> Result<(BTreeMap<String, String>, Vec<String>), String> {
        let mut env = BTreeMap::new();
        let mut secret = Vec::new();
        for (name, value) in &task.env {
            let value = match value {
                EnvValue::Plain(text) => with_index(text, index),
                EnvValue::Secret { secret: named } => {
                    secret.push(name.clone());
                    (self.secret)(named)?
                }
            };
            env.insert(name.clone(), value);
        }
        Ok((env, secret))
    }

    fn inputs(
        &self,
        spec: &Arc<SessionSpec>,
        task: &TaskSpec,
        item: skein_domain::ItemKey,
    ) -> Result<Vec<InputFile>, String> {
        let mut files = Vec::new();
        for input in &task.inputs {
            match &input.source {
                InputSource::Digest(digest) => files.push(InputFile {
                    path: with_index(&input.path, item.index),
                    digest: digest.clone(),
                    size: self.content.size(digest).map_err(|e| e.to_string())?,
                }),
                InputSource::Output { from, output } => {
                    let at = spec
                        .thread
                        .nodes
                        .iter()
                        .position(|n| n.name == *from)
                        .ok_or("the giving task is not in the thread")?;
                    let node = NodeKey { session: item.session(), node: u32::try_from(at).unwrap_or(u32::MAX) };
                    let count = spec.thread.nodes[at].task.array;
                    files.extend(self.outputs_of(spec, (input, output), node, count, item.index)?);
                }
            }
        }
        Ok(files)
    }

    /// Outputs of another node: of each of its items when `{from_index}` is in the names; of its only
    /// item; or of the item with the same index.
    fn outputs_of(
        &self,
        spec: &SessionSpec,
        (input, output): (&InputSpec, &str),
        node: NodeKey,
        count: u32,
        index: u32,
    ) -> Result<Vec<InputFile>, String> {
        let place = |text: &str, from: u32| with_index(text, index).replace("{from_index}", &from.to_string());
        let take = |from: u32, outputs: &[OutputFile]| {
            let wanted = place(output, from);
            let found = outputs.iter().find(|o| o.path == wanted);
            let found =
                found.ok_or_else(|| format!("the earlier item {} left no output '{wanted}'", node.item(from)))?;
            Ok(InputFile { path: place(&input.path, from), digest: found.digest.clone(), size: found.size })
        };
        if output.contains("{from_index}") || input.path.contains("{from_index}") {
            let all = self.all_outputs(spec, node)?;
            return all.iter().map(|(from, outputs)| take(*from, outputs)).collect();
        }
        let from = if count == 1 { 0 } else { index };
        let holder = self.holder(spec, node.item(from))?;
        let attempts = self.reader.attempts_at(holder).map_err(|e| e.to_string())?;
        let good = |end: &AttemptEnd| end.cause == EndCause::Succeeded;
        let end = attempts.iter().filter_map(|a| a.ended.as_ref().map(|(end, _)| end)).find(|end| good(end));
        let end = end
            .ok_or_else(|| format!("the earlier item {} did not succeed, so it left no '{output}'", node.item(from)))?;
        Ok(vec![take(from, &end.outputs)?])
    }

    /// The item, or the one of an earlier session that did its work.
    fn holder(&self, spec: &SessionSpec, item: skein_domain::ItemKey) -> Result<skein_domain::ItemKey, String> {
        let Some(earlier) = spec.earlier.as_ref().filter(|e| e.has(item.node.node, item.index)) else {
            return Ok(item);
        };
        let before = self.spec_of(earlier.session)?;
        let node = NodeKey { session: earlier.session, node: item.node.node };
        self.holder(&before, node.item(item.index))
    }

    fn all_outputs(&self, spec: &SessionSpec, node: NodeKey) -> Result<Vec<(u32, Vec<OutputFile>)>, String> {
        let mut all = self.reader.outputs(node).map_err(|e| e.to_string())?;
        if let Some(earlier) = spec.earlier.as_ref().filter(|e| e.done.contains_key(&node.node)) {
            let before = self.spec_of(earlier.session)?;
            let theirs = self.all_outputs(&before, NodeKey { session: earlier.session, node: node.node })?;
            all.extend(theirs.into_iter().filter(|(index, _)| earlier.has(node.node, *index)));
            all.sort_by_key(|(index, _)| *index);
        }
        Ok(all)
    }

    fn spec_of(&self, session: skein_domain::SessionId) -> Result<SessionSpec, String> {
        let spec = self.reader.session_spec(session).map_err(|e| e.to_string())?;
        spec.ok_or_else(|| {
            format!("session {session}, whose results it takes over, is not kept any more: run all of it again")
        })
    }
}

fn run(run: &RunSpec, index: u32) -> RunSpec {
    let all = |texts: &[String]| texts.iter().map(|t| with_index(t, index)).collect();
    match run {
        RunSpec::Command(argv) => RunSpec::Command(all(argv)),
        RunSpec::Container { image, args } => RunSpec::Container { image: image.clone(), args: all(args) },
        RunSpec::Function { reference } => RunSpec::Function { reference: reference.clone() },
    }
}
