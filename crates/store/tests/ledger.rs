//! The ledger keeps what the planner needs: what is loaded equals what was built by events, after any
//! commit, from a copy, and for one writer only.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing has failed")]

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use serde_json::json;
use skein_domain::decide::{Snapshot, decide};
use skein_domain::event::Event;
use skein_domain::session::{ItemState, Tally};
use skein_domain::testing::{Random, Record, Scene, World, dedicated, facts, key, name, spec_of, task};
use skein_domain::{
    AttemptEnd, Digest, EndCause, HoldPolicy, ItemEnd, LinkedThread, NodeKey, Outcome, OutputFile, SessionId, SessionState, TaskSpec,
    Timestamp, UserName,
};
use skein_store::{
    Document, DocumentKind, JoinTokenRow, Ledger as _, Limits, Page, Reader as _, SecretRow, Side, SqliteLedger, StoreError,
    TokenRow, Turn,
};
