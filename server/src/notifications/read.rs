//! The forms of a notification: a history Bundle of the Subscriptions Backport IG for R4, an empty body, and a resource.
//! Says what was told; holds nothing against anything that is stored.

use std::collections::HashMap;

use handoff_domain::inbox::{MOST_EVENTS, Matter, SourceVersion, split_reference};
use handoff_domain::reason::Reason;
use handoff_domain::source::{FeedType, Source};
use handoff_domain::time::Timestamp;
use handoff_fhir_model::{Issue, IssueType, Parameter, Resource, bundle, parameters};

use crate::app::apply::{name_origin, shorten, version_of};
use crate::app::inbox::{Heard, Item, Told};
use crate::app::{AppError, Class};

/// The longest reference to a subscription or a resource.
const LONGEST_REFERENCE: usize = 300;
/// The most resources of the context of one event.
const MOST_CONTEXT: usize = 50;

/// An empty body: something changed.
pub(super) fn of_empty() -> Told {
    Told {
        heard: None,
        is_unasked: true,
        items: vec![Item::changes()],
    }
}

/// A resource, sent as an update of this type and id; `from` is where it lies, where that was said.
pub(super) fn of_resource(
    kind: &str,
    id: &str,
    mut resource: Resource,
    from: Option<&str>,
) -> Result<Told, AppError> {
    if resource.type_name() != kind {
        return Err(wrong(
            "resourceType",
            "the resource's type must be that of the URL",
        ));
    }
    if resource.id() != Some(id) {
        return Err(wrong(
            &format!("{}.id", resource.type_name()),
            "the resource's `id` must be that of the URL",
        ));
    }
    if FeedType::parse(kind).is_none() {
        return Err(AppError::new(
            Class::Unprocessable,
            Reason::NotSupported,
            format!(
                "resources of that type mean nothing here; these do: {}",
                known_types()
            ),
        ));
    }
    let base = from.and_then(|from| {
        from.split("/_history/")
            .next()?
            .strip_suffix(&format!("/{kind}/{id}"))
    });
    name_origin(base, &mut resource);
    Ok(Told {
        heard: None,
        is_unasked: true,
        items: vec![Item {
            numbered: None,
            matter: Matter::Resource(format!("{kind}/{id}")),
            version: version_of(resource.value()),
            body: resource.to_json(),
            gone: false,
        }],
    })
}

/// A notification Bundle.
pub(super) fn of_bundle(source: &Source, resource: Resource, most: usize) -> Result<Told, AppError> {
    let sent = bundle(resource).map_err(AppError::invalid)?;
    if sent.kind != "history" {
        return Err(wrong(
            "Bundle.type",
            "a notification is a Bundle of type `history`",
        ));
    }
    if sent.entries.len() > most {
        return Err(AppError::new(
            Class::TooLarge,
            Reason::TooLarge,
            format!("a Bundle has at most {most} entries"),
        ));
    }
    let mut entries = sent.entries.into_iter();
    let status = entries
        .next()
        .and_then(|entry| entry.resource)
        .filter(|resource| resource.type_name() == "Parameters")
        .ok_or_else(|| {
            wrong(
                "Bundle.entry[0].resource",
                "the first entry of a notification is its status, a Parameters resource",
            )
        })?;
    let status = parameters(&status).map_err(AppError::invalid)?;
    let source = &based(source, &status);
    let mut carried = Carried::default();
    // A history tells the newest first.
    for entry in entries.rev() {
        let at = entry.last_modified.as_deref().and_then(Timestamp::parse_instant);
        if entry
            .request
            .as_ref()
            .is_some_and(|request| request.method == "DELETE")
        {
            let named = [
                entry.full_url.as_deref(),
                entry.request.as_ref().map(|request| request.url.as_str()),
            ];
            let named = named.into_iter().flatten().map(|one| source.local(one));
            // Both name the same.
            if let Some(named) = named.into_iter().find(|one| type_of(one).is_some()) {
                carried.add(named, Sent { at, resource: None });
            }
            continue;
        }
        let Some(mut resource) = entry.resource else {
            continue;
        };
        let Some(id) = resource.id() else { continue };
        let key = format!("{}/{id}", resource.type_name());
        shorten(source, &mut resource);
        name_origin(source.settings.base.as_deref(), &mut resource);
        let at = version_of(resource.value()).updated.or(at);
        let resource = Some(resource);
        carried.add(&key, Sent { at, resource });
    }
    carried.sort();
    of_status(source, &status, &mut carried, most)
}

/// One version of a resource that came along; none where it was deleted.
struct Sent {
    /// When it came to be.
    at: Option<Timestamp>,
    resource: Option<Resource>,
}

/// The resources that came along, by reference, oldest first.
#[derive(Default)]
struct Carried(HashMap<String, Vec<Sent>>);

impl Carried {
    fn add(&mut self, reference: &str, sent: Sent) {
        self.0.entry(reference.to_owned()).or_default().push(sent);
    }

    /// By when they came to be, where that is said of all.
    fn sort(&mut self) {
        for versions in self.0.values_mut() {
            if versions.iter().all(|sent| sent.at.is_some()) {
                versions.sort_by_key(|sent| sent.at);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All that came of a resource, the first time that it is named; the newest from then on.
    fn take(&mut self, reference: &str) -> Vec<Item> {
        let Some(versions) = self.0.get_mut(reference) else {
            return Vec::new();
        };
        let items = versions
            .iter()
            .map(|sent| Item {
                numbered: None,
                matter: Matter::Resource(reference.to_owned()),
                version: match &sent.resource {
                    Some(resource) => version_of(resource.value()),
                    None => SourceVersion {
                        updated: sent.at,
                        version: None,
                    },
                },
                body: sent.resource.as_ref().map(Resource::to_json).unwrap_or_default(),
                gone: sent.resource.is_none(),
            })
            .collect();
        let newest = versions.pop();
        versions.clear();
        versions.extend(newest);
        items
    }

    fn has_resource(&self, reference: &str) -> bool {
        let versions = self.0.get(reference);
        versions.is_some_and(|versions| versions.iter().any(|sent| sent.resource.is_some()))
    }
}

fn known_types() -> String {
    let names: Vec<&str> = FeedType::ALL.iter().map(|kind| kind.as_str()).collect();
    names.join(", ")
}

/// The source with its base. Where none is configured it is that by which it names its own subscription: references are
/// written in full or not, as a server likes, and give no right either way.
fn based(source: &Source, status: &[Parameter]) -> Source {
    let mut source = source.clone();
    if source.settings.base.is_none() {
        let reference = status
            .iter()
            .find(|parameter| parameter.name == "subscription")
            .and_then(Parameter::reference)
            .unwrap_or_default();
        source.settings.base = reference
            .rfind("/Subscription/")
            .and_then(|end| reference.get(..end))
            .filter(|base| base.starts_with("https://") || base.starts_with("http://"))
            .map(str::to_owned);
    }
    source
}

fn of_status(
    source: &Source,
    status: &[Parameter],
    carried: &mut Carried,
    most: usize,
) -> Result<Told, AppError> {
    let named = |name: &str| status.iter().find(|parameter| parameter.name == name);
    let reference = named("subscription")
        .and_then(Parameter::reference)
        .ok_or_else(|| missing("subscription"))?;
    let reference = source.local(reference).to_owned();
    if reference.is_empty() || reference.len() > LONGEST_REFERENCE {
        return Err(missing("subscription"));
    }
    let word = |name: &str| named(name).and_then(Parameter::text).ok_or_else(|| missing(name));
    let kind = word("type")?;
    let counted = match named("events-since-subscription-start") {
        Some(parameter) => Some(count(parameter).ok_or_else(|| missing("events-since-subscription-start"))?),
        None => None,
    };
    let heard = Heard {
        reference,
        status: match word("status")? {
            status @ ("requested" | "active" | "error" | "off") => status.to_owned(),
            _ => return Err(missing("status")),
        },
        topic: named("topic").and_then(Parameter::text).map(str::to_owned),
        counted,
        begins: kind == "handshake",
        is_alone: kind == "heartbeat",
    };
    let events: Vec<&Parameter> = status
        .iter()
        .filter(|parameter| parameter.name == "notification-event")
        .collect();
    if events.len() > most {
        return Err(AppError::new(
            Class::TooLarge,
            Reason::TooLarge,
            format!("a notification tells of at most {most} events"),
        ));
    }
    let mut items = Vec::new();
    match kind {
        "event-notification" => {
            if events.is_empty() {
                return Err(missing("notification-event"));
            }
            for event in events {
                items.extend(of_event(source, event, carried)?);
            }
        }
        // They tell that the subscription lives, and how many events there were.
        "handshake" | "heartbeat" => {}
        _ => {
            return Err(wrong(
                "Bundle.entry[0].resource",
                "`type` is `handshake`, `heartbeat` or `event-notification` here",
            ));
        }
    }
    Ok(Told {
        heard: Some(heard),
        is_unasked: true,
        items,
    })
}

/// The resources of one event, in the order in which they are to be applied.
fn of_event(source: &Source, event: &Parameter, carried: &mut Carried) -> Result<Vec<Item>, AppError> {
    let parts = event.parts();
    let named = |name: &str| parts.iter().find(|part| part.name == name);
    let number = named("event-number")
        .and_then(count)
        .filter(|number| *number > 0)
        .ok_or_else(|| missing("event-number"))?;
    let Some(focus) = named("focus").and_then(Parameter::reference) else {
        if !carried.is_empty() {
            return Err(wrong(
                "Bundle.entry[0].resource",
                "an event whose resource comes along names it: its `focus` is missing",
            ));
        }
        return Ok(vec![Item {
            numbered: Some((number, 0)),
            ..Item::changes()
        }]);
    };
    let at = named("timestamp")
        .and_then(Parameter::text)
        .and_then(Timestamp::parse_instant);
    let context = parts
        .iter()
        .filter(|part| part.name == "additional-context")
        .filter_map(Parameter::reference)
        // Of what surrounds the focus only what means something here, and came along.
        .filter(|reference| {
            let local = source.local(reference);
            type_of(local).is_some() && carried.has_resource(local)
        })
        .take(MOST_CONTEXT)
        .collect::<Vec<_>>();
    let mut items = Vec::new();
    for reference in std::iter::once(focus).chain(context) {
        let local = source.local(reference);
        if local.is_empty() || local.len() > LONGEST_REFERENCE || local.contains(char::is_whitespace) {
            return Err(missing("focus"));
        }
        let mut found = carried.take(local);
        if found.is_empty() {
            found.push(Item {
                matter: Matter::Resource(local.to_owned()),
                ..Item::changes()
            });
        }
        for mut item in found {
            if item.gone && item.version.updated.is_none() {
                // Nothing else says when it was deleted.
                item.version.updated = at;
            }
            items.push(item);
        }
    }
    for (part, item) in (0..).zip(&mut items) {
        item.numbered = Some((number, part));
    }
    items.sort_by_key(|item| item.matter.reference().and_then(type_of));
    Ok(items)
}

fn type_of(reference: &str) -> Option<FeedType> {
    split_reference(reference).and_then(|(kind, _)| FeedType::parse(kind))
}

/// A number, which R4 has as text and later versions as a number.
fn count(parameter: &Parameter) -> Option<i64> {
    let number = match parameter.text() {
        Some(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        Some(_) => None,
        None => parameter.whole_number(),
    };
    number.filter(|number| (0..=MOST_EVENTS).contains(number))
}

fn missing(name: &str) -> AppError {
    let as_what = match name {
        "subscription" => "a reference, as `valueReference`",
        "focus" => "a reference like `Task/1`, as `valueReference`",
        "event-number" => "a whole number from 1, as `valueString`",
        "events-since-subscription-start" => "a whole number, as `valueString`",
        "status" => "`requested`, `active`, `error` or `off`, as `valueCode`",
        _ => "a text or code",
    };
    wrong(
        &format!("Bundle.entry[0].resource.parameter.where(name = '{name}')"),
        &format!("the parameter `{name}` of the status is missing, or is not {as_what}"),
    )
}

fn wrong(expression: &str, text: &str) -> AppError {
    AppError::invalid(vec![Issue::at(IssueType::Invalid, expression, text)])
}
