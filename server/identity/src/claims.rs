//! From the claims of a token whose signature holds to a principal: for whom, until when, and who.
//! Knows no keys; what a claim means is the issuer's configuration.

use std::collections::BTreeSet;
use std::sync::Arc;

use handoff_domain::access::{Attributes, Principal, Role};
use handoff_domain::ids::ActorRef;
use handoff_domain::time::{Span, Timestamp};
use serde_json::{Map, Value};

use crate::config::IssuerConfig;
use crate::error::{TokenError, quoted};
use crate::validator::Validated;

/// The last second of the year 9999.
const LAST_SECOND: i64 = 253_402_300_799;
const MOST_NAME_BYTES: usize = 256;
/// The most roles that map to nothing of which the audit is told.
const MOST_UNMAPPED: usize = 20;

/// What a person may do by the scope of a sign-in: whatever the rules allow them.
const PERSONS_SCOPE: &str = "user/*.cruds";

pub(crate) type Claims = Map<String, Value>;

/// Where claims come from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Said<'t> {
    /// From a signed token, whose header has this `typ`.
    BySignature(Option<&'t str>),
    /// From the issuer itself, which was asked.
    ByIssuer,
}

/// Checks the claims at `now` and maps them. `fallback_id` names the token where it has no `jti`.
pub(crate) fn principal(
    config: &IssuerConfig,
    said: Said<'_>,
    claims: &Claims,
    now: Timestamp,
    fallback_id: impl FnOnce() -> String,
) -> Result<Validated, TokenError> {
    // What RFC 9068 demands of a signed token nobody demands of an answer to introspection.
    let (strict, require_id) = match said {
        Said::BySignature(typ) => {
            check_kind(config, typ, claims)?;
            (config.require_at_jwt_typ, config.require_jti)
        }
        Said::ByIssuer => {
            check_issuer(config, claims)?;
            check_asked_kind(claims)?;
            (false, false)
        }
    };
    let expires_at = check_times(config, claims, now, strict)?;
    check_audience(config, claims)?;
    let client = config
        .claims
        .client
        .iter()
        .find_map(|name| find(claims, name))
        .and_then(Value::as_str)
        .filter(|name| is_name(name))
        .ok_or_else(|| unusable("names no client", "client claim"))?
        .to_owned();
    let subject = match said {
        // Of a client's own token the issuer need not say more (RFC 7662 section 2.2).
        Said::ByIssuer if !claims.contains_key("sub") && !claims.contains_key("username") => client.clone(),
        Said::ByIssuer | Said::BySignature(_) => required_name(claims, "sub")?,
    };
    let (roles, unmapped_roles) = roles(config, claims);
    let principal = Principal {
        tenant: config.tenant.clone(),
        issuer: config.issuer.clone(),
        actor: actor(config, claims, &subject, &client)?,
        delegate: delegate(config, claims)?,
        roles,
        teams: teams(config, claims),
        scopes: config
            .claims
            .scope
            .iter()
            .find_map(|name| find(claims, name))
            .map(|scope| words(Some(scope), true).into_iter().collect())
            .unwrap_or_default(),
        patient: patient(config, claims)?,
        key: bound_to(claims)?,
        token_id: token_id(claims, require_id, fallback_id)?,
        attributes: Attributes {
            unmapped_roles,
            ..attributes(config, claims, &client)?
        },
        subject,
        client,
    };
    Ok(Validated {
        principal: Arc::new(principal),
        derived: (),
        expires_at,
    })
}

/// Who a person is by the claims of an id token that was checked when they signed in, for the pages of `client`.
/// Nothing of its times or its audience is looked at again. `fallback_id` names the session where the issuer has no
/// `sid` for it.
pub(crate) fn person(
    config: &IssuerConfig,
    client: &str,
    claims: &Claims,
    fallback_id: impl FnOnce() -> String,
) -> Result<Principal, TokenError> {
    // A client's name stands for a client, never for who signs in with it.
    if find(claims, &config.claims.actor).is_none() {
        return Err(no_user("is absent"));
    }
    let subject = required_name(claims, "sub")?;
    let (roles, unmapped_roles) = roles(config, claims);
    Ok(Principal {
        tenant: config.tenant.clone(),
        issuer: config.issuer.clone(),
        actor: actor(config, claims, &subject, client)?,
        delegate: delegate(config, claims)?,
        roles,
        teams: teams(config, claims),
        scopes: BTreeSet::from([PERSONS_SCOPE.to_owned()]),
        patient: patient(config, claims)?,
        key: None,
        token_id: session(claims).map_or_else(fallback_id, |sid| format!("sid:{sid}")),
        attributes: Attributes {
            unmapped_roles,
            ..attributes(config, claims, client)?
        },
        subject,
        client: client.to_owned(),
    })
}

/// The issuer's name for its session with the person (`sid`), where it says one.
pub(crate) fn session(claims: &Claims) -> Option<String> {
    let sid = claims.get("sid")?.as_str()?;
    is_name(sid).then(|| sid.to_owned())
}

/// The claim called `name`, or the one at that path.
fn find<'c>(claims: &'c Claims, name: &str) -> Option<&'c Value> {
    claims.get(name).or_else(|| {
        let mut steps = name.split('.');
        let mut found = claims.get(steps.next()?)?;
        for step in steps {
            found = found.get(step)?;
        }
        Some(found)
    })
}

fn check_kind(config: &IssuerConfig, typ: Option<&str>, claims: &Claims) -> Result<(), TokenError> {
    const PUBLIC: &str = "the token is not an access token";
    if typ == Some("at+jwt") {
        return Ok(());
    }
    if config.require_at_jwt_typ || !matches!(typ, None | Some("jwt")) {
        let shown = typ.map_or("none".to_owned(), quoted);
        return Err(TokenError::invalid(
            PUBLIC,
            format!("header type is {shown}, not `at+jwt`"),
        ));
    }
    // Without the type an id token or a logout token could pass; these claims give them away.
    match ["nonce", "at_hash", "c_hash", "events"]
        .into_iter()
        .find(|c| claims.contains_key(*c))
    {
        Some(claim) => Err(TokenError::invalid(PUBLIC, format!("token has `{claim}`"))),
        None => Ok(()),
    }
}

/// An issuer that is asked speaks for itself, where it says for whom.
fn check_issuer(config: &IssuerConfig, claims: &Claims) -> Result<(), TokenError> {
    match claims.get("iss") {
        None => Ok(()),
        Some(Value::String(issuer)) if *issuer == config.issuer => Ok(()),
        Some(_) => Err(TokenError::invalid(
            "the issuer of the access token is not trusted here",
            "introspection names another issuer",
        )),
    }
}

/// An issuer may say of refresh and id tokens too that they are active.
fn check_asked_kind(claims: &Claims) -> Result<(), TokenError> {
    let is_one_of = |name: &str, known: &[&str]| match claims.get(name) {
        None => true,
        Some(Value::String(kind)) => known.iter().any(|known| kind.eq_ignore_ascii_case(known)),
        Some(_) => false,
    };
    let bound = claims.contains_key("cnf");
    let fits = is_one_of("token_use", &["access_token", "access"])
        && is_one_of("typ", &["Bearer", "DPoP", "JWT", "at+jwt"])
        && if bound {
            is_one_of("token_type", &["Bearer", "DPoP", "access_token"])
        } else {
            is_one_of("token_type", &["Bearer", "access_token"])
        };
    if fits {
        Ok(())
    } else {
        Err(TokenError::invalid(
            "the token is not an access token",
            "introspection names another kind of token, or one that should be bound",
        ))
    }
}

/// The thumbprint of the key that the token is bound to (RFC 9449 section 6.1). Bound in any other way it is good for
/// nothing, since nobody here could check that.
fn bound_to(claims: &Claims) -> Result<Option<String>, TokenError> {
    const THUMBPRINT: usize = 43;
    let Some(confirmation) = claims.get("cnf") else {
        return Ok(None);
    };
    let only = confirmation.as_object().filter(|members| members.len() == 1);
    only.and_then(|members| members.get("jkt"))
        .and_then(Value::as_str)
        .filter(|thumbprint| thumbprint.len() == THUMBPRINT)
        .map(|thumbprint| Some(thumbprint.to_owned()))
        .ok_or_else(|| {
            TokenError::invalid(
                "the access token is bound to its sender in a way that is not supported here",
                "`cnf` is not a `jkt` alone",
            )
        })
}

/// `exp` in the future, `nbf` and `iat` in the past, give or take the leeway.
fn check_times(
    config: &IssuerConfig,
    claims: &Claims,
    now: Timestamp,
    strict: bool,
) -> Result<Timestamp, TokenError> {
    let leeway = Span::seconds(config.leeway_seconds);
    let expires_at = date(claims, "exp")?.ok_or_else(|| unusable("has no expiry", "`exp`"))?;
    if now >= expires_at.plus(leeway) {
        return Err(TokenError::invalid(
            "the access token is expired",
            "`exp` is past",
        ));
    }
    for name in ["nbf", "iat"] {
        if date(claims, name)?.is_some_and(|from| from > now.plus(leeway)) {
            return Err(TokenError::invalid(
                "the access token is not valid yet",
                format!("`{name}` is in the future"),
            ));
        }
    }
    if strict && !claims.contains_key("iat") {
        return Err(unusable("has no issue time", "`iat`"));
    }
    Ok(expires_at)
}

/// A `NumericDate` (RFC 7519 section 2); a fraction of a second is dropped.
pub(crate) fn date(claims: &Claims, name: &'static str) -> Result<Option<Timestamp>, TokenError> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let seconds = match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            let text = number.to_string();
            text.split_once('.').and_then(|(whole, _)| whole.parse().ok())
        }),
        _ => None,
    };
    seconds
        .filter(|s| (0..=LAST_SECOND).contains(s))
        .map(|s| Some(Timestamp(0).plus(Span::seconds(s))))
        .ok_or_else(|| unusable("has a malformed date", name))
}

fn check_audience(config: &IssuerConfig, claims: &Claims) -> Result<(), TokenError> {
    let accepted = |value: &Value| {
        value
            .as_str()
            .is_some_and(|a| config.audience.iter().any(|own| own == a))
    };
    let meant = match claims.get("aud") {
        Some(Value::Array(all)) => all.iter().any(accepted),
        Some(one) => accepted(one),
        None => false,
    };
    if meant {
        Ok(())
    } else {
        Err(TokenError::invalid(
            "the access token is not for this server",
            "`aud` names none of ours",
        ))
    }
}

fn actor(
    config: &IssuerConfig,
    claims: &Claims,
    subject: &str,
    client: &str,
) -> Result<ActorRef, TokenError> {
    match find(claims, &config.claims.actor) {
        Some(Value::String(text)) => {
            // An absolute URL names the user on the issuer's own FHIR server; the issuer vouches for it.
            let mut ends = text.rsplit('/');
            match (ends.next(), ends.next()) {
                (Some(id), Some(kind)) => ActorRef::parse(format!("{kind}/{id}"))
                    .map_err(|_| no_user("is not a reference to someone who can act")),
                _ => Err(no_user("is not a reference")),
            }
        }
        Some(_) => Err(no_user("is not text")),
        None => match &config.client_actor {
            Some(kind) if subject == client => ActorRef::parse(format!("{kind}/{client}"))
                .map_err(|_| no_user("is absent, and the client's name is not an id")),
            Some(_) => Err(no_user("is absent, and the token is not a client's own")),
            None => Err(no_user("is absent")),
        },
    }
}

fn no_user(detail: &str) -> TokenError {
    TokenError::invalid(
        "the access token names no usable FHIR user",
        format!("actor claim {detail}"),
    )
}

/// The acting party (RFC 8693 section 4.1): the outermost `act`. Inner ones are history, not authority.
fn delegate(config: &IssuerConfig, claims: &Claims) -> Result<Option<String>, TokenError> {
    match claims.get("act") {
        None => Ok(None),
        // Somebody else's subject of that name would be another.
        Some(Value::Object(act)) if act.get("iss").is_some_and(|issuer| *issuer != config.issuer) => Err(
            unusable("is a delegation to another issuer's subject", "`act.iss`"),
        ),
        Some(Value::Object(act)) => required_name(act, "sub").map(Some),
        Some(_) => Err(unusable("has a malformed delegation", "`act`")),
    }
}

fn teams(config: &IssuerConfig, claims: &Claims) -> BTreeSet<String> {
    words(find(claims, &config.claims.teams), false)
        .into_iter()
        .collect()
}

fn roles(config: &IssuerConfig, claims: &Claims) -> (BTreeSet<Role>, Vec<String>) {
    let canonical = |name: &str| {
        let name = name.trim().to_lowercase();
        let listed = config.role_map.get(&name).copied();
        listed
            .or_else(|| (config.role_words)(&name))
            .or_else(|| Role::parse(&name))
    };
    let named = match find(claims, &config.claims.roles) {
        // One text is one role where it is known as such (`billing specialist`), else a list.
        Some(Value::String(text)) if canonical(text).is_some() => vec![text.clone()],
        Some(value @ Value::String(_)) => words(Some(value), true),
        value => words(value, false),
    };
    let mut roles = BTreeSet::new();
    let mut unmapped = Vec::new();
    for name in named {
        match canonical(&name) {
            Some(role) => {
                roles.insert(role);
            }
            None if unmapped.len() < MOST_UNMAPPED => unmapped.push(name),
            None => {}
        }
    }
    (roles, unmapped)
}

/// The texts of a claim: an array's members, or one text, split at spaces where `split`.
fn words(value: Option<&Value>, split: bool) -> Vec<String> {
    let parts = |text: &str| -> Vec<String> {
        if split {
            text.split_whitespace().map(str::to_owned).collect()
        } else {
            vec![text.to_owned()]
        }
    };
    match value {
        Some(Value::String(text)) => parts(text),
        Some(Value::Array(all)) => all
            .iter()
            .filter_map(Value::as_str)
            .filter(|t| is_name(t))
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    }
}

/// What rules may ask about. What cannot be read as one text is as good as not said.
fn attributes(config: &IssuerConfig, claims: &Claims, client: &str) -> Result<Attributes, TokenError> {
    let one = |name: &str| {
        let text = find(claims, name)?.as_str()?;
        is_name(text).then(|| text.to_owned())
    };
    Ok(Attributes {
        department: one(&config.claims.department),
        location: one(&config.claims.location),
        purpose_of_use: find(claims, &config.claims.purpose_of_use).and_then(code),
        authenticated_at: date(claims, "auth_time")?,
        trusted_client: config.trusted_clients.contains(client),
        unmapped_roles: Vec::new(),
    })
}

/// A code: as text, as the `code` of an object, or as the only member of a list of those.
fn code(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => is_name(text).then(|| text.clone()),
        Value::Object(coding) => coding
            .get("code")
            .filter(|member| member.is_string())
            .and_then(code),
        Value::Array(all) => match all.as_slice() {
            [one] if !one.is_array() => code(one),
            // Which of several it is for, nobody says.
            _ => None,
        },
        _ => None,
    }
}

fn patient(config: &IssuerConfig, claims: &Claims) -> Result<Option<String>, TokenError> {
    match find(claims, &config.claims.patient) {
        None => Ok(None),
        Some(Value::String(text)) => {
            let id = text.strip_prefix("Patient/").unwrap_or(text);
            if handoff_domain::ids::is_fhir_id(id) {
                Ok(Some(id.to_owned()))
            } else {
                Err(unusable("has a malformed patient", "patient claim"))
            }
        }
        // A launch context that cannot be read must not widen into none.
        Some(_) => Err(unusable("has a malformed patient", "patient claim")),
    }
}

fn token_id(
    claims: &Claims,
    required: bool,
    fallback: impl FnOnce() -> String,
) -> Result<String, TokenError> {
    match claims.get("jti").and_then(Value::as_str).filter(|id| is_name(id)) {
        Some(id) => Ok(id.to_owned()),
        None if required => Err(unusable("has no id", "`jti`")),
        None => Ok(fallback()),
    }
}

pub(crate) fn required_name(claims: &Claims, name: &'static str) -> Result<String, TokenError> {
    claims
        .get(name)
        .and_then(Value::as_str)
        .filter(|text| is_name(text))
        .map(str::to_owned)
        .ok_or_else(|| unusable("lacks a claim that is needed", name))
}

/// The text of a claim that may be absent, and may be nothing but a name.
pub(crate) fn optional_name(claims: &Claims, name: &'static str) -> Result<Option<String>, TokenError> {
    if claims.contains_key(name) {
        required_name(claims, name).map(Some)
    } else {
        Ok(None)
    }
}

pub(crate) fn is_name(text: &str) -> bool {
    (1..=MOST_NAME_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn unusable(what: &str, claim: &str) -> TokenError {
    TokenError::invalid(
        "the access token lacks a claim that is needed",
        format!("token {what}: {claim}"),
    )
}
