//! Tables that a DTM server made and filled (spec 05 §2), and a DTM server beside us.

use std::time::Duration;

use dtmd_protocol::{BranchStatus, GlobalStatus, Mode, Op, Timestamp, TransType};
use dtmd_store::conformance::sample::{at, ended, later, row, saga};
use dtmd_store::{Claim, Lease, ListFilter, Store, Write, WriteError};
use dtmd_store_sql::{SqlStore, migrate};

use crate::common::{Kind, Plain, change, commit, create, load, on_both, open, options};

const MYSQL: &str = "
create table trans_global (id bigint(22) not null auto_increment, gid varchar(128) not null,
 trans_type varchar(45) not null, status varchar(12) not null, query_prepared varchar(1024) not null,
 protocol varchar(45) not null, create_time datetime default null, update_time datetime default null,
 finish_time datetime default null, rollback_time datetime default null, options varchar(1024) default '',
 custom_data varchar(1024) default '', next_cron_interval int(11) default null,
 next_cron_time datetime default null, owner varchar(128) not null default '', ext_data text,
 result varchar(1024) default '', rollback_reason varchar(1024) default '', primary key (id),
 unique key gid (gid), key owner (owner), key status_next_cron_time (status, next_cron_time)
) engine=InnoDB default charset=utf8mb4;
create table trans_branch_op (id bigint(22) not null auto_increment, gid varchar(128) not null,
 url varchar(1024) not null, data text, bin_data blob, branch_id varchar(128) not null,
 op varchar(45) not null, status varchar(45) not null, finish_time datetime default null,
 rollback_time datetime default null, create_time datetime default null, update_time datetime default null,
 primary key (id), unique key gid_uniq (gid, branch_id, op)) engine=InnoDB default charset=utf8mb4;
create table kv (id bigint(22) not null auto_increment, cat varchar(45) not null, k varchar(128) not null,
 v text, version bigint(22) default 1, create_time datetime default null, update_time datetime default null,
 primary key (id), unique key uniq_k (cat, k)) engine=InnoDB default charset=utf8mb4";

const POSTGRES: &str = "
create sequence trans_global_seq; create sequence trans_branch_op_seq; create sequence kv_seq;
create table trans_global (id bigint not null default nextval('trans_global_seq'), gid varchar(128) not null,
 trans_type varchar(45) not null, status varchar(45) not null, query_prepared varchar(1024) not null,
 protocol varchar(45) not null, create_time timestamp(0) with time zone default null,
 update_time timestamp(0) with time zone default null, finish_time timestamp(0) with time zone default null,
 rollback_time timestamp(0) with time zone default null, options varchar(1024) default '',
 custom_data varchar(1024) default '', next_cron_interval int default null,
 next_cron_time timestamp(0) with time zone default null, owner varchar(128) not null default '',
 ext_data text, result varchar(1024) default '', rollback_reason varchar(1024) default '',
 primary key (id), constraint gid unique (gid));
create index owner on trans_global (owner);
create index status_next_cron_time on trans_global (status, next_cron_time);
create table trans_branch_op (id bigint not null default nextval('trans_branch_op_seq'),
 gid varchar(128) not null, url varchar(1024) not null, data text, bin_data bytea,
 branch_id varchar(128) not null, op varchar(45) not null, status varchar(45) not null,
 finish_time timestamp(0) with time zone default null, rollback_time timestamp(0) with time zone default null,
 create_time timestamp(0) with time zone default null, update_time timestamp(0) with time zone default null,
 primary key (id), constraint gid_branch_uniq unique (gid, branch_id, op));
create table kv (id bigint not null default nextval('kv_seq'), cat varchar(45) not null,
 k varchar(128) not null, v text, version bigint default 1,
 create_time timestamp(0) with time zone default null, update_time timestamp(0) with time zone default null,
 primary key (id), constraint uniq_k unique (cat, k))";

/// What a DTM server had stored: (gid, type, status, custom_data, branches as id, op, status).
type Fixture = (
    &'static str,
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str, &'static str)],
);

const FIXTURES: &[Fixture] = &[
    (
        "saga",
        "submitted",
        "{\"orders\":{\"1\":[0]},\"concurrent\":true}",
        &[
            ("01", "compensate", "prepared"),
            ("01", "action", "succeed"),
            ("02", "compensate", "prepared"),
            ("02", "action", "prepared"),
        ],
    ),
    ("saga", "aborting", "", &[("01", "compensate", "prepared"), ("01", "action", "failed")]),
    ("saga", "failed", "", &[("01", "compensate", "succeed"), ("01", "action", "failed")]),
    ("tcc", "prepared", "", &[("01", "cancel", "prepared"), ("01", "confirm", "prepared")]),
    ("tcc", "aborting", "", &[("01", "cancel", "succeed"), ("01", "confirm", "prepared")]),
    ("xa", "submitted", "", &[("01", "rollback", "prepared"), ("01", "commit", "prepared")]),
    ("msg", "prepared", "{\"delay\":7}", &[("01", "action", "prepared")]),
    ("msg", "succeed", "", &[("01", "action", "succeed")]),
    (
        "workflow",
        "prepared",
        "{\"name\":\"pay\",\"data\":\"aGkh\"}",
        &[("01", "action", "succeed")],
    ),
];

/// Makes DTM's tables and fills them; due at second 1700000010, created at second 1700000000.
async fn fill(kind: Kind, url: &str) -> Plain {
    let mut plain = Plain::connect(url).await;
    plain.run(if kind == Kind::Mariadb { MYSQL } else { POSTGRES }).await;
    let (t0, t1) = ("'2023-11-14 22:13:20'", "'2023-11-14 22:13:30'");
    for (trans_type, status, custom_data, branches) in FIXTURES {
        let gid = format!("{trans_type}-{status}");
        let end = |of: &str| if *status == of { t1 } else { "null" };
        let (finished, rolled) = (end("succeed"), end("failed"));
        let options =
            "{\"timeout_to_fail\":60,\"concurrent\":false,\"branch_headers\":{\"k\":\"v\"}}";
        plain.run(&format!(
            "insert into trans_global (gid,trans_type,status,query_prepared,protocol,create_time,update_time,\
             finish_time,rollback_time,options,custom_data,next_cron_interval,next_cron_time,owner,ext_data,\
             result,rollback_reason) values ('{gid}','{trans_type}','{status}','http://a/q','http',{t0},{t0},\
             {finished},{rolled},'{options}','{custom_data}',10,{t1},'token','','','because')"
        )).await;
        for (branch_id, op, status) in *branches {
            plain.run(&format!(
                "insert into trans_branch_op (gid,url,data,bin_data,branch_id,op,status,create_time,update_time) \
                 values ('{gid}','http://a/{op}','','payload','{branch_id}','{op}','{status}',{t0},{t0})"
            )).await;
        }
    }
    plain.run(&format!("insert into kv (cat,k,v,version,create_time,update_time) values ('topics','t','[]',4,{t0},{t0})")).await;
    plain
}

fn claim(owner: &str, due: i64) -> Claim {
    Claim { owner: owner.into(), due: at(due), until: at(due + 60), limit: 100 }
}

async fn every_row_is_understood(store: &SqlStore) {
    for (trans_type, status, custom_data, branches) in FIXTURES {
        let global = load(store, &format!("{trans_type}-{status}")).await.unwrap();
        assert_eq!(global.trans_type().as_str(), *trans_type);
        assert_eq!(global.status.as_str(), *status);
        assert_eq!(&*global.custom_data, *custom_data);
        assert_eq!(&*global.query_prepared, "http://a/q");
        assert_eq!(&*global.rollback_reason, "because");
        assert_eq!((&*global.owner, global.epoch), ("token", 0));
        assert_eq!(global.options.timeout_to_fail, Some(Duration::from_secs(60)));
        assert_eq!(global.options.branch_headers.get("k").map(String::as_str), Some("v"));
        assert_eq!((global.created, global.wake_at), (at(1_700_000_000), at(1_700_000_010)));
        assert_eq!(global.finished.is_some(), *status == "succeed");
        assert_eq!(global.rolled_back.is_some(), *status == "failed");
        let rows: Vec<_> = global
            .branches
            .iter()
            .map(|row| (row.branch_id.as_str(), row.op.as_str(), row.status.as_str()))
            .collect();
        assert_eq!(rows, *branches);
        assert!(global.branches.iter().all(|row| &*row.data == b"payload"));
        assert!(global.branches.iter().all(|row| *row.url == format!("http://a/{}", row.op)));
    }
    let orders = Mode::Saga { concurrent: true, orders: vec![vec![], vec![0]].into() };
    assert_eq!(load(store, "saga-submitted").await.unwrap().mode, orders);
    assert_eq!(load(store, "saga-submitted").await.unwrap().steps.len(), 2);
    let delay = Mode::Msg { delay: Duration::from_secs(7) };
    assert_eq!(load(store, "msg-prepared").await.unwrap().mode, delay);
    let workflow = Mode::Workflow { name: "pay".into(), data: (*b"hi!").into() };
    assert_eq!(load(store, "workflow-prepared").await.unwrap().mode, workflow);
    let kv = store.load_kv("topics", "t").await.unwrap().unwrap();
    assert_eq!((kv.version, kv.created), (4, at(1_700_000_000)));
}

#[test]
fn what_a_dtm_server_left_is_taken_over_and_finished() {
    on_both(async |kind| {
        let url = kind.url().await;
        let mut plain = fill(kind, &url).await;
        let planned = migrate::plan(&options(&url)).await.unwrap();
        assert!(planned.iter().all(|one| !one.contains("drop") && !one.contains("create table")));
        let store = open(&url).await;
        every_row_is_understood(&store).await;
        let page = store.list(&ListFilter::default(), "", 100).await.unwrap();
        assert_eq!(page.globals.len(), FIXTURES.len());
        let unfinished = FIXTURES.iter().filter(|f| !["succeed", "failed"].contains(&f.1)).count();
        assert!(store.claim_due(&claim("us", 1_700_000_009)).await.unwrap().is_empty());
        let claimed = store.claim_due(&claim("us", 1_700_000_010)).await.unwrap();
        assert_eq!(claimed.len(), unfinished);
        for global in claimed {
            assert_eq!((&*global.owner, global.epoch), ("us", 1));
            assert_eq!(load(&store, global.gid.as_str()).await.as_ref(), Some(&*global));
            // A step of work, then the end.
            let worked = later(&global, |global| {
                global.branches[0].status = BranchStatus::Succeed;
                global.branches[0].finished = Some(at(1_700_000_020));
            });
            let over = ended(later(&worked, |_| ()), at(1_700_000_030));
            let batch = [change(&global, &worked), change(&worked, &over)];
            assert_eq!(store.commit(&batch).await.unwrap(), [Ok(()), Ok(())]);
            assert_eq!(load(&store, over.gid.as_str()).await, Some(over));
        }
        let left = plain.run("select count(*) from trans_global where status in ('prepared','submitted','aborting')").await;
        assert_eq!(left, ["0"]);
        let purged = store.purge(at(1_700_000_031), 100).await.unwrap();
        assert_eq!((purged.deleted, purged.more), (FIXTURES.len(), false));
        assert_eq!(plain.run("select count(*) from trans_branch_op").await, ["0"]);
    });
}

#[test]
fn a_dtm_server_reads_what_we_write() {
    on_both(async |kind| {
        let url = kind.url().await;
        let mut plain = fill(kind, &url).await;
        let store = open(&url).await;
        let mut first = saga("ours");
        first.created = Timestamp(1_700_000_000_900_000);
        first.wake_at = Timestamp(1_700_000_010_100_000);
        first.owner = "us".into();
        first.options.wait_result = true;
        commit(&store, create(&first)).await.unwrap();
        let (created, wake) =
            ("create_time='2023-11-14 22:13:20'", "next_cron_time='2023-11-14 22:13:31'");
        let row = plain.run(&format!(
            "select trans_type,status,protocol,options,owner,next_cron_interval,{created},{wake} from trans_global where gid='ours'"
        )).await;
        let truth = if kind == Kind::Mariadb { "1" } else { "t" };
        let options = r#"{"wait_result":true,"concurrent":false}"#;
        let shown = row[3].replace('\\', "");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&shown).unwrap(),
            serde_json::from_str::<serde_json::Value>(options).unwrap()
        );
        assert_eq!(
            [&row[0], &row[1], &row[2], &row[4], &row[5], &row[6], &row[7]],
            ["saga", "submitted", "http", "us", "10", truth, truth]
        );
        let over = ended(
            later(&first, |global| {
                global.branches[1].status = BranchStatus::Succeed;
                global.branches[1].finished = Some(at(1_700_000_011));
            }),
            at(1_700_000_012),
        );
        commit(&store, change(&first, &over)).await.unwrap();
        let row = plain.run("select status,finish_time='2023-11-14 22:13:32' from trans_global where gid='ours'").await;
        assert_eq!(row, ["succeed", truth]);
        let row = plain.run("select branch_id,op,status,url,finish_time='2023-11-14 22:13:31',length(bin_data) from trans_branch_op where gid='ours' and op='action'").await;
        assert_eq!(row, ["01", "action", "succeed", "http://localhost:8080/do", truth, "13"]);
    });
}

/// What a DTM server's cron does: it takes what is due (spec 05 §2.4).
const PICK: &str = "update trans_global set update_time='2023-11-14 22:14:00',\
    next_cron_time='2023-11-14 22:14:10',owner='theirs' where gid='g'";

#[test]
fn whoever_believes_what_was_before_a_dtm_server_wrote_is_refused() {
    on_both(async |kind| {
        let url = kind.url().await;
        let mut plain = fill(kind, &url).await;
        let store = open(&url).await;
        let touches = [
            PICK,
            "update trans_global set status='aborting',update_time='2023-11-14 22:14:00' where gid='g'",
            "update trans_global set next_cron_time='2023-11-14 22:15:00',next_cron_interval=20 where gid='g'",
        ];
        let conflict = Err(WriteError::Conflict("g".to_owned()));
        for touch in touches {
            let mut first = saga("g");
            first.epoch = 2;
            commit(&store, create(&first)).await.unwrap();
            plain.run(touch).await;
            let late = later(&first, |global| global.updated = at(200));
            assert_eq!(commit(&store, change(&first, &late)).await, conflict);
            let lease = |global: &dtmd_protocol::Global| {
                Write::Lease(Lease {
                    gid: global.gid.clone(),
                    revision: global.revision,
                    epoch: global.epoch,
                    owner: "us".into(),
                    new_epoch: global.epoch + 1,
                    wake_at: at(1_800_000_000),
                })
            };
            assert_eq!(commit(&store, lease(&first)).await, conflict);
            // What they wrote is seen, what only we know is kept, and we can go on from there.
            let seen = load(&store, "g").await.unwrap();
            assert_eq!((seen.epoch, seen.content), (2, first.content));
            assert_ne!(seen.revision, first.revision);
            commit(&store, lease(&seen)).await.unwrap();
            let taken = load(&store, "g").await.unwrap();
            assert_eq!(
                (taken.revision, taken.status, taken.interval),
                (seen.revision, seen.status, seen.interval)
            );
            let next = later(&taken, |global| global.updated = at(1_700_000_300));
            commit(&store, change(&taken, &next)).await.unwrap();
            assert_eq!(load(&store, "g").await, Some(next));
            store.reset().await.unwrap();
        }
    });
}

#[test]
fn what_a_dtm_server_finished_is_not_claimed_and_its_results_are_seen() {
    on_both(async |kind| {
        let url = kind.url().await;
        let mut plain = fill(kind, &url).await;
        let store = open(&url).await;
        commit(&store, create(&saga("g"))).await.unwrap();
        plain.run(PICK).await;
        plain.run("update trans_branch_op set status='succeed',finish_time='2023-11-14 22:14:01' where gid='g' and op='action'").await;
        let working = load(&store, "g").await.unwrap();
        assert_eq!(
            (working.status, working.branches[1].status),
            (GlobalStatus::Submitted, BranchStatus::Succeed)
        );
        assert_eq!(working.branches[1].finished, Some(at(1_700_000_041)));
        plain.run("update trans_global set status='succeed',finish_time='2023-11-14 22:14:02' where gid='g'").await;
        let over = load(&store, "g").await.unwrap();
        assert_eq!((over.status, over.finished), (GlobalStatus::Succeed, Some(at(1_700_000_042))));
        let claimed = store.claim_due(&claim("us", 1_900_000_000)).await.unwrap();
        assert!(claimed.iter().all(|global| global.gid.as_str() != "g"));
        assert!(store.purge(at(1_700_000_043), 100).await.unwrap().deleted >= 1);
        assert_eq!(load(&store, "g").await, None);
    });
}

/// A registration does not touch the global's row; missing it would lose a cancel.
#[test]
fn nobody_decides_without_the_branches_that_a_dtm_server_registered() {
    on_both(async |kind| {
        let url = kind.url().await;
        let mut plain = fill(kind, &url).await;
        let store = open(&url).await;
        let mut first = saga("t");
        first.mode = Mode::Tcc;
        first.status = GlobalStatus::Prepared;
        first.branches = vec![row("01", Op::Cancel), row("01", Op::Confirm)];
        commit(&store, create(&first)).await.unwrap();
        for op in ["cancel", "confirm"] {
            plain.run(&format!("insert into trans_branch_op (gid,url,bin_data,branch_id,op,status) values ('t','http://b','x','02','{op}','prepared')")).await;
        }
        let submitted = later(&first, |global| global.status = GlobalStatus::Submitted);
        let refused = commit(&store, change(&first, &submitted)).await;
        assert_eq!(refused, Err(WriteError::Conflict("t".to_owned())));
        let seen = load(&store, "t").await.unwrap();
        assert_eq!((seen.branches.len(), &*seen.branches[3].data), (4, &b"x"[..]));
        assert_eq!(seen.trans_type(), TransType::Tcc);
        let submitted = later(&seen, |global| global.status = GlobalStatus::Submitted);
        commit(&store, change(&seen, &submitted)).await.unwrap();
        assert_eq!(load(&store, "t").await, Some(submitted));
    });
}

/// DTM's collation takes `A` for `a`; the answer must come, and at once.
#[test]
fn a_gid_that_the_tables_take_for_another_is_taken() {
    on_both(async |kind| {
        let url = kind.url().await;
        fill(kind, &url).await;
        let store = open(&url).await;
        let batch = [create(&saga("Case")), create(&saga("other"))];
        assert_eq!(store.commit(&batch).await.unwrap(), [Ok(()), Ok(())]);
        let batch = [create(&saga("case")), create(&saga("third"))];
        let results = store.commit(&batch).await.unwrap();
        let taken = if kind == Kind::Mariadb {
            Err(WriteError::AlreadyExists("case".into()))
        } else {
            Ok(())
        };
        assert_eq!(results, [taken, Ok(())]);
        assert_eq!(load(&store, "case").await.is_some(), kind == Kind::Postgres);
    });
}

#[test]
fn a_row_that_cannot_be_understood_hides_no_other() {
    on_both(async |kind| {
        let url = kind.url().await;
        let mut plain = fill(kind, &url).await;
        plain.run("update trans_global set trans_type='nonsense',next_cron_time='2023-11-14 22:13:00' where gid='tcc-prepared'").await;
        let store = open(&url).await;
        let corrupt = store.load(&dtmd_store::conformance::sample::gid("tcc-prepared")).await;
        assert!(matches!(corrupt, Err(dtmd_store::StoreError::Corrupt { .. })), "{corrupt:?}");
        let mut one = claim("us", 1_700_000_010);
        one.limit = 1;
        assert_eq!(store.claim_due(&one).await.unwrap().len(), 1);
        let page = store.list(&ListFilter::default(), "", 100).await.unwrap();
        assert_eq!(page.globals.len(), FIXTURES.len() - 1);
        let left = plain.run("select count(*) from trans_global where gid='tcc-prepared'").await;
        assert_eq!(left, ["1"]);
    });
}

#[test]
fn servers_may_migrate_at_once() {
    on_both(async |kind| {
        // Each round meets the others at other statements.
        for round in 0..4 {
            let old = round % 2 == 0;
            let url = kind.url().await;
            if old {
                fill(kind, &url).await;
            }
            let options = options(&url);
            assert!(!migrate::plan(&options).await.unwrap().is_empty());
            let (one, two, three, four) = tokio::join!(
                migrate::apply(&options),
                migrate::apply(&options),
                migrate::apply(&options),
                migrate::apply(&options),
            );
            for applied in [one, two, three, four] {
                applied.unwrap();
            }
            assert_eq!(migrate::plan(&options).await.unwrap(), [""; 0]);
            assert_eq!(migrate::apply(&options).await.unwrap(), [""; 0]);
        }
    });
}
