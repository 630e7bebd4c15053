-- Where the blob store and the records differ: by the name of an object below its tenant, which others may have chosen. `seen_at` is
-- when the look began that has last seen it.
CREATE TABLE drift (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    size BIGINT NOT NULL,
    found_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
);

-- The last complete look at a tenant's content, and when another one was asked for.
CREATE TABLE drift_looks (
    tenant TEXT NOT NULL,
    began_at BIGINT NOT NULL,
    ended_at BIGINT NOT NULL,
    objects BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    asked_at BIGINT,
    PRIMARY KEY (tenant)
);
