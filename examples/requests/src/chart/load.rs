//! The load panel: servers over time.

use super::colour;
use super::svg::{Anchor, Area, Scale, Svg, tick_step};
use crate::numbers::{count, float};
use crate::records::LogFigures;

/// `minutes` is the length of the time axis, the same for all logs.
pub(super) fn draw(svg: &mut Svg, log: &LogFigures, minutes: f64, area: Area) {
    let highest = log
        .minutes
        .iter()
        .map(|minute| minute.load.high)
        .chain(log.bins.iter().map(|bin| bin.busiest))
        .chain([f64::from(log.fleet.servers)])
        .fold(1.0, f64::max)
        * 1.06;
    let step = tick_step(highest, 6.0);
    let x = Scale { values: (0.0, minutes), pixels: (area.left, area.right()) };
    let y = Scale { values: (0.0, highest), pixels: (area.bottom(), area.top) };
    svg.vertical_axis(area, y, step);
    busy(svg, log, x, y);
    band(svg, log, x, y);
    fleet(svg, log, area, y);
    svg.horizontal_axis(area, x, 5.0, "minutes from the start of the log");
    let middle = area.top + area.height / 2.0;
    svg.axis_name(area.left - 44.0, middle, "servers");
}

/// Busy servers in the busiest second of each 10 s, as steps.
fn busy(svg: &mut Svg, log: &LogFigures, x: Scale, y: Scale) {
    let end = float(log.covered_s) / 60.0;
    let mut points = vec![(x.at(0.0), y.at(0.0))];
    for (bin, start) in log.bins.iter().zip(0_u32..) {
        let level = y.at(bin.busiest);
        let from = f64::from(start) / 6.0;
        points.push((x.at(from), level));
        points.push((x.at((from + 1.0 / 6.0).min(end)), level));
    }
    points.push((x.at(end), y.at(0.0)));
    svg.polygon(&points, colour::BUSY, 1.0);
}

/// One-minute means of the arriving load at the middle of each minute, with their band.
fn band(svg: &mut Svg, log: &LogFigures, x: Scale, y: Scale) {
    let along = |level: fn(&crate::records::Minute) -> f64| -> Vec<(f64, f64)> {
        log.minutes.iter().map(|minute| (x.at(float(minute.number) + 0.5), y.at(level(minute)))).collect()
    };
    let mut outline = along(|minute| minute.load.high);
    outline.extend(along(|minute| minute.load.low).into_iter().rev());
    svg.polygon(&outline, colour::LOAD, 0.22);
    svg.polyline(&along(|minute| minute.load.value), colour::LOAD, 2.0);
}

/// The picked fleet, and the mean load to compare it with, named at the right.
fn fleet(svg: &mut Svg, log: &LogFigures, area: Area, y: Scale) {
    let level = y.at(f64::from(log.fleet.servers));
    let right = area.right();
    svg.line((area.left, level), (right, level), colour::FLEET, 2.0, "7 4");
    let words = format!("{} servers", log.fleet.servers);
    svg.bold(right + 8.0, level + 5.0, 14.0, colour::FLEET, &words);
    let total: f64 = log.minutes.iter().map(|minute| minute.load.value).sum();
    let mean = total / float(count(log.minutes.len()));
    let words = format!("mean load {mean:.1}");
    let at = y.at(mean).max(level + 22.0) + 4.0;
    svg.text(right + 8.0, at, 12.0, colour::LOAD, Anchor::Start, &words);
}
