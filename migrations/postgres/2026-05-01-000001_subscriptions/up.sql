-- Which events no subscription was given yet. What was there before is told to nobody; what processes of the version before
-- still write is.
ALTER TABLE outbox ADD COLUMN pending BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE outbox ALTER COLUMN pending SET DEFAULT TRUE;
ALTER TABLE outbox ADD COLUMN correlation TEXT COLLATE "C" NOT NULL DEFAULT '';
CREATE INDEX outbox_pending ON outbox (sequence) WHERE pending;

-- One row per Subscription: its present state. `sealed` holds what is secret in it.
CREATE TABLE subscriptions (
    tenant TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    last_updated BIGINT NOT NULL,
    status TEXT COLLATE "C" NOT NULL,
    created_by TEXT COLLATE "C" NOT NULL,
    deleted BOOLEAN NOT NULL,
    state TEXT NOT NULL,
    indexed TEXT NOT NULL,
    sealed BYTEA NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX subscriptions_by_creator ON subscriptions (tenant, created_by, last_updated, id);
CREATE INDEX subscriptions_by_time ON subscriptions (tenant, last_updated, id);

-- Rises with every change of a tenant's Subscriptions.
CREATE TABLE subscription_revisions (
    tenant TEXT COLLATE "C" NOT NULL,
    revision BIGINT NOT NULL,
    PRIMARY KEY (tenant)
);

-- How many events each has counted. Apart from how far its deliveries are: others write that.
CREATE TABLE subscription_counts (
    tenant TEXT COLLATE "C" NOT NULL,
    subscription TEXT COLLATE "C" NOT NULL,
    events BIGINT NOT NULL,
    PRIMARY KEY (tenant, subscription)
);

-- How far its deliveries are. `eager` where events go out as they come; `due` when it wants to be looked at without any.
CREATE TABLE subscription_courses (
    tenant TEXT COLLATE "C" NOT NULL,
    subscription TEXT COLLATE "C" NOT NULL,
    shard BIGINT NOT NULL,
    eager BOOLEAN NOT NULL,
    due BIGINT,
    delivered BIGINT NOT NULL,
    trying BIGINT,
    attempts BIGINT NOT NULL,
    failing_since BIGINT,
    next_try BIGINT,
    last_sent BIGINT,
    problem TEXT COLLATE "C",
    PRIMARY KEY (tenant, subscription)
);

-- The events of each, numbered without gaps.
CREATE TABLE subscription_events (
    tenant TEXT COLLATE "C" NOT NULL,
    subscription TEXT COLLATE "C" NOT NULL,
    number BIGINT NOT NULL,
    topic TEXT COLLATE "C" NOT NULL,
    focus TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    change TEXT COLLATE "C" NOT NULL,
    grant_id TEXT COLLATE "C",
    correlation TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (tenant, subscription, number)
);
CREATE INDEX subscription_events_by_time ON subscription_events (tenant, at);
