//! The routes of the table, and a request to each about its scene.

use handoff_integration_tests::backport::topic;
use handoff_integration_tests::scene::{ADA, document_reference, task};
use reqwest::Method;
use serde_json::{Value, json};

/// What a request is about: Ada's letter, which `placer` gave to `owner`.
pub struct Scene {
    pub task: String,
    pub document: String,
    pub binary: String,
    pub grant: String,
    pub handle: String,
    pub secret: String,
    /// The path of a redemption that the owner began by the link.
    pub redemption: String,
    /// The subscriber's, and the placer's.
    pub subscription: String,
    pub placers: String,
}

pub enum Body {
    None,
    Fhir(Value),
    Plain(Value),
    Pdf,
}

/// A route, and a request to it about the scene.
pub struct Route {
    pub name: &'static str,
    pub method: Method,
    pub path: fn(&Scene) -> String,
    pub body: fn(&Scene) -> Body,
}

impl Route {
    pub fn breaks_glass(&self) -> bool {
        self.name.ends_with("breaking the glass")
    }
}

const fn route(
    name: &'static str,
    method: Method,
    path: fn(&Scene) -> String,
    body: fn(&Scene) -> Body,
) -> Route {
    Route {
        name,
        method,
        path,
        body,
    }
}

fn get(name: &'static str, path: fn(&Scene) -> String) -> Route {
    route(name, Method::GET, path, |_| Body::None)
}

fn delete(name: &'static str, path: fn(&Scene) -> String) -> Route {
    route(name, Method::DELETE, path, |_| Body::None)
}

fn post(name: &'static str, path: fn(&Scene) -> String, body: fn(&Scene) -> Body) -> Route {
    route(name, Method::POST, path, body)
}

fn put(name: &'static str, path: fn(&Scene) -> String, body: fn(&Scene) -> Body) -> Route {
    route(name, Method::PUT, path, body)
}

fn task_of(scene: &Scene) -> Value {
    let mut task = task("in-progress", &scene.document, Some("Practitioner/owner"));
    task["id"] = json!(scene.task);
    task
}

fn document_of(scene: &Scene) -> Value {
    let mut document = document_reference(&scene.binary, ADA);
    document["id"] = json!(scene.document);
    document["description"] = json!("a better description");
    document
}

pub fn routes() -> Vec<Route> {
    [
        general(),
        tasks(),
        documents(),
        grants(),
        operators(),
        subscriptions(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn general() -> Vec<Route> {
    vec![
        get("GET metadata", |_| "/fhir/metadata".into()),
        get("GET smart-configuration", |_| {
            "/fhir/.well-known/smart-configuration".into()
        }),
        get("GET oauth-protected-resource", |_| {
            "/.well-known/oauth-protected-resource/fhir".into()
        }),
        get("GET handoff/{handle}", |s| format!("/handoff/{}", s.handle)),
        get("GET handoff/page.js", |_| "/handoff/page.js".into()),
        get("GET sign-in, nowhere", |_| "/sign-in?at=none".into()),
        get("GET sign-in/callback", |_| {
            "/sign-in/callback?code=x&state=y".into()
        }),
        get("GET signed-in", |_| "/signed-in".into()),
        get("GET signed-out", |_| "/signed-out".into()),
        post("POST sign-out", |_| "/sign-out".into(), |_| Body::None),
        post(
            "POST sign-out/back-channel",
            |_| "/sign-out/back-channel".into(),
            |_| Body::None,
        ),
        get("GET a type that is not served", |_| "/fhir/Patient/1".into()),
        get("GET a route that is not there", |_| "/nowhere".into()),
        get("GET CodeSystem", |_| "/fhir/CodeSystem?_count=1".into()),
    ]
}

fn tasks() -> Vec<Route> {
    vec![
        get("GET Task, one", |s| format!("/fhir/Task/{}", s.task)),
        get("GET Task, a version", |s| {
            format!("/fhir/Task/{}/_history/1", s.task)
        }),
        get("GET Task, its history", |s| {
            format!("/fhir/Task/{}/_history", s.task)
        }),
        get("GET Task, search", |s| format!("/fhir/Task?_id={}", s.task)),
        get("GET Task, count", |s| {
            format!("/fhir/Task?_id={}&_summary=count", s.task)
        }),
        post(
            "POST Task",
            |_| "/fhir/Task".into(),
            |s| Body::Fhir(task("requested", &s.document, None)),
        ),
        put(
            "PUT Task, a move",
            |s| format!("/fhir/Task/{}", s.task),
            |s| Body::Fhir(task_of(s)),
        ),
        delete("DELETE Task", |s| format!("/fhir/Task/{}", s.task)),
        post(
            "POST Task/$validate",
            |_| "/fhir/Task/$validate".into(),
            |s| Body::Fhir(task_of(s)),
        ),
    ]
}

fn documents() -> Vec<Route> {
    vec![
        get("GET DocumentReference, one", |s| {
            format!("/fhir/DocumentReference/{}", s.document)
        }),
        get("GET DocumentReference, history", |s| {
            format!("/fhir/DocumentReference/{}/_history", s.document)
        }),
        get("GET DocumentReference, search", |s| {
            format!("/fhir/DocumentReference?_id={}", s.document)
        }),
        post(
            "POST DocumentReference",
            |_| "/fhir/DocumentReference".into(),
            |_| {
                Body::Fhir(json!({
                    "resourceType": "DocumentReference", "status": "current",
                    "content": [{"attachment": {"contentType": "text/plain", "data": "aGVsbG8="}}],
                }))
            },
        ),
        put(
            "PUT DocumentReference",
            |s| format!("/fhir/DocumentReference/{}", s.document),
            |s| Body::Fhir(document_of(s)),
        ),
        delete("DELETE DocumentReference", |s| {
            format!("/fhir/DocumentReference/{}", s.document)
        }),
        post("POST Binary", |_| "/fhir/Binary".into(), |_| Body::Pdf),
        get("GET Binary, the content", |s| {
            format!("/fhir/Binary/{}?task=Task/{}", s.binary, s.task)
        }),
        get("GET Binary, breaking the glass", |s| {
            format!("/fhir/Binary/{}", s.binary)
        }),
        delete("DELETE Binary", |s| format!("/fhir/Binary/{}", s.binary)),
    ]
}

fn grants() -> Vec<Route> {
    vec![
        post(
            "POST Task/{id}/$grant",
            |s| format!("/fhir/Task/{}/$grant", s.task),
            |_| Body::Fhir(json!({"resourceType": "Parameters"})),
        ),
        post(
            "POST $grant, breaking the glass",
            |s| format!("/fhir/Task/{}/$grant", s.task),
            |_| Body::Fhir(json!({"resourceType": "Parameters"})),
        ),
        post(
            "POST Task/{id}/$revoke-grants",
            |s| format!("/fhir/Task/{}/$revoke-grants", s.task),
            |_| Body::Fhir(json!({"resourceType": "Parameters"})),
        ),
        post(
            "POST files/{id}/access-grants",
            |s| format!("/files/{}/access-grants", s.document),
            |s| Body::Plain(json!({"task": format!("Task/{}", s.task)})),
        ),
        post(
            "POST access-grants, breaking the glass",
            |s| format!("/files/{}/access-grants", s.document),
            |s| Body::Plain(json!({"task": format!("Task/{}", s.task)})),
        ),
        get("GET files/{id}/access-grants", |s| {
            format!("/files/{}/access-grants", s.document)
        }),
        get("GET access-grants/{id}", |s| {
            format!("/access-grants/{}", s.grant)
        }),
        delete("DELETE access-grants/{id}", |s| {
            format!("/access-grants/{}", s.grant)
        }),
        post(
            "POST handoff/{handle}, with the secret",
            |s| format!("/handoff/{}", s.handle),
            |s| Body::Plain(json!({"secret": s.secret})),
        ),
        post(
            "POST handoff/{handle}, without it",
            |s| format!("/handoff/{}", s.handle),
            |_| Body::Plain(json!({"secret": "guessed"})),
        ),
        post(
            "POST handoff/{handle}/document",
            |s| format!("/handoff/{}/document", s.handle),
            |s| Body::Plain(json!({"secret": s.secret})),
        ),
        post(
            "POST handoff/{handle}/fresh-link",
            |s| format!("/handoff/{}/fresh-link", s.handle),
            |s| Body::Plain(json!({"secret": s.secret})),
        ),
        get("GET redemptions/{id}/content", |s| s.redemption.clone()),
        post(
            "POST a transaction with a Task",
            |_| "/fhir".into(),
            |s| {
                Body::Fhir(
                    json!({"resourceType": "Bundle", "type": "transaction", "entry": [{
                        "resource": task("requested", &s.document, None), "request": {"method": "POST", "url": "Task"}
                    }]}),
                )
            },
        ),
        get("GET AuditEvent", |s| {
            format!("/fhir/AuditEvent?entity=Task/{}&_count=1", s.task)
        }),
    ]
}

/// A Subscription to Tasks, with an endpoint of which nothing but its name is known.
pub fn subscription_of(status: &str, id: Option<&str>) -> Value {
    let mut subscription = topic(
        "task-status-changed",
        "id-only",
        "https://subscriber.example/hook",
    );
    subscription["status"] = json!(status);
    subscription["channel"]
        .as_object_mut()
        .expect("a channel")
        .remove("header");
    if let Some(id) = id {
        subscription["id"] = json!(id);
    }
    subscription
}

/// For operators' tools, and for other servers.
fn operators() -> Vec<Route> {
    vec![
        post(
            "POST admin/revocations",
            |_| "/admin/revocations".to_owned(),
            |_| Body::Plain(json!({"task": "Task/none", "reason": "a drill"})),
        ),
        get("GET admin/revocations", |_| "/admin/revocations".to_owned()),
        delete("DELETE admin/revocations/{id}", |_| {
            "/admin/revocations/none".to_owned()
        }),
        get("GET admin/audit/checkpoint", |_| {
            "/admin/audit/checkpoint".to_owned()
        }),
        get("GET admin/audit/checkpoints", |_| {
            "/admin/audit/checkpoints".to_owned()
        }),
        get("GET admin/audit/proof", |_| {
            "/admin/audit/proof?event=999999999".to_owned()
        }),
        get("GET admin/audit/consistency", |_| {
            "/admin/audit/consistency?first=999999999".to_owned()
        }),
        get("GET admin/audit/export", |_| {
            "/admin/audit/export?from=999999999".to_owned()
        }),
        get("GET admin/quarantine", |_| "/admin/quarantine".to_owned()),
        get("GET admin/quarantine/{id}", |_| {
            "/admin/quarantine/none".to_owned()
        }),
        post(
            "POST admin/quarantine/{id}/retry",
            |_| "/admin/quarantine/none/retry".to_owned(),
            |_| Body::None,
        ),
        delete("DELETE admin/quarantine/{id}", |_| {
            "/admin/quarantine/none".to_owned()
        }),
        post(
            "POST notifications/{source}",
            |_| "/notifications/ehr-feed".to_owned(),
            |_| Body::None,
        ),
        put(
            "PUT notifications/{source}/{type}/{id}",
            |s| format!("/notifications/ehr-feed/Task/{}", s.task),
            |s| Body::Fhir(task_of(s)),
        ),
        get("GET admin/subscriptions", |_| "/admin/subscriptions".to_owned()),
        post(
            "POST admin/subscriptions/{id}/replay",
            |s| format!("/admin/subscriptions/{}/replay", s.subscription),
            |_| Body::None,
        ),
    ]
}

fn subscriptions() -> Vec<Route> {
    vec![
        get("GET Subscription, one", |s| {
            format!("/fhir/Subscription/{}", s.subscription)
        }),
        get("GET Subscription, the placer's", |s| {
            format!("/fhir/Subscription/{}", s.placers)
        }),
        get("GET Subscription, a version", |s| {
            format!("/fhir/Subscription/{}/_history/1", s.subscription)
        }),
        get("GET Subscription, its history", |s| {
            format!("/fhir/Subscription/{}/_history", s.subscription)
        }),
        get("GET Subscription, search", |s| {
            format!("/fhir/Subscription?_id={},{}", s.subscription, s.placers)
        }),
        post(
            "POST Subscription",
            |_| "/fhir/Subscription".into(),
            |_| Body::Fhir(subscription_of("off", None)),
        ),
        put(
            "PUT Subscription, its status",
            |s| format!("/fhir/Subscription/{}", s.subscription),
            |s| Body::Fhir(subscription_of("off", Some(&s.subscription))),
        ),
        put(
            "PUT Subscription, its reason",
            |s| format!("/fhir/Subscription/{}", s.subscription),
            |s| {
                let mut body = subscription_of("off", Some(&s.subscription));
                body["reason"] = json!("another one");
                Body::Fhir(body)
            },
        ),
        delete("DELETE Subscription", |s| {
            format!("/fhir/Subscription/{}", s.subscription)
        }),
        get("GET Subscription/{id}/$status", |s| {
            format!("/fhir/Subscription/{}/$status", s.subscription)
        }),
        get("GET Subscription/$status", |s| {
            format!("/fhir/Subscription/$status?id={},{}", s.subscription, s.placers)
        }),
        get("GET Subscription/{id}/$events", |s| {
            format!("/fhir/Subscription/{}/$events", s.subscription)
        }),
        get("GET Subscription/$get-ws-binding-token", |s| {
            format!("/fhir/Subscription/{}/$get-ws-binding-token", s.subscription)
        }),
        get("GET websocket, without an upgrade", |_| "/fhir/websocket".into()),
        post(
            "POST Subscription/$validate",
            |_| "/fhir/Subscription/$validate".into(),
            |_| Body::Fhir(subscription_of("requested", None)),
        ),
    ]
}
