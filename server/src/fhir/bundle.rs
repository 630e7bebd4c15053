//! Transaction and batch over HTTP: the Bundle in, the Bundle of answers out, in the order of the entries.

use actix_web::{HttpRequest, HttpResponse, web};
use handoff_fhir_model::{Issue, IssueType, ParseOptions, bundle, parse};
use serde_json::{Value, json};

use super::negotiate::{check_accept, check_content_type};
use super::{failed, location, ok};
use crate::app::admission::check_size;
use crate::app::bundle::EntryAnswer;
use crate::app::json_edit::set_field;
use crate::app::{AppError, Caller};
use crate::http::HttpState;
use crate::http::answer::{operation_outcome, status_of};
use crate::http::body::read_body;
use crate::http::request::{authenticate, correlation_of};

/// `POST [base]`.
pub async fn run(state: web::Data<HttpState>, request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        check_accept(&request)?;
        check_content_type(&request)?;
        let body = read_body(&state, &request, payload, state.limits.max_bundle).await?;
        let resource = parse(&body, &ParseOptions::expecting("Bundle")).map_err(AppError::invalid)?;
        let bundle = bundle(resource).map_err(AppError::invalid)?;
        check_sizes(&state, &bundle, body.len())?;
        let kind = bundle.kind.clone();
        let answers = match kind.as_str() {
            "transaction" => state.app.transaction(&caller, bundle).await?,
            "batch" => {
                check_entries(&state, bundle.entries.len())?;
                state.app.batch(&caller, bundle).await?
            }
            _ => {
                let text = "only a `transaction` or a `batch` can be posted to the base";
                return Err(AppError::invalid(vec![Issue::at(
                    IssueType::Invalid,
                    "Bundle.type",
                    text,
                )]));
            }
        };
        Ok(written(&state, &request, &caller, &kind, &answers))
    };
    match answer.await {
        Ok(body) => ok(&state, &request, body),
        Err(error) => failed(&state, &request, &error),
    }
}

/// A resource is as large as it may be by itself; only a Bundle that is larger can hold one that is not.
fn check_sizes(state: &HttpState, bundle: &bundle::Bundle, body: usize) -> Result<(), AppError> {
    let limit = state.limits.max_resource;
    if body <= limit {
        return Ok(());
    }
    for (i, entry) in bundle.entries.iter().enumerate() {
        if let Some(resource) = entry.resource.as_ref().filter(|r| r.type_name() != "Binary") {
            check_size(resource, resource.to_json().len(), limit).map_err(|error| {
                let place = format!("Bundle.entry[{i}]");
                let issue = Issue::at(IssueType::TooLong, place, error.text.as_str());
                AppError {
                    issues: vec![issue],
                    ..error
                }
            })?;
        }
    }
    Ok(())
}

fn check_entries(state: &HttpState, count: usize) -> Result<(), AppError> {
    let limit = state.app.settings.max_entries;
    if count <= limit {
        return Ok(());
    }
    Err(AppError::new(
        crate::app::Class::TooLarge,
        handoff_domain::reason::Reason::TooLarge,
        format!("a Bundle has at most {limit} entries"),
    ))
}

fn written(
    state: &HttpState,
    request: &HttpRequest,
    caller: &Caller,
    kind: &str,
    answers: &[EntryAnswer],
) -> Vec<u8> {
    let base = state.app.settings.fhir_base(caller.tenant());
    let correlation = correlation_of(state, request);
    let entries: Vec<Value> = answers
        .iter()
        .map(|answer| entry(answer, &base, correlation.as_str()))
        .collect();
    let mut bundle = json!({"resourceType": "Bundle", "type": format!("{kind}-response")});
    if !entries.is_empty() {
        set_field(&mut bundle, "entry", Value::Array(entries));
    }
    bundle.to_string().into_bytes()
}

fn entry(answer: &EntryAnswer, base: &str, correlation: &str) -> Value {
    match answer {
        EntryAnswer::Stored(stored) => {
            let mut entry = json!({
                "fullUrl": format!("{base}{}/{}", stored.kind, stored.id),
                "response": {
                    "status": if stored.created { "201 Created" } else { "200 OK" },
                    "location": location(stored, base),
                    "etag": format!("W/\"{}\"", stored.version),
                    "lastModified": stored.last_updated.to_instant(),
                },
            });
            if let Ok(resource) = serde_json::from_slice::<Value>(&stored.body) {
                set_field(&mut entry, "resource", resource);
            }
            entry
        }
        EntryAnswer::Deleted => json!({"response": {"status": "204 No Content"}}),
        EntryAnswer::Failed(error) => {
            let status = status_of(error.class);
            let outcome: Value =
                serde_json::from_slice(&operation_outcome(error, correlation)).unwrap_or(Value::Null);
            json!({"response": {"status": status.to_string(), "outcome": outcome}})
        }
    }
}
