//! Names that others see: public items, fields, variants and methods of Rust code, CLI words, and the
//! words of the HTTP API.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::repo::TextFile;
use crate::source::{Token, code_only, is_word, tokens};

/// A name and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) path: String,
    pub(crate) line: usize,
}

/// Names of one Rust file. In the CLI's crate every field and variant can be typed by a person.
pub(crate) fn of_rust(file: &TextFile) -> BTreeSet<Name> {
    let code = code_only(&file.text);
    let all = tokens(&code);
    let cli = file.path.starts_with("crates/bin/src/");
    let mut found = BTreeSet::new();
    let mut add = |token: Token<'_>| {
        found.insert(Name { text: token.text.to_owned(), path: file.path.clone(), line: token.line });
    };
    for at in 0..all.len() {
        if all[at].text == "pub" {
            public_item(&all[at + 1..]).into_iter().for_each(&mut add);
        }
        let public = at > 0 && matches!(all[at - 1].text, "pub" | ")");
        if matches!(all[at].text, "enum" | "trait") && (public || cli) {
            members(&all[at..]).into_iter().for_each(&mut add);
        }
    }
    found.extend(attributes(file));
    found
}

const ITEMS: &[&str] = &["fn", "struct", "enum", "trait", "type", "static", "const", "mod", "union"];

/// The name after `pub`: of an item, or of a field.
fn public_item<'a>(tokens: &[Token<'a>]) -> Option<Token<'a>> {
    let mut rest = tokens;
    if rest.first()?.text == "(" {
        let close = rest.iter().position(|t| t.text == ")")?;
        rest = &rest[close + 1..];
    }
    while matches!(rest.first()?.text, "async" | "unsafe" | "extern" | "default") {
        rest = &rest[1..];
    }
    if rest.first()?.text == "const" && rest.get(1)?.text == "fn" {
        rest = &rest[1..];
    }
    let (first, second) = (rest.first()?, rest.get(1)?);
    if ITEMS.contains(&first.text) {
        return Some(*second);
    }
    (second.text == ":" && first.text.starts_with(is_word)).then_some(*first)
}

/// Variants and their fields, or methods, of the enum or trait that begins here.
fn members<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let is_trait = tokens[0].text == "trait";
    let (mut depth, mut found) = (0_i32, Vec::new());
    for at in 0..tokens.len() {
        let (token, before) = (tokens[at], tokens[at.saturating_sub(1)]);
        match token.text {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => {
                depth -= 1;
                if depth == 0 && token.text == "}" {
                    break;
                }
            }
            ";" if depth == 0 => break,
            word if is_trait && depth == 1 && before.text == "fn" && word.starts_with(is_word) => found.push(token),
            word if !is_trait && word.starts_with(is_word) => {
                let variant = depth == 1 && matches!(before.text, "{" | "," | "]");
                let next = tokens.get(at + 1..at + 3).unwrap_or(&[]);
                let field = depth == 2
                    && next.first().is_some_and(|t| t.text == ":")
                    && next.get(1).is_some_and(|t| t.text != ":");
                if variant || (field && matches!(before.text, "{" | "," | "]")) {
                    found.push(token);
                }
            }
            _ => {}
        }
    }
    found
}

/// Names given in attributes: what clap and serde call a thing.
fn attributes(file: &TextFile) -> Vec<Name> {
    const KEYS: &[&str] = &["name", "long", "alias", "visible_alias", "value_name", "rename"];
    let mut found = Vec::new();
    for (line, text) in (1..).zip(file.text.lines()) {
        let text = text.trim_start();
        if !text.starts_with("#[") {
            continue;
        }
        for (at, _) in text.match_indices(" = \"") {
            let key = text[..at].rsplit(|c| !is_word(c)).next().unwrap_or("");
            let value = text[at + 4..].split('"').next().unwrap_or("");
            if KEYS.contains(&key) {
                found.push(Name { text: value.to_owned(), path: file.path.clone(), line });
            }
        }
    }
    found
}

/// Names of an `OpenAPI` document: paths, parameters, operations, schemas, properties, fixed values.
pub(crate) fn of_api(file: &TextFile) -> BTreeSet<Name> {
    let mut found = BTreeSet::new();
    if let Ok(document) = serde_json::from_str::<Value>(&file.text) {
        collect(&document, "", file, &mut found);
    }
    found
}

fn collect(value: &Value, under: &str, file: &TextFile, found: &mut BTreeSet<Name>) {
    let name = |text: &str| Name { text: text.to_owned(), path: file.path.clone(), line: 1 };
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                if matches!(under, "paths" | "properties" | "schemas" | "mapping") {
                    found.insert(name(key));
                }
                if let (true, Some(text)) = (matches!(key.as_str(), "operationId" | "name" | "const"), inner.as_str()) {
                    found.insert(name(text));
                }
                collect(inner, key, file, found);
            }
        }
        Value::Array(all) => {
            for inner in all {
                if let (true, Some(text)) = (under == "enum", inner.as_str()) {
                    found.insert(name(text));
                }
                collect(inner, under, file, found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> TextFile {
        TextFile { path: path.to_owned(), text: text.to_owned() }
    }

    fn texts(found: BTreeSet<Name>) -> Vec<String> {
        found.into_iter().map(|n| n.text).collect()
    }

    #[test]
    fn public_names_are_found_and_private_ones_are_not() {
        let text = "pub struct A { pub b: u8, c: u8 }\npub(crate) async fn d(e: u8) { let f = 1; }\n\
                    pub enum G { #[serde(rename = \"h2\")] H, I { j: u8 }, K(L) }\npub trait M { fn n(&self); }\nenum O { P }\n\
                    pub const fn q() {}\npub const R: u8 = 1;\n";
        assert_eq!(
            texts(of_rust(&file("crates/x/src/a.rs", text))),
            ["A", "G", "H", "I", "K", "M", "R", "b", "d", "j", "n", "q"]
        );
    }

    #[test]
    fn cli_words_are_found() {
        let text = "enum Command { Go(Args) }\n#[arg(long = \"far\", value_name = \"WHERE\")]\n";
        assert_eq!(texts(of_rust(&file("crates/bin/src/a.rs", text))), ["Go", "WHERE", "far"]);
    }

    #[test]
    fn words_of_the_api_are_found() {
        let text = r#"{"paths": {"/a/{b}": {"get": {"operationId": "c", "parameters": [{"name": "d"}]}}},
                       "components": {"schemas": {"E": {"properties": {"f": {"enum": ["g"]}}}}}}"#;
        assert_eq!(texts(of_api(&file("openapi.json", text))), ["/a/{b}", "E", "c", "d", "f", "g"]);
    }
}
