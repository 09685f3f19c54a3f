//! What the measurements of sagas on private servers share.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use dtmd_bench::{BenchOptions, Mode, Protocol, StoreChoice};

/// Reads `[DTMD] [SECONDS] [IN_FLIGHT]` from the command line; returns a run of sagas of two steps
/// whose callers wait, on a server of that binary.
pub(crate) fn waiting_sagas() -> Result<BenchOptions> {
    let mut arguments = std::env::args().skip(1);
    let binary = PathBuf::from(arguments.next().unwrap_or_else(|| "target/release/dtmd".into()));
    let seconds = arguments.next().map_or(Ok(10), |text| text.parse())?;
    let concurrency = arguments.next().map_or(Ok(64), |text| text.parse())?;
    ensure!(binary.is_file(), "{}: run `cargo build --release -p dtmd`", binary.display());
    Ok(BenchOptions {
        server: binary.clone(),
        binary,
        mode: Mode::Saga,
        protocol: Protocol::Http,
        steps: 2,
        concurrency,
        duration: Duration::from_secs(seconds),
        wait: true,
        store: StoreChoice::Embedded,
        data: None,
        preload: 0,
        target: None,
    })
}
