//! `dtmd`: the server, its demo and its operator's commands in one binary.

use std::process::ExitCode;

use dtmd_server::cli::Cli;
use dtmd_server::commands;

// The server's small, short-lived allocations are what this allocator is good at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    use_small_pages();
    commands::dispatch(Cli::parse_args().into_command())
}

/// Huge pages give this heap nothing, and cost it twice the memory and clearing what is never used
/// (decision 18). The allocator's build asks for none; a kernel that gives them unasked is told.
#[cfg(target_os = "linux")]
fn use_small_pages() {
    // Where the kernel knows no such wish, memory is as it would be without it.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

#[cfg(not(target_os = "linux"))]
fn use_small_pages() {}
