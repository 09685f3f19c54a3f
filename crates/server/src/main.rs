//! `dtmd`: the server, its demo and its operator's commands in one binary.

use std::process::ExitCode;

use dtmd_server::cli::Cli;
use dtmd_server::commands;

// The server's small, short-lived allocations are what this allocator is good at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    commands::dispatch(Cli::parse_args().into_command())
}
