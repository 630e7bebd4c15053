-- People who signed in with a browser. The cookie itself is nowhere: `id` is its digest.
CREATE TABLE sessions (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    sid TEXT,
    claims TEXT NOT NULL,
    key BLOB NOT NULL,
    began_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    ends_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
CREATE INDEX sessions_of_person ON sessions (tenant, issuer, subject);
CREATE INDEX sessions_ending ON sessions (ends_at);
