//! A virtual appliance: a tar of a description (OVF 1.0), a manifest of digests, and a streamOptimized VMDK, in this
//! order: whoever imports a stream wants to know first what comes.

mod ovf;
mod read;
mod write;

pub use ovf::{Appliance, DiskFacts, Firmware, ManifestDigest, ovf};
pub(super) use read::open;
pub(super) use write::write;
pub use write::write_appliance;

/// Digest of a part of an image, as hexadecimal digits.
fn digest(bytes: &dyn crate::Bytes, at: u64, len: u64, how: ManifestDigest) -> crate::Result<String> {
    let algorithm = match how {
        ManifestDigest::Sha256 => &ring::digest::SHA256,
        ManifestDigest::Sha1 => &ring::digest::SHA1_FOR_LEGACY_USE_ONLY,
    };
    let (mut context, mut done, mut buffer) = (ring::digest::Context::new(algorithm), 0, vec![0; 1 << 18]);
    while done < len {
        let part = usize::try_from(len - done).unwrap_or(usize::MAX).min(buffer.len());
        bytes.read_at(at + done, &mut buffer[..part])?;
        context.update(&buffer[..part]);
        done += part as u64;
    }
    Ok(context.finish().as_ref().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")))
}
