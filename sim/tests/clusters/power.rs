//! Machines that stop, below durability `always`: what they acknowledged last is gone from their disks. And what they
//! held is damaged.

use bytes::Bytes;
use god_core::{
    doors::Service as _,
    engine::{Batch, Direction, Durability, Engine as _, Reader as _, Table},
};
use god_history::{Ask, Told, check_register};
use god_proto::v1::{CountRequest, Level, StatusRequest};
use god_sim::{
    calm::{agree, start_with, within},
    client::Clients,
    world::{World, WorldSettings},
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::time::sleep;

const LIMIT: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(60);

/// Three nodes that are one cluster, with key 5 on all their disks.
async fn cluster(durability: Durability, compares: bool) -> Clients {
    let settings =
        WorldSettings { nodes: 3, durability, gossip: true, compares, careful: true, threads: false };
    let world = start_with(7, settings).await;
    within(PATIENCE, || agree(&world)).await.expect("they know each other");
    let clients = Clients::new(Arc::clone(&world), Level::Quorum);
    let told = clients.perform(1, 1, 5, Ask::Put(1), LIMIT).await;
    assert!(matches!(told, Told::Committed(_)), "{told:?}");
    clients.read_all(&world.running(1).expect("node 2 runs"), 5).await.expect("it is on all of them");
    for at in 0..3 {
        let running = world.running(at).expect("it runs");
        running.node.engine().sync().expect("the disk is well");
    }
    clients
}

fn cut_off(world: &World, at: usize) {
    for other in (0..world.size()).filter(|other| *other != at) {
        world.network.cut(&world.address(at), &world.address(other));
        world.network.cut(&world.address(other), &world.address(at));
    }
}

fn is_whole(world: &World, at: usize) -> bool {
    let running = world.running(at);
    running
        .is_some_and(|running| running.node.member().is_some_and(|member| member.replica.lapse().is_whole()))
}

/// C is behind, A and B acknowledge a deletion, and A's machine stops before it has synced: what A and C hold is alike,
/// and older. B is cut off from them then. Gives what a client read from A and C.
async fn power_cut(clients: &Clients) -> Vec<Told> {
    let world = &clients.world;
    cut_off(world, 2);
    let told = clients.perform(1, 1, 5, Ask::Delete(2), LIMIT).await;
    assert!(matches!(told, Told::Committed(_)), "{told:?}");
    world.crash(0, Some(0));
    world.network.heal();
    cut_off(world, 1);
    world.start(0);
    let mut read = Vec::new();
    for turn in 0..20 {
        read.push(clients.perform(1, turn % 2 * 2, 5, Ask::Get, LIMIT).await);
    }
    read
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_with_one_replica_behind_brings_nothing_back() {
    for durability in [Durability::Interval(Duration::from_secs(3_600)), Durability::None] {
        let clients = cluster(durability, true).await;
        let world = &clients.world;
        let read = power_cut(&clients).await;
        assert!(read.iter().all(|told| *told == Told::Rejected), "A and C alone cannot know: {read:?}");
        let status = world.running(0).expect("node 1 runs").client.status(StatusRequest {}).await;
        assert!(status.warnings.iter().any(|warning| warning.contains("its machine stopped")), "{status:?}");
        world.network.heal();
        within(PATIENCE, || is_whole(world, 0)).await.expect("node 1 compares what it may have lost");
        cut_off(world, 1);
        let read = clients.perform(1, 0, 5, Ask::Get, LIMIT).await;
        assert!(matches!(read, Told::Missing(_)), "A has it again: {read:?}");
        check_register(&clients.history.lock()).expect("every promise is kept");
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_votes_before_it_has_compared_is_found_to_bring_a_deleted_key_back() {
    let clients = cluster(Durability::None, false).await;
    let read = power_cut(&clients).await;
    assert!(read.iter().any(|told| matches!(told, Told::Found(1, _))), "{read:?}");
    let violation = check_register(&clients.history.lock()).expect_err("the checker should object");
    assert!(violation.problem.contains("came back"), "{violation}");
}

#[tokio::test(start_paused = true)]
async fn where_all_machines_stop_together_they_go_on_with_what_they_have() {
    let clients = cluster(Durability::None, true).await;
    let world = &clients.world;
    for at in 0..3 {
        world.crash(at, Some(0));
    }
    (0..3).for_each(|at| world.start(at));
    within(PATIENCE, || (0..3).all(|at| is_whole(world, at))).await.expect("they compare among themselves");
    let read = clients.perform(1, 0, 5, Ask::Get, LIMIT).await;
    assert!(matches!(read, Told::Found(1, _)), "what was synced is there: {read:?}");
    let told = clients.perform(1, 1, 5, Ask::Put(3), LIMIT).await;
    assert!(matches!(told, Told::Committed(_)), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_dies_on_a_machine_that_runs_loses_nothing_and_votes_at_once() {
    let clients = cluster(Durability::None, true).await;
    clients.world.crash(0, None);
    clients.world.start(0);
    assert!(is_whole(&clients.world, 0));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_record_is_overwritten_and_says_nothing_until_it_was_compared() {
    let clients = cluster(Durability::Always, true).await;
    let world = &clients.world;
    let engine = Arc::clone(world.running(0).expect("node 1 runs").node.engine());
    let mut batch = Batch::default();
    for pair in engine.scan(Table::Data, &[], &[0xff; 4], Direction::Forward) {
        batch.put(Table::Data, pair.expect("it is whole").0, vec![77]);
    }
    assert!(!batch.is_empty());
    engine.commit(batch).expect("the disk is well");
    // What was written lately is remembered, and not read.
    world.crash(0, None);
    world.start(0);
    within(PATIENCE, || agree(world)).await.expect("they know each other");
    cut_off(world, 2);
    let told = clients.perform(1, 1, 5, Ask::Put(2), LIMIT).await;
    assert!(matches!(told, Told::Committed(_)), "A counts for writes: {told:?}");
    assert!(!is_whole(world, 0), "what it had is not known");
    world.network.heal();
    within(PATIENCE, || is_whole(world, 0)).await.expect("node 1 compares what it may have lost");
    cut_off(world, 1);
    let read = clients.perform(1, 0, 5, Ask::Get, LIMIT).await;
    assert!(matches!(read, Told::Found(2, _)), "{read:?}");
    check_register(&clients.history.lock()).expect("every promise is kept");
}

/// The positions of what is on a node's disk.
fn stored(world: &World, at: usize) -> BTreeSet<Bytes> {
    let engine = world.disk(at).expect("there is a disk").open();
    let pairs = engine.scan(Table::Data, &[], &[0xff; 4], Direction::Forward);
    pairs.map(|pair| pair.expect("it is whole").0).collect()
}

/// Puts there what is no record, or what the engine refuses to read.
fn damage(world: &World, at: usize, position: Bytes, refused: bool) {
    let disk = world.disk(at).expect("there is a disk");
    let mut batch = Batch::default();
    batch.put(Table::Data, position.clone(), vec![77]);
    disk.open().commit(batch).expect("the disk is well");
    if refused {
        disk.corrupt(Table::Data, position);
    }
}

/// How many keys there are, by a node.
async fn count(world: &World, at: usize) -> Result<u64, String> {
    let request =
        CountRequest { keyspace: "default".to_owned(), timeout_ms: 1_000, ..CountRequest::default() };
    let reply = world.running(at).expect("it runs").client.count(request).await;
    reply.failed.map_or(Ok(reply.count), |failed| Err(failed.message))
}

#[tokio::test(start_paused = true)]
async fn a_node_that_starts_with_a_damaged_record_is_no_vote_until_it_has_compared() {
    for refused in [true, false] {
        let clients = cluster(Durability::Always, true).await;
        let world = &clients.world;
        let before = stored(world, 0);
        // A and C acknowledge it; what C notes for B stays there.
        cut_off(world, 1);
        let told = clients.perform(1, 2, 6, Ask::Put(3), LIMIT).await;
        assert!(matches!(told, Told::Committed(_)), "{told:?}");
        let new: Vec<Bytes> = stored(world, 0).difference(&before).cloned().collect();
        let [position] = &new[..] else { panic!("it is on that disk: {new:?}") };
        damage(world, 0, position.clone(), refused);
        world.crash(0, None);
        world.network.heal();
        cut_off(world, 2);
        world.start(0);
        assert!(world.running(0).is_some(), "it starts");
        // They find each other meanwhile.
        let mut why = String::new();
        for turn in 0..40 {
            let counted = count(world, turn % 2).await;
            why = counted.expect_err("A and B alone cannot know");
            sleep(Duration::from_millis(500)).await;
        }
        assert!(why.contains("a record there is damaged"), "it is A that does not say: {why}");
        world.network.heal();
        within(PATIENCE, || is_whole(world, 0)).await.expect("node 1 compares what it may have lost");
        cut_off(world, 1);
        assert_eq!(count(world, 0).await, Ok(2));
        let read = clients.perform(1, 0, 6, Ask::Get, LIMIT).await;
        assert!(matches!(read, Told::Found(3, _)), "A has it again: {read:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_with_a_damaged_record_that_nobody_has_comes_to_serve_at_each_start() {
    for refused in [true, false] {
        let clients = cluster(Durability::Always, true).await;
        let world = &clients.world;
        // Beside key 5.
        let mut position = stored(world, 0).pop_first().expect("key 5 is there").to_vec();
        position.push(1);
        damage(world, 0, position.into(), refused);
        for start in 0..3 {
            world.crash(0, None);
            world.start(0);
            assert!(world.running(0).is_some(), "it starts");
            assert!(!is_whole(world, 0), "it does not know what that was, at start {start}");
            within(PATIENCE, || is_whole(world, 0))
                .await
                .expect("nobody has it: there is nothing to wait for");
        }
        cut_off(world, 1);
        let read = clients.perform(1, 0, 5, Ask::Get, LIMIT).await;
        assert!(matches!(read, Told::Found(1, _)), "{read:?}");
    }
}
