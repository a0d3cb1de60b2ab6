//! Scaling elements in nine clouds' forms: round trips, documents word for word, and Amazon's judged by third parties.
#![allow(clippy::unwrap_used, reason = "tests")]

mod documents;
mod generate;
mod moto;
mod rounds;
