//! Documents as people write them (TOML, JSON, YAML), turned into one JSON value.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// Largest document, bytes.
pub const DOCUMENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A document that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BadDocument {
    /// Too large.
    #[error(
        "the document has {bytes} bytes; the limit is {DOCUMENT_BYTES_MAX}: pass data as files, not in the document"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// No known extension.
    #[error("'{0}': a document ends in .toml, .json, .yaml or .yml")]
    Extension(PathBuf),
    /// Not UTF-8.
    #[error("the document is not UTF-8 (first bad byte at {at}): save it as UTF-8")]
    NotText {
        /// Where.
        at: usize,
    },
    /// It does not parse.
    #[error("the document is not {format}: {why}")]
    Syntax {
        /// TOML, JSON or YAML.
        format: &'static str,
        /// Line and reason.
        why: String,
    },
}

/// The three forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// TOML.
    Toml,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

impl Format {
    /// By a file's extension.
    pub fn of_path(path: &Path) -> Result<Self, BadDocument> {
        match path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).as_deref() {
            Some("toml") => Ok(Self::Toml),
            Some("json") => Ok(Self::Json),
            Some("yaml" | "yml") => Ok(Self::Yaml),
            _ => Err(BadDocument::Extension(path.to_owned())),
        }
    }
    /// By a request's content type; JSON when there is none.
    pub fn of_content_type(content_type: &str) -> Self {
        if content_type.contains("toml") {
            Self::Toml
        } else if content_type.contains("yaml") {
            Self::Yaml
        } else {
            Self::Json
        }
    }
}

/// The document as JSON.
pub fn parse(bytes: &[u8], format: Format) -> Result<Value, BadDocument> {
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(BadDocument::TooLarge { bytes: bytes.len() });
    }
    let text = std::str::from_utf8(bytes).map_err(|e| BadDocument::NotText { at: e.valid_up_to() })?;
    let wrong = |format, why: String| BadDocument::Syntax { format, why };
    match format {
        Format::Toml => toml::from_str(text).map_err(|e| wrong("TOML", e.to_string())),
        Format::Json => serde_json::from_str(text).map_err(|e| wrong("JSON", e.to_string())),
        Format::Yaml => serde_yaml_ng::from_str(text).map_err(|e| wrong("YAML", e.to_string())),
    }
}

/// A thread has `tasks`; anything else is a task.
pub fn is_thread(document: &Value) -> bool {
    document.get("tasks").is_some()
}

/// Calls `visit` with each input that names a file beside the document; `visit` gives its digest,
/// which is put beside the name.
pub fn resolve_files<E>(document: &mut Value, mut visit: impl FnMut(&str) -> Result<String, E>) -> Result<(), E> {
    let mut resolve = |task: &mut Value| -> Result<(), E> {
        let inputs = task.get_mut("inputs").and_then(Value::as_array_mut);
        for input in inputs.into_iter().flatten().filter_map(Value::as_object_mut) {
            let Some(file) = input.get("file").and_then(Value::as_str) else { continue };
            if !input.contains_key("digest") {
                let digest = visit(file)?;
                input.insert("digest".to_owned(), Value::String(digest));
            }
        }
        Ok(())
    };
    match document.get_mut("tasks").and_then(Value::as_object_mut) {
        Some(tasks) => tasks.values_mut().try_for_each(resolve),
        None => resolve(document),
    }
}

/// Names of the files that [`resolve_files`] would ask for.
pub fn files_of(document: &Value) -> Vec<String> {
    let mut names = Vec::new();
    let mut copy = document.clone();
    let visited = resolve_files::<std::convert::Infallible>(&mut copy, |file| {
        names.push(file.to_owned());
        Ok(String::new())
    });
    visited.unwrap_or_else(|never| match never {});
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_give_one() {
        let toml = parse(b"name = \"a\"\ncommand = [\"x\"]", Format::Toml).unwrap();
        let json = parse(br#"{"name":"a","command":["x"]}"#, Format::Json).unwrap();
        let yaml = parse(b"name: a\ncommand: [x]", Format::Yaml).unwrap();
        assert_eq!(toml, json);
        assert_eq!(json, yaml);
    }

    #[test]
    fn what_cannot_be_read_says_where() {
        assert!(parse(b"a = \xff", Format::Toml).unwrap_err().to_string().contains("byte at 4"));
        assert!(parse(b"{", Format::Json).unwrap_err().to_string().contains("line 1"));
        assert!(Format::of_path(Path::new("x.txt")).is_err());
    }
}
