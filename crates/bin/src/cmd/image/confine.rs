//! Commands that read a foreign image give up the right to open files first (decision 12). The parsers are not
//! expected to try; a hole in one of them would.

use std::path::Path;

/// From here on only temporary files and what is beneath `folders` can be opened. On a kernel that cannot see to it, all
/// goes on without.
pub(super) fn confine(folders: &[&Path]) -> anyhow::Result<()> {
    let temporary = std::env::temp_dir();
    let mut allowed = vec![temporary.as_path()];
    allowed.extend(folders);
    skein_image::confine(&allowed)?;
    Ok(())
}

/// The folder in which a file is made.
pub(super) fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
