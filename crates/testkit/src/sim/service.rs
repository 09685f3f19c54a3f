//! The services: what they do when they are called, and the barrier that protects them.
//!
//! A call is one local database transaction: barrier rows and business change together (spec 04
//! §6.2). What has really happened is kept as [`Effects`], which no server ever sees.

use dtmd_protocol::{Op, Outcome, TransType};

use crate::Bug;
use crate::invariants::Effects;

/// An op, as a bit of the barrier table and as an index of counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Action or try.
    Forward,
    /// Compensate, cancel, rollback.
    Back,
    /// Confirm, commit.
    Finish,
    /// A question, or a workflow's step.
    Query,
}

impl Kind {
    /// Returns an op's kind.
    pub fn of(op: &Op) -> Self {
        match op {
            Op::Action | Op::Try => Kind::Forward,
            Op::Compensate | Op::Cancel | Op::Rollback => Kind::Back,
            Op::Confirm | Op::Commit => Kind::Finish,
            Op::Msg | Op::Named(_) => Kind::Query,
        }
    }
}

/// What the barrier absorbed, and other things worth counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Absorbed {
    /// Compensations of actions that had not run.
    pub null_compensations: u64,
    /// Actions that came after their compensation.
    pub hanging: u64,
    /// Repetitions.
    pub duplicates: u64,
    /// Local commits refused because the question came first.
    pub commits_refused: u64,
    /// XA rollbacks that had to wait for an active local phase.
    pub xa_waits: u64,
}

/// Where a branch's XA transaction stands in its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Xa {
    /// There is none, or none any more.
    #[default]
    None,
    /// Begun; ends with its connection.
    Active,
    /// Prepared; stays until it is committed or rolled back.
    Prepared,
}

/// One branch's service and its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Service {
    /// What has really happened.
    pub effects: Effects,
    /// Barrier rows by [`Kind`], and whether the other op inserted them.
    pub(crate) rows: [Option<bool>; 4],
    /// Its XA transaction.
    pub xa: Xa,
    /// How many XA local phases it has begun.
    pub(crate) xa_phases: u32,
    /// Its action answers FAILURE.
    pub refuses: bool,
    /// It has the barrier.
    pub barrier: bool,
    /// How often each op was sent by servers.
    pub(crate) sent: [u32; 4],
}

impl Service {
    /// Returns a service to which nothing has happened.
    pub fn new(refuses: bool, barrier: bool) -> Self {
        Self { refuses, barrier, ..Self::default() }
    }

    /// Runs one call to its end.
    ///
    /// `refuse` says that the business part fails, which rolls the whole local transaction back.
    pub fn run(
        &mut self,
        trans_type: TransType,
        kind: Kind,
        refuse: bool,
        bug: Option<Bug>,
        absorbed: &mut Absorbed,
    ) -> Outcome {
        if trans_type == TransType::Xa {
            return self.run_xa(kind, absorbed);
        }
        if refuse {
            return Outcome::Failure("no".into());
        }
        let protected = self.barrier && bug != Some(Bug::NoBarrier);
        let plain = bug == Some(Bug::PlainIdempotency);
        if protected && !self.admits(kind, plain, absorbed) {
            return Outcome::Success;
        }
        match kind {
            Kind::Forward => self.effects.done += 1,
            Kind::Back => self.effects.undone += 1,
            Kind::Finish => self.effects.confirmed += 1,
            Kind::Query => {}
        }
        Outcome::Success
    }

    /// The barrier: two inserts that ignore duplicates, then a look at what they inserted.
    fn admits(&mut self, kind: Kind, plain: bool, absorbed: &mut Absorbed) -> bool {
        let mut origin_missing = false;
        if kind == Kind::Back && !plain {
            let origin = &mut self.rows[Kind::Forward as usize];
            origin_missing = origin.is_none();
            origin.get_or_insert(true);
        }
        let row = &mut self.rows[kind as usize];
        if let Some(by_other) = *row {
            if by_other {
                absorbed.hanging += 1;
            } else {
                absorbed.duplicates += 1;
            }
            return false;
        }
        *row = Some(false);
        if origin_missing {
            absorbed.null_compensations += 1;
            return false;
        }
        true
    }

    /// Phase two of XA (spec 04 §4).
    fn run_xa(&mut self, kind: Kind, absorbed: &mut Absorbed) -> Outcome {
        match (kind, self.xa) {
            (Kind::Finish, Xa::Prepared) => {
                self.xa = Xa::None;
                self.effects.held = false;
                self.effects.done += 1;
                self.effects.confirmed += 1;
                Outcome::Success
            }
            // XAER_NOTA: done before.
            (Kind::Finish, _) => {
                absorbed.duplicates += 1;
                Outcome::Success
            }
            (Kind::Back, Xa::Prepared) => {
                self.xa = Xa::None;
                self.effects.held = false;
                Outcome::Success
            }
            // The barrier row's insert waits for the active one's lock, and gives up.
            (Kind::Back, Xa::Active) => {
                absorbed.xa_waits += 1;
                Outcome::Unknown("lock wait timeout".into())
            }
            (Kind::Back, Xa::None) => {
                absorbed.null_compensations += 1;
                Outcome::Success
            }
            _ => Outcome::Unknown("not an op of phase two".into()),
        }
    }
}

/// The application's own database: its local transaction and the message's barrier row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Local {
    /// It has been committed.
    pub committed: bool,
    /// The row of (`00`, `msg`): `Some(true)` if the question inserted it.
    row: Option<bool>,
}

impl Local {
    /// Commits the local transaction; false if the barrier refuses.
    pub fn commit(&mut self, bug: Option<Bug>, absorbed: &mut Absorbed) -> bool {
        if bug != Some(Bug::LocalCommitOutsideBarrier) {
            if self.row.is_some() {
                absorbed.commits_refused += u64::from(!self.committed);
                return self.committed;
            }
            self.row = Some(false);
        }
        self.committed = true;
        true
    }

    /// Answers "was it committed?", turning "not yet" into "never" (spec 04 §6.3).
    pub fn query(&mut self, bug: Option<Bug>) -> Outcome {
        if bug == Some(Bug::QueryWithoutInsert) {
            let committed = self.row == Some(false);
            return if committed { Outcome::Success } else { Outcome::Failure("no".into()) };
        }
        match self.row.get_or_insert(true) {
            true => Outcome::Failure("rolled back".into()),
            false => Outcome::Success,
        }
    }
}
