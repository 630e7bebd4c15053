//! Reads secrets from where an operator put them: a file, or the environment. Each is read when it is needed, so that a file
//! can be replaced while the server runs.

use handoff_domain::source::SecretPlace;
use secrecy::SecretString;
use tokio::io::AsyncReadExt;

/// The longest secret: a private key in PEM.
const LONGEST: u64 = 64 * 1024;

/// What is wrong with a file, in an operator's words.
fn said(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "it is not for this user to read".to_owned(),
        other => other.to_string(),
    }
}

/// The secret, without the line's end after it; or what is wrong, in words that name the place and nothing of the secret.
pub async fn read(place: &SecretPlace) -> Result<SecretString, String> {
    let text = match place {
        SecretPlace::Environment(name) => {
            std::env::var(name).map_err(|_| format!("the variable `{name}` is not set, or not text"))?
        }
        SecretPlace::File(path) => {
            let cause = |error: std::io::Error| format!("`{path}` can't be read: {}", said(&error));
            let file = tokio::fs::File::open(path).await.map_err(cause)?;
            let mut text = String::new();
            let read = file
                .take(LONGEST)
                .read_to_string(&mut text)
                .await
                .map_err(cause)?;
            if read as u64 >= LONGEST {
                return Err(format!("`{path}` is too long for a secret"));
            }
            text
        }
    };
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(SecretString::from(text.to_owned()))
}
