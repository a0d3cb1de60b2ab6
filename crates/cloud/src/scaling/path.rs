//! Places in the common form as tables name them, and conditions on them.

use serde_json::Value;

use super::tree::{self, Place};

/// A place in the common form. [`super::table`] says how each is written.
#[derive(Debug, Clone)]
pub(super) enum Path {
    /// The entry's key.
    Key,
    /// From the root.
    Root(Place),
    /// From the entry so many levels out, or from the next one in its list.
    Entry { out: usize, next: bool, rest: Place },
    /// Of what another place names: in this map, then on.
    Hop { by: Box<Path>, map: String, rest: Place },
    /// Keys of this map's entries in which this field is the entry's key.
    Users { map: String, kind: Option<String>, field: String },
}

/// Where a block stands: the entries around it, the innermost last.
pub(super) type Scope = Vec<Place>;

impl Path {
    pub(super) fn read(text: &str) -> Result<Self, String> {
        if text == "@key" {
            return Ok(Self::Key);
        }
        if let Some((map, field)) = text.split_once('<') {
            let (map, kind) = map.split_once(':').map_or((map, None), |(map, kind)| (map, Some(kind.to_owned())));
            return Ok(Self::Users { map: map.to_owned(), kind, field: field.to_owned() });
        }
        if let Some((by, to)) = text.rsplit_once('>') {
            let (map, rest) = to.split_once('.').unwrap_or((to, ""));
            return Ok(Self::Hop { by: Box::new(Self::read(by)?), map: map.to_owned(), rest: tree::place(rest) });
        }
        let out = text.bytes().take_while(|b| *b == b'^').count();
        let inner = &text[out..];
        if let Some(rest) = inner.strip_prefix(".+.") {
            return Ok(Self::Entry { out, next: true, rest: tree::place(rest) });
        }
        match inner.strip_prefix('.') {
            Some(rest) => Ok(Self::Entry { out, next: false, rest: tree::place(rest) }),
            None if out == 0 && !text.is_empty() => Ok(Self::Root(tree::place(text))),
            None => Err(format!("'{text}' is no place in the common form")),
        }
    }

    /// The absolute place. None: no entry is around it, or what it refers to is not there.
    pub(super) fn resolve(&self, root: &Value, scope: &Scope) -> Option<Place> {
        match self {
            Self::Root(place) => Some(place.clone()),
            Self::Entry { out, next, rest } => {
                let mut place = scope.iter().rev().nth(*out)?.clone();
                if *next {
                    let at: usize = place.pop()?.parse().ok()?;
                    place.push((at + 1).to_string());
                }
                place.extend(rest.iter().cloned());
                Some(place)
            }
            Self::Hop { by, map, rest } => {
                let key = tree::get(root, &by.resolve(root, scope)?)?.as_str()?;
                let mut place = vec![map.clone(), key.to_owned()];
                place.extend(rest.iter().cloned());
                Some(place)
            }
            Self::Key | Self::Users { .. } => None,
        }
    }

    /// What stands there.
    pub(super) fn get(&self, root: &Value, scope: &Scope) -> Option<Value> {
        match self {
            Self::Key => Some(Value::from(scope.last()?.last()?.clone())),
            Self::Users { map, kind, field } => {
                let key = scope.last()?.last()?;
                let entries = root.get(map)?.as_object()?;
                let is_user = |entry: &Value| {
                    entry.get(field).and_then(Value::as_str) == Some(key)
                        && kind.as_ref().is_none_or(|kind| entry["kind"].as_str() == Some(kind))
                };
                let users = entries.iter().filter(|(_, entry)| is_user(entry));
                Some(users.map(|(user, _)| user.clone()).collect())
            }
            _ => tree::get(root, &self.resolve(root, scope)?).cloned(),
        }
    }
}

/// `PLACE = WORD`, `PLACE in WORDS`, `PLACE not WORDS`, `PLACE set`, `PLACE unset`, `PLACE > 0`, `>= 0`, `< 0`, `<= 0`.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    text: String,
    path: Path,
    test: Test,
    words: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Test {
    Is,
    In,
    Not,
    Set,
    Unset,
    Number(&'static str),
}

impl Condition {
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut parts = text.split_whitespace().map(|part| part.replace('~', " "));
        let (place, sign) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let test = match sign.as_str() {
            "=" => Test::Is,
            "in" => Test::In,
            "not" => Test::Not,
            "set" => Test::Set,
            "unset" => Test::Unset,
            ">" => Test::Number(">"),
            ">=" => Test::Number(">="),
            "<" => Test::Number("<"),
            "<=" => Test::Number("<="),
            _ => return Err(format!("'{text}' is no condition")),
        };
        Ok(Self { text: place.clone(), path: Path::read(&place)?, test, words: parts.collect() })
    }

    fn holds(&self, value: Option<&Value>) -> bool {
        let value = value.filter(|value| !tree::is_empty(value));
        let word = value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        match self.test {
            Test::Is | Test::In => word.is_some_and(|word| self.words.contains(&word)),
            Test::Not => word.is_some_and(|word| !self.words.contains(&word)),
            Test::Set => value.is_some(),
            Test::Unset => value.is_none(),
            Test::Number(sign) => value.and_then(Value::as_f64).is_some_and(|number| match sign {
                ">" => number > 0.0,
                ">=" => number >= 0.0,
                "<" => number < 0.0,
                _ => number <= 0.0,
            }),
        }
    }

    /// In the common form.
    pub(super) fn holds_for(&self, root: &Value, scope: &Scope) -> bool {
        self.holds(self.path.get(root, scope).as_ref())
    }

    /// In a document: its place is the cloud's.
    pub(super) fn holds_in(&self, native: &Value) -> bool {
        self.holds(tree::get(native, &tree::place(&self.text)))
    }

    /// What it says of an entry for which it is known to hold.
    pub(super) fn told(&self) -> Option<(&Path, Value)> {
        let own = matches!(self.path, Path::Entry { out: 0, next: false, .. } | Path::Hop { .. });
        (self.test == Test::Is && own)
            .then(|| (&self.path, Value::from(self.words.first().cloned().unwrap_or_default())))
    }
}
