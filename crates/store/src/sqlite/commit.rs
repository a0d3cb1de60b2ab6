//! One turn, one transaction; and the retention.

use rusqlite::{Connection, Transaction, params};
use serde::Serialize;
use skein_domain::decide::change::Change;
use skein_domain::{Attempt, AttemptEnd, ItemKey, Session, SessionId, Timestamp};

use super::{SqliteLedger, int};
use crate::row::{DocumentKind, Limits, Removed, Side, Turn};
use crate::{Ledger, StoreError};

impl Ledger for SqliteLedger {
    fn load(&mut self) -> Result<skein_domain::decide::snapshot::Stored, StoreError> {
        super::load::load(&self.connection)
    }

    fn commit(&mut self, turn: &Turn<'_>) -> Result<(), StoreError> {
        self.unfinished += 1;
        self.write(turn).map_err(|error| self.explained(error))
    }

    fn retain(&mut self, limits: &Limits, now: Timestamp) -> Result<Removed, StoreError> {
        let before = |age_ms: u64| now.0.saturating_sub(i64::try_from(age_ms).unwrap_or(i64::MAX).saturating_mul(1000));
        self.unfinished += 1;
        let transaction = begin(&mut self.connection, self.epoch)?;
        let mut query =
            transaction.prepare_cached("SELECT id FROM sessions WHERE ended_at < ?1 ORDER BY ended_at LIMIT 1000")?;
        let ids: Vec<i64> =
            query.query_map([before(limits.sessions_age_ms)], |row| row.get(0))?.collect::<Result<_, _>>()?;
        drop(query);
        for id in &ids {
            for table in ["items", "attempts", "nodes", "specs", "file_refs", "client_keys"] {
                transaction.execute(&format!("DELETE FROM {table} WHERE session = ?1"), [id])?;
            }
            transaction.execute("DELETE FROM sessions WHERE id = ?1", [id])?;
        }
        // Events stand in order of time: this reads the ones that go and the first that stays.
        let old = transaction.execute(
            "DELETE FROM events WHERE seq < coalesce(
                (SELECT seq FROM events WHERE at >= ?1 ORDER BY seq LIMIT 1), (SELECT max(seq) + 1 FROM events))",
            [before(limits.events_age_ms)],
        )?;
        let many = transaction
            .execute("DELETE FROM events WHERE seq <= (SELECT max(seq) FROM events) - ?1", [int(limits.events_max)])?;
        transaction.commit()?;
        self.finished();
        let sessions = ids.into_iter().map(|id| SessionId(id.unsigned_abs())).collect();
        Ok(Removed { sessions, events: (old + many) as u64 })
    }

    fn probe(&mut self) -> Result<(), StoreError> {
        self.unfinished += 1;
        self.write_nothing().map_err(|error| self.explained(error))
    }
}

impl SqliteLedger {
    fn write(&mut self, turn: &Turn<'_>) -> Result<(), StoreError> {
        let transaction = begin(&mut self.connection, self.epoch)?;
        run(&transaction, "UPDATE meta SET turn = ?1", [int(turn.turn)])?;
        for change in turn.changes {
            write_change(&transaction, change)?;
        }
        for side in turn.side {
            write_side(&transaction, side)?;
        }
        let mut insert =
            transaction.prepare_cached("INSERT INTO events (turn, at, session, body) VALUES (?1, ?2, ?3, ?4)")?;
        let mut earlier = turn.earlier.iter().peekable();
        for (position, event) in turn.events.iter().enumerate() {
            while earlier.next_if(|(before, ..)| *before <= position).is_some() {}
            let (number, at) = earlier.peek().map_or((turn.turn, turn.at), |(_, number, at)| (*number, *at));
            let session = event.session().map(|s| int(s.0));
            insert.execute(params![int(number), at.0, session, json(event)?])?;
        }
        drop(insert);
        transaction.commit()?;
        self.acknowledged.note(turn.turn);
        self.finished();
        Ok(())
    }

    /// Pages go to the disk, and say what they said before.
    fn write_nothing(&mut self) -> Result<(), StoreError> {
        let transaction = begin(&mut self.connection, self.epoch)?;
        run(&transaction, "INSERT INTO join_tokens (hash, expires_at, used) VALUES ('', 0, 1)", [])?;
        run(&transaction, "DELETE FROM join_tokens WHERE hash = ''", [])?;
        transaction.commit()?;
        self.finished();
        Ok(())
    }
}

/// A transaction of this writer, unless another has taken over.
fn begin(connection: &mut Connection, epoch: u64) -> Result<Transaction<'_>, StoreError> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let now: i64 = transaction.prepare_cached("SELECT epoch FROM meta")?.query_row([], |row| row.get(0))?;
    if now == int(epoch) { Ok(transaction) } else { Err(StoreError::Fenced { ours: epoch }) }
}

fn json(value: &impl Serialize) -> Result<String, StoreError> {
    Ok(serde_json::to_string(value)?)
}

fn run(connection: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<(), StoreError> {
    connection.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

fn write_change(to: &Connection, change: &Change) -> Result<(), StoreError> {
    match change {
        Change::Solution(s) => run(
            to,
            "INSERT INTO solutions (id, body) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET body = excluded.body",
            params![s.id.as_str(), json(s)?],
        ),
        Change::SolutionGone(id) => run(to, "DELETE FROM solutions WHERE id = ?1", [id.as_str()]),
        Change::Instance(i) => run(
            to,
            "INSERT INTO instances (id, body) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET body = excluded.body",
            params![i.id.as_str(), json(i)?],
        ),
        Change::InstanceForgotten(id) => run(to, "DELETE FROM instances WHERE id = ?1", [id.as_str()]),
        Change::Session { session, new, ended_at } => write_session(to, session, *new, *ended_at),
        Change::Node(key, row) => run(
            to,
            "INSERT INTO nodes (session, node, body) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET body = excluded.body",
            params![int(key.session.0), key.node, json(row)?],
        ),
        // The node's counters already say it: untouched items have no rows of their own.
        Change::ItemsCancelled { .. } => Ok(()),
        Change::ItemOpen(key, state) => write_item(to, *key, Some(json(state)?), None, None),
        Change::ItemEnded(key, end, at) => write_item(to, *key, None, Some(json(end)?), Some(*at)),
        Change::Attempt(attempt) => write_attempt(to, attempt, None),
        Change::AttemptEnded(attempt, end, at) => write_attempt(to, attempt, Some((end, *at))),
        Change::Spent(key, cost) => run(
            to,
            "INSERT INTO spent (month, user, solution, nano_usd) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET nano_usd = excluded.nano_usd",
            params![key.month.0, key.user.as_str(), key.solution.as_str(), cost.0],
        ),
        Change::Warned(cap, said) => run(
            to,
            "INSERT INTO warned (cap, body) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET body = excluded.body",
            params![json(cap)?, json(said)?],
        ),
        Change::WarnedGone(cap) => run(to, "DELETE FROM warned WHERE cap = ?1", [json(cap)?]),
    }
}

/// What a session's row keeps beside its spec and its nodes.
#[derive(Serialize)]
struct SessionBody<'a> {
    nodes_open: u32,
    holds: &'a std::collections::BTreeMap<skein_domain::InstanceId, skein_domain::session::Hold>,
    groups: &'a std::collections::BTreeMap<std::sync::Arc<str>, skein_domain::InstanceId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deployment: Option<&'a skein_domain::decide::deployment::Deployment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    budget: Option<skein_domain::NanoUsd>,
    #[serde(skip_serializing_if = "Option::is_none")]
    over: Option<&'a skein_domain::decide::budget::OverBudget>,
}

fn write_session(to: &Connection, session: &Session, new: bool, ended_at: Option<Timestamp>) -> Result<(), StoreError> {
    let deployment = session.deployment.as_deref();
    let (budget, over) = (session.budget, session.over.as_deref());
    let (nodes_open, holds, groups) = (session.nodes_open, &session.holds, &session.groups);
    let body = SessionBody { nodes_open, holds, groups, deployment, budget, over };
    let (id, body, state) = (int(session.id.0), json(&body)?, json(&session.state)?);
    let ended_at = ended_at.map(|at| at.0);
    if !new {
        return run(
            to,
            "UPDATE sessions SET state = ?2, body = ?3, ended_at = ?4 WHERE id = ?1",
            params![id, state, body, ended_at],
        );
    }
    let (name, user) = (session.spec.thread.name.as_str(), session.spec.user.as_str());
    run(to, "INSERT INTO specs (session, spec) VALUES (?1, ?2)", params![id, json(&*session.spec)?])?;
    run(
        to,
        "INSERT INTO sessions (id, name, user, created_at, ended_at, state, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![id, name, user, session.created_at.0, ended_at, state, body],
    )
}

fn write_item(
    to: &Connection,
    key: ItemKey,
    open: Option<String>,
    ended: Option<String>,
    at: Option<Timestamp>,
) -> Result<(), StoreError> {
    run(
        to,
        "INSERT INTO items (session, node, idx, open, ended, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET open = excluded.open, ended = excluded.ended, at = excluded.at",
        params![int(key.session().0), key.node.node, key.index, open, ended, at.map(|a| a.0)],
    )
}

fn write_attempt(
    to: &Connection,
    attempt: &Attempt,
    ended: Option<(&AttemptEnd, Timestamp)>,
) -> Result<(), StoreError> {
    let key = attempt.key;
    let ending = ended.map(|(end, _)| json(end)).transpose()?;
    run(
        to,
        "INSERT INTO attempts (session, node, idx, number, place, body, ending, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT DO UPDATE SET body = excluded.body, ending = excluded.ending, at = excluded.at",
        params![
            int(key.item.session().0),
            key.item.node.node,
            key.item.index,
            key.number,
            attempt.place.to_string(),
            json(attempt)?,
            ending,
            ended.map(|(_, at)| at.0),
        ],
    )
}

fn write_side(to: &Connection, side: &Side) -> Result<(), StoreError> {
    match side {
        Side::Document(d) => run(
            to,
            "INSERT INTO documents (kind, name, version, body, user, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![d.kind.word(), d.name, int(d.version), json(&d.body)?, d.user.as_str(), d.at.0],
        ),
        Side::DocumentRemoved(kind, name) => remove_document(to, *kind, name),
        Side::Token(t) => run(
            to,
            "INSERT INTO tokens (id, hash, user, created_at) VALUES (?1, ?2, ?3, ?4)",
            params![t.id, t.hash, t.user.as_str(), t.created_at.0],
        ),
        Side::TokenRevoked(id) => run(to, "DELETE FROM tokens WHERE id = ?1", [id]),
        Side::JoinToken(t) => run(
            to,
            "INSERT INTO join_tokens (hash, expires_at, used) VALUES (?1, ?2, ?3)",
            params![t.hash, t.expires_at.0, t.used],
        ),
        Side::JoinTokenUsed(hash) => run(to, "UPDATE join_tokens SET used = 1 WHERE hash = ?1", [hash]),
        Side::Identity(i) => run(
            to,
            "INSERT INTO identities (instance, solution, public_key) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET solution = excluded.solution, public_key = excluded.public_key",
            params![i.instance.as_str(), i.solution.as_str(), i.public_key],
        ),
        Side::Secret(s) => run(
            to,
            "INSERT INTO secrets (name, sealed, at) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET sealed = excluded.sealed, at = excluded.at",
            params![s.name, s.sealed, s.at.0],
        ),
        Side::Image(image) => run(
            to,
            "INSERT INTO images (id, at, body) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET at = excluded.at, body = excluded.body",
            params![image.id.as_str(), image.at.0, json(image)?],
        ),
        Side::ImageRemoved(id) => run(to, "DELETE FROM images WHERE id = ?1", [id.as_str()]),
        Side::SecretRemoved(name) => run(to, "DELETE FROM secrets WHERE name = ?1", [name]),
        Side::ClientKey { user, key, session } => run(
            to,
            "INSERT INTO client_keys (user, key, session) VALUES (?1, ?2, ?3)",
            params![user.as_str(), key, int(session.0)],
        ),
        Side::Identifier(engine) => run(to, "UPDATE meta SET engine = ?1", [engine.as_str()]),
        Side::Reply { to: receiver, at, body } => {
            run(to, "INSERT INTO replies (receiver, at, body) VALUES (?1, ?2, ?3)", params![receiver, at.0, body])
        }
        Side::RepliesDone(ids) => {
            ids.iter().try_for_each(|id| run(to, "DELETE FROM replies WHERE id = ?1", [int(*id)]))
        }
        Side::FileRef { session, digest } => run(
            to,
            "INSERT INTO file_refs (session, digest) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            params![int(session.0), digest.as_str()],
        ),
    }
}

fn remove_document(to: &Connection, kind: DocumentKind, name: &str) -> Result<(), StoreError> {
    run(to, "UPDATE documents SET removed = 1 WHERE kind = ?1 AND name = ?2", params![kind.word(), name])
}
