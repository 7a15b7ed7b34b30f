//! One connection to one peer: connects when there is something to send, sends, matches answers, keeps deadlines.

use super::{
    CallError,
    link::Route,
    queue::{Outcomes, Queue, Waiting},
    settings::{CONNECTION_WINDOW, HTTP2_FRAME, STREAM_WINDOW},
    starts::Answering,
};
use futures::Stream;
use god_proto::{
    MAX_MESSAGE,
    peer::{Frame, Response, peer_client::PeerClient},
};
use metrics::Gauge;
use parking_lot::Mutex;
use std::{
    error::Error,
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
    time::{Instant, sleep_until, timeout},
};
use tonic::{Streaming, transport::Endpoint};

/// Deadlines are looked after this often at most, which is how late a call may end.
const SWEEP: Duration = Duration::from_millis(5);
/// A session that lasted this long was a good one: the next connect does not wait.
const GOOD_SESSION: Duration = Duration::from_secs(1);
/// Queued bytes that weigh as much as a call, when lanes are compared.
const BYTES_A_CALL: usize = 16 << 10;

/// See the module.
pub(super) struct Lane {
    route: Arc<Route>,
    queue: Mutex<Queue>,
    // Wakes the lane's task: for demand, for a deadline sooner than it knows of, for closing, for a new address.
    attention: Notify,
    closed: AtomicBool,
    retry: AtomicBool,
    moved: AtomicBool,
    waiting: Gauge,
    load: AtomicUsize,
}

/// Why a session ended.
enum End {
    Closed,
    Idle,
    Moved,
    Unreachable(String),
    Broke(String),
}

impl Lane {
    /// A lane and its task, which ends when the lane is closed.
    pub fn start(route: Arc<Route>, number: usize) -> Arc<Lane> {
        let waiting = route.meter.waiting(number);
        let lane = Arc::new(Lane {
            route,
            queue: Mutex::default(),
            attention: Notify::new(),
            closed: AtomicBool::new(false),
            retry: AtomicBool::new(false),
            moved: AtomicBool::new(false),
            waiting,
            load: AtomicUsize::new(0),
        });
        tokio::spawn(Arc::clone(&lane).run());
        lane
    }

    /// How much is on its way: calls, and bytes counted as calls.
    pub fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// Queues a call. It is sent even if its caller stops waiting.
    pub fn push(&self, call: Waiting, now: Instant) -> Result<(), CallError> {
        let pushed = {
            let mut queue = self.queue.lock();
            let pushed = queue.push(&self.route.settings, call, now)?;
            self.weigh(&queue);
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

    /// The peer may be back: ends the wait after a failed connect.
    pub fn retry(&self) {
        self.retry.store(true, Ordering::Release);
        self.attention.notify_one();
    }

    /// The peer has another address: gives up the connection to the old one.
    pub fn moved(&self) {
        self.moved.store(true, Ordering::Release);
        self.retry();
    }

    async fn run(self: Arc<Self>) {
        let mut failures = 0;
        while self.demand().await {
            let began = Instant::now();
            let end = match self.route.address(failures) {
                Ok(address) => self.session(&address).await,
                Err(why) => End::Unreachable(why),
            };
            let why = match end {
                End::Closed => break,
                End::Idle => {
                    self.end("the connection was idle");
                    continue;
                }
                End::Moved => {
                    self.end("the node moved to another address");
                    failures = 0;
                    continue;
                }
                End::Broke(why) if began.elapsed() >= GOOD_SESSION => {
                    tracing::info!(peer = %self.route, why, "a connection to a peer broke");
                    self.end(&why);
                    failures = 0;
                    continue;
                }
                End::Unreachable(why) | End::Broke(why) => why,
            };
            self.route.is_away();
            failures = failures.saturating_add(1);
            if failures == 1 {
                tracing::info!(peer = %self.route, why, "a peer cannot be reached");
            }
            self.rest(&why, failures as u32).await;
        }
        self.end("this node stops, or wants no connection to the other one any more");
    }

    /// Waits for a call to send; false when the lane is closed.
    async fn demand(&self) -> bool {
        loop {
            if self.closed.load(Ordering::Acquire) {
                return false;
            }
            if self.queue.lock().waiting() > 0 {
                return true;
            }
            self.attention.notified().await;
        }
    }

    /// Lets calls fail at once for a while.
    async fn rest(&self, why: &str, failures: u32) {
        self.queue.lock().down = Some(why.to_owned());
        self.end(why);
        let until = Instant::now() + self.route.backoff(failures);
        while !self.closed.load(Ordering::Acquire) && !self.retry.swap(false, Ordering::AcqRel) {
            select! {
                biased;
                () = self.attention.notified() => {}
                () = sleep_until(until) => break,
            }
        }
        self.queue.lock().down = None;
    }

    async fn session(self: &Arc<Self>, address: &str) -> End {
        let limit = self.route.settings.connect_timeout;
        let (mut incoming, _answering) = match self
            .attend(timeout(limit, self.connect(address)), address)
            .await
        {
            Ok(Ok(Ok(connected))) => connected,
            Ok(Ok(Err(why))) => return End::Unreachable(format!("{} at {address}: {why}", self.route)),
            Ok(Err(_)) => {
                return End::Unreachable(format!("{} at {address}: no answer within {limit:?}", self.route));
            }
            Err(end) => return end,
        };
        let writer = {
            let mut queue = self.queue.lock();
            queue.open = true;
            queue.writer.take()
        };
        if let Some(writer) = writer {
            writer.wake();
        }
        match self.attend(self.read(&mut incoming), address).await {
            Ok(why) => End::Broke(format!("{} at {address}: {why}", self.route)),
            Err(end) => end,
        }
    }

    /// Connects, and exchanges hellos. Nothing else is sent before both agree.
    async fn connect(self: &Arc<Self>, address: &str) -> Result<(Streaming<Frame>, Answering), String> {
        let settings = &self.route.settings;
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| format!("it is not an address: {}", chain(&error)))?
            .connect_timeout(settings.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(settings.keep_alive)
            .keep_alive_timeout(settings.keep_alive_timeout)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(HTTP2_FRAME)
            .connect()
            .await
            .map_err(|error| chain(&error))?;
        let mut client = PeerClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let session = self.queue.lock().session;
        let frames = Frames { lane: Arc::clone(self), session, said: None };
        let refused = |status: tonic::Status| status.message().to_owned();
        let mut incoming = client.exchange(frames).await.map_err(refused)?.into_inner();
        let first = incoming.message().await.map_err(refused)?;
        let hello = first.and_then(|frame| frame.hello).ok_or("it did not say who it is")?;
        let answering = self.route.accepts(&hello)?;
        Ok((incoming, answering))
    }

    /// Reads answers until there are no more, and says why.
    async fn read(&self, incoming: &mut Streaming<Frame>) -> String {
        loop {
            match incoming.message().await {
                Ok(Some(frame)) => self.answered(frame.responses),
                Ok(None) => return "it ended the stream".to_owned(),
                Err(status) => return status.message().to_owned(),
            }
            // Answers without a pause must not keep deadlines from being looked after.
            tokio::task::coop::consume_budget().await;
        }
    }

    fn answered(&self, responses: Vec<Response>) {
        let mut outcomes = Vec::with_capacity(responses.len());
        {
            let mut queue = self.queue.lock();
            queue.answer(responses, &mut outcomes, |since| self.route.meter.took(since.elapsed()));
            self.weigh(&queue);
        }
        self.settle(outcomes);
    }

    /// Does some work, and looks after the lane meanwhile.
    async fn attend<T>(&self, work: impl Future<Output = T>, address: &str) -> Result<T, End> {
        select! {
            biased;
            done = work => Ok(done),
            end = self.look_after(address) => Err(end),
        }
    }

    /// Keeps deadlines until there is a reason to end the session.
    async fn look_after(&self, address: &str) -> End {
        let idle_after = self.route.idle_after();
        let mut swept = Instant::now();
        let mut idle_at = swept + idle_after;
        loop {
            if self.closed.load(Ordering::Acquire) {
                return End::Closed;
            }
            if self.moved.swap(false, Ordering::AcqRel) && self.route.moved_from(address) {
                return End::Moved;
            }
            let due = self.queue.lock().earliest.map(|earliest| earliest.max(swept + SWEEP));
            select! {
                biased;
                () = self.attention.notified() => continue,
                () = sleep_until(due.map_or(idle_at, |due| due.min(idle_at))) => {}
            }
            swept = Instant::now();
            let mut outcomes = Vec::new();
            let idle = {
                let mut queue = self.queue.lock();
                queue.expire(swept, &mut outcomes);
                self.weigh(&queue);
                let used = queue.used.unwrap_or(swept);
                idle_at = (used + idle_after).max(swept + SWEEP);
                queue.unanswered() == 0 && used + idle_after <= swept
            };
            self.settle(outcomes);
            if idle {
                return End::Idle;
            }
        }
    }

    fn end(&self, why: &str) {
        let mut outcomes = Vec::new();
        let writer = {
            let mut queue = self.queue.lock();
            let writer = queue.end(why, &mut outcomes);
            self.weigh(&queue);
            writer
        };
        if let Some(writer) = writer {
            writer.wake();
        }
        self.settle(outcomes);
    }

    fn settle(&self, outcomes: Outcomes) {
        for (reply, outcome) in outcomes {
            if let Err(error) = &outcome {
                self.route.meter.error(error);
            }
            // An error means that the caller stopped waiting.
            let _gone = reply.send(outcome);
        }
    }

    fn weigh(&self, queue: &Queue) {
        self.waiting.set(queue.waiting() as f64);
        self.load.store(queue.unanswered() + queue.bytes() / BYTES_A_CALL, Ordering::Relaxed);
    }
}

/// What one session sends. HTTP/2 asks for the next frame when it can take one; everything that waits goes into it.
struct Frames {
    lane: Arc<Lane>,
    session: u64,
    // The number it introduced itself with; 0: none yet. Absent: it has not introduced itself.
    said: Option<u32>,
}

impl Stream for Frames {
    type Item = Frame;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Frame>> {
        let lane = Arc::clone(&self.lane);
        let route = &lane.route;
        // Again when the number becomes known: whoever answers wants to know who asks.
        let hello = (self.said != Some(route.identity.number().map_or(0, |number| number.0)))
            .then(|| route.identity.hello());
        if let (None, Some(hello)) = (self.said, &hello) {
            self.said = Some(hello.number);
            return Poll::Ready(Some(Frame { hello: Some(hello.clone()), ..Frame::default() }));
        }
        let mut outcomes = Vec::new();
        let requests = {
            let mut queue = lane.queue.lock();
            if queue.session != self.session {
                return Poll::Ready(None);
            }
            let requests = if queue.open {
                queue.take_frame(&route.settings, Instant::now(), &mut outcomes)
            } else {
                Vec::new()
            };
            if requests.is_empty() {
                queue.writer = Some(cx.waker().clone());
            }
            lane.weigh(&queue);
            requests
        };
        lane.settle(outcomes);
        if requests.is_empty() {
            return Poll::Pending;
        }
        if let Some(hello) = &hello {
            self.said = Some(hello.number);
        }
        route.meter.frames.increment(1);
        Poll::Ready(Some(Frame { hello, requests, responses: Vec::new() }))
    }
}

/// An error and its causes: transport errors say what happened only in those.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
