//! The stream itself: connects, sends what waits whenever HTTP/2 can take a frame, matches answers, keeps deadlines.

use super::{
    Lost, Shared, Waiting,
    queue::{Queue, Settled},
};
use crate::{error::cause, transport};
use futures::Stream;
use god_proto::{
    MAX_MESSAGE,
    v1::{PipelineReply, PipelineRequest, store_client::StoreClient},
};
use parking_lot::Mutex;
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    select,
    sync::Notify,
    time::{Instant, sleep_until, timeout},
};
use tonic::Streaming;

/// Deadlines are looked after this often at most, which is how late a call may end.
const SWEEP: Duration = Duration::from_millis(5);
/// A session that lasted this long was a good one: the next connect does not wait long.
const GOOD_SESSION: Duration = Duration::from_secs(1);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How a lane does, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// Calls go through.
    Open,
    /// It connects; calls wait for it.
    Connecting,
    /// It was not wanted yet.
    Idle,
    /// Answers are due, and nothing is heard.
    Stalled,
    /// Calls fail at once, until a connection stands again.
    Down,
}

const STATES: [State; 5] = [State::Open, State::Connecting, State::Idle, State::Stalled, State::Down];

/// See the module.
pub(crate) struct Lane {
    address: String,
    shared: Arc<Shared>,
    queue: Mutex<Queue>,
    /// Wakes the lane's task: for demand, for a deadline sooner than it knows of, for closing.
    attention: Notify,
    state: AtomicU8,
    load: AtomicUsize,
    wanted: AtomicBool,
    closed: AtomicBool,
}

/// Why a session ended.
enum End {
    Closed,
    Failed(String),
}

impl Lane {
    /// A lane and its task, which ends when the lane is closed. Connects when it is wanted.
    pub fn start(address: &str, shared: Arc<Shared>) -> Arc<Lane> {
        let lane = Arc::new(Lane {
            address: address.to_owned(),
            shared,
            queue: Mutex::default(),
            attention: Notify::new(),
            state: AtomicU8::new(State::Idle as u8),
            load: AtomicUsize::new(0),
            wanted: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        });
        tokio::spawn(Arc::clone(&lane).run());
        lane
    }

    /// How it does.
    pub fn state(&self) -> State {
        STATES.get(usize::from(self.state.load(Ordering::Relaxed))).copied().unwrap_or(State::Down)
    }

    fn is_now(&self, state: State) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// Calls that have no answer yet.
    pub fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// Connects, if it never was.
    pub fn want(&self) {
        if !self.wanted.swap(true, Ordering::AcqRel) {
            let idle = State::Idle as u8;
            let connecting = State::Connecting as u8;
            let _ = self.state.compare_exchange(idle, connecting, Ordering::Relaxed, Ordering::Relaxed);
            self.attention.notify_one();
        }
    }

    /// Queues a call; its outcome arrives by its deadline.
    pub fn push(&self, call: Waiting) -> Result<(), Lost> {
        let pushed = {
            let mut queue = self.queue.lock();
            let pushed = queue.push(call)?;
            self.load.store(queue.unanswered(), Ordering::Relaxed);
            pushed
        };
        if let Some(writer) = pushed.writer {
            writer.wake();
        }
        if pushed.sooner {
            self.attention.notify_one();
        }
        Ok(())
    }

    /// Ends it for good.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.attention.notify_one();
    }

    async fn run(self: Arc<Self>) {
        let mut failures: u32 = 0;
        while self.demand(failures > 0).await {
            let began = Instant::now();
            let why = match self.session().await {
                End::Closed => break,
                End::Failed(why) => why,
            };
            if began.elapsed() >= GOOD_SESSION {
                failures = 0;
            }
            failures = failures.saturating_add(1);
            if failures == 1 {
                tracing::debug!(server = self.address, why, "a connection failed");
            }
            self.rest(&why, failures).await;
        }
        self.is_now(State::Down);
        self.queue.lock().down = Some("the client is closed".to_owned());
        self.end("the client is closed");
    }

    /// Waits until a connection is wanted; false when the lane is closed. One that failed is wanted from then on: calls
    /// avoid it, so that they would never ask for it.
    async fn demand(&self, failed: bool) -> bool {
        loop {
            if self.closed.load(Ordering::Acquire) {
                return false;
            }
            if failed || self.wanted.load(Ordering::Acquire) || self.queue.lock().waiting() > 0 {
                return true;
            }
            self.attention.notified().await;
        }
    }

    /// Lets calls fail at once for a while: twice as long each time, and half of it at random.
    async fn rest(&self, why: &str, failures: u32) {
        self.is_now(State::Down);
        self.queue.lock().down = Some(format!("{} cannot be reached: {why}", self.address));
        self.end(why);
        self.shared.news.look();
        let half = BACKOFF_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(BACKOFF_MAX) / 2;
        let until = Instant::now() + half + half.mul_f64(rand::random());
        while !self.closed.load(Ordering::Acquire) {
            select! {
                biased;
                () = self.attention.notified() => {}
                () = sleep_until(until) => break,
            }
        }
    }

    async fn session(self: &Arc<Self>) -> End {
        let was_down = self.queue.lock().down.is_some();
        if !was_down {
            self.is_now(State::Connecting);
        }
        let limit = self.shared.connect_timeout;
        let mut incoming = match self.attend(timeout(limit, self.connect())).await {
            Ok(Ok(Ok(incoming))) => incoming,
            Ok(Ok(Err(why))) => return End::Failed(why),
            Ok(Err(_)) => return End::Failed(format!("no connection within {limit:?}")),
            Err(end) => return end,
        };
        let writer = {
            let mut queue = self.queue.lock();
            queue.open = true;
            queue.down = None;
            queue.writer.take()
        };
        self.is_now(State::Open);
        if let Some(writer) = writer {
            writer.wake();
        }
        match self.attend(self.read(&mut incoming)).await {
            Ok(why) => End::Failed(why),
            Err(end) => end,
        }
    }

    async fn connect(self: &Arc<Self>) -> Result<Streaming<PipelineReply>, String> {
        let channel = transport::endpoint(&self.address, self.shared.connect_timeout)?
            .connect()
            .await
            .map_err(|error| cause(&error))?;
        let mut client = StoreClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let session = self.queue.lock().session;
        let frames = Frames { lane: Arc::clone(self), session, stood_back: false };
        let replies = client.pipeline(frames).await.map_err(|status| status.message().to_owned())?;
        Ok(replies.into_inner())
    }

    /// Reads answers until there are no more, and says why.
    async fn read(&self, incoming: &mut Streaming<PipelineReply>) -> String {
        loop {
            match incoming.message().await {
                Ok(Some(reply)) => self.answered(reply),
                Ok(None) => return "the node ended the connection".to_owned(),
                Err(status) => return status.message().to_owned(),
            }
            // Answers without a pause must not keep deadlines from being looked after.
            tokio::task::coop::consume_budget().await;
        }
    }

    fn answered(&self, reply: PipelineReply) {
        self.shared.news.heard(reply.epoch);
        let mut settled = Settled::default();
        {
            let mut queue = self.queue.lock();
            queue.answer(reply.answers, Instant::now(), &mut settled);
            self.load.store(queue.unanswered(), Ordering::Relaxed);
        }
        self.settle(settled);
        if self.state() == State::Stalled {
            self.is_now(State::Open);
        }
    }

    /// Does some work, and looks after the lane meanwhile.
    async fn attend<T>(&self, work: impl Future<Output = T>) -> Result<T, End> {
        select! {
            biased;
            done = work => Ok(done),
            end = self.look_after() => Err(end),
        }
    }

    /// Keeps deadlines until the lane is closed: one timer for all of them.
    async fn look_after(&self) -> End {
        let stall = self.shared.stall;
        let mut swept = Instant::now();
        loop {
            if self.closed.load(Ordering::Acquire) {
                return End::Closed;
            }
            let earliest = self.queue.lock().earliest;
            let Some(earliest) = earliest else {
                self.attention.notified().await;
                continue;
            };
            let due = earliest.min(swept + stall / 2).max(swept + SWEEP);
            select! {
                biased;
                () = self.attention.notified() => continue,
                () = sleep_until(due) => {}
            }
            swept = Instant::now();
            let mut settled = Settled::default();
            {
                let mut queue = self.queue.lock();
                let stalled = queue.is_stalled(swept, stall);
                if stalled && self.state() == State::Open {
                    tracing::debug!(server = self.address, "a connection is stalled");
                    self.is_now(State::Stalled);
                }
                queue.expire(swept, stalled, &mut settled);
                self.load.store(queue.unanswered(), Ordering::Relaxed);
            }
            self.settle(settled);
        }
    }

    fn end(&self, why: &str) {
        let mut settled = Settled::default();
        let writer = {
            let mut queue = self.queue.lock();
            let writer = queue.end(why, &mut settled);
            self.load.store(queue.unanswered(), Ordering::Relaxed);
            writer
        };
        if let Some(writer) = writer {
            writer.wake();
        }
        self.settle(settled);
    }

    fn settle(&self, settled: Settled) {
        if settled.places > 0 {
            self.shared.places.add_permits(settled.places);
        }
        for (reply, outcome) in settled.outcomes {
            // An error means that the caller stopped waiting.
            let _gone = reply.send(outcome);
        }
    }
}

/// What one session sends. HTTP/2 asks for the next frame when it can take one; everything that waits goes into it.
///
/// It lets others go first once before it takes a frame. Calls come in bursts: an answer wakes many tasks, and each of
/// them makes its next call. Whoever sends is woken by the first of them, and would send that one alone.
struct Frames {
    lane: Arc<Lane>,
    session: u64,
    stood_back: bool,
}

impl Stream for Frames {
    type Item = PipelineRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<PipelineRequest>> {
        let this = &mut *self;
        let lane = &this.lane;
        let mut settled = Settled::default();
        let calls = {
            let mut queue = lane.queue.lock();
            if queue.session != this.session {
                return Poll::Ready(None);
            }
            if queue.open && queue.waiting() > 0 && !this.stood_back {
                this.stood_back = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            this.stood_back = false;
            let calls = if queue.open { queue.take_frame(Instant::now(), &mut settled) } else { Vec::new() };
            if calls.is_empty() {
                queue.writer = Some(cx.waker().clone());
            }
            calls
        };
        lane.settle(settled);
        if calls.is_empty() { Poll::Pending } else { Poll::Ready(Some(PipelineRequest { calls })) }
    }
}
