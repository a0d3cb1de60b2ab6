//! The domain's sources name nothing that does IO, tells the time, or has no order; what decides has no
//! floating point.

use super::Complaints;
use crate::repo::TextFile;
use crate::source::{Token, code_only, tokens};

const DOMAIN: &str = "crates/domain/src/";
const DECIDE: &str = "crates/domain/src/decide/";
/// Projections are floats inside, and integers when they come out.
const FORECAST: &str = "crates/domain/src/decide/forecast/";

/// Words that may not stand in the domain, and what to do instead.
const WORDS: &[(&str, &str)] = &[
    ("SystemTime", "take the time as an argument"),
    ("Instant", "take the time as an argument"),
    ("HashMap", "use BTreeMap: its order is the same everywhere"),
    ("HashSet", "use BTreeSet: its order is the same everywhere"),
    ("thread_local", "no hidden state"),
    ("println", "say it in the value you return"),
];

/// Modules of the standard library that may not be used in the domain.
const MODULES: &[&str] = &["net", "fs", "env", "process", "thread", "io", "time"];

pub(crate) fn check(files: &[TextFile]) -> Complaints {
    let mut wrong = Vec::new();
    for file in files.iter().filter(|f| f.path.starts_with(DOMAIN) && f.is_rust()) {
        let code = code_only(&file.text);
        let all = tokens(&code);
        for (at, token) in all.iter().enumerate() {
            if let Some(instead) = impure(&all[at..], &file.path) {
                wrong.push(format!("{}:{}: '{}': {instead}", file.path, token.line, token.text));
            }
        }
    }
    wrong
}

fn impure(tokens: &[Token<'_>], path: &str) -> Option<&'static str> {
    let word = tokens[0].text;
    if let Some((_, instead)) = WORDS.iter().find(|(banned, _)| *banned == word) {
        return Some(instead);
    }
    if path.starts_with(DECIDE) && !path.starts_with(FORECAST) && matches!(word, "f32" | "f64") {
        return Some("integers only: what is compared or stored is never a float");
    }
    match tokens {
        [std, a, b, module, ..]
            if std.text == "std" && a.text == ":" && b.text == ":" && MODULES.contains(&module.text) =>
        {
            Some("the domain does no IO and reads no clock")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impure_words_are_found_in_code_only() {
        let file = |path: &str, text: &str| TextFile { path: path.to_owned(), text: text.to_owned() };
        let complaints = check(&[
            file(
                "crates/domain/src/decide/x.rs",
                "// HashMap\nuse std::collections::HashMap;\nfn f(a: f64) { std::fs::read(\"std::net\"); }",
            ),
            file("crates/domain/src/y.rs", "fn g(a: f64) {}"),
            file("crates/engine/src/z.rs", "use std::fs;"),
        ]);
        assert_eq!(complaints.len(), 3, "{complaints:?}");
    }
}
