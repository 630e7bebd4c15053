//! DocumentReference to [`DocumentFacts`].

use handoff_domain::document::{AttachmentFacts, DocumentFacts, DocumentStatus, Sha256};
use handoff_fhir_profiles::canonical::{EXT_SHA256, EXT_SIZE};
use serde_json::Value;

use super::{coding, codings, items, owned, text};
use crate::binary;
use crate::issue::{Issue, IssueType};
use crate::resource::Resource;

/// What the rules need to know of a DocumentReference. References and URLs are as the resource writes them.
pub fn document_facts(resource: &Resource) -> Result<DocumentFacts, Vec<Issue>> {
    let document = resource.value();
    if resource.type_name() != "DocumentReference" {
        return Err(vec![Issue::at(
            IssueType::Invalid,
            "resourceType",
            "a DocumentReference is expected",
        )]);
    }
    let mut issues = Vec::new();
    let attachments = items(document, "content")
        .enumerate()
        .filter_map(|(index, content)| {
            let place = format!("DocumentReference.content[{index}].attachment");
            Some(attachment(content.get("attachment")?, &place, &mut issues))
        })
        .collect();
    let status = text(document, &["status"]).and_then(DocumentStatus::parse);
    if status.is_none() {
        issues.push(Issue::at(
            IssueType::Required,
            "DocumentReference.status",
            "a value must be given",
        ));
    }
    let Some(status) = status.filter(|_| issues.is_empty()) else {
        return Err(issues);
    };
    let labels = items(document, "securityLabel").flat_map(codings);
    let own_labels = document
        .get("meta")
        .into_iter()
        .flat_map(|meta| items(meta, "security"))
        .filter_map(coding);
    Ok(DocumentFacts {
        status,
        doc_status: owned(document, &["docStatus"]),
        subject: owned(document, &["subject", "reference"]),
        kind: document.get("type").into_iter().flat_map(codings).collect(),
        category: items(document, "category").flat_map(codings).collect(),
        security: labels.chain(own_labels).collect(),
        replaces: items(document, "relatesTo")
            .filter(|relation| text(relation, &["code"]) == Some("replaces"))
            .filter_map(|relation| owned(relation, &["target", "reference"]))
            .collect(),
        encounters: document
            .get("context")
            .into_iter()
            .flat_map(|context| items(context, "encounter"))
            .filter_map(|encounter| owned(encounter, &["reference"]))
            .collect(),
        attachments,
    })
}

fn attachment(value: &Value, place: &str, issues: &mut Vec<Issue>) -> AttachmentFacts {
    let sha1 = text(value, &["hash"]).and_then(binary::decode);
    if value.get("hash").is_some() && sha1.as_ref().is_none_or(|hash| hash.len() != 20) {
        issues.push(Issue::value(
            &format!("{place}.hash"),
            "the SHA-1 of the content is expected, 20 bytes in base64",
        ));
    }
    let digest = extension(value, EXT_SHA256);
    let sha256 = digest
        .and_then(|e| text(e, &["valueBase64Binary"]))
        .and_then(binary::decode)
        .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
        .map(Sha256);
    if digest.is_some() && sha256.is_none() {
        let text = "the SHA-256 of the content is expected, 32 bytes in base64";
        issues.push(Issue::value(
            &format!("{place}.extension('{EXT_SHA256}').value"),
            text,
        ));
    }
    // `size` ends at 2 GiB; beyond that the extension tells the length.
    let size = value.get("size").and_then(Value::as_u64);
    let long = extension(value, EXT_SIZE)
        .and_then(|e| e.get("valueDecimal"))
        .and_then(Value::as_u64);
    AttachmentFacts {
        url: owned(value, &["url"]),
        has_data: value.get("data").is_some(),
        content_type: owned(value, &["contentType"]),
        size: size.or(long),
        sha1,
        sha256,
        title: owned(value, &["title"]),
    }
}

fn extension<'a>(value: &'a Value, url: &str) -> Option<&'a Value> {
    items(value, "extension").find(|e| text(e, &["url"]) == Some(url))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ParseOptions, parse};

    fn facts(rest: &str) -> Result<DocumentFacts, Vec<Issue>> {
        let text = format!(r#"{{"resourceType":"DocumentReference","status":"current"{rest}}}"#);
        document_facts(&parse(text.as_bytes(), &ParseOptions::default()).unwrap())
    }

    #[test]
    fn a_documents_facts_are_read() {
        let facts = facts(&format!(
            r#","docStatus":"final","subject":{{"reference":"Patient/ada"}},
            "meta":{{"security":[{{"system":"http://s","code":"R"}}]}},"securityLabel":[{{"coding":[{{"code":"V"}}]}}],
            "type":{{"coding":[{{"system":"http://loinc.org","code":"18842-5"}}]}},
            "context":{{"encounter":[{{"reference":"Encounter/e"}},{{"reference":"EpisodeOfCare/c"}}]}},
            "relatesTo":[{{"code":"replaces","target":{{"reference":"DocumentReference/0"}}}},
                {{"code":"appends","target":{{"reference":"DocumentReference/9"}}}}],
            "content":[{{"attachment":{{"contentType":"application/pdf","url":"Binary/1","size":0,"title":"t",
                "hash":"2jmj7l5rSw0yVb/vlWAYkK/YBwk=","extension":[{{"url":"{EXT_SHA256}",
                "valueBase64Binary":"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}}]}}}},
                {{"attachment":{{"contentType":"text/plain","data":"aGk=","extension":[{{"url":"{EXT_SIZE}",
                "valueDecimal":5000000000}}]}}}}]"#
        ))
        .unwrap();
        assert_eq!(facts.status, DocumentStatus::Current);
        assert_eq!(facts.doc_status.as_deref(), Some("final"));
        assert_eq!(
            facts.security.iter().map(|c| c.code.as_str()).collect::<Vec<_>>(),
            ["V", "R"]
        );
        assert_eq!(facts.replaces, ["DocumentReference/0"]);
        assert_eq!(facts.encounters, ["Encounter/e", "EpisodeOfCare/c"]);
        let [first, second] = facts.attachments.as_slice() else {
            panic!("two attachments")
        };
        assert_eq!((first.size, first.has_data), (Some(0), false));
        assert_eq!(first.sha1.as_ref().unwrap().len(), 20);
        assert!(first.sha256.unwrap().to_hex().starts_with("e3b0c442"));
        assert_eq!((second.size, second.has_data), (Some(5_000_000_000), true));
    }

    #[test]
    fn a_hash_of_the_wrong_length_is_told_where_it_stands() {
        let issues = facts(&format!(
            r#","content":[{{"attachment":{{"contentType":"a/b","hash":"AAAA","extension":[{{"url":"{EXT_SHA256}",
            "valueBase64Binary":"AAAA"}}]}}}}]"#
        ))
        .unwrap_err();
        assert_eq!(
            issues[0].expression.as_deref(),
            Some("DocumentReference.content[0].attachment.hash")
        );
        assert_eq!(issues.len(), 2);
    }
}
