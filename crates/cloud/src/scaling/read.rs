//! From a cloud's documents to the common form.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use skein_domain::scaling::{Alarm, Element, Metric, Policy};

use super::path::{Path, Scope};
use super::table::{Block, Table};
use super::tree::{self, Place};
use super::write::{self, Written};
use super::{Document, ScalingError};

/// Maps of the common form whose entries have names.
const MAPS: [(&str, &str); 3] = [("metrics", "metric"), ("alarms", "alarm"), ("policies", "policy")];

/// What was read.
pub(super) struct Read {
    pub(super) element: Element,
    /// Places of names that stand nowhere, and were taken from what was asked.
    pub(super) unnamed: Vec<(Place, String)>,
}

/// `asked` is what the documents were written from, where that is known: names that stand nowhere are taken from it.
pub(super) fn read(
    documents: &[Document],
    table: &Table,
    asked: Option<(&Value, &Written)>,
) -> Result<Read, ScalingError> {
    let names = asked.map(|(_, written)| written.unnamed.clone()).unwrap_or_default();
    let asked = asked.map_or(Value::Null, |(asked, _)| asked.clone());
    let mut reading = Reading { root: Value::Object(Map::new()), asked, names, unnamed: Vec::new() };
    for document in documents {
        let body = with_json_text_read(document, table);
        let block = table
            .documents
            .iter()
            .find(|block| block.at == document.kind && !block.only_out && Reading::fits(block, &body));
        if let Some(block) = block {
            reading.block(block, &body, &Scope::new(), None);
        }
    }
    let (mut root, unnamed) = (reading.root, reading.unnamed);
    complete(&mut root, table);
    drop_broken(&mut root);
    let no_element = |why: String| ScalingError::NoElement { why };
    let mut element: Element = serde_json::from_value(root).map_err(|e| no_element(e.to_string()))?;
    for policy in element.policies.values_mut() {
        if let Policy::Stepped { bands, .. } = policy {
            bands.sort_by_key(|band| band.from);
        }
    }
    Ok(Read { element, unnamed })
}

/// A document's body; what is JSON as text in it is JSON.
pub(super) fn with_json_text_read(document: &Document, table: &Table) -> Value {
    let mut body = document.body.clone();
    let texts = table.documents.iter().filter(|block| block.at == document.kind).flat_map(|block| &block.json_text);
    for at in texts {
        let at = tree::place(at);
        let read = tree::get(&body, &at).and_then(Value::as_str).and_then(|text| serde_json::from_str(text).ok());
        if let Some(value) = read {
            tree::set(&mut body, &at, value);
        }
    }
    body
}

struct Reading {
    root: Value,
    asked: Value,
    names: BTreeMap<String, Vec<String>>,
    unnamed: Vec<(Place, String)>,
}

impl Reading {
    fn fits(block: &Block, native: &Value) -> bool {
        let is = block.is.iter().all(|(at, value)| {
            // What refers to another document is told when that one was sent.
            let refers = value.as_str().is_some_and(|text| text.starts_with("${"));
            refers || tree::get(native, &tree::place(at)).is_some_and(|there| covers(there, value))
        });
        is && block.known_by.iter().all(|known| known.holds_in(native))
    }

    fn block(&mut self, block: &Block, native: &Value, around: &Scope, key: Option<String>) {
        let mut scope = around.clone();
        if let Some(each) = &block.each {
            let Some(mut place) = self.place_of(each, around) else { return };
            place.push(self.key(block, native, &place, key));
            scope.push(place);
            for (path, value) in block.when.iter().filter_map(|when| when.told()) {
                self.set(path, &scope, value);
            }
        }
        for field in block.fields.iter().filter(|field| !field.only_out) {
            let there = tree::get(native, &tree::place(&field.to)).filter(|value| !tree::is_empty(value));
            let Some(there) = there.cloned() else { continue };
            match &field.from {
                Path::Key => {}
                Path::Users { map, field: of, .. } => {
                    let users = write::back(&field.conversions, there, None, &|_| None);
                    let (Some(users), Some(key)) = (users, scope.last().and_then(|place| place.last())) else {
                        continue;
                    };
                    for user in users.as_array().into_iter().flatten().filter_map(Value::as_str) {
                        tree::set(&mut self.root, &[map.clone(), name_of(user), of.clone()], Value::from(key.clone()));
                    }
                }
                path => {
                    let current = path.get(&self.root, &scope);
                    let root = &self.root;
                    let at = |path: &Path| path.get(root, &scope)?.as_f64();
                    if let Some(value) = write::back(&field.conversions, there, current.as_ref(), &at) {
                        self.set(path, &scope, value);
                    }
                }
            }
        }
        self.lists(block, native, &scope);
    }

    fn lists(&mut self, block: &Block, native: &Value, scope: &Scope) {
        let mut places: Vec<&str> = block.lists.iter().map(|list| list.at.as_str()).collect();
        places.dedup();
        for at in places {
            let entries: Vec<(Option<String>, &Value)> = match tree::get(native, &tree::place(at)) {
                Some(Value::Array(all)) => all.iter().map(|entry| (None, entry)).collect(),
                Some(entry @ Value::Object(_)) if block.lists.iter().any(|list| list.at == at && list.one) => {
                    vec![(None, entry)]
                }
                Some(Value::Object(map)) => map.iter().map(|(key, entry)| (Some(key.clone()), entry)).collect(),
                _ => continue,
            };
            for (key, entry) in entries {
                let lists = block
                    .lists
                    .iter()
                    .filter(|list| !list.only_out && list.at == at && list.by_key.is_some() == key.is_some());
                let mut fitting = lists.filter_map(|list| {
                    let key = key.as_ref().map_or_else(|| Some(String::new()), |key| by_key(list, key))?;
                    Self::fits(list, entry).then_some((list, key))
                });
                if let Some((list, key)) = fitting.next() {
                    let key = Some(key).filter(|key| !key.is_empty());
                    drop(fitting);
                    self.block(list, entry, scope, key);
                }
            }
        }
    }

    /// What the entry is called: as the document says, else as the next one of its list.
    fn key(&mut self, block: &Block, native: &Value, place: &[String], given: Option<String>) -> String {
        let map = MAPS.iter().find(|(map, _)| place.len() == 1 && place[0] == *map);
        let Some((map, one)) = map else {
            return tree::get(&self.root, place).and_then(Value::as_array).map_or(0, Vec::len).to_string();
        };
        let said = block.fields.iter().find(|field| matches!(field.from, Path::Key)).and_then(|field| {
            let there = tree::get(native, &tree::place(&field.to))?.clone();
            write::back(&field.conversions, there, None, &|_| None)?.as_str().map(name_of)
        });
        if let Some(key) = given.map(|key| name_of(&key)).or(said) {
            return key;
        }
        if let Some(names) = self.names.get_mut(*map).filter(|names| !names.is_empty()) {
            let name = names.remove(0);
            self.unnamed.push((vec![(*map).to_owned(), name.clone()], name.clone()));
            return name;
        }
        let number = tree::get(&self.root, place).and_then(Value::as_object).map_or(0, Map::len) + 1;
        format!("{one}-{number}")
    }

    /// A place to write to. A reference that stands nowhere is made: to the entry that was asked for, or to one that is
    /// called as the entry that refers to it.
    fn place_of(&mut self, path: &Path, scope: &Scope) -> Option<Place> {
        if let Path::Hop { by, .. } = path {
            let by = self.place_of(by, scope)?;
            if tree::get(&self.root, &by).is_none() {
                let asked = tree::get(&self.asked, &by).and_then(Value::as_str).map(str::to_owned);
                if let Some(asked) = &asked {
                    self.unnamed.push((by.clone(), asked.clone()));
                }
                let key = asked.or_else(|| scope.iter().rev().find_map(|place| place.get(1)).cloned())?;
                tree::set(&mut self.root, &by, Value::from(key));
            }
        }
        path.resolve(&self.root, scope)
    }

    fn set(&mut self, path: &Path, scope: &Scope, value: Value) {
        let Some(place) = self.place_of(path, scope) else { return };
        let refers =
            matches!(place.last().map(String::as_str), Some("metric" | "alarm" | "name")) && place[0] != "launch";
        let value = match value.as_str() {
            Some(text) if refers => Value::from(name_of(text)),
            _ => value,
        };
        tree::set(&mut self.root, &place, value);
    }
}

fn by_key(list: &Block, key: &str) -> Option<String> {
    let (before, after) = list.by_key.as_deref()?.split_once('*')?;
    key.strip_prefix(before)?.strip_suffix(after).map(str::to_owned)
}

/// Is all of `is` there? Clouds add to what they were given.
fn covers(there: &Value, is: &Value) -> bool {
    match (there, is) {
        (Value::Object(there), Value::Object(is)) => {
            is.iter().all(|(key, value)| there.get(key).is_some_and(|there| covers(there, value)))
        }
        _ => tree::same(there, is),
    }
}

/// A foreign name as one of ours.
fn name_of(text: &str) -> String {
    let mut name: String =
        text.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        name.insert(0, 'x');
    }
    name.truncate(32);
    name
}

/// Metrics that are used and not described, and what holds where the cloud has no field.
fn complete(root: &mut Value, table: &Table) {
    let mut used: Vec<String> = Vec::new();
    for map in ["alarms", "policies"] {
        let entries = root.get(map).and_then(Value::as_object).into_iter().flatten();
        used.extend(entries.filter_map(|(_, entry)| entry["metric"].as_str()).map(str::to_owned));
    }
    for metric in used {
        let place: Place = vec!["metrics".to_owned(), metric];
        if tree::get(root, &place).is_none() {
            tree::set(root, &place, json!({}));
        }
    }
    let metrics = root.get_mut("metrics").and_then(Value::as_object_mut);
    for (name, metric) in metrics.into_iter().flatten() {
        if metric.get("unit").is_none() {
            let unit = match name.as_str() {
                "cpu" | "memory" => "percent",
                "network_in" | "network_out" | "disk_read" | "disk_write" => "bytes",
                _ => "count",
            };
            metric["unit"] = Value::from(unit);
        }
    }
    for (pattern, value) in &table.defaults {
        let parts = tree::place(pattern);
        default(root, &parts, value);
    }
}

fn default(tree: &mut Value, parts: &[String], value: &Value) {
    let Some((first, rest)) = parts.split_first() else { return };
    let (first, kind) = first.split_once(':').map_or((first.as_str(), None), |(first, kind)| (first, Some(kind)));
    if first == "*" {
        for (_, entry) in tree.as_object_mut().into_iter().flatten() {
            if kind.is_none() || entry["kind"].as_str() == kind {
                default(entry, rest, value);
            }
        }
    } else if rest.is_empty() {
        if let Some(map) = tree.as_object_mut() {
            map.entry(first).or_insert_with(|| value.clone());
        }
    } else if let Some(inner) = tree.get_mut(first) {
        default(inner, rest, value);
    }
}

/// Entries that make no sense alone are left out; comparing tells of them.
fn drop_broken(root: &mut Value) {
    keep(root, "metrics", |entry, _| serde_json::from_value::<Metric>(entry.clone()).is_ok());
    keep(root, "alarms", |entry, root| {
        let alarm = serde_json::from_value::<Alarm>(entry.clone());
        alarm.is_ok_and(|alarm| root["metrics"].get(&alarm.metric).is_some())
    });
    keep(root, "policies", |entry, root| match serde_json::from_value::<Policy>(entry.clone()) {
        Ok(Policy::Target { metric, .. } | Policy::Predictive { metric, .. }) => root["metrics"].get(&metric).is_some(),
        Ok(Policy::Stepped { alarm, .. } | Policy::Simple { alarm, .. }) => root["alarms"].get(&alarm).is_some(),
        Ok(Policy::Scheduled { .. }) => true,
        Err(_) => false,
    });
}

fn keep(root: &mut Value, map: &str, fits: impl Fn(&Value, &Value) -> bool) {
    let Some(Value::Object(entries)) = root.get(map).cloned() else { return };
    let kept: BTreeMap<String, Value> = entries.into_iter().filter(|(_, entry)| fits(entry, root)).collect();
    root[map] = json!(kept);
}
