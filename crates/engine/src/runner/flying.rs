//! The calls in flight: nearly always one, and then it costs one box and nothing else.

use std::task::{Context, Poll, Waker};

use dtmd_protocol::Target;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::caller::Answer;

type Flight = BoxFuture<'static, (Target, Answer)>;

/// The calls in flight of one runner.
#[derive(Default)]
pub(super) struct Flying {
    first: Option<Flight>,
    /// Those that began while there was a first one.
    others: Option<FuturesUnordered<Flight>>,
}

impl Flying {
    pub(super) fn push(&mut self, flight: Flight) {
        if self.is_empty() {
            self.first = Some(flight);
        } else {
            self.others.get_or_insert_default().push(flight);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.others.as_ref().is_none_or(FuturesUnordered::is_empty)
    }

    /// Waits for the next answer; for ever if nothing is in flight. Losing the future loses nothing.
    pub(super) async fn next(&mut self) -> (Target, Answer) {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Returns an answer that is there already.
    ///
    /// Whoever waits for more must call [`next`](Self::next) again: only that has it woken.
    pub(super) fn take_ready(&mut self) -> Option<(Target, Answer)> {
        match self.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answered) => Some(answered),
            Poll::Pending => None,
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<(Target, Answer)> {
        if let Some(first) = &mut self.first
            && let Poll::Ready(answered) = first.as_mut().poll(cx)
        {
            self.first = None;
            return Poll::Ready(answered);
        }
        match self.others.as_mut().map(|others| others.poll_next_unpin(cx)) {
            Some(Poll::Ready(Some(answered))) => Poll::Ready(answered),
            Some(Poll::Ready(None) | Poll::Pending) | None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use dtmd_protocol::Outcome;
    use tokio::sync::oneshot;

    use super::*;

    fn call(row: usize, end: oneshot::Receiver<()>) -> Flight {
        Box::pin(async move {
            let _ = end.await;
            (Target::Branch(row), Answer { outcome: Outcome::Success, unreachable: false })
        })
    }

    fn row(answered: (Target, Answer)) -> usize {
        match answered.0 {
            Target::Branch(row) => row,
            Target::Query => unreachable!("no test asks"),
        }
    }

    #[tokio::test]
    async fn every_call_answers_once_in_whatever_order() {
        let mut flying = Flying::default();
        assert!(flying.is_empty());
        let mut ends = Vec::new();
        for number in 0..4 {
            let (end, ended) = oneshot::channel();
            ends.push(Some(end));
            flying.push(call(number, ended));
        }
        assert!(flying.take_ready().is_none());
        for number in [2, 0] {
            ends[number].take().unwrap().send(()).unwrap();
            assert_eq!(row(flying.next().await), number);
        }
        // The place of the first is free again, and used only when nothing else is in flight.
        let (end, ended) = oneshot::channel();
        flying.push(call(9, ended));
        for end in ends.iter_mut().filter_map(Option::take).chain([end]) {
            end.send(()).unwrap();
        }
        let mut rest = Vec::new();
        while let Some(answered) = flying.take_ready() {
            rest.push(row(answered));
        }
        rest.sort_unstable();
        assert_eq!(rest, [1, 3, 9]);
        assert!(flying.is_empty());
    }

    #[tokio::test]
    async fn who_looked_without_waiting_is_woken_when_it_waits() {
        let (end, ended) = oneshot::channel();
        let mut flying = Flying::default();
        flying.push(call(1, ended));
        assert!(flying.take_ready().is_none());
        let done = Arc::new(AtomicUsize::new(0));
        let counter = done.clone();
        let waiting = tokio::spawn(async move {
            let answered = row(flying.next().await);
            counter.store(answered, Ordering::SeqCst);
        });
        tokio::task::yield_now().await;
        assert_eq!(done.load(Ordering::SeqCst), 0);
        end.send(()).unwrap();
        waiting.await.unwrap();
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }
}
