//! The words of the protocol: types, statuses, ops, moves, outcomes.

use std::fmt;
use std::sync::Arc;

use crate::time::Timestamp;

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$vmeta])* $variant,)+
        }

        impl $name {
            /// Every variant, in the order of declaration.
            pub const ALL: &[$name] = &[$($name::$variant),+];

            /// Returns the word that stands for it on the wire and in stores.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }

            /// Returns the variant of a word, `None` for an unknown one.
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some($name::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// The mode of a global transaction (spec 01 §1.1).
    TransType {
        /// Actions with compensations.
        Saga = "saga",
        /// Try, confirm, cancel.
        Tcc = "tcc",
        /// Two-phase commit of databases.
        Xa = "xa",
        /// Two-phase message.
        Msg = "msg",
        /// Code with recorded steps.
        Workflow = "workflow",
    }
}

words! {
    /// Where a global transaction stands (spec 01 §1.3). The variants are the wire's words.
    GlobalStatus {
        /// Accepted, not decided.
        Prepared = "prepared",
        /// Decided to go forward.
        Submitted = "submitted",
        /// Decided to go back.
        Aborting = "aborting",
        /// Ended forward; final.
        Succeed = "succeed",
        /// Ended back; final.
        Failed = "failed",
    }
}

impl GlobalStatus {
    /// Returns whether nothing can happen any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeed | Self::Failed)
    }
}

words! {
    /// What is known of a branch operation (spec 01 §1.3).
    BranchStatus {
        /// Not known to be done.
        Prepared = "prepared",
        /// Done.
        Succeed = "succeed",
        /// Refused for good: only a saga's action, or a workflow's step.
        Failed = "failed",
    }
}

/// What is asked of a branch (spec 01 §1.6).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Op {
    /// A saga's or message's forward step.
    Action,
    /// The undoing of a saga's action.
    Compensate,
    /// TCC's first phase; called by the application, never by the server.
    Try,
    /// TCC's second phase, forward.
    Confirm,
    /// TCC's second phase, back.
    Cancel,
    /// XA's second phase, forward.
    Commit,
    /// XA's second phase, back.
    Rollback,
    /// The query-prepared call of a message.
    Msg,
    /// A workflow's name (its callback), or the op of a step that a workflow recorded.
    Named(Arc<str>),
}

impl Op {
    /// Returns the op's word on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Named(name) => name,
            fixed => fixed.label(),
        }
    }

    /// Returns a word of a bounded set, for metrics: a workflow's name is text from a caller.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::Compensate => "compensate",
            Self::Try => "try",
            Self::Confirm => "confirm",
            Self::Cancel => "cancel",
            Self::Commit => "commit",
            Self::Rollback => "rollback",
            Self::Msg => "msg",
            Self::Named(_) => "workflow",
        }
    }

    /// Returns the op of a word; a word that is none of the fixed ones is a name.
    pub fn parse(word: &str) -> Self {
        match word {
            "action" => Self::Action,
            "compensate" => Self::Compensate,
            "try" => Self::Try,
            "confirm" => Self::Confirm,
            "cancel" => Self::Cancel,
            "commit" => Self::Commit,
            "rollback" => Self::Rollback,
            "msg" => Self::Msg,
            name => Self::Named(Arc::from(name)),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a call to a branch answered (spec 01 §3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Success,
    /// Refused for good; the text is the service's.
    Failure(Arc<str>),
    /// Under way; ask again later.
    Ongoing,
    /// Nothing can be concluded (timeout, refused connection, unknown answer): ask again.
    Unknown(Arc<str>),
    /// The call was not made, because its destination is known to be down; not an attempt. The
    /// time says when to look again.
    Postponed(Timestamp),
}

impl Outcome {
    /// Returns the outcome's word, for logs and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure(_) => "failure",
            Self::Ongoing => "ongoing",
            Self::Unknown(_) => "unknown",
            Self::Postponed(_) => "postponed",
        }
    }
}

/// Something that may move a global from one status to another.
///
/// Which moves a mode allows is its table, `next_status` in the mode's module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Move {
    /// The application submits.
    Submit,
    /// The application aborts.
    Abort,
    /// An operator stops it, whatever has been done.
    ForceStop,
    /// `timeout_to_fail` has passed.
    TimeOut,
    /// A saga's action answered FAILURE.
    ActionFailed,
    /// A saga's action used up `retry_limit`.
    RetriesSpent,
    /// Every call of this direction has succeeded.
    AllDone,
    /// Query-prepared: the local transaction was committed.
    LocalCommitted,
    /// Query-prepared: the local transaction will never be committed.
    LocalRolledBack,
    /// The application ends its workflow as succeed.
    FinishSucceed,
    /// The application ends its workflow as failed.
    FinishFailed,
}

impl Move {
    /// Every move, for tests that walk whole tables.
    pub const ALL: &[Move] = &[
        Move::Submit,
        Move::Abort,
        Move::ForceStop,
        Move::TimeOut,
        Move::ActionFailed,
        Move::RetriesSpent,
        Move::AllDone,
        Move::LocalCommitted,
        Move::LocalRolledBack,
        Move::FinishSucceed,
        Move::FinishFailed,
    ];
}
