//! A class file as it was read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::vm::Vm;

/// Largest class file, bytes.
const SCRIPT_BYTES_MAX: u64 = 1 << 20;

/// A class file, with its configuration. Two with the same digest do the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Script {
    /// Its class name, as the configuration has it: `luau:PATH`.
    pub class: Arc<str>,
    /// Where it is.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// The configuration's `custom`, handed to it.
    pub custom: Map<String, Value>,
    /// Of text and configuration.
    pub digest: String,
}

impl Script {
    /// Of a text.
    pub fn new(class: &str, path: &Path, text: String, custom: Map<String, Value>) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(text.as_bytes()).update(&[0]);
        hasher.update(serde_json::to_string(&custom).unwrap_or_default().as_bytes());
        let digest = hasher.finalize().to_hex().to_string();
        Self { class: class.into(), path: path.to_owned(), text, custom, digest }
    }

    /// Reads the file and tries it: it compiles, and what it does when it is read ends within the limits of one
    /// call. An error says what, and where in the file.
    pub fn read(class: &str, path: &Path, custom: &Map<String, Value>) -> Result<Self, String> {
        let size = std::fs::metadata(path).map_err(|e| format!("{}: {e}", path.display()))?.len();
        if size > SCRIPT_BYTES_MAX {
            return Err(format!("{}: {size} bytes; a class file has at most {SCRIPT_BYTES_MAX}", path.display()));
        }
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let script = Self::new(class, path, text, custom.clone());
        Vm::load(&script).map_err(|fault| fault.to_string())?;
        Ok(script)
    }

    /// The file's name, for messages.
    pub(super) fn name(&self) -> String {
        self.path.file_name().map_or_else(|| self.class.to_string(), |name| name.to_string_lossy().into_owned())
    }
}
