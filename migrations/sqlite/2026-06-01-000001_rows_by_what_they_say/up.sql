-- The rows by which a Task is found are removed by what they say, which the Task knows: nobody looks for them by Task any
-- more, and these were written with every one.
DROP INDEX task_viewers_by_task;
DROP INDEX task_documents_by_task;
DROP INDEX task_parents_by_task;
