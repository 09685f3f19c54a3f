//! DTM itself, from its published module.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command as Blocking, Stdio};
use std::sync::OnceLock;

use dtmd_demo::client::DtmClient;
use dtmd_local_servers::{DeathSignal, Mariadb, spawn_command};
use dtmd_tests::{binary, until};
use mysql_async::prelude::Queryable as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Child;

use crate::languages::run;

const MODULE: &str = "github.com/dtm-labs/dtm@v1.19.0";
/// What Go's checksum database says of the module: it is the published one.
const SUM: &str = "h1:TKRf21MkelOR6PPGLT9QzNs0ZJF/RLz+zZPkeOwzPPU=";

/// Makes a copy of DTM's source in a folder of that name, beside the built programs; tells why it
/// cannot.
pub(crate) fn source(name: &str) -> Result<PathBuf, String> {
    let said = run(Blocking::new("go").args(["mod", "download", "-json", MODULE]))?;
    let found: Value = serde_json::from_str(&said).map_err(|error| error.to_string())?;
    if found["Sum"] != SUM {
        return Err(format!("{MODULE} has the sum {}, not {SUM}", found["Sum"]));
    }
    let folder = binary().parent().and_then(Path::parent).unwrap().join("interop").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    copy(Path::new(found["Dir"].as_str().unwrap_or_default()), &folder)?;
    Ok(folder)
}

/// Copies what is in a folder over what is in another one.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), String> {
    // The module cache is read-only, and modes are copied with the files.
    let mut copy = Blocking::new("cp");
    run(copy.args(["-r", "--no-preserve=mode"]).arg(from.join(".")).arg(to)).map(drop)
}

/// Ports below those that the system gives to whoever asks for any.
pub(crate) fn free_ports() -> impl Iterator<Item = u16> {
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    (first..32_000).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
}

/// DTM, compiled.
pub(crate) struct Program {
    folder: PathBuf,
}

impl Program {
    /// Compiles it, once for all tests; tells why it cannot.
    pub(crate) fn make() -> Result<Self, String> {
        static MADE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let made = MADE.get_or_init(|| {
            let folder = source("dtm-server")?;
            run(Blocking::new("go").args(["build", "-o", "dtm", "."]).current_dir(&folder))?;
            Ok(folder)
        });
        made.clone().map(|folder| Self { folder })
    }

    /// Makes DTM's tables with DTM's script, in the database `dtm`.
    pub(crate) async fn make_tables(&self, mariadb: &Mariadb) {
        let script = self.folder.join("sqls/dtmsvr.storage.mysql.sql");
        let script = std::fs::read_to_string(script).unwrap();
        let mut conn = mysql_async::Conn::from_url(mariadb.url()).await.unwrap();
        for statement in script.split(';').filter(|statement| !statement.trim().is_empty()) {
            conn.query_drop(statement).await.unwrap();
        }
        conn.disconnect().await.unwrap();
    }

    /// Starts a server on the database `dtm`, which looks for work every second.
    pub(crate) async fn start(&self, mariadb: &Mariadb) -> Dtm {
        let mut ports = free_ports();
        let (http, grpc) = (ports.next().unwrap(), ports.next().unwrap());
        let folder = TempDir::new().unwrap();
        let config = folder.path().join("conf.yml");
        let text = format!(
            "Store: {{Driver: mysql, Host: 127.0.0.1, Port: {}, User: root, Db: dtm}}\n\
             HttpPort: {http}\nGrpcPort: {grpc}\nTransCronInterval: 1\nLogLevel: error\n",
            mariadb.port()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = spawn_command(&self.folder.join("dtm"), None, DeathSignal::Kill);
        command.arg("-c").arg(&config).current_dir(folder.path()).kill_on_drop(true);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let client = DtmClient::new(&format!("http://127.0.0.1:{http}"));
        until("an answer of DTM", async || {
            let answer = client.http().get(&format!("{}/newGid", client.base())).await;
            answer.is_ok_and(|answer| answer.status == 200).then_some(())
        })
        .await;
        Dtm { client, process, _folder: folder }
    }
}

/// A running DTM.
pub(crate) struct Dtm {
    pub(crate) client: DtmClient,
    process: Child,
    _folder: TempDir,
}

impl Dtm {
    /// Ends it as `kill -9` does.
    pub(crate) async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }
}
