//! The applications: they prepare, register, try, decide, and ask again with the same gid until
//! they are told something definite.

use dtmd_protocol::{BranchId, GlobalStatus, Op, Outcome, TransType};

use super::fault::FaultKind;
use super::service::{Kind, Xa};
use super::tx::{Req, Step, Told};
use super::world::{Ev, Party, World};
use crate::Bug;

const SECOND: u64 = 1_000_000;

impl World {
    /// Lets an application do what it is at.
    pub(crate) fn app_acts(&mut self, tx: u32) {
        let tr = &mut self.txs[tx as usize];
        if tr.app.dead || tr.app.step == Step::Done {
            return;
        }
        tr.started = true;
        tr.app.no += 1;
        let no = tr.app.no;
        let is_xa = tr.trans_type() == TransType::Xa;
        if self.faults.hits(FaultKind::AppCrash, key(tx, no)) {
            self.note(|| format!("tx {tx}: the application dies at {:?}", no));
            let tr = &mut self.txs[tx as usize];
            tr.app.dead = true;
            return;
        }
        let tr = &mut self.txs[tx as usize];
        match tr.app.step {
            Step::Try(branch) => {
                let ev = Ev::Try { tx, no, branch, xa: is_xa };
                self.send(Party::Apps, Party::Service(branch), tx, ev);
                self.at(5 * SECOND, Ev::Patience { tx, no });
            }
            Step::Local => {
                if tr.trans_type() == TransType::Workflow {
                    return;
                }
                let wait = tr.app.local_time;
                self.at(wait, Ev::Commit { tx });
            }
            step => {
                let req = match step {
                    Step::Prepare => Req::Prepare,
                    Step::Register(branch) => Req::Register(branch),
                    Step::Submit => Req::Submit,
                    Step::Abort => Req::Abort,
                    Step::Finish(succeed) => Req::Finish(succeed),
                    Step::Extra(req) => req,
                    Step::Try(_) | Step::Local | Step::Done => return,
                };
                self.ask_server(tx, no, req);
                let patience = if self.txs[tx as usize].new.options.wait_result { 20 } else { 4 };
                self.at(patience * SECOND, Ev::Patience { tx, no });
            }
        }
    }

    pub(crate) fn ask_server(&mut self, tx: u32, no: u32, req: Req) {
        let server = self.txs[tx as usize].app.server % self.servers.len();
        if req == Req::ForceStop {
            self.txs[tx as usize].force_stopped = true;
        }
        if req == Req::RetryNow {
            self.txs[tx as usize].reasons += 1;
        }
        let ev = Ev::Ask { s: server, tx, no, req };
        self.send(Party::Apps, Party::Server(server), tx, ev);
    }

    /// Nothing was heard in time: the outcome is unknown, so the same is asked again, perhaps of
    /// another server. A try that was not answered is given up.
    pub(crate) fn app_times_out(&mut self, tx: u32, no: u32) {
        let tr = &mut self.txs[tx as usize];
        if tr.app.no != no || tr.app.step == Step::Done {
            return;
        }
        tr.app.server = tr.app.server.wrapping_add(tr.app.rng.index(3));
        match tr.app.step {
            Step::Try(_) => self.app_goes_to(tx, Step::Abort),
            Step::Extra(_) => tr.app.step = Step::Done,
            _ => self.app_acts(tx),
        }
    }

    pub(crate) fn app_goes_to(&mut self, tx: u32, step: Step) {
        let app = &mut self.txs[tx as usize].app;
        app.step = step;
        // What is still on its way for the step before is not waited for.
        app.no += 1;
        if step != Step::Done {
            let pause = 200 + app.rng.below(5_000);
            let no = app.no;
            self.at(pause, Ev::App { tx, no });
        }
    }

    /// A server's answer has come.
    pub(crate) fn app_hears(&mut self, tx: u32, no: u32, req: Req, told: &Told) {
        self.note_promise(tx, req, told);
        if no >= XA_NO {
            return self.xa_registered(tx, no, req, told);
        }
        let tr = &mut self.txs[tx as usize];
        if tr.app.no != no || tr.app.dead {
            return;
        }
        match (req, told) {
            (_, Told::Unavailable) => {
                let wait = tr.app.rng.range(100_000, 2 * SECOND);
                self.at(wait, Ev::Patience { tx, no });
            }
            (Req::Prepare, Told::Done(global)) => {
                let ended = global.status.is_final();
                let next = self.after_prepare(tx, ended);
                self.app_goes_to(tx, next);
            }
            (Req::Register(branch), Told::Done(_)) => {
                let next = match self.txs[tx as usize].trans_type() {
                    TransType::Workflow => self.next_branch(tx, branch + 1),
                    _ if self.bug == Some(Bug::TryBeforeRegister) => {
                        self.next_branch(tx, branch + 1)
                    }
                    _ => Step::Try(branch),
                };
                self.app_goes_to(tx, next);
            }
            (Req::Register(_), _) => self.app_goes_to(tx, Step::Abort),
            (Req::Submit, Told::Done(_)) if tr.app.extra.is_some() => {
                let extra = tr.app.extra.take().map_or(Step::Done, Step::Extra);
                let wait = tr.app.rng.below(20 * SECOND);
                tr.app.step = extra;
                self.at(wait, Ev::App { tx, no });
            }
            _ => self.app_goes_to(tx, Step::Done),
        }
    }

    fn after_prepare(&mut self, tx: u32, ended: bool) -> Step {
        let tr = &self.txs[tx as usize];
        match tr.trans_type() {
            _ if ended => Step::Done,
            TransType::Saga if tr.app.gives_up => Step::Extra(Req::ForceStop),
            TransType::Saga => Step::Submit,
            TransType::Msg => Step::Local,
            TransType::Tcc if self.bug == Some(Bug::TryBeforeRegister) => Step::Try(0),
            TransType::Tcc => Step::Register(0),
            TransType::Xa => Step::Try(0),
            TransType::Workflow => {
                self.workflow_runs(tx, 0);
                Step::Register(0)
            }
        }
    }

    /// Returns what follows when `branch` branches are done.
    fn next_branch(&mut self, tx: u32, branch: usize) -> Step {
        let tr = &self.txs[tx as usize];
        if branch < tr.services.len() {
            match tr.trans_type() {
                TransType::Workflow => {
                    self.workflow_runs(tx, branch);
                    Step::Register(branch)
                }
                TransType::Tcc if self.bug != Some(Bug::TryBeforeRegister) => {
                    Step::Register(branch)
                }
                _ => Step::Try(branch),
            }
        } else if tr.trans_type() == TransType::Workflow {
            Step::Finish(!tr.app.gives_up)
        } else if tr.app.gives_up {
            Step::Abort
        } else {
            Step::Submit
        }
    }

    /// A workflow's step runs in the application, under the barrier, before it is recorded.
    fn workflow_runs(&mut self, tx: u32, branch: usize) {
        let absorbed = &mut self.absorbed;
        let service = &mut self.txs[tx as usize].services[branch];
        service.run(TransType::Workflow, Kind::Forward, false, self.bug, absorbed);
        self.check_branch(tx, branch);
    }

    /// A workflow's callback: the application, alive again, runs it from its record.
    pub(crate) fn called_back(&mut self, tx: u32) -> Outcome {
        let app = &mut self.txs[tx as usize].app;
        if app.dead || app.step == Step::Done {
            app.dead = false;
            self.app_goes_to(tx, Step::Prepare);
        }
        Outcome::Success
    }

    /// The application's local transaction is about to commit.
    pub(crate) fn local_commits(&mut self, tx: u32) {
        let tr = &mut self.txs[tx as usize];
        if tr.app.step != Step::Local || tr.app.dead {
            return;
        }
        if tr.app.gives_up && !tr.app.commit_unknown {
            return self.app_goes_to(tx, Step::Abort);
        }
        let made = tr.app.gives_up || tr.local.commit(self.bug, &mut self.absorbed);
        let unknown = tr.app.commit_unknown;
        let step = match (unknown, made) {
            (true, _) if self.bug == Some(Bug::AbortOnUnknownCommit) => Step::Abort,
            // The server will ask.
            (true, _) => Step::Done,
            (false, true) => Step::Submit,
            (false, false) => Step::Abort,
        };
        self.app_goes_to(tx, step);
    }

    /// A try, or an XA branch's local phase, arrives at its service.
    pub(crate) fn try_arrives(&mut self, tx: u32, no: u32, branch: usize, xa: bool) {
        if !xa {
            let tr = &mut self.txs[tx as usize];
            let refuse = tr.services[branch].refuses;
            let service = &mut tr.services[branch];
            let out =
                service.run(TransType::Tcc, Kind::Forward, refuse, self.bug, &mut self.absorbed);
            self.check_branch(tx, branch);
            let done = out == Outcome::Success;
            return self.send(
                Party::Service(branch),
                Party::Apps,
                tx,
                Ev::Tried { tx, no, branch, done },
            );
        }
        let service = &mut self.txs[tx as usize].services[branch];
        if service.xa != Xa::None || service.refuses {
            // XAER_DUPID, or the business part failed.
            let ev = Ev::Tried { tx, no, branch, done: false };
            return self.send(Party::Service(branch), Party::Apps, tx, ev);
        }
        service.xa = Xa::Active;
        service.xa_phases += 1;
        let number = XA_NO * service.xa_phases + no;
        self.ask_server(tx, number, Req::Register(branch));
        self.at(6 * SECOND, Ev::XaGivesUp { tx, no: number, branch });
    }

    /// The registration from within a local phase was answered: prepare, or roll back.
    fn xa_registered(&mut self, tx: u32, no: u32, req: Req, told: &Told) {
        let Req::Register(branch) = req else { return };
        let done = matches!(told, Told::Done(_));
        self.xa_ends(tx, no, branch, done);
    }

    pub(crate) fn xa_ends(&mut self, tx: u32, no: u32, branch: usize, done: bool) {
        let service = &mut self.txs[tx as usize].services[branch];
        // What was said to an earlier local phase went to a connection that is closed by now.
        if service.xa != Xa::Active || no / XA_NO != service.xa_phases {
            return;
        }
        service.xa = if done { Xa::Prepared } else { Xa::None };
        service.effects.held = done;
        let no = no % XA_NO;
        self.send(Party::Service(branch), Party::Apps, tx, Ev::Tried { tx, no, branch, done });
        self.check_branch(tx, branch);
    }

    pub(crate) fn tried(&mut self, tx: u32, no: u32, branch: usize, done: bool) {
        let app = &self.txs[tx as usize].app;
        if app.no != no || app.dead {
            return;
        }
        let next = match done {
            true if self.bug == Some(Bug::TryBeforeRegister)
                && self.txs[tx as usize].trans_type() == TransType::Tcc =>
            {
                Step::Register(branch)
            }
            true => self.next_branch(tx, branch + 1),
            false => Step::Abort,
        };
        self.app_goes_to(tx, next);
    }

    fn note_promise(&mut self, tx: u32, req: Req, told: &Told) {
        let tr = &mut self.txs[tx as usize];
        let promises = &mut tr.promises;
        match (req, told) {
            (Req::Prepare, Told::Done(_)) => promises.prepared = true,
            (Req::Submit, Told::Done(_)) => promises.submitted = true,
            // A message that the question committed has never been told its content (found-by 4).
            (Req::SubmitOther, Told::Done(global)) if global.content == 0 => {}
            (Req::SubmitOther, Told::Done(_)) => {
                self.fail("G3", format!("tx {tx}: another content was accepted for its gid"));
                return;
            }
            (Req::Abort, Told::Done(_)) => promises.aborted = true,
            (Req::Register(branch), Told::Done(_)) => {
                let id = BranchId::of_step(branch);
                if !promises.registered.contains(&id) {
                    promises.registered.push(id);
                }
            }
            (Req::Finish(succeed), Told::Done(_)) => promises.finished = Some(succeed),
            (_, Told::RolledBack) => promises.told = Some(GlobalStatus::Failed),
            (_, Told::Refused(Some(status))) if status.is_final() => promises.told = Some(*status),
            _ => {}
        }
        self.check_tx(tx);
    }

    /// Returns the outcome of a call that a server has made, and what it does on the way.
    pub(crate) fn service_works(
        &mut self,
        tx: u32,
        branch: usize,
        op: &Op,
        refuse: bool,
    ) -> Outcome {
        let trans_type = self.txs[tx as usize].trans_type();
        match op {
            Op::Msg => {
                let bug = self.bug;
                return self.txs[tx as usize].local.query(bug);
            }
            Op::Named(_) => return self.called_back(tx),
            _ => {}
        }
        let kind = Kind::of(op);
        let bug = self.bug;
        let service = &mut self.txs[tx as usize].services[branch];
        let refuse = refuse || (kind == Kind::Forward && service.refuses);
        let out = service.run(trans_type, kind, refuse, bug, &mut self.absorbed);
        self.check_branch(tx, branch);
        out
    }
}

/// Request numbers from here on are a service's, from within an XA local phase: this many times
/// the phase's count, and the number of the try that began it.
pub(crate) const XA_NO: u32 = 1 << 20;

pub(crate) fn key(tx: u32, counter: u32) -> u64 {
    u64::from(tx) << 32 | u64::from(counter)
}
