//! `[[issuers]]`: whose tokens are accepted, for which tenant, and which claims say who somebody is.

use handoff_domain::access::Role;
use handoff_domain::ids::TenantId;
use handoff_identity::{Alg, IssuerConfig};
use toml::{Table, Value};
use url::Url;

use super::Problem;
use super::reader::Section;

/// Reads every `[[issuers]]`.
pub(super) fn read(root: &mut Table, problems: &mut Vec<Problem>) -> Vec<IssuerConfig> {
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
    };
    let mut role_map = defaults.role_map;
    for (external, canonical) in section.pairs("roles").unwrap_or_default() {
        if let Some(role) = Role::parse(&canonical) {
            role_map.insert(external, role);
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
    let issuer = IssuerConfig {
        claims,
        role_map,
        algorithms,
        leeway_seconds: i64::try_from(leeway).unwrap_or(60),
        require_at_jwt_typ: section.flag("require_at_jwt", defaults.require_at_jwt_typ),
        require_jti: section.flag("require_jti", defaults.require_jti),
        client_actor: section.text("client_actor"),
        // Plain http is refused off loopback whatever is set, and on loopback it is nobody else's network.
        allow_insecure_loopback: true,
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
