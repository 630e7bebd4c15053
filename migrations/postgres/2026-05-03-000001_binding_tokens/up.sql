-- What each binding token for web sockets is for, under its SHA-256. Good once: it is deleted when it is used.
CREATE TABLE binding_tokens (
    tenant TEXT COLLATE "C" NOT NULL,
    digest BYTEA NOT NULL,
    creator TEXT COLLATE "C" NOT NULL,
    subscriptions TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, digest)
);
CREATE INDEX binding_tokens_by_expiry ON binding_tokens (expires_at);
