//! What can be typed behind `dtmd bench`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

/// `dtmd bench`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct BenchArgs {
    /// What to measure
    #[arg(long, value_enum, default_value = "saga")]
    pub mode: BenchMode,

    /// How the server is asked and the participants are called; grpc for saga, msg, tcc and xa
    #[arg(long, value_enum, default_value = "http")]
    pub protocol: ProtocolChoice,

    /// Steps of a saga, targets of a message, branches of a TCC or of XA
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub steps: u16,

    /// Transactions at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub concurrency: u16,

    /// How long to measure, after a warm-up: 10s, 500ms, 1m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,

    /// Let the submit wait for the result; without it a transaction counts when it is final
    #[arg(long)]
    pub wait: bool,

    /// Where the server keeps transactions: embedded, memory, or a configuration file
    #[arg(long, value_name = "STORE", default_value = "embedded")]
    pub store: String,

    /// Where the store's files lie for the time of the run [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Finish so many transactions before the measurement
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preload: u64,

    /// Measure this build of dtmd, not this program, which still makes the load and answers the calls
    #[arg(long, value_name = "FILE", conflicts_with = "target")]
    pub server_binary: Option<PathBuf>,

    /// Drive this server, dtmd or DTM, instead of starting one
    #[arg(long, value_name = "URL")]
    pub target: Option<String>,

    /// Where that server serves gRPC, for --protocol grpc
    #[arg(long, value_name = "ADDRESS:PORT", requires = "target")]
    pub target_grpc: Option<SocketAddr>,

    /// The process of that server, to measure its CPU time
    #[arg(long, value_name = "PID", requires = "target")]
    pub target_pid: Option<u32>,

    /// How to print
    #[arg(short = 'o', long, value_enum, default_value = "table")]
    pub output: BenchOutput,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchMode {
    /// Sagas
    Saga,
    /// Two-phase messages
    Msg,
    /// Try, confirm, cancel; the tries are not made
    Tcc,
    /// XA: prepare, registrations, submit, commits; what branches do in databases is not made
    Xa,
    /// A server with nothing to do
    Idle,
    /// The start after kill -9, with --preload finished transactions
    Restart,
}

/// The protocol between applications, the server and participants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProtocolChoice {
    /// HTTP with JSON
    Http,
    /// gRPC, in and out
    Grpc,
}

/// How a measurement is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchOutput {
    /// For people
    Table,
    /// One object
    Json,
}

/// Reads a time with its unit.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "it takes a time such as 500ms, 2.5s or 1m, at most 24h".to_owned();
    let is_digit = |c: char| c.is_ascii_digit() || c == '.';
    let end = text.find(|c| !is_digit(c)).ok_or_else(wrong)?;
    let number: f64 = text[..end].parse().map_err(|_| wrong())?;
    let unit_seconds = match &text[end..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let duration = Duration::try_from_secs_f64(number * unit_seconds).map_err(|_| wrong())?;
    let is_sensible = !duration.is_zero() && duration <= Duration::from_secs(24 * 3600);
    is_sensible.then_some(duration).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_need_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2.5s"), Ok(Duration::from_millis(2500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in
            ["", "10", "0s", "s", "1d", ".s", "1.2.3s", "-1s", "25h", "99999999999999999999s"]
        {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
