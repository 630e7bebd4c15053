//! What the ways out to other servers have in common, in whichever section they stand: the secret that opens them, the time they get, who
//! vouches for them, and the proxy before them.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use handoff_domain::ports::check_sent_header;
use secrecy::{ExposeSecret as _, SecretString};
use toml::Value;
use url::Url;

use super::reader::Section;
use super::redact_url;
use super::units::show_duration;

/// The value of `Authorization` that is sent along.
pub(super) fn authorization(section: &mut Section<'_>) -> Option<SecretString> {
    let authorization = section.secret("authorization", "authorization_file");
    if let Some(value) = &authorization
        && let Err(error) = check_sent_header("Authorization", value.expose_secret())
    {
        section.problem(
            "authorization",
            error.to_string(),
            "set it to the header's value, like `Bearer …`",
        );
    }
    authorization
}

/// How long an answer may take.
pub(super) fn timeout(section: &mut Section<'_>, default: Duration, longest: Duration) -> Duration {
    let timeout = section.duration("timeout", default);
    if timeout > longest {
        let text = format!("is longer than {}", show_duration(longest));
        section.problem("timeout", text, "let it be shorter");
    }
    timeout
}

/// A PEM file of certificates that vouch for the other side beside the public ones.
pub(super) fn ca_file(section: &mut Section<'_>) -> Option<PathBuf> {
    let ca_file = section.text("ca_file").map(PathBuf::from);
    if let Some(path) = &ca_file
        && fs::read(path).is_err()
    {
        section.problem("ca_file", "can't be read", "name a readable PEM file");
    }
    ca_file
}

/// A proxy that everything goes through.
pub(super) fn proxy(section: &mut Section<'_>) -> Option<String> {
    section.parsed("proxy", "set it to `http://HOST:PORT`", |text| {
        let url = Url::parse(text).ok()?;
        let fits = matches!(url.scheme(), "http" | "https") && url.has_host();
        fits.then(|| text.to_owned())
    })
}

/// Both as they are shown, where they are set.
pub(super) fn show(ca_file: Option<&PathBuf>, proxy: Option<&String>) -> Vec<(&'static str, Value)> {
    let ca_file = ca_file.map(|path| ("ca_file", Value::String(path.display().to_string())));
    let proxy = proxy.map(|proxy| ("proxy", Value::String(redact_url(proxy))));
    ca_file.into_iter().chain(proxy).collect()
}
