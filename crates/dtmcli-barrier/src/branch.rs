//! Which branch of which global transaction a service was called for.

mod parse;
mod words;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

pub use parse::ParseError;
pub use words::{Op, TransType};

use crate::table::TableName;

/// Longest gid, in characters: the width of DTM's columns.
pub const GID_MAX_CHARS: usize = 128;
/// Longest branch id, in characters: the width of DTM's columns.
pub const BRANCH_ID_MAX_CHARS: usize = 128;
/// The branch id of the question whether a message counts, and of its local transaction.
pub const MESSAGE_BRANCH_ID: &str = "00";
/// Most barriers one call of a branch may use: their number has two digits.
pub const BARRIERS_MAX: u32 = 99;

/// One call of a branch: what the transaction manager sent beside the business's own data.
///
/// Everything in it is validated, so it may go into a key of Redis, a log line or a column of
/// DTM's barrier table without being cut or misread.
///
/// # The counter of barriers
///
/// Each barrier used with one `Branch` takes the next barrier id (`01`, `02`, …), so one call may
/// guard several databases. The order must be the same at every call: for barriers that run at the
/// same time number them yourself, see [`Branch::at`]. Clones share the counter.
#[derive(Debug, Clone)]
pub struct Branch {
    trans_type: TransType,
    gid: Arc<str>,
    branch_id: Arc<str>,
    op: Op,
    server: Option<Arc<str>>,
    phase2_url: Option<Arc<str>>,
    table: Option<TableName>,
    used: Arc<AtomicU32>,
}

impl Branch {
    /// A branch from its parts, as in a test or a transport of your own.
    ///
    /// # Errors
    ///
    /// [`ParseError`] if the gid or the branch id is empty, too long or has characters that would
    /// not survive a key or a column.
    pub fn new(
        trans_type: TransType,
        gid: &str,
        branch_id: &str,
        op: Op,
    ) -> Result<Self, ParseError> {
        parse::check_gid(gid)?;
        parse::check_branch_id(branch_id)?;
        Ok(Self {
            trans_type,
            gid: gid.into(),
            branch_id: branch_id.into(),
            op,
            server: None,
            phase2_url: None,
            table: None,
            used: Arc::default(),
        })
    }

    /// The branch that stands for the local transaction of a two-phase message.
    ///
    /// # Errors
    ///
    /// As [`Branch::new`].
    pub fn message(gid: &str) -> Result<Self, ParseError> {
        Self::new(TransType::Msg, gid, MESSAGE_BRANCH_ID, Op::Msg)
    }

    /// Reads the query string of an HTTP branch call (without the `?`): `gid`, `trans_type`,
    /// `branch_id`, `op`, and `dtm` and `phase2_url` where there are.
    ///
    /// ```
    /// use dtmcli_barrier::{Branch, Op};
    ///
    /// let branch = Branch::from_query("gid=g1&trans_type=saga&branch_id=01&op=action&user=7")?;
    /// assert_eq!((branch.gid(), branch.op()), ("g1", &Op::Action));
    /// # Ok::<(), dtmcli_barrier::ParseError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ParseError`] names what is missing or wrong. Answer with an error, not with `FAILURE`:
    /// a call that cannot be read says nothing about the business.
    pub fn from_query(query: &str) -> Result<Self, ParseError> {
        parse::Parts::from_query(query)?.into_branch()
    }

    /// Reads the metadata of a gRPC branch call: `dtm-gid`, `dtm-trans_type`, `dtm-branch_id`,
    /// `dtm-op`, and `dtm-dtm` and `dtm-phase2_url` where there are. Other pairs are ignored, and
    /// names may be in any letter case, so all headers of a request may be passed.
    ///
    /// # Errors
    ///
    /// As [`Branch::from_query`].
    pub fn from_metadata<K, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Result<Self, ParseError>
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        parse::Parts::from_metadata(pairs).into_branch()
    }

    /// The mode of the global transaction.
    pub fn trans_type(&self) -> TransType {
        self.trans_type
    }

    /// The global transaction.
    pub fn gid(&self) -> &str {
        &self.gid
    }

    /// The branch within the global transaction.
    pub fn branch_id(&self) -> &str {
        &self.branch_id
    }

    /// What is asked of the branch.
    pub fn op(&self) -> &Op {
        &self.op
    }

    /// Where the transaction manager can be called, if the caller said so (`dtm`).
    pub fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }

    /// The URL the transaction manager is to call in phase two of XA, if the caller said so.
    pub fn phase2_url(&self) -> Option<&str> {
        self.phase2_url.as_deref()
    }

    /// The barrier table set with [`Branch::with_table`].
    pub fn table(&self) -> Option<&TableName> {
        self.table.as_ref()
    }

    /// Uses another barrier table than the default of the database.
    #[must_use]
    pub fn with_table(mut self, table: TableName) -> Self {
        self.table = Some(table);
        self
    }

    /// The same branch with another op, and a counter of its own.
    #[must_use]
    pub fn with_op(&self, op: Op) -> Self {
        Self { op, used: Arc::default(), ..self.clone() }
    }

    /// The same branch with a counter of its own, whose next barrier has this number (1 to 99).
    ///
    /// For barriers that run at the same time, where taking numbers in turn would give them in
    /// another order at the next call.
    #[must_use]
    pub fn at(&self, number: u32) -> Self {
        let before = number.clamp(1, BARRIERS_MAX + 1) - 1;
        Self { used: Arc::new(AtomicU32::new(before)), ..self.clone() }
    }

    /// Takes the next barrier id.
    pub(crate) fn next_barrier_id(&self) -> Result<BarrierId, TooManyBarriers> {
        let before = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                (used < BARRIERS_MAX).then_some(used + 1)
            })
            .map_err(|_| TooManyBarriers)?;
        Ok(BarrierId::new(before + 1))
    }
}

/// The number of a barrier within one call of a branch, as two digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BarrierId([u8; 2]);

impl BarrierId {
    pub(crate) const FIRST: Self = Self(*b"01");

    fn new(number: u32) -> Self {
        let digit = |n: u32| b'0' + u8::try_from(n % 10).unwrap_or(0);
        Self([digit(number / 10), digit(number)])
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("00")
    }
}

/// One call of a branch used more than [`BARRIERS_MAX`] barriers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("one call of a branch may use at most {BARRIERS_MAX} barriers")]
pub struct TooManyBarriers;

#[cfg(test)]
mod tests;
