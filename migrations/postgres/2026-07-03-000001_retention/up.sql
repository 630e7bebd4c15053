-- How long a document is kept: by its class and when it was created what is due is found. `turns` is when its availability changes
-- next, `disposed_at` when its content was marked to be disposed of.
ALTER TABLE documents ADD COLUMN class TEXT COLLATE "C";
ALTER TABLE documents ADD COLUMN created BIGINT;
ALTER TABLE documents ADD COLUMN turns BIGINT;
ALTER TABLE documents ADD COLUMN disposed_at BIGINT;
UPDATE documents SET
    class = state::json ->> 'class',
    created = (SELECT v.last_updated FROM resource_versions v
        WHERE v.tenant = documents.tenant AND v.kind = 'DocumentReference' AND v.id = documents.id AND v.version = 1);
-- The cases that documents belong to, as they said last.
UPDATE documents SET state = jsonb_set(state::jsonb, '{facts,encounters}', said.encounters)::text
    FROM (
        SELECT DISTINCT ON (tenant, id) tenant, id, (
            SELECT jsonb_agg(encounter -> 'reference')
            FROM jsonb_array_elements(convert_from(body, 'UTF8')::jsonb #> '{context,encounter}') encounter
            WHERE encounter ? 'reference'
        ) AS encounters
        FROM resource_versions
        WHERE kind = 'DocumentReference' AND length(body) > 0
        ORDER BY tenant, id, version DESC
    ) said
    WHERE said.tenant = documents.tenant AND said.id = documents.id AND said.encounters IS NOT NULL;
CREATE INDEX documents_by_age ON documents (tenant, class, created, id) WHERE disposed_at IS NULL;
CREATE INDEX documents_turning ON documents (turns) WHERE turns IS NOT NULL;
CREATE INDEX binaries_by_document ON binaries (tenant, document) WHERE document IS NOT NULL;

-- What must not be deleted, why, and until when; `lifted_at` where a hold stands no more.
CREATE TABLE holds (
    tenant TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    value TEXT COLLATE "C" NOT NULL,
    note TEXT NOT NULL,
    placed_at BIGINT NOT NULL,
    placed_by TEXT COLLATE "C" NOT NULL,
    until BIGINT,
    lifted_at BIGINT,
    lifted_by TEXT COLLATE "C",
    PRIMARY KEY (tenant, id)
);
CREATE INDEX holds_standing ON holds (tenant, placed_at, id) WHERE lifted_at IS NULL;

-- Content that is to be deleted from the blob store: marked, then being deleted, then gone. One row for each, kept as the record of it.
CREATE TABLE disposals (
    tenant TEXT COLLATE "C" NOT NULL,
    "binary" TEXT COLLATE "C" NOT NULL,
    document TEXT COLLATE "C",
    cause TEXT COLLATE "C" NOT NULL,
    schedule TEXT NOT NULL,
    marked_at BIGINT NOT NULL,
    due BIGINT NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    state_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, "binary")
);
CREATE INDEX disposals_due ON disposals (due, tenant, "binary") WHERE state <> 'gone';
CREATE INDEX disposals_by_document ON disposals (tenant, document) WHERE document IS NOT NULL;
