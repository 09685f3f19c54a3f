//! A service whose answers a test chooses, and which remembers its calls.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::any;
use dtmcli::axum::{Answer, BranchCall, Done};
use dtmcli::tower::{BranchLayer, Forwarded};
use dtmcli::{BranchError, Client, Error, Try};

/// What a path answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Say {
    Failure,
    Ongoing,
    Retry,
    /// Nothing, until the caller has gone.
    Nothing,
}

#[derive(Clone)]
pub(crate) struct Service {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    calls: Mutex<Vec<String>>,
    answers: Mutex<HashMap<String, VecDeque<Say>>>,
}

impl Service {
    /// Starts one on a free port; it ends with the test's runtime.
    pub(crate) async fn start(client: Client) -> Self {
        Self::start_with(client, |router| router).await
    }

    /// Starts one with more routes.
    pub(crate) async fn start_with(client: Client, more: impl FnOnce(Router) -> Router) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let service = Self {
            address: format!("http://{}", listener.local_addr().unwrap()),
            shared: Arc::new(Shared { client, calls: Mutex::default(), answers: Mutex::default() }),
        };
        let router: Router = Router::new()
            .route("/nested", any(nested))
            .route("/nothing", any(|| async {}))
            .fallback(branch)
            .with_state(service.clone());
        let router = more(router).layer(BranchLayer::new().forward("x-trace"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        service
    }

    /// The URL of a path.
    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    /// Chooses the next answers of a path; after them it says success.
    pub(crate) fn answer(&self, path: &str, answers: &[Say]) {
        let mut all = self.shared.answers.lock().unwrap();
        all.insert(path.to_owned(), answers.iter().copied().collect());
    }

    /// All calls so far: path, op, branch id.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.shared.calls.lock().unwrap().clone()
    }

    /// How often a call was made.
    pub(crate) fn count(&self, call: &str) -> usize {
        self.calls().iter().filter(|made| *made == call).count()
    }

    /// Waits until a call was made.
    pub(crate) async fn called(&self, call: &str) {
        let begun = Instant::now();
        while self.count(call) == 0 {
            assert!(begun.elapsed() < crate::PATIENCE, "no {call} in {:?}", self.calls());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn next(&self, path: &str) -> Option<Say> {
        self.shared.answers.lock().unwrap().get_mut(path)?.pop_front()
    }

    fn record(&self, path: &str, branch: &dtmcli::Branch) {
        let call = format!("{path} {} {}", branch.op(), branch.branch_id());
        self.shared.calls.lock().unwrap().push(call);
    }
}

/// Any path: as the test has chosen.
async fn branch(
    State(service): State<Service>,
    BranchCall(branch): BranchCall,
    uri: Uri,
) -> Answer {
    service.record(uri.path(), &branch);
    match service.next(uri.path()) {
        None => Ok(Done),
        Some(Say::Failure) => Err(BranchError::failure("the test says no").into()),
        Some(Say::Ongoing) => Err(BranchError::ongoing("the test says later").into()),
        Some(Say::Retry) => Err(BranchError::retry("the test has broken it").into()),
        Some(Say::Nothing) => std::future::pending().await,
    }
}

/// A try that has two branches of its own.
async fn nested(
    State(service): State<Service>,
    BranchCall(branch): BranchCall,
    forwarded: Forwarded,
) -> Answer {
    let traced =
        forwarded.clone().into_iter().any(|(name, value)| name == "x-trace" && value == "7");
    if !traced {
        return Err(BranchError::failure("the header is lost").into());
    }
    service.record("/nested", &branch);
    let inner = service.shared.client.nested_tcc(&branch).map_err(Error::into_branch_error)?;
    let inner = inner.with_headers(forwarded);
    for path in ["/left", "/right"] {
        let branch = Try::at(service.at(&format!("{path}/try")))
            .confirm(service.at(&format!("{path}/confirm")))
            .cancel(service.at(&format!("{path}/cancel")));
        inner.branch(branch.json(&1)).await?;
    }
    Ok(Done)
}
