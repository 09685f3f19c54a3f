//! Mistakes that can be switched on, to see that they are found.

macro_rules! bugs {
    ($($(#[$meta:meta])* $variant:ident = $name:literal),+ $(,)?) => {
        /// A mistake of the server, of a service or of an application.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Bug { $($(#[$meta])* $variant,)+ }

        impl Bug {
            /// Every mistake.
            pub const ALL: &[Bug] = &[$(Bug::$variant),+];

            /// Returns its name on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Bug::$variant => $name),+ }
            }

            /// Returns the mistake of a name.
            pub fn parse(name: &str) -> Option<Bug> {
                Self::ALL.iter().copied().find(|bug| bug.name() == name)
            }
        }
    };
}

bugs! {
    /// Services have no barrier, though they promise one.
    NoBarrier = "no-barrier",
    /// Services remember what they did, but absorb neither null compensation nor hanging actions.
    PlainIdempotency = "plain-idempotency",
    /// The store does not compare revisions: the last writer wins.
    NoRevisionCheck = "no-revision-check",
    /// Two writers may give different states one revision, and a write on top of a lost one passes.
    RevisionReused = "revision-reused",
    /// A branch's later, different answer replaces the first.
    BlindBranchOverwrite = "blind-branch-overwrite",
    /// A caller is told that it is done before it is durable.
    AckBeforeDurable = "ack-before-durable",
    /// An action that answered FAILURE is not compensated.
    FailedNotCompensated = "failed-not-compensated",
    /// The answer to query-prepared does not turn "not yet" into "never".
    QueryWithoutInsert = "query-without-insert",
    /// An abort compares the status only, and rolls back the branches it knew before.
    StaleViewAtAbort = "stale-view-at-abort",
    /// A registration that met a conflict is acknowledged and forgotten.
    LostRegistration = "lost-registration",
    /// A saga's results are never waited for, also when another action follows.
    LazySagaResults = "lazy-saga-results",
    /// An abort is decided while actions are in flight from the same server.
    DecisionNotHeldBack = "decision-not-held-back",
    /// A request, or another server, may make it go back while actions are in flight from here.
    UndoWhileInFlight = "undo-while-in-flight",
    /// After a write whose outcome is unknown, the server goes on as if it had been made.
    NoReloadAfterUnknown = "no-reload-after-unknown",
    /// Calls leave before the change that justifies them is durable.
    ActBeforeCommit = "act-before-commit",
    /// A refusal names a final status that is not durable yet.
    RefusalBeforeDurable = "refusal-before-durable",
    /// A repeated request is answered from a view that was read before it came.
    RepeatFromOldView = "repeat-from-old-view",
    /// A call without an answer counts as done.
    UnknownIsSuccess = "unknown-is-success",
    /// A refused compensation, cancel or rollback counts as done.
    RefusedUndoIsDone = "refused-undo-is-done",
    /// A submit is accepted although the transaction is being rolled back.
    SubmitOverridesAbort = "submit-overrides-abort",
    /// Nobody takes over what a dead server has left.
    NoTakeover = "no-takeover",
    /// The application tries a branch before it registers it.
    TryBeforeRegister = "try-before-register",
    /// The application commits its local transaction outside the barrier.
    LocalCommitOutsideBarrier = "local-commit-outside-barrier",
    /// The application aborts its message when it does not know whether its commit was made.
    AbortOnUnknownCommit = "abort-on-unknown-commit",
    /// Servers ignore each other's leases. Costs calls, must harm nothing.
    LeaseIgnored = "lease-ignored",
}

impl Bug {
    /// Returns whether it must be harmless: a mistake that costs calls only.
    pub fn is_harmless(self) -> bool {
        self == Bug::LeaseIgnored
    }

    /// Returns whether only the model check plays it: chance does not come by its needle's eye.
    pub fn is_for_the_model(self) -> bool {
        self == Bug::RepeatFromOldView
    }
}
