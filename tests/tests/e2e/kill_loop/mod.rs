//! The kill loop: a server under load is killed with SIGKILL again and again, and every invariant
//! of a bank is looked at after each restart.
//!
//! After each restart: the server is ready, knows all it acknowledged, keeps what was final, and
//! each bank's balances are what its barrier says. In quiet phases, and at the end: everything is
//! final, no money was made or lost, every effect is there once or not at all, as its
//! transaction's end demands. `DTMD_SEED` repeats a run's choices, `DTMD_KILLS` its length.

mod audit;
mod book;
mod failpoints;
mod fleet;
mod load;
mod nodes;

use std::slice::from_ref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dtmd_demo::bank::{Bank, BankConfig, Stats};
use dtmd_demo::client::HttpClient;
use dtmd_tests::{PATIENCE, Server, tell, until};
use serde_json::json;
use tempfile::TempDir;

use audit::Audit;
use book::{ACCOUNTS, BALANCE, Book, Dice};
use load::Load;

const KILLS: u32 = 300;
/// Transactions are begun by so many clients at a time.
const CLIENTS: u32 = 8;
/// Kills between two quiet phases.
const QUIET_EVERY: u32 = 20;
/// Kills between two lines of a long run.
const TELL_EVERY: u32 = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_loop() {
    let _turn = crate::turn::alone().await;
    let seed = seed();
    let kills = from_env("DTMD_KILLS").and_then(|kills| kills.try_into().ok()).unwrap_or(KILLS);
    tell(&format!("kill loop: {kills} kills, DTMD_SEED={seed}"));

    let folder = TempDir::new().unwrap();
    let (banks, mut audit) = open_banks(&folder).await;
    // Banks lose answers here all the time; one that is left alone for long only takes time.
    let mut server = Server::start_with(&[], &[("BREAKER_OPEN", "1")]).await;
    let book = Arc::new(Book::default());
    let mut load = Load::begin(seed, from_ref(&server), &banks, &book);

    let mut dice = Dice::new(seed);
    let mut done = 0;
    let mut restarts = Vec::new();
    while done < kills {
        tokio::time::sleep(Duration::from_millis(dice.below(350) + 20)).await;
        server.process.kill_9().await.unwrap();
        done += 1;
        let begun = Instant::now();
        server.process.restart().await.unwrap();
        restarts.push(begun.elapsed());
        check_after_restart(&server, &book, &mut audit).await;
        load.check();
        if done % QUIET_EVERY == 0 || done == kills {
            let _all = load.pause().await;
            check_quiet(from_ref(&server), &book, &mut audit, &banks).await;
            if done % TELL_EVERY == 0 && done < kills {
                tell(&format!("kill loop: {done} kills, {} acknowledged so far", book.accepted()));
            }
        }
    }
    load.end().await;
    report(done, &mut restarts, &book, &banks);
}

/// Opens both banks, and their books for reading.
async fn open_banks(folder: &TempDir) -> (Arc<[Bank; 2]>, Audit) {
    let banks = Arc::new([bank(folder, "a").await, bank(folder, "b").await]);
    let audit = Audit::open(&folder.path().join("a.db"), &folder.path().join("b.db"));
    (banks, audit)
}

/// Opens a bank with its accounts.
async fn bank(folder: &TempDir, name: &str) -> Bank {
    let mut config = BankConfig::new(name, folder.path().join(format!("{name}.db")));
    for account in ACCOUNTS {
        config = config.account(account, BALANCE);
    }
    Bank::start(config).await.unwrap()
}

/// What holds at any moment: nothing that was acknowledged is unknown, nothing final has changed,
/// no bank has a balance without its barrier rows.
async fn check_after_restart(server: &Server, book: &Book, audit: &mut Audit) {
    let ready = server.client.http().get(&server.at("/readyz")).await.unwrap();
    assert_eq!(ready.status, 200, "after a restart: {}", ready.body);
    for gid in book.take_news() {
        let query = server.query(&gid).await;
        let status = query["transaction"]["status"].as_str();
        assert!(status.is_some(), "{gid} was acknowledged and is unknown after a restart");
        book.note_status(&gid, status.unwrap_or_default());
    }
    audit.read(book);
}

/// What holds when nobody begins anything any more and all retries have come to their end.
async fn check_quiet(servers: &[Server], book: &Book, audit: &mut Audit, banks: &[Bank; 2]) {
    let server = &servers[0];
    for bank in banks {
        // Rules for calls that never came would meet nobody any more.
        let clear = json!({ "clear": true });
        HttpClient::default().post(&format!("{}/control", bank.url), &clear).await.unwrap();
    }
    // In the order in which a transaction moves, so that none slips past from one to the next.
    for status in ["prepared", "submitted", "aborting"] {
        let begun = Instant::now();
        loop {
            let list = server.get(&format!("all?status={status}&limit=1")).await.json();
            if list["transactions"].as_array().is_some_and(Vec::is_empty) {
                break;
            }
            if begun.elapsed() > PATIENCE {
                let gid = list["transactions"][0]["gid"].as_str();
                let Some(gid) = gid else { panic!("no list of what is {status}: {list}") };
                give_up(servers, gid, &format!("still {status}")).await;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    // Calls that were given up may still be held by a bank; then their effects are not all there.
    until("no call under way at a bank", async || {
        banks.iter().all(|bank| bank.stats().in_flight == 0).then_some(())
    })
    .await;
    let mut position = String::new();
    let mut listed = 0;
    loop {
        let page = server.get(&format!("all?limit=1000&position={position}")).await.json();
        for transaction in page["transactions"].as_array().unwrap() {
            let text = |name: &str| transaction[name].as_str().unwrap_or_default();
            book.note_status(text("gid"), text("status"));
            listed += 1;
        }
        position = page["next_position"].as_str().unwrap().to_owned();
        if position.is_empty() {
            break;
        }
    }
    audit.read(book);
    if let Err((gid, why)) = audit.check_settled(book) {
        give_up(servers, &gid, &why).await;
    }
    assert!(listed >= book.accepted(), "{listed} listed, {} accepted", book.accepted());
}

/// Fails the test with what every server knows of a transaction.
async fn give_up(servers: &[Server], gid: &str, why: &str) {
    let mut told = Vec::new();
    for server in servers {
        let query = server.query(gid).await;
        let log = server.log();
        let log: Vec<_> = log.lines().filter(|line| line.contains(gid)).collect();
        told.push(format!("a server tells: {query}\nits log:\n{}", log.join("\n")));
    }
    panic!("{gid}: {why}\n{}", told.join("\n"));
}

/// Prints what the run met, and fails if it met nothing.
fn report(kills: u32, restarts: &mut [Duration], book: &Book, banks: &[Bank; 2]) {
    let sum = |read: fn(&Stats) -> u64| banks.iter().map(|bank| read(&bank.stats())).sum::<u64>();
    let (nulls, hanging) = (sum(|stats| stats.null_compensations), sum(|stats| stats.hanging));
    let (duplicates, calls) = (sum(|stats| stats.duplicates), sum(|stats| stats.calls));
    let (begun, accepted, unknown) = (book.begun(), book.accepted(), book.unknown());
    let (succeed, failed) = book.ends();
    restarts.sort();
    let median = restarts[restarts.len() / 2].as_millis();
    let longest = restarts[restarts.len() - 1].as_millis();
    tell(&format!(
        "kill loop: {kills} kills, {begun} transactions ({succeed} succeed, {failed} failed), \
         {accepted} acknowledged, {unknown} answers unknown, {calls} branch calls, \
         {duplicates} duplicates, {nulls} null compensations, {hanging} hanging actions kept out, \
         ready again after {median} ms (median), {longest} ms (longest)"
    ));
    assert!(kills > 0 && accepted > u64::from(kills) as usize, "nothing was put to the test");
    assert!(succeed > 0 && failed > 0, "only one end was reached");
    assert!(unknown > 0 && duplicates > 0 && nulls > 0, "the kills met nothing");
    assert!(longest < PATIENCE.as_millis(), "a restart took too long");
}

/// What all choices of a run follow from: `DTMD_SEED`, or the time.
fn seed() -> u64 {
    from_env("DTMD_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos()) ^ now.as_secs().rotate_left(32)
    })
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
