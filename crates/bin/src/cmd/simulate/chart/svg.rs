//! The few SVG elements that the charts need, and scales with round ticks. Colours are classes, so that one picture is
//! legible on white and, where its reader prefers that, on black; hues are those of Okabe and Ito (2008), which people
//! with any kind of colour vision tell apart, and what differs in hue differs in shape or lightness too.

use std::fmt::{self, Write as _};

const FONT: &str = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif";

const STYLE: &str = "\
.page{fill:#ffffff}.ink{fill:#1f2933}.muted{fill:#52606d}.grid{stroke:#e4e7eb}.axis{stroke:#9aa5b1}.demand{fill:#d3d9e0}
.machine{fill:#0072b2}.machine-line{stroke:#0072b2}.shared{fill:#e69f00}.shared-line{stroke:#d55e00}.limit{stroke:#1f2933}
@media (prefers-color-scheme:dark){.page{fill:#14181d}.ink{fill:#e4e7eb}.muted{fill:#a9b4c0}.grid{stroke:#2b333c}
.axis{stroke:#66727f}.demand{fill:#434e5a}.machine{fill:#56b4e9}.machine-line{stroke:#56b4e9}.shared{fill:#e69f00}
.shared-line{stroke:#e69f00}.limit{stroke:#e4e7eb}}";

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

/// Multiples of a round number (1, 2 or 5 times a power of ten) from 0 to `top`, at most `most` beside 0; as numbers and
/// as words.
pub(super) fn ticks(top: f64, most: u32) -> Vec<(f64, String)> {
    let least = (top / f64::from(most)).max(1e-9);
    let decade = 10_f64.powf(least.log10().floor());
    let gap = [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * decade).find(|gap| *gap >= least * 0.999_999);
    let gap = gap.unwrap_or(10.0 * decade);
    let digits = (0..9).find(|digits| gap * 10_f64.powi(*digits) >= 0.999_999).unwrap_or(9);
    let digits = usize::try_from(digits).unwrap_or(0);
    let numbers = (0..=most + 1).map(|number| f64::from(number) * gap);
    numbers
        .take_while(|number| *number <= top * 1.000_001)
        .map(|number| (number, format!("{number:.digits$}")))
        .collect()
}

/// An SVG being written.
#[derive(Debug)]
pub(super) struct Svg {
    out: String,
}

impl Svg {
    /// A page with an accessible title and description.
    pub(super) fn new(width: f64, height: f64, title: &str, description: &str) -> Self {
        let mut svg = Self { out: String::new() };
        svg.push(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\" aria-labelledby=\"title desc\" font-family=\"{FONT}\">"
        ));
        svg.push(format_args!("<title id=\"title\">{}</title>", escaped(title)));
        svg.push(format_args!("<desc id=\"desc\">{}</desc>", escaped(description)));
        svg.push(format_args!("<style>{STYLE}</style>"));
        svg.rect(Area { left: 0.0, top: 0.0, width, height }, "page");
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

    pub(super) fn rect(&mut self, area: Area, class: &str) {
        self.push(format_args!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" class=\"{class}\"/>",
            area.left, area.top, area.width, area.height
        ));
    }

    /// A line; `dashes` is an SVG dash array or empty.
    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str, width: f64, dashes: &str) {
        let dashes = if dashes.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{dashes}\"") };
        self.push(format_args!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" class=\"{class}\" stroke-width=\"{width}\"{dashes}/>",
            from.0, from.1, to.0, to.1
        ));
    }

    pub(super) fn polyline(&mut self, points: &[(f64, f64)], class: &str, width: f64, dashes: &str) {
        let dashes = if dashes.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{dashes}\"") };
        self.push(format_args!(
            "<polyline points=\"{}\" fill=\"none\" class=\"{class}\" stroke-width=\"{width}\" stroke-linejoin=\"round\"{dashes}/>",
            joined(points)
        ));
    }

    pub(super) fn polygon(&mut self, points: &[(f64, f64)], class: &str) {
        self.push(format_args!("<polygon points=\"{}\" class=\"{class}\"/>", joined(points)));
    }

    pub(super) fn dot(&mut self, at: (f64, f64), radius: f64, class: &str) {
        self.push(format_args!("<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius}\" class=\"{class}\"/>", at.0, at.1));
    }

    pub(super) fn text(&mut self, x: f64, y: f64, size: f64, class: &str, anchor: Anchor, words: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.push(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" class=\"{class}\" text-anchor=\"{anchor}\">{}</text>",
            escaped(words)
        ));
    }

    pub(super) fn bold(&mut self, x: f64, y: f64, size: f64, words: &str) {
        self.push(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" font-weight=\"600\" class=\"ink\">{}</text>",
            escaped(words)
        ));
    }

    /// Upright text beside a vertical axis, read from below.
    pub(super) fn axis_name(&mut self, x: f64, y: f64, words: &str) {
        self.push(format_args!(
            "<text transform=\"translate({x:.1} {y:.1}) rotate(-90)\" font-size=\"12\" class=\"muted\" text-anchor=\"middle\">{}</text>",
            escaped(words)
        ));
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
    fn ticks_are_round_few_and_have_the_digits_they_need() {
        let words = |top, most| ticks(top, most).into_iter().map(|(_, words)| words).collect::<Vec<_>>();
        assert_eq!(words(62.0, 4), ["0", "20", "40", "60"]);
        assert_eq!(words(0.24, 5), ["0.00", "0.05", "0.10", "0.15", "0.20"]);
        assert_eq!(words(2.6, 6), ["0.0", "0.5", "1.0", "1.5", "2.0", "2.5"]);
    }

    #[test]
    fn names_from_a_file_cannot_break_the_picture() {
        assert_eq!(escaped("<script> & co"), "&lt;script&gt; &amp; co");
    }
}
