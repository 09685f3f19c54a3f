//! Programs in other languages: made ready once, then run against a stage.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command as Blocking, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use dtmd_tests::{binary, tell};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use crate::Stage;

/// The longest that a language's scenarios may take: each waits up to 30 s for its end.
const SCENARIOS_MAX: Duration = Duration::from_secs(240);
/// The longest that a program may take until it serves: a virtual machine on a busy computer.
const START_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    /// Our own code on Go's libraries; only its services take part here.
    Go,
    /// DTM's `github.com/dtm-labs/client`.
    GoSdk,
    /// DTM's `dtmcli-java`.
    Java,
    /// DTM's `dtmcli` of PyPI.
    Python,
}

/// What a program is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Play {
    /// Run its scenarios as client and as service, and say how they went.
    Scenarios,
    /// Be a service until its input ends.
    Service,
}

/// A language whose program can be run.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    language: Language,
    command: Vec<OsString>,
}

impl Language {
    pub(crate) const ALL: [Self; 4] = [Self::Go, Self::GoSdk, Self::Java, Self::Python];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Go => "go",
            Self::GoSdk => "go-sdk",
            Self::Java => "java",
            Self::Python => "python",
        }
    }

    /// Makes the program ready, once for all tests; tells aloud why it cannot be.
    pub(crate) fn ready(self) -> Option<Ready> {
        static READY: [OnceLock<Option<Ready>>; Language::ALL.len()] =
            [const { OnceLock::new() }; Language::ALL.len()];
        let cell = &READY[self as usize];
        let made = cell.get_or_init(|| match self.make() {
            Ok(command) => Some(Ready { language: self, command }),
            Err(why) => {
                tell(&format!("interop with {} was NOT run: {why}", self.name()));
                None
            }
        });
        made.clone()
    }

    fn make(self) -> Result<Vec<OsString>, String> {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../interop").join(self.name());
        let sources = sources.canonicalize().map_err(|error| error.to_string())?;
        let out = built(self.name());
        std::fs::create_dir_all(out.parent().unwrap()).map_err(|error| error.to_string())?;
        match self {
            Self::Go | Self::GoSdk => make_go(&sources, out),
            Self::Java => make_java(&sources, &out),
            Self::Python => make_python(&sources, &out),
        }
    }
}

/// Where what is made here of that name lies: beside the built programs.
pub(crate) fn built(name: &str) -> PathBuf {
    binary().parent().and_then(Path::parent).unwrap().join("interop").join(name)
}

/// What cannot be fetched is a reason not to run; a program of ours that does not build is a fault.
fn make_go(sources: &Path, out: PathBuf) -> Result<Vec<OsString>, String> {
    let go = || {
        let mut go = Blocking::new("go");
        go.current_dir(sources);
        go
    };
    run(go().args(["list", "-deps", "."]))?;
    let built = run(go().args(["build", "-o"]).arg(&out).arg("."));
    assert!(built.is_ok(), "{}: {built:?}", sources.display());
    Ok(vec![out.into()])
}

fn make_java(sources: &Path, out: &Path) -> Result<Vec<OsString>, String> {
    let mut maven = Blocking::new("mvn");
    maven.args(["-q", "-B", "compile", "-f"]).arg(sources.join("pom.xml"));
    let mut place = OsString::from("-Dout=");
    place.push(out);
    run(maven.arg(place))?;
    let mut classes = out.join("classes").into_os_string();
    classes.push(":");
    classes.push(out.join("lib").join("*"));
    let command = ["java".into(), "-Xshare:auto".into(), "-cp".into(), classes];
    Ok(command.into_iter().chain(["interop.Main".into()]).collect())
}

fn make_python(sources: &Path, out: &Path) -> Result<Vec<OsString>, String> {
    let wanted = sources.join("requirements.txt");
    let has = out.join("requirements.txt");
    let python = out.join("bin").join("python");
    // Copied last: as long as the two are the same, the packages are there.
    if std::fs::read(&wanted).ok() != std::fs::read(&has).ok() {
        run(Blocking::new("python3").args(["-m", "venv", "--clear"]).arg(out))?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
        run(Blocking::new(&python).args(pip).arg(&wanted))?;
        std::fs::copy(&wanted, &has).map_err(|error| error.to_string())?;
    }
    // No compiled files beside the sources.
    Ok(vec![python.into(), "-B".into(), sources.join("main.py").into()])
}

/// Runs a tool to its end; its words are the reason if it fails.
pub(crate) fn run(command: &mut Blocking) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let words = [output.stdout, output.stderr].concat();
    Err(format!("{name} failed: {}", String::from_utf8_lossy(&words).trim()))
}

impl Ready {
    /// The program against a stage, not yet started.
    pub(crate) fn command(&self, stage: &Stage, play: Play) -> Program {
        let mut command = Command::new(&self.command[0]);
        let dtm = match self.language {
            Language::Java => stage.dtm.address().to_owned(),
            Language::Go | Language::GoSdk | Language::Python => stage.dtm.client.base().to_owned(),
        };
        command.args(&self.command[1..]).args(["--db", &stage.database(), "--dtm", &dtm]);
        if self.language == Language::GoSdk {
            command.args(["--dtm-grpc", &stage.dtm_grpc]);
        }
        if play == Play::Service {
            command.arg("--serve");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        Program { language: self.language, command }
    }
}

pub(crate) struct Program {
    language: Language,
    command: Command,
}

impl Program {
    /// Runs the scenarios; they say themselves which of them went wrong.
    ///
    /// # Panics
    /// One did, or they take too long.
    pub(crate) async fn run_to_the_end(mut self) {
        let name = self.language.name();
        let ran = timeout(SCENARIOS_MAX, self.command.output()).await;
        let output = ran.unwrap_or_else(|_| panic!("{name} does not end")).unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}:\n{said}\n{errors}");
        let last = said.lines().last().unwrap_or_default();
        assert!(last.starts_with("interop with "), "{name} said no result:\n{said}");
        tell(last);
    }

    /// Starts the service and reads from its output where it is.
    pub(crate) async fn serve(mut self) -> Foreign {
        let name = self.language.name();
        let mut child = self.command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let look = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some(url) = line.strip_prefix("listening on ") {
                    return url.to_owned();
                }
            }
            panic!("{name} ended before it served")
        };
        let found = timeout(START_MAX, look).await;
        let url = found.unwrap_or_else(|_| panic!("{name} does not serve"));
        // What it says from now on must not fill the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Foreign { name, url, _process: (child, input) }
    }
}

/// A running service in another language.
pub(crate) struct Foreign {
    pub(crate) name: &'static str,
    pub(crate) url: String,
    /// It ends when its input does.
    _process: (Child, ChildStdin),
}
