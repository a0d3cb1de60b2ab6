//! Logs on the terminal: of one item its bytes as they are, of many a line each behind its item.

use std::collections::BTreeMap;
use std::io::Write as _;

use skein_api::{Client, LogPiece, SessionDetail};

use crate::follow::arrays;
use crate::show;

/// What stands for bytes that are no UTF-8 in a followed log.
const REPLACED: char = '\u{fffd}';

/// Nobody reads any more what we write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unread;

/// An attempt's key, and `out` or `err`.
type LogKey = (String, String);

/// Writes log pieces.
pub(crate) struct LogPrinter {
    /// Names of the nodes that are arrays; none when bytes are written as they are.
    arrays: Option<Vec<String>>,
    /// Lines that have no end yet, by item and stream.
    partial: BTreeMap<LogKey, String>,
    /// Bytes written of each log as it is.
    written: BTreeMap<LogKey, usize>,
    /// Logs with bytes that are no text: the rest of them is fetched at the end.
    held: Vec<LogKey>,
    /// Standard error goes to standard output, too.
    one_way: bool,
}

impl LogPrinter {
    fn new(arrays: Option<Vec<String>>) -> Self {
        Self { arrays, partial: BTreeMap::new(), written: BTreeMap::new(), held: Vec::new(), one_way: false }
    }

    /// Everything to standard output when `yes`.
    pub(crate) fn one_way(self, yes: bool) -> Self {
        Self { one_way: yes, ..self }
    }

    /// Bytes as they are.
    pub(crate) fn plain() -> Self {
        Self::new(None)
    }

    /// Each line behind its item.
    pub(crate) fn prefixed(session: &SessionDetail) -> Self {
        Self::new(Some(arrays(session)))
    }

    /// Writes one piece: `out` to standard output, `err` to standard error.
    pub(crate) fn piece(&mut self, piece: &LogPiece) -> Result<(), Unread> {
        let Some(arrays) = &self.arrays else { return self.as_it_is(piece) };
        let name = show::item(&piece.node, piece.index, arrays.contains(&piece.node));
        let partial = self.partial.entry((name.clone(), piece.stream.clone())).or_default();
        partial.push_str(&piece.text);
        let Some(end) = partial.rfind('\n') else { return Ok(()) };
        let rest = partial.split_off(end + 1);
        let lines = std::mem::replace(partial, rest);
        let mut text = String::with_capacity(lines.len() * 2);
        for line in lines.lines() {
            text.extend([name.as_str(), " | ", line, "\n"]);
        }
        self.write(&piece.stream, text.as_bytes())
    }

    fn as_it_is(&mut self, piece: &LogPiece) -> Result<(), Unread> {
        let key = (piece.attempt.clone(), piece.stream.clone());
        if self.held.contains(&key) {
            return Ok(());
        }
        if piece.text.contains(REPLACED) {
            self.held.push(key);
            return Ok(());
        }
        *self.written.entry(key).or_default() += piece.text.len();
        self.write(&piece.stream, piece.text.as_bytes())
    }

    /// Writes what is left: lines without an end, and logs that are no text, byte by byte.
    pub(crate) async fn finish(mut self, client: &Client) -> anyhow::Result<()> {
        for ((name, stream), rest) in &self.partial {
            if !rest.is_empty() && self.write(stream, format!("{name} | {rest}\n").as_bytes()).is_err() {
                return Ok(());
            }
        }
        for key in std::mem::take(&mut self.held) {
            let (attempt, stream) = &key;
            let bytes = client.log(attempt, stream).await?;
            let from = self.written.get(&key).copied().unwrap_or_default();
            if self.write(stream, bytes.get(from..).unwrap_or_default()).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Writes bytes where their stream goes. That standard error cannot be written says nothing
    /// about whether the output is read.
    fn write(&self, stream: &str, bytes: &[u8]) -> Result<(), Unread> {
        if stream == "err" && !self.one_way {
            std::io::stderr().lock().write_all(bytes).unwrap_or_default();
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(|_| Unread)
    }
}
