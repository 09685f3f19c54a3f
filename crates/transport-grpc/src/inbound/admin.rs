//! What operators ask; DTM has it over HTTP only.

use dtmd_engine::Engine;
use dtmd_protocol::{Gid, GlobalStatus, Timestamp, TransType};
use dtmd_store::ListFilter;
use dtmd_wire::RequestError;
use tonic::{Request, Response, Status};

use super::convert::transaction;
use super::guard::guarded;
use super::problem::Problem;
use crate::proto::admin::{
    Done, GidRequest, ListReply, ListRequest, QueryRequest, Transaction, admin_server,
};

/// Entries of a page if the caller does not say.
const LIMIT: usize = 100;
/// Entries of a page at most; the caller goes on with the position.
const LIMIT_MAX: usize = 1000;

pub(super) struct Admin {
    engine: Engine,
}

impl Admin {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    async fn look_up(&self, gid: &str) -> Result<Transaction, Problem> {
        let gid = parse_gid(gid)?;
        let global = self.engine.query(&gid).await?;
        global.map(|global| transaction(&global, true)).ok_or(Problem::Unknown(gid))
    }

    async fn page(&self, request: &ListRequest) -> Result<ListReply, Problem> {
        let filter = ListFilter {
            status: word("status", &request.status, GlobalStatus::parse)?,
            trans_type: word("trans_type", &request.trans_type, TransType::parse)?,
            created_from: time(request.created_from_ms),
            created_to: time(request.created_to_ms),
            wakes_after: None,
        };
        let limit = match usize::try_from(request.limit) {
            Ok(0) => LIMIT,
            Ok(limit) => limit.min(LIMIT_MAX),
            Err(_) => LIMIT_MAX,
        };
        let page = self.engine.list(&filter, &request.position, limit).await?;
        Ok(ListReply {
            transactions: page.globals.iter().map(|global| transaction(global, false)).collect(),
            next_position: page.next_position,
        })
    }
}

fn parse_gid(gid: &str) -> Result<Gid, RequestError> {
    Gid::new(gid).map_err(|error| RequestError::Invalid(error.to_string()))
}

fn time(millis: i64) -> Option<Timestamp> {
    (millis != 0).then(|| Timestamp(millis.saturating_mul(1000)))
}

fn word<T>(
    name: &str,
    text: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, RequestError> {
    if text.is_empty() {
        return Ok(None);
    }
    let unknown = || RequestError::Invalid(format!("{name}: '{text}' is not known"));
    parse(text).map(Some).ok_or_else(unknown)
}

#[tonic::async_trait]
impl admin_server::Admin for Admin {
    async fn query(&self, request: Request<QueryRequest>) -> Result<Response<Transaction>, Status> {
        guarded(&self.engine, "query", self.look_up(&request.get_ref().gid)).await
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListReply>, Status> {
        guarded(&self.engine, "all", self.page(request.get_ref())).await
    }

    async fn force_stop(&self, request: Request<GidRequest>) -> Result<Response<Done>, Status> {
        let done = async {
            self.engine.force_stop(&parse_gid(&request.get_ref().gid)?).await?;
            Ok(Done {})
        };
        guarded(&self.engine, "forcestop", done).await
    }

    async fn retry_now(&self, request: Request<GidRequest>) -> Result<Response<Done>, Status> {
        let done = async {
            self.engine.retry_now(&parse_gid(&request.get_ref().gid)?).await?;
            Ok(Done {})
        };
        guarded(&self.engine, "resetnextcrontime", done).await
    }
}
