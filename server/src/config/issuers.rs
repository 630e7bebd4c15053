//! `[[issuers]]`: whose tokens are accepted, for which tenant, and which claims say who somebody is.

use handoff_domain::access::Role;
use handoff_domain::ids::TenantId;
use handoff_identity::{Alg, Introspection, IssuerConfig, SignIn};
use toml::{Table, Value};
use url::Url;

use super::Problem;
use super::reader::Section;

/// Reads every `[[issuers]]`.
pub(super) fn read(root: &mut Table, problems: &mut Vec<Problem>, replicas: u32) -> Vec<IssuerConfig> {
    let entries = match root.remove("issuers") {
        None => Vec::new(),
        Some(Value::Array(entries)) => entries,
        Some(_) => {
            problems.push(Problem {
                key: "issuers".to_owned(),
                text: "is not a list of sections".to_owned(),
                remedy: "write each issuer under its own `[[issuers]]`".to_owned(),
            });
            return Vec::new();
        }
    };
    if entries.is_empty() {
        problems.push(Problem {
            key: "issuers".to_owned(),
            text: "there is none, so nobody could call".to_owned(),
            remedy: "add `[[issuers]]` with `issuer`, `audience` and, but for the default tenant, `tenant`"
                .to_owned(),
        });
    }
    let mut issuers: Vec<IssuerConfig> = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let path = format!("issuers.{index}");
        let Value::Table(table) = entry else {
            problems.push(Problem {
                key: path,
                text: "is a value".to_owned(),
                remedy: "write each issuer under its own `[[issuers]]`".to_owned(),
            });
            continue;
        };
        let mut section = Section::of(&path, table, problems);
        let issuer = one(&mut section);
        if let Some(issuer) = &issuer
            && issuers.iter().any(|other| other.issuer == issuer.issuer)
        {
            section.problem(
                "issuer",
                format!("`{}` is there twice", issuer.issuer),
                "keep one of them",
            );
        }
        if let Some(issuer) = issuer.as_ref().filter(|issuer| issuer.introspection.is_some())
            && issuers
                .iter()
                .any(|other| other.introspection.is_some() && other.tenant == issuer.tenant)
        {
            section.problem(
                "introspection_client_id",
                "another issuer of the tenant is asked about opaque tokens already, and would see those of this one",
                "let one issuer of a tenant have opaque tokens",
            );
        }
        if issuer.as_ref().is_some_and(|issuer| issuer.require_dpop_nonce) && replicas > 1 {
            section.problem(
                "dpop_nonce",
                format!("a nonce is good at the replica that gave it, and `server.replicas` is {replicas}"),
                "leave it out",
            );
        }
        section.finish();
        issuers.extend(issuer);
    }
    issuers
}

fn one(section: &mut Section<'_>) -> Option<IssuerConfig> {
    let name = section.text("issuer");
    if let Some(name) = &name {
        check_name(section, name);
    }
    let tenant = section.parsed("tenant", "use 1 to 64 of letters, digits, `-` and `.`", |text| {
        TenantId::parse(text).ok()
    });
    let audience = section.texts("audience").unwrap_or_default();
    if audience.is_empty() {
        section.problem(
            "audience",
            "is missing",
            "name the `aud` that its tokens carry for this server",
        );
    }
    let defaults = IssuerConfig::new(
        name.clone().unwrap_or_default(),
        tenant.unwrap_or_else(TenantId::default_tenant),
        audience,
    );
    let claims = handoff_identity::ClaimNames {
        actor: section.text("actor_claim").unwrap_or(defaults.claims.actor),
        roles: section.text("roles_claim").unwrap_or(defaults.claims.roles),
        teams: section.text("teams_claim").unwrap_or(defaults.claims.teams),
        client: section.texts("client_claims").unwrap_or(defaults.claims.client),
        scope: section.texts("scope_claims").unwrap_or(defaults.claims.scope),
        patient: section.text("patient_claim").unwrap_or(defaults.claims.patient),
        department: section
            .text("department_claim")
            .unwrap_or(defaults.claims.department),
        location: section.text("location_claim").unwrap_or(defaults.claims.location),
        purpose_of_use: section
            .text("purpose_of_use_claim")
            .unwrap_or(defaults.claims.purpose_of_use),
    };
    let mut role_map = defaults.role_map;
    for (external, canonical) in section.pairs("roles").unwrap_or_default() {
        if let Some(role) = Role::parse(&canonical) {
            role_map.insert(external.to_lowercase(), role);
        } else {
            let known = Role::ALL.map(Role::as_str).join(", ");
            let text = format!("`{external}` is mapped to `{canonical}`, which is no role");
            section.problem("roles", text, format!("map it to one of {known}"));
        }
    }
    let mut algorithms = Vec::new();
    if let Some(names) = section.texts("algorithms") {
        for name in names {
            match Alg::parse(&name) {
                Some(alg) => algorithms.push(alg),
                None => section.problem(
                    "algorithms",
                    format!("`{name}` is not supported"),
                    format!("use some of {}", Alg::ALL.map(Alg::as_str).join(", ")),
                ),
            }
        }
    } else {
        algorithms = defaults.algorithms;
    }
    let leeway = section.number("leeway_seconds", 60, 0, 300);
    let introspection = introspection(section);
    let sign_in = sign_in(section);
    let issuer = IssuerConfig {
        claims,
        role_map,
        role_words: defaults.role_words,
        trusted_clients: section
            .texts("trusted_clients")
            .unwrap_or_default()
            .into_iter()
            .collect(),
        algorithms,
        leeway_seconds: i64::try_from(leeway).unwrap_or(60),
        require_at_jwt_typ: section.flag("require_at_jwt", defaults.require_at_jwt_typ),
        require_jti: section.flag("require_jti", defaults.require_jti),
        client_actor: section.text("client_actor"),
        require_dpop_nonce: section.flag("dpop_nonce", defaults.require_dpop_nonce),
        introspection,
        sign_in,
        // Who is elsewhere must not send us to this machine.
        allow_insecure_loopback: Url::parse(&defaults.issuer).is_ok_and(|url| super::is_loopback(&url)),
        issuer: defaults.issuer,
        tenant: defaults.tenant,
        audience: defaults.audience,
    };
    if name.is_none() {
        section.problem(
            "issuer",
            "is missing",
            "set it to the issuer's URL, exactly as tokens write `iss`",
        );
        return None;
    }
    Some(issuer)
}

/// How the issuer is asked about its tokens; not at all where no client is named.
fn introspection(section: &mut Section<'_>) -> Option<Introspection> {
    let client_id = section.text("introspection_client_id");
    let secret = section.secret("introspection_client_secret", "introspection_client_secret_file");
    let endpoint = section.text("introspection_endpoint");
    let remember = section.number("introspection_remember_seconds", 5, 0, 300);
    if let Some(endpoint) = &endpoint
        && !Url::parse(endpoint).is_ok_and(|url| {
            super::load::is_safe_base(&url) && url.username().is_empty() && url.fragment().is_none()
        })
    {
        let text = "is no URL, has a user or a fragment, or is reached in the clear";
        section.problem(
            "introspection_endpoint",
            text,
            "use https; plain http is for loopback alone",
        );
    }
    match (client_id, secret) {
        (Some(client_id), Some(client_secret)) => Some(Introspection {
            client_id,
            client_secret,
            endpoint,
            remember_seconds: i64::try_from(remember).unwrap_or(5),
        }),
        (None, None) => {
            if endpoint.is_some() {
                section.problem(
                    "introspection_endpoint",
                    "is there without a client that could ask",
                    "set `introspection_client_id` and `introspection_client_secret_file`, or remove it",
                );
            }
            None
        }
        (Some(_), None) => {
            section.problem(
                "introspection_client_secret_file",
                "is missing",
                "name the file with the secret of that client",
            );
            None
        }
        (None, Some(_)) => {
            section.problem(
                "introspection_client_id",
                "is missing",
                "say whose secret that is",
            );
            None
        }
    }
}

/// How people sign in at the issuer; not at all where no client is named.
fn sign_in(section: &mut Section<'_>) -> Option<SignIn> {
    let client_id = section.text("sign_in_client_id");
    let client_secret = section.secret("sign_in_client_secret", "sign_in_client_secret_file");
    let scopes = section.texts("sign_in_scopes");
    let label = section.text("sign_in_label");
    let Some(client_id) = client_id else {
        if client_secret.is_some() || scopes.is_some() || label.is_some() {
            section.problem(
                "sign_in_client_id",
                "is missing",
                "name the client as which people are sent to sign in, or remove the other `sign_in_` keys",
            );
        }
        return None;
    };
    Some(SignIn {
        client_id,
        client_secret,
        scopes: scopes.unwrap_or_else(|| vec!["profile".to_owned(), "fhirUser".to_owned()]),
        label: label.unwrap_or_else(|| "Sign in".to_owned()),
    })
}

/// Says what is unsafe about an issuer's name.
fn check_name(section: &mut Section<'_>, name: &str) {
    match Url::parse(name) {
        Err(_) => section.problem(
            "issuer",
            format!("`{name}` is not a URL"),
            "set it to the issuer's URL",
        ),
        Ok(url) => {
            if !super::load::is_safe_base(&url) {
                let text = format!("`{name}` is reached in the clear");
                section.problem("issuer", text, "use https; plain http is for loopback alone");
            }
            if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
                section.problem(
                    "issuer",
                    "has a query, a fragment or a user",
                    "remove it from the URL",
                );
            }
            if url
                .path()
                .split('/')
                .any(|part| part == crate::demo::DEV_ISSUER_SEGMENT)
            {
                let text = format!("`{name}` is a development issuer, which signs for anybody");
                section.problem("issuer", text, "use a real issuer, or run `handoff demo`");
            }
        }
    }
}
