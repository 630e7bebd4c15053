-- The same tables as in the other tree. Where PostgreSQL has a sequence, the sequence is the row id here,
-- because only that is never given out twice (AUTOINCREMENT).

-- One row per Task: its present state, the columns that searches and the clock need, and what its search rows
-- say (`indexed`), so that only those that change are written.
CREATE TABLE tasks (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    version BIGINT NOT NULL,
    last_updated BIGINT NOT NULL,
    status TEXT NOT NULL,
    owner TEXT,
    patient TEXT,
    created_by TEXT NOT NULL,
    due BIGINT,
    deleted BOOLEAN NOT NULL,
    state TEXT NOT NULL,
    indexed TEXT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX tasks_by_owner ON tasks (tenant, owner, status, last_updated, id);
CREATE INDEX tasks_by_patient ON tasks (tenant, patient, last_updated, id) WHERE patient IS NOT NULL;
CREATE INDEX tasks_by_time ON tasks (tenant, last_updated, id);

-- Who may see a Task: its people by reference, its teams as `team:CODE`.
CREATE TABLE task_viewers (
    tenant TEXT NOT NULL,
    viewer TEXT NOT NULL,
    task TEXT NOT NULL,
    PRIMARY KEY (tenant, viewer, task)
) WITHOUT ROWID;
CREATE INDEX task_viewers_by_task ON task_viewers (tenant, task);

-- The documents whose reference from a Task took effect.
CREATE TABLE task_documents (
    tenant TEXT NOT NULL,
    document TEXT NOT NULL,
    task TEXT NOT NULL,
    PRIMARY KEY (tenant, document, task)
) WITHOUT ROWID;
CREATE INDEX task_documents_by_task ON task_documents (tenant, task);

-- Which Tasks are part of which.
CREATE TABLE task_parents (
    tenant TEXT NOT NULL,
    parent TEXT NOT NULL,
    task TEXT NOT NULL,
    PRIMARY KEY (tenant, parent, task)
) WITHOUT ROWID;
CREATE INDEX task_parents_by_task ON task_parents (tenant, task);

-- One row per DocumentReference: its present state.
CREATE TABLE documents (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    version BIGINT NOT NULL,
    last_updated BIGINT NOT NULL,
    status TEXT NOT NULL,
    patient TEXT,
    created_by TEXT NOT NULL,
    deleted BOOLEAN NOT NULL,
    state TEXT NOT NULL,
    indexed TEXT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX documents_by_patient ON documents (tenant, patient, last_updated, id) WHERE patient IS NOT NULL;
CREATE INDEX documents_by_creator ON documents (tenant, created_by, last_updated, id);
CREATE INDEX documents_by_time ON documents (tenant, last_updated, id);

-- Every version of every Task and DocumentReference as it was sent out. Never changed.
CREATE TABLE resource_versions (
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    version BIGINT NOT NULL,
    last_updated BIGINT NOT NULL,
    method TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (tenant, kind, id, version)
);

CREATE TABLE search_tokens (
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    code TEXT NOT NULL,
    id TEXT NOT NULL,
    system TEXT NOT NULL,
    PRIMARY KEY (tenant, kind, name, code, id, system)
) WITHOUT ROWID;
CREATE INDEX search_tokens_by_id ON search_tokens (tenant, kind, id);

-- `bare` is the id of a relative target, and the whole of an absolute one.
CREATE TABLE search_references (
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    bare TEXT NOT NULL,
    id TEXT NOT NULL,
    target TEXT NOT NULL,
    PRIMARY KEY (tenant, kind, name, bare, id, target)
) WITHOUT ROWID;
CREATE INDEX search_references_by_id ON search_references (tenant, kind, id);

-- First and last instant of the range that a value means.
CREATE TABLE search_dates (
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    first_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    id TEXT NOT NULL,
    PRIMARY KEY (tenant, kind, name, first_at, last_at, id)
) WITHOUT ROWID;
CREATE INDEX search_dates_by_id ON search_dates (tenant, kind, id);

CREATE TABLE search_strings (
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    id TEXT NOT NULL,
    PRIMARY KEY (tenant, kind, name, value, id)
) WITHOUT ROWID;
CREATE INDEX search_strings_by_id ON search_strings (tenant, kind, id);

-- One row per stored content: what pins and proves it.
CREATE TABLE binaries (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    created BIGINT NOT NULL,
    uploaded_by TEXT NOT NULL,
    document TEXT,
    content_type TEXT NOT NULL,
    security_context TEXT,
    size BIGINT NOT NULL,
    sha1 BLOB NOT NULL,
    sha256 BLOB NOT NULL,
    blob_key TEXT NOT NULL,
    blob_version TEXT,
    blob_etag TEXT NOT NULL,
    deleted_at BIGINT,
    PRIMARY KEY (tenant, id)
);

-- SHA-256 of the blocks of a Binary, up to 4096 of them, one after the other, in a row.
CREATE TABLE binary_blocks (
    tenant TEXT NOT NULL,
    "binary" TEXT NOT NULL,
    chunk BIGINT NOT NULL,
    hashes BLOB NOT NULL,
    PRIMARY KEY (tenant, "binary", chunk)
) WITHOUT ROWID;

CREATE TABLE grants (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    handle TEXT NOT NULL,
    secret_hash BLOB,
    task TEXT NOT NULL,
    document TEXT NOT NULL,
    content_version BIGINT NOT NULL,
    "binary" TEXT NOT NULL,
    sha256 BLOB NOT NULL,
    origin TEXT NOT NULL,
    max_uses BIGINT NOT NULL,
    uses BIGINT NOT NULL,
    time_window BIGINT NOT NULL,
    issued_at BIGINT NOT NULL,
    constraints TEXT NOT NULL,
    status TEXT NOT NULL,
    grantee TEXT,
    bound_at BIGINT,
    expires_at BIGINT,
    ended_at BIGINT,
    reason TEXT,
    task_due BIGINT,
    revision BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX grants_by_handle ON grants (tenant, handle);
CREATE UNIQUE INDEX grants_open ON grants (tenant, task, "binary", coalesce(grantee, '')) WHERE status IN ('issued', 'bound', 'suspended');
CREATE INDEX grants_by_task ON grants (tenant, task, issued_at, id);
CREATE INDEX grants_by_document ON grants (tenant, document, issued_at, id);
CREATE INDEX grants_by_binary ON grants (tenant, "binary", issued_at, id);
CREATE INDEX grants_expiring ON grants (expires_at) WHERE status IN ('bound', 'suspended');
CREATE INDEX grants_due ON grants (task_due) WHERE task_due IS NOT NULL AND status IN ('issued', 'bound', 'suspended');

CREATE TABLE redemptions (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    grant_id TEXT NOT NULL,
    grantee TEXT NOT NULL,
    client TEXT NOT NULL,
    token_key TEXT,
    session TEXT,
    state TEXT NOT NULL,
    cut_reason TEXT,
    opened_at BIGINT NOT NULL,
    window_end BIGINT NOT NULL,
    ended_at BIGINT,
    size BIGINT NOT NULL,
    bytes_sent BIGINT NOT NULL,
    sent_up_to BIGINT NOT NULL,
    streams BIGINT NOT NULL,
    process TEXT,
    revision BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX redemptions_by_grant ON redemptions (tenant, grant_id, opened_at, id);
CREATE INDEX redemptions_running ON redemptions (state, process) WHERE state IN ('authorized', 'streaming');

-- Orders to stop the streams of a grant, read by every process.
CREATE TABLE cuts (
    tenant TEXT NOT NULL,
    sequence INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    grant_id TEXT NOT NULL,
    reason TEXT NOT NULL,
    at BIGINT NOT NULL
);

-- The ledger. Rows are added, never changed.
CREATE TABLE audit_log (
    tenant TEXT NOT NULL,
    sequence INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    recorded BIGINT NOT NULL,
    event TEXT NOT NULL,
    outcome TEXT NOT NULL,
    correlation TEXT NOT NULL,
    actor TEXT,
    patient TEXT,
    task TEXT,
    document TEXT,
    "binary" TEXT,
    grant_id TEXT,
    redemption TEXT,
    entry TEXT NOT NULL
);
CREATE INDEX audit_log_by_time ON audit_log (tenant, recorded, sequence);
CREATE INDEX audit_log_by_correlation ON audit_log (tenant, correlation, sequence);
CREATE INDEX audit_log_by_actor ON audit_log (tenant, actor, sequence) WHERE actor IS NOT NULL;
CREATE INDEX audit_log_by_patient ON audit_log (tenant, patient, sequence) WHERE patient IS NOT NULL;
CREATE INDEX audit_log_by_task ON audit_log (tenant, task, sequence) WHERE task IS NOT NULL;
CREATE INDEX audit_log_by_document ON audit_log (tenant, document, sequence) WHERE document IS NOT NULL;
CREATE INDEX audit_log_by_binary ON audit_log (tenant, "binary", sequence) WHERE "binary" IS NOT NULL;
CREATE INDEX audit_log_by_grant ON audit_log (tenant, grant_id, sequence) WHERE grant_id IS NOT NULL;
CREATE INDEX audit_log_by_redemption ON audit_log (tenant, redemption, sequence) WHERE redemption IS NOT NULL;

-- What subscribers are to be told.
CREATE TABLE outbox (
    tenant TEXT NOT NULL,
    sequence INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    topic TEXT NOT NULL,
    focus TEXT NOT NULL,
    version BIGINT NOT NULL,
    change TEXT NOT NULL,
    grant_id TEXT,
    at BIGINT NOT NULL
);

-- In which teams an actor was when its token was last validated.
CREATE TABLE actors (
    tenant TEXT NOT NULL,
    actor TEXT NOT NULL,
    teams TEXT NOT NULL,
    seen BIGINT NOT NULL,
    PRIMARY KEY (tenant, actor)
) WITHOUT ROWID;

-- Which processes live. Belongs to no tenant.
CREATE TABLE processes (
    name TEXT NOT NULL,
    seen BIGINT NOT NULL,
    PRIMARY KEY (name)
) WITHOUT ROWID;

-- Which process does a job that only one may do. Belongs to no tenant.
CREATE TABLE leases (
    name TEXT NOT NULL,
    process TEXT NOT NULL,
    until BIGINT NOT NULL,
    PRIMARY KEY (name)
) WITHOUT ROWID;
