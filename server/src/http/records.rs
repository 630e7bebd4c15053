//! `/admin/documents/{id}/hold`, `/admin/documents/{id}/availability` and `/admin/holds`: what records managers decide about
//! documents.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use handoff_domain::hold::{Hold, HoldTarget};
use handoff_domain::ids::{DocumentId, HoldId};
use handoff_domain::retention::Retention;
use handoff_domain::time::{Span, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::HttpState;
use super::access_grants::{Ids, not_allowed};
use super::answer::{Face, failure, json_answer, with_correlation};
use super::body::read_body;
use super::request::{authenticate, correlation_of};
use crate::app::AppError;
use crate::app::json_edit::set_field;
use crate::app::retention::{Keeping, Limit, Wanted};

/// The longest body.
const BODY_LIMIT: usize = 16 * 1024;
/// The first instant that has no year of four digits, in microseconds.
const YEAR_10_000: i64 = 253_402_300_800_000_000;

/// The routes.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/admin/documents/{id}/hold")
            .route(web::post().to(hold_document))
            .route(web::put().to(hold_document))
            .route(web::get().to(holds_of_document))
            .route(web::delete().to(release_document))
            .default_service(web::to(not_allowed)),
    );
    cfg.service(
        web::resource("/admin/documents/{id}/availability")
            .route(web::put().to(set_clocks))
            .route(web::post().to(set_clocks))
            .route(web::get().to(clocks))
            .default_service(web::to(not_allowed)),
    );
    cfg.service(
        web::resource("/admin/holds")
            .route(web::post().to(hold))
            .route(web::get().to(holds))
            .default_service(web::to(not_allowed)),
    );
    cfg.service(
        web::resource("/admin/holds/{id}")
            .route(web::delete().to(lift))
            .default_service(web::to(not_allowed)),
    );
}

type State = web::Data<HttpState>;

/// A hold that is asked for. What it is on stands in the path where that names a document.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HoldBody {
    reason: String,
    until: Option<String>,
    document: Option<String>,
    patient: Option<String>,
    case: Option<String>,
}

impl HoldBody {
    fn read(body: &[u8]) -> Result<Self, AppError> {
        object(body, "`reason`, maybe `until`, and what is held")
    }

    /// What is held: exactly one thing.
    fn target(&self) -> Result<HoldTarget, AppError> {
        let named = [
            ("document", &self.document),
            ("patient", &self.patient),
            ("case", &self.case),
        ];
        let mut named = named
            .into_iter()
            .filter_map(|(kind, value)| Some((kind, value.as_deref()?)));
        let (Some((kind, value)), None) = (named.next(), named.next()) else {
            let kinds = HoldTarget::KINDS.map(|kind| format!("`{kind}`")).join(", ");
            return Err(AppError::bad(format!(
                "the body names exactly one of {kinds} that is held"
            )));
        };
        HoldTarget::parse(kind, value).map_err(|error| AppError::rule(kind, error.to_string()))
    }
}

/// An instant of a body.
fn instant(name: &str, text: &str) -> Result<Timestamp, AppError> {
    let at = Timestamp::parse_instant(text).filter(|at| (0..YEAR_10_000).contains(&at.0));
    at.ok_or_else(|| {
        let text = format!("`{name}` has to be an instant like `2031-05-01T00:00:00Z`, from 1970 to 9999");
        AppError::rule(name, text)
    })
}

/// A JSON object: serde takes an array for a struct as well.
fn object<T: DeserializeOwned>(body: &[u8], expected: &str) -> Result<T, AppError> {
    let begins = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if begins != Some(&b'{') {
        return Err(AppError::bad(format!(
            "the body is a JSON object with {expected}"
        )));
    }
    serde_json::from_slice(body)
        .map_err(|error| AppError::bad(format!("the body is a JSON object with {expected}: {error}")))
}

fn document_id(path: &Ids) -> Result<DocumentId, AppError> {
    DocumentId::parse(path.id.as_str()).map_err(|_| AppError::not_found())
}

async fn hold_document(
    state: State,
    request: HttpRequest,
    path: web::Path<Ids>,
    payload: web::Payload,
) -> HttpResponse {
    let asked = |body: &HoldBody| {
        if body.document.is_some() || body.patient.is_some() || body.case.is_some() {
            return Err(AppError::bad("the path names what is held; the body does not"));
        }
        document_id(&path).map(HoldTarget::Document)
    };
    place(&state, &request, payload, asked).await
}

async fn hold(state: State, request: HttpRequest, payload: web::Payload) -> HttpResponse {
    place(&state, &request, payload, HoldBody::target).await
}

async fn place(
    state: &State,
    request: &HttpRequest,
    payload: web::Payload,
    target: impl Fn(&HoldBody) -> Result<HoldTarget, AppError>,
) -> HttpResponse {
    let answer = async {
        let caller = authenticate(state, request).await?;
        let body = read_body(state, request, payload, BODY_LIMIT).await?;
        let body = HoldBody::read(&body)?;
        let target = target(&body)?;
        let until = body
            .until
            .as_deref()
            .map(|until| instant("until", until))
            .transpose()?;
        let (hold, is_new) = state.app.place_hold(&caller, target, &body.reason, until).await?;
        let base = state.app.settings.tenant_base(caller.tenant());
        Ok::<_, AppError>((format!("{base}/admin/holds/{}", hold.id), hold, is_new))
    };
    match answer.await {
        Ok((location, hold, is_new)) => {
            let mut body = hold_json(&hold);
            let correlation = correlation_of(state, request);
            set_field(&mut body, "correlationId", json!(correlation.as_str()));
            let status = if is_new {
                StatusCode::CREATED
            } else {
                StatusCode::OK
            };
            let mut response = json_answer(state, request, status, &body);
            if let Ok(location) = header::HeaderValue::from_str(&location) {
                response.headers_mut().insert(header::LOCATION, location);
            }
            response
        }
        Err(error) => failure(state, request, Face::Problem, &error),
    }
}

fn hold_json(hold: &Hold) -> Value {
    let mut body = json!({
        "id": hold.id.as_str(),
        "reason": hold.note,
        "placedAt": hold.placed_at.to_instant(),
        "placedBy": hold.placed_by.as_str(),
    });
    set_field(&mut body, hold.target.kind(), json!(hold.target.reference()));
    if let Some(until) = hold.until {
        set_field(&mut body, "until", json!(until.to_instant()));
    }
    body
}

async fn holds_of_document(state: State, request: HttpRequest, path: web::Path<Ids>) -> HttpResponse {
    list(&state, &request, Some(&path)).await
}

async fn holds(state: State, request: HttpRequest) -> HttpResponse {
    list(&state, &request, None).await
}

async fn list(state: &State, request: &HttpRequest, path: Option<&Ids>) -> HttpResponse {
    let answer = async {
        let caller = authenticate(state, request).await?;
        let of = path.map(document_id).transpose()?;
        state.app.holds(&caller, of).await
    };
    match answer.await {
        Ok(holds) => {
            let holds: Vec<Value> = holds.iter().map(hold_json).collect();
            json_answer(state, request, StatusCode::OK, &json!({ "holds": holds }))
        }
        Err(error) => failure(state, request, Face::Problem, &error),
    }
}

async fn release_document(state: State, request: HttpRequest, path: web::Path<Ids>) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        state.app.release_document(&caller, document_id(&path)?).await
    };
    done(&state, &request, answer.await)
}

async fn lift(state: State, request: HttpRequest, path: web::Path<Ids>) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        let id = HoldId::parse(path.id.as_str()).map_err(|_| AppError::not_found())?;
        state.app.lift_hold(&caller, id).await
    };
    done(&state, &request, answer.await)
}

fn done(state: &State, request: &HttpRequest, answer: Result<(), AppError>) -> HttpResponse {
    match answer {
        Ok(()) => with_correlation(state, request, HttpResponse::NoContent()).finish(),
        Err(error) => failure(state, request, Face::Problem, &error),
    }
}

/// The clocks that are asked for. What is not said stays as it is; `null` takes a limit away.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClocksBody {
    reason: String,
    #[serde(default)]
    from: Said,
    #[serde(default)]
    until: Said,
    #[serde(default)]
    retain_until: Said,
}

/// What a body says of one limit: nothing, `null`, or an instant.
#[derive(Debug, Default)]
enum Said {
    #[default]
    Nothing,
    Null,
    Text(String),
}

impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(source)?.map_or(Self::Null, Self::Text))
    }
}

impl Said {
    fn limit(&self, name: &str) -> Result<Limit, AppError> {
        Ok(match self {
            Self::Nothing => Limit::Stays,
            Self::Null => Limit::Gone,
            Self::Text(text) => instant(name, text).map(Limit::At)?,
        })
    }
}

async fn set_clocks(
    state: State,
    request: HttpRequest,
    path: web::Path<Ids>,
    payload: web::Payload,
) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        let body = read_body(&state, &request, payload, BODY_LIMIT).await?;
        let body: ClocksBody = object(&body, "`reason`, and maybe `from`, `until` and `retainUntil`")?;
        let wanted = Wanted {
            from: body.from.limit("from")?,
            until: body.until.limit("until")?,
            retain_until: body.retain_until.limit("retainUntil")?,
            note: body.reason,
        };
        state.app.set_clocks(&caller, document_id(&path)?, wanted).await
    };
    tell(&state, &request, answer.await)
}

async fn clocks(state: State, request: HttpRequest, path: web::Path<Ids>) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        state.app.keeping(&caller, document_id(&path)?).await
    };
    tell(&state, &request, answer.await)
}

fn tell(state: &State, request: &HttpRequest, answer: Result<Keeping, AppError>) -> HttpResponse {
    match answer {
        Ok(keeping) => json_answer(state, request, StatusCode::OK, &keeping_json(&keeping)),
        Err(error) => failure(state, request, Face::Problem, &error),
    }
}

/// Whole days, as a schedule counts.
fn days(span: Span) -> i64 {
    span.whole_seconds().div_euclid(24 * 3600)
}

fn keeping_json(keeping: &Keeping) -> Value {
    let document = &keeping.document;
    let at = |at: Option<Timestamp>| at.map(Timestamp::to_instant);
    let (state, until) = match &keeping.retention {
        _ if document.disposed => ("disposed", None),
        Retention::Until(until) => ("kept", *until),
        Retention::Held(_) => ("held", None),
        Retention::Over => ("over", None),
    };
    let disposals = keeping.disposals.iter().map(|one| {
        json!({
            "binary": format!("Binary/{}", one.binary),
            "cause": one.cause.as_str(),
            "markedAt": one.marked_at.to_instant(),
            "due": one.due.to_instant(),
            "state": one.state.as_str(),
            "since": one.state_at.to_instant(),
        })
    });
    json!({
        "document": format!("DocumentReference/{}", document.id),
        "class": document.class,
        "created": at(keeping.created),
        "availability": {
            "from": at(document.availability.from),
            "until": at(document.availability.until),
            "open": !document.disposed && document.availability.is_open(keeping.at),
        },
        "retention": {
            "state": state,
            "keepDays": keeping.schedule.keep.map(days),
            "countedFrom": keeping.schedule.from.as_str(),
            "retainUntil": at(document.retain_until),
            "until": at(until),
        },
        "holds": keeping.holds.iter().map(hold_json).collect::<Vec<_>>(),
        "disposals": disposals.collect::<Vec<_>>(),
    })
}
