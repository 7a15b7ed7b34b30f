//! Clocks that are off: what the store bears, what it refuses, and what happens to one that forgets its promises.

use god_core::{
    doors::Service,
    engine::{Batch, Engine, Table},
};
use god_history::{Ask, Told, check_register};
use god_sim::client::Clients;
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
async fn cluster() -> Clients {
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
    // From now on the node sees the same time at each call.
    wall.set_drift(-1_000_000);
    wall.set_ahead(world.now_us() as i64);
    let put = async |token| {
        for _ in 0..100 {
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

const HOUR_US: i64 = 3_600_000_000;

/// A node's clock is an hour off for a while, with a restart meanwhile or without: the same key is written and read
/// through it and through others all the time, and when the clock is right again.
async fn an_hour_off(ahead_us: i64, restarts: bool) {
    let clients = cluster().await;
    let world = &clients.world;
    let put = async |node, token| clients.perform(1, node, 5, Ask::Put(token), LIMIT).await;
    let all_read = async |token| {
        for node in 0..3 {
            let read = clients.perform(1, node, 5, Ask::Get, LIMIT).await;
            assert!(
                matches!(read, Told::Found(found, _) if found == token),
                "by node {}: {read:?}",
                node + 1
            );
        }
    };
    let told = put(1, 1).await;
    assert!(matches!(told, Told::Committed(_)), "{told:?}");
    world.wall(1).expect("a wall").set_ahead(ahead_us);
    if restarts {
        world.crash(1, None);
        world.start(1);
    }
    for turn in 1..8 {
        let told = put(1, 100 + turn).await;
        assert_eq!(told, Told::Rejected, "by a clock that is an hour off");
        let told = put(turn as usize % 2 * 2, 10 + turn).await;
        assert!(matches!(told, Told::Committed(_)), "{told:?}");
        all_read(10 + turn).await;
        sleep(Duration::from_millis(300)).await;
    }
    let says = world.running(1).map(|running| running.client.readiness().reasons).unwrap_or_default();
    assert!(says.iter().any(|reason| reason.contains("set its clock")), "{says:?}");
    world.wall(1).expect("a wall").set_ahead(0);
    if restarts {
        world.crash(1, None);
        world.start(1);
    }
    let began = Instant::now();
    wait("a node that writes again", || world.all_ready().is_ok()).await;
    let told = put(1, 200).await;
    assert!(matches!(told, Told::Committed(_)), "{told:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    all_read(200).await;
    if ahead_us > 0 && !restarts {
        // What was stamped ahead of time, if anything was, has its time now.
        sleep(Duration::from_secs(3_700)).await;
        all_read(200).await;
    }
    check_register(&clients.history.lock()).expect("every promise is kept");
}

#[tokio::test(start_paused = true)]
async fn a_clock_an_hour_off_poisons_no_key_and_keeps_nobody_from_writing_once_it_is_right() {
    for ahead_us in [HOUR_US, -HOUR_US] {
        for restarts in [false, true] {
            an_hour_off(ahead_us, restarts).await;
        }
    }
}
