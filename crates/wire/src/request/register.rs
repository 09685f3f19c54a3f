//! `registerBranch` (spec 02 §2.4).

use std::borrow::Cow;
use std::sync::Arc;

use dtmd_protocol::{BranchId, BranchStatus, Gid, NewBranch, Op, TransType};

use super::{RequestError, decode};

/// A registration as it was sent: a flat map of strings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RegisterRequest<'a> {
    /// `gid`.
    pub gid: Cow<'a, str>,
    /// `trans_type`.
    pub trans_type: Cow<'a, str>,
    /// `branch_id`.
    pub branch_id: Cow<'a, str>,
    /// `data`: the payload.
    pub data: Cow<'a, str>,
    /// `confirm`, for tcc.
    pub confirm: Cow<'a, str>,
    /// `cancel`, for tcc.
    pub cancel: Cow<'a, str>,
    /// `url`, for xa.
    pub url: Cow<'a, str>,
    /// `op`, for a workflow's step.
    pub op: Cow<'a, str>,
    /// `status`, for a workflow's step.
    pub status: Cow<'a, str>,
}

impl<'a> RegisterRequest<'a> {
    /// Decodes a request's body, whatever its Content-Type says.
    ///
    /// # Errors
    ///
    /// [`RequestError::Undecodable`], naming the member that is not a string.
    pub fn parse(body: &'a [u8]) -> Result<Self, RequestError> {
        decode::from_json(body)
    }

    /// Returns the member of a name, as the name is written in DTM.
    pub(super) fn member(&mut self, name: &str) -> Option<&mut Cow<'a, str>> {
        match name {
            "gid" => Some(&mut self.gid),
            "trans_type" => Some(&mut self.trans_type),
            "branch_id" => Some(&mut self.branch_id),
            "data" => Some(&mut self.data),
            "confirm" => Some(&mut self.confirm),
            "cancel" => Some(&mut self.cancel),
            "url" => Some(&mut self.url),
            "op" => Some(&mut self.op),
            "status" => Some(&mut self.status),
            _ => None,
        }
    }

    /// Returns its gid.
    ///
    /// # Errors
    ///
    /// [`RequestError::Invalid`] if it cannot be one.
    pub fn gid(&self) -> Result<Gid, RequestError> {
        Gid::new(&self.gid).map_err(|error| RequestError::invalid(error.to_string()))
    }

    /// Returns its type.
    ///
    /// # Errors
    ///
    /// [`RequestError::UnknownType`] if branches of the type cannot be registered.
    pub fn trans_type(&self) -> Result<TransType, RequestError> {
        match TransType::parse(&self.trans_type) {
            Some(known @ (TransType::Tcc | TransType::Xa | TransType::Workflow)) => Ok(known),
            _ => Err(RequestError::UnknownType(self.trans_type.to_string())),
        }
    }

    /// Returns the rows that it adds, in the order that matters (spec 01 §1.8).
    ///
    /// # Errors
    ///
    /// [`RequestError`], naming the member.
    pub fn rows(&self) -> Result<Vec<NewBranch>, RequestError> {
        let trans_type = self.trans_type()?;
        let branch_id = BranchId::new(&self.branch_id)
            .map_err(|error| RequestError::invalid(error.to_string()))?;
        let data: Arc<[u8]> = Arc::from(self.data.as_bytes());
        let row = |op, url: &str| NewBranch {
            branch_id: branch_id.clone(),
            op,
            url: Arc::from(url),
            data: data.clone(),
            status: BranchStatus::Prepared,
        };
        match trans_type {
            TransType::Tcc => {
                Ok(vec![row(Op::Cancel, &self.cancel), row(Op::Confirm, &self.confirm)])
            }
            TransType::Xa => Ok(vec![row(Op::Rollback, &self.url), row(Op::Commit, &self.url)]),
            TransType::Saga | TransType::Msg | TransType::Workflow => {
                if self.op.is_empty() || self.op.chars().any(char::is_control) {
                    return Err(RequestError::invalid("op: the step's op is missing"));
                }
                let status = self.step_status()?;
                Ok(vec![NewBranch { status, ..row(Op::parse(&self.op), &self.url) }])
            }
        }
    }

    /// A workflow's step is recorded once it has an outcome; another status would never change.
    fn step_status(&self) -> Result<BranchStatus, RequestError> {
        match BranchStatus::parse(&self.status) {
            Some(status @ (BranchStatus::Succeed | BranchStatus::Failed)) => Ok(status),
            _ => {
                let status = &self.status;
                let text = format!("status: '{status}' is neither succeed nor failed");
                Err(RequestError::invalid(text))
            }
        }
    }
}
