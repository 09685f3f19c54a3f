//! A short run of every mode with real processes. Needs the server's binary: the variable
//! `DTMD_BIN` names it, as for the end-to-end tests; without it there is nothing to run.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::time::Duration;

use dtmd_bench::{BenchOptions, Mode, Protocol, Report, StoreChoice, Target, run, special};
use dtmd_demo::process::{ServerOptions, ServerProcess};

fn options(mode: Mode, wait: bool) -> Option<BenchOptions> {
    let binary = std::env::var_os("DTMD_BIN").map(PathBuf::from).filter(|path| path.is_file())?;
    Some(BenchOptions {
        server: binary.clone(),
        binary,
        mode,
        protocol: Protocol::Http,
        steps: 2,
        concurrency: 4,
        duration: Duration::from_secs(2),
        wait,
        store: StoreChoice::Embedded,
        data: None,
        preload: 0,
        target: None,
    })
}

fn check(report: &Report) {
    assert_eq!((report.errors, &report.error_texts), (0, &Vec::new()));
    assert!(report.transactions > 0);
    assert!(report.latency_us.p50 > 0.0 && report.latency_us.p50 <= report.latency_us.max);
    assert!(report.cpu_us_per_tx.server.unwrap() > 0.0);
    assert!(report.flushes_per_tx.unwrap() > 0.0);
    assert!(report.changes_per_tx.unwrap() >= 1.0);
    let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    for path in [
        "/tps",
        "/latency_us/p99",
        "/cpu_us_per_tx/participants",
        "/rss_kib",
        "/errors",
        "/budgets",
    ] {
        assert!(json.pointer(path).is_some_and(|member| !member.is_null()), "{path} in {json}");
    }
}

#[tokio::test]
async fn every_mode_ends_well() {
    for (mode, wait) in [
        (Mode::Saga, true),
        (Mode::Saga, false),
        (Mode::Msg, false),
        (Mode::Tcc, false),
        (Mode::Xa, false),
    ] {
        let Some(options) = options(mode, wait) else { return };
        let report = run::run(&options, &|_| {}).await.unwrap();
        check(&report);
    }
}

#[tokio::test]
async fn every_mode_ends_well_over_grpc() {
    for (mode, wait) in [
        (Mode::Saga, true),
        (Mode::Saga, false),
        (Mode::Msg, false),
        (Mode::Tcc, true),
        (Mode::Xa, true),
    ] {
        let Some(options) = options(mode, wait) else { return };
        let report = run::run(&BenchOptions { protocol: Protocol::Grpc, ..options }, &|_| {}).await;
        check(&report.unwrap());
    }
}

/// `dtmd bench --target URL`: a server that somebody else has started, over both protocols.
#[tokio::test]
async fn a_server_that_runs_already_is_driven_and_left_running() {
    let Some(options) = options(Mode::Saga, true) else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut server = ServerOptions::new(&options.binary, directory.path().join("store"));
    server.grpc_port = Some(0);
    let mut server = ServerProcess::start(server).await.unwrap();
    let target = Target {
        url: server.url().to_owned(),
        grpc: Some(server.grpc_address().await.unwrap()),
        pid: server.id(),
    };
    for protocol in [Protocol::Http, Protocol::Grpc] {
        let target = Some(target.clone());
        let options = BenchOptions { protocol, target, ..options.clone() };
        let report = run::run(&options, &|_| {}).await.unwrap();
        assert_eq!((report.errors, &report.error_texts), (0, &Vec::new()));
        assert!(report.transactions > 0 && report.cpu_us_per_tx.server.unwrap() > 0.0);
        assert!(report.budgets.is_empty(), "another's store is held against no budget");
    }
    let unknown = Target { grpc: None, ..target };
    let options = BenchOptions { protocol: Protocol::Grpc, target: Some(unknown), ..options };
    let refused = run::run(&options, &|_| {}).await.unwrap_err();
    assert!(refused.to_string().contains("--target-grpc"), "{refused}");
    server.terminate().await.unwrap();
}

#[tokio::test]
async fn preloaded_transactions_are_checked_too_and_a_full_store_starts_again() {
    let Some(options) = options(Mode::Saga, true) else { return };
    let options = BenchOptions { preload: 300, ..options };
    check(&run::run(&options, &|_| {}).await.unwrap());
    let report = special::restart(&options, &|_| {}).await.unwrap();
    assert!(report.ready_seconds.unwrap() > 0.0);
    assert!(report.rss_kib > 0);
}
