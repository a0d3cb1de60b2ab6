//! Tests with real processes: spawner, agent against a fake engine, function host with real runners.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "tests")]

mod agent;
mod engine;
mod spawner;
mod support;
