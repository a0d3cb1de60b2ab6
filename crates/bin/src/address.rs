//! How items are named on the command line: `SESSION`, `SESSION/NODE`, `SESSION/NODE[INDEX]`, or an
//! attempt's key.

use std::str::FromStr;

use skein_domain::{AttemptKey, SessionId};

/// A session, a node of it, or one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// The session's id.
    pub(crate) session: String,
    /// A node's name; all nodes when absent.
    pub(crate) node: Option<String>,
    /// An array index; all items when absent.
    pub(crate) index: Option<u32>,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (session, rest) = text.split_once('/').map_or((text, None), |(session, rest)| (session, Some(rest)));
        let session: SessionId = session.parse().map_err(|e: skein_domain::id::BadId| e.to_string())?;
        let Some(rest) = rest else { return Ok(Self { session: session.to_string(), node: None, index: None }) };
        let bad = || format!("'{text}' names no item: write SESSION/NODE or SESSION/NODE[INDEX], as in s-5g0/count[3]");
        let (node, index) = match rest.split_once('[') {
            None => (rest, None),
            Some((node, index)) => {
                let index = index.strip_suffix(']').and_then(|index| index.parse().ok());
                (node, Some(index.ok_or_else(bad)?))
            }
        };
        if node.is_empty() {
            Err(bad())
        } else {
            Ok(Self { session: session.to_string(), node: Some(node.to_owned()), index })
        }
    }
}

impl Address {
    /// Is this item meant?
    pub(crate) fn covers(&self, node: &str, index: u32) -> bool {
        self.node.as_deref().is_none_or(|own| own == node) && self.index.is_none_or(|own| own == index)
    }
}

/// Whose logs: items, or one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogAddress {
    /// Items.
    Items(Address),
    /// One attempt, with its session.
    Attempt {
        /// Its session's id.
        session: String,
        /// Its key.
        attempt: String,
    },
}

impl FromStr for LogAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('.') && !text.contains('/') {
            let key: AttemptKey = text.parse().map_err(|e: skein_domain::id::BadId| e.to_string())?;
            return Ok(Self::Attempt { session: key.item.session().to_string(), attempt: key.to_string() });
        }
        text.parse().map(Self::Items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_named_by_session_node_and_index() {
        let address = |text: &str| text.parse::<Address>();
        let whole = address("s-5g0").unwrap();
        assert!(whole.covers("any", 7));
        let node = address("s-5g0/count-code").unwrap();
        assert!(node.covers("count-code", 2) && !node.covers("count", 2));
        let one = address("s-5g0/count[3]").unwrap();
        assert!(one.covers("count", 3) && !one.covers("count", 2));
        for bad in ["", "5g0", "s-5g0/", "s-5g0/a[", "s-5g0/a[x]", "s-5g0/[1]"] {
            assert!(address(bad).is_err(), "{bad}");
        }
        assert!(matches!("s-5g0.2.0.1".parse(), Ok(LogAddress::Attempt { session, .. }) if session == "s-5g0"));
        assert!("s-5g0.2".parse::<LogAddress>().is_err());
    }
}
