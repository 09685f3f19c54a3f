//! The command line: what can be typed, and the commands that only need the HTTP API.
//!
//! [`Cli::parse_args`] reads the arguments; [`Cli::into_command`] turns DTM's own flags on the
//! bare binary (`dtmd -c FILE`) into the command they mean. `main` runs the commands that start
//! something; [`run_client`] runs `tx`, `topic` and `doctor`.

mod args;
mod bench;
mod bulk;
mod client;
mod client_args;
mod commands;
mod doctor;
mod export;
mod profiles;
mod render;
mod watch;

pub use args::{
    BankArgs, Cli, Command, ConfigArgs, ConfigCommand, DemoArgs, DemoScenario, DevArgs,
    LogFormatArg, MigrateArgs, ServeArgs, StoreArgs, StoreCommand, StoreKind,
};
pub use bench::{BenchArgs, BenchMode, BenchOutput, ProtocolChoice};
pub use client::{ApiClient, ClientError};
pub use client_args::{
    ChosenArgs, ClientArgs, DoctorArgs, FilterArgs, OutputFormat, TopicArgs, TopicCommand, TxArgs,
    TxCommand,
};
pub use commands::{ClientCommand, execute, run_client};

/// The command did what was asked.
pub const EXIT_OK: u8 = 0;
/// The server refused, there is no such transaction, a watched one failed, or something is unwell.
pub const EXIT_REFUSED: u8 = 1;
/// The command line is wrong.
pub const EXIT_USAGE: u8 = 2;
/// The server cannot be reached, or does not answer as one.
pub const EXIT_UNREACHABLE: u8 = 3;

/// Returns the line that `-v` prints; its beginning is DTM's (spec 06 §3).
pub fn version_line() -> String {
    format!("dtm version: {}", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests;
