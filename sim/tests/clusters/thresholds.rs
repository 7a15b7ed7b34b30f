//! What a cluster does by itself, and in how much time: bounds to be beaten, in simulated time, so that a busy machine
//! does not change them.
#![allow(clippy::unwrap_used)]

use god_core::{doors::Service as _, engine::Direction};
use god_history::{Ask, Told};
use god_proto::{
    ids::{KeyspaceId, NodeId},
    position::PositionRange,
    record::Entry,
    ring::Ring,
    v1::{CreateKeyspaceRequest, Partitioner},
    version::Version,
};
use god_sim::{
    calm::{agree, cluster, start, within},
    client::{Clients, ORDERED, SET},
    world::World,
};
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;

const LIMIT: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(120);

/// What a node stores of a range.
fn stored(world: &World, at: usize, range: &PositionRange) -> Vec<Entry> {
    let running = world.running(at).unwrap();
    let view = running.node.member().unwrap().store.view();
    view.scan(range, Direction::Forward).collect::<Result<_, _>>().unwrap()
}

/// Which machine a node runs on.
fn machine_of(world: &World, ring: &Ring, node: NodeId) -> usize {
    let address = &ring.node(node).unwrap().peer_address;
    (0..world.size()).find(|at| world.address(*at) == *address).unwrap()
}

async fn put(clients: &Clients, node: usize, key: u32) -> Version {
    match clients.perform(1, node, key, Ask::Put(key.into()), LIMIT).await {
        Told::Committed(version) => version,
        other => panic!("key {key}: {other:?}"),
    }
}

/// An ordered keyspace of one arc.
async fn ordered(clients: &Clients) -> PositionRange {
    let request = CreateKeyspaceRequest {
        name: ORDERED.to_owned(),
        partitioner: Partitioner::Ordered.into(),
        ..CreateKeyspaceRequest::default()
    };
    let first = clients.world.running(0).unwrap();
    assert_eq!(first.client.create_keyspace(request).await.failed, None);
    let world = Arc::clone(&clients.world);
    within(PATIENCE, || agree(&world)).await.unwrap();
    PositionRange::of_keyspace(KeyspaceId(world.ring().unwrap().keyspace(ORDERED).unwrap().id))
}

#[tokio::test(start_paused = true)]
async fn six_nodes_agree_on_the_ring_within_2_s() {
    for seed in 1..=5 {
        let world = start(seed, 6).await;
        let took = within(PATIENCE, || agree(&world)).await.unwrap();
        assert!(took < Duration::from_secs(2), "seed {seed}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_reaches_all_replicas_within_1_s_when_the_way_of_its_hint_is_cut() {
    let clients = cluster(1, 3).await.unwrap();
    let world = Arc::clone(&clients.world);
    put(&clients, 0, 1).await;
    for (key, from, to) in [(2, 0, 2), (3, 1, 0), (4, 2, 1)] {
        world.network.cut(&world.address(from), &world.address(to));
        put(&clients, from, key).await;
        let range = PositionRange::of_keyspace(KeyspaceId(1));
        let holds = || stored(&world, to, &range).iter().any(|entry| entry.record.value == key.to_string());
        let took = within(PATIENCE, holds).await.unwrap();
        assert!(took < Duration::from_secs(1), "key {key} from {from} to {to}: {took:?}");
        world.network.heal();
        sleep(Duration::from_secs(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn misplaced_data_is_at_exactly_3_copies_within_5_s() {
    let clients = cluster(1, 6).await.unwrap();
    let world = Arc::clone(&clients.world);
    put(&clients, 0, 1).await;
    let range = PositionRange::of_keyspace(KeyspaceId(1));
    let entry = (0..6).find_map(|at| stored(&world, at, &range).pop()).unwrap();
    let ring = world.ring().unwrap();
    let owners = ring.arc_at(&entry.position).unwrap().replicas.clone();
    // Two nodes that do not own it hold it, in a version that no owner has seen.
    let version = Version::new(entry.record.version.ms() + 1, 0, owners[0]);
    let newer = Entry { record: god_proto::record::Record { version, ..entry.record.clone() }, ..entry };
    let foreign: Vec<NodeId> =
        ring.nodes().iter().map(|node| NodeId(node.number)).filter(|node| !owners.contains(node)).collect();
    for node in &foreign[..2] {
        let running = world.running(machine_of(&world, &ring, *node)).unwrap();
        running.node.member().unwrap().store.write(vec![newer.clone()]).await.unwrap();
    }
    let settled = || {
        ring.nodes().iter().all(|node| {
            let number = NodeId(node.number);
            let held = stored(&world, machine_of(&world, &ring, number), &range);
            match owners.contains(&number) {
                true => held == [newer.clone()],
                false => held.is_empty(),
            }
        })
    };
    let took = within(PATIENCE, settled).await.unwrap();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// What the fullest node holds, as a multiple of what the emptiest does.
fn unevenness(world: &World, range: &PositionRange) -> f64 {
    let held = |at| stored(world, at, range).len();
    let held: Vec<usize> = (0..world.size()).map(held).collect();
    *held.iter().max().unwrap() as f64 / (*held.iter().min().unwrap()).max(1) as f64
}

#[tokio::test(start_paused = true)]
async fn sequential_keys_are_even_within_10_s_and_then_nothing_moves_under_a_steady_load() {
    let clients = cluster(1, 6).await.unwrap();
    let range = ordered(&clients).await;
    let world = Arc::clone(&clients.world);
    for key in 0..1_000 {
        put(&clients, key as usize % 6, SET + key).await;
    }
    let settled = || {
        let done = world.ring().unwrap().operations().is_empty();
        done && unevenness(&world, &range) <= 1.5
    };
    let took = within(PATIENCE, settled).await.unwrap();
    assert!(took < Duration::from_secs(10), "{took:?}");

    // A load that overwrites what is there changes nothing about who should hold what.
    sleep(Duration::from_secs(20)).await;
    let epoch = world.ring().unwrap().epoch();
    for round in 0..10 {
        for key in 0..1_000 {
            put(&clients, (key as usize + round) % 6, SET + key).await;
        }
        sleep(Duration::from_secs(3)).await;
    }
    let ring = world.ring().unwrap();
    assert_eq!(ring.epoch(), epoch, "it moved: {:?}", ring.document().ended);
    assert!(unevenness(&world, &range) <= 1.5, "{}", unevenness(&world, &range));
}
