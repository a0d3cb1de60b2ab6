//! Disk images of virtual machines: what a file is, what is on its disk, and the same disk in another format.
//!
//! ```text
//! Bytes (a file, memory) --detect--> Format --open--> Disk (size, where data is, positioned reads)
//!                                                       |
//!                                      blocks, zero runs left out, several threads
//!                                                       v
//!                              a writer (raw, qcow2, VMDK, VHD, VHDX, VDI, tar.gz) --> Out
//! ```
//! What is foreign is never trusted: a name says nothing about a format; nothing that an image names is opened
//! (backing files, extents, data files are refused); each table, size and ratio has a limit in [`Budget`], read
//! before anything is allocated for it. The same input and options give the same bytes: times and identifiers
//! derive from the content.

mod blocks;
pub mod budget;
pub mod bytes;
mod confine;
pub mod container;
pub mod convert;
pub mod detect;
pub mod digest;
pub mod disk;
pub mod error;
pub mod fits;
pub mod format;
mod gpt;
pub mod inspect;
pub mod out;
pub mod profile;
pub mod source;
pub mod store;
pub mod wrapper;

pub use budget::Budget;
pub use bytes::Bytes;
pub use confine::{Confined, confine};
pub use convert::{Options, Progress, Report, convert};
pub use detect::{Format, detect};
pub use disk::{Disk, Extent, Kind};
pub use error::{Error, Result};
pub use out::Out;
pub use profile::Profile;
pub use wrapper::{Wrapper, detect_wrapper, unwrap_to};
