//! One connection to one peer: connects when there is something to send, sends, matches answers, keeps deadlines.

use super::{
    CallError,
    calls::{PeerProtocol, Waiting, outcome},
    connections::Route,
    settings::{CONNECTION_WINDOW, HTTP2_FRAME, STREAM_WINDOW},
    starts::Answering,
};
use futures::{Stream, StreamExt, stream};
use god_proto::{
    MAX_MESSAGE,
    peer::{Frame, Response, peer_client::PeerClient},
};
use god_stream::{Bounds, Calls, GOOD_SESSION, SWEEP, unless};
use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, timeout};
use tonic::{Streaming, transport::Endpoint};

/// See the module.
pub(super) struct Connection {
    route: Arc<Route>,
    pub calls: Arc<Calls<PeerProtocol>>,
    retry: AtomicBool,
    moved: AtomicBool,
    born: Instant,
    /// Milliseconds from `born` to the last use.
    used: AtomicU64,
}

/// Why a session ended.
enum End {
    Closed,
    Idle,
    Moved,
    Unreachable(String),
    Broke(String),
}

impl Connection {
    /// A connection and its task, which ends when the connection is closed.
    pub fn start(route: Arc<Route>, number: usize) -> Arc<Connection> {
        let settings = &route.settings;
        let bounds = Bounds {
            calls: settings.queue_requests,
            bytes: settings.queue_bytes,
            frame_calls: settings.frame_requests,
            frame_bytes: settings.frame_bytes,
        };
        let waiting = route.meter.waiting(number);
        let protocol = PeerProtocol { route: Arc::clone(&route), waiting };
        let connection = Arc::new(Connection {
            route,
            calls: Arc::new(Calls::new(protocol, bounds)),
            retry: AtomicBool::new(false),
            moved: AtomicBool::new(false),
            born: Instant::now(),
            used: AtomicU64::new(0),
        });
        tokio::spawn(Arc::clone(&connection).run());
        connection
    }

    /// When it was last used.
    pub fn used(&self) -> Instant {
        self.born + Duration::from_millis(self.used.load(Ordering::Relaxed))
    }

    /// Queues a call. It is sent even if its caller stops waiting.
    pub fn push(&self, call: Waiting, now: Instant) -> Result<(), CallError> {
        self.used.store((now - self.born).as_millis() as u64, Ordering::Relaxed);
        Ok(self.calls.push(call)?)
    }

    /// The peer may be back: ends the wait after a failed connect.
    pub fn retry(&self) {
        self.retry.store(true, Ordering::Release);
        self.calls.call_attention();
    }

    /// The peer has another address: gives up the connection to the old one.
    pub fn moved(&self) {
        self.moved.store(true, Ordering::Release);
        self.retry();
    }

    async fn run(self: Arc<Self>) {
        let mut failures = 0;
        while self.calls.demand(|| false).await {
            let began = Instant::now();
            let end = match self.route.address(failures) {
                Ok(address) => self.session(&address).await,
                Err(why) => End::Unreachable(why),
            };
            let why = match end {
                End::Closed => break,
                End::Idle => {
                    self.calls.end("the connection was idle");
                    continue;
                }
                End::Moved => {
                    self.calls.end("the node moved to another address");
                    failures = 0;
                    continue;
                }
                End::Broke(why) if began.elapsed() >= GOOD_SESSION => {
                    tracing::info!(peer = %self.route, why, "a connection to a peer broke");
                    self.calls.end(&why);
                    failures = 0;
                    continue;
                }
                End::Unreachable(why) => {
                    self.route.is_away();
                    why
                }
                // It was there just now: whether it still is, the next try says (ONE-START).
                End::Broke(why) => why,
            };
            failures = failures.saturating_add(1);
            if failures == 1 {
                tracing::info!(peer = %self.route, why, "a peer cannot be reached");
            }
            self.rest(&why, failures as u32).await;
        }
        self.calls.end("this node stops, or wants no connection to the other one any more");
    }

    /// Lets calls fail at once for a while.
    async fn rest(&self, why: &str, failures: u32) {
        self.calls.down(Some(why.to_owned()));
        self.calls.end(why);
        self.calls.rest(self.route.backoff(failures), || self.retry.swap(false, Ordering::AcqRel)).await;
        self.calls.down(None);
    }

    async fn session(&self, address: &str) -> End {
        let limit = self.route.settings.connect_timeout;
        let connecting = timeout(limit, self.connect(address));
        let (mut incoming, _answering) = match unless(self.look_after(address), connecting).await {
            Ok(Ok(Ok(connected))) => connected,
            Ok(Ok(Err(why))) => return End::Unreachable(format!("{} at {address}: {why}", self.route)),
            Ok(Err(_)) => {
                return End::Unreachable(format!("{} at {address}: no answer within {limit:?}", self.route));
            }
            Err(end) => return end,
        };
        self.calls.establish();
        match unless(self.look_after(address), self.read(&mut incoming)).await {
            Ok(why) => End::Broke(format!("{} at {address}: {why}", self.route)),
            Err(end) => end,
        }
    }

    /// Connects, and exchanges hellos. Nothing else is sent before both agree.
    async fn connect(&self, address: &str) -> Result<(Streaming<Frame>, Answering), String> {
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
        let refused = |status: tonic::Status| status.message().to_owned();
        let mut incoming = client.exchange(self.frames()).await.map_err(refused)?.into_inner();
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
        let now = Instant::now();
        let answers = responses.into_iter().map(|response| (response.id, response.body));
        let answered = self.calls.answered(now, answers);
        self.calls.protocol().hand_out(answered.into_iter().map(|(caller, answer)| {
            if let Some(since) = caller.timed {
                self.route.meter.took(now - since);
            }
            (caller, outcome(answer))
        }));
    }

    /// What a session sends: who this node is, and then what waits.
    fn frames(&self) -> impl Stream<Item = Frame> + Send + use<> {
        let route = Arc::clone(&self.route);
        let hello = route.identity.hello();
        let mut said = hello.number;
        let first = Frame { hello: Some(hello), ..Frame::default() };
        let calls = self.calls.frames().map(move |requests| {
            // Again when the number becomes known: whoever answers wants to know who asks.
            let number = route.identity.number().map_or(0, |number| number.0);
            let hello = (said != number).then(|| route.identity.hello());
            said = hello.as_ref().map_or(said, |hello| hello.number);
            route.meter.frames.increment(1);
            Frame { hello, requests, responses: Vec::new() }
        });
        stream::iter([first]).chain(calls)
    }

    /// Keeps deadlines until there is a reason to end the session.
    async fn look_after(&self, address: &str) -> End {
        let idle_after = self.route.idle_after();
        let mut swept = Instant::now();
        let mut idle_at = swept + idle_after;
        loop {
            if self.calls.is_closed() {
                return End::Closed;
            }
            if self.moved.swap(false, Ordering::AcqRel) && self.route.moved_from(address) {
                return End::Moved;
            }
            let earliest = self.calls.backlog().earliest;
            let due = earliest.map_or(idle_at, |due| due.max(swept + SWEEP).min(idle_at));
            if self.calls.attention_before(Some(due)).await {
                continue;
            }
            swept = Instant::now();
            self.calls.expire(swept, |_| false);
            idle_at = self.used() + idle_after;
            if idle_at <= swept && self.calls.backlog().unanswered == 0 {
                return End::Idle;
            }
            idle_at = idle_at.max(swept + SWEEP);
        }
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
