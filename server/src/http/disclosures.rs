//! `GET /admin/audit/disclosures`: for auditors, the accounting of disclosures of one patient, as JSON or as CSV.

use std::cmp::Reverse;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, Accept, Header as _, Quality};
use actix_web::{HttpRequest, HttpResponse, web};
use handoff_domain::reason::Reason;
use handoff_domain::time::Timestamp;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::HttpState;
use super::answer::{Face, failure, json_answer, with_correlation};
use super::request::authenticate;
use crate::app::disclosures::{Accounting, Disclosure, Period};
use crate::app::{AppError, Class};
use crate::fhir::search::values;

const COLUMNS: [&str; 17] = [
    "date",
    "ended",
    "recipient",
    "recipient-issuer",
    "recipient-subject",
    "client",
    "address",
    "document",
    "class",
    "binary",
    "task",
    "bytes",
    "extent",
    "purpose",
    "grant",
    "redemption",
    "event",
];

/// What an accounting is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Csv,
}

pub(super) async fn disclosures(state: web::Data<HttpState>, request: HttpRequest) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        let form = form_of(&request)?;
        let base = state.app.settings.fhir_base(caller.tenant());
        let period = period_of(request.query_string(), &base)?;
        let _room = state.room.export()?;
        let accounting = state.app.account_for(&caller, period).await?;
        Ok::<_, AppError>(match form {
            Form::Json => json_answer(&state, &request, StatusCode::OK, &as_json(&accounting)),
            Form::Csv => with_correlation(&state, &request, HttpResponse::Ok())
                .content_type("text/csv; charset=utf-8; header=present")
                .insert_header((
                    header::CONTENT_DISPOSITION,
                    "attachment; filename=\"disclosures.csv\"",
                ))
                .body(as_csv(&accounting)?),
        })
    };
    match answer.await {
        Ok(answer) => answer,
        Err(error) => failure(&state, &request, Face::Problem, &error),
    }
}

/// The first of the media types asked for that there is.
fn form_of(request: &HttpRequest) -> Result<Form, AppError> {
    let accept = Accept::parse(request).unwrap_or_else(|_| Accept::star());
    let mut wanted: Vec<_> = accept.iter().filter(|one| one.quality > Quality::ZERO).collect();
    // Stable: of what is wanted alike the first.
    wanted.sort_by_key(|one| Reverse(one.quality));
    for one in wanted {
        match (one.item.type_().as_str(), one.item.subtype().as_str()) {
            ("text", "csv" | "*") => return Ok(Form::Csv),
            ("application", "json" | "*") | ("*", "*") => return Ok(Form::Json),
            _ => {}
        }
    }
    Err(AppError::new(
        Class::NotAcceptable,
        Reason::NotSupported,
        "an accounting is written as `application/json` or `text/csv`",
    ))
}

fn period_of(query: &str, base: &str) -> Result<Period, AppError> {
    let (mut patient, mut from, mut to) = (None, None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let place = match name.as_ref() {
            "patient" => &mut patient,
            "from" => &mut from,
            "to" => &mut to,
            _ => {
                let text = "the query takes `patient`, `from` and `to`";
                return Err(AppError::rule("query", text));
            }
        };
        if place.replace(value.into_owned()).is_some() {
            return Err(AppError::rule(&name, format!("name `{name}` once")));
        }
    }
    let patient = patient
        .filter(|text| !text.is_empty())
        .ok_or_else(|| AppError::rule("patient", "name the patient: `?patient=Patient/123`"))?;
    let (from, until) = (
        day("from", from)?.map(|(from, _)| from),
        day("to", to)?.map(|(_, until)| until),
    );
    if from.zip(until).is_some_and(|(from, until)| from >= until) {
        return Err(AppError::rule("to", "`to` lies before `from`"));
    }
    Ok(Period {
        patient: values::reference("patient", &patient, base, Some("Patient"))?,
        from,
        until,
    })
}

/// A day, a month, a year or an instant, from its beginning to its end.
fn day(name: &str, value: Option<String>) -> Result<Option<(Timestamp, Timestamp)>, AppError> {
    let Some(value) = value else {
        return Ok(None);
    };
    let wrong = || {
        AppError::rule(
            name,
            format!("`{name}` is a date: `2026`, `2026-03`, `2026-03-01` or an instant"),
        )
    };
    if !value.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(wrong());
    }
    let ranges = values::date(name, &value).map_err(|_| wrong())?;
    Ok(ranges.first().copied())
}

fn exact(reference: Option<&str>, version: Option<i64>) -> Option<String> {
    let reference = reference?;
    Some(match version {
        Some(version) => format!("{reference}/_history/{version}"),
        None => reference.to_owned(),
    })
}

/// What is said of one, in the order of the columns.
fn told(one: &Disclosure) -> [(&'static str, Option<String>); COLUMNS.len()] {
    let (about, to) = (&one.about, &one.recipient);
    let identifier = to.identifier.as_ref();
    let values = [
        Some(one.at.to_instant()),
        one.ended.map(Timestamp::to_instant),
        to.actor.clone(),
        identifier.map(|(issuer, _)| issuer.clone()),
        identifier.map(|(_, subject)| subject.clone()),
        to.client.clone(),
        to.address.clone(),
        exact(about.document.as_deref(), about.document_version),
        one.class.clone(),
        about.binary.clone(),
        exact(about.task.as_deref(), about.task_version),
        one.bytes.map(|bytes| bytes.to_string()),
        Some(one.extent.as_str().to_owned()),
        one.purpose.clone(),
        about.grant.clone(),
        about.redemption.clone(),
        Some(format!("AuditEvent/{}", one.event)),
    ];
    let mut values = values.into_iter();
    COLUMNS.map(|name| (name, values.next().flatten()))
}

fn as_json(accounting: &Accounting) -> Value {
    let one = |one: &Disclosure| {
        let mut shown = serde_json::Map::new();
        for (name, value) in told(one) {
            let Some(value) = value else { continue };
            let value = match (name, one.bytes) {
                ("bytes", Some(bytes)) => bytes.into(),
                _ => value.into(),
            };
            shown.insert(name.to_owned(), value);
        }
        Value::Object(shown)
    };
    json!({
        "patient": accounting.patient,
        "from": accounting.from.to_instant(),
        "until": accounting.until.to_instant(),
        "disclosures": accounting.disclosures.iter().map(one).collect::<Vec<_>>(),
    })
}

fn as_csv(accounting: &Accounting) -> Result<Vec<u8>, AppError> {
    let broken = |error: String| {
        AppError::new(
            Class::Internal,
            Reason::StorageUnavailable,
            "the accounting could not be written",
        )
        .because(error)
    };
    let mut table = csv::WriterBuilder::new()
        .quote_style(csv::QuoteStyle::Always)
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    table
        .write_record(COLUMNS)
        .map_err(|error| broken(error.to_string()))?;
    for one in &accounting.disclosures {
        let cells = told(one).map(|(_, value)| harmless(value.unwrap_or_default()));
        table
            .write_record(cells)
            .map_err(|error| broken(error.to_string()))?;
    }
    table.into_inner().map_err(|error| broken(error.to_string()))
}

/// A cell that no spreadsheet takes for a formula.
fn harmless(cell: String) -> String {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) {
        format!("'{cell}")
    } else {
        cell
    }
}

#[cfg(test)]
mod tests {
    use handoff_domain::audit::About;

    use super::*;
    use crate::app::disclosures::{Extent, Recipient};

    const BASE: &str = "https://h.example/fhir/";

    #[test]
    fn a_period_is_asked_for_by_days_that_it_includes() {
        let asked = period_of("patient=ada&from=2026-01-01&to=2026-12-31", BASE).unwrap();
        assert_eq!(asked.patient, "Patient/ada");
        assert_eq!(asked.from, Timestamp::parse_instant("2026-01-01T00:00:00Z"));
        assert_eq!(asked.until, Timestamp::parse_instant("2027-01-01T00:00:00Z"));
        let url = format!("patient={BASE}Patient/ada");
        assert_eq!(period_of(&url, BASE).unwrap().patient, "Patient/ada");
    }

    #[test]
    fn what_is_no_period_is_told_with_the_parameter() {
        for (query, place) in [
            ("", "patient"),
            ("patient=", "patient"),
            ("patient=a&patient=b", "patient"),
            ("patient=a&from=ge2026", "from"),
            ("patient=a&from=soon", "from"),
            ("patient=a&from=2026,2027", "from"),
            ("patient=a&to=2026-13", "to"),
            ("patient=a&from=2027&to=2026", "to"),
            ("patient=a&date=2026", "query"),
        ] {
            let error = period_of(query, BASE).unwrap_err();
            assert_eq!(error.issues[0].expression.as_deref(), Some(place), "{query}");
        }
        assert!(period_of("patient=Task/1", BASE).is_err());
    }

    #[test]
    fn cells_are_no_formulas_and_all_columns_are_there() {
        let one = Disclosure {
            at: Timestamp(0),
            ended: None,
            recipient: Recipient {
                actor: Some("=HYPERLINK(\"https://evil.example\")".to_owned()),
                identifier: None,
                client: Some("a \"b\", c".to_owned()),
                address: None,
            },
            about: About::default(),
            class: None,
            bytes: None,
            extent: Extent::Unknown,
            purpose: None,
            event: "7".to_owned(),
        };
        let accounting = Accounting {
            patient: "Patient/ada".to_owned(),
            from: Timestamp(0),
            until: Timestamp(1),
            disclosures: vec![one],
        };
        let table = String::from_utf8(as_csv(&accounting).unwrap()).unwrap();
        let lines: Vec<&str> = table.split("\r\n").collect();
        assert_eq!(lines[0].split(',').count(), COLUMNS.len());
        assert!(
            lines[1].contains("\"'=HYPERLINK(\"\"https://evil.example\"\")\""),
            "{table}"
        );
        assert!(lines[1].contains("\"a \"\"b\"\", c\""), "{table}");
        assert!(lines[1].ends_with("\"AuditEvent/7\""), "{table}");
        let json = as_json(&accounting);
        assert_eq!(json["disclosures"][0]["extent"], "unknown");
        assert!(json["disclosures"][0].get("bytes").is_none());
    }
}
