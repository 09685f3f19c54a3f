//! What is asked of the server, and its bodies over HTTP (spec 02 §2.3, §2.4).

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::{Branch, TransOptions, TransType};

/// What is done with a global transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Prepare,
    Submit,
    Abort,
    #[cfg(feature = "workflow")]
    PrepareWorkflow,
}

impl Operation {
    /// The last part of the path over HTTP; the method of JSON-RPC.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Submit => "submit",
            Self::Abort => "abort",
            #[cfg(feature = "workflow")]
            Self::PrepareWorkflow => "prepareWorkflow",
        }
    }
}

/// One step of a saga or a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestStep {
    pub(crate) action: String,
    /// `None` in a message, which has none.
    pub(crate) compensate: Option<String>,
    pub(crate) payload: Bytes,
}

impl RequestStep {
    fn urls(&self) -> Value {
        match &self.compensate {
            Some(compensate) => json!({ "action": self.action, "compensate": compensate }),
            None => json!({ "action": self.action }),
        }
    }
}

/// A global transaction as the server is asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TransRequest {
    pub(crate) gid: String,
    pub(crate) trans_type: TransType,
    pub(crate) options: TransOptions,
    pub(crate) steps: Vec<RequestStep>,
    pub(crate) query_prepared: String,
    pub(crate) custom_data: String,
    pub(crate) rollback_reason: String,
    pub(crate) req_extra: BTreeMap<&'static str, String>,
}

impl TransRequest {
    /// A request that carries nothing but the gid, the type and the options.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the gid could not travel unchanged to every database and service.
    pub(crate) fn new(gid: String, trans_type: TransType, options: TransOptions) -> Result<Self> {
        Branch::message(&gid).map_err(|error| Error::invalid(error.to_string()))?;
        Ok(Self {
            gid,
            trans_type,
            options,
            steps: Vec::new(),
            query_prepared: String::new(),
            custom_data: String::new(),
            rollback_reason: String::new(),
            req_extra: BTreeMap::new(),
        })
    }

    /// The steps' URLs, as JSON text over gRPC and as a member over HTTP.
    pub(crate) fn steps_json(&self) -> Value {
        self.steps.iter().map(RequestStep::urls).collect()
    }

    /// The body over HTTP, and the parameters over JSON-RPC.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if a payload is not text: it must fit into a JSON string.
    pub(crate) fn to_json(&self, protocol: &str) -> Result<Value> {
        let mut body = Map::new();
        let mut text = |name: &str, value: &str| {
            if !value.is_empty() {
                body.insert(name.to_owned(), json!(value));
            }
        };
        text("gid", &self.gid);
        text("trans_type", self.trans_type.as_str());
        text("query_prepared", &self.query_prepared);
        text("custom_data", &self.custom_data);
        text("rollback_reason", &self.rollback_reason);
        body.insert("protocol".to_owned(), json!(protocol));
        self.options.write_json(&mut body);
        if !self.steps.is_empty() {
            body.insert("steps".to_owned(), self.steps_json());
            let payloads: Result<Vec<&str>> =
                self.steps.iter().map(|step| payload_text(&step.payload)).collect();
            body.insert("payloads".to_owned(), json!(payloads?));
        }
        if !self.req_extra.is_empty() {
            body.insert("req_extra".to_owned(), json!(self.req_extra));
        }
        Ok(Value::Object(body))
    }
}

/// A branch to be registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RegisterRequest {
    pub(crate) gid: String,
    pub(crate) trans_type: TransType,
    pub(crate) branch_id: String,
    /// tcc: `confirm`, `cancel`; xa: `url`; workflow: `op`, `status`.
    pub(crate) data: BTreeMap<&'static str, String>,
    pub(crate) payload: Bytes,
}

impl RegisterRequest {
    /// The flat map of strings that HTTP and JSON-RPC take.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the payload is not text.
    pub(crate) fn to_json(&self) -> Result<Value> {
        let mut body = Map::new();
        for (name, value) in &self.data {
            body.insert((*name).to_owned(), json!(value));
        }
        body.insert("gid".to_owned(), json!(self.gid));
        body.insert("trans_type".to_owned(), json!(self.trans_type.as_str()));
        body.insert("branch_id".to_owned(), json!(self.branch_id));
        body.insert("data".to_owned(), json!(payload_text(&self.payload)?));
        Ok(Value::Object(body))
    }
}

fn payload_text(payload: &[u8]) -> Result<&str> {
    std::str::from_utf8(payload).map_err(|_| {
        Error::invalid("over HTTP a payload must be text in UTF-8; use gRPC for other bytes")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(trans_type: TransType) -> TransRequest {
        TransRequest::new("g-1".to_owned(), trans_type, TransOptions::new()).unwrap()
    }

    fn step(action: &str, compensate: Option<&str>, payload: &'static str) -> RequestStep {
        RequestStep {
            action: action.to_owned(),
            compensate: compensate.map(str::to_owned),
            payload: Bytes::from(payload),
        }
    }

    #[test]
    fn transactions_on_the_wire() {
        let mut saga = request(TransType::Saga);
        saga.steps = vec![step("http://s/out", Some("http://s/outC"), r#"{"amount":30}"#)];
        saga.custom_data = r#"{"orders":{"1":[0]},"concurrent":true}"#.to_owned();
        let mut msg = request(TransType::Msg);
        msg.steps = vec![step("topic://t", None, "")];
        msg.query_prepared = "http://s/query".to_owned();
        let mut abort = request(TransType::Tcc);
        abort.rollback_reason = "no money".to_owned();
        let mut workflow = request(TransType::Workflow);
        workflow.req_extra = BTreeMap::from([("status", "succeed".to_owned())]);
        let table = [
            (
                saga,
                json!({ "gid": "g-1", "trans_type": "saga", "protocol": "", "concurrent": false,
                    "steps": [{ "action": "http://s/out", "compensate": "http://s/outC" }],
                    "payloads": ["{\"amount\":30}"],
                    "custom_data": "{\"orders\":{\"1\":[0]},\"concurrent\":true}" }),
            ),
            (
                msg,
                json!({ "gid": "g-1", "trans_type": "msg", "protocol": "", "concurrent": false,
                    "steps": [{ "action": "topic://t" }], "payloads": [""],
                    "query_prepared": "http://s/query" }),
            ),
            (
                abort,
                json!({ "gid": "g-1", "trans_type": "tcc", "protocol": "", "concurrent": false,
                    "rollback_reason": "no money" }),
            ),
            (
                workflow,
                json!({ "gid": "g-1", "trans_type": "workflow", "protocol": "",
                    "concurrent": false, "req_extra": { "status": "succeed" } }),
            ),
        ];
        for (request, expected) in table {
            assert_eq!(request.to_json("").unwrap(), expected);
        }
    }

    #[test]
    fn registrations_are_flat_maps_of_strings() {
        let registration = |trans_type, data| RegisterRequest {
            gid: "g-2".to_owned(),
            trans_type,
            branch_id: "01".to_owned(),
            data,
            payload: Bytes::from_static(b"{}"),
        };
        let text = str::to_owned;
        let table = [
            (
                registration(
                    TransType::Tcc,
                    BTreeMap::from([
                        ("confirm", text("http://s/c")),
                        ("cancel", text("http://s/x")),
                    ]),
                ),
                json!({ "gid": "g-2", "trans_type": "tcc", "branch_id": "01", "data": "{}",
                    "confirm": "http://s/c", "cancel": "http://s/x" }),
            ),
            (
                registration(TransType::Xa, BTreeMap::from([("url", text("http://s/xa"))])),
                json!({ "gid": "g-2", "trans_type": "xa", "branch_id": "01", "data": "{}",
                    "url": "http://s/xa" }),
            ),
            (
                registration(
                    TransType::Workflow,
                    BTreeMap::from([("op", text("action")), ("status", text("succeed"))]),
                ),
                json!({ "gid": "g-2", "trans_type": "workflow", "branch_id": "01", "data": "{}",
                    "op": "action", "status": "succeed" }),
            ),
        ];
        for (registration, expected) in table {
            assert_eq!(registration.to_json().unwrap(), expected);
        }
    }

    #[test]
    fn what_could_not_travel_is_refused_here() {
        let options = TransOptions::new;
        for gid in ["", "a;b", "a\nb", " a", &"x".repeat(129)] {
            let refused = TransRequest::new(gid.to_owned(), TransType::Tcc, options());
            assert!(matches!(refused, Err(Error::Invalid(_))), "{gid:?}");
        }
        let mut request = request(TransType::Saga);
        request.steps = vec![RequestStep {
            action: String::new(),
            compensate: None,
            payload: Bytes::from_static(&[0xff]),
        }];
        assert!(matches!(request.to_json(""), Err(Error::Invalid(_))));
    }
}
