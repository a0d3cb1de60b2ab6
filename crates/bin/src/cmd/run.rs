//! `skein run -- CMD ARGS` and `skein run FILE`: the shortest way to run something. When no engine is
//! up, a private one is started and removed afterwards.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Map, Value, json};
use skein_api::{Client, StartRequest};

use crate::connect::Connect;
use crate::failure::{Ended, INTERRUPTED, usage};
use crate::local::{Functions, Local, Wanted};
use crate::output::note;
use crate::signals::Signals;
use crate::submit::{Document, name_from};
use crate::watch::{self, Launch, Watch, name_value};

/// A private engine's own server, USD per hour: AWS c6i.xlarge, us-east-1, list price.
const PRICE_PER_HOUR_USD: f64 = 0.17;
/// Limits of a private engine's function host.
const FUNCTIONS: Functions = Functions { concurrency: 4, timeout_s: 60 };

/// `skein run`.
#[derive(Debug, clap::Args)]
#[command(override_usage = "skein run [OPTIONS] -- CMD [ARGS]...\n       skein run [OPTIONS] FILE")]
#[group(id = "what", required = true, multiple = false, args = ["files", "command"])]
pub(crate) struct RunArgs {
    /// A task or thread file (.toml, .json, .yaml)
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A command and its arguments; it runs in a fresh folder of its own
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
    #[command(flatten)]
    launch: Launch,
    /// The same key again is the same session
    #[arg(long, value_name = "K")]
    client_key: Option<String>,
    /// Print the session's id and leave
    #[arg(long, conflicts_with = "download")]
    detach: bool,
    /// Fetch the files it left into this folder
    #[arg(long, value_name = "DIR")]
    download: Option<PathBuf>,
    /// Say at the end where everything ran, and why there
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    task: TaskFlags,
    #[command(flatten)]
    connect: Connect,
}

/// What a file would say of the task.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Of a command (a file says these itself)")]
struct TaskFlags {
    /// Run it N times; each has its own SKEIN_INDEX, and {index} in ARGS becomes it
    #[arg(long, value_name = "N", conflicts_with = "files", value_parser = clap::value_parser!(u32).range(1..))]
    array: Option<u32>,
    /// CPU setting: 0 the configured algorithm, 1-99 percent of CPU free, 100 the instance alone
    #[arg(long, value_name = "C", conflicts_with = "files")]
    cpu: Option<u8>,
    /// Memory, MiB
    #[arg(long, value_name = "MB", conflicts_with = "files")]
    memory_mb: Option<u32>,
    /// Name of the task [default: the command's]
    #[arg(long, conflicts_with = "files")]
    name: Option<String>,
    /// Environment; {secret:NAME} as the value takes a secret
    #[arg(long, value_name = "K=V", value_parser = name_value, conflicts_with = "files")]
    env: Vec<(String, String)>,
    /// A file to place in its folder; PATH=FILE to give it another path there
    #[arg(long, value_name = "FILE", conflicts_with = "files")]
    input: Vec<String>,
    /// Files to bring back ('*' in the last component); into --download, else the current folder
    #[arg(long, value_name = "PATTERN", conflicts_with = "files")]
    output: Vec<String>,
    /// Expected run time, s
    #[arg(long, value_name = "S", conflicts_with = "files")]
    expected_run_s: Option<f64>,
    /// Longest run time, s; then it is stopped
    #[arg(long, value_name = "S", conflicts_with = "files")]
    longest_run_s: Option<f64>,
}

/// Runs it.
pub(crate) async fn run(args: RunArgs) -> Ended {
    let mut signals = Signals::take()?;
    let document = document(&args)?;
    if let Some(client) = args.connect.find().await? {
        let request = request(&args, document, &client).await?;
        if args.detach {
            return watch::detach(&client, &request).await;
        }
        return watch::attend(&client, None, &mut signals, &request, &watch_of(&args, None)).await;
    }
    if args.detach {
        return Err(usage("--detach needs an engine that stays: start one with 'skein up'"));
    }
    private(args, document, &mut signals).await
}

/// In a private engine, removed afterwards.
async fn private(args: RunArgs, document: Document, signals: &mut Signals) -> Ended {
    let folder = tempfile::Builder::new().prefix("skein-").tempdir().context("no temporary folder")?;
    if std::env::var_os("SKEIN_LOG").is_some() {
        crate::logging::to_stderr("warn");
    }
    let serverless = matches!(args.launch.mode.as_deref(), Some("serverless" | "hybrid"));
    let wanted = Wanted {
        dir: folder.path().to_owned(),
        agents: 1,
        slots: None,
        functions: (document.is_thread() || serverless).then_some(FUNCTIONS),
        price_per_hour_usd: PRICE_PER_HOUR_USD,
    };
    let mut local = tokio::select! {
        local = Local::start(&wanted) => local?,
        () = signals.next() => return Ok(INTERRUPTED),
    };
    let kept = leaves_files(&document.value).then(|| new_folder(Path::new("skein-results")));
    let ended = in_private(&args, document, kept, &mut local, signals).await;
    local.stop().await;
    folder.close().context("the private engine's folder could not be removed")?;
    ended
}

async fn in_private(
    args: &RunArgs,
    document: Document,
    kept: Option<PathBuf>,
    local: &mut Local,
    signals: &mut Signals,
) -> Ended {
    let client = local.client();
    if document.is_thread() {
        // Else the first items would all see functions only.
        tokio::select! {
            ready = local.ready() => ready?,
            () = signals.next() => return Ok(INTERRUPTED),
        }
    }
    let request = request(args, document, &client).await?;
    watch::attend(&client, Some(local), signals, &request, &watch_of(args, kept)).await
}

/// `kept`: where the files go when nobody said so and the engine will be gone.
fn watch_of(args: &RunArgs, kept: Option<PathBuf>) -> Watch {
    let here = (!args.task.output.is_empty()).then(|| PathBuf::from("."));
    Watch { verbose: args.verbose, download: args.download.clone().or(here).or(kept) }
}

async fn request(args: &RunArgs, document: Document, client: &Client) -> anyhow::Result<StartRequest> {
    let mut request = args.launch.request();
    request.document = Some(document.upload(client).await?);
    request.client_key = args.client_key.clone();
    Ok(request)
}

fn document(args: &RunArgs) -> anyhow::Result<Document> {
    match args.files.as_slice() {
        [] => Ok(Document::of(task(&args.command, &args.task)?)),
        [file] if file.exists() => Document::read_to_start(file),
        [file, more @ ..] if file.exists() && !more.is_empty() => {
            Err(usage(format!("one file at a time: skein run {}", file.display())))
        }
        words => {
            let words: Vec<String> = words.iter().map(|word| word.display().to_string()).collect();
            let typed = words.join(" ");
            Err(usage(format!(
                "there is no file '{}'; to run a command, put '--' before it: skein run -- {typed}",
                words[0]
            )))
        }
    }
}

/// The task that the flags describe.
fn task(command: &[String], flags: &TaskFlags) -> anyhow::Result<Value> {
    let program = command.first().map_or("", |program| program.rsplit('/').next().unwrap_or(program));
    let mut task = Map::new();
    let mut set = |field: &str, value: Value| {
        if !value.is_null() {
            task.insert(field.to_owned(), value);
        }
    };
    set("name", json!(flags.name.clone().unwrap_or_else(|| name_from(program))));
    set("command", json!(command));
    set("array", json!(flags.array));
    set("cpu", json!(flags.cpu));
    set("memory_mb", json!(flags.memory_mb));
    set("expected_run_s", json!(flags.expected_run_s));
    set("longest_run_s", json!(flags.longest_run_s));
    let env: Map<String, Value> = flags.env.iter().map(|(name, value)| (name.clone(), env_value(value))).collect();
    set("env", json!(env));
    set("inputs", flags.input.iter().map(|text| input(text)).collect::<anyhow::Result<Value>>()?);
    set("outputs", json!(flags.output));
    Ok(Value::Object(task))
}

fn env_value(text: &str) -> Value {
    match text.strip_prefix("{secret:").and_then(|rest| rest.strip_suffix('}')) {
        Some(name) => json!({ "secret": name }),
        None => json!(text),
    }
}

/// `FILE`, or `PATH=FILE`.
fn input(text: &str) -> anyhow::Result<Value> {
    let named = text.split_once('=').filter(|_| !Path::new(text).exists());
    let own_name = || Some((Path::new(text).file_name()?.to_str()?, text));
    let (path, file) =
        named.or_else(own_name).ok_or_else(|| usage(format!("--input '{text}' has no file name; write PATH=FILE")))?;
    Ok(json!({ "path": path, "file": file }))
}

/// Does any task bring files back?
fn leaves_files(document: &Value) -> bool {
    let has = |task: &Value| task.get("outputs").and_then(Value::as_array).is_some_and(|outputs| !outputs.is_empty());
    match document.get("tasks").and_then(Value::as_object) {
        Some(tasks) => tasks.values().any(has),
        None => has(document),
    }
}

/// `base`, or the first of `base-2`, `base-3`, ... that is not there.
pub(crate) fn new_folder(base: &Path) -> PathBuf {
    if !base.exists() {
        return base.to_owned();
    }
    let numbered = |number: u32| {
        let mut name = base.as_os_str().to_owned();
        name.push(format!("-{number}"));
        PathBuf::from(name)
    };
    let free = (2..u32::MAX).map(numbered).find(|path| !path.exists());
    free.unwrap_or_else(|| {
        note("every folder name is taken");
        base.to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_files_or_named_files() {
        assert_eq!(input("/no/such/a.txt").unwrap(), json!({"path": "a.txt", "file": "/no/such/a.txt"}));
        assert_eq!(input("d/x=/no/such/a.txt").unwrap(), json!({"path": "d/x", "file": "/no/such/a.txt"}));
        assert!(input("..").is_err());
    }

    #[test]
    fn a_new_folder_never_is_an_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("r");
        assert_eq!(new_folder(&base), base);
        std::fs::create_dir(&base).unwrap();
        std::fs::create_dir(dir.path().join("r-2")).unwrap();
        assert_eq!(new_folder(&base), dir.path().join("r-3"));
    }
}
