//! The rules that the profile of Subscriptions R5 Backport 1.1.0 adds to a Subscription of R4. Whether this server can do
//! what is asked for is another question.

use handoff_fhir_model::{Issue, IssueType};
use serde_json::Value;

use super::asked::{BACKPORT, extensions};

const VERSION: &str = "1.1.0";

/// Whether a canonical URL is that of the profile, in this version where it names one.
pub fn is_backport(profile: &str) -> bool {
    let (url, version) = profile.split_once('|').unwrap_or((profile, VERSION));
    url.strip_prefix(BACKPORT) == Some("backport-subscription") && version == VERSION
}

/// In what a Subscription departs from the profile.
pub fn departures(subscription: &Value) -> Vec<Issue> {
    let mut issues = Vec::new();
    let mut depart = |place: &str, text: &str| {
        issues.push(Issue::at(IssueType::Invariant, place, text));
    };
    let criteria = subscription
        .get("criteria")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if !criteria.starts_with("http://") && !criteria.starts_with("https://") {
        depart(
            "Subscription.criteria",
            "is the canonical URL of a topic by `backport-subscription`",
        );
    }
    let channel = subscription.get("channel").unwrap_or(&Value::Null);
    let of = |element: Option<&Value>, name: &str| {
        extensions(element)
            .filter(|(url, _)| url.strip_prefix(BACKPORT) == Some(name))
            .count()
    };
    if channel.get("payload").is_none() {
        depart(
            "Subscription.channel.payload",
            "is required by `backport-subscription`",
        );
    }
    if of(channel.get("_payload"), "backport-payload-content") != 1 {
        depart(
            "Subscription.channel.payload.extension",
            "`backport-payload-content` is required once by `backport-subscription`",
        );
    }
    for name in [
        "backport-heartbeat-period",
        "backport-timeout",
        "backport-max-count",
    ] {
        if of(Some(channel), name) > 1 {
            depart(
                "Subscription.channel.extension",
                "heartbeat period, timeout and count are given once by `backport-subscription`",
            );
        }
    }
    issues
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PROFILE: &str =
        "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/backport-subscription";

    #[test]
    fn the_profile_is_known_with_its_version_and_without_one() {
        assert!(is_backport(PROFILE));
        assert!(is_backport(&format!("{PROFILE}|1.1.0")));
        assert!(!is_backport(&format!("{PROFILE}|1.2.0-ballot")));
        assert!(!is_backport(&format!("{PROFILE}-x")));
    }

    #[test]
    fn criteria_of_base_r4_depart_in_three_places() {
        let places: Vec<_> =
            departures(&json!({"criteria": "Task?status=ready", "channel": {"type": "rest-hook"}}))
                .into_iter()
                .filter_map(|issue| issue.expression)
                .collect();
        assert_eq!(
            places,
            [
                "Subscription.criteria",
                "Subscription.channel.payload",
                "Subscription.channel.payload.extension",
            ]
        );
    }

    #[test]
    fn a_topic_with_its_content_departs_in_none() {
        let extension = json!([{"url": format!("{BACKPORT}backport-payload-content"), "valueCode": "empty"}]);
        let subscription = json!({
            "criteria": "https://handoff.example/fhir/SubscriptionTopic/task-assigned",
            "channel": {"payload": "application/fhir+json", "_payload": {"extension": extension}},
        });
        assert_eq!(departures(&subscription), []);
    }
}
