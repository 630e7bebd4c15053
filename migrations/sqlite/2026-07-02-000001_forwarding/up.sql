-- How far the audit was forwarded to each sink: what it took, and up to where the batch goes that is being sent. Belongs to no tenant.
CREATE TABLE forwarding (
    sink TEXT NOT NULL,
    stream TEXT NOT NULL,
    done BIGINT NOT NULL,
    sending BIGINT,
    PRIMARY KEY (sink)
);
