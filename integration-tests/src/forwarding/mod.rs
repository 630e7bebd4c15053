//! The audit at its sinks: what came there, read as a receiver would, and held against what the database has. And writers at servers
//! with and without sinks, to see what sinks that are down cost.

pub mod arrivals;
pub mod load;
pub mod trial;
