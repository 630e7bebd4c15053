//! What records managers may ask for, and who else may not: rights, records of it, what is refused, and ways around a hold.

use handoff_integration_tests::on_both;
use handoff_integration_tests::scene::ADA;
use serde_json::{Value, json};

use crate::retention::{A_MONTH, CASE, FOR_EVER, Stand};

on_both! {
    async fn nobody_takes_a_document_out_of_a_hold_by_changing_whose_it_is(backend) {
        let stand = Stand::set(backend, FOR_EVER).await;
        stand.hold("patient", ADA, None).await;
        stand.hold("case", CASE, None).await;
        let ehr = stand.app.client("ehr").await;
        let path = format!("/fhir/DocumentReference/{}", stand.letter);
        let letter = ehr.get(&path).await.expect(200).json();
        for (at, value) in [("/subject/reference", "Patient/ben"), ("/context/encounter/0/reference", "Encounter/9")] {
            let mut changed = letter.clone();
            *changed.pointer_mut(at).unwrap() = json!(value);
            ehr.put(&path, &changed).await.refused(409, "legal-hold");
        }
        let mut changed = letter.clone();
        changed["description"] = json!("a better word for it");
        ehr.put(&path, &changed).await.expect(200);
        // A mistake is mended once the document itself is held.
        stand.hold_letter().await.expect(201);
        changed["subject"]["reference"] = json!("Patient/ben");
        ehr.put(&path, &changed).await.expect(200);
        stand.delete_letter().await.refused(409, "legal-hold");
    }

    async fn a_purge_of_what_is_marked_is_held_to_the_same_and_on_record(backend) {
        let stand = Stand::set(backend, A_MONTH).await;
        stand.day(30).await;
        stand.hold_letter().await.expect(201);
        stand.purge().await.refused(409, "legal-hold");
        stand.release_letter().await;
        stand.purge().await.expect(200);
        assert_eq!(stand.content().await, "gone");
        let auditor = stand.app.client("auditor").await;
        let about = format!("/fhir/AuditEvent?entity=DocumentReference/{}&_count=100", stand.letter);
        let rows = auditor.get(&about).await.expect(200).json().to_string();
        for said in ["asked for by the patient", "content-disposed", "document-held", "document-released"] {
            assert!(rows.contains(said), "{said}: {rows}");
        }
        // Nothing is left of it.
        let again = stand.purge().await.expect(200).json();
        assert_eq!(again["parameter"][0]["valueUnsignedInt"], 0);
    }

    async fn what_is_looked_up_of_holds_is_on_record_and_for_few(backend) {
        let stand = Stand::set(backend, FOR_EVER).await;
        stand.hold_letter().await.expect(201);
        let again = stand.hold_letter().await.expect(200).json();
        let paths = [
            "/admin/holds".to_owned(),
            format!("/admin/documents/{}/hold", stand.letter),
            format!("/admin/documents/{}/availability", stand.letter),
        ];
        for path in &paths {
            for name in ["operator", "records", "auditor"] {
                let seen = stand.app.client(name).await.get(path).await.expect(200).json();
                assert!(seen.to_string().contains(again["id"].as_str().unwrap()), "{path}");
            }
            for name in ["ehr", "lane", "interface"] {
                stand.app.client(name).await.get(path).await.refused(403, "policy-denied");
            }
        }
        for name in ["operator", "auditor", "ehr", "lane"] {
            let client = stand.app.client(name).await;
            let body = json!({"reason": "why not", "patient": ADA});
            client.post_plain("/admin/holds", &body).await.refused(403, "policy-denied");
            client.put_plain(&paths[2], &json!({"reason": "why not"})).await.refused(403, "policy-denied");
        }
        let auditor = stand.app.client("auditor").await;
        let rows = auditor.get("/fhir/AuditEvent?subtype=records-read&_count=100").await.expect(200).json();
        let outcomes = |code: &str| rows["entry"].as_array().unwrap().iter().filter(|one| one["resource"]["outcome"] == code).count();
        assert_eq!((outcomes("0"), outcomes("4")), (9, 9), "{rows:#}");
    }

    async fn what_is_no_hold_and_no_clock_is_refused_where_it_is_wrong(backend) {
        let stand = Stand::set(backend, FOR_EVER).await;
        let clocks = format!("/admin/documents/{}/availability", stand.letter);
        for (path, body, status) in [
            ("/admin/holds", json!({"reason": "r"}), 400),
            ("/admin/holds", json!({"reason": "r", "patient": ADA, "case": CASE}), 400),
            ("/admin/holds", json!({"patient": ADA}), 400),
            ("/admin/holds", json!(["r", null, null, ADA, null]), 400),
            ("/admin/holds", json!({"reason": "", "patient": ADA}), 422),
            ("/admin/holds", json!({"reason": "two\nlines", "patient": ADA}), 422),
            ("/admin/holds", json!({"reason": "r", "case": "Patient/ada"}), 422),
            ("/admin/holds", json!({"reason": "r", "document": "nobody"}), 404),
            ("/admin/holds", json!({"reason": "r", "patient": ADA, "until": "2020-01-01T00:00:00Z"}), 422),
            ("/admin/holds", json!({"reason": "r", "patient": ADA, "until": "9999-12-31T23:59:59-23:59"}), 422),
            ("/admin/documents/nobody/hold", json!({"reason": "r"}), 404),
            (clocks.as_str(), json!({"reason": "r", "from": "tomorrow"}), 422),
            (clocks.as_str(), json!({"reason": "r", "from": "2031-01-02T00:00:00Z", "until": "2031-01-01T00:00:00Z"}), 422),
            (clocks.as_str(), json!({"reason": "r", "unti": null}), 400),
            ("/admin/documents/nobody/availability", json!({"reason": "r"}), 404),
        ] {
            let answer = stand.records("POST", path, &body).await;
            assert_eq!(answer.status.as_u16(), status, "{path} {body}: {}", String::from_utf8_lossy(&answer.body));
        }
        let holds = stand.records("GET", "/admin/holds", &Value::Null).await.expect(200).json();
        assert_eq!(holds["holds"], json!([]));
    }
}
