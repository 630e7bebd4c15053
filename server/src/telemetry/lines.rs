//! Lines of the log as JSON: a flat object each, with the fields of the context that they are written within
//! ([`super::spans::CONTEXT`]), so that each line of a request can be found by its `correlation_id`.

use std::fmt;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::span::Record;
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::spans::CONTEXT;

/// Writes lines.
pub(super) struct Lines;

impl<S> FormatEvent<S, Members> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, Members>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let of = event.metadata();
        line.write_str("{\"timestamp\":\"")?;
        SystemTime.format_time(&mut line)?;
        write!(line, "\",\"level\":\"{}\"", of.level())?;
        written(&mut line, |members| event.record(members))?;
        // A line that says itself to what it belongs may belong to something else than what it is written within.
        let says_it = of.fields().field("correlation_id").is_some();
        if let Some(within) = context.event_scope().filter(|_| !says_it) {
            for span in within.filter(|span| span.metadata().target() == CONTEXT) {
                if let Some(fields) = span.extensions().get::<FormattedFields<Members>>() {
                    line.write_str(fields.as_str())?;
                }
            }
        }
        line.write_str(",\"target\":")?;
        text(&mut line, of.target())?;
        line.write_str("}\n")
    }
}

/// Fields as members of an object, each after a comma.
pub(super) struct Members;

impl<'w> FormatFields<'w> for Members {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        written(&mut writer, |members| fields.record(members))
    }

    fn add_fields(&self, current: &'w mut FormattedFields<Self>, fields: &Record<'_>) -> fmt::Result {
        self.format_fields(current.as_writer(), fields)
    }
}

fn written(line: &mut Writer<'_>, record: impl FnOnce(&mut Writing<'_, '_>)) -> fmt::Result {
    let mut members = Writing {
        line,
        outcome: Ok(()),
    };
    record(&mut members);
    members.outcome
}

struct Writing<'l, 'w> {
    line: &'l mut Writer<'w>,
    outcome: fmt::Result,
}

impl Writing<'_, '_> {
    fn member(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        // Raw identifiers are fields whose name is a word of the language.
        let name = field.name();
        let name = name.strip_prefix("r#").unwrap_or(name);
        self.outcome = self.outcome.and_then(|()| {
            self.line.write_char(',')?;
            text(self.line, name)?;
            self.line.write_char(':')?;
            value(self.line)
        });
    }
}

impl Visit for Writing<'_, '_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.member(field, |line| write!(line, "{}", Value::from(value)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, |line| write!(line, "{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, |line| write!(line, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, |line| write!(line, "{value}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field, |line| text(line, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.member(field, |line| text(line, &format!("{value:?}")));
    }
}

/// A text in quotes.
fn text(line: &mut Writer<'_>, text: &str) -> fmt::Result {
    let plain = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
    if text.bytes().all(plain) {
        write!(line, "\"{text}\"")
    } else {
        write!(line, "{}", Value::from(text))
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::super::spans;
    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(filter: &str, say: impl FnOnce()) -> Vec<Value> {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber =
            tracing_subscriber::registry().with(super::super::lines_of(filter, true, move || writer.clone()));
        tracing::subscriber::with_default(subscriber, say);
        let bytes = kept.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
            .collect()
    }

    #[test]
    fn a_line_carries_the_correlation_id_of_what_it_is_written_within() {
        let lines = lines("warn", || {
            let context = spans::context("c-\"1");
            spans::note_trace(&context, 0xab);
            context.in_scope(|| tracing::warn!(count = 3, odd = "a\"b\nc", "it \\ happened"));
            context.in_scope(|| tracing::warn!(correlation_id = "c-2", "of another"));
            tracing::warn!(share = 0.5, nothing = f64::NAN, is = true, "later");
        });
        let [within, another, without] = lines.as_slice() else {
            panic!("{lines:?}")
        };
        assert_eq!(within["correlation_id"], "c-\"1");
        assert_eq!(within["trace_id"], format!("{:032x}", 0xab));
        assert_eq!(within["message"], "it \\ happened");
        assert_eq!(
            (&within["count"], &within["odd"]),
            (&Value::from(3), &Value::from("a\"b\nc"))
        );
        assert_eq!(within["level"], "WARN");
        assert!(within["timestamp"].as_str().unwrap().ends_with('Z'));
        assert!(within["target"].as_str().unwrap().contains("lines"));
        assert_eq!(
            (&another["correlation_id"], &another["trace_id"]),
            (&Value::from("c-2"), &Value::Null)
        );
        assert_eq!(without["correlation_id"], Value::Null);
        assert_eq!(
            (&without["share"], &without["nothing"]),
            (&Value::from(0.5), &Value::Null)
        );
    }

    #[test]
    fn what_is_exported_makes_no_lines() {
        let lines = lines("trace", || {
            let span = tracing::info_span!(target: spans::SPANS, "request");
            let _within = span.enter();
            tracing::event!(target: spans::SPANS, tracing::Level::INFO, "audited");
            tracing::info!("said");
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
    }
}
