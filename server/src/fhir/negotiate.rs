//! Which representation a client sends and wants (R4 http, 3.1.0.1.9 to 3.1.0.1.11), and its `Prefer`.

use actix_web::HttpRequest;
use actix_web::http::header::{self, HeaderName};
use handoff_domain::reason::Reason;
use handoff_domain::time::Timestamp;

use crate::app::{AppError, Class};

/// What a write answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    /// The resource.
    Representation,
    /// Nothing but headers.
    Minimal,
    /// An OperationOutcome.
    OperationOutcome,
}

/// The form that a Binary is asked for in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinaryForm {
    /// The bytes themselves.
    Raw,
    /// Base64 in a Binary resource.
    Wrapped,
}

fn is_json(essence: &str) -> bool {
    matches!(
        essence,
        "application/fhir+json" | "application/json" | "text/json" | "application/json+fhir" | "json"
    )
}

fn is_fhir_xml(essence: &str) -> bool {
    matches!(
        essence,
        "application/fhir+xml" | "application/xml" | "text/xml" | "application/xml+fhir" | "xml"
    )
}

fn header_text(request: &HttpRequest, name: HeaderName) -> String {
    let values = request.headers().get_all(name).filter_map(|v| v.to_str().ok());
    values.collect::<Vec<_>>().join(",")
}

/// Media types of an `Accept`, best first, without parameters; those with `q=0` left out.
fn accepted(request: &HttpRequest) -> Vec<String> {
    let text = header_text(request, header::ACCEPT);
    let mut types: Vec<(u16, String)> = text
        .split(',')
        .filter_map(|part| {
            let mut fields = part.split(';');
            let essence = fields.next()?.trim().to_ascii_lowercase();
            let quality = fields
                .filter_map(|f| f.trim().strip_prefix("q="))
                .find_map(|q| q.trim().parse::<f32>().ok())
                .unwrap_or(1.0);
            // Thousandths, as RFC 9110 writes them at most.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "clamped to 0..=1000"
            )]
            let quality = (quality.clamp(0.0, 1.0) * 1000.0) as u16;
            (!essence.is_empty() && quality > 0).then_some((quality, essence))
        })
        .collect();
    types.sort_by_key(|(quality, _)| std::cmp::Reverse(*quality));
    types.into_iter().map(|(_, essence)| essence).collect()
}

/// `_format`, decoded; a plus sign that became a space is a plus sign again.
fn format_parameter(request: &HttpRequest) -> Option<String> {
    url::form_urlencoded::parse(request.query_string().as_bytes())
        .find(|(name, _)| name == "_format")
        .map(|(_, value)| value.trim().replace(' ', "+").to_ascii_lowercase())
}

/// Refuses a request whose answer could not be read: only JSON is written here.
pub fn check_accept(request: &HttpRequest) -> Result<(), AppError> {
    if let Some(format) = format_parameter(request) {
        let essence = format.split(';').next().unwrap_or_default();
        return if is_json(essence) {
            Ok(())
        } else {
            Err(not_acceptable())
        };
    }
    let accepted = accepted(request);
    let anything = header_text(request, header::ACCEPT).trim().is_empty();
    let readable = |essence: &String| is_json(essence) || essence == "*/*" || essence == "application/*";
    if anything || accepted.iter().any(readable) {
        Ok(())
    } else {
        Err(not_acceptable())
    }
}

fn not_acceptable() -> AppError {
    AppError::new(
        Class::NotAcceptable,
        Reason::NotSupported,
        "only FHIR JSON is written here; ask with `Accept: application/fhir+json`",
    )
}

/// The form of a Binary: FHIR only where FHIR is asked for (R4 binary).
pub fn binary_form(request: &HttpRequest) -> Result<BinaryForm, AppError> {
    if let Some(format) = format_parameter(request) {
        let essence = format.split(';').next().unwrap_or_default();
        return if is_json(essence) {
            Ok(BinaryForm::Wrapped)
        } else {
            Err(not_acceptable())
        };
    }
    match accepted(request).first().map(String::as_str) {
        Some("application/fhir+json" | "application/json+fhir") => Ok(BinaryForm::Wrapped),
        Some("application/fhir+xml" | "application/xml+fhir") => Err(not_acceptable()),
        _ => Ok(BinaryForm::Raw),
    }
}

/// The media type of the body, lower case and without parameters.
pub fn content_type(request: &HttpRequest) -> Option<String> {
    let text = request.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(
        text.split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase(),
    )
    .filter(|t| !t.is_empty())
}

/// Refuses a body that is not FHIR JSON. A missing type is taken as JSON.
pub fn check_content_type(request: &HttpRequest) -> Result<(), AppError> {
    check_encoding(request)?;
    match content_type(request) {
        None => Ok(()),
        Some(essence) if is_json(&essence) => check_fhir_version(request),
        Some(essence) if is_fhir_xml(&essence) => {
            Err(unsupported("FHIR XML is not read here yet; send FHIR JSON"))
        }
        Some(_) => Err(unsupported(
            "send FHIR JSON with `Content-Type: application/fhir+json`",
        )),
    }
}

/// Refuses a compressed body: it is not unpacked here, and stored as it came it would not be what its type says.
pub fn check_encoding(request: &HttpRequest) -> Result<(), AppError> {
    let coding = header_text(request, header::CONTENT_ENCODING);
    if coding.is_empty() || coding.trim().eq_ignore_ascii_case("identity") {
        Ok(())
    } else {
        Err(unsupported("send the body without `Content-Encoding`"))
    }
}

fn check_fhir_version(request: &HttpRequest) -> Result<(), AppError> {
    let text = header_text(request, header::CONTENT_TYPE).to_ascii_lowercase();
    let version = text
        .split(';')
        .find_map(|f| f.trim().strip_prefix("fhirversion="));
    match version.map(|v| v.trim_matches('"')) {
        None | Some("4.0" | "4.0.1") => Ok(()),
        Some(_) => Err(unsupported("only FHIR version 4.0 is served here")),
    }
}

fn unsupported(text: &str) -> AppError {
    AppError::new(Class::UnsupportedMediaType, Reason::NotSupported, text)
}

fn prefer(request: &HttpRequest) -> String {
    header_text(request, HeaderName::from_static("prefer")).to_ascii_lowercase()
}

/// What the client wants a write to answer with.
pub fn preferred_return(request: &HttpRequest) -> Return {
    let prefer = prefer(request);
    let asked = prefer
        .split([',', ';'])
        .find_map(|p| p.trim().strip_prefix("return="));
    match asked.map(|a| a.trim_matches('"').to_owned()).as_deref() {
        Some("minimal") => Return::Minimal,
        Some("operationoutcome") => Return::OperationOutcome,
        _ => Return::Representation,
    }
}

/// Whether the client wants unknown search parameters refused.
pub fn handling_strict(request: &HttpRequest) -> bool {
    prefer(request)
        .split([',', ';'])
        .any(|p| p.trim() == "handling=strict")
}

/// An instant as an HTTP date (RFC 9110, 5.6.7).
pub fn http_date(at: Timestamp) -> String {
    let seconds = u64::try_from(at.0.div_euclid(1_000_000)).unwrap_or_default();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    header::HttpDate::from(time).to_string()
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn form(accept: &str) -> BinaryForm {
        binary_form(
            &TestRequest::get()
                .insert_header(("accept", accept))
                .to_http_request(),
        )
        .unwrap()
    }

    #[test]
    fn content_is_raw_unless_fhir_is_asked_for() {
        assert_eq!(form("application/pdf"), BinaryForm::Raw);
        assert_eq!(form("*/*"), BinaryForm::Raw);
        assert_eq!(form("application/fhir+json"), BinaryForm::Wrapped);
        assert_eq!(form("application/fhir+json, */*; q=0.1"), BinaryForm::Wrapped);
        assert_eq!(form("*/*, application/fhir+json;q=0.2"), BinaryForm::Raw);
    }

    #[test]
    fn a_format_parameter_overrides_accept_and_survives_a_lost_plus() {
        let request = TestRequest::get()
            .uri("/x?_format=application/fhir+json")
            .to_http_request();
        assert_eq!(binary_form(&request).unwrap(), BinaryForm::Wrapped);
        let xml = TestRequest::get().uri("/x?_format=xml").to_http_request();
        assert!(check_accept(&xml).is_err());
    }
}
