-- What was spent, by month (months since January of the year 0, UTC), user and solution, nano-USD; kept for good.
CREATE TABLE spent (
    month INTEGER NOT NULL, user TEXT NOT NULL, solution TEXT NOT NULL, nano_usd INTEGER NOT NULL,
    PRIMARY KEY (month, user, solution)
) WITHOUT ROWID;
-- What was said of caps.
CREATE TABLE warned (cap TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
-- What sessions that are still kept have spent; where an instance is not known any more, under its own name.
INSERT INTO spent (month, user, solution, nano_usd)
    SELECT CAST(strftime('%Y', a.at / 1000000, 'unixepoch') AS INTEGER) * 12
               + CAST(strftime('%m', a.at / 1000000, 'unixepoch') AS INTEGER) - 1,
           s.user,
           coalesce(json_extract(a.body, '$.place.gateway'), json_extract(i.body, '$.solution'), a.place),
           sum(json_extract(a.body, '$.cost'))
      FROM attempts a JOIN sessions s ON s.id = a.session LEFT JOIN instances i ON i.id = a.place
     WHERE a.ending IS NOT NULL AND json_extract(a.body, '$.cost') > 0
     GROUP BY 1, 2, 3;
