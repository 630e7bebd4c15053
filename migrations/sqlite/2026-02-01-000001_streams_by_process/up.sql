-- What a process must stop is found by the redemptions that name it, so the orders to cut are not kept. No server
-- that wrote them was released.
DROP TABLE cuts;

-- From here on a process is named exactly as long as the end of its stream, or a first stream, is awaited.
UPDATE redemptions SET process = NULL WHERE process IS NOT NULL AND state NOT IN ('authorized', 'streaming');
DROP INDEX redemptions_running;
CREATE INDEX redemptions_held ON redemptions (process, state) WHERE process IS NOT NULL;
