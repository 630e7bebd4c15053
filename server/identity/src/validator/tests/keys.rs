//! How the issuer's keys are read, kept, changed and missed.

use handoff_domain::time::Span;
use serde_json::json;

use super::*;

#[tokio::test]
async fn a_new_key_is_picked_up_when_a_token_names_it() {
    let stage = Stage::set().await;
    let old = stage.token("lane");
    stage.validate(&old).await.unwrap();
    let rotated = stage.issuer_with(Realm::Default, DevKey::generate().unwrap());
    stage.publish(&rotated);
    stage.clock.pass(Span::seconds(61));
    stage
        .validate(&token_of(&rotated, "lane", stage.clock.now()))
        .await
        .unwrap();
    assert!(
        stage.detail(&old).await.starts_with("no such key of the issuer"),
        "the old key is withdrawn"
    );
}

#[tokio::test]
async fn made_up_key_ids_ask_the_issuer_once_in_ten_seconds() {
    let stage = Stage::set().await;
    stage.validate(&stage.token("lane")).await.unwrap();
    assert_eq!(stage.server.reads(), 1);
    stage.clock.pass(Span::seconds(10));
    let forged: Vec<String> = (0..20)
        .map(|n| {
            let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": format!("made-up-{n}") });
            stage.key.sign_with(&header, &stage.claims(&[])).unwrap()
        })
        .collect();
    let answers = futures_of(&stage, &forged).await;
    assert!(
        answers.iter().all(|a| a.starts_with("no such key of the issuer")),
        "{answers:?}"
    );
    assert_eq!(stage.server.reads(), 2);
    stage.clock.pass(Span::seconds(10));
    stage.detail(&forged[0]).await;
    assert_eq!(stage.server.reads(), 3);
}

#[tokio::test]
async fn many_first_tokens_at_once_read_the_keys_once() {
    let stage = Stage::set().await;
    let tokens: Vec<String> = (0..20).map(|_| stage.token("lane")).collect();
    let answers = futures_of(&stage, &tokens).await;
    assert!(answers.iter().all(|a| a.starts_with("Ok(")), "{answers:?}");
    assert_eq!(stage.server.reads(), 1);
}

/// The answers to all of `tokens`, asked for at the same time.
async fn futures_of(stage: &Stage, tokens: &[String]) -> Vec<String> {
    let mut open: Vec<_> = tokens.iter().map(|token| Box::pin(stage.detail(token))).collect();
    let mut answers: Vec<Option<String>> = vec![None; open.len()];
    std::future::poll_fn(|cx| {
        for (future, answer) in open.iter_mut().zip(&mut answers) {
            if answer.is_none()
                && let std::task::Poll::Ready(done) = future.as_mut().poll(cx)
            {
                *answer = Some(done);
            }
        }
        if answers.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    answers.into_iter().flatten().collect()
}

#[tokio::test]
async fn while_the_issuer_is_down_known_keys_go_on_and_unknown_ones_fail_closed() {
    let stage = Stage::set().await;
    stage.validate(&stage.token("lane")).await.unwrap();
    stage.server.set_down(true);
    stage.clock.pass(Span::hours(2));
    let fresh = stage.token("lane");
    assert!(stage.validate(&fresh).await.is_ok(), "old keys go on");
    let rotated = stage.issuer_with(Realm::Default, DevKey::generate().unwrap());
    stage.publish(&rotated);
    let unknown = token_of(&rotated, "lane", stage.clock.now());
    assert!(
        stage
            .detail(&unknown)
            .await
            .starts_with("no such key of the issuer")
    );
    stage.server.set_down(false);
    stage.clock.pass(Span::seconds(10));
    assert!(stage.validate(&unknown).await.is_ok(), "recovers by itself");
}

#[tokio::test]
async fn old_keys_are_read_again_without_anybody_waiting() {
    let stage = Stage::set().await;
    stage.validate(&stage.token("lane")).await.unwrap();
    stage.clock.pass(Span::minutes(59));
    stage.validate(&stage.token("lane")).await.unwrap();
    assert_eq!(stage.server.reads(), 1);
    stage.clock.pass(Span::minutes(2));
    stage.validate(&stage.token("lane")).await.unwrap();
    let read_again = async {
        while stage.server.reads() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), read_again)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_issuer_that_was_never_reached_is_unavailable_and_tried_again_soon() {
    let stage = Stage::set().await;
    stage.server.set_down(true);
    let token = stage.token("lane");
    for _ in 0..3 {
        let error = stage.validate(&token).await.unwrap_err();
        assert!(matches!(error, TokenError::Unavailable(_)), "{error:?}");
        assert_eq!(error.retry_after_seconds(), Some(2));
    }
    assert_eq!(stage.server.reads(), 1);
    stage.server.set_down(false);
    stage.clock.pass(Span::seconds(1));
    assert!(stage.validate(&token).await.is_ok());
}

#[tokio::test]
async fn discovery_that_names_another_issuer_or_another_place_is_not_believed() {
    let stage = Stage::set().await;
    let path = "/dev-issuer/.well-known/openid-configuration";
    for (member, value) in [
        ("issuer", "http://127.0.0.1:1/other"),
        ("jwks_uri", "http://keys.example/jwks"),
    ] {
        let mut document = stage.issuer.discovery();
        document[member] = json!(value);
        stage.server.serve(path, &document);
        let error = stage.validate(&stage.token("lane")).await.unwrap_err();
        assert!(matches!(error, TokenError::Unavailable(_)), "{member}: {error:?}");
        stage.clock.pass(Span::seconds(1));
    }
}

#[tokio::test]
async fn preloaded_keys_need_no_http() {
    let stage = Stage::set().await;
    stage.server.set_down(true);
    assert!(stage.validator.preload(
        stage.issuer.issuer(),
        &stage.issuer.discovery(),
        &stage.issuer.jwks()
    ));
    assert!(!stage.validator.preload(
        "https://unknown.example",
        &stage.issuer.discovery(),
        &stage.issuer.jwks()
    ));
    let discovery = stage.issuer.discovery();
    assert!(
        !stage
            .validator
            .preload(stage.issuer.issuer(), &discovery, &json!("no keys"))
    );
    assert!(
        !stage
            .validator
            .preload(stage.issuer.issuer(), &json!({}), &stage.issuer.jwks())
    );
    assert!(stage.validate(&stage.token("lane")).await.is_ok());
    assert_eq!(stage.server.reads(), 0);
}
