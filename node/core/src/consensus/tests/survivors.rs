//! What a recovery begins with.

use super::*;
use crate::ring::ChangeError;
use god_proto::ids::NodeId;

const LIMIT: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(3);

/// The third of three has a ring that the first has not, and is the only other one left.
async fn behind(world: &Arc<World>) -> (Arc<Register>, Arc<Ring>) {
    let registers = cluster(world, 3).await;
    world.mute.lock().insert(1);
    let create = |ring: &Ring| create_keyspace(ring, &keyspace("a".to_owned()), &[]).map(Some);
    let newest = registers[2].change(LIMIT, create).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    world.mute.lock().clear();
    world.crash(2);
    assert!(registers[0].current.epoch() < newest.epoch());
    (Arc::clone(&registers[0]), newest)
}

#[tokio::test(start_paused = true)]
async fn a_survivor_that_answers_late_is_not_counted_without_what_it_knows() {
    let world = World::new(1, 0, false);
    let (register, newest) = behind(&world).await;
    world.slow.lock().insert(3, Duration::from_secs(2));
    let (ring, answering) = register.newest_of_all(TIMEOUT).await.unwrap();
    assert_eq!(ring.epoch(), newest.epoch());
    assert_eq!(register.current.epoch(), newest.epoch());
    assert_eq!(answering, BTreeSet::from([NodeId(1), NodeId(3)]));
}

#[tokio::test(start_paused = true)]
async fn who_cannot_keep_a_newer_ring_recovers_no_older_one() {
    let world = World::new(1, 0, false);
    let (register, _) = behind(&world).await;
    world.disks.lock()[&1].fail_writes(Some(EngineError::Failed("a bad sector".to_owned())));
    let error = register.newest_of_all(TIMEOUT).await.unwrap_err();
    assert!(matches!(error, RegisterError::Refused(ChangeError::Invalid(_))), "{error}");
    assert!(error.to_string().starts_with("node 3 has the ring of epoch"), "{error}");
}
