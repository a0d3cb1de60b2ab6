//! Logging of the engine's own components [0052]: levels by component, changed while it runs.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::OnceLock;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// Components, and the modules they are made of.
const COMPONENTS: &[(&str, &[&str])] = &[
    ("engine", &["skein_engine"]),
    ("writer", &["skein_engine::writer", "skein_engine::core"]),
    ("http", &["skein_engine::http", "skein_engine::serve"]),
    ("broker", &["skein_engine::broker", "skein_engine::http::agents"]),
    ("gateway", &["skein_engine::gateway"]),
    ("configuration", &["skein_engine::maintain", "skein_engine::config"]),
    ("agent", &["skein_agent"]),
];

/// Directives when no file says otherwise.
pub(crate) const DEFAULT: &str = "warn,skein_engine=info,skein_agent=info";

const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Starts logging to standard error, at `info` and above (or as `SKEIN_LOG` says). Once per process.
pub fn install() {
    let filter = EnvFilter::try_from_env("SKEIN_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let (filter, handle) = reload::Layer::new(filter);
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    // Another subscriber may be there already (a test's): then it stays.
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
        FILTER.set(handle).map_err(|_| ()).unwrap_or_default();
    }
}

/// The directives of a logging configuration file: `{"engine": "debug", "http": "warn"}`.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let levels: BTreeMap<String, String> =
        serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut directives = vec![DEFAULT.to_owned()];
    for (component, level) in &levels {
        let known = COMPONENTS.iter().find(|(name, _)| name == component);
        let names = || COMPONENTS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let (_, modules) = known.ok_or_else(|| {
            format!("{}: there is no component '{component}' (there are: {})", path.display(), names())
        })?;
        if !LEVELS.contains(&level.as_str()) {
            return Err(format!("{}: level '{level}' of '{component}': give {}", path.display(), LEVELS.join(", ")));
        }
        directives.extend(modules.iter().map(|module| format!("{module}={level}")));
    }
    Ok(directives.join(","))
}

/// Puts directives in force.
pub(crate) fn put_in_force(directives: &str) {
    if let (Some(handle), Ok(filter)) = (FILTER.get(), EnvFilter::try_new(directives))
        && let Err(error) = handle.reload(filter)
    {
        tracing::error!(%error, "the log levels could not be changed");
    }
}
