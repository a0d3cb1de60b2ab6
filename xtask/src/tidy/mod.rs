//! What no compiler checks. Every check says what is wrong, where, and what to do; all run before the
//! first complaint ends it.

mod glossary;
mod leaks;
mod length;
mod names;
mod packages;
mod purity;

use anyhow::{Result, bail};

use crate::repo;

/// What a check found wrong.
type Complaints = Vec<String>;

/// Runs every check.
pub(crate) fn run() -> Result<()> {
    let files = repo::text_files()?;
    let metadata = packages::Metadata::read()?;
    let checks: [(&str, Complaints); 8] = [
        ("crate arrows", metadata.arrows()),
        ("dependencies of the domain", metadata.domain_tree()),
        ("banned crates", metadata.banned()),
        ("licences and sources", metadata.licences_and_sources()),
        ("purity of the domain", purity::check(&files)),
        ("words of the glossary", glossary::check(&files)?),
        ("lengths", length::check(&files)),
        ("paths and hosts", leaks::check(&files)),
    ];
    let mut wrong = 0;
    for (name, complaints) in &checks {
        for complaint in complaints {
            eprintln!("{name}: {complaint}");
        }
        wrong += complaints.len();
    }
    if wrong > 0 {
        bail!("tidy: {wrong} complaints");
    }
    println!("tidy: {} checks over {} files and {} packages", checks.len(), files.len(), metadata.count());
    Ok(())
}
