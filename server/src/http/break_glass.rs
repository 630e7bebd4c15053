//! `X-Break-Glass-Reason`: emergency access, asked for with a reason.

use actix_web::HttpRequest;
use handoff_domain::break_glass::BreakGlassReason;
use handoff_fhir_model::{Issue, IssueType};

use crate::app::AppError;

/// The header.
const HEADER: &str = "X-Break-Glass-Reason";

/// The reason that a request gives; `None` where it asks for no emergency access.
pub fn break_glass_reason(request: &HttpRequest) -> Result<Option<BreakGlassReason>, AppError> {
    let mut given = request.headers().get_all(HEADER);
    let Some(value) = given.next() else {
        return Ok(None);
    };
    if given.next().is_some() {
        return Err(wrong("is given more than once"));
    }
    BreakGlassReason::parse(value.as_bytes())
        .map(Some)
        .map_err(|error| wrong(&error.to_string()))
}

fn wrong(what: &str) -> AppError {
    // As R4 says where in a request's head an issue is (OperationOutcome.issue.location).
    let place = format!("http.{HEADER}");
    AppError::invalid(vec![Issue::at(
        IssueType::Value,
        place,
        format!("`{HEADER}` {what}"),
    )])
}
