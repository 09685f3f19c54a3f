//! The clients: transfers in every mode, with branches that refuse, hang, or answer too late, and
//! applications that repeat what has no clear outcome, with the same gid.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dtmd_demo::bank::{Bank, Fault, FaultKind};
use dtmd_demo::client::{
    DtmClient, FlowError, HttpClient, Msg, Outcome, Saga, SagaStep, TccBranch, TransOptions,
    branch_url,
};
use dtmd_tests::Server;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;

use super::book::{Book, Dice, Kind, Leg, Plan};
use super::{CLIENTS, PATIENCE};

/// A branch that answers later than this has no clear outcome.
const REQUEST_TIMEOUT_MS: u64 = 250;

/// One application.
struct Client {
    number: u32,
    /// The servers; each request goes to the next one, repetitions too.
    servers: Vec<DtmClient>,
    next: AtomicUsize,
    banks: Arc<[Bank; 2]>,
    book: Arc<Book>,
    /// One place a transaction; all are taken in quiet phases, and closed at the end.
    places: Arc<Semaphore>,
}

/// All applications of a run.
pub(super) struct Load {
    clients: JoinSet<()>,
    places: Arc<Semaphore>,
}

impl Load {
    /// Lets them begin; each goes round the servers.
    pub(super) fn begin(
        seed: u64,
        servers: &[Server],
        banks: &Arc<[Bank; 2]>,
        book: &Arc<Book>,
    ) -> Self {
        let places = Arc::new(Semaphore::new(CLIENTS as usize));
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let servers = servers.iter().map(|server| DtmClient::new(server.process.url()));
            let client = Client {
                number,
                servers: servers.collect(),
                next: AtomicUsize::new(number as usize),
                banks: Arc::clone(banks),
                book: Arc::clone(book),
                places: Arc::clone(&places),
            };
            clients.spawn(client.run(Dice::new(seed ^ (u64::from(number) << 48))));
        }
        Self { clients, places }
    }

    /// Asserts that all of them are still at it.
    pub(super) fn check(&mut self) {
        assert!(self.clients.try_join_next().is_none(), "a client has ended before its time");
    }

    /// Waits until none of them is in the middle of a transaction, and lets none begin one until
    /// the result is dropped.
    pub(super) async fn pause(&self) -> SemaphorePermit<'_> {
        self.places.acquire_many(CLIENTS).await.unwrap()
    }

    /// Lets each end what it has begun.
    pub(super) async fn end(mut self) {
        self.places.close();
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("a client has failed");
        }
    }
}

/// What became of a request that was repeated until something was clear.
enum Told {
    Accepted,
    Refused(String),
}

impl Client {
    async fn run(self, mut dice: Dice) {
        for nth in 0.. {
            let Ok(_place) = self.places.acquire().await else { return };
            let kind = dice.pick(&[Kind::Saga, Kind::Saga, Kind::Tcc, Kind::Msg]);
            let gid = format!("{kind:?}-{}-{nth}", self.number).to_lowercase();
            let plan = Plan::new(gid, kind, &mut dice);
            self.book.begin(&plan);
            match kind {
                Kind::Saga => self.saga(&plan, &mut dice).await,
                Kind::Tcc => self.tcc(&plan, &mut dice).await,
                Kind::Msg => self.msg(&plan, &mut dice).await,
            }
            drop(_place);
            tokio::time::sleep(Duration::from_millis(20 + dice.below(60))).await;
        }
    }

    fn dtm(&self) -> &DtmClient {
        &self.servers[self.next.fetch_add(1, Ordering::Relaxed) % self.servers.len()]
    }

    async fn saga(&self, plan: &Plan, dice: &mut Dice) {
        let mut options = options();
        options.concurrent = dice.chance(30);
        options.wait_result = dice.chance(15);
        // Some are given up while an action hangs: it arrives after its compensation.
        let gives_up = dice.chance(8);
        let mut may_fail = gives_up;
        if gives_up {
            options.timeout_to_fail_ms = Some(300);
            let fault = Fault::new(FaultKind::Slow).hold(Duration::from_millis(900));
            self.inject(plan, dice.below(3) as usize, fault.op("action"));
        } else if dice.chance(20) {
            may_fail = true;
            self.inject(plan, dice.below(3) as usize, Fault::new(FaultKind::Fail).op("action"));
        }
        self.inject_some(plan, &["action", "compensate"], dice);
        let steps = plan.legs.iter().map(|leg| {
            let way = if leg.is_out { "out" } else { "in" };
            SagaStep {
                action: self.at(leg, way),
                compensate: self.at(leg, &format!("{way}-undo")),
                payload: payload(leg),
            }
        });
        let saga = Saga { steps: steps.collect(), orders: vec![(2, vec![0])], options };
        if !may_fail {
            self.book.note_must(&plan.gid, "succeed");
        }
        let begun = Instant::now();
        loop {
            match self.dtm().submit_saga(&plan.gid, &saga).await {
                Ok(()) => {
                    if saga.options.wait_result {
                        self.book.note_must(&plan.gid, "succeed");
                    }
                    break;
                }
                // It is known, and ended another way or before this repetition.
                Err(FlowError::Failure { .. }) => break,
                Err(FlowError::Unclear { text, .. }) if text.contains("ONGOING") => break,
                Err(error) => self.unclear("submit", &plan.gid, begun, &error).await,
            }
        }
        self.book.note_accepted(&plan.gid);
    }

    async fn tcc(&self, plan: &Plan, dice: &mut Dice) {
        let (aborts, abandons) = (dice.chance(15), dice.chance(8));
        let mut options = options();
        if abandons {
            options.timeout_to_fail_ms = Some(600);
        }
        self.inject_some(plan, &["confirm", "cancel"], dice);
        let gid = &plan.gid;
        self.insist("prepare", gid, || self.dtm().prepare("tcc", gid, &options)).await;
        self.book.note_accepted(gid);
        for (leg, branch_id) in plan.legs.iter().zip(plan.branch_ids()) {
            let way = if leg.is_out { "out" } else { "in" };
            let branch = TccBranch {
                try_url: self.at(leg, &format!("try-{way}")),
                confirm: self.at(leg, &format!("confirm-{way}")),
                cancel: self.at(leg, &format!("cancel-{way}")),
                payload: payload(leg),
            };
            let register = || self.dtm().register_tcc(gid, branch_id, &branch);
            if let Told::Refused(_) = self.insist("registerBranch", gid, register).await {
                // Given up in between: what was tried so far is cancelled.
                return self.book.note_must(gid, "failed");
            }
            if (aborts || abandons) && dice.chance(30) {
                break;
            }
            // A try that has no clear outcome ends the transaction.
            if self.dtm().call_try(gid, branch_id, &branch).await.is_err() {
                return self.abort_tcc(gid).await;
            }
        }
        if abandons {
            return self.book.note_must(gid, "failed");
        }
        if aborts {
            return self.abort_tcc(gid).await;
        }
        let submit = || self.dtm().submit("tcc", gid);
        match self.insist("submit", gid, submit).await {
            Told::Accepted => self.book.note_must(gid, "succeed"),
            // The first answer may have been lost and all be done by now.
            Told::Refused(text) if text.contains("'succeed'") => {
                self.book.note_must(gid, "succeed");
            }
            Told::Refused(_) => self.book.note_must(gid, "failed"),
        }
    }

    async fn abort_tcc(&self, gid: &str) {
        self.insist("abort", gid, || self.dtm().abort("tcc", gid, "changed my mind")).await;
        self.book.note_must(gid, "failed");
    }

    async fn msg(&self, plan: &Plan, dice: &mut Dice) {
        // Some applications end before their local transaction, some before their submit.
        let (no_local, no_submit) = (dice.chance(8), dice.chance(12));
        let mut options = options();
        options.timeout_to_fail_ms = (no_local || no_submit).then_some(400);
        self.inject_some(plan, &["action"], dice);
        let (gid, [out, first, second]) = (&plan.gid, &plan.legs);
        let msg = Msg {
            query_prepared: format!("{}/query-prepared", self.banks[out.bank].url),
            steps: [first, second].map(|leg| (self.at(leg, "in"), payload(leg))).to_vec(),
            options,
        };
        self.insist("prepare", gid, || self.dtm().prepare_msg(gid, &msg)).await;
        self.book.note_accepted(gid);
        if no_local {
            return self.book.note_must(gid, "failed");
        }
        if !self.local_commits(gid, out, &msg).await {
            self.book.note_must(gid, "failed");
            self.insist("abort", gid, || self.dtm().abort("msg", gid, "not committed")).await;
            return;
        }
        // From here on it counts, whether it is submitted or asked about.
        self.book.note_must(gid, "succeed");
        if !no_submit {
            self.insist("submit", gid, || self.dtm().submit_msg(gid, &msg)).await;
        }
    }

    /// Runs a message's local transaction; if that has no clear outcome, asks as the server would.
    async fn local_commits(&self, gid: &str, out: &Leg, msg: &Msg) -> bool {
        match self.dtm().call_local(gid, &self.at(out, "local-out"), &payload(out)).await {
            Ok(()) => return true,
            Err(FlowError::Failure { .. }) => return false,
            Err(_) => {}
        }
        let begun = Instant::now();
        let url = branch_url(&msg.query_prepared, self.dtm().base(), "msg", gid, "00", "msg");
        loop {
            let answer = HttpClient::default().get(&url).await;
            match answer.as_ref().map(dtmd_demo::client::Answer::outcome) {
                Ok(Outcome::Success) => return true,
                Ok(Outcome::Failure(_)) => return false,
                other => self.unclear("query-prepared", gid, begun, &other).await,
            }
        }
    }

    /// Repeats a request until its outcome is clear.
    async fn insist<F>(&self, what: &str, gid: &str, ask: impl Fn() -> F) -> Told
    where
        F: Future<Output = Result<(), FlowError>>,
    {
        let begun = Instant::now();
        loop {
            match ask().await {
                Ok(()) => return Told::Accepted,
                Err(FlowError::Failure { text, .. }) => return Told::Refused(text),
                Err(error) => self.unclear(what, gid, begun, &error).await,
            }
        }
    }

    async fn unclear(&self, what: &str, gid: &str, begun: Instant, seen: &impl std::fmt::Debug) {
        self.book.note_unknown();
        assert!(
            begun.elapsed() < PATIENCE,
            "{what} of {gid} stays without a clear outcome: {seen:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    /// Disturbs about one branch in three in a way that time heals.
    fn inject_some(&self, plan: &Plan, ops: &[&str], dice: &mut Dice) {
        use FaultKind::{CrashAfterCommit, Error, Hang, Lose, Ongoing, Slow};
        for leg in 0..plan.legs.len() {
            if dice.chance(30) {
                let kind = dice.pick(&[CrashAfterCommit, Error, Hang, Lose, Ongoing, Slow]);
                let hold = Duration::from_millis(50 + dice.below(400));
                self.inject(plan, leg, Fault::new(kind).op(dice.pick(ops)).hold(hold));
            }
        }
    }

    fn inject(&self, plan: &Plan, leg: usize, fault: Fault) {
        let fault = fault.gid(&plan.gid).branch_id(plan.branch_ids()[leg]);
        // A bank that has too many rules goes on without this one.
        let _ = self.banks[plan.legs[leg].bank].inject(fault);
    }

    fn at(&self, leg: &Leg, path: &str) -> String {
        format!("{}/{path}", self.banks[leg.bank].url)
    }
}

fn options() -> TransOptions {
    TransOptions {
        request_timeout_ms: Some(REQUEST_TIMEOUT_MS),
        retry_interval_ms: Some(100),
        ..TransOptions::default()
    }
}

fn payload(leg: &Leg) -> Value {
    json!({ "account": leg.account, "amount": leg.amount })
}
