-- Schema 3: what was asked for stands apart from where the session is. The one is large and never changes, the
-- other changes with each node that ends, and a row is always rewritten whole.
CREATE TABLE specs (session INTEGER PRIMARY KEY, spec TEXT NOT NULL);
INSERT INTO specs (session, spec) SELECT id, spec FROM sessions;
ALTER TABLE sessions DROP COLUMN spec;
