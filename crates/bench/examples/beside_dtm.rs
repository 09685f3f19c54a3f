//! Measures dtmd beside DTM itself, on the same stores, with the same load and services.
//!
//! ```sh
//! cargo build --release -p dtmd
//! cargo run --release -p dtmd-bench --example beside_dtm -- [DTMD] [SECONDS] [IN_FLIGHT]
//! ```
//!
//! DTM is compiled by Go from its published module. Both servers have a private database, Redis or
//! folder to themselves, one after the other; every commit is forced to disk. The callers wait for
//! the result. What the database itself spends is not counted.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a measurement for people")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use dtmd_bench::{BenchOptions, Mode, Report, StoreChoice, Target, run};
use dtmd_demo::client::HttpClient;
use dtmd_local_servers::{
    DatabaseOptions, DeathSignal, Mariadb, Postgres, Redis, RedisOptions, spawn_command,
};
use tempfile::TempDir;
use tokio::process::Child;

const MODULE: &str = "github.com/dtm-labs/dtm@v1.19.0";
const START_MAX: Duration = Duration::from_secs(20);
const STORES: [&str; 4] = ["embedded", "mysql", "postgres", "redis"];
const MODES: [(Mode, usize); 3] = [(Mode::Saga, 2), (Mode::Tcc, 2), (Mode::Msg, 1)];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    // What tells of a run's progress stays on its thread.
    tokio::task::LocalSet::new().run_until(compare()).await
}

async fn compare() -> Result<()> {
    let options = common::waiting_sagas()?;
    let dtm = Dtm::make()?;
    println!(
        "| store | mode | DTM/s | dtmd/s | DTM p50, ms | dtmd p50, ms | DTM CPU, µs | dtmd CPU, µs |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for store in STORES {
        for (mode, steps) in MODES {
            let options = BenchOptions { mode, steps, ..options.clone() };
            let theirs = dtm.measure(store, &options).await?;
            let ours = measure(store, &options).await?;
            print_row(store, &theirs, &ours)?;
        }
    }
    Ok(())
}

fn print_row(store: &str, theirs: &Report, ours: &Report) -> Result<()> {
    ensure!(ours.errors == 0, "a transaction went wrong: {:?}", ours.error_texts);
    // On SQL it writes the states of branches a while later; the load's last look comes before.
    if let Some(text) = theirs.error_texts.first() {
        eprintln!("DTM on {store}: {} complaints, the first one: {text}", theirs.errors);
    }
    let cpu = |report: &Report| report.cpu_us_per_tx.server.context("the CPU is not known");
    println!(
        "| {store} | {} | {:.0} | {:.0} | {:.1} | {:.1} | {:.0} | {:.0} |",
        ours.mode.as_str(),
        theirs.tps,
        ours.tps,
        theirs.latency_us.p50 / 1e3,
        ours.latency_us.p50 / 1e3,
        cpu(theirs)?,
        cpu(ours)?
    );
    Ok(())
}

/// A store that lives as long as this does, and its place in a configuration file.
struct Place {
    yaml: String,
    _server: Option<Box<dyn std::any::Any>>,
}

impl Place {
    async fn start(store: &str) -> Result<Self> {
        let forced = DatabaseOptions { fsync: true };
        let at = |driver: &str, port: u16, rest: &str| {
            format!("{{Driver: {driver}, Host: 127.0.0.1, Port: {port}{rest}}}")
        };
        let (yaml, server): (_, Option<Box<dyn std::any::Any>>) = match store {
            "mysql" => {
                let server = Mariadb::start(forced).await?;
                (at(store, server.port(), ", User: root, Db: dtm"), Some(Box::new(server)))
            }
            "postgres" => {
                let server = Postgres::start(forced).await?;
                let rest = ", User: postgres, Db: postgres";
                (at(store, server.port(), rest), Some(Box::new(server)))
            }
            "redis" => {
                let server = Redis::start(RedisOptions::default()).await?;
                (at(store, server.port(), ""), Some(Box::new(server)))
            }
            // DTM's name; dtmd takes it for its embedded store.
            _ => ("{Driver: boltdb}".to_owned(), None),
        };
        Ok(Self { yaml, _server: server })
    }
}

async fn measure(store: &str, options: &BenchOptions) -> Result<Report> {
    let place = Place::start(store).await?;
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("dtmd.yml");
    std::fs::write(&config, format!("Store: {}\n", place.yaml))?;
    let data = Some(folder.path().to_owned());
    let store = StoreChoice::Config(config);
    run::run(&BenchOptions { store, data, ..options.clone() }, &|_| {}).await
}

/// DTM, compiled.
struct Dtm {
    folder: TempDir,
}

impl Dtm {
    fn make() -> Result<Self> {
        let described = output(Command::new("go").args(["mod", "download", "-json", MODULE]))?;
        let described: serde_json::Value = serde_json::from_slice(&described)?;
        let source = PathBuf::from(described["Dir"].as_str().context("go tells no folder")?);
        let folder = tempfile::tempdir()?;
        // The module cache is read-only, and modes are copied with the files.
        let mut copy = Command::new("cp");
        output(copy.args(["-r", "--no-preserve=mode"]).arg(source.join(".")).arg(folder.path()))?;
        output(Command::new("go").args(["build", "-o", "dtm", "."]).current_dir(folder.path()))?;
        Ok(Self { folder })
    }

    async fn measure(&self, store: &str, options: &BenchOptions) -> Result<Report> {
        let place = Place::start(store).await?;
        if store == "mysql" {
            // It makes its database, but only if it can begin in another one.
            self.start(&place.yaml.replace("Db: dtm", "Db: dtmd")).await?.0.kill().await?;
        }
        let (mut dtm, url) = self.start(&place.yaml).await?;
        let target = Some(Target { url, grpc: None, pid: dtm.id() });
        let report = run::run(&BenchOptions { target, ..options.clone() }, &|_| {}).await;
        dtm.kill().await?;
        report
    }

    /// Starts it with empty tables; returns its URL as well.
    async fn start(&self, store: &str) -> Result<(Child, String)> {
        let [http, grpc] = [free_port()?, free_port()?];
        let config = self.folder.path().join("bench.yml");
        let ports = format!("HttpPort: {http}\nGrpcPort: {grpc}\nLogLevel: error\n");
        std::fs::write(&config, format!("Store: {store}\n{ports}"))?;
        let mut dtm = spawn_command(&self.folder.path().join("dtm"), None, DeathSignal::Kill);
        // The scripts of its tables lie in its folder.
        dtm.arg("-r").arg("-c").arg(&config).current_dir(self.folder.path());
        let dtm = dtm.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
        let url = format!("http://127.0.0.1:{http}");
        ready(&url).await?;
        Ok((dtm, url))
    }
}

async fn ready(url: &str) -> Result<()> {
    let begun = std::time::Instant::now();
    let client = HttpClient::new(Duration::from_secs(1));
    while begun.elapsed() < START_MAX {
        if client
            .get(&format!("{url}/api/dtmsvr/newGid"))
            .await
            .is_ok_and(|answer| answer.status == 200)
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("DTM does not answer at {url}")
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn output(command: &mut Command) -> Result<Vec<u8>> {
    let name = Path::new(command.get_program()).display().to_string();
    let output = command.stdin(Stdio::null()).output().context(name.clone())?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{name} failed: {}", words.trim());
    Ok(output.stdout)
}
