//! What a class answered, read without asking it for anything more: no metatable is followed, and no more is
//! looked at than an answer may have.

use std::collections::BTreeMap;

use mlua::{Table, Value};
use skein_domain::decide::Fault;

/// Entries in a list of machines.
const MACHINES_MAX: usize = 256;
/// Characters of a name or of what something is for.
const TEXT_CHARS_MAX: usize = 200;

fn wrong(what: impl Into<String>) -> Fault {
    Fault::Answer { what: what.into().into() }
}

/// `assign`: by the item's `id`, an instance or its name.
pub(super) fn places(said: &Value, items: usize) -> Result<BTreeMap<usize, String>, Fault> {
    let mut places = BTreeMap::new();
    entries(said, "assign", items, |key, value| {
        let at = index(key).filter(|at| *at < items);
        let at = at.ok_or_else(|| wrong(format!("assign: {} is the id of no item", shown(key))))?;
        let name = name(value, "id");
        let name = name.ok_or_else(|| wrong(format!("assign: item {}: {} is no instance", at + 1, shown(value))))?;
        places.insert(at, name);
        Ok(())
    })?;
    Ok(places)
}

/// `allocate`: a list of `{solution = NAME, count = NUMBER, why = TEXT}`.
pub(super) fn machines(said: &Value) -> Result<Vec<(String, u32, String)>, Fault> {
    let mut machines = Vec::new();
    entries(said, "allocate", MACHINES_MAX, |_, value| {
        let Value::Table(entry) = value else {
            return Err(wrong(format!("allocate: {} is no table with 'solution' and 'count'", shown(value))));
        };
        let solution = field(entry, "solution").and_then(|value| name(&value, "id"));
        let solution = solution.ok_or_else(|| wrong("allocate: an entry without 'solution'"))?;
        let count = field(entry, "count").map_or(Some(1), |value| whole(&value));
        let count = count.ok_or_else(|| wrong(format!("allocate: 'count' for '{solution}' is no whole number")))?;
        machines.push((solution, count, why(entry)));
        Ok(())
    })?;
    Ok(machines)
}

/// `deallocate`: a list of instances, their names, or `{instance = ..., why = TEXT}`.
pub(super) fn give_back(said: &Value) -> Result<Vec<(String, String)>, Fault> {
    let mut given = Vec::new();
    entries(said, "deallocate", MACHINES_MAX, |_, value| {
        let (named, reason) = match value {
            Value::Table(entry) => match field(entry, "instance") {
                Some(instance) => (name(&instance, "id"), why(entry)),
                None => (name(value, "id"), why(entry)),
            },
            other => (name(other, "id"), "given back by the algorithm".to_owned()),
        };
        given.push((named.ok_or_else(|| wrong(format!("deallocate: {} is no instance", shown(value))))?, reason));
        Ok(())
    })?;
    Ok(given)
}

/// The entries of an answer, `most` at the most; nothing is no entry.
fn entries(
    said: &Value,
    function: &str,
    most: usize,
    mut each: impl FnMut(&Value, &Value) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let table = match said {
        Value::Nil => return Ok(()),
        Value::Table(table) => table,
        other => return Err(wrong(format!("{function} returned {}, not a table", shown(other)))),
    };
    let (mut seen, mut fault) = (0, None);
    // The only way to end the walk early is an error.
    let walked = table.for_each(|key: Value, value: Value| {
        seen += 1;
        let result = if seen > most {
            Err(wrong(format!("{function} returned more than {most} entries")))
        } else {
            each(&key, &value)
        };
        result.map_err(|found| {
            fault = Some(found);
            mlua::Error::runtime("a wrong answer")
        })
    });
    match (fault, walked) {
        (Some(fault), _) => Err(fault),
        (None, Err(error)) => Err(wrong(error.to_string())),
        (None, Ok(())) => Ok(()),
    }
}

fn field(table: &Table, key: &str) -> Option<Value> {
    table.raw_get::<Value>(key).ok().filter(|value| !value.is_nil())
}

fn name(value: &Value, key: &str) -> Option<String> {
    match value {
        Value::String(text) => text.to_str().ok().map(|text| cut(&text)),
        Value::Table(table) => match field(table, key)? {
            Value::String(text) => text.to_str().ok().map(|text| cut(&text)),
            _ => None,
        },
        _ => None,
    }
}

fn why(entry: &Table) -> String {
    let said = field(entry, "why").and_then(|value| name(&value, "why"));
    said.unwrap_or_else(|| "the algorithm said so".to_owned())
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

fn index(key: &Value) -> Option<usize> {
    whole(key).and_then(|number| usize::try_from(number).ok()).and_then(|number| number.checked_sub(1))
}

fn whole(value: &Value) -> Option<u32> {
    match value {
        Value::Integer(number) => u32::try_from(*number).ok(),
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just before")]
        Value::Number(number) if number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(number) => {
            Some(*number as u32)
        }
        _ => None,
    }
}

/// A value in a message.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("'{}'", text.to_str().map_or_else(|_| "?".to_owned(), |text| cut(&text))),
        Value::Integer(number) => number.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Boolean(is) => is.to_string(),
        other => format!("a {}", other.type_name()),
    }
}
