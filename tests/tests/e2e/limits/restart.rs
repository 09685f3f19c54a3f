//! A start with much to do (reliability.md T16): many transactions are due at the moment at which a
//! server that was killed starts again.
//!
//! `DTMD_LIVE` sets how many (`cargo xtask prove restart` takes 100,000 and a release build).

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dtmd_tests::{Server, tell};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{Line, from_env, memory};
use crate::turn;

const LIVE: u64 = 2_000;
const CALLERS: u64 = 64;
/// How long the service takes.
const WORK: Duration = Duration::from_millis(5);
/// Submits whose times are compared, before the kill and while the server catches up.
const SAMPLES: u64 = 300;
/// How often the filling is tried, each time with a longer delay.
const ATTEMPTS: u32 = 4;
/// The longest the whole may take before it counts as hung.
const HUNG: Duration = Duration::from_secs(600);

/// A service that takes its time, and counts.
struct Counter {
    url: String,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    calls: u64,
    /// Calls by gid.
    gids: HashMap<String, u32>,
    /// When the first call after a reset came.
    first: Option<Instant>,
    /// When the last gid that had not been called before was called.
    last_new: Option<Instant>,
}

impl Counter {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/deliver", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = Arc::clone(&shared);
                let answer = service_fn(move |request: Request<Incoming>| {
                    count(&seen, request.uri().query().unwrap_or_default());
                    async {
                        tokio::time::sleep(WORK).await;
                        let body = Full::new(Bytes::from_static(b"{\"dtm_result\":\"SUCCESS\"}"));
                        Ok::<_, Infallible>(Response::new(body))
                    }
                });
                let mut server = hyper::server::conn::http1::Builder::new();
                server.timer(TokioTimer::new());
                tokio::spawn(server.serve_connection(TokioIo::new(stream), answer));
            }
        });
        Self { url, seen }
    }

    fn look<T>(&self, read: impl FnOnce(&mut Seen) -> T) -> T {
        read(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn count(seen: &Mutex<Seen>, query: &str) {
    let gid = query.split('&').find_map(|pair| pair.strip_prefix("gid=")).unwrap_or_default();
    let now = Instant::now();
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.calls += 1;
    seen.first.get_or_insert(now);
    let calls = seen.gids.entry(gid.to_owned()).or_insert(0);
    *calls += 1;
    if *calls == 1 {
        seen.last_new = Some(now);
    }
}

/// A message of this delay, in seconds.
fn message(gid: &str, url: &str, delay: u64) -> serde_json::Value {
    json!({
        "gid": gid, "trans_type": "msg", "steps": [{ "action": url }], "payloads": ["{}"],
        "custom_data": format!("{{\"delay\":{delay}}}"),
    })
}

/// Submits messages that are not due yet, on many connections.
async fn fill(server: &Server, attempt: u32, url: &str, live: u64, delay: u64) {
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (address, url) = (server.address().to_owned(), url.to_owned());
        callers.spawn(async move {
            let mut line = Line::open(&address).await;
            for nth in (caller..live).step_by(CALLERS as usize) {
                let gid = format!("live-{attempt}-{nth}");
                let told = line.post("submit", &message(&gid, &url, delay)).await;
                assert_eq!(told.status, 200, "{}", told.body);
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended.expect("a caller has failed");
    }
}

/// How long submits take, one after the other with a pause: the median and the 99th percentile.
async fn submit_times(server: &Server, name: &str) -> (Duration, Duration) {
    let mut line = Line::open(server.address()).await;
    let mut times = Vec::new();
    for nth in 0..SAMPLES {
        let body = json!({
            "gid": format!("{name}-{nth}"), "trans_type": "saga",
            "steps": [{ "action": "", "compensate": "" }], "payloads": [""],
        });
        let begun = Instant::now();
        assert_eq!(line.post("submit", &body).await.status, 200);
        times.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_much_to_do_starts_and_does_it() {
    let _turn = turn::alone().await;
    let live = from_env("DTMD_LIVE").unwrap_or(LIVE);
    let counter = Counter::start().await;
    let mut server = Server::start().await;
    let normal = submit_times(&server, "before").await;
    // Long enough that few are due before all are there, judged by how long one submit takes.
    let guess = normal.1.mul_f64(live as f64 / 16.0).as_secs().min(300) + 4;
    let mut delay = from_env("DTMD_LIVE_DELAY").unwrap_or(guess);
    let (mut begun, mut filled, mut early) = (Instant::now(), Instant::now(), 0);
    let mut prefix = String::new();
    for attempt in 0..ATTEMPTS {
        begun = Instant::now();
        fill(&server, attempt, &counter.url, live, delay).await;
        filled = Instant::now();
        prefix = format!("live-{attempt}-");
        early = counter.look(|seen| {
            seen.gids.retain(|gid, _| gid.starts_with(&prefix));
            seen.gids.len() as u64
        });
        if early * 10 < live {
            break;
        }
        // The machine is slower than it was a moment ago.
        delay *= 3;
    }
    assert!(early * 10 < live, "{early} of {live} were due before all were there: DTMD_LIVE_DELAY");
    let (held, _) = memory(&server);
    server.process.kill_9().await.unwrap();
    counter.look(|seen| (seen.calls, seen.first) = (0, None));
    tokio::time::sleep_until((filled + Duration::from_secs(delay + 1)).into()).await;

    let started = Instant::now();
    server.process.restart().await.unwrap();
    let ready = started.elapsed();
    let (at_start, _) = memory(&server);
    let meanwhile = submit_times(&server, "meanwhile").await;
    loop {
        let list = server.get("all?status=submitted&limit=1").await.json();
        if list["transactions"].as_array().unwrap().is_empty() {
            break;
        }
        assert!(started.elapsed() < HUNG, "it does not get to an end: {list}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let drained = started.elapsed();
    let (_, most) = memory(&server);
    let (calls, gids, first, last) = counter.look(|seen| {
        let since = |at: Option<Instant>| at.map_or(Duration::ZERO, |at| at - started);
        let gids = seen.gids.keys().filter(|gid| gid.starts_with(&prefix)).count() as u64;
        (seen.calls, gids, since(seen.first), since(seen.last_new))
    });
    tell(&format!(
        "restart with {} live: filled in {:.1} s ({} MiB), ready after {} ms, first call after {} \
         ms, last after {:.1} s, all final after {:.1} s, {calls} calls; {} MiB when ready, {} MiB \
         at most; a submit takes {} µs (p50) and {} µs (p99), meanwhile {} µs and {} µs",
        live - early,
        (filled - begun).as_secs_f64(),
        held / 1024,
        ready.as_millis(),
        first.as_millis(),
        last.as_secs_f64(),
        drained.as_secs_f64(),
        at_start / 1024,
        most / 1024,
        normal.0.as_micros(),
        normal.1.as_micros(),
        meanwhile.0.as_micros(),
        meanwhile.1.as_micros(),
    ));
    assert_eq!(gids, live, "every message was delivered");
}
