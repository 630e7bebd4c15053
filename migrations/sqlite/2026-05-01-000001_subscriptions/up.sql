-- Which events no subscription was given yet. What was there before is told to nobody.
ALTER TABLE outbox ADD COLUMN pending BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE outbox ADD COLUMN correlation TEXT NOT NULL DEFAULT '';
CREATE INDEX outbox_pending ON outbox (sequence) WHERE pending;

-- One row per Subscription: its present state. `sealed` holds what is secret in it.
CREATE TABLE subscriptions (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    version BIGINT NOT NULL,
    last_updated BIGINT NOT NULL,
    status TEXT NOT NULL,
    created_by TEXT NOT NULL,
    deleted BOOLEAN NOT NULL,
    state TEXT NOT NULL,
    indexed TEXT NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
CREATE INDEX subscriptions_by_creator ON subscriptions (tenant, created_by, last_updated, id);
CREATE INDEX subscriptions_by_time ON subscriptions (tenant, last_updated, id);

-- Rises with every change of a tenant's Subscriptions.
CREATE TABLE subscription_revisions (
    tenant TEXT NOT NULL,
    revision BIGINT NOT NULL,
    PRIMARY KEY (tenant)
) WITHOUT ROWID;

-- How many events each has counted. Apart from how far its deliveries are: others write that.
CREATE TABLE subscription_counts (
    tenant TEXT NOT NULL,
    subscription TEXT NOT NULL,
    events BIGINT NOT NULL,
    PRIMARY KEY (tenant, subscription)
) WITHOUT ROWID;

-- How far its deliveries are. `eager` where events go out as they come; `due` when it wants to be looked at without any.
CREATE TABLE subscription_courses (
    tenant TEXT NOT NULL,
    subscription TEXT NOT NULL,
    shard BIGINT NOT NULL,
    eager BOOLEAN NOT NULL,
    due BIGINT,
    delivered BIGINT NOT NULL,
    trying BIGINT,
    attempts BIGINT NOT NULL,
    failing_since BIGINT,
    next_try BIGINT,
    last_sent BIGINT,
    problem TEXT,
    PRIMARY KEY (tenant, subscription)
) WITHOUT ROWID;

-- The events of each, numbered without gaps.
CREATE TABLE subscription_events (
    tenant TEXT NOT NULL,
    subscription TEXT NOT NULL,
    number BIGINT NOT NULL,
    topic TEXT NOT NULL,
    focus TEXT NOT NULL,
    version BIGINT NOT NULL,
    change TEXT NOT NULL,
    grant_id TEXT,
    correlation TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (tenant, subscription, number)
) WITHOUT ROWID;
CREATE INDEX subscription_events_by_time ON subscription_events (tenant, at);
