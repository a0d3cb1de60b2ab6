//! `skein task` and `skein thread`: the repository [0046].

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};
use skein_api::{Client, DocumentView};

use crate::connect::Connect;
use crate::failure::{Ended, OK, usage};
use crate::output::{self, Table};
use crate::show;
use crate::signals::Signals;
use crate::submit::Document;
use crate::watch::{self, Launch, Watch};

/// `skein task`.
#[derive(Debug, clap::Args)]
pub(crate) struct TaskArgs {
    #[command(subcommand)]
    command: DocumentCommand,
    #[command(flatten)]
    connect: Connect,
}

/// `skein thread`.
#[derive(Debug, clap::Args)]
pub(crate) struct ThreadArgs {
    #[command(subcommand)]
    command: DocumentCommand,
    #[command(flatten)]
    connect: Connect,
}

#[expect(clippy::large_enum_variant, reason = "parsed once, then taken apart")]
#[derive(Debug, Subcommand)]
enum DocumentCommand {
    /// List names and versions
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one with every field; what nobody stated is marked '(default)'
    Show {
        /// Its name
        name: String,
        /// A version other than the newest
        #[arg(long)]
        version: Option<u64>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Store a file (TOML, JSON or YAML) as a new version, and upload the files it names
    Add {
        /// The file
        file: PathBuf,
    },
    /// Remove one from the repository; sessions that run keep their own copy
    Remove {
        /// Its name
        name: String,
    },
    /// Start one, follow its logs, exit with its status
    Run(RunArgs),
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Its name
    name: String,
    /// A version other than the newest
    #[arg(long)]
    version: Option<u64>,
    #[command(flatten)]
    launch: Launch,
    /// The same key again is the same session
    #[arg(long, value_name = "K")]
    client_key: Option<String>,
    /// Print the session's id and leave
    #[arg(long)]
    detach: bool,
    /// Fetch the files it left into this folder
    #[arg(long, value_name = "DIR", conflicts_with = "detach")]
    download: Option<PathBuf>,
    /// Say at the end where everything ran, and why there
    #[arg(long, short)]
    verbose: bool,
}

/// The two halves of the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Task,
    Thread,
}

impl Kind {
    fn path(self) -> &'static str {
        match self {
            Self::Task => "tasks",
            Self::Thread => "threads",
        }
    }
    fn word(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Thread => "thread",
        }
    }
}

/// Carries `skein task` out.
pub(crate) async fn run_task(args: TaskArgs) -> Ended {
    run(Kind::Task, args.command, &args.connect).await
}

/// Carries `skein thread` out.
pub(crate) async fn run_thread(args: ThreadArgs) -> Ended {
    run(Kind::Thread, args.command, &args.connect).await
}

async fn run(kind: Kind, command: DocumentCommand, connect: &Connect) -> Ended {
    let client = connect.client().await?;
    match command {
        DocumentCommand::List { json } => list(&client.documents(kind.path()).await?, json)?,
        DocumentCommand::Show { name, version, json } => {
            let view = client.document(kind.path(), &name, version).await?;
            if json { output::json(&view)? } else { show(&view) }
        }
        DocumentCommand::Add { file } => add(&client, kind, &file).await?,
        DocumentCommand::Remove { name } => {
            client.remove_document(kind.path(), &name).await?;
            output::line(&format!("{} '{name}' is removed; sessions that run keep their own copy", kind.word()));
        }
        DocumentCommand::Run(args) => return start(&client, kind, args).await,
    }
    Ok(OK)
}

fn list(documents: &[DocumentView], json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(&documents);
    }
    let mut table = Table::new(&["name", "version", "by", "stored", "what it is"]).right(&[1]);
    for view in documents {
        let tasks = view.document.get("tasks").and_then(Value::as_object);
        let about = match (view.document.get("description").and_then(Value::as_str), tasks) {
            (Some(text), _) if !text.is_empty() => text.to_owned(),
            (_, Some(tasks)) => format!("{} tasks", tasks.len()),
            _ => view.document.get("command").map(compact).unwrap_or_default(),
        };
        table.row([view.name.clone(), view.version.to_string(), view.user.clone(), show::moment(view.at), about]);
    }
    table.print();
    Ok(())
}

async fn add(client: &Client, kind: Kind, file: &std::path::Path) -> anyhow::Result<()> {
    let document = Document::read(file)?;
    if document.is_thread() != (kind == Kind::Thread) {
        let other = if document.is_thread() { Kind::Thread } else { Kind::Task }.word();
        let file = file.display();
        return Err(usage(format!("{file} is a {other}: 'skein {other} add {file}' stores it")));
    }
    let name = document.name()?.to_owned();
    let body = document.upload(client).await?;
    let stored = client.put_document(kind.path(), &name, &body).await?;
    output::line(&format!("{} '{}' is version {}", kind.word(), stored.name, stored.version));
    Ok(())
}

async fn start(client: &Client, kind: Kind, args: RunArgs) -> Ended {
    let mut request = args.launch.request();
    match kind {
        Kind::Task => request.task = Some(args.name),
        Kind::Thread => request.thread = Some(args.name),
    }
    request.version = args.version;
    request.client_key = args.client_key;
    if args.detach {
        return watch::detach(client, &request).await;
    }
    let watch = Watch { verbose: args.verbose, download: args.download };
    watch::attend(client, None, &mut Signals::take()?, &request, &watch).await
}

/// One line a field; of a thread, one block a task.
fn show(view: &DocumentView) {
    output::line(&format!("{}, version {}, by {}, {}", view.name, view.version, view.user, show::moment(view.at)));
    let mut rows = Vec::new();
    for (field, value) in view.document.as_object().into_iter().flatten() {
        match (field.as_str(), value.as_object()) {
            ("tasks", Some(tasks)) => {
                for (task, fields) in tasks {
                    let own = fields.as_object().into_iter().flatten();
                    rows.extend(own.map(|(field, value)| (format!("{task}.{field}"), compact(value))));
                }
            }
            _ => rows.push((field.clone(), compact(value))),
        }
    }
    rows.extend(view.resolved.iter().flat_map(defaults));
    let width = rows.iter().map(|(field, _)| field.chars().count()).max().unwrap_or_default();
    for (field, value) in rows {
        output::line(&format!("  {field:width$}  {value}"));
    }
}

fn compact(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Fields that nobody stated, with the values they got.
fn defaults(resolved: &Value) -> Vec<(String, String)> {
    let names = resolved.get("defaulted").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    names.map(|name| (name.to_owned(), format!("{} (default)", compact(&default_value(resolved, name))))).collect()
}

/// The value of a field of the document in the settled task, where some stand elsewhere or in ms.
fn default_value(resolved: &Value, field: &str) -> Value {
    let settled = || resolved.get(field).or_else(|| resolved.get("needs")?.get(field)).cloned();
    let seconds = || {
        let ms = resolved.get(format!("{}_ms", field.strip_suffix("_s")?))?.as_u64()?;
        Some(if ms % 1000 == 0 { json!(ms / 1000) } else { json!(std::time::Duration::from_millis(ms).as_secs_f64()) })
    };
    settled().or_else(seconds).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_found_where_they_stand() {
        let resolved =
            json!({"defaulted": ["cpu", "grace_s", "urgency"], "needs": {"cpu": 0}, "grace_ms": 5000, "urgency": 50});
        let rows = defaults(&resolved);
        let row = |field: &str, text: &str| (field.to_owned(), text.to_owned());
        assert_eq!(rows, [row("cpu", "0 (default)"), row("grace_s", "5 (default)"), row("urgency", "50 (default)")]);
    }
}
