//! The writer. The disk's length stands before the disk: it is spooled to a file without a name.

use std::fs::File;

use super::ovf::{Appliance, DiskFacts, Firmware, ManifestDigest, ovf};
use crate::bytes::FileBytes;
use crate::convert::{Options, Progress, Report};
use crate::format::{gce, vmdk};
use crate::inspect::partitions::{self, Purpose, Table};
use crate::{Bytes, Disk, Error, Out, Result};

pub(in crate::format) fn write(
    disk: &dyn Disk,
    out: &mut Out<'_>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Report> {
    let spool = tempfile::tempfile().map_err(Error::io("making a temporary file for the appliance's disk"))?;
    let appliance = Appliance { firmware: firmware(disk), manifest: options.manifest, ..Appliance::default() };
    write_appliance(disk, out, options, &appliance, &spool, progress)
}

/// What the disk can be started by; BIOS where both can, or nothing can be seen.
fn firmware(disk: &dyn Disk) -> Firmware {
    let only_efi = |table: Table| !table.boot_code && table.partitions.iter().any(|p| p.purpose == Purpose::EfiSystem);
    if partitions::read(disk).is_ok_and(only_efi) { Firmware::Efi } else { Firmware::Bios }
}

/// An appliance with a machine that the caller describes. `spool` is an empty file that takes the compressed disk.
pub fn write_appliance(
    disk: &dyn Disk,
    out: &mut Out<'_>,
    options: &Options,
    appliance: &Appliance,
    spool: &File,
    progress: &dyn Progress,
) -> Result<Report> {
    appliance.check()?;
    let vmdk = vmdk::write(disk, &mut Out::File(spool), options, progress)?;
    let spooled = spool.try_clone().map_err(Error::io("reading the spooled disk"))?;
    let spooled = FileBytes::new(spooled)?;
    let facts = DiskFacts {
        file: appliance.disk_name(),
        file_bytes: vmdk.bytes,
        virtual_bytes: vmdk.virtual_bytes,
        data_bytes: vmdk.data_bytes,
    };
    let description = ovf(appliance, &facts)?.into_bytes();
    let word = match appliance.manifest {
        ManifestDigest::Sha256 => "SHA256",
        ManifestDigest::Sha1 => "SHA1",
    };
    let (ovf_name, mf_name) = (format!("{}.ovf", appliance.name), format!("{}.mf", appliance.name));
    let of_ovf = super::digest(&description, 0, description.len() as u64, appliance.manifest)?;
    let of_disk = super::digest(&spooled, 0, facts.file_bytes, appliance.manifest)?;
    let manifest = format!("{word}({ovf_name})= {of_ovf}\n{word}({})= {of_disk}\n", facts.file).into_bytes();

    let mut tar = Tar { out, at: 0 };
    tar.member(&ovf_name, &description)?;
    tar.member(&mf_name, &manifest)?;
    tar.member(&facts.file, &spooled)?;
    let bytes = tar.at + 1024;
    tar.out.finish(bytes)?;
    Ok(Report { bytes, ..vmdk })
}

struct Tar<'a, 'b> {
    out: &'a mut Out<'b>,
    at: u64,
}

impl Tar<'_, '_> {
    fn member(&mut self, name: &str, content: &dyn Bytes) -> Result<()> {
        let header = gce::plain_header(name, content.len())?;
        self.out.write_at(self.at, &header)?;
        self.at += header.len() as u64;
        let (mut done, mut buffer) = (0, vec![0; 1 << 18]);
        while done < content.len() {
            let part = usize::try_from(content.len() - done).unwrap_or(usize::MAX).min(buffer.len());
            content.read_at(done, &mut buffer[..part])?;
            self.out.write_at(self.at + done, &buffer[..part])?;
            done += part as u64;
        }
        self.at += content.len().next_multiple_of(512);
        Ok(())
    }
}
