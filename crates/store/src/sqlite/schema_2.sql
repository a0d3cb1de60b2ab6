-- Schema 2: what is to be told to receivers (docs/decisions/0009).
CREATE TABLE replies (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    receiver TEXT NOT NULL, at INTEGER NOT NULL, body TEXT NOT NULL
);
CREATE INDEX replies_receiver ON replies (receiver, id);
-- Loading the open state must not look through a million ended items.
CREATE INDEX items_open ON items (session) WHERE open IS NOT NULL;
