//! A small HTTP client, and the flows an application runs against the server.

mod flows;
mod http;
mod model;
mod over_grpc;

pub use flows::{DtmClient, FlowError, branch_url};
pub use http::{Answer, HttpClient, HttpError, Outcome};
pub use model::{BranchRow, Msg, Saga, SagaStep, TccBranch, TransOptions, Transaction, XaBranch};
