//! The words of the protocol: mode and op.

use std::fmt;
use std::str::FromStr;

use super::parse::{ParseError, check_op};

/// The mode of a global transaction, spelled as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransType {
    /// Actions with compensations.
    Saga,
    /// Try, confirm, cancel.
    Tcc,
    /// Two-phase commit over databases.
    Xa,
    /// Two-phase message.
    Msg,
    /// Code with recorded steps.
    Workflow,
}

impl TransType {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Saga => "saga",
            Self::Tcc => "tcc",
            Self::Xa => "xa",
            Self::Msg => "msg",
            Self::Workflow => "workflow",
        }
    }
}

impl fmt::Display for TransType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl FromStr for TransType {
    type Err = ParseError;

    fn from_str(word: &str) -> Result<Self, ParseError> {
        match word {
            "saga" => Ok(Self::Saga),
            "tcc" => Ok(Self::Tcc),
            "xa" => Ok(Self::Xa),
            "msg" => Ok(Self::Msg),
            "workflow" => Ok(Self::Workflow),
            _ => Err(ParseError::Invalid { field: "trans_type", why: "is not a known mode" }),
        }
    }
}

/// What is asked of a branch, spelled as on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Op {
    /// The action of a saga, a message or an XA branch.
    Action,
    /// Undo the action of a saga.
    Compensate,
    /// Reserve (TCC).
    Try,
    /// Use what was reserved (TCC).
    Confirm,
    /// Give back what was reserved (TCC).
    Cancel,
    /// Phase two of XA, or of a workflow.
    Commit,
    /// Phase two of XA, or of a workflow.
    Rollback,
    /// The local transaction of a message, and the question about it.
    Msg,
    /// The mark a workflow's XA step leaves between business and prepare.
    Business,
    /// Any other word; a workflow is called back with its name as the op.
    Named(Box<str>),
}

impl Op {
    /// The word on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Action => "action",
            Self::Compensate => "compensate",
            Self::Try => "try",
            Self::Confirm => "confirm",
            Self::Cancel => "cancel",
            Self::Commit => "commit",
            Self::Rollback => "rollback",
            Self::Msg => "msg",
            Self::Business => "business",
            Self::Named(name) => name,
        }
    }

    /// The op that this one undoes (spec 04 §6.2), `rollback` included everywhere (D30, D31).
    pub fn origin(&self) -> Option<Op> {
        match self {
            Self::Cancel => Some(Self::Try),
            Self::Compensate | Self::Rollback => Some(Self::Action),
            Self::Action
            | Self::Try
            | Self::Confirm
            | Self::Commit
            | Self::Msg
            | Self::Business
            | Self::Named(_) => None,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl FromStr for Op {
    type Err = ParseError;

    fn from_str(word: &str) -> Result<Self, ParseError> {
        Ok(match word {
            "action" => Self::Action,
            "compensate" => Self::Compensate,
            "try" => Self::Try,
            "confirm" => Self::Confirm,
            "cancel" => Self::Cancel,
            "commit" => Self::Commit,
            "rollback" => Self::Rollback,
            "msg" => Self::Msg,
            "business" => Self::Business,
            name => {
                check_op(name)?;
                Self::Named(name.into())
            }
        })
    }
}
