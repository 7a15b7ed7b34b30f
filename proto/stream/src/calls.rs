//! The calls of one connection, as those who make them and the connection's task share them.

use crate::{
    Backlog, Bounds, Lost, Protocol, Waiting,
    queue::{Losses, Queue},
};
use futures::Stream;
use parking_lot::Mutex;
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    select,
    sync::Notify,
    time::{Instant, sleep_until},
};

/// Calls that wait to be sent on a connection, or for their answers. Each ends by its deadline, as long as the
/// connection's task calls [`Calls::expire`] at the earliest deadline.
pub struct Calls<P: Protocol> {
    protocol: P,
    bounds: Bounds,
    queue: Mutex<Queue<P>>,
    /// Wakes the connection's task: for demand, for a deadline sooner than it knows of, for closing.
    attention: Notify,
    closed: AtomicBool,
    load: AtomicUsize,
}

impl<P: Protocol> Calls<P> {
    /// None yet, and no session.
    pub fn new(protocol: P, bounds: Bounds) -> Calls<P> {
        Calls {
            protocol,
            bounds,
            queue: Mutex::new(Queue::new()),
            attention: Notify::new(),
            closed: AtomicBool::new(false),
            load: AtomicUsize::new(0),
        }
    }

    /// What it was made with.
    pub fn protocol(&self) -> &P {
        &self.protocol
    }

    /// How busy it is, in the protocol's measure. Cost: one load.
    pub fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// What there is to do.
    pub fn backlog(&self) -> Backlog {
        self.queue.lock().backlog()
    }

    /// Queues a call; what becomes of it arrives by its deadline.
    pub fn push(&self, call: Waiting<P>) -> Result<(), Lost> {
        let pushed = self.change(|queue, _| queue.push(&self.bounds, call))?;
        if let Some(writer) = pushed.writer {
            writer.wake();
        }
        if pushed.sooner {
            self.attention.notify_one();
        }
        Ok(())
    }

    /// What the next session sends. It sends nothing before [`Calls::establish`], and ends with [`Calls::end`].
    pub fn frames(self: &Arc<Self>) -> Frames<P> {
        let session = self.queue.lock().session;
        Frames { calls: Arc::clone(self), session, stood_back: false }
    }

    /// The session stands: calls are sent from now on, and none fails at once.
    pub fn establish(&self) {
        let writer = {
            let mut queue = self.queue.lock();
            queue.open = true;
            queue.down = None;
            queue.writer.take()
        };
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Matches answers with callers, by the calls' numbers. Answers that nobody waits for any more are dropped.
    pub fn answered<A>(
        &self,
        now: Instant,
        answers: impl ExactSizeIterator<Item = (u64, A)>,
    ) -> Vec<(P::Caller, A)> {
        let mut matched = Vec::with_capacity(answers.len());
        self.change(|queue, _| {
            matched.extend(answers.filter_map(|(id, answer)| Some((queue.answered(id)?, answer))));
            queue.heard(now);
        });
        matched
    }

    /// Ends the calls whose time is up, and those that were sent and are given up. Cost: O(calls).
    pub fn expire(&self, now: Instant, given_up: impl Fn(&P::Caller) -> bool) {
        self.change(|queue, lost| queue.expire(now, given_up, lost));
    }

    /// Ends a session, and with it all calls: those that were sent are lost, the others never left.
    pub fn end(&self, why: &str) {
        let writer = self.change(|queue, lost| queue.end(why, lost));
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Calls fail at once, where there is a reason, and wait to be sent, where there is none.
    pub fn down(&self, why: Option<String>) {
        self.queue.lock().down = why;
    }

    /// Ends it for good, as soon as its task has seen it.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.attention.notify_one();
    }

    /// Whether it is to end.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Wakes the task: something has changed that it looks at.
    pub fn call_attention(&self) {
        self.attention.notify_one();
    }

    /// Waits until the task is to look at things again: at this time, or before. Says whether it is before.
    pub async fn attention_before(&self, until: Option<Instant>) -> bool {
        let Some(until) = until else {
            self.attention.notified().await;
            return true;
        };
        select! {
            biased;
            () = self.attention.notified() => true,
            () = sleep_until(until) => false,
        }
    }

    /// Waits until there is a call to send, or `wanted` says so; false when it is closed.
    pub async fn demand(&self, wanted: impl Fn() -> bool) -> bool {
        while !self.is_closed() {
            if wanted() || self.backlog().waiting > 0 {
                return true;
            }
            self.attention_before(None).await;
        }
        false
    }

    /// Waits for so long, or until it is closed, or `over` says so.
    pub async fn rest(&self, wait: Duration, over: impl Fn() -> bool) {
        let until = Some(Instant::now() + wait);
        while !self.is_closed() && !over() && self.attention_before(until).await {}
    }

    /// Changes the queue; callers are told once the lock is released.
    fn change<T>(&self, change: impl FnOnce(&mut Queue<P>, &mut Losses<P>) -> T) -> T {
        let mut lost = Vec::new();
        let changed = {
            let mut queue = self.queue.lock();
            let changed = change(&mut queue, &mut lost);
            self.load.store(self.protocol.load(&queue.backlog()), Ordering::Relaxed);
            changed
        };
        if !lost.is_empty() {
            self.protocol.lost(lost);
        }
        changed
    }
}

/// The frames of one session. HTTP/2 asks for the next one when it can take one; everything that waits goes into it,
/// so that under load many calls share the cost of a frame, and without load nothing waits for company.
pub struct Frames<P: Protocol> {
    calls: Arc<Calls<P>>,
    session: u64,
    stood_back: bool,
}

impl<P: Protocol> Stream for Frames<P> {
    type Item = Vec<P::Request>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Frames { calls, session, stood_back } = &mut *self;
        calls.change(|queue, lost| {
            if queue.session != *session {
                return Poll::Ready(None);
            }
            if P::STANDS_BACK && queue.open && queue.backlog().waiting > 0 && !*stood_back {
                *stood_back = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            *stood_back = false;
            let requests = queue.take_frame(&calls.bounds, Instant::now(), lost);
            if requests.is_empty() {
                queue.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(Some(requests))
        })
    }
}

/// Does some work, unless there is a reason to end first: that is looked for meanwhile.
pub async fn unless<T, E>(end: impl Future<Output = E>, work: impl Future<Output = T>) -> Result<T, E> {
    select! {
        biased;
        done = work => Ok(done),
        end = end => Err(end),
    }
}
