//! Every route for every role, on what is its own, somebody else's and another tenant's: one table that a reviewer can
//! read, the routes that are open to strangers first.

use std::fmt::Write as _;

use handoff::wiring::Identity;
use handoff_domain::ports::Clock as _;
use handoff_integration_tests::issuer::OwnIssuer;
use handoff_integration_tests::scene::{ADA, document, document_reference, task};
use handoff_integration_tests::{Answer, Backend, Client, TestApp, assert_committed};
use reqwest::Method;
use serde_json::{Value, json};

const TABLE: &str = include_str!("authorization.txt");

/// What a request is about: Ada's letter, which `placer` gave to `owner`.
struct Scene {
    task: String,
    document: String,
    binary: String,
    grant: String,
    handle: String,
    secret: String,
    /// The path of a redemption that the owner began by the link.
    redemption: String,
}

enum Body {
    None,
    Fhir(Value),
    Plain(Value),
    Pdf,
}

/// A route, and a request to it about the scene.
struct Route {
    name: &'static str,
    method: Method,
    path: fn(&Scene) -> String,
    body: fn(&Scene) -> Body,
}

impl Route {
    fn breaks_glass(&self) -> bool {
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

fn routes() -> Vec<Route> {
    [general(), tasks(), documents(), grants()]
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
            "POST admin/revocations",
            |_| "/admin/revocations".to_owned(),
            |_| Body::Plain(json!({"task": "Task/none", "reason": "a drill"})),
        ),
        get("GET admin/revocations", |_| "/admin/revocations".to_owned()),
        delete("DELETE admin/revocations/{id}", |_| {
            "/admin/revocations/none".to_owned()
        }),
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

struct Stage {
    app: TestApp,
    issuer: OwnIssuer,
    abroad: OwnIssuer,
}

impl Stage {
    async fn set() -> Self {
        let (issuer, abroad) = (OwnIssuer::start().await, OwnIssuer::start().await);
        let trusted = vec![issuer.trusted_for("default"), abroad.trusted_for("b")];
        let app = TestApp::start_with(Backend::Embedded, |options| {
            options.identity = Identity::Issuers(trusted);
            // Many of the table's attempts fail, and each is to be answered.
            options.clients.failed_tokens_per_minute = 0;
            options.clients.failed_links_per_minute_address = 0;
            options.clients.failed_links_per_minute_client = 0;
            options.clients.failed_links_per_minute_link = 0;
        })
        .await;
        Self { app, issuer, abroad }
    }

    fn client(&self, issuer: &OwnIssuer, actor: &str, role: &str, more: &[(&str, Value)]) -> Client {
        let now = self.app.clock.now().0.div_euclid(1_000_000);
        let (kind, name) = actor.split_once('/').expect("a reference");
        let scope = if kind == "Practitioner" {
            "user/*.cruds"
        } else {
            "system/*.cruds"
        };
        let mut changes = vec![
            ("sub", json!(name)),
            ("client_id", json!(name)),
            ("fhirUser", json!(actor)),
            ("roles", json!([role])),
            ("teams", json!([])),
            ("scope", json!(scope)),
            ("jti", json!(format!("{actor} {role}"))),
        ];
        changes.extend_from_slice(more);
        self.app
            .stranger()
            .with_token(issuer.token(&issuer.claims(now, &changes)))
    }

    /// Everybody, by what heads the column.
    fn everybody(&self) -> Vec<(&'static str, Client)> {
        let here = |actor: &str, role: &str| self.client(&self.issuer, actor, role, &[]);
        let team = [("teams", json!(["cardiology"]))];
        let acting = [
            ("act", json!({"sub": "viewer-app"})),
            ("client_id", json!("viewer-app")),
        ];
        let viewer = |actor| self.client(&self.issuer, actor, "document-viewer", &acting);
        vec![
            ("stranger", self.app.stranger()),
            ("placer", here("Organization/placer", "placer")),
            ("another", here("Organization/another", "placer")),
            ("owner", here("Practitioner/owner", "fulfiller")),
            ("another", here("Practitioner/another", "fulfiller")),
            (
                "team",
                self.client(&self.issuer, "Practitioner/mate", "team-member", &team),
            ),
            ("another", here("Practitioner/nomad", "team-member")),
            ("owner's", viewer("Practitioner/owner")),
            ("another's", viewer("Practitioner/another")),
            ("subscr.", here("Device/interface", "subscriber")),
            ("operator", here("Practitioner/operator", "operator")),
            ("records", here("Practitioner/records", "records-manager")),
            ("auditor", here("Practitioner/auditor", "auditor")),
            ("glass", here("Practitioner/glass", "break-glass")),
            ("no role", here("Practitioner/nobody", "janitor")),
            (
                "abroad",
                self.client(&self.abroad, "Practitioner/owner", "operator", &[]),
            ),
        ]
    }

    async fn scene(&self) -> Scene {
        let placer = self.client(&self.issuer, "Organization/placer", "placer", &[]);
        let owner = self.client(&self.issuer, "Practitioner/owner", "fulfiller", &[]);
        let letter = document(&placer, b"%PDF-1.4 a letter").await;
        let task = task("accepted", &letter.id, Some("Practitioner/owner"));
        let task = placer.post("/fhir/Task", &task).await.expect(201).id();
        let link = async || {
            let body = json!({"task": format!("Task/{task}"), "uses": 1});
            let path = format!("/files/{}/access-grants", letter.id);
            let grant = placer.post_plain(&path, &body).await.expect(201).json();
            let link = grant["link"].as_str().expect("a link").to_owned();
            let (handle, secret) = link
                .rsplit_once('/')
                .and_then(|(_, rest)| rest.split_once('#'))
                .expect("a secret");
            (
                grant["grantId"].as_str().expect("an id").to_owned(),
                handle.to_owned(),
                secret.to_owned(),
            )
        };
        // Its download was begun and given up, so that it may go on.
        let (_, handle, secret) = link().await;
        let redeemed = owner
            .post_plain(&format!("/handoff/{handle}"), &json!({"secret": secret}))
            .await;
        let redemption = redeemed
            .expect(303)
            .header("location")
            .expect("a place")
            .to_owned();
        let redemption = redemption.replace(&self.app.server.base_url, "");
        let (grant, handle, secret) = link().await;
        Scene {
            task,
            document: letter.id,
            binary: letter.binary,
            grant,
            handle,
            secret,
            redemption,
        }
    }
}

async fn send(client: &Client, route: &Route, scene: &Scene) -> Answer {
    let mut request = client.request(route.method.clone(), &(route.path)(scene));
    if route.breaks_glass() {
        request = request.header("x-break-glass-reason", "unconscious");
    }
    let with = |kind: &'static str, body: String| (kind, body.into_bytes());
    let body = match (route.body)(scene) {
        Body::None => None,
        Body::Fhir(body) => Some(with("application/fhir+json", body.to_string())),
        Body::Plain(body) => Some(with("application/json", body.to_string())),
        Body::Pdf => Some(with("application/pdf", "%PDF-1.4".to_owned())),
    };
    let request = match body {
        None => request,
        Some((kind, body)) => request.header("content-type", kind).body(body),
    };
    client.send(request).await
}

/// The status, and of a search how many there are.
fn cell(route: &Route, answer: &Answer) -> String {
    let status = answer.status.as_u16();
    if status == 200 && (route.name.ends_with("search") || route.name.ends_with("count")) {
        return format!("200:{}", answer.json()["total"]);
    }
    status.to_string()
}

#[tokio::test]
async fn what_each_role_may_do_on_each_route_is_what_the_table_says() {
    let stage = Stage::set().await;
    let everybody = stage.everybody();
    let mut table = String::from(
        "# Every route, and what it answers to whom: status, and of a search how many it finds.\n\
         # The Task is the placer's and the owner's; `another` of each kind has no part in it, `team` is of the team that it\n\
         # is for, the viewer apps act for the owner and for another, and `abroad` is another tenant's operator, who is\n\
         # called like the owner. Open to strangers is what answers them 200.\n\n",
    );
    write!(table, "{:<40}", "").expect("text grows");
    for (group, columns) in [
        ("", 1),
        ("placer", 2),
        ("fulfiller", 2),
        ("team-member", 2),
        ("viewer", 2),
    ] {
        write!(table, "{group:<width$}", width = columns * 10).expect("text grows");
    }
    write!(table, "\n{:<40}", "").expect("text grows");
    for (head, _) in &everybody {
        write!(table, "{head:<10}").expect("text grows");
    }
    for route in routes() {
        write!(table, "\n{:<40}", route.name).expect("text grows");
        let changes = route.method != Method::GET || route.name.contains("content") || route.breaks_glass();
        let mut scene = stage.scene().await;
        for (_, client) in &everybody {
            if changes {
                scene = stage.scene().await;
            }
            let answer = send(client, &route, &scene).await;
            write!(table, "{:<10}", cell(&route, &answer)).expect("text grows");
        }
    }
    let mut table: Vec<&str> = table.lines().map(str::trim_end).collect();
    table.push("");
    let table = table.join(
        "
",
    );
    assert_committed(env!("CARGO_TARGET_TMPDIR"), "authorization.txt", &table, TABLE);
}

/// The answer without what is the request's own: ids, the correlation and the time.
fn anonymous(answer: &Answer, scene: &Scene) -> (u16, String) {
    let mut body = String::from_utf8_lossy(&answer.body).into_owned();
    let correlation = answer.header("x-correlation-id").unwrap_or("-").to_owned();
    for own in [
        &scene.task,
        &scene.document,
        &scene.binary,
        &scene.grant,
        &scene.handle,
        &correlation,
    ] {
        body = body.replace(own.as_str(), "*");
    }
    (answer.status.as_u16(), body)
}

#[tokio::test]
async fn another_tenants_things_are_answered_like_things_that_never_were() {
    let stage = Stage::set().await;
    let here = stage.scene().await;
    let nothing = || Scene {
        task: "0000000000000000000000000000aaaa".to_owned(),
        document: "0000000000000000000000000000bbbb".to_owned(),
        binary: "0000000000000000000000000000cccc".to_owned(),
        grant: "0000000000000000000000000000dddd".to_owned(),
        handle: "0000000000000000000000000000eeee".to_owned(),
        secret: here.secret.clone(),
        redemption: "/redemptions/0000000000000000000000000000ffff/content".to_owned(),
    };
    // Called like those who may do everything at home, in every role at once.
    let roles = [
        "placer",
        "fulfiller",
        "team-member",
        "operator",
        "records-manager",
        "auditor",
    ];
    let names = ["Organization/placer", "Practitioner/owner"];
    for actor in names {
        let more = [("roles", json!(roles)), ("teams", json!(["cardiology"]))];
        let abroad = stage.client(&stage.abroad, actor, "placer", &more);
        for route in routes() {
            let nowhere = nothing();
            let (theirs, unknown) = (
                in_b(&abroad, &route, &here).await,
                in_b(&abroad, &route, &nowhere).await,
            );
            let (theirs, unknown) = (anonymous(&theirs, &here), anonymous(&unknown, &nowhere));
            if theirs.0 == 201 || route.name.starts_with("POST a transaction") {
                // What is made there names nothing from here: reading it back tells the same either way.
                assert_eq!(theirs.0, unknown.0, "{} by {actor}", route.name);
                continue;
            }
            if route.name == "GET metadata" {
                // It says when it was made.
                assert_eq!(theirs.0, unknown.0);
                continue;
            }
            assert_eq!(
                timeless(&theirs.1),
                timeless(&unknown.1),
                "{} by {actor}",
                route.name
            );
            assert_eq!(theirs.0, unknown.0, "{} by {actor}", route.name);
        }
        // And with its own token at the other tenant's address nothing opens at all.
        for route in routes() {
            let answer = send(&abroad, &route, &here).await;
            let open = send(&stage.app.stranger(), &route, &here).await;
            assert_eq!(answer.status, open.status, "{} by {actor}", route.name);
        }
    }
    // Nothing of it changed anything here.
    let owner = stage.client(&stage.issuer, "Practitioner/owner", "fulfiller", &[]);
    let task = owner
        .get(&format!("/fhir/Task/{}", here.task))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&task["status"], &task["meta"]["versionId"]),
        (&json!("accepted"), &json!("1"))
    );
    owner
        .get(&format!("/fhir/Binary/{}?task=Task/{}", here.binary, here.task))
        .await
        .expect(200);
}

/// The same request at the other tenant's address.
async fn in_b(client: &Client, route: &Route, scene: &Scene) -> Answer {
    let elsewhere = client.at(&format!("{}/t/b", client.base));
    send(&elsewhere, route, scene).await
}

/// A body without instants.
fn timeless(body: &str) -> String {
    let mut out = String::new();
    for part in body.split('"') {
        let instant = part.len() == 24 && part.ends_with('Z') && part.as_bytes().get(10) == Some(&b'T');
        out.push_str(if instant { "*" } else { part });
        out.push('"');
    }
    out
}
