//! Bad input at every door of a real node: an error that names the problem, and a node that serves on.

use crate::{
    client::{Client, KEYSPACE, committed, found},
    cluster::Cluster,
};
use bytes::Bytes;
use god_proto::{
    time::MAX_TTL_MS,
    v1::{
        self, Call, GetRequest, Level, NumberedAnswer, NumberedCall, PipelineRequest, Reason, answer, call,
        get_reply, write_reply,
    },
};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// The whole answer to a GET.
pub async fn http(server: &str, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n");
    raw(server, request.as_bytes()).await
}

/// Whatever a door says to some bytes, until it closes or has said nothing for a while.
async fn raw(server: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server).await.unwrap();
    // It may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while let Ok(Ok(read @ 1..)) = timeout(Duration::from_secs(3), stream.read(&mut part)).await {
        answer.extend_from_slice(&part[..read]);
        if answer.len() > 1 << 20 {
            break;
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

async fn serves(client: &mut Client, turn: &str) {
    committed(client.put("alive", turn.to_owned()).await);
    assert_eq!(found(client.get("alive", Level::Quorum).await), Some(turn.to_owned().into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_door_for_clients_refuses_by_name() {
    let cluster = Cluster::start(1, &[]).await;
    let mut client = cluster.nodes[0].client();
    let rejected = |reply: Result<v1::WriteReply, String>| match reply.unwrap().outcome {
        Some(write_reply::Outcome::Rejected(rejected)) => rejected,
        other => panic!("it was taken: {other:?}"),
    };
    let long = rejected(client.put(vec![b'k'; 4097], "value").await);
    assert!(long.reason() == Reason::Invalid && long.message.contains("4097"), "{long:?}");
    let empty = rejected(client.put("", "value").await);
    assert!(empty.reason() == Reason::Invalid && empty.message.contains("empty"), "{empty:?}");
    let large = rejected(client.put("key", vec![0; (8 << 20) + 1]).await);
    assert!(large.reason() == Reason::Invalid && large.message.contains("8388609"), "{large:?}");
    committed(client.put(vec![b'k'; 4096], vec![1; 8 << 20]).await);
    let huge = client.put("key", vec![0; 32 << 20]).await.unwrap_err();
    assert!(huge.contains("message") || huge.contains("length"), "{huge}");

    let request =
        v1::GetRequest { keyspace: "no-such".to_owned(), key: "k".into(), ..v1::GetRequest::default() };
    let reply = client.store.get(request).await.unwrap().into_inner();
    match reply.outcome {
        Some(get_reply::Outcome::Failed(failed)) => {
            assert_eq!(failed.reason(), Reason::NoSuchKeyspace);
            assert!(failed.message.contains("no-such"), "{failed:?}");
        }
        other => panic!("{other:?}"),
    }
    let request = v1::ScanRequest {
        keyspace: KEYSPACE.to_owned(),
        continuation: Bytes::from_static(b"\xff\x00garbled"),
        ..v1::ScanRequest::default()
    };
    let failed = client.store.scan(request).await.unwrap().into_inner().failed.expect("a refusal");
    assert!(failed.reason() == Reason::Invalid && failed.message.contains("continuation"), "{failed:?}");
    let request = v1::CreateKeyspaceRequest { name: "Ünfit name".to_owned(), ..Default::default() };
    let failed =
        client.cluster.create_keyspace(request).await.unwrap().into_inner().failed.expect("a refusal");
    assert!(failed.reason() == Reason::Invalid && failed.message.contains("Ünfit name"), "{failed:?}");
    for (name, default_ttl_ms) in
        [(".", 0), ("..", 0), ("-a", 0), ("long", u64::MAX), ("longer", MAX_TTL_MS + 1)]
    {
        let request =
            v1::CreateKeyspaceRequest { name: name.to_owned(), default_ttl_ms, ..Default::default() };
        let made = client.cluster.create_keyspace(request).await.unwrap().into_inner();
        let failed = made.failed.expect("a refusal");
        assert!(failed.reason() == Reason::Invalid && failed.message.contains(name), "{failed:?}");
    }
    let wrong = v1::CreateKeyspaceRequest {
        name: "k".to_owned(),
        replicas: 3,
        write_quorum: 4,
        ..Default::default()
    };
    let failed = client.cluster.create_keyspace(wrong).await.unwrap().into_inner().failed.expect("a refusal");
    assert!(failed.message.contains('4') && failed.message.contains('3'), "{failed:?}");
    serves(&mut client, "still").await;
}

/// Bytes that no client sends: noise, other protocols, frames that are cut, too long, or say so.
fn noises() -> Vec<Vec<u8>> {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let with = |more: &[u8]| [preface.as_slice(), more].concat();
    let mut noise = 0x2545_F491_4F6C_DD1D_u64;
    let mut random = |length: usize| -> Vec<u8> {
        let mut next = || {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            noise as u8
        };
        (0..length).map(|_| next()).collect()
    };
    vec![
        b"\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n".to_vec(),
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        preface.clone(),
        with(&[0, 0, 0, 4, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 1, 5, 0, 0, 0, 1]),
        with(&[0xff; 64]),
        random(1),
        random(100),
        random(100_000),
        with(&random(10_000)),
        vec![0; 1 << 20],
        format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20)).into_bytes(),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_at_any_door_neither_ends_nor_hangs_a_node() {
    let mut cluster = Cluster::start(3, &[]).await;
    let mut client = cluster.nodes[0].client();
    for noise in noises() {
        for door in [&cluster.nodes[1].grpc, &cluster.nodes[1].peer, &cluster.nodes[1].http] {
            raw(door, &noise).await;
        }
    }
    assert!(cluster.nodes[1].runs(), "noise ended the node");
    serves(&mut cluster.nodes[1].client(), "after the noise").await;
    serves(&mut client, "elsewhere too").await;
    cluster.wait_until_up().await;
}

/// A well-formed frame of gRPC around bytes that are no message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_cannot_be_read_are_refused_and_not_answered_by_silence() {
    use tonic::{Code, client::Grpc};
    let mut cluster = Cluster::start(1, &[]).await;
    let (grpc, peer) = (cluster.nodes[0].grpc.clone(), cluster.nodes[0].peer.clone());
    let noise = vec![0xff; 300];
    // A key that is a number, a name that is no UTF-8, a field that ends before its length, a group without an end.
    let (number, name) = (vec![0x10, 1], vec![0x0a, 2, 0xff, 0xfe]);
    let (cut, group) = (vec![0x12, 9, b'k'], vec![0x13]);
    for (door, path, bytes, code) in [
        (&grpc, "/god.v1.Store/Put", &noise, Code::InvalidArgument),
        (&grpc, "/god.v1.Store/Put", &number, Code::InvalidArgument),
        (&grpc, "/god.v1.Store/Put", &name, Code::InvalidArgument),
        (&grpc, "/god.v1.Store/Get", &cut, Code::InvalidArgument),
        (&grpc, "/god.v1.Store/Delete", &group, Code::InvalidArgument),
        (&grpc, "/god.v1.Store/Batch", &noise, Code::InvalidArgument),
        (&grpc, "/god.v1.Store/Pipeline", &noise, Code::InvalidArgument),
        (&grpc, "/god.v1.Cluster/CreateKeyspace", &noise, Code::InvalidArgument),
        (&grpc, "/god.v1.Cluster/Status", &noise, Code::InvalidArgument),
        (&grpc, "/god.v1.Store/NoSuchCall", &noise, Code::Unimplemented),
        (&peer, "/god.peer.v1.Peer/Exchange", &noise, Code::InvalidArgument),
    ] {
        let channel =
            tonic::transport::Endpoint::from_shared(format!("http://{door}")).unwrap().connect_lazy();
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.unwrap();
        let call = grpc.unary(tonic::Request::new(bytes.clone()), path.parse().unwrap(), Garbled);
        let status = timeout(Duration::from_secs(5), call).await.expect("an answer").expect_err("a refusal");
        assert_eq!(status.code(), code, "{path} {bytes:?}: {status:?}");
        let names_it = !status.message().is_empty() || code == Code::Unimplemented;
        assert!(names_it, "{path}: {status:?}");
    }
    assert!(cluster.nodes[0].runs());
    serves(&mut cluster.nodes[0].client(), "still").await;
}

/// Sends bytes as they are.
struct Garbled;

impl tonic::codec::Codec for Garbled {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Garbled;
    type Decoder = Garbled;

    fn encoder(&mut self) -> Garbled {
        Garbled
    }

    fn decoder(&mut self) -> Garbled {
        Garbled
    }
}

impl tonic::codec::Encoder for Garbled {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut tonic::codec::EncodeBuf<'_>) -> Result<(), tonic::Status> {
        bytes::BufMut::put_slice(to, &item);
        Ok(())
    }
}

impl tonic::codec::Decoder for Garbled {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn decode(&mut self, from: &mut tonic::codec::DecodeBuf<'_>) -> Result<Option<Vec<u8>>, tonic::Status> {
        use bytes::Buf;
        let mut all = vec![0; from.remaining()];
        from.copy_to_slice(&mut all);
        Ok(Some(all))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_door_for_people_says_how_the_node_is() {
    let cluster = Cluster::start(1, &[]).await;
    let door = &cluster.nodes[0].http;
    assert!(http(door, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(http(door, "/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(http(door, "/no-such").await.starts_with("HTTP/1.1 404"));
    serves(&mut cluster.nodes[0].client(), "once").await;
    let metrics = http(door, "/metrics").await;
    for name in
        ["god_node_ready 1", "god_consensus_epoch", "god_engine_figure", "god_doors_", "god_radix_live_keys"]
    {
        assert!(metrics.contains(name), "{name} is not among the metrics");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_large_values_are_all_read_over_one_stream() {
    let cluster = Cluster::start(3, &[]).await;
    let mut client = cluster.nodes[0].client();
    for key in 0..24 {
        committed(client.put(format!("large/{key:02}"), "v".repeat(1 << 20)).await);
    }
    let call = |id: u64| NumberedCall {
        id,
        call: Some(Call {
            call: Some(call::Call::Get(GetRequest {
                keyspace: KEYSPACE.to_owned(),
                key: format!("large/{id:02}").into(),
                timeout_ms: 30_000,
                ..GetRequest::default()
            })),
        }),
    };
    let frames = tokio_stream::iter([PipelineRequest { calls: (0..24).map(call).collect() }]);
    let mut replies = client.store.pipeline(frames).await.unwrap().into_inner();
    let mut answered = 0;
    while let Some(reply) = replies.message().await.unwrap() {
        for NumberedAnswer { id, answer } in reply.answers {
            let Some(answer::Answer::Get(reply)) = answer.and_then(|answer| answer.answer) else {
                panic!("call {id} has no answer");
            };
            assert_eq!(found(Ok(reply)).map(|value| value.len()), Some(1 << 20), "call {id}");
            answered += 1;
        }
    }
    assert_eq!(answered, 24);
}
