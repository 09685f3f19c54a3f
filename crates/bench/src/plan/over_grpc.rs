//! The same transactions over gRPC (spec 03).

use std::collections::BTreeMap;

use dtmd_demo::grpc::framed;
use dtmd_demo::grpc::messages::{BranchRequest, TransOptions, TransRequest};
use prost::Message;

use super::{GID, Plan, Template, tells};
use crate::options::Mode;

const PAYLOAD: &[u8] = br#"{"amount":30}"#;

impl Template {
    fn grpc(path: &'static str, message: &impl Message) -> Self {
        Self::with_holes(path, framed(&message.encode_to_vec()).to_vec())
    }
}

impl Plan {
    /// The transaction of a mode, with participants' methods at `base`.
    pub(crate) fn grpc_transaction(mode: Mode, steps: usize, wait: bool, base: &str) -> Self {
        const SUBMIT: &str = "/dtmgimp.Dtm/Submit";
        const PREPARE: &str = "/dtmgimp.Dtm/Prepare";
        const REGISTER_BRANCH: &str = "/dtmgimp.Dtm/RegisterBranch";

        let tell = if wait { "Act" } else { "Tell" };
        let whole = |steps_json: Vec<String>| TransRequest {
            gid: String::from_utf8_lossy(&GID).into_owned(),
            trans_type: mode.as_str().to_owned(),
            trans_options: Some(TransOptions { wait_result: wait, ..TransOptions::default() }),
            payloads: vec![PAYLOAD.to_vec(); steps_json.len()],
            steps: match steps_json.as_slice() {
                [] => String::new(),
                steps => format!("[{}]", steps.join(",")),
            },
            ..TransRequest::default()
        };
        let requests = match mode {
            Mode::Saga => {
                let step = |step| {
                    let action = if step + 1 == steps { tell } else { "Act" };
                    format!(r#"{{"action":"{base}/{action}","compensate":"{base}/Undo"}}"#)
                };
                vec![Template::grpc(SUBMIT, &whole((0..steps).map(step).collect()))]
            }
            Mode::Msg => {
                let step = format!(r#"{{"action":"{base}/{tell}"}}"#);
                let mut message = whole(vec![step; steps]);
                message.query_prepared = format!("{base}/Act");
                vec![Template::grpc(PREPARE, &message), Template::grpc(SUBMIT, &message)]
            }
            Mode::Tcc | Mode::Xa => {
                let message = whole(Vec::new());
                let urls = match mode {
                    Mode::Xa => BTreeMap::from([("url".to_owned(), format!("{base}/{tell}"))]),
                    _ => BTreeMap::from([
                        ("confirm".to_owned(), format!("{base}/{tell}")),
                        ("cancel".to_owned(), format!("{base}/Undo")),
                    ]),
                };
                let mut requests = vec![Template::grpc(PREPARE, &message)];
                requests.extend((1..=steps).map(|branch| {
                    let branch = BranchRequest {
                        gid: message.gid.clone(),
                        trans_type: message.trans_type.clone(),
                        branch_id: format!("{branch:02}"),
                        data: urls.clone(),
                        payload: PAYLOAD.to_vec(),
                    };
                    Template::grpc(REGISTER_BRANCH, &branch)
                }));
                requests.push(Template::grpc(SUBMIT, &message));
                requests
            }
        };
        Self { requests, tells: tells(mode, steps, wait) }
    }

    /// The cheapest request over gRPC, again and again.
    pub(crate) fn grpc_echo() -> Self {
        let requests = vec![Template::grpc("/dtmgimp.Dtm/NewGid", &())];
        Self { requests, tells: 0 }
    }

    /// A branch call made directly.
    pub(crate) fn grpc_bare_call() -> Self {
        let requests = vec![Template::with_holes("/bench.Participant/Act", framed(PAYLOAD).into())];
        Self { requests, tells: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::super::gid;
    use super::*;

    const BASE: &str = "127.0.0.1:1/bench.Participant";

    /// The messages of a plan's requests for a gid, without their prefixes, and their methods.
    fn messages(plan: &Plan, gid: &str) -> Vec<(&'static str, Vec<u8>)> {
        let mut out = Vec::new();
        let read = |template: &Template| {
            template.fill(gid.as_bytes(), &mut out);
            (template.path(), out[5..].to_vec())
        };
        plan.requests.iter().map(read).collect()
    }

    #[test]
    fn only_the_last_step_of_a_saga_is_told_of() {
        let plan = Plan::grpc_transaction(Mode::Saga, 2, false, BASE);
        let [(path, bytes)] = &messages(&plan, &gid(1, 2))[..] else { panic!("not one request") };
        assert_eq!(*path, "/dtmgimp.Dtm/Submit");
        let saga = TransRequest::decode(&bytes[..]).unwrap();
        assert_eq!((saga.gid, saga.payloads.len(), plan.tells), (gid(1, 2), 2, 1));
        let steps: serde_json::Value = serde_json::from_str(&saga.steps).unwrap();
        assert_eq!(steps[0]["action"], format!("{BASE}/Act"));
        assert_eq!(steps[1]["action"], format!("{BASE}/Tell"));
        assert!(!saga.trans_options.unwrap().wait_result);
    }

    #[test]
    fn a_tcc_registers_every_branch_between_prepare_and_submit() {
        let plan = Plan::grpc_transaction(Mode::Tcc, 2, true, BASE);
        let requests = messages(&plan, &gid(1, 2));
        let methods: Vec<_> = requests.iter().map(|(path, _)| &path[13..]).collect();
        assert_eq!(methods, ["Prepare", "RegisterBranch", "RegisterBranch", "Submit"]);
        let branch = BranchRequest::decode(&requests[2].1[..]).unwrap();
        assert_eq!((branch.gid, branch.branch_id.as_str()), (gid(1, 2), "02"));
        assert_eq!(branch.data["confirm"], format!("{BASE}/Act"));
        assert_eq!(plan.tells, 0);
    }

    #[test]
    fn an_xa_branch_has_one_url_for_commit_and_rollback() {
        let plan = Plan::grpc_transaction(Mode::Xa, 2, false, BASE);
        let requests = messages(&plan, &gid(1, 2));
        assert_eq!((requests.len(), plan.tells), (4, 2));
        let branch = BranchRequest::decode(&requests[1].1[..]).unwrap();
        assert_eq!((branch.trans_type.as_str(), branch.data.len()), ("xa", 1));
        assert_eq!(branch.data["url"], format!("{BASE}/Tell"));
    }

    #[test]
    fn a_message_is_submitted_as_it_was_prepared() {
        let plan = Plan::grpc_transaction(Mode::Msg, 1, false, BASE);
        let requests = messages(&plan, &gid(1, 2));
        assert_eq!(requests[0].1, requests[1].1);
        let msg = TransRequest::decode(&requests[0].1[..]).unwrap();
        assert_eq!(msg.query_prepared, format!("{BASE}/Act"));
    }
}
