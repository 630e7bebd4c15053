//! The audit as the outbox of its sinks: which rows a sink is sent next, and how far it is. Nothing is written for it where rows are
//! recorded: they are read in the order of their numbers, as far as nobody can commit a smaller one. Sends nothing.

use handoff_domain::audit::AuditRow;
use handoff_domain::forwarding::{Cursor, SinkName, Start};
use handoff_domain::ids::TenantId;
use handoff_domain::ledger::Entry;
use handoff_domain::ports::RecordedRow;
use handoff_domain::reason::Reason;
use handoff_domain::time::Timestamp;

use super::{App, AppError, Class, Cuts};

/// The most rows of a batch.
const MOST: u32 = 500;

/// A row on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardedRow {
    /// Whose it is.
    pub tenant: TenantId,
    /// The row.
    pub recorded: RecordedRow,
}

impl App {
    /// The number up to which no row can come to be any more; `None` while a transaction is open that may still write one.
    pub async fn settled_audit(&self) -> Result<Option<i64>, AppError> {
        self.read(|read| Ok(read.settled_sequence()?)).await
    }

    /// How far a sink is. One that is new begins with the first row there is, or from now on.
    pub async fn forwarding_cursor(&self, sink: &SinkName, start: Start) -> Result<Option<Cursor>, AppError> {
        let of = sink.clone();
        if let Some(cursor) = self.read(move |read| Ok(read.cursor(&of)?)).await? {
            return Ok(Some(cursor));
        }
        let done = match start {
            Start::Beginning => 0,
            Start::Now => match self.settled_audit().await? {
                Some(settled) => settled,
                None => return Ok(None),
            },
        };
        let cursor = Cursor {
            sink: sink.clone(),
            stream: self.entropy.ordered_id(self.clock.now()),
            done,
            sending: None,
        };
        let begun = self
            .write(&TenantId::default_tenant(), move |tx| {
                if let Some(found) = tx.cursor(&cursor.sink)? {
                    return Ok((found, Cuts::none()));
                }
                tx.add_cursor(&cursor)?;
                Ok((cursor.clone(), Cuts::none()))
            })
            .await?;
        Ok(Some(begun))
    }

    /// Puts a cursor in the place of another; answers whether that was still how it stood.
    pub async fn move_cursor(&self, from: &Cursor, to: &Cursor) -> Result<bool, AppError> {
        let (from, to) = (from.clone(), to.clone());
        self.write(&TenantId::default_tenant(), move |tx| {
            Ok((tx.move_cursor(&from, &to)?, Cuts::none()))
        })
        .await
    }

    /// The first rows of all tenants after a number and up to another, up to which no other can come to be: what makes a batch.
    pub async fn rows_to_forward(&self, after: i64, until: i64) -> Result<Vec<ForwardedRow>, AppError> {
        self.read(move |read| {
            let rows = read.rows_of_all(after, until, MOST)?;
            rows.into_iter()
                .map(|(tenant, entry)| forwarded(tenant, &entry))
                .collect()
        })
        .await
    }

    /// All rows after a number and up to another that were made a batch before.
    pub async fn rows_of_batch(&self, after: i64, until: i64) -> Result<Vec<ForwardedRow>, AppError> {
        self.read(move |read| {
            let (mut rows, mut after) = (Vec::new(), after);
            // They may have been looked for from another number on, and holes are passed by steps.
            while after < until {
                let more = read.rows_of_all(after, until, MOST)?;
                let Some((_, last)) = more.last() else { break };
                after = last.sequence;
                for (tenant, entry) in more {
                    rows.push(forwarded(tenant, &entry)?);
                }
            }
            Ok(rows)
        })
        .await
    }

    /// When the oldest row was recorded that a sink has not taken yet; `None` where it has all of them.
    pub async fn oldest_unforwarded(
        &self,
        sink: &SinkName,
        start: Start,
    ) -> Result<Option<Timestamp>, AppError> {
        let sink = sink.clone();
        self.read(move |read| {
            let done = match (read.cursor(&sink)?, start) {
                (Some(cursor), _) => cursor.done,
                (None, Start::Beginning) => 0,
                (None, Start::Now) => return Ok(None),
            };
            let first = read.rows_of_all(done, i64::MAX, 1)?.pop();
            // One that does not say when it was recorded is none of ours, and has waited for ever.
            Ok(first.map(|(_, entry)| says(&entry).map_or(Timestamp(0), |row| row.recorded)))
        })
        .await
    }
}

fn says(entry: &Entry) -> Option<AuditRow> {
    serde_json::from_str(&entry.text).ok()
}

/// One that can't be read, of a newer version perhaps, is passed over by nobody: it would be missing.
fn forwarded(tenant: TenantId, entry: &Entry) -> Result<ForwardedRow, AppError> {
    let Some(row) = says(entry) else {
        let cause = format!(
            "row {} of tenant {tenant} can't be read; nothing that follows is forwarded until it can",
            entry.sequence
        );
        let text = "a row of the audit can't be read";
        return Err(AppError::new(Class::Internal, Reason::StorageUnavailable, text).because(cause));
    };
    Ok(ForwardedRow {
        tenant,
        recorded: RecordedRow {
            sequence: entry.sequence,
            id: entry.sequence.to_string(),
            row,
        },
    })
}
