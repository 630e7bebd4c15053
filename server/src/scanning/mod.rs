//! Content on its way to a malware scanner: who scans what and when, and the scanners that there are. What is known of content, and
//! what follows from it, is `app::scan`'s.

mod clamd;
mod defender;
mod work;

pub use clamd::Clamd;
pub use defender::Defender;
pub use work::{Scanning, start};
