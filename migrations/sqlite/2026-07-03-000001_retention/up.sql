-- How long a document is kept: by its class and when it was created what is due is found. `turns` is when its availability changes
-- next, `disposed_at` when its content was marked to be disposed of.
ALTER TABLE documents ADD COLUMN class TEXT;
ALTER TABLE documents ADD COLUMN created BIGINT;
ALTER TABLE documents ADD COLUMN turns BIGINT;
ALTER TABLE documents ADD COLUMN disposed_at BIGINT;
UPDATE documents SET
    class = json_extract(state, '$.class'),
    created = (SELECT v.last_updated FROM resource_versions v
        WHERE v.tenant = documents.tenant AND v.kind = 'DocumentReference' AND v.id = documents.id AND v.version = 1);
-- The cases that documents belong to, as they said last.
UPDATE documents SET state = json_set(state, '$.facts.encounters', (
        SELECT json_group_array(json_extract(encounter.value, '$.reference'))
        FROM resource_versions v, json_each(CAST(v.body AS TEXT), '$.context.encounter') encounter
        WHERE v.tenant = documents.tenant AND v.kind = 'DocumentReference' AND v.id = documents.id
            AND v.version = (SELECT max(w.version) FROM resource_versions w
                WHERE w.tenant = v.tenant AND w.kind = v.kind AND w.id = v.id AND length(w.body) > 0)
            AND json_extract(encounter.value, '$.reference') IS NOT NULL
    ))
    WHERE EXISTS (SELECT 1 FROM resource_versions v
        WHERE v.tenant = documents.tenant AND v.kind = 'DocumentReference' AND v.id = documents.id
            AND instr(CAST(v.body AS TEXT), '"encounter"') > 0);
CREATE INDEX documents_by_age ON documents (tenant, class, created, id) WHERE disposed_at IS NULL;
CREATE INDEX documents_turning ON documents (turns) WHERE turns IS NOT NULL;
CREATE INDEX binaries_by_document ON binaries (tenant, document) WHERE document IS NOT NULL;

-- What must not be deleted, why, and until when; `lifted_at` where a hold stands no more.
CREATE TABLE holds (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    note TEXT NOT NULL,
    placed_at BIGINT NOT NULL,
    placed_by TEXT NOT NULL,
    until BIGINT,
    lifted_at BIGINT,
    lifted_by TEXT,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX holds_standing ON holds (tenant, placed_at, id) WHERE lifted_at IS NULL;

-- Content that is to be deleted from the blob store: marked, then being deleted, then gone. One row for each, kept as the record of it.
CREATE TABLE disposals (
    tenant TEXT NOT NULL,
    "binary" TEXT NOT NULL,
    document TEXT,
    cause TEXT NOT NULL,
    schedule TEXT NOT NULL,
    marked_at BIGINT NOT NULL,
    due BIGINT NOT NULL,
    state TEXT NOT NULL,
    state_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, "binary")
);
CREATE INDEX disposals_due ON disposals (due, tenant, "binary") WHERE state <> 'gone';
CREATE INDEX disposals_by_document ON disposals (tenant, document) WHERE document IS NOT NULL;
