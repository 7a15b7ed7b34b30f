//! Records whose time is up, by clocks that differ.

use super::world::{
    Cluster, Does, NOW_MS, ORDERED, document, get, got, position, put_request, ring, version, written,
};
use crate::{
    membership::PeerState,
    quorum::{Coordinator, HintSettings},
    replica::Floor,
};
use god_proto::{
    position::PositionRange,
    record::{Entry, Kind, Record},
    v1::{
        CountRequest, Missing, PutRequest, RankRequest, Reason, ScanRequest, SelectRequest, get_reply,
        write_reply::Outcome,
    },
    version::Version,
};

use std::time::Duration;
use tokio::time::sleep;

const TTL_MS: u64 = 1_000;

fn expiring(key: &str) -> PutRequest {
    PutRequest {
        keyspace: "default".to_owned(),
        key: key.as_bytes().to_vec().into(),
        value: b"v".to_vec().into(),
        ttl_ms: TTL_MS,
        ..PutRequest::default()
    }
}

async fn read(coordinator: &Coordinator, key: &str) -> get_reply::Outcome {
    got(coordinator.batch(vec![get(key)]).await.remove(0))
}

fn is_missing(outcome: &get_reply::Outcome) -> bool {
    matches!(outcome, get_reply::Outcome::Missing(_))
}

#[tokio::test(start_paused = true)]
async fn what_one_node_says_has_expired_no_other_finds_again() {
    let cluster = Cluster::new(3);
    let (ahead, _) = cluster.coordinator(400);
    assert!(matches!(cluster.write(put_request(expiring("k"))).await, Outcome::Committed(_)));
    assert!(matches!(read(&ahead, "k").await, get_reply::Outcome::Found(_)));
    cluster.world.wall.pass(TTL_MS - 300);
    let (ahead, _) = cluster.coordinator(400);
    assert!(matches!(cluster.read(get("k")).await, get_reply::Outcome::Found(_)));
    let first = read(&ahead, "k").await;
    assert!(is_missing(&first), "{first:?}");
    let then = cluster.read(get("k")).await;
    assert_eq!(then, first, "it comes back by a clock that is behind");
}

#[tokio::test(start_paused = true)]
async fn no_time_to_live_begins_by_a_clock_that_was_not_compared() {
    let cluster = Cluster::new(3);
    let (behind, wall) = cluster.coordinator(0);
    cluster.world.wall.pass(3_600_000);
    let clock = &behind.0.clock;
    clock.watch();
    let put = |ttl_ms| put_request(PutRequest { ttl_ms, timeout_ms: 5_000, ..expiring("k") });
    let waits = tokio::spawn({
        let (behind, puts) = (behind.clone(), [put(TTL_MS), put(0)]);
        async move {
            let mut answers = Vec::new();
            for put in puts {
                answers.push(written(behind.batch(vec![put]).await.remove(0)));
            }
            answers
        }
    });
    sleep(Duration::from_millis(100)).await;
    // It was an hour behind, and is set right: what had begun by it would be over.
    wall.pass(3_600_000);
    clock.judge(clock.steps(), Some((0, 0)), false);
    let outcomes = waits.await.unwrap();
    assert!(matches!(&outcomes[0], Outcome::Rejected(why) if why.reason() == Reason::Clock), "{outcomes:?}");
    // What lives for ever waits for the comparison instead.
    assert!(matches!(outcomes[1], Outcome::Committed(_)), "{outcomes:?}");
    assert!(matches!(written(behind.batch(vec![put(TTL_MS)]).await.remove(0)), Outcome::Committed(_)));
}

/// A keyspace that is read at one replica, since all of them are written.
fn read_at_one() -> Cluster {
    let mut document = document(3, 5);
    for keyspace in &mut document.keyspaces {
        (keyspace.write_quorum, keyspace.read_quorum) = (3, 1);
    }
    Cluster::with(&ring(document), HintSettings::default())
}

#[tokio::test(start_paused = true)]
async fn what_one_node_says_has_expired_no_other_finds_where_one_replica_is_asked() {
    let cluster = read_at_one();
    assert!(matches!(cluster.write(put_request(expiring("k"))).await, Outcome::Committed(_)));
    cluster.world.wall.pass(TTL_MS - 300);
    let (ahead, _) = cluster.coordinator(400);
    // Not told before all know, who are asked one at a time.
    cluster.does(3, Does::Unreachable);
    let refused = read(&ahead, "k").await;
    assert!(matches!(refused, get_reply::Outcome::Failed(_)), "{refused:?}");
    let again = read(&ahead, "k").await;
    assert!(
        matches!(again, get_reply::Outcome::Failed(_)),
        "another try told what one replica holds: {again:?}"
    );
    cluster.does(3, Does::Answer);
    assert!(is_missing(&read(&ahead, "k").await));
    for node in 1..=3 {
        assert!(cluster.held(node, &position("k")).await.unwrap().version.is_expiry(), "at node {node}");
    }
    assert!(is_missing(&cluster.read(get("k")).await), "it comes back by a clock that is behind");
}

#[tokio::test(start_paused = true)]
async fn where_one_replica_is_asked_and_one_is_gone_the_others_go_on() {
    let cluster = read_at_one();
    for put in [expiring("k"), PutRequest { ttl_ms: 0, ..expiring("stays") }] {
        assert!(matches!(cluster.write(put_request(put)).await, Outcome::Committed(_)));
    }
    cluster.world.wall.pass(TTL_MS);
    cluster.does(3, Does::Unreachable);
    // Not known to be gone yet: the one key fails, and the other does not.
    let mut answers = cluster.coordinator.batch(vec![get("k"), get("stays")]).await;
    let (stays, k) = (got(answers.remove(1)), got(answers.remove(0)));
    assert!(matches!(k, get_reply::Outcome::Failed(_)), "{k:?}");
    assert!(matches!(stays, get_reply::Outcome::Found(_)), "{stays:?}");
    // Known to be: what has just expired is there until all clocks say that it is not.
    let cluster = read_at_one();
    assert!(matches!(cluster.write(put_request(expiring("k"))).await, Outcome::Committed(_)));
    cluster.world.wall.pass(TTL_MS);
    cluster.state(3, PeerState::Down);
    assert!(matches!(cluster.read(get("k")).await, get_reply::Outcome::Found(_)));
    cluster.world.wall.pass(crate::version::SURE_MS);
    assert!(is_missing(&cluster.read(get("k")).await));
}

#[tokio::test(start_paused = true)]
async fn what_a_scan_leaves_out_as_expired_no_other_node_finds_again() {
    let cluster = Cluster::new(3);
    let keys: Vec<String> = (0..50).map(|at| format!("k{at:02}")).collect();
    for (at, key) in keys.iter().enumerate() {
        let ttl_ms = if at % 2 == 0 { TTL_MS } else { 0 };
        let put = PutRequest { keyspace: ORDERED.to_owned(), ttl_ms, ..expiring(key) };
        assert!(matches!(cluster.write(put_request(put)).await, Outcome::Committed(_)));
    }
    cluster.world.wall.pass(TTL_MS - 300);
    let (ahead, _) = cluster.coordinator(400);
    let scan = || ScanRequest { keyspace: ORDERED.to_owned(), limit: 100, ..ScanRequest::default() };
    assert_eq!(cluster.coordinator.scan(scan()).await.entries.len(), 50);
    assert_eq!(ahead.scan(scan()).await.entries.len(), 25);
    assert_eq!(cluster.coordinator.scan(scan()).await.entries.len(), 25);
    // What was left out is gone: all questions about order agree.
    let request = CountRequest { keyspace: ORDERED.to_owned(), ..CountRequest::default() };
    assert_eq!(cluster.coordinator.count(request).await.count, 25);
    let request =
        RankRequest { keyspace: ORDERED.to_owned(), key: b"k09".to_vec().into(), ..RankRequest::default() };
    assert_eq!(cluster.coordinator.rank(request).await.rank, 4);
    let request = SelectRequest { keyspace: ORDERED.to_owned(), rank: 4, ..SelectRequest::default() };
    assert_eq!(cluster.coordinator.select(request).await.entry.unwrap().key, "k09");
}

#[tokio::test(start_paused = true)]
async fn each_replica_comes_to_the_same_deletion() {
    let cluster = Cluster::new(3);
    cluster.write(put_request(expiring("k"))).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let record = cluster.held(1, &position("k")).await.unwrap();
    assert_eq!(record.expires_at_ms, Some(NOW_MS + TTL_MS));
    cluster.world.wall.pass(TTL_MS);
    assert!(is_missing(&cluster.read(get("k")).await));
    let ended = cluster.held(1, &position("k")).await.unwrap();
    assert_eq!(Some(&ended), record.ended(NOW_MS + TTL_MS).as_ref());
    assert!(ended.version > record.version && ended.kind == Kind::Tombstone);
    // A later write wins, and a write that came before does not.
    let older = Entry { position: position("k"), record };
    cluster.seed(1, older).await;
    assert_eq!(cluster.held(1, &position("k")).await, Some(ended));
    assert!(matches!(cluster.write(put_request(expiring("k"))).await, Outcome::Committed(_)));
    assert!(matches!(cluster.read(get("k")).await, get_reply::Outcome::Found(_)));
}

#[tokio::test(start_paused = true)]
async fn a_record_below_a_promised_floor_ends_where_it_stands_and_nowhere_else() {
    let cluster = Cluster::new(3);
    let at = position("k");
    let record = Record { expires_at_ms: Some(NOW_MS), ..Record::value(version(-60_000), "v") };
    for node in 1..=3 {
        cluster.seed(node, Entry { position: at.clone(), record: record.clone() }).await;
        let range = PositionRange::of_position(&at);
        let floor = Floor { promised: version(-30_000), repaired: Version::ZERO };
        cluster.node(node).replica.floors().raise(&range, floor).await.unwrap();
    }
    let missing = Missing { version: Some(record.version.expiry().into()) };
    assert_eq!(cluster.read(get("k")).await, get_reply::Outcome::Missing(missing));
    assert!(cluster.held(1, &at).await.unwrap().version.is_expiry());
    // Where the record is not, its end is not taken.
    let elsewhere = Entry { position: position("other"), record: record.ended(NOW_MS).unwrap() };
    let range = PositionRange::of_position(&elsewhere.position);
    let floor = Floor { promised: version(-30_000), repaired: version(-30_000) };
    cluster.node(1).replica.floors().raise(&range, floor).await.unwrap();
    let body = god_proto::peer::request::Body::Write(god_proto::peer::Write {
        entries: vec![elsewhere.clone().into()],
    });
    let call = crate::peer::Call { epoch: 5, arcs: 0, timeout: std::time::Duration::from_secs(1), body };
    cluster.node(1).replica.handle(call).await.unwrap();
    assert_eq!(cluster.held(1, &elsewhere.position).await, None);
}

#[tokio::test(start_paused = true)]
async fn what_expired_long_ago_is_missing_though_nothing_can_be_written() {
    let cluster = Cluster::new(3);
    let answer = cluster.coordinator.batch(vec![put_request(expiring("k"))]).await.remove(0);
    assert!(matches!(written(answer), Outcome::Committed(_)));
    cluster.world.wall.pass(10 * TTL_MS);
    for node in 1..=3 {
        cluster.node(node).disk.set_pressure(Some(crate::engine::Pressure::DiskSpent("no room".to_owned())));
    }
    let read = cluster.read(get("k")).await;
    assert!(is_missing(&read), "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn a_scan_ends_its_page_before_a_key_of_which_nobody_can_say_whether_it_has_expired() {
    let cluster = read_at_one();
    for key in ["k0", "k1", "k3", "k4", "k5"] {
        let ttl_ms = if key == "k3" { TTL_MS } else { 0 };
        let put = PutRequest { keyspace: ORDERED.to_owned(), ttl_ms, ..expiring(key) };
        assert!(matches!(cluster.write(put_request(put)).await, Outcome::Committed(_)));
    }
    cluster.world.wall.pass(TTL_MS);
    cluster.does(3, Does::Unreachable);
    for (reverse, before) in [(false, [b"k0", b"k1"]), (true, [b"k5", b"k4"])] {
        let scan = |continuation| ScanRequest {
            keyspace: ORDERED.to_owned(),
            limit: 100,
            reverse,
            timeout_ms: 300,
            continuation,
            ..ScanRequest::default()
        };
        let page = cluster.coordinator.scan(scan(bytes::Bytes::default())).await;
        assert_eq!(page.failed, None);
        let keys: Vec<&[u8]> = page.entries.iter().map(|entry| &entry.key[..]).collect();
        assert_eq!(keys, before);
        // It is not passed over.
        let next = cluster.coordinator.scan(scan(page.continuation)).await;
        assert!(next.failed.is_some() && next.entries.is_empty(), "{next:?}");
    }
    cluster.does(3, Does::Answer);
    let scan = ScanRequest { keyspace: ORDERED.to_owned(), limit: 100, ..ScanRequest::default() };
    assert_eq!(cluster.coordinator.scan(scan).await.entries.len(), 4);
}
