//! Which image a new machine starts from, and in which form [0098]-[0103].
//!
//! ```text
//! what is asked of the machine --+
//! images of the catalogue -------+--> choose --> image, form, receiver, and why no other
//! what the solution takes -------+               (or why none)
//! ```
//! Among images that satisfy what is asked, the newest; then one that is there already, then one that goes as it
//! is kept, then the smallest id: equal inputs in another order give the same answer.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::SolutionId;
use crate::image::{Boot, Image};
use crate::instance::{Instance, InstanceState, Live};
use crate::quantity::Digest;

/// The form in which the store keeps every disk.
pub const STORED: &str = "raw";

/// What is asked of a new machine's image: its capability.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wants {
    /// This one: a name, an id, or the beginning of one (8 digits at least).
    pub image: Option<String>,
    /// Operating system as Rust names it.
    pub os: Option<Arc<str>>,
    /// Architecture as Rust names it.
    pub arch: Option<Arc<str>>,
    /// All of these tags.
    pub tags: BTreeSet<String>,
    /// The machine's disk, bytes; the image's must not be larger.
    pub disk_bytes: Option<u64>,
}

/// What a solution takes: its deployment form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Takes {
    /// The solution.
    pub solution: SolutionId,
    /// The form's name.
    pub profile: Arc<str>,
    /// Who is given the image there.
    pub receiver: Receiver,
    /// The format.
    pub format: Arc<str>,
    /// Other formats that it takes as well.
    pub also: BTreeSet<Arc<str>>,
    /// The size is a multiple of this, bytes.
    pub size_multiple: u64,
    /// Smallest and largest disk, bytes.
    pub size: (u64, u64),
    /// How its machines start.
    pub boot: BTreeSet<Boot>,
    /// Drivers without which a guest there does not find its disk.
    pub disk_drivers: BTreeSet<String>,
}

/// Who is given an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Receiver {
    /// An agent of a dedicated solution, or its cloud's image service.
    Agent,
    /// The gateway of a shared solution.
    Gateway,
}

/// The form in which the image goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// It is there: nothing goes.
    There {
        /// What the cloud calls it.
        cloud_id: String,
    },
    /// The stored bytes, unconverted: their format is one that the solution takes (claims 2, 14).
    AsStored,
    /// Converted from the stored form.
    Converted {
        /// Into this format.
        to: Arc<str>,
        /// Why not as it is kept.
        because: String,
    },
}

/// An image, its form, and who gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageChoice {
    /// The image.
    pub image: Digest,
    /// Its name.
    pub name: String,
    /// The deployment form's name.
    pub profile: Arc<str>,
    /// The form in which it goes.
    pub form: Form,
    /// Who is given it.
    pub receiver: Receiver,
    /// Size of the disk there, bytes.
    pub virtual_bytes: u64,
    /// What could not be seen on it, and may stand against it.
    pub unsure: Vec<Unfit>,
    /// Images that were not taken.
    pub passed_over: Vec<PassedOver>,
}

/// An image that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver {
    /// Which.
    pub image: Digest,
    /// Its name.
    pub name: String,
    /// Why not; empty when it would do, and another was better.
    pub because: Vec<Unfit>,
}

/// What stands against an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unfit {
    /// Another was named.
    NotNamed,
    /// It has not this tag.
    Tag(String),
    /// It has another operating system, or its own could not be seen.
    Os {
        /// Asked for.
        asked: Arc<str>,
        /// Found.
        has: Option<Arc<str>>,
    },
    /// It has another architecture, or its own could not be seen.
    Arch {
        /// Asked for.
        asked: Arc<str>,
        /// Found.
        has: Option<Arc<str>>,
    },
    /// Its disk is larger than the machine's, bytes.
    LargerThanAsked {
        /// Its own.
        has: u64,
        /// The machine's.
        asked: u64,
    },
    /// Its disk is outside of what the solution takes, bytes.
    Size {
        /// Its own, in the solution's steps.
        has: u64,
        /// Smallest.
        least: u64,
        /// Largest.
        most: u64,
    },
    /// Machines there start in other ways.
    Boot {
        /// It can.
        has: BTreeSet<Boot>,
        /// Machines there can.
        takes: BTreeSet<Boot>,
    },
    /// A driver is not there when the kernel looks for its disk.
    Driver(String),
    /// What its kernel has could not be seen.
    DriversUnseen,
    /// A partition is encrypted.
    Encrypted,
    /// A container is made of a root file system, and none could be read.
    NoRoot,
}

impl Unfit {
    /// Only what could not be seen: said, and no ground to refuse.
    fn is_doubt(&self) -> bool {
        matches!(self, Self::DriversUnseen | Self::Os { has: None, .. } | Self::Arch { has: None, .. })
    }
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let or_unseen = |has: &Option<Arc<str>>| has.clone().unwrap_or_else(|| "could not be seen".into());
        let ways = |ways: &BTreeSet<Boot>| {
            let word = |boot: &Boot| match boot {
                Boot::Bios => "BIOS",
                Boot::Uefi => "UEFI",
                Boot::Kernel => "a kernel beside the disk",
            };
            if ways.is_empty() { "nothing".to_owned() } else { ways.iter().map(word).collect::<Vec<_>>().join(" or ") }
        };
        match self {
            Self::NotNamed => write!(f, "another image was named"),
            Self::Tag(tag) => write!(f, "it is not tagged '{tag}'"),
            Self::Os { asked, has } => write!(f, "asked for {asked}; its system: {}", or_unseen(has)),
            Self::Arch { asked, has } => write!(f, "asked for {asked}; its architecture: {}", or_unseen(has)),
            Self::LargerThanAsked { has, asked } => {
                write!(f, "its disk has {has} bytes, the machine's is to have {asked}: ask for a larger disk")
            }
            Self::Size { has, least, most } => {
                write!(f, "its disk would have {has} bytes; the solution takes {least} to {most}")
            }
            Self::Boot { has, takes } => {
                write!(f, "it starts by {}; machines there start by {}", ways(has), ways(takes))
            }
            Self::Driver(name) => write!(f, "its kernel has no {name} when it looks for its disk"),
            Self::DriversUnseen => write!(f, "which drivers its kernel starts with could not be seen"),
            Self::Encrypted => write!(f, "a partition is encrypted: nobody is there to type its key"),
            Self::NoRoot => write!(f, "a container is made of a root file system, and none could be read on it"),
        }
    }
}

/// The image for a new machine; or, for each image, what stands against it.
pub fn choose(wants: &Wants, takes: &Takes, images: &[Image]) -> Result<ImageChoice, Vec<PassedOver>> {
    let named = wants.image.as_deref().map(|name| named(name, images));
    let mut fit: Vec<(&Image, Vec<Unfit>, Form)> = Vec::new();
    let mut passed_over = Vec::new();
    for image in images {
        let is_named = named.as_ref().is_none_or(|ids| ids.contains(&image.id));
        let against = if is_named { against(wants, takes, image) } else { vec![Unfit::NotNamed] };
        let (doubts, grounds): (Vec<_>, Vec<_>) = against.into_iter().partition(Unfit::is_doubt);
        if grounds.is_empty() {
            fit.push((image, doubts, form(takes, image)));
        } else {
            passed_over.push(PassedOver { image: image.id.clone(), name: image.name.clone(), because: grounds });
        }
    }
    // A doubt is worse than age: what is known to fit comes first.
    fit.sort_by_key(|(image, doubts, form)| (!doubts.is_empty(), Reverse(image.at), rank(form), image.id.clone()));
    let mut fit = fit.into_iter();
    let best = fit.next();
    passed_over.extend(fit.map(|(image, _, _)| PassedOver {
        image: image.id.clone(),
        name: image.name.clone(),
        because: Vec::new(),
    }));
    passed_over.sort_by(|a, b| a.image.cmp(&b.image));
    let Some((image, unsure, form)) = best else { return Err(passed_over) };
    Ok(ImageChoice {
        image: image.id.clone(),
        name: image.name.clone(),
        profile: Arc::clone(&takes.profile),
        form,
        receiver: takes.receiver,
        virtual_bytes: size_there(takes, image),
        unsure,
        passed_over,
    })
}

/// Ids that a name means: those of the name, else those that it is the beginning of.
fn named(name: &str, images: &[Image]) -> BTreeSet<Digest> {
    let of_name: BTreeSet<Digest> = images.iter().filter(|i| i.name == name).map(|i| i.id.clone()).collect();
    if !of_name.is_empty() || name.len() < 8 {
        return of_name;
    }
    images.iter().filter(|i| i.id.as_str().starts_with(name)).map(|i| i.id.clone()).collect()
}

fn rank(form: &Form) -> u8 {
    match form {
        Form::There { .. } => 0,
        Form::AsStored => 1,
        Form::Converted { .. } => 2,
    }
}

fn is_container(takes: &Takes) -> bool {
    takes.receiver == Receiver::Gateway
}

fn size_there(takes: &Takes, image: &Image) -> u64 {
    image.virtual_bytes.checked_next_multiple_of(takes.size_multiple.max(1)).unwrap_or(u64::MAX)
}

fn form(takes: &Takes, image: &Image) -> Form {
    let there = image.deployed.iter().rev().find(|d| d.solution == takes.solution && d.profile == takes.profile);
    if let Some(there) = there {
        return Form::There { cloud_id: there.cloud_id.clone() };
    }
    let takes_raw = &*takes.format == STORED || takes.also.contains(STORED);
    let size = size_there(takes, image);
    if takes_raw && size == image.virtual_bytes {
        return Form::AsStored;
    }
    let because = if takes_raw {
        format!("its disk of {} bytes is made {size} bytes long", image.virtual_bytes)
    } else {
        format!("{} takes {}, images are kept {STORED}", takes.profile, takes.format)
    };
    Form::Converted { to: Arc::clone(&takes.format), because }
}

/// Everything that stands against an image there.
fn against(wants: &Wants, takes: &Takes, image: &Image) -> Vec<Unfit> {
    let (offers, mut found) = (&image.offers, Vec::new());
    found.extend(wants.tags.difference(&image.tags).cloned().map(Unfit::Tag));
    let differs = |asked: &Option<Arc<str>>, has: &Option<Arc<str>>| asked.clone().filter(|a| has.as_ref() != Some(a));
    if let Some(asked) = differs(&wants.os, &offers.os) {
        found.push(Unfit::Os { asked, has: offers.os.clone() });
    }
    if let Some(asked) = differs(&wants.arch, &offers.arch) {
        found.push(Unfit::Arch { asked, has: offers.arch.clone() });
    }
    if let Some(asked) = wants.disk_bytes.filter(|asked| image.virtual_bytes > *asked) {
        found.push(Unfit::LargerThanAsked { has: image.virtual_bytes, asked });
    }
    if offers.encrypted {
        found.push(Unfit::Encrypted);
    }
    if is_container(takes) {
        found.extend((!offers.root_readable).then_some(Unfit::NoRoot));
    } else {
        as_machine(takes, image, &mut found);
    }
    found
}

/// What a machine needs of a disk, and a container does not.
fn as_machine(takes: &Takes, image: &Image, found: &mut Vec<Unfit>) {
    let (has, (least, most)) = (size_there(takes, image), takes.size);
    if has < least || has > most {
        found.push(Unfit::Size { has, least, most });
    }
    let offers = &image.offers;
    if !takes.boot.contains(&Boot::Kernel) && takes.boot.is_disjoint(&offers.boot) {
        found.push(Unfit::Boot { has: offers.boot.clone(), takes: takes.boot.clone() });
    }
    match &offers.early_drivers {
        None if takes.disk_drivers.is_empty() => {}
        None => found.push(Unfit::DriversUnseen),
        Some(early) => found.extend(takes.disk_drivers.difference(early).cloned().map(Unfit::Driver)),
    }
}

/// How a machine becomes an image (claims 5, 15; 6, 16 where its form is converted).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capture {
    /// Its agent reads the disk and sends the chunks that the store lacks: raw is the stored form, nothing is converted.
    ByAgent {
        /// The image that it started from, whose chunks are there already.
        parent: Option<Digest>,
    },
    /// Its cloud exports the disk, and that is converted into the stored form.
    ByCloud {
        /// In this format.
        native: Arc<str>,
        /// What the cloud calls the machine.
        cloud_id: String,
        /// Why not by its agent.
        because: String,
        /// The image that it started from.
        parent: Option<Digest>,
    },
}

/// What stands against capturing a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoCapture {
    /// No agent answers there, and its cloud exports nothing (or there is none).
    NoWay,
    /// It is not there any more, or not yet.
    NotThere(InstanceState),
}

impl std::fmt::Display for NoCapture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoWay => {
                write!(f, "its agent does not answer, and its cloud exports no disks: start the agent there")
            }
            Self::NotThere(state) => write!(f, "it is {state:?}: wait until it is ready, or take one that is"),
        }
    }
}

/// How to capture a machine. The agent's way is taken where there is an agent: it sends only what is new, and what is
/// converted twice has two chances to be wrong. `exports`: the format in which the cloud gives disks away.
pub fn capture(instance: &Instance, live: Live, exports: Option<&str>, images: &[Image]) -> Result<Capture, NoCapture> {
    let parent = instance.facts.image.as_deref().and_then(|name| {
        let named = named(name, images);
        images.iter().filter(|image| named.contains(&image.id)).max_by_key(|image| (image.at, image.id.clone()))
    });
    let parent = parent.map(|image| image.id.clone());
    if !matches!(instance.state, InstanceState::Ready | InstanceState::Draining) {
        return Err(NoCapture::NotThere(instance.state));
    }
    if live.connected {
        return Ok(Capture::ByAgent { parent });
    }
    let cloud_id = instance.machine.as_ref().and_then(|machine| machine.cloud_id.clone());
    match (exports, cloud_id) {
        (Some(native), Some(cloud_id)) => {
            let because = "its agent does not answer".to_owned();
            Ok(Capture::ByCloud { native: native.into(), cloud_id, because, parent })
        }
        _ => Err(NoCapture::NoWay),
    }
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
