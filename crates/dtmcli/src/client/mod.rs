//! The client: one server, and the ways to reach it.

mod branch_call;
mod builder;
#[cfg(feature = "outbox")]
mod outbox;
mod topics;
mod wait;

use std::sync::Arc;
use std::time::Duration;

pub use builder::ClientBuilder;
pub(crate) use topics::Change;
pub use topics::Topics;

pub(crate) use branch_call::{BranchCall, Method};

use crate::error::{Error, Result};
use crate::outcome::Words;
use crate::request::{Operation, RegisterRequest, TransRequest};
use crate::transaction::{GlobalStatus, Transaction};
use crate::{Branch, BranchResult, Msg, Saga, Tcc, TccBuilder, TransType, Xa, XaBuilder};

/// How often a request is sent again to a server that does not accept connections, and the first
/// pause before it: a server that is being restarted is back within that time, mostly.
const CONNECT_ATTEMPTS: u32 = 4;
const CONNECT_PAUSE: Duration = Duration::from_millis(50);

/// A client of one transaction manager: where every global transaction begins.
///
/// Cheap to clone; clones share the connections, which are kept. Make one per process and server.
///
/// ```no_run
/// # async fn example() -> Result<(), dtmcli::Error> {
/// use std::time::Duration;
/// use dtmcli::Client;
///
/// let dtm = Client::new("http://127.0.0.1:36789")?; // or https://, grpc://, grpcs://
/// let dtm = Client::from_env()?;                     // DTM_SERVER and DTM_TOKEN
/// let dtm = Client::builder("https://dtm.internal")
///     .token("s3cret")
///     .timeout(Duration::from_secs(3))
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    server: Server,
    #[cfg(feature = "http")]
    http: crate::transport::http::HttpCaller,
    #[cfg(feature = "grpc")]
    grpc: crate::transport::grpc::GrpcCaller,
    timeout: Duration,
    words: Words,
}

/// How the server is spoken to.
enum Server {
    #[cfg(feature = "http")]
    Http(Box<crate::transport::server::HttpServer>),
    #[cfg(feature = "grpc")]
    Grpc(crate::transport::grpc_server::GrpcServer),
}

/// Calls the same method of whatever server there is.
macro_rules! on_server {
    ($client:expr, $server:ident => $call:expr) => {
        match &$client.inner.server {
            #[cfg(feature = "http")]
            Server::Http($server) => $call,
            #[cfg(feature = "grpc")]
            Server::Grpc($server) => $call,
        }
    };
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("server", &self.server_address()).finish_non_exhaustive()
    }
}

impl Client {
    /// A client with the defaults.
    ///
    /// # Errors
    ///
    /// As [`ClientBuilder::build`].
    pub fn new(url: impl Into<String>) -> Result<Self> {
        Self::builder(url).build()
    }

    /// Sets up a client of the server at this URL: `http://` or `https://` (with the path, if it
    /// is not DTM's `/api/dtmsvr`), `grpc://` or `grpcs://`.
    pub fn builder(url: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(url)
    }

    /// A client of the server that the environment names: `DTM_SERVER` (by default
    /// `http://127.0.0.1:36789`) and `DTM_TOKEN`.
    ///
    /// # Errors
    ///
    /// As [`ClientBuilder::build`].
    pub fn from_env() -> Result<Self> {
        ClientBuilder::from_variables(|name| std::env::var(name).ok()).build()
    }

    /// Begins a saga: actions, and compensations in reverse if one is refused.
    pub fn saga(&self) -> Saga {
        Saga::new(self.clone())
    }

    /// Begins a TCC: try by you, confirm or cancel by the server.
    pub fn tcc(&self) -> TccBuilder {
        TccBuilder::new(self.clone())
    }

    /// Begins an XA transaction over databases that can prepare.
    pub fn xa(&self) -> XaBuilder {
        XaBuilder::new(self.clone())
    }

    /// Begins a message that is delivered if, and only if, a local transaction commits.
    pub fn msg(&self) -> Msg {
        Msg::new(self.clone())
    }

    /// Goes on with the TCC that this service is called for, from within its own try: branches of
    /// branches, to any depth. They are confirmed or cancelled with the whole.
    ///
    /// The server is this client's, not the one that the call names: who can call a service must
    /// not choose where its requests, and its token, go.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the branch is not one of a TCC, or is nested too deeply to have more.
    pub fn nested_tcc(&self, branch: &Branch) -> Result<Tcc> {
        Tcc::nested(self.clone(), branch)
    }

    /// Registers the XA branch that this service is called for, from within its local transaction.
    /// What the server does not know it cannot commit; and once it rolls back it refuses.
    ///
    /// [`xa_branch`](Self::xa_branch) does this and all the rest; this is for local transactions
    /// that it does not fit.
    ///
    /// # Errors
    ///
    /// [`BranchError`](crate::BranchError): `Failure` if the server refuses, because it has begun
    /// to roll back. After any of them the local transaction must be rolled back.
    pub async fn register_xa(&self, branch: &Branch) -> BranchResult {
        Xa::register(self, branch).await.map_err(Error::into_branch_error)
    }

    /// Serves the branch of an XA transaction: one endpoint for all its calls. The action runs the
    /// business, registers the branch with the server and prepares it; the commit and the rollback
    /// end what was prepared.
    ///
    /// ```ignore
    /// async fn out(BranchCall(branch): BranchCall, State(app): State<App>, body: Bytes) -> Answer {
    ///     app.dtm.xa_branch(&branch, &app.pool, async |tx| debit(tx, &body).await).await?;
    ///     Ok(Done)
    /// }
    /// ```
    ///
    /// The commit and the rollback come without a body, so decode it within the closure, which runs
    /// for the action only.
    ///
    /// # Errors
    ///
    /// What the business answers; `Failure` if the server refuses the branch because it has begun
    /// to roll back; else [`BranchError::Retry`](crate::BranchError::Retry), to be called again.
    #[cfg(any(
        feature = "mysql-async",
        feature = "sqlx-mysql",
        feature = "sqlx-postgres",
        feature = "tokio-postgres"
    ))]
    pub async fn xa_branch<D, F>(&self, branch: &Branch, db: &D, business: F) -> BranchResult
    where
        D: crate::xa::XaDb,
        F: AsyncFnOnce(&mut D::Session) -> BranchResult,
    {
        branch.xa(db, async || self.register_xa(branch).await, business).await
    }

    /// The topics of this server.
    #[must_use]
    pub fn topics(&self) -> Topics {
        Topics::new(self.clone())
    }

    /// Asks the server for a gid. Nothing needs this: without one of yours, each transaction gets
    /// one that nobody has. It does tell that the server is there.
    ///
    /// # Errors
    ///
    /// The server's; see [`Error`].
    pub async fn new_gid(&self) -> Result<String> {
        let gid = self
            .repeat(move || async move { on_server!(self, server => server.new_gid().await) })
            .await?;
        if gid.is_empty() {
            let text = "the answer has no gid".to_owned();
            return Err(Error::Unexpected { what: "newGid", status: 200, text });
        }
        Ok(gid)
    }

    /// Asks for a global transaction and its branches; `None` if the server does not know it.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] over gRPC with a server that is not dtmd; else the server's.
    pub async fn query(&self, gid: &str) -> Result<Option<Transaction>> {
        self.repeat(move || async move { on_server!(self, server => server.query(gid).await) })
            .await
    }

    /// Waits until a global transaction is final, and returns it, whether it succeeded or failed.
    ///
    /// # Errors
    ///
    /// [`Error::Unfinished`] when the time is over: it goes on, and may be waited for again.
    /// [`Error::Failure`] if the server does not know it. [`Error::Unsupported`] as
    /// [`query`](Self::query).
    pub async fn wait(&self, gid: &str, at_most: Duration) -> Result<Transaction> {
        wait::until_final(self, gid, None, at_most).await
    }

    /// What branches that are called from here are told as the server's address.
    pub(crate) fn server_address(&self) -> &str {
        on_server!(self, server => server.address())
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.inner.timeout
    }

    pub(crate) async fn call(&self, operation: Operation, request: &TransRequest) -> Result<()> {
        self.repeat(move || async move {
            on_server!(self, server => server.call(operation, request).await)
        })
        .await
    }

    /// Whether the server is spoken to over gRPC.
    #[cfg(feature = "workflow")]
    pub(crate) fn is_grpc(&self) -> bool {
        match &self.inner.server {
            #[cfg(feature = "http")]
            Server::Http(_) => false,
            #[cfg(feature = "grpc")]
            Server::Grpc(_) => true,
        }
    }

    #[cfg(feature = "workflow")]
    pub(crate) async fn prepare_workflow(
        &self,
        request: &TransRequest,
    ) -> Result<crate::workflow::progress::Progress> {
        self.repeat(move || async move {
            on_server!(self, server => server.prepare_workflow(request).await)
        })
        .await
    }

    pub(crate) async fn register(&self, request: &RegisterRequest) -> Result<()> {
        self.repeat(
            move || async move { on_server!(self, server => server.register(request).await) },
        )
        .await
    }

    /// Submits, and with `wait` finds out how the transaction ends.
    pub(crate) async fn submit(
        &self,
        request: &TransRequest,
        wait: Option<Duration>,
    ) -> Result<GlobalStatus> {
        let submitted = self.call(Operation::Submit, request).await;
        match wait {
            None => submitted.map(|()| GlobalStatus::Submitted),
            Some(at_most) => wait::settle(self, request, submitted, at_most).await,
        }
    }

    /// Repeats while there is no connection: what was not sent can be sent again.
    ///
    /// Not an `AsyncFn`: the futures of one that borrows are not known to be `Send`.
    async fn repeat<T, F>(&self, call: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut pause = CONNECT_PAUSE;
        for _ in 1..CONNECT_ATTEMPTS {
            match call().await {
                Err(Error::Connect { .. }) => {}
                answer => return answer,
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        call().await
    }

    /// The status of a transaction that is known to be there; `None` if it is not there after all.
    async fn status(
        &self,
        gid: &str,
        trans_type: Option<TransType>,
    ) -> Result<Option<Transaction>> {
        let answer = self.query(gid).await;
        #[cfg(feature = "grpc")]
        if let (Err(Error::Unsupported(_)), Some(trans_type), Server::Grpc(server)) =
            (&answer, trans_type, &self.inner.server)
        {
            let status = server.probe(gid, trans_type).await?;
            return Ok(Some(Transaction {
                gid: gid.to_owned(),
                trans_type: trans_type.as_str().to_owned(),
                status,
                rollback_reason: String::new(),
                branches: Vec::new(),
            }));
        }
        let _ = trans_type;
        answer
    }
}
