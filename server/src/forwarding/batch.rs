//! Rows made into what a sink of their kind is sent: the same bytes each time. Knows nothing of how they get there.

use super::{otlp, webhook};
use crate::app::forwarding::ForwardedRow;
use crate::config::SinkKind;

/// The most bytes of a batch, as long as it has more than one row.
const MOST_BYTES: usize = 1 << 20;

/// A batch, as it is sent.
#[derive(Debug)]
pub(super) struct Body {
    /// The bytes.
    pub(super) bytes: Vec<u8>,
    /// How many of the rows are in it, from the first on.
    pub(super) rows: usize,
}

impl Body {
    /// As many of these rows as make a batch; at least one, if there is one.
    pub(super) fn of_first(kind: &SinkKind, rows: &[ForwardedRow]) -> Self {
        Self::bounded(kind, rows, MOST_BYTES)
    }

    /// All of these, which were found to be a batch before.
    pub(super) fn of_all(kind: &SinkKind, rows: &[ForwardedRow]) -> Self {
        Self::bounded(kind, rows, usize::MAX)
    }

    fn bounded(kind: &SinkKind, rows: &[ForwardedRow], most: usize) -> Self {
        match kind {
            SinkKind::Webhook(_) => {
                let parts = take(rows, most, webhook::line, Vec::len);
                Self {
                    rows: parts.len(),
                    bytes: parts.concat(),
                }
            }
            SinkKind::Otlp => {
                let records = take(rows, most, otlp::record, otlp::size);
                Self {
                    rows: records.len(),
                    bytes: otlp::request(records),
                }
            }
        }
    }
}

fn take<T>(
    rows: &[ForwardedRow],
    most: usize,
    part: impl Fn(&ForwardedRow) -> T,
    size: impl Fn(&T) -> usize,
) -> Vec<T> {
    let (mut parts, mut bytes) = (Vec::new(), 0_usize);
    for row in rows {
        let next = part(row);
        bytes = bytes.saturating_add(size(&next));
        if bytes > most && !parts.is_empty() {
            break;
        }
        parts.push(next);
    }
    parts
}

#[cfg(test)]
pub(super) mod tests {
    use handoff_domain::audit::{About, Agent, AuditRow, Event, Outcome};
    use handoff_domain::ids::{CorrelationId, TenantId};
    use handoff_domain::ports::RecordedRow;
    use handoff_domain::reason::Reason;
    use handoff_domain::time::Timestamp;

    use super::*;

    pub(in super::super) fn row(sequence: i64, detail: &str) -> ForwardedRow {
        let row = AuditRow {
            recorded: Timestamp(1_770_000_000_123_456),
            event: Event::RedemptionDenied,
            outcome: Outcome::Denied,
            reason: Reason::TaskCompleted,
            correlation: CorrelationId::parse("0af7651916cd43dd8448eb211c80319c").unwrap(),
            agent: Agent {
                actor: Some("Practitioner/lane".to_owned()),
                client: Some("viewer-app".to_owned()),
                ..Agent::default()
            },
            about: About {
                task: Some("Task/t1".to_owned()),
                patient: Some("Patient/ada".to_owned()),
                ..About::default()
            },
            detail: [("note".to_owned(), detail.to_owned())].into(),
        };
        ForwardedRow {
            tenant: TenantId::parse("b").unwrap(),
            recorded: RecordedRow {
                sequence,
                id: sequence.to_string(),
                row,
            },
        }
    }

    fn kinds() -> [SinkKind; 2] {
        [SinkKind::Webhook(Vec::new()), SinkKind::Otlp]
    }

    #[test]
    fn a_batch_ends_before_it_is_too_large_and_has_one_row_at_least() {
        let large = "x".repeat(400_000);
        for kind in kinds() {
            let rows: Vec<_> = (1..=4).map(|n| row(n, &large)).collect();
            let body = Body::of_first(&kind, &rows);
            assert_eq!(body.rows, 2, "{kind:?}");
            assert!(body.bytes.len() <= MOST_BYTES);
            // What was fixed is sent whole, whatever the bounds are by then.
            assert_eq!(Body::of_all(&kind, &rows).rows, 4);
            let huge = [row(1, &"x".repeat(2 << 20)), row(2, "")];
            assert_eq!(Body::of_first(&kind, &huge).rows, 1);
            assert_eq!(Body::of_first(&kind, &[]).rows, 0);
        }
    }

    #[test]
    fn the_same_rows_are_the_same_bytes() {
        for kind in kinds() {
            let rows: Vec<_> = (1..=5).map(|n| row(n, "again")).collect();
            let first = Body::of_first(&kind, &rows);
            assert_eq!(first.bytes, Body::of_all(&kind, &rows).bytes);
        }
    }
}
