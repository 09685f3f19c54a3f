//! Pages of globals, newest first.
//!
//! Every filter is served from one index or another, without reading rows that are not asked for:
//!
//! | filter | order | index |
//! |---|---|---|
//! | none | id | the primary key |
//! | status, type, times of creation, in any combination | creation, id | `dtmd_list`: one part for each status and type that is admitted |
//! | wake-ups | wake-up, id | DTM's `status_next_cron_time`: one part for each status |
//!
//! The parts give ids only, as many as the page has; the rows of the first of them are read then.

use std::cmp::Reverse;
use std::collections::HashMap;

use dtmd_protocol::{GlobalStatus, Timestamp, TransType};
use dtmd_store::{ListFilter, ListPage, StoreError};

use crate::error::DbError;
use crate::inner::Inner;
use crate::rows::select_globals;

/// Rows that one select of a list returns, at most.
const PAGE_MAX: usize = 500;
const DOING: &str = "listing globals";

/// By what a list is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Id,
    Created,
    Wakes,
}

impl Order {
    fn of(filter: &ListFilter) -> Self {
        if filter.wakes_after.is_some() {
            Self::Wakes
        } else if *filter == ListFilter::default() {
            Self::Id
        } else {
            Self::Created
        }
    }

    fn column(self) -> &'static str {
        match self {
            Self::Id => "g.id",
            Self::Created => "g.create_time",
            Self::Wakes => "g.next_cron_time",
        }
    }
}

/// The place of a row in its order: seconds since the epoch (0 where ids order), and id.
type Place = (i64, i64);

/// Returns the place in a position; none if it is not one of this order.
fn parse_place(order: Order, text: &str) -> Option<Place> {
    // What we write, and nothing else: no signs.
    let number = |digits: &str| {
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|_| plain)
    };
    match order {
        Order::Id => Some((0, number(text)?)),
        Order::Created | Order::Wakes => {
            let (seconds, id) = text.split_once('.')?;
            Some((number(seconds)?, number(id)?))
        }
    }
}

fn position_of(order: Order, (seconds, id): Place) -> String {
    match order {
        Order::Id => id.to_string(),
        Order::Created | Order::Wakes => format!("{seconds}.{id}"),
    }
}

impl Inner {
    /// Returns a page of globals, newest first.
    pub(crate) async fn list(
        &self,
        filter: &ListFilter,
        position: &str,
        limit: usize,
    ) -> Result<ListPage, StoreError> {
        let order = Order::of(filter);
        let mut before = match (position, parse_place(order, position)) {
            ("", _) => None,
            (_, Some(place)) => Some(place),
            (_, None) => return Ok(ListPage::default()),
        };
        let mut page = ListPage::default();
        if limit == 0 {
            return Ok(page);
        }
        let mut last = (0, 0);
        loop {
            let wanted = (limit - page.globals.len()).saturating_add(1).min(PAGE_MAX);
            let places = self.places(filter, order, before, wanted).await?;
            let mut globals = self.globals_of(&places).await?;
            for place in &places {
                // Times are compared exactly here, and to the second by the database.
                let global = globals.remove(&place.1).filter(|global| filter.admits(global));
                let Some(global) = global else { continue };
                if page.globals.len() == limit {
                    page.next_position = position_of(order, last);
                    return Ok(page);
                }
                last = *place;
                page.globals.push(global);
            }
            match places.last() {
                Some(place) if places.len() == wanted => before = Some(*place),
                _ => return Ok(page),
            }
        }
    }

    /// Returns where the next rows stand, first ones first.
    async fn places(
        &self,
        filter: &ListFilter,
        order: Order,
        before: Option<Place>,
        wanted: usize,
    ) -> Result<Vec<Place>, StoreError> {
        let select = self.list_select(filter, order, before, wanted);
        let found = self.pool.read_slowly(&select).await;
        let found = found.map_err(|error: DbError| error.into_store(DOING))?;
        let place = |row: &crate::conn::Row| {
            let seconds = match order {
                Order::Id => 0,
                Order::Created | Order::Wakes => self.dialect.seconds_of(row.number(1)?),
            };
            Some((seconds, row.number(0)?))
        };
        let mut places: Vec<Place> = found.iter().flatten().filter_map(place).collect();
        places.sort_unstable_by_key(|place| Reverse(*place));
        places.truncate(wanted);
        Ok(places)
    }

    /// Reads whole globals by id.
    async fn globals_of(
        &self,
        places: &[Place],
    ) -> Result<HashMap<i64, std::sync::Arc<dtmd_protocol::Global>>, StoreError> {
        if places.is_empty() {
            return Ok(HashMap::new());
        }
        let unavailable = |error: DbError| error.into_store(DOING);
        let ids: Vec<String> = places.iter().map(|(_, id)| id.to_string()).collect();
        let (columns, table) = (select_globals(&self.dialect), &self.dialect.globals);
        let select = format!("select {columns} from {table} g where g.id in ({})", ids.join(","));
        let mut results = self.pool.read(&select).await.map_err(unavailable)?;
        let marks: Vec<(i64, String)> = results
            .iter()
            .flatten()
            .map(|row| (row.number(0).unwrap_or(0), row.text(1).into_owned()))
            .collect();
        let gids: Vec<&str> = marks.iter().map(|(_, gid)| gid.as_str()).collect();
        if !gids.is_empty() {
            let branches = self.pool.read(&self.select_branches(&gids)).await;
            results.extend(branches.map_err(unavailable)?);
        }
        let mut globals = self.settle(self.globals(results)).await?;
        let by_id = |(id, gid): (i64, String)| Some((id, globals.remove(&gid)?));
        Ok(marks.into_iter().filter_map(by_id).collect())
    }

    /// Returns the select of ids and what orders them: a part for each range of an index.
    fn list_select(
        &self,
        filter: &ListFilter,
        order: Order,
        before: Option<Place>,
        wanted: usize,
    ) -> String {
        let (dialect, column) = (&self.dialect, order.column());
        let times = self.time_conditions(filter, order, before);
        let part = |status: Option<GlobalStatus>, trans_type: Option<TransType>| {
            let mut out = match order {
                Order::Id => format!("(select g.id from {} g where ", dialect.globals),
                Order::Created | Order::Wakes => {
                    let seconds = dialect.seconds(column);
                    format!("(select g.id,{seconds} from {} g where ", dialect.globals)
                }
            };
            if let Some(status) = status {
                out.push_str("g.status=");
                dialect.text(&mut out, status.as_str());
                out.push_str(" and ");
            }
            if let Some(trans_type) = trans_type {
                out.push_str("g.trans_type=");
                dialect.text(&mut out, trans_type.as_str());
                out.push_str(" and ");
            }
            out.push_str(&times);
            let then_id = if order == Order::Id { "" } else { ",g.id desc" };
            out.push_str(&format!(" order by {column} desc{then_id} limit {wanted})"));
            out
        };
        let statuses = GlobalStatus::ALL.iter().copied().filter(|status| {
            filter.status.is_none_or(|wanted| wanted == *status)
                && (order == Order::Created || !status.is_final())
        });
        let types = |wanted: Option<TransType>| {
            TransType::ALL.iter().copied().filter(move |one| wanted.is_none_or(|all| all == *one))
        };
        let parts: Vec<String> = match order {
            Order::Id => vec![part(None, None)],
            Order::Created => statuses
                .flat_map(|status| types(filter.trans_type).map(move |one| (status, one)))
                .map(|(status, one)| part(Some(status), Some(one)))
                .collect(),
            Order::Wakes => statuses.map(|status| part(Some(status), filter.trans_type)).collect(),
        };
        if parts.is_empty() {
            // Nothing is both finished and waiting.
            return format!("select g.id from {} g where g.id=-1", dialect.globals);
        }
        parts.join(" union all ")
    }

    /// Returns the conditions on times that the database can check: none admits less.
    fn time_conditions(&self, filter: &ListFilter, order: Order, before: Option<Place>) -> String {
        let (dialect, column) = (&self.dialect, order.column());
        if order == Order::Id {
            return format!("g.id<{}", before.map_or(i64::MAX, |(_, id)| id));
        }
        // Rows without a time are of nobody that we know; descending, they would come first.
        let mut out = format!("{column} is not null");
        let bound = |out: &mut String, condition: &str, seconds: i64| {
            out.push_str(condition);
            dialect.time(out, Some(seconds));
        };
        if let Some(from) = filter.created_from {
            bound(&mut out, " and g.create_time>=", from.seconds());
        }
        if let Some(to) = filter.created_to {
            bound(&mut out, " and g.create_time<=", to.seconds());
        }
        if let Some(after) = filter.wakes_after {
            bound(&mut out, " and g.next_cron_time>=", self.database_seconds(after));
        }
        if let Some((seconds, id)) = before {
            bound(&mut out, &format!(" and {column}<="), seconds);
            bound(&mut out, &format!(" and not (g.id>={id} and {column}="), seconds);
            out.push(')');
        }
        out
    }

    fn database_seconds(&self, ours: Timestamp) -> i64 {
        self.pool.clock.to_database(ours).div_euclid(1_000_000)
    }
}

#[cfg(test)]
mod tests;
