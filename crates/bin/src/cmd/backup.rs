//! `skein backup` and `skein restore`.

use std::path::PathBuf;

use skein_engine::backup::{self, Done, Folders};

use crate::engine_dir::DirArg;
use crate::failure::{Ended, OK};
use crate::output::{self, line, note};

/// `skein backup`.
#[derive(Debug, clap::Args)]
pub(crate) struct BackupArgs {
    /// The file to write [default: a new one in 'backups' in the engine's folder]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Configuration file of the engine, if it keeps content or logs elsewhere
    #[arg(long, value_name = "FILE", env = "SKEIN_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// With the tasks' logs
    #[arg(long)]
    with_logs: bool,
    /// With the images' bytes
    #[arg(long)]
    with_images: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    dir: DirArg,
}

/// `skein restore`.
#[derive(Debug, clap::Args)]
pub(crate) struct RestoreArgs {
    /// The backup
    file: PathBuf,
    /// Also when the engine's folder holds something: it is kept beside
    #[arg(long)]
    force: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    dir: DirArg,
}

/// Writes a backup; an engine that is up goes on.
pub(crate) fn backup(args: &BackupArgs) -> Ended {
    let dir = args.dir.path()?;
    let (mut content, mut logs, mut images) = (dir.join("content"), dir.join("logs"), dir.join("images"));
    if let Some(path) = &args.config {
        let config = skein_engine::config::Config::read(path)?;
        let settled = config.settle()?;
        content = settled.content_dir.unwrap_or(content);
        logs = config.logging.logs_directory.unwrap_or(logs);
        images = config.images.directory.unwrap_or(images);
    }
    let folders = Folders {
        content: &content,
        logs: args.with_logs.then_some(logs.as_path()),
        images: args.with_images.then_some(images.as_path()),
    };
    let done = backup::backup(&dir, args.to.as_deref(), folders)?;
    if done.images_left_out > 0 {
        let all = "--with-images takes them along, or keep a copy of their store";
        note(&format!("the bytes of {} images are not in it: {all}", done.images_left_out));
    }
    if done.missing > 0 {
        let config = "if the engine keeps content elsewhere, name its configuration with --config";
        note(&format!("{} files that sessions refer to are not in {}: {config}", done.missing, content.display()));
    }
    say(&done, args.json, "backed up to")
}

/// Puts a backup in place.
pub(crate) fn restore(args: &RestoreArgs) -> Ended {
    let dir = args.dir.path()?;
    let done = backup::restore(&args.file, &dir, args.force)?;
    if let Some(before) = done.before.as_ref().filter(|_| !args.json) {
        line(&format!("what was there before is kept in {}", before.display()));
    }
    say(&done, args.json, "restored to")
}

fn say(done: &Done, json: bool, what: &str) -> Ended {
    if json {
        output::json(done)?;
    } else {
        let bytes = indicatif::HumanBytes(done.bytes);
        line(&format!("{what} {} ({} files, {bytes})", done.path.display(), done.files));
    }
    Ok(OK)
}
