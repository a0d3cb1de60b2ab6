//! Crates: which may use which, what may not be among the dependencies, under which licences and from
//! where they come. All from `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Complaints;
use crate::repo;

/// Which of our crates each may use. A test may also use what its crate reaches through these.
const ARROWS: &[(&str, &[&str])] = &[
    ("skein-domain", &[]),
    ("skein-image", &[]),
    ("skein-imagecheck", &[]),
    ("skein-cloud", &["skein-domain", "skein-image"]),
    ("skein-store", &["skein-domain"]),
    ("skein-wire", &["skein-domain"]),
    ("skein-api", &["skein-domain"]),
    ("skein-agent", &["skein-domain", "skein-wire"]),
    ("skein-engine", &["skein-cloud", "skein-image", "skein-domain", "skein-store", "skein-wire", "skein-api"]),
    ("skein-sim", &["skein-domain"]),
    ("skein-simfault", &["skein-agent", "skein-api", "skein-domain", "skein-engine", "skein-store", "skein-wire"]),
    (
        "skein",
        &[
            "skein-engine",
            "skein-agent",
            "skein-api",
            "skein-cloud",
            "skein-domain",
            "skein-image",
            "skein-sim",
            "skein-example-requests",
        ],
    ),
    ("skein-example-requests", &[]),
    ("xtask", &[]),
];

/// `decide` is pure: its crate has nothing that does IO, tells the time or draws a number.
const NOT_IN_DOMAIN: &[&str] = &[
    "tokio",
    "rusqlite",
    "reqwest",
    "hyper",
    "axum",
    "rand",
    "getrandom",
    "chrono",
    "jiff",
    "time",
    "mio",
    "libc",
    "rustix",
];

/// Crates that must not come in, not even through others, and why.
const BANNED: &[(&str, &str)] = &[
    ("openssl", "one TLS provider: rustls with ring"),
    ("openssl-sys", "one TLS provider: rustls with ring"),
    ("native-tls", "one TLS provider: rustls with ring"),
    ("aws-lc-rs", "one TLS provider: rustls with ring"),
    ("aws-lc-sys", "one TLS provider: rustls with ring"),
    ("chrono", "one library for dates: jiff"),
    ("sqlx", "it runs SQLite on its own threads: a simulation could not be deterministic"),
    ("git2", "a C library for nothing that we need"),
    ("async-std", "one runtime: tokio"),
];

const LICENCES: &[&str] = &[
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "0BSD",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
];

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What cargo says of the workspace and all it depends on.
pub(crate) struct Metadata {
    packages: BTreeMap<String, Value>,
    ours: BTreeSet<String>,
    nodes: BTreeMap<String, Value>,
}

impl Metadata {
    pub(crate) fn read() -> Result<Self> {
        let mut cargo = repo::cargo();
        cargo.args(["metadata", "--format-version", "1", "--locked"]);
        let text = repo::output_of(&mut cargo).context("run 'cargo fetch --locked' first when offline")?;
        let all: Value = serde_json::from_str(&text)?;
        let by_id = |list: &Value| -> BTreeMap<String, Value> {
            list.as_array().into_iter().flatten().map(|p| (text_of(p, "id").to_owned(), p.clone())).collect()
        };
        let ours = all["workspace_members"].as_array().into_iter().flatten().filter_map(Value::as_str);
        Ok(Self {
            packages: by_id(&all["packages"]),
            ours: ours.map(str::to_owned).collect(),
            nodes: by_id(&all["resolve"]["nodes"]),
        })
    }

    pub(crate) fn count(&self) -> usize {
        self.packages.len()
    }

    fn name(&self, id: &str) -> &str {
        self.packages.get(id).map_or("?", |p| text_of(p, "name"))
    }

    /// What a package uses: normal and build dependencies, or those of its tests.
    fn uses(&self, id: &str, tests: bool) -> BTreeSet<&str> {
        let dependencies = self.nodes.get(id).and_then(|n| n["deps"].as_array()).into_iter().flatten();
        let of_kind = dependencies.filter(|dependency| {
            let kinds = dependency["dep_kinds"].as_array().into_iter().flatten();
            kinds.into_iter().any(|kind| (kind["kind"] == "dev") == tests)
        });
        of_kind.filter_map(|dependency| dependency["pkg"].as_str()).collect()
    }

    pub(crate) fn arrows(&self) -> Complaints {
        let mut wrong = Vec::new();
        for id in &self.ours {
            let name = self.name(id);
            let Some(allowed) = allowed(name) else {
                wrong.push(format!("crate '{name}' is not in the house plan: add it to ARROWS and to ARCHITECTURE.md"));
                continue;
            };
            for to in self.uses(id, false).iter().filter(|to| self.ours.contains(**to)).map(|to| self.name(to)) {
                if !allowed.contains(&to) {
                    wrong.push(format!("'{name}' may not use '{to}' (it may use: {})", allowed.join(", ")));
                }
            }
            let mut reach = reach(name);
            // What is judged is made in the tests of who judges it; the judge itself does not know it.
            reach.extend((name == "skein-imagecheck").then_some("skein-image"));
            for to in self.uses(id, true).iter().filter(|to| self.ours.contains(**to)).map(|to| self.name(to)) {
                if to != name && !reach.contains(to) {
                    wrong.push(format!("tests of '{name}' may not use '{to}'"));
                }
            }
        }
        wrong
    }

    pub(crate) fn domain_tree(&self) -> Complaints {
        let domain = self.ours.iter().find(|id| self.name(id) == "skein-domain");
        let Some(domain) = domain else { return vec!["there is no crate 'skein-domain'".to_owned()] };
        let mut through: BTreeMap<&str, &str> = BTreeMap::new();
        let mut open: Vec<&str> = vec![domain];
        while let Some(id) = open.pop() {
            for next in self.uses(id, false) {
                if !through.contains_key(next) {
                    through.insert(next, id);
                    open.push(next);
                }
            }
        }
        let bad = through.iter().filter(|(id, _)| NOT_IN_DOMAIN.contains(&self.name(id)));
        bad.map(|(id, from)| format!("'{}' comes in through '{}': decide is pure", self.name(id), self.name(from)))
            .collect()
    }

    pub(crate) fn banned(&self) -> Complaints {
        let mut wrong = Vec::new();
        for id in self.packages.keys() {
            let reason = BANNED.iter().find(|(banned, _)| *banned == self.name(id));
            wrong.extend(reason.map(|(banned, why)| {
                format!("'{banned}' is banned ({why}): 'cargo tree -i {banned}' shows who brings it")
            }));
        }
        wrong
    }

    pub(crate) fn licences_and_sources(&self) -> Complaints {
        let mut wrong = Vec::new();
        for (id, package) in &self.packages {
            let name = self.name(id);
            match package["license"].as_str() {
                Some(licence) if licence_is_allowed(licence) => {}
                Some(licence) => {
                    wrong.push(format!("'{name}' has licence '{licence}', which is not in the allow list"));
                }
                None => wrong.push(format!("'{name}' states no licence")),
            }
            match package["source"].as_str() {
                None if self.ours.contains(id) => {}
                Some(CRATES_IO) => {}
                other => wrong.push(format!("'{name}' comes from {other:?}: only crates.io and this repository may")),
            }
        }
        wrong
    }
}

fn text_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("?")
}

fn allowed(name: &str) -> Option<&'static [&'static str]> {
    ARROWS.iter().find(|(from, _)| *from == name).map(|(_, to)| *to)
}

/// Everything of ours that a crate reaches along the arrows.
fn reach(name: &str) -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&str> = allowed(name).unwrap_or(&[]).to_vec();
    while let Some(next) = open.pop() {
        let known = ARROWS.iter().find(|(from, _)| *from == next);
        if let Some((_, to)) = known.filter(|(name, _)| found.insert(*name)) {
            open.extend(*to);
        }
    }
    found
}

/// `OR` needs one allowed side, `AND` both; `/` is an old way to write `OR`.
fn licence_is_allowed(expression: &str) -> bool {
    let expression = expression.trim().replace('/', " OR ");
    let expression = expression.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((left, right)) = split_outside(&expression, " OR ") {
        return licence_is_allowed(left) || licence_is_allowed(right);
    }
    if let Some((left, right)) = split_outside(&expression, " AND ") {
        return licence_is_allowed(left) && licence_is_allowed(right);
    }
    match expression.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) => licence_is_allowed(inner),
        None => LICENCES.contains(&expression.as_str()),
    }
}

/// Splits at the first separator that is in no bracket.
fn split_outside<'a>(text: &'a str, separator: &str) -> Option<(&'a str, &'a str)> {
    text.match_indices(separator)
        .map(|(at, _)| (&text[..at], &text[at + separator.len()..]))
        .find(|(left, _)| left.matches('(').count() == left.matches(')').count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licence_expressions() {
        for (expression, allowed) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("MIT OR GPL-3.0", true),
            ("MIT AND GPL-3.0", false),
            ("Unlicense/MIT", true),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("(MIT OR Apache-2.0) AND GPL-2.0", false),
            ("Apache-2.0 WITH LLVM-exception OR GPL-2.0", true),
        ] {
            assert_eq!(licence_is_allowed(expression), allowed, "{expression}");
        }
    }

    #[test]
    fn tests_reach_what_their_crate_reaches() {
        assert!(reach("skein").contains("skein-wire") && !reach("skein-agent").contains("skein-store"));
    }
}
