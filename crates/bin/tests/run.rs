//! `skein run` without an engine: a private one starts, does the work and leaves nothing behind.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::process::Stdio;
use std::time::Duration;

use support::{Home, finish, signal};

#[test]
fn true_is_true_and_nothing_is_left() {
    let home = Home::new();
    let said = home.skein(&["run", "--", "/bin/true"]).ok();
    assert_eq!((said.out.as_str(), said.err.as_str()), ("", ""));
    home.assert_clean();
}

#[test]
fn output_and_status_are_the_commands_own() {
    let home = Home::new();
    let said = home.skein(&["run", "--", "sh", "-c", "echo hi; echo to err >&2; exit 7"]);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (7, "hi\n", "to err\n"));
    let said = home.skein(&["run", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(said.code, 137);
    assert!(said.err.contains("ended by signal 9"), "{}", said.err);
}

#[test]
fn an_array_has_an_index_each() {
    let home = Home::new();
    let said = home.skein(&["run", "--array", "3", "--", "sh", "-c", "echo $SKEIN_INDEX and {index}"]).ok();
    assert_eq!(said.sorted_lines(), ["sh[0] | 0 and 0", "sh[1] | 1 and 1", "sh[2] | 2 and 2"]);
}

const TOML: &str = r#"
[tasks.make]
command = ["sh", "-c", "cat in.txt > number.txt"]
inputs = [{ path = "in.txt", file = "given.txt" }]
outputs = ["number.txt"]

[tasks.use]
command = ["sh", "-c", "echo got $(cat number.txt)"]
after = ["make"]
inputs = [{ path = "number.txt", from = "make", output = "number.txt" }]
"#;
const YAML: &str = r#"
tasks:
  make:
    command: [sh, -c, "cat in.txt > number.txt"]
    inputs: [{path: in.txt, file: given.txt}]
    outputs: [number.txt]
  use:
    command: [sh, -c, "echo got $(cat number.txt)"]
    after: [make]
    inputs: [{path: number.txt, from: make, output: number.txt}]
"#;
const JSON: &str = r#"{"tasks": {
  "make": {"command": ["sh", "-c", "cat in.txt > number.txt"], "outputs": ["number.txt"],
           "inputs": [{"path": "in.txt", "file": "given.txt"}]},
  "use": {"command": ["sh", "-c", "echo got $(cat number.txt)"], "after": ["make"],
          "inputs": [{"path": "number.txt", "from": "make", "output": "number.txt"}]}}}"#;

#[test]
fn a_thread_passes_a_file_whatever_its_form() {
    let home = Home::new();
    home.write("given.txt", "42\n");
    for (name, text) in [("t.toml", TOML), ("t.yaml", YAML), ("t.json", JSON)] {
        home.write(name, text);
        let said = home.skein(&["run", name, "--download", "got"]).ok();
        assert_eq!(said.out, "use | got 42\n", "{name}");
        assert_eq!(home.read("got/make/number.txt"), "42\n");
    }
    home.assert_clean();
}

#[test]
fn a_private_engine_brings_files_although_nobody_said_where() {
    let home = Home::new();
    home.write("given.txt", "1\n");
    home.write("t.toml", TOML);
    for folder in ["skein-results", "skein-results-2"] {
        let said = home.skein(&["run", "t.toml"]).ok();
        assert!(said.err.contains(&format!("1 file in {folder}")), "{}", said.err);
        assert_eq!(home.read(&format!("{folder}/make/number.txt")), "1\n");
    }
}

#[test]
fn a_failure_skips_what_needs_success_and_runs_what_awaits_failure() {
    let home = Home::new();
    home.write(
        "t.toml",
        r#"
        [tasks.bad]
        command = ["sh", "-c", "exit 3"]
        [tasks.never]
        command = ["echo", "never"]
        after = ["bad"]
        [tasks.rescue]
        command = ["echo", "rescued"]
        after = [{ task = "bad", when = "failure" }]
        [tasks.always]
        command = ["echo", "always"]
        after = [{ task = "bad", when = "end" }]
        "#,
    );
    let said = home.skein(&["run", "t.toml"]);
    assert_eq!(said.code, 1);
    assert_eq!(said.sorted_lines(), ["always | always", "rescue | rescued"]);
    assert!(said.err.contains("bad on agent-1, try 1: failed with exit status 3"), "{}", said.err);
    assert!(said.err.contains("4/4, 1 failed, 1 cancelled"), "{}", said.err);
}

#[test]
fn files_go_in_and_come_out() {
    let home = Home::new();
    home.write("in.txt", "in\n");
    let script = "cat in.txt d/other > out-1.txt";
    let args =
        ["run", "--input", "in.txt", "--input", "d/other=in.txt", "--output", "out-*.txt", "--", "sh", "-c", script];
    home.skein(&args).ok();
    assert_eq!(home.read("out-1.txt"), "in\nin\n");
}

#[test]
fn what_cannot_be_done_says_what_to_do() {
    let home = Home::new();
    home.write(
        "cycle.toml",
        "[tasks.a]\ncommand = [\"a\"]\nafter = [\"b\"]\n[tasks.b]\ncommand = [\"b\"]\nafter = [\"a\"]\n",
    );
    home.write("missing.toml", "name = \"m\"\ncommand = [\"a\"]\ninputs = [{path = \"x\", file = \"not-there\"}]\n");
    home.write("colour.toml", "name = \"m\"\ncommand = [\"a\"]\ncolour = 1\n");
    home.write("bad.toml", "name = ");
    for (args, code, part) in [
        (["run", "echo", "hi"].as_slice(), 2, "skein run -- echo hi"),
        (&["run"], 2, "required"),
        (&["run", "--cpu", "101", "--", "true"], 1, "cpu = 101"),
        (&["run", "--detach", "--", "true"], 2, "skein up"),
        (&["run", "--mode", "fast", "--", "true"], 2, "hybrid"),
        (&["run", "cycle.toml"], 1, "circle"),
        (&["run", "missing.toml"], 1, "not-there"),
        (&["run", "colour.toml"], 1, "unknown field `colour`"),
        (&["run", "bad.toml"], 1, "line 1"),
        (&["run", "--set", "a", "cycle.toml"], 2, "TASK.PARAMETER=VALUE"),
        (&["session", "list"], 1, "skein up"),
    ] {
        let said = home.skein(args);
        assert_eq!(said.code, code, "{args:?}: {}", said.err);
        assert!(said.err.contains(part), "{args:?}: '{part}' in {}", said.err);
        assert!(!said.err.contains("panicked"), "{}", said.err);
    }
    home.assert_clean();
}

#[test]
fn ctrl_c_stops_everything() {
    let home = Home::new();
    let mut command = home.command(&["run", "--", "sh", "-c", "echo started; sleep 300"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut first = [0; 7];
    std::io::Read::read_exact(&mut out, &mut first).unwrap();
    assert_eq!(&first, b"started");
    signal(&child, "INT");
    let said = finish(child, "run", Duration::from_secs(30));
    assert_eq!(said.code, 130, "{}", said.err);
    assert!(said.err.contains("stopping session"), "{}", said.err);
    home.assert_clean();
}

#[test]
fn a_killed_command_leaves_no_process() {
    let home = Home::new();
    let mut command = home.command(&["run", "--", "sh", "-c", "echo started; sleep 300"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut first = [0; 7];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let marker = home.dir.path().display().to_string();
    support::until("its agent to end", || !support::command_lines().iter().any(|line| line.contains(&marker)));
}

#[test]
fn bytes_that_are_no_text_come_through_unchanged() {
    let home = Home::new();
    let script = "head -c 100000 /dev/zero | tr '\\0' '\\377'; printf 'end'";
    let output = home.command(&["run", "--", "sh", "-c", script]).output().unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout.len(), 100_003);
    assert!(output.stdout[..100_000].iter().all(|byte| *byte == 255) && output.stdout.ends_with(b"end"));
}

#[test]
fn a_reader_that_leaves_ends_the_session() {
    let home = Home::new();
    let mut command = home.command(&["run", "--", "sh", "-c", "while echo line; do sleep 0.01; done"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 4];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
    drop(child.stdout.take());
    finish(child, "run", Duration::from_secs(30));
    home.assert_clean();
}
