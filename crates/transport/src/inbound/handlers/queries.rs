//! What people and tools look at: transactions, lists, keys.

use std::str::FromStr;

use dtmd_engine::{Kv, ListFilter};
use dtmd_protocol::{Gid, GlobalStatus, Timestamp, TransType};
use dtmd_wire::RequestError;
use dtmd_wire::response::{self, KvRecord};

use super::super::api::{Api, Asked};
use super::super::reply::{Problem, Reply};

/// Entries of a page if the caller does not say.
const LIMIT: usize = 100;
/// Entries of a page at most; the caller goes on with the position.
const LIMIT_MAX: usize = 1000;

pub(in super::super) async fn query(api: &Api, asked: &Asked<'_>) -> Result<Reply, Problem> {
    let gid = asked.query.get("gid");
    if gid.is_empty() {
        return Err(Problem::Parameter(500, "no gid specified".to_owned()));
    }
    // What cannot be a gid is one that nobody has.
    let global = match Gid::new(&gid) {
        Ok(gid) => api.engine.query(&gid).await?,
        Err(_) => None,
    };
    Ok(Reply::json(response::query(global.as_deref(), api.options.zone)))
}

pub(in super::super) async fn all(api: &Api, asked: &Asked<'_>) -> Result<Reply, Problem> {
    let zone = api.options.zone;
    let gid = asked.query.get("gid");
    if !gid.is_empty() {
        let global = match Gid::new(&gid) {
            Ok(gid) => api.engine.query(&gid).await?,
            Err(_) => None,
        };
        let globals = global.as_deref().map(|global| [global]);
        return Ok(Reply::json(response::list(globals, "", zone)));
    }
    let filter = ListFilter {
        status: word(asked, "status", GlobalStatus::parse)?,
        trans_type: word(asked, "transType", TransType::parse)?,
        created_from: millis(asked, "createTimeStart")?,
        created_to: millis(asked, "createTimeEnd")?,
        wakes_after: None,
    };
    let page = api.engine.list(&filter, &asked.query.get("position"), limit(asked)?).await?;
    let globals = page.globals.iter().map(AsRef::as_ref);
    Ok(Reply::json(response::list(Some(globals), &page.next_position, zone)))
}

pub(in super::super) async fn scan_kv(api: &Api, asked: &Asked<'_>) -> Result<Reply, Problem> {
    let (cat, position) = (asked.query.get("cat"), asked.query.get("position"));
    let page = api.engine.list_kv(&cat, &position, limit(asked)?).await?;
    let records: Vec<_> = page.entries.iter().map(record).collect();
    Ok(Reply::json(response::kv_list(&records, Some(&page.next_position), api.options.zone)))
}

pub(in super::super) async fn query_kv(api: &Api, asked: &Asked<'_>) -> Result<Reply, Problem> {
    let (cat, key) = (asked.query.get("cat"), asked.query.get("key"));
    let kv = api.engine.load_kv(&cat, &key).await?;
    let records: Vec<_> = kv.iter().map(record).collect();
    Ok(Reply::json(response::kv_list(&records, None, api.options.zone)))
}

fn record(kv: &Kv) -> KvRecord<'_> {
    KvRecord {
        cat: &kv.cat,
        key: &kv.key,
        value: &kv.value,
        version: kv.version,
        created: kv.created,
        updated: kv.updated,
    }
}

/// Returns `limit`, or its default; more than the most there is is the most.
pub(super) fn limit(asked: &Asked<'_>) -> Result<usize, Problem> {
    match integer::<i64>(asked, "limit")? {
        None => Ok(LIMIT),
        Some(limit) => match usize::try_from(limit) {
            Ok(limit) if limit > 0 => Ok(limit.min(LIMIT_MAX)),
            _ => Err(Problem::Parameter(400, format!("limit: {limit} is not 1 to {LIMIT_MAX}"))),
        },
    }
}

/// Returns a parameter that is a whole number; `None` if it is missing or empty.
pub(super) fn integer<T: FromStr>(asked: &Asked<'_>, name: &str) -> Result<Option<T>, Problem> {
    let text = asked.query.get(name);
    if text.is_empty() {
        return Ok(None);
    }
    let number = text.parse();
    number.map(Some).map_err(|_| Problem::Parameter(500, format!("convert to int error: {text}")))
}

fn millis(asked: &Asked<'_>, name: &str) -> Result<Option<Timestamp>, Problem> {
    let millis = integer::<i64>(asked, name)?;
    Ok(millis.map(|millis| Timestamp(millis.saturating_mul(1000))))
}

fn word<T>(
    asked: &Asked<'_>,
    name: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Problem> {
    let text = asked.query.get(name);
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = parse(&text);
    let unknown = || RequestError::Invalid(format!("{name}: '{text}' is not known"));
    Ok(Some(parsed.ok_or_else(unknown)?))
}
