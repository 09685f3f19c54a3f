//! What can be typed.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::bench::{BenchArgs, ProtocolChoice};
use super::client_args::{DoctorArgs, OutputFormat, TopicArgs, TxArgs};
use crate::config::{Flag, Secret};

/// The whole command line.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(
    name = "dtmd",
    about = "A distributed transaction manager, wire-compatible with DTM",
    after_help = "Start here: `dtmd demo` shows a transfer between two banks; `dtmd serve` runs \
                  the server. DTM's own flags work too: `dtmd -c FILE` is `dtmd serve -c FILE`.",
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    #[command(flatten)]
    dtm: DtmFlags,

    #[command(subcommand)]
    command: Option<Command>,
}

/// DTM's flags on the bare binary (spec 06 §3), so that unit files and images need no change.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
struct DtmFlags {
    /// Run the server with this YAML file
    #[arg(short = 'c', value_name = "FILE")]
    config: Option<PathBuf>,

    /// Run the server and log what it does in detail
    #[arg(short = 'd')]
    debug: bool,

    /// Run the server with an empty store: everything in it is lost
    #[arg(short = 'r')]
    reset: bool,

    /// Print the version
    #[arg(short = 'v', long)]
    version: bool,
}

impl Cli {
    /// Reads the process's arguments; prints help or a usage error and exits where those are due.
    pub fn parse_args() -> Self {
        Self::parse()
    }

    /// Returns the command that was meant; none means: print the help.
    pub fn into_command(self) -> Option<Command> {
        let DtmFlags { config, debug, reset, version } = self.dtm;
        match self.command {
            Some(command) => Some(command),
            None if version => Some(Command::Version),
            None if config.is_some() || debug || reset => {
                Some(Command::Serve(ServeArgs { config, debug, reset, ..ServeArgs::default() }))
            }
            None => None,
        }
    }
}

/// What dtmd can be asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Run the server
    Serve(ServeArgs),
    /// Run a server for development: in memory, with detailed logs
    Dev(DevArgs),
    /// Show transactions at work: two banks, a server, a transfer
    Demo(DemoArgs),
    /// Run one of the demo's banks
    #[command(hide = true)]
    Bank(BankArgs),
    /// Measure a server: rates, latencies, CPU time, flushes
    Bench(BenchArgs),
    /// Run the participants of a measurement
    #[command(hide = true)]
    BenchParticipant,
    /// Look at transactions and act on them
    Tx(TxArgs),
    /// Look at topics and change their subscribers
    Topic(TopicArgs),
    /// Say whether a server is reachable and well
    Doctor(DoctorArgs),
    /// Print what makes a shell complete dtmd's commands
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Show, check or write a configuration
    Config(ConfigArgs),
    /// Check or export the embedded store of a server that is not running
    Store(StoreArgs),
    /// Bring a database's tables up to date
    Migrate(MigrateArgs),
    /// Print the version
    Version,
}

/// `dtmd serve`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args)]
pub struct ServeArgs {
    /// The YAML file; DTM's files work
    #[arg(short = 'c', long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The embedded store's directory [Store.Path]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Where transactions are kept [Store.Driver]
    #[arg(long, value_enum)]
    pub store: Option<StoreKind>,

    /// The address to listen on [Listen]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,

    /// The port of the HTTP interface; 0 takes any free one [HttpPort]
    #[arg(long, value_name = "PORT")]
    pub http_port: Option<u16>,

    /// The port of the gRPC interface; 0 takes any free one [GrpcPort]
    #[arg(long, value_name = "PORT")]
    pub grpc_port: Option<u16>,

    /// Let other machines in without authentication [AllowAnonymous]
    #[arg(long)]
    pub allow_anonymous: bool,

    /// Let tests drive the clock from this loopback address
    #[arg(long, value_name = "ADDR", value_parser = parse_loopback)]
    pub test_control: Option<SocketAddr>,

    /// Start with an empty store: everything in it is lost
    #[arg(short = 'r', long)]
    pub reset: bool,

    /// Log what the server does in detail [LogLevel: debug]
    #[arg(short = 'd', long)]
    pub debug: bool,

    /// How log lines look [LogFormat]
    #[arg(long, value_enum)]
    pub log_format: Option<LogFormatArg>,
}

impl ServeArgs {
    /// Returns the options these flags set, to be laid over the file.
    pub fn flags(&self) -> Vec<Flag> {
        let mut flags = Vec::new();
        let mut set = |key, flag, value: Option<String>| {
            flags.extend(value.map(|value| Flag { key, value, flag }));
        };
        let data = self.data.as_ref().map(|path| path.to_string_lossy().into_owned());
        set("Store.Path", "--data", data);
        set("Store.Driver", "--store", self.store.map(|store| store.as_str().into()));
        set("Listen", "--listen", self.listen.clone());
        set("HttpPort", "--http-port", self.http_port.map(|port| port.to_string()));
        set("GrpcPort", "--grpc-port", self.grpc_port.map(|port| port.to_string()));
        let allow = self.allow_anonymous.then(|| "true".to_owned());
        set("AllowAnonymous", "--allow-anonymous", allow);
        set("LogLevel", "-d", self.debug.then(|| "debug".to_owned()));
        set("LogFormat", "--log-format", self.log_format.map(|format| format.as_str().into()));
        flags
    }
}

/// The stores of this build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StoreKind {
    /// On this machine's disk
    Embedded,
    /// Forgotten at the end
    Memory,
}

impl StoreKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Memory => "memory",
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormatArg {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

impl LogFormatArg {
    fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// `dtmd dev`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args)]
pub struct DevArgs {
    /// Keep transactions in this directory instead of in memory
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// The port of the HTTP interface; 0 takes any free one
    #[arg(long, value_name = "PORT")]
    pub http_port: Option<u16>,

    /// The port of the gRPC interface; 0 takes any free one
    #[arg(long, value_name = "PORT")]
    pub grpc_port: Option<u16>,
}

/// `dtmd demo`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct DemoArgs {
    /// Which mode to show
    #[arg(value_enum, default_value = "all")]
    pub scenario: DemoScenario,

    /// How the application, the server and the banks talk; grpc has workflows and no XA
    #[arg(long, value_enum, default_value = "http")]
    pub protocol: ProtocolChoice,

    /// Let this step refuse, to see what is undone
    #[arg(long, value_name = "N")]
    pub fail_at: Option<u32>,

    /// Run the XA part on this MySQL or MariaDB server
    #[arg(long, value_name = "URL")]
    pub mysql: Option<Secret>,

    /// Run the XA part on this PostgreSQL server
    #[arg(long, value_name = "URL")]
    pub postgres: Option<Secret>,

    /// Keep the demo's directory and say where it is
    #[arg(long)]
    pub keep: bool,
}

/// What the demo can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DemoScenario {
    /// Actions, and compensations in reverse
    Saga,
    /// A message made final by a local transaction
    Msg,
    /// Try, then confirm or cancel
    Tcc,
    /// Two-phase commit of databases, over HTTP
    Xa,
    /// Code with recorded steps, over gRPC
    Workflow,
    /// The server is killed in the middle
    Kill,
    /// One after the other
    All,
}

/// `dtmd bank`, the demo's participant.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct BankArgs {
    /// The bank's own arguments; `dtmd_demo::bank` reads them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

/// `dtmd config`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What can be done with a configuration. No server is needed.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum ConfigCommand {
    /// Show every option with its value and where it comes from; secrets stay hidden
    Show {
        /// The YAML file
        #[arg(short = 'c', long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Only what is not built in
        #[arg(long)]
        changed: bool,
        /// How to print
        #[arg(short = 'o', long, value_enum, default_value = "table")]
        output: OutputFormat,
    },
    /// Say whether a server would start with this configuration, and what it would note
    Check {
        /// The YAML file
        #[arg(short = 'c', long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print a file with every option, explained and commented out
    Sample,
}

/// `dtmd migrate`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct MigrateArgs {
    /// The YAML file that names the database; the environment works too
    #[arg(short = 'c', long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the statements, and run none
    #[arg(long)]
    pub dry_run: bool,
}

/// `dtmd store`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct StoreArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: StoreCommand,
}

/// What can be done with the files of an embedded store.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum StoreCommand {
    /// Read everything and say whether it is whole; changes nothing
    Check {
        /// The store's directory
        dir: PathBuf,
    },
    /// Print every transaction as a line of JSON
    Export {
        /// The store's directory
        dir: PathBuf,
    },
}

/// Reads an address and port that only this machine reaches.
fn parse_loopback(text: &str) -> Result<SocketAddr, String> {
    let address = text
        .parse::<SocketAddr>()
        .map_err(|_| "it takes an address and port, such as 127.0.0.1:0".to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("it takes a loopback address only: whoever reaches it controls the clock".to_owned())
    }
}
