//! The messages of DTM's gRPC service, as far as the demo needs them (spec 03 §1.1); numbers above
//! 100 are dtmd's own.

use std::collections::BTreeMap;

/// Options of a global transaction; zero is the server's default.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TransOptions {
    /// Answer when the first pass has ended.
    #[prost(bool, tag = "1")]
    pub wait_result: bool,
    /// Metadata of every branch call.
    #[prost(btree_map = "string, string", tag = "5")]
    pub branch_headers: BTreeMap<String, String>,
    /// Of a saga's actions; 0 is no limit.
    #[prost(int64, tag = "7")]
    pub retry_limit: i64,
    /// Deliver a message's branches at once.
    #[prost(bool, tag = "101")]
    pub concurrent: bool,
    /// When a prepared or unfinished global is given up.
    #[prost(int64, tag = "102")]
    pub timeout_to_fail_ms: i64,
    /// The first interval between attempts.
    #[prost(int64, tag = "103")]
    pub retry_interval_ms: i64,
    /// How long a branch call may take.
    #[prost(int64, tag = "104")]
    pub request_timeout_ms: i64,
}

/// A global transaction: `DtmRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TransRequest {
    /// Its id.
    #[prost(string, tag = "1")]
    pub gid: String,
    /// saga, tcc, xa, msg or workflow.
    #[prost(string, tag = "2")]
    pub trans_type: String,
    /// Its options.
    #[prost(message, optional, tag = "3")]
    pub trans_options: Option<TransOptions>,
    /// JSON text whose shape depends on the type.
    #[prost(string, tag = "4")]
    pub custom_data: String,
    /// One a step.
    #[prost(bytes = "vec", repeated, tag = "5")]
    pub payloads: Vec<Vec<u8>>,
    /// Asked whether a prepared message counts; called to resume a workflow.
    #[prost(string, tag = "6")]
    pub query_prepared: String,
    /// JSON text: a list of maps with action and compensate.
    #[prost(string, tag = "7")]
    pub steps: String,
    /// A workflow's end: status, rollback_reason, result.
    #[prost(btree_map = "string, string", tag = "8")]
    pub extra: BTreeMap<String, String>,
    /// Why it is aborted.
    #[prost(string, tag = "9")]
    pub rollback_reason: String,
}

/// A branch of a global transaction: `DtmBranchRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BranchRequest {
    /// The global's id.
    #[prost(string, tag = "1")]
    pub gid: String,
    /// tcc, xa or workflow.
    #[prost(string, tag = "2")]
    pub trans_type: String,
    /// The branch's id.
    #[prost(string, tag = "3")]
    pub branch_id: String,
    /// tcc: confirm, cancel. workflow: op, status.
    #[prost(btree_map = "string, string", tag = "5")]
    pub data: BTreeMap<String, String>,
    /// Sent to the branch as it is; a workflow's step's result.
    #[prost(bytes = "vec", tag = "6")]
    pub payload: Vec<u8>,
}

/// A workflow as it stands: `DtmProgressesReply`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProgressesReply {
    /// The global.
    #[prost(message, optional, tag = "1")]
    pub transaction: Option<Transaction>,
    /// The steps that are recorded.
    #[prost(message, repeated, tag = "2")]
    pub progresses: Vec<Progress>,
}

/// The global of a workflow.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Transaction {
    /// Its id.
    #[prost(string, tag = "1")]
    pub gid: String,
    /// Its status.
    #[prost(string, tag = "2")]
    pub status: String,
    /// Why it was rolled back.
    #[prost(string, tag = "3")]
    pub rollback_reason: String,
}

/// A recorded step.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Progress {
    /// `succeed` or `failed`.
    #[prost(string, tag = "1")]
    pub status: String,
    /// Its result.
    #[prost(bytes = "vec", tag = "2")]
    pub data: Vec<u8>,
    /// The branch's id.
    #[prost(string, tag = "3")]
    pub branch_id: String,
    /// What was done.
    #[prost(string, tag = "4")]
    pub op: String,
}

/// What resumes a workflow: `workflow.WorkflowData`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WorkflowData {
    /// The workflow's input.
    #[prost(bytes = "vec", tag = "1")]
    pub data: Vec<u8>,
}
