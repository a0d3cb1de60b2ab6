//! Names and keys. Names come from people and are checked; keys derive from the ledger's
//! turn and an ordinal (ARCHITECTURE.md, invariant 1), so that a replay makes the same ones.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest name of a task, instance, solution, user or engine, in bytes (the limit of a DNS label,
/// so that a name can become a host name or a cloud's tag unchanged).
pub const NAME_BYTES_MAX: usize = 63;

/// A name or key that cannot be used, with what would be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{given}' is not a valid {what}: {rule}")]
pub struct BadId {
    /// What was given, unchanged.
    pub given: String,
    /// The kind of name or key.
    pub what: &'static str,
    /// The rule it breaks.
    pub rule: &'static str,
}

const NAME_RULE: &str = "use 1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit";

fn check_name(text: &str, what: &'static str) -> Result<(), BadId> {
    let starts = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    let chars = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if starts && chars && text.len() <= NAME_BYTES_MAX {
        Ok(())
    } else {
        Err(BadId { given: text.to_owned(), what, rule: NAME_RULE })
    }
}

/// Bytes of a name that are compared without following its pointer.
const HEAD_BYTES: usize = 16;

/// A name's text, with its first bytes beside the pointer: maps by name are what deciding spends its time
/// in, and most names differ in these.
#[derive(Clone)]
struct Name {
    /// Big-endian, filled up with zeros, which are in no name: compares like the text.
    head: [u64; HEAD_BYTES / 8],
    text: Arc<str>,
}

impl Name {
    fn new(text: &str) -> Self {
        let mut bytes = [0; HEAD_BYTES];
        let known = text.len().min(HEAD_BYTES);
        bytes[..known].copy_from_slice(&text.as_bytes()[..known]);
        let (first, second) = bytes.split_at(8);
        let number = |part: &[u8]| part.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        Self { head: [number(first), number(second)], text: text.into() }
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Name {}
impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.head.cmp(&other.head).then_with(|| {
            let longer = self.text.len() > HEAD_BYTES || other.text.len() > HEAD_BYTES;
            if longer { self.text.cmp(&other.text) } else { Ordering::Equal }
        })
    }
}
impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Name);

        impl $name {
            /// Checks and takes a name.
            pub fn new(text: &str) -> Result<Self, BadId> {
                check_name(text, $what)?;
                Ok(Self(Name::new(text)))
            }
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0.text
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0.text)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0.text, f)
            }
        }
        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                Self::new(text)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0.text)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type!(
    /// A task's name in the repository, and a node's name in a thread.
    TaskName, "task name"
);
name_type!(
    /// An instance's name: in the ledger before anyone is asked to create it.
    InstanceId, "instance name"
);
name_type!(
    /// A solution's name: one account or place in one cloud.
    SolutionId, "solution name"
);
name_type!(
    /// Whose session, attempt, cost or metric it is.
    UserName, "user name"
);
name_type!(
    /// The engine's identifier ([0039], [0052]): two engines on one machine never mix.
    EngineId, "engine identifier"
);

/// One start of a thread. Made of the turn that accepted it and its ordinal in that turn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Most sessions one turn accepts; the rest wait for the next turn.
pub const SESSIONS_PER_TURN_MAX: u64 = 1024;

const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl SessionId {
    /// The id of the `ordinal`-th session (from 0) accepted in `turn`.
    pub fn derive(turn: u64, ordinal: u64) -> Self {
        debug_assert!(ordinal < SESSIONS_PER_TURN_MAX);
        Self(turn * SESSIONS_PER_TURN_MAX + ordinal)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Text::of(*self, []).show(f)
    }
}

/// An id's text, put together on the stack: ids are written several times for each attempt.
struct Text {
    bytes: [u8; 64],
    len: usize,
}

impl Text {
    fn of<const N: usize>(session: SessionId, numbers: [u32; N]) -> Self {
        let mut text = Self { bytes: [0; 64], len: 0 };
        text.push(b"s-");
        text.push_number(session.0, 32);
        for number in numbers {
            text.push(b".");
            text.push_number(number.into(), 10);
        }
        text
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn push_number(&mut self, number: u64, base: u64) {
        let mut digits = [b'0'; 20];
        let (mut rest, mut at) = (number, digits.len());
        loop {
            at -= 1;
            digits[at] = DIGITS[usize::try_from(rest % base).unwrap_or(0)];
            rest /= base;
            if rest == 0 {
                break;
            }
        }
        self.push(&digits[at..]);
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = std::str::from_utf8(&self.bytes[..self.len]).unwrap_or("?");
        match f.width() {
            None => f.write_str(text),
            Some(_) => f.pad(text),
        }
    }
}

impl FromStr for SessionId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId {
            given: text.to_owned(),
            what: "session id",
            rule: "it looks like s-5g0 ('skein session list' prints them)",
        };
        let digits = text.strip_prefix("s-").filter(|d| !d.is_empty() && d.len() <= 13).ok_or_else(bad)?;
        let mut value: u64 = 0;
        for byte in digits.bytes() {
            let digit = DIGITS.iter().position(|d| *d == byte).ok_or_else(bad)?;
            value = value.checked_mul(32).and_then(|v| v.checked_add(digit as u64)).ok_or_else(bad)?;
        }
        Ok(Self(value))
    }
}

/// One node of a session's thread.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeKey {
    /// The session.
    pub session: SessionId,
    /// The node's place in the thread, from 0.
    pub node: u32,
}

/// One task in one session; of an array, one index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemKey {
    /// The node it belongs to.
    pub node: NodeKey,
    /// The array index, 0 when the task is no array.
    pub index: u32,
}

/// One try at an item, numbered from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptKey {
    /// The item.
    pub item: ItemKey,
    /// 1 for the first try.
    pub number: u32,
}

impl NodeKey {
    /// The item at `index` of this node.
    pub fn item(self, index: u32) -> ItemKey {
        ItemKey { node: self, index }
    }
}

impl ItemKey {
    /// The session it belongs to.
    pub fn session(self) -> SessionId {
        self.node.session
    }
    /// The `number`-th attempt at this item.
    pub fn attempt(self, number: u32) -> AttemptKey {
        AttemptKey { item: self, number }
    }
}

impl fmt::Display for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Text::of(self.session, [self.node]).show(f)
    }
}
impl fmt::Display for ItemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Text::of(self.session(), [self.node.node, self.index]).show(f)
    }
}
impl fmt::Display for AttemptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Text::of(self.item.session(), [self.item.node.node, self.item.index, self.number]).show(f)
    }
}

fn parts<const N: usize>(text: &str, what: &'static str, rule: &'static str) -> Result<(SessionId, [u32; N]), BadId> {
    let bad = || BadId { given: text.to_owned(), what, rule };
    let mut pieces = text.split('.');
    let session = pieces.next().ok_or_else(bad)?.parse().map_err(|_| bad())?;
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = pieces.next().and_then(|p| p.parse().ok()).ok_or_else(bad)?;
    }
    if pieces.next().is_some() { Err(bad()) } else { Ok((session, numbers)) }
}

impl FromStr for NodeKey {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let (session, [node]) = parts(text, "node key", "it looks like s-5g0.2 (session.node)")?;
        Ok(NodeKey { session, node })
    }
}
impl FromStr for ItemKey {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let (session, [node, index]) = parts(text, "item key", "it looks like s-5g0.2.0 (session.node.index)")?;
        Ok(NodeKey { session, node }.item(index))
    }
}
impl FromStr for AttemptKey {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let (session, [node, index, number]) =
            parts(text, "attempt key", "it looks like s-5g0.2.0.1 (session.node.index.number)")?;
        Ok(NodeKey { session, node }.item(index).attempt(number))
    }
}

macro_rules! text_key {
    ($name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
text_key!(SessionId);
text_key!(NodeKey);
text_key!(ItemKey);
text_key!(AttemptKey);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_print_and_parse_back() {
        for (turn, ordinal) in [(0, 0), (1, 0), (5, 1023), (1 << 40, 7)] {
            let key = NodeKey { session: SessionId::derive(turn, ordinal), node: 3 }.item(9).attempt(2);
            assert_eq!(key.to_string().parse::<AttemptKey>().unwrap(), key);
            assert_eq!(key.item.session().to_string().parse::<SessionId>().unwrap(), key.item.session());
        }
    }

    #[test]
    fn foreign_text_is_refused_with_the_rule() {
        for bad in ["", "s-", "s-!", "s-zzzzzzzzzzzzzz", "s-1.x.0.1", "s-1.0.0", "s-1.0.0.0.0"] {
            assert!(bad.parse::<AttemptKey>().is_err(), "{bad}");
        }
        for bad in ["", ".hidden", "a b", "a/b", "é", &"x".repeat(64)] {
            assert!(TaskName::new(bad).unwrap_err().to_string().contains("letters"), "{bad}");
        }
    }
}
