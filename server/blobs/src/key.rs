//! Keys of stored objects, `{tenant}/{id}`, checked before they become a path or a URL.

use handoff_domain::ports::BlobError;

/// A checked key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    tenant: String,
    id: String,
}

impl Key {
    /// The key in `text`. Whatever else it is, there is no such object.
    pub(crate) fn parse(text: &str) -> Result<Self, BlobError> {
        match text.split_once('/') {
            Some((tenant, id)) if is_part(tenant) && is_part(id) => Ok(Self {
                tenant: tenant.to_owned(),
                id: id.to_owned(),
            }),
            _ => Err(BlobError::NotFound),
        }
    }

    pub(crate) fn tenant(&self) -> &str {
        &self.tenant
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// `{tenant}/{id}`.
    pub(crate) fn to_name(&self) -> String {
        format!("{}/{}", self.tenant, self.id)
    }
}

/// A FHIR id without a dot at either end: in front it would hide the file or climb out of the folder, and behind
/// it Azure drops it, so that two keys would be one.
fn is_part(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
        && !text.starts_with('.')
        && !text.ends_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tenant_and_an_id_make_a_key() {
        assert_eq!(Key::parse("north/b-1.x").unwrap().to_name(), "north/b-1.x");
        for text in [
            "",
            "a",
            "/",
            "a/",
            "/a",
            "a/b/c",
            "../a",
            "a/..",
            "a/.",
            "./a",
            ".incoming/a",
            "a/b.",
            "a\\b/c",
            "a/b\0",
            "a/%2e%2e",
            "a/b c",
            "a/é",
            "//a",
            "a//b",
        ] {
            assert_eq!(Key::parse(text), Err(BlobError::NotFound), "{text:?}");
        }
        assert!(Key::parse(&format!("a/{}", "b".repeat(65))).is_err());
    }
}
