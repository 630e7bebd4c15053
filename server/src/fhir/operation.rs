//! FHIR operations: `$grant` and `$revoke-grants` on a Task, `$purge` on a document, `$validate` on types. Parameters in and out have the
//! names of the plain JSON face.

use actix_web::{HttpRequest, HttpResponse, web};
use handoff_domain::grant::Constraints;
use handoff_domain::ids::{ActorRef, BinaryId, DocumentId, GrantId, TaskId};
use handoff_domain::time::Span;
use handoff_fhir_model::outcome::{Details, outcome};
use handoff_fhir_model::{
    Content, Issue, IssueType, Parameter, ParseOptions, Resource, Severity, parameters, parse, payload,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::negotiate::{check_accept, check_content_type};
use super::resource::pairs_of;
use super::{failed, not_allowed, ok, subscription};
use crate::app::AppError;
use crate::app::admission::profile_issues;
use crate::app::grants::{GrantRequest, RevokePick};
use crate::http::HttpState;
use crate::http::access_grants::issued_json;
use crate::http::body::read_body;
use crate::http::break_glass::break_glass_reason;
use crate::http::request::{authenticate, correlation_of};

/// The longest body of an operation on grants.
const BODY_LIMIT: usize = 64 * 1024;

/// The routes.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/Task/{id}/$grant")
            .route(web::post().to(grant))
            .default_service(web::to(not_allowed)),
    );
    cfg.service(
        web::resource("/Task/{id}/$revoke-grants")
            .route(web::post().to(revoke))
            .default_service(web::to(not_allowed)),
    );
    cfg.service(
        web::resource("/DocumentReference/{id}/$purge")
            .route(web::post().to(purge))
            .default_service(web::to(not_allowed)),
    );
    for kind in ["Task", "DocumentReference", "Subscription"] {
        cfg.service(
            web::resource(format!("/{kind}/$validate"))
                .app_data(web::Data::new(kind))
                .route(web::post().to(validate))
                .default_service(web::to(not_allowed)),
        );
    }
}

#[derive(Debug, Deserialize)]
struct Ids {
    id: String,
}

type State = web::Data<HttpState>;

/// The parameters in the body; none where it is empty.
pub(super) fn read_parameters(body: &[u8]) -> Result<Vec<Parameter>, AppError> {
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let resource = parse(body, &ParseOptions::expecting("Parameters")).map_err(AppError::invalid)?;
    parameters(&resource).map_err(AppError::invalid)
}

fn wrong(name: &str, text: &str) -> AppError {
    let place = format!("Parameters.parameter.where(name = '{name}')");
    AppError::unprocessable(vec![Issue::at(IssueType::Value, place, text)])
}

/// Refuses parameters that the operation does not have, and repetitions of those that come once.
fn check_names(list: &[Parameter], once: &[&str], many: &[&str]) -> Result<(), AppError> {
    for (i, parameter) in list.iter().enumerate() {
        let name = parameter.name.as_str();
        let place = format!("Parameters.parameter[{i}]");
        if !once.contains(&name) && !many.contains(&name) {
            let issue = Issue::at(
                IssueType::NotSupported,
                place,
                "the operation has no such parameter",
            );
            return Err(AppError::invalid(vec![issue]));
        }
        if once.contains(&name) && list.iter().take(i).any(|p| p.name == name) {
            let issue = Issue::at(IssueType::Invalid, place, "the parameter is given more than once");
            return Err(AppError::invalid(vec![issue]));
        }
    }
    Ok(())
}

fn find<'a>(list: &'a [Parameter], name: &str) -> Option<&'a Parameter> {
    list.iter().find(|p| p.name == name)
}

/// A reference, given as Reference or as text.
fn reference_text<'a>(list: &'a [Parameter], name: &str) -> Option<&'a str> {
    find(list, name).and_then(|p| p.reference().or_else(|| p.text()))
}

fn document_of(list: &[Parameter]) -> Result<Option<DocumentId>, AppError> {
    reference_text(list, "document")
        .map(|r| {
            DocumentId::parse(r.strip_prefix("DocumentReference/").unwrap_or(r))
                .map_err(|_| wrong("document", "not a reference like `DocumentReference/1`"))
        })
        .transpose()
}

fn actor_of(list: &[Parameter]) -> Result<Option<ActorRef>, AppError> {
    reference_text(list, "actor")
        .map(|r| ActorRef::parse(r).map_err(|_| wrong("actor", "not a reference like `Practitioner/1`")))
        .transpose()
}

fn whole_number(list: &[Parameter], name: &str) -> Result<Option<i64>, AppError> {
    find(list, name)
        .map(|p| p.whole_number().ok_or_else(|| wrong(name, "not a whole number")))
        .transpose()
}

fn constraints_of(list: &[Parameter]) -> Result<Constraints, AppError> {
    let mut constraints = Constraints::default();
    let Some(parameter) = find(list, "constraints") else {
        return Ok(constraints);
    };
    for part in parameter.parts() {
        let text = part
            .text()
            .ok_or_else(|| wrong("constraints", "each part is text"))?
            .to_owned();
        match part.name.as_str() {
            "ip" => constraints.ip.push(text),
            "client" => constraints.client.push(text),
            "contentType" => constraints.content_type.push(text),
            "key" => constraints.key = Some(text),
            _ => {
                return Err(wrong(
                    "constraints",
                    "the parts are `ip`, `client`, `contentType` and `key`",
                ));
            }
        }
    }
    Ok(constraints)
}

fn grant_request(task: &str, list: &[Parameter]) -> Result<GrantRequest, AppError> {
    let once = [
        "task",
        "document",
        "actor",
        "role",
        "action",
        "uses",
        "expiresIn",
        "binary",
        "constraints",
    ];
    check_names(list, &once, &[])?;
    let task = TaskId::parse(task).map_err(|_| AppError::not_found())?;
    let same_task = |t: &str| t.strip_prefix("Task/").unwrap_or(t) == task.as_str();
    if reference_text(list, "task").is_some_and(|t| !same_task(t)) {
        return Err(wrong("task", "names another Task than the URL"));
    }
    if find(list, "action").is_some_and(|p| p.text() != Some("download")) {
        return Err(wrong("action", "the only action is `download`"));
    }
    let uses = whole_number(list, "uses")?
        .map(|n| u32::try_from(n).map_err(|_| wrong("uses", "out of range")))
        .transpose()?;
    let binary = reference_text(list, "binary")
        .map(|r| {
            BinaryId::parse(r.strip_prefix("Binary/").unwrap_or(r))
                .map_err(|_| wrong("binary", "not a reference like `Binary/1`"))
        })
        .transpose()?;
    Ok(GrantRequest {
        task,
        document: document_of(list)?,
        binary,
        actor: actor_of(list)?,
        uses,
        expires_in: whole_number(list, "expiresIn")?.map(Span::seconds),
        constraints: constraints_of(list)?,
        break_glass: None,
    })
}

async fn grant(
    state: State,
    request: HttpRequest,
    ids: web::Path<Ids>,
    payload: web::Payload,
) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        check_accept(&request)?;
        check_content_type(&request)?;
        let break_glass = break_glass_reason(&request)?;
        let body = read_body(&state, &request, payload, BODY_LIMIT).await?;
        let asked = GrantRequest {
            break_glass,
            ..grant_request(&ids.id, &read_parameters(&body)?)?
        };
        state.app.issue_grant(&caller, asked).await
    };
    match answer.await {
        Ok(issued) => {
            let correlation = correlation_of(&state, &request);
            let fields = issued_json(&issued, correlation.as_str());
            ok(
                &state,
                &request,
                issued_parameters(&fields).to_string().into_bytes(),
            )
        }
        Err(error) => failed(&state, &request, &error),
    }
}

/// The JSON face's fields as Parameters, each with the type of the OperationDefinition.
fn issued_parameters(fields: &Value) -> Value {
    let typed = |name: &str, value: &Value| match name {
        "link" => json!({"name": name, "valueUrl": value}),
        "expiresAt" => json!({"name": name, "valueInstant": value}),
        "allowedUses" | "version" => json!({"name": name, "valuePositiveInt": value}),
        "document" | "task" => json!({"name": name, "valueReference": {"reference": value}}),
        _ => json!({"name": name, "valueString": value}),
    };
    let list: Vec<Value> = fields
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| typed(name, value))
        .collect();
    json!({"resourceType": "Parameters", "parameter": list})
}

async fn revoke(
    state: State,
    request: HttpRequest,
    ids: web::Path<Ids>,
    payload: web::Payload,
) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        check_accept(&request)?;
        check_content_type(&request)?;
        let body = read_body(&state, &request, payload, BODY_LIMIT).await?;
        let list = read_parameters(&body)?;
        check_names(&list, &["document", "actor", "reason"], &["grantId"])?;
        let grants = list
            .iter()
            .filter(|p| p.name == "grantId")
            .map(|p| {
                GrantId::parse(p.text().unwrap_or_default()).map_err(|_| wrong("grantId", "not a grant's id"))
            })
            .collect::<Result<_, _>>()?;
        let pick = RevokePick {
            grants,
            document: document_of(&list)?,
            actor: actor_of(&list)?,
        };
        let task = TaskId::parse(ids.id.as_str()).map_err(|_| AppError::not_found())?;
        state.app.revoke_grants_of_task(&caller, task, pick).await
    };
    match answer.await {
        Ok(revoked) => {
            let correlation = correlation_of(&state, &request);
            let mut list = vec![json!({"name": "revoked", "valueUnsignedInt": revoked.len()})];
            list.extend(
                revoked
                    .iter()
                    .map(|id| json!({"name": "grantId", "valueString": id.as_str()})),
            );
            list.push(json!({"name": "correlationId", "valueString": correlation.as_str()}));
            let body = json!({"resourceType": "Parameters", "parameter": list});
            ok(&state, &request, body.to_string().into_bytes())
        }
        Err(error) => failed(&state, &request, &error),
    }
}

async fn purge(
    state: State,
    request: HttpRequest,
    ids: web::Path<Ids>,
    payload: web::Payload,
) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        check_accept(&request)?;
        check_content_type(&request)?;
        let body = read_body(&state, &request, payload, BODY_LIMIT).await?;
        let list = read_parameters(&body)?;
        check_names(&list, &["reason"], &[])?;
        let reason = find(&list, "reason").and_then(Parameter::text);
        let reason = reason.ok_or_else(|| wrong("reason", "say why, in 1 to 500 characters"))?;
        let document = DocumentId::parse(ids.id.as_str()).map_err(|_| AppError::not_found())?;
        state.app.purge_document(&caller, document, reason).await
    };
    match answer.await {
        Ok(contents) => {
            let correlation = correlation_of(&state, &request);
            let body = json!({"resourceType": "Parameters", "parameter": [
                {"name": "contents", "valueUnsignedInt": contents},
                {"name": "correlationId", "valueString": correlation.as_str()},
            ]});
            ok(&state, &request, body.to_string().into_bytes())
        }
        Err(error) => failed(&state, &request, &error),
    }
}

/// `$validate`: what storing would say, without storing. Answers 200 with the findings, as R4 has it.
async fn validate(
    state: State,
    kind: web::Data<&'static str>,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        check_accept(&request)?;
        check_content_type(&request)?;
        let body = read_body(&state, &request, payload, state.limits.max_body).await?;
        let asked: Vec<String> = pairs_of(request.query_string().as_bytes())
            .into_iter()
            .filter(|(name, _)| name == "profile")
            .map(|(_, value)| value)
            .collect();
        let base = state.app.settings.fhir_base(caller.tenant());
        let subscribing = |resource| subscription::findings(resource, &base, state.app.outbound.as_ref());
        Ok::<_, AppError>(findings(&body, **kind, asked, subscribing))
    };
    match answer.await {
        Ok(issues) => {
            let details = Details {
                coding: None,
                diagnostics: None,
            };
            ok(
                &state,
                &request,
                outcome(&issues, details).to_string().into_bytes(),
            )
        }
        Err(error) => failed(&state, &request, &error),
    }
}

/// `subscribing` tells what is wrong with a Subscription beyond R4: what storing it would be refused for.
fn findings(
    body: &[u8],
    kind: &'static str,
    mut profiles: Vec<String>,
    subscribing: impl FnOnce(Resource) -> Vec<Issue>,
) -> Vec<Issue> {
    let resource = match unwrapped(body, kind, &mut profiles) {
        Ok(resource) => resource,
        Err(issues) => return issues,
    };
    let mut issues = payload::elsewhere(&resource);
    let (backport, mut profiles): (Vec<String>, Vec<String>) = profiles
        .into_iter()
        .partition(|profile| kind == "Subscription" && subscription::is_backport(profile));
    for profile in profiles
        .iter()
        .filter(|p| !handoff_fhir_profiles::profile_rules::knows(p))
    {
        let text = format!("the profile `{profile}` is not known here");
        issues.push(Issue {
            severity: Severity::Error,
            ..Issue::general(IssueType::NotFound, text)
        });
    }
    let claimed = resource.profiles();
    if !backport.is_empty() && !claimed.iter().any(|profile| subscription::is_backport(profile)) {
        issues.extend(subscription::departures(resource.value()));
    }
    profiles.extend(claimed);
    let own = match kind {
        "Task" => Some(handoff_fhir_profiles::canonical::PROFILE_TASK),
        "DocumentReference" => Some(handoff_fhir_profiles::canonical::PROFILE_DOCUMENT),
        _ => None,
    };
    if profiles.is_empty() {
        profiles.extend(own.map(str::to_owned));
    }
    profiles.dedup();
    issues.extend(profile_issues(&resource, &profiles));
    if kind == "Subscription" {
        issues.extend(subscribing(resource));
    }
    issues
}

/// The resource to look at: the body itself, or the parameter `resource` of a Parameters body.
fn unwrapped(body: &[u8], kind: &'static str, profiles: &mut Vec<String>) -> Result<Resource, Vec<Issue>> {
    let any = parse(body, &ParseOptions::default())?;
    let resource = if any.type_name() == "Parameters" {
        let list = parameters(&any)?;
        profiles.extend(
            list.iter()
                .filter(|p| p.name == "profile")
                .filter_map(Parameter::text)
                .map(str::to_owned),
        );
        let found = list.into_iter().find(|p| p.name == "resource").map(|p| p.content);
        let Some(Content::Resource(resource)) = found else {
            let text = "the parameter `resource` is missing";
            return Err(vec![Issue::at(IssueType::Required, "Parameters.parameter", text)]);
        };
        resource
    } else {
        any
    };
    if resource.type_name() == kind {
        Ok(resource)
    } else {
        let text = format!("a {kind} is expected here");
        Err(vec![Issue::at(IssueType::Invalid, "resourceType", text)])
    }
}
