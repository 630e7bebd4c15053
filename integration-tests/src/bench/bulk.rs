//! Many Tasks at once: a few that were made over HTTP are cloned in the database, with other ids and owners, and all
//! the rows that come with a Task but those of the ledger and the outbox.

use serde_json::{Value, json};

use crate::database::Database;
use crate::failure::Result;
use crate::load::{Expected, each};
use crate::stage::{CREATED, Document, Stage, id_of, task};

/// The owner in the templates, replaced in each clone.
const TEMPLATE_OWNER: &str = "Practitioner/bench-template";
/// Clones that one transaction makes.
const BATCH: usize = 100_000;

/// The owner with this number. The first is of the cast.
pub fn owner(number: usize) -> String {
    match number {
        0 => "Practitioner/lane".to_owned(),
        n => format!("Practitioner/bench-{n}"),
    }
}

/// A population of cloned Tasks that can grow.
pub struct Population {
    templates: Vec<String>,
    /// Owners among whom the Tasks are divided, however many there are.
    pub owners: usize,
    /// How many there are.
    pub size: usize,
}

impl Population {
    /// Makes the templates. They stand for these statuses, in twentieths of all Tasks.
    pub async fn begin(stage: &Stage, document: &Document, owners: usize) -> Result<Self> {
        let shares = [
            ("in-progress", 5),
            ("accepted", 5),
            ("ready", 4),
            ("completed", 4),
            ("on-hold", 2),
        ];
        let mut templates = Vec::new();
        for (status, share) in shares {
            let first = if status == "completed" || status == "on-hold" {
                "in-progress"
            } else {
                status
            };
            let request = stage.as_ehr("POST", "/fhir/Task", &task(first, document, TEMPLATE_OWNER));
            let made = each(&stage.target, 1, CREATED, vec![request]).await?;
            for answer in made {
                let mut stored = answer.json()?;
                let id = id_of(&stored)?;
                if first != status {
                    stored["status"] = json!(status);
                    move_to(stage, &id, &stored).await?;
                }
                templates.extend(std::iter::repeat_n(id, share));
            }
        }
        Ok(Self {
            templates,
            owners,
            size: 0,
        })
    }

    /// Grows to `size` Tasks.
    pub async fn grow(&mut self, database: &Database, size: usize) -> Result<()> {
        while self.size < size {
            let until = size.min(self.size + BATCH);
            database
                .sql(&clones(&self.templates, self.owners, self.size, until))
                .await?;
            self.size = until;
        }
        database.sql("VACUUM (ANALYZE);\nCHECKPOINT;").await?;
        Ok(())
    }
}

async fn move_to(stage: &Stage, id: &str, task: &Value) -> Result<()> {
    let expected = Expected {
        what: "move of a template",
        status: 200,
    };
    let request = stage.as_ehr("PUT", &format!("/fhir/Task/{id}"), task);
    each(&stage.target, 1, expected, vec![request]).await.map(|_| ())
}

/// The statements that clone from number `from` up to `until`.
fn clones(templates: &[String], owners: usize, from: usize, until: usize) -> String {
    let list = templates
        .iter()
        .map(|id| format!("'{id}'"))
        .collect::<Vec<_>>()
        .join(", ");
    let through = until - 1;
    let share = templates.len();
    let owned = |column: &str| format!("replace({column}, 'bench-template', split_part(c.owner, '/', 2))");
    let text = |column: &str| owned(&format!("replace({column}, c.template, c.id)"));
    let (state, viewer, bare, target) = (
        text("r.state"),
        owned("r.viewer"),
        owned("r.bare"),
        owned("r.target"),
    );
    let (body, grantee) = (text("convert_from(r.body, 'UTF8')"), owned("r.grantee"));
    format!(
        "SET synchronous_commit = off;
         SET work_mem = '256MB';
         BEGIN;
         CREATE TEMP TABLE clones ON COMMIT DROP AS
           SELECT lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint - ago / 1000), 12, '0')
                    || left(md5('bench' || i), 20) AS id,
                  (ARRAY[{list}])[i / {owners} % {share} + 1] AS template,
                  CASE WHEN i % {owners} = 0 THEN 'Practitioner/lane' ELSE 'Practitioner/bench-' || i % {owners} END
                    AS owner,
                  ago
           FROM generate_series({from}, {through}) i,
                -- Within the last ninety days, no two at once, and in no order.
                LATERAL (SELECT (i::bigint * 7919 % 7776000) * 1000000 + i AS ago) AS age
           ORDER BY 1;
         ANALYZE clones;
         INSERT INTO tasks (tenant, id, version, last_updated, status, owner, patient, created_by, due, deleted, state,
                            indexed)
           SELECT r.tenant, c.id, r.version, r.last_updated - c.ago, r.status, c.owner, r.patient, r.created_by, r.due,
                  r.deleted, {state}, r.indexed
           FROM clones c JOIN tasks r ON r.tenant = 'default' AND r.id = c.template ORDER BY c.id;
         INSERT INTO resource_versions (tenant, kind, id, version, last_updated, method, body)
           SELECT r.tenant, r.kind, c.id, r.version, r.last_updated - c.ago, r.method, convert_to({body}, 'UTF8')
           FROM clones c JOIN resource_versions r ON r.tenant = 'default' AND r.kind = 'Task' AND r.id = c.template
           ORDER BY c.id;
         INSERT INTO task_viewers (tenant, viewer, task)
           SELECT r.tenant, {viewer}, c.id
           FROM clones c JOIN task_viewers r ON r.tenant = 'default' AND r.task = c.template ORDER BY 2, 3;
         INSERT INTO task_documents (tenant, document, task)
           SELECT r.tenant, r.document, c.id
           FROM clones c JOIN task_documents r ON r.tenant = 'default' AND r.task = c.template ORDER BY 2, 3;
         INSERT INTO search_tokens (tenant, kind, name, code, id, system)
           SELECT r.tenant, r.kind, r.name, r.code, c.id, r.system
           FROM clones c JOIN search_tokens r ON r.tenant = 'default' AND r.kind = 'Task' AND r.id = c.template
           ORDER BY 3, 4, 5;
         INSERT INTO search_references (tenant, kind, name, bare, id, target)
           SELECT r.tenant, r.kind, r.name, {bare}, c.id, {target}
           FROM clones c JOIN search_references r ON r.tenant = 'default' AND r.kind = 'Task' AND r.id = c.template
           ORDER BY 3, 4, 5;
         INSERT INTO search_dates (tenant, kind, name, first_at, last_at, id)
           SELECT r.tenant, r.kind, r.name, r.first_at, r.last_at, c.id
           FROM clones c JOIN search_dates r ON r.tenant = 'default' AND r.kind = 'Task' AND r.id = c.template
           ORDER BY 3, 4, 5, 6;
         INSERT INTO search_strings (tenant, kind, name, value, id)
           SELECT r.tenant, r.kind, r.name, r.value, c.id
           FROM clones c JOIN search_strings r ON r.tenant = 'default' AND r.kind = 'Task' AND r.id = c.template
           ORDER BY 3, 4, 5;
         -- They last for a month, so that none of them expires while something is measured.
         INSERT INTO grants (tenant, id, handle, secret_hash, task, document, content_version, \"binary\", sha256, origin,
                             max_uses, uses, time_window, issued_at, constraints, status, grantee, bound_at, expires_at,
                             ended_at, reason, task_due, revision)
           SELECT r.tenant, md5('g' || c.id), md5('h' || c.id), r.secret_hash, c.id, r.document, r.content_version,
                  r.\"binary\", r.sha256, r.origin, r.max_uses, r.uses, r.time_window, r.issued_at, r.constraints,
                  r.status, {grantee}, r.bound_at, r.expires_at + 30::bigint * 86400 * 1000000, r.ended_at, r.reason,
                  r.task_due, r.revision
           FROM clones c JOIN grants r ON r.tenant = 'default' AND r.task = c.template ORDER BY 2;
         COMMIT;"
    )
}
