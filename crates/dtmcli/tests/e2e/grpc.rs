//! The same over gRPC: the server, and services on tonic.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use dtmcli::tonic::{BranchInterceptor, OrStatus as _, branch_of};
use dtmcli::{
    BranchError, BranchResult, Call, Client, Delivery, Error, GlobalStatus, Step, TransOptions,
    Try, Workflow, Workflows,
};
use dtmcli_test::TestServer;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, BoxFuture, Service, StdError, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status};

use crate::until;

/// A service `bank.Bank` with any method; what it answers is chosen by the method's name.
#[derive(Clone, Default)]
struct Bank {
    calls: Arc<Mutex<Vec<String>>>,
    /// How often a method is to fail with an error that is no result.
    broken: Arc<Mutex<HashMap<String, usize>>>,
}

impl Bank {
    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn count(&self, call: &str) -> usize {
        self.calls().iter().filter(|made| *made == call).count()
    }

    fn answer(&self, method: &str, request: &Request<String>) -> Result<String, Status> {
        let branch = branch_of(request)?;
        let (op, id, body) = (branch.op(), branch.branch_id(), request.get_ref());
        self.calls.lock().unwrap().push(format!("{method} {op} {id} {body}"));
        if let Some(left) = self.broken.lock().unwrap().get_mut(method).filter(|left| **left > 0) {
            *left -= 1;
            return Err(BranchError::retry("the test has broken it")).or_status();
        }
        if method == "Refuse" {
            return Err(BranchError::failure("the test says no")).or_status();
        }
        Ok(format!("done {body}"))
    }
}

impl NamedService for Bank {
    const NAME: &'static str = "bank.Bank";
}

impl<B> Service<http::Request<B>> for Bank
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let bank = self.clone();
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        Box::pin(async move {
            let codec = tonic_prost::ProstCodec::<String, String>::default();
            Ok(Grpc::new(codec).unary(Method(bank, method), request).await)
        })
    }
}

struct Method(Bank, String);

impl UnaryService<String> for Method {
    type Response = String;
    type Future = BoxFuture<Response<String>, Status>;

    fn call(&mut self, request: Request<String>) -> Self::Future {
        let answer = self.0.answer(&self.1, &request);
        Box::pin(async move { answer.map(Response::new) })
    }
}

struct Stage {
    server: TestServer,
    dtm: Client,
    bank: Bank,
    address: String,
    workflows: Workflows,
}

async fn stage() -> Stage {
    let server = TestServer::start().await;
    let dtm = Client::new(server.grpc_url()).unwrap();
    let bank = Bank::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let at = address.clone();
    let workflows = Workflows::builder(dtm.clone(), &address)
        .options(TransOptions::new().retry_interval(Duration::from_secs(5)))
        .register("transfer", move |wf, amount| transfer(wf, amount, at.clone()))
        .build()
        .unwrap();
    let serve = tonic::transport::Server::builder()
        .add_service(InterceptedService::new(bank.clone(), BranchInterceptor))
        .add_service(workflows.grpc_service())
        .serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener));
    tokio::spawn(serve);
    Stage { server, dtm, bank, address, workflows }
}

async fn transfer(mut wf: Workflow, amount: String, address: String) -> BranchResult<String> {
    let call = |method: &str| Call::grpc(format!("{address}/bank.Bank/{method}")).message(&amount);
    let out: String = wf.step().undo(call("OutUndo")).call(call("Out")).await?.message()?;
    if amount == "too much" {
        wf.step().call(call("Refuse")).await?;
    }
    wf.step().undo(call("InUndo")).call(call("In")).await?;
    Ok(out)
}

impl Stage {
    fn at(&self, method: &str) -> String {
        format!("{}/bank.Bank/{method}", self.address)
    }

    fn step(&self, method: &str) -> Step {
        Step::at(self.at(method))
            .compensate(self.at(&format!("{method}Undo")))
            .message(&"30".to_owned())
    }
}

#[tokio::test]
async fn sagas() {
    let stage = stage().await;
    assert_eq!(stage.dtm.new_gid().await.unwrap().len(), 22);
    let saga = stage.dtm.saga().step(stage.step("Out")).step(stage.step("In"));
    saga.submit().wait().await.unwrap();
    assert_eq!(stage.bank.calls(), ["Out action 01 30", "In action 02 30"]);

    let saga = stage.dtm.saga().step(stage.step("Out")).step(stage.step("Refuse"));
    let error = saga.submit().wait().await.unwrap_err();
    match &error {
        Error::RolledBack { reason, .. } => {
            assert!(reason.contains("the test says no"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(stage.bank.count("OutUndo compensate 01 30"), 1);
    assert_eq!(stage.dtm.query("nobody").await.unwrap(), None);
}

#[tokio::test]
async fn tccs() {
    let stage = stage().await;
    let branch = |try_method: &str| {
        Try::at(stage.at(try_method))
            .confirm(stage.at("Confirm"))
            .cancel(stage.at("Cancel"))
            .message(&"30".to_owned())
    };
    let run = stage.dtm.tcc().wait_at_most(crate::PATIENCE);
    let reply: String =
        run.run(async |tcc| tcc.branch(branch("Try")).await?.message()).await.unwrap();
    assert_eq!(reply, "done 30");
    assert_eq!(stage.bank.calls(), ["Try try 01 30", "Confirm confirm 01 30"]);

    let run = stage.dtm.tcc().gid("g-1");
    let error = run.run(async |tcc| tcc.branch(branch("Refuse")).await).await.unwrap_err();
    assert!(matches!(&error, Error::Aborted { cause: BranchError::Failure(_), .. }), "{error:?}");
    until(&stage.dtm, "g-1", GlobalStatus::Failed).await;
    assert_eq!(stage.bank.count("Cancel cancel 01 30"), 1);
}

#[tokio::test]
async fn messages_that_are_not_finished() {
    let stage = stage().await;
    stage.bank.broken.lock().unwrap().insert("In".to_owned(), 1);
    let message = stage
        .dtm
        .msg()
        .gid("g-2")
        .concurrent()
        .deliver(Delivery::at(stage.at("In")).message(&"30".to_owned()));
    let moment = Duration::from_millis(50);
    let error = message.submit().wait_at_most(moment).await.unwrap_err();
    assert!(matches!(&error, Error::Unfinished { .. }), "{error:?}");
    stage.server.clock().forward(Duration::from_secs(60)).await;
    until(&stage.dtm, "g-2", GlobalStatus::Succeed).await;
}

#[tokio::test]
async fn workflows() {
    let stage = stage().await;
    let result: String = stage.workflows.execute("transfer", "g-3", "30").await.unwrap();
    assert_eq!(result, "done 30");
    assert_eq!(stage.bank.calls(), ["Out action 01 30", "In action 02 30"]);
    let again: String = stage.workflows.execute("transfer", "g-3", "30").await.unwrap();
    assert_eq!((again.as_str(), stage.bank.calls().len()), ("done 30", 2));

    let error = stage.workflows.execute::<String>("transfer", "g-4", "too much").await.unwrap_err();
    assert!(error.is_rolled_back(), "{error:?}");
    assert_eq!(stage.bank.count("OutUndo rollback 01 too much"), 1);

    stage.bank.broken.lock().unwrap().insert("In".to_owned(), 1);
    let error = stage.workflows.execute::<String>("transfer", "g-5", "31").await.unwrap_err();
    assert!(matches!(error, Error::Suspended { .. }), "{error:?}");
    stage.server.clock().forward(Duration::from_secs(60)).await;
    until(&stage.dtm, "g-5", GlobalStatus::Succeed).await;
    assert_eq!(stage.bank.count("Out action 01 31"), 1);
    assert_eq!(stage.bank.count("In action 02 31"), 2);
}

#[tokio::test]
async fn a_server_that_is_not_there() {
    let dtm = Client::new("grpc://127.0.0.1:1").unwrap();
    let error = dtm.saga().step(Step::at("h:1/a.B/C")).submit().await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
}
