//! How a source proves itself, as an operator says it.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use clap::{ArgGroup, Args};
use handoff_domain::ports::Entropy;
use handoff_domain::source::{Proof, SecretPlace};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};

use super::Failed;
use crate::adapters::{OsEntropy, secret_place};
use crate::notifications::is_signing_key;

/// The shortest shared secret that is taken, in bytes.
const SHORTEST_SECRET: usize = 24;

/// One of these has to be given.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("proof").required(true))]
pub(super) struct ProofFlags {
    /// Make a shared secret and print it, once
    #[arg(long, group = "proof")]
    mint_secret: bool,
    /// A file with the shared secret; no more than its digest is kept
    #[arg(long, group = "proof", value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// A variable with the shared secret
    #[arg(long, group = "proof", value_name = "NAME")]
    secret_env: Option<String>,
    /// A file with the key of its signatures (Standard Webhooks), read at each; made and printed once where there is none
    #[arg(long, group = "proof", value_name = "FILE")]
    signing_key_file: Option<PathBuf>,
    /// A variable of the server with that key
    #[arg(long, group = "proof", value_name = "NAME")]
    signing_key_env: Option<String>,
    /// With `--replace`: it goes on proving itself as it does
    #[arg(long, group = "proof", requires = "replace", conflicts_with = "subscribe")]
    keep_proof: bool,
}

/// What an operator is told once.
pub(super) struct Minted {
    pub what: &'static str,
    pub secret: SecretString,
}

/// How a source proves itself from now on.
pub(super) struct Proved {
    pub proof: Proof,
    pub minted: Option<Minted>,
    /// The secret that it will send, where that is known here.
    pub shared: Option<SecretString>,
}

/// The server that reads it may run in another folder.
pub(super) fn absolute(file: &Path) -> String {
    std::path::absolute(file)
        .unwrap_or_else(|_| file.to_owned())
        .to_string_lossy()
        .into_owned()
}

impl ProofFlags {
    /// What they say, where it proved itself as `known` so far. A key is made where a file is named that is not there.
    pub(super) async fn of(&self, known: Option<Proof>, entropy: &OsEntropy) -> Result<Proved, Failed> {
        if let (true, Some(proof)) = (self.keep_proof, known) {
            return Ok(Proved {
                proof,
                minted: None,
                shared: None,
            });
        }
        if let Some(file) = &self.signing_key_file {
            return signing(file, entropy).await;
        }
        if let Some(name) = &self.signing_key_env {
            let key = SecretPlace::Environment(name.clone());
            return Ok(Proved {
                proof: Proof::Signature { key },
                minted: None,
                shared: None,
            });
        }
        let (secret, minted) = match (&self.secret_file, &self.secret_env) {
            (Some(file), _) => {
                let place = SecretPlace::File(absolute(file));
                (shared("--secret-file", &place).await?, None)
            }
            (None, Some(name)) => {
                let place = SecretPlace::Environment(name.clone());
                (shared("--secret-env", &place).await?, None)
            }
            (None, None) => {
                let secret = SecretString::from(URL_SAFE_NO_PAD.encode(random(entropy)));
                let minted = Minted {
                    what: "Its shared secret",
                    secret: secret.clone(),
                };
                (secret, Some(minted))
            }
        };
        Ok(Proved {
            proof: Proof::Bearer {
                sha256: Sha256::digest(secret.expose_secret()).into(),
            },
            minted,
            shared: Some(secret),
        })
    }
}

fn random(entropy: &OsEntropy) -> [u8; 32] {
    let mut bytes = [0; 32];
    entropy.fill(&mut bytes);
    bytes
}

async fn shared(flag: &str, place: &SecretPlace) -> Result<SecretString, Failed> {
    let secret = secret_place::read(place)
        .await
        .map_err(|error| Failed(format!("{flag}: {error}")))?;
    if secret.expose_secret().len() < SHORTEST_SECRET {
        return Err(Failed(format!(
            "{flag}: a shared secret has at least {SHORTEST_SECRET} characters; `--mint-secret` makes one"
        )));
    }
    Ok(secret)
}

/// By the key in a file, which is made where there is none.
async fn signing(file: &Path, entropy: &OsEntropy) -> Result<Proved, Failed> {
    let key = SecretPlace::File(absolute(file));
    let minted = if file.exists() {
        let known = secret_place::read(&key)
            .await
            .map_err(|error| Failed(format!("--signing-key-file: {error}")))?;
        if !is_signing_key(known.expose_secret()) {
            return Err(Failed(
                "--signing-key-file: not a key: `whsec_` and the base64 of 24 to 64 bytes".to_owned(),
            ));
        }
        None
    } else {
        let secret = format!("whsec_{}", STANDARD.encode(random(entropy)));
        let mut made = std::fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(file)
            .map_err(|error| {
                Failed(format!(
                    "--signing-key-file: `{}` can't be written: {error}; name a file in a folder that there is",
                    file.display()
                ))
            })?;
        writeln!(made, "{secret}")?;
        Some(Minted {
            what: "The key of its signatures",
            secret: SecretString::from(secret),
        })
    };
    Ok(Proved {
        proof: Proof::Signature { key },
        minted,
        shared: None,
    })
}
