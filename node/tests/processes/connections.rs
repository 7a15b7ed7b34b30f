//! Clients that connect and say nothing, or ask and do not read: they cost the node little, and others nothing.

use crate::{
    client::{Client, KEYSPACE, committed, found},
    cluster::{Cluster, wait_for},
    doors::http,
};
use god_proto::v1::{
    Call, GetRequest, Level, NumberedCall, PipelineRequest, PutRequest, call, store_client::StoreClient,
    write_reply,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{io, time::Duration};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{sleep, timeout},
};
use tonic::transport::{Channel, Endpoint};

/// Connections that say nothing, at each door.
const SILENT: usize = 3_000;

/// What each of them may take, in bytes.
const A_SILENT_ONE: usize = 8 << 10;

fn gone(stream: &TcpStream) -> bool {
    match stream.try_read(&mut [0; 64]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

/// CONNECTIONS-BOUNDED.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_are_closed_and_others_are_served_meanwhile() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let mut cluster = Cluster::prepare_alone(1, &[]).await;
    // Variables rather than flags: a node that does not know them starts all the same.
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    cluster.nodes[0].variables.push(variable("GOD_HANDSHAKE_TIMEOUT", "2s"));
    cluster.found().await;
    let node = &cluster.nodes[0];
    let before = node.resident();
    let mut silent = Vec::new();
    for door in [&node.grpc, &node.peer, &node.http] {
        for _ in 0..SILENT {
            // One that is refused is as good as one that is closed.
            silent.extend(TcpStream::connect(door).await);
        }
    }
    let mut client = Client::of(&node.grpc);
    committed(client.put("alive", "among the silent").await);
    // As many as a door has places are held at a time, and the door for people has 256.
    let each = node.resident().saturating_sub(before) / (2 * SILENT + 256);
    assert!(each < A_SILENT_ONE, "each silent connection takes {each} bytes");
    assert!(http(&node.http, "/readyz").await.starts_with("HTTP/1.1 200"));
    timeout(Duration::from_secs(20), async {
        while silent.iter().filter(|stream| !gone(stream)).count() > 0 {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .unwrap_or_else(|_| {
        let open = silent.iter().filter(|stream| !gone(stream)).count();
        panic!("{open} of {} silent connections are still open", silent.len())
    });
    assert_eq!(found(client.get("alive", Level::Quorum).await), Some("among the silent".into()));
    let metrics = http(&node.http, "/metrics").await;
    assert!(
        metrics.contains("god_connections_ended_total{door=\"peer\",reason=\"silent\"} 3000"),
        "{metrics}"
    );
    assert!(metrics.contains("god_connections_open{door=\"http\"} 1\n"), "{metrics}");
}

/// With few descriptors the node serves, stores, and turns away whom it cannot hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storage_has_descriptors_when_connections_want_them_all() {
    let mut cluster = Cluster::prepare_alone(1, &[]).await;
    cluster.nodes[0].descriptors = Some(400);
    cluster.found().await;
    let node = &cluster.nodes[0];
    let mut silent = Vec::new();
    for door in [&node.grpc, &node.peer, &node.http] {
        for _ in 0..300 {
            silent.extend(TcpStream::connect(door).await);
        }
    }
    let client = Client::of(&node.grpc);
    for key in 0..24 {
        // A disk that is slow may ask for patience.
        wait_for("a large value to be written", || {
            let mut client = client.clone();
            async move {
                let reply = client.put(format!("large/{key}"), vec![key; 4 << 20]).await?;
                match reply.outcome {
                    Some(write_reply::Outcome::Committed(_)) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            }
        })
        .await;
    }
    assert!(http(&node.http, "/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(!node.log().contains("Too many open files"), "the node ran out of descriptors");
}

/// A client that lets the node send little ahead of what it reads.
fn narrow(server: &str) -> StoreClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{server}")).unwrap();
    let narrow = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
    StoreClient::new(narrow.connect_lazy())
}

/// READERS-APART. The disk takes its time, so that the write that is asked for holds its locks across turns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_holds_nobody_up() {
    let mut cluster = Cluster::prepare_alone(1, &["--durability", "always"]).await;
    cluster.nodes[0].variables.push(("GOD_UNREAD_TIMEOUT".to_owned(), "2s".to_owned()));
    cluster.found().await;
    let node = &cluster.nodes[0];
    let mut client = node.client();
    committed(client.put("read", vec![b'v'; 1_100]).await);
    let numbered = |id, call| NumberedCall { id, call: Some(Call { call: Some(call) }) };
    let frame = || {
        let get = || {
            let (keyspace, key) = (KEYSPACE.to_owned(), "read".into());
            call::Call::Get(GetRequest { keyspace, key, ..GetRequest::default() })
        };
        let put = PutRequest {
            keyspace: KEYSPACE.to_owned(),
            key: "written".into(),
            value: "by one that does not read".into(),
            ..PutRequest::default()
        };
        let mut calls: Vec<NumberedCall> = (1..1_024).map(|id| numbered(id, get())).collect();
        calls.push(numbered(1_024, call::Call::Put(put)));
        PipelineRequest { calls }
    };
    let mut hostile = Vec::new();
    for _ in 0..8 {
        // The clock's mark lies a second ahead: after a second without writes the next one has to move it.
        sleep(Duration::from_millis(1_100)).await;
        let (frames, outgoing) = mpsc::channel(4);
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
        let unread = narrow(&node.grpc).pipeline(outgoing).await.unwrap().into_inner();
        frames.send(frame()).await.unwrap();
        hostile.push((frames, unread));
        let mut other = Client::of(&node.grpc);
        committed(other.put("other", "written").await);
    }
    wait_for("those that do not read to be closed", || async {
        let open = hostile.iter().filter(|(frames, _)| !frames.is_closed()).count();
        if open == 0 { Ok(()) } else { Err(format!("{open} are open")) }
    })
    .await;
    let metrics = http(&node.http, "/metrics").await;
    assert!(metrics.contains("god_connections_ended_total{door=\"grpc\",reason=\"unread\"}"), "{metrics}");
}
