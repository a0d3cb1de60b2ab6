//! Would this image start there? Said before anything is uploaded, with what to do about it.

use serde::Serialize;

use crate::Profile;
use crate::inspect::Facts;

/// Drivers that find a disk: without one the kernel starts and finds no root file system.
pub(crate) const OF_DISKS: [&str; 6] = ["nvme", "hv_storvsc", "virtio_blk", "virtio_scsi", "vmw_pvscsi", "ahci"];

/// How sure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// It would not start, or not be taken.
    Refused,
    /// It may not work as expected.
    Warning,
    /// It could not be looked into.
    Unknown,
}

/// One thing that stands against it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How sure.
    pub level: Level,
    /// What and why.
    pub what: String,
    /// What to do about it.
    pub next_step: String,
}

/// Everything that stands against an image of `virtual_bytes` with these facts; the worst first.
pub fn fits(facts: &Facts, virtual_bytes: u64, profile: &Profile) -> Vec<Finding> {
    let mut found = Findings(Vec::new());
    found.size(virtual_bytes, profile);
    found.start(facts, profile);
    found.system(facts, profile);
    for unknown in &facts.unknown {
        found.add(Level::Unknown, unknown.clone(), "look into it with the system's own tools");
    }
    found.0.sort_by_key(|finding| finding.level);
    found.0
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, level: Level, what: impl Into<String>, next_step: &str) {
        self.0.push(Finding { level, what: what.into(), next_step: next_step.to_owned() });
    }

    fn size(&mut self, bytes: u64, profile: &Profile) {
        let (least, most) = (profile.size_min_bytes, profile.size_max_bytes);
        if bytes > most {
            let what = format!("the disk has {bytes} bytes, it takes at most {most}");
            self.add(Level::Refused, what, "shrink the file systems, the partitions and then the disk");
        }
        if bytes < least {
            let what = format!("the disk has {bytes} bytes, it takes {least} or more");
            self.add(Level::Refused, what, "make the disk larger; partitions may stay as they are");
        }
    }

    fn start(&mut self, facts: &Facts, profile: &Profile) {
        let offers = |way: &str| profile.boot.iter().any(|boot| boot == way);
        let starts = offers("kernel") || offers("bios") && facts.bios || offers("uefi") && facts.uefi;
        if !starts {
            let has = match (facts.bios, facts.uefi) {
                (true, false) => "boot code for BIOS only",
                (false, true) => "an EFI system partition only",
                _ => "neither boot code for BIOS nor an EFI system partition",
            };
            let what = format!("it has {has}; machines there start by {}", profile.boot.join(" or "));
            self.add(Level::Refused, what, "install a boot loader for that firmware in the image");
        }
        if facts.encrypted {
            let next = "put the root file system on a plain partition; the cloud encrypts disks itself";
            self.add(Level::Refused, "a partition is encrypted (LUKS): nobody is there to type its key", next);
        }
    }

    fn system(&mut self, facts: &Facts, profile: &Profile) {
        let Some(system) = &facts.system else {
            let next = "see that it has the drivers and names its disks by UUID";
            return self.add(Level::Unknown, "no system could be read on it", next);
        };
        let disks = |name: &&String| OF_DISKS.contains(&name.as_str());
        for driver in profile.drivers.iter().filter(disks) {
            match &system.early_drivers {
                Some(early) if early.contains(driver) => {}
                Some(_) if system.drivers.contains(driver) => {
                    let what = format!(
                        "the driver {driver} is installed, but not in the initial RAM disk: the kernel would not find its disk"
                    );
                    self.add(Level::Refused, what, "add it there (update-initramfs, dracut --add-drivers)");
                }
                Some(_) => {
                    let what = format!("the driver {driver} is missing: the kernel would not find its disk");
                    self.add(Level::Refused, what, "install a kernel that has it");
                }
                None => {
                    let what = format!("whether the initial RAM disk has {driver} cannot be seen");
                    self.add(Level::Unknown, what, "list it with lsinitramfs or lsinitrd");
                }
            }
        }
        for driver in profile.drivers.iter().filter(|d| !disks(d)).filter(|d| !system.drivers.contains(*d)) {
            let what = format!("the driver {driver} is missing: it would start without a network");
            self.add(Level::Warning, what, "install a kernel that has it");
        }
        for device in &system.fragile_mounts {
            let what = format!("fstab names {device}: it has another name there");
            self.add(Level::Refused, what, "name it by UUID= or LABEL=");
        }
        if !system.cloud_init && profile.upload != "file" {
            let what = "cloud-init is not installed: keys and names that the cloud gives are not taken";
            self.add(Level::Warning, what, "install it, or put what it would set up into the image");
        }
    }
}
