//! Demand and supply over time: one panel a policy, all on the same axes.

use skein_sim::{Scenario, concurrency};

use super::super::report::Outcome;
use super::seconds;
use super::svg::{Anchor, Area, Scale, Svg, ticks};

/// Title and legend.
pub(super) const HEAD: f64 = 64.0;
/// A policy's panel, and the room for its name.
pub(super) const ROW: f64 = 138.0;
const PANEL: f64 = 96.0;
const LEFT: f64 = 96.0;
const WIDTH: f64 = 1060.0;
/// Places along the axis at which curves are drawn.
const COLUMNS: u32 = 530;

pub(super) fn draw(svg: &mut Svg, scenario: &Scenario, outcomes: &[Outcome], top: f64) {
    svg.bold(40.0, top + 16.0, 16.0, "Demand and supply over time");
    let end_us = outcomes.iter().map(|o| o.course.end_us).max().unwrap_or(0).max(1);
    legend(svg, top + 42.0, end_us);
    let demand = means(&concurrency(scenario.items.iter().copied()), end_us);
    let curves: Vec<[Vec<f64>; 2]> =
        outcomes.iter().map(|o| [means(&o.course.slots, end_us), means(&o.course.supply, end_us)]).collect();
    let highest = curves.iter().flatten().flatten().chain(&demand).copied().fold(1.0, f64::max) * 1.05;
    let y_ticks = ticks(highest, 4);
    let (unit_s, unit) = unit(end_us);
    let last = seconds(end_us) / unit_s;
    for ((outcome, [slots, supply]), row) in outcomes.iter().zip(&curves).zip(0_u32..) {
        let area = Area { left: LEFT, top: top + HEAD + f64::from(row) * ROW + 22.0, width: WIDTH, height: PANEL };
        let x = Scale { values: (0.0, f64::from(COLUMNS)), pixels: (area.left, area.right()) };
        let y = Scale { values: (0.0, highest), pixels: (area.bottom(), area.top) };
        svg.bold(area.left, area.top - 6.0, 13.0, &outcome.policy);
        for (tick, words) in &y_ticks {
            svg.line((area.left, y.at(*tick)), (area.right(), y.at(*tick)), "grid", 1.0, "");
            svg.text(area.left - 8.0, y.at(*tick) + 4.0, 12.0, "muted", Anchor::End, words);
        }
        svg.axis_name(area.left - 48.0, area.top + PANEL / 2.0, "slots");
        let mut outline = stairs(&demand, x, y);
        outline.insert(0, (area.left, y.at(0.0)));
        outline.push((area.right(), y.at(0.0)));
        svg.polygon(&outline, "demand");
        svg.polyline(&stairs(supply, x, y), "shared-line", 1.2, "");
        svg.polyline(&stairs(slots, x, y), "machine-line", 2.2, "");
        svg.line((area.left, area.bottom()), (area.right(), area.bottom()), "axis", 1.0, "");
        if usize::try_from(row).is_ok_and(|row| row + 1 == outcomes.len()) {
            let time = Scale { values: (0.0, last), pixels: (area.left, area.right()) };
            for (tick, words) in ticks(last, 12) {
                svg.text(time.at(tick), area.bottom() + 17.0, 12.0, "muted", Anchor::Middle, &words);
            }
            let middle = area.left + WIDTH / 2.0;
            let words = format!("{unit} from the start");
            svg.text(middle, area.bottom() + 36.0, 12.0, "muted", Anchor::Middle, &words);
        }
    }
}

fn legend(svg: &mut Svg, y: f64, end_us: i64) {
    svg.rect(Area { left: LEFT, top: y - 10.0, width: 22.0, height: 12.0 }, "demand");
    svg.text(LEFT + 30.0, y, 12.0, "ink", Anchor::Start, "items at once if none waits");
    svg.line((LEFT + 216.0, y - 4.0), (LEFT + 238.0, y - 4.0), "machine-line", 2.2, "");
    svg.text(LEFT + 246.0, y, 12.0, "ink", Anchor::Start, "slots of ready machines");
    svg.line((LEFT + 416.0, y - 4.0), (LEFT + 438.0, y - 4.0), "shared-line", 1.2, "");
    svg.text(LEFT + 446.0, y, 12.0, "ink", Anchor::Start, "those and invocations");
    let words = format!("means of {:.1} s each", seconds(end_us) / f64::from(COLUMNS));
    svg.text(LEFT + WIDTH, y, 12.0, "muted", Anchor::End, &words);
}

/// What time is counted in, s, and its name.
fn unit(end_us: i64) -> (f64, &'static str) {
    match seconds(end_us) {
        all if all > 4.0 * 86_400.0 => (86_400.0, "days"),
        all if all > 3.0 * 3_600.0 => (3_600.0, "hours"),
        all if all > 180.0 => (60.0, "minutes"),
        _ => (1.0, "seconds"),
    }
}

/// A curve of stairs as its mean in each column.
fn means(curve: &[(i64, i64)], end_us: i64) -> Vec<f64> {
    let edge = |column: u32| end_us.saturating_mul(i64::from(column)) / i64::from(COLUMNS);
    let (mut rest, mut value) = (curve, 0_i64);
    let mut out = Vec::new();
    for column in 0..COLUMNS {
        let (mut now, until, mut sum) = (edge(column), edge(column + 1), 0_i128);
        while let Some(((at, next), others)) = rest.split_first().filter(|((at, _), _)| *at < until) {
            sum += i128::from(value) * i128::from((*at - now).max(0));
            (now, value, rest) = (now.max(*at), *next, others);
        }
        sum += i128::from(value) * i128::from(until - now);
        let past = seconds(until - edge(column)).max(1e-9);
        out.push(seconds(i64::try_from(sum).unwrap_or(i64::MAX)) / past);
    }
    out
}

fn stairs(levels: &[f64], x: Scale, y: Scale) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = Vec::new();
    for (level, column) in levels.iter().zip(0_u32..) {
        let height = y.at(*level);
        points.push((x.at(f64::from(column)), height));
        points.push((x.at(f64::from(column + 1)), height));
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_drawn_as_its_mean_over_each_column() {
        let end = i64::from(COLUMNS) * 1_000;
        let drawn = means(&[(0, 2), (500, 4), (1_000, 1), (end - 1_000, 0)], end);
        assert!((drawn[0] - 3.0).abs() < 1e-9 && (drawn[1] - 1.0).abs() < 1e-9, "{:?}", &drawn[..2]);
        assert!(drawn.last().unwrap().abs() < 1e-9);
    }
}
