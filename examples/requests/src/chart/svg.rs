//! The few SVG elements the chart needs, and linear scales with round ticks.

use std::fmt::{self, Write as _};

use super::colour;

const FONT: &str = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif";

/// Where a text hangs on its point.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A rectangle in pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Area {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Area {
    pub(super) fn right(self) -> f64 {
        self.left + self.width
    }

    pub(super) fn bottom(self) -> f64 {
        self.top + self.height
    }
}

/// A linear scale from values to pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub(super) values: (f64, f64),
    pub(super) pixels: (f64, f64),
}

impl Scale {
    pub(super) fn at(self, value: f64) -> f64 {
        let share = (value - self.values.0) / (self.values.1 - self.values.0);
        self.pixels.0 + share * (self.pixels.1 - self.pixels.0)
    }
}

/// The smallest of 1, 2, 5, 10, 20, 50, ... that needs at most `most` steps to reach `top`.
pub(super) fn tick_step(top: f64, most: f64) -> f64 {
    let mut decade = 1.0;
    loop {
        for step in [1.0, 2.0, 5.0] {
            if top <= step * decade * most {
                return step * decade;
            }
        }
        decade *= 10.0;
        if decade > 1e12 {
            return decade;
        }
    }
}

/// Multiples of `step` from `first` to `last`.
pub(super) fn ticks(first: f64, last: f64, step: f64) -> Vec<f64> {
    let mut out = Vec::new();
    let mut tick = (first / step).ceil() * step;
    while tick <= last + step * 1e-9 && out.len() < 100 {
        out.push(tick);
        tick += step;
    }
    out
}

/// An SVG being written.
#[derive(Debug)]
pub(super) struct Svg {
    out: String,
}

impl Svg {
    /// A white page with an accessible title and description.
    pub(super) fn new(width: f64, height: f64, title: &str, description: &str) -> Self {
        let mut svg = Self { out: String::new() };
        svg.push(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\" aria-labelledby=\"title desc\" font-family=\"{FONT}\">"
        ));
        svg.push(format_args!("<title id=\"title\">{}</title>", escaped(title)));
        svg.push(format_args!("<desc id=\"desc\">{}</desc>", escaped(description)));
        svg.push(format_args!("<rect width=\"{width:.0}\" height=\"{height:.0}\" fill=\"#ffffff\"/>"));
        svg
    }

    pub(super) fn finish(mut self) -> String {
        self.out.push_str("</svg>\n");
        self.out
    }

    fn push(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        writeln!(self.out, "{line}").unwrap_or_default();
    }

    pub(super) fn rect(&mut self, area: Area, fill: &str, opacity: f64) {
        self.push(format_args!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{fill}\" fill-opacity=\"{opacity}\"/>",
            area.left, area.top, area.width, area.height
        ));
    }

    /// A line; `dashes` is an SVG dash array or empty.
    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), stroke: &str, width: f64, dashes: &str) {
        let dashes = if dashes.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{dashes}\"") };
        self.push(format_args!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{stroke}\" stroke-width=\"{width}\"{dashes}/>",
            from.0, from.1, to.0, to.1
        ));
    }

    pub(super) fn polyline(&mut self, points: &[(f64, f64)], stroke: &str, width: f64) {
        let points = joined(points);
        self.push(format_args!(
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{stroke}\" stroke-width=\"{width}\" stroke-linejoin=\"round\"/>"
        ));
    }

    pub(super) fn polygon(&mut self, points: &[(f64, f64)], fill: &str, opacity: f64) {
        let points = joined(points);
        self.push(format_args!("<polygon points=\"{points}\" fill=\"{fill}\" fill-opacity=\"{opacity}\"/>"));
    }

    pub(super) fn dot(&mut self, at: (f64, f64), radius: f64, fill: &str) {
        self.push(format_args!(
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius}\" fill=\"{fill}\" stroke=\"#ffffff\" stroke-width=\"1.5\"/>",
            at.0, at.1
        ));
    }

    pub(super) fn text(&mut self, x: f64, y: f64, size: f64, fill: &str, anchor: Anchor, words: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.push(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" fill=\"{fill}\" text-anchor=\"{anchor}\">{}</text>",
            escaped(words)
        ));
    }

    pub(super) fn bold(&mut self, x: f64, y: f64, size: f64, fill: &str, words: &str) {
        self.push(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" font-weight=\"600\" fill=\"{fill}\">{}</text>",
            escaped(words)
        ));
    }

    /// Upright text beside a vertical axis, read from below.
    pub(super) fn axis_name(&mut self, x: f64, y: f64, words: &str) {
        self.push(format_args!(
            "<text transform=\"translate({x:.1} {y:.1}) rotate(-90)\" font-size=\"12\" fill=\"{}\" text-anchor=\"middle\">{}</text>",
            colour::MUTED,
            escaped(words)
        ));
    }

    /// Grid lines with numbers at the left, and the line at the bottom.
    pub(super) fn vertical_axis(&mut self, area: Area, scale: Scale, step: f64) {
        for tick in ticks(scale.values.0, scale.values.1, step) {
            let y = scale.at(tick);
            self.line((area.left, y), (area.right(), y), colour::GRID, 1.0, "");
            let words = format!("{tick:.0}");
            self.text(area.left - 8.0, y + 4.0, 12.0, colour::MUTED, Anchor::End, &words);
        }
    }

    /// Ticks with numbers below the area, and what they count.
    pub(super) fn horizontal_axis(&mut self, area: Area, scale: Scale, step: f64, name: &str) {
        let bottom = area.bottom();
        self.line((area.left, bottom), (area.right(), bottom), colour::AXIS, 1.0, "");
        for tick in ticks(scale.values.0, scale.values.1, step) {
            let x = scale.at(tick);
            self.line((x, bottom), (x, bottom + 5.0), colour::AXIS, 1.0, "");
            let words = format!("{tick:.0}");
            self.text(x, bottom + 19.0, 12.0, colour::MUTED, Anchor::Middle, &words);
        }
        let middle = area.left + area.width / 2.0;
        self.text(middle, bottom + 37.0, 12.0, colour::MUTED, Anchor::Middle, name);
    }
}

fn joined(points: &[(f64, f64)]) -> String {
    let mut out = String::with_capacity(points.len() * 12);
    for (x, y) in points {
        let gap = if out.is_empty() { "" } else { " " };
        write!(out, "{gap}{x:.1},{y:.1}").unwrap_or_default();
    }
    out
}

/// Text as XML character data.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert!((tick_step(62.0, 5.0) - 20.0).abs() < f64::EPSILON);
        assert!((tick_step(24.0, 5.0) - 5.0).abs() < f64::EPSILON);
        assert!((tick_step(3.0, 5.0) - 1.0).abs() < f64::EPSILON);
        assert_eq!(ticks(0.0, 60.0, 20.0).len(), 4);
        assert_eq!(ticks(50.0, 200.0, 50.0).len(), 4);
    }

    #[test]
    fn names_from_a_file_cannot_break_the_picture() {
        assert_eq!(escaped("<script> & co"), "&lt;script&gt; &amp; co");
    }
}
