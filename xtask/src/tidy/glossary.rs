//! One word, one meaning (GLOSSARY.md): words that must not name our things, and where a word of that
//! form means something else after all (`xtask/glossary-allow.txt`).

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};

use super::Complaints;
use super::names::{Name, of_api, of_rust};
use crate::repo::{self, TextFile};

const ALLOW: &str = "xtask/glossary-allow.txt";

/// Words that must not be part of a name, and the word to use.
const NEVER: &[(&str, &str)] = &[
    ("job", "task"),
    ("step", "task"),
    ("run", "item, attempt or session"),
    ("execution", "attempt"),
    ("workflow", "thread"),
    ("pipeline", "thread"),
    ("flow", "thread"),
    ("provider", "solution"),
    ("backend", "solution"),
    ("node", "instance, when it is a machine"),
    ("worker", "instance or agent"),
    ("invoker", "gateway driver"),
    ("template", "image"),
    ("artifact", "image or output"),
    ("controller", "engine"),
    ("orchestrator", "engine"),
];

struct Allowed {
    word: String,
    pattern: String,
    line: usize,
}

pub(crate) fn check(files: &[TextFile]) -> Result<Complaints> {
    let text = std::fs::read_to_string(repo::root().join(ALLOW)).with_context(|| format!("reading {ALLOW}"))?;
    let allowed = allow_list(&text)?;
    let mut names: BTreeSet<Name> = BTreeSet::new();
    for file in files {
        if file.path.starts_with("crates/") && file.path.contains("/src/") && file.is_rust() {
            names.extend(of_rust(file));
        } else if file.path == "openapi/openapi.json" {
            names.extend(of_api(file));
        }
    }
    Ok(complaints(&names, &allowed))
}

/// Lines of `WORD NAME # reason`; `*` in a name stands for anything.
fn allow_list(text: &str) -> Result<Vec<Allowed>> {
    let mut all = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let (entry, reason) = text.split_once('#').unwrap_or((text, ""));
        let words: Vec<&str> = entry.split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            [word, pattern] if !reason.trim().is_empty() => {
                all.push(Allowed { word: (*word).to_owned(), pattern: (*pattern).to_owned(), line });
            }
            _ => anyhow::bail!("{ALLOW}:{line}: write 'WORD NAME # reason'"),
        }
    }
    Ok(all)
}

fn complaints(names: &BTreeSet<Name>, allowed: &[Allowed]) -> Complaints {
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for name in names {
        for (word, instead) in NEVER.iter().filter(|(word, _)| words(&name.text).iter().any(|w| w == word)) {
            let entries = allowed.iter().filter(|a| a.word == *word && matches(&a.pattern, &name.text));
            let mut is_allowed = false;
            for entry in entries {
                is_allowed = true;
                used.insert(entry.line);
            }
            if !is_allowed {
                let (path, line, text) = (&name.path, name.line, &name.text);
                wrong
                    .push(format!("{path}:{line}: '{text}' says '{word}': say {instead}, or give a reason in {ALLOW}"));
            }
        }
    }
    let unused = allowed.iter().filter(|a| !used.contains(&a.line));
    wrong.extend(
        unused.map(|a| format!("{ALLOW}:{}: nothing is named '{}' any more: remove the line", a.line, a.pattern)),
    );
    wrong
}

/// The words of a name in any case, in the singular.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut before = '_';
    for c in name.chars() {
        let begins = !before.is_alphanumeric() || (c.is_uppercase() && before.is_lowercase());
        if c.is_alphanumeric() {
            if begins {
                words.push(String::new());
            }
            if let Some(word) = words.last_mut() {
                word.extend(c.to_lowercase());
            }
        }
        before = c;
    }
    for word in &mut words {
        if word.len() > 3 && word.ends_with('s') && !word.ends_with("ss") {
            word.pop();
        }
    }
    words
}

fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => {
            let Some(text) = text.strip_prefix(head) else { return false };
            (0..=text.len()).filter(|at| text.is_char_boundary(*at)).any(|at| matches(rest, &text[at..]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_into_words() {
        assert_eq!(words("RunningMode"), ["running", "mode"]);
        assert_eq!(words("expected_run_ms"), ["expected", "run", "ms"]);
        assert_eq!(words("/api/v1/jobs/{job-id}"), ["api", "v1", "job", "job", "id"]);
        assert_eq!(words("NODES_MAX"), ["node", "max"]);
    }

    #[test]
    fn a_bad_word_is_named_with_the_right_one_and_reasons_are_kept_in_step() {
        let name = |text: &str| Name { text: text.to_owned(), path: "a.rs".to_owned(), line: 3 };
        let names = [name("JobState"), name("expected_run_ms"), name("truncate")].into();
        let allowed = allow_list("# a comment\nrun *_run_ms # a verb\nflow x # gone\n").unwrap();
        let found = complaints(&names, &allowed);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("'JobState' says 'job': say task") && found[1].contains("nothing is named 'x'"));
        assert!(allow_list("run x\n").is_err(), "a line without its reason");
    }
}
