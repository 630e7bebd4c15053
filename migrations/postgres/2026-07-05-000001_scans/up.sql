-- What is known of malware in each Binary that is to be scanned. Whoever scans it holds it by a claim, which lapses by the database's
-- own clock. `due_at` is NULL where it is never to be looked at again; `since` is when it began, or will begin, to wait for a scan.
CREATE TABLE scans (
    tenant TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    sha256 BYTEA NOT NULL,
    verdict TEXT COLLATE "C" NOT NULL,
    signature TEXT,
    engine TEXT,
    scanned_at BIGINT,
    since BIGINT NOT NULL,
    tries BIGINT NOT NULL,
    due_at BIGINT,
    claimed_by TEXT COLLATE "C",
    claimed_until BIGINT,
    PRIMARY KEY (tenant, id)
);

-- What is to be scanned next.
CREATE INDEX scans_by_due ON scans (verdict, due_at);

-- Where malware was found, whatever has the same bytes is looked for.
CREATE INDEX scans_by_content ON scans (tenant, sha256);
