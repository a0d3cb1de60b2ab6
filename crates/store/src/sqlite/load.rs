//! Rebuilding the open state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rusqlite::Connection;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use skein_domain::decide::budget::{CapKey, OverBudget, Warned};
use skein_domain::decide::change::NodeRow;
use skein_domain::decide::deployment::Deployment;
use skein_domain::decide::snapshot::Stored;
use skein_domain::session::{Hold, ItemState};
use skein_domain::spend::{MONTHS_MAX, Month, SpentKey};
use skein_domain::{InstanceId, NanoUsd, Node, Session, SessionId, SessionSpec, Timestamp};

use super::int;
use crate::StoreError;

pub(super) fn parse<T: DeserializeOwned>(table: &'static str, key: impl ToString, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|e| StoreError::Corrupt { table, key: key.to_string(), why: e.to_string() })
}

pub(super) fn load(connection: &Connection) -> Result<Stored, StoreError> {
    let turn: i64 = connection.query_row("SELECT turn FROM meta", [], |row| row.get(0))?;
    Ok(Stored {
        turn: turn.unsigned_abs(),
        solutions: bodies(connection, "solutions", "SELECT id, body FROM solutions")?,
        instances: bodies(connection, "instances", "SELECT id, body FROM instances")?,
        sessions: sessions(connection)?,
        attempts: bodies(
            connection,
            "attempts",
            "SELECT session || '.' || node || '.' || idx || '.' || number, body FROM attempts INDEXED BY attempts_open
             WHERE ending IS NULL AND session IN (SELECT id FROM sessions WHERE ended_at IS NULL)",
        )?,
        spent: spent(connection)?,
        warned: warned(connection)?,
    })
}

fn bodies<T: DeserializeOwned>(connection: &Connection, table: &'static str, sql: &str) -> Result<Vec<T>, StoreError> {
    let mut query = connection.prepare(sql)?;
    let mut rows = query.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let (key, body): (String, String) = (row.get(0)?, row.get(1)?);
        all.push(parse(table, key, &body)?);
    }
    Ok(all)
}

#[derive(Deserialize)]
struct SessionBody {
    nodes_open: u32,
    holds: BTreeMap<InstanceId, Hold>,
    groups: BTreeMap<Arc<str>, InstanceId>,
    #[serde(default)]
    deployment: Option<Arc<Deployment>>,
    #[serde(default)]
    budget: Option<NanoUsd>,
    #[serde(default)]
    over: Option<Box<OverBudget>>,
}

/// What was spent in the months that are looked at.
fn spent(connection: &Connection) -> Result<Vec<(SpentKey, NanoUsd)>, StoreError> {
    let sql = "SELECT month, user, solution, nano_usd FROM spent WHERE month > (SELECT max(month) FROM spent) - ?1";
    let mut query = connection.prepare(sql)?;
    let mut rows = query.query([MONTHS_MAX])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let (month, user, solution): (i32, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let corrupt = |e: skein_domain::id::BadId| StoreError::Corrupt {
            table: "spent",
            key: format!("{month} {user} {solution}"),
            why: e.to_string(),
        };
        let (user, solution) = (user.parse().map_err(corrupt)?, solution.parse().map_err(corrupt)?);
        all.push((SpentKey { month: Month(month), user, solution }, NanoUsd(row.get(3)?)));
    }
    Ok(all)
}

fn warned(connection: &Connection) -> Result<Vec<(CapKey, Warned)>, StoreError> {
    let mut query = connection.prepare("SELECT cap, body FROM warned")?;
    let mut rows = query.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let (cap, body): (String, String) = (row.get(0)?, row.get(1)?);
        all.push((parse("warned", &cap, &cap)?, parse("warned", &cap, &body)?));
    }
    Ok(all)
}

fn sessions(connection: &Connection) -> Result<Vec<Session>, StoreError> {
    let mut query = connection.prepare(
        "SELECT id, created_at, state, spec, body FROM sessions JOIN specs ON session = id WHERE ended_at IS NULL",
    )?;
    let mut rows = query.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let id = SessionId(row.get::<_, i64>(0)?.unsigned_abs());
        let (state, spec, body): (String, String, String) = (row.get(2)?, row.get(3)?, row.get(4)?);
        let spec: Arc<SessionSpec> = Arc::new(parse("sessions", id, &spec)?);
        let body: SessionBody = parse("sessions", id, &body)?;
        all.push(Session {
            id,
            state: parse("sessions", id, &state)?,
            created_at: Timestamp(row.get(1)?),
            nodes: nodes(connection, id, &spec)?,
            followers: Arc::new(Session::followers_of(&spec.thread)),
            nodes_open: body.nodes_open,
            holds: body.holds,
            groups: body.groups,
            deployment: body.deployment,
            budget: body.budget.or(spec.budget),
            over: body.over,
            spec,
        });
    }
    Ok(all)
}

fn nodes(connection: &Connection, session: SessionId, spec: &SessionSpec) -> Result<Vec<Node>, StoreError> {
    let mut nodes = Vec::with_capacity(spec.thread.nodes.len());
    let mut query = connection.prepare_cached("SELECT node, body FROM nodes WHERE session = ?1 ORDER BY node")?;
    let mut rows = query.query([int(session.0)])?;
    while let Some(row) = rows.next()? {
        let (at, body): (u32, String) = (row.get(0)?, row.get(1)?);
        let corrupt =
            |why: &str| StoreError::Corrupt { table: "nodes", key: format!("{session}.{at}"), why: why.to_owned() };
        let spec = spec.thread.nodes.get(at as usize).ok_or_else(|| corrupt("its thread has no such node"))?;
        if nodes.len() != at as usize {
            return Err(corrupt("a node before it is missing"));
        }
        let row: NodeRow = parse("nodes", format!("{session}.{at}"), &body)?;
        nodes.push(Node {
            count: row.count,
            next: row.next,
            open: BTreeMap::new(),
            retry: BTreeSet::new(),
            tally: row.tally,
            links_open: row.links_open,
            ready_at: row.ready_at,
            typical_run_ms: row.typical_run_ms,
            cost: row.cost,
            profile: Arc::new(spec.task.profile()),
        });
    }
    open_items(connection, session, &mut nodes)?;
    Ok(nodes)
}

fn open_items(connection: &Connection, session: SessionId, nodes: &mut [Node]) -> Result<(), StoreError> {
    let sql = "SELECT node, idx, open FROM items INDEXED BY items_open WHERE session = ?1 AND open IS NOT NULL";
    let mut query = connection.prepare_cached(sql)?;
    let mut rows = query.query([int(session.0)])?;
    while let Some(row) = rows.next()? {
        let (at, index, open): (u32, u32, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let state: ItemState = parse("items", format!("{session}.{at}.{index}"), &open)?;
        let Some(node) = nodes.get_mut(at as usize) else { continue };
        if let ItemState::Ready { not_before, .. } = &state {
            node.retry.insert((*not_before, index));
        }
        node.open.insert(index, state);
    }
    Ok(())
}
