//! The HTTP API `/api/v1`: request and response types, documents, and the client that the CLI uses.

pub mod client;
pub mod document;
pub mod images;
pub mod planned;
pub mod types;

pub use client::{ApiError, Client};
pub use images::*;
pub use planned::*;
pub use types::*;
