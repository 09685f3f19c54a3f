//! Connections: kept, expired, found closed, bounded.

use super::super::pool::idle_count;
use super::*;

async fn wait_until(mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not come to be");
}

#[tokio::test]
async fn calls_one_after_another_share_a_connection() {
    let service = Service::always(OK).await;
    let caller = caller();
    for _ in 0..50 {
        assert_eq!(call_url(&caller, service.url("/a")).await.outcome, Outcome::Success);
        assert_eq!(call_url(&caller, service.url("/b")).await.outcome, Outcome::Success);
    }
    assert_eq!(service.connections(), 1);
    assert_eq!(service.seen().len(), 100);
}

#[tokio::test]
async fn answers_that_end_the_connection_are_believed() {
    for text in [
        "HTTP/1.1 200 OK\r\nConnection: Keep-Alive, Close\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    ] {
        let service = Service::always(text).await;
        let caller = caller();
        for _ in 0..3 {
            assert_eq!(call_url(&caller, service.url("/")).await.outcome, Outcome::Success);
        }
        assert_eq!(service.connections(), 3, "{text}");
        assert_eq!(idle_count(&caller.pool), 0);
    }
}

#[tokio::test]
async fn a_kept_connection_that_is_closed_under_the_request_is_replaced_once() {
    // The second request on each connection finds it closing: read, and never answered.
    let service = Service::start(|turn| match turn.request {
        0 => keep(OK),
        _ => Reply::Close(vec![]),
    })
    .await;
    let caller = caller();
    for _ in 0..5 {
        assert_eq!(call_url(&caller, service.url("/")).await.outcome, Outcome::Success);
    }
    assert_eq!(service.connections(), 5);
    let seen = service.seen();
    assert_eq!(seen.len(), 9, "each call but the first was sent twice");
    assert!(seen.iter().all(|request| *request == seen[0]), "and was the same each time");
}

#[tokio::test]
async fn a_new_connection_that_is_closed_is_not_tried_again() {
    let service = Service::start(|turn| match (turn.connection, turn.request) {
        (0, 0) => keep(OK),
        _ => Reply::Close(vec![]),
    })
    .await;
    let caller = caller();
    assert_eq!(call_url(&caller, service.url("/")).await.outcome, Outcome::Success);
    let answer = call_url(&caller, service.url("/")).await;
    assert!(text_of(&answer).ends_with("the connection was closed"), "{answer:?}");
    assert!(answer.unreachable);
    assert_eq!(service.seen().len(), 3);
}

#[tokio::test]
async fn connections_closed_while_idle_are_passed_over() {
    let service = Service::start(|_| Reply::Close(OK.as_bytes().to_vec())).await;
    let caller = caller();
    for _ in 0..10 {
        assert_eq!(call_url(&caller, service.url("/")).await.outcome, Outcome::Success);
        wait_until(|| caller.connector.open_count() == 0).await;
    }
    assert_eq!(service.seen().len(), 10, "nothing was sent twice");
}

#[tokio::test]
async fn garbage_after_an_answer_is_not_the_next_answer() {
    let text = format!("{OK}HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n");
    let service = Service::start(move |_| keep(&text)).await;
    let caller = caller();
    for _ in 0..5 {
        assert_eq!(call_url(&caller, service.url("/")).await.outcome, Outcome::Success);
        wait_until(|| caller.connector.open_count() == 0).await;
    }
}

#[tokio::test]
async fn idle_connections_are_closed_after_a_while() {
    let service = Service::always(OK).await;
    let options = OutboundOptions { idle_timeout: Duration::from_millis(50), ..Default::default() };
    let caller = HttpCaller::new(options);
    assert_eq!(call_url(&caller, service.url("/")).await.outcome, Outcome::Success);
    assert_eq!(caller.connector.open_count(), 1);
    wait_until(|| caller.connector.open_count() == 0).await;
    assert_eq!(call_url(&caller, service.url("/")).await.outcome, Outcome::Success);
    assert_eq!(service.connections(), 2);
}

#[tokio::test]
async fn a_busy_connection_outlives_the_idle_timeout() {
    let service = Service::start(|_| {
        std::thread::sleep(Duration::from_millis(100));
        keep(OK)
    })
    .await;
    let options = OutboundOptions { idle_timeout: Duration::from_millis(20), ..Default::default() };
    let answer = call_url(&HttpCaller::new(options), service.url("/")).await;
    assert_eq!(answer.outcome, Outcome::Success);
}

#[tokio::test]
async fn an_old_connection_is_not_used_again() {
    let service = Service::always(OK).await;
    let caller = HttpCaller::new(OutboundOptions {
        connection_age_max: Duration::ZERO,
        ..Default::default()
    });
    for _ in 0..3 {
        assert_eq!(call_url(&caller, service.url("/")).await.outcome, Outcome::Success);
    }
    assert_eq!(service.connections(), 3);
}

#[tokio::test]
async fn idle_connections_are_bounded() {
    let service = Service::always(OK).await;
    let options = OutboundOptions { idle_per_destination_max: 3, ..Default::default() };
    let caller = HttpCaller::new(options);
    let calls = (0..20).map(|_| call_url(&caller, service.url("/")));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(|answer| answer.outcome == Outcome::Success));
    assert_eq!(idle_count(&caller.pool), 3);
    wait_until(|| caller.connector.open_count() == 3).await;

    let caller = HttpCaller::new(OutboundOptions { idle_max: 2, ..Default::default() });
    let mut services = Vec::new();
    for _ in 0..5 {
        services.push(Service::always(OK).await);
    }
    for service in &services {
        assert_eq!(call_url(&caller, service.url("/")).await.outcome, Outcome::Success);
    }
    assert_eq!(idle_count(&caller.pool), 2);
}

#[tokio::test]
async fn open_connections_are_bounded() {
    let service = Service::start(|_| Reply::Hang(vec![])).await;
    let caller =
        Arc::new(HttpCaller::new(OutboundOptions { connections_max: 2, ..Default::default() }));
    let mut busy = Vec::new();
    for _ in 0..2 {
        let (caller, url) = (caller.clone(), service.url("/"));
        busy.push(tokio::spawn(async move { call_url(&caller, url).await }));
    }
    wait_until(|| service.seen().len() == 2).await;
    let answer = call_url(&caller, service.url("/")).await;
    assert_eq!(text_of(&answer), "too many connections to services, the limit is 2");
    assert!(!answer.unreachable, "it says nothing about the service");
    // A call that is given up gives its connection up.
    busy.iter().for_each(tokio::task::JoinHandle::abort);
    wait_until(|| caller.connector.open_count() == 0).await;
}

#[tokio::test]
async fn a_call_that_timed_out_leaves_no_connection() {
    let service = Service::start(|_| Reply::Hang(vec![])).await;
    let caller = caller();
    let mut call = branch_call(service.url("/"), "{}");
    call.call.timeout = SHORT;
    assert!(caller.call(&call).await.unreachable);
    wait_until(|| caller.connector.open_count() == 0).await;
    assert_eq!(idle_count(&caller.pool), 0);
}

#[test]
fn a_connection_of_another_runtime_is_not_waited_for() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let caller = caller();
    let (first, second) = (runtime(), runtime());
    // The service runs on a thread of its own: neither runtime below is always driven.
    let (sender, receiver) = std::sync::mpsc::channel();
    let serving = std::thread::spawn(move || {
        runtime().block_on(async {
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            sender.send((Service::always(OK).await, stop)).unwrap();
            let _ = stopped.await;
        });
    });
    let (service, stop) = receiver.recv().unwrap();
    for runtime in [&first, &second] {
        let answer = runtime.block_on(call_url(&caller, service.url("/")));
        assert_eq!(answer.outcome, Outcome::Success);
    }
    assert_eq!(service.connections(), 2);
    drop(stop);
    serving.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_calls_on_several_threads() {
    let service = Service::start(|turn| match turn.request {
        // Every connection ends after a while, some politely and some not.
        7 if turn.connection % 2 == 0 => Reply::Close(OK.as_bytes().to_vec()),
        9 => Reply::Close(vec![]),
        _ => keep(OK),
    })
    .await;
    let caller = Arc::new(caller());
    let mut tasks = Vec::new();
    for task in 0..16 {
        let (caller, url) = (caller.clone(), service.url(&format!("/{task}")));
        tasks.push(tokio::spawn(async move {
            for _ in 0..50 {
                assert_eq!(call_url(&caller, &url).await.outcome, Outcome::Success);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert!(service.seen().len() >= 800);
    assert!(service.connections() >= 80, "each connection carries at most ten requests");
}

#[tokio::test]
async fn a_hanging_service_does_not_hold_up_another() {
    let hanging = Service::start(|_| Reply::Hang(vec![])).await;
    let healthy = Service::always(OK).await;
    let caller = Arc::new(caller());
    let stuck = (0..50).map(|_| {
        let (caller, url) = (caller.clone(), hanging.url("/"));
        tokio::spawn(async move { call_url(&caller, url).await })
    });
    let stuck: Vec<_> = stuck.collect();
    wait_until(|| hanging.seen().len() == 50).await;
    for _ in 0..100 {
        assert_eq!(call_url(&caller, healthy.url("/")).await.outcome, Outcome::Success);
    }
    assert_eq!(healthy.connections(), 1);
    stuck.iter().for_each(tokio::task::JoinHandle::abort);
}
