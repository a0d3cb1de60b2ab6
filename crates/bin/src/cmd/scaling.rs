//! `skein scaling`: scaling elements in the form of any cloud, and back, which needs no engine and asks nobody; and
//! the metrics of those that the engine carries out itself.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};
use skein_api::document::{self, Format};
use skein_cloud::scaling::{Difference, Document, ScalingError, Table as Words, adopt, port};
use skein_domain::scaling::Element;

use crate::connect::Connect;
use crate::failure::{Ended, OK, usage};
use crate::output::{self, Table, line, note};
use crate::show;

/// `skein scaling`.
#[derive(Debug, clap::Args)]
pub(crate) struct ScalingArgs {
    #[command(subcommand)]
    command: ScalingCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ScalingCommand {
    /// Say whether a scaling element holds together, and what it is
    Check(CheckArgs),
    /// Write an element in a cloud's own form; say what will differ there
    Port(ConvertArgs),
    /// Read a cloud's own documents as an element; say what it cannot hold
    Adopt(ConvertArgs),
    /// Show the metrics of elements that the engine carries out, and what they want
    Metrics(MetricsArgs),
    /// Say a value of a custom metric
    Say(SayArgs),
    /// List the clouds whose form is known
    Clouds(CloudsArgs),
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    /// The element: TOML, JSON or YAML
    file: PathBuf,
}

#[derive(Debug, clap::Args)]
struct ConvertArgs {
    /// The element (TOML, JSON or YAML); to adopt: the documents, as 'port' writes them
    file: PathBuf,
    #[command(flatten)]
    words: WordsArg,
    /// What is written, and what differs, as one JSON object
    #[arg(long)]
    json: bool,
}

/// Whose form.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct WordsArg {
    /// A cloud ('skein scaling clouds')
    #[arg(long, value_name = "NAME")]
    cloud: Option<String>,
    /// A table of your own, written as those in crates/cloud/scaling
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct MetricsArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, clap::Args)]
struct SayArgs {
    /// The metric, as the element's file names it
    metric: String,
    /// Its value now, in the metric's unit
    #[arg(allow_negative_numbers = true)]
    value: f64,
    /// Of this solution's machines only
    #[arg(long, value_name = "NAME")]
    solution: Option<String>,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, clap::Args)]
struct CloudsArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Does it.
pub(crate) async fn run(args: ScalingArgs) -> Ended {
    match args.command {
        ScalingCommand::Check(args) => check(&args),
        ScalingCommand::Port(args) => port_to(&args),
        ScalingCommand::Adopt(args) => adopt_from(&args),
        ScalingCommand::Metrics(args) => metrics(&args).await,
        ScalingCommand::Say(args) => say(args).await,
        ScalingCommand::Clouds(args) => clouds(&args),
    }
}

/// What was given cannot be used: that is no failure of ours.
fn refused(error: &ScalingError) -> anyhow::Error {
    usage(error.to_string())
}

fn read(path: &Path) -> anyhow::Result<Value> {
    let format = Format::of_path(path).map_err(|e| usage(e.to_string()))?;
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    document::parse(&bytes, format).map_err(|e| usage(format!("{}: {e}", path.display())))
}

fn element(path: &Path) -> anyhow::Result<Element> {
    let wrong = |why: String| usage(format!("{}: {why}", path.display()));
    let element: Element = serde_json::from_value(read(path)?).map_err(|e| wrong(e.to_string()))?;
    element.check().map_err(|e| wrong(e.to_string()))?;
    Ok(element)
}

impl WordsArg {
    fn read(&self) -> anyhow::Result<Words> {
        let Some(path) = &self.table else {
            return Words::builtin(self.cloud.as_deref().unwrap_or_default()).map_err(|e| refused(&e));
        };
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        Words::from_toml(name, &text).map_err(|e| refused(&e))
    }
}

fn check(args: &CheckArgs) -> Ended {
    let element = element(&args.file)?;
    let group = &element.group;
    line(&format!("{}: {} to {} machines; it holds together", element.name, group.min, group.max));
    line(&format!(
        "{} metrics, {} alarms, {} policies",
        element.metrics.len(),
        element.alarms.len(),
        element.policies.len()
    ));
    let custom: Vec<&str> = element.custom().map(String::as_str).collect();
    match element.check_here(skein_engine::is_zone) {
        Err(why) => line(&format!("clouds may carry it out; the engine cannot on own servers: {why}")),
        Ok(()) if custom.is_empty() => line("the engine can carry it out on own servers"),
        Ok(()) => {
            let say = format!("'skein scaling say {} 1' says a value", custom[0]);
            line(&format!("the engine can carry it out on own servers; nobody measures {}: {say}", custom.join(", ")));
        }
    }
    Ok(OK)
}

fn port_to(args: &ConvertArgs) -> Ended {
    let (documents, differences) = port(&element(&args.file)?, &args.words.read()?).map_err(|e| refused(&e))?;
    if args.json {
        output::json(&json!({"documents": documents, "differences": differences}))?;
    } else {
        output::json(&documents)?;
        tell(&differences, "it comes back as it was asked for");
    }
    Ok(OK)
}

fn adopt_from(args: &ConvertArgs) -> Ended {
    let mut given = read(&args.file)?;
    // What `port --json` writes has them within.
    let documents = given.get_mut("documents").map(Value::take).unwrap_or(given);
    let wrong = |e: serde_json::Error| {
        usage(format!("{}: {e}: documents are [{{\"kind\": ..., \"body\": ...}}]", args.file.display()))
    };
    let documents: Vec<Document> = serde_json::from_value(documents).map_err(wrong)?;
    let (element, differences) = adopt(&documents, &args.words.read()?).map_err(|e| refused(&e))?;
    if args.json {
        output::json(&json!({"element": element, "differences": differences}))?;
    } else {
        output::raw(toml::to_string(&element).context("writing the element as TOML")?.as_bytes());
        tell(&differences, "the element says all of it");
    }
    Ok(OK)
}

/// To people, beside what is written: standard output stays what a program reads.
fn tell(differences: &[Difference], none: &str) {
    match differences {
        [] => note(none),
        [_] => note("1 difference:"),
        all => note(&format!("{} differences:", all.len())),
    }
    for difference in differences {
        note(&format!("  {difference}"));
    }
}

async fn metrics(args: &MetricsArgs) -> Ended {
    let metrics = args.connect.client().await?.metrics().await?;
    if args.json {
        output::json(&metrics)?;
        return Ok(OK);
    }
    if metrics.is_empty() {
        line("the engine carries out no scaling element; 'machines.scaling_element' of a solution names its file");
        return Ok(OK);
    }
    let mut list = Table::new(&["solution", "metric", "value", "unit", "of each", "from"]).right(&[2]);
    let mut wants: Vec<String> = Vec::new();
    for metric in metrics {
        let value = metric.value.map_or("-".to_owned(), |value| value.to_string());
        let from = if metric.custom { "said" } else { "measured" };
        let each = format!("{} s, {}", metric.period_s, metric.statistic);
        if let (Some(machines), Some(why)) = (metric.wants, metric.why) {
            let want = format!("{}: {}: {why}", metric.solution, show::count(machines as usize, "machine"));
            if !wants.contains(&want) {
                wants.push(want);
            }
        }
        list.row([metric.solution, metric.metric, value, metric.unit, each, from.to_owned()]);
    }
    list.print();
    for want in &wants {
        line(want);
    }
    Ok(OK)
}

async fn say(args: SayArgs) -> Ended {
    let SayArgs { metric, value, solution, connect } = args;
    let said = skein_api::MetricValue { value, solution };
    connect.client().await?.say_metric(&metric, &said).await?;
    line(&format!("{metric} = {value}: looked at with the next full minute"));
    Ok(OK)
}

fn clouds(args: &CloudsArgs) -> Ended {
    let tables = Words::names().map(Words::builtin).collect::<Result<Vec<_>, _>>()?;
    if args.json {
        let of = |table: &Words| json!({"cloud": table.name, "title": table.title, "sources": table.sources, "assumed": table.assumed});
        output::json(&tables.iter().map(of).collect::<Vec<_>>())?;
        return Ok(OK);
    }
    let mut list = Table::new(&["cloud", "form", "assumed"]).right(&[2]);
    for table in tables {
        list.row([table.name, table.title, table.assumed.len().to_string()]);
    }
    list.print();
    Ok(OK)
}
