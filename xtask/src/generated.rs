//! Files that the program writes itself, so that no hand keeps them in step.

use anyhow::{Context as _, Result, bail};

use crate::repo;

/// Where each stands, and the arguments with which the program prints it.
const FILES: &[(&str, &[&str])] =
    &[("openapi/openapi.json", &["openapi"]), ("docs/config.schema.json", &["config", "schema"])];

fn printed(arguments: &[&str]) -> Result<String> {
    let mut skein = repo::cargo();
    skein.args(["run", "--quiet", "--package", "skein", "--"]).args(arguments);
    repo::output_of(&mut skein)
}

/// Every generated file is what the program prints.
pub(crate) fn check() -> Result<()> {
    let mut stale = Vec::new();
    for (path, arguments) in FILES {
        let kept = std::fs::read_to_string(repo::root().join(path)).unwrap_or_default();
        if kept != printed(arguments)? {
            stale.push(*path);
        }
    }
    if !stale.is_empty() {
        bail!("not in step with the code: {}: run 'cargo xtask generate' and commit what it writes", stale.join(", "));
    }
    println!("{} generated files are in step", FILES.len());
    Ok(())
}

/// Writes them.
pub(crate) fn write() -> Result<()> {
    for (path, arguments) in FILES {
        let text = printed(arguments)?;
        let file = repo::root().join(path);
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        println!("wrote {path}");
    }
    Ok(())
}
