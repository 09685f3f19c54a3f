//! What applications ask: the life of a transaction (spec 01 §2). JSON-RPC's methods are the same
//! functions.

use dtmd_protocol::{NewGlobal, TransType};
use dtmd_wire::{RegisterRequest, RequestError, TransRequest, response};

use super::super::api::{Api, Asked};
use super::super::reply::{Problem, Reply};

/// Returns what is to be accepted, in the caller's namespace and trace.
fn new_global(
    api: &Api,
    asked: &Asked<'_>,
    request: TransRequest,
) -> Result<NewGlobal, RequestError> {
    let mut new = request.into_new_global(asked.principal.namespace().clone())?;
    asked.span.is_about(&new.gid);
    asked.span.attach(&mut new.options, api.engine.limits());
    Ok(new)
}

pub(in super::super) async fn prepare(
    api: &Api,
    asked: &Asked<'_>,
    body: &[u8],
) -> Result<(), Problem> {
    let new = new_global(api, asked, TransRequest::parse(body)?)?;
    Ok(api.engine.prepare(new).await?)
}

/// A workflow's submit ends it; every other's starts it.
pub(in super::super) async fn submit(
    api: &Api,
    asked: &Asked<'_>,
    body: &[u8],
) -> Result<(), Problem> {
    let request = TransRequest::parse(body)?;
    if request.trans_type()? == TransType::Workflow {
        let (gid, end) = (request.gid()?, request.workflow_end()?);
        asked.span.is_about(&gid);
        return Ok(api.engine.finish_workflow(&gid, end.succeed, end.reason, end.result).await?);
    }
    let new = new_global(api, asked, request)?;
    Ok(api.engine.submit(new).await?)
}

pub(in super::super) async fn abort(
    api: &Api,
    asked: &Asked<'_>,
    body: &[u8],
) -> Result<(), Problem> {
    let request = TransRequest::parse(body)?;
    // A word that is none is no type: a message is aborted without one.
    let trans_type = TransType::parse(&request.trans_type);
    let gid = request.gid()?;
    asked.span.is_about(&gid);
    Ok(api.engine.abort(&gid, trans_type, &request.rollback_reason).await?)
}

pub(in super::super) async fn force_stop(
    api: &Api,
    asked: &Asked<'_>,
    body: &[u8],
) -> Result<(), Problem> {
    let gid = TransRequest::parse(body)?.gid()?;
    asked.span.is_about(&gid);
    Ok(api.engine.force_stop(&gid).await?)
}

pub(in super::super) async fn register_branch(
    api: &Api,
    asked: &Asked<'_>,
    body: &[u8],
) -> Result<(), Problem> {
    let request = RegisterRequest::parse(body).map_err(|error| match error {
        // This route alone answers 400 (spec 02 §1.2).
        RequestError::Undecodable(text) => Problem::Parameter(400, text),
        error => error.into(),
    })?;
    let (trans_type, gid, rows) = (request.trans_type()?, request.gid()?, request.rows()?);
    asked.span.is_about(&gid);
    Ok(api.engine.register(&gid, trans_type, rows).await?)
}

pub(in super::super) async fn prepare_workflow(
    api: &Api,
    asked: &Asked<'_>,
) -> Result<Reply, Problem> {
    let mut request = TransRequest::parse(asked.body)?;
    if request.trans_type.is_empty() {
        request.trans_type = TransType::Workflow.as_str().into();
    }
    if request.trans_type != TransType::Workflow.as_str() {
        let text = format!("trans_type: '{}' is not workflow", request.trans_type);
        return Err(RequestError::Invalid(text).into());
    }
    let new = new_global(api, asked, request)?;
    let global = api.engine.prepare_workflow(new).await?;
    Ok(Reply::json(response::prepare_workflow(&global, api.options.zone)))
}
