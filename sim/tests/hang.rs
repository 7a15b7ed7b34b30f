//! Disks that hang under real threads: every request ends by its deadline, and what does not need the disk goes on.

use god_core::{doors::Service as _, engine::Durability};
use god_history::{Ask, Told, check_register};
use god_proto::v1::{Level, StatusRequest};
use god_sim::{
    calm::{agree, start_with, within},
    client::{Clients, consistency},
    world::WorldSettings,
};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

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
