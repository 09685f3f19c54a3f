//! What the parts of the store share, and reading whole globals.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dtmd_protocol::{Gid, Global};
use dtmd_store::StoreError;

use crate::commit::KEYS_MAX;
use crate::conn::{Conn, Results};
use crate::counts::Counts;
use crate::error::DbError;
use crate::options::SqlOptions;
use crate::pool::Pool;
use crate::rows::{Reader, Stored, branches_by_gid, select_branches, select_globals};
use crate::text::Dialect;

/// How often a global is read again that changed while it was read.
const REREAD_MAX: usize = 5;

pub(crate) struct Inner {
    pub(crate) options: SqlOptions,
    pub(crate) dialect: Dialect,
    pub(crate) pool: Pool,
    pub(crate) counts: Counts,
    nonces: AtomicU64,
}

impl Inner {
    pub(crate) fn new(options: SqlOptions) -> Self {
        let (high, _) = uuid::Uuid::new_v4().as_u64_pair();
        Self {
            dialect: Dialect::new(&options),
            pool: Pool::new(options.clone()),
            counts: Counts::default(),
            nonces: AtomicU64::new(high),
            options,
        }
    }

    /// Returns a number that no batch of any server has had: random at first, then mixed from a
    /// count.
    pub(crate) fn nonce(&self) -> i64 {
        let count = self.nonces.fetch_add(1, Ordering::Relaxed);
        xxhash_rust::xxh3::xxh3_64(&count.to_le_bytes()).cast_signed()
    }

    /// Returns the two selects of whole globals: the rows that `condition` admits, and the
    /// branches of `gids`.
    fn selects(&self, gids: &[&str]) -> String {
        let dialect = &self.dialect;
        let mut out = format!(
            "select {} from {} g where g.gid in ",
            select_globals(dialect),
            dialect.globals
        );
        dialect.texts(&mut out, gids.iter().copied());
        out.push(';');
        out.push_str(&self.select_branches(gids));
        out
    }

    pub(crate) fn select_branches(&self, gids: &[&str]) -> String {
        let dialect = &self.dialect;
        let mut out = format!(
            "select {} from {} b where b.gid in ",
            select_branches(dialect),
            dialect.branches
        );
        dialect.texts(&mut out, gids.iter().copied());
        out.push_str(" order by b.id");
        out
    }

    /// Makes globals of the two selects' rows; a row that cannot be understood is an error by
    /// itself.
    pub(crate) fn globals(&self, mut results: Results) -> Vec<Result<Stored, StoreError>> {
        let branches = if results.len() > 1 { results.pop() } else { None };
        let mut branches = branches_by_gid(&branches.unwrap_or_default());
        let reader = Reader { dialect: &self.dialect, clock: &self.pool.clock };
        let rows = results.into_iter().next().unwrap_or_default();
        let global = |row: &crate::conn::Row| {
            let text = row.text(1);
            let gid = Gid::new(&*text).map_err(|error| no_gid(&text, error))?;
            reader.global(&gid, row, branches.remove(&*text).unwrap_or_default())
        };
        rows.iter().map(global).collect()
    }

    /// Reads whole globals over a connection, within whatever transaction is open on it.
    pub(crate) async fn load_with(
        &self,
        conn: &mut Conn,
        gids: &[&str],
    ) -> Result<Vec<Result<Stored, StoreError>>, DbError> {
        let mut all = Vec::with_capacity(gids.len());
        for gids in gids.chunks(KEYS_MAX) {
            let results = conn.run(&self.selects(gids)).await?;
            all.extend(self.globals(results));
        }
        Ok(all)
    }

    /// Reads one global.
    pub(crate) async fn load(&self, gid: &Gid) -> Result<Option<Arc<Global>>, StoreError> {
        let unavailable = |error: DbError| error.into_store("loading a global");
        let mut seen: Option<Stored> = None;
        for _ in 0..REREAD_MAX {
            let results = self.pool.read(&self.selects(&[gid.as_str()])).await;
            let found = self.globals(results.map_err(unavailable)?);
            // The database may take other letters for the same (case, accents, blanks at the end).
            let exact = found.into_iter().find(|found| match found {
                Ok(stored) => stored.mark.gid == gid.as_str(),
                Err(_) => true,
            });
            let Some(stored) = exact.transpose()? else { return Ok(None) };
            // The head was read before the branches. If they disagree and the head is still the
            // same, then a DTM server changed a branch; otherwise they are read again.
            if !stored.is_mixed {
                return Ok(Some(Arc::new(stored.global)));
            }
            match seen {
                // Its branches were read between two looks at one and the same head.
                Some(seen) if seen.mark == stored.mark => return Ok(Some(Arc::new(seen.global))),
                _ => seen = Some(stored),
            }
        }
        Ok(seen.map(|stored| Arc::new(stored.global)))
    }

    /// Reads again those of many globals whose head and branches disagree.
    pub(crate) async fn settle(
        &self,
        found: Vec<Result<Stored, StoreError>>,
    ) -> Result<HashMap<String, Arc<Global>>, StoreError> {
        let mut globals = HashMap::with_capacity(found.len());
        for stored in found {
            match stored {
                Ok(stored) if stored.is_mixed => {
                    let gid = stored.global.gid.clone();
                    if let Some(global) = self.load(&gid).await? {
                        globals.insert(gid.to_string(), global);
                    }
                }
                Ok(stored) => {
                    globals.insert(stored.mark.gid, Arc::new(stored.global));
                }
                // One unreadable row must not hide the others.
                Err(error) => {
                    tracing::error!(error = %chain(&error), "a stored global is left out")
                }
            }
        }
        Ok(globals)
    }
}

fn no_gid(text: &str, error: dtmd_protocol::ids::BadId) -> StoreError {
    // A gid that is no gid can only be named by what can be shown of it.
    let shown: String = text.chars().filter(|c| !c.is_control()).take(32).collect();
    match Gid::new(format!("?{shown}")) {
        Ok(gid) => StoreError::Corrupt { gid, source: Box::new(error) },
        Err(error) => StoreError::Unavailable { doing: "reading a gid", source: Box::new(error) },
    }
}

/// Returns an error with its sources.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
