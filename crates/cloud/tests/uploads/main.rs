//! One suite for every transport, in front of third parties' emulators, through a proxy that makes faults.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "tests")]

mod azure;
mod ebs;
mod folder;
mod gcs;
mod glance;
mod objects;
mod s3;
mod suite;
mod support;
mod tls;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is started, and killed, by the other tests"]
async fn the_process_that_is_killed() {
    support::child::obey().await;
}
