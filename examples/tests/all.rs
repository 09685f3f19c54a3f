//! Every example runs and tells what it claims. They share this process's databases; each has a
//! dtmd and, in it, databases of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use dtmcli_test::TestServer;
use dtmd_local_servers::shared;
use tokio::process::Command;

/// The longest one example may run; past it something hangs.
const PROGRAM_MAX: Duration = Duration::from_secs(180);
const SERVERS: [&str; 4] = ["DTMD_URL", "MARIADB_URL", "POSTGRES_URL", "REDIS_URL"];

macro_rules! examples {
    ($($name:ident: $lines:expr;)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                let server = TestServer::start_live().await;
                let urls = [
                    server.url().to_owned(),
                    shared::mariadb_database().await.unwrap(),
                    shared::postgres_database().await.unwrap(),
                    shared::redis().await.unwrap().0,
                ];
                run(stringify!($name), Some(urls), &$lines).await;
            }
        )*

        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

examples! {
    transfer: [
        "30 from alice to bob: done",
        "500 from alice to bob: rolled back, not enough money",
        "30 from alice to carol: rolled back, the account is frozen",
        "alice 70, bob 30, carol 0",
    ];
    order: ["orders [\"paid\"], lamps 4, sofas 0, used [\"WELCOME\"]"];
    freeze_and_pay: ["alice has 40, 0 frozen; lamps: 4, 0 reserved"];
    message: [
        "paid 30: succeed",
        "paid 500: refused, not enough money",
        "paid 20 and died: succeed",
        "died before 10: failed",
        "alice has 50 and 50 points",
    ];
    outbox: [
        "6 orders taken, shipped []",
        "shipped to alice [1, 3, 5], to bob [2, 4, 6]; 0 messages left",
    ];
    xa: ["alice 70, bob 30, carol 0", "prepared branches left: 0"];
    workflow: [
        "trip for 60: succeed after dtmd had it resumed",
        "trip for 500: rolled back, not enough money",
        "alice has 40; rooms 1, seats 1",
    ];
    cache: ["written 11, read 11", "written 12, read 12", "written 13, read 13"];
    flash_sale: ["stock 0, sold 50, orders 50, doubled 0"];
}

/// As the first page says: one command, and nothing has to run before.
#[tokio::test]
async fn an_example_needs_nothing_that_runs() {
    run("transfer", None, &["alice 70, bob 30, carol 0"]).await;
}

/// An example that the list above has forgotten would never be run.
#[test]
fn every_example_is_run() {
    let manifest = include_str!("../Cargo.toml");
    let named = manifest.split("[[example]]\nname = \"").skip(1);
    let named: Vec<&str> = named.filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(named, NAMES);
}

/// Runs an example; it must succeed, and its output must have lines that begin so, in this order.
async fn run(name: &str, urls: Option<[String; 4]>, lines: &[&str]) {
    let mut command = Command::new(program(name));
    for server in SERVERS {
        command.env_remove(server);
    }
    if let Some(urls) = urls {
        command.envs(SERVERS.into_iter().zip(urls));
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PROGRAM_MAX, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{name} hangs")).unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let all =
        format!("{name}: {}\n{told}{}", output.status, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{all}");
    let mut rest = told.lines();
    for line in lines {
        assert!(rest.any(|told| told.starts_with(line)), "no line {line}\n{all}");
    }
    check_page(name, &told);
}

/// The pages quote the programs: every line of theirs must be in the program, and what they say it
/// prints must be what it prints, but for the numbers.
fn check_page(name: &str, told: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = format!("../docs/examples/{}.md", name.replace('_', "-"));
    let page = std::fs::read_to_string(root.join(&path)).unwrap();
    let program = squeezed(&std::fs::read_to_string(root.join(format!("{name}.rs"))).unwrap());
    for line in blocks(&page, "```rust\n").flat_map(str::lines).filter(|line| !line.contains('…'))
    {
        assert!(program.contains(&squeezed(line)), "{path} quotes what is not there: {line}");
    }
    let without_numbers = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
    let printed: Vec<&str> = blocks(&page, "```text\n").collect();
    assert_eq!(printed.len(), 1, "{path} shows what it prints");
    assert_eq!(without_numbers(printed[0]), without_numbers(told), "{path} shows something else");
}

fn blocks<'a>(page: &'a str, fence: &'a str) -> impl Iterator<Item = &'a str> {
    page.split(fence).skip(1).filter_map(|rest| rest.split("```").next())
}

fn squeezed(text: &str) -> String {
    text.split_whitespace().collect()
}

/// Cargo builds the examples beside the tests, and has no variable that names them.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(|deps| deps.parent()).unwrap().join("examples");
    let program = folder.join(name).with_extension(std::env::consts::EXE_EXTENSION);
    assert!(
        program.is_file(),
        "{} is not built; `cargo test -p dtmd-examples` builds it, `--test all` alone does not",
        program.display()
    );
    program
}
