//! Reads of values that are large: SIZES-FIRST.

use super::world::{
    Cluster, Does, Manner, ORDERED, document, get, get_request, got, ordered, position, ring, value, version,
};
use crate::{
    budget::{Budget, Paid},
    quorum::{AnswerSink, HintSettings},
};
use futures::future::join_all;
use god_proto::{
    MAX_VALUE,
    peer::Cause,
    position::PositionRange,
    v1::{Answer, Reason, ScanReply, ScanRequest, get_reply::Outcome},
};
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// Keeps answers, and what is paid for them.
#[derive(Default)]
struct Kept {
    answers: Vec<(usize, Answer)>,
    paid: Vec<Paid>,
}

impl AnswerSink for Kept {
    fn take(&mut self, answers: Vec<(usize, Answer)>, paid: Paid) {
        self.answers.extend(answers);
        self.paid.push(paid);
    }
}

/// Nodes 2, 3 and 4 hold what the first one coordinates.
fn elsewhere(budget: &Budget) -> Cluster {
    let mut document = document(4, 5);
    document.arcs[0].replicas = vec![2, 3, 4];
    Cluster::paid_from(budget, &ring(document), HintSettings::default())
}

async fn alike(cluster: &Cluster, nodes: &[u32], key: &str, bytes: usize) {
    for node in nodes {
        cluster.seed(*node, value(&position(key), -10, &"v".repeat(bytes))).await;
    }
}

fn bytes(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Found(found) => found.value.len(),
        other => panic!("not found: {other:?}"),
    }
}

fn failed(outcome: Outcome) -> (Reason, String) {
    match outcome {
        Outcome::Failed(rejected) => (rejected.reason(), rejected.message),
        other => panic!("not failed: {other:?}"),
    }
}

/// Of values that were answered by others, in whole values of the largest size.
fn carried(cluster: &Cluster) -> f64 {
    cluster.world.carried.load(Relaxed) as f64 / MAX_VALUE as f64
}

#[tokio::test(start_paused = true)]
async fn a_large_value_crosses_the_network_once_and_not_at_all_where_the_node_has_it() {
    let cluster = Cluster::new(3);
    alike(&cluster, &[1, 2, 3], "k", MAX_VALUE).await;
    assert_eq!(bytes(cluster.read(get_request("k", Some(3), None)).await), MAX_VALUE);
    assert!(carried(&cluster) < 0.001, "{}", carried(&cluster));
    assert_eq!((cluster.sent("read"), cluster.sent("write")), (3, 0));

    let cluster = elsewhere(&Budget::default());
    alike(&cluster, &[2, 3, 4], "k", MAX_VALUE).await;
    assert_eq!(bytes(cluster.read(get_request("k", Some(3), None)).await), MAX_VALUE);
    assert!((1.0..1.001).contains(&carried(&cluster)), "{}", carried(&cluster));
    assert_eq!((cluster.sent("read"), cluster.sent("write")), (4, 0));

    // This node's is older: it gets the newer one, and writes it down.
    let cluster = Cluster::new(3);
    cluster.seed(1, value(&position("k"), -20, &"o".repeat(MAX_VALUE))).await;
    alike(&cluster, &[2, 3], "k", 100 << 10).await;
    assert_eq!(bytes(cluster.read(get("k")).await), 100 << 10);
    assert_eq!(cluster.held(1, &position("k")).await.unwrap().version, version(-10));
    assert!(carried(&cluster) < 0.02, "{}", carried(&cluster));
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_not_large_is_told_at_once() {
    let cluster = elsewhere(&Budget::default());
    alike(&cluster, &[2, 3, 4], "k", 64 << 10).await;
    assert_eq!(bytes(cluster.read(get("k")).await), 64 << 10);
    assert_eq!(cluster.sent("read"), 2);
}

/// BUDGET: others send no more than this node can hold.
#[tokio::test(start_paused = true)]
async fn many_reads_of_large_values_bring_no_more_than_there_is_memory_for() {
    let budget = Budget::new(32 << 20);
    let cluster = elsewhere(&budget);
    alike(&cluster, &[2, 3, 4], "k", MAX_VALUE).await;
    (2..=4).for_each(|node| cluster.slow(node, 50));
    let reads = join_all((0..64).map(|_| cluster.read(get("k")))).await;
    let (found, refused): (Vec<_>, Vec<_>) =
        reads.into_iter().partition(|read| matches!(read, Outcome::Found(_)));
    // One at a time may go beyond what there is.
    assert!((1..=5).contains(&found.len()), "{} of 64 were answered", found.len());
    assert!(carried(&cluster) < 5.1, "{}", carried(&cluster));
    assert_eq!(
        cluster.world.wholes.load(Relaxed),
        found.len(),
        "as many were asked for as there is memory for"
    );
    for read in refused {
        assert_eq!(failed(read).0, Reason::Busy);
    }
    assert!(budget.most() <= (32 << 20) + MAX_VALUE as u64 + (1 << 20), "{}", budget.most());
    assert_eq!(budget.used(), 0);
}

/// BUDGET: one alone gets on, however little there is, whether the node holds an older one or none.
#[tokio::test(start_paused = true)]
async fn a_lone_read_of_a_large_value_is_answered_however_little_memory_there_is() {
    let budget = Budget::new(1 << 20);
    let cluster = elsewhere(&budget);
    alike(&cluster, &[2, 3, 4], "k", MAX_VALUE).await;
    for _ in 0..3 {
        assert_eq!(bytes(cluster.read(get("k")).await), MAX_VALUE);
        assert_eq!(budget.used(), 0);
    }
    let budget = Budget::new(1 << 20);
    let cluster = Cluster::paid_from(&budget, &ring(document(3, 5)), HintSettings::default());
    cluster.seed(1, value(&position("k"), -20, &"o".repeat(MAX_VALUE))).await;
    alike(&cluster, &[2, 3], "k", MAX_VALUE - 1).await;
    for _ in 0..2 {
        assert_eq!(bytes(cluster.read(get("k")).await), MAX_VALUE - 1);
        assert_eq!(budget.used(), 0);
    }
}

/// BUDGET: what was got stays paid for where something beside it was not.
#[tokio::test(start_paused = true)]
async fn a_value_that_nobody_tells_takes_no_payment_from_those_that_are_told() {
    for alone in ["a", "z"] {
        let budget = Budget::default();
        let cluster = elsewhere(&budget);
        alike(&cluster, &[2, 3, 4], "k", 300 << 10).await;
        cluster.seed(4, value(&position(alone), -10, &"v".repeat(900 << 10))).await;
        cluster.slow(2, 5);
        *cluster.node(4).manner.lock() =
            Manner { does: Does::Refuse(Cause::Busy), whole_only: true, ..Manner::default() };
        let mut sink = Kept::default();
        cluster
            .coordinator
            .batch_to(["k", alone].map(|key| get_request(key, Some(3), None)).to_vec(), &mut sink)
            .await;
        let mut answers = sink.answers;
        answers.sort_by_key(|(slot, _)| *slot);
        let [(_, told), (_, refused)] = answers.try_into().unwrap();
        assert_eq!(bytes(got(told)), 300 << 10);
        assert_eq!(failed(got(refused)).0, Reason::Busy);
        let paid: usize = sink.paid.iter().map(Paid::bytes).sum();
        assert_eq!((paid, budget.used()), (300 << 10, 300 << 10));
    }
}

#[tokio::test(start_paused = true)]
async fn what_there_is_no_memory_for_fails_no_other_of_its_message() {
    let budget = Budget::new(1 << 20);
    let cluster = elsewhere(&budget);
    alike(&cluster, &[2, 3, 4], "large", 900 << 10).await;
    alike(&cluster, &[2, 3, 4], "less", 200 << 10).await;
    alike(&cluster, &[2, 3, 4], "small", 10).await;
    // Another one goes beyond what there is, and most of it is free again.
    let mut other = budget.new_charge();
    assert!(other.insist(2 << 20));
    other.shrink((2 << 20) - (300 << 10));
    let answers = cluster.coordinator.batch(["large", "less", "small"].map(get).to_vec()).await;
    let [large, less, small] = answers.try_into().unwrap();
    assert_eq!(failed(got(large)).0, Reason::Busy);
    assert_eq!((bytes(got(less)), bytes(got(small))), (200 << 10, 10));
    drop(other);
    assert_eq!(budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_large_values_comes_in_several_messages_up_to_a_bound() {
    let budget = Budget::default();
    let cluster = elsewhere(&budget);
    let keys = ["a", "b", "c", "d", "e", "f"];
    for key in keys {
        alike(&cluster, &[2, 3, 4], key, 7 << 20).await;
    }
    let answers = cluster.coordinator.batch(keys.map(get).to_vec()).await;
    let mut answers = answers.into_iter().map(got);
    for _ in 0..5 {
        assert_eq!(bytes(answers.next().unwrap()), 7 << 20);
    }
    assert_eq!(failed(answers.next().unwrap()).0, Reason::Busy);
    assert!(carried(&cluster) < 5.0 * 7.0 / 8.0 + 0.01, "{}", carried(&cluster));
    assert!(budget.most() < 36 << 20, "{} paid for what comes later", budget.most());
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_tells_nothing_more_is_replaced_and_where_none_does_only_that_is_refused() {
    for does in [Does::Hang, Does::Unreachable, Does::Refuse(Cause::Busy)] {
        let cluster = elsewhere(&Budget::default());
        for key in ["k", "l"] {
            alike(&cluster, &[2, 3, 4], key, 100 << 10).await;
        }
        alike(&cluster, &[2, 3, 4], "small", 10).await;
        let manner = Manner { does, whole_only: true, ..Manner::default() };
        *cluster.node(2).manner.lock() = manner.clone();
        let start = Instant::now();
        assert_eq!(bytes(cluster.read(get("k")).await), 100 << 10);
        assert!(start.elapsed() < Duration::from_millis(40), "{:?}", start.elapsed());
        for node in 3..=4 {
            *cluster.node(node).manner.lock() = manner.clone();
        }
        let start = Instant::now();
        let answers = cluster.coordinator.batch(["k", "small", "l"].map(get).to_vec()).await;
        assert!(start.elapsed() <= Duration::from_millis(300), "{:?}", start.elapsed());
        let [first, small, last] = answers.try_into().unwrap();
        assert_eq!(bytes(got(small)), 10);
        for refused in [first, last] {
            let (reason, message) = failed(got(refused));
            assert!(
                matches!(reason, Reason::Deadline | Reason::Busy | Reason::Unavailable),
                "{reason:?}: {message}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_tells_less_than_before_is_replaced() {
    let cluster = elsewhere(&Budget::default());
    alike(&cluster, &[2, 3, 4], "k", 100 << 10).await;
    *cluster.node(2).manner.lock() =
        Manner { delay: Duration::from_millis(15), whole_only: true, ..Manner::default() };
    let forgets = async {
        sleep(Duration::from_millis(5)).await;
        let only = PositionRange::of_position(&position("k"));
        assert!(cluster.node(2).store.drop_part(only, &Arc::default()).await.unwrap());
    };
    let (read, ()) = tokio::join!(cluster.read(get("k")), forgets);
    assert_eq!(bytes(read), 100 << 10);
}

/// READ-REPAIRED: what is torn beside it is mended in time.
#[tokio::test(start_paused = true)]
async fn a_holder_that_hangs_leaves_time_for_what_is_beside_it() {
    let cluster = elsewhere(&Budget::default());
    cluster.seed(2, value(&position("large"), -10, &"v".repeat(100 << 10))).await;
    cluster.seed(2, value(&position("torn"), -10, "newest")).await;
    cluster.slow(4, 5);
    *cluster.node(2).manner.lock() = Manner { does: Does::Hang, whole_only: true, ..Manner::default() };
    let start = Instant::now();
    let answers = cluster.coordinator.batch(["large", "torn"].map(get).to_vec()).await;
    assert!(start.elapsed() <= Duration::from_millis(200), "{:?}", start.elapsed());
    let [large, torn] = answers.try_into().unwrap();
    assert_eq!(failed(got(large)).0, Reason::Deadline);
    assert_eq!(bytes(got(torn)), "newest".len());
    assert_eq!(cluster.held(3, &position("torn")).await.unwrap().version, version(-10));
}

/// READ-REPAIRED: what is newer by the time that a value is told is what is read.
#[tokio::test(start_paused = true)]
async fn a_value_that_a_newer_one_replaces_meanwhile_is_read_as_that_on_a_quorum() {
    let cluster = elsewhere(&Budget::default());
    alike(&cluster, &[2, 3, 4], "k", 100 << 10).await;
    for node in 2..=4 {
        *cluster.node(node).manner.lock() =
            Manner { delay: Duration::from_millis(50), whole_only: true, ..Manner::default() };
    }
    let newer = async {
        sleep(Duration::from_millis(25)).await;
        cluster.seed(2, value(&position("k"), 10, &"n".repeat(200 << 10))).await;
    };
    let (read, ()) = tokio::join!(cluster.read(get("k")), newer);
    match read {
        Outcome::Found(found) => assert_eq!((found.value.len(), found.value[0]), (200 << 10, b'n')),
        other => panic!("not found: {other:?}"),
    }
    let mut on = 0;
    for node in 2..=4 {
        on += u32::from(cluster.held(node, &position("k")).await.unwrap().version == version(10));
    }
    assert!(on >= 2, "it was read, and is on {on}");
}

/// SIZES-FIRST: half of the time is left for another holder, however large the value is.
#[tokio::test(start_paused = true)]
async fn a_holder_of_the_largest_value_that_hangs_is_replaced_in_time() {
    for hangs in 2..=4 {
        let cluster = elsewhere(&Budget::default());
        alike(&cluster, &[2, 3, 4], "k", MAX_VALUE).await;
        *cluster.node(hangs).manner.lock() =
            Manner { does: Does::Hang, whole_only: true, ..Manner::default() };
        let start = Instant::now();
        assert_eq!(bytes(cluster.read(get("k")).await), MAX_VALUE, "node {hangs} hangs");
        assert!(start.elapsed() < Duration::from_millis(200), "{:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_that_nothing_is_beside_has_all_of_the_time() {
    let cluster = elsewhere(&Budget::default());
    alike(&cluster, &[2, 3, 4], "k", 100 << 10).await;
    for node in 2..=4 {
        *cluster.node(node).manner.lock() =
            Manner { delay: Duration::from_millis(220), whole_only: true, ..Manner::default() };
    }
    assert_eq!(bytes(cluster.read(get("k")).await), 100 << 10);
}

#[tokio::test(start_paused = true)]
async fn holders_that_hang_take_no_time_from_another_one() {
    let budget = Budget::default();
    let cluster = elsewhere(&budget);
    for (node, key) in [(2, "a"), (3, "b"), (4, "c")] {
        cluster.seed(node, value(&position(key), -10, &"v".repeat(100 << 10))).await;
        let does = if node < 4 { Does::Hang } else { Does::Answer };
        let delay = Duration::from_millis(if node < 4 { 0 } else { 100 });
        *cluster.node(node).manner.lock() = Manner { does, delay, whole_only: true, ..Manner::default() };
    }
    let all = ["a", "b", "c"].map(|key| get_request(key, Some(3), None)).to_vec();
    let mut sink = Kept::default();
    cluster.coordinator.batch_to(all, &mut sink).await;
    let mut answers = sink.answers;
    answers.sort_by_key(|(slot, _)| *slot);
    let [(_, a), (_, b), (_, c)] = answers.try_into().unwrap();
    assert_eq!(bytes(got(c)), 100 << 10);
    assert_eq!([a, b].map(|refused| failed(got(refused)).0), [Reason::Deadline; 2]);
    assert_eq!(budget.used(), 100 << 10);
}

/// BUDGET: an answer that is not kept has cost nothing.
#[tokio::test(start_paused = true)]
async fn a_holder_that_tells_less_than_before_takes_no_payment_from_the_next_one() {
    let budget = Budget::new(12 << 20);
    let cluster = elsewhere(&budget);
    for key in ["k", "l"] {
        alike(&cluster, &[2, 3, 4], key, 4 << 20).await;
    }
    // Another one goes beyond what there is, and so much is free again.
    let mut other = budget.new_charge();
    assert!(other.insist(13 << 20));
    other.shrink(11 << 20);
    *cluster.node(2).manner.lock() =
        Manner { delay: Duration::from_millis(15), whole_only: true, ..Manner::default() };
    let forgets = async {
        sleep(Duration::from_millis(5)).await;
        let only = PositionRange::of_position(&position("l"));
        assert!(cluster.node(2).store.drop_part(only, &Arc::default()).await.unwrap());
    };
    let (answers, ()) = tokio::join!(cluster.coordinator.batch(["k", "l"].map(get).to_vec()), forgets);
    for answer in answers {
        assert_eq!(bytes(got(answer)), 4 << 20);
    }
    drop(other);
    assert_eq!(budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_page_brings_each_large_value_once_and_not_at_all_where_the_node_has_it() {
    let scan = || ScanRequest { keyspace: "default".to_owned(), ..ScanRequest::default() };
    let sizes = [("a", 300 << 10), ("b", 10), ("c", 200 << 10)];
    let all = |page: ScanReply| {
        assert!(page.failed.is_none(), "{page:?}");
        let mut found: Vec<(String, usize)> = page
            .entries
            .into_iter()
            .map(|entry| (String::from_utf8(entry.key.to_vec()).unwrap(), entry.value.len()))
            .collect();
        found.sort();
        found
    };
    let told = sizes.map(|(key, bytes)| (key.to_owned(), bytes));
    for (cluster, nodes, most) in
        [(Cluster::new(3), [1, 2, 3], 0.01), (elsewhere(&Budget::default()), [2, 3, 4], 0.07)]
    {
        for (key, bytes) in sizes {
            alike(&cluster, &nodes, key, bytes).await;
        }
        assert_eq!(all(cluster.coordinator.scan(scan()).await), told);
        assert!(carried(&cluster) < most, "{}", carried(&cluster));
    }
    // Where it is on one of them only, it is on a quorum by the time that it is told.
    let cluster = elsewhere(&Budget::default());
    for node in [2, 3] {
        *cluster.node(node).manner.lock() = Manner { delay: Duration::from_millis(1), ..Manner::default() };
    }
    cluster.slow(4, 30);
    cluster.seed(3, value(&position("a"), -10, &"v".repeat(300 << 10))).await;
    assert_eq!(all(cluster.coordinator.scan(scan()).await), told[..1]);
    assert!(cluster.held(2, &position("a")).await.is_some());
}

/// BUDGET: what is beside the first entry of a page takes no memory that this one needs.
#[tokio::test(start_paused = true)]
async fn a_page_begins_with_a_large_value_where_there_is_memory_for_that_one_only() {
    let budget = Budget::new(4 << 20);
    let mut document = document(4, 5);
    document.arcs[1].replicas = vec![2, 3, 4];
    let cluster = Cluster::paid_from(&budget, &ring(document), HintSettings::default());
    for (key, bytes) in [("a", 600 << 10), ("b", 200 << 10), ("c", 150 << 10)] {
        for node in 2..=4 {
            cluster.seed(node, value(&ordered(key), -10, &"v".repeat(bytes))).await;
        }
    }
    // Another one goes beyond what there is, and 700 KiB of what clients may take are free again.
    let mut other = budget.new_charge();
    assert!(other.insist(5 << 20));
    other.shrink((1 << 20) + (512 << 10) + (700 << 10));
    let scan = ScanRequest { keyspace: ORDERED.to_owned(), ..ScanRequest::default() };
    let page = cluster.coordinator.scan(scan).await;
    let found: Vec<usize> = page.entries.iter().map(|entry| entry.value.len()).collect();
    assert_eq!((found, page.failed), (vec![600 << 10], None));
    assert!(!page.continuation.is_empty());
    drop(other);
    assert_eq!(budget.used(), 0);
}

/// The other group is not waited for.
#[tokio::test(start_paused = true)]
async fn a_read_goes_on_under_a_newer_ring_without_waiting_for_a_holder_that_hangs() {
    let cluster = elsewhere(&Budget::default());
    cluster.seed(2, value(&position("a"), -10, &"v".repeat(100 << 10))).await;
    cluster.seed(4, value(&position("b"), -10, &"v".repeat(100 << 10))).await;
    *cluster.node(2).manner.lock() = Manner { does: Does::Hang, whole_only: true, ..Manner::default() };
    *cluster.node(4).manner.lock() =
        Manner { delay: Duration::from_millis(20), whole_only: true, ..Manner::default() };
    let newer = async {
        sleep(Duration::from_millis(10)).await;
        cluster.node(2).manner.lock().does = Does::Answer;
        let mut document = document(4, 6);
        document.arcs[0].replicas = vec![2, 3, 4];
        document.arcs[0].changed = 6;
        let newer = ring(document);
        for node in 1..=4 {
            cluster.node(node).ring.advance(Arc::clone(&newer));
        }
    };
    let start = Instant::now();
    let all = ["a", "b"].map(|key| get_request(key, Some(3), None)).to_vec();
    let (answers, ()) = tokio::join!(cluster.coordinator.batch(all), newer);
    assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
    for answer in answers {
        assert_eq!(bytes(got(answer)), 100 << 10);
    }
}
