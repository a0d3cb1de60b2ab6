//! A wall around the readers, for the day on which one of them has a hole. They open nothing already (a [`crate::Bytes`]
//! cannot); after this the kernel sees to it, with Landlock: no file can be opened, whatever an image makes of us.

use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus,
};

use crate::{Error, Result};

/// What the kernel did about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confined {
    /// Nothing can be opened.
    Fully,
    /// It is an older kernel: some kinds of access are not seen to.
    Partly,
    /// It has no Landlock (Linux before 5.13, or switched off).
    Not,
}

/// What the standard library reads to find out how many threads are worth it.
const ABOUT_CPUS: [&str; 3] = ["/proc/self/cgroup", "/proc/self/mountinfo", "/sys/fs/cgroup"];

/// From now on the calling thread, and those that it starts, open and make no file but beneath `folders`; what is open
/// stays so. Nothing undoes it. Removing stays allowed: temporary files go.
///
/// # Errors
/// The kernel has Landlock and refuses; a kernel without it is no error, [`Confined`] says so.
pub fn confine(folders: &[&Path]) -> Result<Confined> {
    let failed = |error: landlock::RulesetError| {
        Error::io("confining the process (Landlock)")(std::io::Error::other(error.to_string()))
    };
    // Version 3 (Linux 6.2) knows of everything here; what an older kernel does not know is left out.
    let all = AccessFs::from_all(ABI::V3);
    let handled: BitFlags<AccessFs> = all & !(AccessFs::RemoveDir | AccessFs::RemoveFile);
    let made = Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(handled);
    let mut rules = made.and_then(Ruleset::create).map_err(failed)?;
    let open = |path: &Path| PathFd::new(path).ok();
    for folder in folders.iter().filter_map(|folder| open(folder)) {
        rules = rules.add_rule(PathBeneath::new(folder, handled)).map_err(failed)?;
    }
    for path in ABOUT_CPUS.iter().filter_map(|path| open(Path::new(path))) {
        rules = rules.add_rule(PathBeneath::new(path, AccessFs::ReadFile)).map_err(failed)?;
    }
    Ok(match rules.restrict_self().map_err(failed)?.ruleset {
        RulesetStatus::FullyEnforced => Confined::Fully,
        RulesetStatus::PartiallyEnforced => Confined::Partly,
        RulesetStatus::NotEnforced => Confined::Not,
    })
}
