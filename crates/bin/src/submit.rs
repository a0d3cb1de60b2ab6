//! From a document on disk to a request: read, upload what it names, hand over.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use serde_json::Value;
use skein_api::Client;
use skein_api::document::{self, DOCUMENT_BYTES_MAX, Format};
use tokio_util::io::ReaderStream;

/// Bytes read from a file at a time while it is uploaded.
const UPLOAD_STEP_BYTES: usize = 256 * 1024;

/// A task or thread document as it is on disk.
pub(crate) struct Document {
    /// As JSON.
    pub(crate) value: Value,
    /// Names of files in it start from here.
    base: PathBuf,
}

impl Document {
    /// Reads one.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let format = Format::of_path(path)?;
        let size = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
        if size > DOCUMENT_BYTES_MAX as u64 {
            bail!(
                "{}: the document has {size} bytes; the limit is {DOCUMENT_BYTES_MAX}: pass data as files",
                path.display()
            );
        }
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let value = document::parse(&bytes, format).with_context(|| path.display().to_string())?;
        let base = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Self { value, base })
    }

    /// One that is started from a file without being kept needs no name: the file's will do.
    pub(crate) fn read_to_start(path: &Path) -> anyhow::Result<Self> {
        let mut document = Self::read(path)?;
        name_after(&mut document.value, path);
        Ok(document)
    }

    /// One made on the spot; names of files in it start from the current folder.
    pub(crate) fn of(value: Value) -> Self {
        Self { value, base: PathBuf::new() }
    }

    /// Is it a thread?
    pub(crate) fn is_thread(&self) -> bool {
        document::is_thread(&self.value)
    }

    /// Its name.
    pub(crate) fn name(&self) -> anyhow::Result<&str> {
        let name = self.value.get("name").and_then(Value::as_str);
        name.ok_or_else(|| anyhow!("the document has no name: add name = \"...\""))
    }

    /// Uploads the files it names and gives it with their digests.
    pub(crate) async fn upload(mut self, client: &Client) -> anyhow::Result<Value> {
        let mut digests = BTreeMap::new();
        for name in document::files_of(&self.value) {
            let digest =
                upload_file(client, &self.base.join(&name)).await.with_context(|| format!("input '{name}'"))?;
            digests.insert(name, digest);
        }
        document::resolve_files(&mut self.value, |name| {
            digests.get(name).cloned().ok_or_else(|| anyhow!("input '{name}' was not uploaded"))
        })?;
        Ok(self.value)
    }
}

/// A document without a name is called as its file.
fn name_after(value: &mut Value, path: &Path) {
    let Some(object) = value.as_object_mut() else { return };
    if let (false, Some(stem)) = (object.contains_key("name"), path.file_stem().and_then(|s| s.to_str())) {
        object.insert("name".to_owned(), Value::String(name_from(stem)));
    }
}

/// A usable name from any text: what a name may not hold becomes `-`.
pub(crate) fn name_from(text: &str) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
    let name: String = text.chars().map(clean).collect();
    let name: String =
        name.trim_start_matches(['.', '_', '-']).chars().take(skein_domain::id::NAME_BYTES_MAX).collect();
    if name.is_empty() { "command".to_owned() } else { name }
}

/// Stores a file's content in the engine, unless it is there; gives its digest.
pub(crate) async fn upload_file(client: &Client, path: &Path) -> anyhow::Result<String> {
    let said = || format!("cannot read {}", path.display());
    if !std::fs::metadata(path).with_context(said)?.is_file() {
        bail!("{} is not a regular file", path.display());
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path).with_context(said)?).with_context(said)?;
    let digest = hasher.finalize().to_hex().to_string();
    if !client.has_file(&digest).await? {
        let file = tokio::fs::File::open(path).await.with_context(said)?;
        let body = reqwest::Body::wrap_stream(ReaderStream::with_capacity(file, UPLOAD_STEP_BYTES));
        client.put_file(&digest, body).await.with_context(|| format!("{} was not stored", path.display()))?;
    }
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_gives_a_name() {
        for (text, name) in [("true", "true"), (".env", "env"), ("a b/c", "a-b-c"), ("é", "command"), ("", "command")]
        {
            assert_eq!(name_from(text), name);
            assert!(skein_domain::TaskName::new(&name_from(text)).is_ok());
        }
    }

    #[test]
    fn a_document_without_a_name_is_called_as_its_file() {
        let mut value = serde_json::json!({"command": ["x"]});
        name_after(&mut value, Path::new("/tmp/my task.toml"));
        assert_eq!(value["name"], "my-task");
        name_after(&mut value, Path::new("other.toml"));
        assert_eq!(value["name"], "my-task");
    }
}
