//! Outcomes of reads.

use super::world::{
    Cluster, Does, document, get, get_request, got, joint, ordered, position, put, ring, tombstone, value,
    version,
};
use crate::{
    budget::Budget,
    membership::PeerState,
    peer::Told,
    quorum::{
        HintSettings,
        fan::QuorumScope,
        poll::{Poll, Repair},
    },
    replica::Floor,
};
use futures::future::{join, join_all};
use god_proto::{
    MAX_VALUE,
    ids::KeyspaceId,
    peer::Cause,
    position::{Position, PositionRange},
    v1::{Reason, get_reply::Outcome},
    version::Version,
};
use god_rules::quorum::Need;
use std::{sync::atomic::Ordering, time::Duration};
use tokio::time::{Instant, sleep};

fn found(outcome: Outcome) -> String {
    match outcome {
        Outcome::Found(found) => String::from_utf8(found.value.to_vec()).unwrap(),
        other => panic!("not found: {other:?}"),
    }
}

fn failed(outcome: Outcome) -> (Reason, String) {
    match outcome {
        Outcome::Failed(rejected) => (rejected.reason(), rejected.message),
        other => panic!("not failed: {other:?}"),
    }
}

async fn torn() -> Cluster {
    let cluster = Cluster::new(3);
    cluster.seed(1, value(&position("k"), -10, "newest")).await;
    cluster.seed(2, value(&position("k"), -20, "older")).await;
    cluster
}

#[tokio::test(start_paused = true)]
async fn the_newest_wins_and_a_contacted_stale_replica_is_repaired_before_the_answer() {
    let cluster = torn().await;
    assert_eq!(found(cluster.read(get("k")).await), "newest");
    assert_eq!(cluster.held(2, &position("k")).await.unwrap().version, version(-10));
    assert_eq!(cluster.held(3, &position("k")).await, None, "it was not asked");
}

#[tokio::test(start_paused = true)]
async fn a_read_that_finds_replicas_alike_writes_nothing() {
    let cluster = Cluster::new(3);
    for node in 1..=3 {
        cluster.seed(node, value(&position("k"), -10, "same")).await;
    }
    assert_eq!(found(cluster.read(get("k")).await), "same");
    assert_eq!((cluster.sent("read"), cluster.sent("write")), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_newest_record_that_cannot_be_repaired_goes_to_another_replica() {
    let cluster = torn().await;
    *cluster.node(2).manner.lock() =
        super::world::Manner { does: Does::Refuse(Cause::DiskFull), writes_only: true, ..Default::default() };
    assert_eq!(found(cluster.read(get("k")).await), "newest");
    assert_eq!(cluster.held(3, &position("k")).await.unwrap().version, version(-10));
}

#[tokio::test(start_paused = true)]
async fn a_newest_record_that_no_quorum_holds_is_not_answered() {
    let cluster = torn().await;
    for node in 2..=3 {
        *cluster.node(node).manner.lock() = super::world::Manner {
            does: Does::Refuse(Cause::DiskFull),
            writes_only: true,
            ..Default::default()
        };
    }
    let (reason, message) = failed(cluster.read(get("k")).await);
    assert_eq!(reason, Reason::Unavailable, "{message}");
    assert!(message.starts_with("1 of 2 replicas needed hold the newest record"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_replica_is_hedged_by_another_one() {
    let cluster = Cluster::new(3);
    for node in 1..=3 {
        cluster.seed(node, value(&position("k"), -10, "same")).await;
    }
    cluster.does(2, Does::Hang);
    let start = Instant::now();
    assert_eq!(found(cluster.read(get("k")).await), "same");
    assert!(start.elapsed() < Duration::from_millis(20), "{:?}", start.elapsed());
    assert_eq!(cluster.sent("read"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_waits_three_round_trips_where_that_is_longer() {
    let cluster = Cluster::new(3);
    for node in 1..=3 {
        let round_trip = Some(Duration::from_millis(u64::from(node) * 10));
        cluster.world.liveness.update(god_proto::ids::NodeId(node), |peer| peer.round_trip = round_trip);
    }
    cluster.slow(2, 50);
    assert!(matches!(cluster.read(get("k")).await, Outcome::Missing(_)));
    assert_eq!(cluster.sent("read"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_fails_is_replaced_at_once() {
    for does in [Does::Unreachable, Does::Refuse(Cause::Corrupt), Does::Refuse(Cause::Busy)] {
        let cluster = Cluster::new(3);
        for node in 1..=3 {
            cluster.seed(node, value(&position("k"), -10, "same")).await;
        }
        cluster.does(1, does);
        let start = Instant::now();
        assert_eq!(found(cluster.read(get("k")).await), "same");
        assert!(start.elapsed() < Duration::from_millis(5), "{:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn hung_replicas_cost_no_more_than_the_deadline() {
    let cluster = Cluster::new(3);
    cluster.does(2, Does::Hang);
    cluster.does(3, Does::Hang);
    let start = Instant::now();
    let (reason, message) = failed(cluster.read(get("k")).await);
    assert_eq!(start.elapsed().as_millis(), 300);
    assert_eq!(reason, Reason::Deadline);
    assert!(message.starts_with("1 of 2 replicas needed answered in time"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn too_few_reachable_replicas_are_said_at_once() {
    let cluster = Cluster::new(3);
    cluster.state(2, PeerState::Down);
    cluster.state(3, PeerState::Down);
    let (reason, message) = failed(cluster.read(get("k")).await);
    assert_eq!((reason, message.as_str()), (Reason::Unavailable, "1 of 2 replicas needed are reachable"));
    assert!(matches!(cluster.read(get_request("k", Some(1), None)).await, Outcome::Missing(_)));
}

#[tokio::test(start_paused = true)]
async fn a_session_reads_at_least_what_it_has_seen_or_is_told_that_it_cannot() {
    let cluster = Cluster::new(3);
    cluster.seed(3, value(&position("k"), -10, "mine")).await;
    let one = |least| get_request("k", Some(1), Some(version(least)));
    assert!(matches!(cluster.read(get_request("k", Some(1), None)).await, Outcome::Missing(_)));
    assert_eq!(found(cluster.read(one(-10)).await), "mine");
    let (reason, message) = failed(cluster.read(one(-5)).await);
    assert_eq!(reason, Reason::Stale, "{message}");
}

/// What it has seen was a deletion then: a write would be on all replicas.
#[tokio::test(start_paused = true)]
async fn a_session_may_have_seen_a_deletion_that_is_purged() {
    let cluster = Cluster::new(3);
    let seen = || get_request("k", None, Some(version(-10)));
    let purge = async |node: u32, to| {
        let all = PositionRange::of_keyspace(KeyspaceId(1));
        let floor = Floor { promised: version(to), repaired: version(to) };
        cluster.node(node).replica.floors().raise(&all, floor).await.unwrap();
    };
    purge(1, -11).await;
    assert_eq!(failed(cluster.read(seen()).await).0, Reason::Stale, "it may have been a write");
    // One that knows it is enough.
    purge(1, -10).await;
    assert!(matches!(cluster.read(seen()).await, Outcome::Missing(_)));
    cluster.node(1).replica.lapse().add(&[position("k")]).await.unwrap();
    assert_eq!(failed(cluster.read(seen()).await).0, Reason::Stale, "it may have lost what it knew");
}

#[tokio::test(start_paused = true)]
async fn a_deletion_wins_over_older_values_and_says_its_version() {
    let cluster = Cluster::new(3);
    cluster.seed(1, value(&position("k"), -20, "old")).await;
    cluster.seed(2, tombstone(&position("k"), -10)).await;
    match cluster.read(get("k")).await {
        Outcome::Missing(missing) => assert_eq!(missing.version, Some(version(-10).into())),
        other => panic!("{other:?}"),
    }
    assert!(!cluster.held(1, &position("k")).await.unwrap().is_live());
}

#[tokio::test(start_paused = true)]
async fn a_read_meets_newer_and_older_rings() {
    let cluster = Cluster::new(3);
    cluster.node(1).ring.advance(ring(document(3, 7)));
    assert!(matches!(cluster.read(get("k")).await, Outcome::Missing(_)));
    assert_eq!(cluster.world.ring.epoch().0, 7);
    assert_eq!(cluster.node(2).ring.epoch().0, 7, "it was given the newer one");
}

#[tokio::test(start_paused = true)]
async fn who_has_a_newer_ring_and_does_not_give_it_holds_up_no_read() {
    let cluster = Cluster::new(3);
    for node in 1..=3 {
        cluster.seed(node, value(&position("k"), -10, "v")).await;
    }
    cluster.world.stuck.store(true, Ordering::SeqCst);
    cluster.node(2).ring.advance(ring(document(3, 7)));
    let began = Instant::now();
    assert_eq!(found(cluster.read(get("k")).await), "v");
    assert_eq!(cluster.sent("fetch"), 1);
    assert!(began.elapsed() < Duration::from_millis(50), "another one is asked as for any that is slow");
}

#[tokio::test(start_paused = true)]
async fn while_an_arc_changes_hands_both_sets_are_read() {
    let cluster = Cluster::with(&joint(5), HintSettings::default());
    for node in [4, 5] {
        cluster.seed(node, value(&position("k"), -10, "new set")).await;
    }
    assert_eq!(found(cluster.read(get("k")).await), "new set");
}

#[tokio::test(start_paused = true)]
async fn values_that_do_not_fit_in_one_message_come_in_several_up_to_a_bound() {
    let cluster = Cluster::new(1);
    let large = "v".repeat(7 << 20);
    let keys = ["a", "b", "c", "d", "e", "f"];
    for key in keys {
        cluster.seed(1, value(&position(key), -10, &large)).await;
    }
    let answers = cluster.coordinator.batch(keys.map(get).to_vec()).await;
    let mut answers = answers.into_iter().map(super::world::got);
    for _ in 0..5 {
        assert_eq!(found(answers.next().unwrap()).len(), large.len());
    }
    let (reason, message) = failed(answers.next().unwrap());
    assert_eq!(reason, Reason::Busy, "{message}");
}

/// A key of the largest value on three nodes, of which two are slow.
async fn large_on_slow_ones(budget: &Budget) -> Cluster {
    let cluster = Cluster::paid_from(budget, &ring(document(3, 5)), HintSettings::default());
    let large = "v".repeat(MAX_VALUE);
    for node in 1..=3 {
        cluster.seed(node, value(&position("large"), -10, &large)).await;
    }
    cluster.slow(2, 50);
    cluster.slow(3, 50);
    cluster
}

/// BUDGET: what replicas answered is paid for while others are waited for.
#[tokio::test(start_paused = true)]
async fn what_many_reads_hold_of_replicas_is_bounded_and_some_of_them_go_through() {
    let budget = Budget::new(32 << 20);
    let cluster = large_on_slow_ones(&budget).await;
    for _ in 0..3 {
        let reads = join_all((0..64).map(|_| cluster.read(get("large")))).await;
        let (found, refused): (Vec<_>, Vec<_>) =
            reads.into_iter().partition(|read| matches!(read, Outcome::Found(_)));
        assert!(!found.is_empty(), "none of many went through");
        assert!(!refused.is_empty(), "64 reads of 8 MiB were all taken at a time");
        for read in refused {
            let (reason, message) = failed(read);
            assert_eq!(reason, Reason::Busy, "{message}");
        }
    }
    // One at a time may go beyond it: with the copies that one asks for.
    let most = budget.most() >> 20;
    assert!(most <= 32 + 3 * 8, "{most} MiB were taken");
    assert_eq!(budget.used(), 0);
}

/// BUDGET: one that needs more than there is gets through when it is alone.
#[tokio::test(start_paused = true)]
async fn a_lone_read_that_needs_more_than_the_whole_budget_is_answered() {
    let budget = Budget::new(1 << 20);
    let cluster = large_on_slow_ones(&budget).await;
    for _ in 0..3 {
        assert_eq!(found(cluster.read(get_request("large", Some(3), None)).await).len(), MAX_VALUE);
        assert_eq!(budget.used(), 0);
    }
}

/// BUDGET: what others say of one position is not paid for, and what is known of the others is told.
#[tokio::test(start_paused = true)]
async fn a_position_that_lags_where_memory_is_short_fails_no_other_of_its_message() {
    for keys in [["a", "b"], ["b", "a"]] {
        let budget = Budget::new(1 << 20);
        let cluster = Cluster::paid_from(&budget, &ring(document(3, 5)), HintSettings::default());
        let large = "v".repeat(60 << 10);
        for node in 1..=3 {
            cluster.seed(node, value(&position("a"), -10, &large)).await;
            cluster.seed(node, value(&position("b"), -20, "old")).await;
        }
        cluster.seed(3, value(&position("b"), -10, "new")).await;
        cluster.slow(3, 50);
        let least = |key| get_request(key, None, (key == "b").then(|| version(-10)));
        // Once two have answered, somebody else takes all that there is, and goes beyond it.
        let taken = async {
            sleep(Duration::from_millis(20)).await;
            let mut taken = budget.new_charge();
            assert!(taken.insist(2 << 20));
            taken
        };
        let (answers, taken) = join(cluster.coordinator.batch(keys.map(least).to_vec()), taken).await;
        for (key, answer) in keys.into_iter().zip(answers) {
            match key {
                "a" => assert_eq!(found(got(answer)), large),
                _ => {
                    let (reason, message) = failed(got(answer));
                    assert_eq!((reason, message.contains("memory")), (Reason::Busy, true), "{message}");
                }
            }
        }
        drop(taken);
        assert_eq!(budget.used(), 0);
        assert_eq!(found(cluster.read(least("b")).await), "new");
    }
}

/// BUDGET: of what a replica says of many positions so much is told as there is memory for.
#[tokio::test(start_paused = true)]
async fn positions_that_there_is_no_memory_for_fail_no_other_of_their_message() {
    // Clients may take 896 KiB. What two replicas hold does not go into that, but that of one does.
    let one_large: Vec<usize> = std::iter::once(400).chain([40; 8]).collect();
    for (sizes, told) in [(vec![50; 16], 8), (one_large, 8)] {
        let budget = Budget::new(1 << 20);
        let cluster = Cluster::paid_from(&budget, &ring(document(3, 5)), HintSettings::default());
        let keys: Vec<String> = (0..sizes.len()).map(|at| format!("k{at}")).collect();
        for (key, size) in keys.iter().zip(&sizes) {
            for node in 1..=3 {
                cluster.seed(node, value(&position(key), -10, &"v".repeat(size << 10))).await;
            }
        }
        cluster.slow(2, 50);
        cluster.does(3, Does::Hang);
        // Somebody else may go beyond what there is.
        let mut beyond = budget.new_charge();
        let most = (1 << 20) + 1;
        assert!(beyond.insist(most));
        beyond.shrink(most);
        let gets = || keys.iter().map(|key| get(key)).collect::<Vec<_>>();
        let mut found_them = 0;
        for (size, answer) in sizes.iter().zip(cluster.coordinator.batch(gets()).await) {
            match got(answer) {
                Outcome::Found(found) => {
                    assert_eq!(found.value.len(), size << 10);
                    found_them += 1;
                }
                outcome => {
                    let (reason, message) = failed(outcome);
                    assert_eq!((reason, message.contains("memory")), (Reason::Busy, true), "{message}");
                    assert_eq!(*size, *sizes.iter().max().unwrap(), "what takes the most is given up");
                }
            }
        }
        assert_eq!(found_them, told);
        assert_eq!((budget.used(), budget.most()), (0, most as u64), "nothing was held beyond what there is");
        drop(beyond);
        for (size, answer) in sizes.iter().zip(cluster.coordinator.batch(gets()).await) {
            assert_eq!(found(got(answer)).len(), size << 10);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_wrong_clock_stamped_is_not_read_and_gives_way() {
    const HOUR_MS: i64 = 3_600_000;
    let cluster = Cluster::new(3);
    let at = position("k");
    cluster.seed(1, value(&at, HOUR_MS, "ahead of its time")).await;
    for node in [2, 3] {
        cluster.seed(node, value(&at, -10, "now")).await;
    }
    assert_eq!(found(cluster.read(get("k")).await), "now");
    assert_eq!(cluster.held(1, &at).await.unwrap().version, version(-10), "it is repaired");
    cluster.seed(1, value(&at, HOUR_MS, "ahead of its time")).await;
    cluster.write(put("k", "next")).await;
    cluster.world.wall.pass(2 * HOUR_MS as u64);
    for count in 1..=3 {
        assert_eq!(found(cluster.read(get_request("k", Some(count), None)).await), "next");
    }
    // What several clocks that were a little off took in is read.
    let near = position("near");
    for node in [1, 2] {
        cluster.seed(node, value(&near, 2 * HOUR_MS + 2_000, "soon")).await;
    }
    assert_eq!(found(cluster.read(get("near")).await), "soon");
}

/// Twenty keys that three nodes hold alike. At some of them one of two replicas is to have no voice: as each is at one
/// alone, no third one has answers for all.
async fn alike_at_three() -> (Cluster, Vec<String>) {
    let cluster = Cluster::new(3);
    let keys: Vec<String> = (0..20).map(|at| format!("k{at}")).collect();
    for key in &keys {
        for node in 1..=3 {
            cluster.seed(node, value(&position(key), -10, "same")).await;
        }
    }
    (cluster, keys)
}

/// All keys are answered while somebody is left for those at which one of nodes 1 and 2 is `mute`, and all the others
/// when nobody is.
async fn fail_no_read_beside_them(cluster: &Cluster, keys: &[String], mute: [&str; 2]) {
    let gets = || keys.iter().map(|key| get(key)).collect::<Vec<_>>();
    for answer in cluster.coordinator.batch(gets()).await {
        assert_eq!(found(got(answer)), "same");
    }
    // Known to be gone or not.
    for does in [Does::Unreachable, Does::Hang] {
        cluster.does(3, does);
        for (key, answer) in keys.iter().zip(cluster.coordinator.batch(gets()).await) {
            if mute.contains(&&key[..]) {
                let (reason, message) = failed(got(answer));
                assert_eq!(reason, Reason::Storage, "{message}");
                assert!(message.starts_with("1 of 2 replicas needed"), "{message}");
            } else {
                assert_eq!(found(got(answer)), "same", "{key}");
            }
        }
    }
}

/// DAMAGE-APART
#[tokio::test(start_paused = true)]
async fn a_damaged_record_fails_no_read_beside_it_and_counts_for_none_of_its_own() {
    let (cluster, keys) = alike_at_three().await;
    for (node, key) in [(1, "k0"), (2, "k7")] {
        cluster.node(node).disk.corrupt(crate::engine::Table::Data, position(key).into_bytes());
    }
    fail_no_read_beside_them(&cluster, &keys, ["k0", "k7"]).await;
}

/// LAPSED-IS-NO-VOTE, of the position that is lapsed alone.
#[tokio::test(start_paused = true)]
async fn a_lapsed_position_fails_no_read_beside_it_and_counts_for_none_of_its_own() {
    let (cluster, keys) = alike_at_three().await;
    for (node, key) in [(1, "k0"), (2, "k7")] {
        cluster.node(node).replica.lapse().add(&[position(key)]).await.unwrap();
    }
    fail_no_read_beside_them(&cluster, &keys, ["k0", "k7"]).await;
}

/// What lies between two arcs of the same replicas may be on others.
#[test]
fn who_is_to_compare_itself_is_asked_arc_by_arc() {
    let mut document = document(5, 5);
    document.arcs[2].replicas = vec![3, 4, 5];
    document.arcs[3].replicas = vec![3, 1, 2];
    let ring = ring(document);
    let at = [ordered("k0"), ordered("k1"), ordered("k7")];
    let scope = QuorumScope::new(&ring, ring.arc_at(&at[0]).unwrap(), Need::All, Instant::now());
    let held = at.iter().map(|at| Ok(Some(Told::Whole(value(at, -10, "v").record)))).collect();
    let said = vec![(0, held), (1, vec![Ok(None); 3])];
    let mut polls = Poll::all(&said, &scope.replicas);
    let asked: Vec<_> = at.iter().map(|at| (at.clone(), Version::ZERO)).collect();
    let repair = Repair::plan(&scope, &asked, &said, &mut polls).unwrap();
    let only = |from: &Position, to: &Position| PositionRange { start: from.clone(), end: to.next() };
    assert_eq!(repair.holders(&[0, 1, 2]), [(0, only(&at[0], &at[1])), (0, only(&at[2], &at[2]))]);
}
