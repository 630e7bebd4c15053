//! The configuration in force as TOML, without anything secret.

use std::time::Duration;

use handoff_blobs::{AzureCredential, BlobConfig};
use handoff_domain::time::Span;
use handoff_identity::IssuerConfig;
use secrecy::ExposeSecret;
use toml::{Table, Value};
use url::Url;

use super::units::{show_duration, show_size};
use super::{Blobs, Config, Limits, Timeouts};

/// What stands for a secret.
const HIDDEN: &str = "(hidden)";

/// `text` with every part that may be secret hidden: the password, and the value of every query parameter.
pub fn redact_url(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else {
        return HIDDEN.to_owned();
    };
    if url.password().is_some() && url.set_password(Some("hidden")).is_err() {
        return HIDDEN.to_owned();
    }
    let names: Vec<String> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
    if !names.is_empty() {
        url.query_pairs_mut()
            .clear()
            .extend_pairs(names.iter().map(|name| (name, "hidden")));
    }
    url.set_fragment(None);
    url.to_string()
}

impl Config {
    /// The configuration in force as TOML, with secrets hidden.
    pub fn show(&self) -> String {
        let mut root = Table::new();
        let mut section = |name: &str, entries: Vec<(&str, Value)>| {
            root.insert(name.to_owned(), table(entries));
        };
        section(
            "server",
            vec![
                ("listen", text(&self.server.listen)),
                ("public_url", text(&self.server.public_url)),
                ("trusted_proxies", list(&self.server.trusted_proxies)),
                ("cors_origins", list(&self.server.cors_origins)),
                ("workers", number(self.server.workers as u64)),
                ("replicas", number(self.server.replicas.into())),
            ],
        );
        section("admin", vec![("listen", text(&self.admin.listen))]);
        section(
            "database",
            vec![
                ("url", text(&redact_url(self.database.url.expose_secret()))),
                ("pool", number(self.database.pool.into())),
                ("listen", Value::Boolean(self.database.listen)),
            ],
        );
        section("blobs", blobs(&self.blobs));
        let files = [
            ("directory", &self.policies.directory),
            ("workflow", &self.policies.workflow),
            ("retention", &self.policies.retention),
        ];
        let named: Vec<_> = files
            .into_iter()
            .filter_map(|(key, path)| Some((key, text(&path.as_ref()?.display()))))
            .collect();
        if !named.is_empty() {
            section("policies", named);
        }
        section("limits", limits(&self.limits));
        section("timeouts", timeouts(&self.timeouts));
        section("clients", super::clients::show(&self.clients));
        section("sessions", super::sessions::show(&self.sessions));
        section("subscriptions", super::subscriptions::show(&self.subscriptions));
        section("websockets", super::websockets::show(&self.websockets));
        section("audit", super::audit::show(&self.audit));
        section(
            "log",
            vec![
                ("format", text(&self.log.format.as_str())),
                ("filter", text(&self.log.filter)),
            ],
        );
        root.insert(
            "issuers".to_owned(),
            Value::Array(self.issuers.iter().map(issuer).collect()),
        );
        if !self.forwarding.is_empty() {
            let sinks = self.forwarding.iter().map(super::forwarding::show).map(table);
            root.insert("forwarding".to_owned(), Value::Array(sinks.collect()));
        }
        if let Some(scan) = &self.scan {
            root.insert("scan".to_owned(), table(super::scan::show(scan)));
        }
        if let Some(traces) = &self.traces {
            root.insert("traces".to_owned(), table(super::traces::show(traces)));
        }
        root.to_string()
    }
}

fn table(entries: Vec<(&str, Value)>) -> Value {
    Value::Table(
        entries
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
    )
}

fn text(value: &impl ToString) -> Value {
    Value::String(value.to_string())
}

fn list<T: ToString>(values: &[T]) -> Value {
    Value::Array(values.iter().map(text).collect())
}

fn number(value: u64) -> Value {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

fn blobs(blobs: &Blobs) -> Vec<(&'static str, Value)> {
    let time = |span: Span| {
        let seconds = u64::try_from(span.whole_seconds()).unwrap_or(0);
        Value::String(show_duration(Duration::from_secs(seconds)))
    };
    let mut entries = vec![
        ("url", text(&blobs.shown)),
        ("reconcile_every", time(blobs.reconciling.every)),
    ];
    if let Some(after) = blobs.reconciling.remove_after {
        entries.push(("remove_orphans_after", time(after)));
    }
    if let BlobConfig::Azure(azure) = &blobs.config {
        match azure.credential {
            AzureCredential::Key(_) => entries.push(("key", text(&HIDDEN))),
            AzureCredential::Sas(_) => entries.push(("sas", text(&HIDDEN))),
            AzureCredential::WorkloadIdentity => {}
        }
        entries.push(("create_container", Value::Boolean(azure.create_container)));
    }
    entries
}

fn limits(limits: &Limits) -> Vec<(&'static str, Value)> {
    let size = |bytes: u64| Value::String(show_size(bytes));
    vec![
        ("max_binary", size(limits.max_binary)),
        ("max_inline", size(limits.max_inline)),
        ("max_bundle", size(limits.max_bundle as u64)),
        ("max_entries", number(limits.max_entries as u64)),
        ("max_resource", size(limits.max_resource as u64)),
        ("max_body", size(limits.max_body as u64)),
    ]
}

fn timeouts(timeouts: &Timeouts) -> Vec<(&'static str, Value)> {
    let time = |duration| Value::String(show_duration(duration));
    vec![
        ("request_header", time(timeouts.request_header)),
        ("body_idle", time(timeouts.body_idle)),
        ("body_whole", time(timeouts.body_whole)),
        ("keep_alive", time(timeouts.keep_alive)),
        ("disconnect", time(timeouts.disconnect)),
        ("shutdown", time(timeouts.shutdown)),
    ]
}

fn issuer(issuer: &IssuerConfig) -> Value {
    let mut roles: Vec<(&str, Value)> = issuer
        .role_map
        .iter()
        .map(|(name, role)| (name.as_str(), text(&role.as_str())))
        .collect();
    roles.sort_by_key(|(name, _)| *name);
    let algorithms: Vec<&str> = issuer.algorithms.iter().map(|alg| alg.as_str()).collect();
    let mut entries = vec![
        ("issuer", text(&issuer.issuer)),
        ("tenant", text(&issuer.tenant)),
        ("audience", list(&issuer.audience)),
        ("algorithms", list(&algorithms)),
        ("actor_claim", text(&issuer.claims.actor)),
        ("roles_claim", text(&issuer.claims.roles)),
        ("teams_claim", text(&issuer.claims.teams)),
        ("client_claims", list(&issuer.claims.client)),
        ("scope_claims", list(&issuer.claims.scope)),
        ("patient_claim", text(&issuer.claims.patient)),
        ("leeway_seconds", Value::Integer(issuer.leeway_seconds)),
        ("require_at_jwt", Value::Boolean(issuer.require_at_jwt_typ)),
        ("require_jti", Value::Boolean(issuer.require_jti)),
        ("roles", table(roles)),
    ];
    entries.push(("department_claim", text(&issuer.claims.department)));
    entries.push(("location_claim", text(&issuer.claims.location)));
    entries.push(("purpose_of_use_claim", text(&issuer.claims.purpose_of_use)));
    entries.push(("dpop_nonce", Value::Boolean(issuer.require_dpop_nonce)));
    if !issuer.trusted_clients.is_empty() {
        let clients: Vec<&str> = issuer.trusted_clients.iter().map(String::as_str).collect();
        entries.push(("trusted_clients", list(&clients)));
    }
    if let Some(sign_in) = &issuer.sign_in {
        entries.push(("sign_in_client_id", text(&sign_in.client_id)));
        if sign_in.client_secret.is_some() {
            entries.push(("sign_in_client_secret", text(&HIDDEN)));
        }
        entries.push(("sign_in_scopes", list(&sign_in.scopes)));
        entries.push(("sign_in_label", text(&sign_in.label)));
    }
    if let Some(introspection) = &issuer.introspection {
        entries.push(("introspection_client_id", text(&introspection.client_id)));
        entries.push(("introspection_client_secret", text(&HIDDEN)));
        if let Some(endpoint) = &introspection.endpoint {
            entries.push(("introspection_endpoint", text(endpoint)));
        }
        entries.push((
            "introspection_remember_seconds",
            Value::Integer(introspection.remember_seconds),
        ));
    }
    if let Some(kind) = &issuer.client_actor {
        entries.push(("client_actor", text(kind)));
    }
    table(entries)
}
