-- By time before by tenant: before a planner has statistics, an index that begins with the tenant looks as good to it as the
-- key of one subscription's events, and is read from end to end.
DROP INDEX subscription_events_by_time;
CREATE INDEX subscription_events_by_time ON subscription_events (at, tenant);
