//! What callers ask of a global, and what they are told.

use std::sync::Arc;

use dtmd_protocol::{
    Global, GlobalStatus, Input, NewGlobal, Outcome, Refused, Request, RequestKind, Scheme,
    TransType, create, step,
};
use dtmd_store::Write;

use super::saves::{Decided, SaveError};
use super::{Reply, Runner};
use crate::error::EngineError;
use crate::topics;

/// How often a request is decided anew because other writers were first.
const CONFLICTS_MAX: u32 = 32;

/// A caller that waits for the end of the pass (spec 01 §6).
pub(super) struct Waiter {
    kind: RequestKind,
    reply: Reply,
}

impl Runner {
    /// Stores a new global, or applies `otherwise` to the one that has its gid.
    pub(super) async fn create(&mut self, new: &NewGlobal, otherwise: Request, reply: Reply) {
        match self.try_create(new, &otherwise).await {
            Ok(Some(created)) => self.accepted(otherwise.kind(), created, reply),
            Ok(None) => self.request(otherwise, reply).await,
            Err(failure) => {
                let _ = reply.send(Err(failure));
            }
        }
    }

    /// Returns the new global when it is durable; `None` if the gid is taken.
    async fn try_create(
        &mut self,
        new: &NewGlobal,
        otherwise: &Request,
    ) -> Result<Option<Arc<Global>>, EngineError> {
        if self.stored.is_some() {
            return Ok(None);
        }
        let has_topics =
            new.steps.iter().any(|step| matches!(Scheme::of(&step.def.action), Scheme::Topic(_)));
        let mut subscribers = Vec::new();
        // These are prepared first, mostly: a look is cheaper than a write that must be refused.
        // A topic may have changed since its message was accepted (D29).
        let prepared_first = matches!(otherwise, Request::Submit(_))
            && matches!(new.mode.trans_type(), TransType::Tcc | TransType::Xa | TransType::Msg);
        if (prepared_first || has_topics) && self.loaded().await.is_some() {
            return Ok(None);
        }
        if has_topics {
            subscribers = topics::subscribers(&self.core, new).await?;
        }
        let submitted = matches!(otherwise, Request::Submit(_));
        let global = self.new_global(new, submitted, &subscribers);
        match self.write(Write::Create(global.clone()), true, global.clone()).await {
            Ok(()) => Ok(Some(global)),
            Err(SaveError::AlreadyExists) => Ok(None),
            Err(failure) => Err(unavailable(&failure)),
        }
    }

    fn new_global(
        &self,
        new: &NewGlobal,
        submitted: bool,
        subscribers: &[Option<Vec<Arc<str>>>],
    ) -> Arc<Global> {
        let policy = &self.core.options.policy;
        let cx = self.core.clock.context();
        let mut global = create(new, submitted, subscribers, policy, &cx);
        if dtmd_protocol::schedule(&global, policy, &cx).has_calls {
            global.owner = self.core.owner.clone();
            global.epoch = 1;
        }
        Arc::new(global)
    }

    /// Applies a request to the global, which must exist.
    pub(super) async fn request(&mut self, request: Request, reply: Reply) {
        let kind = request.kind();
        let input = Input::Request(request);
        // Where others write too, only what is read after the request has come in may be told.
        let mut is_fresh = self.core.exclusive || self.stored.is_none();
        for _ in 0..CONFLICTS_MAX {
            let Some(before) = self.loaded().await else {
                let _ = reply.send(Err(self.missing(kind)));
                return;
            };
            let decided = match self.decide_request(&before, &input) {
                Ok(decided) => decided,
                Err(refused) => {
                    // A refusal names a status: what is told must be durable.
                    if !self.is_confirmed().await {
                        continue;
                    }
                    let _ = reply.send(Err(EngineError::Refused(refused)));
                    return;
                }
            };
            if decided.is_none() {
                // Nothing is written that would meet a conflict if this view were out of date.
                if !self.is_confirmed().await {
                    continue;
                }
                if !is_fresh {
                    self.stored = None;
                    is_fresh = true;
                    continue;
                }
            }
            match self.save(&before, decided).await {
                Ok(()) => {
                    let after = self.stored.clone().unwrap_or(before);
                    return self.accepted(kind, after, reply);
                }
                Err(SaveError::Conflict | SaveError::AlreadyExists) => {
                    self.core.metrics.conflicts.inc();
                    self.stored = None;
                }
                Err(failure) => {
                    let _ = reply.send(Err(unavailable(&failure)));
                    self.recover(&failure).await;
                    return;
                }
            }
        }
        let _ = reply.send(Err(EngineError::Overloaded("too many writers change one gid")));
    }

    fn decide_request(&self, before: &Global, input: &Input) -> Result<Option<Decided>, Refused> {
        let options = &self.core.options;
        let cx = self.core.clock.context();
        let next = step(before, input, &options.policy, &options.limits, &cx)?;
        // A caller is told that it is done, so it must be.
        Ok(self.decide(before, next, true))
    }

    /// Replies to a request that was done, now or at the end of the pass it begins.
    fn accepted(&mut self, kind: RequestKind, after: Arc<Global>, reply: Reply) {
        let begins_pass = match kind {
            RequestKind::Submit => true,
            // An aborted message has nothing to undo.
            RequestKind::Abort => after.trans_type() != TransType::Msg,
            RequestKind::RetryNow => true,
            RequestKind::Prepare
            | RequestKind::PrepareWorkflow
            | RequestKind::ForceStop
            | RequestKind::Register
            | RequestKind::FinishWorkflow => false,
        };
        let counted = begins_pass && kind != RequestKind::RetryNow;
        if counted || (begins_pass && !self.core.options.test_control) {
            self.begin_pass();
        }
        if counted && after.options.wait_result {
            self.waiters.push(Waiter { kind, reply });
            return;
        }
        self.pause = counted && self.core.options.test_control;
        dtmd_failpoint::hit("reply-begins");
        let _ = reply.send(Ok(after));
        dtmd_failpoint::hit("reply-done");
    }

    /// Tells the waiting callers what the pass came to.
    pub(super) fn answer_waiters(&mut self) {
        for Waiter { kind, reply } in std::mem::take(&mut self.waiters) {
            let result = match &self.stored {
                None => Err(EngineError::Ongoing(format!("{NOT_SUCCESS} ONGOING"))),
                Some(global) => self.result_of_pass(kind, global),
            };
            let _ = reply.send(result);
        }
    }

    fn result_of_pass(
        &self,
        kind: RequestKind,
        global: &Arc<Global>,
    ) -> Result<Arc<Global>, EngineError> {
        if global.status == GlobalStatus::Succeed {
            return Ok(global.clone());
        }
        if global.status == GlobalStatus::Failed {
            return match kind {
                RequestKind::Submit => Err(EngineError::RolledBack(rolled_back_text(global))),
                _ => Ok(global.clone()),
            };
        }
        // A saga that is not final answers "ongoing", whatever its branches said (spec 01 §6).
        match &self.undecided {
            Some(Outcome::Unknown(text) | Outcome::Failure(text))
                if global.trans_type() != TransType::Saga =>
            {
                Err(EngineError::Branch(format!("a branch did not answer as expected: {text}")))
            }
            Some(Outcome::Unknown(text)) if !text.contains("FAILURE") => {
                Err(EngineError::Ongoing(format!("{NOT_SUCCESS} The last answer: {text}. ONGOING")))
            }
            _ => Err(EngineError::Ongoing(format!("{NOT_SUCCESS} ONGOING"))),
        }
    }

    fn missing(&self, kind: RequestKind) -> EngineError {
        match kind {
            RequestKind::Register => EngineError::NotPrepared(self.gid.clone()),
            RequestKind::FinishWorkflow => EngineError::NoWorkflow,
            _ => EngineError::NotFound(self.gid.clone()),
        }
    }
}

const NOT_SUCCESS: &str = "wait result not return success: the transaction goes on.";

fn rolled_back_text(global: &Global) -> String {
    match global.rollback_reason.trim_end() {
        "" => "wait result not return success: FAILURE".to_owned(),
        reason if reason.ends_with("FAILURE") => reason.to_owned(),
        reason => format!("{reason} FAILURE"),
    }
}

fn unavailable(failure: &SaveError) -> EngineError {
    match failure {
        SaveError::Store(text) => EngineError::Unavailable(text.to_string()),
        SaveError::Conflict | SaveError::AlreadyExists => {
            EngineError::Overloaded("too many writers change one gid")
        }
    }
}
