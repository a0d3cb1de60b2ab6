-- The image catalogue: names, tags, what is on them, where they were deployed. Their bytes are the image store's.
CREATE TABLE images (id TEXT PRIMARY KEY, at INTEGER NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
