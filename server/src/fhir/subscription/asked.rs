//! A Subscription resource to what it asks for, of both kinds: criteria of base R4, and topics of Subscriptions R5 Backport
//! 1.1.0. What would not be done is refused where it stands, and never accepted in silence.

use handoff_domain::ports::{Kind, Outbound, check_header};
use handoff_domain::subscription::{
    Channel, Criteria, Payload, Route, SubscriptionStatus, TOPICS, Trigger, topic_kind,
};
use handoff_domain::time::Timestamp;
use handoff_fhir_model::{Issue, IssueType, Resource};
use handoff_fhir_profiles::canonical::{EXT_SIGNING_SECRET, TOPIC};
use serde_json::Value;

use super::profile::{departures, is_backport};
use crate::app::AppError;
use crate::app::deliveries::MOST_IN_ONE;
use crate::app::subscription_form::REDACTED;
use crate::app::subscriptions::AskedFor;
use crate::fhir::resource::pairs_of;
use crate::fhir::search;

pub(super) const BACKPORT: &str = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/";

/// The most filters of one subscription, and headers.
const MOST_FILTERS: usize = 20;
const MOST_HEADERS: usize = 20;
/// The longest criteria or filter, in bytes.
const LONGEST_CRITERIA: usize = 2_000;
/// Seconds.
const HEARTBEATS: std::ops::RangeInclusive<u64> = 5..=86_400;
const TIMEOUTS: std::ops::RangeInclusive<u64> = 1..=60;
const USUAL_TIMEOUT: u32 = 15;

/// Problems found so far.
#[derive(Default)]
struct Problems(Vec<Issue>);

impl Problems {
    fn refuse(&mut self, place: &str, text: impl Into<String>) {
        self.0
            .push(Issue::at(IssueType::NotSupported, place, text.into().as_str()));
    }
}

/// What `resource` asks for; `base` is our FHIR base with its trailing slash, `outbound` knows which endpoints may be.
///
/// Fails with 422 and every problem in its place.
pub fn asked_for(resource: Resource, base: &str, outbound: &dyn Outbound) -> Result<AskedFor, AppError> {
    let mut problems = Problems::default();
    let value = resource.value();
    refuse_foreign_extensions(value, &mut problems);
    if resource.profiles().iter().any(|claimed| is_backport(claimed)) {
        problems.0.extend(departures(value));
    }
    let channel_value = value.get("channel").unwrap_or(&Value::Null);
    let payload = payload_of(channel_value, &mut problems);
    let criteria = criteria_of(value, payload, base, &mut problems);
    let route = route_of(channel_value, outbound, &mut problems);
    let media_type = media_type_of(channel_value, &mut problems);
    let headers = headers_of(channel_value, &mut problems);
    let whole = |name: &str, range: std::ops::RangeInclusive<u64>, problems: &mut Problems| {
        number_of(channel_value, name, range, problems)
    };
    let heartbeat = whole("backport-heartbeat-period", HEARTBEATS, &mut problems);
    let timeout = whole("backport-timeout", TIMEOUTS, &mut problems);
    let max_count = whole("backport-max-count", 1..=u64::from(u32::MAX), &mut problems);
    let end = value.get("end").and_then(Value::as_str).and_then(|text| {
        let parsed = Timestamp::parse_instant(text);
        if parsed.is_none() {
            problems.refuse("Subscription.end", "is no instant that is understood here");
        }
        parsed
    });
    if let Some(criteria) = &criteria {
        check_combination(
            criteria,
            route.as_ref(),
            payload,
            media_type.is_some(),
            heartbeat,
            &mut problems,
        );
        if matches!(route, Some(Route::WebSocket)) && !headers.is_empty() {
            problems.refuse("Subscription.channel.header", "a web socket has no headers");
        }
    }
    let status = value
        .get("status")
        .and_then(Value::as_str)
        .and_then(SubscriptionStatus::parse);
    match (criteria, route, status) {
        (Some(criteria), Some(route), Some(status)) if problems.0.is_empty() => {
            let payload = payload.unwrap_or(if media_type.is_some() {
                Payload::Resource
            } else {
                Payload::Bare
            });
            let bundles = payload.content().is_some();
            Ok(AskedFor {
                channel: Channel {
                    route,
                    media_type,
                    payload,
                    heartbeat,
                    timeout: timeout.unwrap_or(USUAL_TIMEOUT),
                    // Base R4 tells of one change at a time.
                    max_count: if bundles {
                        max_count.unwrap_or(1).min(MOST_IN_ONE)
                    } else {
                        1
                    },
                },
                resource,
                status,
                criteria,
                headers,
                end,
            })
        }
        _ => Err(AppError {
            reason: handoff_domain::reason::Reason::NotSupported,
            ..AppError::unprocessable(problems.0)
        }),
    }
}

/// What storing `resource` would be refused for, beyond R4.
pub fn findings(resource: Resource, base: &str, outbound: &dyn Outbound) -> Vec<Issue> {
    asked_for(resource, base, outbound).map_or_else(|error| error.issues, |_| Vec::new())
}

pub(super) fn extensions(element: Option<&Value>) -> impl Iterator<Item = (&str, &Value)> {
    element
        .and_then(|element| element.get("extension"))
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|one| Some((one.get("url")?.as_str()?, one)))
}

/// Extensions that would change what is asked for, and that nobody here knows.
fn refuse_foreign_extensions(value: &Value, problems: &mut Problems) {
    let channel = value.get("channel").unwrap_or(&Value::Null);
    let known: [(&str, Option<&Value>, &[&str]); 5] = [
        (
            "Subscription.criteria",
            value.get("_criteria"),
            &["backport-filter-criteria"],
        ),
        (
            "Subscription.channel",
            Some(channel),
            &[
                "backport-heartbeat-period",
                "backport-timeout",
                "backport-max-count",
            ],
        ),
        ("Subscription.channel.type", channel.get("_type"), &[]),
        ("Subscription.channel.endpoint", channel.get("_endpoint"), &[]),
        (
            "Subscription.channel.payload",
            channel.get("_payload"),
            &["backport-payload-content"],
        ),
    ];
    for (place, element, known) in known {
        for (url, _) in extensions(element) {
            let is_known = url
                .strip_prefix(BACKPORT)
                .is_some_and(|name| known.contains(&name))
                || (place == "Subscription.channel" && url == EXT_SIGNING_SECRET);
            if !is_known {
                problems.refuse(
                    &format!("{place}.extension"),
                    "an extension that is not supported here; those of Subscriptions R5 Backport 1.1.0 are",
                );
            }
        }
    }
    // Header lines hold secrets, and what stands beside one would be shown.
    if channel
        .get("_header")
        .and_then(Value::as_array)
        .is_some_and(|lines| lines.iter().any(|line| !line.is_null()))
    {
        problems.refuse(
            "Subscription.channel.header",
            "a header is its line alone, without extensions or an id",
        );
    }
    // Those of other versions of FHIR stand for elements of theirs, wherever they are.
    let is_of_another_version = |url: &str| {
        url.strip_prefix("http://hl7.org/fhir/")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    if extensions(Some(value)).any(|(url, _)| is_of_another_version(url)) {
        problems.refuse(
            "Subscription.extension",
            "an extension for an element of another version of FHIR; use those of Subscriptions R5 Backport",
        );
    }
    if ["", "/channel"]
        .iter()
        .filter_map(|path| value.pointer(path))
        .any(|element| element.get("modifierExtension").is_some())
    {
        problems.refuse(
            "Subscription.modifierExtension",
            "no modifier extension is supported here",
        );
    }
}

/// `backport-payload-content`; `None` for base R4.
fn payload_of(channel: &Value, problems: &mut Problems) -> Option<Payload> {
    let place = "Subscription.channel.payload.extension";
    let mut found = extensions(channel.get("_payload"))
        .filter(|(url, _)| url.strip_prefix(BACKPORT) == Some("backport-payload-content"));
    let (_, extension) = found.next()?;
    if found.next().is_some() {
        problems.refuse(place, "there is more than one `backport-payload-content`");
    }
    let payload = extension
        .get("valueCode")
        .and_then(Value::as_str)
        .and_then(Payload::parse_content);
    if payload.is_none() {
        problems.refuse(
            place,
            "`backport-payload-content` is `empty`, `id-only` or `full-resource`",
        );
    }
    payload
}

fn criteria_of(
    value: &Value,
    payload: Option<Payload>,
    base: &str,
    problems: &mut Problems,
) -> Option<Criteria> {
    let place = "Subscription.criteria";
    let Some(written) = value.get("criteria").and_then(Value::as_str) else {
        let text = "says what is told: a topic, or a search like `Task?status=ready`";
        problems.0.push(Issue::at(IssueType::Required, place, text));
        return None;
    };
    let filters: Vec<&str> = extensions(value.get("_criteria"))
        .filter(|(url, _)| url.strip_prefix(BACKPORT) == Some("backport-filter-criteria"))
        .filter_map(|(_, one)| one.get("valueString").and_then(Value::as_str))
        .collect();
    if written.len() > LONGEST_CRITERIA || filters.iter().any(|one| one.len() > LONGEST_CRITERIA) {
        problems.refuse(place, format!("is longer than {LONGEST_CRITERIA} bytes"));
        return None;
    }
    if filters.len() > MOST_FILTERS {
        problems.refuse(place, format!("there are more than {MOST_FILTERS} filters"));
        return None;
    }
    let is_search = focus(written.split('?').next().unwrap_or_default()).is_some();
    if is_search && payload.is_some() {
        problems.refuse(
            "Subscription.channel.payload",
            "`backport-payload-content` goes with a topic; leave it out with criteria like `Task?status=ready`",
        );
    }
    if written.contains("://") || (payload.is_some() && !is_search) {
        let Some(kind) = written.strip_prefix(TOPIC).and_then(topic_kind) else {
            let known: Vec<String> = TOPICS
                .iter()
                .map(|kind| format!("`{TOPIC}{}`", kind.topic.as_str()))
                .collect();
            problems.refuse(
                place,
                format!("no topic of this server; known are {}", known.join(", ")),
            );
            return None;
        };
        if payload.is_none() {
            problems.refuse(
                "Subscription.channel.payload",
                "a topic needs `backport-payload-content` on the payload: `empty`, `id-only` or `full-resource`",
            );
        }
        let mut criteria = Criteria {
            trigger: Trigger::Topic(kind.topic),
            focus: kind.focus,
            filters: Vec::new(),
            changes: Vec::new(),
        };
        for (number, filter) in filters.into_iter().enumerate() {
            if let Err(text) = add_filter(&mut criteria, kind.change, filter, base) {
                problems.refuse(&format!("Subscription.criteria.extension[{number}]"), text);
            }
        }
        return Some(criteria);
    }
    if !filters.is_empty() {
        problems.refuse(
            "Subscription.criteria.extension",
            "filters go with a topic; write the criteria of base R4 as one query",
        );
    }
    match base_criteria(written, base) {
        Ok(criteria) => Some(criteria),
        Err(text) => {
            problems.refuse(place, text);
            None
        }
    }
}

fn focus(name: &str) -> Option<Kind> {
    [Kind::Task, Kind::Document]
        .into_iter()
        .find(|kind| kind.as_str() == name)
}

/// `Task?status=ready`: a search without its base.
fn base_criteria(written: &str, base: &str) -> Result<Criteria, String> {
    let (name, query) = written.split_once('?').unwrap_or((written, ""));
    let focus = focus(name).ok_or_else(|| {
        format!("is a search like `Task?status=ready`, of Task or DocumentReference, or a topic like `{TOPIC}task-status-changed`")
    })?;
    let pairs = pairs_of(query.as_bytes());
    if pairs.len() > MOST_FILTERS {
        return Err(format!("has more than {MOST_FILTERS} parameters"));
    }
    let filters = search::criteria(focus, &pairs, base).map_err(|error| error.text)?;
    Ok(Criteria {
        trigger: Trigger::Version,
        focus,
        filters,
        changes: Vec::new(),
    })
}

/// `parameter=value`, with a modifier, and with the type of the focus before it in either way.
fn add_filter(
    criteria: &mut Criteria,
    change: Option<(&str, &[&str])>,
    filter: &str,
    base: &str,
) -> Result<(), String> {
    let kind = criteria.focus.as_str();
    let query = [format!("{kind}?"), format!("{kind}.")]
        .iter()
        .find_map(|before| filter.strip_prefix(before.as_str()))
        .unwrap_or(filter);
    let pairs = pairs_of(query.as_bytes());
    let is_of_another = query.split('=').next().is_some_and(|name| name.contains('?'));
    if is_of_another || pairs.is_empty() || pairs.len() > MOST_FILTERS {
        return Err(format!(
            "a filter of this topic is about {kind}: `{kind}?parameter=value`"
        ));
    }
    for (name, value) in pairs {
        match change {
            Some((own, words)) if own == name => {
                let asked: Vec<String> = value.split(',').map(str::to_owned).collect();
                if asked.iter().any(|word| !words.contains(&word.as_str())) {
                    return Err(format!("`{own}` is of {}", words.join(", ")));
                }
                if criteria.changes.is_empty() {
                    criteria.changes = asked;
                } else {
                    criteria.changes.retain(|word| asked.contains(word));
                    if criteria.changes.is_empty() {
                        return Err(format!("the filters on `{own}` exclude each other"));
                    }
                }
            }
            _ => {
                let found = search::criteria(criteria.focus, &[(name, value)], base);
                let with_own = |error: AppError| match change {
                    Some((own, words)) => format!(
                        "{}; this topic also has `{own}`, of {}",
                        error.text,
                        words.join(", ")
                    ),
                    None => error.text,
                };
                criteria.filters.extend(found.map_err(with_own)?);
            }
        }
    }
    Ok(())
}

fn route_of(channel: &Value, outbound: &dyn Outbound, problems: &mut Problems) -> Option<Route> {
    let endpoint = channel.get("endpoint").and_then(Value::as_str);
    let place = "Subscription.channel.endpoint";
    match channel.get("type").and_then(Value::as_str) {
        Some("rest-hook") => {
            let Some(endpoint) = endpoint else {
                problems.refuse(place, "a rest-hook needs the URL to send to");
                return None;
            };
            match outbound.check(endpoint) {
                Ok(()) => Some(Route::RestHook(endpoint.to_owned())),
                Err(error) => {
                    problems.refuse(place, error.to_string());
                    None
                }
            }
        }
        Some("websocket") => {
            if endpoint.is_some() {
                problems.refuse(
                    place,
                    "a web socket has no endpoint: the subscriber connects to this server",
                );
            }
            Some(Route::WebSocket)
        }
        _ => {
            problems.refuse(
                "Subscription.channel.type",
                "the channels are `rest-hook` and `websocket`",
            );
            None
        }
    }
}

/// `channel.payload`: FHIR JSON, in the version of FHIR that is spoken here.
fn media_type_of(channel: &Value, problems: &mut Problems) -> Option<String> {
    let written = channel.get("payload").and_then(Value::as_str)?;
    let mut parts = written.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let is_json = matches!(essence.as_str(), "application/fhir+json" | "application/json");
    let fits = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "fhirversion" => matches!(value.trim().trim_matches('"'), "4.0" | "4.0.1"),
            "charset" => value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8"),
            _ => false,
        }
    };
    if !is_json || !parts.all(fits) || written.chars().any(char::is_control) {
        problems.refuse(
            "Subscription.channel.payload",
            "notifications are `application/fhir+json` (or `application/json`), with `fhirVersion=4.0` at most",
        );
    }
    Some(written.to_owned())
}

fn headers_of(channel: &Value, problems: &mut Problems) -> Vec<String> {
    let place = "Subscription.channel.header";
    let lines: Vec<&str> = channel
        .get("header")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if lines.len() > MOST_HEADERS {
        problems.refuse(place, format!("there are more than {MOST_HEADERS} headers"));
        return Vec::new();
    }
    for (number, line) in lines.iter().enumerate() {
        let place = format!("{place}[{number}]");
        match line.split_once(':') {
            None => problems.refuse(&place, "a header is `Name: value`"),
            Some((_, value)) if value.trim() == REDACTED => {}
            Some((name, value)) => {
                if let Err(error) = check_header(name.trim(), value.trim()) {
                    problems.refuse(&place, error.to_string());
                }
            }
        }
    }
    lines.into_iter().map(str::to_owned).collect()
}

/// A number of the channel, from an extension of the Backport.
fn number_of(
    channel: &Value,
    name: &str,
    range: std::ops::RangeInclusive<u64>,
    problems: &mut Problems,
) -> Option<u32> {
    let place = "Subscription.channel.extension";
    let mut found = extensions(Some(channel)).filter(|(url, _)| url.strip_prefix(BACKPORT) == Some(name));
    let (_, extension) = found.next()?;
    let number = ["valueUnsignedInt", "valuePositiveInt"]
        .iter()
        .find_map(|field| extension.get(field))
        .and_then(Value::as_u64)
        .filter(|number| range.contains(number));
    if number.is_none() || found.next().is_some() {
        let (least, most) = (range.start(), range.end());
        problems.refuse(place, format!("`{name}` is one number, of {least} to {most}"));
    }
    u32::try_from(number?).ok()
}

fn check_combination(
    criteria: &Criteria,
    route: Option<&Route>,
    payload: Option<Payload>,
    has_media_type: bool,
    heartbeat: Option<u32>,
    problems: &mut Problems,
) {
    let place = "Subscription.channel.payload";
    match (criteria.trigger, route) {
        (Trigger::Topic(_), _) if !has_media_type && payload.is_some() => problems.refuse(
            place,
            "say what notifications are written in: `application/fhir+json`",
        ),
        (Trigger::Version, Some(Route::RestHook(endpoint))) if has_media_type && endpoint.contains('?') => {
            problems.refuse(
                "Subscription.channel.endpoint",
                "with a payload the endpoint is the base of a FHIR server, to which `/Task/id` is added; it has no query",
            );
        }
        (Trigger::Version, Some(Route::WebSocket)) if has_media_type => problems.refuse(
            place,
            "a web socket of base R4 tells no content; leave `payload` out, or subscribe to a topic",
        ),
        _ => {}
    }
    if matches!(criteria.trigger, Trigger::Version) && heartbeat.is_some() {
        problems.refuse(
            "Subscription.channel.extension",
            "base R4 has no heartbeat; subscribe to a topic for one",
        );
    }
}
