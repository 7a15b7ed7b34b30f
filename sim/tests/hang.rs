//! Disks that hang under real threads: every request ends by its deadline, and what does not need the disk goes on.

use god_core::{
    budget::Budget,
    connections::Times,
    doors::{Metrics, Service as _, install_recorder, serve_grpc, serve_http},
    engine::Durability,
    node::PeerHandler,
    peer::{Call, Handler as _},
    stop::stop,
};
use god_history::{Ask, Told, check_register};
use god_proto::{
    peer::{Ping, Report, request, response},
    v1::{
        GetRequest, Level, PutRequest, StatusRequest, cluster_client::ClusterClient, get_reply,
        store_client::StoreClient, write_reply,
    },
};
use god_sim::{
    calm::{agree, start_with, within},
    client::{Clients, consistency},
    world::WorldSettings,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

const LIMIT: Duration = Duration::from_millis(500);
/// Longer than anything takes that ends.
const PATIENCE: Duration = Duration::from_secs(60);

/// Three nodes under real threads and real time, with keys on all their disks.
async fn cluster(durability: Durability) -> Clients {
    let settings =
        WorldSettings { nodes: 3, durability, gossip: true, compares: true, careful: true, threads: true };
    let world = start_with(7, settings).await;
    within(PATIENCE, || agree(&world)).await.expect("they know each other");
    let clients = Clients::new(Arc::clone(&world), Level::Quorum);
    let told = clients.perform(1, 0, 1, Ask::Put(1), Duration::from_secs(5)).await;
    assert!(matches!(told, Told::Committed(_)), "{told:?}");
    clients.read_all(&world.running(1).expect("node 2 runs"), 1).await.expect("it is on all of them");
    clients
}

/// Asks each node for all there is to ask. Gives what was read.
async fn ask_everything(clients: &Clients) -> Vec<Told> {
    let mut read = Vec::new();
    for at in 0..3 {
        let running = clients.world.running(at).expect("it runs");
        let token = 100 + at as u64;
        clients.perform(1, at, 2, Ask::Put(token), LIMIT).await;
        read.push(clients.perform(1, at, 1, Ask::Get, LIMIT).await);
        let level = consistency(Level::Quorum);
        let rest = async {
            let _listed = clients.list(&running, 1, level, LIMIT, false).await;
            let _counted = clients.count(&running, 1, level, LIMIT).await;
            running.client.status(StatusRequest {}).await
        };
        let status = timeout(PATIENCE, rest).await.expect("listing, counting and status end");
        assert!(!status.nodes.is_empty(), "{status:?}");
    }
    read
}

async fn goes_through_a_hang(durability: Durability, hung: &[usize]) {
    let clients = cluster(durability).await;
    let disks: Vec<_> = hung.iter().filter_map(|at| clients.world.disk(*at)).collect();
    disks.iter().for_each(|disk| disk.hang(true));
    // Until a write of each hangs.
    let stuck = async {
        while disks.iter().any(|disk| disk.waiting() == 0) {
            clients.perform(1, 0, 3, Ask::Put(clients.world.now_us()), LIMIT).await;
        }
    };
    timeout(PATIENCE, stuck).await.expect("their disks are written to");
    let read = timeout(PATIENCE, ask_everything(&clients)).await.expect("everything ends");
    disks.iter().for_each(|disk| disk.hang(false));
    assert!(clients.hung.lock().is_empty(), "{:?}", clients.hung.lock());
    // What is in memory is read while the disk hangs.
    assert!(read.iter().all(|told| matches!(told, Told::Found(1, _))), "{read:?}");
    let again = || clients.perform(1, 0, 4, Ask::Put(clients.world.now_us()), Duration::from_secs(2));
    let recovers = async { while !matches!(again().await, Told::Committed(_)) {} };
    timeout(PATIENCE, recovers).await.expect("it goes on when the disk does");
    check_register(&clients.history.lock()).expect("every promise is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_hanging_disk_holds_nothing_up() {
    goes_through_a_hang(Durability::Interval(Duration::from_millis(100)), &[1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_ends_by_its_deadline_though_all_disks_hang() {
    for durability in [Durability::Interval(Duration::from_millis(100)), Durability::Always] {
        goes_through_a_hang(durability, &[0, 1, 2]).await;
    }
}

/// What a node's door for HTTP answers.
async fn http(door: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(door).await.expect("the door is there");
    let asked = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    stream.write_all(asked.as_bytes()).await.expect("it is asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers");
    answer
}

/// The doors themselves, through sockets: what people, monitors and other nodes see of a node while its disk hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doors_answer_while_all_disks_hang() {
    let clients = cluster(Durability::Always).await;
    let running = clients.world.running(0).expect("it runs");
    let refreshed = Arc::clone(&running.node);
    let recorder = install_recorder().expect("nobody else records in this process");
    let metrics = Arc::new(Metrics::new(recorder, Arc::new(move || refreshed.refresh_metrics())));
    let (_stopper, stop) = stop();
    let (grpc, web) = (TcpListener::bind("127.0.0.1:0").await, TcpListener::bind("127.0.0.1:0").await);
    let (grpc, web) = (grpc.expect("a port"), web.expect("a port"));
    let address = |listener: &TcpListener| listener.local_addr().expect("it has one").to_string();
    let (grpc_door, http_door) = (address(&grpc), address(&web));
    let (service, budget) = (Arc::clone(&running.client), Budget::default());
    tokio::spawn(serve_http(
        web,
        service.clone(),
        metrics,
        16,
        Times::default(),
        budget.clone(),
        stop.clone(),
    ));
    tokio::spawn(serve_grpc(grpc, service, 16, Times::default(), budget, stop));
    let door = format!("http://{grpc_door}");
    let mut cluster = ClusterClient::connect(door.clone()).await.expect("a connection");
    let mut store = StoreClient::connect(door).await.expect("a connection");

    let disks: Vec<_> = (0..3).filter_map(|at| clients.world.disk(at)).collect();
    disks.iter().for_each(|disk| disk.hang(true));
    let (keyspace, timeout_ms) = ("default".to_owned(), LIMIT.as_millis() as u32);
    let all = async {
        let put = |at: u32| PutRequest {
            keyspace: keyspace.clone(),
            key: format!("hung {at}").into(),
            value: "v".into(),
            timeout_ms,
            ..PutRequest::default()
        };
        let mut at = 0;
        while disks.iter().any(|disk| disk.waiting() == 0) {
            at += 1;
            let told = store.put(put(at)).await.expect("a put is answered").into_inner().outcome;
            assert!(!matches!(told, Some(write_reply::Outcome::Committed(_))), "{told:?}");
        }
        for path in ["/healthz", "/readyz", "/metrics"] {
            let answer = http(&http_door, path).await;
            assert!(answer.starts_with("HTTP/1.1 "), "{path}: {answer}");
        }
        let metrics = http(&http_door, "/metrics").await;
        assert!(metrics.contains("god_radix_entries"), "{metrics}");
        let status = cluster.status(StatusRequest {}).await.expect("a status").into_inner();
        assert_eq!(status.nodes.iter().filter(|node| node.report.is_some()).count(), 3, "{status:?}");
        let get = GetRequest {
            keyspace: keyspace.clone(),
            key: "hung 1".into(),
            timeout_ms,
            ..GetRequest::default()
        };
        let got = store.get(get).await.expect("a get is answered").into_inner().outcome;
        assert!(!matches!(got, Some(get_reply::Outcome::Found(_))), "it was never synced: {got:?}");
        let peer = PeerHandler(Arc::clone(&running.node));
        for body in [request::Body::Ping(Ping::default()), request::Body::Report(Report {})] {
            let call = Call { epoch: 0, arcs: 0, timeout: LIMIT, body };
            let told = peer.handle(None, call).await;
            assert!(matches!(told, Ok(response::Body::Pong(_) | response::Body::Report(_))), "{told:?}");
        }
    };
    timeout(PATIENCE, all).await.expect("every door answers while the disks hang");
    disks.iter().for_each(|disk| disk.hang(false));
}
