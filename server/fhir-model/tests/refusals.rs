//! What is refused, each with the place that the sender is told. One valid Task is changed in one way per row.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    reason = "tests"
)]

use handoff_fhir_model::{Issue, IssueType, ParseOptions, parse};
use serde_json::{Value, json};

fn issues(text: &[u8]) -> Vec<Issue> {
    parse(text, &ParseOptions::default()).err().unwrap_or_default()
}

/// A valid Task with the properties of `change` set; `null` takes one away.
fn task(change: Value) -> Value {
    let mut task = json!({
        "resourceType": "Task", "status": "ready", "intent": "order",
        "input": [{"type": {"text": "a"}, "valueString": "b"}],
    });
    for (name, value) in change.as_object().unwrap() {
        if value.is_null() {
            task.as_object_mut().unwrap().remove(name);
        } else {
            task[name.as_str()] = value.clone();
        }
    }
    task
}

fn check(value: &Value, code: IssueType, place: &str) {
    let found = issues(value.to_string().as_bytes());
    let fits = |i: &Issue| i.code == code && i.expression.as_deref() == Some(place);
    assert!(
        found.iter().any(fits),
        "{place} {code:?} expected for {value}: {found:#?}"
    );
}

#[test]
fn the_unchanged_task_is_taken() {
    assert_eq!(issues(task(json!({})).to_string().as_bytes()), []);
}

#[test]
fn structure_is_checked_element_by_element() {
    use IssueType::{Required, Structure};
    for (change, code, place) in [
        (json!({"resourceType": null}), Structure, "resourceType"),
        (json!({"resourceType": "Tusk"}), Structure, "resourceType"),
        (
            json!({"resourceType": "DomainResource"}),
            Structure,
            "resourceType",
        ),
        (json!({"resourceType": "Period"}), Structure, "resourceType"),
        (json!({"resourceType": 1}), Structure, "resourceType"),
        (json!({"status": null}), Required, "Task.status"),
        (
            json!({"input": [{"valueString": "b"}]}),
            Required,
            "Task.input[0].type",
        ),
        (
            json!({"input": [{"type": {"text": "a"}}]}),
            Required,
            "Task.input[0].value",
        ),
        (json!({"nonsense": 1}), Structure, "Task"),
        (json!({"_nonsense": {}}), Structure, "Task"),
        (json!({"_focus": {"id": "a"}}), Structure, "Task"),
        (json!({"_id": {"id": "a"}}), Structure, "Task"),
        (json!({"fhir_comments": ["a"]}), Structure, "Task"),
        (json!({"$serde_json::private::Number": "1"}), Structure, "Task"),
        (json!({"$serde_json::private::RawValue": "1"}), Structure, "Task"),
        (json!({"for": {"referense": "a"}}), Structure, "Task.for"),
        (json!({"identifier": []}), Structure, "Task.identifier"),
        (json!({"for": {}}), Structure, "Task.for"),
        (json!({"input": [{}]}), Structure, "Task.input[0]"),
        (json!({"description": ""}), Structure, "Task.description"),
        (
            json!({"identifier": {"value": "a"}}),
            Structure,
            "Task.identifier",
        ),
        (
            json!({"for": [{"reference": "Patient/1"}]}),
            Structure,
            "Task.for",
        ),
        (json!({"for": "Patient/1"}), Structure, "Task.for"),
        (json!({"status": ["ready"]}), Structure, "Task.status"),
        (json!({"status": {"value": "ready"}}), Structure, "Task.status"),
        (json!({"status": true}), Structure, "Task.status"),
        (json!({"description": 5}), IssueType::Value, "Task.description"),
        (json!({"identifier": [null]}), Structure, "Task.identifier[0]"),
        (
            json!({"restriction": {"repetitions": "3"}}),
            Structure,
            "Task.restriction.repetitions",
        ),
        (
            json!({"restriction": {"repetitions": 1.5}}),
            IssueType::Value,
            "Task.restriction.repetitions",
        ),
        (
            json!({"input": [{"type": {"text": "a"}, "valueBoolean": "true"}]}),
            Structure,
            "Task.input[0].value",
        ),
        (
            json!({"input": [{"type": {"text": "a"}, "valueString": "b", "valueCode": "c"}]}),
            Structure,
            "Task.input[0].value",
        ),
        (
            json!({"input": [{"type": {"text": "a"}, "valueString": "b", "_valueCode": {"id": "c"}}]}),
            Structure,
            "Task.input[0].value",
        ),
        (
            json!({"input": [{"type": {"text": "a"}, "value": "b"}]}),
            Structure,
            "Task.input[0]",
        ),
        (json!({"_status": {}}), Structure, "Task.status"),
        (json!({"_status": "a"}), Structure, "Task.status"),
        (json!({"_status": {"value": "a"}}), Structure, "Task.status"),
    ] {
        check(&task(change), code, place);
    }
    let mut nulled = task(json!({}));
    nulled["description"] = Value::Null;
    check(&nulled, Structure, "Task.description");
}

#[test]
fn null_stands_only_where_its_companion_does() {
    let task = |header: Value, companion: Value| {
        let mut name = json!({"given": header});
        if !companion.is_null() {
            name["_given"] = companion;
        }
        json!({"resourceType": "Patient", "name": [name]})
    };
    let id = json!({"id": "a", "extension": [{"url": "http://x/e", "valueCode": "b"}]});
    assert_eq!(
        issues(task(json!(["a", null]), json!([null, id])).to_string().as_bytes()),
        []
    );
    assert_eq!(
        issues(
            json!({"resourceType": "Patient", "name": [{"_given": [id]}]})
                .to_string()
                .as_bytes()
        ),
        []
    );
    for (values, companion, place) in [
        (json!(["a", null]), Value::Null, "Patient.name[0].given[1]"),
        (json!(["a", null]), json!([id, null]), "Patient.name[0].given[1]"),
        (json!(["a"]), json!([id, id]), "Patient.name[0].given"),
        (json!(["a"]), id.clone(), "Patient.name[0].given"),
        (json!(["a"]), json!([]), "Patient.name[0].given"),
        (json!("a"), json!([id]), "Patient.name[0].given"),
    ] {
        check(&task(values, companion), IssueType::Structure, place);
    }
}

#[test]
fn formats_and_codes_are_checked() {
    use IssueType::{CodeInvalid, Invalid, TooLong, Value as Bad};
    for (change, code, place) in [
        (json!({"id": "a b"}), Bad, "Task.id"),
        (json!({"id": "x".repeat(65)}), Bad, "Task.id"),
        (json!({"status": "done"}), CodeInvalid, "Task.status"),
        (json!({"intent": "directive"}), CodeInvalid, "Task.intent"),
        (json!({"priority": "Urgent"}), CodeInvalid, "Task.priority"),
        (json!({"status": " ready"}), Bad, "Task.status"),
        (json!({"authoredOn": "2026-02-30"}), Bad, "Task.authoredOn"),
        (
            json!({"authoredOn": "2026-03-01T12:00:00"}),
            Bad,
            "Task.authoredOn",
        ),
        (
            json!({"meta": {"lastUpdated": "2026-03-01"}}),
            Bad,
            "Task.meta.lastUpdated",
        ),
        (json!({"instantiatesUri": "a b"}), Bad, "Task.instantiatesUri"),
        (json!({"description": "a\u{0}b"}), Bad, "Task.description"),
        (json!({"description": "a\u{b}b"}), Bad, "Task.description"),
        (
            json!({"description": "a".repeat(1024 * 1024 + 1)}),
            TooLong,
            "Task.description",
        ),
        (
            json!({"extension": [{"url": "http://x/e", "valueBase64Binary": "a-_b"}]}),
            Bad,
            "Task.extension[0].value",
        ),
        (
            json!({"extension": [{"url": "http://x/e", "valueDecimal": "1"}]}),
            IssueType::Structure,
            "Task.extension[0].value",
        ),
        (
            json!({"restriction": {"repetitions": 0}}),
            Bad,
            "Task.restriction.repetitions",
        ),
        (
            json!({"identifier": [{"use": "best"}]}),
            CodeInvalid,
            "Task.identifier[0].use",
        ),
        (
            json!({"text": {"status": "generated", "div": "<div xmlns=\"http://www.w3.org/1999/xhtml\"><script>x</script></div>"}}),
            Invalid,
            "Task.text.div",
        ),
        (
            json!({"text": {"status": "generated", "div": "<p>a</p>"}}),
            Invalid,
            "Task.text.div",
        ),
        (
            json!({"text": {"status": "generated"}}),
            IssueType::Required,
            "Task.text.div",
        ),
    ] {
        check(&task(change), code, place);
    }
    let big = br#"{"resourceType":"Basic","code":{"text":"a"},"extension":[{"url":"http://x/e","valueDecimal":1e999999999}]}"#;
    assert_eq!(
        issues(big)[0].expression.as_deref(),
        Some("Basic.extension[0].value")
    );
}

#[test]
fn references_are_checked_for_form_and_target() {
    for (change, place) in [
        (json!({"for": {"reference": "Patient"}}), "Task.for.reference"),
        (json!({"for": {"reference": "Patients/1"}}), "Task.for.reference"),
        (
            json!({"for": {"reference": "urn:uuid:123"}}),
            "Task.for.reference",
        ),
        (json!({"for": {"reference": "Patient?"}}), "Task.for.reference"),
        (
            json!({"for": {"reference": "ftp://x/Patient/1"}}),
            "Task.for.reference",
        ),
        (
            json!({"owner": {"reference": "Observation/1"}}),
            "Task.owner.reference",
        ),
        (
            json!({"owner": {"reference": "http://x/fhir/Observation/1"}}),
            "Task.owner.reference",
        ),
        (
            json!({"owner": {"reference": "Observation?code=a"}}),
            "Task.owner.reference",
        ),
        (
            json!({"owner": {"type": "Observation", "display": "x"}}),
            "Task.owner.type",
        ),
        (
            json!({"owner": {"type": "Patient", "reference": "Practitioner/1"}}),
            "Task.owner.type",
        ),
        (
            json!({"partOf": [{"reference": "Task/1"}, {"reference": "Patient/1"}]}),
            "Task.partOf[1].reference",
        ),
        (
            json!({"owner": {"reference": "#a"}, "contained": [{"resourceType": "Basic", "id": "a", "code": {"text": "x"}}]}),
            "Task.owner.reference",
        ),
    ] {
        check(&task(change), IssueType::Value, place);
    }
    check(
        &task(json!({"owner": {"reference": "#a"}})),
        IssueType::Invariant,
        "Task.owner.reference",
    );
}

#[test]
fn invariants_are_checked() {
    use IssueType::Invariant;
    let inner = json!({"resourceType": "Basic", "id": "a", "code": {"text": "x"}});
    let with = |name: &str, value: Value| {
        let mut basic = inner.clone();
        basic[name] = value;
        json!({"contained": [basic]})
    };
    for (change, place) in [
        (
            json!({"authoredOn": "2026-03-02", "lastModified": "2026-03-01T12:00:00Z"}),
            "Task.lastModified",
        ),
        (
            json!({"executionPeriod": {"start": "2026-03-02", "end": "2026-03-01"}}),
            "Task.executionPeriod",
        ),
        (json!({"extension": [{"url": "http://x/e"}]}), "Task.extension[0]"),
        (
            json!({"extension": [{"url": "http://x/e", "valueCode": "a", "extension": [{"url": "b", "valueCode": "c"}]}]}),
            "Task.extension[0]",
        ),
        (
            json!({"input": [{"type": {"text": "a"}, "valueAttachment": {"data": "AAAA"}}]}),
            "Task.input[0].value.contentType",
        ),
        (
            json!({"input": [{"type": {"text": "a"}, "valueQuantity": {"code": "mg"}}]}),
            "Task.input[0].value.system",
        ),
        (
            json!({"input": [{"type": {"text": "a"}, "valueContactPoint": {"value": "1"}}]}),
            "Task.input[0].value.system",
        ),
        (
            json!({"contained": [{"resourceType": "Basic", "code": {"text": "x"}}]}),
            "Task.contained[0].id",
        ),
        (json!({"contained": [inner, inner]}), "Task.contained[1].id"),
        (
            with(
                "contained",
                json!([{"resourceType": "Basic", "id": "b", "code": {"text": "x"}}]),
            ),
            "Task.contained[0].contained",
        ),
        (
            with("meta", json!({"versionId": "1"})),
            "Task.contained[0].meta.versionId",
        ),
        (
            with("meta", json!({"security": [{"code": "R"}]})),
            "Task.contained[0].meta.security",
        ),
    ] {
        check(&task(change), Invariant, place);
    }
    check(
        &task(json!({"input": [{"type": {"text": "a"}, "valueAttachment": {"contentType": "pdf\r\nX: y"}}]})),
        IssueType::Value,
        "Task.input[0].value.contentType",
    );
    for (parameter, place) in [
        (json!({"name": "a"}), "Parameters.parameter[0]"),
        (
            json!({"name": "a", "valueString": "b", "part": [{"name": "c", "valueString": "d"}]}),
            "Parameters.parameter[0]",
        ),
    ] {
        check(
            &json!({"resourceType": "Parameters", "parameter": [parameter]}),
            Invariant,
            place,
        );
    }
}

#[test]
fn a_bundles_rules_are_checked() {
    let get = json!({"request": {"method": "GET", "url": "Task/1"}});
    let patient = json!({"resourceType": "Patient", "active": true});
    let put = |url: &str| json!({"fullUrl": url, "resource": patient, "request": {"method": "PUT", "url": "Patient/1"}});
    for (kind, extra, entries, place) in [
        ("batch", json!({"total": 1}), json!([get]), "Bundle.total"),
        (
            "batch",
            json!({}),
            json!([{"request": {"method": "GET", "url": "a"}, "search": {"mode": "match"}}]),
            "Bundle.entry[0].search",
        ),
        (
            "transaction",
            json!({}),
            json!([get, {"resource": patient}]),
            "Bundle.entry[1].request",
        ),
        ("searchset", json!({}), json!([get]), "Bundle.entry[0].request"),
        ("history", json!({}), json!([get]), "Bundle.entry[0].response"),
        (
            "batch",
            json!({}),
            json!([{"request": {"method": "GET", "url": "a"}, "response": {"status": "200"}}]),
            "Bundle.entry[0].response",
        ),
        (
            "collection",
            json!({}),
            json!([{"fullUrl": "http://x/Patient/1"}]),
            "Bundle.entry[0].resource",
        ),
        (
            "transaction",
            json!({}),
            json!([put("http://x/Patient/1"), put("http://x/Patient/1")]),
            "Bundle.entry[1].fullUrl",
        ),
        (
            "transaction",
            json!({}),
            json!([put("http://x/Patient/1/_history/1")]),
            "Bundle.entry[0].fullUrl",
        ),
    ] {
        let mut bundle = json!({"resourceType": "Bundle", "type": kind, "entry": entries});
        for (name, value) in extra.as_object().unwrap() {
            bundle[name.as_str()] = value.clone();
        }
        check(&bundle, IssueType::Invariant, place);
    }
    let inside = json!({"resourceType": "Bundle", "type": "batch", "entry": [{"request": {"method": "POST", "url": "Task"},
        "resource": {"resourceType": "Task", "status": "ready", "intent": "order", "input": [{"type": {"text": "a"}}]}}]});
    check(
        &inside,
        IssueType::Required,
        "Bundle.entry[0].resource.input[0].value",
    );
    let mut wrong = inside;
    wrong["entry"][0]["request"]["method"] = json!("FETCH");
    check(&wrong, IssueType::CodeInvalid, "Bundle.entry[0].request.method");
}

#[test]
fn text_that_is_not_strict_json_is_refused() {
    let good = task(json!({})).to_string();
    let deep = format!(
        "{}{}",
        r#"{"resourceType":"Basic","extension":[{"#.repeat(40),
        "}]}".repeat(40)
    );
    for bad in [
        String::new(),
        "null".to_owned(),
        "[]".to_owned(),
        "\"a\"".to_owned(),
        format!("{good}x"),
        format!("{good}{good}"),
        good.replacen(
            "\"status\":\"ready\"",
            "\"status\":\"ready\",\"status\":\"ready\"",
            1,
        ),
        good.replacen('}', "", 1),
        good.replacen("ready", "rea\\u0000dy", 1),
        good.replacen("ready", "rea\\ud800dy", 1),
        deep,
        "[".repeat(500_000),
        "{\"a\":".repeat(500_000),
    ] {
        let found = issues(bad.as_bytes());
        assert!(!found.is_empty(), "{}", bad.chars().take(80).collect::<String>());
    }
    let mut cut = good.clone().into_bytes();
    for _ in 0..good.len() {
        cut.pop();
        assert!(!issues(&cut).is_empty());
    }
    let with_mark = [b"\xef\xbb\xbf".as_slice(), good.as_bytes()].concat();
    assert_eq!(issues(&with_mark), []);
    let utf16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(!issues(&utf16).is_empty());
    let twice = good.replacen("\"text\":\"a\"", "\"text\":\"a\",\"text\":\"b\"", 1);
    let options = ParseOptions::expecting("Task");
    let found = parse(twice.as_bytes(), &options).unwrap_err();
    assert_eq!(found[0].expression.as_deref(), Some("Task.input[0].type.text"));
}

#[test]
fn everything_wrong_is_told_at_once_up_to_a_limit() {
    let wrong =
        task(json!({"status": "done", "intent": null, "priority": "high", "for": {"reference": "x"}}));
    assert_eq!(issues(wrong.to_string().as_bytes()).len(), 4);
    let many: Vec<Value> = (0..500).map(|_| json!({"use": "best"})).collect();
    let many = task(json!({ "identifier": many }));
    assert_eq!(issues(many.to_string().as_bytes()).len(), 50);
}

#[test]
fn no_issue_repeats_what_was_sent() {
    const SECRET: &str = "Zaphod Beeblebrox";
    let key = "Zaphod-Beeblebrox-42";
    for wrong in [
        task(json!({"status": SECRET, "id": SECRET, "authoredOn": SECRET, "for": {"reference": SECRET}})),
        task(
            json!({"text": {"status": SECRET, "div": SECRET}, "identifier": [{"use": SECRET, "period": {"start": SECRET}}]}),
        ),
        task(json!({key: SECRET, "restriction": {"repetitions": SECRET}, "owner": {"type": SECRET}})),
        task(json!({"resourceType": SECRET})),
        json!({"resourceType": "Basic", "code": {"text": SECRET, key: {key: SECRET}}}),
    ] {
        for text in [
            wrong.to_string(),
            format!("{wrong}{SECRET}"),
            wrong.to_string().replace(':', ": :"),
        ] {
            let found = issues(text.as_bytes());
            assert!(!found.is_empty());
            let told = format!("{found:?}").to_lowercase();
            assert!(!told.contains("zaphod") && !told.contains("beeblebrox"), "{told}");
        }
    }
}
