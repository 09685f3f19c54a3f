//! TCC (spec 04 §3).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::client::{BranchCall, Client, Method};
use crate::error::{Error, Result};
use crate::gid::BranchIds;
use crate::guard;
use crate::open::Open;
use crate::options::option_methods;
use crate::payload::{Payload, Reply, payload_methods};
use crate::request::{RegisterRequest, TransRequest};
use crate::{Branch, BranchResult, Op, TransOptions, TransType};

/// The beginning of a TCC branch: where its try is. Goes on with [`confirm`](Self::confirm).
///
/// A branch that cannot be confirmed or cancelled is no branch:
///
/// ```compile_fail
/// # async fn example(dtm: dtmcli::Client) -> dtmcli::Result<()> {
/// use dtmcli::Try;
///
/// dtm.tcc().run(async |tcc| {
///     tcc.branch(Try::at("http://bank/try").confirm("http://bank/confirm")).await?;
///     Ok(())
/// }).await
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Try {
    url: String,
}

impl Try {
    /// Where try is called, by you: an `http://` or `https://` URL, or
    /// `host:port/package.Service/Method` over gRPC.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into() }
    }

    /// Where the server confirms.
    pub fn confirm(self, url: impl Into<String>) -> TryConfirm {
        TryConfirm { url: self.url, confirm: url.into() }
    }
}

/// A TCC branch that still needs its cancel.
#[derive(Debug, Clone)]
#[must_use]
pub struct TryConfirm {
    url: String,
    confirm: String,
}

impl TryConfirm {
    /// Where the server cancels. It may be called without a try having been there before, which a
    /// barrier copes with.
    pub fn cancel(self, url: impl Into<String>) -> TccBranch {
        TccBranch {
            url: self.url,
            confirm: self.confirm,
            cancel: url.into(),
            payload: Payload::default(),
        }
    }
}

/// A TCC branch: try, confirm, cancel, and the body of all three. Made by [`Try::at`].
#[derive(Debug, Clone)]
#[must_use]
pub struct TccBranch {
    pub(crate) url: String,
    pub(crate) confirm: String,
    pub(crate) cancel: String,
    pub(crate) payload: Payload,
}

impl TccBranch {
    payload_methods!();
}

/// A TCC in the making. Made by [`Client::tcc`].
#[derive(Debug)]
#[must_use = "nothing happens before it runs"]
pub struct TccBuilder {
    client: Client,
    gid: String,
    options: TransOptions,
    wait: Option<Duration>,
}

impl TccBuilder {
    pub(crate) fn new(client: Client) -> Self {
        let gid = crate::gid::new_gid();
        Self { client, gid, options: TransOptions::new(), wait: None }
    }

    option_methods!();

    /// Waits for the end of the confirms, or of the cancels if it is aborted, at most so long. Without
    /// it [`run`](Self::run) returns when the decision is stored.
    pub fn wait_at_most(mut self, at_most: Duration) -> Self {
        self.wait = Some(at_most);
        self
    }

    /// Runs the business: prepares the TCC, lets the closure open branches, and submits it.
    ///
    /// If the closure returns an error or panics, the TCC is aborted, and so it is when this
    /// future is dropped before the closure's end: the branches that were tried are cancelled.
    ///
    /// ```no_run
    /// # async fn example(dtm: dtmcli::Client, order: serde_json::Value) -> dtmcli::Result<()> {
    /// use dtmcli::Try;
    ///
    /// let receipt = dtm.tcc().run(async |tcc| {
    ///     let held = Try::at("http://bank/hold")
    ///         .confirm("http://bank/spend")
    ///         .cancel("http://bank/release")
    ///         .json(&order);
    ///     let receipt: String = tcc.branch(held).await?.json()?;
    ///     Ok(receipt)
    /// }).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The handle cannot leave the closure: after it there is nothing to add to.
    ///
    /// ```compile_fail
    /// # async fn example(dtm: dtmcli::Client) -> dtmcli::Result<()> {
    /// let tcc = dtm.tcc().run(async |tcc| Ok(tcc)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`Error::Aborted`]: the closure failed; its error is in it
    /// - [`Error::RolledBack`], [`Error::Unfinished`]: as [`Submit::wait`](crate::Submit::wait),
    ///   if it was asked to wait
    /// - any other of the prepare or the submit. After an error of the submit that
    ///   [is unknown](Error::is_unknown), query before you conclude
    pub async fn run<T, F>(self, business: F) -> Result<T>
    where
        F: AsyncFnOnce(&Tcc) -> BranchResult<T>,
    {
        let request = TransRequest::new(self.gid, TransType::Tcc, self.options)?;
        let tcc = Tcc { open: Open::of(&self.client, &request) };
        guard::decide(&self.client, &request, self.wait, business(&tcc)).await
    }
}

/// A TCC that is open for branches: within [`TccBuilder::run`], or within a branch that has
/// branches of its own ([`Client::nested_tcc`]).
#[derive(Debug)]
pub struct Tcc {
    open: Open,
}

impl Tcc {
    pub(crate) fn nested(client: Client, branch: &Branch) -> Result<Self> {
        if branch.trans_type() != TransType::Tcc || branch.op() != &Op::Try {
            let (trans_type, op) = (branch.trans_type(), branch.op());
            let text =
                format!("a nested TCC begins in a try of a TCC, not in {op} of {trans_type}");
            return Err(Error::Invalid(text));
        }
        let open = Open {
            gid: branch.gid().to_owned(),
            ids: BranchIds::below(branch.branch_id())?,
            headers: BTreeMap::new(),
            timeout: client.timeout(),
            client,
        };
        Ok(Self { open })
    }

    /// The global transaction.
    #[must_use]
    pub fn gid(&self) -> &str {
        &self.open.gid
    }

    /// Sends these headers with every try that is called from here: to a nested TCC, which does
    /// not know what the whole one has.
    #[must_use]
    pub fn with_headers<N, V>(mut self, headers: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<String>,
        V: Into<String>,
    {
        let headers = headers.into_iter().map(|(name, value)| (name.into(), value.into()));
        self.open.headers.extend(headers);
        self
    }

    /// Registers a branch, then calls its try. Branches may be tried at the same time.
    ///
    /// # Errors
    ///
    /// What try answered, or that the server refused the branch: the TCC is not prepared any more,
    /// because its time was over. Return it from the closure (`?`), which aborts.
    pub async fn branch(&self, branch: TccBranch) -> BranchResult<Reply> {
        self.register_and_try(branch).await.map_err(|error| match error {
            Stopped::Server(error) => error.into_branch_error(),
            Stopped::Branch(error) => error,
        })
    }

    async fn register_and_try(&self, branch: TccBranch) -> Result<Reply, Stopped> {
        let payload = branch.payload.get()?;
        let branch_id = self.open.ids.next()?;
        // First registered, then tried: what the server does not know it cannot cancel.
        let registration = RegisterRequest {
            gid: self.open.gid.clone(),
            trans_type: TransType::Tcc,
            branch_id: branch_id.clone(),
            data: BTreeMap::from([("confirm", branch.confirm), ("cancel", branch.cancel)]),
            payload: payload.clone(),
        };
        self.open.client.register(&registration).await?;
        let call = BranchCall {
            url: &branch.url,
            trans_type: TransType::Tcc,
            gid: &self.open.gid,
            branch_id: &branch_id,
            op: &Op::Try,
            phase2_url: None,
            tells_server: true,
            headers: &self.open.headers,
            timeout: self.open.timeout,
        };
        self.open.client.call_branch(call, payload, Method::Post).await.map_err(Stopped::Branch)
    }
}

/// Who stopped a branch.
enum Stopped {
    Server(Error),
    Branch(crate::BranchError),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Server(error)
    }
}
