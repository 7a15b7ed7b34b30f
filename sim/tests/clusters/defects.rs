//! What the systems before this one got wrong, each by its number in the list of their defects. Those of sub-trees and
//! set algebra (4 and 8) come with these.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use god_core::{
    doors::Service as _,
    engine::{Direction, SimulatedDisk},
    radix::{CommitterSettings, Limits, Store, StoreSettings, Summary, Verdict},
    seam::Offload,
};
use god_history::{Ask, Told, check_register};
use god_proto::{
    ids::{KeyspaceId, NodeId},
    peer::{Cause, Write, request},
    position::{Position, PositionRange},
    record::{Entry, Kind, Record},
    v1::{BeginOperationRequest, LeaveWish, Partitioner, Wish, wish},
    version::Version,
};
use god_sim::{
    calm::{agree, cluster, within},
    client::Clients,
    run::{Broken, run},
};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

const LIMIT: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(120);

fn store(disk: &SimulatedDisk) -> Store {
    let settings = StoreSettings {
        committer: CommitterSettings::default(),
        offload: Offload::Inline,
        threaded: false,
        limits: Limits::default(),
    };
    Store::open(disk.open(), [9; 16], settings).unwrap()
}

fn entry(key: &str, ms: u64, value: Option<&str>) -> Entry {
    let position = Position::of_key(KeyspaceId(1), Partitioner::Ordered, key.as_bytes()).unwrap();
    let record = Record {
        version: Version::new(ms, 0, NodeId(1)),
        kind: if value.is_some() { Kind::Value } else { Kind::Tombstone },
        expires_at_ms: None,
        value: Bytes::copy_from_slice(value.unwrap_or_default().as_bytes()),
    };
    Entry { position, record }
}

async fn summary(entries: &[Entry]) -> Summary {
    let store = store(&SimulatedDisk::new());
    for entry in entries {
        store.write(vec![entry.clone()]).await.unwrap();
    }
    store.view().summary(&PositionRange::of_keyspace(KeyspaceId(1))).unwrap()
}

async fn put(clients: &Clients, node: usize, key: u32, token: u64) -> Told {
    clients.perform(1, node, key, Ask::Put(token), LIMIT).await
}

#[tokio::test]
async fn defect_1_a_deletion_and_an_empty_value_have_different_digests() {
    let empty = summary(&[entry("k", 1, Some(""))]).await;
    // No two writes share a version (VERSION-UNIQUE), so that the one that deletes has another.
    let deleted = summary(&[entry("k", 1, Some("")), entry("k", 2, None)]).await;
    assert_ne!(empty.digest, deleted.digest);
    assert_eq!((empty.entries, deleted.entries), (1, 1));
    assert_ne!(empty, Summary { digest: empty.digest, ..deleted }, "one is there, the other is not");
}

#[tokio::test]
async fn defect_2_a_digest_does_not_depend_on_the_order_of_writes() {
    let entries: Vec<Entry> =
        ["a", "ab", "abc", "abd", "b"].iter().map(|key| entry(key, 1, Some(key))).collect();
    let mut reversed = entries.clone();
    reversed.reverse();
    let first = summary(&entries).await;
    assert_eq!(first, summary(&reversed).await);
    reversed.swap(1, 4);
    assert_eq!(first, summary(&reversed).await);
}

#[tokio::test]
async fn defect_3_versions_are_in_the_digest_and_no_two_writes_share_one() {
    let (one, other) =
        (summary(&[entry("k", 1, Some("v"))]).await, summary(&[entry("k", 2, Some("v"))]).await);
    assert_ne!(one.digest, other.digest);
    // Two nodes at the same moment.
    assert!(Version::new(1, 0, NodeId(1)) < Version::new(1, 0, NodeId(2)));
}

#[tokio::test(start_paused = true)]
async fn defect_5_an_empty_value_is_there_for_reads_scans_and_counts() {
    let clients = cluster(1, 3).await.unwrap();
    let running = clients.world.running(0).unwrap();
    let put = god_proto::v1::PutRequest { keyspace: "default".into(), key: "k".into(), ..Default::default() };
    let get = god_proto::v1::GetRequest { keyspace: "default".into(), key: "k".into(), ..Default::default() };
    use god_proto::v1::{Call, answer::Answer, call, get_reply::Outcome};
    let calls = vec![Call { call: Some(call::Call::Put(put)) }, Call { call: Some(call::Call::Get(get)) }];
    let answers = running.client.batch(calls).await;
    let Some(Answer::Get(got)) = answers[1].answer.clone() else { panic!("{answers:?}") };
    assert!(matches!(got.outcome, Some(Outcome::Found(found)) if found.value.is_empty()));
    let view = running.node.member().unwrap().store.view();
    let range = PositionRange::of_keyspace(KeyspaceId(1));
    assert_eq!(view.summary(&range).unwrap().live_keys, 1);
    assert_eq!(view.scan(&range, Direction::Forward).count(), 1);
}

#[tokio::test]
async fn defect_6_a_replica_that_hears_of_writes_in_another_order_ends_with_the_newest() {
    let store = store(&SimulatedDisk::new());
    let (old, new) = (entry("k", 1, Some("old")), entry("k", 2, Some("new")));
    assert_eq!(store.write(vec![new.clone()]).await.unwrap(), [Verdict::Applied]);
    assert_eq!(store.write(vec![old]).await.unwrap(), [Verdict::Superseded(new.record.version)]);
    assert_eq!(store.get(&new.position).await.unwrap(), Some(new.record));
}

#[tokio::test(start_paused = true)]
async fn defect_7_what_a_node_gives_away_is_at_all_its_owners() {
    let clients = cluster(1, 4).await.unwrap();
    let world = Arc::clone(&clients.world);
    for key in 0..200 {
        assert!(matches!(
            put(&clients, key as usize % 4, key, 1_000 + u64::from(key)).await,
            Told::Committed(_)
        ));
    }
    let leaver = world.running(3).unwrap().node.member().unwrap().number.0;
    let wish = Wish { wish: Some(wish::Wish::Leave(LeaveWish { node: leaver, lost: false })) };
    let request = BeginOperationRequest { id: "leave".to_owned(), wish: Some(wish) };
    assert_eq!(world.running(0).unwrap().client.begin_operation(request).await.failed, None);
    within(PATIENCE, || {
        world.ring().is_some_and(|ring| ring.operations().is_empty() && ring.nodes().len() == 3)
    })
    .await
    .unwrap();
    for at in 0..3 {
        let view = world.running(at).unwrap().node.member().unwrap().store.view();
        assert_eq!(view.summary(&PositionRange::of_keyspace(KeyspaceId(1))).unwrap().live_keys, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn defect_9_a_node_that_hangs_holds_up_nobody_and_the_last_nodes_cannot_be_removed() {
    let clients = cluster(1, 3).await.unwrap();
    let world = Arc::clone(&clients.world);
    assert!(matches!(put(&clients, 0, 1, 1).await, Told::Committed(_)));
    world.network.hold(&world.address(2));
    let began = Instant::now();
    assert!(matches!(put(&clients, 0, 1, 2).await, Told::Committed(_)));
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
    world.network.release(&world.address(2));
    let wish = Wish { wish: Some(wish::Wish::Leave(LeaveWish { node: 1, lost: false })) };
    let request = BeginOperationRequest { id: "leave".to_owned(), wish: Some(wish) };
    let failed = world.running(1).unwrap().client.begin_operation(request).await.failed.unwrap();
    assert!(failed.message.contains('3'), "{failed:?}");
}

#[tokio::test]
async fn defect_10_a_deletion_survives_a_restart_and_what_was_not_synced_may_be_torn_off() {
    let disk = SimulatedDisk::new();
    let first = store(&disk);
    first.write(vec![entry("k", 1, Some("v"))]).await.unwrap();
    first.write(vec![entry("k", 2, None)]).await.unwrap();
    first.engine().sync().unwrap();
    first.write(vec![entry("l", 3, Some("v"))]).await.unwrap();
    disk.crash_machine(0);
    let second = store(&disk);
    let deleted = second.get(&entry("k", 0, None).position).await.unwrap().unwrap();
    assert_eq!((deleted.kind, deleted.version.ms()), (Kind::Tombstone, 2));
    assert_eq!(second.get(&entry("l", 0, None).position).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn defect_11_a_replica_takes_no_write_under_another_ring_than_its_own() {
    let clients = cluster(1, 3).await.unwrap();
    put(&clients, 0, 1, 1).await;
    let running = clients.world.running(0).unwrap();
    let member = running.node.member().unwrap();
    let range = PositionRange::of_keyspace(KeyspaceId(1));
    let held = member.store.view().scan(&range, Direction::Forward).next().unwrap().unwrap();
    let epoch = clients.world.ring().unwrap().epoch().0;
    for epoch in [epoch - 1, epoch + 1] {
        let body = request::Body::Write(Write { entries: vec![held.clone().into()] });
        let call = god_core::peer::Call { epoch, arcs: 0, timeout: LIMIT, body };
        let refused = member.replica.handle(call).await.unwrap_err();
        assert_eq!(refused.cause(), Cause::StaleEpoch);
    }
}

#[tokio::test(start_paused = true)]
async fn defect_12_a_node_that_was_away_for_longer_than_tombstones_last_brings_nothing_back() {
    let clients = cluster(1, 3).await.unwrap();
    let world = Arc::clone(&clients.world);
    for key in 0..50 {
        assert!(matches!(put(&clients, 0, key, 1_000 + u64::from(key)).await, Told::Committed(_)));
    }
    world.crash(2, None);
    for key in 0..50 {
        let told = clients.perform(1, 1, key, Ask::Delete(2_000 + u64::from(key)), LIMIT).await;
        assert!(matches!(told, Told::Committed(_)), "{told:?}");
    }
    // Many times as long as tombstones are kept (3 s here), and longer than hints are.
    sleep(Duration::from_secs(3_600)).await;
    world.start(2);
    within(PATIENCE, || agree(&world)).await.unwrap();
    let empty = || {
        (0..3).all(|at| {
            let view = world.running(at).unwrap().node.member().unwrap().store.view();
            view.summary(&PositionRange::of_keyspace(KeyspaceId(1))).unwrap().entries == 0
        })
    };
    // Then the deletions are on all three, and are forgotten by all three.
    within(PATIENCE, empty).await.unwrap();
    for key in 0..50 {
        let told = clients.perform(1, 2, key, Ask::Get, LIMIT).await;
        assert!(matches!(told, Told::Missing(_)), "{told:?}");
    }
    check_register(&clients.history.lock()).unwrap();
}

#[test]
fn defect_13_kills_partitions_restarts_and_concurrency_are_tried_at_once() {
    let outcome = (1..=5).map(|seed| run(seed, Broken::Nothing)).fold(vec![], |mut all, outcome| {
        assert_eq!(outcome.problems, Vec::<String>::new(), "seed {}", outcome.seed);
        all.extend(outcome.faults.into_iter().map(|(_, fault)| fault.kind()));
        all
    });
    for kind in ["processes killed", "partitions", "hangs"] {
        assert!(outcome.contains(&kind), "no {kind}");
    }
}
