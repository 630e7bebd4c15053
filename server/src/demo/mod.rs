//! `handoff demo`: a development issuer, a cast, and the play of one referral. Nothing of it is in `serve`.

mod actor;
mod curl;
mod dev_issuer;
mod pdf;
mod play;
mod scene;
mod trail;

pub use curl::curl_lines;
pub use dev_issuer::DevIssuers;
pub use pdf::referral_letter;
pub use play::{PlayError, Props, Stage, another_link, play};
pub use scene::{Teller, Tone};

/// The path segment that only development issuers have.
pub const DEV_ISSUER_SEGMENT: &str = "dev-issuer";
