//! Notifications on their way out: which of them this process sends, and when. What is told, to whom and by what right is
//! decided in `app`; nothing here is kept but for as long as it is being sent.

mod courier;
mod recorder;
mod traced;
mod work;

pub use courier::Courier;
pub use work::{Deliveries, start};
