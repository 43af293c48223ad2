-- Times are milliseconds since the Unix epoch.

CREATE TABLE sessions (
    -- Sorts by when the session was made.
    id         BLOB    NOT NULL PRIMARY KEY,
    tenant     TEXT    NOT NULL,
    principal  TEXT    NOT NULL,
    -- The same as in the record's head, for what is chosen by time.
    expires_at INTEGER NOT NULL,
    record     BLOB    NOT NULL
) STRICT;

CREATE INDEX sessions_by_principal ON sessions (tenant, principal, id);
CREATE INDEX sessions_by_end ON sessions (expires_at);

-- Sessions that ended before their time, for operations that show them.
CREATE TABLE ended_sessions (
    id         BLOB    NOT NULL PRIMARY KEY,
    tenant     TEXT    NOT NULL,
    principal  TEXT    NOT NULL,
    ended_at   INTEGER NOT NULL,
    -- Why and when, and the record as it was last.
    record     BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX ended_sessions_by_principal ON ended_sessions (tenant, principal, id);
CREATE INDEX ended_sessions_by_end ON ended_sessions (ended_at);

-- Sign-ins at or before this moment are void: the principal was revoked as a whole. Rows stay: how
-- long a proof of an old sign-in can still be presented is the provider's to decide.
CREATE TABLE not_before (
    tenant    TEXT    NOT NULL,
    principal TEXT    NOT NULL,
    at        INTEGER NOT NULL,
    PRIMARY KEY (tenant, principal)
) STRICT, WITHOUT ROWID;

-- Proofs that may be used once, by digest.
CREATE TABLE claims (
    digest BLOB    NOT NULL PRIMARY KEY,
    until  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Moves whenever a process other than the server ends sessions; the server watches it.
CREATE TABLE outside_revocations (
    count INTEGER NOT NULL
) STRICT;

INSERT INTO outside_revocations (count) VALUES (0);

PRAGMA user_version = 1;
