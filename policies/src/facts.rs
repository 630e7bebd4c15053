//! From the domain's facts to Cedar's: entities and context, built for one question. What no rule about the action
//! mentions is not built at all.

use std::collections::{BTreeSet, HashMap, HashSet};

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression as Value,
};
use handoff_domain::access::{AccessRequest, Action, Object, Principal, Relation};
use handoff_domain::document::Document;
use handoff_domain::task::{Code, Task, TaskFacts};
use handoff_domain::time::Timestamp;
use thiserror::Error;

/// A fact that Cedar does not take.
#[derive(Debug, Error)]
#[error("{0}")]
pub(crate) struct FactError(String);

fn fact(error: impl std::fmt::Display) -> FactError {
    FactError(error.to_string())
}

/// The names of Cedar's types, parsed once.
pub(crate) struct Names {
    user: EntityTypeName,
    client: EntityTypeName,
    system: EntityTypeName,
    role: EntityTypeName,
    team: EntityTypeName,
    tenant: EntityTypeName,
    task: EntityTypeName,
    document: EntityTypeName,
    grant: EntityTypeName,
    audit: EntityTypeName,
    subscription: EntityTypeName,
    action: EntityTypeName,
}

impl Names {
    pub(crate) fn new() -> Result<Self, FactError> {
        let name = |text: &str| text.parse::<EntityTypeName>().map_err(fact);
        Ok(Self {
            user: name("User")?,
            client: name("Client")?,
            system: name("System")?,
            role: name("Role")?,
            team: name("Team")?,
            tenant: name("Tenant")?,
            task: name("Task")?,
            document: name("Document")?,
            grant: name("Grant")?,
            audit: name("AuditLog")?,
            subscription: name("Subscription")?,
            action: name("Action")?,
        })
    }

    pub(crate) fn action(&self, action: Action) -> EntityUid {
        uid(&self.action, action.as_str())
    }
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

/// Every word that stands in rules, and so every attribute that they ask for in whatever form.
pub(crate) type Mentioned = BTreeSet<String>;

/// The question in Cedar's terms. `action` is the action's entity with its groups.
pub(crate) fn question(
    names: &Names,
    action: &Entity,
    mentioned: &Mentioned,
    request: &AccessRequest<'_>,
) -> Result<(Request, Entities), FactError> {
    let principal = principal(names, mentioned, request)?;
    let resource = resource(names, mentioned, request)?;
    let context = context(mentioned, request)?;
    let question =
        Request::new(principal.uid(), action.uid(), resource.uid(), context, None).map_err(fact)?;
    let entities = Entities::from_entities([principal, resource, action.clone()], None).map_err(fact)?;
    Ok((question, entities))
}

type Attributes = HashMap<String, Value>;

/// Gathers attributes, those alone that are asked for. Of a record that is asked for, all: it may be compared as such.
struct Gather<'m> {
    mentioned: Option<&'m Mentioned>,
    found: Attributes,
}

impl<'m> Gather<'m> {
    fn new(mentioned: &'m Mentioned) -> Self {
        Self {
            mentioned: Some(mentioned),
            found: HashMap::new(),
        }
    }

    fn of_all() -> Self {
        Self {
            mentioned: None,
            found: HashMap::new(),
        }
    }

    fn put(&mut self, name: &'static str, value: impl FnOnce() -> Value) {
        if self.mentioned.is_none_or(|asked| asked.contains(name)) {
            self.found.insert(name.to_owned(), value());
        }
    }

    fn maybe<T>(&mut self, name: &'static str, given: Option<T>, value: impl FnOnce(T) -> Value) {
        if let Some(given) = given {
            self.put(name, || value(given));
        }
    }
}

fn text(value: &str) -> Value {
    Value::new_string(value.to_owned())
}

fn texts<'a>(values: impl IntoIterator<Item = &'a str>) -> Value {
    Value::new_set(values.into_iter().map(text))
}

fn record(attributes: Attributes) -> Value {
    // A map has no name twice, which is all that could be wrong with it.
    Value::new_record(attributes).unwrap_or_else(|_| Value::new_bool(false))
}

/// The type of the principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    User,
    Client,
    System,
}

impl Kind {
    pub(crate) fn of(principal: &Principal) -> Self {
        if principal.actor.is_person() {
            Self::User
        } else if principal.subject == principal.client {
            Self::Client
        } else {
            Self::System
        }
    }
}

fn principal(names: &Names, mentioned: &Mentioned, request: &AccessRequest<'_>) -> Result<Entity, FactError> {
    let caller = request.principal;
    let kind = match Kind::of(caller) {
        Kind::User => &names.user,
        Kind::Client => &names.client,
        Kind::System => &names.system,
    };
    let roles = caller.roles.iter().map(|role| uid(&names.role, role.as_str()));
    let teams = caller.teams.iter().map(|team| uid(&names.team, team));
    let parents: HashSet<EntityUid> = roles.chain(teams).collect();
    let mut attributes = Gather::new(mentioned);
    attributes.put("tenant", || text(caller.tenant.as_str()));
    attributes.maybe("department", caller.attributes.department.as_deref(), text);
    attributes.maybe("location", caller.attributes.location.as_deref(), text);
    Entity::new(uid(kind, caller.actor.as_str()), attributes.found, parents).map_err(fact)
}

fn resource(names: &Names, mentioned: &Mentioned, request: &AccessRequest<'_>) -> Result<Entity, FactError> {
    let tenant = request.tenant.as_str();
    let mut attributes = Gather::new(mentioned);
    attributes.put("tenant", || text(tenant));
    let id = match request.object {
        Object::Tenant => uid(&names.tenant, tenant),
        Object::Audit => uid(&names.audit, tenant),
        Object::Subscription => uid(&names.subscription, tenant),
        Object::Task(task) => {
            put_task(&mut attributes, task);
            uid(&names.task, task.map_or("", |t| t.id.as_str()))
        }
        Object::Grant(task) => {
            attributes.put("task", || task_facts(task));
            uid(&names.grant, task.id.as_str())
        }
        Object::Document(document) | Object::Content { document, .. } => {
            put_document(&mut attributes, document);
            uid(&names.document, document.map_or("", |d| d.id.as_str()))
        }
    };
    Entity::new(id, attributes.found, HashSet::new()).map_err(fact)
}

fn put_task(attributes: &mut Gather<'_>, task: Option<&Task>) {
    let facts = task.map(|task| &task.facts);
    let codes = |of: fn(&TaskFacts) -> &[Code]| {
        let codes = facts.map(of).unwrap_or_default();
        texts(codes.iter().map(|code| code.code.as_str()))
    };
    attributes.put("codes", || codes(|facts| &facts.code));
    attributes.put("teams", || codes(|facts| &facts.performer_types));
    attributes.put("status", || text(facts.map_or("", |facts| facts.status.as_str())));
    attributes.put("priority", || {
        text(facts.map_or("", |facts| facts.priority.as_str()))
    });
}

fn put_document(attributes: &mut Gather<'_>, document: Option<&Document>) {
    attributes.maybe("class", document.and_then(|d| d.class.as_deref()), text);
    attributes.maybe("status", document, |d| text(d.facts.status.as_str()));
    attributes.put("labels", || {
        let labels = document.map_or(&[][..], |d| &d.facts.security);
        texts(labels.iter().map(|label| label.code.as_str()))
    });
}

fn task_facts(task: &Task) -> Value {
    let mut attributes = Gather::of_all();
    put_task(&mut attributes, Some(task));
    record(attributes.found)
}

fn context(mentioned: &Mentioned, request: &AccessRequest<'_>) -> Result<Context, FactError> {
    let caller = request.principal;
    let more = &caller.attributes;
    let mut attributes = Gather::new(mentioned);
    attributes.put("relation", || relation(request.relation));
    attributes.put("client", || {
        let mut client = Gather::of_all();
        client.put("id", || text(&caller.client));
        client.put("trusted", || Value::new_bool(more.trusted_client));
        record(client.found)
    });
    attributes.maybe("delegate", caller.delegate.as_deref(), text);
    attributes.maybe("purposeOfUse", more.purpose_of_use.as_deref(), text);
    attributes.maybe("sessionAge", more.authenticated_at, |since| {
        Value::new_long(request.now.since(since).whole_seconds())
    });
    attributes.maybe("address", request.address, |address| {
        Value::new_ip(address.to_canonical().to_string())
    });
    attributes.put("now", || instant(request.now));
    if let Object::Content {
        task,
        approved_step,
        break_glass,
        encounter_over,
        ..
    } = request.object
    {
        attributes.put("task", || task_facts(task));
        attributes.put("approvedStep", || Value::new_bool(approved_step));
        attributes.put("breakGlass", || Value::new_bool(break_glass));
        attributes.put("encounterOver", || Value::new_bool(encounter_over));
    }
    Context::from_pairs(attributes.found).map_err(fact)
}

fn instant(at: Timestamp) -> Value {
    Value::new_datetime(at.to_instant())
}

/// One fact of a relation.
type OfRelation = fn(&mut Relation) -> &mut bool;

/// The facts of a relation, by the names that rules call them.
pub(crate) const RELATIONS: [(&str, OfRelation); 8] = [
    ("creator", |r| &mut r.creator),
    ("requester", |r| &mut r.requester),
    ("owner", |r| &mut r.owner),
    ("formerOwner", |r| &mut r.former_owner),
    ("recipient", |r| &mut r.recipient),
    ("team", |r| &mut r.team),
    ("grantee", |r| &mut r.grantee),
    ("throughTask", |r| &mut r.through_task),
];

/// Their names.
pub fn relation_names() -> [&'static str; 8] {
    RELATIONS.map(|(name, _)| name)
}

fn relation(mut relation: Relation) -> Value {
    let mut attributes = Gather::of_all();
    for (name, fact) in RELATIONS {
        let holds = *fact(&mut relation);
        attributes.put(name, || Value::new_bool(holds));
    }
    record(attributes.found)
}
