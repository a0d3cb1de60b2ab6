//! The images that are kept: import, list, tag, choose, remove, gc, scrub.

use std::path::{Path, PathBuf};

use serde_json::json;
use skein_api::{ChooseRequest, DeployRequest, ImportRequest, LabelRequest, OperationView};
use skein_image::store::{Collected, ImageId, Imported, New, Origin, Scrubbed};
use skein_image::{Error, Format, Progress as _};

use super::bar::Bar;
use super::confine::confine;
use super::input::{check_sha256, input, open, url};
use super::place::{Place, PlaceArg};
use crate::failure::{Ended, FAILED, INTERRUPTED, OK, usage};
use crate::image_shelf::EngineShelf;
use crate::output::{self, Table, line, note};

/// Interval of asking how far an operation is.
const ASK: std::time::Duration = std::time::Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    /// The image: a file, an http(s) URL (the engine fetches it), or '-' for standard input
    input: PathBuf,
    /// A name for people [default: the file's]
    #[arg(long)]
    name: Option<String>,
    /// A word to find it by; may be given again
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// The image that it was made from: a name or an id
    #[arg(long, value_name = "IMAGE")]
    parent: Option<String>,
    /// What it is [default: found out by its first bytes]
    #[arg(long, value_name = "FORMAT")]
    from: Option<Format>,
    /// Keep the file too, byte for byte ('skein image export --to native' gives it back)
    #[arg(long)]
    keep_native: bool,
    /// The file's SHA-256: another file is refused
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceArg,
}

#[derive(Debug, clap::Args)]
pub(super) struct OnlyPlace {
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceArg,
}

#[derive(Debug, clap::Args)]
pub(super) struct RemoveArgs {
    /// Name, id, or the beginning of one
    image: String,
    #[command(flatten)]
    place: PlaceArg,
}

#[derive(Debug, clap::Args)]
pub(super) struct TagArgs {
    /// Name, id, or the beginning of one
    image: String,
    /// Its name from now on
    #[arg(long)]
    name: Option<String>,
    /// A tag to add; may be given again
    #[arg(long, value_name = "TAG")]
    add: Vec<String>,
    /// A tag to take away; may be given again
    #[arg(long, value_name = "TAG")]
    remove: Vec<String>,
    #[command(flatten)]
    place: PlaceArg,
}

#[derive(Debug, clap::Args)]
pub(super) struct DeployArgs {
    /// Name, id, or the beginning of one
    image: String,
    /// A destination of the engine's configuration (images.destinations)
    to: String,
    /// What it is called there [default: its name and the beginning of its id]
    #[arg(long)]
    name: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceArg,
}

#[derive(Debug, clap::Args)]
pub(super) struct ChooseArgs {
    /// A destination or solution of the engine's, or a deployment form ('skein image profiles')
    to: String,
    /// This image: a name, an id, or the beginning of one
    #[arg(long)]
    image: Option<String>,
    /// Operating system ('linux')
    #[arg(long)]
    os: Option<String>,
    /// Architecture ('x86_64', 'aarch64')
    #[arg(long)]
    arch: Option<String>,
    /// A tag that it must have; may be given again
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Size of the machine's disk, GiB
    #[arg(long, value_name = "GIB")]
    disk_gib: Option<u32>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceArg,
}

pub(super) fn import(args: &ImportArgs) -> Ended {
    let place = args.place.open()?;
    let named = url(&args.input);
    let file = named.as_ref().and_then(|url| url.path_segments()?.next_back()).map(PathBuf::from);
    let stem = file.as_ref().unwrap_or(&args.input).file_name().map(|n| n.to_string_lossy().into_owned());
    let stem = stem.filter(|name| name != "-").map(|name| name.split('.').next().unwrap_or_default().to_owned());
    let name = args.name.clone().or(stem).unwrap_or_default();
    let parent = args.parent.as_deref().map(|parent| place.find(parent)).transpose()?;
    match (&place, named) {
        (Place::Engine { shelf, .. }, Some(url)) if parent.is_none() => by_engine(shelf, args, url.as_str(), name),
        _ => by_us(&place, args, name, parent),
    }
}

/// Read, cut and packed here.
fn by_us(place: &Place, args: &ImportArgs, name: String, parent: Option<ImageId>) -> Ended {
    if matches!(place, Place::Folder(_)) && !args.tags.is_empty() {
        return Err(usage("tags are an engine's: start one with 'skein up', or leave them out"));
    }
    let mut given = input(&args.input, args.json)?;
    check_sha256(&mut given, args.sha256.as_ref())?;
    // Who sends to an engine may have to look its name up, which opens files of the system's.
    if let Place::Folder(store) = place {
        confine(&[Path::new(&store.place())])?;
    }
    let opened = open(&given.bytes, args.from)?;
    let bar = Bar::new(opened.disk.size(), args.json);
    let source = args.input.display().to_string();
    let new = New {
        disk: opened.disk.as_ref(),
        format: opened.format,
        keep: args.keep_native.then_some(given.bytes),
        origin: Origin { name, source, sha256: given.sha256, parent },
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let imported = place.store().import(new, threads, &bar);
    bar.end();
    let imported = match imported {
        Err(Error::Cancelled) => {
            note("cancelled; what was kept so far is not sent again by another import, and freed by 'skein image gc'");
            return Ok(INTERRUPTED);
        }
        imported => imported?,
    };
    let labels = LabelRequest { add_tags: args.tags.clone(), ..LabelRequest::default() };
    let mut known_as = imported.manifest.origin.name.clone();
    if let Place::Engine { shelf, .. } = place {
        let id = imported.manifest.id.as_str();
        let image = match shelf.made() {
            Some(made) if labels == LabelRequest::default() => made,
            _ => shelf.call(shelf.client().label_image(id, &labels))?,
        };
        known_as = image.name;
    }
    said(args.json, &imported, &known_as)?;
    Ok(OK)
}

fn said(json: bool, imported: &Imported, known_as: &str) -> anyhow::Result<()> {
    if json {
        return output::json(&json!({
            "image": imported.manifest, "known": imported.known, "new_bytes": imported.new_bytes,
        }));
    }
    line(imported.manifest.id.as_str());
    let data = indicatif::HumanBytes(imported.manifest.data_bytes);
    if imported.known {
        note(&format!("it is there already, as '{known_as}'"));
    } else {
        note(&format!("{data} of data; {} new", indicatif::HumanBytes(imported.new_bytes)));
    }
    Ok(())
}

/// Fetched and taken in by the engine.
fn by_engine(shelf: &EngineShelf, args: &ImportArgs, url: &str, name: String) -> Ended {
    let request = ImportRequest {
        url: url.to_owned(),
        name: Some(name).filter(|name| !name.is_empty()),
        tags: args.tags.clone(),
        from: args.from.map(|format| format.to_string()),
        sha256: args.sha256.clone(),
        keep_native: args.keep_native,
    };
    let operation = shelf.call(shelf.client().import_image(&request))?;
    let Some(done) = follow(shelf, operation, args.json)? else { return Ok(INTERRUPTED) };
    let result = done.result.unwrap_or_default();
    if args.json {
        output::json(&json!({"image": result}))?;
    } else {
        line(result["id"].as_str().unwrap_or_default());
    }
    Ok(OK)
}

pub(super) fn deploy(args: &DeployArgs) -> Ended {
    let shelf = args.place.engine("bringing images to destinations")?;
    let request = DeployRequest { to: args.to.clone(), name: args.name.clone() };
    let operation = shelf.call(shelf.client().deploy_image(&args.image, &request))?;
    let Some(done) = follow(&shelf, operation, args.json)? else {
        note("what was sent stays there for another try, which sends the rest");
        return Ok(INTERRUPTED);
    };
    let image = done.result.unwrap_or_default();
    if args.json {
        output::json(&image)?;
        return Ok(OK);
    }
    for there in image["deployed"].as_array().into_iter().flatten() {
        let word = |name: &str| there[name].as_str().unwrap_or_default().to_owned();
        line(&format!("{}  {}  {}", word("solution"), word("profile"), word("cloud_id")));
    }
    Ok(OK)
}

/// Until it is over; none when it was cancelled.
fn follow(shelf: &EngineShelf, operation: OperationView, quiet: bool) -> anyhow::Result<Option<OperationView>> {
    let bar = Bar::new(0, quiet);
    let (mut now, mut at) = (operation, String::new());
    while now.state == "running" {
        if now.at != at {
            at = now.at.clone();
            bar.says(&at);
        }
        bar.is_at(now.done_bytes, now.total_bytes);
        if bar.is_cancelled() {
            shelf.call(shelf.client().cancel_operation(&now.id))?;
        }
        std::thread::sleep(ASK);
        now = shelf.call(shelf.client().operation(&now.id))?;
    }
    bar.end();
    match (now.state.as_str(), &now.error) {
        ("done", _) => Ok(Some(now)),
        ("cancelled", _) => {
            note("cancelled");
            Ok(None)
        }
        (_, why) => Err(anyhow::anyhow!("{}", why.as_deref().unwrap_or("it failed, and the engine does not say why"))),
    }
}

pub(super) fn list(args: &OnlyPlace) -> Ended {
    let size = |bytes| indicatif::HumanBytes(bytes).to_string();
    match args.place.open()? {
        Place::Engine { shelf, .. } => {
            let images = shelf.call(shelf.client().images())?;
            if args.json {
                output::json(&images)?;
                return Ok(OK);
            }
            let mut table =
                Table::new(&["id", "name", "tags", "came as", "size", "data", "system", "deployed"]).right(&[4, 5]);
            for image in &images {
                let arch = image.offers["arch"].as_str().unwrap_or("-");
                let name = if image.stored { image.name.clone() } else { format!("{} (bytes missing)", image.name) };
                let id = image.id.get(..12).unwrap_or(&image.id).to_owned();
                let (size, data) = (size(image.virtual_bytes), size(image.data_bytes));
                let there: Vec<&str> = image.deployed.iter().map(|there| there.solution.as_str()).collect();
                let (tags, native) = (image.tags.join(" "), image.native.clone());
                table.row([id, name, tags, native, size, data, arch.to_owned(), there.join(" ")]);
            }
            table.print();
        }
        Place::Folder(store) => {
            let images = store.list_all()?;
            if args.json {
                output::json(&images)?;
                return Ok(OK);
            }
            let mut table = Table::new(&["id", "name", "came as", "size", "data"]).right(&[3, 4]);
            for image in &images {
                let (id, name) = (image.id.as_str()[..12].to_owned(), image.origin.name.clone());
                table.row([id, name, image.native.to_string(), size(image.virtual_bytes()), size(image.data_bytes)]);
            }
            table.print();
        }
    }
    Ok(OK)
}

pub(super) fn tag(args: &TagArgs) -> Ended {
    let shelf = args.place.engine("the catalogue of names and tags")?;
    let labels = LabelRequest { name: args.name.clone(), add_tags: args.add.clone(), remove_tags: args.remove.clone() };
    let image = shelf.call(shelf.client().label_image(&args.image, &labels))?;
    note(&format!("{} is '{}', tags: {}", &image.id[..12], image.name, image.tags.join(" ")));
    Ok(OK)
}

pub(super) fn choose(args: &ChooseArgs) -> Ended {
    let shelf = args.place.engine("the catalogue to choose from")?;
    let request = ChooseRequest {
        to: args.to.clone(),
        image: args.image.clone(),
        os: args.os.clone(),
        arch: args.arch.clone(),
        tags: args.tags.clone(),
        disk_bytes: args.disk_gib.map(|gib| u64::from(gib) << 30),
    };
    let choice = shelf.call(shelf.client().choose_image(&request))?;
    if args.json {
        output::json(&choice)?;
        return Ok(if choice.image.is_some() { OK } else { FAILED });
    }
    if let (Some(id), Some(name)) = (&choice.image, &choice.name) {
        line(&format!("{id}  {name}"));
        line(&format!("form      {}", choice.says));
        line(&format!("given to  {}", choice.receiver.as_deref().unwrap_or_default()));
        let bytes = choice.virtual_bytes.unwrap_or(0);
        line(&format!("disk      {} ({bytes} bytes)", indicatif::HumanBytes(bytes)));
        choice.unsure.iter().for_each(|doubt| line(&format!("unsure    {doubt}")));
    } else {
        line(&choice.says);
    }
    for other in &choice.passed_over {
        let why = if other.because.is_empty() {
            "it would do; another is better".to_owned()
        } else {
            other.because.join("; ")
        };
        line(&format!("not       {} {}: {why}", &other.image[..12], other.name));
    }
    Ok(if choice.image.is_some() { OK } else { FAILED })
}

pub(super) fn remove(args: &RemoveArgs) -> Ended {
    let place = args.place.open()?;
    let id = match &place {
        Place::Engine { shelf, .. } => {
            let image = shelf.call(shelf.client().image(&args.image))?;
            shelf.call(shelf.client().remove_image(&image.id))?;
            image.id
        }
        Place::Folder(store) => {
            let id = place.find(&args.image)?;
            store.remove(&id)?;
            id.to_string()
        }
    };
    note(&format!("removed {id}; 'skein image gc' frees its room"));
    Ok(OK)
}

/// What the engine, or we, found.
fn upkeep<T: serde::de::DeserializeOwned>(
    args: &OnlyPlace,
    what: &str,
    ours: impl FnOnce(&skein_image::store::Store, &Bar) -> skein_image::Result<T>,
) -> anyhow::Result<Option<T>> {
    match args.place.open()? {
        Place::Folder(store) => {
            let bar = Bar::new(0, args.json);
            let done = ours(&store, &bar);
            bar.end();
            match done {
                Err(Error::Cancelled) => Ok(None),
                done => Ok(Some(done?)),
            }
        }
        Place::Engine { shelf, .. } => {
            let operation = shelf.call(shelf.client().image_upkeep(what))?;
            let done = follow(&shelf, operation, args.json)?;
            Ok(done.map(|done| serde_json::from_value(done.result.unwrap_or_default())).transpose()?)
        }
    }
}

pub(super) fn gc(args: &OnlyPlace) -> Ended {
    let done: Option<Collected> = upkeep(args, "gc", |store, _| store.collect(&|_| false))?;
    let Some(done) = done else { return Ok(INTERRUPTED) };
    if args.json {
        output::json(&done)?;
    } else {
        note(&format!("{} freed, {} chunks kept", indicatif::HumanBytes(done.bytes), done.kept));
    }
    Ok(OK)
}

pub(super) fn scrub(args: &OnlyPlace) -> Ended {
    let found: Option<Scrubbed> = upkeep(args, "scrub", |store, bar| store.scrub(bar))?;
    let Some(found) = found else { return Ok(INTERRUPTED) };
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
