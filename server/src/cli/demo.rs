//! `handoff demo`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use handoff_blobs::BlobConfig;
use handoff_store::{Database, StoreConfig};
use tempfile::TempDir;
use url::Url;

use super::{Failed, asked_to_end, block_on, start_telemetry};
use crate::config::{Log, LogFormat, Sink, Traces, is_loopback};
use crate::demo::{DEV_ISSUER_SEGMENT, Stage, Teller, Tone, another_link, curl_lines, play};
use crate::wiring::{Identity, Options, Running, StartError, demo_sink, demo_traces, start};

#[derive(Debug, Args)]
pub(super) struct DemoFlags {
    /// Where to listen on 127.0.0.1; 0 takes a free port
    #[arg(long, value_name = "N", default_value_t = 8080)]
    port: u16,
    /// Where database and files are kept; a fresh directory that goes away in the end, unless given
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Another database, on loopback: `postgres://…` or `sqlite:PATH`
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Another content store, on loopback: `file:///DIR` or `http://127.0.0.1:PORT/devstoreaccount1/CONTAINER`
    #[arg(long, value_name = "URL")]
    blob: Option<String>,
    /// Serve only
    #[arg(long, conflicts_with = "once")]
    no_play: bool,
    /// End after the play: with 0, or with 1 if something was answered otherwise than it should be
    #[arg(long)]
    once: bool,
    /// Accept the tokens of another demo's issuer instead of serving one, as a second replica:
    /// `http://127.0.0.1:8080/dev-issuer`
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// What the server is called from outside, where it stands behind something: links and notifications name it, those of
    /// replicas the same
    #[arg(long, value_name = "URL", value_parser = public_url)]
    public_url: Option<String>,
    /// A directory with the rules (`*.cedar`, `workflow.toml`) instead of those that ship with the server
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// Forward the audit to a sink on loopback: `webhook=http://127.0.0.1:9999/audit`, signed with the demo's key, or
    /// `otlp=http://127.0.0.1:4318/v1/logs`
    #[arg(long, value_name = "KIND=URL", value_parser = demo_sink)]
    forward: Vec<Sink>,
    /// Send traces to a collector on loopback: `http://127.0.0.1:4318/v1/traces`
    #[arg(long, value_name = "URL", value_parser = demo_traces)]
    traces: Option<Traces>,
}

/// Plays, and serves until somebody asks the process to end.
pub(super) fn run(flags: &DemoFlags) -> Result<(), Failed> {
    let log = Log {
        format: LogFormat::Auto,
        // Lines of a log would stand between those of the story.
        filter: std::env::var("HANDOFF__LOG__FILTER").unwrap_or_else(|_| "warn".to_owned()),
    };
    let exporting = start_telemetry(&log, flags.traces.as_ref())?;
    let data = Data::prepare(flags.data.as_deref())?;
    let options = options(flags, data.path())?;
    block_on(async {
        let played = serve(flags, options, data.path()).await;
        if let Some(exporting) = exporting {
            exporting.finish().await;
        }
        played
    })
}

async fn serve(flags: &DemoFlags, options: Options, data: &Path) -> Result<(), Failed> {
    let issuer_of = match &options.identity {
        Identity::Demo { issuer_of } => issuer_of.clone(),
        Identity::Issuers(_) => None,
    };
    let mut running = start(options).await.map_err(|error| match error {
        StartError::Listen { .. } => Failed(format!("{error}; try another port with `--port`, 0 takes any")),
        other => Failed::from(other),
    })?;
    let stage = Stage {
        issuer_base: issuer_of.unwrap_or_else(|| running.base_url.clone()),
        base: running.base_url.clone(),
        now: running.app.clock.now(),
    };
    let told = tokio::select! {
        told = tell(flags, &stage, &running, data) => told,
        asked = asked_to_end() => asked.map_err(Failed::from).and(Err(Failed("interrupted".to_owned()))),
    };
    if told.is_ok() && !flags.once {
        tokio::select! {
            asked = asked_to_end() => asked?,
            () = running.wait() => return Err(Failed("the server ended by itself".to_owned())),
        }
    }
    running.stop().await;
    told
}

/// Plays, and says how to go on.
async fn tell(flags: &DemoFlags, stage: &Stage, running: &Running, data: &Path) -> Result<(), Failed> {
    let mut teller = Teller::on_stdout();
    let played = if flags.no_play {
        None
    } else {
        Some(play(stage, &mut teller).await)
    };
    let played = match played {
        Some(Err(error)) => {
            teller.gap()?;
            teller.line(&format!("The play broke off: {error}"), Tone::Bad)?;
            teller.flush()?;
            return Err(Failed("the play did not go as it should".to_owned()));
        }
        Some(Ok(props)) => Some(props),
        None => None,
    };
    if flags.once {
        return teller.flush().map_err(Failed::from);
    }
    teller.gap()?;
    teller.line("Serving until Ctrl-C", Tone::Strong)?;
    teller.remark(&format!(
        "FHIR base     {}/fhir   (tenant b: {}/t/b/fhir)",
        stage.base, stage.base
    ))?;
    teller.remark(&format!(
        "issuer        {}/{DEV_ISSUER_SEGMENT}",
        stage.issuer_base
    ))?;
    teller.remark(&format!(
        "admin         {}/health/ready and /metrics",
        running.admin_url
    ))?;
    teller.remark(&format!("data          {}", data.display()))?;
    if let Some(props) = &played {
        teller.remark(&format!("played link   {}", props.link))?;
        let fresh = another_link(stage, props).await?;
        teller.remark(&format!("fresh link    {fresh}"))?;
        teller.remark("              open it in a browser within 15 minutes, and sign in as Dr. Lane")?;
        teller.gap()?;
        teller.line("Go on with these, as they stand:", Tone::Strong)?;
        for (what, line) in curl_lines(stage, props) {
            teller.gap()?;
            teller.line(&format!("# {what}"), Tone::Faint)?;
            teller.line(&line, Tone::Plain)?;
        }
    }
    teller.flush().map_err(Failed::from)
}

/// The demo's folder.
enum Data {
    /// Goes away with this.
    Fresh(TempDir),
    /// Somebody's own.
    Given(PathBuf),
}

impl Data {
    fn prepare(given: Option<&Path>) -> Result<Self, Failed> {
        match given {
            None => Ok(Self::Fresh(
                tempfile::Builder::new().prefix("handoff-demo.").tempdir()?,
            )),
            Some(path) => {
                let refused = |error| Failed(format!("`{}` can't be used: {error}", path.display()));
                fs::create_dir_all(path).map_err(refused)?;
                Ok(Self::Given(path.canonicalize().map_err(refused)?))
            }
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Fresh(directory) => directory.path(),
            Self::Given(path) => path,
        }
    }
}

fn options(flags: &DemoFlags, data: &Path) -> Result<Options, Failed> {
    let database = match &flags.database {
        None => format!("sqlite://{}", data.join("handoff.db").display()),
        Some(url) => {
            check_database(url)?;
            url.clone()
        }
    };
    let blobs = match &flags.blob {
        None => BlobConfig::Directory {
            path: data.join("blobs"),
        },
        Some(url) => {
            let config = BlobConfig::parse(url)?;
            if let BlobConfig::Azure(azure) = &config
                && !is_loopback(&azure.account_url)
            {
                return Err(Failed(
                    "`--blob` must be on loopback: the demo is for this machine alone".to_owned(),
                ));
            }
            config
        }
    };
    let mut options = Options::demo(database, blobs);
    options.listen = SocketAddr::from(([127, 0, 0, 1], flags.port));
    if let Some(issuer) = &flags.issuer {
        options.identity = Identity::Demo {
            issuer_of: Some(issuer_base(issuer)?),
        };
    }
    options.public_url.clone_from(&flags.public_url);
    options.policies.directory.clone_from(&flags.policies);
    options.forwarding.clone_from(&flags.forward);
    Ok(options)
}

/// A base URL, without a trailing slash.
fn public_url(text: &str) -> Result<String, String> {
    let fits = Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.fragment().is_none()
    });
    if fits {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err("is a URL like `http://127.0.0.1:8080`".to_owned())
    }
}

/// Refuses a database that is not on this machine.
fn check_database(url: &str) -> Result<(), Failed> {
    if StoreConfig::new(url).database() != Database::Postgres {
        return Ok(());
    }
    let refused =
        || Failed("`--database` must name a host on loopback: the demo is for this machine alone".to_owned());
    let parsed = Url::parse(url).map_err(|_| refused())?;
    // These would lead elsewhere than the host that stands in the URL.
    let is_led_away = parsed
        .query_pairs()
        .any(|(name, _)| matches!(name.as_ref(), "host" | "hostaddr" | "service"));
    if is_loopback(&parsed) && !is_led_away {
        Ok(())
    } else {
        Err(refused())
    }
}

/// The base URL of the demo whose issuer `url` is.
fn issuer_base(url: &str) -> Result<String, Failed> {
    let refused = || {
        Failed(format!(
            "`--issuer` must be another demo's issuer, like `http://127.0.0.1:8080/{DEV_ISSUER_SEGMENT}`"
        ))
    };
    let parsed = Url::parse(url).map_err(|_| refused())?;
    let base = url
        .trim_end_matches('/')
        .strip_suffix(&format!("/{DEV_ISSUER_SEGMENT}"))
        .ok_or_else(refused)?;
    let is_plain = parsed.scheme() == "http" && parsed.query().is_none() && parsed.username().is_empty();
    if is_plain && is_loopback(&parsed) {
        Ok(base.to_owned())
    } else {
        Err(refused())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_uses_databases_of_this_machine_only() {
        for url in [
            "sqlite:/tmp/x.db",
            "postgres://u:p@127.0.0.1:5432/db",
            "postgresql://localhost/db",
            "postgres://[::1]/db",
        ] {
            assert!(check_database(url).is_ok(), "{url}");
        }
        for url in [
            "postgres://u:p@db.example.org/db",
            "postgres://10.0.0.1/db",
            "postgres://127.0.0.1/db?host=db.example.org",
            "postgres:///db?hostaddr=10.0.0.1",
            "postgres://127.0.0.1.example.org/db",
        ] {
            assert!(check_database(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_sink_of_the_demo_is_on_this_machine() {
        for text in [
            "webhook=http://127.0.0.1:9999/",
            "otlp=http://localhost:4318/v1/logs",
        ] {
            assert!(demo_sink(text).is_ok(), "{text}");
        }
        for text in [
            "http://127.0.0.1:9999/",
            "syslog=http://127.0.0.1:9999/",
            "webhook=https://siem.example.org/",
            "webhook=http://127.0.0.1:22/",
            "otlp=x",
        ] {
            assert!(demo_sink(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_collector_of_the_demo_is_on_this_machine() {
        assert!(demo_traces("http://127.0.0.1:4318/v1/traces").is_ok());
        for text in [
            "https://collector.example.org/v1/traces",
            "http://127.0.0.1:4318",
            "http://127.0.0.1:22/v1/traces",
            "x",
        ] {
            assert!(demo_traces(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_issuer_is_another_demos() {
        let base =
            issuer_base("http://127.0.0.1:8080/dev-issuer").unwrap_or_else(|Failed(text)| panic!("{text}"));
        assert_eq!(base, "http://127.0.0.1:8080");
        for url in [
            "http://127.0.0.1:8080",
            "https://login.example.org/dev-issuer",
            "http://10.0.0.1/dev-issuer",
            "x",
        ] {
            assert!(issuer_base(url).is_err(), "{url}");
        }
    }
}
