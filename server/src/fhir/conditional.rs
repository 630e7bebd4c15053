//! Version tags. FHIR's are weak, and `If-Match` compares the version that they hold (R4 http, 3.1.0.5): both
//! `W/"3"` and `"3"` mean version 3.

use actix_web::HttpRequest;
use actix_web::http::header;

use crate::app::AppError;
use crate::app::tasks::Expected;

/// The `If-Match` of a request.
pub fn expected(request: &HttpRequest) -> Result<Expected, AppError> {
    let mut values = request.headers().get_all(header::IF_MATCH);
    let Some(value) = values.next() else {
        return Ok(Expected::Any);
    };
    let tag = value.to_str().ok().and_then(Expected::parse);
    match (tag, values.next()) {
        (Some(tag), None) => Ok(tag),
        _ => Err(AppError::bad("`If-Match` must be one version tag like `W/\"1\"`")),
    }
}
