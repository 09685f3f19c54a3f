//! What the server tells about a global transaction (spec 02 §2.6).

use std::fmt;

use serde::{Deserialize, Deserializer};

/// The status of a global transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GlobalStatus {
    /// Accepted; what will become of it is not decided.
    Prepared,
    /// Decided: it goes on until all its branches are done.
    Submitted,
    /// Decided: its branches are being undone.
    Aborting,
    /// Done. Final.
    Succeed,
    /// Undone, or never begun. Final.
    Failed,
}

impl GlobalStatus {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Submitted => "submitted",
            Self::Aborting => "aborting",
            Self::Succeed => "succeed",
            Self::Failed => "failed",
        }
    }

    /// Whether it will never change again.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeed | Self::Failed)
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        [Self::Prepared, Self::Submitted, Self::Aborting, Self::Succeed, Self::Failed]
            .into_iter()
            .find(|status| status.as_str() == word)
    }
}

impl fmt::Display for GlobalStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A global transaction as the server tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transaction {
    /// Its id.
    pub gid: String,
    /// Its mode, as on the wire.
    pub trans_type: String,
    /// Its status.
    pub status: GlobalStatus,
    /// Why it was rolled back; empty if it was not.
    pub rollback_reason: String,
    /// Its branch operations, in the server's order; not known over every transport.
    pub branches: Vec<BranchRow>,
}

/// One branch operation as the server tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BranchRow {
    /// The branch.
    pub branch_id: String,
    /// What is asked of it.
    pub op: String,
    /// `prepared`, `succeed` or `failed`.
    pub status: String,
    /// Where it is called.
    pub url: String,
}

impl Transaction {
    /// Decodes the answer of `query`; `None` if it says that there is no such transaction.
    #[cfg(feature = "http")]
    pub(crate) fn from_query(body: &[u8]) -> Result<Option<Self>, serde_json::Error> {
        #[derive(Deserialize)]
        struct Answer {
            transaction: Option<Row>,
            #[serde(default, deserialize_with = "or_default")]
            branches: Vec<Row>,
        }
        let Answer { transaction, branches } = serde_json::from_slice(body)?;
        let Some(row) = transaction else { return Ok(None) };
        let branches = branches.into_iter().map(Row::into_branch).collect();
        row.into_transaction(branches).map(Some)
    }
}

/// A row of either kind: members that are not there are empty.
#[cfg(feature = "http")]
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Row {
    #[serde(deserialize_with = "or_default")]
    gid: String,
    #[serde(deserialize_with = "or_default")]
    trans_type: String,
    #[serde(deserialize_with = "or_default")]
    status: String,
    #[serde(deserialize_with = "or_default")]
    rollback_reason: String,
    #[serde(deserialize_with = "or_default")]
    branch_id: String,
    #[serde(deserialize_with = "or_default")]
    op: String,
    #[serde(deserialize_with = "or_default")]
    url: String,
}

#[cfg(feature = "http")]
impl Row {
    fn into_branch(self) -> BranchRow {
        let Self { branch_id, op, status, url, .. } = self;
        BranchRow { branch_id, op, status, url }
    }

    fn into_transaction(self, branches: Vec<BranchRow>) -> Result<Transaction, serde_json::Error> {
        let Self { gid, trans_type, rollback_reason, .. } = self;
        let status = GlobalStatus::parse(&self.status).ok_or_else(|| {
            serde::de::Error::custom(format_args!("'{}' is not a status", self.status))
        })?;
        Ok(Transaction { gid, trans_type, status, rollback_reason, branches })
    }
}

/// `null` is the zero value, as everywhere in DTM's JSON.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(all(test, feature = "http"))]
mod tests {
    use super::*;

    #[test]
    fn the_answers_of_query() {
        let text = r#"{"transaction":{"id":0,"gid":"g-3","trans_type":"saga","status":"succeed",
            "concurrent":false},"branches":[{"gid":"g-3","url":"http://s/b","bin_data":"e30=",
            "branch_id":"01","op":"compensate","status":"prepared","finish_time":null}]}"#;
        let found = Transaction::from_query(text.as_bytes()).unwrap().unwrap();
        assert_eq!((found.gid.as_str(), found.status), ("g-3", GlobalStatus::Succeed));
        assert_eq!((found.branches[0].op.as_str(), found.branches.len()), ("compensate", 1));

        let unknown = br#"{"transaction":null,"branches":[]}"#;
        assert_eq!(Transaction::from_query(unknown).unwrap(), None);
        let odd = br#"{"transaction":{"status":"paused"},"branches":null}"#;
        assert!(Transaction::from_query(odd).is_err());
    }
}
