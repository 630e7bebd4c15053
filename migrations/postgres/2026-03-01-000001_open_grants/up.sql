-- A grant is open until it ended. Said so, an index does not change when a grant is suspended or bound again, and with
-- some room in each page the row is changed where it stands.
DROP INDEX grants_open;
DROP INDEX grants_expiring;
DROP INDEX grants_due;
CREATE UNIQUE INDEX grants_open ON grants (tenant, task, "binary", coalesce(grantee, '')) WHERE ended_at IS NULL;
CREATE INDEX grants_expiring ON grants (expires_at) WHERE expires_at IS NOT NULL AND ended_at IS NULL;
CREATE INDEX grants_due ON grants (task_due) WHERE task_due IS NOT NULL AND ended_at IS NULL;
ALTER TABLE grants SET (fillfactor = 80);
