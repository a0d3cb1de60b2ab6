//! Following a session: its change stream with logs, resumed when the connection breaks.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::{Stream, StreamExt as _};
use skein_api::client::{Following, Sent};
use skein_api::{ApiError, Client, LogPiece, SessionDetail};

/// Pause before a broken stream is opened again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(250);
/// Tries to open it again before giving up: a minute.
const RECONNECTS_MAX: u32 = 240;

/// Is the session over?
pub(crate) fn is_over(state: &str) -> bool {
    !matches!(state, "running" | "stopping")
}

type SentStream = Pin<Box<dyn Stream<Item = Result<Sent, ApiError>> + Send>>;

/// A session's stream, from its beginning to its end.
pub(crate) struct Follower {
    client: Client,
    session: String,
    what: Following,
    after: u64,
    stream: Option<SentStream>,
    failures: u32,
    pieces: Pieces,
}

impl Follower {
    /// Follows `session` from its beginning.
    pub(crate) fn new(client: &Client, session: &str, what: Following) -> Self {
        Self {
            client: client.clone(),
            session: session.to_owned(),
            what,
            after: 0,
            stream: None,
            failures: 0,
            pieces: Pieces::default(),
        }
    }

    /// What comes next; none when the session is over. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Sent>> {
        loop {
            match self.step().await {
                Ok(Step::Sent(sent)) => return Ok(Some(sent)),
                Ok(Step::Nothing) => {}
                Ok(Step::Over) => return Ok(None),
                Err(error @ ApiError::Refused { .. }) => return Err(error.into()),
                Err(error) => {
                    self.stream = None;
                    self.failures += 1;
                    if self.failures > RECONNECTS_MAX {
                        let session = &self.session;
                        return Err(error).with_context(|| {
                            format!("lost the engine; session {session} goes on without us: 'skein logs -f {session}' follows it again")
                        });
                    }
                    tokio::time::sleep(RECONNECT_PAUSE).await;
                }
            }
        }
    }

    async fn step(&mut self) -> Result<Step, ApiError> {
        if self.stream.is_none() {
            self.pieces.seen.clear();
            self.stream = Some(Box::pin(self.client.follow(&self.session, self.after, self.what).await?));
        }
        let Some(stream) = &mut self.stream else { return Ok(Step::Nothing) };
        match stream.next().await {
            Some(Ok(Sent::Event(event))) => {
                self.failures = 0;
                self.after = event.seq;
                Ok(Step::Sent(Sent::Event(event)))
            }
            Some(Ok(Sent::Log(piece))) => {
                let fresh = self.pieces.fresh(piece);
                Ok(fresh.map_or(Step::Nothing, |piece| Step::Sent(Sent::Log(piece))))
            }
            Some(Err(error)) => Err(error),
            None => {
                self.stream = None;
                let over = is_over(&self.client.session(&self.session).await?.summary.state);
                if !over {
                    tokio::time::sleep(RECONNECT_PAUSE).await;
                }
                Ok(if over { Step::Over } else { Step::Nothing })
            }
        }
    }
}

/// Bytes of each log (attempt and stream) that were handed out, and that were seen on this
/// connection: after a break the engine sends logs from their beginning again.
#[derive(Default)]
struct Pieces {
    given: BTreeMap<(String, String), usize>,
    seen: BTreeMap<(String, String), usize>,
}

impl Pieces {
    /// The part of a piece that was not handed out before.
    fn fresh(&mut self, mut piece: LogPiece) -> Option<LogPiece> {
        let key = (piece.attempt.clone(), piece.stream.clone());
        let from = self.seen.get(&key).copied().unwrap_or_default();
        let to = from + piece.text.len();
        let given = self.given.entry(key.clone()).or_default();
        let known = given.saturating_sub(from).min(piece.text.len());
        *given = to.max(*given);
        self.seen.insert(key, to);
        // Texts of one log are cut at the same bytes each time, or at a character's edge at least.
        piece.text.drain(..piece.text.floor_char_boundary(known));
        (!piece.text.is_empty()).then_some(piece)
    }
}

enum Step {
    Sent(Sent),
    Nothing,
    Over,
}

/// Names of the nodes with more than one item.
pub(crate) fn arrays(session: &SessionDetail) -> Vec<String> {
    session.nodes.iter().filter(|node| node.items.total > 1).map(|node| node.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_break_nothing_is_handed_out_twice() {
        let mut pieces = Pieces::default();
        let piece = |text: &str| LogPiece {
            attempt: "s-1.0.0.1".to_owned(),
            node: "a".to_owned(),
            index: 0,
            stream: "out".to_owned(),
            text: text.to_owned(),
        };
        assert_eq!(pieces.fresh(piece("one ")).unwrap().text, "one ");
        pieces.seen.clear();
        assert_eq!(pieces.fresh(piece("one two")).unwrap().text, "two");
        assert!(pieces.fresh(piece("")).is_none());
        pieces.seen.clear();
        assert!(pieces.fresh(piece("one")).is_none());
        assert_eq!(pieces.fresh(piece(" two three")).unwrap().text, " three");
    }
}
