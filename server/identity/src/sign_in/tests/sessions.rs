//! Who a session's claims say the person is, when the configuration has moved on.

use handoff_domain::access::Role;

use super::*;

const ENDS: Timestamp = Timestamp(1_800_036_000_000_000);

#[tokio::test]
async fn a_session_is_the_person_by_the_present_configuration() {
    let stage = Stage::set().await;
    let signed_in = stage.sign_in("lane").await.unwrap();
    let of = |validator: &TokenValidator| {
        let tenant = tenant(Realm::Default);
        validator.of_session(&tenant, &signed_in.issuer, &signed_in.claims, ENDS)
    };
    // Long after the id token's own end.
    stage.clock.pass(Span::hours(9));
    let validated = of(&stage.validator).unwrap();
    let principal = &validated.principal;
    assert_eq!(principal.actor.as_str(), "Practitioner/lane");
    assert_eq!(
        (principal.subject.as_str(), principal.client.as_str()),
        ("lane", CLIENT)
    );
    assert!(principal.has(Role::Fulfiller) && principal.teams.contains("cardiology"));
    assert_eq!(principal.scopes.iter().collect::<Vec<_>>(), ["user/*.cruds"]);
    assert_eq!(
        (&principal.key, &principal.delegate, &principal.patient),
        (&None, &None, &None)
    );
    assert_eq!(principal.attributes.authenticated_at, Some(START));
    assert!(!principal.attributes.trusted_client);
    assert_eq!(
        principal.token_id,
        format!("sid:{}", signed_in.sid.clone().unwrap())
    );
    assert_eq!(validated.expires_at, ENDS);
    let changed = validator(&stage.server, &stage.clock, |mut config| {
        config.role_map.insert("physician".to_owned(), Role::TeamMember);
        config.trusted_clients.insert(CLIENT.to_owned());
        config.claims.teams = "groups".to_owned();
        config
    });
    let principal = Arc::clone(&of(&changed).unwrap().principal);
    assert!(!principal.has(Role::Fulfiller) && principal.has(Role::TeamMember));
    assert!(principal.teams.is_empty() && principal.attributes.trusted_client);
    // Another name of the claim that says who it is.
    let other = validator(&stage.server, &stage.clock, |mut config| {
        config.claims.actor = "fhir_user".to_owned();
        config
    });
    assert!(of(&other).is_err());
}

#[tokio::test]
async fn a_session_at_an_issuer_where_nobody_signs_in_now_is_over() {
    let stage = Stage::set().await;
    let SignedIn { issuer, claims, .. } = stage.sign_in("lane").await.unwrap();
    let own = tenant(Realm::Default);
    let closed = validator(&stage.server, &stage.clock, |config| IssuerConfig {
        sign_in: None,
        ..config
    });
    let moved = validator(&stage.server, &stage.clock, |config| IssuerConfig {
        tenant: tenant(Realm::B),
        ..config
    });
    let b = Realm::B.issuer(&stage.server.base);
    for over in [
        closed.of_session(&own, &issuer, &claims, ENDS),
        moved.of_session(&own, &issuer, &claims, ENDS),
        stage
            .validator
            .of_session(&tenant(Realm::B), &issuer, &claims, ENDS),
        stage.validator.of_session(&tenant(Realm::B), &b, &claims, ENDS),
        stage
            .validator
            .of_session(&own, "https://gone.example", &claims, ENDS),
        stage.validator.of_session(&own, &issuer, "{}", ENDS),
        stage.validator.of_session(&own, &issuer, "no JSON", ENDS),
    ] {
        let error = over.unwrap_err();
        assert!(matches!(error, TokenError::Invalid(_)), "{error:?}");
        assert_eq!(
            error.public(),
            "the sign-in is no longer good here; sign in again"
        );
    }
}

#[tokio::test]
async fn a_session_without_a_name_is_called_by_its_claims() {
    let stage = Stage::set().await;
    let claims = json!({
        "iss": stage.issuer.issuer(), "sub": "lane", "fhirUser": "https://fhir.example/Practitioner/lane", "sid": "",
    });
    let validated = stage
        .validator
        .of_session(
            &tenant(Realm::Default),
            stage.issuer.issuer(),
            &claims.to_string(),
            ENDS,
        )
        .unwrap();
    assert!(validated.principal.token_id.starts_with("sha256:"));
    assert_eq!(validated.principal.actor.as_str(), "Practitioner/lane");
}
