//! Ties a document's attachments to content we hold: inline data becomes a Binary, a `Binary/{id}` must be the
//! caller's own, and what is stated of size and hash must be true. Foreign URLs are kept and never fetched.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use handoff_domain::document::{Attachment, AttachmentFacts, DocumentFacts, StoredBinary};
use handoff_domain::ids::DocumentId;
use handoff_domain::ports::Tx;
use handoff_fhir_model::{Issue, IssueType, Resource};
use handoff_fhir_profiles::canonical::{EXT_SHA256, EXT_SIZE};
use serde_json::{Map, Value, json};

use super::binaries::Ingested;
use super::documents::binary_of;
use super::{App, AppError, Caller, Class, Scope};
use handoff_domain::reason::Reason;

/// FHIR's `unsignedInt` ends here; a longer content states its size by extension only.
const MAX_FHIR_SIZE: u64 = 2_147_483_647;

/// Takes inline `data` out of the attachments and into the blob store, leaving `Binary/{id}` in its place.
pub async fn take_inline_data(
    app: &App,
    caller: &Caller,
    resource: &mut Resource,
) -> Result<Vec<Ingested>, AppError> {
    let mut ingested = Vec::new();
    let count = attachments_mut(resource).count();
    for i in 0..count {
        let Some((content_type, bytes)) = inline_data(app, resource, i)? else {
            continue;
        };
        let one = match app
            .ingest_bytes(caller, app.fresh_binary()?, content_type, None, bytes)
            .await
        {
            Ok(one) => one,
            Err(error) => {
                for earlier in &ingested {
                    app.discard(earlier).await;
                }
                return Err(error);
            }
        };
        if let Some(attachment) = attachments_mut(resource).nth(i) {
            attachment.remove("data");
            attachment.insert("url".to_owned(), json!(format!("Binary/{}", one.binary.id)));
        }
        ingested.push(one);
    }
    Ok(ingested)
}

fn inline_data(app: &App, resource: &mut Resource, i: usize) -> Result<Option<(String, Vec<u8>)>, AppError> {
    let limit = app.settings.max_inline;
    let Some(attachment) = attachments_mut(resource).nth(i) else {
        return Ok(None);
    };
    let Some(data) = attachment.get("data").and_then(Value::as_str) else {
        return Ok(None);
    };
    let place = format!("DocumentReference.content[{i}].attachment");
    if attachment.contains_key("url") {
        return Err(AppError::rule(&place, "give `data` or `url`, not both"));
    }
    // Four characters of base64 are at most three bytes.
    if (data.len() as u64 / 4).saturating_mul(3) > limit.saturating_add(3) {
        return Err(AppError::new(
            Class::TooLarge,
            Reason::TooLarge,
            format!("inline data exceeds {limit} bytes; POST it to `Binary` and name it by `url`"),
        ));
    }
    let packed: String = data.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let bytes = STANDARD.decode(packed).map_err(|_| {
        AppError::invalid(vec![Issue::at(
            IssueType::Value,
            format!("{place}.data"),
            "not base64",
        )])
    })?;
    let content_type = attachment
        .get("contentType")
        .and_then(Value::as_str)
        .unwrap_or("application/octet-stream")
        .to_owned();
    Ok(Some((content_type, bytes)))
}

/// Finds the content that each attachment names and completes what the attachment says of it.
pub fn resolve(
    tx: &mut dyn Tx,
    scope: &Scope,
    document: &DocumentId,
    facts: &DocumentFacts,
    resource: &mut Resource,
) -> Result<Vec<Attachment>, AppError> {
    let mut attachments = Vec::new();
    for (i, stated) in facts.attachments.iter().enumerate() {
        let place = format!("DocumentReference.content[{i}].attachment");
        let Some(url) = stated.url.as_deref() else {
            continue;
        };
        if carries_sas(url) {
            return Err(AppError::rule(
                &format!("{place}.url"),
                "the URL carries a storage signature, which is a key; give the address without it",
            ));
        }
        let Some(binary) = binary_of(url) else { continue };
        let found = match binary {
            Ok(id) => tx.binary(scope.tenant(), &id)?,
            Err(()) => None,
        };
        // Unknown, deleted, another's, or another document's: one answer.
        let own = found.filter(|b| !b.deleted && may_name(scope, document, b));
        let Some(binary) = own else {
            return Err(not_yours(&place));
        };
        if !tx.claim_binary(scope.tenant(), &binary.id, document)? {
            return Err(not_yours(&place));
        }
        check_stated(&place, stated, &binary)?;
        if let Some(attachment) = attachments_mut(resource).nth(i) {
            complete(attachment, &binary);
        }
        attachments.push(Attachment {
            binary: binary.id.clone(),
            sha256: binary.sha256,
            size: binary.size,
            content_type: binary.content_type.clone(),
            title: stated.title.clone(),
            infected: super::scan::is_infected(tx, scope, &binary.id)?,
        });
    }
    Ok(attachments)
}

fn may_name(scope: &Scope, document: &DocumentId, binary: &StoredBinary) -> bool {
    match &binary.document {
        Some(owner) => owner == document,
        None => binary.uploaded_by == scope.caller.principal.actor,
    }
}

fn not_yours(place: &str) -> AppError {
    AppError::rule(
        &format!("{place}.url"),
        "there is no such Binary of yours that is free; POST the content first and name what that answers",
    )
}

fn check_stated(place: &str, stated: &AttachmentFacts, binary: &StoredBinary) -> Result<(), AppError> {
    if stated.size.is_some_and(|s| s != binary.size) {
        return Err(AppError::rule(
            &format!("{place}.size"),
            "the stated size is not that of the content",
        ));
    }
    if stated.sha1.as_ref().is_some_and(|h| h.as_slice() != binary.sha1) {
        return Err(AppError::rule(
            &format!("{place}.hash"),
            "the stated hash is not the SHA-1 of the content (base64 of its 20 bytes)",
        ));
    }
    if stated.sha256.is_some_and(|h| h != binary.sha256) {
        return Err(AppError::rule(
            &format!("{place}.extension"),
            "the stated SHA-256 is not that of the content",
        ));
    }
    Ok(())
}

/// Writes down what we know of the content: address, length, hashes.
fn complete(attachment: &mut Map<String, Value>, binary: &StoredBinary) {
    attachment.insert("url".to_owned(), json!(format!("Binary/{}", binary.id)));
    if !attachment.contains_key("contentType") {
        attachment.insert("contentType".to_owned(), json!(binary.content_type));
    }
    if binary.size <= MAX_FHIR_SIZE {
        attachment.insert("size".to_owned(), json!(binary.size));
    } else {
        attachment.remove("size");
    }
    attachment.insert("hash".to_owned(), json!(STANDARD.encode(binary.sha1)));
    let mut extensions = match attachment.remove("extension") {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    let ours = |e: &Value| {
        let url = e.get("url").and_then(Value::as_str);
        url == Some(EXT_SHA256) || url == Some(EXT_SIZE)
    };
    extensions.retain(|e| !ours(e));
    extensions.push(json!({"url": EXT_SHA256, "valueBase64Binary": STANDARD.encode(binary.sha256.0)}));
    if binary.size > MAX_FHIR_SIZE {
        extensions.push(json!({"url": EXT_SIZE, "valueDecimal": binary.size}));
    }
    attachment.insert("extension".to_owned(), Value::Array(extensions));
}

/// Whether a URL has a shared access signature of the storage service in its query.
pub(super) fn carries_sas(url: &str) -> bool {
    let Some((_, query)) = url.split_once('?') else {
        return false;
    };
    query.split(['&', ';']).any(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        let decoded = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
        decoded.eq_ignore_ascii_case("sig")
    })
}

fn attachments_mut(resource: &mut Resource) -> impl Iterator<Item = &mut Map<String, Value>> {
    resource
        .value_mut()
        .get_mut("content")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(|content| content.get_mut("attachment").and_then(Value::as_object_mut))
}

#[cfg(test)]
mod tests {
    use super::carries_sas;

    #[test]
    fn a_storage_signature_is_seen_however_it_is_spelled() {
        assert!(carries_sas("https://a.example/c/b?sv=1&sig=abc"));
        assert!(carries_sas("https://a.example/c/b?SIG=abc"));
        assert!(carries_sas("https://a.example/c/b?%73ig=abc"));
        assert!(!carries_sas("https://a.example/c/b?design=abc"));
    }
}
