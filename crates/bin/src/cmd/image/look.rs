//! Looking at an image, a file or one that is kept: show, check, fits; and the profiles.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;
use skein_image::fits::Level;
use skein_image::inspect::Facts;
use skein_image::store::Manifest;
use skein_image::{Disk, Error, Format, Kind, Profile};

use super::bar::Bar;
use super::confine::confine;
use super::input::{input, open, url};
use super::place::PlaceArg;
use crate::failure::{Ended, FAILED, INTERRUPTED, OK, usage};
use crate::output::{self, Table, line, note};

/// A file, or an image that is kept.
#[derive(Debug, clap::Args)]
struct Which {
    /// A file, an http(s) URL, '-' for standard input; or an image that is kept: name, id, or the beginning of one
    image: PathBuf,
    /// What a file is [default: found out by its first bytes]
    #[arg(long, value_name = "FORMAT")]
    from: Option<Format>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceArg,
}

#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, clap::Args)]
pub(super) struct FitsArgs {
    #[command(flatten)]
    which: Which,
    /// A cloud or hypervisor ('skein image profiles')
    cloud: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct ProfilesArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceArg,
}

/// What was found.
struct Found {
    disk: Arc<dyn Disk>,
    format: Format,
    /// Bytes of the file.
    file_bytes: Option<u64>,
    /// Of one that is kept.
    manifest: Option<Manifest>,
}

impl Which {
    fn find(&self) -> anyhow::Result<Found> {
        if self.image.as_os_str() == "-" || url(&self.image).is_some() || self.image.exists() {
            let given = input(&self.image, self.json)?;
            confine(&[])?;
            let opened = open(&given.bytes, self.from)?;
            let (disk, format) = (Arc::from(opened.disk), opened.format);
            return Ok(Found { disk, format, file_bytes: Some(given.bytes.len()), manifest: None });
        }
        let name = self.image.to_string_lossy();
        let place = self.place.open()?;
        let id = place.find(&name).map_err(|e| usage(format!("there is no file '{name}'; and {e:#}")))?;
        let manifest = place.store().manifest(&id)?;
        let disk = Arc::new(place.store().disk(&id)?);
        Ok(Found { disk, format: manifest.native, file_bytes: None, manifest: Some(manifest) })
    }
}

pub(super) fn show(args: &ShowArgs) -> Ended {
    let found = args.which.find()?;
    let data = match &found.manifest {
        Some(manifest) => manifest.data_bytes,
        None => mapped(found.disk.as_ref())?,
    };
    let facts = match &found.manifest {
        Some(manifest) => manifest.facts.clone(),
        None => skein_image::inspect::inspect(&found.disk)?,
    };
    if args.which.json {
        let shown = json!({
            "format": found.format, "virtual_bytes": found.disk.size(), "data_bytes_at_most": data,
            "file_bytes": found.file_bytes, "facts": facts, "manifest": found.manifest,
        });
        output::json(&shown)?;
        return Ok(OK);
    }
    let size = |bytes| indicatif::HumanBytes(bytes).to_string();
    let as_it_came = if found.manifest.is_some() { " (as it came; kept raw)" } else { "" };
    line(&format!("format        {}{as_it_came}", found.format));
    line(&format!("virtual size  {} ({} bytes)", size(found.disk.size()), found.disk.size()));
    line(&format!("data          {}{}", if found.manifest.is_some() { "" } else { "at most " }, size(data)));
    if let Some(bytes) = found.file_bytes {
        line(&format!("file          {}", size(bytes)));
    }
    tell_facts(&facts);
    if let Some(manifest) = &found.manifest {
        line(&format!("id            {}", manifest.id));
        line(&format!("from          {} ({})", manifest.origin.source, manifest.origin.name));
        let by = manifest.signature.as_ref().map_or("nobody", |signature| signature.key.as_str());
        line(&format!("signed by     {by}"));
        if let Some(kept) = &manifest.native_file {
            line(&format!("native file   kept, {}", size(kept.bytes)));
        }
    }
    Ok(OK)
}

fn mapped(disk: &dyn Disk) -> anyhow::Result<u64> {
    let (mut at, mut data) = (0, 0);
    while at < disk.size() {
        let extent = disk.extent_at(at)?;
        data += if extent.kind == Kind::Data { extent.len } else { 0 };
        at = at.saturating_add(extent.len.max(1));
    }
    Ok(data)
}

fn tell_facts(facts: &Facts) {
    let ways: Vec<&str> =
        [(facts.bios, "BIOS"), (facts.uefi, "UEFI")].into_iter().filter_map(|(can, way)| can.then_some(way)).collect();
    line(&format!("starts by     {}", if ways.is_empty() { "nothing that was found".into() } else { ways.join(", ") }));
    if let Some(system) = &facts.system {
        let arch = system.arch.as_deref().unwrap_or("unknown architecture");
        let kernel = system.kernel.as_deref().unwrap_or("no kernel");
        line(&format!("system        {}, {arch}, {kernel}", system.name));
    }
    if facts.encrypted {
        line("encrypted     a partition is (LUKS)");
    }
    facts.unknown.iter().for_each(|unknown| line(&format!("not seen      {unknown}")));
}

/// Reads all of it. Exit status 1 when it is not whole.
pub(super) fn check(args: &CheckArgs) -> Ended {
    let found = args.which.find()?;
    let bar = Bar::new(found.disk.size(), args.which.json);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let root = skein_image::digest::of(found.disk.as_ref(), threads, &bar);
    bar.end();
    let known = found.manifest.as_ref().map(|manifest| manifest.id.as_str());
    let why = match &root {
        Err(Error::Cancelled) => return Ok(INTERRUPTED),
        Err(error) => Some(error.to_string()),
        Ok(root) => known.filter(|known| known != root).map(|known| format!("its disk is {root}, not {known}")),
    };
    if args.which.json {
        output::json(&json!({"format": found.format, "id": root.as_ref().ok(), "whole": why.is_none(), "why": why}))?;
    } else if let Some(why) = &why {
        note(&format!("not whole: {why}"));
    } else if let Ok(root) = &root {
        line(root);
        note(&format!("{}: all of it can be read", found.format));
    }
    Ok(if why.is_none() { OK } else { FAILED })
}

pub(super) fn profiles(args: &ProfilesArgs) -> Ended {
    let all = Profile::all(args.place.profiles().as_deref())?;
    if args.json {
        let named: Vec<_> = all.iter().map(|p| json!({"name": p.name, "profile": p})).collect();
        output::json(&named)?;
        return Ok(OK);
    }
    let mut table = Table::new(&["name", "format", "boot", "for"]);
    for profile in &all {
        let assumed = if profile.assumed.is_empty() { "" } else { " (in part assumed)" };
        let boot = if profile.is_container() { "-".to_owned() } else { profile.boot.join(", ") };
        table.row([profile.name.clone(), profile.format.to_string(), boot, format!("{}{assumed}", profile.title)]);
    }
    table.print();
    Ok(OK)
}

/// Exit status 1 when it would not start there.
pub(super) fn fits(args: &FitsArgs) -> Ended {
    let profiles = args.which.place.profiles();
    let profile = Profile::find(&args.cloud, profiles.as_deref()).map_err(|e| usage(e.to_string()))?;
    let found = args.which.find()?;
    let facts = skein_image::inspect::inspect(&found.disk)?;
    let findings = skein_image::fits::fits(&facts, found.disk.size(), &profile);
    let refused = findings.iter().any(|f| f.level == Level::Refused);
    if args.which.json {
        output::json(&json!({"profile": profile.name, "fits": !refused, "facts": facts, "findings": findings}))?;
    } else {
        for finding in &findings {
            let word = match finding.level {
                Level::Refused => "no",
                Level::Warning => "warning",
                Level::Unknown => "unknown",
            };
            line(&format!("{word:<8} {}; {}", finding.what, finding.next_step));
        }
        let system = facts.system.as_ref().map_or("an unknown system", |system| system.name.as_str());
        let unseen = findings.iter().any(|f| f.level == Level::Unknown);
        let verdict = match (refused, unseen) {
            (true, _) => "would not start",
            (false, true) => "fits, as far as it can be seen,",
            (false, false) => "fits",
        };
        note(&format!("{system}: {verdict} on {}", profile.title));
    }
    Ok(if refused { FAILED } else { OK })
}
