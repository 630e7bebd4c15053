//! Bad input: refused with the right status, a reason, a place and the correlation id, and with nothing stored.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use handoff_integration_tests::scene::{ADA, Referral, document_reference, task, upload};
use handoff_integration_tests::{Answer, Client, TestApp, on_both};
use reqwest::Method;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub const FHIR: &str = "application/fhir+json";

/// Checks that an answer is a proper refusal, and answers its first place.
pub fn refusal(answer: &Answer, status: u16, reason: &str, case: &str) -> Option<String> {
    let text = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status.as_u16(), status, "{case}: {text}");
    assert_eq!(answer.reason().as_deref(), Some(reason), "{case}: {text}");
    assert_eq!(answer.header("content-type"), Some(FHIR), "{case}");
    let outcome = answer.json();
    assert_eq!(outcome["resourceType"], "OperationOutcome", "{case}");
    for issue in outcome["issue"].as_array().unwrap() {
        assert_eq!(issue["severity"], "error", "{case}");
        assert_eq!(
            issue["diagnostics"].as_str(),
            answer.header("x-correlation-id"),
            "{case}"
        );
        assert!(
            issue["details"]["text"].as_str().is_some_and(|t| !t.is_empty()),
            "{case}: {text}"
        );
    }
    for word in [
        "panicked", "src/", ".rs:", "serde", "diesel", "sqlite", "postgres",
    ] {
        assert!(!text.to_lowercase().contains(word), "{case}: {text}");
    }
    outcome["issue"][0]["expression"][0].as_str().map(str::to_owned)
}

/// How many Tasks and documents there are.
async fn stored(app: &TestApp) -> (u64, u64) {
    let operator = app.client("operator").await;
    let mut counts = Vec::new();
    for kind in ["Task", "DocumentReference"] {
        let found = operator
            .get(&format!("/fhir/{kind}?_summary=count"))
            .await
            .expect(200)
            .json();
        counts.push(found["total"].as_u64().unwrap());
    }
    (counts[0], counts[1])
}

/// A plain Task as text with one piece of it replaced.
fn task_with(from: &str, to: &str) -> String {
    let text = r#"{"resourceType":"Task","status":"draft","intent":"order","priority":"routine"}"#;
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1)
}

fn task_and(member: &str) -> String {
    task_with(r#""priority":"routine""#, member)
}

/// Extensions within extensions: each level is an object in an array.
fn nested(levels: usize) -> String {
    let inner = format!(
        "{}{}",
        r#"{"url":"u","extension":["#.repeat(levels),
        r#"{"url":"u","valueString":"x"}"#
    );
    task_and(&format!(r#""extension":[{inner}{}]"#, "]}".repeat(levels)))
}

/// Name, body, and where the fault lies, for what is no valid Task. Every one is 400 `invalid`.
#[expect(clippy::too_many_lines, reason = "a table")]
fn malformed() -> Vec<(&'static str, Vec<u8>, Option<&'static str>)> {
    let plain = task_with("draft", "draft").into_bytes();
    let text = |text: String| text.into_bytes();
    let mut cut = task_and(r#""description":"x""#).into_bytes();
    cut.truncate(cut.len() - 2);
    let mut trailing = plain.clone();
    trailing.extend_from_slice(b" {}");
    let mut raw_nul = plain.clone();
    raw_nul.push(0);
    let mut not_utf8 = task_and(r#""description":"?""#).into_bytes();
    let at = not_utf8.iter().position(|b| *b == b'?').unwrap();
    not_utf8[at] = 0xff;
    let mut utf16: Vec<u8> = vec![0xff, 0xfe];
    utf16.extend(
        String::from_utf8(plain.clone())
            .unwrap()
            .encode_utf16()
            .flat_map(u16::to_le_bytes),
    );
    vec![
        ("an empty body", Vec::new(), None),
        ("a body that breaks off", cut, None),
        ("trailing garbage", trailing, None),
        (
            "two byte order marks",
            [b"\xef\xbb\xbf\xef\xbb\xbf".as_slice(), &plain].concat(),
            None,
        ),
        ("a raw NUL", raw_nul, None),
        ("bytes that are not UTF-8", not_utf8, None),
        ("UTF-16", utf16, None),
        ("no JSON", b"status=draft".to_vec(), None),
        ("an array", b"[]".to_vec(), None),
        ("a null", b"null".to_vec(), None),
        ("a comment", text(task_with("{", "{/* */")), None),
        (
            "a trailing comma",
            text(task_with("routine\"", "routine\",")),
            None,
        ),
        (
            "a duplicate key",
            text(task_and(r#""status":"ready""#)),
            Some("Task.status"),
        ),
        (
            "an escaped duplicate key",
            text(task_and(r#""st\u0061tus":"ready""#)),
            Some("Task.status"),
        ),
        (
            "an escaped NUL",
            text(task_and(r#""description":"a\u0000b""#)),
            Some("Task.description"),
        ),
        (
            "half a surrogate pair",
            text(task_and(r#""description":"\ud800""#)),
            None,
        ),
        (
            "an unknown element",
            text(task_and(r#""colour":"red""#)),
            Some("Task"),
        ),
        (
            "an unknown element below",
            text(task_and(r#""for":{"refrence":"Patient/1"}"#)),
            Some("Task.for"),
        ),
        (
            "a number for a code",
            text(task_with("\"draft\"", "1")),
            Some("Task.status"),
        ),
        (
            "a text for a list",
            text(task_and(r#""identifier":"x""#)),
            Some("Task.identifier"),
        ),
        (
            "a list for an object",
            text(task_and(r#""for":[{"reference":"Patient/1"}]"#)),
            Some("Task.for"),
        ),
        (
            "an object for a text",
            text(task_and(r#""description":{}"#)),
            Some("Task.description"),
        ),
        (
            "a null for a text",
            text(task_and(r#""description":null"#)),
            Some("Task.description"),
        ),
        (
            "a text for a boolean",
            text(task_and(r#""code":{"coding":[{"userSelected":"true"}]}"#)),
            Some("Task.code.coding[0].userSelected"),
        ),
        (
            "a missing status",
            text(task_with(r#""status":"draft","#, "")),
            Some("Task.status"),
        ),
        (
            "a missing intent",
            text(task_with(r#""intent":"order","#, "")),
            Some("Task.intent"),
        ),
        (
            "a missing element below",
            text(task_and(r#""input":[{"valueString":"x"}]"#)),
            Some("Task.input[0].type"),
        ),
        (
            "a missing value",
            text(task_and(r#""input":[{"type":{"text":"x"}}]"#)),
            Some("Task.input[0].value"),
        ),
        (
            "two values",
            text(task_and(
                r#""input":[{"type":{"text":"x"},"valueString":"x","valueInteger":1}]"#,
            )),
            None,
        ),
        (
            "an empty array",
            text(task_and(r#""identifier":[]"#)),
            Some("Task.identifier"),
        ),
        ("an empty object", text(task_and(r#""for":{}"#)), Some("Task.for")),
        (
            "an empty text",
            text(task_and(r#""description":"""#)),
            Some("Task.description"),
        ),
        (
            "an unknown status",
            text(task_with("draft", "drafted")),
            Some("Task.status"),
        ),
        (
            "a status in capitals",
            text(task_with("draft", "Draft")),
            Some("Task.status"),
        ),
        (
            "an unknown priority",
            text(task_with("routine", "now")),
            Some("Task.priority"),
        ),
        (
            "an unknown intent",
            text(task_with("order", "wish")),
            Some("Task.intent"),
        ),
        (
            "a date that is none",
            text(task_and(r#""authoredOn":"2026-02-30""#)),
            Some("Task.authoredOn"),
        ),
        (
            "a time without zone",
            text(task_and(r#""authoredOn":"2026-02-03T10:00:00""#)),
            Some("Task.authoredOn"),
        ),
        (
            "a date of another form",
            text(task_and(r#""authoredOn":"03.02.2026""#)),
            Some("Task.authoredOn"),
        ),
        ("a bad id", text(task_and(r#""id":"a/b""#)), Some("Task.id")),
        (
            "a reference to nowhere",
            text(task_and(r##""for":{"reference":"#nobody"}"##)),
            None,
        ),
        ("another resource type", text(task_with("Task", "Patient")), None),
        (
            "no resource type",
            text(task_with(r#""resourceType":"Task","#, "")),
            None,
        ),
        ("an unknown resource type", text(task_with("Task", "Tusk")), None),
        (
            "an extension without url",
            text(task_and(r#""extension":[{"valueString":"x"}]"#)),
            Some("Task.extension[0].url"),
        ),
        (
            "bad base64",
            text(task_and(r#""extension":[{"url":"u","valueBase64Binary":"?"}]"#)),
            None,
        ),
        ("nesting of over 64", text(nested(40)), None),
        ("nesting without end", "[".repeat(200_000).into_bytes(), None),
        (
            "objects without end",
            "{\"a\":".repeat(100_000).into_bytes(),
            None,
        ),
        (
            "a modifier extension that is unknown",
            text(task_and(r#""modifierExtension":[{"url":"u"}]"#)),
            None,
        ),
    ]
}

/// One request written by hand; answers the status and what follows.
pub async fn raw(app: &TestApp, head: &str, body: &[u8]) -> (u16, String) {
    let host = app.server.base_url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).await.unwrap();
    stream
        .write_all(head.replace("HOST", host).as_bytes())
        .await
        .unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(
        std::time::Duration::from_secs(20),
        stream.read_to_end(&mut answer),
    )
    .await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| panic!("no answer: {text}"));
    (status, text)
}

pub fn authorization(client: &Client) -> String {
    format!("Authorization: Bearer {}\r\n", client.token.as_deref().unwrap())
}

on_both! {
    async fn what_is_no_valid_resource_is_refused_with_its_place_and_nothing_is_stored(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let before = stored(&app).await;
        let mut wrong = Vec::new();
        for (case, body, place) in malformed() {
            let answer = ehr.post_bytes("/fhir/Task", FHIR, body.clone()).await;
            if answer.status.as_u16() != 400 {
                wrong.push(format!("{case}: {} {}", answer.status, String::from_utf8_lossy(&answer.body)));
                continue;
            }
            let found = refusal(&answer, 400, "invalid", case);
            if place.is_some() && found.as_deref() != place {
                wrong.push(format!("{case}: located at {found:?} instead of {place:?}"));
            }
            // The same in `$validate`, which answers 200, and as an entry of a transaction where it is JSON.
            let validated = ehr.post_bytes("/fhir/Task/$validate", FHIR, body.clone()).await.expect(200).json();
            let severity = validated["issue"][0]["severity"].as_str().unwrap().to_owned();
            assert!(["error", "fatal"].contains(&severity.as_str()), "{case}: {validated}");
            if let Ok(text) = String::from_utf8(body)
                && text.starts_with('{')
            {
                let bundle = format!(
                    r#"{{"resourceType":"Bundle","type":"transaction","entry":[{{"resource":{text},"request":{{"method":"POST","url":"Task"}}}}]}}"#
                );
                let answer = ehr.post_bytes("/fhir", FHIR, bundle.into_bytes()).await;
                refusal(&answer, 400, "invalid", case);
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert_eq!(stored(&app).await, before);
    }

    async fn a_leading_byte_order_mark_and_deep_but_bearable_nesting_are_accepted(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let marked = [b"\xef\xbb\xbf".as_slice(), task_and(r#""description":"x""#).as_bytes()].concat();
        ehr.post_bytes("/fhir/Task", FHIR, marked).await.expect(201);
        ehr.post_bytes("/fhir/Task", FHIR, nested(28).into_bytes()).await.expect(201);
        for kind in ["application/json", "application/fhir+json; charset=utf-8", "application/fhir+json; fhirVersion=4.0"] {
            ehr.post_bytes("/fhir/Task", kind, task_and(r#""description":"x""#).into_bytes()).await.expect(201);
        }
    }

    async fn what_an_attachment_says_of_its_content_must_be_true(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let binary = upload(&ehr, b"content").await;
        let sha256 = "https://handoff.example/fhir/StructureDefinition/attachment-sha256";
        let zeros = |n: usize| STANDARD.encode(vec![0u8; n]);
        for (member, value, place) in [
            ("size", json!(8), "size"),
            ("hash", json!(zeros(20)), "hash"),
            ("extension", json!([{"url": sha256, "valueBase64Binary": zeros(32)}]), "extension[0].value"),
        ] {
            let mut stated = document_reference(&binary, ADA);
            stated["content"][0]["attachment"][member] = value;
            let answer = ehr.post("/fhir/DocumentReference", &stated).await;
            let found = refusal(&answer, 422, "invalid", member);
            assert_eq!(found, Some(format!("DocumentReference.content[0].attachment.{place}")));
            let mut inline = stated.clone();
            let attachment = inline["content"][0]["attachment"].as_object_mut().unwrap();
            attachment.remove("url");
            attachment.insert("data".to_owned(), json!(STANDARD.encode("content")));
            refusal(&ehr.post("/fhir/DocumentReference", &inline).await, 422, "invalid", member);
        }
        assert_eq!(stored(&app).await, (0, 0));
        // The refusals took nothing away: the content can still be named.
        let mut right = document_reference(&binary, ADA);
        right["content"][0]["attachment"]["size"] = json!(7);
        ehr.post("/fhir/DocumentReference", &right).await.expect(201);
        for bad in ["not base64", "c2Vjcm", "=="] {
            let mut inline = document_reference(&binary, ADA);
            inline["content"] = json!([{"attachment": {"contentType": "text/plain", "data": bad}}]);
            refusal(&ehr.post("/fhir/DocumentReference", &inline).await, 400, "invalid", bad);
        }
    }

    async fn a_transaction_with_a_loose_end_is_refused_as_a_whole(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let post = |resource: Value| {
            json!({"resource": resource, "request": {"method": "POST", "url": resource["resourceType"]}})
        };
        let plain = || task("draft", "nowhere", None);
        let mut loose = plain();
        loose["focus"] = json!({"reference": "urn:uuid:0b9a8f0e-6f7b-4d5c-9c0a-111111111111"});
        let mut conditional = plain();
        conditional["for"] = json!({"reference": "Patient?identifier=x"});
        let full = |url: &str| {
            let mut entry = post(plain());
            entry["fullUrl"] = json!(url);
            entry
        };
        let urn = "urn:uuid:0b9a8f0e-6f7b-4d5c-9c0a-222222222222";
        let put = |id: &str, resource: Value| json!({"resource": resource, "request": {"method": "PUT", "url": format!("Task/{id}")}});
        let mut named = plain();
        named["id"] = json!("a");
        let mut nowhere = document_reference("x", ADA);
        nowhere["content"][0]["attachment"]["url"] = json!(urn);
        let cases: Vec<(Vec<Value>, u16, &str, Option<&str>)> = vec![
            (vec![post(nowhere)], 422, "invalid", Some("Bundle.entry[0].resource.content[0].attachment.url")),
            (vec![post(plain()), post(loose)], 422, "invalid", Some("Bundle.entry[1].resource.focus.reference")),
            (vec![post(plain()), post(conditional)], 422, "invalid", Some("Bundle.entry[1].resource.for.reference")),
            (vec![full(urn), full(urn)], 400, "invalid", Some("Bundle.entry[1].fullUrl")),
            (vec![post(plain()), json!({"resource": plain()})], 400, "invalid", Some("Bundle.entry[1].request")),
            (vec![json!({"request": {"method": "POST", "url": "Task"}})], 400, "invalid", Some("Bundle.entry[0].resource")),
            (vec![put("b", named.clone())], 400, "invalid", Some("Bundle.entry[0].resource.id")),
            (vec![post(plain()), put("a", named)], 404, "not-found", Some("Bundle.entry[1]")),
            (vec![json!({"resource": plain(), "request": {"method": "POST", "url": "Patient"}})], 400, "invalid", Some("Bundle.entry[0].request.url")),
            (vec![json!({"resource": plain(), "request": {"method": "POST", "url": "DocumentReference"}})], 400, "invalid", Some("Bundle.entry[0].request.url")),
            (vec![json!({"resource": plain(), "request": {"method": "POST", "url": "Task", "ifNoneExist": "x=y"}})], 400, "not-supported", Some("Bundle.entry[0].request")),
            (vec![json!({"request": {"method": "GET", "url": "Task"}})], 400, "not-supported", Some("Bundle.entry[0].request.method")),
            (vec![post(plain()), post(json!({"resourceType": "Task", "status": "completed", "intent": "order"}))], 422, "illegal-transition", Some("Bundle.entry[1].resource.status")),
        ];
        for (i, (entry, status, reason, place)) in cases.into_iter().enumerate() {
            let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": entry});
            let found = refusal(&ehr.post("/fhir", &bundle).await, status, reason, &format!("case {i}"));
            assert_eq!(found.as_deref(), place, "case {i}");
        }
        for kind in ["collection", "document", "searchset"] {
            let bundle = json!({"resourceType": "Bundle", "type": kind});
            refusal(&ehr.post("/fhir", &bundle).await, 400, "invalid", kind);
        }
        assert_eq!(stored(&app).await, (0, 0));
    }

    async fn a_representation_that_is_not_spoken_here_is_refused(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let body = task_and(r#""description":"x""#);
        for kind in ["application/fhir+xml", "text/plain", "application/x-www-form-urlencoded", "application/json-patch+json", "application/fhir+json; fhirVersion=3.0"] {
            let answer = ehr.post_bytes("/fhir/Task", kind, body.clone().into_bytes()).await;
            refusal(&answer, 415, "not-supported", kind);
        }
        let search = ehr.request(Method::POST, "/fhir/Task/_search").header(CONTENT_TYPE, FHIR).body("{}");
        refusal(&ehr.send(search).await, 415, "not-supported", "search");
        for (path, kind) in [("/fhir/Task", FHIR), ("/fhir", FHIR), ("/fhir/Binary", "application/pdf")] {
            let packed = ehr.request(Method::POST, path).header(CONTENT_TYPE, kind).header("content-encoding", "gzip");
            refusal(&ehr.send(packed.body(body.clone())).await, 415, "not-supported", path);
        }
        for accept in ["application/fhir+xml", "text/html", "application/xml", "application/fhir+json;q=0"] {
            let get = ehr.request(Method::GET, "/fhir/Task").header(ACCEPT, accept);
            refusal(&ehr.send(get).await, 406, "not-supported", accept);
            let post = ehr.request(Method::POST, "/fhir/Task").header(ACCEPT, accept).header(CONTENT_TYPE, FHIR);
            refusal(&ehr.send(post.body(body.clone())).await, 406, "not-supported", accept);
        }
        refusal(&ehr.get("/fhir/Task?_format=xml").await, 406, "not-supported", "_format");
        assert_eq!(stored(&app).await, (0, 0));
    }

    async fn a_token_is_taken_from_one_header_and_nowhere_else(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let stranger = app.stranger();
        let token = ehr.token.clone().unwrap();
        let none = stranger.get("/fhir/Task").await;
        refusal(&none, 401, "unauthenticated", "none");
        assert!(!none.header("www-authenticate").unwrap().contains("error="));
        assert!(none.header("www-authenticate").unwrap().contains("resource_metadata="));
        let get = |value: &str| stranger.request(Method::GET, "/fhir/Task").header(AUTHORIZATION, value);
        for value in ["Bearer", "Bearer ", "Basic ZWhyOmVocg==", "Bearer x", "Bearer a.b.c", "bearer  ", "Token x", &format!("Bearer {token}x"), &format!("Bearer {token} {token}")] {
            let refused = stranger.send(get(value)).await;
            refusal(&refused, 401, "token-invalid", value.get(..10).unwrap_or(value));
            assert!(refused.header("www-authenticate").unwrap().contains("error=\"invalid_token\""));
            assert!(!String::from_utf8_lossy(&refused.body).contains(&token));
        }
        let unsigned = {
            let mut parts = token.split('.');
            let payload = parts.nth(1).unwrap();
            format!("Bearer {}.{payload}.", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"at+jwt"}"#))
        };
        refusal(&stranger.send(get(&unsigned)).await, 401, "token-invalid", "alg none");
        let bearer = format!("Bearer {token}");
        refusal(&stranger.send(get(&bearer).header(AUTHORIZATION, &bearer)).await, 401, "token-invalid", "two");
        let in_query = format!("/fhir/Task?access_token={token}");
        refusal(&stranger.get(&in_query).await, 401, "token-invalid", "in the query");
        refusal(&ehr.get(&in_query).await, 401, "token-invalid", "in both");
        // Strangers learn nothing of what is served.
        for path in ["/fhir/Task/x", "/fhir/Patient", "/fhir/Task/x/$grant", "/fhir/AuditEvent", "/fhir/StructureDefinition"] {
            refusal(&stranger.get(path).await, 401, "unauthenticated", path);
        }
    }

    async fn what_is_too_large_is_413_and_nothing_is_stored(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let mib = 1 << 20;
        let described = |bytes: usize| {
            let (one, other) = ("x".repeat(bytes / 2), "y".repeat(bytes - bytes / 2));
            task_and(&format!(r#""note":[{{"text":"{one}"}},{{"text":"{other}"}}]"#)).into_bytes()
        };
        let answer = ehr.post_bytes("/fhir/Task", FHIR, described(2 * mib)).await;
        refusal(&answer, 413, "too-large", "a resource");
        let bundle = |resource: &[u8]| {
            let resource = std::str::from_utf8(resource).unwrap();
            format!(r#"{{"resourceType":"Bundle","type":"transaction","entry":[{{"resource":{resource},"request":{{"method":"POST","url":"Task"}}}}]}}"#).into_bytes()
        };
        let answer = ehr.post_bytes("/fhir", FHIR, bundle(&described(2 * mib))).await;
        let place = refusal(&answer, 413, "too-large", "a resource in a transaction");
        assert_eq!(place.as_deref(), Some("Bundle.entry[0]"));
        let entry = json!({"resource": {"resourceType": "Task", "status": "draft", "intent": "order"}, "request": {"method": "POST", "url": "Task"}});
        for kind in ["transaction", "batch"] {
            let many = json!({"resourceType": "Bundle", "type": kind, "entry": vec![entry.clone(); 501]});
            refusal(&ehr.post("/fhir", &many).await, 413, "too-large", kind);
        }
        let inline = |bytes: usize| {
            let mut document = document_reference("x", ADA);
            document["content"] = json!([{"attachment": {"contentType": "text/plain", "data": STANDARD.encode(vec![b'x'; bytes])}}]);
            document
        };
        refusal(&ehr.post("/fhir/DocumentReference", &inline(10 * mib + 1)).await, 413, "too-large", "inline data");
        let wrapped = json!({"resourceType": "Binary", "contentType": "text/plain", "data": STANDARD.encode(vec![b'x'; 10 * mib + 1])});
        refusal(&ehr.post("/fhir/Binary", &wrapped).await, 413, "too-large", "a wrapped Binary");
        // Told by the length alone, before the body is read.
        for (path, bytes) in [("Task", 16 * mib + 1), ("DocumentReference", 16 * mib + 1), ("", 32 * mib + 1), ("Task/x/$grant", 64 * 1024 + 1), ("Binary", 5 * 1024 * mib + 1)] {
            let kind = if path == "Binary" { "application/pdf" } else { FHIR };
            let head = format!(
                "POST /fhir/{path} HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {bytes}\r\n{}\r\n",
                authorization(&ehr)
            );
            let (status, text) = raw(&app, &head, b"").await;
            assert_eq!(status, 413, "{path}: {text}");
            assert!(text.contains("too-large"), "{path}: {text}");
        }
        assert_eq!(stored(&app).await, (0, 0));
        ehr.post("/fhir/DocumentReference", &inline(10 * mib)).await.expect(201);
        ehr.post_bytes("/fhir/Task", FHIR, described(2 * mib - 200)).await.expect(201);
        let most = json!({"resourceType": "Bundle", "type": "transaction", "entry": vec![entry; 500]});
        ehr.post("/fhir", &most).await.expect(200);
        assert_eq!(stored(&app).await, (501, 1));
    }

    async fn a_put_that_does_not_fit_its_address_is_refused(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let before = stored(&app).await;
        let otis = app.client("otis").await;
        let mut body = referral.current().await;
        let invisible = otis.put(&format!("/fhir/Task/{}", referral.task), &body).await;
        body["id"] = json!("nowhere");
        let unknown = otis.put("/fhir/Task/nowhere", &body).await;
        let strip = |answer: &Answer| {
            refusal(answer, 404, "not-found", "put");
            let mut body = answer.json();
            body["issue"][0]["diagnostics"] = Value::Null;
            body
        };
        assert_eq!(strip(&invisible), strip(&unknown));
        let answer = referral.ehr.put("/fhir/Task/nowhere", &body).await;
        assert_eq!(strip(&answer), strip(&unknown));
        let answer = referral.ehr.put(&format!("/fhir/Task/{}", referral.task), &body).await;
        assert_eq!(refusal(&answer, 400, "invalid", "another id").as_deref(), Some("Task.id"));
        body.as_object_mut().unwrap().remove("id");
        let answer = referral.ehr.put(&format!("/fhir/Task/{}", referral.task), &body).await;
        assert_eq!(refusal(&answer, 400, "invalid", "no id").as_deref(), Some("Task.id"));
        for tag in ["3", "W/3", "\"1\", \"2\"", "W/\"1"] {
            let put = referral.ehr.request(Method::PUT, &format!("/fhir/Task/{}", referral.task));
            let put = put.header("if-match", tag).header(CONTENT_TYPE, FHIR);
            let answer = referral.ehr.send(put.body(referral.current().await.to_string())).await;
            refusal(&answer, 400, "invalid", tag);
        }
        for (method, header) in [(Method::POST, "if-none-exist"), (Method::PUT, "if-none-match")] {
            let path = if method == Method::PUT { format!("/fhir/Task/{}", referral.task) } else { "/fhir/Task".to_owned() };
            let request = referral.ehr.request(method, &path).header(header, "*").header(CONTENT_TYPE, FHIR);
            refusal(&referral.ehr.send(request.body("{}")).await, 400, "not-supported", header);
        }
        assert_eq!(stored(&app).await, before);
        assert_eq!(referral.current().await["meta"]["versionId"], "1");
    }
}
