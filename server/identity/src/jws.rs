//! A compact JWS taken apart (RFC 7515 section 7.1), nothing of it believed yet.
//! Keys that the header of a token offers (`jku`, `x5u`, `jwk`, `x5c`) are never looked at.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::error::{TokenError, quoted};

/// The longest token that is looked at, in bytes.
pub(crate) const MOST_TOKEN_BYTES: usize = 16 * 1024;

/// The parts of a compact JWS.
pub(crate) struct Jws<'t> {
    /// `alg` of the header.
    pub(crate) alg: String,
    /// `typ` of the header, lower case and without `application/`.
    pub(crate) typ: Option<String>,
    /// `kid` of the header.
    pub(crate) kid: Option<String>,
    /// The payload.
    pub(crate) claims: Map<String, Value>,
    /// What was signed.
    pub(crate) signed: &'t str,
    /// The signature.
    pub(crate) signature: Vec<u8>,
}

impl<'t> Jws<'t> {
    /// Takes `token` apart. Refuses what is too long, encrypted, unsigned or not of three base64url parts.
    pub(crate) fn parse(token: &'t str) -> Result<Self, TokenError> {
        if token.is_empty() {
            return Err(TokenError::Missing);
        }
        if token.len() > MOST_TOKEN_BYTES {
            return Err(TokenError::malformed("token is longer than 16 KiB"));
        }
        let (signed, signature) = token
            .rsplit_once('.')
            .ok_or_else(|| TokenError::malformed("token has no parts"))?;
        let (header, payload) = signed
            .split_once('.')
            .filter(|(_, payload)| !payload.contains('.'))
            .ok_or_else(|| TokenError::malformed("token does not have three parts"))?;
        let header = object(header, "header")?;
        // An extension that must be understood, and none is (RFC 7515 section 4.1.11).
        if header.contains_key("crit") {
            return Err(TokenError::malformed("header has `crit`"));
        }
        let alg = text(&header, "alg")?.ok_or_else(|| TokenError::malformed("header has no `alg`"))?;
        let typ = text(&header, "typ")?.map(|typ| {
            let typ = typ.to_ascii_lowercase();
            typ.strip_prefix("application/")
                .map_or(typ.clone(), str::to_owned)
        });
        let kid = text(&header, "kid")?;
        let claims = object(payload, "payload")?;
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| TokenError::malformed("signature is not base64url"))?;
        Ok(Self {
            alg,
            typ,
            kid,
            claims,
            signed,
            signature,
        })
    }
}

/// The header of a compact JWS, not believed either.
pub(crate) fn header_of(token: &str) -> Result<Map<String, Value>, TokenError> {
    object(token.split('.').next().unwrap_or_default(), "header")
}

fn object(part: &str, name: &str) -> Result<Map<String, Value>, TokenError> {
    let bytes = URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| TokenError::malformed(format!("{name} is not base64url")))?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::malformed(format!("{name} is not a JSON object")))
}

fn text(header: &Map<String, Value>, name: &str) -> Result<Option<String>, TokenError> {
    match header.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(TokenError::malformed(format!(
            "header {} is not text",
            quoted(name)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, payload: &str) -> String {
        let b = |t: &str| URL_SAFE_NO_PAD.encode(t);
        format!("{}.{}.{}", b(header), b(payload), b("signature"))
    }

    #[test]
    fn three_base64url_parts_are_taken_apart() {
        let token = token(
            r#"{"alg":"ES256","typ":"application/AT+JWT","kid":"k"}"#,
            r#"{"iss":"i"}"#,
        );
        let jws = Jws::parse(&token).unwrap();
        assert_eq!((jws.alg.as_str(), jws.typ.as_deref()), ("ES256", Some("at+jwt")));
        assert_eq!(jws.kid.as_deref(), Some("k"));
        assert_eq!(jws.signature, b"signature");
        assert!(token.starts_with(jws.signed));
    }

    #[test]
    fn garbage_is_malformed_and_nothing_is_missing() {
        let long = format!("{}.{}.{}", "a".repeat(8000), "b".repeat(8000), "c".repeat(8000));
        let critical = token(r#"{"alg":"ES256","crit":["b64"]}"#, "{}");
        let padded = format!("{}=", token(r#"{"alg":"ES256"}"#, "{}"));
        let numeric = token(r#"{"alg":"ES256","kid":1}"#, "{}");
        let array = token(r#"["alg"]"#, "{}");
        let no_alg = token("{}", "{}");
        let cases = [
            "x",
            ".",
            "..",
            "a.b",
            "a.b.c",
            "a.b.c.d.e",
            "é.é.é",
            &long,
            &critical,
            &padded,
            &numeric,
            &array,
            &no_alg,
        ];
        for bad in cases {
            assert!(matches!(Jws::parse(bad), Err(TokenError::Malformed(_))), "{bad}");
        }
        assert_eq!(Jws::parse("").err(), Some(TokenError::Missing));
    }
}
