//! Every route for every role, on what is its own, somebody else's and another tenant's: one table that a reviewer can
//! read, the routes that are open to strangers first.

mod routes;

use std::fmt::Write as _;

use handoff::wiring::Identity;
use handoff_domain::ports::Clock as _;
use handoff_integration_tests::issuer::OwnIssuer;
use handoff_integration_tests::scene::{document, task};
use handoff_integration_tests::{Answer, Backend, Client, TestApp, assert_committed};
use reqwest::Method;
use serde_json::{Value, json};

use routes::{Body, Route, Scene, routes, subscription_of};

const TABLE: &str = include_str!("authorization.txt");

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
        // Off, so that nothing is sent anywhere.
        let device = self.client(&self.issuer, "Device/interface", "subscriber", &[]);
        let subscribed = async |client: &Client| {
            let answer = client
                .post("/fhir/Subscription", &subscription_of("off", None))
                .await;
            answer.expect(201).id()
        };
        Scene {
            subscription: subscribed(&device).await,
            placers: subscribed(&placer).await,
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
    if status == 200
        && (route.name.ends_with("search")
            || route.name.ends_with("count")
            || route.name == "GET Subscription/$status")
    {
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
         # called like the owner. The Subscription is the subscriber's where it does not say the placer's. Open to strangers is\n\
         # what answers them 200.\n\n",
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
    let table = table.join("\n");
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
        &scene.subscription,
        &scene.placers,
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
        subscription: "0000000000000000000000000000abab".to_owned(),
        placers: "0000000000000000000000000000baba".to_owned(),
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
            if ["GET metadata", "GET AuditEvent"].contains(&route.name) {
                // One says when it was made; the other tells of the attempts themselves, which are not the same ones.
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
