//! Ready-made commands to go on with after the play. Each stands alone and works as printed, more than once.

use super::play::{Props, Stage, task};

/// What a command is for, and the command.
pub fn curl_lines(stage: &Stage, props: &Props) -> Vec<(&'static str, String)> {
    let base = &stage.base;
    let bearer = |client: &str| {
        format!(
            "-H \"Authorization: Bearer $(curl -sS -d grant_type=client_credentials -d client_id={client} \
             {}/dev-issuer/token | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')\"",
            stage.issuer_base
        )
    };
    let resource = task(
        &props.document,
        "ready",
        Some("Practitioner/lane"),
        &stage.now.to_instant(),
    );
    let create = format!(
        "{} -H 'Content-Type: application/fhir+json' -d '{resource}' {base}/fhir/Task",
        bearer("ehr")
    );
    let created_id =
        format!("curl -sS -o /dev/null -D - {create} | sed -n 's#^[Ll]ocation:.*/Task/\\([^/]*\\)/.*#\\1#p'");
    vec![
        (
            "what this server can do",
            format!("curl -sS {base}/fhir/metadata"),
        ),
        (
            "Dr. Lane's Tasks",
            format!(
                "curl -sS {} '{base}/fhir/Task?owner=Practitioner/lane&_sort=-_lastUpdated'",
                bearer("lane")
            ),
        ),
        (
            "a fresh Task for the same letter, and the letter fetched under it",
            format!(
                "curl -sS -o letter.pdf -w '%{{http_code}} %{{size_download}} bytes in letter.pdf\\n' {} \
                 \"{base}/fhir/Binary/{}?task=Task/$({created_id})\"",
                bearer("lane"),
                props.binary
            ),
        ),
        (
            "the letter under the finished Task: refused",
            format!(
                "curl -sS {} '{base}/fhir/Binary/{}?task=Task/{}'",
                bearer("lane"),
                props.binary,
                props.task
            ),
        ),
        (
            "the clinic's own server tells of a Task: mirrored here, found by its identifier",
            format!(
                "curl -sS -X PUT -H 'Authorization: Bearer demo' -H 'Content-Type: application/fhir+json' \
                 -d '{{\"resourceType\":\"Task\",\"id\":\"clinic-1\",\"status\":\"requested\",\"intent\":\"order\",\
                 \"identifier\":[{{\"value\":\"clinic-1\"}}],\"for\":{{\"reference\":\"Patient/ada\"}}}}' \
                 {base}/notifications/ehr-feed/Task/clinic-1"
            ),
        ),
        (
            "the trail of the play",
            format!(
                "curl -sS {} '{base}/fhir/AuditEvent?entity=Task/{}'",
                bearer("auditor"),
                props.task
            ),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use handoff_domain::time::Timestamp;

    use super::*;

    #[test]
    fn every_line_is_one_command_that_a_shell_can_read() {
        let stage = Stage {
            base: "http://127.0.0.1:8080".to_owned(),
            issuer_base: "http://127.0.0.1:8080".to_owned(),
            now: Timestamp(0),
        };
        let props = Props {
            task: "t1".to_owned(),
            document: "d1".to_owned(),
            binary: "b1".to_owned(),
            link: String::new(),
        };
        for (what, line) in curl_lines(&stage, &props) {
            assert!(line.starts_with("curl ") && !line.contains('\n'), "{what}");
            let read = std::process::Command::new("sh")
                .args(["-n", "-c", &line])
                .status()
                .unwrap();
            assert!(read.success(), "{what}: {line}");
        }
    }
}
