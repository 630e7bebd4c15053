//! What a Task, DocumentReference or Subscription is found by: the values of each search parameter (R4 search page; DESIGN adds
//! `-due` and `-recipient`). Knows which element a parameter looks at; nothing of queries or tables.

use handoff_domain::Timestamp;
use handoff_domain::ports::{Kind, SearchIndex};
use serde_json::Value;

use crate::dates;
use crate::facts::{items, text};
use crate::references::Target;
use crate::resource::Resource;

/// How much of a text the index keeps: searches are by its start.
const INDEXED_TEXT: usize = 256;

const TASK_STATUS: &str = status_system(Kind::Task);
const TASK_INTENT: &str = "http://hl7.org/fhir/task-intent";
const REQUEST_INTENT: &str = "http://hl7.org/fhir/request-intent";
const REQUEST_PRIORITY: &str = "http://hl7.org/fhir/request-priority";
const DOCUMENT_STATUS: &str = status_system(Kind::Document);
const SUBSCRIPTION_STATUS: &str = status_system(Kind::Subscription);
const SUBSCRIPTION_CHANNEL: &str = "http://hl7.org/fhir/subscription-channel-type";
const RELATION: &str = "http://hl7.org/fhir/document-relationship-type";
const MEDIA_TYPES: &str = "urn:ietf:bcp:13";
const LANGUAGES: &str = "urn:ietf:bcp:47";

/// The code system of a kind's `status`.
const fn status_system(kind: Kind) -> &'static str {
    match kind.status_system() {
        Some(system) => system,
        None => "",
    }
}

/// The search values of a resource; `base` is this server's FHIR base, taken off references to itself.
pub fn search_index(resource: &Resource, base: &str) -> SearchIndex {
    let mut index = Indexer {
        base: base.trim_end_matches('/'),
        index: SearchIndex::default(),
    };
    let value = resource.value();
    index.common(value);
    match resource.type_name() {
        "Task" => index.task(value),
        "DocumentReference" => index.document(value),
        "Subscription" => index.subscription(value),
        _ => {}
    }
    let mut index = index.index;
    index.tokens.sort_unstable();
    index.tokens.dedup();
    index.references.sort_unstable();
    index.references.dedup();
    index
}

/// Text as it is compared: lower case, without accents, white space evened out.
pub fn fold(written: &str) -> String {
    let mut out = String::with_capacity(written.len());
    for c in written.chars().flat_map(char::to_lowercase) {
        match c {
            // Combining accents.
            '\u{300}'..='\u{36f}' => {}
            c if c.is_whitespace() => {
                if !out.is_empty() && !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            c => match plain(c) {
                Some(letters) => out.push_str(letters),
                None => out.push(c),
            },
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// The letters without accent of Latin ones with.
const fn plain(c: char) -> Option<&'static str> {
    Some(match c {
        'à'..='å' | 'ā' | 'ă' | 'ą' => "a",
        'æ' => "ae",
        'ç' | 'ć' | 'ĉ' | 'ċ' | 'č' => "c",
        'ď' | 'đ' | 'ð' => "d",
        'è'..='ë' | 'ē' | 'ĕ' | 'ė' | 'ę' | 'ě' => "e",
        'ĝ' | 'ğ' | 'ġ' | 'ģ' => "g",
        'ĥ' | 'ħ' => "h",
        'ì'..='ï' | 'ĩ' | 'ī' | 'ĭ' | 'į' | 'ı' => "i",
        'ĵ' => "j",
        'ķ' => "k",
        'ĺ' | 'ļ' | 'ľ' | 'ł' => "l",
        'ñ' | 'ń' | 'ņ' | 'ň' => "n",
        'ò'..='ö' | 'ø' | 'ō' | 'ŏ' | 'ő' => "o",
        'œ' => "oe",
        'ŕ' | 'ŗ' | 'ř' => "r",
        'ś' | 'ŝ' | 'ş' | 'š' | 'ș' => "s",
        'ß' => "ss",
        'ţ' | 'ť' | 'ț' => "t",
        'ù'..='ü' | 'ũ' | 'ū' | 'ŭ' | 'ů' | 'ű' | 'ų' => "u",
        'ŵ' => "w",
        'ý' | 'ÿ' | 'ŷ' => "y",
        'ź' | 'ż' | 'ž' => "z",
        _ => return None,
    })
}

struct Indexer<'a> {
    base: &'a str,
    index: SearchIndex,
}

impl Indexer<'_> {
    fn common(&mut self, value: &Value) {
        let Some(meta) = value.get("meta") else { return };
        for tag in items(meta, "tag") {
            self.coding("_tag", tag);
        }
        for label in items(meta, "security") {
            self.coding("_security", label);
        }
        for profile in items(meta, "profile").filter_map(Value::as_str) {
            self.uri("_profile", profile);
        }
        if let Some(source) = text(meta, &["source"]) {
            self.uri("_source", source);
        }
    }

    fn subscription(&mut self, subscription: &Value) {
        for contact in items(subscription, "contact") {
            self.code(
                "contact",
                text(contact, &["system"]).unwrap_or_default(),
                text(contact, &["value"]),
            );
        }
        if let Some(criteria) = text(subscription, &["criteria"]) {
            let folded = fold(criteria).chars().take(INDEXED_TEXT).collect();
            self.index.strings.push(("criteria".to_owned(), folded));
        }
        self.code("status", SUBSCRIPTION_STATUS, text(subscription, &["status"]));
        self.code(
            "type",
            SUBSCRIPTION_CHANNEL,
            text(subscription, &["channel", "type"]),
        );
        self.code(
            "payload",
            MEDIA_TYPES,
            text(subscription, &["channel", "payload"]),
        );
        if let Some(url) = text(subscription, &["channel", "endpoint"]) {
            self.uri("url", url);
        }
    }

    fn task(&mut self, task: &Value) {
        self.date("authored-on", text(task, &["authoredOn"]));
        self.date("modified", text(task, &["lastModified"]));
        self.period("period", task.get("executionPeriod"));
        self.concept("business-status", task.get("businessStatus"));
        self.concept("code", task.get("code"));
        self.code("status", TASK_STATUS, text(task, &["status"]));
        let intent = text(task, &["intent"]);
        self.code(
            "intent",
            if intent == Some("unknown") {
                TASK_INTENT
            } else {
                REQUEST_INTENT
            },
            intent,
        );
        self.code("priority", REQUEST_PRIORITY, text(task, &["priority"]));
        for kind in items(task, "performerType") {
            self.concept("performer", Some(kind));
        }
        self.identifier("group-identifier", task.get("groupIdentifier"));
        for identifier in items(task, "identifier") {
            self.identifier("identifier", Some(identifier));
        }
        for (name, element) in [
            ("encounter", "encounter"),
            ("focus", "focus"),
            ("owner", "owner"),
            ("requester", "requester"),
        ] {
            self.reference(name, task.get(element));
        }
        self.subject(task.get("for"));
        for (name, element) in [("based-on", "basedOn"), ("part-of", "partOf")] {
            for reference in items(task, element) {
                self.reference(name, Some(reference));
            }
        }
        if let Some(restriction) = task.get("restriction") {
            self.date("-due", text(restriction, &["period", "end"]));
            for recipient in items(restriction, "recipient") {
                self.reference("-recipient", Some(recipient));
            }
        }
    }

    fn document(&mut self, document: &Value) {
        self.reference("authenticator", document.get("authenticator"));
        self.reference("custodian", document.get("custodian"));
        self.subject(document.get("subject"));
        for author in items(document, "author") {
            self.reference("author", Some(author));
        }
        for category in items(document, "category") {
            self.concept("category", Some(category));
        }
        for label in items(document, "securityLabel") {
            self.concept("security-label", Some(label));
        }
        self.concept("type", document.get("type"));
        self.code("status", DOCUMENT_STATUS, text(document, &["status"]));
        self.date("date", text(document, &["date"]));
        if let Some(description) = text(document, &["description"]) {
            self.string("description", description);
        }
        self.identifier("identifier", document.get("masterIdentifier"));
        for identifier in items(document, "identifier") {
            self.identifier("identifier", Some(identifier));
        }
        for relation in items(document, "relatesTo") {
            self.code("relation", RELATION, text(relation, &["code"]));
            self.reference("relatesto", relation.get("target"));
        }
        for content in items(document, "content") {
            self.code(
                "contenttype",
                MEDIA_TYPES,
                text(content, &["attachment", "contentType"]),
            );
            self.code("language", LANGUAGES, text(content, &["attachment", "language"]));
            if let Some(url) = text(content, &["attachment", "url"]) {
                self.uri("location", url);
            }
            if let Some(format) = content.get("format") {
                self.coding("format", format);
            }
        }
        let Some(context) = document.get("context") else {
            return;
        };
        self.concept("facility", context.get("facilityType"));
        self.concept("setting", context.get("practiceSetting"));
        self.period("period", context.get("period"));
        for event in items(context, "event") {
            self.concept("event", Some(event));
        }
        for (name, element) in [("encounter", "encounter"), ("related", "related")] {
            for reference in items(context, element) {
                self.reference(name, Some(reference));
            }
        }
    }

    /// `subject`, and `patient` where it is one.
    fn subject(&mut self, reference: Option<&Value>) {
        self.reference("subject", reference);
        let written = reference.and_then(|r| text(r, &["reference"]));
        let stated = reference.and_then(|r| text(r, &["type"]));
        let kind = written
            .and_then(Target::parse)
            .and_then(|target| target.kind())
            .or(stated);
        if kind == Some("Patient") {
            self.reference("patient", reference);
        }
    }

    fn reference(&mut self, name: &str, reference: Option<&Value>) {
        let Some(written) = reference.and_then(|r| text(r, &["reference"])) else {
            return;
        };
        let own = written
            .strip_prefix(self.base)
            .and_then(|rest| rest.strip_prefix('/'));
        let local = own.filter(|_| !self.base.is_empty()).unwrap_or(written);
        let target = match Target::parse(local) {
            // What a contained resource is found by, is not asked of the one that contains it.
            Some(Target::Contained(_)) => return,
            Some(Target::Relative { kind, id, .. }) => format!("{kind}/{id}"),
            _ => local.to_owned(),
        };
        self.index.references.push((name.to_owned(), target));
    }

    fn token(&mut self, name: &str, system: &str, code: &str) {
        self.index
            .tokens
            .push((name.to_owned(), system.to_owned(), code.to_owned()));
    }

    fn code(&mut self, name: &str, system: &str, code: Option<&str>) {
        if let Some(code) = code {
            self.token(name, system, code);
        }
    }

    fn coding(&mut self, name: &str, coding: &Value) {
        self.code(
            name,
            text(coding, &["system"]).unwrap_or_default(),
            text(coding, &["code"]),
        );
    }

    fn concept(&mut self, name: &str, concept: Option<&Value>) {
        for coding in concept.into_iter().flat_map(|c| items(c, "coding")) {
            self.coding(name, coding);
        }
    }

    fn identifier(&mut self, name: &str, identifier: Option<&Value>) {
        let Some(identifier) = identifier else { return };
        self.code(
            name,
            text(identifier, &["system"]).unwrap_or_default(),
            text(identifier, &["value"]),
        );
    }

    fn date(&mut self, name: &str, written: Option<&str>) {
        if let Some((from, until)) = written.and_then(dates::range) {
            self.index.dates.push((name.to_owned(), from, last(until)));
        }
    }

    /// A period; an end that is not given is open.
    fn period(&mut self, name: &str, period: Option<&Value>) {
        let Some(period) = period else { return };
        let bound = |end| text(period, &[end]).and_then(dates::range);
        let from = bound("start").map_or(Timestamp(i64::MIN), |(from, _)| from);
        let to = bound("end").map_or(Timestamp(i64::MAX), |(_, until)| last(until));
        self.index.dates.push((name.to_owned(), from, to));
    }

    fn string(&mut self, name: &str, written: &str) {
        let folded: String = fold(written).chars().take(INDEXED_TEXT).collect();
        self.index.strings.push((name.to_owned(), folded));
    }

    fn uri(&mut self, name: &str, written: &str) {
        self.index.strings.push((name.to_owned(), written.to_owned()));
    }
}

const fn last(until: Timestamp) -> Timestamp {
    Timestamp(until.0.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ParseOptions, parse};

    fn index(text: &str) -> SearchIndex {
        search_index(
            &parse(text.as_bytes(), &ParseOptions::default()).unwrap(),
            "https://here/fhir/",
        )
    }

    fn has_token(index: &SearchIndex, name: &str, system: &str, code: &str) -> bool {
        index
            .tokens
            .iter()
            .any(|(n, s, c)| (n.as_str(), s.as_str(), c.as_str()) == (name, system, code))
    }

    fn has_reference(index: &SearchIndex, name: &str, target: &str) -> bool {
        index.references.iter().any(|(n, t)| n == name && t == target)
    }

    #[test]
    fn a_task_is_found_by_every_parameter_of_r4() {
        let index = index(
            r##"{"resourceType":"Task","meta":{"tag":[{"code":"t"}],"profile":["http://x/p"]},"status":"ready","intent":"order",
            "contained":[{"resourceType":"Encounter","id":"e","status":"planned","class":{"code":"AMB"}}],
            "priority":"urgent","identifier":[{"system":"http://i","value":"1"}],"groupIdentifier":{"value":"g"},
            "basedOn":[{"reference":"ServiceRequest/1"}],"partOf":[{"reference":"Task/0/_history/3"}],
            "businessStatus":{"coding":[{"system":"http://b","code":"accessed"}]},"code":{"coding":[{"code":"c"}]},
            "focus":{"reference":"https://here/fhir/DocumentReference/1"},"for":{"reference":"Patient/ada"},
            "encounter":{"reference":"#e"},"executionPeriod":{"start":"2026-03"},"authoredOn":"2026-03-01",
            "lastModified":"2026-03-02T00:00:00Z","requester":{"reference":"https://there/fhir/Organization/1"},
            "owner":{"reference":"Practitioner/lane"},"performerType":[{"coding":[{"system":"http://t","code":"cardiology"}]}],
            "restriction":{"period":{"end":"2026"},"recipient":[{"reference":"Patient/ada"}]}}"##,
        );
        for (name, system, code) in [
            ("_tag", "", "t"),
            ("status", TASK_STATUS, "ready"),
            ("intent", REQUEST_INTENT, "order"),
            ("priority", REQUEST_PRIORITY, "urgent"),
            ("identifier", "http://i", "1"),
            ("group-identifier", "", "g"),
            ("business-status", "http://b", "accessed"),
            ("code", "", "c"),
            ("performer", "http://t", "cardiology"),
        ] {
            assert!(has_token(&index, name, system, code), "{name}");
        }
        for (name, target) in [
            ("based-on", "ServiceRequest/1"),
            ("part-of", "Task/0"),
            ("focus", "DocumentReference/1"),
            ("subject", "Patient/ada"),
            ("patient", "Patient/ada"),
            ("requester", "https://there/fhir/Organization/1"),
            ("owner", "Practitioner/lane"),
            ("-recipient", "Patient/ada"),
        ] {
            assert!(has_reference(&index, name, target), "{name}");
        }
        assert!(
            !index.references.iter().any(|(name, _)| name == "encounter"),
            "contained resources are not indexed"
        );
        let dates: Vec<&str> = index.dates.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(dates, ["authored-on", "modified", "period", "-due"]);
        assert_eq!(index.dates[2].2, Timestamp(i64::MAX));
        assert_eq!(index.strings, [("_profile".to_owned(), "http://x/p".to_owned())]);
    }

    #[test]
    fn a_document_is_found_by_every_parameter_of_r4() {
        let index = index(
            r#"{"resourceType":"DocumentReference","status":"current","masterIdentifier":{"value":"m"},"identifier":[{"value":"i"}],
            "type":{"coding":[{"code":"t"}]},"category":[{"coding":[{"code":"c"}]}],"subject":{"reference":"Device/1"},
            "date":"2026-03-01T12:00:00Z","author":[{"reference":"Practitioner/1"}],"authenticator":{"reference":"Practitioner/2"},
            "custodian":{"reference":"Organization/1"},"relatesTo":[{"code":"replaces","target":{"reference":"DocumentReference/0"}}],
            "description":" Übergabe  Brief ","securityLabel":[{"coding":[{"code":"R"}]}],
            "content":[{"attachment":{"contentType":"application/pdf","language":"de","url":"Binary/1"},"format":{"code":"f"}}],
            "context":{"encounter":[{"reference":"Encounter/1"}],"event":[{"coding":[{"code":"e"}]}],"period":{"end":"2026"},
            "facilityType":{"coding":[{"code":"ft"}]},"practiceSetting":{"coding":[{"code":"ps"}]},"related":[{"reference":"Task/1"}]}}"#,
        );
        for (name, code) in [
            ("identifier", "m"),
            ("identifier", "i"),
            ("type", "t"),
            ("category", "c"),
            ("security-label", "R"),
            ("format", "f"),
            ("event", "e"),
            ("facility", "ft"),
            ("setting", "ps"),
        ] {
            assert!(has_token(&index, name, "", code), "{name}");
        }
        assert!(has_token(&index, "relation", RELATION, "replaces"));
        assert!(has_token(&index, "contenttype", MEDIA_TYPES, "application/pdf"));
        assert!(has_token(&index, "language", LANGUAGES, "de"));
        for (name, target) in [
            ("subject", "Device/1"),
            ("author", "Practitioner/1"),
            ("authenticator", "Practitioner/2"),
            ("custodian", "Organization/1"),
            ("relatesto", "DocumentReference/0"),
            ("encounter", "Encounter/1"),
            ("related", "Task/1"),
        ] {
            assert!(has_reference(&index, name, target), "{name}");
        }
        assert!(
            !index.references.iter().any(|(name, _)| name == "patient"),
            "a device is no patient"
        );
        let strings: Vec<(&str, &str)> = index
            .strings
            .iter()
            .map(|(n, t)| (n.as_str(), t.as_str()))
            .collect();
        assert_eq!(
            strings,
            [("description", "ubergabe brief"), ("location", "Binary/1")]
        );
        let dates: Vec<&str> = index.dates.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(dates, ["date", "period"]);
    }

    #[test]
    fn folding_ignores_case_and_accents() {
        for written in ["Jérôme", "JÉRÔME", "Je\u{301}ro\u{302}me", " jerome "] {
            assert_eq!(fold(written), "jerome");
        }
    }
}
