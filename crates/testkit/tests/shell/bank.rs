//! A bank's host: a service with a barrier, over HTTP and gRPC.

use std::sync::Arc;

use dtmd_protocol::{Op, Outcome, TransType};
use dtmd_testkit::sim::Xa;
use http::HeaderMap;

use crate::app::{Told, ask_once, pick_server};
use crate::chance::{Fault, Seen};
use crate::grpc;
use crate::net::{SimListener, serve};
use crate::world::{Asked, BANK_GRPC_PORT, BANK_PORT, World};

/// A status and a body.
pub(crate) type Answer = (u16, &'static str);

const SUCCESS: Answer = (200, r#"{"dtm_result":"SUCCESS"}"#);
const FAILURE: Answer = (409, r#"{"dtm_result":"FAILURE"}"#);
const ONGOING: Answer = (425, r#"{"dtm_result":"ONGOING"}"#);

/// Runs a bank from its start to its crash.
pub(crate) async fn bank(world: Arc<World>, number: usize) -> turmoil::Result {
    world.bank_starts(number);
    let http = SimListener::bind(BANK_PORT, world.chance.clone()).await?;
    let over_grpc = SimListener::bind(BANK_GRPC_PORT, world.chance.clone()).await?;
    let same = world.clone();
    tokio::try_join!(
        serve(http, move |path| answer_path(world.clone(), path)),
        grpc::serve(over_grpc, move |metadata| answer_metadata(same.clone(), metadata)),
    )?;
    Ok(())
}

/// Answers `/b/<transaction>/<branch>?op=…`, and `/xa/<transaction>/<branch>` for a local phase.
async fn answer_path(world: Arc<World>, path: String) -> Answer {
    let (path, query) = path.split_once('?').unwrap_or((&path, ""));
    let mut parts = path.split('/').skip(1);
    let is_local_phase = parts.next() == Some("xa");
    let mut number = || parts.next().unwrap().parse::<usize>().unwrap();
    let (tx, branch) = (number(), number());
    if is_local_phase {
        // Whoever asked may hang up; a local phase comes to its end.
        return tokio::spawn(xa_phase(world, tx, branch)).await.unwrap_or((500, "broken off"));
    }
    world.chance.see(Seen::CalledOverHttp);
    let op = query.split('&').find_map(|pair| pair.strip_prefix("op=")).unwrap_or("");
    answer(world, tx, branch, Op::parse(op)).await
}

async fn answer_metadata(world: Arc<World>, metadata: HeaderMap) -> i32 {
    world.chance.see(Seen::CalledOverGrpc);
    let text = |name: &str| metadata[name].to_str().unwrap();
    let tx = World::number_of(text("dtm-gid"));
    let branch = text("dtm-branch_id").parse::<usize>().unwrap() - 1;
    let op = Op::parse(text("dtm-op"));
    match answer(world, tx, branch, op).await.0 {
        200 => grpc::OK,
        409 => grpc::FAILURE,
        425 => grpc::ONGOING,
        _ => grpc::UNAVAILABLE,
    }
}

async fn answer(world: Arc<World>, tx: usize, branch: usize, op: Op) -> Answer {
    let chance = &world.chance;
    if op != Op::Try {
        world.check_call(tx, branch, &op);
    }
    match chance.hits(Fault::ServiceSlow) {
        true => chance.pause(300, 4_000).await,
        false => chance.pause(0, 15).await,
    }
    if chance.hits(Fault::ServiceErrorBefore) {
        return (500, "not now");
    }
    if op != Op::Try && chance.hits(Fault::ServiceOngoing) {
        return ONGOING;
    }
    let may_refuse =
        matches!(op, Op::Action | Op::Try) && world.plans[tx].trans_type != TransType::Msg;
    let refuse = may_refuse && chance.hits(Fault::Refusal);
    let outcome = world.run(tx, branch, &op, refuse);
    if chance.hits(Fault::LateDuplicate) {
        let world = world.clone();
        tokio::spawn(async move {
            world.chance.pause(10, 6_000).await;
            world.run(tx, branch, &op, false);
        });
    }
    if chance.hits(Fault::ServiceErrorAfter) {
        return (500, "it was done");
    }
    answer_of(&outcome)
}

pub(crate) fn answer_of(outcome: &Outcome) -> Answer {
    match outcome {
        Outcome::Success => SUCCESS,
        Outcome::Failure(_) => FAILURE,
        Outcome::Ongoing => ONGOING,
        Outcome::Unknown(_) | Outcome::Postponed(_) => (500, "lock wait timeout"),
    }
}

/// The local phase of an XA branch: begin, register, prepare.
async fn xa_phase(world: Arc<World>, tx: usize, branch: usize) -> Answer {
    if !world.xa_moves(tx, branch, Xa::None, Xa::Active) {
        return FAILURE;
    }
    world.chance.pause(0, 15).await;
    let asked = Asked::Register(branch);
    let mut registered = false;
    for _ in 0..3 {
        match ask_once(&world, pick_server(&world), tx, asked).await {
            Told::Done => {
                world.acknowledged(tx, asked);
                registered = true;
            }
            Told::Refused => {}
            Told::Unclear => continue,
        }
        break;
    }
    let end = if registered { Xa::Prepared } else { Xa::None };
    match world.xa_moves(tx, branch, Xa::Active, end) && registered {
        true => SUCCESS,
        false => FAILURE,
    }
}
