-- The object index, version 3. FORMAT.md explains every column.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('sequence', 0), ('clean', 1);

CREATE TABLE stamp (
    id    INTEGER PRIMARY KEY CHECK (id = 0),
    bytes BLOB NOT NULL
) STRICT;

CREATE TABLE bucket (
    id     TEXT PRIMARY KEY,
    number INTEGER NOT NULL,
    closed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE object (
    bucket     INTEGER NOT NULL,
    key        BLOB NOT NULL,
    sequence   INTEGER NOT NULL,
    content    INTEGER NOT NULL,
    size       INTEGER NOT NULL,
    modified   INTEGER NOT NULL,
    part_count INTEGER NOT NULL,
    file       BLOB,
    envelope   BLOB NOT NULL,
    PRIMARY KEY (bucket, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE inline (
    content INTEGER PRIMARY KEY,
    sealed  BLOB NOT NULL
) STRICT;

CREATE TABLE upload (
    bucket    INTEGER NOT NULL,
    key       BLOB NOT NULL,
    content   INTEGER NOT NULL,
    random    BLOB NOT NULL,
    initiated INTEGER NOT NULL,
    envelope  BLOB NOT NULL,
    PRIMARY KEY (bucket, key, content)
) STRICT, WITHOUT ROWID;

CREATE TABLE part (
    content   INTEGER NOT NULL,
    number    INTEGER NOT NULL,
    sequence  INTEGER NOT NULL,
    plain_len INTEGER NOT NULL,
    modified  INTEGER NOT NULL,
    file      BLOB NOT NULL,
    envelope  BLOB NOT NULL,
    PRIMARY KEY (content, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE intent (
    file BLOB PRIMARY KEY
) STRICT, WITHOUT ROWID;
