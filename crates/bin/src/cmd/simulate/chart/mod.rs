//! One scenario under its policies as one SVG: what each costs beside the bound, how long items wait, and demand and
//! supply over time, a panel a policy.

mod over_time;
mod svg;

use skein_sim::{Bounds, Metrics, Scenario};

use super::report::{Outcome, money, over};
use svg::{Anchor, Area, Scale, Svg, ticks};

const WIDTH: f64 = 1200.0;
/// Left edge of what is drawn, beside the names of policies.
const LEFT: f64 = 176.0;
const BARS: f64 = 400.0;
const WAITS_LEFT: f64 = 776.0;
const WAITS: f64 = 380.0;
const HEAD: f64 = 128.0;
/// A policy's bar and the room below it.
const PITCH: f64 = 30.0;
const BAR: f64 = 16.0;
/// Waits below this are drawn as this, s: the axis is logarithmic.
const WAIT_LEAST_S: f64 = 0.01;

/// The picture.
pub(super) fn draw(scenario: &Scenario, bounds: &Bounds, outcomes: &[Outcome]) -> String {
    let rows = f64::from(u32::try_from(outcomes.len()).unwrap_or(u32::MAX));
    let upper = rows * PITCH + 60.0;
    let height = HEAD + upper + over_time::HEAD + rows * over_time::ROW + 60.0;
    let title = format!("{}: cost, waits and supply of {} policies", scenario.name, outcomes.len());
    let mut svg = Svg::new(WIDTH, height, &title, &description(bounds, outcomes));
    svg.bold(40.0, 38.0, 22.0, &title);
    let facts = format!(
        "{} items; {:.1} at once in the mean and {} at most if none waits. Nobody could pay less than {} USD.",
        scenario.items.len(),
        bounds.mean,
        bounds.peak,
        money(bounds.clairvoyant)
    );
    svg.text(40.0, 62.0, 14.0, "muted", Anchor::Start, &facts);
    let area = |left, width| Area { left, top: HEAD, width, height: rows * PITCH };
    costs(&mut svg, bounds, outcomes, area(LEFT, BARS));
    waits(&mut svg, scenario, outcomes, area(WAITS_LEFT, WAITS));
    over_time::draw(&mut svg, scenario, outcomes, HEAD + upper);
    svg.finish()
}

/// What it shows, for people who cannot see it.
fn description(bounds: &Bounds, outcomes: &[Outcome]) -> String {
    let one = |o: &Outcome| {
        let Metrics { cost, late, wait_p99, .. } = &o.metrics;
        format!("{}: {} USD, {:.3} % late, p99 wait {wait_p99:.2} s.", o.policy, money(*cost), 100.0 * late)
    };
    let all: Vec<String> = outcomes.iter().map(one).collect();
    format!("The clairvoyant bound is {} USD. {}", money(bounds.clairvoyant), all.join(" "))
}

/// The middles of the policies' lines, from the top.
fn middles(area: Area) -> impl Iterator<Item = f64> {
    (0_u32..).map(move |row| area.top + (f64::from(row) + 0.5) * PITCH)
}

fn named(svg: &mut Svg, x: f64, y: f64, words: &str) {
    svg.text(x, y + 4.0, 13.0, "ink", Anchor::End, words);
}

/// Bars: machines, then shared solutions; a line at the bound.
fn costs(svg: &mut Svg, bounds: &Bounds, outcomes: &[Outcome], area: Area) {
    svg.bold(40.0, area.top - 32.0, 16.0, "Cost");
    let key = |svg: &mut Svg, left: f64, class: &str, words: &str| {
        svg.rect(Area { left, top: area.top - 24.0, width: 14.0, height: 12.0 }, class);
        svg.text(left + 20.0, area.top - 13.0, 12.0, "ink", Anchor::Start, words);
    };
    key(svg, LEFT, "machine", "machines");
    key(svg, LEFT + 96.0, "shared", "shared solutions");
    svg.line((LEFT + 226.0, area.top - 18.0), (LEFT + 246.0, area.top - 18.0), "limit", 1.5, "5 4");
    svg.text(LEFT + 252.0, area.top - 13.0, 12.0, "ink", Anchor::Start, "clairvoyant bound");
    let most = outcomes.iter().map(|o| o.metrics.cost).chain([bounds.clairvoyant, 1e-6]).fold(0.0, f64::max);
    let x = Scale { values: (0.0, most), pixels: (area.left, area.right()) };
    horizontal(svg, area, x, &ticks(most, 5), "USD");
    for (outcome, y) in outcomes.iter().zip(middles(area)) {
        let (machines, all) = (x.at(outcome.metrics.machine_cost), x.at(outcome.metrics.cost));
        named(svg, LEFT - 10.0, y, &outcome.policy);
        let bar = |left: f64, right: f64| Area { left, top: y - BAR / 2.0, width: right - left, height: BAR };
        svg.rect(bar(area.left, machines), "machine");
        svg.rect(bar(machines, all), "shared");
        let words = format!("{}{}", money(outcome.metrics.cost), over(outcome, bounds, ", ", " x"));
        svg.text(all.max(x.at(bounds.clairvoyant)) + 6.0, y + 4.0, 12.0, "muted", Anchor::Start, &words);
    }
    let bound = x.at(bounds.clairvoyant);
    svg.line((bound, area.top), (bound, area.bottom()), "limit", 1.5, "5 4");
}

/// The waits that 50, 95 and 99 % of items did not exceed, on a logarithmic axis; a line at what is allowed.
fn waits(svg: &mut Svg, scenario: &Scenario, outcomes: &[Outcome], area: Area) {
    svg.bold(area.left, area.top - 32.0, 16.0, "Wait");
    for (left, share, words) in [(0.0, 50, "p50"), (66.0, 95, "p95"), (132.0, 99, "p99")] {
        mark(svg, (area.left + 6.0 + left, area.top - 18.0), share);
        svg.text(area.left + 18.0 + left, area.top - 13.0, 12.0, "ink", Anchor::Start, words);
    }
    let allowed_s = seconds(scenario.allowed_wait_us);
    let most = outcomes.iter().map(|o| o.metrics.wait_p99).chain([allowed_s, 1.0]).fold(0.0, f64::max);
    let decades = most.log10().ceil();
    let x = Scale { values: (WAIT_LEAST_S.log10(), decades), pixels: (area.left, area.right()) };
    let marks = (-2_i32..12).map(f64::from).take_while(|decade| *decade <= decades);
    let marks: Vec<(f64, String)> = marks.map(|decade| (decade, format!("{}", 10_f64.powf(decade)))).collect();
    horizontal(svg, area, x, &marks, "s, from arrival to start (0.01 and less at the left)");
    let place = |wait: f64| x.at(wait.max(WAIT_LEAST_S).log10());
    for (outcome, y) in outcomes.iter().zip(middles(area)) {
        let Metrics { wait_p50, wait_p95, wait_p99, .. } = &outcome.metrics;
        svg.line((place(*wait_p50), y), (place(*wait_p99), y), "axis", 1.5, "");
        for (wait, share) in [(*wait_p99, 99), (*wait_p95, 95), (*wait_p50, 50)] {
            mark(svg, (place(wait), y), share);
        }
    }
    if scenario.allowed_waits_us.is_empty() && allowed_s > 0.0 {
        let at = place(allowed_s);
        svg.line((at, area.top), (at, area.bottom()), "limit", 1.5, "5 4");
        let words = format!("allowed: {allowed_s} s");
        svg.text(area.left + 216.0, area.top - 13.0, 12.0, "ink", Anchor::Start, &words);
        svg.line((area.left + 190.0, area.top - 18.0), (area.left + 210.0, area.top - 18.0), "limit", 1.5, "5 4");
    }
}

/// A dot, a square or a triangle: what differs in colour differs in shape.
fn mark(svg: &mut Svg, (x, y): (f64, f64), share: u32) {
    match share {
        50 => svg.dot((x, y), 5.0, "machine"),
        95 => svg.rect(Area { left: x - 4.5, top: y - 4.5, width: 9.0, height: 9.0 }, "shared"),
        _ => svg.polygon(&[(x - 6.0, y + 5.0), (x + 6.0, y + 5.0), (x, y - 6.0)], "ink"),
    }
}

/// Lines down to an axis at the bottom, with words and what they count.
fn horizontal(svg: &mut Svg, area: Area, scale: Scale, ticks: &[(f64, String)], name: &str) {
    let bottom = area.bottom();
    for (tick, words) in ticks {
        let x = scale.at(*tick);
        svg.line((x, area.top), (x, bottom), "grid", 1.0, "");
        svg.text(x, bottom + 17.0, 12.0, "muted", Anchor::Middle, words);
    }
    svg.line((area.left, bottom), (area.right(), bottom), "axis", 1.0, "");
    svg.text(area.left + area.width / 2.0, bottom + 35.0, 12.0, "muted", Anchor::Middle, name);
}

#[expect(clippy::cast_precision_loss, reason = "drawn")]
fn seconds(us: i64) -> f64 {
    us as f64 / 1e6
}
