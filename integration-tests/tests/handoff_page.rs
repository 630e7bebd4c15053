//! The page behind a link, in a real browser: what a person sees from the mail to the file, with and without scripts.

use handoff_integration_tests::browser::Scenario;
use handoff_integration_tests::on_both;
use handoff_integration_tests::provider::app_with_sign_in;
use handoff_integration_tests::scene::{MARKER, document, noise, task};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

on_both! {
    async fn a_person_opens_a_link_downloads_once_and_asks_for_another(backend) {
        for java_script in [true, false] {
            let (app, provider) = app_with_sign_in(backend).await;
            let ehr = provider.client(&app, "ehr").await;
            let letter = document(&ehr, &noise(300_000)).await;
            let mut about_ada = task("accepted", &letter.id, Some("Practitioner/lane"));
            about_ada["requester"] = json!({
                "reference": "Organization/referring-clinic",
                "display": "The Referring Clinic",
            });
            let task = ehr.post("/fhir/Task", &about_ada).await.expect(201).id();
            let ask = json!({"task": format!("Task/{task}"), "actor": {"reference": "Practitioner/lane"}});
            let path = format!("/files/{}/access-grants", letter.id);
            let grant = ehr.post_plain(&path, &ask).await.expect(201).json();
            let link = grant["link"].as_str().unwrap();
            let page = link.split('#').next().unwrap().strip_prefix(app.server.base_url.as_str()).unwrap();

            let told = json!({
                "link": link,
                "label": "Sign in with the hospital account",
                "who": "lane",
                "javaScript": java_script,
            });
            let seen = Scenario::start("handoff-page").play(&told).await;
            let pages = &seen["pages"];
            for (name, page) in pages.as_object().unwrap() {
                assert_eq!(page["axe"], json!([]), "{name}");
                assert!(!page.to_string().contains(link.split('#').nth(1).unwrap()) || page["hash"] != "", "{name}");
            }
            let says = |name: &str, words: &[&str]| {
                let text = pages[name]["text"].as_str().unwrap_or_else(|| panic!("no page {name}: {pages:#}"));
                for word in words {
                    assert!(text.contains(word), "{name} does not say `{word}`: {text}");
                }
            };
            says("stranger", &["one document for one person", "has not used it up"]);
            assert!(!pages["stranger"].to_string().contains(MARKER));
            if java_script {
                assert_eq!(pages["stranger"]["hash"], "", "the code leaves the address");
            } else {
                says("stranger", &["keep what follows the #"]);
                says("code", &["Signed in as Dr. Lane", "Your code"]);
            }
            let title = format!("Letter about {MARKER}");
            assert_eq!(pages["document"]["heading"], title);
            says("document", &["Signed in as Dr. Lane", "The Referring Clinic", "PDF, 300.0 kB", "Until when"]);
            let digest = Sha256::digest(&letter.content);
            let digest = digest.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
            assert_eq!(seen["saved"]["length"], letter.content.len());
            assert_eq!(seen["saved"]["sha256"], digest);
            assert_eq!(seen["saved"]["name"], format!("document-{}.pdf", letter.binary), "no name of a patient");
            assert_eq!(pages["used"]["heading"], "This link has been used");
            says("used", &["tell support this reference"]);
            says("asked", &["The Referring Clinic", "Task/"]);
            says("out", &["You are signed out here", "Sign out there too"]);
            assert_eq!(seen["cookies"], json!([]));
            // The code leaves the browser with the person's own form, and never otherwise.
            assert_eq!(seen["carried"], json!([format!("POST {page}/document")]));

            // The sender sees the request, as a Task of theirs that releases nothing.
            let asked = ehr.get("/fhir/Task?status=requested").await.expect(200).json();
            assert_eq!(asked["total"], 1, "{asked:#}");
            let request = &asked["entry"][0]["resource"];
            assert_eq!(request["focus"]["reference"], format!("Task/{task}"));
            assert_eq!(request["requester"]["reference"], "Practitioner/lane");
            assert_eq!(request["owner"]["reference"], "Organization/referring-clinic");
            assert_eq!(request["code"]["coding"][0]["code"], "fresh-link");
            assert_eq!(request["reasonCode"]["coding"][0]["code"], "exhausted");
            assert_eq!(request["input"][0]["valueString"], format!("DocumentReference/{}", letter.id));
            // And answers it.
            ehr.post_plain(&path, &ask).await.expect(201);
            let mut done: Value = request.clone();
            done["status"] = json!("accepted");
            let at = format!("/fhir/Task/{}", request["id"].as_str().unwrap());
            ehr.put(&at, &done).await.expect(200);
            done["status"] = json!("in-progress");
            ehr.put(&at, &done).await.expect(200);
            done["status"] = json!("completed");
            ehr.put(&at, &done).await.expect(200);
        }
    }
}
