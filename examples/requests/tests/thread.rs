//! `thread.toml` and the whole pipeline: the commands of the thread parse, its awk runs with the
//! real `awk`, and the steps on a short log fit together.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use clap::Parser;
use serde_json::Value;
use skein_example_requests::{Args, run};

/// Stands for `skein example requests`.
#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn home() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The commands of the thread, which are all written as one line of plain strings.
fn commands() -> Vec<Vec<String>> {
    let text = fs::read_to_string(home().join("thread.toml")).unwrap();
    text.lines()
        .filter_map(|line| line.strip_prefix("command = "))
        .map(|list| serde_json::from_str(&list.replace("{index}", "1")).unwrap())
        .collect()
}

#[test]
fn every_command_of_the_thread_is_understood() {
    let commands = commands();
    assert_eq!(commands.len(), 15);
    for command in commands {
        match command[0].as_str() {
            "skein" => {
                assert_eq!(command[1..3], ["example", "requests"]);
                Cli::try_parse_from(&command[2..]).unwrap();
            }
            other => assert_eq!(other, "sh"),
        }
    }
}

#[test]
fn every_file_the_thread_names_is_shipped() {
    let text = fs::read_to_string(home().join("thread.toml")).unwrap();
    let files: Vec<&str> = text.split("file = \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(files.len() >= 6);
    for file in files {
        assert!(home().join(file).is_file(), "{file}");
    }
}

/// Runs the `sh` line of the thread that contains `part` in a folder.
fn shell(folder: &Path, part: &str) {
    let command = commands().into_iter().find(|command| command[0] == "sh" && command[2].contains(part)).unwrap();
    let status = Process::new("sh").args(&command[1..]).current_dir(folder).status().unwrap();
    assert!(status.success(), "{command:?}");
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn awk_counts_a_part_and_an_empty_part() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::copy(home().join("count.awk"), at("count.awk")).unwrap();
    let header = "arrival_s,context_tokens,generated_tokens\n";
    let rows = "0.000,4808,10\n0.052,3180,8\n9.5,4000000000,1\n";
    fs::write(at("part.csv"), format!("{header}{rows}")).unwrap();
    shell(folder.path(), "name=conv");
    let count = json(&at("count-1.json"));
    assert_eq!((&count["kind"], &count["log"], &count["part"]), (&"count".into(), &"conv".into(), &1.into()));
    assert_eq!((&count["requests"], &count["generated_tokens"]), (&3.into(), &19.into()));
    assert_eq!(count["context_tokens"], 4_000_007_988_u64);
    fs::write(at("part.csv"), header).unwrap();
    shell(folder.path(), "name=code");
    assert_eq!(json(&at("count-1.json"))["requests"], 0);
}

/// One folder for a small session: `conv` cut to its first 700 requests, in 2 parts.
struct Session {
    folder: tempfile::TempDir,
}

impl Session {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let session = Self { folder };
        fs::create_dir(session.at("results")).unwrap();
        fs::create_dir(session.at("replays")).unwrap();
        fs::copy(home().join("count.awk"), session.at("count.awk")).unwrap();
        let data = home().join("data/azure_llm2023_conv.csv.gz");
        session.step(&format!("split --input {} --log conv --parts 1 --prefix @all-", data.display()));
        let all = fs::read_to_string(session.at("all-0.csv")).unwrap();
        let short: Vec<&str> = all.lines().take(701).collect();
        fs::write(session.at("log.csv"), short.join("\n") + "\n").unwrap();
        session
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a subcommand; `@` stands for the folder of the session.
    fn try_step(&self, line: &str) -> anyhow::Result<()> {
        let folder = format!("{}/", self.folder.path().display());
        let line = line.replace('@', &folder);
        // The default manifest would go to the current folder of the test.
        let manifest = format!("--manifest {folder}results/split.json");
        let more = if line.starts_with("split") { manifest.as_str() } else { "" };
        let words = ["requests"].into_iter().chain(line.split_whitespace());
        run(Cli::try_parse_from(words.chain(more.split_whitespace()))?.args)
    }

    fn step(&self, line: &str) {
        self.try_step(line).unwrap();
    }

    fn all_steps(&self) {
        self.step("split --input @log.csv --log conv --title Conversation --parts 2 --prefix @part-");
        for share in 0..2 {
            self.step(&format!(
                "replay --input @log.csv --log conv --fleets 1..80 --speeds 50..150 --speed-step 50 --share {share}/2 --output @replays/{share}.json"
            ));
        }
        self.step("pick --dir @replays --target-s 1 --output @results/fleet.json");
        for part in 0..2 {
            let common = format!("--input @part-{part}.csv --split @results/split.json --part {part}");
            self.step(&format!("profile {common} --output @results/profile-{part}.json"));
            self.step(&format!(
                "bootstrap {common} --fleet @results/fleet.json --around 1 --resamples 50 --seed 7 --output @results/band-{part}.json"
            ));
            self.count(part);
        }
        self.step("merge --dir @results --output @figures.json");
        self.step("chart --input @figures.json --output @load.svg");
    }

    /// The count as the thread does it, but for the number of the part.
    fn count(&self, part: u32) {
        let line =
            format!("awk -F, -v name=conv -v part={part} -f count.awk part-{part}.csv > results/count-{part}.json");
        let status = Process::new("sh").args(["-c", &line]).current_dir(self.folder.path()).status().unwrap();
        assert!(status.success());
    }
}

#[test]
fn a_short_session_goes_from_log_to_chart_and_repeats_to_the_byte() {
    let session = Session::new();
    session.all_steps();
    let figures = json(&session.at("figures.json"));
    let log = &figures["logs"][0];
    assert_eq!((&log["requests"], &log["title"]), (&700.into(), &"Conversation".into()));
    let servers = log["fleet"]["servers"].as_u64().unwrap();
    assert!((20..80).contains(&servers), "{servers}");
    assert!(log["fleet"]["chosen"]["wait_s"]["p99"].as_f64().unwrap() < 1.0);
    let svg = fs::read_to_string(session.at("load.svg")).unwrap();
    assert!(svg.contains("<title id=\"title\">Servers that keep the p99 wait under 1 s"));
    assert!(svg.contains(&format!("{servers} servers")));
    assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN"));
    let again = Session::new();
    again.all_steps();
    for name in ["figures.json", "load.svg"] {
        assert_eq!(fs::read(session.at(name)).unwrap(), fs::read(again.at(name)).unwrap());
    }
}

#[test]
fn a_lost_part_or_a_cut_part_is_caught() {
    let session = Session::new();
    session.all_steps();
    fs::remove_file(session.at("results/count-1.json")).unwrap();
    let error = session.try_step("merge --dir @results --output @figures.json");
    let error = format!("{:#}", error.unwrap_err());
    assert!(error.contains("the count of part 1 is missing"), "{error}");
    let part = fs::read_to_string(session.at("part-0.csv")).unwrap();
    let cut: Vec<&str> = part.lines().take(50).collect();
    fs::write(session.at("part-0.csv"), cut.join("\n")).unwrap();
    let error = session.try_step("profile --input @part-0.csv --split @results/split.json --part 0 --output @p.json");
    assert!(error.unwrap_err().to_string().contains("was cut short"));
}
