//! The speed panel: the fleet that would do if servers were slower or faster.

use super::colour;
use super::svg::{Anchor, Area, Scale, Svg, tick_step};
use crate::records::LogFigures;

pub(super) fn draw(svg: &mut Svg, log: &LogFigures, area: Area) {
    let known: Vec<(f64, f64)> = log
        .fleet
        .what_if
        .iter()
        .filter_map(|what_if| {
            let servers = what_if.servers?;
            Some((f64::from(what_if.speed_percent), f64::from(servers)))
        })
        .collect();
    let slowest = log.fleet.what_if.first().map_or(100, |w| w.speed_percent);
    let fastest = log.fleet.what_if.last().map_or(100, |w| w.speed_percent);
    let x =
        Scale { values: (f64::from(slowest.min(95)), f64::from(fastest.max(105))), pixels: (area.left, area.right()) };
    let highest = known.iter().map(|(_, servers)| *servers).fold(1.0, f64::max) * 1.08;
    let y = Scale { values: (0.0, highest), pixels: (area.bottom(), area.top) };
    svg.vertical_axis(area, y, tick_step(highest, 6.0));
    svg.horizontal_axis(area, x, 50.0, "speed of a server, % of the model");
    let points: Vec<(f64, f64)> = known.iter().map(|(sx, sy)| (x.at(*sx), y.at(*sy))).collect();
    svg.polyline(&points, colour::FLEET, 2.0);
    let here = (x.at(100.0), y.at(f64::from(log.fleet.servers)));
    svg.dot(here, 5.0, colour::FLEET);
    let words = format!("{} at 100 %", log.fleet.servers);
    svg.text(here.0 + 8.0, here.1 - 8.0, 13.0, colour::FLEET, Anchor::Start, &words);
}
