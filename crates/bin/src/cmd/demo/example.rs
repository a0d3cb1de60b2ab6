//! The example thread with its data, inside the binary, so that the demo works from anywhere.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The thread's name.
pub(crate) const NAME: &str = "requests";

/// A file of `examples/requests`, which is the one place where it is kept.
macro_rules! example_file {
    ($path:literal) => {
        ($path, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/requests/", $path)).as_slice())
    };
}

const FILES: [(&str, &[u8]); 6] = [
    example_file!("thread.toml"),
    example_file!("count.awk"),
    example_file!("README.md"),
    example_file!("data/README.md"),
    example_file!("data/azure_llm2023_code.csv.gz"),
    example_file!("data/azure_llm2023_conv.csv.gz"),
];

/// Writes them below `dir`; gives the thread's path.
pub(crate) fn write(dir: &Path) -> anyhow::Result<PathBuf> {
    for (path, bytes) in FILES {
        let path = dir.join(path);
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        made.and_then(|()| std::fs::write(&path, bytes)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(dir.join("thread.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::submit::Document;

    #[test]
    fn every_file_that_the_thread_names_is_inside() {
        let dir = tempfile::tempdir().unwrap();
        let document = Document::read(&write(dir.path()).unwrap()).unwrap();
        assert!(document.is_thread());
        assert_eq!(document.name().unwrap(), NAME);
        for file in skein_api::document::files_of(&document.value) {
            assert!(dir.path().join(&file).is_file(), "{file}");
        }
    }
}
