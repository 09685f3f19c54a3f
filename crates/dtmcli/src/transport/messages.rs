//! DTM's protobuf messages (spec 03 §1.1, §5), written out: they are few, they never change, and
//! so nobody who builds the SDK needs a compiler for them.

use std::collections::BTreeMap;

/// `DtmTransOptions`. From 101 on dtmd only; DTM passes over them.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DtmTransOptions {
    #[prost(bool, tag = "1")]
    pub(crate) wait_result: bool,
    #[prost(int64, tag = "2")]
    pub(crate) timeout_to_fail: i64,
    #[prost(int64, tag = "3")]
    pub(crate) retry_interval: i64,
    #[prost(btree_map = "string, string", tag = "5")]
    pub(crate) branch_headers: BTreeMap<String, String>,
    #[prost(int64, tag = "6")]
    pub(crate) request_timeout: i64,
    #[prost(int64, tag = "7")]
    pub(crate) retry_limit: i64,
    #[prost(bool, tag = "101")]
    pub(crate) concurrent: bool,
    #[prost(int64, tag = "102")]
    pub(crate) timeout_to_fail_ms: i64,
    #[prost(int64, tag = "103")]
    pub(crate) retry_interval_ms: i64,
    #[prost(int64, tag = "104")]
    pub(crate) request_timeout_ms: i64,
}

/// `DtmRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DtmRequest {
    #[prost(string, tag = "1")]
    pub(crate) gid: String,
    #[prost(string, tag = "2")]
    pub(crate) trans_type: String,
    #[prost(message, optional, tag = "3")]
    pub(crate) trans_options: Option<DtmTransOptions>,
    #[prost(string, tag = "4")]
    pub(crate) customed_data: String,
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub(crate) bin_payloads: Vec<bytes::Bytes>,
    #[prost(string, tag = "6")]
    pub(crate) query_prepared: String,
    #[prost(string, tag = "7")]
    pub(crate) steps: String,
    #[prost(btree_map = "string, string", tag = "8")]
    pub(crate) req_extra: BTreeMap<String, String>,
    #[prost(string, tag = "9")]
    pub(crate) rollback_reason: String,
}

/// `DtmGidReply`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DtmGidReply {
    #[prost(string, tag = "1")]
    pub(crate) gid: String,
}

/// `DtmBranchRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DtmBranchRequest {
    #[prost(string, tag = "1")]
    pub(crate) gid: String,
    #[prost(string, tag = "2")]
    pub(crate) trans_type: String,
    #[prost(string, tag = "3")]
    pub(crate) branch_id: String,
    #[prost(string, tag = "4")]
    pub(crate) op: String,
    #[prost(btree_map = "string, string", tag = "5")]
    pub(crate) data: BTreeMap<String, String>,
    #[prost(bytes = "bytes", tag = "6")]
    pub(crate) busi_payload: bytes::Bytes,
}

/// `DtmTopicRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DtmTopicRequest {
    #[prost(string, tag = "1")]
    pub(crate) topic: String,
    #[prost(string, tag = "2")]
    pub(crate) url: String,
    #[prost(string, tag = "3")]
    pub(crate) remark: String,
}

/// `google.protobuf.Empty`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Empty {}

/// `dtmd.v1.QueryRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct QueryRequest {
    #[prost(string, tag = "1")]
    pub(crate) gid: String,
}

/// What the SDK reads of `dtmd.v1.Transaction`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct QueryReply {
    #[prost(string, tag = "1")]
    pub(crate) gid: String,
    #[prost(string, tag = "2")]
    pub(crate) trans_type: String,
    #[prost(string, tag = "3")]
    pub(crate) status: String,
    #[prost(string, tag = "7")]
    pub(crate) rollback_reason: String,
    #[prost(message, repeated, tag = "15")]
    pub(crate) branches: Vec<QueryBranch>,
}

/// What the SDK reads of `dtmd.v1.Branch`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct QueryBranch {
    #[prost(string, tag = "1")]
    pub(crate) branch_id: String,
    #[prost(string, tag = "2")]
    pub(crate) op: String,
    #[prost(string, tag = "3")]
    pub(crate) status: String,
    #[prost(string, tag = "4")]
    pub(crate) url: String,
}

/// `DtmProgressesReply`.
#[cfg(feature = "workflow")]
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DtmProgressesReply {
    #[prost(message, optional, tag = "1")]
    pub(crate) transaction: Option<DtmTransaction>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) progresses: Vec<DtmProgress>,
}

/// `DtmTransaction`.
#[cfg(feature = "workflow")]
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DtmTransaction {
    #[prost(string, tag = "1")]
    pub(crate) gid: String,
    #[prost(string, tag = "2")]
    pub(crate) status: String,
    #[prost(string, tag = "3")]
    pub(crate) rollback_reason: String,
    #[prost(string, tag = "4")]
    pub(crate) result: String,
}

/// `DtmProgress`.
#[cfg(feature = "workflow")]
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DtmProgress {
    #[prost(string, tag = "1")]
    pub(crate) status: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) bin_data: bytes::Bytes,
    #[prost(string, tag = "3")]
    pub(crate) branch_id: String,
    #[prost(string, tag = "4")]
    pub(crate) op: String,
}
