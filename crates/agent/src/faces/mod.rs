//! The runner's faces: how the outside calls it.

pub(crate) mod http;
