//! Writing an image in another form: convert a file, export what is kept.

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::json;
use skein_image::convert::{Compression, Effort};
use skein_image::{Disk, Error, Format, Options, Out, Profile, container};

use super::bar::Bar;
use super::confine::{confine, folder_of};
use super::input::{input, open};
use super::place::PlaceArg;
use crate::failure::{Ended, INTERRUPTED, OK, usage};
use crate::output::{self, note};

/// The word for the file that an image came in.
const NATIVE: &str = "native";

#[derive(Debug, clap::Args)]
pub(super) struct ConvertArgs {
    /// The image: a file, an http(s) URL, or '-' for standard input (kept in a temporary file meanwhile: disks are
    /// not read in order)
    input: PathBuf,
    /// What the image is [default: found out by its first bytes]
    #[arg(long, value_name = "FORMAT")]
    from: Option<Format>,
    #[command(flatten)]
    form: Form,
    /// Folder of your own profiles, NAME.toml each
    #[arg(long, value_name = "DIR", env = "SKEIN_PROFILES", hide_env_values = true)]
    profiles: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {
    /// Name, id, or the beginning of one
    image: String,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    place: PlaceArg,
}

/// What is written, and where.
#[derive(Debug, clap::Args)]
struct Form {
    /// Where to; '-' writes standard output, for formats that are written in order
    output: PathBuf,
    /// A format (raw, qcow2, vmdk, vhd, vhdx, vdi, gce, ova; oci: a container of its root file system), a cloud
    /// ('skein image profiles'), or of what is kept 'native': the file that it came in
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

/// What was written.
struct Written {
    to: Format,
    data_bytes: u64,
    virtual_bytes: u64,
    bytes: u64,
    /// Of a container.
    contained: Option<container::Contained>,
}

pub(super) fn convert(args: &ConvertArgs) -> Ended {
    args.form.check()?;
    let given = input(&args.input, args.form.json)?;
    let mut folders = vec![folder_of(&args.form.output)];
    folders.extend(args.profiles.as_deref());
    confine(&folders)?;
    let opened = open(&given.bytes, args.from)?;
    args.form.write(opened.format, &Arc::from(opened.disk), args.profiles.as_deref())
}

pub(super) fn export(args: &ExportArgs) -> Ended {
    args.form.check()?;
    let place = args.place.open()?;
    let id = place.find(&args.image)?;
    if args.form.to == NATIVE {
        let manifest = place.store().manifest(&id)?;
        let file: Arc<dyn Disk> = Arc::new(place.store().native(&id)?);
        return args.form.write_native(manifest.native, &file);
    }
    let disk: Arc<dyn Disk> = Arc::new(place.store().disk(&id)?);
    args.form.write(Format::Raw, &disk, args.place.profiles().as_deref())
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

    /// A format's word, or a profile's name.
    fn options(&self, disk: &dyn Disk, profiles: Option<&Path>) -> anyhow::Result<Options> {
        let mut options = match self.to.parse::<Format>() {
            Ok(format) => Options::new(format),
            Err(unknown) => {
                let profile = Profile::find(&self.to, profiles).map_err(|e| usage(format!("{unknown}; and {e}")))?;
                if !profile.is_container() {
                    profile.check_size(disk)?;
                }
                profile.options()
            }
        };
        options.effort = if self.archive { Effort::Archive } else { Effort::Fast };
        options.compression = match self.compress.as_deref() {
            None => options.compression,
            Some("zlib") => Compression::Zlib,
            Some("zstd") => Compression::Zstd,
            Some(_) => Compression::None,
        };
        options.threads = self.threads.map_or(options.threads, usize::from);
        Ok(options)
    }

    /// The bytes of the file that an image came in.
    fn write_native(&self, native: Format, file: &Arc<dyn Disk>) -> Ended {
        self.write_as(native, file, &Options::new(Format::Raw))
    }

    fn write(&self, from: Format, disk: &Arc<dyn Disk>, profiles: Option<&Path>) -> Ended {
        self.write_as(from, disk, &self.options(disk.as_ref(), profiles)?)
    }

    fn write_as(&self, from: Format, disk: &Arc<dyn Disk>, options: &Options) -> Ended {
        let bar = Bar::new(disk.size(), self.json);
        let written = if self.streams() {
            let mut stdout = std::io::stdout();
            one(disk, Target::Stream(&mut stdout), options, &bar)
        } else {
            into_file(&self.output, |file| one(disk, Target::File(file), options, &bar))?
        };
        bar.end();
        let written = match written {
            Ok(written) => written,
            Err(Error::Cancelled) => {
                note("cancelled; nothing was left behind");
                return Ok(INTERRUPTED);
            }
            Err(error) => return Err(error.into()),
        };
        self.tell(from, &written)?;
        Ok(OK)
    }

    fn tell(&self, from: Format, written: &Written) -> anyhow::Result<()> {
        if self.json && !self.streams() {
            return output::json(&json!({
                "from": from, "to": written.to, "virtual_bytes": written.virtual_bytes, "data_bytes": written.data_bytes,
                "bytes": written.bytes, "output": self.output, "container": written.contained,
            }));
        }
        let size = |bytes| indicatif::HumanBytes(bytes).to_string();
        if let Some(contained) = &written.contained {
            let (files, left_out) = (contained.files, contained.left_out);
            let (unpacked, bytes) = (size(contained.unpacked_bytes), size(written.bytes));
            note(&format!(
                "{from} to a container: {files} files, {unpacked}, {bytes} written; {left_out} devices left out"
            ));
            return Ok(());
        }
        if self.to == NATIVE {
            note(&format!("{from} as it came: {} written", size(written.bytes)));
            return Ok(());
        }
        let (data, disk, bytes) = (size(written.data_bytes), size(written.virtual_bytes), size(written.bytes));
        note(&format!("{from} to {}: {data} of data on a disk of {disk}, {bytes} written", written.to));
        Ok(())
    }
}

enum Target<'a> {
    File(&'a File),
    Stream(&'a mut std::io::Stdout),
}

fn one(disk: &Arc<dyn Disk>, target: Target<'_>, options: &Options, bar: &Bar) -> Result<Written, Error> {
    if options.format == Format::Oci {
        let spool = tempfile::tempfile().map_err(Error::io("making a temporary file"))?;
        let contained = match target {
            Target::File(mut file) => container::write(disk, &mut file, spool, options.effort, bar),
            Target::Stream(stdout) => container::write(disk, stdout, spool, options.effort, bar),
        }?;
        return Ok(Written {
            to: options.format,
            data_bytes: contained.unpacked_bytes,
            virtual_bytes: disk.size(),
            bytes: contained.bytes,
            contained: Some(contained),
        });
    }
    let report = match target {
        Target::File(file) => skein_image::convert(disk.as_ref(), &mut Out::File(file), options, bar),
        Target::Stream(stdout) => {
            let report = skein_image::convert(disk.as_ref(), &mut Out::stream(stdout), options, bar);
            std::io::stdout().flush().map_err(Error::io("writing the image"))?;
            report
        }
    }?;
    Ok(Written {
        to: options.format,
        data_bytes: report.data_bytes,
        virtual_bytes: report.virtual_bytes,
        bytes: report.bytes,
        contained: None,
    })
}

/// Writes beside the place and moves there when all is written: what has the name is whole.
fn into_file<T>(path: &Path, write: impl FnOnce(&File) -> Result<T, Error>) -> anyhow::Result<Result<T, Error>> {
    let dir = folder_of(path);
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
