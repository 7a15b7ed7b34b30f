//! Real sockets on loopback, and both ends of the protocol.
#![allow(clippy::unwrap_used)]

mod bounds;
mod members;
mod starts;

use super::*;
use crate::{
    ring::CurrentRing,
    seam::Entropy,
    stop::{Stopper, stop},
};
use futures::{FutureExt, future::join_all};
use god_proto::{
    MAX_MESSAGE, MAX_VALUE, PEER_PROTOCOL,
    ids::Epoch,
    peer::{
        Cause, Decided, Entry, Frame, GetRing, Hello, Ping, Pong, Read, ReadDone, Report, Request, Response,
        RingDone, Scan, ScanDone, Split, Verdict, Write, WriteDone, peer_client::PeerClient,
    },
    ring::{RING_FORMAT, Ring},
    v1::{Member, RingDocument},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep},
};
use uuid::Uuid;

const LONG: Duration = Duration::from_secs(20);

fn uuid_of(number: u32) -> Uuid {
    Uuid::from_u128(number.into())
}

/// A ring of nodes at addresses.
fn ring(cluster: u8, epoch: u64, nodes: &[(u32, String)]) -> Arc<Ring> {
    let member = |(number, address): &(u32, String)| Member {
        number: *number,
        uuid: uuid_of(*number).as_bytes().to_vec().into(),
        peer_address: address.clone(),
        weight: 1.0,
        ..Member::default()
    };
    let document = RingDocument {
        format: RING_FORMAT,
        cluster: vec![cluster; 16].into(),
        epoch,
        voters: vec![nodes[0].0],
        nodes: nodes.iter().map(member).collect(),
        next_node: 100,
        next_keyspace: 1,
        next_arc: 1,
        ..RingDocument::default()
    };
    Arc::new(Ring::new(document).unwrap())
}

/// A ring of nodes that are nowhere yet.
fn known() -> Arc<Ring> {
    ring(1, 1, &std::array::from_fn::<_, 9, _>(|number| (number as u32 + 1, String::new())))
}

fn identity(number: u32, rings: &[Arc<Ring>]) -> Arc<Identity> {
    let current = CurrentRing::default();
    for ring in rings {
        current.advance(Arc::clone(ring));
    }
    Identity::new(uuid_of(number), current, Arc::default())
}

fn transport(settings: PeerSettings, identity: Arc<Identity>) -> GrpcTransport {
    GrpcTransport::new(settings, identity, Arc::new(Entropy::seeded(1)))
}

/// Answers pings with their own number, writes with as many verdicts as entries, reads never.
#[derive(Default)]
struct Echo {
    from: parking_lot::Mutex<Vec<Option<NodeId>>>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    slow: AtomicBool,
}

impl Handler for Arc<Echo> {
    fn handle(
        &self,
        from: Option<NodeId>,
        call: Call,
    ) -> BoxFuture<'static, Result<response::Body, Failure>> {
        self.from.lock().push(from);
        let echo = Arc::clone(self);
        async move {
            match call.body {
                request::Body::Ping(ping) => {
                    let now = echo.at_once.fetch_add(1, Ordering::SeqCst) + 1;
                    echo.most_at_once.fetch_max(now, Ordering::SeqCst);
                    if echo.slow.load(Ordering::SeqCst) {
                        sleep(Duration::from_millis(1)).await;
                    }
                    echo.at_once.fetch_sub(1, Ordering::SeqCst);
                    Ok(response::Body::Pong(Pong { received_us: ping.sent_us, ..Pong::default() }))
                }
                request::Body::Write(write) => {
                    let verdicts = write.entries.iter().map(|_| Verdict::default()).collect();
                    Ok(response::Body::Write(WriteDone { verdicts }))
                }
                request::Body::Split(_) => {
                    let value = Bytes::from(vec![1; MAX_MESSAGE]);
                    let entry = Entry { value, ..Entry::default() };
                    Ok(response::Body::Read(ReadDone { entries: vec![entry] }))
                }
                request::Body::Scan(_) => {
                    if echo.slow.load(Ordering::SeqCst) {
                        sleep(Duration::from_millis(50)).await;
                    }
                    let entry = Entry { value: vec![1; MAX_VALUE].into(), ..Entry::default() };
                    Ok(response::Body::Scan(ScanDone { entries: vec![entry], ..ScanDone::default() }))
                }
                request::Body::GetRing(_) => Ok(response::Body::Ring(RingDone::default())),
                request::Body::Report(_) => Err(failure(Cause::NotReplica, "not here")),
                _ => futures::future::pending().await,
            }
        }
        .boxed()
    }
}

use bytes::Bytes;

struct Node {
    address: String,
    echo: Arc<Echo>,
    stopper: Stopper,
    serving: JoinHandle<()>,
}

async fn node_with(identity: Arc<Identity>, settings: PeerSettings, address: &str) -> Node {
    let listener = bind(address).await;
    let address = listener.local_addr().unwrap().to_string();
    let (stopper, stop) = stop();
    let echo = Arc::new(Echo::default());
    let door = PeerDoor::new(settings, identity, Arc::new(Arc::clone(&echo)), stop);
    let serving = tokio::spawn(async move { door.serve(listener).await });
    Node { address, echo, stopper, serving }
}

/// A port that was in use a moment ago may take a moment to be free.
async fn bind(address: &str) -> TcpListener {
    let until = Instant::now() + LONG;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => assert!(Instant::now() < until, "{address}: {error}"),
        }
        sleep(Duration::from_millis(5)).await;
    }
}

async fn node(number: u32) -> Node {
    node_with(identity(number, &[known()]), PeerSettings::default(), "127.0.0.1:0").await
}

fn at(node: &Node) -> Target {
    Target::Address(node.address.clone())
}

fn ping(sent_us: u64) -> Call {
    Call { epoch: 0, arcs: 0, timeout: LONG, body: request::Body::Ping(Ping { sent_us, epoch: 0 }) }
}

fn get_ring() -> Call {
    Call { epoch: 0, arcs: 0, timeout: LONG, body: request::Body::GetRing(GetRing {}) }
}

fn never(timeout: Duration) -> Call {
    Call { epoch: 0, arcs: 0, timeout, body: request::Body::Read(Read::default()) }
}

fn write(bytes: usize) -> Call {
    let entry = Entry { value: vec![7; bytes].into(), ..Entry::default() };
    Call { epoch: 0, arcs: 0, timeout: LONG, body: request::Body::Write(Write { entries: vec![entry] }) }
}

fn pong(answer: Result<response::Body, CallError>) -> u64 {
    match answer.unwrap() {
        response::Body::Pong(pong) => pong.received_us,
        other => panic!("not a pong: {other:?}"),
    }
}

/// Waits until something is so.
async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !so() {
        assert!(Instant::now() < deadline, "it never came to this: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn each_caller_gets_the_answer_to_its_own_call() {
    let node = node(1).await;
    node.echo.slow.store(true, Ordering::SeqCst);
    let transport = transport(PeerSettings::default(), identity(2, &[known()]));
    let calls = (0..5_000).map(|number| transport.call(at(&node), ping(number)));
    let answers: Vec<u64> = join_all(calls).await.into_iter().map(pong).collect();
    assert_eq!(answers, (0..5_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn calls_that_wait_share_a_frame_and_no_frame_holds_more_than_it_may() {
    // A server that only notes the sizes of the frames it gets.
    let (sizes, mut frames) = mpsc::unbounded_channel();
    let address = noting_server(sizes).await;
    let settings = PeerSettings { connections: 1, frame_requests: 10, ..PeerSettings::default() };
    let transport = transport(settings, identity(2, &[known()]));
    let calls: Vec<_> =
        (0..25).map(|number| transport.call(Target::Address(address.clone()), ping(number))).collect();
    let mut sizes = vec![];
    while sizes.iter().sum::<usize>() < 25 {
        sizes.push(frames.recv().await.unwrap());
    }
    assert_eq!(sizes, [10, 10, 5]);
    drop(calls);
}

/// Stands for the end of a stream.
const ENDED: usize = usize::MAX;

#[tokio::test]
async fn a_connection_to_a_bare_address_ends_when_it_is_idle_and_comes_back_when_it_is_not() {
    let (sizes, mut frames) = mpsc::unbounded_channel();
    let target = Target::Address(noting_server(sizes).await);
    let settings =
        PeerSettings { connections: 1, address_idle: Duration::from_millis(20), ..PeerSettings::default() };
    let transport = transport(settings, identity(2, &[known()]));
    for _ in 0..2 {
        transport.tell(target.clone(), 0, ping(1).body);
        assert_eq!(frames.recv().await, Some(1));
        assert_eq!(frames.recv().await, Some(ENDED));
    }
}

#[tokio::test]
async fn the_address_that_was_not_used_for_longest_makes_room_for_another() {
    let (sizes, mut frames) = mpsc::unbounded_channel();
    let first = Target::Address(noting_server(sizes).await);
    let settings = PeerSettings { connections: 1, addresses: 1, ..PeerSettings::default() };
    let transport = transport(settings, identity(2, &[known()]));
    let unanswered = transport.call(first, ping(1));
    assert_eq!(frames.recv().await, Some(1));
    let second = node(1).await;
    assert_eq!(pong(transport.call(at(&second), ping(2)).await), 2);
    assert_eq!(frames.recv().await, Some(ENDED));
    assert!(matches!(unanswered.await, Err(CallError::Lost(_))));
}

#[tokio::test]
async fn an_address_of_which_nothing_more_is_wanted_is_left_at_once_unless_somebody_waits_for_it() {
    let (sizes, mut frames) = mpsc::unbounded_channel();
    let silent = noting_server(sizes).await;
    let transport = transport(PeerSettings::default(), identity(2, &[known()]));
    let unanswered = transport.call(Target::Address(silent.clone()), ping(1));
    assert_eq!(frames.recv().await, Some(1));
    transport.leave(&silent);
    assert_eq!(transport.peers(), 1);
    let other = node(1).await;
    for left in [1, 2] {
        assert_eq!(pong(transport.call(at(&other), ping(left)).await), left);
        assert_eq!(transport.peers(), 2);
        let Target::Address(address) = at(&other) else { panic!("it is one") };
        transport.leave(&address);
        assert_eq!(transport.peers(), 1);
    }
    drop(unanswered);
}

/// Says hello, then reports how many requests each frame has and answers none.
async fn noting_server(sizes: mpsc::UnboundedSender<usize>) -> String {
    struct Noting(mpsc::UnboundedSender<usize>);
    #[tonic::async_trait]
    impl god_proto::peer::peer_server::Peer for Noting {
        type ExchangeStream = futures::stream::BoxStream<'static, Result<Frame, tonic::Status>>;
        async fn exchange(
            &self,
            request: tonic::Request<tonic::Streaming<Frame>>,
        ) -> Result<tonic::Response<Self::ExchangeStream>, tonic::Status> {
            let mut incoming = request.into_inner();
            let sizes = self.0.clone();
            tokio::spawn(async move {
                while let Ok(Some(frame)) = incoming.message().await {
                    if !frame.requests.is_empty() {
                        let _gone = sizes.send(frame.requests.len());
                    }
                }
                let _gone = sizes.send(ENDED);
            });
            let hello = Frame {
                hello: Some(Hello { protocol: PEER_PROTOCOL, ..Hello::default() }),
                ..Frame::default()
            };
            let stream = futures::stream::iter([Ok(hello)]).chain(futures::stream::pending());
            Ok(tonic::Response::new(stream.boxed()))
        }
    }
    use futures::StreamExt;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let service = god_proto::peer::peer_server::PeerServer::new(Noting(sizes));
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    address
}

#[tokio::test]
async fn a_call_that_is_never_answered_ends_by_its_time_and_stays_open() {
    let node = node(1).await;
    let transport = transport(PeerSettings::default(), identity(2, &[known()]));
    let calls = (1..20).map(|ms| transport.call(at(&node), never(Duration::from_millis(20 * ms))));
    for answer in join_all(calls).await {
        let error = answer.unwrap_err();
        assert_eq!(error, CallError::TimedOut);
        assert!(error.is_open());
    }
    assert_eq!(pong(transport.call(at(&node), ping(1)).await), 1);
}

#[tokio::test]
async fn a_refusal_comes_through_as_it_was_said() {
    let node = node(1).await;
    let transport = transport(PeerSettings::default(), identity(2, &[known()]));
    let call = Call { body: request::Body::Report(Report::default()), ..ping(0) };
    let Err(CallError::Refused(failure)) = transport.call(at(&node), call).await else {
        panic!("not refused")
    };
    assert_eq!((failure.cause(), &failure.message[..]), (Cause::NotReplica, "not here"));
}

#[tokio::test]
async fn what_was_sent_to_a_node_that_dies_is_lost_and_later_calls_are_not_sent() {
    // In a runtime of its own, which takes its sockets along when it ends, like a killed process.
    let process = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let node = process.spawn(node(1)).await.unwrap();
    let transport = transport(PeerSettings::default(), identity(2, &[known()]));
    let call = transport.call(at(&node), never(LONG));
    until("the call arrived", || !node.echo.from.lock().is_empty()).await;
    process.shutdown_background();
    let lost = call.await.unwrap_err();
    assert!(matches!(lost, CallError::Lost(_)), "{lost:?}");
    assert!(lost.is_open());
    let later = transport.call(at(&node), ping(1)).await.unwrap_err();
    assert!(matches!(later, CallError::NotSent(_)), "{later:?}");
    assert!(!later.is_open());
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    // It takes connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::Address(silent.local_addr().unwrap().to_string());
    let settings = PeerSettings { connections: 1, queue_requests: 3, ..PeerSettings::default() };
    let transport = transport(settings, identity(2, &[known()]));
    let waiting: Vec<_> = (0..3).map(|number| transport.call(target.clone(), ping(number))).collect();
    assert_eq!(transport.call(target, ping(4)).await, Err(CallError::QueueFull));
    for answer in join_all(waiting).await {
        assert!(matches!(answer, Err(CallError::NotSent(_))), "{answer:?}");
    }
}

#[tokio::test]
async fn a_queue_is_bounded_in_bytes_too() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::Address(silent.local_addr().unwrap().to_string());
    let settings = PeerSettings { connections: 1, queue_bytes: 1_000, ..PeerSettings::default() };
    let transport = transport(settings, identity(2, &[known()]));
    let one_large = transport.call(target.clone(), write(100_000));
    assert_eq!(transport.call(target, write(1)).await, Err(CallError::QueueFull));
    assert!(one_large.await.is_err());
}

#[tokio::test]
async fn nodes_of_two_clusters_do_not_talk_and_say_why() {
    let theirs = node_with(identity(1, &[]), PeerSettings::default(), "127.0.0.1:0").await;
    let ours = ring(1, 1, &[(2, "127.0.0.1:1".to_owned())]);
    let other = ring(9, 1, &[(1, theirs.address.clone())]);
    let stranger = node_with(identity(1, &[other]), PeerSettings::default(), "127.0.0.1:0").await;
    let transport = transport(PeerSettings::default(), identity(2, &[ours]));
    // One that is in no cluster yet may be talked to, if not about everything.
    assert!(matches!(transport.call(at(&theirs), get_ring()).await, Ok(response::Body::Ring(_))));
    let Err(CallError::NotSent(why)) = transport.call(at(&stranger), ping(1)).await else { panic!("sent") };
    for cluster in [1, 9] {
        let cluster = Uuid::from_bytes([cluster; 16]).to_string();
        assert!(why.contains(&cluster), "{why}");
    }
    assert!(stranger.echo.from.lock().is_empty());
}

#[tokio::test]
async fn another_version_of_the_protocol_is_refused() {
    let node = node(1).await;
    let hello = Hello { protocol: PEER_PROTOCOL + 1, ..Hello::default() };
    let status = greet(&node.address, Frame { hello: Some(hello), ..Frame::default() }).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    assert!(status.message().contains("speaks peer protocol 2"), "{status:?}");
    let status = greet(&node.address, Frame::default()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
}

type Greeted = Result<(mpsc::Sender<Frame>, tonic::Streaming<Frame>), tonic::Status>;

/// Opens a stream by hand.
async fn greet(address: &str, first: Frame) -> Greeted {
    let (frames, outgoing) = mpsc::channel(16);
    frames.send(first).await.unwrap();
    let outgoing = tokio_stream_of(outgoing);
    let client = PeerClient::connect(format!("http://{address}")).await.unwrap();
    let incoming = client.max_decoding_message_size(MAX_MESSAGE).exchange(outgoing).await?.into_inner();
    Ok((frames, incoming))
}

fn tokio_stream_of(mut frames: mpsc::Receiver<Frame>) -> impl futures::Stream<Item = Frame> + Send {
    futures::stream::poll_fn(move |cx| frames.poll_recv(cx))
}

/// Says that it is a number, by the UUID of another one if need be, of a cluster if that is not 0.
fn hello_of(number: u32, uuid: u32, cluster: u8) -> Hello {
    let cluster = if cluster == 0 { vec![] } else { vec![cluster; 16] };
    let uuid = uuid_of(uuid).as_bytes().to_vec().into();
    Hello { protocol: PEER_PROTOCOL, cluster: cluster.into(), uuid, number, start: None }
}

fn hello() -> Frame {
    let hello = hello_of(7, 7, 1);
    Frame { hello: Some(hello), ..Frame::default() }
}

#[tokio::test]
async fn a_request_of_an_unknown_kind_is_refused_and_the_stream_goes_on() {
    let node = node(1).await;
    let (frames, mut incoming) = greet(&node.address, hello()).await.unwrap();
    assert_eq!(incoming.message().await.unwrap().unwrap().hello.unwrap().protocol, PEER_PROTOCOL);
    let unknown = Request { id: 3, timeout_ms: 1_000, ..Request::default() };
    let known = Request { id: 4, timeout_ms: 1_000, body: Some(ping(5).body), ..Request::default() };
    frames.send(Frame { requests: vec![unknown, known], ..Frame::default() }).await.unwrap();
    let responses = incoming.message().await.unwrap().unwrap().responses;
    let Some(response::Body::Failure(failure)) = &responses[0].body else { panic!("{responses:?}") };
    assert_eq!((responses[0].id, failure.cause()), (3, Cause::Invalid));
    assert_eq!(responses[1].id, 4);
    assert_eq!(node.echo.from.lock()[..], [Some(NodeId(7))]);
}

#[tokio::test]
async fn a_node_that_moves_is_found_at_its_new_address() {
    let settings = PeerSettings { backoff_max: Duration::from_millis(100), ..PeerSettings::default() };
    let before = node(1).await;
    let identity = identity(2, &[ring(1, 1, &[(1, before.address.clone()), (2, String::new())])]);
    let transport = transport(settings, Arc::clone(&identity));
    let target = Target::Node(NodeId(1));
    assert_eq!(pong(transport.call(target.clone(), ping(1)).await), 1);
    assert_eq!(before.echo.from.lock()[..], [Some(NodeId(2))]);

    // By gossip, while the old connection still stands.
    let after = node(1).await;
    transport.learn(NodeId(1), after.address.clone());
    let until = Instant::now() + LONG;
    while after.echo.from.lock().is_empty() {
        assert!(Instant::now() < until, "it was never called at its new address");
        let _moving = transport.call(target.clone(), ping(2)).await;
    }

    // By the ring, after the connection broke.
    after.stopper.stop();
    after.serving.await.unwrap();
    before.stopper.stop();
    before.serving.await.unwrap();
    let third = node(1).await;
    identity.ring().advance(ring(1, 2, &[(1, third.address.clone()), (2, String::new())]));
    assert_eq!(identity.ring().epoch(), Epoch(2));
    let until = Instant::now() + LONG;
    while transport.call(target.clone(), ping(3)).await.is_err() {
        assert!(Instant::now() < until, "it was never found by the ring's address");
        sleep(Duration::from_millis(5)).await;
    }
    assert!(!third.echo.from.lock().is_empty());
}

#[tokio::test]
async fn a_node_that_took_over_an_address_is_not_taken_for_the_other_one() {
    let other = node_with(identity(5, &[known()]), PeerSettings::default(), "127.0.0.1:0").await;
    let identity = identity(2, &[ring(1, 1, &[(1, other.address.clone()), (2, String::new())])]);
    let transport = transport(PeerSettings::default(), identity);
    let refused = transport.call(Target::Node(NodeId(1)), ping(1)).await;
    let Err(CallError::NotSent(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains(&uuid_of(5).to_string()), "{why}");
    assert!(other.echo.from.lock().is_empty());
    let unknown = transport.call(Target::Node(NodeId(77)), ping(1)).await;
    assert!(matches!(unknown, Err(CallError::NotSent(_))), "{unknown:?}");
}

#[tokio::test]
async fn a_node_answers_itself_in_place() {
    let transport = transport(PeerSettings::default(), identity(2, &[ring(1, 1, &[(2, String::new())])]));
    let me = Target::Node(NodeId(2));
    let early = transport.call(me.clone(), ping(1)).await;
    assert!(matches!(early, Err(CallError::NotSent(_))), "{early:?}");
    let echo = Arc::new(Echo::default());
    transport.set_local(Arc::new(Arc::clone(&echo)));
    assert_eq!(pong(transport.call(me.clone(), ping(9)).await), 9);
    assert_eq!(echo.from.lock()[..], [Some(NodeId(2))]);
    let late = transport.call(me.clone(), never(Duration::from_millis(20))).await;
    assert_eq!(late, Err(CallError::TimedOut));
    transport.tell(me, 0, ping(1).body);
    until("it was told", || echo.from.lock().len() == 3).await;
}

#[tokio::test]
async fn what_is_told_arrives_and_is_not_answered() {
    let node = node(1).await;
    let transport = transport(PeerSettings::default(), identity(2, &[known()]));
    transport.tell(at(&node), 3, ping(1).body);
    until("it was told", || node.echo.from.lock().len() == 1).await;
}

#[tokio::test]
async fn a_dropped_call_is_sent_all_the_same() {
    let node = node(1).await;
    let transport = transport(PeerSettings::default(), identity(2, &[known()]));
    drop(transport.call(at(&node), write(3)));
    until("it arrived", || node.echo.from.lock().len() == 1).await;
}

#[tokio::test]
async fn a_node_that_stops_answers_what_it_began() {
    let node = node(1).await;
    node.echo.slow.store(true, Ordering::SeqCst);
    let transport = transport(PeerSettings::default(), identity(2, &[known()]));
    let calls: Vec<_> = (0..50).map(|number| transport.call(at(&node), ping(number))).collect();
    until("the calls arrived", || node.echo.from.lock().len() == 50).await;
    node.stopper.stop();
    assert_eq!(join_all(calls).await.into_iter().map(pong).sum::<u64>(), 1_225);
    node.serving.await.unwrap();
}

#[tokio::test]
async fn the_wait_after_a_failed_connect_ends_when_the_node_is_heard_of() {
    let gone = node(1).await;
    gone.stopper.stop();
    gone.serving.await.unwrap();
    let address: SocketAddr = gone.address.parse().unwrap();
    let identity = identity(2, &[ring(1, 1, &[(1, gone.address.clone()), (2, String::new())])]);
    let settings =
        PeerSettings { backoff_min: LONG * 100, backoff_max: LONG * 100, ..PeerSettings::default() };
    let transport = transport(settings, identity);
    let target = Target::Node(NodeId(1));
    assert!(transport.call(target.clone(), ping(1)).await.is_err());
    let _back = node_with(self::identity(1, &[known()]), PeerSettings::default(), &address.to_string()).await;
    let resting = transport.call(target.clone(), ping(1)).await;
    assert!(matches!(resting, Err(CallError::NotSent(_))), "{resting:?}");
    transport.heard_from(NodeId(1));
    let until = Instant::now() + LONG;
    while transport.call(target.clone(), ping(1)).await.is_err() {
        assert!(Instant::now() < until, "it still waits");
        tokio::task::yield_now().await;
    }
}
