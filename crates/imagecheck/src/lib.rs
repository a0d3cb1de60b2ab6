//! Judges a disk image by the written rules of the cloud it is for. It reads the bytes itself and shares no code with
//! what writes images: a mistake of the writer is not made here again. What others write (`qemu-img`, GNU tar) is
//! judged by the same rules.
//!
//! Every rule has a name, a sentence and the page it is from: [`rules::RULES`].

mod gce;
mod gpt;
mod input;
mod ova;
mod qcow2;
mod raw;
pub mod rules;
mod tar;
mod vdi;
mod vhd;
mod vhdx;
mod vmdk;

use std::fs::File;

use anyhow::{Result, bail};

use input::Input;
use rules::Rule;

const GIB: u64 = 1 << 30;

/// A rule that an image breaks.
#[derive(Debug, Clone)]
pub struct Broken {
    /// Which.
    pub rule: &'static Rule,
    /// What was found instead.
    pub why: String,
}

/// What was found so far.
#[derive(Debug, Default)]
struct Findings(Vec<Broken>);

impl Findings {
    /// The rule of this name is broken. Said once: what follows from it is no news.
    fn broken(&mut self, name: &str, why: impl Into<String>) {
        let Some(rule) = rules::named(name) else { return self.broken("rule.known", name) };
        if self.0.iter().all(|known| known.rule.name != name) {
            self.0.push(Broken { rule, why: why.into() });
        }
    }
    /// Broken unless `holds`.
    fn expect(&mut self, name: &str, holds: bool, why: impl FnOnce() -> String) {
        if !holds {
            self.broken(name, why());
        }
    }
    /// What cannot be read breaks the rule that says it is there.
    fn readable<T>(&mut self, name: &str, read: Result<T>) -> Option<T> {
        read.map_err(|error| self.broken(name, format!("{error:#}"))).ok()
    }
}

/// Clouds and hypervisors whose rules are known.
pub const CLOUDS: [&str; 17] = [
    "alibaba",
    "aws",
    "aws-import",
    "azure",
    "cloud-hypervisor",
    "firecracker",
    "google",
    "hyperv",
    "ibm",
    "kvm",
    "lumen",
    "openstack",
    "oracle",
    "proxmox",
    "samsung",
    "virtualbox",
    "vmware",
];

/// Every rule of `cloud` that the image breaks; none when it conforms.
///
/// # Errors
/// The cloud is unknown, or the file cannot be read.
pub fn check(cloud: &str, file: &File) -> Result<Vec<Broken>> {
    let (input, mut found) = (Input::new(file)?, Findings::default());
    match cloud {
        "azure" => vhd::check(&input, &mut found),
        "hyperv" => vhdx::check(&input, &mut found),
        "google" => gce::check(&input, &mut found),
        "aws" => raw::check_blocks(&input, &mut found),
        "firecracker" | "cloud-hypervisor" => raw::check(&input, &mut found),
        "aws-import" => vmdk::check(&input, &mut found),
        "vmware" => ova::check(&input, &ova::VMWARE, &mut found),
        "lumen" => ova::check(&input, &ova::LUMEN, &mut found),
        "virtualbox" => vdi::check(&input, &mut found),
        "oracle" => qcow2::check(&input, Some((0, 400 * GIB)), &mut found),
        "ibm" => qcow2::check(&input, Some((10 * GIB, 250 * GIB)), &mut found),
        "alibaba" | "kvm" | "openstack" | "proxmox" | "samsung" => qcow2::check(&input, None, &mut found),
        other => bail!("no rules of a cloud '{other}' are known (known are: {})", CLOUDS.join(", ")),
    }
    Ok(found.0)
}
