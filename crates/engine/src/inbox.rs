//! What waits for one runner.
//!
//! Most runners get one message in their life. A channel of the library would allocate room for
//! dozens at its first; this one allocates when a second message comes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::runner::Message;

/// Messages that wait for one runner, at most: past it callers are told "overloaded".
const INBOX_MAX: usize = 64;

/// Why a message was not taken.
pub(crate) enum NotTaken {
    /// There are too many already.
    Full,
    /// The runner has ended without retiring: a panic, or a runtime that stops.
    Closed(Message),
}

/// The end that messages are put into.
#[derive(Clone)]
pub(crate) struct Inbox {
    shared: Arc<Mutex<Shared>>,
}

/// The runner's end. Dropping it closes the inbox.
pub(crate) struct Messages {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    waiting: VecDeque<Message>,
    waker: Option<Waker>,
    closed: bool,
}

/// Returns both ends, with the first message in it.
pub(crate) fn inbox(first: Message) -> (Inbox, Messages) {
    let mut waiting = VecDeque::with_capacity(1);
    waiting.push_back(first);
    let shared = Arc::new(Mutex::new(Shared { waiting, waker: None, closed: false }));
    (Inbox { shared: shared.clone() }, Messages { shared })
}

impl Inbox {
    /// Puts a message in.
    pub(crate) fn put(&self, message: Message) -> Result<(), NotTaken> {
        let mut shared = lock(&self.shared);
        if shared.closed {
            return Err(NotTaken::Closed(message));
        }
        if shared.waiting.len() >= INBOX_MAX {
            return Err(NotTaken::Full);
        }
        shared.waiting.push_back(message);
        let waker = shared.waker.take();
        drop(shared);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }
}

impl Messages {
    /// Takes the next message, if there is one.
    pub(crate) fn take(&self) -> Option<Message> {
        lock(&self.shared).waiting.pop_front()
    }

    /// Returns whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.shared).waiting.is_empty()
    }

    /// Takes the next message, waiting for it. Losing the future loses no message.
    pub(crate) async fn next(&self) -> Message {
        std::future::poll_fn(|cx| {
            let mut shared = lock(&self.shared);
            match shared.waiting.pop_front() {
                Some(message) => Poll::Ready(message),
                None => {
                    match &mut shared.waker {
                        Some(waker) => waker.clone_from(cx.waker()),
                        none => *none = Some(cx.waker().clone()),
                    }
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        shared.closed = true;
        // Their callers are told by the loss of their reply channels.
        let lost = std::mem::take(&mut shared.waiting);
        drop(shared);
        drop(lost);
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
