//! The load: so many seats, each with a connection of its own and one transaction at a time.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::connection::{Connection, Line};
use crate::histogram::Histogram;
use crate::options::Protocol;
use crate::plan::{self, Plan};

/// How long transactions that have begun may take once no more are started.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// Error texts that are kept to be shown.
const TEXTS_MAX: usize = 5;
/// After so many errors nothing more is to be learned.
const ERRORS_MAX: u64 = 1000;
/// Pause of a seat after an error, lest it spin.
const ERROR_PAUSE: Duration = Duration::from_millis(20);

/// What is driven, and where.
pub(crate) struct Load {
    pub(crate) plan: Plan,
    pub(crate) protocol: Protocol,
    pub(crate) address: SocketAddr,
    /// Who tells of calls; needed if the plan waits for them.
    pub(crate) watch: Option<SocketAddr>,
    pub(crate) concurrency: usize,
    /// The first digits of every gid.
    pub(crate) run: u32,
    /// After so many transactions nothing more is started.
    pub(crate) count_max: u64,
}

/// What went wrong.
#[derive(Debug, Clone, Default)]
pub(crate) struct Errors {
    pub(crate) count: u64,
    pub(crate) texts: Vec<String>,
}

impl Errors {
    pub(crate) fn add(&mut self, count: u64, text: String) {
        self.count += count;
        if self.texts.len() < TEXTS_MAX && !self.texts.contains(&text) {
            self.texts.push(text);
        }
    }
}

/// What a seat does now, and what it waits for: the tells of its current transaction.
#[derive(Default)]
struct Seat {
    started: AtomicU64,
    current: AtomicU64,
    missing: AtomicU32,
    told: Notify,
}

struct Shared {
    load: Load,
    seats: Vec<Seat>,
    stop: AtomicBool,
    measuring: AtomicBool,
    started: AtomicU64,
    completed: AtomicU64,
    latencies: Mutex<Histogram>,
    errors: Mutex<Errors>,
}

/// A load that runs.
pub(crate) struct Running {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    watching: Option<tokio::task::JoinHandle<()>>,
}

/// What a load did.
#[derive(Debug)]
pub(crate) struct Done {
    /// How many transactions each seat has started.
    pub(crate) started: Vec<u64>,
    pub(crate) latencies: Histogram,
    pub(crate) errors: Errors,
}

impl Done {
    /// Returns how many transactions were started in all.
    pub(crate) fn started(&self) -> u64 {
        self.started.iter().sum()
    }

    /// Returns the number of every transaction that was started.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> {
        let seats = self.started.len() as u64;
        (0u64..)
            .zip(&self.started)
            .flat_map(move |(seat, &count)| (0..count).map(move |nth| nth * seats + seat))
    }
}

impl Running {
    /// Connects every seat and starts.
    ///
    /// # Errors
    ///
    /// The server or the participants cannot be reached.
    pub(crate) async fn start(load: Load) -> Result<Self> {
        let lines = Line::open_all(load.protocol, load.address, load.concurrency).await?;
        let watch = match load.watch.filter(|_| load.plan.tells > 0) {
            Some(address) => Some(Connection::open(address).await?),
            None if load.plan.tells > 0 => bail!("nobody would tell of the calls waited for"),
            None => None,
        };
        let shared = Arc::new(Shared {
            seats: (0..load.concurrency).map(|_| Seat::default()).collect(),
            load,
            stop: AtomicBool::new(false),
            measuring: AtomicBool::new(false),
            started: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            latencies: Mutex::default(),
            errors: Mutex::default(),
        });
        let watching = match watch {
            Some(mut stream) => {
                stream.send(b"GET /watch HTTP/1.1\r\n\r\n").await?;
                Some(tokio::spawn(listen(stream, shared.clone())))
            }
            None => None,
        };
        let mut tasks = JoinSet::new();
        for (number, line) in lines.into_iter().enumerate() {
            tasks.spawn(sit(shared.clone(), number, line));
        }
        Ok(Self { shared, tasks, watching })
    }

    /// Starts or stops keeping latencies; returns how many transactions are complete so far.
    pub(crate) fn measure(&self, measuring: bool) -> u64 {
        self.shared.measuring.store(measuring, Ordering::Relaxed);
        self.shared.completed.load(Ordering::Relaxed)
    }

    /// Waits for so long, less if everything is done or nothing works.
    pub(crate) async fn run_for(&mut self, duration: Duration) {
        let everything_done = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(duration, everything_done).await;
    }

    /// Waits until everything is done that was to be done.
    pub(crate) async fn run_out(mut self) -> Done {
        while self.tasks.join_next().await.is_some() {}
        self.finish().await
    }

    /// Starts nothing more and waits for what has begun.
    pub(crate) async fn finish(mut self) -> Done {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.run_for(DRAIN_MAX).await;
        let unfinished = self.tasks.len() as u64;
        self.tasks.shutdown().await;
        if let Some(watching) = self.watching {
            watching.abort();
        }
        let shared = self.shared;
        let latencies = shared.latencies.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut errors = shared.errors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if unfinished > 0 {
            let seconds = DRAIN_MAX.as_secs();
            errors.add(unfinished, format!("not final {seconds} s after the load had ended"));
        }
        let started = shared.seats.iter().map(|seat| seat.started.load(Ordering::Relaxed));
        Done { started: started.collect(), latencies, errors }
    }
}

impl Shared {
    fn error(&self, text: String) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        errors.add(1, text);
        if errors.count >= ERRORS_MAX {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    /// Takes the right to start one more.
    fn may_start(&self) -> bool {
        if self.stop.load(Ordering::Relaxed) {
            return false;
        }
        let is_allowed = self.started.fetch_add(1, Ordering::Relaxed) < self.load.count_max;
        if !is_allowed {
            self.started.fetch_sub(1, Ordering::Relaxed);
        }
        is_allowed
    }
}

/// One transaction after the other, until there are no more.
async fn sit(shared: Arc<Shared>, number: usize, mut line: Line) {
    let Some(seat) = shared.seats.get(number) else { return };
    let seats = shared.seats.len() as u64;
    let mut request = Vec::with_capacity(2048);
    while shared.may_start() {
        let nth = seat.started.fetch_add(1, Ordering::Relaxed);
        let transaction = nth * seats + number as u64;
        let begun = Instant::now();
        match drive(&shared, seat, transaction, &mut line, &mut request).await {
            Ok(()) => {
                shared.completed.fetch_add(1, Ordering::Relaxed);
                if shared.measuring.load(Ordering::Relaxed) {
                    let latencies = shared.latencies.lock();
                    latencies.unwrap_or_else(PoisonError::into_inner).record(begun.elapsed());
                }
            }
            Err(error) => {
                shared.error(format!("{error:#}"));
                tokio::time::sleep(ERROR_PAUSE).await;
                // The old connection may still bring an answer that nobody waits for.
                match Line::open(shared.load.protocol, shared.load.address).await {
                    Ok(fresh) => line = fresh,
                    Err(error) => shared.error(format!("{error:#}")),
                }
            }
        }
    }
}

/// Sends a transaction's requests and waits until it is over.
async fn drive(
    shared: &Shared,
    seat: &Seat,
    number: u64,
    line: &mut Line,
    request: &mut Vec<u8>,
) -> Result<()> {
    let Load { plan, run, .. } = &shared.load;
    if plan.tells > 0 {
        seat.current.store(number, Ordering::Relaxed);
        seat.missing.store(plan.tells, Ordering::Relaxed);
    }
    let gid = plan::gid(*run, number);
    for template in &plan.requests {
        template.fill(gid.as_bytes(), request);
        line.ask(template.path(), request).await?;
    }
    while plan.tells > 0 && seat.missing.load(Ordering::Relaxed) > 0 {
        seat.told.notified().await;
    }
    Ok(())
}

/// Hands tells to the seats they are for; those of earlier transactions are passed over.
async fn listen(mut stream: Connection, shared: Arc<Shared>) {
    let mut input = Vec::with_capacity(8192);
    while stream.receive(&mut input).await.is_ok_and(|count| count > 0) {
        let (tells, _) = input.as_chunks::<8>();
        for tell in tells {
            let number = plan::number_of(u64::from_le_bytes(*tell));
            let index = (number % shared.seats.len() as u64) as usize;
            let Some(seat) = shared.seats.get(index) else { continue };
            if seat.current.load(Ordering::Relaxed) != number {
                continue;
            }
            let missing = seat.missing.load(Ordering::Relaxed).saturating_sub(1);
            seat.missing.store(missing, Ordering::Relaxed);
            if missing == 0 {
                seat.told.notify_one();
            }
        }
        let whole = input.len() - input.len() % 8;
        input.drain(..whole);
    }
    if !shared.stop.load(Ordering::Relaxed) {
        shared.error("the participants stopped telling of calls".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use dtmd_demo::grpc::server::{self as grpc, GrpcCall, GrpcReply, GrpcService};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn server_that_says(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut input = Vec::new();
                    while stream.read_buf(&mut input).await.is_ok_and(|count| count > 0) {
                        input.clear();
                        stream.write_all(answer).await.unwrap();
                    }
                });
            }
        });
        address
    }

    fn load(address: SocketAddr, count_max: u64) -> Load {
        let plan = Plan::echo("h");
        let protocol = Protocol::Http;
        Load { plan, protocol, address, watch: None, concurrency: 3, run: 1, count_max }
    }

    #[tokio::test]
    async fn as_many_as_wanted_are_made_and_counted() {
        let address = server_that_says(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
        let running = Running::start(load(address, 10)).await.unwrap();
        running.measure(true);
        let done = running.run_out().await;
        assert_eq!((done.started(), done.latencies.count(), done.errors.count), (10, 10, 0));
        let mut numbers: Vec<_> = done.numbers().collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 10);
    }

    /// Refuses everything but one method.
    struct Gid;

    impl GrpcService for Gid {
        async fn call(&self, call: GrpcCall) -> GrpcReply {
            match call.path.as_str() {
                "/dtmgimp.Dtm/NewGid" => GrpcReply::Message(Bytes::new()),
                path => GrpcReply::Status(10, format!("no {path}")),
            }
        }
    }

    #[tokio::test]
    async fn over_grpc_answers_are_counted_and_refusals_are_errors() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(grpc::serve(listener, Arc::new(Gid)));
        let load = |plan| Load { plan, protocol: Protocol::Grpc, ..load(address, 5) };
        let done = Running::start(load(Plan::grpc_echo())).await.unwrap().run_out().await;
        assert_eq!((done.started(), done.errors.count), (5, 0));
        let refused = Running::start(load(Plan::grpc_bare_call())).await.unwrap().run_out().await;
        assert_eq!((refused.started(), refused.errors.count), (5, 5));
        assert!(refused.errors.texts[0].contains("no /bench"), "{:?}", refused.errors.texts);
        serving.abort();
    }

    #[tokio::test]
    async fn refusals_are_errors_with_their_text() {
        for answer in [
            &b"HTTP/1.1 409 Conflict\r\ncontent-length: 7\r\n\r\nFAILURE"[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nFAILURE",
        ] {
            let address = server_that_says(answer).await;
            let done = Running::start(load(address, 3)).await.unwrap().run_out().await;
            assert_eq!((done.started(), done.errors.count), (3, 3));
            assert!(done.errors.texts[0].contains("FAILURE"), "{:?}", done.errors.texts);
        }
    }

    #[tokio::test]
    async fn a_plan_that_waits_for_calls_needs_somebody_who_tells() {
        let address = server_that_says(b"").await;
        let plan = Plan { tells: 1, ..Plan::echo("h") };
        assert!(Running::start(Load { plan, ..load(address, 1) }).await.is_err());
    }
}
