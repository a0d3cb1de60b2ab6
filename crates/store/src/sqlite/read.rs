//! Queries.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{OptionalExtension as _, Params, Row, params};
use skein_domain::{
    AttemptEnd, AttemptKey, Digest, Image, InstanceId, ItemKey, NodeKey, OutputFile, SessionId, SessionSpec,
    SolutionId, Timestamp, UserName,
};

use super::load::parse;
use super::{SqliteReader, int};
use crate::row::{
    AgentIdentity, AttemptRow, Document, DocumentKind, EventRow, ItemRow, JoinTokenRow, Page, ReplyRow, SecretRow,
    SessionRow, TokenRow,
};
use crate::{Reader, StoreError};

impl SqliteReader {
    fn list<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl Fn(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut query = self.connection.prepare_cached(sql)?;
        let mut rows = query.query(values)?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(read(row)?);
        }
        Ok(all)
    }

    fn session_row(&self, row: &Row<'_>) -> Result<SessionRow, StoreError> {
        let id = SessionId(row.get::<_, i64>(0)?.unsigned_abs());
        let (user, state): (String, String) = (row.get(2)?, row.get(3)?);
        let nodes = self.list("SELECT body FROM nodes WHERE session = ?1 ORDER BY node", [int(id.0)], |row| {
            parse("nodes", id, &row.get::<_, String>(0)?)
        })?;
        Ok(SessionRow {
            id,
            name: row.get(1)?,
            user: name("sessions", &user)?,
            state: parse("sessions", id, &state)?,
            created_at: Timestamp(row.get(4)?),
            ended_at: row.get::<_, Option<i64>>(5)?.map(Timestamp),
            nodes,
        })
    }
}

fn name<T: std::str::FromStr<Err = skein_domain::id::BadId>>(table: &'static str, text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|e: skein_domain::id::BadId| StoreError::Corrupt {
        table,
        key: text.to_owned(),
        why: e.to_string(),
    })
}

const SESSION: &str = "SELECT id, name, user, state, created_at, ended_at FROM sessions";

fn item_row(node: NodeKey, row: &Row<'_>) -> Result<ItemRow, StoreError> {
    let key = node.item(row.get(0)?);
    let open: Option<String> = row.get(1)?;
    let (ended, at): (Option<String>, Option<i64>) = (row.get(2)?, row.get(3)?);
    Ok(ItemRow {
        key,
        open: open.map(|text| parse("items", key, &text)).transpose()?,
        ended: match (ended, at) {
            (Some(end), Some(at)) => Some((parse("items", key, &end)?, Timestamp(at))),
            _ => None,
        },
    })
}

fn attempt_row(row: &Row<'_>) -> Result<AttemptRow, StoreError> {
    let (body, ending, at): (String, Option<String>, Option<i64>) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let attempt: skein_domain::Attempt = parse("attempts", "?", &body)?;
    let ended = match (ending, at) {
        (Some(end), Some(at)) => Some((parse("attempts", attempt.key, &end)?, Timestamp(at))),
        _ => None,
    };
    Ok(AttemptRow { attempt, ended })
}

fn document_row(row: &Row<'_>) -> Result<Document, StoreError> {
    let (kind, name_text, body, user): (String, String, String, String) =
        (row.get(0)?, row.get(1)?, row.get(3)?, row.get(4)?);
    Ok(Document {
        kind: if kind == "task" { DocumentKind::Task } else { DocumentKind::Thread },
        version: row.get::<_, i64>(2)?.unsigned_abs(),
        body: parse("documents", &name_text, &body)?,
        name: name_text,
        user: name("documents", &user)?,
        at: Timestamp(row.get(5)?),
    })
}

fn identity_row(row: &Row<'_>) -> Result<AgentIdentity, StoreError> {
    let (instance, solution): (String, String) = (row.get(0)?, row.get(1)?);
    Ok(AgentIdentity {
        instance: name::<InstanceId>("identities", &instance)?,
        solution: name::<SolutionId>("identities", &solution)?,
        public_key: row.get(2)?,
    })
}

impl Reader for SqliteReader {
    fn sessions(&self, page: Page) -> Result<Vec<SessionRow>, StoreError> {
        let sql = format!("{SESSION} ORDER BY id DESC LIMIT ?1 OFFSET ?2");
        self.list(&sql, params![page.limit, int(page.offset)], |row| self.session_row(row))
    }

    fn session(&self, id: SessionId) -> Result<Option<SessionRow>, StoreError> {
        Ok(self.list(&format!("{SESSION} WHERE id = ?1"), [int(id.0)], |row| self.session_row(row))?.pop())
    }

    fn session_is_over(&self, id: SessionId) -> Result<bool, StoreError> {
        let mut query = self.connection.prepare_cached("SELECT ended_at IS NOT NULL FROM sessions WHERE id = ?1")?;
        Ok(query.query_row([int(id.0)], |row| row.get(0)).optional()?.unwrap_or(true))
    }

    fn session_spec(&self, id: SessionId) -> Result<Option<SessionSpec>, StoreError> {
        let mut query = self.connection.prepare_cached("SELECT spec FROM specs WHERE session = ?1")?;
        let spec: Option<String> = query.query_row([int(id.0)], |row| row.get(0)).optional()?;
        spec.map(|text| parse("sessions", id, &text)).transpose()
    }

    fn items(&self, node: NodeKey, page: Page) -> Result<Vec<ItemRow>, StoreError> {
        let sql =
            "SELECT idx, open, ended, at FROM items WHERE session = ?1 AND node = ?2 ORDER BY idx LIMIT ?3 OFFSET ?4";
        let values = params![int(node.session.0), node.node, page.limit, int(page.offset)];
        self.list(sql, values, |row| item_row(node, row))
    }

    fn item(&self, item: ItemKey) -> Result<Option<ItemRow>, StoreError> {
        let sql = "SELECT idx, open, ended, at FROM items WHERE session = ?1 AND node = ?2 AND idx = ?3";
        let values = params![int(item.session().0), item.node.node, item.index];
        Ok(self.list(sql, values, |row| item_row(item.node, row))?.pop())
    }

    fn attempts(&self, session: SessionId, page: Page) -> Result<Vec<AttemptRow>, StoreError> {
        let sql =
            "SELECT body, ending, at FROM attempts WHERE session = ?1 ORDER BY node, idx, number LIMIT ?2 OFFSET ?3";
        self.list(sql, params![int(session.0), page.limit, int(page.offset)], attempt_row)
    }

    fn attempts_after(
        &self,
        session: SessionId,
        after: Option<AttemptKey>,
        limit: u32,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        let sql = "SELECT body, ending, at FROM attempts WHERE session = ?1 AND (node, idx, number) > (?2, ?3, ?4)
             ORDER BY node, idx, number LIMIT ?5";
        let (node, index, number) = after.map_or((-1, 0, 0), |key| {
            (i64::from(key.item.node.node), i64::from(key.item.index), i64::from(key.number))
        });
        self.list(sql, params![int(session.0), node, index, number, limit], attempt_row)
    }

    fn places(&self, session: SessionId, limit: u32) -> Result<Vec<(String, u64)>, StoreError> {
        let sql = "SELECT place, count(*) FROM (SELECT place FROM attempts WHERE session = ?1 LIMIT ?2)
             GROUP BY place ORDER BY place";
        self.list(sql, params![int(session.0), limit], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))
    }

    fn attempts_at(&self, item: ItemKey) -> Result<Vec<AttemptRow>, StoreError> {
        let sql = "SELECT body, ending, at FROM attempts WHERE session = ?1 AND node = ?2 AND idx = ?3 ORDER BY number";
        self.list(sql, params![int(item.session().0), item.node.node, item.index], attempt_row)
    }

    fn attempt(&self, key: AttemptKey) -> Result<Option<AttemptRow>, StoreError> {
        let sql = "SELECT body, ending, at FROM attempts WHERE session = ?1 AND node = ?2 AND idx = ?3 AND number = ?4";
        let values = params![int(key.item.session().0), key.item.node.node, key.item.index, key.number];
        Ok(self.list(sql, values, attempt_row)?.pop())
    }

    fn outputs(&self, node: NodeKey) -> Result<Vec<(u32, Vec<OutputFile>)>, StoreError> {
        let sql = "SELECT idx, ending FROM attempts WHERE session = ?1 AND node = ?2 AND ending IS NOT NULL ORDER BY idx, number";
        let all = self.list(sql, params![int(node.session.0), node.node], |row| {
            let (index, ending): (u32, String) = (row.get(0)?, row.get(1)?);
            let end: AttemptEnd = parse("attempts", format!("{node}.{index}"), &ending)?;
            Ok((index, end))
        })?;
        let good = all.into_iter().filter(|(_, end)| end.cause == skein_domain::EndCause::Succeeded);
        Ok(good.map(|(index, end)| (index, end.outputs)).collect::<BTreeMap<_, _>>().into_iter().collect())
    }

    fn events(&self, after: u64, session: Option<SessionId>, limit: u32) -> Result<Vec<EventRow>, StoreError> {
        let read = |row: &Row<'_>| {
            let seq = row.get::<_, i64>(0)?.unsigned_abs();
            let event = parse("events", seq, &row.get::<_, String>(3)?)?;
            Ok(EventRow { seq, turn: row.get::<_, i64>(1)?.unsigned_abs(), at: Timestamp(row.get(2)?), event })
        };
        match session {
            None => self.list(
                "SELECT seq, turn, at, body FROM events WHERE seq > +?1 ORDER BY seq LIMIT ?2",
                params![int(after), limit],
                read,
            ),
            Some(session) => self.list(
                // The plus keeps SQLite from planning anew for each value.
                "SELECT seq, turn, at, body FROM events WHERE session = +?3 AND seq > +?1 ORDER BY seq LIMIT ?2",
                params![int(after), limit, int(session.0)],
                read,
            ),
        }
    }

    fn event_bounds(&self) -> Result<(u64, u64), StoreError> {
        // The sequence remembers the newest number after its event is gone; the oldest is then the next.
        let mut query = self.connection.prepare_cached(
            "SELECT newest, coalesce((SELECT min(seq) FROM events), newest + 1)
             FROM (SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0) AS newest)",
        )?;
        let (newest, oldest): (i64, i64) = query.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok((newest.unsigned_abs(), oldest.unsigned_abs()))
    }

    fn documents(&self, kind: DocumentKind) -> Result<Vec<Document>, StoreError> {
        let sql = "SELECT kind, name, max(version), body, user, at FROM documents WHERE kind = ?1 AND removed = 0
                   GROUP BY name ORDER BY name";
        self.list(sql, [kind.word()], document_row)
    }

    fn document(&self, kind: DocumentKind, name: &str, version: Option<u64>) -> Result<Option<Document>, StoreError> {
        // A removed document is out of the listing, but its versions can still be read by number.
        let sql = "SELECT kind, name, version, body, user, at FROM documents
                   WHERE kind = ?1 AND name = ?2 AND (version = ?3 OR (?3 IS NULL AND removed = 0))
                   ORDER BY version DESC LIMIT 1";
        Ok(self.list(sql, params![kind.word(), name, version.map(int)], document_row)?.pop())
    }

    fn last_version(&self, kind: DocumentKind, name: &str) -> Result<u64, StoreError> {
        let sql = "SELECT coalesce(max(version), 0) FROM documents WHERE kind = ?1 AND name = ?2";
        let mut query = self.connection.prepare_cached(sql)?;
        let last: i64 = query.query_row(params![kind.word(), name], |row| row.get(0))?;
        Ok(last.unsigned_abs())
    }

    fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        self.list("SELECT id, hash, user, created_at FROM tokens ORDER BY created_at", [], |row| {
            let user: String = row.get(2)?;
            let user: UserName = name("tokens", &user)?;
            Ok(TokenRow { id: row.get(0)?, hash: row.get(1)?, user, created_at: Timestamp(row.get(3)?) })
        })
    }

    fn join_token(&self, hash: &str) -> Result<Option<JoinTokenRow>, StoreError> {
        let read = |row: &Row<'_>| {
            Ok(JoinTokenRow { hash: row.get(0)?, expires_at: Timestamp(row.get(1)?), used: row.get(2)? })
        };
        Ok(self.list("SELECT hash, expires_at, used FROM join_tokens WHERE hash = ?1", [hash], read)?.pop())
    }

    fn identities(&self) -> Result<Vec<AgentIdentity>, StoreError> {
        self.list("SELECT instance, solution, public_key FROM identities ORDER BY instance", [], identity_row)
    }

    fn identity(&self, instance: &InstanceId) -> Result<Option<AgentIdentity>, StoreError> {
        let sql = "SELECT instance, solution, public_key FROM identities WHERE instance = ?1";
        Ok(self.list(sql, [instance.as_str()], identity_row)?.pop())
    }

    fn secrets(&self) -> Result<Vec<SecretRow>, StoreError> {
        self.list("SELECT name, sealed, at FROM secrets ORDER BY name", [], |row| {
            Ok(SecretRow { name: row.get(0)?, sealed: row.get(1)?, at: Timestamp(row.get(2)?) })
        })
    }

    fn images(&self) -> Result<Vec<Image>, StoreError> {
        self.list("SELECT id, body FROM images ORDER BY at DESC, id", [], |row| {
            parse("images", row.get::<_, String>(0)?, &row.get::<_, String>(1)?)
        })
    }

    fn image(&self, id: &Digest) -> Result<Option<Image>, StoreError> {
        let found = self.list("SELECT id, body FROM images WHERE id = ?1", [id.as_str()], |row| {
            parse("images", row.get::<_, String>(0)?, &row.get::<_, String>(1)?)
        })?;
        Ok(found.into_iter().next())
    }

    fn receivers(&self) -> Result<Vec<String>, StoreError> {
        self.list("SELECT DISTINCT receiver FROM replies", [], |row| Ok(row.get(0)?))
    }

    fn replies(&self, receiver: &str, limit: u32) -> Result<Vec<ReplyRow>, StoreError> {
        let sql = "SELECT id, at, body FROM replies WHERE receiver = ?1 ORDER BY id LIMIT ?2";
        self.list(sql, params![receiver, limit], |row| {
            Ok(ReplyRow { id: row.get::<_, i64>(0)?.unsigned_abs(), at: Timestamp(row.get(1)?), body: row.get(2)? })
        })
    }

    fn client_key(&self, user: &str, key: &str) -> Result<Option<SessionId>, StoreError> {
        let sql = "SELECT session FROM client_keys WHERE user = ?1 AND key = ?2";
        Ok(self.list(sql, [user, key], |row| Ok(SessionId(row.get::<_, i64>(0)?.unsigned_abs())))?.pop())
    }

    fn referenced(&self) -> Result<BTreeSet<Digest>, StoreError> {
        let mut all: BTreeSet<Digest> = self
            .list("SELECT DISTINCT digest FROM file_refs", [], |row| {
                let text: String = row.get(0)?;
                Digest::new(&text).map_err(|e| StoreError::Corrupt {
                    table: "file_refs",
                    key: text,
                    why: e.to_string(),
                })
            })?
            .into_iter()
            .collect();
        let bodies =
            self.list("SELECT body FROM documents WHERE removed = 0", [], |row| Ok(row.get::<_, String>(0)?))?;
        for body in bodies {
            collect_digests(&parse("documents", "?", &body)?, &mut all);
        }
        Ok(all)
    }
}

/// Every text in a document that has the form of a digest counts as a reference to it.
fn collect_digests(value: &serde_json::Value, into: &mut BTreeSet<Digest>) {
    match value {
        serde_json::Value::String(text) => into.extend(Digest::new(text)),
        serde_json::Value::Array(all) => all.iter().for_each(|v| collect_digests(v, into)),
        serde_json::Value::Object(map) => map.values().for_each(|v| collect_digests(v, into)),
        _ => {}
    }
}
