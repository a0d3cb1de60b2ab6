//! `skein image`: disk images of machines. Nothing here needs an engine.

mod store;

use std::fs::File;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use serde_json::json;
use skein_image::bytes::FileBytes;
use skein_image::convert::{Compression, Effort};
use skein_image::fits::Level;
use skein_image::{Budget, Bytes, Disk, Error, Format, Kind, Options, Out, Profile, Progress};

use crate::failure::{Ended, FAILED, INTERRUPTED, OK, usage};
use crate::output::{self, Table, line, note};

/// `skein image`.
#[derive(Debug, clap::Args)]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ImageCommand {
    /// Write a disk image in another format, or in the form a cloud wants
    Convert(ConvertArgs),
    /// Say what an image is: format, size, data in it
    Show(ShowArgs),
    /// Say what stands against an image starting on a cloud, before anything is uploaded
    Fits(FitsArgs),
    /// Take an image into the store; prints its id
    Import(store::ImportArgs),
    /// List the images of the store
    List(store::OnlyStore),
    /// Write an image of the store in a format, or in the form a cloud wants
    Export(ExportArgs),
    /// Remove an image from the store
    Remove(store::RemoveArgs),
    /// Free the room of what no image of the store has
    Gc(store::OnlyStore),
    /// Read all of the store and say what is damaged
    Scrub(store::OnlyStore),
    /// List the clouds and hypervisors whose form of images is known
    Profiles {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
struct ConvertArgs {
    /// The image; '-' reads standard input (kept in a temporary file meanwhile: disks are not read in order)
    input: PathBuf,
    /// What the image is [default: found out by its first bytes]
    #[arg(long, value_name = "FORMAT")]
    from: Option<Format>,
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, clap::Args)]
struct ExportArgs {
    /// Id, the beginning of it, or name
    image: String,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    store: store::StoreArg,
}

/// What is written, and where.
#[derive(Debug, clap::Args)]
struct Form {
    /// Where to; '-' writes standard output, for formats that are written in order
    output: PathBuf,
    /// A format (raw, qcow2, vmdk, vhd, vhdx, vdi, gce, ova) or a cloud ('skein image profiles')
    #[arg(long, value_name = "FORMAT|CLOUD")]
    to: String,
    /// Smaller, at more CPU time
    #[arg(long)]
    archive: bool,
    /// Compression of a qcow2
    #[arg(long, value_name = "HOW", value_parser = ["none", "zlib", "zstd"])]
    compress: Option<String>,
    /// Threads [default: as many as the machine has cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Replace OUTPUT if it is there
    #[arg(long)]
    force: bool,
    /// What was done, as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// The image
    file: PathBuf,
    /// What it is [default: found out by its first bytes]
    #[arg(long, value_name = "FORMAT")]
    from: Option<Format>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct FitsArgs {
    /// The image
    file: PathBuf,
    /// A cloud or hypervisor ('skein image profiles')
    cloud: String,
    /// What the image is [default: found out by its first bytes]
    #[arg(long, value_name = "FORMAT")]
    from: Option<Format>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(crate) fn run(args: ImageArgs) -> Ended {
    match args.command {
        ImageCommand::Convert(args) => convert(&args),
        ImageCommand::Show(args) => show(&args),
        ImageCommand::Fits(args) => fits(&args),
        ImageCommand::Import(args) => store::import(&args),
        ImageCommand::List(args) => store::list(&args),
        ImageCommand::Export(args) => export(&args),
        ImageCommand::Remove(args) => store::remove(&args),
        ImageCommand::Gc(args) => store::gc(&args),
        ImageCommand::Scrub(args) => store::scrub(&args),
        ImageCommand::Profiles { json } => profiles(json),
    }
}

/// The image's bytes; what comes through a pipe is kept in a temporary file.
fn input(path: &Path) -> anyhow::Result<Arc<dyn Bytes>> {
    let file = if path == Path::new("-") {
        let mut spooled = tempfile::tempfile().context("no temporary file")?;
        note("reading standard input into a temporary file: disks are not read in order");
        std::io::copy(&mut std::io::stdin().lock(), &mut spooled).context("reading standard input")?;
        spooled
    } else {
        File::open(path).with_context(|| format!("cannot open {}", path.display()))?
    };
    Ok(Arc::new(FileBytes::new(file)?))
}

fn open(bytes: &Arc<dyn Bytes>, from: Option<Format>) -> anyhow::Result<(Format, Box<dyn Disk>)> {
    let spool = || {
        note("unpacking into a temporary file first");
        tempfile::tempfile().map_err(Error::io("making a temporary file"))
    };
    let opened = skein_image::source::open(Arc::clone(bytes), from, &Budget::default(), spool, &())?;
    Ok((opened.format, opened.disk))
}

/// A format's word, or a profile's name.
fn options(args: &Form, disk: &dyn Disk) -> anyhow::Result<Options> {
    let mut options = match args.to.parse::<Format>() {
        Ok(format) => Options::new(format),
        Err(unknown) => {
            let profile = Profile::builtin(&args.to).map_err(|e| usage(format!("{unknown}; and {e}")))?;
            profile.check_size(disk)?;
            profile.options()
        }
    };
    options.effort = if args.archive { Effort::Archive } else { Effort::Fast };
    options.compression = match args.compress.as_deref() {
        None => options.compression,
        Some("zlib") => Compression::Zlib,
        Some("zstd") => Compression::Zstd,
        Some(_) => Compression::None,
    };
    options.threads = args.threads.map_or(options.threads, usize::from);
    Ok(options)
}

fn convert(args: &ConvertArgs) -> Ended {
    args.form.check()?;
    let bytes = input(&args.input)?;
    let (from, disk) = open(&bytes, args.from)?;
    write(&args.form, from, disk.as_ref())
}

fn export(args: &ExportArgs) -> Ended {
    args.form.check()?;
    let (store, image) = args.store.find(&args.image)?;
    write(&args.form, Format::Raw, &store.disk(&image.id)?)
}

impl Form {
    fn streams(&self) -> bool {
        self.output == Path::new("-")
    }

    /// Before anything is read: may this be written there?
    fn check(&self) -> anyhow::Result<()> {
        if !self.streams() && self.output.exists() && !self.force {
            return Err(usage(format!("{} is there already; --force replaces it", self.output.display())));
        }
        if self.streams() && std::io::stdout().is_terminal() {
            return Err(usage("a disk image is not for a terminal: give a file, or a pipe"));
        }
        Ok(())
    }
}

fn write(args: &Form, from: Format, disk: &dyn Disk) -> Ended {
    let options = options(args, disk)?;
    let bar = Bar::new(disk.size(), args.json);
    let written = if args.streams() {
        let mut stdout = std::io::stdout();
        skein_image::convert(disk, &mut Out::stream(&mut stdout), &options, &bar)
    } else {
        into_file(&args.output, |file| skein_image::convert(disk, &mut Out::File(file), &options, &bar))?
    };
    bar.end();
    let report = match written {
        Ok(report) => report,
        Err(Error::Cancelled) => {
            note("cancelled; nothing was left behind");
            return Ok(INTERRUPTED);
        }
        Err(error) => return Err(error.into()),
    };
    if args.json && !args.streams() {
        output::json(&json!({
            "from": from, "to": options.format, "virtual_bytes": report.virtual_bytes,
            "data_bytes": report.data_bytes, "bytes": report.bytes, "output": args.output,
        }))?;
    } else {
        note(&format!(
            "{from} to {}: {} of data on a disk of {}, {} written",
            options.format,
            indicatif::HumanBytes(report.data_bytes),
            indicatif::HumanBytes(report.virtual_bytes),
            indicatif::HumanBytes(report.bytes)
        ));
    }
    Ok(OK)
}

/// Writes beside the place and moves there when all is written: what has the name is whole.
fn into_file<T>(path: &Path, write: impl FnOnce(&File) -> Result<T, Error>) -> anyhow::Result<Result<T, Error>> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let part = tempfile::Builder::new()
        .prefix(".skein-image-")
        .tempfile_in(dir)
        .with_context(|| format!("cannot write in {}", dir.display()))?;
    let written = write(part.as_file());
    if written.is_ok() {
        // Readable like any file that a program makes; a temporary one is its owner's alone.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        part.as_file().set_permissions(mode).context("setting the mode")?;
        part.persist(path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(written)
}

/// A progress line on a terminal, and Ctrl-C.
struct Bar {
    bar: indicatif::ProgressBar,
    cancelled: Arc<AtomicBool>,
}

impl Bar {
    fn new(bytes: u64, quiet: bool) -> Self {
        let bar = if quiet { indicatif::ProgressBar::hidden() } else { indicatif::ProgressBar::new(bytes) };
        let style = "{wide_bar} {percent:>3}% of {total_bytes} {binary_bytes_per_sec} {eta} left";
        if let Ok(style) = indicatif::ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        let cancelled = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&cancelled);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if let Ok(runtime) = runtime {
                runtime.block_on(async { tokio::signal::ctrl_c().await }).unwrap_or_default();
                flag.store(true, Ordering::Relaxed);
            }
        });
        Self { bar, cancelled }
    }
    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Bar {
    fn at(&self, offset: u64) {
        self.bar.set_position(offset);
    }
    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

fn show(args: &ShowArgs) -> Ended {
    let bytes = input(&args.file)?;
    let (format, disk) = open(&bytes, args.from)?;
    let (mut at, mut data) = (0, 0);
    while at < disk.size() {
        let extent = disk.extent_at(at)?;
        data += if extent.kind == Kind::Data { extent.len } else { 0 };
        at = at.saturating_add(extent.len.max(1));
    }
    if args.json {
        let shown = json!({
            "format": format, "virtual_bytes": disk.size(), "data_bytes_at_most": data, "file_bytes": bytes.len(),
        });
        output::json(&shown)?;
        return Ok(OK);
    }
    line(&format!("format        {format}"));
    line(&format!("virtual size  {} ({} bytes)", indicatif::HumanBytes(disk.size()), disk.size()));
    line(&format!("data          at most {}", indicatif::HumanBytes(data)));
    line(&format!("file          {}", indicatif::HumanBytes(bytes.len())));
    Ok(OK)
}

fn profiles(json: bool) -> Ended {
    let all = Profile::names().map(Profile::builtin).collect::<Result<Vec<_>, _>>()?;
    if json {
        let named: Vec<_> = all.iter().map(|p| json!({"name": p.name, "profile": p})).collect();
        output::json(&named)?;
        return Ok(OK);
    }
    let mut table = Table::new(&["name", "format", "boot", "for"]);
    for profile in &all {
        let assumed = if profile.assumed.is_empty() { "" } else { " (in part assumed)" };
        let title = format!("{}{assumed}", profile.title);
        table.row([profile.name.clone(), profile.format.to_string(), profile.boot.join(", "), title]);
    }
    line(&table.render());
    Ok(OK)
}

/// Exit status 1 when it would not start there.
fn fits(args: &FitsArgs) -> Ended {
    let profile = Profile::builtin(&args.cloud).map_err(|e| usage(e.to_string()))?;
    let (_, disk) = open(&input(&args.file)?, args.from)?;
    let disk: Arc<dyn Disk> = Arc::from(disk);
    let facts = skein_image::inspect::inspect(&disk)?;
    let findings = skein_image::fits::fits(&facts, disk.size(), &profile);
    let refused = findings.iter().any(|f| f.level == Level::Refused);
    if args.json {
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
        note(&format!("{system}: {} on {}", if refused { "would not start" } else { "fits" }, profile.title));
    }
    Ok(if refused { FAILED } else { OK })
}
