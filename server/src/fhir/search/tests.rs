//! What searches are understood as, and what their answers look like.

use handoff_domain::ports::{Filter, Found, Kind, Method, Sort, Version};
use handoff_domain::reason::Reason;
use handoff_domain::time::Timestamp;
use handoff_fhir_model::{ParseOptions, parse as parse_fhir, search_index};
use serde_json::Value;

use super::*;
use crate::app::Class;

const BASE: &str = "https://h.example/fhir/";

fn pairs(query: &[(&str, &str)]) -> Vec<(String, String)> {
    query
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect()
}

fn task(query: &[(&str, &str)]) -> Parsed {
    parse(Kind::Task, &pairs(query), false, BASE).unwrap()
}

fn refused(kind: Kind, name: &str, value: &str) -> AppError {
    let error = parse(kind, &pairs(&[(name, value)]), false, BASE).expect_err(name);
    assert_eq!(error.class, Class::Invalid, "{name}={value}");
    error
}

fn instant(text: &str) -> Timestamp {
    Timestamp::parse_instant(text).unwrap()
}

fn token(name: &str, any_of: &[(Option<&str>, Option<&str>)], negated: bool) -> Filter {
    let any_of = any_of
        .iter()
        .map(|(s, c)| (s.map(str::to_owned), c.map(str::to_owned)))
        .collect();
    Filter::Token {
        name: name.to_owned(),
        any_of,
        negated,
    }
}

fn reference(name: &str, any_of: &[&str]) -> Filter {
    Filter::Reference {
        name: name.to_owned(),
        any_of: any_of.iter().map(|t| (*t).to_owned()).collect(),
    }
}

fn text(name: &str, any_of: &[&str], exact: bool) -> Filter {
    Filter::Text {
        name: name.to_owned(),
        any_of: any_of.iter().map(|t| (*t).to_owned()).collect(),
        exact,
    }
}

#[test]
fn each_way_to_write_a_value_becomes_its_filter() {
    let cases: Vec<(&str, &str, Filter)> = vec![
        ("_id", "a,b", Filter::Id(vec!["a".to_owned(), "b".to_owned()])),
        (
            "status",
            "ready",
            token("status", &[(None, Some("ready"))], false),
        ),
        (
            "status",
            "ready,accepted",
            token(
                "status",
                &[(None, Some("ready")), (None, Some("accepted"))],
                false,
            ),
        ),
        (
            "status:not",
            "completed",
            token("status", &[(None, Some("completed"))], true),
        ),
        (
            "identifier",
            "urn:x|1",
            token("identifier", &[(Some("urn:x"), Some("1"))], false),
        ),
        (
            "identifier",
            "|1",
            token("identifier", &[(Some(""), Some("1"))], false),
        ),
        (
            "identifier",
            "urn:x|",
            token("identifier", &[(Some("urn:x"), None)], false),
        ),
        (
            "identifier",
            r"a\,b\|c\$d\\e",
            token("identifier", &[(None, Some(r"a,b|c$d\e"))], false),
        ),
        (
            "owner",
            "Practitioner/lane",
            reference("owner", &["Practitioner/lane"]),
        ),
        ("owner", "lane", reference("owner", &["*/lane"])),
        (
            "owner:Practitioner",
            "lane",
            reference("owner", &["Practitioner/lane"]),
        ),
        (
            "owner",
            "https://h.example/fhir/Practitioner/lane",
            reference("owner", &["Practitioner/lane"]),
        ),
        (
            "owner",
            "https://o.example/Practitioner/1",
            reference("owner", &["https://o.example/Practitioner/1"]),
        ),
        ("patient", "ada", reference("patient", &["Patient/ada"])),
        (
            "patient:Patient",
            "ada,ben",
            reference("patient", &["Patient/ada", "Patient/ben"]),
        ),
        ("part-of", "1", reference("part-of", &["Task/1"])),
        (
            "focus",
            "DocumentReference/1",
            reference("focus", &["DocumentReference/1"]),
        ),
        (
            "-recipient",
            "Patient/ada",
            reference("-recipient", &["Patient/ada"]),
        ),
        ("_tag", "t", token("_tag", &[(None, Some("t"))], false)),
        ("_profile", "http://x/p", text("_profile", &["http://x/p"], true)),
        (
            "owner:missing",
            "true",
            Filter::Missing {
                name: "owner".to_owned(),
                missing: true,
            },
        ),
        (
            "-due:missing",
            "false",
            Filter::Missing {
                name: "-due".to_owned(),
                missing: false,
            },
        ),
    ];
    for (name, value, expected) in cases {
        assert_eq!(task(&[(name, value)]).query.filters, [expected], "{name}={value}");
    }
}

#[test]
fn texts_and_uris_of_documents_are_compared_as_the_index_holds_them() {
    let cases = [
        (
            "description",
            "Café  R\u{e9}port",
            text("description", &["cafe report"], false),
        ),
        ("description:exact", "A,B", text("description", &["a", "b"], true)),
        (
            "location",
            "https://h.example/fhir/Binary/1",
            text("location", &["Binary/1"], true),
        ),
        ("location", "Binary/1", text("location", &["Binary/1"], true)),
        (
            "contenttype",
            "application/pdf",
            token("contenttype", &[(None, Some("application/pdf"))], false),
        ),
        ("relatesto", "1", reference("relatesto", &["DocumentReference/1"])),
    ];
    for (name, value, expected) in cases {
        let parsed = parse(Kind::Document, &pairs(&[(name, value)]), true, BASE).unwrap();
        assert_eq!(parsed.query.filters, [expected], "{name}={value}");
    }
}

#[test]
fn a_date_is_the_range_of_its_precision_and_prefix() {
    let (from, until) = (instant("2026-03-01T00:00:00Z"), instant("2026-04-01T00:00:00Z"));
    let (first, last) = (Timestamp(i64::MIN), Timestamp(i64::MAX));
    let cases = [
        ("2026-03", vec![(from, until)]),
        ("eq2026-03", vec![(from, until)]),
        ("ne2026-03", vec![(first, from), (until, last)]),
        ("gt2026-03", vec![(until, last)]),
        ("sa2026-03", vec![(until, last)]),
        ("lt2026-03", vec![(first, from)]),
        ("eb2026-03", vec![(first, from)]),
        ("ge2026-03", vec![(from, last)]),
        ("le2026-03", vec![(first, until)]),
        ("ge2026-03,2026-03", vec![(from, last), (from, until)]),
        ("ge2026-03-01T00:00:00Z", vec![(from, last)]),
        ("ge2026-03-01T00:00", vec![(from, last)]),
        ("ge2026-03-01T02:00:00+02:00", vec![(from, last)]),
        ("ge2026-03-01T02:00:00 02:00", vec![(from, last)]),
    ];
    for (value, ranges) in cases {
        assert_eq!(
            task(&[("_lastUpdated", value)]).query.filters,
            [Filter::LastUpdated(ranges.clone())],
            "{value}"
        );
        let expected = Filter::Date {
            name: "modified".to_owned(),
            any_of: ranges,
        };
        assert_eq!(task(&[("modified", value)]).query.filters, [expected], "{value}");
    }
}

#[test]
fn what_cannot_be_done_is_refused_and_never_widened() {
    let not_supported = [
        ("patient.name", "ada"),
        ("patient:Patient.name", "ada"),
        ("_has:Provenance:target:agent", "x"),
        ("_include", "Task:focus"),
        ("_include:iterate", "Task:focus"),
        ("_revinclude", "Provenance:target"),
        ("_filter", "status eq ready"),
        ("_list", "1"),
        ("_contained", "true"),
        ("code:text", "x"),
        ("code:below", "x"),
        ("owner:identifier", "x|1"),
        ("status:exact", "ready"),
        ("modified:not", "2026"),
        ("_id:missing", "true"),
        ("modified", "ap2026"),
        ("focus", "Task/1/_history/2"),
        ("_sort", "status"),
        ("_sort", "-_id"),
        ("_sort", "_lastUpdated,_id"),
    ];
    for (name, value) in not_supported {
        assert_eq!(
            refused(Kind::Task, name, value).reason,
            Reason::NotSupported,
            "{name}={value}"
        );
    }
    assert!(parse(Kind::Binary, &[], false, BASE).is_err());
}

#[test]
fn malformed_values_are_refused() {
    let many = vec!["1"; 101].join(",");
    let long = "x".repeat(1025);
    for (name, value) in [
        ("status", ""),
        ("status", "ready,"),
        ("status", "|"),
        ("status", "a|b|c"),
        ("status", "a\0"),
        ("status", many.as_str()),
        ("status", long.as_str()),
        ("modified", "yesterday"),
        ("modified", "xx2026"),
        ("modified", "2026-13"),
        ("modified", "é026"),
        ("owner:missing", "maybe"),
        ("owner", "Practitioner/"),
        ("owner", "Nonsense/1"),
        ("owner", "#a"),
        ("patient", "Group/1"),
        ("patient:Group", "1"),
        ("_count", "-1"),
        ("_count", "x"),
        ("_count", ""),
        ("_total", "all"),
        ("_summary", "maybe"),
        ("_page", "AAAA"),
        ("_page", "not base64!"),
    ] {
        refused(Kind::Task, name, value);
    }
    let too_many: Vec<_> = (0..51)
        .map(|_| ("status".to_owned(), "ready".to_owned()))
        .collect();
    assert!(parse(Kind::Task, &too_many, false, BASE).is_err());
    assert!(
        parse(
            Kind::Task,
            &pairs(&[("_count", "1"), ("_count", "2")]),
            false,
            BASE
        )
        .is_err()
    );
}

#[test]
fn an_error_never_repeats_a_value_that_was_searched_for() {
    for (name, value) in [
        ("modified", "Lovelace"),
        ("owner", "Lovelace Ada"),
        ("_count", "Lovelace"),
    ] {
        assert!(!format!("{:?}", refused(Kind::Task, name, value)).contains("Lovelace"));
    }
}

#[test]
fn an_unknown_parameter_is_left_out_and_told_or_refused_where_strict() {
    let query = [
        ("status", "ready"),
        ("colour", "red"),
        ("_elements", "id"),
        ("_summary", "true"),
    ];
    let parsed = task(&query);
    assert_eq!(parsed.ignored, ["_elements", "_summary", "colour"]);
    assert_eq!(parsed.used, pairs(&[("status", "ready")]));
    for name in ["colour", "_elements"] {
        let error = parse(Kind::Task, &pairs(&[(name, "x")]), true, BASE).unwrap_err();
        assert_eq!(
            (error.class, error.reason),
            (Class::Invalid, Reason::NotSupported)
        );
        assert!(error.text.contains(name));
    }
}

#[test]
fn steering_parameters_set_order_size_and_count() {
    let plain = task(&[]);
    assert_eq!(
        (plain.query.limit, plain.query.sort, plain.query.total),
        (50, Sort::NewestFirst, false)
    );
    let counted = task(&[("_count", "9999"), ("_sort", "_id"), ("_total", "accurate")]);
    assert_eq!(
        (counted.query.limit, counted.query.sort, counted.query.total),
        (500, Sort::ById, true)
    );
    assert!(counted.used.contains(&("_count".to_owned(), "500".to_owned())));
    for only_count in [[("_count", "0")], [("_summary", "count")]] {
        let parsed = task(&only_count);
        assert_eq!((parsed.query.limit, parsed.query.total), (0, true));
    }
    assert_eq!(task(&[("_sort", "_lastUpdated")]).query.sort, Sort::OldestFirst);
    assert_eq!(task(&[("_count", "99999999999999999999")]).query.limit, 500);
}

/// Each parameter of the table finds what the index says of a resource that has a value for it.
#[test]
fn every_parameter_of_the_table_is_one_that_the_index_fills() {
    let task = r#"{"resourceType":"Task","meta":{"tag":[{"code":"t"}],"security":[{"code":"s"}],"profile":["http://x/p"],
        "source":"http://x/s"},"status":"ready","intent":"order","priority":"urgent","identifier":[{"value":"1"}],
        "groupIdentifier":{"value":"g"},"basedOn":[{"reference":"ServiceRequest/1"}],"partOf":[{"reference":"Task/0"}],
        "businessStatus":{"coding":[{"code":"a"}]},"code":{"coding":[{"code":"c"}]},
        "focus":{"reference":"DocumentReference/1"},"for":{"reference":"Patient/ada"},"encounter":{"reference":"Encounter/e"},
        "executionPeriod":{"start":"2026"},"authoredOn":"2026-03-01","lastModified":"2026-03-02T00:00:00Z",
        "requester":{"reference":"Organization/1"},"owner":{"reference":"Practitioner/lane"},
        "performerType":[{"coding":[{"code":"cardiology"}]}],
        "restriction":{"period":{"end":"2026"},"recipient":[{"reference":"Patient/ada"}]}}"#;
    let document = r#"{"resourceType":"DocumentReference","meta":{"tag":[{"code":"t"}],"security":[{"code":"s"}],
        "profile":["http://x/p"],"source":"http://x/s"},"status":"current","masterIdentifier":{"value":"1"},
        "type":{"coding":[{"code":"t"}]},"category":[{"coding":[{"code":"c"}]}],"subject":{"reference":"Patient/ada"},
        "date":"2026-03-01T00:00:00Z","author":[{"reference":"Practitioner/1"}],"authenticator":{"reference":"Practitioner/1"},
        "custodian":{"reference":"Organization/1"},"description":"d","securityLabel":[{"coding":[{"code":"R"}]}],
        "relatesTo":[{"code":"replaces","target":{"reference":"DocumentReference/0"}}],
        "content":[{"attachment":{"contentType":"application/pdf","language":"en","url":"Binary/1"},"format":{"code":"f"}}],
        "context":{"encounter":[{"reference":"Encounter/1"}],"event":[{"coding":[{"code":"e"}]}],"period":{"start":"2026"},
        "facilityType":{"coding":[{"code":"f"}]},"practiceSetting":{"coding":[{"code":"p"}]},
        "related":[{"reference":"ServiceRequest/1"}]}}"#;
    for (kind, text) in [(Kind::Task, task), (Kind::Document, document)] {
        let index = search_index(
            &parse_fhir(text.as_bytes(), &ParseOptions::default()).unwrap(),
            BASE,
        );
        for parameter in parameters::of(kind) {
            let name = parameter.name;
            let found = match parameter.values {
                Values::Id | Values::LastUpdated => true,
                Values::Token => index.tokens.iter().any(|(n, ..)| n == name),
                Values::Reference(None) => index.references.iter().any(|(n, _)| n == name),
                Values::Reference(Some(only)) => index
                    .references
                    .iter()
                    .any(|(n, t)| n == name && t.starts_with(&format!("{only}/"))),
                Values::Date => index.dates.iter().any(|(n, ..)| n == name),
                Values::Text | Values::Uri => index.strings.iter().any(|(n, _)| n == name),
            };
            assert!(found, "{} {name}", kind.as_str());
        }
    }
}

fn stored(id: &str, at: i64) -> (String, Timestamp, Vec<u8>) {
    let body = format!(r#"{{"resourceType":"Task","id":"{id}","status":"ready","intent":"order"}}"#);
    (id.to_owned(), Timestamp(at), body.into_bytes())
}

fn bundle(bytes: &[u8]) -> Value {
    parse_fhir(bytes, &ParseOptions::expecting("Bundle"))
        .unwrap()
        .into_value()
}

fn link<'b>(bundle: &'b Value, relation: &str) -> Option<&'b str> {
    bundle["link"]
        .as_array()?
        .iter()
        .find(|l| l["relation"] == relation)?["url"]
        .as_str()
}

fn query_of(url: &str) -> Vec<(String, String)> {
    url::Url::parse(url).unwrap().query_pairs().into_owned().collect()
}

#[test]
fn a_searchset_is_valid_and_its_next_link_continues_the_same_search() {
    let parsed = task(&[
        ("status", "ready"),
        ("identifier", "urn:x|a b&c"),
        ("_count", "2"),
        ("colour", "red"),
    ]);
    let found = Found {
        resources: vec![stored("b", 20), stored("a", 10)],
        more: true,
        total: Some(5),
    };
    let answer = bundle(&searchset(BASE, Kind::Task, &found, &parsed, Timestamp(0)));
    assert_eq!(answer["total"].to_string(), "5");
    assert_eq!(answer["entry"][1]["fullUrl"], "https://h.example/fhir/Task/a");
    assert_eq!(answer["entry"][1]["search"]["mode"], "match");
    let this = link(&answer, "self").unwrap();
    assert!(this.starts_with("https://h.example/fhir/Task?status=ready&"));
    assert_eq!(query_of(this), parsed.used);
    let next = link(&answer, "next").unwrap();
    let again = parse(Kind::Task, &query_of(next), true, BASE).unwrap();
    assert_eq!(again.query.after, Some((Timestamp(10), "a".to_owned())));
    assert_eq!(again.query.filters, parsed.query.filters);
    assert_eq!(again.used, parsed.used);
}

#[test]
fn a_cursor_is_of_one_search_only() {
    let parsed = task(&[("status", "ready")]);
    let found = Found {
        resources: vec![stored("a", 10)],
        more: true,
        total: None,
    };
    let answer = bundle(&searchset(BASE, Kind::Task, &found, &parsed, Timestamp(0)));
    let page = query_of(link(&answer, "next").unwrap()).pop().unwrap();
    let with = |query: &[(&str, &str)], kind| {
        let mut pairs = pairs(query);
        pairs.push(page.clone());
        parse(kind, &pairs, false, BASE)
    };
    assert!(with(&[("status", "ready")], Kind::Task).is_ok());
    assert!(with(&[("status", "ready"), ("_count", "7")], Kind::Task).is_ok());
    assert!(with(&[("status", "draft")], Kind::Task).is_err());
    assert!(with(&[("status", "ready"), ("_sort", "_id")], Kind::Task).is_err());
    assert!(with(&[], Kind::Task).is_err());
    assert!(with(&[("status", "ready")], Kind::Document).is_err());
}

#[test]
fn an_empty_result_has_no_entries_and_a_whole_one_says_its_total() {
    let parsed = task(&[]);
    let empty = bundle(&searchset(
        BASE,
        Kind::Task,
        &Found::default(),
        &parsed,
        Timestamp(0),
    ));
    assert!(empty.get("entry").is_none());
    assert_eq!(empty["total"].to_string(), "0");
    assert_eq!(link(&empty, "self"), Some("https://h.example/fhir/Task"));
    assert_eq!(link(&empty, "next"), None);
    let counted = task(&[("_summary", "count")]);
    let found = Found {
        total: Some(7),
        more: false,
        resources: Vec::new(),
    };
    assert_eq!(
        bundle(&searchset(BASE, Kind::Task, &found, &counted, Timestamp(0)))["total"].to_string(),
        "7"
    );
}

fn version(number: i64, method: Method) -> Version {
    let body = if method == Method::Delete {
        Vec::new()
    } else {
        stored("a", number).2
    };
    Version {
        version: number,
        last_updated: Timestamp(number),
        method,
        body,
    }
}

#[test]
fn a_history_is_valid_and_shows_a_deletion_without_its_resource() {
    let page = parse_history(&pairs(&[("_count", "2"), ("_since", "1970-01-01T00:00:00Z")])).unwrap();
    assert_eq!(
        (page.count, page.since, page.before),
        (2, Some(Timestamp(0)), None)
    );
    let versions = [version(3, Method::Delete), version(2, Method::Update)];
    let answer = bundle(&history_bundle(
        BASE,
        Kind::Task,
        "a",
        &versions,
        &page,
        true,
        Timestamp(0),
    ));
    let entry = &answer["entry"][0];
    assert_eq!(entry["request"]["method"], "DELETE");
    assert_eq!(entry["response"]["etag"], "W/\"3\"");
    assert!(entry.get("resource").is_none());
    assert_eq!(answer["entry"][1]["request"]["url"], "Task/a");
    let next = parse_history(&query_of(link(&answer, "next").unwrap())).unwrap();
    assert_eq!(
        (next.before, next.count, next.since),
        (Some(2), 2, Some(Timestamp(0)))
    );
    let rest = [version(1, Method::Create)];
    let answer = bundle(&history_bundle(
        BASE,
        Kind::Task,
        "a",
        &rest,
        &next,
        false,
        Timestamp(0),
    ));
    assert_eq!(answer["entry"][0]["request"]["url"], "Task");
    assert_eq!(link(&answer, "next"), None);
}

#[test]
fn a_history_refuses_what_would_change_its_meaning() {
    for (name, value) in [
        ("_since", "yesterday"),
        ("_at", "2026"),
        ("_list", "1"),
        ("_sort", "_id"),
        ("_page", "x"),
    ] {
        assert_eq!(
            parse_history(&pairs(&[(name, value)])).unwrap_err().class,
            Class::Invalid,
            "{name}"
        );
    }
    assert_eq!(parse_history(&pairs(&[("_count", "500")])).unwrap().count, 99);
}
