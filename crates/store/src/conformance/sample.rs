//! Globals to test with: every member, mode, status and option is in one of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dtmd_protocol::{
    Branch, BranchId, BranchStatus, CallProtocol, Gid, Global, GlobalStatus, Mode, Op, Options,
    Retry, Revision, StepDef, Timestamp,
};

/// Returns a gid.
///
/// # Panics
///
/// If the text cannot be one.
pub fn gid(text: &str) -> Gid {
    Gid::new(text).expect("the text can be a gid")
}

/// Returns a time, in seconds.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp(seconds * 1_000_000)
}

/// Returns a small, submitted saga of one step that is due at second 100.
pub fn saga(text: &str) -> Global {
    let mut global = plain(text);
    global.steps =
        [StepDef { action: "http://a/x".into(), compensate: "http://a/y".into() }].into();
    global.branches = vec![row("01", Op::Compensate), row("01", Op::Action)];
    global
}

/// Returns the global in a final status, ended at a time.
#[must_use]
pub fn ended(mut global: Global, ended: Timestamp) -> Global {
    global.status = GlobalStatus::Succeed;
    global.finished = Some(ended);
    global.updated = ended;
    global
}

/// Returns a later state: the next revision, changed by `change`.
#[must_use]
pub fn later(global: &Global, change: impl FnOnce(&mut Global)) -> Global {
    let mut global = global.clone();
    global.revision = global.revision.next();
    change(&mut global);
    global
}

/// Returns a row that is to be called.
///
/// # Panics
///
/// If the text cannot be a branch id.
pub fn row(branch_id: &str, op: Op) -> Branch {
    Branch {
        branch_id: BranchId::new(branch_id).expect("the text can be a branch id"),
        op,
        url: Arc::from("http://localhost:8080/do"),
        data: Arc::from(&b"{\"amount\":30}"[..]),
        status: BranchStatus::Prepared,
        retry: Retry::default(),
        created: at(100),
        updated: at(100),
        finished: None,
    }
}

fn plain(text: &str) -> Global {
    Global {
        gid: gid(text),
        namespace: "default".into(),
        mode: Mode::Saga { concurrent: false, orders: Arc::from([]) },
        status: GlobalStatus::Submitted,
        protocol: CallProtocol::Http,
        query_prepared: "".into(),
        custom_data: "".into(),
        options: Options::default(),
        steps: Arc::from([]),
        content: 7,
        branches: Vec::new(),
        created: at(100),
        updated: at(100),
        finished: None,
        rolled_back: None,
        rollback_reason: "".into(),
        result: "".into(),
        query: Retry::default(),
        wake_at: at(100),
        interval: Duration::from_secs(10),
        owner: "".into(),
        epoch: 0,
        revision: Revision(1),
    }
}

/// Returns a global whose every member differs from its default.
pub fn full(text: &str) -> Global {
    let headers = [("x-tenant", "a b"), ("Authorization", "Bearer é\"\\"), ("empty", "")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let ops = [
        Op::Action,
        Op::Compensate,
        Op::Try,
        Op::Confirm,
        Op::Cancel,
        Op::Commit,
        Op::Rollback,
        Op::Msg,
        Op::Named("résumé".into()),
    ];
    let rows = ops.into_iter().enumerate().map(|(index, op)| {
        let mut row = row(&format!("01-{index:02}"), op);
        row.status = BranchStatus::ALL[index % BranchStatus::ALL.len()];
        row.data = (0..=255).skip(index).collect();
        row.url = format!("grpc://host:1/Service/Method{index}").into();
        let next_at = Timestamp(i64::MAX - i64::try_from(index).unwrap_or(0));
        row.retry = Retry { attempts: u32::MAX - 1, next_at };
        row.finished = (index % 3 != 0).then_some(Timestamp(1));
        row
    });
    Global {
        namespace: "tenant/ä".into(),
        mode: Mode::Saga { concurrent: true, orders: vec![vec![], vec![0], vec![0, 1]].into() },
        status: GlobalStatus::Aborting,
        protocol: CallProtocol::JsonRpc,
        query_prepared: "http://a/query?x=1&y='2'".into(),
        custom_data: "{\"concurrent\":true,\"orders\":{\"1\":[0]}}".into(),
        options: Options {
            wait_result: true,
            timeout_to_fail: Some(Duration::from_millis(1500)),
            request_timeout: Some(Duration::from_secs(3)),
            retry_interval: Some(Duration::ZERO),
            retry_limit: 3,
            retry_count: 2,
            concurrent: true,
            branch_headers: Arc::new(BTreeMap::from(headers)),
        },
        steps: [
            StepDef { action: "topic://orders".into(), compensate: "".into() },
            StepDef { action: "http://b/1".into(), compensate: "http://b/2".into() },
        ]
        .into(),
        content: u128::MAX - 5,
        branches: rows.collect(),
        created: Timestamp(1_700_000_000_123_456),
        updated: Timestamp(1_700_000_000_999_999),
        finished: Some(Timestamp(-1)),
        rolled_back: Some(Timestamp(i64::MAX)),
        rollback_reason: "out of stock: 库存不足 '; drop table".into(),
        result: "eyJvayI6dHJ1ZX0=".into(),
        query: Retry { attempts: 4, next_at: at(5) },
        wake_at: at(1_700_000_123),
        interval: Duration::from_millis(2500),
        owner: "host-1/4711".into(),
        epoch: u64::from(u32::MAX) + 1,
        revision: Revision(41),
        ..plain(text)
    }
}

/// Returns one global for every mode, status and protocol; their gids begin with `prefix`.
///
/// Statuses and the times of an end agree with one another, as in every stored global.
pub fn all(prefix: &str) -> Vec<Global> {
    let modes = [
        Mode::Saga { concurrent: false, orders: Arc::from([]) },
        Mode::Saga { concurrent: true, orders: vec![vec![], vec![0]].into() },
        Mode::Tcc,
        Mode::Xa,
        Mode::Msg { delay: Duration::ZERO },
        Mode::Msg { delay: Duration::from_millis(90_001) },
        Mode::Workflow { name: "pay".into(), data: Arc::from(&[0, 159, 146, 150][..]) },
    ];
    let protocols = [CallProtocol::Http, CallProtocol::JsonRpc, CallProtocol::Grpc];
    let mut globals = Vec::new();
    for (index, mode) in modes.into_iter().enumerate() {
        for (number, status) in GlobalStatus::ALL.iter().enumerate() {
            let mut global = if number % 2 == 0 { full("x") } else { saga("x") };
            global.gid = gid(&format!("{prefix}-{index}-{status}"));
            global.mode = mode.clone();
            global.status = *status;
            global.protocol = protocols[(index + number) % protocols.len()];
            global.finished = (*status == GlobalStatus::Succeed).then(|| at(1000));
            global.rolled_back = (*status == GlobalStatus::Failed).then(|| at(1001));
            globals.push(global);
        }
    }
    globals
}
