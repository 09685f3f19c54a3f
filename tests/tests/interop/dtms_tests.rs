//! DTM's own tests against a dtmd.
//!
//! They are taken from DTM's module at the first run. Three of its files are replaced by ours
//! (`interop/dtm/overlay`): DTM's tests turn the clock of a server within their process, ours turn
//! that of a dtmd with `--test-control`. The tests themselves are DTM's, and so is the code that
//! reads the tables a dtmd on MySQL or PostgreSQL has written.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command as Blocking;
use std::time::Duration;

use dtmd_local_servers::{DatabaseOptions, DtmProgram, Mariadb, Postgres, Redis, RedisOptions};
use dtmd_tests::{Server, pairs, store_env, tell};
use tokio::process::Command;
use tokio::time::timeout;

use crate::languages::{built, run};

/// The longest that all tests may take on one store; they take some twenty seconds.
const SUITE_MAX: Duration = Duration::from_secs(240);

/// Tests that do not pass, and why not.
const DIFFERENT: [(&str, &str); 5] = [
    ("TestSagaAbnormal", "a repeated submit calls nothing (D01), where DTM's drives at once"),
    ("TestSagaGlobalTransWithRetryLimitYes", "retries keep their intervals (D06)"),
    ("TestSagaGlobalTransWithRetryLimitNo", "retries keep their intervals (D06)"),
    ("TestXaCoverGidError", "an xa gid that cannot be quoted in SQL is refused at once"),
    ("TestAPIResetCronTime", "it stores transactions of no type, which are left alone"),
];
/// Commits an XA branch from a second connection, which MariaDB refuses for as long as it has not
/// seen the end of the first one. No call to the server is in between.
const UNSTEADY: &str = "TestXaDuplicate";
/// Tests of DTM's code for its stores. They write tables, and there are none.
const OF_DTMS_STORES: &str =
    "TestStore.*|TestWorkflowBranchConflict|TestUpdateBranches|TestResetTransGlobalCronTime";

/// A pattern that no test's name fits.
const NONE: &str = "^$";
const EMBEDDED: &str = "embedded";

/// The tests, compiled for ports that were free then.
struct Suite {
    folder: PathBuf,
    ports: Ports,
}

/// Ports that are constants in DTM's code, and where the tests have it.
struct Ports {
    http: u16,
    grpc: u16,
    redis: u16,
    business: u16,
    business_grpc: u16,
    /// Of `--test-control`: no constant, but it has to be free as well.
    control: u16,
}

impl Ports {
    /// Looks below the ports that the system gives to whoever asks for any.
    fn find(redis: u16) -> Self {
        let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
        let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
        let mut free = (first..32_000).filter(is_free);
        let mut next = || free.next().unwrap();
        Self {
            http: next(),
            grpc: next(),
            redis,
            business: next(),
            business_grpc: next(),
            control: next(),
        }
    }

    /// The files, what they hold, and what they are to hold.
    fn places(&self) -> [(&'static str, &'static str, String); 6] {
        [
            ("dtmutil/consts.go", "36789", self.http.to_string()),
            ("dtmutil/consts.go", "36790", self.grpc.to_string()),
            ("test/api_test.go", "36789", self.http.to_string()),
            ("test/busi/utils.go", "6379", self.redis.to_string()),
            ("test/busi/base_http.go", "= 8081", format!("= {}", self.business)),
            ("test/busi/base_http.go", "= 58081", format!("= {}", self.business_grpc)),
        ]
    }
}

impl Suite {
    /// Fetches and compiles the tests; tells why it cannot.
    fn make(redis: u16) -> Result<Self, String> {
        let folder = built("dtm-tests");
        DtmProgram::fetch(&folder).map_err(|error| error.to_string())?;
        let overlay = Path::new(env!("CARGO_MANIFEST_DIR")).join("../interop/dtm/overlay/.");
        run(Blocking::new("cp").arg("-r").arg(overlay).arg(&folder))?;
        let ports = Ports::find(redis);
        for (file, constant, ours) in ports.places() {
            replace(&folder.join(file), constant, &ours);
        }
        // Fetches what they import; from here on a failure is one of ours.
        run(Blocking::new("go").args(["list", "-test", "-deps", "./test"]).current_dir(&folder))?;
        let compile = ["test", "-c", "-o", "suite", "./test"];
        run(Blocking::new("go").args(compile).current_dir(&folder)).unwrap();
        Ok(Self { folder, ports })
    }

    /// Runs tests against a server on a store; returns how each of them ended.
    async fn run(&self, stage: &Stage, which: &str, without: &str) -> BTreeMap<String, String> {
        let mut command = Command::new(self.folder.join("suite"));
        command.args(["-test.v", "-test.run", which, "-test.skip", without]);
        command.current_dir(self.folder.join("test")).kill_on_drop(true);
        command.env("SUITE_CONTROL", &stage.control).env("SUITE_STORE", stage.store);
        command.env("SUITE_DATABASE", stage.database.0);
        command.env("SUITE_DATABASE_PORT", stage.database.1.to_string());
        // They need a MongoDB, which Debian does not have, and concern the SDK alone.
        command.env("SKIP_MONGO", "1");
        let ran = timeout(SUITE_MAX, command.output()).await;
        let output = ran.unwrap_or_else(|_| panic!("DTM's tests do not end")).unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let ended = endings(&said);
        if ended.is_empty() {
            panic!("no test ended:\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
        }
        if without != NONE && !output.status.success() {
            let of_server = stage.server.log();
            panic!("DTM's tests on {}:\n{said}\nthe server's log:\n{of_server}", stage.store);
        }
        ended
    }
}

fn replace(file: &Path, constant: &str, ours: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(constant), "{} has no {constant}", file.display());
    std::fs::write(file, text.replace(constant, ours)).unwrap();
}

/// The tests by name, each with `PASS`, `FAIL` or `SKIP`.
fn endings(said: &str) -> BTreeMap<String, String> {
    let ended = said.lines().filter_map(|line| {
        let (how, rest) = line.strip_prefix("--- ")?.split_once(": ")?;
        Some((rest.split(' ').next()?.to_owned(), how.to_owned()))
    });
    ended.collect()
}

/// A server whose clock the tests turn, and the database of their business.
struct Stage {
    server: Server,
    control: String,
    store: &'static str,
    /// DTM's name for its kind, and its port.
    database: (&'static str, u16),
}

impl Stage {
    /// Starts a server on a store, which the environment names.
    async fn start(
        suite: &Suite,
        store: &'static str,
        mut env: Vec<(String, String)>,
        database: (&'static str, u16),
    ) -> Self {
        let control = format!("127.0.0.1:{}", suite.ports.control);
        env.push(("GRPC_PORT".to_owned(), suite.ports.grpc.to_string()));
        let args = ["--test-control", &control];
        let server = Server::start_at(suite.ports.http, &args, &pairs(&env)).await;
        Self { server, control: format!("http://{control}"), store, database }
    }

    /// Runs all tests that should pass; those that are left out say so themselves.
    ///
    /// # Panics
    /// One does not pass.
    async fn play(&self, suite: &Suite) {
        let mut without = vec![UNSTEADY];
        without.extend(DIFFERENT.map(|(name, _)| name));
        if matches!(self.store, EMBEDDED | "redis") {
            without.push(OF_DTMS_STORES);
        }
        let ended = suite.run(self, ".", &format!("^({})$", without.join("|"))).await;
        let count = |how: &str| ended.values().filter(|ended| *ended == how).count();
        let line = format!(
            "DTM's own tests on {}: {} ok, {} left out for want of a MongoDB",
            self.store,
            count("PASS"),
            count("SKIP")
        );
        tell(&line);
        assert_eq!(count("FAIL"), 0, "{ended:?}");
        assert!(count("PASS") > 140, "{line}");
    }

    /// Runs the tests that should not pass: the list of them is to be true.
    ///
    /// # Panics
    /// One passes.
    async fn check_differences(&self, suite: &Suite) {
        for (name, why) in DIFFERENT {
            let ended = suite.run(self, &format!("^{name}$"), NONE).await;
            assert_eq!(ended.get(name).map(String::as_str), Some("FAIL"), "{name}: {why}");
        }
    }
}

#[tokio::test]
async fn the_tests_of_dtm_itself() {
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    let suite = match Suite::make(redis.port()) {
        Ok(suite) => suite,
        Err(why) => return tell(&format!("DTM's own tests were NOT run: {why}")),
    };
    let mariadb = Mariadb::start(DatabaseOptions { fsync: false }).await.unwrap();
    let business = ("mysql", mariadb.port());
    let env = store_env("mysql", mariadb.port(), "root", "dtm");
    let stage = Stage::start(&suite, "mysql", env, business).await;
    stage.play(&suite).await;
    stage.check_differences(&suite).await;
    drop(stage);

    Stage::start(&suite, EMBEDDED, Vec::new(), business).await.play(&suite).await;

    let own = Redis::start(RedisOptions::default()).await.unwrap();
    let env = store_env("redis", own.port(), "", "");
    Stage::start(&suite, "redis", env, business).await.play(&suite).await;

    let postgres = Postgres::start(DatabaseOptions { fsync: false }).await.unwrap();
    let env = store_env("postgres", postgres.port(), "postgres", "postgres");
    let business = ("postgres", postgres.port());
    Stage::start(&suite, "postgres", env, business).await.play(&suite).await;
}
