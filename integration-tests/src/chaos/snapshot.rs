//! What the store holds once everything has come to rest: the rows, as far as the checker asks for them, and the
//! names of the objects. Read once; judged elsewhere.

use serde_json::Value;

use super::record::{Micros, now};
use super::stand::{Cell, Reader, Stand};

/// A version of a Task or a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRow {
    /// `Task` or `DocumentReference`.
    pub kind: String,
    /// Logical id.
    pub id: String,
    /// Version.
    pub version: i64,
    /// When.
    pub updated: Micros,
    /// Whether this version is the deletion.
    pub is_deleted: bool,
    /// `status`.
    pub status: String,
    /// `Task.owner`.
    pub owner: Option<String>,
    /// The documents in `Task.focus` and `Task.input`; the Binaries of a document's attachments.
    pub names: Vec<String>,
    /// `Task.businessStatus`.
    pub business: Option<String>,
}

/// Where a Task or document stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the columns")]
pub struct HeadRow {
    pub kind: String,
    pub id: String,
    pub version: i64,
    pub is_deleted: bool,
}

/// A grant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the columns")]
pub struct GrantRow {
    pub id: String,
    pub task: String,
    pub document: String,
    pub binary: String,
    pub max_uses: i64,
    pub uses: i64,
    pub status: String,
    pub grantee: Option<String>,
    pub expires: Option<Micros>,
}

impl GrantRow {
    /// Whether it can still come to be used.
    pub fn is_open(&self) -> bool {
        matches!(self.status.as_str(), "issued" | "bound" | "suspended")
    }
}

/// A redemption.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the columns")]
pub struct RedemptionRow {
    pub id: String,
    pub grant: String,
    pub grantee: String,
    pub state: String,
    pub opened: Micros,
    pub window_end: Micros,
    pub streams: i64,
    pub process: Option<String>,
}

/// How long a redemption may be resumed, in the workflow that the clients use.
pub const REDEMPTION_WINDOW: Micros = 600 * 1_000_000;

impl RedemptionRow {
    /// Whether its use was given back: that, and nothing else, shortens its window.
    pub fn is_given_back(&self) -> bool {
        self.window_end != self.opened + REDEMPTION_WINDOW
    }

    /// Whether it waits for a stream or runs one.
    pub fn is_left_open(&self) -> bool {
        matches!(self.state.as_str(), "authorized" | "streaming")
    }
}

/// A row of the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the columns")]
pub struct AuditRow {
    pub sequence: i64,
    pub recorded: Micros,
    pub event: String,
    pub is_success: bool,
    pub correlation: String,
    pub task: Option<String>,
    pub task_version: Option<i64>,
    pub document: Option<String>,
    pub document_version: Option<i64>,
    pub binary: Option<String>,
    pub grant: Option<String>,
    pub redemption: Option<String>,
    /// The `Task.businessStatus` that the server set by itself.
    pub business: Option<String>,
}

/// A row of the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the columns")]
pub struct OutboxRow {
    pub topic: String,
    pub focus: String,
    pub version: i64,
    pub change: String,
    pub grant: Option<String>,
}

/// A Binary.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the columns")]
pub struct BinaryRow {
    pub id: String,
    pub document: Option<String>,
    pub size: i64,
    pub sha256: String,
    pub is_deleted: bool,
}

/// Everything together.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "the tables")]
pub struct Snapshot {
    pub taken: Micros,
    pub heads: Vec<HeadRow>,
    pub versions: Vec<VersionRow>,
    pub grants: Vec<GrantRow>,
    pub redemptions: Vec<RedemptionRow>,
    pub audit: Vec<AuditRow>,
    pub outbox: Vec<OutboxRow>,
    pub binaries: Vec<BinaryRow>,
    /// The ids of the objects in the content store.
    pub objects: Vec<String>,
}

impl Snapshot {
    /// Reads everything.
    pub async fn take(stand: &Stand) -> Self {
        // All of one instant: the servers run on, and a grant may expire between two tables.
        let reader = &mut stand.reader();
        Self {
            taken: now(),
            heads: heads(reader),
            versions: versions(reader),
            grants: grants(reader),
            redemptions: redemptions(reader),
            audit: audit(reader),
            outbox: outbox(reader),
            binaries: binaries(reader),
            objects: stand.objects().await,
        }
    }
}

/// How many redemptions wait for a stream or run one.
pub fn left_open(stand: &Stand) -> usize {
    let all = redemptions(&mut stand.reader());
    all.iter().filter(|r| r.is_left_open()).count()
}

use Cell::{About, Detail, Hex, Plain, Text};

fn heads(reader: &mut Reader) -> Vec<HeadRow> {
    let cells = [Plain("id"), Plain("version"), Plain("deleted")];
    let mut heads = Vec::new();
    for (kind, rest) in [("Task", "FROM tasks"), ("DocumentReference", "FROM documents")] {
        heads.extend(reader.rows(&cells, rest).into_iter().map(|row| HeadRow {
            kind: kind.to_owned(),
            id: text(&row[0]),
            version: number(&row[1]),
            is_deleted: flag(&row[2]),
        }));
    }
    heads
}

fn versions(reader: &mut Reader) -> Vec<VersionRow> {
    let cells = [
        Plain("kind"),
        Plain("id"),
        Plain("version"),
        Plain("last_updated"),
        Text("body"),
    ];
    let rows = reader.rows(&cells, "FROM resource_versions ORDER BY kind, id, version");
    rows.into_iter()
        .map(|row| {
            let body: Value = serde_json::from_str(&text(&row[4])).unwrap_or(Value::Null);
            let business = &body["businessStatus"]["coding"][0]["code"];
            VersionRow {
                kind: text(&row[0]),
                id: text(&row[1]),
                version: number(&row[2]),
                updated: number(&row[3]),
                is_deleted: body.is_null(),
                status: text(&body["status"]),
                owner: optional(&body["owner"]["reference"]),
                names: names(&body),
                business: optional(business).or_else(|| optional(&body["businessStatus"]["text"])),
            }
        })
        .collect()
}

/// The documents that a Task names, or the Binaries that a document names.
fn names(body: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let inputs = list(&body["input"]);
    let contents = list(&body["content"]);
    let references = [&body["focus"]["reference"]]
        .into_iter()
        .chain(inputs.iter().map(|input| &input["valueReference"]["reference"]))
        .chain(contents.iter().map(|content| &content["attachment"]["url"]));
    references
        .filter_map(|reference| reference.as_str()?.split_once('/'))
        .map(|(_, id)| id.split('/').next().unwrap_or_default().to_owned())
        .collect()
}

fn grants(reader: &mut Reader) -> Vec<GrantRow> {
    let cells = [
        Plain("id"),
        Plain("task"),
        Plain("document"),
        Plain("\"binary\""),
        Plain("max_uses"),
        Plain("uses"),
        Plain("status"),
        Plain("grantee"),
        Plain("expires_at"),
    ];
    let rows = reader.rows(&cells, "FROM grants ORDER BY issued_at, id");
    rows.into_iter()
        .map(|row| GrantRow {
            id: text(&row[0]),
            task: text(&row[1]),
            document: text(&row[2]),
            binary: text(&row[3]),
            max_uses: number(&row[4]),
            uses: number(&row[5]),
            status: text(&row[6]),
            grantee: optional(&row[7]),
            expires: row[8].as_i64(),
        })
        .collect()
}

fn redemptions(reader: &mut Reader) -> Vec<RedemptionRow> {
    let cells = [
        Plain("id"),
        Plain("grant_id"),
        Plain("grantee"),
        Plain("state"),
        Plain("opened_at"),
        Plain("window_end"),
        Plain("streams"),
        Plain("process"),
    ];
    let rows = reader.rows(&cells, "FROM redemptions ORDER BY opened_at, id");
    rows.into_iter()
        .map(|row| RedemptionRow {
            id: text(&row[0]),
            grant: text(&row[1]),
            grantee: text(&row[2]),
            state: text(&row[3]),
            opened: number(&row[4]),
            window_end: number(&row[5]),
            streams: number(&row[6]),
            process: optional(&row[7]),
        })
        .collect()
}

fn audit(reader: &mut Reader) -> Vec<AuditRow> {
    let cells = [
        Plain("sequence"),
        Plain("recorded"),
        Plain("event"),
        Plain("outcome"),
        Plain("correlation"),
        Plain("task"),
        About("task_version"),
        Plain("document"),
        About("document_version"),
        Plain("\"binary\""),
        Plain("grant_id"),
        Plain("redemption"),
        Detail("business-status"),
    ];
    let rows = reader.rows(&cells, "FROM audit_log ORDER BY sequence");
    rows.into_iter()
        .map(|row| AuditRow {
            sequence: number(&row[0]),
            recorded: number(&row[1]),
            event: text(&row[2]),
            is_success: row[3] == "success",
            correlation: text(&row[4]),
            task: id_in(&row[5]),
            task_version: maybe_number(&row[6]),
            document: id_in(&row[7]),
            document_version: maybe_number(&row[8]),
            binary: id_in(&row[9]),
            grant: optional(&row[10]),
            redemption: optional(&row[11]),
            business: optional(&row[12]),
        })
        .collect()
}

fn outbox(reader: &mut Reader) -> Vec<OutboxRow> {
    let cells = [
        Plain("topic"),
        Plain("focus"),
        Plain("version"),
        Plain("change"),
        Plain("grant_id"),
    ];
    let rows = reader.rows(&cells, "FROM outbox ORDER BY sequence");
    rows.into_iter()
        .map(|row| OutboxRow {
            topic: text(&row[0]),
            focus: text(&row[1]),
            version: number(&row[2]),
            change: text(&row[3]),
            grant: optional(&row[4]),
        })
        .collect()
}

fn binaries(reader: &mut Reader) -> Vec<BinaryRow> {
    let cells = [
        Plain("id"),
        Plain("document"),
        Plain("size"),
        Hex("sha256"),
        Plain("deleted_at"),
    ];
    let rows = reader.rows(&cells, "FROM binaries ORDER BY id");
    rows.into_iter()
        .map(|row| BinaryRow {
            id: text(&row[0]),
            document: optional(&row[1]),
            size: number(&row[2]),
            sha256: text(&row[3]),
            is_deleted: !row[4].is_null(),
        })
        .collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn optional(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// The id in a reference.
fn id_in(value: &Value) -> Option<String> {
    value.as_str()?.split_once('/').map(|(_, id)| id.to_owned())
}

fn number(value: &Value) -> i64 {
    maybe_number(value).expect("a number")
}

fn maybe_number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// One of the databases has no booleans.
fn flag(value: &Value) -> bool {
    value.as_bool().unwrap_or_else(|| number(value) != 0)
}
