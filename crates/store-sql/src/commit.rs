//! The write path: a batch is one transaction of the database.
//!
//! 1. Where anything but new globals is written, the rows are locked in the order of their gids,
//!    and read as far as the conditions need (one exchange).
//! 2. Every write is decided on what is stored, in memory, several of one global folded into one.
//! 3. What holds is written and committed (one exchange, more for large batches; on a node of a
//!    cluster one for each statement).
//!
//! Whether a transaction whose connection was lost has been committed is not guessed: every batch
//! has a nonce, which it leaves in every row that it writes. The batch is tried again under the
//! same nonce; a row that already holds it was written by the first attempt. If a row holds neither
//! the nonce nor what the writer believed, somebody else wrote meanwhile, and whether that was
//! before or after ours cannot be told: then the outcome stays unknown, and the caller is told so.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dtmd_store::{StoreError, Write, WriteError};

use crate::conn::Conn;
use crate::error::{DbError, Kind};
use crate::fold::{
    Answer, Batch, Change, KvMark, believed_branches, creates, fold, fold_kv, leased,
};
use crate::inner::Inner;
use crate::mark::{self, Mark};
use crate::write::Writer;

const DOING: &str = "committing a batch";
/// The wait between two attempts grows from this …
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// … to this.
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// Gids in one list of a statement, at most.
pub(crate) const KEYS_MAX: usize = 500;
/// So many refused ones in a row, and none that was taken: the fault is not in the data.
const GENERAL_FAULT: usize = 8;
/// So often a key is taken that nobody seems to hold before the writes are tried singly.
const DUPLICATES_MAX: u32 = 3;

/// The results of a batch, or the error of the call.
type Outcome = Result<Vec<Result<(), WriteError>>, StoreError>;
/// A global's gid, or a key's category and name.
type Slot<'a> = (&'a str, Option<&'a str>);
type Answers<'a> = HashMap<Slot<'a>, Vec<Answer>>;

/// What the database holds of a batch's globals and keys, under locks.
#[derive(Default)]
struct Held {
    globals: HashMap<String, Mark>,
    branches: HashMap<String, usize>,
    keys: HashMap<(String, String), KvMark>,
}

impl Held {
    fn write_of(&self, (name, key): Slot<'_>) -> Option<i64> {
        match key {
            None => self.globals.get(name)?.write,
            Some(key) => self.keys.get(&(name.to_owned(), key.to_owned()))?.write,
        }
    }
}

/// A batch from its first attempt to its end.
struct Attempts<'a> {
    inner: &'a Inner,
    batch: Batch<'a>,
    count: usize,
    /// Names the batch in every row that it writes.
    nonce: i64,
    /// What earlier attempts may have committed.
    doubtful: Answers<'a>,
    /// Read before writing, new globals too.
    look_first: bool,
}

/// How an attempt ended.
enum Attempt {
    Done(Vec<Result<(), WriteError>>),
    /// What is stored is neither ours nor what was there before.
    Unknown,
}

/// Makes a batch durable.
pub(crate) async fn commit(inner: &Inner, writes: &[Write]) -> Outcome {
    match commit_together(inner, writes).await {
        Err((error, Isolate::Try)) => {
            tracing::warn!(error = %error.source, "a batch is refused; its writes are tried singly");
            commit_singly(inner, writes, error).await
        }
        Err((error, _)) => Err(error.into_store(DOING)),
        Ok(results) => Ok(results),
    }
}

/// Whether it makes sense to find out which write of a batch is at fault.
enum Isolate {
    Try,
    No,
}

async fn commit_together(
    inner: &Inner,
    writes: &[Write],
) -> Result<Vec<Result<(), WriteError>>, (DbError, Isolate)> {
    if writes.is_empty() {
        return Ok(Vec::new());
    }
    let mut attempts = Attempts {
        inner,
        batch: Batch::of(writes),
        count: writes.len(),
        nonce: inner.nonce(),
        doubtful: HashMap::new(),
        look_first: false,
    };
    let begun = Instant::now();
    let mut duplicates = 0;
    let mut pause = PAUSE_MIN;
    loop {
        let error = match attempts.run().await {
            Ok(Attempt::Done(results)) => return Ok(results),
            Ok(Attempt::Unknown) => {
                let text = "somebody else wrote before the outcome was known; reload";
                return Err((DbError::lost(text), Isolate::No));
            }
            Err(error) => error,
        };
        let is_passing = match error.kind {
            Kind::Race | Kind::Duplicate | Kind::Lost | Kind::ReadOnly => true,
            Kind::Full | Kind::Schema | Kind::Other => false,
        };
        let in_doubt = !attempts.doubtful.is_empty();
        duplicates += u32::from(error.kind == Kind::Duplicate);
        let is_taken = duplicates > DUPLICATES_MAX && !in_doubt;
        if begun.elapsed() > inner.options.retry_for || is_taken || !(is_passing || in_doubt) {
            let isolate = match error.kind {
                Kind::Other | Kind::Duplicate if !in_doubt => Isolate::Try,
                _ => Isolate::No,
            };
            // "Full" promises that nothing was written, which must be known.
            let kind = if in_doubt { Kind::Lost } else { error.kind };
            return Err((DbError { kind, ..error }, isolate));
        }
        tracing::debug!(error = %error.source, "a batch is tried again");
        if matches!(error.kind, Kind::Lost | Kind::ReadOnly) {
            inner.pool.forget_idle();
        }
        attempts.look_first = true;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Commits the writes of each global by themselves: one that the database cannot take (a column
/// that is too narrow, say) must not keep its neighbours out.
async fn commit_singly(inner: &Inner, writes: &[Write], error: DbError) -> Outcome {
    let batch = Batch::of(writes);
    let slots = batch.globals.into_values().chain(batch.keys.into_values());
    let mut results: Vec<Result<(), WriteError>> = vec![Ok(()); writes.len()];
    let (mut good, mut bad) = (0, 0);
    for slot in slots {
        let own: Vec<Write> = slot.iter().map(|(_, write)| (*write).clone()).collect();
        match commit_together(inner, &own).await {
            Ok(answers) => {
                good += 1;
                for ((index, _), answer) in slot.iter().zip(answers) {
                    results[*index] = answer;
                }
            }
            // The column takes other letters for the same (case, blanks at the end), so that the
            // row in the way was not found by its exact name.
            Err((fault, Isolate::Try)) if fault.kind == Kind::Duplicate => {
                good += 1;
                for (index, write) in &slot {
                    results[*index] = Err(WriteError::AlreadyExists(name(write)));
                }
            }
            Err((fault, Isolate::Try)) => {
                bad += 1;
                for (index, write) in &slot {
                    let text = format!("{} (refused: {})", name(write), fault.source);
                    results[*index] = Err(WriteError::Conflict(text));
                }
            }
            Err((fault, Isolate::No)) => return Err(fault.into_store(DOING)),
        }
        if good == 0 && bad >= GENERAL_FAULT {
            return Err(error.into_store(DOING));
        }
    }
    if good == 0 { Err(error.into_store(DOING)) } else { Ok(results) }
}

fn name(write: &Write) -> String {
    match write {
        Write::Create(global) => global.gid.to_string(),
        Write::Update { before, .. } => before.gid.to_string(),
        Write::Lease(lease) => lease.gid.to_string(),
        Write::Kv { cat, key, .. } => format!("{cat}/{key}"),
    }
}

impl<'a> Attempts<'a> {
    async fn run(&mut self) -> Result<Attempt, DbError> {
        let mut lent = self.inner.pool.writer().await?;
        match self.attempt(&mut lent.conn).await {
            Ok(done) => {
                self.inner.pool.give_back(lent);
                Ok(done)
            }
            Err(error) => {
                if lent.conn.recover(error.kind).await {
                    self.inner.pool.give_back(lent);
                }
                Err(error)
            }
        }
    }

    async fn attempt(&mut self, conn: &mut Conn) -> Result<Attempt, DbError> {
        let (begun, held) = match self.looking() {
            Some(statements) => (true, self.look(conn, &statements).await?),
            None => (false, Held::default()),
        };
        let mut results: Vec<Result<(), WriteError>> = vec![Ok(()); self.count];
        let place = |results: &mut Vec<Result<(), WriteError>>, answers: Vec<Answer>| {
            for (index, answer) in answers {
                results[index] = answer;
            }
        };
        let nonce = Some(self.nonce);
        // A transaction is made whole: one row that it wrote proves all the others.
        if self.doubtful.keys().any(|&slot| held.write_of(slot) == nonce) {
            self.fold_all(&held, &mut |slot, answers| {
                place(&mut results, self.doubtful.get(&slot).cloned().unwrap_or(answers));
            });
            conn.run("rollback").await?;
            return Ok(Attempt::Done(results));
        }
        let mut planned: Answers<'a> = HashMap::new();
        let (changes, keys) = self.fold_all(&held, &mut |slot, answers| {
            place(&mut results, answers.clone());
            planned.insert(slot, answers);
        });
        // And one that is as it was before proves that none was written. The doubt stays all the
        // same: a request that is still on its way could be carried out between two attempts.
        let as_before =
            |(slot, answers): (&Slot<'_>, &Vec<Answer>)| planned.get(slot) == Some(answers);
        if !self.doubtful.is_empty() && !self.doubtful.iter().any(as_before) {
            conn.run("rollback").await?;
            return Ok(Attempt::Unknown);
        }
        if changes.is_empty() && keys.is_empty() {
            if begun {
                conn.run("rollback").await?;
            }
            return Ok(Attempt::Done(results));
        }
        let written = self.slots(&changes, &keys);
        let (dialect, clock) = (&self.inner.dialect, &self.inner.pool.clock);
        let mut writer = Writer::new(dialect, clock, self.nonce);
        writer.clears_branches(self.look_first);
        for change in self.whole(conn, changes, &held).await? {
            writer.change(&change, held.globals.get(change.gid()))?;
        }
        for ((cat, key), change) in &keys {
            writer.key(cat, key, change);
        }
        let exchanges = conn.exchanges(writer.statements(!begun));
        let (last, others) = exchanges.split_last().ok_or_else(|| DbError::other("no commit"))?;
        for exchange in others {
            conn.run(exchange).await?;
        }
        if let Err(error) = conn.run(last).await {
            // An answer of the server says that it did not commit; silence says nothing.
            if error.kind == Kind::Lost {
                planned.retain(|slot, _| written.contains(slot));
                self.doubtful = planned;
            }
            return Err(error);
        }
        Ok(Attempt::Done(results))
    }

    /// Returns what is written: in doubt, if the commit is not answered.
    fn slots(
        &self,
        changes: &[Change],
        keys: &[((&'a str, &'a str), crate::fold::KvChange<'a>)],
    ) -> HashSet<Slot<'a>> {
        let gids: HashSet<&str> = changes.iter().map(Change::gid).collect();
        let globals = self.batch.globals.keys().filter(|gid| gids.contains(**gid));
        let keys = keys.iter().map(|((cat, key), _)| (*cat, Some(*key)));
        globals.map(|gid| (*gid, None)).chain(keys).collect()
    }

    /// Returns the exchange that locks what must be looked at; none if there is nothing.
    fn looking(&self) -> Option<String> {
        let dialect = &self.inner.dialect;
        let looked: Vec<&str> = self
            .batch
            .globals
            .iter()
            .filter(|(_, writes)| self.look_first || !creates(writes))
            .map(|(gid, _)| *gid)
            .collect();
        if looked.is_empty() && self.batch.keys.is_empty() {
            return None;
        }
        let mut out = "begin".to_owned();
        for gids in looked.chunks(KEYS_MAX) {
            let (columns, table) = (mark::select(dialect), &dialect.globals);
            out.push_str(&format!(";select {columns} from {table} g where g.gid in "));
            dialect.texts(&mut out, gids.iter().copied());
            out.push_str(" order by g.gid for update");
        }
        let counted: Vec<&str> = self
            .batch
            .globals
            .iter()
            .filter(|(_, writes)| believed_branches(writes).is_some() && !creates(writes))
            .map(|(gid, _)| *gid)
            .collect();
        for gids in counted.chunks(KEYS_MAX) {
            let table = &dialect.branches;
            // Eleven columns tell a mark, two a count, four a key.
            out.push_str(&format!(";select gid,count(*) from {table} where gid in "));
            dialect.texts(&mut out, gids.iter().copied());
            out.push_str(" group by gid");
        }
        if !self.batch.keys.is_empty() {
            out.push_str(";select cat,k,version,dtmd_write from ");
            out.push_str(&dialect.kv);
            out.push_str(" where ");
            for (index, (cat, key)) in self.batch.keys.keys().enumerate() {
                out.push_str(if index > 0 { " or (cat=" } else { "(cat=" });
                dialect.text(&mut out, cat);
                out.push_str(" and k=");
                dialect.text(&mut out, key);
                out.push(')');
            }
            out.push_str(" order by cat,k for update");
        }
        Some(out)
    }

    async fn look(&self, conn: &mut Conn, statements: &str) -> Result<Held, DbError> {
        let mut held = Held::default();
        for row in conn.run(statements).await?.iter().flatten() {
            match row.len() {
                mark::COLUMNS => {
                    let mark = Mark::read(row);
                    held.globals.insert(mark.gid.clone(), mark);
                }
                2 => {
                    let count = row.number(1).and_then(|count| usize::try_from(count).ok());
                    held.branches.insert(row.text(0).into_owned(), count.unwrap_or(0));
                }
                _ => {
                    let version = row.number(2).unwrap_or(0).cast_unsigned();
                    let mark = KvMark { version, write: row.number(3) };
                    held.keys.insert((row.text(0).into_owned(), row.text(1).into_owned()), mark);
                }
            }
        }
        Ok(held)
    }

    /// Decides every write on what is held.
    #[expect(clippy::type_complexity, reason = "used once, right above")]
    fn fold_all(
        &self,
        held: &Held,
        answered: &mut dyn FnMut(Slot<'a>, Vec<Answer>),
    ) -> (Vec<Change>, Vec<((&'a str, &'a str), crate::fold::KvChange<'a>)>) {
        let (mut changes, mut keys) = (Vec::new(), Vec::new());
        for (gid, writes) in &self.batch.globals {
            // A count finds those only that have branches.
            let counted = held.branches.get(*gid).copied().unwrap_or(0);
            let (change, answers) = fold(writes, held.globals.get(*gid), counted);
            answered((gid, None), answers);
            changes.extend(change);
        }
        for (&(cat, key), writes) in &self.batch.keys {
            let stored = held.keys.get(&(cat.to_owned(), key.to_owned())).copied();
            let (change, answers) = fold_kv(writes, stored);
            answered((cat, Some(key)), answers);
            keys.extend(change.map(|change| ((cat, key), change)));
        }
        (changes, keys)
    }

    /// Replaces a lease on a row that a DTM server wrote by the whole state: its columns and its
    /// record must say the same before it is sealed.
    async fn whole(
        &self,
        conn: &mut Conn,
        mut changes: Vec<Change>,
        held: &Held,
    ) -> Result<Vec<Change>, DbError> {
        for change in &mut changes {
            let Change::Lease(lease) = change else { continue };
            let is_ours = held.globals.get(lease.gid.as_str()).is_none_or(Mark::is_ours);
            if is_ours {
                continue;
            }
            let loaded = self.inner.load_with(conn, &[lease.gid.as_str()]).await?;
            if let Some(Ok(stored)) = loaded.into_iter().next() {
                let before = Arc::new(stored.global);
                let after = leased(&before, lease);
                *change = Change::Update { before, after };
            }
        }
        Ok(changes)
    }
}
