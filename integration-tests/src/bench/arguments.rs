//! The command line, and how much of everything a run does.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Measures Handoff against the budgets of its design: one row each, ending in a verdict.
#[derive(Debug, Parser)]
#[command(name = "handoff-bench", disable_help_subcommand = true)]
pub struct Arguments {
    /// Less of everything: two minutes, 10,000 Tasks, and `ledger` only where it is named
    #[arg(long, conflicts_with = "smoke")]
    pub quick: bool,
    /// Hardly anything of everything, and no verdicts: that each measurement can be made at all
    #[arg(long)]
    pub smoke: bool,
    /// Only these, with commas between them
    #[arg(long, value_name = "SCENES", value_delimiter = ',')]
    pub only: Vec<Scene>,
    /// Where the figures go as JSON; printed if not given
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Another FHIR R4 server's base URL: measures Task create, read, update, search, Binary up and down there
    #[arg(long, value_name = "URL", conflicts_with = "only")]
    pub against: Option<String>,
    /// A header that goes with every request of `--against`; may be repeated
    #[arg(long, value_name = "K: V", requires = "against")]
    pub header: Vec<String>,
    /// The program to measure
    #[arg(long, value_name = "FILE", required_unless_present = "against")]
    pub server: Option<PathBuf>,
}

/// A group of rows that are measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scene {
    /// Proxied downloads beside direct ones
    Downloads,
    /// 2,000 clients that read slowly
    Slow,
    /// From a redemption to its first byte
    Redemption,
    /// Task create and transition on PostgreSQL
    Writes,
    /// The same on SQLite
    Sqlite,
    /// What recording and sealing cost writes, and verifying a million rows
    Ledger,
    /// Search by owner and status
    Search,
    /// Task read by id
    Read,
    /// Commit to subscriber
    Subscribers,
    /// Revocation to last byte
    Cut,
    /// Token validation and policy decision
    InProcess,
    /// Cold start and idle memory
    Start,
}

impl Scene {
    /// All of them, as the design lists them.
    pub const ALL: [Self; 12] = [
        Self::Downloads,
        Self::Slow,
        Self::Redemption,
        Self::Writes,
        Self::Sqlite,
        Self::Ledger,
        Self::Search,
        Self::Read,
        Self::Subscribers,
        Self::Cut,
        Self::InProcess,
        Self::Start,
    ];

    /// Whether it is measured after all others: it leaves the blob store busy, or many Tasks behind.
    pub const fn comes_last(self) -> bool {
        matches!(self, Self::Slow | Self::Search | Self::Read)
    }

    /// Whether there is no time for it within two minutes.
    pub const fn takes_long(self) -> bool {
        matches!(self, Self::Ledger)
    }

    /// Whether it is measured on PostgreSQL and Azurite.
    pub const fn needs_services(self) -> bool {
        matches!(
            self,
            Self::Downloads
                | Self::Slow
                | Self::Redemption
                | Self::Writes
                | Self::Ledger
                | Self::Search
                | Self::Read
                | Self::Subscribers
                | Self::Cut
        )
    }
}

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// How long a load lasts.
    pub load: Duration,
    /// How long Tasks are read, of which the first reads of each are recorded.
    pub reads: Duration,
    /// In how many parts, where loads are measured in turn.
    pub rounds: u32,
    /// Size of the document that is downloaded alone.
    pub download: u64,
    /// How often it is downloaded, through us and directly.
    pub downloads: usize,
    /// Clients that read slowly.
    pub slow: usize,
    /// How long they are watched.
    pub slow_for: Duration,
    /// Redemptions at a hundred per second.
    pub redemptions: usize,
    /// Subscriptions, five of which match each event.
    pub subscriptions: usize,
    /// Events at a hundred per second, with every subscriber well and with one in five that hangs.
    pub events: usize,
    /// Revocations, on each of two replicas.
    pub cuts: usize,
    /// Tasks at which searches are measured first.
    pub few: usize,
    /// Tasks at which the rate of searches is measured.
    pub many: usize,
    /// Tasks at which searches are measured last.
    pub most: usize,
    /// Rows of a ledger that is verified.
    pub ledger: u64,
    /// Tokens that are validated.
    pub tokens: usize,
    /// Cold starts.
    pub starts: usize,
}

impl Arguments {
    /// How much this run does.
    pub const fn scale(&self) -> Scale {
        const MIB: u64 = 1024 * 1024;
        if self.smoke {
            return Scale {
                load: Duration::from_millis(400),
                reads: Duration::from_millis(400),
                rounds: 1,
                download: MIB,
                downloads: 1,
                slow: 10,
                slow_for: Duration::from_secs(1),
                redemptions: 10,
                subscriptions: 150,
                events: 20,
                cuts: 2,
                few: 100,
                many: 300,
                most: 300,
                ledger: 2_000,
                tokens: 10,
                starts: 1,
            };
        }
        if self.quick {
            return Scale {
                load: Duration::from_millis(1_200),
                reads: Duration::from_millis(2_500),
                rounds: 5,
                download: 200 * MIB,
                downloads: 3,
                slow: 2_000,
                slow_for: Duration::from_secs(3),
                redemptions: 300,
                subscriptions: 1_000,
                events: 300,
                cuts: 30,
                few: 1_000,
                many: 10_000,
                most: 10_000,
                ledger: 100_000,
                tokens: 1_000,
                starts: 3,
            };
        }
        Scale {
            load: Duration::from_secs(15),
            reads: Duration::from_secs(15),
            rounds: 5,
            download: 1024 * MIB,
            downloads: 11,
            slow: 2_000,
            slow_for: Duration::from_secs(30),
            redemptions: 3_000,
            subscriptions: 1_000,
            events: 6_000,
            cuts: 200,
            few: 10_000,
            many: 100_000,
            most: 1_000_000,
            ledger: 1_000_000,
            tokens: 5_000,
            starts: 9,
        }
    }
}
