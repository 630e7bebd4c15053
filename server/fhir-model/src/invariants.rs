//! What several elements of one object must agree on: the R4 invariants that storing and running rely on.
//! Named by their keys in the specification, so that a sender can look them up.

use std::cmp::Ordering;
use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::check::Checker;
use crate::dates;
use crate::issue::IssueType::{Invariant, Value as BadValue};

type Object = Map<String, Value>;

/// The invariants of an object of the type `kind`.
pub(crate) fn object(check: &mut Checker<'_>, kind: &str, map: &Object) {
    match kind {
        "Attachment" => attachment(check, map),
        "AuditEvent.entity" => audit_entity(check, map),
        "Binary" => media_type(check, map),
        "Bundle" => bundle(check, map),
        "ContactPoint" => contact_point(check, map),
        "Extension" => extension(check, map),
        "Parameters.parameter" => parameter(check, map),
        "Period" => period(check, map),
        "Quantity" | "Age" | "Count" | "Distance" | "Duration" => quantity(check, map),
        "Task" => task(check, map),
        _ => {}
    }
}

/// What may not stand in a contained resource (dom-2, dom-4, dom-5), and the id it needs.
pub(crate) fn contained(check: &mut Checker<'_>, map: &Object) {
    if !map.contains_key("id") {
        check.report_child("id", Invariant, "a contained resource must have an id");
    }
    if map.contains_key("contained") {
        check.report_child(
            "contained",
            Invariant,
            "dom-2: a contained resource may not contain others",
        );
    }
    let meta = map.get("meta").and_then(Value::as_object);
    for (name, text) in [
        ("versionId", "dom-4: a contained resource has no version"),
        ("lastUpdated", "dom-4: a contained resource has no version"),
        ("security", "dom-5: a contained resource has no security label"),
    ] {
        if meta.is_some_and(|meta| meta.contains_key(name)) {
            check.report_child(&format!("meta.{name}"), Invariant, text);
        }
    }
}

fn text<'a>(map: &'a Object, name: &str) -> Option<&'a str> {
    map.get(name).and_then(Value::as_str)
}

/// Whether a primitive is there, with a value or with extensions alone.
fn given(map: &Object, name: &str) -> bool {
    map.contains_key(name) || map.contains_key(&format!("_{name}"))
}

fn attachment(check: &mut Checker<'_>, map: &Object) {
    if given(map, "data") && !given(map, "contentType") {
        check.report_child("contentType", Invariant, "att-1: data needs a content type");
    }
    media_type(check, map);
}

/// `contentType` becomes an HTTP header, so it must be a media type (RFC 9110, section 8.3.1).
fn media_type(check: &mut Checker<'_>, map: &Object) {
    let token = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    let fine = |written: &str| {
        let (essence, parameters) = written.split_once(';').unwrap_or((written, ""));
        let named = essence
            .trim()
            .split_once('/')
            .is_some_and(|(kind, sub)| token(kind) && token(sub));
        named && parameters.bytes().all(|b| (b' '..=b'~').contains(&b))
    };
    if text(map, "contentType").is_some_and(|written| !fine(written)) {
        check.report_child(
            "contentType",
            BadValue,
            "a media type as `application/pdf` is expected",
        );
    }
}

fn audit_entity(check: &mut Checker<'_>, map: &Object) {
    if given(map, "name") && given(map, "query") {
        check.report(Invariant, "sev-1: either a name or a query, not both");
    }
}

fn contact_point(check: &mut Checker<'_>, map: &Object) {
    if given(map, "value") && !given(map, "system") {
        check.report_child("system", Invariant, "cpt-2: a value needs a system");
    }
}

fn extension(check: &mut Checker<'_>, map: &Object) {
    let value = map
        .keys()
        .any(|key| key.trim_start_matches('_').starts_with("value"));
    if value == map.contains_key("extension") {
        check.report(Invariant, "ext-1: an extension has either a value or extensions");
    }
}

fn parameter(check: &mut Checker<'_>, map: &Object) {
    let value = map
        .keys()
        .any(|key| key.trim_start_matches('_').starts_with("value"));
    let count = [value, map.contains_key("resource"), map.contains_key("part")]
        .into_iter()
        .filter(|x| *x)
        .count();
    if count != 1 {
        check.report(
            Invariant,
            "inv-1: a parameter has one of value, resource and part",
        );
    }
}

/// Whether `later` lies before `earlier`; what overlaps (`2026` and `2026-03`) does not.
fn is_before(later: Option<&str>, earlier: Option<&str>) -> bool {
    let (Some(later), Some(earlier)) = (later.and_then(dates::range), earlier.and_then(dates::range)) else {
        return false;
    };
    later.1.cmp(&earlier.0) != Ordering::Greater
}

fn period(check: &mut Checker<'_>, map: &Object) {
    if is_before(text(map, "end"), text(map, "start")) {
        check.report(
            Invariant,
            "per-1: the end of a period may not lie before its start",
        );
    }
}

fn task(check: &mut Checker<'_>, map: &Object) {
    if is_before(text(map, "lastModified"), text(map, "authoredOn")) {
        check.report_child(
            "lastModified",
            Invariant,
            "inv-1: last modified may not lie before authored on",
        );
    }
}

fn quantity(check: &mut Checker<'_>, map: &Object) {
    if given(map, "code") && !given(map, "system") {
        check.report_child("system", Invariant, "qty-3: a unit's code needs its system");
    }
}

fn bundle(check: &mut Checker<'_>, map: &Object) {
    let kind = text(map, "type").unwrap_or_default();
    if map.contains_key("total") && !matches!(kind, "searchset" | "history") {
        check.report_child(
            "total",
            Invariant,
            "bdl-1: a total only in a searchset or history",
        );
    }
    let needs_request = matches!(kind, "batch" | "transaction" | "history");
    let needs_response = matches!(kind, "batch-response" | "transaction-response" | "history");
    let entries = map
        .get("entry")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let mut identities: HashSet<(&str, Option<&str>)> = HashSet::new();
    for (index, entry) in entries.iter().enumerate() {
        let Some(entry) = entry.as_object() else { continue };
        let at = |child: &str| format!("entry[{index}].{child}");
        if entry.contains_key("search") && kind != "searchset" {
            check.report_child(&at("search"), Invariant, "bdl-2: search only in a searchset");
        }
        for (name, needed, missing, extra) in [
            (
                "request",
                needs_request,
                "bdl-3: an entry of a batch, transaction or history needs its request",
                "bdl-3: a request only in a batch, transaction or history",
            ),
            (
                "response",
                needs_response,
                "bdl-4: an entry of a batch or transaction response or history needs its response",
                "bdl-4: a response only in a batch or transaction response or history",
            ),
        ] {
            match (entry.contains_key(name), needed) {
                (false, true) => check.report_child(&at(name), Invariant, missing),
                (true, false) => check.report_child(&at(name), Invariant, extra),
                _ => {}
            }
        }
        let resource = entry.get("resource");
        if resource.is_none() && !entry.contains_key("request") && !entry.contains_key("response") {
            check.report_child(
                &at("resource"),
                Invariant,
                "bdl-5: an entry without request and response needs a resource",
            );
        }
        let Some(full_url) = text(entry, "fullUrl") else {
            continue;
        };
        if full_url.contains("/_history/") {
            check.report_child(&at("fullUrl"), Invariant, "bdl-8: a full URL names no version");
        }
        let version = resource.and_then(|r| r.get("meta")?.get("versionId")?.as_str());
        if kind != "history" && !identities.insert((full_url, version)) {
            check.report_child(
                &at("fullUrl"),
                Invariant,
                "bdl-7: another entry has the same full URL and version",
            );
        }
    }
}
