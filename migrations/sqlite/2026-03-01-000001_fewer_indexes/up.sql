-- A resource keeps its search rows beside itself, so that those that no longer hold are removed by their keys: nothing
-- looks for them by the resource's id any more. No server that wrote the digests that were kept before was released.
UPDATE tasks AS r SET indexed = json_object(
    'tokens', (SELECT json_group_array(json_array(s.name, s.code, s.system)) FROM search_tokens s
        WHERE s.tenant = r.tenant AND s.kind = 'Task' AND s.id = r.id),
    'references', (SELECT json_group_array(json_array(s.name, s.target)) FROM search_references s
        WHERE s.tenant = r.tenant AND s.kind = 'Task' AND s.id = r.id),
    'dates', (SELECT json_group_array(json_array(s.name, s.first_at, s.last_at)) FROM search_dates s
        WHERE s.tenant = r.tenant AND s.kind = 'Task' AND s.id = r.id),
    'strings', (SELECT json_group_array(json_array(s.name, s.value)) FROM search_strings s
        WHERE s.tenant = r.tenant AND s.kind = 'Task' AND s.id = r.id));
UPDATE documents AS r SET indexed = json_object(
    'tokens', (SELECT json_group_array(json_array(s.name, s.code, s.system)) FROM search_tokens s
        WHERE s.tenant = r.tenant AND s.kind = 'DocumentReference' AND s.id = r.id),
    'references', (SELECT json_group_array(json_array(s.name, s.target)) FROM search_references s
        WHERE s.tenant = r.tenant AND s.kind = 'DocumentReference' AND s.id = r.id),
    'dates', (SELECT json_group_array(json_array(s.name, s.first_at, s.last_at)) FROM search_dates s
        WHERE s.tenant = r.tenant AND s.kind = 'DocumentReference' AND s.id = r.id),
    'strings', (SELECT json_group_array(json_array(s.name, s.value)) FROM search_strings s
        WHERE s.tenant = r.tenant AND s.kind = 'DocumentReference' AND s.id = r.id));
DROP INDEX search_tokens_by_id;
DROP INDEX search_references_by_id;
DROP INDEX search_dates_by_id;
DROP INDEX search_strings_by_id;
DROP INDEX task_viewers_by_task;
DROP INDEX task_documents_by_task;
DROP INDEX task_parents_by_task;
-- A grant is open until it ended. Said so, an index does not change when a grant is suspended or bound again.
DROP INDEX grants_open;
DROP INDEX grants_expiring;
DROP INDEX grants_due;
CREATE UNIQUE INDEX grants_open ON grants (tenant, task, "binary", coalesce(grantee, '')) WHERE ended_at IS NULL;
CREATE INDEX grants_expiring ON grants (expires_at) WHERE expires_at IS NOT NULL AND ended_at IS NULL;
CREATE INDEX grants_due ON grants (task_due) WHERE task_due IS NOT NULL AND ended_at IS NULL;
