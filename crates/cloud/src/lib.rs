//! Clouds: signed requests, faults and retries, and uploads of images.
//!
//! ```text
//! disk --skein-image--> pieces --cut--> parts --transport--> signer --> HTTP --> a cloud's service
//!                                                ^               (classes of faults, backoff)
//!                               what it has already, asked of the service
//! ```
//! Every endpoint, credential and certificate comes from the caller's configuration; nothing else is contacted.
//! Clock and randomness come in with [`Surroundings`].

#![warn(missing_docs)]

mod error;
mod http;
mod objects;
mod retry;
pub mod scaling;
mod secret;
pub mod sign;
pub mod transport;
mod xml;

pub use error::{Class, Error, Fault, Result};
pub use http::{Endpoint, Surroundings};
pub use objects::Objects;
pub use retry::Retry;
pub use secret::Secret;
