//! What differs, found by comparing, and why, as it was noted on the way or as the table says it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::table::Table;
use super::{Document, tree};

/// A field that is not, there, what it is here.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Which: a place in the common form when porting, in the cloud's documents when adopting.
    pub field: String,
    /// What was asked for.
    pub asked: Value,
    /// What is there instead; null: nothing.
    pub instead: Value,
    /// Why.
    pub why: Why,
}

/// Why a field differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Why {
    /// The cloud has no field for it.
    NoField {
        /// What it does instead.
        does: String,
    },
    /// The cloud has no such word.
    NoWord {
        /// Those of the common form that it has words for.
        words: Vec<String>,
    },
    /// The cloud has the value only in larger units.
    Rounded,
    /// The cloud does not allow the value.
    Limited {
        /// What it allows.
        limit: String,
    },
    /// The cloud takes fewer of them.
    TooMany {
        /// So many are kept, the first ones.
        kept: usize,
    },
    /// The cloud says two things that differ here by one word.
    Nearest,
    /// The cloud does not keep names of such things.
    NoName,
    /// The common form has no place for it.
    NoPlace,
    /// Nobody knows: the table lacks a sentence.
    Unexplained,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoField { does } => f.write_str(does),
            Self::NoWord { words } => write!(f, "the cloud has no word for it, only for: {}", words.join(", ")),
            Self::Rounded => f.write_str("rounded: the cloud has it in larger units only"),
            Self::Limited { limit } => write!(f, "the nearest that the cloud allows is {limit}, in its own unit"),
            Self::TooMany { kept } => write!(f, "the cloud takes {kept}"),
            Self::Nearest => f.write_str("the nearest that the cloud can say"),
            Self::NoName => f.write_str("the cloud keeps no name for it"),
            Self::NoPlace => f.write_str("the common form has no place for it"),
            Self::Unexplained => f.write_str("not explained"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = |value: &Value| if value.is_null() { "nothing".to_owned() } else { value.to_string() };
        write!(f, "{}: {} becomes {}: {}", self.field, said(&self.asked), said(&self.instead), self.why)
    }
}

impl Difference {
    pub(super) fn no_name(place: &[String], name: &str) -> Self {
        Self { field: tree::join(place), asked: Value::from(name), instead: Value::Null, why: Why::NoName }
    }
}

/// Why a place differs, noted while writing.
pub(super) type Reasons = BTreeMap<String, Why>;

pub(super) fn of_elements(asked: &Value, back: &Value, reasons: &Reasons, table: &Table) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(&mut Vec::new(), asked, back, &mut |place, asked_value, instead| {
        let why = reason(place, asked, back, reasons, table);
        found.push(Difference { field: tree::join(place), asked: asked_value.clone(), instead: instead.clone(), why });
    });
    found
}

fn compare(place: &mut Vec<String>, asked: &Value, back: &Value, tell: &mut impl FnMut(&[String], &Value, &Value)) {
    match (asked, back) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                place.push(key.clone());
                compare(place, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), tell);
                place.pop();
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() && a.iter().chain(b).all(Value::is_object) => {
            for (at, (a, b)) in a.iter().zip(b).enumerate() {
                place.push(at.to_string());
                compare(place, a, b, tell);
                place.pop();
            }
        }
        (a, b) if tree::same(a, b) => {}
        (a, b) => tell(place, a, b),
    }
}

fn reason(place: &[String], asked: &Value, back: &Value, reasons: &Reasons, table: &Table) -> Why {
    let mut prefixes = (1..=place.len()).rev().map(|len| tree::join(&place[..len]));
    if let Some(why) = prefixes.find_map(|prefix| reasons.get(&prefix)) {
        return why.clone();
    }
    let fitting = table.lacks.iter().filter(|(pattern, _)| fits(pattern, place, asked, back));
    // The longest names the place best; of equal ones, that which names the kind.
    match fitting.max_by_key(|(pattern, _)| (pattern.split('.').count(), pattern.contains(':'))) {
        Some((_, does)) => Why::NoField { does: does.clone() },
        None => Why::Unexplained,
    }
}

/// Does a pattern name the place, or a part around it? `*` is any key, `:KIND` the kind of what stands there.
fn fits(pattern: &str, place: &[String], asked: &Value, back: &Value) -> bool {
    let parts: Vec<&str> = pattern.split('.').collect();
    parts.len() <= place.len()
        && parts.iter().zip(place).enumerate().all(|(at, (part, name))| {
            let (part, kind) = part.split_once(':').map_or((*part, None), |(part, kind)| (part, Some(kind)));
            let is_kind = |tree: &Value| tree::get(tree, &place[..=at]).is_some_and(|v| v["kind"].as_str() == kind);
            (part == "*" || part == name) && (kind.is_none() || is_kind(asked) || is_kind(back))
        })
}

/// Fields of documents that do not come back.
pub(super) fn of_documents(given: &[Document], again: &[Document], table: &Table) -> Vec<Difference> {
    let (given, mut again) = (leaves(given, table), leaves(again, table));
    let mut lost = Vec::new();
    for (field, value) in given {
        let there = again.get_mut(&field).filter(|values| !values.is_empty());
        match there {
            Some(values) => match values.iter().position(|other| tree::same(other, &value) || is_reference(other)) {
                Some(at) => drop(values.swap_remove(at)),
                None => lost.push((field, value)),
            },
            None => lost.push((field, value)),
        }
    }
    let told = lost.into_iter().map(|(field, asked)| {
        let instead = again.get_mut(&field).and_then(Vec::pop).unwrap_or(Value::Null);
        let why = if instead.is_null() { Why::NoPlace } else { Why::Nearest };
        Difference { field, asked, instead, why }
    });
    told.collect()
}

/// It stands for what a cloud answered: another value is in its place once that is known.
fn is_reference(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.starts_with("${"))
}

/// Every value by its place. In which order a list has them says nothing.
fn leaves(documents: &[Document], table: &Table) -> Leaves {
    let mut all = Leaves::default();
    for document in documents {
        let body = super::read::with_json_text_read(document, table);
        all.take(&mut vec![document.kind.clone()], &body, table);
    }
    all
}

#[derive(Default)]
struct Leaves(BTreeMap<String, Vec<Value>>);

impl Leaves {
    fn take(&mut self, place: &mut Vec<String>, value: &Value, table: &Table) {
        let name = place.join(".").replace(".[]", "[]");
        if tree::is_empty(value) || table.ignored.contains(&name) {
            return;
        }
        match value {
            Value::Object(map) => {
                for (key, inner) in map {
                    place.push(key.clone());
                    self.take(place, inner, table);
                    place.pop();
                }
            }
            Value::Array(all) => {
                place.push("[]".to_owned());
                for inner in all {
                    self.take(place, inner, table);
                }
                place.pop();
            }
            leaf => self.0.entry(name).or_default().push(leaf.clone()),
        }
    }
    fn get_mut(&mut self, field: &str) -> Option<&mut Vec<Value>> {
        self.0.get_mut(field)
    }
}

impl IntoIterator for Leaves {
    type Item = (String, Value);
    type IntoIter = std::vec::IntoIter<Self::Item>;
    fn into_iter(self) -> Self::IntoIter {
        let each = |(field, values): (String, Vec<Value>)| values.into_iter().map(move |value| (field.clone(), value));
        self.0.into_iter().flat_map(each).collect::<Vec<_>>().into_iter()
    }
}
