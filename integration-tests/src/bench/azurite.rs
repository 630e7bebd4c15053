//! The blob store by itself: the same bytes, fetched by the same client, without us between them. And its emulator,
//! out of the way of what is measured.

use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use handoff_integration_tests::azurite::{ACCOUNT, KEY, hmac_sha256};

use crate::failure::{Failure, Result};
use crate::http::{Body, Connection, Target};

/// A container of the emulator.
pub struct Container {
    /// Where it is.
    pub target: Target,
    url: String,
    name: String,
    signature: String,
}

impl Container {
    /// A container of the account at `url`, that need not exist yet.
    pub fn new(url: &str, name: &str) -> Result<Self> {
        let (base, _) = url
            .rsplit_once('/')
            .ok_or_else(|| Failure::new("the URL of Azurite names no account"))?;
        Ok(Self {
            target: Target::parse(base)?,
            url: format!("{url}/{name}"),
            name: name.to_owned(),
            signature: account_signature()?,
        })
    }

    /// Its URL, as servers take it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The request that reads a blob.
    pub fn fetch(&self, blob: &str) -> Bytes {
        let path = format!("/{ACCOUNT}/{}/{blob}?{}", self.name, self.signature);
        self.target
            .request("GET", &path, &[("x-ms-version", VERSION)], b"")
    }

    /// Deletes it with everything in it.
    pub async fn delete(&self) -> Result<()> {
        let path = format!("/{ACCOUNT}/{}?restype=container&{}", self.name, self.signature);
        let request = self
            .target
            .request("DELETE", &path, &[("x-ms-version", VERSION)], b"");
        let mut connection = Connection::open(&self.target).await?;
        connection
            .exchange(&request, Body::Kept)
            .await?
            .expect(202, "delete of the container")
            .map(|_| ())
    }
}

/// The emulator's process, which gives way to all others for as long as this lives. It stands for a service that has
/// machines of its own; here it shares two processors with what is measured, and a thread of it that runs delays
/// whoever is waiting for one by as much as a request takes.
#[derive(Debug)]
pub struct GivesWay(String);

impl GivesWay {
    /// Where the emulator's process is known, and may be told.
    pub fn begin() -> Option<Self> {
        let process = Self(std::env::var("HANDOFF_TEST_AZURITE_PID").ok()?);
        process.be_nice(19).then_some(process)
    }

    /// Linux shares the processors among sessions first, where it is built so, and then among the threads of each.
    fn be_nice(&self, nice: u8) -> bool {
        let session = format!("/proc/{}/autogroup", self.0);
        let in_session = std::fs::write(session, nice.to_string()).is_ok();
        let threads = Command::new("renice")
            .args(["-n", &nice.to_string(), "-g", &self.0])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        in_session || threads.is_ok_and(|status| status.success())
    }
}

impl Drop for GivesWay {
    fn drop(&mut self) {
        self.be_nice(0);
    }
}

const VERSION: &str = "2021-12-02";

/// A shared access signature of the account: reading and deleting, in blobs and containers, for years. The emulator's
/// key is published, so this is no secret.
fn account_signature() -> Result<String> {
    let (permissions, services, types, end) = ("rd", "b", "co", "2099-01-01T00:00:00Z");
    let to_sign =
        format!("{ACCOUNT}\n{permissions}\n{services}\n{types}\n\n{end}\n\nhttp,https\n{VERSION}\n\n");
    let key = STANDARD
        .decode(KEY)
        .map_err(|_| Failure::new("the emulator's key is no base64"))?;
    let signature = STANDARD.encode(hmac_sha256(&key, to_sign.as_bytes()));
    let signature = percent_encoding::utf8_percent_encode(&signature, percent_encoding::NON_ALPHANUMERIC);
    Ok(format!(
        "sv={VERSION}&ss={services}&srt={types}&sp={permissions}&se=2099-01-01T00%3A00%3A00Z&spr=http,https&sig={signature}"
    ))
}
