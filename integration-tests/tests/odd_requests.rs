//! Requests that no decent client sends: addresses that are none, methods that are not there, headers and bodies that
//! make no sense. Each is answered, none with a 500.

use handoff_integration_tests::scene::Referral;
use handoff_integration_tests::{TestApp, http_client, on_both};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderValue};

use crate::bad_input::{FHIR, authorization, raw, refusal};

on_both! {
    async fn an_address_that_is_none_is_answered_as_such(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let id = &referral.task;
        let long = "a".repeat(65);
        for path in [
            "/fhir/Task/..%2f".to_owned(),
            format!("/fhir/Task/..%2fTask%2f{id}"),
            format!("/fhir/Task/{id}%00"),
            format!("/fhir/Task/{id}%20"),
            "/fhir/Task/%ff".to_owned(),
            "/fhir/Task/%".to_owned(),
            "/fhir/Task/%zz".to_owned(),
            format!("/fhir/Task/{long}"),
            format!("/fhir/DocumentReference/{long}"),
            format!("/fhir/Binary/{long}"),
            format!("/fhir/Task/{id}/_history/abc"),
            format!("/fhir/Task/{id}/_history/0"),
            format!("/fhir/Task/{id}/_history/-1"),
            format!("/fhir/Task/{id}/_history/2"),
            format!("/fhir/Task/{id}/_history/99999999999999999999"),
            format!("/fhir/task/{id}"),
            format!("/fhir/Task/{id}/"),
            format!("/fhir/Task/{id}/nothing/at/all"),
            "/fhir/Patient/ada".to_owned(),
            "/fhir/StructureDefinition/nothing".to_owned(),
            "/fhir/AuditEvent/nothing".to_owned(),
            "/fhir/Task/\u{1f600}".to_owned(),
        ] {
            let client = if path.contains("AuditEvent") { app.client("auditor").await } else { referral.ehr.clone() };
            let head = format!(
                "GET {path} HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n{}\r\n",
                authorization(&client)
            );
            let (status, text) = raw(&app, &head, b"").await;
            assert!([400, 404].contains(&status), "{path}: {text}");
            if status == 404 {
                assert!(text.contains("OperationOutcome"), "{path}: {text}");
            }
        }
        for (method, path) in [
            (Method::PATCH, format!("/fhir/Task/{id}")),
            (Method::POST, format!("/fhir/Task/{id}")),
            (Method::PUT, "/fhir/Task".to_owned()),
            (Method::DELETE, "/fhir/Task".to_owned()),
            (Method::PUT, format!("/fhir/Binary/{}", referral.document.binary)),
            (Method::GET, format!("/fhir/Task/{id}/$grant")),
            (Method::DELETE, "/fhir/metadata".to_owned()),
            (Method::POST, "/fhir/AuditEvent".to_owned()),
            (Method::PUT, "/fhir/CodeSystem/handoff-reason".to_owned()),
            (Method::OPTIONS, "/fhir/Task".to_owned()),
        ] {
            let request = referral.ehr.request(method.clone(), &path).header(CONTENT_TYPE, FHIR).body("{}");
            refusal(&referral.ehr.send(request).await, 405, "not-supported", &format!("{method} {path}"));
        }
        for (method, path) in [
            (Method::PUT, format!("/files/{}/access-grants", referral.document.id)),
            (Method::POST, "/access-grants/x".to_owned()),
            (Method::DELETE, "/handoff/x".to_owned()),
            (Method::POST, "/redemptions/x/content".to_owned()),
        ] {
            referral.ehr.send(referral.ehr.request(method, &path)).await.refused(405, "not-supported");
        }
        for path in ["/", "/nothing", "/fhirs", "/files/x", "/access-grants", "/handoff", "/redemptions/x"] {
            referral.ehr.get(path).await.refused(404, "not-found");
        }
    }

    async fn the_callers_correlation_id_is_kept_where_it_can_be(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let sent = |name: &'static str, value: &str| ehr.request(Method::GET, "/fhir/Task/nowhere").header(name, value);
        let answer = ehr.send(sent("x-correlation-id", "referral-17.a")).await;
        assert_eq!(answer.header("x-correlation-id"), Some("referral-17.a"));
        refusal(&answer, 404, "not-found", "own");
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let answer = ehr.send(sent("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"))).await;
        assert_eq!(answer.header("x-correlation-id"), Some(trace));
        for bad in ["", "a b", "<script>", &"x".repeat(500), "a\"b"] {
            let answer = ehr.send(sent("x-correlation-id", bad)).await;
            assert_ne!(answer.header("x-correlation-id"), Some(bad));
            refusal(&answer, 404, "not-found", bad);
        }
    }

    async fn no_odd_request_ends_in_an_internal_error(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let grant = referral.grants().await[0]["grantId"].as_str().unwrap().to_owned();
        let (id, document, binary) = (&referral.task, &referral.document.id, &referral.document.binary);
        let routes = [
            "/fhir".to_owned(),
            "/fhir/".to_owned(),
            "/fhir/metadata".to_owned(),
            "/fhir/Task".to_owned(),
            "/fhir/Task?_sort=status,-x&_count=-1".to_owned(),
            "/fhir/Task?_page=%F0%9F%98%80&_count=99999999999".to_owned(),
            "/fhir/Task?_lastUpdated=ge2026-13-45&owner=%00".to_owned(),
            "/fhir/Task?modified=ap0000&status:not=%7C%7C%7C&identifier=%7C".to_owned(),
            "/fhir/Task?owner=Practitioner/%27%3B--&code=%27%20OR%201%3D1".to_owned(),
            "/fhir/Task/_search".to_owned(),
            format!("/fhir/Task/{id}"),
            format!("/fhir/Task/{id}/_history?_count=0&_since=9999-12-31T23:59:60Z"),
            format!("/fhir/Task/{id}/_history/1"),
            format!("/fhir/Task/{id}/$grant"),
            format!("/fhir/Task/{id}/$revoke-grants"),
            "/fhir/Task/$validate?profile=%00".to_owned(),
            "/fhir/DocumentReference?date=lt99999&description=%25_%5C".to_owned(),
            format!("/fhir/DocumentReference/{document}"),
            "/fhir/DocumentReference/$validate".to_owned(),
            "/fhir/Binary".to_owned(),
            format!("/fhir/Binary/{binary}?task=%2F"),
            format!("/fhir/Binary/{binary}/_history/1?task=Task/{id}"),
            "/fhir/AuditEvent?date=x&-correlation=%00".to_owned(),
            "/fhir/CodeSystem?url=%00&_count=x".to_owned(),
            format!("/files/{document}/access-grants"),
            format!("/access-grants/{grant}"),
            "/handoff/x".to_owned(),
            "/handoff/%ff%00".to_owned(),
            "/redemptions/x/content".to_owned(),
            "/t/b/fhir/Task".to_owned(),
            "/t/%2e%2e/fhir/Task".to_owned(),
            "/dev-issuer/token".to_owned(),
            "/dev-issuer/authorize?client_id=%00&redirect_uri=x".to_owned(),
        ];
        let methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"];
        let whole = referral.current().await.to_string();
        let bodies: Vec<Vec<u8>> = vec![
            Vec::new(),
            b"{}".to_vec(),
            b"null".to_vec(),
            b"\"\"".to_vec(),
            b"\xff\xfe\x00".to_vec(),
            whole.clone().into_bytes(),
            whole.replace("accepted", "\u{202e}").into_bytes(),
            br#"{"resourceType":"Bundle","type":"transaction","entry":[{}]}"#.to_vec(),
            br#"{"resourceType":"Bundle","type":"batch","entry":[{"request":{"method":"DELETE","url":"Task/"}},{"request":{"method":"PUT","url":"//"}}]}"#.to_vec(),
            br#"{"resourceType":"Parameters","parameter":[{"name":"uses","valueDecimal":1e400}]}"#.to_vec(),
            br#"{"resourceType":"Parameters","parameter":[{"name":"resource","resource":{"resourceType":"Task"}}]}"#.to_vec(),
            br#"{"resourceType":"Binary","contentType":"\n","data":"AA=="}"#.to_vec(),
            br#"{"task":"Task/../x","expiresIn":9223372036854775807,"uses":4294967295}"#.to_vec(),
            b"grant_type=client_credentials&client_id=%00".to_vec(),
            b"secret=%ff&secret=".to_vec(),
            vec![b'['; 5000],
        ];
        let headers: [(&str, &[u8]); 12] = [
            ("accept", b"application/fhir+json"),
            ("accept", b"\xff\xfe"),
            ("content-type", b""),
            ("content-type", b"\xff"),
            ("if-match", b"\xff"),
            ("range", b"bytes=18446744073709551615-"),
            ("if-range", b"\""),
            ("prefer", b"return=;;,handling=strict"),
            ("x-correlation-id", b"\xf0"),
            ("traceparent", b"00-"),
            ("x-security-context", b"../x"),
            ("x-forwarded-for", b"::::"),
        ];
        let clients = [app.client("operator").await, referral.ehr.clone(), app.client("auditor").await, app.stranger()];
        let kinds = [FHIR, "application/json", "application/x-www-form-urlencoded", "text/plain"];
        let http = http_client();
        let (mut n, mut wrong) = (0usize, Vec::new());
        for route in &routes {
            for method in methods {
                for _ in 0..3 {
                    n += 1;
                    let (body, kind) = (&bodies[n * 7 % bodies.len()], kinds[n * 5 % kinds.len()]);
                    let (name, value) = headers[n * 11 % headers.len()];
                    let client = &clients[n % clients.len()];
                    let mut request = http
                        .request(Method::from_bytes(method.as_bytes()).unwrap(), format!("{}{route}", client.base))
                        .header(CONTENT_TYPE, kind)
                        .header(name, HeaderValue::from_bytes(value).unwrap())
                        .body(body.clone());
                    if let Some(token) = &client.token {
                        request = request.bearer_auth(token);
                    }
                    let answer = client.send(request).await;
                    let shown = String::from_utf8_lossy(&answer.body);
                    let case = format!("{method} {route} with body {} and {name}: {} {shown}", n * 7 % bodies.len(), answer.status);
                    if answer.status.is_server_error() {
                        wrong.push(case);
                    } else if answer.status.is_client_error() && method != "HEAD" && !route.contains("dev-issuer") {
                        let told = answer.reason().is_some() && answer.header("x-correlation-id").is_some();
                        if !told {
                            wrong.push(case);
                        }
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{} of {n}:\n{}", wrong.len(), wrong.join("\n"));
        assert!(n > 700);
        let ready = http.get(format!("{}/health/ready", app.server.admin_url)).send().await.unwrap();
        assert_eq!(ready.status(), 200);
        app.stranger().get("/fhir/metadata").await.expect(200);
    }
}
