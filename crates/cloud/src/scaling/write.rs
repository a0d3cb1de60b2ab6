//! From the common form to a cloud's documents.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::difference::{Reasons, Why};
use super::path::{Path, Scope};
use super::table::{Block, Field, Table};
use super::tree::{self, Place};
use super::{Document, convert};

/// What was written.
pub(super) struct Written {
    /// The documents, in the order in which they can be sent.
    pub(super) documents: Vec<Document>,
    /// Why a place is not what it was.
    pub(super) reasons: Reasons,
    /// By map: keys of entries whose names stand nowhere, as they were written.
    pub(super) unnamed: BTreeMap<String, Vec<String>>,
}

pub(super) fn write(asked: &Value, table: &Table) -> Written {
    let mut writing = Writing { asked, reasons: Reasons::new(), unnamed: BTreeMap::new() };
    let mut documents = Vec::new();
    let mut written = BTreeSet::new();
    for block in &table.documents {
        for scope in writing.entries(block, &Scope::new()) {
            if block.each.is_some() && !written.insert((&block.at, scope.clone())) {
                continue;
            }
            let mut body = writing.block(block, &scope);
            for at in &block.json_text {
                let at = tree::place(at);
                if let Some(text) = tree::get(&body, &at).map(Value::to_string) {
                    tree::set(&mut body, &at, Value::from(text));
                }
            }
            let keys: Vec<&str> = scope.iter().filter_map(|place| place.last().map(String::as_str)).collect();
            let own = || asked["name"].as_str().unwrap_or_default().to_owned();
            let name = if keys.is_empty() { own() } else { keys.join(".") };
            documents.push(Document { kind: block.at.clone(), name, body });
        }
    }
    Written { documents, reasons: writing.reasons, unnamed: writing.unnamed }
}

struct Writing<'a> {
    asked: &'a Value,
    reasons: Reasons,
    unnamed: BTreeMap<String, Vec<String>>,
}

impl Writing<'_> {
    /// Scopes in which a block is written.
    fn entries(&mut self, block: &Block, around: &Scope) -> Vec<Scope> {
        let all = match &block.each {
            None => vec![around.clone()],
            Some(each) => entries(self.asked, each, around),
        };
        all.into_iter().filter(|scope| block.when.iter().all(|when| when.holds_for(self.asked, scope))).collect()
    }

    fn block(&mut self, block: &Block, scope: &Scope) -> Value {
        let named = block.by_key.is_some() || block.fields.iter().any(|field| matches!(field.from, Path::Key));
        if let (Some(Path::Root(each)), Some([map, key])) = (&block.each, scope.last().map(Vec::as_slice))
            && each.len() == 1
            && !named
            && !block.only_out
        {
            self.unnamed.entry(map.clone()).or_default().push(key.clone());
        }
        let mut body = Value::Object(Map::new());
        for (at, value) in block.is.iter().chain(&block.also) {
            tree::set(&mut body, &tree::place(at), with_keys(value, block, scope));
        }
        for field in &block.fields {
            if let Some(value) = self.field(field, scope) {
                tree::set(&mut body, &tree::place(&field.to), value);
            }
        }
        let mut written = BTreeSet::new();
        for list in &block.lists {
            for scope in self.entries(list, scope) {
                if list.each.is_some() && !list.only_out && !written.insert((&list.at, scope.clone())) {
                    continue;
                }
                let mut at = tree::place(&list.at);
                if list.one && tree::get(&body, &at).is_some() {
                    continue;
                }
                let entry = self.block(list, &scope);
                let key = scope.last().and_then(|place| place.last()).map_or("", String::as_str);
                match &list.by_key {
                    _ if list.one => {}
                    Some(pattern) => at.push(pattern.replace('%', outer(&scope)).replace('*', key)),
                    None => at.push(tree::get(&body, &at).and_then(Value::as_array).map_or(0, Vec::len).to_string()),
                }
                tree::set(&mut body, &at, entry);
            }
        }
        body
    }

    fn field(&mut self, field: &Field, scope: &Scope) -> Option<Value> {
        let asked = field.from.get(self.asked, scope).filter(|value| !tree::is_empty(value))?;
        let place = field.from.resolve(self.asked, scope).map(|place| tree::join(&place));
        let at = |path: &Path| path.get(self.asked, scope)?.as_f64();
        let mut said = Some(asked.clone());
        let mut why = None;
        for conversion in &field.conversions {
            let (next, reason) = conversion.out(said?, &at);
            why = why.or(reason);
            said = next;
            if said.is_none() {
                break;
            }
        }
        let back = said.clone().and_then(|said| back(&field.conversions, said, Some(&asked), &at));
        if let Some(place) = place.filter(|_| !field.only_out && back.is_none_or(|back| !tree::same(&back, &asked))) {
            self.reasons.entry(place).or_insert(why.unwrap_or(Why::Nearest));
        }
        said
    }
}

fn outer(scope: &Scope) -> &str {
    scope.first().and_then(|place| place.last()).map_or("", String::as_str)
}

/// What is only written may name its entries: `{0}` is the outermost one's key, `{1}` the innermost one's.
fn with_keys(value: &Value, block: &Block, scope: &Scope) -> Value {
    match value {
        Value::String(text) if block.only_out => {
            let inner = scope.last().and_then(|place| place.last()).map_or("", String::as_str);
            Value::from(text.replace("{0}", outer(scope)).replace("{1}", inner))
        }
        Value::Array(all) => all.iter().map(|one| with_keys(one, block, scope)).collect(),
        Value::Object(map) => {
            map.iter().map(|(key, one)| (key.clone(), with_keys(one, block, scope))).collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

/// All of a field's conversions, backwards.
pub(super) fn back(
    conversions: &[convert::Conversion],
    value: Value,
    current: Option<&Value>,
    at: &convert::At<'_>,
) -> Option<Value> {
    conversions.iter().rev().try_fold(value, |value, conversion| conversion.back(value, current, at))
}

fn entries(root: &Value, each: &Path, around: &Scope) -> Vec<Scope> {
    let Some(place) = each.resolve(root, around) else { return Vec::new() };
    if let Some(star) = place.iter().position(|part| part == "*") {
        let outer = entries(root, &Path::Root(place[..star].to_vec()), around);
        let inner = Path::Entry { out: 0, next: false, rest: place[star + 1..].to_vec() };
        return outer.iter().flat_map(|scope| entries(root, &inner, scope)).collect();
    }
    let keys: Vec<String> = match tree::get(root, &place) {
        Some(Value::Object(map)) => map.keys().cloned().collect(),
        Some(Value::Array(all)) => (0..all.len()).map(|at| at.to_string()).collect(),
        _ => Vec::new(),
    };
    let scope = |key: String| -> Scope {
        let inner: Place = place.iter().cloned().chain([key]).collect();
        around.iter().cloned().chain([inner]).collect()
    };
    keys.into_iter().map(scope).collect()
}
