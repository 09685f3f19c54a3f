//! The transactions of a world.

use dtmd_protocol::{Gid, TransType};
use dtmd_testkit::rng::Rng;
use dtmd_transport_grpc::proto::dtmgimp::{DtmBranchRequest, DtmRequest, DtmTransOptions};
use serde_json::{Value, json};

use crate::world::{APP_PORT, BANK_GRPC_PORT, BANK_PORT};

/// What an application is going to do.
pub(crate) struct Plan {
    pub(crate) number: usize,
    pub(crate) trans_type: TransType,
    pub(crate) app: usize,
    pub(crate) starts_ms: u64,
    pub(crate) branches: Vec<BranchPlan>,
    /// The application speaks gRPC with the servers.
    pub(crate) over_grpc: bool,
    wait_result: bool,
    concurrent: bool,
    /// The application rolls back what it has begun.
    pub(crate) gives_up: bool,
}

/// One leg of a transfer.
pub(crate) struct BranchPlan {
    pub(crate) bank: usize,
    pub(crate) amount: i64,
    /// The servers call the bank over gRPC.
    over_grpc: bool,
    /// The bank never agrees.
    pub(crate) refuses: bool,
}

impl Plan {
    pub(crate) fn draw(number: usize, apps: usize, banks: usize, rng: &mut Rng) -> Self {
        let trans_type =
            [TransType::Saga, TransType::Saga, TransType::Tcc, TransType::Msg, TransType::Xa]
                [rng.index(5)];
        let count = 2 + rng.index(2);
        let mut branches: Vec<BranchPlan> = (0..count)
            .map(|branch| BranchPlan {
                bank: (number + branch) % banks,
                amount: i64::try_from(rng.below(200)).unwrap() - 100,
                over_grpc: rng.chance(400),
                refuses: trans_type != TransType::Msg && rng.chance(80),
            })
            .collect();
        // What is taken somewhere is put somewhere.
        branches[0].amount -= branches.iter().map(|branch| branch.amount).sum::<i64>();
        Self {
            number,
            trans_type,
            app: rng.index(apps),
            starts_ms: rng.below(8_000),
            branches,
            over_grpc: rng.chance(400),
            wait_result: rng.chance(250),
            concurrent: rng.chance(300),
            gives_up: rng.chance(150),
        }
    }

    pub(crate) fn gid(&self) -> Gid {
        Gid::new(format!("t{}", self.number)).unwrap()
    }

    pub(crate) fn branch_path(&self, branch: usize) -> String {
        format!("/b/{}/{branch}", self.number)
    }

    fn branch_url(&self, branch: usize) -> String {
        let BranchPlan { bank, over_grpc, .. } = self.branches[branch];
        match over_grpc {
            // Which branch it is, is in the metadata.
            true => format!("grpc://bank-{bank}:{BANK_GRPC_PORT}/bank.Bank/Call"),
            false => format!("http://bank-{bank}:{BANK_PORT}{}", self.branch_path(branch)),
        }
    }

    fn has_steps(&self) -> bool {
        matches!(self.trans_type, TransType::Saga | TransType::Msg)
    }

    fn is_concurrent(&self) -> bool {
        self.trans_type == TransType::Saga && self.concurrent
    }

    fn steps(&self) -> Value {
        let step = |branch| {
            let url = self.branch_url(branch);
            match self.trans_type {
                TransType::Saga => json!({"action": url, "compensate": url}),
                _ => json!({"action": url}),
            }
        };
        (0..self.branches.len()).map(step).collect()
    }

    fn payloads(&self) -> impl Iterator<Item = String> {
        self.branches.iter().map(|branch| branch.amount.to_string())
    }

    /// Where to ask whether a message counts.
    fn question(&self) -> String {
        format!("http://app-{}:{APP_PORT}/q/{}", self.app, self.number)
    }

    /// Returns the body of prepare, submit and abort.
    pub(crate) fn whole(&self) -> Value {
        let mut body = json!({
            "gid": self.gid().as_str(),
            "trans_type": self.trans_type.as_str(),
            "wait_result": self.wait_result,
        });
        if self.has_steps() {
            body["steps"] = self.steps();
            body["payloads"] = self.payloads().map(Value::String).collect();
        }
        if self.is_concurrent() {
            body["concurrent"] = json!(true);
        }
        if self.trans_type == TransType::Msg {
            body["query_prepared"] = json!(self.question());
        }
        body
    }

    /// Returns the body of registerBranch.
    pub(crate) fn registration(&self, branch: usize) -> Value {
        let mut body = json!({
            "gid": self.gid().as_str(),
            "trans_type": self.trans_type.as_str(),
            "branch_id": branch_id(branch),
            "data": self.branches[branch].amount.to_string(),
        });
        for name in self.url_names() {
            body[*name] = json!(self.branch_url(branch));
        }
        body
    }

    fn url_names(&self) -> &'static [&'static str] {
        match self.trans_type {
            TransType::Xa => &["url"],
            _ => &["confirm", "cancel"],
        }
    }

    /// Returns the message of prepare, submit and abort over gRPC.
    pub(crate) fn message(&self) -> DtmRequest {
        let mut message = DtmRequest {
            gid: self.gid().to_string(),
            trans_type: self.trans_type.as_str().to_owned(),
            trans_options: Some(DtmTransOptions {
                wait_result: self.wait_result,
                concurrent: self.is_concurrent(),
                ..DtmTransOptions::default()
            }),
            ..DtmRequest::default()
        };
        if self.has_steps() {
            message.steps = self.steps().to_string();
            message.bin_payloads = self.payloads().map(Into::into).collect();
        }
        if self.trans_type == TransType::Msg {
            message.query_prepared = self.question();
        }
        message
    }

    /// Returns the message of RegisterBranch over gRPC.
    pub(crate) fn registration_message(&self, branch: usize) -> DtmBranchRequest {
        let url = self.branch_url(branch);
        let named = self.url_names().iter().map(|name| ((*name).to_owned(), url.clone()));
        DtmBranchRequest {
            gid: self.gid().to_string(),
            trans_type: self.trans_type.as_str().to_owned(),
            branch_id: branch_id(branch),
            data: named.collect(),
            busi_payload: self.branches[branch].amount.to_string().into(),
            ..DtmBranchRequest::default()
        }
    }
}

fn branch_id(branch: usize) -> String {
    format!("{:02}", branch + 1)
}
