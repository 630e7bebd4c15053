//! A second hand on a container of the emulator: what lies in it, whatever the server says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use crate::{http_client, needed};

/// The emulator's account.
pub const ACCOUNT: &str = "devstoreaccount1";
/// Its key, which is published.
pub const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// The names of the visible objects in a container.
pub async fn objects(container: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut marker = String::new();
    loop {
        let page = list(container, &marker).await;
        let between = |from: &str, until: &str| -> Vec<String> {
            page.split(from)
                .skip(1)
                .filter_map(|rest| rest.split(until).next())
                .map(str::to_owned)
                .collect()
        };
        names.extend(between("<Name>", "</Name>"));
        match between("<NextMarker>", "</NextMarker>").pop() {
            Some(next) if !next.is_empty() => marker = next,
            _ => return names,
        }
    }
}

/// One page of a container's listing, as the emulator gives it.
async fn list(container: &str, marker: &str) -> String {
    let date = std::process::Command::new("date")
        .env("LC_ALL", "C")
        .args(["-u", "+%a, %d %b %Y %H:%M:%S GMT"])
        .output()
        .expect("`date` is installed");
    let date = String::from_utf8_lossy(&date.stdout).trim().to_owned();
    let version = "2021-12-02";
    let (signed_marker, asked_marker) = if marker.is_empty() {
        (String::new(), String::new())
    } else {
        (format!("\nmarker:{marker}"), format!("&marker={marker}"))
    };
    let to_sign = format!(
        "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:{version}\n\
         /{ACCOUNT}/{ACCOUNT}/{container}\ncomp:list{signed_marker}\nrestype:container"
    );
    let key = STANDARD.decode(KEY).expect("base64");
    let signature = STANDARD.encode(hmac_sha256(&key, to_sign.as_bytes()));
    let url = format!(
        "{}/{container}?restype=container&comp=list{asked_marker}",
        needed("HANDOFF_TEST_AZURITE_URL")
    );
    let answer = http_client()
        .get(url)
        .header("x-ms-date", date)
        .header("x-ms-version", version)
        .header("authorization", format!("SharedKey {ACCOUNT}:{signature}"))
        .send()
        .await
        .expect("the emulator answers");
    let status = answer.status();
    let listing = answer.text().await.expect("a listing");
    assert!(status.is_success(), "{status}: {listing}");
    listing
}

/// RFC 2104 for keys of at most a block, as the emulator's is.
pub fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut padded = key.to_vec();
    padded.resize(64, 0);
    let masked = |mask: u8| padded.iter().map(|byte| byte ^ mask).collect::<Vec<u8>>();
    let inner = Sha256::new()
        .chain_update(masked(0x36))
        .chain_update(message)
        .finalize();
    Sha256::new()
        .chain_update(masked(0x5c))
        .chain_update(inner)
        .finalize()
        .to_vec()
}
