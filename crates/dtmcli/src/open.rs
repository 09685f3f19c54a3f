//! What the handles of a TCC and of an XA have in common.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::client::Client;
use crate::gid::BranchIds;
use crate::request::TransRequest;

/// A transaction that is open for branches.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) client: Client,
    pub(crate) gid: String,
    pub(crate) ids: BranchIds,
    /// What is sent with every branch call.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) timeout: Duration,
}

impl Open {
    /// Returns what the application may begin branches with while its business runs.
    pub(crate) fn of(client: &Client, request: &TransRequest) -> Self {
        Self {
            gid: request.gid.clone(),
            ids: BranchIds::top(),
            headers: request.options.branch_headers.clone(),
            timeout: request.options.request_timeout.unwrap_or(client.timeout()),
            client: client.clone(),
        }
    }
}
