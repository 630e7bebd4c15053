-- The trace of the request that an event came of, as a W3C `traceparent`: who tells a subscriber of it goes on with that trace.
-- NULL where it was not traced.
ALTER TABLE outbox ADD COLUMN trace TEXT COLLATE "C";
ALTER TABLE subscription_events ADD COLUMN trace TEXT COLLATE "C";
