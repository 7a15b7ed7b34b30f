//! Answers other nodes.

use super::{
    Call, Handler, failure,
    hello::{Identity, PeerRole},
    meter::{ServerMeter, answers},
    settings::{CONNECTION_WINDOW, ENVELOPE, HTTP2_FRAME, PeerSettings, STREAM_WINDOW},
    starts::heard,
};
use crate::{
    budget::{Charge, NO_MEMORY, PART, SMALL},
    connections::{DoorLimits, Http2, Outbox, OutboxSlot, Outgoing, Protocol, Remote, Spent, outbox, serve},
    stop::Stop,
};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use god_proto::{
    MAX_MESSAGE,
    ids::{Epoch, NodeId},
    peer::{
        self, Cause, Failure, Frame, Hello, Request, Response,
        peer_server::{Peer, PeerServer},
        request, response,
    },
};
use prost::Message as _;
use std::{
    collections::VecDeque,
    future::{pending, poll_fn},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
    vec,
};
use tokio::{net::TcpListener, time::timeout};
use tonic::{Status, Streaming, service::Routes};

/// Streams a peer may open on one connection; it needs one.
const STREAMS: u32 = 16;
/// Requests that are begun before others on the runtime get a turn.
const TURN: usize = 1_024;

type Handled = Result<response::Body, Failure>;
type OnHello = Arc<dyn Fn(NodeId) + Send + Sync>;

/// The door for other nodes.
pub struct PeerDoor {
    settings: Arc<PeerSettings>,
    identity: Arc<Identity>,
    handler: Arc<dyn Handler>,
    on_hello: OnHello,
    stop: Stop,
}

impl PeerDoor {
    /// A door that hands requests to `handler`.
    pub fn new(
        settings: PeerSettings,
        identity: Arc<Identity>,
        handler: Arc<dyn Handler>,
        stop: Stop,
    ) -> PeerDoor {
        PeerDoor { settings: Arc::new(settings), identity, handler, on_hello: Arc::new(|_| ()), stop }
    }

    /// Calls this when a node introduces itself: whoever calls is there, and can be called
    /// ([`super::GrpcTransport::heard_from`]).
    #[must_use]
    pub fn on_hello(mut self, on_hello: impl Fn(NodeId) + Send + Sync + 'static) -> PeerDoor {
        self.on_hello = Arc::new(on_hello);
        self
    }

    /// Serves until told to stop; then what was begun is answered, for as long as the grace lasts.
    pub async fn serve(self, listener: TcpListener) {
        let settings = Arc::clone(&self.settings);
        let stop = self.stop.clone();
        let service = PeerServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let http2 = Http2 {
            keep_alive: settings.keep_alive,
            keep_alive_timeout: settings.keep_alive_timeout,
            stream_window: STREAM_WINDOW,
            connection_window: CONNECTION_WINDOW,
            frame: HTTP2_FRAME,
            streams: STREAMS,
        };
        let bounds = DoorLimits {
            door: "peer",
            connections: settings.served_connections,
            times: settings.served_times,
            protocol: Protocol::Http2(http2),
            grace: settings.grace,
            budget: settings.budget.clone(),
            spent: Spent::Admit,
        };
        serve(listener, Routes::new(service).prepare().into_axum_router(), bounds, stop).await;
    }
}

#[tonic::async_trait]
impl Peer for PeerDoor {
    type ExchangeStream = Outgoing<Result<Frame, Status>>;

    async fn exchange(
        &self,
        request: tonic::Request<Streaming<Frame>>,
    ) -> Result<tonic::Response<Self::ExchangeStream>, Status> {
        let remote = request.extensions().get::<Remote>().copied();
        let mut incoming = request.into_inner();
        let first = timeout(self.settings.connect_timeout, incoming.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello came in time"))??;
        let hello = first
            .and_then(|frame| frame.hello)
            .ok_or_else(|| Status::invalid_argument("the first frame of a stream carries a hello"))?;
        let mut exchange = Exchange {
            incoming,
            reading: true,
            begun: Vec::new().into_iter(),
            running: FuturesUnordered::new(),
            answered: VecDeque::new(),
            answered_bytes: 0,
            frame: Arc::new(self.settings.budget.new_charge()),
            charge: self.settings.budget.new_charge(),
            hello: Some(self.identity.hello()),
            fault: None,
            theirs: hello,
            remote,
            role: PeerRole::Stranger,
            judged: (Epoch(0), 0),
            handler: Arc::clone(&self.handler),
            identity: Arc::clone(&self.identity),
            on_hello: Arc::clone(&self.on_hello),
            settings: Arc::clone(&self.settings),
            meter: ServerMeter::new(),
            stopped: self.stop.clone().stopped().boxed(),
        };
        exchange.greeted()?;
        let (frames, outgoing) = outbox();
        tokio::spawn(async move { poll_fn(|cx| exchange.poll(cx, &frames)).await });
        Ok(tonic::Response::new(outgoing))
    }
}

/// One stream: requests in, responses out.
///
/// It has a task of its own (READERS-APART). Requests are read and begun while few enough wait for their answers to be
/// taken, so a peer that does not take its answers is not read either. A request that can be answered on the spot
/// costs no task, no timer and no allocation of its own.
struct Exchange {
    incoming: Streaming<Frame>,
    reading: bool,
    /// The rest of the frame that was read last.
    begun: vec::IntoIter<Request>,
    running: FuturesUnordered<BoxFuture<'static, Option<Response>>>,
    answered: VecDeque<(Response, usize)>,
    answered_bytes: usize,
    /// For the frame that was read last, as long as one of its requests is worked on.
    frame: Arc<Charge>,
    /// For the answers that wait.
    charge: Charge,
    hello: Option<Hello>,
    fault: Option<Status>,
    /// Who is at the other end, what it may ask, and under which ring that was found.
    theirs: Hello,
    remote: Option<Remote>,
    role: PeerRole,
    judged: (Epoch, u64),
    handler: Arc<dyn Handler>,
    identity: Arc<Identity>,
    on_hello: OnHello,
    settings: Arc<PeerSettings>,
    meter: ServerMeter,
    stopped: BoxFuture<'static, ()>,
}

/// How far a turn of reading got.
#[derive(Clone, Copy)]
enum Begun {
    Nothing,
    Some,
    /// As much as one turn may.
    Enough,
}

impl Exchange {
    /// Judges who is at the other end, by the ring as it is now.
    fn greeted(&mut self) -> Result<(), Status> {
        self.judged = self.known();
        self.told(self.theirs.start.as_ref());
        self.role = self.identity.role(&self.theirs).map_err(Status::failed_precondition)?;
        if let PeerRole::Member(from) = self.role {
            (self.on_hello)(from);
        }
        Ok(())
    }

    /// Notes where a start is heard of (ONE-START).
    fn told(&self, start: Option<&peer::Start>) {
        if let (Some(start), Some(Remote(address))) = (start, self.remote) {
            self.identity.starts().heard_from(&heard(Some(start)), address);
        }
    }

    /// What the role depends on, beside the hello.
    fn known(&self) -> (Epoch, u64) {
        (self.identity.ring().epoch(), self.identity.starts().changes())
    }

    /// The same, where it introduced itself anew, or the ring or what is known of starts has changed.
    fn still_greeted(&mut self, hello: Option<Hello>) -> Result<(), Status> {
        if hello.is_none() && self.judged == self.known() {
            return Ok(());
        }
        self.theirs = hello.unwrap_or_else(|| std::mem::take(&mut self.theirs));
        self.greeted()
    }

    /// Reads and begins requests, as many as there is room for. Says whether it may go on.
    fn begin(&mut self, cx: &mut Context<'_>) -> Begun {
        let mut progress = Begun::Nothing;
        for _ in 0..TURN {
            if self.running.len() + self.answered.len() >= self.settings.in_flight
                || self.answered_bytes >= self.settings.frame_bytes
            {
                return progress;
            }
            if let Some(request) = self.begun.next() {
                self.begin_one(request, cx);
                progress = Begun::Some;
                continue;
            }
            if !self.reading {
                return progress;
            }
            match self.incoming.poll_next_unpin(cx) {
                Poll::Pending => return progress,
                Poll::Ready(Some(Ok(frame))) => {
                    self.meter.requests.increment(frame.requests.len() as u64);
                    match self.still_greeted(frame.hello) {
                        Ok(()) => {
                            let bytes = frame.requests.iter().map(|request| request.encoded_len() + PART);
                            let mut charge = self.settings.budget.new_charge();
                            charge.force(bytes.sum());
                            self.frame = Arc::new(charge);
                            self.begun = frame.requests.into_iter();
                        }
                        Err(fault) => self.end(Some(fault)),
                    }
                }
                Poll::Ready(Some(Err(fault))) => self.end(Some(fault)),
                Poll::Ready(None) => self.end(None),
            }
            progress = Begun::Some;
        }
        Begun::Enough
    }

    fn end(&mut self, fault: Option<Status>) {
        self.reading = false;
        self.fault = self.fault.take().or(fault);
    }

    fn begin_one(&mut self, request: Request, cx: &mut Context<'_>) {
        let Request { id, epoch, arcs_epoch: arcs, timeout_ms, body } = request;
        let Some(body) = body else {
            let unknown = failure(Cause::Invalid, "the request is of a kind that this version does not know");
            return self.answer(respond(id, Err(unknown)));
        };
        let (from, why) = match &self.role {
            PeerRole::Member(from) => (Some(*from), ""),
            PeerRole::Stranger => (
                None,
                "only a node of the ring may ask for this; others may ask for the ring, and to be taken in",
            ),
            PeerRole::Other(why) => (None, why.as_str()),
        };
        if from.is_none() && !is_for_all(&body) {
            let mut refused = failure(Cause::NotMember, why);
            refused.epoch = self.identity.ring().epoch().0;
            return self.answer(respond(id, Err(refused)));
        }
        // Data waits rather than what keeps nodes together.
        if moves_data(&body) && self.settings.budget.is_spent() {
            self.settings.budget.refused();
            let busy = failure(Cause::Busy, NO_MEMORY);
            return self.answer(respond(id, Err(busy)));
        }
        if let request::Body::Join(join) = &body {
            self.told(join.start.as_ref());
        }
        let limit = Duration::from_millis(timeout_ms.max(1).into());
        let mut work = self.handler.handle(from, Call { epoch, arcs, timeout: limit, body });
        match work.poll_unpin(cx) {
            Poll::Ready(outcome) => self.answer(respond(id, outcome)),
            Poll::Pending => {
                let late = self.meter.late.clone();
                let frame = Arc::clone(&self.frame);
                self.running.push(
                    async move {
                        let _paid = frame;
                        let outcome = timeout(limit, work).await;
                        if outcome.is_err() {
                            late.increment(1);
                        }
                        // No failure where it is late: that would say that nothing was done. The caller gave up.
                        respond(id, outcome.ok()?)
                    }
                    .boxed(),
                );
            }
        }
    }

    fn answer(&mut self, response: Option<Response>) {
        let Some(mut response) = response else { return };
        let size = |response: &Response| response.body.as_ref().map_or(0, response::Body::encoded_len);
        let mut bytes = size(&response);
        if bytes + ENVELOPE > MAX_MESSAGE {
            let message = format!("the answer has {bytes} bytes, the most is {}", MAX_MESSAGE - ENVELOPE);
            response.body = Some(response::Body::Failure(failure(Cause::Invalid, message)));
            bytes = size(&response);
        }
        // What was only read can be read again. Where nothing else waits it is counted all the same, so that whoever
        // asks gets on (BUDGET).
        let may_wait =
            bytes > SMALL && self.answered_bytes > 0 && response.body.as_ref().is_some_and(is_read);
        if !may_wait {
            self.charge.force(bytes);
        } else if !self.charge.grow(bytes) {
            self.settings.budget.refused();
            response.body = Some(response::Body::Failure(failure(Cause::Busy, NO_MEMORY)));
            bytes = size(&response);
            self.charge.force(bytes);
        }
        self.answered_bytes += bytes;
        self.answered.push_back((response, bytes));
    }

    /// Takes what is ready. Says whether it got anywhere. What was begun goes on whether its answers are taken or not:
    /// it may hold what others wait for.
    fn collect(&mut self, cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        while let Poll::Ready(Some(response)) = self.running.poll_next_unpin(cx) {
            self.answer(response);
            progress = true;
        }
        progress
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let mut responses = Vec::with_capacity(self.answered.len().min(self.settings.frame_requests));
        let mut total = 0;
        while responses.len() < self.settings.frame_requests {
            let fits = |(_, bytes): &mut (Response, usize)| {
                responses.is_empty() || total + *bytes <= self.settings.frame_bytes
            };
            let Some((response, bytes)) = self.answered.pop_front_if(fits) else { break };
            self.answered_bytes -= bytes;
            self.charge.shrink(bytes);
            total += bytes;
            responses.push(response);
        }
        (!responses.is_empty()).then(|| answers(responses))
    }
}

impl Exchange {
    /// Works until the stream has ended, or nobody is there to take the answers.
    fn poll(&mut self, cx: &mut Context<'_>, frames: &Outbox<Result<Frame, Status>>) -> Poll<()> {
        if self.reading && self.stopped.poll_unpin(cx).is_ready() {
            self.stopped = pending().boxed();
            self.end(None);
        }
        loop {
            let begun = self.begin(cx);
            let collected = self.collect(cx);
            let mut put = false;
            let has_ended = !self.reading && self.begun.as_slice().is_empty() && self.running.is_empty();
            match frames.room(cx, has_ended || self.hello.is_some() || !self.answered.is_empty()) {
                OutboxSlot::Gone => return Poll::Ready(()),
                OutboxSlot::Taken => {}
                OutboxSlot::Free => {
                    if let Some(hello) = self.hello.take() {
                        frames.put(Ok(Frame { hello: Some(hello), ..Frame::default() }));
                        put = true;
                    } else if let Some(frame) = self.take_frame() {
                        self.meter.frames.increment(1);
                        frames.put(Ok(frame));
                        put = true;
                    } else if has_ended {
                        if let Some(fault) = self.fault.take() {
                            frames.put(Err(fault));
                        }
                        return Poll::Ready(());
                    }
                }
            }
            match begun {
                Begun::Nothing if !collected && !put => return Poll::Pending,
                Begun::Enough => {
                    // There may be more: it comes back after the others on the runtime had their turn.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Begun::Nothing | Begun::Some => {}
            }
        }
    }
}

/// Whether an answer is what was read, and did nothing.
fn is_read(body: &response::Body) -> bool {
    use response::Body::{Read, Scan, Summarize};
    matches!(body, Read(_) | Scan(_) | Summarize(_))
}

/// Whether a request carries much, or is answered with much.
fn moves_data(body: &request::Body) -> bool {
    use request::Body::{Read, Scan, Split, Summarize, Write};
    matches!(body, Write(_) | Read(_) | Scan(_) | Summarize(_) | Split(_))
}

/// MEMBERS-ONLY: whether a node that is not in the ring may ask for it too.
fn is_for_all(body: &request::Body) -> bool {
    matches!(body, request::Body::Join(_) | request::Body::GetRing(_))
}

/// None where no response is wanted.
fn respond(id: u64, outcome: Handled) -> Option<Response> {
    let body = outcome.unwrap_or_else(response::Body::Failure);
    (id != 0).then_some(Response { id, body: Some(body) })
}
