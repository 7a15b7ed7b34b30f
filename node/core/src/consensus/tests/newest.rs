//! Whether a ring is the newest (EMPTY-CONFIRMED).

use super::*;
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(10);

fn create(name: &str) -> impl Fn(&Ring) -> Result<Option<Ring>, crate::ring::ChangeError> {
    let name = name.to_owned();
    move |ring: &Ring| create_keyspace(ring, &keyspace(name.clone()), &[]).map(Some)
}

#[tokio::test(start_paused = true)]
async fn who_missed_a_ring_has_it_once_the_newest_is_confirmed() {
    let world = World::new(1, 0, false);
    let registers = cluster(&world, 3).await;
    world.mute.lock().insert(3);
    let first = registers[0].change(LIMIT, create("a")).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    assert!(registers[2].current.epoch() < first.epoch());
    world.mute.lock().clear();
    registers[2].confirm(LIMIT).await.unwrap();
    assert_eq!(registers[2].current.epoch(), first.epoch());
    registers[0].confirm(LIMIT).await.unwrap();
    assert_eq!(registers[0].current.epoch(), first.epoch(), "a question decides nothing");
    let second = registers[0].change(LIMIT, create("b")).await.unwrap();
    assert_eq!(second.epoch().0, first.epoch().0 + 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_confirmed_while_a_majority_of_voters_is_silent() {
    let world = World::new(1, 0, false);
    let registers = cluster(&world, 3).await;
    world.mute.lock().extend([2, 3]);
    let began = Instant::now();
    let error = registers[0].confirm(Duration::from_millis(1_500)).await.unwrap_err();
    assert!(matches!(error, RegisterError::NoQuorum { .. }), "{error}");
    assert!(began.elapsed() <= Duration::from_millis(1_500), "it took {:?}", began.elapsed());
}

/// Three voters of which the second has accepted a ring that nobody finished, and the third is gone or silent.
async fn unfinished(world: &Arc<World>, is_down: bool) -> (Vec<Arc<Register>>, u64) {
    let registers = cluster(world, 3).await;
    registers[0].confirm(LIMIT).await.unwrap();
    let ring = registers[1].current.get().unwrap();
    let next = create("a")(&ring).unwrap().unwrap();
    let ballot = Some(peer::Ballot { round: 7, node: 3 });
    let epoch = next.epoch().0;
    registers[1].prepare(peer::Prepare { epoch, ballot }).await.unwrap();
    let accept = peer::Accept { epoch, ballot, ring: Some(next.document().clone()) };
    registers[1].accept(accept).await.unwrap();
    match is_down {
        true => world.crash(3),
        false => drop(world.mute.lock().insert(3)),
    }
    (registers, epoch)
}

/// What a voter has accepted may be decided: another one may have, which is away.
#[tokio::test(start_paused = true)]
async fn what_may_be_decided_is_decided_before_a_ring_is_confirmed() {
    for is_older in [false, true] {
        let world = World::new(1, 0, false);
        if is_older {
            world.older.lock().insert(2);
        }
        let (registers, epoch) = unfinished(&world, true).await;
        registers[0].confirm(LIMIT).await.unwrap();
        let known = registers[0].current.get().unwrap();
        assert!(known.epoch().0 >= epoch && known.keyspace("a").is_some(), "{}", known.epoch());
        world.check(1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_finished_is_finished_by_calls_that_each_have_little_time() {
    let world = World::new(1, 0, false);
    let (registers, epoch) = unfinished(&world, false).await;
    let began = Instant::now();
    while registers[0].confirm(Duration::from_millis(300)).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(5), "it is never finished");
    }
    assert!(registers[0].current.epoch().0 >= epoch);
    world.check(1);
}

#[tokio::test(start_paused = true)]
async fn who_asks_at_the_same_time_shares_the_question() {
    let world = World::new(1, 0, false);
    let registers = cluster(&world, 3).await;
    let all = join_all((0..100).map(|_| registers[0].confirm(LIMIT))).await;
    assert!(all.iter().all(Result::is_ok));
    assert!(registers[0].confirming.begun() <= 2, "{} questions", registers[0].confirming.begun());
}
