//! The server starts, answers on both listeners, and ends when told.

use serde_json::Value;
use tempfile::TempDir;

use super::*;

fn embedded(folder: &TempDir) -> Options {
    let database = format!("sqlite://{}", folder.path().join("handoff.db").display());
    Options::demo(
        database,
        handoff_blobs::BlobConfig::Directory {
            path: folder.path().join("blobs"),
        },
    )
}

async fn get(url: &str) -> (u16, Value) {
    let response = reqwest::get(url).await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn a_demo_answers_on_both_listeners_and_ends_when_told() {
    let folder = TempDir::new().unwrap();
    let mut running = start(embedded(&folder)).await.unwrap();
    let (status, ready) = get(&format!("{}/health/ready", running.admin_url)).await;
    assert_eq!((status, &ready["status"]), (200, &Value::from("up")), "{ready}");
    let (status, discovery) = get(&format!(
        "{}/dev-issuer/.well-known/openid-configuration",
        running.base_url
    ))
    .await;
    assert_eq!(
        (status, &discovery["issuer"]),
        (200, &Value::from(format!("{}/dev-issuer", running.base_url)))
    );
    let base_url = running.base_url.clone();
    running.stop().await;
    assert!(reqwest::get(base_url).await.is_err());
}

#[tokio::test]
async fn without_the_demo_there_is_no_development_issuer() {
    let folder = TempDir::new().unwrap();
    let tenant = TenantId::default_tenant();
    let issuer = IssuerConfig::new("https://login.example.org", tenant, vec!["a".to_owned()]);
    let options = Options {
        identity: Identity::Issuers(vec![issuer]),
        ..embedded(&folder)
    };
    let mut running = start(options).await.unwrap();
    let url = format!("{}/dev-issuer/.well-known/openid-configuration", running.base_url);
    assert_eq!(reqwest::get(url).await.unwrap().status().as_u16(), 404);
    running.stop().await;
}

#[tokio::test]
async fn a_database_without_its_migrations_is_refused() {
    let folder = TempDir::new().unwrap();
    let error = start(Options {
        migrate: false,
        ..embedded(&folder)
    })
    .await
    .err()
    .unwrap();
    assert!(
        matches!(error, StartError::Migrations(_) | StartError::Store(_)),
        "{error}"
    );
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let folder = TempDir::new().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = start(Options {
        listen: address,
        ..embedded(&folder)
    })
    .await
    .err()
    .unwrap();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn the_play_of_the_demo_goes_as_it_should() {
    let folder = TempDir::new().unwrap();
    let mut running = start(embedded(&folder)).await.unwrap();
    let stage = crate::demo::Stage {
        base: running.base_url.clone(),
        issuer_base: running.base_url.clone(),
        now: running.app.clock.now(),
    };
    let mut told = Vec::new();
    let props = crate::demo::play(&stage, &mut crate::demo::Teller::new(&mut told, false))
        .await
        .unwrap();
    let told = String::from_utf8(told).unwrap();
    for word in [
        "exhausted",
        "task-completed",
        "redemption-completed",
        &props.task,
        &props.link,
    ] {
        assert!(told.contains(word), "`{word}` is missing in\n{told}");
    }
    running.stop().await;
}
