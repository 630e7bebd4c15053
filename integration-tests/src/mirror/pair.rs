//! The two servers: one as a source, another that mirrors it, each a process with stores and an issuer of its own, and the
//! trouble between them.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use handoff_policies::{SHIPPED_WORKFLOWS, Source};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};

use super::moving::NARROWED;
use super::trouble::Trouble;
use crate::chaos::servers::Fleet;
use crate::chaos::stand::Stand;
use crate::process::run_with;
use crate::{Backend, Client, http_client};

/// The source's name at the mirror.
pub const SOURCE: &str = "other";
const TOPICS: [&str; 2] = [
    "https://handoff.example/fhir/SubscriptionTopic/task-status-changed",
    "https://handoff.example/fhir/SubscriptionTopic/task-assigned",
];

/// One side.
pub struct Side {
    /// Its stores.
    pub stand: Stand,
    /// Its process and its issuer.
    pub fleet: Fleet,
}

impl Side {
    async fn start(backend: Backend, more: impl FnOnce(&Stand) -> Vec<String>) -> Self {
        let stand = Stand::prepare(backend);
        let more = more(&stand);
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let fleet = Fleet::start_with(&stand, 1, &more).await;
        Self { stand, fleet }
    }

    /// Where it serves.
    pub fn base(&self) -> &str {
        &self.fleet.servers[0].base
    }

    /// One of the cast there.
    pub async fn client(&self, name: &str) -> Client {
        Client::sign_in(&http_client(), &self.fleet.issuer, self.base(), name).await
    }
}

/// Both.
pub struct Pair {
    /// The source.
    pub source: Side,
    /// The mirror.
    pub mirror: Side,
    /// What stands between them.
    pub trouble: Trouble,
}

impl Pair {
    /// Starts both. The mirror subscribes at the source to whatever becomes of Tasks.
    pub async fn start(backend: Backend, choice: fastrand::Rng) -> Self {
        let source = Side::start(backend, |_| Vec::new()).await;
        let mirror = Side::start(backend, |stand| {
            let policies = stand.folder().join("policies");
            std::fs::create_dir(&policies).expect("a folder");
            for (name, text) in Source::shipped().rules {
                std::fs::write(policies.join(name), text).expect("a file");
            }
            std::fs::write(policies.join("workflow.toml"), narrowed()).expect("a file");
            vec!["--policies".to_owned(), policies.display().to_string()]
        })
        .await;
        let target = format!("{}/notifications/{SOURCE}", mirror.base());
        let trouble = Trouble::before(target, choice).await;
        introduce(&source, &mirror, &trouble.base).await;
        Self {
            source,
            mirror,
            trouble,
        }
    }

    /// From now on the mirror's workflow allows what the source's does.
    pub fn widen(&self) {
        let file = self.workflow();
        let beside = file.with_extension("new");
        std::fs::write(&beside, SHIPPED_WORKFLOWS).expect("a file");
        std::fs::rename(&beside, &file).expect("the file is replaced");
    }

    fn workflow(&self) -> PathBuf {
        self.mirror.stand.folder().join("policies").join("workflow.toml")
    }
}

/// The shipped workflows, and one in which no Task fails.
fn narrowed() -> String {
    let (system, code) = NARROWED;
    format!(
        r#"{SHIPPED_WORKFLOWS}
[[workflow]]
system = "{system}"
code = "{code}"

[workflow.transitions]
accepted    = ["ready", "in-progress", "on-hold", "cancelled"]
ready       = ["in-progress", "on-hold", "requested", "cancelled", "completed"]
in-progress = ["on-hold", "ready", "completed", "cancelled"]
on-hold     = ["cancelled"]
"#
    )
}

/// Makes one a source of the other by the command line, which subscribes there too.
async fn introduce(source: &Side, mirror: &Side, called: &str) {
    let folder = mirror.stand.folder();
    let config = folder.join("handoff.toml");
    let text = format!(
        r#"[server]
public_url = "{called}"
[blobs]
url = "file:///nowhere"
[[issuers]]
issuer = "https://login.example/default"
audience = ["https://handoff.example/fhir"]
"#
    );
    std::fs::write(&config, text).expect("a file");
    let key = folder.join("key.pem");
    std::fs::write(&key, private_key()).expect("a file");
    let (config, key) = (config.display().to_string(), key.display().to_string());
    let base = format!("{}/fhir", source.base());
    let token_url = format!("{}/dev-issuer/token", source.fleet.issuer);
    let mut arguments = vec![
        "sources",
        "add",
        SOURCE,
        "--config",
        &config,
        "--acts-as",
        "Organization/referring-clinic",
        "--base",
        &base,
        "--type",
        "Task",
        "--mint-secret",
        "--client-id",
        "interface",
        "--key-file",
        &key,
        "--key-id",
        "k1",
        "--token-url",
        &token_url,
        "--scope",
        "system/*.cruds",
        "--subscribe",
    ];
    for topic in TOPICS {
        arguments.extend(["--topic", topic]);
    }
    let database = mirror.stand.database_url();
    let ended = run_with(&arguments, &[("HANDOFF__DATABASE__URL", &database)]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let made = ended
        .out
        .lines()
        .filter(|line| line.contains("the source has Subscription/"));
    assert_eq!(made.count(), TOPICS.len(), "{}", ended.err);
}

/// The development issuer looks at no assertion; the mirror signs one all the same.
#[expect(clippy::disallowed_methods, reason = "a key of a test's own")]
fn private_key() -> String {
    let document =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &SystemRandom::new()).expect("a key");
    format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(document.as_ref())
    )
}
