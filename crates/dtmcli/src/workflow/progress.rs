//! What the server has recorded of a workflow (spec 02 §2.5, 03 §1.1).

use std::collections::HashMap;

use bytes::Bytes;

use super::base64;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::request::TransRequest;
use crate::transaction::GlobalStatus;

/// A workflow as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) status: GlobalStatus,
    pub(crate) rollback_reason: String,
    pub(crate) result: Bytes,
    /// By branch id and op.
    pub(crate) steps: HashMap<(String, String), Recorded>,
}

/// A step that was recorded: how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) failed: bool,
    /// The result, or the text of the failure.
    pub(crate) data: Bytes,
}

/// A step as a transport brings it.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) branch_id: String,
    pub(crate) op: String,
    pub(crate) status: String,
    pub(crate) data: Bytes,
}

impl Progress {
    /// Announces the workflow, or finds it as it stands.
    pub(crate) async fn prepare(client: &Client, request: &TransRequest) -> Result<Self> {
        client.prepare_workflow(request).await
    }

    pub(crate) fn new(
        status: &str,
        rollback_reason: String,
        result: &str,
        rows: impl IntoIterator<Item = Row>,
    ) -> Result<Self> {
        let unreadable =
            |text: String| Error::Unexpected { what: "prepareWorkflow", status: 200, text };
        let status = GlobalStatus::parse(status)
            .ok_or_else(|| unreadable(format!("'{status}' is not a status")))?;
        let result = base64::decode(result)
            .ok_or_else(|| unreadable("the result is not base64".to_owned()))?;
        let mut steps = HashMap::new();
        for row in rows {
            let failed = match row.status.as_str() {
                "succeed" => false,
                "failed" => true,
                other => return Err(unreadable(format!("a step is '{other}'"))),
            };
            steps.insert((row.branch_id, row.op), Recorded { failed, data: row.data });
        }
        Ok(Self { status, rollback_reason, result: result.into(), steps })
    }

    #[cfg(feature = "http")]
    pub(crate) fn from_json(body: &[u8]) -> Result<Self> {
        use crate::transaction::or_default;
        use serde::Deserialize;

        #[derive(Deserialize)]
        struct Answer {
            transaction: Option<Global>,
            #[serde(default, deserialize_with = "or_default")]
            progresses: Vec<Step>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Global {
            status: String,
            #[serde(deserialize_with = "or_default")]
            rollback_reason: String,
            #[serde(deserialize_with = "or_default")]
            result: String,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Step {
            branch_id: String,
            op: String,
            status: String,
            #[serde(deserialize_with = "or_default")]
            bin_data: String,
        }

        let what = "prepareWorkflow";
        let Answer { transaction, progresses } = crate::transport::server::decode(what, body)?;
        let global = transaction.ok_or_else(|| Error::Unexpected {
            what,
            status: 200,
            text: "the answer has no transaction".to_owned(),
        })?;
        let rows: Option<Vec<Row>> = progresses
            .into_iter()
            .map(|step| {
                let data = base64::decode(&step.bin_data)?.into();
                Some(Row { branch_id: step.branch_id, op: step.op, status: step.status, data })
            })
            .collect();
        let rows = rows.ok_or_else(|| Error::Unexpected {
            what,
            status: 200,
            text: "a step's data are not base64".to_owned(),
        })?;
        Self::new(&global.status, global.rollback_reason, &global.result, rows)
    }

    #[cfg(feature = "grpc")]
    pub(crate) fn from_reply(
        reply: crate::transport::messages::DtmProgressesReply,
    ) -> Result<Self> {
        let global = reply.transaction.unwrap_or_default();
        let rows = reply.progresses.into_iter().map(|step| Row {
            branch_id: step.branch_id,
            op: step.op,
            status: step.status,
            data: step.bin_data,
        });
        Self::new(&global.status, global.rollback_reason, &global.result, rows)
    }
}

#[cfg(all(test, feature = "http"))]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_prepare_workflow() {
        let text = br#"{"transaction":{"gid":"g-4","status":"prepared","id":0},
            "progresses":[{"branch_id":"01","op":"action","status":"succeed",
            "bin_data":"eyJvayI6dHJ1ZX0=","create_time":"x"}]}"#;
        let progress = Progress::from_json(text).unwrap();
        assert_eq!(progress.status, GlobalStatus::Prepared);
        let step = &progress.steps[&("01".to_owned(), "action".to_owned())];
        assert_eq!((step.failed, &step.data[..]), (false, &br#"{"ok":true}"#[..]));

        let ended = br#"{"transaction":{"status":"failed","rollback_reason":"no FAILURE"},
            "progresses":null}"#;
        let progress = Progress::from_json(ended).unwrap();
        assert_eq!(progress.rollback_reason, "no FAILURE");

        for odd in [
            &br#"{"progresses":[]}"#[..],
            br#"{"transaction":{"status":"paused"}}"#,
            br#"{"transaction":{"status":"succeed","result":"*"}}"#,
            br#"{"transaction":{"status":"prepared"},"progresses":[{"status":"?"}]}"#,
            b"<html>",
        ] {
            let read = Progress::from_json(odd);
            assert!(matches!(read, Err(Error::Unexpected { .. })), "{read:?}");
        }
    }
}
