//! `chart`: the merged figures as one SVG, a row of two panels for each log.

mod load;
mod speed;
mod svg;

use std::path::PathBuf;

use anyhow::{bail, ensure};

use crate::numbers::{float, thousands};
use crate::records::{self, Figures, LogFigures, Record};
use svg::{Anchor, Area, Svg};

/// Colours on white; the line, the band and the fleet differ in lightness as well as in hue.
mod colour {
    pub(super) const INK: &str = "#1f2933";
    pub(super) const MUTED: &str = "#52606d";
    pub(super) const GRID: &str = "#e4e7eb";
    pub(super) const AXIS: &str = "#9aa5b1";
    pub(super) const BUSY: &str = "#d9dee4";
    pub(super) const LOAD: &str = "#0b5fa5";
    pub(super) const FLEET: &str = "#c2410c";
}

const WIDTH: f64 = 1200.0;
const LEFT: f64 = 64.0;
/// Width of the load panel.
const MAIN: f64 = 720.0;
/// Left edge and width of the speed panel.
const SIDE_LEFT: f64 = 938.0;
const SIDE: f64 = 230.0;
const HEAD: f64 = 126.0;
const PLOT: f64 = 236.0;
const ROW: f64 = 352.0;
const FOOT: f64 = 40.0;

const SOURCE: &str = "Data: Azure LLM inference trace 2023 (Patel et al., Splitwise, ISCA 2024), CC-BY 4.0. Made by the Skein example “requests”.";

/// Arguments of `chart`.
#[derive(Debug, clap::Args)]
pub struct ChartArgs {
    /// The figures that `merge` wrote.
    #[arg(long)]
    pub input: PathBuf,
    /// Where to write the SVG.
    #[arg(long)]
    pub output: PathBuf,
}

pub(crate) fn run(args: &ChartArgs) -> anyhow::Result<()> {
    let Record::Figures(figures) = records::read(&args.input)? else {
        bail!("{} does not hold figures: give the file that `merge` wrote", args.input.display());
    };
    ensure!(
        figures.logs.iter().all(|log| !log.minutes.is_empty()),
        "{} has a log shorter than a minute: there is no load to draw",
        args.input.display()
    );
    let svg = draw(&figures);
    println!("{}: {} bytes", args.output.display(), svg.len());
    for log in &figures.logs {
        println!("{}: {}", log.log, verdict(log));
    }
    records::write_text(&args.output, &svg)
}

/// The whole picture.
pub(crate) fn draw(figures: &Figures) -> String {
    let rows = f64::from(u32::try_from(figures.logs.len()).unwrap_or(u32::MAX));
    let mut svg = Svg::new(WIDTH, HEAD + rows * ROW + FOOT, &title(figures), &description(figures));
    head(&mut svg, figures);
    let longest = figures.logs.iter().map(|log| log.covered_s).max();
    let minutes = float(longest.unwrap_or(60).div_ceil(60));
    let mut top = HEAD;
    for log in &figures.logs {
        row(&mut svg, log, minutes, top);
        top += ROW;
    }
    svg.text(LEFT, top + 16.0, 12.0, colour::MUTED, Anchor::Start, SOURCE);
    svg.finish()
}

fn title(figures: &Figures) -> String {
    let fleets: Vec<String> =
        figures.logs.iter().map(|log| format!("{} for {}", log.fleet.servers, log.title.to_lowercase())).collect();
    let target = figures.logs.first().map_or(1.0, |log| log.fleet.target_p99_wait_s);
    format!("Servers that keep the p99 wait under {target} s: {}", fleets.join(", "))
}

/// What the picture shows, for people who cannot see it.
fn description(figures: &Figures) -> String {
    let logs: Vec<String> = figures.logs.iter().map(verdict).collect();
    format!(
        "For each log, servers kept busy over time with the 90 % band of the load and the picked fleet, and the fleet needed at other server speeds. {}",
        logs.join(" ")
    )
}

/// One sentence on a log.
fn verdict(log: &LogFigures) -> String {
    format!(
        "{}: {} requests in {} minutes; {} servers have a p99 wait of {:.2} s and are {:.0} % busy.",
        log.title,
        thousands(log.requests),
        log.covered_s.div_ceil(60),
        log.fleet.servers,
        log.fleet.chosen.wait_s.p99,
        log.fleet.chosen.utilisation * 100.0
    )
}

/// Title, the model, and the legend that all rows share.
fn head(svg: &mut Svg, figures: &Figures) {
    svg.bold(LEFT, 38.0, 22.0, colour::INK, &title(figures));
    svg.text(
        LEFT,
        62.0,
        14.0,
        colour::MUTED,
        Anchor::Start,
        "A real log of language-model requests, replayed. A request keeps a server busy for 0.1 s + 0.03 s for each generated token; first in, first out.",
    );
    let y = 94.0;
    let mut x = LEFT;
    svg.rect(Area { left: x, top: y - 10.0, width: 22.0, height: 12.0 }, colour::BUSY, 1.0);
    x = legend(svg, x, y, "busy servers if none waits, busiest second of each 10 s", 388.0);
    svg.rect(Area { left: x, top: y - 10.0, width: 22.0, height: 12.0 }, colour::LOAD, 0.22);
    svg.line((x, y - 4.0), (x + 22.0, y - 4.0), colour::LOAD, 2.0, "");
    x = legend(svg, x, y, "arriving load, 1 min mean, 90 % bootstrap band", 336.0);
    svg.line((x, y - 4.0), (x + 22.0, y - 4.0), colour::FLEET, 2.0, "7 4");
    legend(svg, x, y, "picked fleet", 0.0);
}

/// The words of a legend entry; returns where the next entry begins.
fn legend(svg: &mut Svg, x: f64, y: f64, words: &str, width: f64) -> f64 {
    svg.text(x + 30.0, y, 13.0, colour::INK, Anchor::Start, words);
    x + 30.0 + width
}

fn row(svg: &mut Svg, log: &LogFigures, minutes: f64, top: f64) {
    svg.bold(LEFT, top + 14.0, 16.0, colour::INK, &log.title);
    let facts = format!(
        "{} requests, {} generated tokens. {} servers: p99 wait {:.2} s, {:.0} % busy, {:.0} slot-hours",
        thousands(log.requests),
        thousands(log.generated_tokens),
        log.fleet.servers,
        log.fleet.chosen.wait_s.p99,
        log.fleet.chosen.utilisation * 100.0,
        log.fleet.chosen.slot_hours
    );
    svg.text(LEFT, top + 34.0, 13.0, colour::MUTED, Anchor::Start, &facts);
    svg.bold(SIDE_LEFT, top + 14.0, 16.0, colour::INK, "At other speeds");
    svg.text(SIDE_LEFT, top + 34.0, 13.0, colour::MUTED, Anchor::Start, "servers for the same p99 wait");
    let area = |left, width| Area { left, top: top + 50.0, width, height: PLOT };
    load::draw(svg, log, minutes, area(LEFT, MAIN));
    speed::draw(svg, log, area(SIDE_LEFT, SIDE));
}
