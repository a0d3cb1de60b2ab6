//! The engine's folder: where it is, and what the engine leaves in it for the CLI.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use serde::Deserialize;

/// `--dir`.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct DirArg {
    /// Folder of the engine's state [default: $XDG_DATA_HOME/skein or ~/.local/share/skein]
    #[arg(long, value_name = "DIR", env = "SKEIN_DIR", hide_env_values = true, global = true)]
    pub(crate) dir: Option<PathBuf>,
}

impl DirArg {
    /// The folder, whether it exists or not.
    pub(crate) fn path(&self) -> anyhow::Result<PathBuf> {
        if let Some(dir) = &self.dir {
            return Ok(dir.clone());
        }
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let data = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")));
        let data = data.ok_or_else(|| anyhow!("no folder for the engine: HOME is not set; give one with --dir"))?;
        Ok(data.join("skein"))
    }
}

/// `engine.json`: written by an engine that is up.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct EngineFile {
    /// Where it answers.
    pub(crate) url: String,
}

/// The engine that says it is up in `dir`; it may have died since.
pub(crate) fn engine_file(dir: &Path) -> anyhow::Result<Option<EngineFile>> {
    let path = dir.join("engine.json");
    match std::fs::read(&path) {
        Ok(bytes) => {
            let file = serde_json::from_slice(&bytes);
            file.map(Some).with_context(|| format!("{} cannot be read; start the engine anew", path.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The local user's API token.
pub(crate) fn local_token(dir: &Path) -> anyhow::Result<String> {
    let path = dir.join("local.token");
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!("cannot read the token in {}; give one with --token or SKEIN_TOKEN", path.display())
    })?;
    Ok(text.trim().to_owned())
}

/// The engine's CA certificate, when it made one.
pub(crate) fn ca_file(dir: &Path) -> Option<PathBuf> {
    let path = dir.join("ca.pem");
    path.is_file().then_some(path)
}
