//! The command line: what can be typed, and the commands that only need the HTTP API.
//!
//! [`Cli::parse_args`] reads the arguments; [`Cli::into_command`] turns DTM's own flags on the
//! bare binary (`dtmd -c FILE`) into the command they mean. `main` runs the commands that start
//! something; [`run_client`] runs `tx` and `topic`.

mod args;
mod client;
mod commands;
mod render;

pub use args::{
    BankArgs, Cli, ClientArgs, Command, DemoArgs, DemoScenario, DevArgs, LogFormatArg,
    OutputFormat, ServeArgs, StoreArgs, StoreCommand, StoreKind, TopicArgs, TopicCommand, TxArgs,
    TxCommand,
};
pub use client::{ApiClient, ClientError};
pub use commands::{ClientCommand, execute, run_client};

/// The command did what was asked.
pub const EXIT_OK: u8 = 0;
/// The server refused, or there is no such transaction.
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
