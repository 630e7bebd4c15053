-- What operators revoked in an emergency: it stays revoked until the block is lifted.
CREATE TABLE standing_blocks (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    note TEXT NOT NULL,
    placed_at BIGINT NOT NULL,
    placed_by TEXT NOT NULL,
    lifted_at BIGINT,
    lifted_by TEXT,
    PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
CREATE INDEX standing_blocks_standing ON standing_blocks (tenant) WHERE lifted_at IS NULL;
