//! What a configuration file may and may not say.

use std::io::Write;
use std::time::Duration;

use crate::app::reads::Recorded;
use handoff_domain::access::Role;
use secrecy::ExposeSecret;

use super::*;

const GOOD: &str = r#"
    [server]
    listen = "0.0.0.0:8443"
    public_url = "https://handoff.example.org/"
    trusted_proxies = ["10.0.0.0/8"]

    [database]
    url = "postgres://handoff:s3cret@db.example.org/handoff?sslmode=require"

    [blobs]
    url = "https://acct.blob.core.windows.net/handoff"

    [[issuers]]
    issuer = "https://login.example.org"
    audience = "https://handoff.example.org/fhir"
    roles = { "Ward Clerk" = "team-member" }

    [limits]
    max_binary = "1 GiB"

    [timeouts]
    body_idle = "45 s"
"#;

fn with_env(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    parse(
        text,
        variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    )
}

fn good() -> Config {
    with_env(GOOD, &[]).unwrap()
}

/// The problems of the good file after `from` in it became `to`.
fn problems_with(from: &str, to: &str) -> Vec<String> {
    assert!(GOOD.contains(from), "{from}");
    let error = with_env(&GOOD.replace(from, to), &[]).unwrap_err();
    error.0.iter().map(Problem::to_string).collect()
}

#[test]
fn a_good_file_is_taken_with_defaults_for_the_rest() {
    let config = good();
    assert_eq!(config.server.listen.port(), 8443);
    assert_eq!(config.server.public_url, "https://handoff.example.org");
    assert_eq!(
        config.limits,
        Limits {
            max_binary: 1 << 30,
            ..Limits::default()
        }
    );
    assert_eq!(config.timeouts.body_idle, Duration::from_secs(45));
    assert_eq!(config.timeouts.request_header, Duration::from_secs(5));
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9090");
    let issuer = &config.issuers[0];
    assert_eq!(issuer.tenant.as_str(), "default");
    assert_eq!(issuer.role_map["ward clerk"], Role::TeamMember);
    assert_eq!(issuer.role_map["physician"], Role::Fulfiller);
}

#[test]
fn the_environment_has_the_last_word() {
    let config = with_env(
        GOOD,
        &[
            ("HANDOFF__SERVER__LISTEN", "127.0.0.1:1"),
            ("HANDOFF__LIMITS__MAX_ENTRIES", "7"),
            ("HANDOFF__DATABASE__LISTEN", "false"),
            ("HANDOFF__ISSUERS__0__AUDIENCE", "a,b"),
            ("HANDOFF__ISSUERS__1__ISSUER", "https://second.example.org"),
            ("HANDOFF__ISSUERS__1__AUDIENCE", "c"),
            ("HANDOFF_TEST_POSTGRES_URL", "not ours"),
            ("PATH", "/bin"),
        ],
    )
    .unwrap();
    assert_eq!(config.server.listen.port(), 1);
    assert_eq!(config.limits.max_entries, 7);
    assert!(!config.database.listen && good().database.listen);
    assert_eq!(config.issuers[0].audience, ["a", "b"]);
    assert_eq!(config.issuers[1].issuer, "https://second.example.org");
}

#[test]
fn a_server_can_be_configured_by_the_environment_alone() {
    let config = with_env(
        "",
        &[
            ("HANDOFF__SERVER__PUBLIC_URL", "https://handoff.example.org"),
            ("HANDOFF__DATABASE__URL", "sqlite:///var/lib/handoff/handoff.db"),
            ("HANDOFF__BLOBS__URL", "file:///var/lib/handoff/blobs"),
            ("HANDOFF__ISSUERS__0__ISSUER", "https://login.example.org"),
            (
                "HANDOFF__ISSUERS__0__AUDIENCE",
                "https://handoff.example.org/fhir",
            ),
        ],
    )
    .unwrap();
    assert_eq!(config.issuers.len(), 1);
}

#[test]
fn every_problem_is_named_at_once_with_its_key() {
    let error = with_env(
        r#"
        colour = "blue"
        [server]
        lisen = "0.0.0.0:80"
        public_url = "http://handoff.example.org"
        replicas = 3
        [database]
        url = "sqlite:///tmp/x.db"
        pool = "many"
        [blobs]
        url = "ftp://nowhere"
        [[issuers]]
        issuer = "http://login.example.org"
        [limits]
        max_body = "huge"
        [demo]
        port = 1
        "#,
        &[("HANDOFF__SERVER", "x")],
    )
    .unwrap_err();
    let keys: Vec<&str> = error.0.iter().map(|p| p.key.as_str()).collect();
    for key in [
        "HANDOFF__SERVER",
        "colour",
        "demo",
        "server.lisen",
        "server.public_url",
        "database.url",
        "database.pool",
        "blobs.url",
        "issuers.0.issuer",
        "issuers.0.audience",
        "limits.max_body",
    ] {
        assert!(keys.contains(&key), "{key} is missing in {keys:?}");
    }
    assert!(error.to_string().contains("did you mean `listen`"), "{error}");
}

#[test]
fn nothing_at_all_names_what_is_needed() {
    let error = with_env("", &[]).unwrap_err();
    let keys: Vec<&str> = error.0.iter().map(|p| p.key.as_str()).collect();
    assert_eq!(
        keys,
        ["server.public_url", "database.url", "blobs.url", "issuers"]
    );
}

#[test]
fn plain_http_is_refused_off_loopback_and_taken_on_it() {
    assert_eq!(
        problems_with("https://handoff.example.org/\"", "http://handoff.example.org\"").len(),
        1
    );
    assert_eq!(
        problems_with("https://login.example.org", "http://login.example.org").len(),
        1
    );
    let text = GOOD
        .replace("https://handoff.example.org/\"", "http://127.0.0.1:8080\"")
        .replace("https://login.example.org", "http://localhost:9/x");
    assert!(with_env(&text, &[]).is_ok());
}

#[test]
fn sqlite_is_refused_with_replicas() {
    let sqlite = GOOD.replace(
        "postgres://handoff:s3cret@db.example.org/handoff?sslmode=require",
        "sqlite:/x.db",
    );
    assert!(with_env(&sqlite, &[]).is_ok());
    let error = with_env(&sqlite, &[("HANDOFF__SERVER__REPLICAS", "2")]).unwrap_err();
    assert_eq!(error.0.len(), 1);
    assert_eq!(error.0[0].key, "database.url");
    assert!(with_env(GOOD, &[("HANDOFF__SERVER__REPLICAS", "2")]).is_ok());
}

#[test]
fn a_development_issuer_is_refused() {
    let problems = problems_with(
        "https://login.example.org",
        "https://demo.example.org/dev-issuer/b",
    );
    assert!(problems[0].contains("development issuer"), "{problems:?}");
}

#[test]
fn a_role_that_does_not_exist_is_refused() {
    let problems = problems_with("\"team-member\"", "\"superuser\"");
    assert!(problems[0].contains("`superuser`"), "{problems:?}");
}

#[test]
fn what_clients_may_hold_is_set_as_a_section_of_its_own() {
    let text = format!(
        "{GOOD}\n[clients]\nmax_connections = 500\nmax_per_address = 0\nleast_download_rate = 0\nmax_header = \"8 KiB\"\n\
         failed_tokens_per_minute = 5\nfailed_links_per_minute_address = 6\nfailed_links_per_minute_client = 7\n\
         failed_links_per_minute_link = 0"
    );
    let clients = with_env(&text, &[("HANDOFF__CLIENTS__RATE_WINDOW", "10 s")])
        .unwrap()
        .clients;
    let expected = Clients {
        max_connections: 500,
        max_per_address: 0,
        least_download_rate: 0,
        max_header: 8 << 10,
        rate_window: Duration::from_secs(10),
        failed_tokens_per_minute: 5,
        failed_links_per_minute_address: 6,
        failed_links_per_minute_client: 7,
        failed_links_per_minute_link: 0,
        ..Clients::default()
    };
    assert_eq!(clients, expected);
}

#[test]
fn limits_of_clients_that_can_not_be_are_named() {
    let text = format!(
        "{GOOD}\n[clients]\nmax_connections = 0\nmax_downloads = -1\nmax_header = 0\nmax_buffered = \"1 MiB\"\n\
         least_upload_rate = \"fast\"\nrate_window = \"0 s\"\nmax_uplods = 3\n\
         failed_tokens_per_minute = -1\nfailed_links_per_minute_client = \"many\""
    );
    let error = with_env(&text, &[]).unwrap_err();
    let keys: Vec<&str> = error.0.iter().map(|p| p.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "clients.max_connections",
            "clients.max_downloads",
            "clients.failed_tokens_per_minute",
            "clients.failed_links_per_minute_client",
            "clients.max_header",
            "clients.least_upload_rate",
            "clients.rate_window",
            "clients.max_buffered",
            "clients.max_uplods",
        ]
    );
    assert!(
        error.to_string().contains("did you mean `max_uploads`"),
        "{error}"
    );
}

#[test]
fn what_seals_the_audit_is_a_key_with_a_name() {
    const PEM: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g\n-----END PRIVATE KEY-----\n";
    let with = |variables: &[(&str, &str)]| with_env(GOOD, variables);
    let key = ("HANDOFF__AUDIT__KEY", PEM);
    let origin = ("HANDOFF__AUDIT__ORIGIN", "handoff.example.org/audit");
    assert!(good().audit.seal.is_none());
    let config = with(&[key, origin]).unwrap();
    assert_eq!(
        config.audit.seal.as_ref().unwrap().log(),
        "handoff.example.org/audit"
    );
    assert!(!config.show().contains("MC4C"), "{}", config.show());
    assert_eq!(config.audit.reads, Recorded::OnceAMinute);
    let each = with(&[("HANDOFF__AUDIT__READS", "each")]).unwrap();
    assert_eq!(each.audit.reads, Recorded::Each);
    assert!(each.show().contains("reads = \"each\""), "{}", each.show());
    let long = "x".repeat(250);
    for (variables, told) in [
        (
            vec![("HANDOFF__AUDIT__READS", "true")],
            "`audit.reads`: `true` does not fit",
        ),
        (vec![key], "`audit.origin`: is missing"),
        (vec![origin], "`audit.key_file`: is missing"),
        (vec![key, ("HANDOFF__AUDIT__ORIGIN", "a name")], "`audit.key`"),
        (vec![key, ("HANDOFF__AUDIT__ORIGIN", &long)], "`audit.key`"),
        (vec![("HANDOFF__AUDIT__KEY", "secret"), origin], "`audit.key`"),
        // A private key in the wrong place is not repeated.
        (
            vec![key, origin, ("HANDOFF__AUDIT__PREVIOUS_KEYS", PEM)],
            "`audit.previous_keys`: entry 1",
        ),
    ] {
        let told_all = with(&variables).unwrap_err().to_string();
        assert!(told_all.contains(told), "{told}: {told_all}");
        assert!(!told_all.contains("MC4C"), "{told_all}");
    }
}

const SINKS: &str = r#"
    [[forwarding]]
    name = "siem"
    kind = "webhook"
    url = "https://siem.hospital.example:8088/handoff?token=t0ken"
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    previous_secret = "whsec_c3ByaW5nLXN1bW1lci1hdXR1bW4td2ludGVy"
    from = "now"
    timeout = "10 s"

    [[forwarding]]
    name = "logs"
    kind = "otlp"
    url = "http://127.0.0.1:4318/v1/logs"
    authorization = "Api-Key s3same"
"#;

#[test]
fn sinks_of_the_audit_are_named_sections_whose_secrets_stay_hidden() {
    assert!(good().forwarding.is_empty());
    let config = with_env(
        &format!("{GOOD}{SINKS}"),
        &[("HANDOFF__FORWARDING__1__TIMEOUT", "5 s")],
    )
    .unwrap();
    let [siem, logs] = config.forwarding.as_slice() else {
        panic!("two sinks");
    };
    assert_eq!((siem.name.as_str(), siem.timeout.as_secs()), ("siem", 10));
    assert!(matches!(&siem.kind, SinkKind::Webhook(secrets) if secrets.len() == 2));
    assert_eq!((siem.start.as_str(), logs.start.as_str()), ("now", "beginning"));
    assert!(matches!(logs.kind, SinkKind::Otlp));
    assert_eq!(logs.timeout.as_secs(), 5);
    let (shown, debug) = (config.show(), format!("{config:?}"));
    for secret in ["MfKQ", "c3Bya", "t0ken", "s3same"] {
        assert!(!shown.contains(secret), "{shown}");
        assert!(!debug.contains(secret), "{debug}");
    }
    assert!(shown.contains("siem.hospital.example:8088"), "{shown}");
    // The environment alone can name one.
    let config = with_env(
        GOOD,
        &[
            ("HANDOFF__FORWARDING__0__NAME", "logs"),
            ("HANDOFF__FORWARDING__0__KIND", "otlp"),
            ("HANDOFF__FORWARDING__0__URL", "https://otel.example/v1/logs"),
        ],
    );
    assert_eq!(config.unwrap().forwarding.len(), 1);
}

#[test]
fn each_mistake_about_a_sink_is_named() {
    let problems = |sinks: &str| match with_env(&format!("{GOOD}{sinks}"), &[]) {
        Ok(_) => panic!("{sinks}"),
        Err(error) => error.to_string(),
    };
    for (from, to, told) in [
        ("name = \"siem\"", "", "`forwarding.0.name`: is missing"),
        ("name = \"siem\"", "name = \"S I E M\"", "`forwarding.0.name`"),
        (
            "name = \"logs\"",
            "name = \"siem\"",
            "`forwarding.1.name`: `siem` is there twice",
        ),
        ("kind = \"otlp\"", "", "`forwarding.1.kind`: is missing"),
        ("kind = \"otlp\"", "kind = \"syslog\"", "`syslog` is no kind"),
        (
            "kind = \"webhook\"",
            "kind = \"otlp\"",
            "`forwarding.0.secret`: signs webhooks",
        ),
        (
            "kind = \"otlp\"",
            "kind = \"webhook\"",
            "`forwarding.1.secret_file`: is missing",
        ),
        (
            "secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"",
            "secret = \"whsec_MfKQ\"",
            "`forwarding.0.secret`: not a signing secret",
        ),
        (
            "http://127.0.0.1:4318",
            "http://otel.example:4318",
            "`forwarding.1.url`: only `https`",
        ),
        (
            "http://127.0.0.1:4318",
            "https://169.254.169.254",
            "`forwarding.1.url`: the address is not public",
        ),
        ("4318/v1/logs", "4318", "`forwarding.1.url`: names no path"),
        (
            "url = \"http://127.0.0.1:4318/v1/logs\"",
            "",
            "`forwarding.1.url`: is missing",
        ),
        (
            "\"Api-Key s3same\"",
            "\"two\\nlines\"",
            "`forwarding.1.authorization`",
        ),
        ("from = \"now\"", "from = \"today\"", "`forwarding.0.from`"),
        (
            "timeout = \"10 s\"",
            "timeout = \"1 h\"",
            "`forwarding.0.timeout`: is longer",
        ),
        (
            "timeout = \"10 s\"",
            "ca_file = \"/nowhere\"",
            "`forwarding.0.ca_file`: can't be read",
        ),
        (
            "timeout = \"10 s\"",
            "proxy = \"nowhere\"",
            "`forwarding.0.proxy`",
        ),
        (
            "timeout = \"10 s\"",
            "time_out = \"10 s\"",
            "did you mean `timeout`",
        ),
    ] {
        assert!(SINKS.contains(from), "{from}");
        let told_all = problems(&SINKS.replace(from, to));
        assert!(told_all.contains(told), "{told}: {told_all}");
        for secret in ["MfKQ", "t0ken", "s3same", "lines"] {
            assert!(!told_all.contains(secret), "{told_all}");
        }
    }
    let many: Vec<String> = (0..9)
        .map(|n| {
            SINKS
                .replace("siem\"", &format!("a{n}\""))
                .replace("logs\"", &format!("b{n}\""))
        })
        .collect();
    let many = many.concat();
    assert!(problems(&many).contains("`forwarding`: there are 18, and at most 8"));
}

#[test]
fn a_secret_is_read_from_its_file() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "postgres://handoff:fr0mfile@db/handoff").unwrap();
    let text = GOOD.replace(
        "url = \"postgres://handoff:s3cret@db.example.org/handoff?sslmode=require\"",
        &format!("url_file = {:?}", file.path()),
    );
    let config = with_env(&text, &[]).unwrap();
    assert_eq!(
        config.database.url.expose_secret(),
        "postgres://handoff:fr0mfile@db/handoff"
    );
    let error = with_env(&text, &[("HANDOFF__DATABASE__URL", "sqlite:/x.db")]).unwrap_err();
    assert_eq!(error.0[0].key, "database.url_file");
    let error = with_env(&text, &[("HANDOFF__DATABASE__URL_FILE", "/nowhere/at/all")]).unwrap_err();
    assert_eq!(error.0[0].key, "database.url_file");
}

#[test]
fn no_secret_is_shown() {
    let config = with_env(GOOD, &[("HANDOFF__BLOBS__KEY", "YmxvYmtleQ==")]).unwrap();
    let shown = config.show();
    let debug = format!("{config:?}");
    for secret in ["s3cret", "YmxvYmtleQ"] {
        assert!(!shown.contains(secret), "{shown}");
        assert!(!debug.contains(secret), "{debug}");
    }
    assert!(shown.contains("db.example.org"), "{shown}");
    assert!(shown.contains("1 GiB"), "{shown}");
}

#[test]
fn what_is_shown_can_be_configured_again() {
    let shown = good().show();
    assert_eq!(with_env(&shown, &[]).unwrap().show(), shown);
}

#[test]
fn a_syntax_error_names_the_line_and_not_what_stands_there() {
    let error = with_env("[server]\nlisten = s3cret oops\n", &[])
        .unwrap_err()
        .to_string();
    assert!(error.contains("line 2"), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
}

#[test]
fn a_url_is_shown_without_password_and_signature() {
    let shown = redact_url("postgres://user:pass@h/db?password=x&sslmode=require");
    assert!(!shown.contains("pass@") && !shown.contains("=x"), "{shown}");
    assert_eq!(redact_url("not a url, maybe a secret"), "(hidden)");
}
