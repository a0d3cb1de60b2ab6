//! Tests with real processes: spawner, agent against a fake engine, function host with real runners.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, unreachable_pub, reason = "tests")]

mod agent;
mod container;
mod engine;
mod host;
mod spawner;
mod support;
mod tls;
