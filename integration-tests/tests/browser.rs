//! What a person sees in a real browser.

use handoff::wiring::Identity;
use handoff_integration_tests::browser::Scenario;
use handoff_integration_tests::provider::Provider;
use handoff_integration_tests::scene::{MARKER, about_ben, document, noise, task};
use handoff_integration_tests::{TestApp, on_both};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const LANE: &str = "Practitioner/lane";

/// What a curious app asks for once it has the document, and the status that it hears about the patient of its launch
/// and about another one. A search finds one of the former and none of the latter.
const ASKED: &[(&str, u16, u16)] = &[
    ("Task/{task}", 200, 404),
    ("Task/{task}/_history", 200, 404),
    ("Task/{task}/_history/1", 200, 404),
    ("DocumentReference/{document}", 200, 404),
    ("DocumentReference/{document}/_history", 200, 404),
    ("DocumentReference/{document}/_history/1", 200, 404),
    // Hers was released for one download.
    ("Binary/{binary}", 403, 404),
    ("Binary/{binary}?task=Task/{task}", 403, 404),
    ("Task?_id={task}", 200, 200),
    ("Task?_id={task}&_summary=count", 200, 200),
    ("Task?patient={patient}", 200, 200),
    ("Task?patient=Patient/{patient}&_summary=count", 200, 200),
    (
        "Task?subject=Patient/{patient}&_total=accurate&_count=1",
        200,
        200,
    ),
    ("Task?focus=DocumentReference/{document}", 200, 200),
    ("DocumentReference?_id={document}", 200, 200),
    ("DocumentReference?_id={document}&_summary=count", 200, 200),
    ("DocumentReference?patient={patient}", 200, 200),
    // Not supported, whomever it is about.
    ("Task?_id={task}&_include=Task:focus", 400, 400),
    (
        "DocumentReference?_id={document}&_revinclude=Task:focus",
        400,
        400,
    ),
];

/// What it asks without a name. It finds one of each.
const COUNTED: &[&str] = &[
    "Task",
    "Task?_summary=count",
    "Task?_total=accurate&_count=1",
    "DocumentReference",
    "DocumentReference?_summary=count",
];

/// Whose things are asked for.
struct Things {
    patient: String,
    task: String,
    document: String,
    binary: String,
}

impl Things {
    /// Such things as there are none of.
    fn nearly(&self) -> Self {
        let other = |id: &str| {
            let (rest, last) = id.split_at(id.len() - 1);
            format!("{rest}{}", if last == "0" { "1" } else { "0" })
        };
        Self {
            // No part of an id, which is hexadecimal.
            patient: self.patient.replace('n', "x"),
            task: other(&self.task),
            document: other(&self.document),
            binary: other(&self.binary),
        }
    }

    fn names(&self) -> [(&'static str, &str); 4] {
        [
            ("{task}", &self.task),
            ("{document}", &self.document),
            ("{binary}", &self.binary),
            ("{patient}", &self.patient),
        ]
    }

    fn asks(&self) -> impl Iterator<Item = String> {
        ASKED.iter().map(|(path, ..)| {
            let names = self.names().into_iter();
            names.fold((*path).to_owned(), |path, (name, value)| {
                path.replace(name, value)
            })
        })
    }

    /// An answer as it would be about anybody: without the names, and without what differs each time.
    fn anonymous(&self, answer: &Answer) -> String {
        let mut body = answer.body.clone();
        for at in ["/timestamp", "/issue/0/diagnostics"] {
            if let Some(value) = body.pointer_mut(at) {
                *value = json!("differs");
            }
        }
        let mut headers = answer.headers.clone();
        for name in ["date", "x-correlation-id", "x-request-id"] {
            headers.as_object_mut().expect("headers").remove(name);
        }
        let names = self.names().into_iter();
        let text = format!("{} {headers:#}\n{body:#}", answer.status);
        names.fold(text, |text, (name, value)| text.replace(value, name))
    }
}

/// What the app heard.
struct Answer {
    path: String,
    status: u64,
    headers: Value,
    body: Value,
}

impl Answer {
    fn read(told: &Value) -> Self {
        let path = told["path"].as_str().expect("a path").to_owned();
        // The library tells the app what the server said.
        assert_eq!(told["status"], told["heard"], "{path}");
        let text = told["body"].as_str().expect("text");
        Self {
            status: told["status"].as_u64().expect("a status"),
            headers: told["headers"].clone(),
            body: serde_json::from_str(text).unwrap_or_else(|e| panic!("{path}: {e}: {text}")),
            path,
        }
    }

    /// Holds the status, and how many a search found.
    fn is(&self, status: u16, found: u64) {
        let Self { path, body, .. } = self;
        assert_eq!(self.status, u64::from(status), "{path}: {body}");
        if body["type"] == "searchset" {
            let listed = body["entry"].as_array().map_or(0, Vec::len) as u64;
            let wanted = if path.contains("_summary=count") { 0 } else { found };
            assert_eq!(
                (&body["total"], listed),
                (&json!(found), wanted),
                "{path}: {body}"
            );
        }
    }
}

on_both! {
    async fn a_smart_app_launched_for_a_patient_gets_her_document_and_learns_nothing_of_another(backend) {
        let mut browser = Scenario::start("smart-app");
        let origin = browser.said().await["origin"].as_str().expect("an origin").to_owned();
        let provider = Provider::start(None).await;
        let app = TestApp::start_with(backend, |options| {
            options.identity = Identity::Issuers(vec![provider.config()]);
            options.cors_origins = vec![origin.clone()];
        })
        .await;
        let sign_in = async |name: &str| app.stranger().with_token(provider.token(name).await);
        let (ehr, lane) = (sign_in("ehr").await, sign_in("lane").await);
        let letter = document(&ehr, &noise(300_000)).await;
        let mut about_ada = task("accepted", &letter.id, Some(LANE));
        about_ada["input"] = json!([{"type": {"text": "letter"}, "valueReference": about_ada["focus"]}]);
        let ada = Things {
            patient: "ada".to_owned(),
            task: ehr.post("/fhir/Task", &about_ada).await.expect(201).id(),
            document: letter.id,
            binary: letter.binary,
        };
        let (bens_task, bens_letter) = about_ben(&ehr).await;
        let ben = Things {
            patient: "ben".to_owned(),
            task: bens_task,
            document: bens_letter.id,
            binary: bens_letter.binary,
        };
        let nobody = ben.nearly();
        // Outside of a launch Dr. Lane sees both.
        let both = lane.get("/fhir/Task?_summary=count").await.expect(200).json();
        assert_eq!(both["total"], 2);

        let iss = format!("{}/fhir", app.server.base_url);
        let asks = [&ada, &ben, &nobody].into_iter().flat_map(Things::asks);
        let asks: Vec<String> = asks.chain(COUNTED.iter().map(ToString::to_string)).collect();
        let seen = browser.play(&json!({"iss": iss, "who": "lane", "asks": asks})).await;

        assert_eq!(seen["authorize"]["aud"], iss);
        assert_eq!(seen["authorize"]["code_challenge_method"], "S256");
        assert_eq!(
            seen["launch"],
            json!({
                "patient": "ada",
                "user": LANE,
                "type": "Bearer",
                "scope": ["launch/patient", "patient/Binary.rs", "patient/DocumentReference.rs", "patient/Task.rs"],
            })
        );
        let title = format!("Letter about {MARKER}");
        assert_eq!(
            seen["tasks"],
            json!([{"task": ada.task, "status": "accepted", "document": ada.document, "title": title}])
        );
        let digest = Sha256::digest(&letter.content);
        let digest = digest.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        assert_eq!(
            seen["saved"],
            json!({"name": format!("{title}.pdf"), "length": letter.content.len(), "sha256": digest})
        );

        let answers: Vec<Answer> = seen["answers"].as_array().expect("answers").iter().map(Answer::read).collect();
        assert_eq!(answers.len(), asks.len());
        let (of_ada, rest) = answers.split_at(ASKED.len());
        let (of_ben, rest) = rest.split_at(ASKED.len());
        let (of_nobody, counted) = rest.split_at(ASKED.len());
        for (n, (_, hers, his)) in ASKED.iter().enumerate() {
            of_ada[n].is(*hers, 1);
            of_ben[n].is(*his, 0);
            assert_eq!(ben.anonymous(&of_ben[n]), nobody.anonymous(&of_nobody[n]));
        }
        for answer in counted {
            answer.is(200, 1);
        }
    }
}

#[tokio::test]
async fn what_a_browser_complains_of_is_noticed() {
    let seen = Scenario::start("self-test").play(&json!({})).await;
    assert_eq!(seen["saved"], json!({"name": "a.txt", "text": "saved"}));
    assert_eq!(seen["axe"], json!({"good": [], "unlabelled": ["label: input"]}));
    assert_eq!(seen["withoutScript"], "Before");
    assert_eq!(seen["expected"], "none");
    for (page, complaint) in [
        ("elsewhere", "a request to http://elsewhere.example"),
        ("forbidden", "Content Security Policy"),
        ("throws", "thrown: on purpose"),
        ("missing", "404 from GET /none.png"),
    ] {
        let said = seen[page].as_str().expect("text");
        assert!(said.contains(complaint), "{page}: {said}");
    }
}
