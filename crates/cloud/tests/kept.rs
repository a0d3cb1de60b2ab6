//! What is uploaded as it is kept is not looked at: no reader or writer of a format is in the way.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use skein_cloud::transport::{AsKept, Source as _};
use skein_image::out::Pieces;
use skein_image::{Bytes, Format, Result};

/// Says that the middle is a hole.
struct Holed(Vec<u8>);

impl Bytes for Holed {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        Bytes::read_at(&self.0, offset, buffer)
    }
    fn hole_at(&self, offset: u64) -> Result<(bool, u64)> {
        Ok(match offset {
            0..1_500_000 => (false, 1_500_000 - offset),
            1_500_000..4_000_000 => (true, 4_000_000 - offset),
            _ => (false, self.len() - offset),
        })
    }
}

#[derive(Default)]
struct Taken {
    bytes: Vec<u8>,
    given: usize,
}

impl Pieces for Taken {
    fn piece(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.bytes.resize(usize::try_from(offset).unwrap(), 0);
        self.bytes.extend_from_slice(bytes);
        self.given += bytes.len();
        Ok(())
    }
    fn finish(&mut self, len: u64) -> Result<()> {
        self.bytes.resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }
}

#[test]
fn bytes_that_no_reader_would_take_go_as_they_are_and_holes_do_not() {
    let mut bytes: Vec<u8> = (0..5_000_000_u32).map(|n| n.to_le_bytes()[1] ^ 0x5a).collect();
    bytes[1_500_000..4_000_000].fill(0);
    let source = AsKept::new("id", Arc::new(Holed(bytes.clone())), Format::Qcow2);
    let mut taken = Taken::default();
    source.write(&mut taken, &()).unwrap();
    assert!(taken.bytes == bytes && taken.given == 2_500_000);
    assert_eq!((source.len_known(), source.format()), (Some(5_000_000), Format::Qcow2));
    let other = AsKept::new("other", Arc::new(Holed(bytes)), Format::Qcow2);
    assert_ne!(source.content(), other.content());
}
