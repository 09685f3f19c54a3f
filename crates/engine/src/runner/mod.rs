//! One runner for each gid that something happens to: load, step, commit, act.
//!
//! A runner is a task of its own. It takes messages (requests, wake-ups), keeps the calls that the
//! plan wants in flight, folds their answers into the global, and ends when there is nothing left
//! to do now. What is left for later is the stored wake-up.
//!
//! Rules it keeps (design.md section 2): no effect before the state that justifies it is durable;
//! every write is conditional, and a refused one means "reload and decide again"; after a write
//! whose outcome is unknown it reloads before it does anything else.

mod calls;
mod flying;
mod requests;
mod saves;

use std::sync::Arc;
use std::time::Duration;

use dtmd_protocol::{Gid, Global, Input, Op, Outcome, Request, Target, plan};
use dtmd_store::StoreError;
use tokio::sync::oneshot;
use tracing::{debug, error};

use crate::committer::Ack;
use crate::core::Core;
use crate::error::EngineError;
use crate::events::Event;
use crate::inbox::Messages;
use flying::Flying;
use requests::Waiter;
use saves::{Decided, SaveError};

/// The test clock's pause between a reply and the pass that it lets loose (design.md section 9).
const TEST_PASS_PAUSE: Duration = Duration::from_millis(100);
/// The pause before an unreachable store is asked again.
const STORE_PAUSE: Duration = Duration::from_millis(100);

pub(crate) type Reply = oneshot::Sender<Result<Arc<Global>, EngineError>>;

/// What a runner is told.
pub(crate) enum Message {
    /// Store a new global; if the gid is taken, apply the request to the one that is there.
    Create { new: Arc<dtmd_protocol::NewGlobal>, otherwise: Request, reply: Reply },
    /// Apply a request to the global, which must exist.
    Request { request: Request, reply: Reply },
    /// It may be due; `claimed` if the store has just given it to this server.
    Wake { claimed: Option<Arc<Global>> },
    /// Run one pass that waits for no retry time, and tell when it has ended.
    Kick { ended: oneshot::Sender<()> },
    /// Renew the lease if it ends soon.
    Renew,
}

/// Works on one gid.
pub(crate) struct Runner {
    core: Arc<Core>,
    gid: Gid,
    inbox: Messages,
    /// The global as the committer was last given it; `None` when it must be loaded first.
    stored: Option<Arc<Global>>,
    /// Marks the revisions written since the last load as this runner's.
    tag: u32,
    /// The calls in flight.
    flying: Flying,
    targets: Vec<Target>,
    /// Answers not yet part of the stored global.
    answers: Vec<(Target, Outcome)>,
    /// Callers that wait for the end of the pass.
    waiters: Vec<Waiter>,
    /// Lazy changes whose durability has not been confirmed.
    unconfirmed: Vec<Ack>,
    /// A change of status that was handed over: nobody is told before it is durable.
    untold: Option<Arc<Global>>,
    /// Why the last call of this pass decided nothing, if it did not.
    undecided: Option<Outcome>,
    /// Passes that have begun and not ended. Under a test clock calls are made in a pass only.
    passes: u32,
    kicks: Vec<oneshot::Sender<()>>,
    /// A kick has come whose look is still to be taken.
    kicked: bool,
    /// Not to call anybody before; set under a test clock only.
    pause: bool,
}

impl Runner {
    pub(crate) fn new(core: Arc<Core>, gid: Gid, inbox: Messages) -> Self {
        Self {
            tag: core.new_tag(),
            core,
            gid,
            inbox,
            stored: None,
            flying: Flying::default(),
            targets: Vec::new(),
            answers: Vec::new(),
            waiters: Vec::new(),
            unconfirmed: Vec::new(),
            untold: None,
            undecided: None,
            passes: 0,
            kicks: Vec::new(),
            kicked: false,
            pause: false,
        }
    }

    pub(crate) async fn run(mut self) {
        loop {
            // Messages first: a request must not wait for a pass to end.
            while let Some(message) = self.inbox.take() {
                self.handle(message).await;
            }
            if std::mem::take(&mut self.pause) {
                tokio::time::sleep(TEST_PASS_PAUSE).await;
            }
            if !self.answers.is_empty() && self.may_fold() {
                self.fold().await;
                continue;
            }
            // Calls in flight have to answer first: what they say would put the next one off again.
            if self.targets.is_empty() && std::mem::take(&mut self.kicked) {
                self.look(Input::Kick).await;
            }
            self.start_calls().await;
            if self.flying.is_empty() && self.answers.is_empty() {
                if self.rest().await {
                    return;
                }
                continue;
            }
            self.wait().await;
        }
    }

    /// Waits for a message or an answer; takes all answers that are there.
    async fn wait(&mut self) {
        tokio::select! {
            biased;
            (target, answer) = self.flying.next() => self.note_answer(target, answer),
            message = self.inbox.next() => return self.handle(message).await,
        }
        while let Some((target, answer)) = self.flying.take_ready() {
            self.note_answer(target, answer);
        }
    }

    async fn handle(&mut self, message: Message) {
        match message {
            Message::Create { new, otherwise, reply } => {
                self.create(&new, otherwise, reply).await;
            }
            Message::Request { request, reply } => self.request(request, reply).await,
            Message::Wake { claimed } => {
                // A claim made the state that a running pass believes in out of date. What it has
                // handed over is awaited, so that the next change does not speak for it.
                self.is_confirmed().await;
                self.stored = if self.stored.is_none() { claimed } else { None };
                self.tag = self.core.new_tag();
                self.begin_pass();
                self.look(Input::Wake).await;
            }
            Message::Kick { ended } => {
                // It has been claimed, as for a wake.
                self.stored = None;
                self.kicks.push(ended);
                self.begin_pass();
                self.kicked = true;
            }
            Message::Renew => self.renew(),
        }
    }

    /// Lets time do to the global what it does.
    async fn look(&mut self, input: Input) {
        let Some(before) = self.loaded().await else { return };
        let decided = self.looked_at(&before, &input);
        if let Err(failure) = self.save(&before, decided).await {
            self.recover(&failure).await;
        }
    }

    fn looked_at(&self, before: &Global, input: &Input) -> Option<Decided> {
        let cx = self.core.clock.context();
        let options = &self.core.options;
        match dtmd_protocol::step(before, input, &options.policy, &options.limits, &cx) {
            Ok(next) if next.status != before.status && !self.flying.is_empty() => {
                // A decision waits until what is in flight is known (see `may_fold`).
                debug!(gid = %self.gid, "a decision waits for calls in flight");
                None
            }
            Ok(next) => self.decide(before, next, false),
            Err(refused) => {
                error!(gid = %self.gid, %refused, "a look was refused");
                None
            }
        }
    }

    fn begin_pass(&mut self) {
        self.passes += 1;
    }

    /// Returns the global, loading it if it must be; `None` if it does not exist.
    ///
    /// Waits for as long as the store cannot be read.
    async fn loaded(&mut self) -> Option<Arc<Global>> {
        let mut told = false;
        if self.stored.is_none() {
            self.tag = self.core.new_tag();
        }
        while self.stored.is_none() {
            match self.core.store.load(&self.gid).await {
                Ok(Some(global)) => self.now_known(global),
                Ok(None) => {
                    self.untold = None;
                    return None;
                }
                Err(failure) => {
                    debug!(gid = %self.gid, error = %failure, "the store cannot be read");
                    if matches!(failure, StoreError::Corrupt { .. }) && !told {
                        told = true;
                        error!(gid = %self.gid, error = %failure, "the transaction cannot go on");
                        let (gid, error) = (self.gid.clone(), failure.to_string());
                        let _ = self.core.alerts.send(Event::Poisoned { gid, error });
                    }
                    if self.core.is_closing() {
                        return None;
                    }
                    self.refuse_waiting("the store cannot be read");
                    tokio::time::sleep(STORE_PAUSE).await;
                }
            }
        }
        self.stored.clone()
    }

    /// Ends the pass; returns whether the runner has ended too.
    async fn rest(&mut self) -> bool {
        if !self.confirm().await {
            return false;
        }
        if self.core.is_closing() {
            self.hand_back().await;
        }
        self.end_pass();
        let wake_at = match &self.stored {
            Some(global) if !global.status.is_final() => Some(global.wake_at),
            _ => None,
        };
        self.core.retire(&self.gid, &self.inbox, wake_at)
    }

    /// Waits until every lazy change is durable; false if something else must be done first.
    async fn confirm(&mut self) -> bool {
        while let Some(ack) = self.unconfirmed.last_mut() {
            let result = tokio::select! {
                result = ack => result,
                message = self.inbox.next() => {
                    self.handle(message).await;
                    return false;
                }
            };
            self.unconfirmed.pop();
            match result {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => {
                    self.unconfirmed.clear();
                    self.recover(&SaveError::from(failure)).await;
                    return self.core.is_closing();
                }
                // The store's thread has ended: the process is about to.
                Err(_) => return true,
            }
        }
        self.tell();
        true
    }

    /// Waits until what was handed over before is durable; false if some of it was not made. Then
    /// the runner's view is wrong, and has been dropped.
    async fn is_confirmed(&mut self) -> bool {
        for ack in std::mem::take(&mut self.unconfirmed) {
            if !matches!(ack.await, Ok(Ok(()))) {
                self.stored = None;
            }
        }
        self.tell();
        self.stored.is_some()
    }

    fn end_pass(&mut self) {
        self.answer_waiters();
        self.undecided = None;
        for _ in 0..std::mem::take(&mut self.passes) {
            if self.core.options.test_control {
                self.core.passes.push(self.gid.clone());
            }
        }
        for ended in self.kicks.drain(..) {
            let _ = ended.send(());
        }
    }

    /// Returns the calls that the plan wants and that are not in flight.
    fn wanted(&self) -> Vec<dtmd_protocol::Call> {
        let Some(global) = &self.stored else { return Vec::new() };
        let gate_closed = self.core.options.test_control && self.passes == 0;
        // While a failure waits for other answers, nothing new is begun.
        if gate_closed || self.core.is_closing() || !self.answers.is_empty() {
            return Vec::new();
        }
        let mut calls = plan(global, &self.core.options.policy, &self.core.clock.context()).calls;
        calls.retain(|call| !self.targets.contains(&call.target));
        // A request may have turned a saga back while its actions are under way: nothing is undone
        // before they have answered.
        if calls.iter().any(|call| call.op == Op::Compensate) && !self.targets.is_empty() {
            let in_flight = |target: &Target| match target {
                Target::Branch(row) => {
                    global.branches.get(*row).is_some_and(|row| row.op == Op::Action)
                }
                Target::Query => false,
            };
            if self.targets.iter().any(in_flight) {
                calls.clear();
            }
        }
        calls
    }
}
