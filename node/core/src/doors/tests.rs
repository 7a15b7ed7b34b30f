//! The doors over a node that is made up, through real sockets.
#![allow(clippy::unwrap_used)]

mod bounds;

use super::{Metrics, Readiness, Service, serve_grpc, serve_http};
use crate::{
    budget::{Budget, Paid},
    connections::Times,
    quorum::AnswerSink,
    stop::{Stopper, stop},
};
use bytes::Bytes;
use futures::{FutureExt, Stream, future::BoxFuture};
use god_proto::{
    MAX_BATCH, MAX_MESSAGE, MAX_VALUE,
    v1::{
        Answer, BatchRequest, BeginOperationReply, BeginOperationRequest, Call, CancelOperationReply,
        CancelOperationRequest, Committed, CountReply, CountRequest, CreateKeyspaceReply,
        CreateKeyspaceRequest, DeleteKeyspaceReply, DeleteKeyspaceRequest, DeleteRequest, Found, GetReply,
        GetRequest, InitReply, InitRequest, Keyspace, ListKeyspacesReply, ListKeyspacesRequest,
        ListOperationsReply, ListOperationsRequest, NumberedCall, PipelineRequest, PlanOperationReply,
        PlanOperationRequest, PutRequest, RankReply, RankRequest, Reason, Rejected, RingDocument, RingReply,
        RingRequest, ScanReply, ScanRequest, SelectReply, SelectRequest, StatusReply, StatusRequest,
        WriteReply, answer, call, cluster_client::ClusterClient, get_reply, store_client::StoreClient,
        write_reply,
    },
};
use metrics_exporter_prometheus::PrometheusBuilder;
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tonic::{Code, Request, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

/// Commits every write and finds every key, with the key as its value, or a large one where it begins with "large".
/// Keys that begin with "slow" take until the end. One that begins with "hold" holds a lock that all such ones need
/// across some turns of the runtime.
#[derive(Default)]
struct Fake {
    hold: tokio::sync::Mutex<()>,
    held: AtomicUsize,
    unready: AtomicBool,
    timeouts: Mutex<Vec<u32>>,
    calls: AtomicUsize,
}

fn fake_answer(call: Call) -> Answer {
    let answer = match call.call {
        Some(call::Call::Get(get)) => {
            let value = if get.key.starts_with(b"large") { vec![7; 4 << 20].into() } else { get.key };
            let found = Found { value, ..Found::default() };
            answer::Answer::Get(GetReply { outcome: Some(get_reply::Outcome::Found(found)) })
        }
        Some(_) => {
            let committed = Committed { version: None, acks: 2 };
            answer::Answer::Write(WriteReply { outcome: Some(write_reply::Outcome::Committed(committed)) })
        }
        None => return Answer::refused(false, Rejected::of(Reason::Invalid, "the call is empty")),
    };
    Answer { answer: Some(answer) }
}

impl Service for Fake {
    fn batch_to<'a>(&'a self, calls: Vec<Call>, told: &'a mut dyn AnswerSink) -> BoxFuture<'a, ()> {
        self.calls.fetch_add(calls.len(), Ordering::SeqCst);
        let begins = |call: &Call, how: &[u8]| match &call.call {
            Some(call::Call::Get(get)) => get.key.starts_with(how),
            _ => false,
        };
        for call in &calls {
            if let Some(call::Call::Get(get)) = &call.call {
                self.timeouts.lock().push(get.timeout_ms);
            }
        }
        let holds = calls.iter().any(|call| begins(call, b"hold"));
        async move {
            if holds {
                let _held = self.hold.lock().await;
                self.held.fetch_add(1, Ordering::SeqCst);
                sleep(Duration::from_millis(300)).await;
            }
            let asked = calls.len();
            let done = calls.into_iter().enumerate().filter(|(_, call)| !begins(call, b"slow"));
            let done: Vec<_> = done.map(|(slot, call)| (slot, fake_answer(call))).collect();
            let slow = done.len() < asked;
            if !done.is_empty() {
                told.take(done, Paid::default());
            }
            if slow {
                std::future::pending::<()>().await;
            }
        }
        .boxed()
    }

    fn scan(&self, request: ScanRequest) -> BoxFuture<'_, ScanReply> {
        let continuation = request.keyspace.into_bytes().into();
        async { ScanReply { continuation, ..ScanReply::default() } }.boxed()
    }

    fn count(&self, _: CountRequest) -> BoxFuture<'_, CountReply> {
        async { CountReply { count: 3, failed: None } }.boxed()
    }

    fn rank(&self, _: RankRequest) -> BoxFuture<'_, RankReply> {
        async { RankReply { rank: 4, ..RankReply::default() } }.boxed()
    }

    fn select(&self, _: SelectRequest) -> BoxFuture<'_, SelectReply> {
        let failed = Rejected { reason: Reason::Busy.into(), message: "later".to_owned(), retry_after_ms: 5 };
        async { SelectReply { entry: None, failed: Some(failed) } }.boxed()
    }

    fn init(&self, request: InitRequest) -> BoxFuture<'_, InitReply> {
        async move { InitReply { cluster: vec![request.replicas as u8].into(), failed: None } }.boxed()
    }

    fn ring(&self, _: RingRequest) -> BoxFuture<'_, RingReply> {
        async { RingReply { ring: Some(RingDocument::default()), failed: None } }.boxed()
    }

    fn status(&self, _: StatusRequest) -> BoxFuture<'_, StatusReply> {
        async { StatusReply { epoch: 8, ..StatusReply::default() } }.boxed()
    }

    fn create_keyspace(&self, request: CreateKeyspaceRequest) -> BoxFuture<'_, CreateKeyspaceReply> {
        let slow = request.name == "slow";
        let keyspace = Some(Keyspace { name: request.name, ..Keyspace::default() });
        async move {
            if slow {
                std::future::pending::<()>().await;
            }
            CreateKeyspaceReply { keyspace, failed: None }
        }
        .boxed()
    }

    fn delete_keyspace(&self, request: DeleteKeyspaceRequest) -> BoxFuture<'_, DeleteKeyspaceReply> {
        let gone = Rejected { message: format!("{} {}", request.name, request.id), ..Rejected::default() };
        async { DeleteKeyspaceReply { failed: Some(gone) } }.boxed()
    }

    fn list_keyspaces(&self, _: ListKeyspacesRequest) -> BoxFuture<'_, ListKeyspacesReply> {
        async { ListKeyspacesReply { keyspaces: vec![Keyspace::default()], failed: None } }.boxed()
    }

    fn plan_operation(&self, _: PlanOperationRequest) -> BoxFuture<'_, PlanOperationReply> {
        async { PlanOperationReply { bytes: 9, ..PlanOperationReply::default() } }.boxed()
    }

    fn begin_operation(&self, request: BeginOperationRequest) -> BoxFuture<'_, BeginOperationReply> {
        async { BeginOperationReply { id: request.id, failed: None } }.boxed()
    }

    fn cancel_operation(&self, _: CancelOperationRequest) -> BoxFuture<'_, CancelOperationReply> {
        async { CancelOperationReply::default() }.boxed()
    }

    fn list_operations(&self, _: ListOperationsRequest) -> BoxFuture<'_, ListOperationsReply> {
        async { ListOperationsReply { epoch: 8, ..ListOperationsReply::default() } }.boxed()
    }

    fn recover(&self, _: god_proto::v1::RecoverRequest) -> BoxFuture<'_, god_proto::v1::RecoverReply> {
        async { god_proto::v1::RecoverReply { next_epoch: 9, ..Default::default() } }.boxed()
    }

    fn epoch(&self) -> u64 {
        8
    }

    fn readiness(&self) -> Readiness {
        let unready = self.unready.load(Ordering::SeqCst);
        let reasons = unready.then(|| "the clock is 2 s ahead".to_owned());
        Readiness { ready: !unready, reasons: reasons.into_iter().collect() }
    }
}

struct Doors {
    fake: Arc<Fake>,
    channel: Channel,
    grpc: String,
    http: String,
    stopper: Stopper,
    serving: JoinHandle<()>,
}

impl Doors {
    fn store(&self) -> StoreClient<Channel> {
        StoreClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(usize::MAX)
    }

    fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone())
    }
}

async fn doors() -> Doors {
    doors_for(1_000).await
}

async fn doors_for(connections: usize) -> Doors {
    doors_with(connections, Times::default()).await
}

async fn doors_with(connections: usize, times: Times) -> Doors {
    doors_paid_from(Budget::default(), connections, times).await
}

async fn doors_paid_from(budget: Budget, connections: usize, times: Times) -> Doors {
    let fake = Arc::new(Fake::default());
    let (stopper, stop) = stop();
    let grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let grpc_address = grpc.local_addr().unwrap();
    let http_address = http.local_addr().unwrap().to_string();
    let handle = PrometheusBuilder::new().build_recorder().handle();
    let metrics = Arc::new(Metrics::new(handle, Arc::new(|| ())));
    let service: Arc<dyn Service> = Arc::clone(&fake) as _;
    let serving = tokio::spawn(async move {
        let grpc = serve_grpc(grpc, Arc::clone(&service), connections, times, budget.clone(), stop.clone());
        let http = serve_http(http, service, metrics, connections, times, budget, stop);
        let (grpc, ()) = futures::join!(grpc, http);
        grpc.unwrap();
    });
    let grpc = format!("http://{grpc_address}");
    let channel = Channel::from_shared(grpc.clone()).unwrap().connect().await.unwrap();
    Doors { fake, channel, grpc, http: http_address, stopper, serving }
}

fn put(key: &str, value: usize) -> PutRequest {
    PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: vec![1; value].into(),
        ..PutRequest::default()
    }
}

fn get(key: &str) -> GetRequest {
    GetRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..GetRequest::default() }
}

fn call(call: call::Call) -> Call {
    Call { call: Some(call) }
}

fn refusal(answer: &Answer) -> &str {
    match answer.answer.as_ref().unwrap() {
        answer::Answer::Write(WriteReply { outcome: Some(write_reply::Outcome::Rejected(rejected)) })
        | answer::Answer::Get(GetReply { outcome: Some(get_reply::Outcome::Failed(rejected)) }) => {
            assert_eq!(rejected.reason(), Reason::Invalid);
            &rejected.message
        }
        other => panic!("not refused: {other:?}"),
    }
}

fn found(answer: &Answer) -> &[u8] {
    match answer.answer.as_ref().unwrap() {
        answer::Answer::Get(GetReply { outcome: Some(get_reply::Outcome::Found(found)) }) => &found.value,
        other => panic!("not found: {other:?}"),
    }
}

#[tokio::test]
async fn every_method_of_both_services_is_answered() {
    let doors = doors().await;
    let mut store = doors.store();
    let written = store.put(put("a", 1)).await.unwrap().into_inner();
    assert!(matches!(written.outcome, Some(write_reply::Outcome::Committed(_))));
    let deleted = store
        .delete(DeleteRequest { key: "a".into(), ..DeleteRequest::default() })
        .await
        .unwrap()
        .into_inner();
    assert!(matches!(deleted.outcome, Some(write_reply::Outcome::Committed(_))));
    let read = store.get(get("a")).await.unwrap().into_inner();
    assert!(matches!(read.outcome, Some(get_reply::Outcome::Found(found)) if found.value == "a"));
    let scan = ScanRequest { keyspace: "k".to_owned(), ..ScanRequest::default() };
    assert_eq!(store.scan(scan).await.unwrap().into_inner().continuation, "k");
    assert_eq!(store.count(CountRequest::default()).await.unwrap().into_inner().count, 3);
    assert_eq!(store.rank(RankRequest::default()).await.unwrap().into_inner().rank, 4);
    // A refusal is a normal reply.
    let failed = store.select(SelectRequest::default()).await.unwrap().into_inner().failed.unwrap();
    assert_eq!((failed.reason(), failed.retry_after_ms), (Reason::Busy, 5));

    let mut cluster = doors.cluster();
    let init = InitRequest { replicas: 3, ..InitRequest::default() };
    assert_eq!(cluster.init(init).await.unwrap().into_inner().cluster[..], [3]);
    assert!(cluster.ring(RingRequest {}).await.unwrap().into_inner().ring.is_some());
    assert_eq!(cluster.status(StatusRequest {}).await.unwrap().into_inner().epoch, 8);
    let create = CreateKeyspaceRequest { name: "n".to_owned(), ..CreateKeyspaceRequest::default() };
    assert_eq!(cluster.create_keyspace(create).await.unwrap().into_inner().keyspace.unwrap().name, "n");
    let delete = DeleteKeyspaceRequest { name: "n".to_owned(), id: 4 };
    assert_eq!(cluster.delete_keyspace(delete).await.unwrap().into_inner().failed.unwrap().message, "n 4");
    assert_eq!(
        cluster.list_keyspaces(ListKeyspacesRequest {}).await.unwrap().into_inner().keyspaces.len(),
        1
    );
}

#[tokio::test]
async fn a_batch_of_too_many_calls_is_refused_as_a_whole() {
    let doors = doors().await;
    let batch = |count| BatchRequest { calls: vec![call(call::Call::Get(get("k"))); count] };
    let status = doors.store().batch(batch(MAX_BATCH + 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("1025 calls, the most is 1024"), "{status:?}");
    assert_eq!(doors.fake.calls.load(Ordering::SeqCst), 0);
    let answers = doors.store().batch(batch(MAX_BATCH)).await.unwrap().into_inner().answers;
    assert_eq!(answers.len(), MAX_BATCH);
    assert_eq!(doors.store().batch(batch(0)).await.unwrap().into_inner().answers.len(), 0);
}

#[tokio::test]
async fn values_that_fit_in_no_message_with_the_others_are_refused_by_themselves() {
    let doors = doors().await;
    let keys = ["large-1", "small-1", "large-2", "large-3", "small-2"];
    let calls = keys.iter().map(|key| call(call::Call::Get(get(key)))).collect();
    let answers = doors.store().batch(BatchRequest { calls }).await.unwrap().into_inner().answers;
    assert_eq!((found(&answers[0]).len(), found(&answers[2]).len()), (4 << 20, 4 << 20));
    assert_eq!((found(&answers[1]), found(&answers[4])), (&b"small-1"[..], &b"small-2"[..]));
    assert!(refusal(&answers[3]).contains("use Pipeline"), "{:?}", refusal(&answers[3]));
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_and_the_door_stays_open() {
    let doors = doors().await;
    let status = doors.store().put(put("k", MAX_MESSAGE + 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    assert!(doors.store().put(put("k", MAX_VALUE)).await.is_ok());
}

#[tokio::test]
async fn the_grpc_deadline_lowers_the_limit_of_the_request() {
    let doors = doors().await;
    let mut request = Request::new(GetRequest { timeout_ms: 60_000, ..get("k") });
    request.set_timeout(Duration::from_secs(16));
    doors.store().get(request).await.unwrap();
    let mut request = Request::new(BatchRequest { calls: vec![call(call::Call::Get(get("k")))] });
    request.set_timeout(Duration::from_secs(32));
    doors.store().batch(request).await.unwrap();
    doors.store().get(GetRequest { timeout_ms: 7, ..get("k") }).await.unwrap();
    assert_eq!(doors.fake.timeouts.lock()[..], [15_000, 30_000, 7]);
}

fn stream_of<T: Send + 'static>(mut frames: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send {
    futures::stream::poll_fn(move |cx| frames.poll_recv(cx))
}

fn numbered(id: u64, call: Option<Call>) -> NumberedCall {
    NumberedCall { id, call }
}

#[tokio::test]
async fn a_pipeline_survives_malformed_calls_and_slow_ones() {
    let doors = doors().await;
    let (frames, outgoing) = mpsc::channel(8);
    let mut replies = doors.store().pipeline(stream_of(outgoing)).await.unwrap().into_inner();
    let calls = vec![
        numbered(1, Some(call(call::Call::Get(get("slow"))))),
        numbered(2, None),
        numbered(3, Some(Call::default())),
        numbered(4, Some(call(call::Call::Get(get("good"))))),
    ];
    frames.send(PipelineRequest { calls }).await.unwrap();
    frames.send(PipelineRequest::default()).await.unwrap();
    let mut answers = std::collections::BTreeMap::new();
    while answers.len() < 3 {
        let reply = replies.message().await.unwrap().unwrap();
        assert_eq!(reply.epoch, 8);
        answers.extend(reply.answers.into_iter().map(|answer| (answer.id, answer.answer.unwrap())));
    }
    assert!(refusal(&answers[&2]).contains("empty"));
    assert!(refusal(&answers[&3]).contains("empty"));
    assert_eq!(found(&answers[&4]), b"good");
}

/// What is answered gives its place back, though a call of its frame is not done.
#[tokio::test]
async fn a_slow_call_takes_one_place_of_a_pipeline_and_not_that_of_its_frame() {
    let doors = doors().await;
    let (frames, outgoing) = mpsc::channel(64);
    let mut replies = doors.store().pipeline(stream_of(outgoing)).await.unwrap().into_inner();
    // More in all than may be in flight.
    const FRAMES: u64 = 10;
    let asked = MAX_BATCH as u64;
    for first in (0..FRAMES).map(|frame| frame * asked) {
        let key = |id| if id == first { "slow" } else { "k" };
        let calls = (first..first + asked).map(|id| numbered(id, Some(call(call::Call::Get(get(key(id)))))));
        frames.send(PipelineRequest { calls: calls.collect() }).await.unwrap();
    }
    let answered = async {
        let mut answered = 0;
        while answered < FRAMES * (asked - 1) {
            answered += replies.message().await.unwrap().unwrap().answers.len() as u64;
        }
        answered
    };
    let answered = tokio::time::timeout(Duration::from_secs(20), answered).await;
    assert_eq!(answered.expect("slow calls hold up the others"), FRAMES * (asked - 1));
}

#[tokio::test]
async fn a_pipeline_answers_everything_before_it_ends() {
    let doors = doors().await;
    let (frames, outgoing) = mpsc::channel(64);
    let mut replies = doors.store().pipeline(stream_of(outgoing)).await.unwrap().into_inner();
    // One frame has more calls than a batch may.
    for first in [0, 5_000] {
        let calls = (first..first + 5_000).map(|id| numbered(id, Some(call(call::Call::Get(get("k"))))));
        frames.send(PipelineRequest { calls: calls.collect() }).await.unwrap();
    }
    drop(frames);
    let mut ids = vec![];
    while let Some(reply) = replies.message().await.unwrap() {
        ids.extend(reply.answers.iter().map(|answer| answer.id));
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..10_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_pipeline_of_largest_values_flows() {
    let doors = doors().await;
    let (frames, outgoing) = mpsc::channel(2);
    let mut replies = doors.store().pipeline(stream_of(outgoing)).await.unwrap().into_inner();
    let sending = tokio::spawn(async move {
        for id in 0..8 {
            let calls = vec![numbered(id, Some(call(call::Call::Put(put("k", MAX_VALUE)))))];
            frames.send(PipelineRequest { calls }).await.unwrap();
        }
    });
    let mut answered = 0;
    while let Some(reply) = replies.message().await.unwrap() {
        answered += reply.answers.len();
    }
    assert_eq!(answered, 8);
    sending.await.unwrap();
}

#[tokio::test]
async fn a_door_that_stops_ends_its_pipelines_and_then_itself() {
    let doors = doors().await;
    let (_frames, outgoing) = mpsc::channel::<PipelineRequest>(2);
    let mut replies = doors.store().pipeline(stream_of(outgoing)).await.unwrap().into_inner();
    doors.stopper.stop();
    assert!(replies.message().await.unwrap().is_none());
    doors.serving.await.unwrap();
}

#[tokio::test]
async fn a_call_to_the_cluster_ends_by_its_deadline() {
    let doors = doors().await;
    let mut cluster = ClusterClient::new(doors.channel.clone());
    let mut request = Request::new(CreateKeyspaceRequest { name: "slow".to_owned(), ..Default::default() });
    request.set_timeout(Duration::from_secs(2));
    let status = cluster.create_keyspace(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("may be done all the same"), "{status:?}");
}

#[tokio::test]
async fn reflection_lists_the_services_and_knows_their_messages() {
    let doors = doors().await;
    let mut client = ServerReflectionClient::new(doors.channel.clone());
    let ask = |request| ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let questions = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("god.v1.PutRequest".to_owned())),
    ];
    let mut replies =
        client.server_reflection_info(futures::stream::iter(questions)).await.unwrap().into_inner();
    let listed = replies.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(listed) = listed else { panic!("{listed:?}") };
    let names: Vec<_> = listed.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["god.v1.Store", "god.v1.Cluster", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("peer")), "{names:?}");
    let file = replies.message().await.unwrap().unwrap().message_response.unwrap();
    assert!(matches!(file, MessageResponse::FileDescriptorResponse(_)), "{file:?}");
}

async fn health(doors: &Doors, service: &str) -> ServingStatus {
    let request = HealthCheckRequest { service: service.to_owned() };
    HealthClient::new(doors.channel.clone()).check(request).await.unwrap().into_inner().status()
}

#[tokio::test]
async fn health_follows_readiness() {
    let doors = doors().await;
    for (unready, expected) in [(false, ServingStatus::Serving), (true, ServingStatus::NotServing)] {
        doors.fake.unready.store(unready, Ordering::SeqCst);
        let until = Instant::now() + Duration::from_secs(20);
        while health(&doors, "").await != expected || health(&doors, "god.v1.Store").await != expected {
            assert!(Instant::now() < until, "health never became {expected:?}");
            sleep(Duration::from_millis(5)).await;
        }
        // A node that is not ready can still be asked what ails it, and told to found a cluster.
        assert_eq!(health(&doors, "god.v1.Cluster").await, ServingStatus::Serving);
    }
}

/// The status line's code, and the body.
async fn http(doors: &Doors, request: &str, accept: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(&doors.http).await.unwrap();
    let request =
        format!("{request} HTTP/1.1\r\nHost: node\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn http_says_whether_the_node_lives_and_is_ready_and_why_not() {
    let doors = doors().await;
    assert_eq!(http(&doors, "GET /healthz", "*/*").await, (200, "alive\n".to_owned()));
    assert_eq!(http(&doors, "GET /readyz", "*/*").await, (200, "ready\n".to_owned()));
    doors.fake.unready.store(true, Ordering::SeqCst);
    assert_eq!(http(&doors, "GET /healthz", "*/*").await.0, 200);
    let text = http(&doors, "GET /readyz", "*/*").await;
    assert_eq!(text, (503, "not ready\n- the clock is 2 s ahead\n".to_owned()));
    let (status, json) = http(&doors, "GET /readyz", "application/json").await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(status, 503);
    assert_eq!(json, serde_json::json!({ "ready": false, "reasons": ["the clock is 2 s ahead"] }));
}

#[tokio::test]
async fn http_shows_metrics_and_points_the_way() {
    let doors = doors().await;
    assert_eq!(http(&doors, "GET /metrics", "*/*").await.0, 200);
    let (status, pointer) = http(&doors, "GET /", "*/*").await;
    assert_eq!(status, 200);
    assert!(pointer.contains("/metrics"), "{pointer}");
    let (status, json) = http(&doors, "GET /nothing/here", "*/*").await;
    assert_eq!(status, 404);
    assert!(json.contains("/nothing/here") && json.starts_with('{'), "{json}");
    let (status, json) = http(&doors, "POST /readyz", "*/*").await;
    assert_eq!(status, 405);
    assert!(json.contains("use GET"), "{json}");
}
