//! Places in JSON: reading and writing them by path.

use serde_json::{Map, Value};
use skein_domain::scaling::Element;

/// An absolute place: keys of objects, and numbers of entries in arrays.
pub(super) type Place = Vec<String>;

pub(super) fn of(element: &Element) -> Value {
    serde_json::to_value(element).unwrap_or(Value::Null)
}

pub(super) fn place(dotted: &str) -> Place {
    if dotted.is_empty() { Vec::new() } else { dotted.split('.').map(str::to_owned).collect() }
}

pub(super) fn get<'a>(tree: &'a Value, place: &[String]) -> Option<&'a Value> {
    place.iter().try_fold(tree, |value, part| match value {
        Value::Object(map) => map.get(part),
        Value::Array(all) => all.get(part.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Makes objects and arrays on the way. What is in the way is replaced.
pub(super) fn set(tree: &mut Value, place: &[String], value: Value) {
    let Some((first, rest)) = place.split_first() else {
        *tree = value;
        return;
    };
    if let Ok(at) = first.parse::<usize>() {
        if !tree.is_array() {
            *tree = Value::Array(Vec::new());
        }
        if let Value::Array(all) = tree {
            while all.len() <= at {
                all.push(Value::Null);
            }
            set(&mut all[at], rest, value);
        }
        return;
    }
    if !tree.is_object() {
        *tree = Value::Object(Map::new());
    }
    if let Value::Object(map) = tree {
        set(map.entry(first.clone()).or_insert(Value::Null), rest, value);
    }
}

/// Nothing is there: an absent field says the same.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(all) => all.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

pub(super) fn join(place: &[String]) -> String {
    place.join(".")
}

/// Numbers are equal when their values are: 3 and 3.0.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        _ => a == b,
    }
}

/// A number as JSON has it: whole where it is whole.
pub(super) fn number(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "whole, and in the range")]
    if value.fract() == 0.0 && value.abs() < 9e15 { Value::from(value as i64) } else { Value::from(value) }
}
