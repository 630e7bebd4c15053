-- Whether a notice tells that its resource was deleted.
ALTER TABLE notices ADD COLUMN gone BOOLEAN NOT NULL DEFAULT FALSE;
-- Each source's backlog is worked off by itself.
DROP INDEX notices_waiting;
CREATE INDEX notices_waiting ON notices (tenant, source, state_at) WHERE state = 'waiting';
