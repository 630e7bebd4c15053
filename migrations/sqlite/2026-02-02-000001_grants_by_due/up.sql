-- Grants of Tasks whose due date has just passed, ended ones too: what they opened is looked for several times a second.
CREATE INDEX grants_by_due ON grants (task_due) WHERE task_due IS NOT NULL;
