//! DTM itself, compiled by Go from its published module.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use tokio::net::TcpStream;
use tokio::process::Child;

use crate::child::DeathSignal;
use crate::home::{Home, PORT_ATTEMPTS, end, free_port};

const MODULE: &str = "github.com/dtm-labs/dtm@v1.19.0";
/// What Go's checksum database says of the module: it is the published one.
const SUM: &str = "h1:TKRf21MkelOR6PPGLT9QzNs0ZJF/RLz+zZPkeOwzPPU=";

/// DTM, compiled.
#[derive(Debug)]
pub struct DtmProgram {
    folder: PathBuf,
}

impl DtmProgram {
    /// Makes a folder hold DTM's source, and nothing else.
    ///
    /// # Errors
    /// There is no Go, or it cannot have the module.
    pub fn fetch(folder: &Path) -> anyhow::Result<()> {
        let said = run(Command::new("go").args(["mod", "download", "-json", MODULE]))?;
        let found: serde_json::Value = serde_json::from_slice(&said)?;
        ensure!(found["Sum"] == SUM, "{MODULE} has the sum {}, not {SUM}", found["Sum"]);
        let source = Path::new(found["Dir"].as_str().context("go tells no folder")?);
        if folder.exists() {
            std::fs::remove_dir_all(folder)?;
        }
        std::fs::create_dir_all(folder)?;
        // The module cache is read-only, and modes are copied with the files.
        let mut copy = Command::new("cp");
        run(copy.args(["-r", "--no-preserve=mode"]).arg(source.join(".")).arg(folder)).map(drop)
    }

    /// Compiles it in a folder, which loses what it holds.
    ///
    /// # Errors
    /// There is no Go, or it cannot have the modules.
    pub fn make(folder: PathBuf) -> anyhow::Result<Self> {
        Self::fetch(&folder)?;
        run(Command::new("go").args(["build", "-o", "dtm", "."]).current_dir(&folder))?;
        Ok(Self { folder })
    }

    /// Starts a server on free ports. The configuration, in DTM's YAML, says the rest; `reset` has it
    /// make its tables anew.
    ///
    /// # Errors
    /// It does not come up; the error shows its log.
    pub async fn start(&self, configuration: &str, reset: bool) -> anyhow::Result<Dtm> {
        let mut attempt = 1;
        loop {
            match self.launch(configuration, reset).await {
                Err(_) if attempt < PORT_ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    async fn launch(&self, configuration: &str, reset: bool) -> anyhow::Result<Dtm> {
        let home = Home::make("root", DeathSignal::Kill)?;
        let (http, grpc) = (free_port()?, free_port()?);
        let file = home.path().join("conf.yml");
        let ports = format!("HttpPort: {http}\nGrpcPort: {grpc}\nLogLevel: error\n");
        std::fs::write(&file, format!("{configuration}\n{ports}"))?;
        let mut command = home.command(&self.folder.join("dtm"))?;
        if reset {
            command.arg("-r");
        }
        // The scripts of its tables lie in its folder.
        command.arg("-c").arg(file).current_dir(&self.folder);
        let mut child = command.spawn().context("cannot start DTM")?;
        let connect = async || {
            TcpStream::connect(("127.0.0.1", http)).await?;
            Ok(())
        };
        home.wait_ready(&mut child, connect).await?;
        Ok(Dtm { http, child: Some(child), _home: home })
    }
}

/// A running DTM; dropping it kills it, as `kill -9` does.
#[derive(Debug)]
pub struct Dtm {
    http: u16,
    child: Option<Child>,
    _home: Home,
}

impl Dtm {
    /// Its URL, without a path.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }

    /// The process id while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }
}

impl Drop for Dtm {
    fn drop(&mut self) {
        end(self.child.take(), DeathSignal::Kill);
    }
}

/// Runs a tool to its end and returns what it printed.
fn run(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let name = Path::new(command.get_program()).display().to_string();
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{name} failed: {}", words.trim());
    Ok(output.stdout)
}
