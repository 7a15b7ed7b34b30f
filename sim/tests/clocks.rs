//! Clocks that are off: what the store bears, what it refuses, and what happens to one that forgets its promises.

use god_core::{
    doors::Service,
    engine::{Batch, Engine, Table},
};
use god_history::{Ask, Told, check_register};
use god_sim::client::Shared;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const LIMIT: Duration = Duration::from_secs(2);

/// Waits until something is so.
async fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "never came: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Three nodes that are one cluster.
async fn cluster() -> Shared {
    god_sim::calm::cluster(7, 3).await.expect("three nodes know each other")
}

#[tokio::test(start_paused = true)]
async fn clocks_400_ms_apart_lose_no_write_and_refuse_none() {
    let clients = cluster().await;
    for (at, ahead_us) in [(0, -200_000), (1, 200_000), (2, 0)] {
        clients.world.wall(at).expect("a wall").set_ahead(ahead_us);
    }
    for token in 1..200 {
        let node = token as usize % 3;
        let told = clients.perform(1, node, 5, Ask::Put(token), LIMIT).await;
        assert!(matches!(told, Told::Committed(_)), "put {token}: {told:?}");
        let read = clients.perform(1, (node + 1) % 3, 5, Ask::Get, LIMIT).await;
        assert!(matches!(read, Told::Found(found, _) if found == token), "after put {token}: {read:?}");
    }
    check_register(&clients.history.lock()).expect("every promise is kept");
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_clock_is_2_s_off_says_so_and_commits_nothing() {
    for ahead_us in [2_000_000, -2_000_000] {
        let clients = cluster().await;
        let world = &clients.world;
        let put = clients.perform(1, 0, 5, Ask::Put(1), LIMIT).await;
        assert!(matches!(put, Told::Committed(_)), "{put:?}");
        world.wall(1).expect("a wall").set_ahead(ahead_us);
        wait("a node that knows its clock is off", || {
            let reasons = world.running(1).map(|running| running.client.readiness().reasons);
            reasons.is_some_and(|reasons| reasons.iter().any(|reason| reason.contains("clock")))
        })
        .await;
        if ahead_us > 0 {
            let told = clients.perform(1, 1, 5, Ask::Put(2), LIMIT).await;
            assert!(!matches!(told, Told::Committed(_)), "{told:?}");
        }
        for (node, token) in [(0, 3), (2, 4)] {
            let told = clients.perform(1, node, 6, Ask::Put(token), LIMIT).await;
            assert!(matches!(told, Told::Committed(_)), "through node {}: {told:?}", node + 1);
        }
        world.wall(1).expect("a wall").set_ahead(0);
        wait("a node that is ready again", || world.all_ready().is_ok()).await;
        // What it stamped ahead of time becomes the past.
        sleep(Duration::from_secs(3)).await;
        for key in [5, 6] {
            let read = clients.perform(1, 1, key, Ask::Get, LIMIT).await;
            assert!(matches!(read, Told::Found(..)), "key {key}: {read:?}");
        }
        check_register(&clients.history.lock()).expect("every promise is kept");
    }
}

/// Writes, crashes and writes again, at the same time by the node's clock. Says what the checker says.
async fn write_twice_at_one_time(forget_the_mark: bool) -> Result<(), String> {
    let clients = cluster().await;
    let world = &clients.world;
    let (disk, wall) = (world.disk(0).expect("a disk"), world.wall(0).expect("a wall"));
    // The keyspace is live after this, so that the next write is stamped at once.
    clients.perform(1, 2, 6, Ask::Put(9), LIMIT).await;
    sleep(Duration::from_millis(50)).await;
    // So that the node sees the same time at each call.
    let stop_clock = |since: Instant| wall.set_ahead(-(since.elapsed().as_micros() as i64));
    let began = Instant::now();
    let put = async |token| {
        for _ in 0..100 {
            stop_clock(began);
            let told = clients.perform(1, 0, 5, Ask::Put(token), LIMIT).await;
            if matches!(told, Told::Committed(_)) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("put {token} is never committed");
    };
    put(1).await;
    world.crash(0, Some(0));
    if forget_the_mark {
        let engine = disk.open();
        let mut batch = Batch::default();
        batch.delete(Table::System, "clock/mark");
        engine.commit(batch).expect("the disk is well");
        engine.sync().expect("the disk is well");
    }
    stop_clock(began);
    world.start(0);
    put(2).await;
    clients.perform(1, 1, 5, Ask::Get, LIMIT).await;
    check_register(&clients.history.lock()).map_err(|violation| violation.problem)
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_forgets_its_mark_is_found_to_stamp_one_version_twice() {
    assert_eq!(write_twice_at_one_time(false).await, Ok(()));
    let problem = write_twice_at_one_time(true).await.expect_err("the checker should object");
    assert!(problem.contains("two different contents"), "{problem}");
}
