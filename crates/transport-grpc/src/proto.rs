//! What `proto/` describes, generated at build time.

/// DTM's own interface.
pub mod dtmgimp {
    #![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
    #![allow(clippy::allow_attributes_without_reason, clippy::too_many_lines, reason = "generated")]
    tonic::include_proto!("dtmgimp");
}

/// What a process that runs workflows serves.
pub mod workflow {
    #![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
    #![allow(clippy::allow_attributes_without_reason, clippy::too_many_lines, reason = "generated")]
    tonic::include_proto!("workflow");
}

/// What operators ask.
pub mod admin {
    #![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
    #![allow(clippy::allow_attributes_without_reason, clippy::too_many_lines, reason = "generated")]
    tonic::include_proto!("dtmd.v1");
}

/// The descriptors of all of `proto/`, encoded; handed out by reflection.
pub const DESCRIPTORS: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin")).as_slice();
