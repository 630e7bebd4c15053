//! A Bundle as a batch or transaction reads it: its type and its entries. Runs nothing.

use serde_json::Value;

use crate::issue::{Issue, IssueType};
use crate::resource::Resource;

/// A Bundle taken apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Bundle {
    /// `Bundle.type`.
    pub kind: String,
    /// `Bundle.entry`, in order.
    pub entries: Vec<Entry>,
}

/// `Bundle.entry`.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// `fullUrl`.
    pub full_url: Option<String>,
    /// `resource`.
    pub resource: Option<Resource>,
    /// `request`; always there in a batch, transaction or history.
    pub request: Option<Request>,
    /// `response.lastModified`: an instant.
    pub last_modified: Option<String>,
}

/// `Bundle.entry.request`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `method`: GET, HEAD, POST, PUT, DELETE or PATCH.
    pub method: String,
    /// `url`, as written: relative to the server's base.
    pub url: String,
    /// `ifMatch`.
    pub if_match: Option<String>,
    /// `ifNoneMatch`.
    pub if_none_match: Option<String>,
    /// `ifNoneExist`: a query.
    pub if_none_exist: Option<String>,
    /// `ifModifiedSince`: an instant.
    pub if_modified_since: Option<String>,
}

/// A Bundle's type and entries. Each method that carries a resource must, and no other may.
pub fn bundle(resource: Resource) -> Result<Bundle, Vec<Issue>> {
    if resource.type_name() != "Bundle" {
        return Err(vec![Issue::at(
            IssueType::Invalid,
            "resourceType",
            "a Bundle is expected",
        )]);
    }
    let Value::Object(mut map) = resource.into_value() else {
        return Err(vec![Issue::general(
            IssueType::Structure,
            "a resource is a JSON object",
        )]);
    };
    let kind = map
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let runs = matches!(kind.as_str(), "batch" | "transaction");
    let items = match map.remove("entry") {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    };
    let mut issues = Vec::new();
    let entries = items
        .into_iter()
        .enumerate()
        .map(|(index, item)| {
            let entry = entry(item);
            if let Some(request) = entry.request.as_ref().filter(|_| runs) {
                check(index, request, entry.resource.is_some(), &mut issues);
            }
            entry
        })
        .collect();
    if issues.is_empty() {
        Ok(Bundle { kind, entries })
    } else {
        Err(issues)
    }
}

fn entry(mut item: Value) -> Entry {
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let request = item.get("request").map(|request| Request {
        method: text(request, "method").unwrap_or_default(),
        url: text(request, "url").unwrap_or_default(),
        if_match: text(request, "ifMatch"),
        if_none_match: text(request, "ifNoneMatch"),
        if_none_exist: text(request, "ifNoneExist"),
        if_modified_since: text(request, "ifModifiedSince"),
    });
    Entry {
        last_modified: item
            .get("response")
            .and_then(|response| text(response, "lastModified")),
        full_url: text(&item, "fullUrl"),
        resource: item
            .get_mut("resource")
            .map(Value::take)
            .and_then(Resource::checked),
        request,
    }
}

fn check(index: usize, request: &Request, has_resource: bool, issues: &mut Vec<Issue>) {
    let at = |child: &str| format!("Bundle.entry[{index}].{child}");
    if request.method.is_empty() || request.url.is_empty() {
        issues.push(Issue::at(
            IssueType::Required,
            at("request"),
            "method and url must be given",
        ));
    }
    match (request.method.as_str(), has_resource) {
        ("POST" | "PUT" | "PATCH", false) => {
            issues.push(Issue::at(
                IssueType::Required,
                at("resource"),
                "this method needs a resource",
            ));
        }
        ("GET" | "HEAD" | "DELETE", true) => {
            issues.push(Issue::at(
                IssueType::Structure,
                at("resource"),
                "this method takes no resource",
            ));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ParseOptions, parse};

    fn read(text: &str) -> Result<Bundle, Vec<Issue>> {
        bundle(parse(text.as_bytes(), &ParseOptions::expecting("Bundle"))?)
    }

    #[test]
    fn a_transaction_is_taken_apart() {
        let bundle = read(
            r#"{"resourceType":"Bundle","type":"transaction","entry":[
            {"fullUrl":"urn:uuid:c757873d-ec9a-4326-a141-556f43239520","resource":{"resourceType":"Patient","active":true},
             "request":{"method":"POST","url":"Patient","ifNoneExist":"identifier=a"}},
            {"request":{"method":"DELETE","url":"Task/1","ifMatch":"W/\"2\""}}]}"#,
        )
        .unwrap();
        assert_eq!(bundle.kind, "transaction");
        let [post, delete] = bundle.entries.as_slice() else {
            panic!("two entries")
        };
        assert_eq!(post.resource.as_ref().unwrap().type_name(), "Patient");
        assert_eq!(
            post.request.as_ref().unwrap().if_none_exist.as_deref(),
            Some("identifier=a")
        );
        assert_eq!(
            delete.request.as_ref().unwrap().if_match.as_deref(),
            Some("W/\"2\"")
        );
    }

    #[test]
    fn a_method_and_its_resource_must_fit() {
        let issues = read(
            r#"{"resourceType":"Bundle","type":"batch","entry":[
            {"request":{"method":"POST","url":"Patient"}},
            {"resource":{"resourceType":"Patient","active":true},"request":{"method":"GET","url":"Patient/1"}}]}"#,
        )
        .unwrap_err();
        let at: Vec<_> = issues.iter().filter_map(|i| i.expression.as_deref()).collect();
        assert_eq!(at, ["Bundle.entry[0].resource", "Bundle.entry[1].resource"]);
    }

    #[test]
    fn an_error_inside_an_entry_is_located_from_the_bundle() {
        let issues = read(
            r#"{"resourceType":"Bundle","type":"batch","entry":[{"request":{"method":"POST","url":"Task"},
            "resource":{"resourceType":"Task","intent":"order"}}]}"#,
        )
        .unwrap_err();
        assert_eq!(
            issues[0].expression.as_deref(),
            Some("Bundle.entry[0].resource.status")
        );
    }
}
