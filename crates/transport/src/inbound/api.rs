//! DTM's API over an engine.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use dtmd_engine::{Engine, EngineError, RequestSeries};
use http::Response;
use http::request::Parts;
use http_body_util::Full;
use tracing::debug;

use super::connection::{BodyError, Handler};
use super::guard::{self, Principal};
use super::handlers::{json_rpc, operating, operations, queries, system, transactions};
use super::options::InboundOptions;
use super::query_string::QueryString;
use super::reply::{Problem, Reply};
use super::router::{Found, Route, find};
use super::spans::RequestSpan;
use super::trace::TraceContext;

/// What the handlers work with.
pub(super) struct Api {
    pub(super) engine: Engine,
    pub(super) options: InboundOptions,
    /// By route and whether it went well.
    series: [[OnceLock<RequestSeries>; 2]; Route::COUNT],
}

/// One request, as the handlers see it.
pub(super) struct Asked<'a> {
    pub(super) principal: Principal,
    /// The trace it belongs to, and its own span in it.
    pub(super) span: RequestSpan,
    pub(super) query: QueryString<'a>,
    /// What the path names, still encoded.
    pub(super) name: &'a str,
    pub(super) body: &'a [u8],
}

impl Api {
    pub(super) fn new(engine: Engine, options: InboundOptions) -> Self {
        Self { engine, options, series: Default::default() }
    }

    async fn reply(&self, route: Route, head: &Parts, name: &str, body: &[u8]) -> Reply {
        let principal = match guard::admit(head) {
            Ok(principal) => principal,
            Err(text) => return Reply::message(403, text),
        };
        let query = QueryString::new(head.uri.query());
        let trace = TraceContext::of(&head.headers);
        let span = match traced(route) {
            Some(is_root) => self.options.spans.begin("http", route.name(), is_root, trace),
            None => RequestSpan::untold(trace),
        };
        let asked = Asked { principal, span, query, name, body };
        let reply = self.dispatch(route, &asked).await.unwrap_or_else(Reply::from);
        asked.span.end((200..400).contains(&reply.status()));
        reply
    }

    async fn dispatch(&self, route: Route, asked: &Asked<'_>) -> Result<Reply, Problem> {
        let Asked { body, .. } = asked;
        let done = |()| Reply::success();
        match route {
            Route::Submit => transactions::submit(self, asked, body).await.map(done),
            Route::Prepare => transactions::prepare(self, asked, body).await.map(done),
            Route::RegisterBranch => {
                transactions::register_branch(self, asked, body).await.map(done)
            }
            Route::Abort => transactions::abort(self, asked, body).await.map(done),
            Route::ForceStop => transactions::force_stop(self, asked, body).await.map(done),
            Route::PrepareWorkflow => transactions::prepare_workflow(self, asked).await,
            Route::Query => queries::query(self, asked).await,
            Route::All => queries::all(self, asked).await,
            Route::ScanKv => queries::scan_kv(self, asked).await,
            Route::QueryKv => queries::query_kv(self, asked).await,
            Route::ResetCronTime => operations::reset_cron_time(self, asked).await,
            Route::ResetNextCronTime => {
                operations::reset_next_cron_time(self, body).await.map(done)
            }
            Route::Subscribe => operations::subscribe(self, asked).await.map(done),
            Route::Unsubscribe => operations::unsubscribe(self, asked).await.map(done),
            Route::DeleteTopic => operations::delete_topic(self, asked).await.map(done),
            Route::JsonRpc => Ok(json_rpc::serve(self, asked).await),
            Route::Version => Ok(system::version(self)),
            Route::NewGid => Ok(system::new_gid()),
            Route::Metrics => Ok(system::metrics(self).await),
            Route::Ping => Ok(system::ping()),
            Route::Healthz => Ok(system::healthz()),
            Route::Readyz => Ok(system::readyz(self).await),
            Route::Attempts => operating::attempts(self, asked).await,
            Route::Alerts => Ok(operating::alerts(self)),
            Route::Info => Ok(operating::info(self).await),
            Route::Store => Ok(operating::store(self).await),
            Route::Root => Ok(system::root(self)),
            Route::NotFound => Ok(Reply::not_found()),
        }
    }
}

impl Handler for Api {
    async fn handle(
        self: Arc<Self>,
        head: Parts,
        body: Result<Bytes, BodyError>,
    ) -> Response<Full<Bytes>> {
        let mut measured =
            Measured { api: &self, route: Route::NotFound, since: Instant::now(), status: 0 };
        let reply = match find(&head.method, head.uri.path()) {
            Found::Route(route, name) => {
                measured.route = route;
                match body {
                    Ok(body) => self.reply(route, &head, name, &body).await,
                    Err(error) => without_body(error),
                }
            }
            Found::Redirect(status, path) => match head.uri.query() {
                Some(query) => Reply::redirect(status, &format!("{path}?{query}")),
                None => Reply::redirect(status, path),
            },
        };
        measured.status = reply.status();
        debug!(
            method = %head.method,
            route = measured.route.name(),
            status = measured.status,
            ms = u64::try_from(measured.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            "request"
        );
        reply.into()
    }

    fn admit_body(&self, bytes: usize) -> Result<(), EngineError> {
        self.engine.admit_body(bytes)
    }
}

/// Returns whether a request is traced: those that change a transaction. True if it may bring a new
/// one, and so begin a trace.
fn traced(route: Route) -> Option<bool> {
    match route {
        Route::Submit | Route::Prepare | Route::PrepareWorkflow | Route::JsonRpc => Some(true),
        Route::RegisterBranch | Route::Abort | Route::ForceStop => Some(false),
        _ => None,
    }
}

/// Answers a request whose body could not be had.
pub(super) fn without_body(error: BodyError) -> Reply {
    match error {
        BodyError::TooLarge { max } => {
            let text = format!("the request's body is larger than the limit of {max} bytes");
            Reply::message(413, &text).and_close()
        }
        BodyError::Refused(error) => Problem::from(error).into(),
        BodyError::Broken(error) => {
            let text = format!("the request's body cannot be read: {error}");
            Reply::message(400, &text).and_close()
        }
    }
}

/// Counts a request when it ends, be it by an answer, a panic or a client that hung up.
struct Measured<'a> {
    api: &'a Api,
    route: Route,
    since: Instant,
    status: u16,
}

impl Drop for Measured<'_> {
    fn drop(&mut self) {
        let is_ok = (200..400).contains(&self.status);
        let series = self.api.series[self.route as usize][usize::from(is_ok)].get_or_init(|| {
            self.api.engine.metrics().request_series("http", self.route.name(), is_ok)
        });
        series.count(self.since.elapsed());
    }
}
