//! The test clock's endpoints (design.md section 9): time driven from outside, for tests only.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtmd_engine::{Engine, TestControl};
use dtmd_protocol::Gid;
use http::Response;
use http::request::Parts;
use http_body_util::Full;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::accept;
use super::api::without_body;
use super::connection::{BodyError, Handler};
use super::options::InboundOptions;
use super::query_string::QueryString;
use super::reply::{Problem, Reply};

/// Longest wait for a pass, whatever the caller asks for.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Settings that a test may change while the server runs; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigChange {
    /// Where alerts are posted; empty for nowhere.
    #[serde(rename = "AlertWebHook")]
    pub alert_web_hook: Option<String>,
    /// Unknown outcomes in a row after which an alert is raised.
    #[serde(rename = "AlertRetryLimit")]
    pub alert_retry_limit: Option<u32>,
    /// Seconds between two looks at the topics.
    #[serde(rename = "ConfigUpdateInterval")]
    pub config_update_interval: Option<u64>,
}

/// Applies a change of settings, or says why it cannot.
pub type Configure = Arc<dyn Fn(ConfigChange) -> Result<(), String> + Send + Sync>;

/// Serves the test clock until `shutdown` holds true or its sender is gone.
///
/// # Errors
///
/// When the listener can be reached from other machines, or the engine was started without a test
/// clock: whoever can call this can empty the store.
pub async fn serve_test_control(
    listener: TcpListener,
    engine: Engine,
    configure: Configure,
    shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        let text = format!("--test-control {address}: only a loopback address is allowed");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    let Some(control) = engine.test_control().cloned() else {
        let text = "the engine was started without a test clock";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    };
    let limits = InboundOptions::default().limits();
    let handler = Arc::new(TestClock { control, configure });
    accept::run(listener, handler, limits, shutdown).await;
    Ok(())
}

struct TestClock {
    control: TestControl,
    configure: Configure,
}

impl Handler for TestClock {
    async fn handle(
        self: Arc<Self>,
        head: Parts,
        body: Result<Bytes, BodyError>,
    ) -> Response<Full<Bytes>> {
        let reply = match (super::guard::is_own_page_or_none(&head), body) {
            (false, _) => Reply::message(403, "not for pages of other sites"),
            (true, Err(error)) => without_body(error),
            (true, Ok(body)) => self.dispatch(&head, &body).await.unwrap_or_else(Reply::from),
        };
        reply.into()
    }
}

impl TestClock {
    async fn dispatch(&self, head: &Parts, body: &[u8]) -> Result<Reply, Problem> {
        match (head.method.as_str(), head.uri.path()) {
            ("POST", "/test/reset") => {
                self.control.reset().await?;
                Ok(Reply::success())
            }
            ("POST", "/test/clock") => {
                let Clock { now_forward_ms, cron_forward_ms } = parse(body)?;
                self.control.set_clock(now_forward_ms, cron_forward_ms);
                Ok(Reply::success())
            }
            ("POST", "/test/cron-once") => {
                let CronOnce { ignore_lease } = parse(body)?;
                Ok(gid_reply(self.control.cron_once(ignore_lease).await?))
            }
            ("GET", "/test/processed") => {
                let wait = QueryString::new(head.uri.query()).get("wait_ms");
                let wait = match wait.parse() {
                    Ok(millis) => Duration::from_millis(millis).min(WAIT_MAX),
                    Err(_) if wait.is_empty() => Duration::ZERO,
                    Err(_) => {
                        let text = format!("wait_ms: '{wait}' is not a number of milliseconds");
                        return Err(Problem::Parameter(400, text));
                    }
                };
                Ok(gid_reply(self.control.processed(wait).await))
            }
            // Topics are read from the store whenever one is published to: they are never old.
            ("POST", "/test/topics-refresh") => Ok(Reply::success()),
            ("POST", "/test/config") => {
                let refused = |text| Problem::Parameter(400, text);
                (self.configure)(parse(body)?).map_err(refused)?;
                Ok(Reply::success())
            }
            _ => Ok(Reply::not_found()),
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Clock {
    now_forward_ms: i64,
    cron_forward_ms: i64,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct CronOnce {
    ignore_lease: bool,
}

/// Decodes a body; an empty one leaves everything at its default.
fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| Problem::Parameter(400, error.to_string()))
}

fn gid_reply(gid: Option<Gid>) -> Reply {
    #[derive(serde::Serialize)]
    struct Answer<'a> {
        gid: &'a str,
    }
    let answer = Answer { gid: gid.as_ref().map_or("", Gid::as_str) };
    Reply::json(serde_json::to_vec(&answer).expect("a string is JSON"))
}
