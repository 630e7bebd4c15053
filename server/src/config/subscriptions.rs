//! `[subscriptions]`: the way out to subscribers, how long they are tried, and the key to what is secret in Subscriptions.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretBox, SecretString};
use toml::{Table, Value};

use super::reader::Section;
use super::{AddressRange, Problem, way};
use crate::adapters::VaultKey;

const DAY: Duration = Duration::from_hours(24);

/// `[subscriptions]`
#[derive(Debug, Clone)]
pub struct Subscriptions {
    /// The key that secrets are sealed with, and the one before it.
    pub keys: Vec<SecretString>,
    /// Networks that subscribers may be in although they are not public.
    pub allowed_networks: Vec<AddressRange>,
    /// Whether http without TLS may go to this machine itself. Never by configuration.
    pub plain_loopback: bool,
    /// PEM files of certificates that vouch for subscribers beside the public ones.
    pub ca_file: Option<PathBuf>,
    /// A proxy that everything goes through.
    pub proxy: Option<String>,
    /// How long a subscriber that can't be reached is tried.
    pub give_up_after: Duration,
    /// How long events are kept.
    pub keep: Duration,
    /// The most Subscriptions of one creator that are not off.
    pub most_of_one: u64,
    /// The most of a tenant.
    pub most: u64,
}

impl Default for Subscriptions {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            allowed_networks: Vec::new(),
            plain_loopback: false,
            ca_file: None,
            proxy: None,
            give_up_after: DAY * 3,
            keep: DAY * 14,
            most_of_one: 2_000,
            most: 10_000,
        }
    }
}

impl Subscriptions {
    /// The keys, decoded.
    pub fn vault_keys(&self) -> Vec<VaultKey> {
        self.keys
            .iter()
            .filter_map(|text| decode(text.expose_secret()))
            .collect()
    }
}

/// 32 bytes in base64.
fn decode(text: &str) -> Option<VaultKey> {
    let bytes: [u8; 32] = STANDARD.decode(text.trim()).ok()?.try_into().ok()?;
    Some(SecretBox::new(Box::new(bytes)))
}

pub(super) fn read(root: &mut Table, problems: &mut Vec<Problem>) -> Subscriptions {
    let defaults = Subscriptions::default();
    let mut section = Section::take(root, "subscriptions", problems);
    let remedy = "set it to 32 random bytes in base64, as `openssl rand -base64 32` makes them";
    let mut keys = Vec::new();
    for (key, file) in [("key", "key_file"), ("previous_key", "previous_key_file")] {
        if let Some(text) = section.secret(key, file) {
            if decode(text.expose_secret()).is_none() {
                section.problem(key, "is not 32 bytes in base64", remedy);
            }
            keys.push(text);
        }
    }
    let allowed_networks = section
        .texts("allowed_networks")
        .unwrap_or_default()
        .iter()
        .filter_map(|text| {
            let parsed = text.parse();
            if parsed.is_err() {
                section.problem(
                    "allowed_networks",
                    format!("`{text}` is no address range"),
                    "write ranges like `10.20.0.0/16`",
                );
            }
            parsed.ok()
        })
        .collect();
    let ca_file = way::ca_file(&mut section);
    let proxy = way::proxy(&mut section);
    let days = |count: u64| DAY * u32::try_from(count).unwrap_or(1);
    let give_up_after = days(section.number("give_up_days", 3, 1, 30));
    let keep = days(section.number("keep_days", 14, 1, 365));
    if keep < give_up_after {
        section.problem(
            "keep_days",
            "is less than `give_up_days`: events would be lost before they are given up",
            "keep them for longer",
        );
    }
    let most_of_one = section.number("most_of_one", defaults.most_of_one, 1, 100_000);
    let most = section.number("most", defaults.most, 1, 100_000);
    section.finish();
    Subscriptions {
        keys,
        allowed_networks,
        plain_loopback: false,
        ca_file,
        proxy,
        give_up_after,
        keep,
        most_of_one,
        most,
    }
}

pub(super) fn show(subscriptions: &Subscriptions) -> Vec<(&'static str, Value)> {
    let text = |value: &dyn ToString| Value::String(value.to_string());
    let number = |value: u64| Value::Integer(i64::try_from(value).unwrap_or(i64::MAX));
    let days = |span: Duration| number(span.as_secs() / DAY.as_secs());
    let mut entries = Vec::new();
    let names = ["key", "previous_key"];
    for (name, _) in names.iter().zip(&subscriptions.keys) {
        entries.push((*name, text(&"(hidden)")));
    }
    let networks = subscriptions
        .allowed_networks
        .iter()
        .map(|one| text(one))
        .collect();
    entries.push(("allowed_networks", Value::Array(networks)));
    entries.extend(way::show(
        subscriptions.ca_file.as_ref(),
        subscriptions.proxy.as_ref(),
    ));
    entries.extend([
        ("give_up_days", days(subscriptions.give_up_after)),
        ("keep_days", days(subscriptions.keep)),
        ("most_of_one", number(subscriptions.most_of_one)),
        ("most", number(subscriptions.most)),
    ]);
    entries
}
