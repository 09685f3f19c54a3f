//! Lost connections, killed servers, deadlocks: no outcome is guessed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use dtmd_local_servers::{DatabaseOptions, Mariadb, Postgres};
use dtmd_protocol::Global;
use dtmd_store::conformance::sample::{at, later, saga};
use dtmd_store::{Store, StoreError, Write};
use dtmd_store_sql::SqlStore;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::common::{BOTH, Kind, Plain, change, commit, create, load, on_both, open, options, run};

/// What the proxy does to the next exchange that commits.
const PASS: u8 = 0;
/// It reaches the database, its answer does not come back.
const LOSE_ANSWER: u8 = 1;
/// It does not reach the database.
const LOSE_REQUEST: u8 = 2;

/// A wire between the store and the database, to be cut at will. Returns the URL through it.
async fn proxy(url: &str) -> (String, Arc<AtomicU8>) {
    let (before, after) = url.rsplit_once('@').unwrap();
    let (address, database) = after.split_once('/').unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mode = Arc::new(AtomicU8::new(PASS));
    let (address, shared) = (address.to_owned(), mode.clone());
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let Ok(server) = TcpStream::connect(&address).await else { continue };
            tokio::spawn(carry(client, server, shared.clone()));
        }
    });
    (format!("{before}@127.0.0.1:{port}/{database}"), mode)
}

async fn carry(client: TcpStream, server: TcpStream, mode: Arc<AtomicU8>) {
    let (mut client_read, mut client_write) = client.into_split();
    let (mut server_read, mut server_write) = server.into_split();
    let mut request = vec![0; 1 << 20];
    let mut answer = vec![0; 1 << 20];
    loop {
        tokio::select! {
            read = client_read.read(&mut request) => {
                let Ok(count @ 1..) = read else { return };
                let bytes = &request[..count];
                let commits = bytes.windows(7).any(|window| window == b";commit");
                let todo = if commits { mode.swap(PASS, Ordering::SeqCst) } else { PASS };
                if todo == LOSE_REQUEST {
                    return;
                }
                if server_write.write_all(bytes).await.is_err() {
                    return;
                }
                if todo == LOSE_ANSWER {
                    // Answered means committed.
                    let _ = server_read.read(&mut answer).await;
                    return;
                }
            }
            read = server_read.read(&mut answer) => {
                let Ok(count @ 1..) = read else { return };
                if client_write.write_all(&answer[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[test]
fn a_commit_whose_answer_is_lost_is_cleared_up() {
    on_both(async |kind| {
        let url = kind.url().await;
        let (through, mode) = proxy(&url).await;
        let store = open(&through).await;
        for (round, lost) in [LOSE_ANSWER, LOSE_REQUEST, LOSE_ANSWER].into_iter().enumerate() {
            let first = saga(&format!("g{round}"));
            let second = later(&first, |global| global.updated = at(101));
            let taken = saga("taken");
            let _ = commit(&store, create(&taken)).await;
            // One after the other: a creation, a change, a key, beside one that is refused.
            for writes in [
                vec![create(&first), create(&taken)],
                vec![change(&first, &second), change(&first, &second)],
                vec![key(&format!("k{round}"), 0), key(&format!("k{round}"), 0)],
            ] {
                mode.store(lost, Ordering::SeqCst);
                let results = store.commit(&writes).await.unwrap();
                assert_eq!(mode.load(Ordering::SeqCst), PASS, "the wire was cut");
                let held: Vec<bool> = results.iter().map(Result::is_ok).collect();
                assert_eq!(held, [true, false], "{kind:?} {round} {results:?}");
            }
            assert_eq!(load(&store, first.gid.as_str()).await, Some(second));
        }
    });
}

fn key(key: &str, expected: u64) -> Write {
    let value = Some("v".to_owned());
    Write::Kv { cat: "topics".into(), key: key.into(), expected, value, now: at(1) }
}

/// Somebody else is quicker than the second attempt: then nobody knows, and nobody says so.
#[test]
fn what_cannot_be_told_is_not_told() {
    on_both(async |kind| {
        let url = kind.url().await;
        let (through, mode) = proxy(&url).await;
        let store = open(&through).await;
        let first = saga("g");
        commit(&store, create(&first)).await.unwrap();
        let mut plain = Plain::connect(&url).await;
        // The database itself changes what the lost commit wrote, as part of it.
        let trigger = match kind {
            Kind::Mariadb => {
                "create trigger t before update on trans_global for each row \
                              set new.dtmd_write=7, new.dtmd_revision=77"
            }
            Kind::Postgres => {
                "create function f() returns trigger as $$ begin new.dtmd_write=7; \
                               new.dtmd_revision=77; return new; end $$ language plpgsql; \
                               create trigger t before update on trans_global for each row \
                               execute function f()"
            }
        };
        plain.run(trigger).await;
        mode.store(LOSE_ANSWER, Ordering::SeqCst);
        let second = later(&first, |global| global.updated = at(101));
        let result = store.commit(&[change(&first, &second)]).await;
        assert!(matches!(result, Err(StoreError::Unavailable { .. })), "{result:?}");
    });
}

#[test]
fn a_deadlock_is_tried_again() {
    on_both(async |kind| {
        let url = kind.url().await;
        let store = Arc::new(open(&url).await);
        let (a, b) = (saga("a"), saga("b"));
        store.commit(&[create(&a), create(&b)]).await.unwrap();
        let mut other = Plain::connect(&url).await;
        let touch = |gid: &str| format!("update trans_global set result='x' where gid='{gid}'");
        other.run(&format!("begin;{}", touch("b"))).await;
        let next = |global: &Global| later(global, |global| global.updated = at(300));
        let batch = [change(&a, &next(&a)), change(&b, &next(&b))];
        let working = store.clone();
        let committing = tokio::spawn(async move { working.commit(&batch).await });
        tokio::time::sleep(Duration::from_millis(150)).await;
        // The store holds a and waits for b; now the other waits for a. One of them is the victim.
        let end = match other.try_run(&touch("a")).await {
            Ok(_) => "commit",
            Err(_) => "rollback",
        };
        other.run(end).await;
        assert_eq!(committing.await.unwrap().unwrap(), [Ok(()), Ok(())]);
        assert_eq!(load(&store, "b").await.unwrap().updated, at(300));
    });
}

#[test]
fn a_write_that_the_database_cannot_take_does_not_keep_its_neighbours_out() {
    on_both(async |kind| {
        let url = kind.url().await;
        let store = open(&url).await;
        let mut plain = Plain::connect(&url).await;
        plain.run("alter table trans_global add constraint bad check (gid <> 'bad')").await;
        let batch = [create(&saga("a")), create(&saga("bad")), create(&saga("c"))];
        let results = store.commit(&batch).await.unwrap();
        let held: Vec<bool> = results.iter().map(Result::is_ok).collect();
        assert_eq!(held, [true, false, true], "{kind:?} {results:?}");
    });
}

#[test]
fn a_store_that_may_not_be_written_says_so() {
    on_both(async |kind| {
        let url = kind.url().await;
        let mut options = options(&url);
        options.retry_for = Duration::from_millis(50);
        let store = SqlStore::open(options.clone()).await.unwrap();
        commit(&store, create(&saga("a"))).await.unwrap();
        let mut plain = Plain::connect(&url).await;
        plain.run("drop table trans_branch_op").await;
        let result = store.commit(&[create(&saga("b"))]).await;
        assert!(matches!(result, Err(StoreError::Unavailable { .. })), "{result:?}");
        options.migrate = false;
        let error = SqlStore::open(options).await.unwrap_err().to_string();
        assert!(error.contains("dtmd migrate") && error.contains("create table"), "{error}");
    });
}

/// A standby, or a server that was just demoted, refuses writes; after the failover they go on.
#[test]
fn a_commit_waits_for_a_server_that_takes_writes() {
    run(async {
        let url = Kind::Postgres.url().await;
        let mut options = options(&url);
        options.retry_for = Duration::from_secs(20);
        let store = Arc::new(SqlStore::open(options).await.unwrap());
        let mut plain = Plain::connect(&url).await;
        let database = url.rsplit_once('/').unwrap().1;
        let end = "select pg_terminate_backend(pid) from pg_stat_activity \
                   where datname=current_database() and pid<>pg_backend_pid()";
        let read_only = format!("alter database {database} set default_transaction_read_only=on");
        plain.run(&format!("{read_only};{end}")).await;
        let refused = store.ping().await;
        assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
        let working = store.clone();
        let committing = tokio::spawn(async move { working.commit(&[create(&saga("a"))]).await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        plain.run("set default_transaction_read_only=off").await;
        plain.run(&format!("alter database {database} reset default_transaction_read_only")).await;
        assert_eq!(committing.await.unwrap().unwrap(), [Ok(())]);
        store.ping().await.unwrap();
    });
}

/// A writer that goes on while its database is killed and comes back: what was acknowledged is
/// there, nothing was made twice, and what is unknown is called so.
async fn survives<S>(store: SqlStore, mut server: S)
where
    S: Killable,
{
    let store = Arc::new(store);
    let stop = Arc::new(AtomicU8::new(0));
    let (working, stopped) = (store.clone(), stop.clone());
    let writer = tokio::spawn(async move {
        let mut known: Vec<(Global, Option<Global>)> = Vec::new();
        let mut round = 0;
        while stopped.load(Ordering::SeqCst) == 0 || round < 20 {
            round += 1;
            let first = saga(&format!("g{round}"));
            let second = later(&first, |global| global.updated = at(500));
            match working.commit(&[create(&first)]).await {
                Ok(results) => assert_eq!(results, [Ok(())], "nobody else creates {}", first.gid),
                Err(_) => continue,
            }
            match working.commit(&[change(&first, &second)]).await {
                Ok(results) => {
                    assert_eq!(results, [Ok(())], "nobody else changes {}", first.gid);
                    known.push((second, None));
                }
                Err(_) => known.push((first, Some(second))),
            }
        }
        known
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.kill().await;
    server.start().await;
    stop.store(1, Ordering::SeqCst);
    let known = writer.await.unwrap();
    for (sure, maybe) in known {
        let stored = load(&store, sure.gid.as_str()).await;
        assert!(stored.as_ref() == Some(&sure) || (maybe.is_some() && stored == maybe), "{sure:?}");
    }
    store.ping().await.unwrap();
}

trait Killable {
    async fn kill(&mut self);
    async fn start(&mut self);
}

impl Killable for Mariadb {
    async fn kill(&mut self) {
        self.kill_9().await.unwrap();
    }
    async fn start(&mut self) {
        self.restart().await.unwrap();
    }
}

impl Killable for Postgres {
    async fn kill(&mut self) {
        self.kill_9().await.unwrap();
    }
    async fn start(&mut self) {
        self.restart().await.unwrap();
    }
}

#[test]
fn a_killed_database_loses_nothing_that_was_acknowledged() {
    run(async {
        for kind in BOTH {
            let patient = |url: &str| {
                let mut options = options(url);
                options.retry_for = Duration::from_secs(20);
                SqlStore::open(options)
            };
            match kind {
                Kind::Mariadb => {
                    let server = Mariadb::start(DatabaseOptions::default()).await.unwrap();
                    survives(patient(&server.url()).await.unwrap(), server).await;
                }
                Kind::Postgres => {
                    let server = Postgres::start(DatabaseOptions::default()).await.unwrap();
                    survives(patient(&server.url()).await.unwrap(), server).await;
                }
            }
        }
    });
}
