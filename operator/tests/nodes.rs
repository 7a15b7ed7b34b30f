//! The operator's way to the nodes, against real ones.
#![allow(clippy::unwrap_used)]

use god_operator::controller::{
    nodes::{self, Address, NodeError},
    world::{
        KeyspaceWish, Ring, RingView, Said,
        ring::{Copies, Wish},
    },
};
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(60);

/// The node's program: beside this test's, where cargo built both.
fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("GOD_NODE") {
        return path.into();
    }
    let own = std::env::current_exe().unwrap();
    let beside = own.parent().and_then(Path::parent).unwrap().join("god-node");
    assert!(beside.exists(), "{} is not there: cargo build --release -p god-node", beside.display());
    beside
}

struct Node {
    process: Child,
    address: Address,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_ports() -> [u16; 3] {
    let listeners: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<u16> = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
    [ports[0], ports[1], ports[2]]
}

fn start(directory: &Path, name: &str, cluster: Uuid, seed: Option<&Address>) -> Node {
    let [grpc, peer, http] = free_ports();
    let data = directory.join(name);
    fs::create_dir_all(&data).unwrap();
    let log = fs::File::create(directory.join(format!("{name}.log"))).unwrap();
    let mut command = Command::new(program());
    command.args(["--data", data.to_str().unwrap(), "--join", "manual", "--cluster", &cluster.to_string()]);
    for (door, port) in [("grpc", grpc), ("peer", peer), ("http", http)] {
        command.args([format!("--{door}-address"), format!("127.0.0.1:{port}")]);
    }
    if let Some(seed) = seed {
        command.args(["--seed", &format!("127.0.0.1:{}", seed.peer)]);
    }
    let process = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
    Node { process, address: Address { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), grpc, peer } }
}

async fn said(address: &Address) -> Said {
    nodes::introduce(&[Some(address.clone())]).await[0]
}

/// Waits until the ring is as it should be.
async fn ring(members: &[Address], is_so: impl Fn(&Ring) -> bool) -> Ring {
    let since = Instant::now();
    loop {
        let seen = nodes::look(members).await;
        match seen {
            RingView::Known(ring) if is_so(&ring) => return *ring,
            seen => assert!(since.elapsed() < DEADLINE, "the ring did not come to be as it should: {seen:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn told(address: &Address, is_so: impl Fn(Said) -> bool) -> Uuid {
    let since = Instant::now();
    loop {
        let said = said(address).await;
        if is_so(said) {
            return said.node().unwrap();
        }
        assert!(since.elapsed() < DEADLINE, "the node says {said:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_cluster_is_founded_grows_and_shrinks_as_it_is_told() {
    let directory = std::env::temp_dir().join(format!("god-operator-{}", std::process::id()));
    let cluster = Uuid::from_u128(0x1234);
    let copies = Copies { replicas: 1, write_quorum: 1, read_quorum: 1 };
    let keyspace = |name: &str| KeyspaceWish { name: name.to_owned(), ordered: true, copies, ttl_ms: 0 };
    let first = start(&directory, "first", cluster, None);
    let founder = told(&first.address, |said| matches!(said, Said::Fresh(_))).await;
    assert!(matches!(nodes::look(std::slice::from_ref(&first.address)).await, RingView::Unknown(_)));

    nodes::init(&first.address, &keyspace("default"), 4).await.unwrap();
    let again = nodes::init(&first.address, &keyspace("default"), 4).await;
    assert!(matches!(again, Err(NodeError::Refused(_))), "{again:?}");
    assert_eq!(said(&first.address).await, Said::Member { node: founder, cluster });

    let second = start(&directory, "second", cluster, Some(&first.address));
    let joiner = told(&second.address, |said| matches!(said, Said::Member { .. })).await;
    let members = [first.address.clone(), second.address.clone()];
    let seen = ring(&members, |ring| ring.members.len() == 2 && ring.is_acknowledged()).await;
    assert_eq!((seen.cluster, seen.members[&founder].number, seen.members[&joiner].number), (cluster, 1, 2));
    assert_eq!(seen.keyspaces[0].copies, copies);

    nodes::create_keyspace(&members, &keyspace("more")).await.unwrap();
    nodes::begin(&members, "weight-2-3000.1", &Wish::Reweight(2, 3_000)).await.unwrap();
    ring(&members, |ring| ring.members[&joiner].weight == 3_000 && ring.operations.is_empty()).await;
    let seen = ring(&members, |ring| ring.keyspaces.len() == 2).await;
    assert!(seen.keyspaces[1].ordered);
    assert_eq!(seen.operation_id("weight-2-3000"), "weight-2-3000.2");

    let leave = Wish::Leave { node: 2, lost: false };
    nodes::begin(&members, "leave-2.1", &leave).await.unwrap();
    // A reply that was lost: the same again is once.
    nodes::begin(&members, "leave-2.1", &leave).await.unwrap();
    let survivors = [first.address.clone()];
    let seen = ring(&survivors, |ring| ring.retired.contains(&joiner) && ring.is_acknowledged()).await;
    assert!(!seen.members.contains_key(&joiner));
    let late = nodes::cancel(&survivors, "leave-2.1").await;
    assert!(matches!(late, Err(NodeError::Refused(_))), "{late:?}");
    drop((first, second));
    fs::remove_dir_all(&directory).unwrap();
}
