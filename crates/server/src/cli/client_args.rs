//! What can be typed after the commands that talk to a server.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::profiles;

const STATUSES: [&str; 5] = ["prepared", "submitted", "aborting", "succeed", "failed"];
const TYPES: [&str; 5] = ["saga", "tcc", "xa", "msg", "workflow"];

/// How to reach the server, and how to print what it says.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ClientArgs {
    /// The server's URL [variable: DTMD_SERVER] [default: http://127.0.0.1:36789]
    #[arg(long, global = true, value_name = "URL")]
    pub server: Option<String>,

    /// The server of this profile in ~/.config/dtmd/config.toml [variable: DTMD_PROFILE]
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "server")]
    pub profile: Option<String>,

    /// How to print
    #[arg(short = 'o', long, global = true, value_enum, default_value = "table")]
    pub output: OutputFormat,

    /// How many seconds the server may take
    #[arg(
        long = "timeout",
        global = true,
        value_name = "SECONDS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    pub timeout_secs: u64,
}

impl ClientArgs {
    /// Returns how long the server may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_secs)
    }

    /// Returns the server's URL: what the flags say, else the environment, else the profiles file,
    /// else the built-in one.
    ///
    /// # Errors
    ///
    /// The profiles file cannot be understood, or has no such profile.
    pub fn server_url(&self) -> Result<String, super::ClientError> {
        profiles::server(self.server.as_deref(), self.profile.as_deref())
    }
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people
    Table,
    /// The server's answer
    Json,
    /// The same, as YAML
    Yaml,
}

/// `dtmd tx`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct TxArgs {
    /// How to reach the server.
    #[command(flatten)]
    pub client: ClientArgs,

    /// What to do.
    #[command(subcommand)]
    pub command: TxCommand,
}

/// Which transactions, by what they are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args)]
pub struct FilterArgs {
    /// Only those with this status
    #[arg(long, value_parser = STATUSES)]
    pub status: Option<String>,

    /// Only those of this mode
    #[arg(long = "type", value_parser = TYPES)]
    pub trans_type: Option<String>,

    /// Only those accepted so long ago or longer: 30s, 10m, 2h, 1d
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    pub older_than: Option<Duration>,
}

impl FilterArgs {
    /// Returns whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Which transactions to act on: named ones, or all that a filter finds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args)]
pub struct ChosenArgs {
    /// Their gids
    #[arg(value_name = "GID", conflicts_with_all = ["all", "status", "trans_type", "older_than"])]
    pub gids: Vec<String>,

    /// All for which it can be done, or that the filter leaves of them
    #[arg(long)]
    pub all: bool,

    /// Which.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// At most so many
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub limit: u32,

    /// Only list them
    #[arg(long)]
    pub dry_run: bool,

    /// Do it, although a filter chose them
    #[arg(long)]
    pub yes: bool,
}

/// What can be done with transactions.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum TxCommand {
    /// List transactions
    Ls {
        /// Which.
        #[command(flatten)]
        filter: FilterArgs,
        /// At most so many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Go on from here; the list before says where
        #[arg(long)]
        position: Option<String>,
    },
    /// Show one transaction, its branches and their last attempts
    Get {
        /// Its gid
        gid: String,
    },
    /// Print what changes, until the transaction has ended
    Watch {
        /// Its gid
        #[arg(required_unless_present = "all")]
        gid: Option<String>,
        /// Watch all, until Ctrl-C
        #[arg(long, conflicts_with = "gid")]
        all: bool,
        /// Seconds between two looks
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
        interval: u64,
    },
    /// Print transactions as lines of JSON, newest first
    Export {
        /// Which.
        #[command(flatten)]
        filter: FilterArgs,
        /// With their branches, which takes a request for each
        #[arg(long)]
        branches: bool,
        /// Write to this file, which must not exist
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Try the branches of transactions again now, not when their wait is over
    Retry(ChosenArgs),
    /// Stop transactions for good: they become failed, nothing is undone
    Stop(ChosenArgs),
    /// Roll back transactions that are not submitted yet
    Abort {
        /// Which.
        #[command(flatten)]
        chosen: ChosenArgs,
        /// Why, to be kept with the transaction
        #[arg(long)]
        reason: Option<String>,
    },
}

/// `dtmd doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct DoctorArgs {
    /// How to reach the server.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Reads an age such as `90s`, `10m`, `2h` or `1d`.
fn parse_age(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is not an age; give one such as 90s, 10m, 2h or 1d");
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..end].parse().map_err(|_| bad())?;
    let unit = match &text[end..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    // A hundred years are long enough, and far from overflow.
    let seconds = number.checked_mul(unit).filter(|seconds| *seconds <= 3_155_760_000);
    seconds.map(Duration::from_secs).ok_or_else(bad)
}

/// `dtmd topic`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct TopicArgs {
    /// How to reach the server.
    #[command(flatten)]
    pub client: ClientArgs,

    /// What to do.
    #[command(subcommand)]
    pub command: TopicCommand,
}

/// What can be done with topics.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum TopicCommand {
    /// List topics and their subscribers
    Ls {
        /// At most so many topics
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Go on from here; the list before says where
        #[arg(long)]
        position: Option<String>,
    },
    /// Add a subscriber to a topic; the topic is made if it is new
    Subscribe {
        /// The topic
        topic: String,
        /// The subscriber's URL
        url: String,
        /// A word about the subscriber
        #[arg(long, default_value = "")]
        remark: String,
    },
    /// Remove a subscriber from a topic
    Unsubscribe {
        /// The topic
        topic: String,
        /// The subscriber's URL
        url: String,
    },
    /// Delete a topic with all subscribers
    Delete {
        /// The topic
        topic: String,
    },
}
