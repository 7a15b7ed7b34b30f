//! A connection's task: connects, sends what waits whenever HTTP/2 can take a frame, matches answers, keeps deadlines.

use super::{
    ConnectionContext,
    calls::{Pipeline, outcome},
};
use crate::{error::cause, transport};
use futures::StreamExt;
use god_proto::{
    MAX_BATCH, MAX_MESSAGE,
    v1::{PipelineReply, PipelineRequest, store_client::StoreClient},
};
use god_stream::{Bounds, Calls, GOOD_SESSION, SWEEP, backoff, unless};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, timeout};
use tonic::Streaming;

/// What waits has no bound of its own: the places that the client has for calls in flight bound it.
const BOUNDS: Bounds =
    Bounds { calls: usize::MAX, bytes: usize::MAX, frame_calls: MAX_BATCH, frame_bytes: 1 << 20 };
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How a connection does, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ConnectionState {
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

const STATES: [ConnectionState; 5] = [
    ConnectionState::Open,
    ConnectionState::Connecting,
    ConnectionState::Idle,
    ConnectionState::Stalled,
    ConnectionState::Down,
];

/// See the module.
pub(crate) struct Connection {
    address: String,
    shared: Arc<ConnectionContext>,
    pub calls: Arc<Calls<Pipeline>>,
    state: AtomicU8,
    wanted: AtomicBool,
}

/// Why a session ended.
enum End {
    Closed,
    Failed(String),
}

impl Connection {
    /// A connection and its task, which ends when the connection is closed. Connects when it is wanted.
    pub fn start(address: &str, shared: Arc<ConnectionContext>) -> Arc<Connection> {
        let connection = Arc::new(Connection {
            address: address.to_owned(),
            calls: Arc::new(Calls::new(Pipeline(Arc::clone(&shared)), BOUNDS)),
            shared,
            state: AtomicU8::new(ConnectionState::Idle as u8),
            wanted: AtomicBool::new(false),
        });
        tokio::spawn(Arc::clone(&connection).run());
        connection
    }

    /// How it does.
    pub fn state(&self) -> ConnectionState {
        STATES.get(usize::from(self.state.load(Ordering::Relaxed))).copied().unwrap_or(ConnectionState::Down)
    }

    fn is_now(&self, state: ConnectionState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// Connects, if it never was.
    pub fn want(&self) {
        if !self.wanted.swap(true, Ordering::AcqRel) {
            let idle = ConnectionState::Idle as u8;
            let connecting = ConnectionState::Connecting as u8;
            let _ = self.state.compare_exchange(idle, connecting, Ordering::Relaxed, Ordering::Relaxed);
            self.calls.call_attention();
        }
    }

    async fn run(self: Arc<Self>) {
        let mut failures: u32 = 0;
        // One that failed is wanted from then on: calls avoid it, so that they would never ask for it.
        while self.calls.demand(|| failures > 0 || self.wanted.load(Ordering::Acquire)).await {
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
        self.is_now(ConnectionState::Down);
        self.calls.down(Some("the client is closed".to_owned()));
        self.calls.end("the client is closed");
    }

    /// Lets calls fail at once for a while: twice as long each time, and half of it at random.
    async fn rest(&self, why: &str, failures: u32) {
        self.is_now(ConnectionState::Down);
        self.calls.down(Some(format!("{} cannot be reached: {why}", self.address)));
        self.calls.end(why);
        self.shared.news.look();
        let half = backoff(BACKOFF_MIN, BACKOFF_MAX, failures) / 2;
        self.calls.rest(half + half.mul_f64(rand::random()), || false).await;
    }

    /// One try to connect, and what follows if it does. While calls fail at once, they do until it stands.
    async fn session(&self) -> End {
        if self.state() != ConnectionState::Down {
            self.is_now(ConnectionState::Connecting);
        }
        let limit = self.shared.connect_timeout;
        let mut incoming = match unless(self.look_after(), timeout(limit, self.connect())).await {
            Ok(Ok(Ok(incoming))) => incoming,
            Ok(Ok(Err(why))) => return End::Failed(why),
            Ok(Err(_)) => return End::Failed(format!("no connection within {limit:?}")),
            Err(end) => return end,
        };
        self.calls.establish();
        self.is_now(ConnectionState::Open);
        match unless(self.look_after(), self.read(&mut incoming)).await {
            Ok(why) => End::Failed(why),
            Err(end) => end,
        }
    }

    async fn connect(&self) -> Result<Streaming<PipelineReply>, String> {
        let channel = transport::endpoint(&self.address, self.shared.connect_timeout)?
            .connect()
            .await
            .map_err(|error| cause(&error))?;
        let mut client = StoreClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let frames = self.calls.frames().map(|calls| PipelineRequest { calls });
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
        let answers = reply.answers.into_iter().map(|numbered| (numbered.id, numbered.answer));
        let answered = self.calls.answered(Instant::now(), answers);
        self.calls.protocol().hand_out(answered, outcome);
        if self.state() == ConnectionState::Stalled {
            self.is_now(ConnectionState::Open);
        }
    }

    /// Keeps deadlines until the connection is closed: one timer for all of them.
    async fn look_after(&self) -> End {
        let stall = self.shared.stall;
        let mut swept = Instant::now();
        while !self.calls.is_closed() {
            let earliest = self.calls.backlog().earliest;
            let due = earliest.map(|due| due.min(swept + stall / 2).max(swept + SWEEP));
            if self.calls.attention_before(due).await {
                continue;
            }
            swept = Instant::now();
            let silent_since = self.calls.backlog().silent_since;
            let is_stalled =
                silent_since.is_some_and(|since| swept.saturating_duration_since(since) >= stall);
            if is_stalled && self.state() == ConnectionState::Open {
                tracing::debug!(server = self.address, "a connection is stalled");
                self.is_now(ConnectionState::Stalled);
            }
            self.calls.expire(swept, |caller| is_stalled && caller.is_read);
        }
        End::Closed
    }
}
