-- A database that was made of a backup is no ledger yet: what has happened since lies in the archive. Until all of it
-- was brought forward, or a person decided about what can't be, nothing may be written or signed.

CREATE TABLE unfinished_restore (
    operator text PRIMARY KEY REFERENCES operator,
    made_at timestamptz,            -- the backup's moment; null where there was none
    begun_at timestamptz NOT NULL
);
COMMENT ON TABLE unfinished_restore IS 'Operators whose restore is not complete: read-only until it is.';
