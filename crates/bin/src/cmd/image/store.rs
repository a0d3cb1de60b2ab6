//! The images that are kept: import, list, export, remove, gc, scrub.

use std::path::PathBuf;

use serde_json::json;
use skein_image::store::{Manifest, Origin, Store};
use skein_image::{Error, Format};

use super::{Bar, input, open};
use crate::engine_dir::DirArg;
use crate::failure::{Ended, FAILED, INTERRUPTED, OK, usage};
use crate::output::{self, Table, line, note};

/// Where images are kept.
#[derive(Debug, clap::Args)]
pub(crate) struct StoreArg {
    /// Folder of the images [default: 'images' in the engine's folder]
    #[arg(long, value_name = "DIR", env = "SKEIN_IMAGES", hide_env_values = true)]
    store: Option<PathBuf>,
    #[command(flatten)]
    dir: DirArg,
}

impl StoreArg {
    fn open(&self) -> anyhow::Result<Store> {
        let dir = match &self.store {
            Some(dir) => dir.clone(),
            None => self.dir.path()?.join("images"),
        };
        Ok(Store::open(&dir)?)
    }

    /// The image that `begin` is the beginning of the id, or the name, of.
    pub(super) fn find(&self, begin: &str) -> anyhow::Result<(Store, Manifest)> {
        let store = self.open()?;
        let named: Vec<Manifest> = store.list()?.into_iter().filter(|m| m.origin.name == begin).collect();
        let manifest = match named.as_slice() {
            [one] => one.clone(),
            [] => store.find(begin).map_err(|e| usage(format!("{e}: 'skein image list' lists them")))?,
            many => return Err(usage(format!("{} images are named '{begin}': give the id", many.len()))),
        };
        Ok((store, manifest))
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// The image; '-' reads standard input
    input: PathBuf,
    /// A name for people [default: the file's]
    #[arg(long)]
    name: Option<String>,
    /// What it is [default: found out by its first bytes]
    #[arg(long, value_name = "FORMAT")]
    from: Option<Format>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArg,
}

#[derive(Debug, clap::Args)]
pub(crate) struct OnlyStore {
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArg,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RemoveArgs {
    /// Id, the beginning of it, or name
    image: String,
    #[command(flatten)]
    store: StoreArg,
}

pub(super) fn import(args: &ImportArgs) -> Ended {
    let bytes = input(&args.input)?;
    let (native, disk) = open(&bytes, args.from)?;
    let file_name = || args.input.file_stem().map(|n| n.to_string_lossy().into_owned());
    let origin = Origin {
        name: args.name.clone().or_else(file_name).unwrap_or_default(),
        source: args.input.display().to_string(),
        parent: None,
    };
    let store = args.store.open()?;
    let bar = Bar::new(disk.size(), args.json);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let imported = store.import(disk.as_ref(), native, origin, threads, &bar);
    bar.end();
    let imported = match imported {
        Err(Error::Cancelled) => {
            note("cancelled; 'skein image gc' frees what was kept of it so far");
            return Ok(INTERRUPTED);
        }
        imported => imported?,
    };
    if args.json {
        output::json(&json!({
            "image": imported.manifest, "known": imported.known, "new_bytes": imported.new_bytes,
        }))?;
        return Ok(OK);
    }
    line(imported.manifest.id.as_str());
    let data = indicatif::HumanBytes(imported.manifest.data_bytes);
    if imported.known {
        note(&format!("it is there already, as '{}'", imported.manifest.origin.name));
    } else {
        note(&format!("{data} of data; {} new on disk", indicatif::HumanBytes(imported.new_bytes)));
    }
    Ok(OK)
}

pub(super) fn list(args: &OnlyStore) -> Ended {
    let images = args.store.open()?.list()?;
    if args.json {
        output::json(&images)?;
        return Ok(OK);
    }
    let mut table = Table::new(&["id", "name", "came as", "size", "data"]).right(&[3, 4]);
    for image in &images {
        table.row([
            image.id.as_str()[..12].to_owned(),
            image.origin.name.clone(),
            image.native.to_string(),
            indicatif::HumanBytes(image.virtual_bytes).to_string(),
            indicatif::HumanBytes(image.data_bytes).to_string(),
        ]);
    }
    line(&table.render());
    Ok(OK)
}

pub(super) fn remove(args: &RemoveArgs) -> Ended {
    let (store, image) = args.store.find(&args.image)?;
    store.remove(&image.id)?;
    note(&format!("removed {}; 'skein image gc' frees its room", image.id));
    Ok(OK)
}

pub(super) fn gc(args: &OnlyStore) -> Ended {
    let done = args.store.open()?.collect()?;
    if args.json {
        output::json(&done)?;
    } else {
        note(&format!("{} freed, {} chunks kept", indicatif::HumanBytes(done.bytes), done.kept));
    }
    Ok(OK)
}

pub(super) fn scrub(args: &OnlyStore) -> Ended {
    let found = args.store.open()?.scrub()?;
    if args.json {
        output::json(&found)?;
    } else {
        for (chunk, images) in &found.bad {
            let ids: Vec<String> = images.iter().map(ToString::to_string).collect();
            note(&format!("damaged or missing: chunk {chunk} of {}", ids.join(", ")));
        }
        note(&format!("{} chunks are whole, {} are not", found.good, found.bad.len()));
        if !found.bad.is_empty() {
            note("import a damaged image again from its source: that mends it");
        }
    }
    Ok(if found.bad.is_empty() { OK } else { FAILED })
}
