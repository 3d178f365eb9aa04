CREATE TABLE meta (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    store_id BLOB    NOT NULL CHECK (length(store_id) = 16),
    sequence INTEGER NOT NULL CHECK (sequence >= 0),
    trimmed  INTEGER NOT NULL CHECK (trimmed >= 0),
    kept     INTEGER NOT NULL CHECK (kept >= 0)
) STRICT;

CREATE TABLE record (
    tbl     TEXT    NOT NULL,
    account TEXT    NOT NULL,
    region  TEXT    NOT NULL,
    id      BLOB    NOT NULL,
    version INTEGER NOT NULL CHECK (version >= 1),
    sealed  BLOB    NOT NULL,
    PRIMARY KEY (tbl, account, region, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE change (
    sequence INTEGER NOT NULL,
    position INTEGER NOT NULL,
    tbl      TEXT    NOT NULL,
    account  TEXT    NOT NULL,
    region   TEXT    NOT NULL,
    id       BLOB    NOT NULL,
    version  INTEGER,
    PRIMARY KEY (sequence, position)
) STRICT, WITHOUT ROWID;
