//! Writing to the terminal: lines, JSON, tables without borders.

use std::io::{ErrorKind, Write as _};

use comfy_table::{Cell, CellAlignment, ContentArrangement, presets};
use serde::Serialize;

/// Writes to standard output. When nobody reads any more (`skein session list | head`) there is
/// nothing left to do.
pub(crate) fn raw(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(bytes).and_then(|()| out.flush()) {
        let code = i32::from(error.kind() != ErrorKind::BrokenPipe);
        std::process::exit(code);
    }
}

/// One line on standard output.
pub(crate) fn line(text: &str) {
    raw(format!("{text}\n").as_bytes());
}

/// One line on standard error; nothing can be done when that fails.
pub(crate) fn note(text: &str) {
    writeln!(std::io::stderr().lock(), "{text}").unwrap_or_default();
}

/// A value as JSON, for programs: indented, one value.
pub(crate) fn json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?);
    Ok(())
}

/// A table: a header, columns two spaces apart.
pub(crate) struct Table {
    inner: comfy_table::Table,
    right: Vec<usize>,
    columns: usize,
}

impl Table {
    /// With these column names.
    pub(crate) fn new(header: &[&str]) -> Self {
        let mut inner = comfy_table::Table::new();
        inner.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        inner.set_header(header.iter().map(|name| Cell::new(name.to_uppercase())));
        Self { inner, right: Vec::new(), columns: header.len() }
    }

    /// These columns hold numbers.
    pub(crate) fn right(mut self, columns: &[usize]) -> Self {
        self.right = columns.to_vec();
        self
    }

    /// Adds a row.
    pub(crate) fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.inner.add_row(cells.into_iter().map(|text| Cell::new(text.as_ref())));
    }

    /// As text, without blanks at line ends.
    pub(crate) fn render(mut self) -> String {
        for (at, column) in self.inner.column_iter_mut().enumerate() {
            let last = at + 1 == self.columns;
            column.set_padding((0, if last { 0 } else { 2 }));
            if self.right.contains(&at) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let lines: Vec<String> = self.inner.lines().map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n")
    }

    /// Prints it.
    pub(crate) fn print(self) {
        line(&self.render());
    }
}
