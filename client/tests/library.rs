//! What the client promises, against nodes that can be made to go wrong.

#![allow(clippy::unwrap_used)]

mod fake;

use fake::Fake;
use futures::{StreamExt as _, TryStreamExt as _, future::join_all};
use god_client::{
    Builder, Client, Consistency, Error, Keyspace, Lookup, MAX_TIMEOUT, MAX_TTL, Range, Reason,
    proto::{CreateKeyspaceRequest, call::Call},
};
use std::{
    pin::pin,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

/// What a test waits for comes within this, or never.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client that asks the first of the nodes first.
fn builder(fakes: &[&Fake]) -> Builder {
    let servers: Vec<String> = fakes.iter().map(|fake| fake.address.to_string()).collect();
    let nearest = servers.first().cloned().unwrap_or_default();
    Client::builder().servers(servers).nearest(nearest).timeout(PATIENCE)
}

async fn keyspace(fakes: &[&Fake]) -> Keyspace {
    builder(fakes).connect().await.unwrap().keyspace("default")
}

/// Waits for what nodes are to see.
async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < PATIENCE, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Makes calls until they all go to one node.
async fn settle(keyspace: &Keyspace, node: &Fake) {
    let began = Instant::now();
    loop {
        let before = node.knobs.seen().len();
        keyspace.get("settling").await.unwrap();
        if node.knobs.seen().len() > before {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "no call goes to {}", node.address);
    }
}

fn writes(fakes: &[&Fake]) -> usize {
    let is_write = |call: &Call| !matches!(call, Call::Get(_));
    fakes.iter().map(|fake| fake.knobs.seen().iter().filter(|call| is_write(call)).count()).sum()
}

#[tokio::test]
async fn what_is_put_is_read_until_it_is_deleted() {
    let fake = fake::start();
    let keyspace = keyspace(&[&fake]).await;
    let written = keyspace.put("k", "v").await.unwrap();
    let found = keyspace.get("k").await.unwrap().unwrap();
    assert_eq!((&found.value[..], found.version), (&b"v"[..], written.version));
    keyspace.delete("k").await.unwrap();
    assert_eq!(keyspace.get("k").await.unwrap(), None);
}

#[tokio::test]
async fn a_look_up_says_which_deletion_a_key_is_missing_by() {
    let fake = fake::start();
    let keyspace = keyspace(&[&fake]).await;
    let written = keyspace.put("k", "v").await.unwrap();
    let found = keyspace.look_up("k").await.unwrap();
    assert_eq!(found.version(), Some(written.version));
    assert!(matches!(found, Lookup::Found(value) if &value.value[..] == b"v"));
    let deleted = keyspace.look_up("deleted").await.unwrap();
    assert_eq!(deleted, Lookup::Missing { deleted: Some(written.version) });
    assert_eq!(keyspace.look_up("never").await.unwrap(), Lookup::Missing { deleted: None });
    assert_eq!(keyspace.get("deleted").await.unwrap(), None);
}

#[tokio::test]
async fn a_call_goes_to_a_node_that_holds_the_key() {
    let [one, two, three] = fake::start_many();
    one.move_to(&[2]);
    let keyspace = keyspace(&[&one]).await;
    settle(&keyspace, &two).await;
    let before = one.knobs.seen().len();
    for _ in 0..10 {
        keyspace.put("k", "v").await.unwrap();
    }
    assert_eq!(two.pairs().len(), 1);
    assert_eq!((one.knobs.seen().len(), three.knobs.seen().len()), (before, 0));
}

#[tokio::test]
async fn the_nearest_replica_is_asked_though_another_one_is_connected_already() {
    let [one, two, three] = fake::start_many();
    let nearest = three.address.to_string();
    let client = builder(&[&one, &two]).nearest(nearest).connect().await.unwrap();
    settle(&client.keyspace("default"), &three).await;
}

#[tokio::test]
async fn many_clients_use_all_nodes() {
    let [one, two, three] = fake::start_many();
    let mut clients = Vec::new();
    let began = Instant::now();
    while [&one, &two, &three].iter().any(|fake| writes(&[fake]) == 0) {
        assert!(began.elapsed() < PATIENCE, "a node gets no call");
        let client = Client::builder().servers([one.address.to_string()]).connect().await.unwrap();
        clients.push(client);
        for client in &clients {
            client.keyspace("default").put("k", "v").await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_node_with_much_to_answer_shares_with_the_others() {
    let [one, two] = fake::start_many();
    let keyspace = keyspace(&[&one]).await;
    settle(&keyspace, &one).await;
    one.knobs.hang(true);
    let calls = join_all((0..200).map(|number| keyspace.put(format!("k{number}"), "v")));
    // By now the other node is wanted; it gets calls as soon as it is connected.
    let more = async {
        until("the burst", || writes(&[&one]) >= 128).await;
        while writes(&[&two]) == 0 {
            let brief = keyspace.clone().with_timeout(Duration::from_millis(20));
            let _ = brief.put("more", "v").await;
        }
        one.knobs.hang(false);
    };
    let (outcomes, ()) = futures::join!(calls, more);
    assert!(outcomes.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_newer_ring_is_asked_for_when_an_answer_tells_of_it() {
    let [one, two] = fake::start_many();
    one.move_to(&[1]);
    let client = builder(&[&one]).connect().await.unwrap();
    let keyspace = client.keyspace("default");
    settle(&keyspace, &one).await;
    assert_eq!(client.epoch(), 2);
    one.move_to(&[2]);
    keyspace.get("k").await.unwrap();
    until("the newer ring", || client.epoch() == 3).await;
    settle(&keyspace, &two).await;
}

#[tokio::test]
async fn a_client_goes_on_through_its_servers_where_it_cannot_reach_the_rings_addresses() {
    let [one, two] = fake::start_many();
    // None that the system gives to the server of another test.
    one.claim_addresses(&["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()]);
    let keyspace = keyspace(&[&one, &two]).await;
    for number in 0..100 {
        keyspace.put(format!("k{number}"), "v").await.unwrap();
        assert!(keyspace.get(format!("k{number}")).await.unwrap().is_some());
    }
    assert_eq!(keyspace.count(..).await.unwrap(), 100);
}

#[tokio::test]
async fn an_unclear_write_is_never_sent_again() {
    let [one, two] = fake::start_many();
    let keyspace = keyspace(&[&one, &two]).await;
    settle(&keyspace, &one).await;

    let answered = keyspace.put("unknown", "v").await.unwrap_err();
    assert!(matches!(answered, Error::Unknown { acks: 1, version: Some(_), .. }), "{answered}");
    assert_eq!(writes(&[&one, &two]), 1);

    one.knobs.hang(true);
    let mut put = pin!(keyspace.put("k", "v"));
    let cut = async {
        until("the write", || writes(&[&one]) == 2).await;
        one.knobs.cut();
    };
    let (unanswered, ()) = futures::join!(&mut put, cut);
    assert!(unanswered.unwrap_err().is_unknown());
    assert_eq!(writes(&[&one, &two]), 2);
}

#[tokio::test]
async fn a_read_whose_connection_breaks_is_sent_to_another_node() {
    let [one, two] = fake::start_many();
    two.holds("k", "of two");
    let keyspace = keyspace(&[&one, &two]).await;
    settle(&keyspace, &one).await;
    one.knobs.hang(true);
    let before = one.knobs.seen().len();
    let cut = async {
        until("the read", || one.knobs.seen().len() > before).await;
        one.knobs.cut();
    };
    let (found, ()) = futures::join!(keyspace.get("k"), cut);
    assert_eq!(&found.unwrap().unwrap().value[..], b"of two");
}

#[tokio::test]
async fn a_hung_server_costs_a_deadline() {
    let fake = fake::start();
    let keyspace = keyspace(&[&fake]).await;
    keyspace.put("k", "v").await.unwrap();
    fake.knobs.hang(true);
    let keyspace = keyspace.with_timeout(Duration::from_millis(100));
    let (write, read) =
        tokio::time::timeout(PATIENCE, async { (keyspace.put("k", "w").await, keyspace.get("k").await) })
            .await
            .unwrap();
    assert!(write.unwrap_err().is_unknown(), "it was sent");
    assert!(matches!(read, Err(Error::Unreachable(_))), "{read:?}");
}

#[tokio::test]
async fn a_silent_node_is_passed_over_before_the_deadline() {
    let [one, two] = fake::start_many();
    two.holds("k", "of two");
    let client = builder(&[&one, &two])
        .timeout(MAX_TIMEOUT)
        .stall_after(Duration::from_millis(50))
        .connect()
        .await
        .unwrap();
    let keyspace = client.keyspace("default");
    settle(&keyspace, &one).await;
    one.knobs.hang(true);
    for _ in 0..3 {
        let found = tokio::time::timeout(PATIENCE, keyspace.get("k")).await.unwrap();
        assert_eq!(&found.unwrap().unwrap().value[..], b"of two");
    }
    let asked =
        one.knobs.seen().iter().filter(|call| matches!(call, Call::Get(get) if get.key == "k")).count();
    assert_eq!(asked, 1, "only the first one waited for it");
    one.knobs.hang(false);
    settle(&keyspace, &one).await;
}

#[tokio::test]
async fn a_call_ends_by_its_deadline_though_no_node_says_what_the_ring_is() {
    let fake = fake::start();
    let client = builder(&[&fake]).timeout(MAX_TIMEOUT).connect_timeout(MAX_TIMEOUT).connect().await.unwrap();
    fake.knobs.keeps_ring.store(true, Ordering::SeqCst);
    let unknown = client.keyspace("unknown").with_timeout(Duration::from_millis(100));
    let calls = async { (unknown.get("k").await, unknown.count(..).await) };
    let (read, counted) = tokio::time::timeout(PATIENCE, calls).await.expect("they end");
    for refused in [read.unwrap_err(), counted.unwrap_err()] {
        assert_eq!(refused.reason(), Some(Reason::NoSuchKeyspace), "{refused:?}");
    }
}

#[tokio::test]
async fn a_node_that_comes_back_is_asked_again() {
    let [one, two] = fake::start_many();
    let keyspace = keyspace(&[&one, &two]).await;
    settle(&keyspace, &one).await;
    one.knobs.go_down();
    settle(&keyspace, &two).await;
    one.knobs.down.store(false, Ordering::SeqCst);
    settle(&keyspace, &one).await;
}

#[tokio::test]
async fn a_write_that_was_refused_as_busy_is_tried_again() {
    let fake = fake::start();
    let keyspace = keyspace(&[&fake]).await;
    keyspace.put("busy", "v").await.unwrap();
    assert_eq!(writes(&[&fake]), 2);
    let refused = keyspace.put("refused", "v").await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::Invalid));
    assert_eq!(writes(&[&fake]), 3, "what is wrong stays wrong");
}

#[tokio::test]
async fn a_retry_budget_bounds_the_storm() {
    let fake = fake::start();
    let client = builder(&[&fake]).retry_budget(0.1, 5).connect().await.unwrap();
    let keyspace = client.keyspace("default");
    fake.knobs.busy.store(true, Ordering::SeqCst);
    for _ in 0..100 {
        let refused = keyspace.put("k", "v").await.unwrap_err();
        assert_eq!(refused.reason(), Some(Reason::Busy));
    }
    let sent = writes(&[&fake]);
    assert!((101..=116).contains(&sent), "{sent} writes were sent for 100 calls");
}

#[tokio::test]
async fn a_node_that_has_not_heard_of_a_keyspace_is_passed_over() {
    let [one, two] = fake::start_many();
    let keyspace = keyspace(&[&one, &two]).await;
    one.knobs.ignorant.store(true, Ordering::SeqCst);
    keyspace.put("k", "v").await.unwrap();
    assert_eq!(two.pairs().len(), 1);
    let nowhere = builder(&[&two]).connect().await.unwrap().keyspace("nowhere");
    assert_eq!(nowhere.get("k").await.unwrap_err().reason(), Some(Reason::NoSuchKeyspace));
}

#[tokio::test]
async fn a_session_reads_what_it_wrote() {
    let [one, two] = fake::start_many();
    let client = builder(&[&one, &two]).retries(1).connect().await.unwrap();
    let plain = client.keyspace("default");
    let session = client.session().keyspace("default");
    settle(&plain, &one).await;
    session.put("k", "v").await.unwrap();
    assert!(session.get("k").await.unwrap().is_some());
    // Node 2 has none of it: it may say so to anyone but to who wrote it.
    one.knobs.go_down();
    settle(&plain, &two).await;
    assert_eq!(plain.get("k").await.unwrap(), None);
    assert_eq!(session.get("k").await.unwrap_err().reason(), Some(Reason::Stale));
    assert_eq!(session.get("other").await.unwrap(), None);
}

#[tokio::test]
async fn a_session_that_forgot_a_write_reads_from_so_many_that_one_has_it() {
    let [one, two, three] = fake::start_many();
    let client = builder(&[&one, &two, &three]).connect().await.unwrap();
    let session = client.session().keyspace("default").with_reads(Consistency::One);
    session.get("k").await.unwrap();
    let asked = |fake: &Fake| fake.knobs.seen().last().cloned();
    assert!(matches!(asked(&one), Some(Call::Get(get)) if get.consistency == level(Consistency::One)));
    // Each is acknowledged by one of three replicas.
    session.put("k0", "v").await.unwrap();
    join_all((1..10_000).map(|number| session.put(format!("k{number}"), "v"))).await;
    settle(&session, &one).await;
    session.get("k0").await.unwrap();
    let Some(Call::Get(get)) = asked(&one) else { panic!("no read") };
    assert_eq!((get.at_least, get.consistency), (None, level(Consistency::Count(3))));
}

fn level(consistency: Consistency) -> Option<god_client::proto::Consistency> {
    use god_client::proto::{Level, consistency::Level as Is};
    let level = match consistency {
        Consistency::One => Is::Named(Level::One.into()),
        Consistency::Count(count) => Is::Count(count),
        _ => return None,
    };
    Some(god_client::proto::Consistency { level: Some(level) })
}

#[tokio::test]
async fn calls_beyond_the_bound_wait_for_a_place() {
    let fake = fake::start();
    let client = builder(&[&fake]).in_flight(2).connect().await.unwrap();
    let keyspace = client.keyspace("default");
    fake.knobs.hang(true);
    let calls = join_all((0..5).map(|number| keyspace.put(format!("k{number}"), "v")));
    let watch = async {
        until("two writes", || writes(&[&fake]) == 2).await;
        let beyond = keyspace.clone().with_timeout(Duration::from_millis(20)).put("beyond", "v").await;
        assert!(matches!(beyond, Err(Error::Unreachable(_))), "it was not sent: {beyond:?}");
        assert_eq!(writes(&[&fake]), 2);
        fake.knobs.hang(false);
    };
    let (outcomes, ()) = futures::join!(calls, watch);
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(writes(&[&fake]), 5);
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_its_place_once_it_is_answered() {
    let fake = fake::start();
    let client = builder(&[&fake]).in_flight(1).connect().await.unwrap();
    let keyspace = client.keyspace("default");
    fake.knobs.hang(true);
    {
        let mut put = pin!(keyspace.put("given-up", "v"));
        let sent = pin!(until("the write", || writes(&[&fake]) == 1));
        futures::future::select(&mut put, sent).await;
    }
    fake.knobs.hang(false);
    keyspace.put("k", "v").await.unwrap();
    assert_eq!(fake.pairs().len(), 2);
}

#[tokio::test]
async fn calls_made_together_share_frames() {
    let fake = fake::start();
    let keyspace = keyspace(&[&fake]).await;
    let outcomes = join_all((0..500).map(|number| keyspace.put(format!("k{number}"), "v"))).await;
    assert!(outcomes.iter().all(Result::is_ok));
    let frames = fake.knobs.frames.load(Ordering::SeqCst);
    assert!(frames <= 50, "{frames} frames");
}

#[tokio::test]
async fn a_scan_streams_all_pages_in_both_directions() {
    let fake = fake::start();
    let keyspace = keyspace(&[&fake]).await;
    for key in ["a", "b", "c", "d", "e"] {
        keyspace.put(key, key).await.unwrap();
    }
    let keys = |scan: god_client::Scan| async {
        let keys: Vec<_> =
            scan.map_ok(|entry| String::from_utf8(entry.key.to_vec()).unwrap()).try_collect().await.unwrap();
        keys.concat()
    };
    assert_eq!(keys(keyspace.scan(..)).await, "abcde");
    assert_eq!(keys(keyspace.scan("b".."d")).await, "bc");
    assert_eq!(keys(keyspace.scan("b"..="d").reverse()).await, "dcb");
    assert_eq!(keys(keyspace.scan(Range::all().after("b")).limit(2)).await, "cd");
    assert_eq!(keys(keyspace.scan(Range::prefix("c"))).await, "c");
    let key = |entry: Option<god_client::Entry>| entry.map(|entry| entry.key);
    assert_eq!(key(keyspace.first().await.unwrap()).unwrap(), "a");
    assert_eq!(key(keyspace.last().await.unwrap()).unwrap(), "e");
    assert_eq!(key(keyspace.next("b").await.unwrap()).unwrap(), "c");
    assert_eq!(key(keyspace.previous("b").await.unwrap()).unwrap(), "a");
    assert_eq!(key(keyspace.next("e").await.unwrap()), None);
    assert_eq!(keyspace.count("b"..).await.unwrap(), 4);
    assert_eq!(keyspace.rank("c").await.unwrap().rank, 2);
    assert_eq!(key(keyspace.select(1).await.unwrap()).unwrap(), "b");
    let mut beyond = keyspace.scan("x"..);
    assert!(beyond.next().await.is_none() && beyond.next().await.is_none());
}

#[tokio::test]
async fn what_cannot_be_meant_is_not_sent() {
    let fake = fake::start();
    let keyspace = keyspace(&[&fake]).await;
    let long = vec![b'k'; 4_097];
    for refused in [
        keyspace.put("", "v").await.unwrap_err(),
        keyspace.put(long.clone(), "v").await.unwrap_err(),
        keyspace.put("k", vec![0; (8 << 20) + 1]).await.unwrap_err(),
        keyspace.put_with_ttl("k", "v", Duration::from_micros(1)).await.unwrap_err(),
        keyspace.get(long).await.unwrap_err(),
        keyspace.scan(..).page(0).next_page().await.unwrap_err(),
        keyspace.scan(..).page(10_001).next_page().await.unwrap_err(),
        keyspace.with_reads(Consistency::Count(0)).get("k").await.unwrap_err(),
        builder(&[]).connect().await.unwrap_err(),
        builder(&[&fake]).in_flight(0).connect().await.unwrap_err(),
    ] {
        assert!(matches!(refused, Error::Invalid(_)), "{refused:?}");
    }
    assert!(fake.knobs.seen().is_empty());
}

#[tokio::test]
async fn a_time_that_no_node_gives_a_call_is_refused_with_the_longest_one() {
    let fake = fake::start();
    let longer = MAX_TIMEOUT + Duration::from_millis(1);
    let keyspace = keyspace(&[&fake]).await.with_timeout(longer);
    for (option, refused) in [
        ("timeout 30.001s", builder(&[&fake]).timeout(longer).connect().await.unwrap_err()),
        ("with_timeout 30.001s", keyspace.put("k", "v").await.unwrap_err()),
        ("with_timeout 30.001s", keyspace.get("k").await.unwrap_err()),
        ("with_timeout 30.001s", keyspace.count(..).await.unwrap_err()),
        ("with_timeout 30.001s", keyspace.scan(..).next_page().await.unwrap_err()),
    ] {
        let Error::Invalid(why) = refused else { panic!("{option}: {refused:?}") };
        assert_eq!(why, format!("{option} is above the most, 30s"));
    }
    assert!(fake.knobs.seen().is_empty());
    let client = builder(&[&fake]).timeout(MAX_TIMEOUT).connect().await.unwrap();
    client.keyspace("default").put("k", "v").await.unwrap();
}

#[tokio::test]
async fn values_of_all_sizes_travel_together() {
    let fake = fake::start();
    let keyspace = keyspace(&[&fake]).await;
    let sizes = [0, 1, 100, 16 << 10, 1 << 20, 3 << 20, 8 << 20];
    let put = |size: usize| keyspace.put(format!("k{size}"), vec![7; size]);
    assert!(join_all(sizes.into_iter().map(put)).await.iter().all(Result::is_ok));
    for size in sizes {
        assert_eq!(keyspace.get(format!("k{size}")).await.unwrap().unwrap().value.len(), size);
    }
}

#[tokio::test]
async fn a_time_to_live_that_no_node_takes_is_not_sent() {
    let fake = fake::start();
    let keyspace = keyspace(&[&fake]).await;
    for wrong in [
        Duration::ZERO,
        Duration::from_micros(999),
        Duration::from_micros(1_500),
        MAX_TTL + Duration::from_nanos(1),
        Duration::MAX,
    ] {
        let refused = keyspace.put_with_ttl("k", "v", wrong).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{wrong:?}: {refused:?}");
    }
    assert!(fake.pairs().is_empty());
    for right in [Duration::from_millis(1), MAX_TTL] {
        keyspace.put_with_ttl("k", "v", right).await.unwrap();
    }
    let sent = |call: &Call| if let Call::Put(put) = call { put.ttl_ms } else { 0 };
    let sent: Vec<u64> = fake.knobs.seen().iter().map(sent).collect();
    assert_eq!(sent, [1, MAX_TTL.as_millis() as u64]);
}

#[tokio::test]
async fn a_keyspace_that_was_made_is_known_wherever_its_calls_go() {
    let [one, other] = fake::start_many();
    let client = builder(&[&one, &other]).connect().await.unwrap();
    other.knobs.ignorant.store(true, Ordering::SeqCst);
    let made = async {
        let made = client
            .create_keyspace(CreateKeyspaceRequest { name: "new".to_owned(), ..Default::default() })
            .await;
        assert!(!other.knobs.ignorant.load(Ordering::SeqCst), "a node does not know it yet");
        made.unwrap()
    };
    let heard = async {
        while other.knobs.listed.load(Ordering::SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
        other.knobs.ignorant.store(false, Ordering::SeqCst);
    };
    let both = async { tokio::join!(made, heard) };
    tokio::time::timeout(PATIENCE, both).await.expect("nobody asks it");
    let keyspace = client.keyspace("new");
    let puts = (0..500).map(|at| keyspace.put(format!("k{at}"), "v"));
    assert!(join_all(puts).await.iter().all(Result::is_ok));
    // Nobody waits for a node that does not answer.
    other.knobs.go_down();
    let again = CreateKeyspaceRequest { name: "newer".to_owned(), ..Default::default() };
    client.create_keyspace(again).await.unwrap();
}
