//! A Subscription's resource as it is kept and as it is shown: what only the server says of it is the server's, and what is
//! secret in it is in none but the first answer. Reads and writes nothing.

use handoff_domain::subscription::{Subscription, SubscriptionSecrets, SubscriptionStatus};
use handoff_fhir_model::Resource;
use handoff_fhir_profiles::canonical::EXT_SIGNING_SECRET;
use serde_json::{Value, json};

use super::AppError;
use super::json_edit::{self, set_field};

/// What stands for the value of a header that is not shown again.
pub const REDACTED: &str = "[redacted]";

/// The resource as it is kept: what only the server says of it is the server's, its `error` as it was too.
pub fn written(mut resource: Resource, subscription: &Subscription, error: Option<&Value>) -> Resource {
    resource.set_id(subscription.id.as_str());
    let value = resource.value_mut();
    set_field(value, "status", json!(subscription.status.as_str()));
    match error.filter(|_| subscription.status == SubscriptionStatus::Error) {
        Some(error) => set_field(value, "error", error.clone()),
        None => remove_field(value, "error"),
    }
    if let Some(channel) = value.get_mut("channel") {
        keep_extensions(channel, |url| url != EXT_SIGNING_SECRET);
    }
    json_edit::stamp(&mut resource, subscription.version, subscription.last_updated);
    resource
}

/// Takes a member out of an object.
pub fn remove_field(object: &mut Value, name: &str) {
    if let Some(map) = object.as_object_mut() {
        map.shift_remove(name);
    }
}

fn keep_extensions(element: &mut Value, keep: impl Fn(&str) -> bool) {
    let Some(list) = element.get_mut("extension").and_then(Value::as_array_mut) else {
        return;
    };
    list.retain(|one| one.get("url").and_then(Value::as_str).is_none_or(&keep));
    if list.is_empty() {
        remove_field(element, "extension");
    }
}

/// The resource as its creator alone sees it once: with its headers, and the key that notifications are signed with.
pub fn shown_once(
    resource: &Resource,
    secrets: &SubscriptionSecrets,
    subscription: &Subscription,
) -> Resource {
    let mut shown = resource.clone();
    if subscription.channel.is_pushed()
        && let Some(channel) = shown.value_mut().get_mut("channel")
    {
        let secret = json!({"url": EXT_SIGNING_SECRET, "valueString": secrets.signing});
        match channel.get_mut("extension").and_then(Value::as_array_mut) {
            Some(list) => list.push(secret),
            None => set_field(channel, "extension", json!([secret])),
        }
    }
    shown
}

/// Takes the values of headers out of a resource; their names stay.
pub fn redact(resource: &mut Resource) {
    let lines = resource
        .value_mut()
        .get_mut("channel")
        .and_then(|channel| channel.get_mut("header"))
        .and_then(Value::as_array_mut);
    for line in lines.into_iter().flatten() {
        // A header may also be an extension alone, and has no text then.
        if let Some(name) = line.as_str().and_then(|line| line.split(':').next()) {
            *line = json!(format!("{}: {REDACTED}", name.trim()));
        }
    }
}

/// Whether a header's value is not shown.
pub fn is_redacted(line: &str) -> bool {
    line.split_once(':')
        .is_some_and(|(_, value)| value.trim() == REDACTED)
}

/// The lines with the values that redacted ones stand for: each that of the same name, in their order.
pub fn with_kept_values(lines: &[String], kept: &[String]) -> Result<Vec<String>, AppError> {
    let name_of = |line: &str| {
        line.split(':')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase()
    };
    let mut used = vec![false; kept.len()];
    lines
        .iter()
        .map(|line| {
            if !is_redacted(line) {
                return Ok(line.clone());
            }
            let name = name_of(line);
            let found = kept
                .iter()
                .zip(&mut used)
                .find(|(known, used)| !**used && name_of(known) == name);
            match found {
                Some((known, used)) => {
                    *used = true;
                    Ok(known.clone())
                }
                None => Err(AppError::rule(
                    "Subscription.channel.header",
                    format!("the value of `{name}` is redacted, and there is none of before; send the value itself"),
                )),
            }
        })
        .collect()
}
