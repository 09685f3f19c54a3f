//! One file a group of routes.

pub(super) mod json_rpc;
pub(super) mod operating;
pub(super) mod operations;
pub(super) mod queries;
pub(super) mod system;
pub(super) mod transactions;
