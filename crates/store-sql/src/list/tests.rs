//! What the databases make of each filter: an index, and no sorting of many rows.

use dtmd_local_servers::shared::{mariadb_database, postgres_database};
use dtmd_protocol::{GlobalStatus, Timestamp, TransType};

use super::*;
use crate::migrate;
use crate::options::{Driver, SqlOptions};

/// Enough that a planner does not prefer to read the whole table.
const ROWS: usize = 20_000;
/// So many rows may be sorted: a planner does that where it expects next to none.
const SORTED_MAX: usize = 1_000;

/// Every combination that the listing of the API allows, and the one of `resetCronTime`.
fn filters() -> Vec<ListFilter> {
    let mut filters = Vec::new();
    for bits in 0..16 {
        let has = |bit: u8| bits & 1 << bit != 0;
        let at = |seconds: i64| Timestamp(seconds * 1_000_000);
        filters.push(ListFilter {
            status: has(0).then_some(GlobalStatus::Failed),
            trans_type: has(1).then_some(TransType::Msg),
            created_from: has(2).then(|| at(1_700_002_000)),
            created_to: has(3).then(|| at(1_700_012_000)),
            wakes_after: None,
        });
    }
    let wakes_after = Some(Timestamp(1_700_002_000_000_000));
    filters.push(ListFilter { wakes_after, ..ListFilter::default() });
    filters
}

/// Fills the table as if one transaction had come in each second, one in fifty of them failed.
async fn filled(url: &str) -> Inner {
    let options = SqlOptions::from_url(url).unwrap();
    migrate::apply(&options).await.unwrap();
    let inner = Inner::new(options);
    let (numbers, time, analyze) = match inner.options.driver {
        Driver::Mysql => (
            format!("select seq n from seq_1_to_{ROWS}"),
            "from_unixtime(1700000000+n)",
            "analyze table trans_global",
        ),
        Driver::Postgres => (
            format!("select n from generate_series(1,{ROWS}) n"),
            "to_timestamp(1700000000+n)",
            "vacuum analyze trans_global",
        ),
    };
    let insert = format!(
        "insert into trans_global (gid,trans_type,status,query_prepared,protocol,create_time,\
         next_cron_time,dtmd_revision) select concat('g',n),\
         case when n%2=0 then 'saga' when n%3=0 then 'tcc' else 'msg' end,\
         case when n%50=0 then 'failed' when n%50=1 then 'submitted' else 'succeed' end,\
         '','http',{time},{time},1 from ({numbers}) s"
    );
    inner.pool.read_slowly(&insert).await.unwrap();
    inner.pool.read_slowly(analyze).await.unwrap();
    inner
}

/// Returns what is wrong with a plan of MariaDB.
fn fault_of_mariadb(rows: &[crate::conn::Row]) -> Option<String> {
    rows.iter().find_map(|row| {
        let (table, access, key, extra) = (row.text(2), row.text(3), row.text(5), row.text(9));
        let is_result = table.starts_with('<') || table.is_empty();
        let is_scan = access == "ALL" || key.is_empty();
        let rows = row.number(8).and_then(|rows| usize::try_from(rows).ok()).unwrap_or(0);
        let sorts = rows > SORTED_MAX && extra.contains("filesort");
        let is_bad = !is_result && (is_scan || sorts);
        is_bad.then(|| format!("{table}: {access} by {key}; {extra}"))
    })
}

/// Returns what is wrong with a plan of PostgreSQL.
fn fault_of_postgres(rows: &[crate::conn::Row]) -> Option<String> {
    let lines: Vec<String> = rows.iter().map(|row| row.text(0).into_owned()).collect();
    let many = |line: &str| {
        let rows = line.split_once("rows=").and_then(|(_, rest)| rest.split(' ').next());
        rows.and_then(|rows| rows.parse::<usize>().ok()).is_none_or(|rows| rows > SORTED_MAX)
    };
    // An incremental sort orders those of one second, which the index does not.
    let sorts = |line: &str| line.contains("Sort  (") && !line.contains("Incremental");
    let is_bad = |line: &String| {
        line.contains("Seq Scan") || (many(line) && (sorts(line) || line.contains("Bitmap")))
    };
    lines.iter().any(is_bad).then(|| lines.join("\n"))
}

async fn check(url: &str) {
    let inner = filled(url).await;
    for filter in filters() {
        let order = Order::of(&filter);
        for before in [None, Some((1_700_010_000, 10_000))] {
            let select = inner.list_select(&filter, order, before, 101);
            let plan = inner.pool.read(&format!("explain {select}")).await.unwrap();
            let rows: Vec<_> = plan.into_iter().flatten().collect();
            assert!(!rows.is_empty());
            let fault = match inner.options.driver {
                Driver::Mysql => fault_of_mariadb(&rows),
                Driver::Postgres => fault_of_postgres(&rows),
            };
            assert_eq!(fault, None, "{filter:?} before {before:?}: {select}");
        }
    }
}

#[tokio::test]
async fn mariadb_uses_an_index_for_every_filter() {
    check(&mariadb_database().await.unwrap()).await;
}

#[tokio::test]
async fn postgres_uses_an_index_for_every_filter() {
    check(&postgres_database().await.unwrap()).await;
}

#[test]
fn a_position_of_another_order_is_none() {
    assert_eq!(parse_place(Order::Id, "17"), Some((0, 17)));
    assert_eq!(parse_place(Order::Created, "9.17"), Some((9, 17)));
    for (order, text) in [(Order::Created, "17"), (Order::Id, "9.17"), (Order::Wakes, "9.-1")] {
        assert_eq!(parse_place(order, text), None, "{text}");
    }
}
