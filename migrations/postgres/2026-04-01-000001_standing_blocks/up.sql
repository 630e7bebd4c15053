-- What operators revoked in an emergency: it stays revoked until the block is lifted.
CREATE TABLE standing_blocks (
    tenant TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    value TEXT COLLATE "C" NOT NULL,
    note TEXT NOT NULL,
    placed_at BIGINT NOT NULL,
    placed_by TEXT COLLATE "C" NOT NULL,
    lifted_at BIGINT,
    lifted_by TEXT COLLATE "C",
    PRIMARY KEY (tenant, id)
);
CREATE INDEX standing_blocks_standing ON standing_blocks (tenant) WHERE lifted_at IS NULL;
