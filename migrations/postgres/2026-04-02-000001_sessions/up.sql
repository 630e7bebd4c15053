-- People who signed in with a browser. The cookie itself is nowhere: `id` is its digest.
CREATE TABLE sessions (
    tenant TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    issuer TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    sid TEXT COLLATE "C",
    claims TEXT NOT NULL,
    key BYTEA NOT NULL,
    began_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    ends_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX sessions_of_person ON sessions (tenant, issuer, subject);
CREATE INDEX sessions_ending ON sessions (ends_at);
