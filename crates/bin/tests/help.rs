//! What `--help` says, word for word. After a change on purpose: `INSTA_UPDATE=always cargo test -p skein --test help`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::Home;

fn help(args: &[&str]) -> String {
    Home::new().skein(args).ok().out
}

#[test]
fn main_help() {
    insta::assert_snapshot!(help(&["--help"]));
}

#[test]
fn run_help() {
    insta::assert_snapshot!(help(&["run", "--help"]));
}

#[test]
fn demo_help() {
    insta::assert_snapshot!(help(&["demo", "--help"]));
}

#[test]
fn up_help() {
    insta::assert_snapshot!(help(&["up", "--help"]));
}

#[test]
fn agent_help() {
    insta::assert_snapshot!(help(&["agent", "--help"]));
}

#[test]
fn functions_help() {
    insta::assert_snapshot!(help(&["functions", "--help"]));
}

#[test]
fn session_help() {
    insta::assert_snapshot!(help(&["session", "--help"]));
}

#[test]
fn scaling_help() {
    let of = |args: &[&str]| help(&[&["scaling"], args, &["--help"]].concat());
    insta::assert_snapshot!([of(&[]), of(&["check"]), of(&["port"]), of(&["adopt"]), of(&["clouds"])].join("----\n"));
}

#[test]
fn a_shell_can_complete() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(help(&["completions", shell]).contains("skein"));
    }
}

#[test]
fn the_documents_for_programs_are_json() {
    for args in [["openapi"].as_slice(), &["config", "schema"]] {
        let value: serde_json::Value = serde_json::from_str(&help(args)).unwrap();
        assert!(value.is_object());
    }
    assert_eq!(help(&["--version"]), format!("skein {}\n", env!("CARGO_PKG_VERSION")));
}
