-- Other servers that tell us what changed there, and how far we are with each.
CREATE TABLE sources (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    settings TEXT NOT NULL,
    added_at BIGINT NOT NULL,
    place BIGINT NOT NULL,
    heard_at BIGINT,
    asked_to BIGINT,
    PRIMARY KEY (tenant, id)
) WITHOUT ROWID;

-- Their subscriptions that tell us: which events came, and which did not.
CREATE TABLE feed_subscriptions (
    tenant TEXT NOT NULL,
    source TEXT NOT NULL,
    reference TEXT NOT NULL,
    status TEXT NOT NULL,
    last_event BIGINT NOT NULL,
    missing TEXT NOT NULL,
    heard_at BIGINT NOT NULL,
    heartbeat BIGINT,
    revision BIGINT NOT NULL,
    PRIMARY KEY (tenant, source, reference)
) WITHOUT ROWID;

-- What they told: one row a resource and event, kept until it is applied, or somebody looked at it.
CREATE TABLE notices (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    source TEXT NOT NULL,
    place BIGINT NOT NULL,
    subscription TEXT,
    event BIGINT,
    part BIGINT,
    about TEXT,
    source_updated BIGINT,
    source_version TEXT,
    body BLOB NOT NULL,
    received_at BIGINT NOT NULL,
    correlation TEXT NOT NULL,
    state TEXT NOT NULL,
    state_at BIGINT NOT NULL,
    detail TEXT,
    outcome TEXT,
    tries BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX notices_waiting ON notices (state_at) WHERE state = 'waiting';
CREATE INDEX notices_quarantined ON notices (tenant, id) WHERE state = 'quarantined';
CREATE INDEX notices_about ON notices (tenant, source, about) WHERE state IN ('waiting', 'quarantined');
CREATE INDEX notices_received ON notices (received_at);

-- Which of their resources is which of ours, and the version that came last.
CREATE TABLE mirrors (
    tenant TEXT NOT NULL,
    source TEXT NOT NULL,
    theirs TEXT NOT NULL,
    ours TEXT,
    source_updated BIGINT,
    source_version TEXT,
    notice TEXT NOT NULL,
    place BIGINT NOT NULL,
    awaits TEXT,
    revision BIGINT NOT NULL,
    PRIMARY KEY (tenant, source, theirs)
) WITHOUT ROWID;
CREATE INDEX mirrors_awaiting ON mirrors (tenant, source) WHERE awaits IS NOT NULL;

-- What follows from them for releases: merged patients, withdrawn consent, memberships that ended.
CREATE TABLE clinical_facts (
    tenant TEXT NOT NULL,
    source TEXT NOT NULL,
    resource TEXT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    team TEXT NOT NULL,
    at BIGINT NOT NULL,
    stands BOOLEAN NOT NULL,
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, source, resource, kind, subject, team)
) WITHOUT ROWID;
CREATE INDEX clinical_facts_about ON clinical_facts (tenant, subject);
CREATE INDEX clinical_facts_changed ON clinical_facts (changed_at);
