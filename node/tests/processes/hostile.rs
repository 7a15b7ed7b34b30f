//! Peers that are none, members that lie, and messages that are small on the wire only.

use crate::{
    client::{Client, KEYSPACE, committed},
    cluster::{Cluster, Process, wait_for},
    doors::http,
};
use god_proto::{
    MAX_MESSAGE, MAX_VALUE,
    peer::{
        Cause, Decided, Frame, GetRing, Hello, Join, Ping, Request, Response, Start, Write,
        peer_client::PeerClient, request, response,
    },
    v1::{
        BatchRequest, Call, CreateKeyspaceRequest, GetRequest, ListKeyspacesRequest, NumberedCall,
        PipelineRequest, Reason, RingDocument, RingRequest, call,
    },
};
use std::time::Duration;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// A stream to a peer door: the way there, the way back, and what was said first on that.
type Greeted = (mpsc::Sender<Frame>, Streaming<Frame>, Hello);

/// Opens a stream to a peer door as whoever the hello says.
async fn greet(door: &str, hello: Hello) -> Result<Greeted, Status> {
    let (frames, outgoing) = mpsc::channel(4);
    frames.send(Frame { hello: Some(hello), ..Frame::default() }).await.unwrap();
    let client = PeerClient::connect(format!("http://{door}")).await.unwrap();
    let mut client = client.max_decoding_message_size(MAX_MESSAGE);
    let mut incoming = client.exchange(ReceiverStream::new(outgoing)).await?.into_inner();
    let theirs = incoming.message().await?.and_then(|frame| frame.hello).expect("a hello");
    Ok((frames, incoming, theirs))
}

/// Asks one after the other. `None`: no answer.
async fn ask(door: &str, hello: Hello, bodies: Vec<request::Body>) -> Vec<Option<response::Body>> {
    let (frames, mut incoming, _) = greet(door, hello).await.unwrap();
    let mut answers = Vec::new();
    for (id, body) in (1..).zip(bodies) {
        let request = Request { id, timeout_ms: 2_000, body: Some(body), ..Request::default() };
        frames.send(Frame { requests: vec![request], ..Frame::default() }).await.unwrap();
        let answer = timeout(Duration::from_secs(4), incoming.message()).await;
        let responses = answer.ok().and_then(|frame| Some(frame.ok()??.responses)).unwrap_or_default();
        answers.extend(responses.into_iter().map(|Response { body, .. }| body));
    }
    answers
}

fn cause(answer: Option<&response::Body>) -> Option<Cause> {
    match answer {
        Some(response::Body::Failure(failure)) => Some(failure.cause()),
        _ => None,
    }
}

/// What a node says of itself.
async fn figure(node: &Process, name: &str) -> u64 {
    let metrics = http(&node.http, "/metrics").await;
    let line = metrics.lines().find(|line| line.starts_with(name)).expect(name);
    line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
}

async fn ring(client: &mut Client) -> RingDocument {
    client.cluster.clone().ring(RingRequest::default()).await.unwrap().into_inner().ring.unwrap()
}

/// MEMBERS-ONLY, EPOCH-BOUNDED.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_peers_neither_get_in_nor_wedge_the_ring() {
    let cluster = Cluster::start(3, &[]).await;
    let door = &cluster.nodes[0].peer;
    let mut client = cluster.nodes[0].client();
    let known = ring(&mut client).await;
    let far = RingDocument { epoch: u64::MAX, ..known.clone() };
    let decided = || request::Body::Decided(Decided { ring: Some(far.clone()) });
    let ping = || request::Body::Ping(Ping { epoch: u64::MAX, ..Ping::default() });

    // In no cluster, or with a number that nobody has: the ring, and nothing else.
    let strangers = [(bytes::Bytes::new(), 1), (known.cluster.clone(), 77)];
    for (cluster, number) in strangers {
        let hello = Hello { protocol: 1, cluster, uuid: vec![9; 16].into(), number, start: None };
        let write = request::Body::Write(Write::default());
        let answers =
            ask(door, hello, vec![write, decided(), ping(), request::Body::GetRing(GetRing {})]).await;
        let causes: Vec<_> = answers.iter().map(|answer| cause(answer.as_ref())).collect();
        let not = Some(Cause::NotMember);
        assert_eq!(causes, [not, not, not, None], "number {number}");
    }
    // By address: nodes that join together have their numbers in no order.
    let other = known.nodes.iter().find(|node| node.peer_address == cluster.nodes[1].peer).unwrap();
    let stolen = Hello {
        protocol: 1,
        cluster: known.cluster.clone(),
        uuid: vec![9; 16].into(),
        number: other.number,
        start: None,
    };
    assert!(greet(door, stolen.clone()).await.is_err(), "a number was believed with a UUID of another node");
    for number in 100..300 {
        let made_up = Hello { number, ..stolen.clone() };
        greet(door, made_up).await.unwrap();
    }

    // A node's number and UUID, without the start of it that is known or with one that it cannot have come to. The node
    // stays where it is.
    let untold = Hello { uuid: other.uuid.clone(), ..stolen };
    let (.., theirs) = greet(&cluster.nodes[1].peer, untold.clone()).await.unwrap();
    let nil = Start { id: vec![0; 16].into(), ..theirs.start.clone().unwrap() };
    let far = Start { count: u64::MAX, id: vec![8; 16].into(), before: vec![7; 16].into() };
    for start in [None, Some(nil), Some(far)] {
        let join = Join {
            uuid: other.uuid.clone(),
            peer_address: "127.0.0.1:1".to_owned(),
            grpc_address: "127.0.0.1:1".to_owned(),
            http_address: "127.0.0.1:1".to_owned(),
            weight: 1.0,
            version: other.version.clone(),
            cluster: known.cluster.clone(),
            start: start.clone(),
            ..Join::default()
        };
        let hello = Hello { start, ..untold.clone() };
        let write = request::Body::Write(Write::default());
        let answers = ask(door, hello, vec![write, ping(), request::Body::Join(join)]).await;
        let causes: Vec<_> = answers.iter().map(|answer| cause(answer.as_ref())).collect();
        assert_eq!(causes, [Some(Cause::NotMember); 3], "{answers:?}");
        let ring = ring(&mut client).await;
        assert!(ring.nodes.iter().any(|node| node.peer_address == other.peer_address), "{:?}", ring.nodes);
    }

    // A member that lies.
    let member = Hello { start: theirs.start, ..untold };
    let answers = ask(door, member, vec![decided(), ping(), ping()]).await;
    assert_eq!(cause(answers[0].as_ref()), Some(Cause::Invalid));

    // The ring goes on, here and elsewhere.
    let wish = CreateKeyspaceRequest { name: "after".to_owned(), ..CreateKeyspaceRequest::default() };
    let created = cluster.nodes[1].client().cluster.create_keyspace(wish).await.unwrap().into_inner();
    assert!(created.failed.is_none(), "{created:?}");
    wait_for("the first node to hear of it", || {
        let mut client = client.clone();
        async move {
            let listed = client.cluster.list_keyspaces(ListKeyspacesRequest {}).await.unwrap().into_inner();
            let names: Vec<String> = listed.keyspaces.into_iter().map(|keyspace| keyspace.name).collect();
            if names.iter().any(|name| name == "after") { Ok(()) } else { Err(format!("{names:?}")) }
        }
    })
    .await;
    committed(client.put("key", "value").await);
}

/// BUDGET: a small call each for a large value, and nobody who takes the answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_frames_that_ask_for_a_large_value_take_no_more_memory_than_there_is() {
    // They take all processors there are, and must be answered in time.
    let mut cluster = Cluster::prepare_alone(3, &[]).await;
    for node in &mut cluster.nodes {
        // As the image and the unit have it (decision 0007): else what is freed stays with the process.
        let allocator = [("MALLOC_MMAP_THRESHOLD_", "262144"), ("MALLOC_TRIM_THRESHOLD_", "1048576")];
        let given = [("GOD_REQUEST_MEMORY", "64MiB")].into_iter().chain(allocator);
        node.variables.extend(given.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    cluster.found().await;
    let node = &cluster.nodes[0];
    let mut client = node.client();
    committed(client.put("large", "v".repeat(MAX_VALUE)).await);
    let before = figure(node, "god_node_memory_bytes ").await >> 20;
    let get = GetRequest { key: "large".into(), keyspace: KEYSPACE.to_owned(), ..GetRequest::default() };
    let frame = |id| {
        let call = Some(Call { call: Some(call::Call::Get(get.clone())) });
        PipelineRequest { calls: vec![NumberedCall { id, call }] }
    };
    for _ in 0..4 {
        let frames: Vec<_> = (0..1_000).map(frame).collect();
        let mut replies = client.store.pipeline(tokio_stream::iter(frames)).await.unwrap().into_inner();
        let (mut found, mut busy) = (0, 0);
        loop {
            let reply = match replies.message().await {
                Ok(Some(reply)) => reply,
                Ok(None) => break,
                // A frame came when there was nothing left to decode it into: that ends its stream.
                Err(refused) => {
                    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
                    busy += 1_000 - found - busy;
                    break;
                }
            };
            for answer in reply.answers {
                match answer.answer.unwrap().failure() {
                    None => found += 1,
                    Some(busy_name) if busy_name == Reason::Busy.as_str_name() => busy += 1,
                    Some(other) => panic!("{other}"),
                }
            }
        }
        assert_eq!(found + busy, 1_000);
        assert!(found > 0, "none of a thousand was answered");
    }
    let most = figure(node, "god_budget_most_bytes ").await >> 20;
    assert!(most < 64 + 64, "requests took {most} MiB");
    let memory = figure(node, "god_node_memory_bytes ").await >> 20;
    assert!(memory < before + 64 + 150, "the node takes {memory} MiB, {before} before");
    // The others get on, too.
    for node in &cluster.nodes {
        committed(node.client().put("key", "value").await);
    }
}

/// BUDGET.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_small_on_the_wire_only_take_no_memory() {
    let mut cluster = Cluster::prepare(1, &[]).await;
    cluster.nodes[0].variables.push(("GOD_REQUEST_MEMORY".to_owned(), "64MiB".to_owned()));
    cluster.found().await;
    let node = &cluster.nodes[0];
    let mut client = node.client();
    for _ in 0..4 {
        let calls = vec![Call::default(); 5_000_000];
        let refused = client.store.batch(BatchRequest { calls }).await;
        assert!(refused.is_err(), "{refused:?}");
        let frame = PipelineRequest { calls: vec![NumberedCall::default(); 5_000_000] };
        let refused = match client.store.pipeline(tokio_stream::iter([frame])).await {
            Ok(replies) => replies.into_inner().message().await.map(|_| ()),
            Err(status) => Err(status),
        };
        assert!(refused.is_err(), "a frame of five million calls was taken");
    }
    committed(client.put("key", "value").await);
    assert_eq!(figure(node, "god_budget_limit_bytes ").await, 64 << 20);
    assert!(figure(node, "god_budget_most_bytes ").await <= 64 << 20);
    let memory = figure(node, "god_node_memory_bytes ").await >> 20;
    assert!(memory < 64 + 150, "the node takes {memory} MiB");
}
