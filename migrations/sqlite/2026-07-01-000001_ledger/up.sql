-- The seal of the audit: each row is a leaf of its tenant's Merkle tree. A row's entry and its salt are committed to, so that
-- both can be erased and the tree stays as it is.
CREATE TABLE ledger_leaves (
    tenant TEXT NOT NULL,
    position BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    salt BLOB,
    commitment BLOB NOT NULL,
    PRIMARY KEY (tenant, position)
);
CREATE UNIQUE INDEX ledger_leaves_by_row ON ledger_leaves (tenant, sequence);

-- Inner nodes of every eighth level, so that a proof reads a few hundred hashes and not all.
CREATE TABLE ledger_nodes (
    tenant TEXT NOT NULL,
    level BIGINT NOT NULL,
    position BIGINT NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (tenant, level, position)
);

-- Signed checkpoints: the newest of each hour.
CREATE TABLE ledger_checkpoints (
    tenant TEXT NOT NULL,
    hour BIGINT NOT NULL,
    size BIGINT NOT NULL,
    signed_at BIGINT NOT NULL,
    note TEXT NOT NULL,
    PRIMARY KEY (tenant, hour)
);
