//! Scans, counts, ranks and selection over three arcs.

use super::world::{
    Cluster, Does, ORDERED, document, get_request, got, ordered, position, ring, tombstone, value,
};
use crate::{budget::Budget, quorum::HintSettings};
use bytes::Bytes;
use futures::future::join_all;
use god_proto::{
    MAX_KEY,
    record::Entry,
    v1::{
        Consistency, CountRequest, KeyRange, RankRequest, Reason, ScanRequest, SelectRequest, consistency,
        get_reply::Outcome, key_range,
    },
};
use std::{collections::BTreeSet, time::Duration};

fn key(at: u32) -> String {
    format!("k{at:04}")
}

/// Keys 0 to `count`, in arcs of their own where the second digit says so. Every fifth key is newer on one replica,
/// every seventh deleted on another, every eleventh missing on the third: by quorum, `alive` of them are there.
async fn torn(count: u32) -> (Cluster, BTreeSet<String>) {
    let cluster = Cluster::new(3);
    let mut alive = BTreeSet::new();
    for at in 0..count {
        let key = format!("k{}{:03}", at % 10, at / 10);
        let position = ordered(&key);
        for node in 1..=3 {
            if !(at % 11 == 0 && node == 3) {
                cluster.seed(node, value(&position, -1_000, "old")).await;
            }
        }
        // A quorum holds what was acknowledged; the third may lag.
        let newer: Option<Entry> = if at % 7 == 0 {
            Some(tombstone(&position, -500))
        } else if at % 5 == 0 {
            Some(value(&position, -500, "new"))
        } else {
            None
        };
        if let Some(newer) = newer {
            for node in 1..=3 {
                if node != at % 3 + 1 {
                    cluster.seed(node, newer.clone()).await;
                }
            }
        }
        if at % 7 != 0 {
            alive.insert(key);
        }
    }
    (cluster, alive)
}

fn scan(limit: u32, reverse: bool) -> ScanRequest {
    ScanRequest { keyspace: ORDERED.to_owned(), limit, reverse, ..ScanRequest::default() }
}

async fn pages(cluster: &Cluster, mut request: ScanRequest) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for _ in 0..1_000 {
        let reply = cluster.coordinator.scan(request.clone()).await;
        assert_eq!(reply.failed, None);
        assert!(reply.entries.len() <= request.limit as usize);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        out.extend(reply.entries.iter().map(|entry| (text(&entry.key), text(&entry.value))));
        if reply.continuation.is_empty() {
            return out;
        }
        request.continuation = reply.continuation;
    }
    panic!("the scan does not end");
}

#[tokio::test(start_paused = true)]
async fn pages_hold_each_live_key_once_and_in_order_both_ways() {
    let (cluster, alive) = torn(300).await;
    for limit in [1, 7, 100, 10_000] {
        let found: Vec<String> =
            pages(&cluster, scan(limit, false)).await.into_iter().map(|(key, _)| key).collect();
        assert!(found.iter().eq(alive.iter()), "limit {limit}");
        let back: Vec<String> =
            pages(&cluster, scan(limit, true)).await.into_iter().map(|(key, _)| key).collect();
        assert!(back.iter().eq(alive.iter().rev()), "limit {limit}, reverse");
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_holds_the_newest_values_and_repairs_the_replicas_it_found_behind() {
    let (cluster, _) = torn(60).await;
    let found = pages(&cluster, scan(100, false)).await;
    for (key, value) in &found {
        let at: u32 = key[2..].parse::<u32>().unwrap() * 10 + key[1..2].parse::<u32>().unwrap();
        assert_eq!(value, if at.is_multiple_of(5) { "new" } else { "old" }, "{key}");
    }
    let mut behind = 0;
    for (key, _) in &found {
        let versions = [cluster.held(1, &ordered(key)).await, cluster.held(2, &ordered(key)).await];
        behind += usize::from(versions[0] != versions[1]);
    }
    assert_eq!(behind, 0, "nodes 1 and 2 were asked");
}

#[tokio::test(start_paused = true)]
async fn bounds_and_prefixes_hold_and_values_may_be_left_out() {
    let (cluster, alive) = torn(200).await;
    let range = KeyRange {
        lower: Some(key_range::Lower::After(b"k1003".to_vec().into())),
        upper: Some(key_range::Upper::Through(b"k6002".to_vec().into())),
        prefix: None,
    };
    let request = ScanRequest { range: Some(range.clone()), keys_only: true, ..scan(13, false) };
    let found = pages(&cluster, request).await;
    let expected: Vec<&String> =
        alive.iter().filter(|key| key.as_str() > "k1003" && key.as_str() <= "k6002").collect();
    assert!(found.iter().map(|(key, _)| key).eq(expected.iter().copied()));
    assert!(found.iter().all(|(_, value)| value.is_empty()));
    let request =
        CountRequest { keyspace: ORDERED.to_owned(), range: Some(range), ..CountRequest::default() };
    assert_eq!(cluster.coordinator.count(request).await.count, expected.len() as u64);
    let prefix = KeyRange { prefix: Some(b"k3".to_vec().into()), ..KeyRange::default() };
    let found = pages(&cluster, ScanRequest { range: Some(prefix), ..scan(5, true) }).await;
    assert_eq!(found.len(), alive.iter().filter(|key| key.starts_with("k3")).count());
}

#[tokio::test(start_paused = true)]
async fn a_continuation_that_no_page_gave_is_refused() {
    let cluster = Cluster::new(3);
    for continuation in [&b"\x02abc"[..], b"\x01\0\0\0\x01abc", b"\x01", b"x"] {
        let request = ScanRequest { continuation: continuation.to_vec().into(), ..scan(10, false) };
        let failed = cluster.coordinator.scan(request).await.failed.unwrap();
        assert_eq!(failed.reason(), Reason::Invalid, "{continuation:?}");
    }
    let failed = cluster.coordinator.scan(scan(10_001, false)).await.failed.unwrap();
    assert!(failed.message.contains("10001"), "{}", failed.message);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_on_a_page_begins_the_next_one() {
    let cluster = Cluster::new(3);
    let large = "v".repeat(god_proto::MAX_VALUE);
    let page = "v".repeat(4 << 20);
    for (at, text) in [(1, "small"), (2, &page[..page.len() - 100]), (3, &large), (4, &large), (5, "small")] {
        for node in 1..=3 {
            cluster.seed(node, value(&ordered(&key(at)), -1_000, text)).await;
        }
    }
    for reverse in [false, true] {
        let mut request = scan(100, reverse);
        let mut found: Vec<String> = Vec::new();
        while found.len() < 5 {
            let reply = cluster.coordinator.scan(request.clone()).await;
            assert_eq!(reply.failed, None);
            let bytes: usize = reply.entries.iter().map(|entry| entry.value.len()).sum();
            assert!(bytes <= god_proto::MAX_VALUE.max(4 << 20), "a page of {bytes} bytes");
            found.extend(reply.entries.iter().map(|entry| String::from_utf8(entry.key.to_vec()).unwrap()));
            request.continuation = reply.continuation;
        }
        let mut expected: Vec<String> = (1..=5).map(key).collect();
        if reverse {
            expected.reverse();
        }
        assert_eq!(found, expected);
    }
}

/// BUDGET: what replicas answered is paid for while others are waited for, and what was found while more is.
#[tokio::test(start_paused = true)]
async fn what_many_scans_hold_of_replicas_is_bounded_and_some_of_them_go_through() {
    let budget = Budget::new(32 << 20);
    let cluster = Cluster::paid_from(&budget, &ring(document(3, 5)), HintSettings::default());
    let part = "v".repeat(1 << 20);
    for (at, node) in (0..8).flat_map(|at| (1..=3).map(move |node| (at, node))) {
        cluster.seed(node, value(&ordered(&key(at)), -1_000, &part)).await;
    }
    cluster.slow(2, 50);
    cluster.slow(3, 50);
    let replies = join_all((0..64).map(|_| cluster.coordinator.scan(scan(100, false)))).await;
    let (found, refused): (Vec<_>, Vec<_>) = replies.into_iter().partition(|reply| reply.failed.is_none());
    assert!(!found.is_empty() && !refused.is_empty(), "{} of 64 scans were answered", found.len());
    for reply in refused {
        assert_eq!(reply.failed.unwrap().reason(), Reason::Busy);
    }
    // One at a time may go beyond it: with the pages of one scan.
    let most = budget.most() >> 20;
    assert!(most <= 32 + 3 * 5, "{most} MiB were taken");
    assert_eq!(budget.used(), 0);
}

/// BUDGET: of a page so much is told as there is memory for.
#[tokio::test(start_paused = true)]
async fn a_page_that_there_is_no_memory_for_is_a_shorter_one() {
    for reverse in [false, true] {
        let budget = Budget::new(1 << 20);
        let cluster = Cluster::paid_from(&budget, &ring(document(3, 5)), HintSettings::default());
        let part = "v".repeat(50 << 10);
        for (at, node) in (0..24).flat_map(|at| (1..=3).map(move |node| (at, node))) {
            cluster.seed(node, value(&ordered(&key(at)), -1_000, &part)).await;
        }
        cluster.slow(2, 50);
        cluster.does(3, Does::Hang);
        // Somebody else may go beyond what there is.
        let mut beyond = budget.new_charge();
        let most = (1 << 20) + 1;
        assert!(beyond.insist(most));
        beyond.shrink(most);
        let request = ScanRequest { timeout_ms: 300, ..scan(100, reverse) };
        let reply = cluster.coordinator.scan(request.clone()).await;
        assert_eq!(reply.failed, None);
        assert!((1..24).contains(&reply.entries.len()) && !reply.continuation.is_empty());
        drop(reply);
        assert_eq!((budget.used(), budget.most()), (0, most as u64), "nothing was held beyond what there is");
        let mut all: Vec<String> = pages(&cluster, request).await.into_iter().map(|(key, _)| key).collect();
        if reverse {
            all.reverse();
        }
        assert_eq!(all, (0..24).map(key).collect::<Vec<_>>());
    }
}

/// BUDGET: what one that went beyond what there is needs of its own node's replica, it gets.
#[tokio::test(start_paused = true)]
async fn one_that_holds_more_than_there_is_is_not_refused_by_its_own_replica() {
    let budget = Budget::new(1 << 20);
    let cluster = Cluster::paid_from(&budget, &ring(document(2, 5)), HintSettings::default());
    let part = "v".repeat(700 << 10);
    for (at, node) in (0..4).flat_map(|at| (1..=2).map(move |node| (at, node))) {
        cluster.seed(node, value(&position(&key(at)), -1_000, &part)).await;
        cluster.seed(node, value(&ordered(&key(at)), -1_000, &part)).await;
    }
    // So that the other one's answer is there, and takes all the memory, when this one's replica reads.
    cluster.slow(1, 50);
    let mut left: Vec<String> = (0..4).map(key).collect();
    while !left.is_empty() {
        let gets = left.iter().map(|key| get_request(key, Some(2), None)).collect();
        let answers = cluster.coordinator.batch(gets).await;
        let got: Vec<bool> = answers
            .into_iter()
            .map(|answer| match got(answer) {
                Outcome::Found(found) => found.value.len() == part.len(),
                Outcome::Failed(rejected) if rejected.reason() == Reason::Busy => false,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(got.contains(&true), "alone, and none of {left:?} was read");
        let mut got = got.into_iter();
        left.retain(|_| got.next() == Some(false));
    }
    let reply = cluster.coordinator.scan(scan(100, false)).await;
    assert!(reply.failed.is_none() && !reply.entries.is_empty(), "{:?}", reply.failed);
    drop(reply);
    assert_eq!(budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_scan_fails_by_its_deadline_when_too_few_answer() {
    let cluster = Cluster::new(3);
    cluster.does(2, Does::Hang);
    cluster.does(3, Does::Hang);
    let request = ScanRequest { timeout_ms: 100, ..scan(10, false) };
    assert_eq!(cluster.coordinator.scan(request).await.failed.unwrap().reason(), Reason::Deadline);
}

#[tokio::test(start_paused = true)]
async fn counts_are_exact_though_replicas_differ() {
    let (cluster, alive) = torn(2_000).await;
    let request = CountRequest { keyspace: ORDERED.to_owned(), ..CountRequest::default() };
    let reply = cluster.coordinator.count(request.clone()).await;
    assert_eq!((reply.failed, reply.count), (None, alive.len() as u64));
    assert!(cluster.sent("split") > 0, "it descended");
    let splits = cluster.sent("split");
    let reply = cluster.coordinator.count(request).await;
    assert_eq!((reply.failed, reply.count), (None, alive.len() as u64));
    assert_eq!(cluster.sent("split"), splits, "the differences were repaired on the way");
}

#[tokio::test(start_paused = true)]
async fn a_count_of_replicas_that_are_alike_takes_one_question_an_arc() {
    let cluster = Cluster::new(3);
    for at in 0..500 {
        for node in 1..=3 {
            cluster.seed(node, value(&ordered(&key(at)), -10, "v")).await;
        }
    }
    let request = CountRequest { keyspace: ORDERED.to_owned(), ..CountRequest::default() };
    assert_eq!(cluster.coordinator.count(request).await.count, 500);
    assert_eq!((cluster.sent("summarize"), cluster.sent("scan")), (6, 0), "two replicas of three arcs");
}

#[tokio::test(start_paused = true)]
async fn rank_and_selection_are_each_others_inverse() {
    let (cluster, alive) = torn(1_000).await;
    let select = |rank| SelectRequest { keyspace: ORDERED.to_owned(), rank, ..SelectRequest::default() };
    for (rank, key) in alive.iter().enumerate().step_by(97) {
        let reply = cluster.coordinator.select(select(rank as u64)).await;
        assert_eq!(reply.failed, None);
        assert_eq!(&reply.entry.unwrap().key[..], key.as_bytes());
        let request = RankRequest {
            keyspace: ORDERED.to_owned(),
            key: key.as_bytes().to_vec().into(),
            ..RankRequest::default()
        };
        let reply = cluster.coordinator.rank(request).await;
        assert_eq!((reply.failed, reply.rank, reply.exists), (None, rank as u64, true));
    }
    let reply = cluster.coordinator.select(select(alive.len() as u64)).await;
    assert_eq!((reply.failed, reply.entry), (None, None));
    let request =
        RankRequest { keyspace: ORDERED.to_owned(), key: b"zzz".to_vec().into(), ..RankRequest::default() };
    let reply = cluster.coordinator.rank(request).await;
    assert_eq!((reply.rank, reply.exists), (alive.len() as u64, false));
}

/// Keys of one arc that two replicas hold alike, but for one in 60 that the second lacks: they differ in each range
/// that is worth a cut, several thousand of them.
async fn torn_everywhere() -> (Cluster, u64) {
    let cluster = Cluster::new(3);
    let entry = |at: u32| value(&ordered(&format!("k7{at:07}")), -1_000, "v");
    const KEYS: u32 = 150_000;
    for from in (0..KEYS).step_by(10_000) {
        let all: Vec<Entry> = (from..from + 10_000).map(entry).collect();
        let some: Vec<Entry> = (from..from + 10_000).filter(|at| at % 60 != 0).map(entry).collect();
        cluster.node(1).store.write(all).await.unwrap();
        cluster.node(2).store.write(some).await.unwrap();
    }
    cluster.does(3, Does::Unreachable);
    (cluster, KEYS.into())
}

#[tokio::test(start_paused = true)]
async fn replicas_that_differ_in_very_many_places_are_counted() {
    let (cluster, keys) = torn_everywhere().await;
    let request =
        CountRequest { keyspace: ORDERED.to_owned(), timeout_ms: 30_000, ..CountRequest::default() };
    let reply = cluster.coordinator.count(request).await;
    assert_eq!((reply.failed, reply.count), (None, keys));
    let request = SelectRequest { keyspace: ORDERED.to_owned(), rank: 77_777, ..SelectRequest::default() };
    let reply = cluster.coordinator.select(request).await;
    assert_eq!(reply.entry.unwrap().key, "k70077777");
}

#[tokio::test(start_paused = true)]
async fn a_count_that_runs_out_of_time_leaves_less_for_the_next() {
    let (cluster, keys) = torn_everywhere().await;
    cluster.slow(2, 5);
    let request = CountRequest { keyspace: ORDERED.to_owned(), ..CountRequest::default() };
    let mut tries = 0;
    let reply = loop {
        let began = tokio::time::Instant::now();
        let reply = cluster.coordinator.count(request.clone()).await;
        assert!(began.elapsed() <= Duration::from_millis(2_001), "it ends by its deadline");
        tries += 1;
        match reply.failed.as_ref().map(|failed| failed.reason()) {
            None => break reply,
            Some(reason) => assert_eq!(reason, Reason::Deadline),
        }
        assert!(tries < 100, "it never ends");
    };
    assert!(tries > 1, "the first try does not do it");
    assert_eq!(reply.count, keys);
}

/// A try that ends long before each range was compared has repaired some: it goes down before it goes on.
#[tokio::test(start_paused = true)]
async fn a_count_without_time_to_compare_each_range_repairs_some_all_the_same() {
    let (cluster, _) = torn_everywhere().await;
    cluster.slow(2, 5);
    let held = || cluster.node(2).store.summary().entries;
    // Of the ranges that differ some 4,000 are worth a cut: far more than 26 questions of 128 each.
    let request = CountRequest { keyspace: ORDERED.to_owned(), timeout_ms: 130, ..CountRequest::default() };
    for attempt in 1..=3 {
        let before = held();
        let reply = cluster.coordinator.count(request.clone()).await;
        assert_eq!(reply.failed.unwrap().reason(), Reason::Deadline);
        assert!(held() > before, "attempt {attempt} repaired nothing");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_wrong_clock_stamped_is_not_listed() {
    const HOUR_MS: i64 = 3_600_000;
    let cluster = Cluster::new(3);
    // It cannot tell by itself what is too far ahead.
    cluster.node(1).replica.clock().watch();
    let (two, alone) = (ordered("k1"), ordered("k2"));
    for at in [&two, &alone] {
        cluster.seed(1, value(at, HOUR_MS, "ahead of its time")).await;
    }
    for node in [2, 3] {
        cluster.seed(node, value(&two, -10, "now")).await;
    }
    for reverse in [false, true] {
        let request = ScanRequest { keyspace: ORDERED.to_owned(), reverse, ..ScanRequest::default() };
        let reply = cluster.coordinator.scan(request).await;
        let found: Vec<_> = reply.entries.iter().map(|entry| (&entry.key[..], &entry.value[..])).collect();
        assert_eq!((reply.failed, found), (None, vec![(&b"k1"[..], &b"now"[..])]));
    }
}

#[tokio::test(start_paused = true)]
async fn bounds_and_levels_that_cannot_be_are_refused() {
    let cluster = Cluster::new(3);
    let keyspace = || ORDERED.to_owned();
    let long = Bytes::from(vec![0; MAX_KEY + 1]);
    let range = Some(KeyRange { upper: Some(key_range::Upper::Before(long.clone())), ..KeyRange::default() });
    let scan = ScanRequest { keyspace: keyspace(), range, ..ScanRequest::default() };
    let range = Some(KeyRange { prefix: Some(long.clone()), ..KeyRange::default() });
    let count = CountRequest { keyspace: keyspace(), range, ..CountRequest::default() };
    let rank = RankRequest { keyspace: keyspace(), key: long, ..RankRequest::default() };
    let consistency = Some(Consistency { level: Some(consistency::Level::Named(-1)) });
    let select = SelectRequest { keyspace: keyspace(), consistency, ..SelectRequest::default() };
    let failed = [
        cluster.coordinator.scan(scan).await.failed,
        cluster.coordinator.count(count).await.failed,
        cluster.coordinator.rank(rank).await.failed,
        cluster.coordinator.select(select).await.failed,
    ];
    for failed in failed {
        assert_eq!(failed.unwrap().reason(), Reason::Invalid);
    }
}
