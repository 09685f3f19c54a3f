//! An application's host: answers questions about its messages, and carries out its transactions.

use std::sync::Arc;
use std::time::Duration;

use dtmd_protocol::{GlobalStatus, TransType};
use serde_json::Value;

use crate::bank::answer_of;
use crate::chance::Fault;
use crate::grpc;
use crate::net::{SimListener, post, serve};
use crate::plan::Plan;
use crate::world::{APP_PORT, Asked, BANK_PORT, DTM_GRPC_PORT, DTM_PORT, World};

/// How long a caller waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a request without a clear answer is repeated.
const REPEATS_MAX: usize = 120;
/// How often an application asks how a transaction ended.
const QUERIES_MAX: usize = 8;

/// Runs an application from its start to its crash.
pub(crate) async fn app(world: Arc<World>, number: usize) -> turmoil::Result {
    for plan in world.plans.iter().filter(|plan| plan.app == number) {
        let (tx, starts) = (plan.number, Duration::from_millis(plan.starts_ms));
        if !world.is_to_begin(tx) {
            continue;
        }
        let world = world.clone();
        let wait = starts.saturating_sub(turmoil::sim_elapsed().unwrap_or_default());
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            world.begin(tx);
            let _ = play(&world, &world.plans[tx]).await;
            if world.chance.range(0, 1) == 0 {
                ask_how_it_ended(&world, tx).await;
            }
            world.end(tx);
        });
    }
    let listener = SimListener::bind(APP_PORT, world.chance.clone()).await?;
    serve(listener, move |path| {
        let world = world.clone();
        async move {
            let tx = path.split(['/', '?']).nth(2).unwrap().parse().unwrap();
            world.chance.pause(0, 10).await;
            match world.chance.hits(Fault::ServiceErrorBefore) {
                true => (500, "not now"),
                false => answer_of(&world.query_prepared(tx)),
            }
        }
    })
    .await
}

/// An application gives up, or dies: there is nothing more to do.
struct Over;

/// Carries a transaction out, as an SDK does.
async fn play(world: &Arc<World>, plan: &Plan) -> Result<(), Over> {
    let tx = plan.number;
    if plan.trans_type == TransType::Saga {
        return insist(world, tx, Asked::Submit).await.map(drop);
    }
    if !insist(world, tx, Asked::Prepare).await? {
        return Ok(());
    }
    let goes_well = match plan.trans_type {
        TransType::Msg => !plan.gives_up && world.commit_locally(tx),
        _ => tries_go_well(world, plan).await? && !plan.gives_up,
    };
    let last = if goes_well { Asked::Submit } else { Asked::Abort };
    insist(world, tx, last).await.map(drop)
}

async fn tries_go_well(world: &Arc<World>, plan: &Plan) -> Result<bool, Over> {
    let tx = plan.number;
    for (branch, of) in plan.branches.iter().enumerate() {
        let bank = format!("bank-{}", of.bank);
        let path = match plan.trans_type {
            TransType::Tcc => {
                if !insist(world, tx, Asked::Register(branch)).await? {
                    return Ok(false);
                }
                format!("{}?op=try", plan.branch_path(branch))
            }
            _ => format!("/xa/{tx}/{branch}"),
        };
        let body = of.amount.to_string();
        let answer = post(&world.chance, (&bank, BANK_PORT), &path, body, PATIENCE).await;
        if !matches!(answer, Some((200, _))) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What a server has said.
pub(crate) enum Told {
    Done,
    Refused,
    Unclear,
}

pub(crate) fn pick_server(world: &World) -> usize {
    world.chance.rng().index(world.sizes.servers)
}

/// Sends a request to a server, over the transaction's protocol.
pub(crate) async fn ask_once(world: &World, server: usize, tx: usize, asked: Asked) -> Told {
    let (chance, plan, host) = (&world.chance, &world.plans[tx], format!("dtm-{server}"));
    if plan.over_grpc {
        let path = match asked {
            Asked::Prepare => "/dtmgimp.Dtm/Prepare",
            Asked::Register(_) => "/dtmgimp.Dtm/RegisterBranch",
            Asked::Submit => "/dtmgimp.Dtm/Submit",
            Asked::Abort => "/dtmgimp.Dtm/Abort",
        };
        let to = (host.as_str(), DTM_GRPC_PORT);
        let status = match asked {
            Asked::Register(branch) => {
                grpc::ask(chance, to, path, &plan.registration_message(branch), PATIENCE).await
            }
            _ => grpc::ask(chance, to, path, &plan.message(), PATIENCE).await,
        };
        return match status {
            Some(grpc::OK) => Told::Done,
            Some(grpc::FAILURE) => Told::Refused,
            _ => Told::Unclear,
        };
    }
    let (route, body) = match asked {
        Asked::Prepare => ("prepare", plan.whole()),
        Asked::Register(branch) => ("registerBranch", plan.registration(branch)),
        Asked::Submit => ("submit", plan.whole()),
        Asked::Abort => ("abort", plan.whole()),
    };
    let path = format!("/api/dtmsvr/{route}");
    match post(chance, (&host, DTM_PORT), &path, body.to_string(), PATIENCE).await {
        Some((200, text)) if text.contains("SUCCESS") => Told::Done,
        Some((409, _)) => Told::Refused,
        _ => Told::Unclear,
    }
}

/// Repeats a request until it has a clear answer; returns whether it was accepted.
async fn insist(world: &Arc<World>, tx: usize, asked: Asked) -> Result<bool, Over> {
    for _ in 0..REPEATS_MAX {
        if world.chance.hits(Fault::AppDies) {
            return Err(Over);
        }
        if world.chance.hits(Fault::RepeatedRequest) {
            let world = world.clone();
            tokio::spawn(async move {
                if let Told::Done = ask_once(&world, pick_server(&world), tx, asked).await {
                    world.acknowledged(tx, asked);
                }
            });
        }
        match ask_once(world, pick_server(world), tx, asked).await {
            Told::Done => {
                world.acknowledged(tx, asked);
                return Ok(true);
            }
            Told::Refused => return Ok(false),
            Told::Unclear => world.chance.pause(50, 900).await,
        }
    }
    Err(Over)
}

/// Asks for the status until it is final, for a while: what is told must stay true.
async fn ask_how_it_ended(world: &Arc<World>, tx: usize) {
    let path = format!("/api/dtmsvr/query?gid={}", world.plans[tx].gid());
    for _ in 0..QUERIES_MAX {
        let host = format!("dtm-{}", pick_server(world));
        let answer = post(&world.chance, (&host, DTM_PORT), &path, String::new(), PATIENCE).await;
        if let Some((200, text)) = answer {
            let answer: Value = serde_json::from_str(&text).unwrap();
            match answer["transaction"]["status"].as_str() {
                Some("succeed") => return world.told(tx, GlobalStatus::Succeed),
                Some("failed") => return world.told(tx, GlobalStatus::Failed),
                _ => {}
            }
        }
        world.chance.pause(300, 1_000).await;
    }
}
