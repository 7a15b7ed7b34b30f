//! Outcomes of writes.

use super::world::{
    Cluster, Does, NOW_MS, ORDERED, delete, document, get, got, joint, position, put, put_request, ring,
    value, version, written,
};
use crate::{
    engine::Table,
    membership::PeerState,
    quorum::{HintSettings, Hints},
    seam::Offload,
};
use god_proto::{
    MAX_KEY, MAX_VALUE,
    peer::Cause,
    v1::{
        Answer, Call, Consistency, Found, GetRequest, PutRequest, Reason, call, consistency, get_reply,
        write_reply::Outcome,
    },
    version::Version,
};
use std::{sync::atomic::Ordering, time::Duration};
use tokio::time::{Instant, sleep};

fn rejected(outcome: Outcome) -> (Reason, String) {
    match outcome {
        Outcome::Rejected(rejected) => (rejected.reason(), rejected.message),
        other => panic!("not rejected: {other:?}"),
    }
}

fn committed(outcome: &Outcome) -> Version {
    match outcome {
        Outcome::Committed(committed) => committed.version.unwrap().into(),
        other => panic!("not committed: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_is_answered_at_its_quorum_and_reaches_the_last_replica_in_the_background() {
    let cluster = Cluster::new(3);
    cluster.slow(3, 200);
    let start = Instant::now();
    let outcome = cluster.write(put("k", "v")).await;
    assert!(matches!(&outcome, Outcome::Committed(committed) if committed.acks == 2), "{outcome:?}");
    assert!(start.elapsed() < Duration::from_millis(200), "the slow one was waited for");
    assert_eq!(cluster.held(3, &position("k")).await, None);
    sleep(Duration::from_millis(300)).await;
    assert_eq!(cluster.held(3, &position("k")).await.unwrap().version, committed(&outcome));
    assert_eq!(cluster.world.hints.pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_has_not_answered_when_the_node_ends_gets_a_hint() {
    let cluster = Cluster::new(3);
    cluster.does(3, Does::Hang);
    let outcome = cluster.write(put("k", "v")).await;
    assert!(matches!(&outcome, Outcome::Committed(committed) if committed.acks == 2), "{outcome:?}");
    assert_eq!(cluster.world.hints.pending(), 0, "it may answer yet");
    let start = Instant::now();
    cluster.coordinator.close().await;
    assert_eq!(start.elapsed().as_millis(), 0, "nobody waits for it");
    assert_eq!(cluster.world.hints.pending(), 1);
    let (disk, ring) = (cluster.world.disk.open(), cluster.world.ring.clone());
    let kept = Hints::open(disk, ring, Offload::Inline, HintSettings::default()).unwrap();
    assert_eq!(kept.pending(), 1, "on the disk");
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_request_is_dropped_as_the_node_ends_leaves_hints() {
    // Replicas that hang, that cannot be reached, and that are known to be gone.
    for (second, state) in
        [(Does::Hang, PeerState::Up), (Does::Unreachable, PeerState::Up), (Does::Answer, PeerState::Down)]
    {
        let cluster = Cluster::new(3);
        cluster.does(2, second.clone());
        cluster.state(2, state);
        cluster.does(3, Does::Hang);
        let coordinator = cluster.coordinator.clone();
        let request = tokio::spawn(async move { coordinator.batch(vec![put("k", "v")]).await });
        sleep(Duration::from_millis(10)).await;
        request.abort();
        cluster.coordinator.close().await;
        let (disk, ring) = (cluster.world.disk.open(), cluster.world.ring.clone());
        let kept = Hints::open(disk, ring, Offload::Inline, HintSettings::default()).unwrap();
        assert_eq!(kept.pending(), 2, "on the disk, though the second {second:?} and is {state:?}");
        let after = cluster.write(put("k", "another")).await;
        assert!(matches!(&after, Outcome::Rejected(why) if why.message.contains("stopping")), "{after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_some_may_hold_is_unknown_by_its_deadline() {
    let cluster = Cluster::new(3);
    cluster.does(2, Does::Hang);
    cluster.does(3, Does::Hang);
    let start = Instant::now();
    let outcome = cluster.write(put("k", "v")).await;
    assert!(matches!(&outcome, Outcome::Unknown(unknown) if unknown.acks == 1), "{outcome:?}");
    assert_eq!(start.elapsed().as_millis(), 300);
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answers_are_lost_is_unknown_though_none_acknowledged() {
    let cluster = Cluster::new(3);
    for node in 1..=3 {
        cluster.does(node, Does::ActAndHang);
    }
    let outcome = cluster.write(put("k", "v")).await;
    assert!(matches!(&outcome, Outcome::Unknown(unknown) if unknown.acks == 0), "{outcome:?}");
    assert!(cluster.held(1, &position("k")).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_write_that_all_refuse_is_rejected_and_leaves_no_hint() {
    let cluster = Cluster::new(3);
    for node in 1..=3 {
        cluster.does(node, Does::Refuse(Cause::Busy));
    }
    let (reason, message) = rejected(cluster.write(put("k", "v")).await);
    assert_eq!(reason, Reason::Busy, "{message}");
    assert_eq!(cluster.world.hints.pending(), 0);
    for node in 1..=3 {
        cluster.does(node, Does::Refuse(Cause::Storage));
    }
    let outcome = cluster.write(put("k", "v")).await;
    assert!(matches!(outcome, Outcome::Unknown(_)), "failed storage leaves the outcome open: {outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn with_too_few_replicas_reachable_nothing_is_sent() {
    let cluster = Cluster::new(3);
    cluster.state(2, PeerState::Down);
    cluster.state(3, PeerState::Down);
    let (reason, message) = rejected(cluster.write(put("k", "v")).await);
    assert_eq!((reason, message.as_str()), (Reason::Unavailable, "1 of 2 replicas needed are reachable"));
    assert_eq!(cluster.sent("write"), 0);
    assert_eq!(cluster.world.hints.pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_down_or_fails_gets_a_hint_and_a_suspect_one_is_asked() {
    let cluster = Cluster::new(3);
    cluster.state(2, PeerState::Suspect);
    cluster.state(3, PeerState::Down);
    committed(&cluster.write(put("k", "v")).await);
    assert_eq!((cluster.sent("write"), cluster.world.hints.pending()), (2, 1));
    cluster.state(3, PeerState::Up);
    cluster.does(3, Does::Hang);
    committed(&cluster.write(put("l", "v")).await);
    assert_eq!(cluster.world.hints.pending(), 1);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(cluster.world.hints.pending(), 2, "the one that hung");
}

#[tokio::test(start_paused = true)]
async fn a_write_is_stamped_again_past_any_newer_one_it_meets() {
    let cluster = Cluster::new(3);
    for node in 1..=3 {
        cluster.seed(node, value(&position("k"), 300, "older")).await;
    }
    let stamped = committed(&cluster.write(put("k", "newer")).await);
    assert!(stamped > version(300));
    sleep(Duration::from_secs(1)).await;
    for node in 1..=3 {
        let held = cluster.held(node, &position("k")).await.unwrap();
        assert_eq!((held.version, &held.value[..]), (stamped, &b"newer"[..]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_meets_one_from_far_ahead_is_rejected_for_its_clock() {
    let cluster = Cluster::new(3);
    for node in 1..=3 {
        cluster.seed(node, value(&position("k"), 5_000, "ahead")).await;
    }
    let (reason, message) = rejected(cluster.write(put("k", "v")).await);
    assert_eq!(reason, Reason::Clock, "{message}");
    assert!(message.contains("5000 ms ahead"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn invalid_calls_are_refused_by_the_rule_they_break() {
    let cluster = Cluster::new(3);
    let ask = |change: fn(&mut PutRequest)| {
        let Some(call::Call::Put(mut request)) = put("k", "v").call else { unreachable!() };
        change(&mut request);
        cluster.write(put_request(request))
    };
    let count = |count| Some(Consistency { level: Some(consistency::Level::Count(count)) });
    let cases = [
        (ask(|put| put.key = Vec::new().into()).await, Reason::Invalid, "the key is empty"),
        (ask(|put| put.key = vec![1; MAX_KEY + 1].into()).await, Reason::Invalid, "4097 bytes"),
        (ask(|put| put.value = vec![1; MAX_VALUE + 1].into()).await, Reason::Invalid, "8388609 bytes"),
        (ask(|put| put.keyspace = "none".into()).await, Reason::NoSuchKeyspace, "\"none\""),
        (ask(|put| put.ttl_ms = u64::MAX).await, Reason::Invalid, "time to live"),
    ];
    for (outcome, reason, words) in cases {
        let (is, message) = rejected(outcome);
        assert_eq!(is, reason, "{message}");
        assert!(message.contains(words), "{message}");
    }
    for (asked, words) in [(4, "write-quorum 4 exceeds replicas 3"), (0, "write-quorum is 0")] {
        let Some(call::Call::Put(mut request)) = put("k", "v").call else { unreachable!() };
        request.consistency = count(asked);
        let (reason, message) = rejected(cluster.write(put_request(request)).await);
        assert_eq!(reason, Reason::Invalid);
        assert!(message.contains(words), "{message}");
    }
    assert_eq!(rejected(cluster.write(Call { call: None }).await).0, Reason::Invalid);
    assert_eq!(cluster.sent("write"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_batch_answers_good_calls_and_refuses_bad_ones_each_in_its_place() {
    let cluster = Cluster::new(3);
    let level = |level| Some(Consistency { level: Some(consistency::Level::Named(level)) });
    let unknown = |call: Call, named| match call.call {
        Some(call::Call::Get(get)) => {
            Call { call: Some(call::Call::Get(GetRequest { consistency: level(named), ..get })) }
        }
        _ => unreachable!(),
    };
    let calls = vec![
        put("first", "1"),
        Call::default(),
        get("first"),
        get(&"k".repeat(MAX_KEY + 1)),
        unknown(get("first"), 9),
        unknown(get("first"), -1),
        put("second", "2"),
    ];
    let answers = cluster.coordinator.batch(calls).await;
    let failures: Vec<_> = answers.iter().map(Answer::failure).collect();
    let invalid = Some("REASON_INVALID");
    assert_eq!(failures, [None, invalid, None, invalid, invalid, invalid, None], "{answers:?}");
    assert!(matches!(got(answers[2].clone()), get_reply::Outcome::Found(found) if found.value == "1"));
}

#[tokio::test(start_paused = true)]
async fn a_keyspace_is_made_live_before_its_first_write() {
    let mut asleep = document(3, 5);
    asleep.keyspaces[0].live = false;
    let cluster = Cluster::with(&ring(asleep), HintSettings::default());
    committed(&cluster.write(put("k", "v")).await);
    assert_eq!(cluster.sent("make_live"), 1);
    committed(&cluster.write(put("k", "w")).await);
    assert_eq!(cluster.sent("make_live"), 1);
}

#[tokio::test(start_paused = true)]
async fn calls_of_one_batch_for_one_key_take_effect_in_order() {
    let cluster = Cluster::new(3);
    let calls = vec![
        put("k", "1"),
        get("k"),
        put("l", "x"),
        put("k", "2"),
        get("k"),
        delete("k"),
        get("k"),
        get("l"),
    ];
    let answers = cluster.coordinator.batch(calls).await;
    let text = |outcome| match outcome {
        get_reply::Outcome::Found(Found { value, .. }) => String::from_utf8(value.to_vec()).unwrap(),
        get_reply::Outcome::Missing(missing) => format!("missing, {}", missing.version.is_some()),
        other => panic!("{other:?}"),
    };
    let mut reads = Vec::new();
    for (at, answer) in answers.into_iter().enumerate() {
        if [1, 4, 6, 7].contains(&at) {
            reads.push(text(got(answer)));
        } else {
            committed(&written(answer));
        }
    }
    assert_eq!(reads, ["1", "2", "missing, true", "x"]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_sends_one_message_to_each_replica() {
    let cluster = Cluster::new(3);
    let calls = (0..100).map(|at| put(&format!("k{at}"), "v")).collect();
    for answer in cluster.coordinator.batch(calls).await {
        committed(&written(answer));
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.sent("write"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_write_meets_a_newer_ring_and_goes_on_under_it() {
    let cluster = Cluster::new(3);
    for node in 1..=3 {
        cluster.node(node).ring.advance(ring(document(3, 7)));
    }
    committed(&cluster.write(put("k", "v")).await);
    assert_eq!(cluster.world.ring.epoch().0, 7);
    assert_eq!(cluster.sent("fetch"), 1, "all of them refused, and one was asked for the newer ring");
}

#[tokio::test(start_paused = true)]
async fn who_has_a_newer_ring_and_does_not_give_it_holds_up_no_write() {
    let cluster = Cluster::new(3);
    cluster.world.stuck.store(true, Ordering::SeqCst);
    cluster.node(2).ring.advance(ring(document(3, 7)));
    for node in [1, 3] {
        cluster.slow(node, 20);
    }
    let began = Instant::now();
    committed(&cluster.write(put("k", "v")).await);
    assert_eq!(cluster.sent("fetch"), 1);
    assert!(began.elapsed() < Duration::from_millis(50));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.world.hints.pending(), 1, "who refused it gets it later");
}

#[tokio::test(start_paused = true)]
async fn what_one_took_before_the_ring_moved_is_owed_to_those_that_cannot_be_asked_again() {
    let cluster = Cluster::new(3);
    cluster.node(2).ring.advance(ring(document(3, 7)));
    cluster.slow(2, 20);
    cluster.does(3, Does::Hang);
    let parts = async {
        sleep(Duration::from_millis(10)).await;
        for node in [2, 3] {
            cluster.state(node, PeerState::Down);
        }
    };
    let (outcome, ()) = tokio::join!(cluster.write(put("k", "v")), parts);
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
    assert!(cluster.held(1, &position("k")).await.is_some());
    assert_eq!(cluster.world.hints.pending(), 3, "none of them was asked under this ring");
}

#[tokio::test(start_paused = true)]
async fn replicas_with_an_older_ring_are_given_the_newer_one() {
    let cluster = Cluster::new(3);
    cluster.world.ring.advance(ring(document(3, 7)));
    committed(&cluster.write(put("k", "v")).await);
    sleep(Duration::from_secs(1)).await;
    for node in 1..=3 {
        assert_eq!(cluster.node(node).ring.epoch().0, 7);
        assert!(cluster.held(node, &position("k")).await.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn while_an_arc_changes_hands_both_sets_must_acknowledge() {
    let cluster = Cluster::with(&joint(5), HintSettings::default());
    cluster.does(4, Does::Hang);
    committed(&cluster.write(put("k", "v")).await);
    cluster.does(5, Does::Hang);
    let outcome = cluster.write(put("l", "v")).await;
    assert!(matches!(&outcome, Outcome::Unknown(unknown) if unknown.acks == 3), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_smaller_than_its_quorum_serves_with_what_it_has() {
    let cluster = Cluster::new(1);
    assert!(
        matches!(cluster.write(put("k", "v")).await, Outcome::Committed(committed) if committed.acks == 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_value_with_a_time_to_live_is_missing_when_it_has_passed() {
    let cluster = Cluster::new(3);
    let Some(call::Call::Put(mut request)) = put("k", "v").call else { unreachable!() };
    request.ttl_ms = 1_000;
    committed(&cluster.write(put_request(request)).await);
    match cluster.read(get("k")).await {
        get_reply::Outcome::Found(found) => assert_eq!(found.expires_at_ms, NOW_MS + 1_000),
        other => panic!("{other:?}"),
    }
    cluster.world.wall.pass(1_000);
    assert!(matches!(cluster.read(get("k")).await, get_reply::Outcome::Missing(_)));
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_client_leaves_goes_on_and_hints_those_that_failed() {
    let cluster = Cluster::new(3);
    for node in 1..=3 {
        cluster.slow(node, 50);
    }
    cluster.does(3, Does::Unreachable);
    let asked = tokio::time::timeout(Duration::from_millis(10), cluster.write(put("k", "v"))).await;
    assert!(asked.is_err(), "the client left before the answer");
    sleep(Duration::from_secs(1)).await;
    for node in 1..=2 {
        assert!(cluster.held(node, &position("k")).await.is_some());
    }
    assert_eq!(cluster.world.hints.pending(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_record_fails_no_write_beside_it_and_is_no_vote_until_it_was_compared() {
    let cluster = Cluster::new(3);
    let keys: Vec<String> = (0..50).map(|at| format!("k{at}")).collect();
    let puts = |text: &str| keys.iter().map(|key| put(key, text)).collect::<Vec<_>>();
    for answer in cluster.coordinator.batch(puts("old")).await {
        assert!(matches!(written(answer), Outcome::Committed(_)));
    }
    sleep(Duration::from_secs(1)).await;
    // Not what was written last at a replica: that is remembered, and not read.
    let key = keys.iter().min_by_key(|key| position(key)).unwrap();
    let other = keys.iter().max_by_key(|key| position(key)).unwrap();
    let damaged = position(key);
    for node in [2, 3] {
        cluster.node(node).disk.corrupt(Table::Data, damaged.clone().into_bytes());
    }
    for answer in cluster.coordinator.batch(puts("new")).await {
        assert!(matches!(written(answer), Outcome::Committed(_)));
    }
    sleep(Duration::from_secs(1)).await;
    let newest = cluster.held(1, &damaged).await;
    for node in [2, 3] {
        assert_eq!(cluster.held(node, &damaged).await, newest, "it is overwritten");
        let lapse = cluster.node(node).replica.lapse();
        assert!(lapse.holds(&damaged) && !lapse.holds(&position(other)));
    }
    assert!(matches!(cluster.read(get(other)).await, get_reply::Outcome::Found(_)));
    let read = cluster.read(get(key)).await;
    assert!(matches!(read, get_reply::Outcome::Failed(_)), "what they lost may be newer: {read:?}");
}

#[tokio::test(start_paused = true)]
async fn a_write_counts_no_replica_that_cannot_overwrite_what_is_damaged() {
    let cluster = Cluster::new(3);
    let puts = |text: &str| (0..3).map(|at| put(&format!("k{at}"), text)).collect::<Vec<_>>();
    cluster.coordinator.batch(puts("old")).await;
    sleep(Duration::from_secs(1)).await;
    for node in [2, 3] {
        for key in ["k0", "k1"] {
            cluster.node(node).disk.corrupt(Table::Data, position(key).into_bytes());
        }
    }
    let mut answers = cluster.coordinator.batch(vec![put("k0", "new"), put("k2", "new")]).await;
    assert!(matches!(written(answers.remove(1)), Outcome::Committed(_)));
    match written(answers.remove(0)) {
        Outcome::Unknown(unknown) => assert!(unknown.message.contains("damaged"), "{}", unknown.message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn calls_for_the_same_replicas_travel_together_whatever_their_order_and_about_the_same_time() {
    let mut document = document(3, 5);
    document.arcs[2].replicas = vec![2, 3, 1];
    document.arcs[3].replicas = vec![3, 1, 2];
    let cluster = Cluster::with(&ring(document), HintSettings::default());
    let put = |key: &str, timeout_ms| {
        let keyspace = ORDERED.to_owned();
        put_request(PutRequest {
            keyspace,
            key: key.as_bytes().to_vec().into(),
            timeout_ms,
            ..PutRequest::default()
        })
    };
    let batch = async |each: [u32; 3]| {
        let calls = ["k1", "k3", "k7"].into_iter().zip(each).map(|(key, timeout_ms)| put(key, timeout_ms));
        for answer in cluster.coordinator.batch(calls.collect()).await {
            committed(&written(answer));
        }
        // The last replica is sent to as well.
        sleep(Duration::from_millis(1)).await;
    };
    batch([1_600, 1_599, 1_580]).await;
    assert_eq!(cluster.sent("write"), 3, "one message to each replica");
    // None loses more of its time than a small part of it.
    batch([1_600, 1_500, 40]).await;
    assert_eq!(cluster.sent("write"), 3 + 9, "each with a deadline of its own");
}
