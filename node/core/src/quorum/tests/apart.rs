//! Calls of one batch are answered when each of them is done.

use super::world::{
    Cluster, Does, ORDERED, document, get, get_request, got, position, put, put_request, ring, value, written,
};
use crate::{
    budget::Paid,
    quorum::{AnswerSink, HintSettings},
};
use god_proto::v1::{
    Answer, Call, Consistency, CountRequest, GetRequest, Level, PutRequest, Reason, ScanRequest, call,
    consistency, get_reply, write_reply,
};
use std::{collections::BTreeMap, sync::atomic::Ordering};
use tokio::time::Instant;

/// Answers by slot, each with the milliseconds that it took.
struct Heard(Instant, BTreeMap<usize, (u128, Answer)>);

impl AnswerSink for Heard {
    fn take(&mut self, answers: Vec<(usize, Answer)>, _: Paid) {
        for (slot, answer) in answers {
            let before = self.1.insert(slot, (self.0.elapsed().as_millis(), answer));
            assert!(before.is_none(), "call {slot} was answered twice");
        }
    }
}

/// What came of each call, and when.
async fn heard(cluster: &Cluster, calls: Vec<Call>) -> Vec<(u128, Answer)> {
    let asked = calls.len();
    let mut heard = Heard(Instant::now(), BTreeMap::new());
    cluster.coordinator.batch_to(calls, &mut heard).await;
    assert!(heard.1.keys().copied().eq(0..asked), "not each call was answered");
    heard.1.into_values().collect()
}

async fn same_on_three() -> Cluster {
    let cluster = Cluster::new(3);
    for (key, node) in ["a", "b"].iter().flat_map(|key| (1..=3).map(move |node| (*key, node))) {
        cluster.seed(node, value(&position(key), -10, "same")).await;
    }
    cluster
}

fn timed(call: Call, timeout_ms: u32) -> Call {
    let call = match call.call {
        Some(call::Call::Get(get)) => call::Call::Get(GetRequest { timeout_ms, ..get }),
        Some(call::Call::Put(put)) => call::Call::Put(PutRequest { timeout_ms, ..put }),
        other => panic!("{other:?}"),
    };
    Call { call: Some(call) }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_waits_for_a_replica_holds_up_no_other_of_its_batch() {
    let cluster = same_on_three().await;
    cluster.does(3, Does::Hang);
    let all = timed(get_request("a", Some(3), None), 20_000);
    let one = timed(get_request("b", Some(1), None), 100);
    let heard = heard(&cluster, vec![all, one, get("b")]).await;
    let [(waited, all), (one_took, one), (quorum_took, quorum)] = &heard[..] else { panic!() };
    assert!(matches!(got(all.clone()), get_reply::Outcome::Failed(why) if why.reason() == Reason::Deadline));
    assert_eq!(*waited, 20_000);
    for (took, answer) in [(one_took, one), (quorum_took, quorum)] {
        assert!(matches!(got(answer.clone()), get_reply::Outcome::Found(_)), "{answer:?}");
        assert!(*took < 100, "{took} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_keyspace_that_cannot_be_made_live_holds_up_its_writes_only() {
    let mut sleeping = document(3, 5);
    sleeping.keyspaces[1].live = false;
    let cluster = Cluster::with(&ring(sleeping), HintSettings::default());
    cluster.world.stuck.store(true, Ordering::SeqCst);
    let first = |key: &'static str, timeout_ms| {
        put_request(PutRequest {
            keyspace: ORDERED.to_owned(),
            key: key.into(),
            timeout_ms,
            ..Default::default()
        })
    };
    let calls = vec![first("k", 10_000), first("l", 200), put("a", "v"), get("a"), get("b")];
    let heard = heard(&cluster, calls).await;
    // Each ends by its own deadline, and was not written.
    for ((took, answer), timeout) in heard.iter().zip([10_000, 200]) {
        let write_reply::Outcome::Rejected(why) = written(answer.clone()) else { panic!("{answer:?}") };
        assert_eq!((why.reason(), *took), (Reason::Deadline, timeout));
    }
    assert!(matches!(written(heard[2].1.clone()), write_reply::Outcome::Committed(_)));
    assert!(
        matches!(got(heard[3].1.clone()), get_reply::Outcome::Found(_)),
        "a read follows the write before it"
    );
    assert!(matches!(got(heard[4].1.clone()), get_reply::Outcome::Missing(_)));
    assert!(heard[2..].iter().all(|(took, _)| *took < 100), "{heard:?}");
}

/// EMPTY-CONFIRMED: however many replicas are asked, and by whatever question.
#[tokio::test(start_paused = true)]
async fn what_reads_a_keyspace_without_data_makes_sure_that_it_has_none() {
    let mut sleeping = document(3, 5);
    sleeping.keyspaces[0].live = false;
    let cluster = Cluster::with(&ring(sleeping), HintSettings::default());
    let name = || "default".to_owned();
    let asked = || cluster.world.log.lock().iter().filter(|(_, what)| *what == "confirm").count();
    for count in 1..=3 {
        let before = asked();
        let answer = cluster.read(get_request("a", Some(count), None)).await;
        assert!(matches!(answer, get_reply::Outcome::Missing(_)), "{answer:?}");
        assert_eq!(asked(), before + 1, "{count} replicas");
    }
    let before = asked();
    let counted = cluster.coordinator.count(CountRequest { keyspace: name(), ..CountRequest::default() });
    assert_eq!(counted.await.failed, None);
    let scanned = cluster.coordinator.scan(ScanRequest { keyspace: name(), ..ScanRequest::default() });
    assert_eq!(scanned.await.failed, None);
    assert_eq!(asked(), before + 2);
    cluster.world.stuck.store(true, Ordering::SeqCst);
    let answer = cluster.read(get_request("a", Some(1), None)).await;
    assert!(
        matches!(&answer, get_reply::Outcome::Failed(why) if why.message.contains("whether that is the newest")),
        "{answer:?}"
    );
}

/// A write of all replicas, one of which hangs, and then a read with less time; others beside them.
#[tokio::test(start_paused = true)]
async fn what_waits_for_its_turn_at_a_key_ends_by_its_own_deadline() {
    let cluster = same_on_three().await;
    cluster.does(3, Does::Hang);
    let level = Some(consistency::Level::Named(Level::All.into()));
    let slow = put_request(PutRequest {
        keyspace: "default".to_owned(),
        key: "a".into(),
        timeout_ms: 5_000,
        consistency: Some(Consistency { level }),
        ..PutRequest::default()
    });
    let calls = vec![slow, timed(get("a"), 100), timed(get("a"), 6_000), put("b", "next"), get("b")];
    let heard = heard(&cluster, calls).await;
    assert!(matches!(written(heard[0].1.clone()), write_reply::Outcome::Unknown(_)));
    assert_eq!(heard[0].0, 5_000);
    let get_reply::Outcome::Failed(why) = got(heard[1].1.clone()) else { panic!("{heard:?}") };
    assert_eq!((why.reason(), heard[1].0), (Reason::Deadline, 100));
    let get_reply::Outcome::Found(found) = got(heard[2].1.clone()) else { panic!("{heard:?}") };
    assert!(found.value.is_empty() && heard[2].0 >= 5_000, "it came before the write");
    let get_reply::Outcome::Found(found) = got(heard[4].1.clone()) else { panic!("{heard:?}") };
    assert_eq!(found.value, "next");
    assert!(heard[4].0 < 100, "{heard:?}");
}
