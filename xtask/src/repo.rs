//! The repository: where it is, which files are its own, and running programs in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// The repository's folder.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// What a program prints; its own messages go to the terminal.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let output = command.stderr(std::process::Stdio::inherit()).output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}", output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A file of the repository.
#[derive(Debug)]
pub(crate) struct TextFile {
    /// Its path from the root, with `/`.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
}

impl TextFile {
    pub(crate) fn is_rust(&self) -> bool {
        std::path::Path::new(&self.path).extension().is_some_and(|extension| extension == "rs")
    }
}

/// Every text file that is, or would be, under version control; in a copy without git, every file
/// outside `target`.
pub(crate) fn text_files() -> Result<Vec<TextFile>> {
    let mut listing = Command::new("git");
    listing.current_dir(root()).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let paths = match listing.output() {
        Ok(listed) if listed.status.success() => {
            String::from_utf8(listed.stdout)?.split_terminator('\0').map(str::to_owned).collect()
        }
        _ => walk(&root())?,
    };
    let mut files = Vec::new();
    for path in paths {
        let Ok(bytes) = std::fs::read(root().join(&path)) else { continue };
        if let Ok(text) = String::from_utf8(bytes) {
            files.push(TextFile { path, text });
        }
    }
    if files.is_empty() {
        bail!("there is no file in {}", root().display());
    }
    Ok(files)
}

fn walk(root: &Path) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
            if path.is_dir() {
                if !matches!(name, "target" | ".git" | ".skein" | "node_modules") {
                    open.push(path);
                }
            } else if let Some(path) = path.strip_prefix(root).ok().and_then(Path::to_str) {
                paths.push(path.replace('\\', "/"));
            }
        }
    }
    paths.sort();
    Ok(paths)
}
