//! A story: what happens, the status after it, the calls that must be in flight.
//!
//! [`Story::follows`] is the only function here that touches the API; the tests are its tables.

use std::sync::Arc;
use std::time::Duration;

use dtmd_protocol::{
    BranchId, BranchStatus, CallProtocol, Context, Gid, Global, Input, Limits, Mode, NewBranch,
    NewGlobal, NewStep, Op, Options, Outcome, Policy, Request, StepDef, Target, Timestamp,
    TransType, create, plan, step,
};

pub(crate) const START: Timestamp = Timestamp(1_700_000_000_000_000);

pub(crate) struct Story {
    pub(crate) global: Global,
    pub(crate) policy: Policy,
    pub(crate) limits: Limits,
    pub(crate) new: NewGlobal,
    pub(crate) now: Timestamp,
}

pub(crate) fn policy() -> Policy {
    Policy { retry_jitter_percent: 0, ..Policy::default() }
}

pub(crate) fn new_global(mode: Mode, steps: usize) -> NewGlobal {
    let compensates = matches!(mode, Mode::Saga { .. });
    let step = |n: usize| NewStep {
        def: StepDef {
            action: Arc::from(format!("http://rm/{n}")),
            compensate: Arc::from(if compensates {
                format!("http://rm/{n}/undo")
            } else {
                String::new()
            }),
        },
        payload: Arc::from(*b"{}"),
    };
    NewGlobal {
        gid: Gid::new("g").unwrap(),
        namespace: Arc::from("default"),
        mode,
        protocol: CallProtocol::Http,
        query_prepared: Arc::from("http://ap/query"),
        custom_data: Arc::from(""),
        options: Options::default(),
        steps: (1..=steps).map(step).collect(),
        content: 7,
    }
}

pub(crate) fn serial() -> Mode {
    Mode::Saga { concurrent: false, orders: Arc::from([]) }
}

pub(crate) fn concurrent(orders: &[(usize, &[usize])], steps: usize) -> Mode {
    let mut all = vec![Vec::new(); steps];
    for (step, before) in orders {
        all[*step] = before.to_vec();
    }
    Mode::Saga { concurrent: true, orders: Arc::from(all) }
}

impl Story {
    pub(crate) fn begin(new: NewGlobal, submitted: bool) -> Self {
        Self::with(new, submitted, policy())
    }

    pub(crate) fn with(new: NewGlobal, submitted: bool, policy: Policy) -> Self {
        let global = create(&new, submitted, &[], &policy, &Context::at(START));
        Self { global, policy, limits: Limits::default(), new, now: START }
    }

    pub(crate) fn saga(steps: usize) -> Self {
        Self::begin(new_global(serial(), steps), true)
    }

    pub(crate) fn option(mut self, set: impl FnOnce(&mut Options)) -> Self {
        set(&mut self.new.options);
        let submitted = self.global.status != dtmd_protocol::GlobalStatus::Prepared;
        Self::with(self.new, submitted, self.policy)
    }

    /// Plays the rows `what happens | status | calls in flight` and compares.
    ///
    /// `-` stands for no calls. A refused request is written `submit refused`.
    pub(crate) fn follows(&mut self, rows: &[&str]) {
        let mut actual = Vec::new();
        for row in rows {
            let event = row.split('|').next().unwrap().trim().to_owned();
            let refused = self.happens(event.trim_end_matches(" refused"));
            assert_eq!(event.ends_with(" refused"), refused, "{event}");
            actual.push(format!("{event} | {} | {}", self.global.status, self.calls()));
        }
        let squeeze = |row: &str| row.split('|').map(str::trim).collect::<Vec<_>>().join(" | ");
        let expected: Vec<String> = rows.iter().map(|row| squeeze(row)).collect();
        assert_eq!(
            expected,
            actual,
            "\nthe actual table, ready to paste:\n{}\n",
            actual.iter().map(|row| format!("    \"{row}\",\n")).collect::<String>()
        );
    }

    pub(crate) fn cx(&self) -> Context {
        Context::at(self.now)
    }

    fn calls(&self) -> String {
        let calls = plan(&self.global, &self.policy, &self.cx()).calls;
        let words: Vec<String> =
            calls.iter().map(|call| format!("{} {}", call.branch_id, call.op)).collect();
        if words.is_empty() { "-".to_owned() } else { words.join(", ") }
    }

    /// Lets one thing happen that is not refused.
    pub(crate) fn play(&mut self, event: &str) {
        assert!(!self.happens(event), "{event} was refused");
    }

    fn happens(&mut self, event: &str) -> bool {
        if let Some(wait) = event.strip_prefix("after ") {
            let seconds: u64 = wait.trim_end_matches('s').parse().unwrap();
            self.now = self.now.after(Duration::from_secs(seconds));
            return self.input(Input::Wake);
        }
        let input = match event {
            "begin" | "wake" => Input::Wake,
            "kick" => Input::Kick,
            "prepare" => Input::Request(Request::Prepare),
            "submit" => Input::Request(Request::Submit(Arc::new(self.new.clone()))),
            "abort" => Input::Request(Request::Abort {
                trans_type: Some(self.global.trans_type()),
                reason: Arc::from("the application said so"),
            }),
            "force stop" => Input::Request(Request::ForceStop),
            "retry now" => Input::Request(Request::RetryNow),
            "finish succeed" => finish(true),
            "finish failed" => finish(false),
            event => match event.split_whitespace().collect::<Vec<_>>()[..] {
                ["register", id] => self.register(id),
                ["query", outcome] => {
                    Input::Reply { target: Target::Query, outcome: outcome_of(outcome) }
                }
                [id, op, outcome] => Input::Reply {
                    target: Target::Branch(self.row(id, op)),
                    outcome: outcome_of(outcome),
                },
                _ => panic!("what is {event:?}?"),
            },
        };
        self.input(input)
    }

    pub(crate) fn input(&mut self, input: Input) -> bool {
        match step(&self.global, &input, &self.policy, &self.limits, &self.cx()) {
            Ok(next) => {
                self.global = next;
                false
            }
            Err(_) => true,
        }
    }

    pub(crate) fn copy(&self) -> Self {
        Self {
            global: self.global.clone(),
            policy: self.policy.clone(),
            limits: self.limits.clone(),
            new: self.new.clone(),
            now: self.now,
        }
    }

    pub(crate) fn registration(&self, id: &str) -> Input {
        self.register(id)
    }

    fn register(&self, id: &str) -> Input {
        let trans_type = self.global.trans_type();
        let ops = match trans_type {
            TransType::Tcc => vec![Op::Cancel, Op::Confirm],
            TransType::Xa => vec![Op::Rollback, Op::Commit],
            _ => vec![Op::Action],
        };
        let status = match trans_type {
            TransType::Workflow => BranchStatus::Succeed,
            _ => BranchStatus::Prepared,
        };
        let rows = ops
            .into_iter()
            .map(|op| NewBranch {
                branch_id: BranchId::new(id).unwrap(),
                url: Arc::from(format!("http://rm/{id}/{op}")),
                op,
                data: Arc::from(*b"{}"),
                status,
            })
            .collect();
        Input::Request(Request::Register { trans_type, rows })
    }

    pub(crate) fn row(&self, id: &str, op: &str) -> usize {
        let found =
            |row: &dtmd_protocol::Branch| row.branch_id.as_str() == id && row.op.as_str() == op;
        self.global.branches.iter().position(found).unwrap_or_else(|| panic!("no row {id} {op}"))
    }

    /// The statuses of all rows, in their order.
    pub(crate) fn rows(&self) -> Vec<&'static str> {
        self.global.branches.iter().map(|row| row.status.as_str()).collect()
    }

    pub(crate) fn reason(&self) -> &str {
        &self.global.rollback_reason
    }

    /// Seconds from the story's start to the next wake-up.
    pub(crate) fn wakes_in(&self) -> u64 {
        let wake_at = plan(&self.global, &self.policy, &self.cx()).wake_at.unwrap();
        wake_at.since(self.now).as_secs()
    }
}

fn finish(succeed: bool) -> Input {
    let reason = Arc::from(if succeed { "" } else { "no money" });
    Input::Request(Request::FinishWorkflow { succeed, reason, result: Arc::from("cmVzdWx0") })
}

pub(crate) fn outcome_of(word: &str) -> Outcome {
    match word {
        "SUCCESS" => Outcome::Success,
        "FAILURE" => Outcome::Failure(Arc::from("no money")),
        "ONGOING" => Outcome::Ongoing,
        "UNKNOWN" => Outcome::Unknown(Arc::from("timeout")),
        word => panic!("what is {word:?}?"),
    }
}
