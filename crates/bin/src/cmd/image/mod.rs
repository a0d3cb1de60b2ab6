//! `skein image`: disk images of machines. What converts and looks needs no engine; what is kept is an engine's, or a
//! folder's where no engine is up.

mod bar;
mod confine;
mod convert;
mod database;
mod input;
mod look;
mod place;

use crate::failure::Ended;

/// `skein image`.
#[derive(Debug, clap::Args)]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ImageCommand {
    /// Write a disk image in another format, or in the form a cloud wants
    Convert(convert::ConvertArgs),
    /// Say what an image is: format, size, data in it, the system on it
    Show(look::ShowArgs),
    /// Read all of an image and say whether it is whole
    Check(look::CheckArgs),
    /// Say what stands against an image starting on a cloud, before anything is uploaded
    Fits(look::FitsArgs),
    /// List the clouds and hypervisors whose form of images is known
    Profiles(look::ProfilesArgs),
    /// Take an image in; prints its id
    Import(database::ImportArgs),
    /// List the images that are kept
    List(database::OnlyPlace),
    /// Change an image's name and tags
    Tag(database::TagArgs),
    /// Write an image that is kept in a format, or in the form a cloud wants
    Export(convert::ExportArgs),
    /// Say which image a new machine would start from, in which form, and why no other
    Choose(database::ChooseArgs),
    /// Bring an image to a destination, in the form it wants; goes on where it was cut short
    Deploy(database::DeployArgs),
    /// Forget an image
    Remove(database::RemoveArgs),
    /// Free the room of what no image has
    Gc(database::OnlyPlace),
    /// Read all that is kept and say what is damaged
    Scrub(database::OnlyPlace),
}

/// Runs it.
pub(crate) fn run(args: ImageArgs) -> Ended {
    match args.command {
        ImageCommand::Convert(args) => convert::convert(&args),
        ImageCommand::Show(args) => look::show(&args),
        ImageCommand::Check(args) => look::check(&args),
        ImageCommand::Fits(args) => look::fits(&args),
        ImageCommand::Profiles(args) => look::profiles(&args),
        ImageCommand::Import(args) => database::import(&args),
        ImageCommand::List(args) => database::list(&args),
        ImageCommand::Tag(args) => database::tag(&args),
        ImageCommand::Export(args) => convert::export(&args),
        ImageCommand::Choose(args) => database::choose(&args),
        ImageCommand::Deploy(args) => database::deploy(&args),
        ImageCommand::Remove(args) => database::remove(&args),
        ImageCommand::Gc(args) => database::gc(&args),
        ImageCommand::Scrub(args) => database::scrub(&args),
    }
}
