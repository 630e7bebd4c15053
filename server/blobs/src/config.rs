//! Where the bytes are kept: a directory, or a container of a storage account with the credential for it.
//! Reads no file and no environment; secrets come in already wrapped.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use url::{Host, Url};

/// The emulator's account, the same on every machine (Azurite's README, "Default Storage Account").
const EMULATOR_ACCOUNT: &str = "devstoreaccount1";
/// The emulator's published key. It opens nothing but emulators.
const EMULATOR_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Which store, and where.
#[derive(Debug, Clone)]
pub enum BlobConfig {
    /// A folder on this machine, the embedded default.
    Directory {
        /// Made where it is missing.
        path: PathBuf,
    },
    /// A container of Azure Blob Storage.
    Azure(AzureConfig),
}

/// A container of Azure Blob Storage.
#[derive(Debug, Clone)]
pub struct AzureConfig {
    /// `https://ACCOUNT.blob.core.windows.net`, or `http://127.0.0.1:10000/devstoreaccount1` for the emulator.
    pub account_url: Url,
    /// Name of a private container.
    pub container: String,
    /// What opens it.
    pub credential: AzureCredential,
    /// Whether to create the container, private, where it is missing.
    pub create_container: bool,
}

/// What opens a container.
#[derive(Debug, Clone)]
pub enum AzureCredential {
    /// The account's shared key, in base64.
    Key(SecretString),
    /// An account SAS with read, write, delete and list on containers and objects, with or without its `?`.
    Sas(SecretString),
    /// The identity of the workload, as `azure_identity` finds it: federated token (AKS), client secret,
    /// managed identity, the `az` command line.
    WorkloadIdentity,
}

/// A store that can't be configured like this. Never shows a credential.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BlobConfigError {
    /// Not a URL, or one of another scheme.
    #[error(
        "expected `file:///PATH`, `https://ACCOUNT.blob.core.windows.net/CONTAINER` or an emulator's `http://` URL"
    )]
    NotAStore,
    /// The path has no container, or something after it.
    #[error("the URL must end in the name of one container")]
    Container,
    /// The name is not one that Azure takes.
    #[error("`{0}` is not a container name: 3 to 63 of `a-z`, `0-9` and single `-`")]
    ContainerName(String),
    /// The account's name is not in the URL.
    #[error("the URL does not name a storage account")]
    Account,
    /// A bearer credential would cross the network in the clear.
    #[error("`http` is for the emulator: a SAS or an identity's token needs `https`")]
    Plaintext,
}

impl BlobConfig {
    /// The store that a URL names: `file:///srv/handoff/blobs`, `https://ACCOUNT.blob.core.windows.net/CONTAINER`
    /// (with the workload's identity, or the SAS in its query), or `http://127.0.0.1:10000/devstoreaccount1/CONTAINER`
    /// (the emulator, with its published key).
    pub fn parse(text: &str) -> Result<Self, BlobConfigError> {
        let mut url = Url::parse(text).map_err(|_| BlobConfigError::NotAStore)?;
        match url.scheme() {
            "file" => {
                let path = url.to_file_path().map_err(|()| BlobConfigError::NotAStore)?;
                Ok(Self::Directory { path })
            }
            "http" | "https" => {
                let sas = url.query().filter(|q| !q.is_empty()).map(SecretString::from);
                url.set_query(None);
                url.set_fragment(None);
                let container = pop_segment(&mut url).ok_or(BlobConfigError::Container)?;
                let emulator = is_loopback(&url) && account_of(&url).as_deref() == Some(EMULATOR_ACCOUNT);
                let credential = match sas {
                    Some(sas) => AzureCredential::Sas(sas),
                    None if emulator => AzureCredential::Key(SecretString::from(EMULATOR_KEY)),
                    None => AzureCredential::WorkloadIdentity,
                };
                let azure = AzureConfig {
                    account_url: url,
                    container,
                    credential,
                    create_container: emulator,
                };
                azure.check()?;
                Ok(Self::Azure(azure))
            }
            _ => Err(BlobConfigError::NotAStore),
        }
    }
}

impl AzureConfig {
    /// Whether this can be a store at all, and answers the account's name.
    pub fn check(&self) -> Result<String, BlobConfigError> {
        if !is_container_name(&self.container) {
            return Err(BlobConfigError::ContainerName(self.container.clone()));
        }
        let account = account_of(&self.account_url).ok_or(BlobConfigError::Account)?;
        match self.account_url.scheme() {
            "https" => {}
            // A shared key signs and does not travel.
            "http"
                if is_loopback(&self.account_url) || matches!(self.credential, AzureCredential::Key(_)) => {}
            "http" => return Err(BlobConfigError::Plaintext),
            _ => return Err(BlobConfigError::NotAStore),
        }
        if let AzureCredential::Sas(sas) = &self.credential
            && !sas.expose_secret().contains("sig=")
        {
            return Err(BlobConfigError::NotAStore);
        }
        Ok(account)
    }
}

/// Takes the last path segment off.
fn pop_segment(url: &mut Url) -> Option<String> {
    let last = url.path_segments()?.rfind(|s| !s.is_empty())?.to_owned();
    let mut segments = url.path_segments_mut().ok()?;
    segments.pop_if_empty().pop();
    Some(last)
}

/// The account: the path where there is one (emulator), else the host's first label.
fn account_of(url: &Url) -> Option<String> {
    let mut path = url.path_segments()?.filter(|s| !s.is_empty());
    match (path.next(), path.next(), url.host()?) {
        (Some(account), None, _) => Some(account.to_owned()),
        (None, _, Host::Domain(name)) => name
            .split_once('.')
            .map(|(account, _)| account.to_owned())
            .filter(|a| !a.is_empty()),
        _ => None,
    }
}

pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Azure's rule for container names ("Naming and Referencing Containers, Blobs, and Metadata").
fn is_container_name(name: &str) -> bool {
    (3..=63).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn azure(text: &str) -> AzureConfig {
        match BlobConfig::parse(text).unwrap() {
            BlobConfig::Azure(azure) => azure,
            other @ BlobConfig::Directory { .. } => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_url_names_a_directory() {
        let config = BlobConfig::parse("file:///srv/handoff%20blobs").unwrap();
        assert!(matches!(config, BlobConfig::Directory { path } if path.as_os_str() == "/srv/handoff blobs"));
    }

    #[test]
    fn the_emulator_on_loopback_gets_its_published_key() {
        let config = azure("http://127.0.0.1:10000/devstoreaccount1/handoff/");
        assert_eq!(
            config.account_url.as_str(),
            "http://127.0.0.1:10000/devstoreaccount1"
        );
        assert_eq!(config.container, "handoff");
        assert!(matches!(config.credential, AzureCredential::Key(_)));
        assert!(config.create_container);
    }

    #[test]
    fn an_account_gets_the_workloads_identity_or_the_sas_of_its_url() {
        let config = azure("https://acct.blob.core.windows.net/handoff");
        assert_eq!(config.check().unwrap(), "acct");
        assert!(matches!(config.credential, AzureCredential::WorkloadIdentity));
        assert!(!config.create_container);
        let config = azure("https://acct.blob.core.windows.net/handoff?sv=1&sig=s3cret");
        assert!(matches!(config.credential, AzureCredential::Sas(_)));
        assert!(
            !format!("{config:?}").contains("s3cret"),
            "a SAS must not be printed"
        );
    }

    #[test]
    fn what_is_no_store_is_refused() {
        for (text, error) in [
            ("ftp://x/y", BlobConfigError::NotAStore),
            ("blobs", BlobConfigError::NotAStore),
            ("https://acct.blob.core.windows.net/", BlobConfigError::Container),
            (
                "https://acct.blob.core.windows.net/a/b/handoff",
                BlobConfigError::Account,
            ),
            (
                "https://acct.blob.core.windows.net/No",
                BlobConfigError::ContainerName("No".to_owned()),
            ),
            (
                "http://acct.blob.core.windows.net/handoff",
                BlobConfigError::Plaintext,
            ),
            (
                "http://azurite:10000/devstoreaccount1/handoff?sv=1&sig=x",
                BlobConfigError::Plaintext,
            ),
        ] {
            assert_eq!(BlobConfig::parse(text).unwrap_err(), error, "{text}");
        }
    }
}
