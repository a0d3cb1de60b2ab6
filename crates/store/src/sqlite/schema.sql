-- Schema 1. Keys are integers; bodies are JSON. Bodies hold what is only ever read whole.
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    engine TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    turn INTEGER NOT NULL
);
CREATE TABLE solutions (id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE instances (id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    user TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    ended_at INTEGER,
    state TEXT NOT NULL,
    spec TEXT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX sessions_open ON sessions (id) WHERE ended_at IS NULL;
CREATE INDEX sessions_ended ON sessions (ended_at) WHERE ended_at IS NOT NULL;
CREATE TABLE nodes (
    session INTEGER NOT NULL, node INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (session, node)
) WITHOUT ROWID;
-- Items that left the default state. `ended` is NULL while open.
CREATE TABLE items (
    session INTEGER NOT NULL, node INTEGER NOT NULL, idx INTEGER NOT NULL,
    open TEXT, ended TEXT, at INTEGER,
    PRIMARY KEY (session, node, idx)
) WITHOUT ROWID;
CREATE TABLE attempts (
    session INTEGER NOT NULL, node INTEGER NOT NULL, idx INTEGER NOT NULL, number INTEGER NOT NULL,
    place TEXT NOT NULL, body TEXT NOT NULL, ending TEXT, at INTEGER,
    PRIMARY KEY (session, node, idx, number)
) WITHOUT ROWID;
CREATE INDEX attempts_open ON attempts (session) WHERE ending IS NULL;
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    turn INTEGER NOT NULL, at INTEGER NOT NULL, session INTEGER, body TEXT NOT NULL
);
CREATE INDEX events_session ON events (session, seq) WHERE session IS NOT NULL;
CREATE TABLE documents (
    kind TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL,
    body TEXT NOT NULL, user TEXT NOT NULL, at INTEGER NOT NULL, removed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, name, version)
) WITHOUT ROWID;
CREATE TABLE tokens (id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, user TEXT NOT NULL, created_at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE join_tokens (hash TEXT PRIMARY KEY, expires_at INTEGER NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE identities (instance TEXT PRIMARY KEY, solution TEXT NOT NULL, public_key TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE secrets (name TEXT PRIMARY KEY, sealed TEXT NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE client_keys (
    user TEXT NOT NULL, key TEXT NOT NULL, session INTEGER NOT NULL,
    PRIMARY KEY (user, key)
) WITHOUT ROWID;
CREATE INDEX client_keys_session ON client_keys (session);
CREATE TABLE file_refs (session INTEGER NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (session, digest)) WITHOUT ROWID;
