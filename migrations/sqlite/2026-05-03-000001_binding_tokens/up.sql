-- What each binding token for web sockets is for, under its SHA-256. Good once: it is deleted when it is used.
CREATE TABLE binding_tokens (
    tenant TEXT NOT NULL,
    digest BLOB NOT NULL,
    creator TEXT NOT NULL,
    subscriptions TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, digest)
) WITHOUT ROWID;
CREATE INDEX binding_tokens_by_expiry ON binding_tokens (expires_at);
