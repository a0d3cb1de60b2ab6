//! `cargo xtask sim traces`: every scenario whose trace is there, under every rule, beside the figures of the
//! reference; then scenarios from seeds.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "that is what it is for")]

fn main() -> std::process::ExitCode {
    println!("todo");
    std::process::ExitCode::SUCCESS
}
