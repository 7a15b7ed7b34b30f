//! Accepts, and looks after each connection until it ends.

use super::{
    ahead::Ahead,
    request::{ChargedBody, Spent},
    slots::{Action, Active, ConnectionSlots, HeldSlot},
    socket::Socket,
};
use crate::{
    budget::{Budget, Charge, method},
    stop::Stop,
};
use axum::{
    Router,
    body::{Body, Bytes},
    http::Request,
};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{
    body::Incoming,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use metrics::counter;
use parking_lot::Mutex;
use std::{
    convert::Infallible,
    io,
    net::IpAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    select,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

/// What HTTP/2 begins with: its preface, and the header of a SETTINGS frame.
const HTTP2_GREETING: usize = 24 + 9;
/// What a request's headers may take, in bytes.
const HEADERS: u32 = 16 << 10;
/// How long a connection that was told to leave may take.
const PARTING: Duration = Duration::from_secs(5);
/// The wait after a connection could not be accepted; it doubles at each further failure.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// The longest such wait.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// How long connections may take for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// From connecting to the end of the handshake (HTTP/2: its preface and settings; HTTP/1.1: a request's headers).
    pub handshake: Duration,
    /// Without any request.
    pub idle: Duration,
    /// Without taking anything of an answer that waits to be sent.
    pub unread: Duration,
}

impl Default for Times {
    fn default() -> Times {
        Times {
            handshake: Duration::from_secs(5),
            idle: Duration::from_mins(15),
            unread: Duration::from_secs(30),
        }
    }
}

/// What is spoken.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2(Http2),
}

/// The bounds of HTTP/2.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Http2 {
    /// How often a silent connection is pinged.
    pub keep_alive: Duration,
    /// How long the answer to such a ping may take.
    pub keep_alive_timeout: Duration,
    /// Bytes that one stream may send ahead.
    pub stream_window: u32,
    /// Bytes that a connection may send ahead.
    pub connection_window: u32,
    /// The largest frame, in bytes.
    pub frame: u32,
    /// Requests of one connection at a time.
    pub streams: u32,
}

/// The bounds of one door.
#[derive(Clone, Debug)]
pub(crate) struct DoorLimits {
    /// Its name among the metrics.
    pub door: &'static str,
    /// The most connections at a time.
    pub connections: usize,
    /// How long they may take.
    pub times: Times,
    /// What is spoken.
    pub protocol: Protocol,
    /// How long requests may take to finish when the node stops.
    pub grace: Duration,
    /// What requests and answers are paid from.
    pub budget: Budget,
    /// What to do with requests where that is spent.
    pub spent: Spent,
}

/// Where a request came from: the other end of its connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remote(pub IpAddr);

/// Serves until told to stop; then what was begun may end, for as long as the grace lasts.
pub(crate) async fn serve(listener: TcpListener, router: Router, bounds: DoorLimits, stop: Stop) {
    let slots = ConnectionSlots::new(bounds.door, bounds.connections);
    let ahead = Ahead::new(bounds.door, bounds.budget.limit() / 2);
    let mut connections = JoinSet::new();
    let mut stopped = pin!(stop.clone().stopped());
    let mut backoff = BACKOFF_MIN;
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = select! {
            biased;
            () = &mut stopped => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                backoff = BACKOFF_MIN;
                if let Some(held) = slots.take() {
                    let ahead = ahead.clone();
                    connections.spawn(hold(
                        stream,
                        router.clone(),
                        bounds.clone(),
                        ahead,
                        held,
                        stop.clone(),
                    ));
                }
            }
            Err(error) if is_of_the_other_side(&error) => {}
            Err(error) => {
                // Out of descriptors, mostly: asking again at once would only take the processor from those who
                // could give one back.
                counter!("god_connections_accept_errors_total", "door" => bounds.door).increment(1);
                tracing::warn!(%error, door = bounds.door, "a connection cannot be accepted");
                select! {
                    biased;
                    () = &mut stopped => break,
                    () = sleep(backoff) => {}
                }
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }
    drop(listener);
    let _cut = timeout(bounds.grace, async { while connections.join_next().await.is_some() {} }).await;
    // Those that are left when the grace is over are dropped, with what they have under way, before this returns.
    connections.shutdown().await;
}

fn is_of_the_other_side(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// One connection, until its end.
async fn hold(
    stream: TcpStream,
    router: Router,
    mut bounds: DoorLimits,
    ahead: Ahead,
    held: HeldSlot,
    stop: Stop,
) {
    // Without it small answers wait for company; a failure means that the connection is gone already.
    let _gone = stream.set_nodelay(true);
    let held = Arc::new(held);
    // Buffers and the like are made for who says something: one that is silent costs its slot and little else
    // (CONNECTIONS-BOUNDED).
    if speaks(&stream, &held, &bounds.times, &stop).await {
        // Held until the connection ends.
        let mut granted = None;
        if let Protocol::Http2(http2) = &mut bounds.protocol {
            *http2 = granted.insert(ahead.grant(http2.connection_window)).bound(*http2);
        }
        Box::pin(talk(stream, router, bounds, held, stop)).await;
    }
}

/// Waits for the first byte. Whether it came before the connection had to go.
async fn speaks(stream: &TcpStream, held: &HeldSlot, times: &Times, stop: &Stop) -> bool {
    let mut stopped = pin!(stop.clone().stopped());
    let mut first = [0];
    loop {
        let next = match held.slot.judge(times) {
            Action::Until(next) => next,
            Action::Close(reason) | Action::Leave(reason) => {
                held.slots.ended(reason);
                return false;
            }
        };
        select! {
            biased;
            () = &mut stopped => return false,
            bytes = stream.peek(&mut first) => return bytes.is_ok_and(|bytes| bytes > 0),
            () = held.slot.lost.notified() => {}
            () = sleep_until(next) => {}
        }
    }
}

/// A connection that has begun to speak, until its end.
async fn talk(stream: TcpStream, router: Router, bounds: DoorLimits, held: Arc<HeldSlot>, stop: Stop) {
    let greeting = matches!(bounds.protocol, Protocol::Http2(_)).then_some(HTTP2_GREETING);
    let greeted = Arc::clone(&held);
    let remote = stream.peer_addr().ok().map(|address| Remote(address.ip()));
    let socket = Socket::new(stream, bounds.times.unread, greeting, move || greeted.greeted());
    let router = TowerToHyperService::new(router);
    let of_requests = Arc::clone(&held);
    let budget = bounds.budget.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        of_requests.greeted();
        if let Some(remote) = remote {
            request.extensions_mut().insert(remote);
        }
        let active = of_requests.slot.begin();
        let charge = Arc::new(Mutex::new(budget.new_charge()));
        let method = method(request.uri().path());
        let paid = Arc::clone(&charge);
        let request = request.map(|body| {
            ChargedBody::new(body, method, budget.clone(), bounds.spent, paid, bounds.times.unread)
        });
        let answer = router.call(request);
        let sending = budget.new_charge();
        async move {
            let answer = answer.await?;
            Ok::<_, Infallible>(answer.map(|body| Answer { body, active, sending, _request: charge }))
        }
    });
    let builder = builder(&bounds);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), service));
    let mut stopped = pin!(stop.stopped());
    let (mut stopping, mut leaves_by) = (false, None::<Instant>);
    loop {
        let now = Instant::now();
        let mut look = leaves_by;
        if leaves_by.is_none() {
            match held.slot.judge(&bounds.times) {
                Action::Until(next) => look = Some(next),
                Action::Close(reason) => return held.slots.ended(reason),
                Action::Leave(reason) => {
                    held.slots.ended(reason);
                    connection.as_mut().graceful_shutdown();
                    leaves_by = Some(now + PARTING);
                    look = leaves_by;
                }
            }
        } else if leaves_by.is_some_and(|by| by <= now) {
            return;
        }
        select! {
            biased;
            // An error is the other side's affair: it broke the connection, or the protocol.
            _ = &mut connection => return,
            () = &mut stopped, if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = held.slot.lost.notified() => {}
            () = sleep_until(look.unwrap_or(now + bounds.times.unread)) => {}
        }
    }
}

fn builder(bounds: &DoorLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    match bounds.protocol {
        Protocol::Http1 => {
            builder
                .http1()
                .timer(TokioTimer::new())
                .header_read_timeout(bounds.times.handshake)
                .max_buf_size(HEADERS as usize);
            builder.http1_only()
        }
        Protocol::Http2(http2) => {
            builder
                .http2()
                .timer(TokioTimer::new())
                .keep_alive_interval(http2.keep_alive)
                .keep_alive_timeout(http2.keep_alive_timeout)
                .initial_stream_window_size(http2.stream_window)
                .initial_connection_window_size(http2.connection_window)
                .max_frame_size(http2.frame)
                .max_concurrent_streams(http2.streams)
                .max_header_list_size(HEADERS);
            builder.http2_only()
        }
    }
}

/// An answer that knows whether it is taken.
struct Answer {
    body: Body,
    active: Active,
    /// The part that was handed over to be sent.
    sending: Charge,
    _request: Arc<Mutex<Charge>>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        this.active.asked();
        this.sending.clear();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            this.active.handed();
            this.sending.force(frame.data_ref().map_or(0, Bytes::len));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
