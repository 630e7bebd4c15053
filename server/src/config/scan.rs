//! `[scan]`: whether content is released only once it was scanned for malware, and who scans it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use handoff_blobs::BlobConfig;
use toml::{Table, Value};

use super::Problem;
use super::reader::Section;
use super::units::{parse_duration, show_duration, show_size};

/// What ClamAV looks at as Debian configures it.
const MAX_SIZE: u64 = 25 << 20;
const MAX_AGE: Duration = Duration::from_hours(30 * 24);
const SHORTEST_AGE: Duration = Duration::from_mins(1);
const LONGEST_AGE: Duration = Duration::from_hours(3650 * 24);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_mins(2);
const AT_ONCE: u64 = 4;
/// The tag that Defender for Storage sets.
const RESULT_TAG: &str = "Malware Scanning scan result";

/// `[scan]`, where releases ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// Who scans.
    pub kind: Kind,
    /// How old a verdict may be.
    pub max_age: Duration,
    /// How much is scanned at once.
    pub at_once: usize,
}

/// Where a daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// On loopback.
    Tcp(SocketAddr),
    /// At a socket of this machine.
    Unix(PathBuf),
}

/// Who scans content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// ClamAV's daemon.
    ClamAv {
        /// Where it listens.
        address: Address,
        /// How long it may take to take a connection.
        connect_timeout: Duration,
        /// How long it may take no byte, or give no answer.
        timeout: Duration,
        /// The largest content that it is sent.
        max_size: u64,
    },
    /// Microsoft Defender for Storage.
    AzureDefender {
        /// The index tag with its result.
        result_tag: String,
    },
}

impl Kind {
    /// The word in the file.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::ClamAv { .. } => "clamav",
            Self::AzureDefender { .. } => "azure-defender",
        }
    }
}

/// Reads it; `None` where nothing is scanned.
pub(super) fn read(root: &mut Table, problems: &mut Vec<Problem>, blobs: &BlobConfig) -> Option<Scan> {
    if !root.contains_key("scan") {
        return None;
    }
    let mut section = Section::take(root, "scan", problems);
    let required = section.flag("required", true);
    let absent = section.is_absent("kind");
    let kind = match section.text("kind").as_deref() {
        Some("clamav") => clamav(&mut section),
        Some("azure-defender") => defender(&mut section, blobs),
        Some(other) => {
            let text = format!("`{other}` is no kind of scanner");
            section.problem("kind", text, "set it to `clamav` or `azure-defender`");
            None
        }
        None => {
            if absent && required {
                section.problem("kind", "is missing", "set it to `clamav` or `azure-defender`");
            }
            None
        }
    };
    let age = section.parsed(
        "max_age",
        "set it to a time from `1 min` to `87600 h`, like `720 h`",
        |text| parse_duration(text).filter(|age| (SHORTEST_AGE..=LONGEST_AGE).contains(age)),
    );
    let at_once = section.number("at_once", AT_ONCE, 1, 64);
    section.finish();
    let scan = Scan {
        kind: kind?,
        max_age: age.unwrap_or(MAX_AGE),
        at_once: usize::try_from(at_once).unwrap_or(1),
    };
    required.then_some(scan)
}

fn clamav(section: &mut Section<'_>) -> Option<Kind> {
    let remedy = "set it to where clamd listens, on loopback like `127.0.0.1:3310` or at a socket like `/run/clamav/clamd.ctl`";
    let absent = section.is_absent("address");
    let text = section.text("address");
    let address = text.as_deref().and_then(address);
    match (&text, &address) {
        (None, _) if absent => section.problem("address", "is missing", remedy),
        (Some(text), None) => section.problem("address", format!("`{text}` does not fit"), remedy),
        (_, Some(Address::Tcp(tcp))) if !tcp.ip().is_loopback() => section.problem(
            "address",
            format!("`{tcp}` is another machine, and clamd takes content in the clear"),
            "run it beside this server, or lead there from loopback through a tunnel",
        ),
        _ => {}
    }
    let connect_timeout = section.duration("connect_timeout", CONNECT_TIMEOUT);
    let timeout = section.duration("timeout", TIMEOUT);
    let max_size = section.size("max_size", MAX_SIZE);
    Some(Kind::ClamAv {
        address: address?,
        connect_timeout,
        timeout,
        max_size,
    })
}

fn address(text: &str) -> Option<Address> {
    let text = text.trim();
    let path = text.strip_prefix("unix:").unwrap_or(text);
    if path.starts_with('/') {
        return Some(Address::Unix(path.into()));
    }
    text.parse::<SocketAddr>().ok().map(Address::Tcp)
}

fn defender(section: &mut Section<'_>, blobs: &BlobConfig) -> Option<Kind> {
    let tag = section.parsed(
        "result_tag",
        "set it to the key of the index tag with the result, up to 128 characters",
        |text| (text.chars().count() <= 128).then(|| text.to_owned()),
    );
    if !matches!(blobs, BlobConfig::Azure(_)) {
        section.problem(
            "kind",
            "Defender scans an Azure container, and `blobs.url` is none",
            "use `clamav`, or keep content in Azure Blob Storage",
        );
        return None;
    }
    Some(Kind::AzureDefender {
        result_tag: tag.unwrap_or_else(|| RESULT_TAG.to_owned()),
    })
}

pub(super) fn show(scan: &Scan) -> Vec<(&'static str, Value)> {
    let text = |value: String| Value::String(value);
    let mut entries = vec![
        ("required", Value::Boolean(true)),
        ("kind", text(scan.kind.as_str().to_owned())),
        ("max_age", text(show_duration(scan.max_age))),
        (
            "at_once",
            Value::Integer(i64::try_from(scan.at_once).unwrap_or(i64::MAX)),
        ),
    ];
    match &scan.kind {
        Kind::ClamAv {
            address,
            connect_timeout,
            timeout,
            max_size,
        } => {
            let address = match address {
                Address::Tcp(tcp) => tcp.to_string(),
                Address::Unix(path) => path.display().to_string(),
            };
            entries.push(("address", text(address)));
            entries.push(("connect_timeout", text(show_duration(*connect_timeout))));
            entries.push(("timeout", text(show_duration(*timeout))));
            entries.push(("max_size", text(show_size(*max_size))));
        }
        Kind::AzureDefender { result_tag } => entries.push(("result_tag", text(result_tag.clone()))),
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    const AZURE: &str = "https://acct.blob.core.windows.net/handoff";

    fn parsed(text: &str, blobs: &str) -> (Option<Scan>, Vec<String>) {
        let mut root = text.parse::<Table>().unwrap();
        let mut problems = Vec::new();
        let scan = read(&mut root, &mut problems, &BlobConfig::parse(blobs).unwrap());
        assert!(root.is_empty());
        let told = problems.iter().map(|p| format!("{}: {}", p.key, p.text));
        (scan, told.collect())
    }

    fn told(text: &str) -> Vec<String> {
        parsed(text, "file:///blobs").1
    }

    #[test]
    fn nothing_is_scanned_unless_it_is_asked_for() {
        assert_eq!(parsed("", "file:///blobs"), (None, Vec::new()));
        assert_eq!(
            parsed("[scan]\nrequired = false", "file:///blobs"),
            (None, Vec::new())
        );
    }

    #[test]
    fn a_daemon_is_named_by_its_address_or_its_socket() {
        let (scan, problems) = parsed(
            "[scan]\nkind = \"clamav\"\naddress = \"127.0.0.1:3310\"\nmax_age = \"24 h\"\nat_once = 2",
            "file:///blobs",
        );
        assert_eq!(problems, [""; 0]);
        let scan = scan.unwrap();
        assert_eq!((scan.max_age, scan.at_once), (Duration::from_hours(24), 2));
        for (text, address) in [
            ("/run/clamd.ctl", Address::Unix("/run/clamd.ctl".into())),
            ("unix:/run/clamd.ctl", Address::Unix("/run/clamd.ctl".into())),
            ("[::1]:3310", Address::Tcp("[::1]:3310".parse().unwrap())),
        ] {
            let text = format!("[scan]\nkind = \"clamav\"\naddress = \"{text}\"");
            let Some(Scan {
                kind: Kind::ClamAv { address: found, .. },
                ..
            }) = parsed(&text, "file:///blobs").0
            else {
                panic!("{text}");
            };
            assert_eq!(found, address);
        }
    }

    #[test]
    fn what_does_not_fit_is_told_all_at_once() {
        let problems = told(
            "[scan]\nkind = \"clamav\"\naddress = \"clamd\"\nmax_age = \"1 s\"\nat_once = 0\ntimeout = \"never\"\ncolour = 1",
        );
        let keys: Vec<&str> = problems.iter().filter_map(|p| p.split(':').next()).collect();
        assert_eq!(
            keys,
            [
                "scan.address",
                "scan.timeout",
                "scan.max_age",
                "scan.at_once",
                "scan.colour"
            ]
        );
        for (text, key) in [
            ("[scan]", "scan.kind"),
            ("[scan]\nkind = \"norton\"", "scan.kind"),
            ("[scan]\nkind = \"clamav\"", "scan.address"),
            ("[scan]\nkind = \"azure-defender\"", "scan.kind"),
            (
                "[scan]\nkind = \"clamav\"\naddress = \"10.0.0.7:3310\"",
                "scan.address",
            ),
            (
                "[scan]\nkind = \"clamav\"\naddress = \"127.0.0.1:3310\"\nresult_tag = \"t\"",
                "scan.result_tag",
            ),
        ] {
            let problems = told(text);
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
            assert!(problems[0].starts_with(key), "{text}: {problems:?}");
        }
    }

    #[test]
    fn defender_scans_an_azure_container_by_a_tag_of_ours_or_its_own() {
        let tag_of = |text: &str| match parsed(text, AZURE).0.unwrap().kind {
            Kind::AzureDefender { result_tag } => result_tag,
            Kind::ClamAv { .. } => panic!("{text}"),
        };
        assert_eq!(tag_of("[scan]\nkind = \"azure-defender\""), RESULT_TAG);
        let own = "[scan]\nkind = \"azure-defender\"\nresult_tag = \"verdict\"";
        assert_eq!(tag_of(own), "verdict");
    }

    #[test]
    fn what_is_shown_is_read_back_the_same() {
        for (text, blobs) in [
            (
                "[scan]\nkind = \"clamav\"\naddress = \"127.0.0.1:3310\"",
                "file:///blobs",
            ),
            (
                "[scan]\nkind = \"azure-defender\"\nresult_tag = \"verdict\"",
                AZURE,
            ),
        ] {
            let scan = parsed(text, blobs).0.unwrap();
            let mut section = Table::new();
            for (key, value) in show(&scan) {
                section.insert(key.to_owned(), value);
            }
            let root = Table::from_iter([("scan".to_owned(), Value::Table(section))]);
            assert_eq!(parsed(&root.to_string(), blobs), (Some(scan), Vec::new()));
        }
    }
}
