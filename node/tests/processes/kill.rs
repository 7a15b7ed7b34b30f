//! `kill -9`.

use crate::{
    client::{committed, found},
    cluster::{Cluster, wait_for},
    load::{Load, of_set, read_all, set_members},
};
use god_history::{check_register, check_set};
use god_proto::v1::Level;

/// NO-ten times one node of three is killed under load, and starts again on its disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_comes_back_when_nodes_are_killed_under_load() {
    let mut cluster = Cluster::start(3, &[]).await;
    let clients: Vec<_> = cluster.nodes.iter().map(|node| node.client()).collect();
    let load = Load::start(8, &clients);
    let goes_on = async |load: &Load, what: &str| {
        let (writes, reads) = (load.acknowledged() + 100, load.answered() + 50);
        wait_for(what, || async {
            match load.acknowledged() >= writes && load.answered() >= reads {
                true => Ok(()),
                false => Err(format!("{} of {writes} writes", load.acknowledged())),
            }
        })
        .await;
    };
    goes_on(&load, "the load to begin").await;
    for round in 0..10 {
        let victim = round % 3;
        cluster.nodes[victim].kill();
        goes_on(&load, "writes and reads without the killed node").await;
        cluster.nodes[victim].start();
        goes_on(&load, "writes and reads while it starts").await;
        cluster.wait_until_up().await;
    }
    let evidence = load.stop().await;
    cluster.wait_for_hints().await;

    // All replicas are asked for all keys; whoever lacks something is repaired by that.
    let mut history = evidence.history;
    read_all(&mut clients[0].clone(), &mut history, Level::All).await;
    check_register(&history).unwrap_or_else(|violation| panic!("{violation}"));

    // Now each node by itself has the whole set, and counts it.
    for client in &clients {
        let mut client = client.clone();
        let listed = client.keys("set/", Level::One).await.unwrap();
        let members = set_members(&listed);
        check_set(&of_set(&history), &members).unwrap_or_else(|violation| panic!("{violation}"));
        assert_eq!(client.count("set/", Level::One).await.unwrap(), listed.len() as u64);
    }
    assert!(history.len() > 2_000, "{} operations prove little", history.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_bring_a_node_level_that_was_away() {
    let mut cluster = Cluster::start(3, &[]).await;
    let mut first = cluster.nodes[0].client();
    for key in 0..300 {
        committed(first.put(format!("k{key:04}"), "before").await);
    }
    cluster.nodes[2].kill();
    for key in 100..400 {
        committed(first.put(format!("k{key:04}"), "while away").await);
    }
    for key in 0..50 {
        committed(first.delete(format!("k{key:04}")).await);
    }
    cluster.nodes[2].start();
    cluster.wait_until_up().await;
    cluster.wait_for_hints().await;

    // What it alone has.
    let mut third = cluster.nodes[2].client();
    assert_eq!(third.count("k", Level::One).await.unwrap(), 350);
    for key in 0..400 {
        let expected = match key {
            0..50 => None,
            50..100 => Some("before".into()),
            _ => Some("while away".into()),
        };
        assert_eq!(found(third.get(format!("k{key:04}"), Level::One).await), expected, "key {key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn comparison_brings_what_hints_left_out() {
    let mut cluster = Cluster::prepare(3, &["--hint-limit", "1MiB"]).await;
    cluster.found().await;
    let mut first = cluster.nodes[0].client();
    cluster.nodes[2].kill();
    let value = "while away".repeat(1_000);
    for key in 0..200 {
        committed(first.put(format!("k{key:04}"), value.clone()).await);
    }
    cluster.nodes[2].start();
    cluster.wait_until_up().await;
    cluster.wait_for_hints().await;
    // Nobody reads: what the hints left out comes by comparison.
    let third = cluster.nodes[2].client();
    wait_for("comparison to bring what hints left out", || async {
        match third.clone().count("k", Level::One).await? {
            200 => Ok(()),
            some => Err(format!("it has {some} of 200 keys")),
        }
    })
    .await;
    for key in 0..200 {
        assert_eq!(found(first.get(format!("k{key:04}"), Level::All).await), Some(value.clone().into()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_closed_properly_starts_again_where_it_was() {
    let mut cluster = Cluster::start(3, &[]).await;
    let mut first = cluster.nodes[0].client();
    for key in 0..100 {
        committed(first.put(format!("k{key:04}"), "value").await);
    }
    for node in &mut cluster.nodes {
        assert!(node.terminate(), "a proper end is a good end");
    }
    for node in &mut cluster.nodes {
        node.start();
    }
    cluster.wait_until_up().await;
    for node in &cluster.nodes {
        assert_eq!(node.client().count("k", Level::All).await.unwrap(), 100);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_may_come_back_at_other_addresses() {
    let mut cluster = Cluster::start(3, &[]).await;
    let mut first = cluster.nodes[0].client();
    committed(first.put("key", "before").await);
    assert!(cluster.nodes[2].terminate());
    committed(first.put("key", "while away").await);
    cluster.nodes[2].move_to_free_ports();
    cluster.nodes[2].start();
    cluster.wait_until_up().await;
    cluster.wait_for_hints().await;
    let mut third = cluster.nodes[2].client();
    assert_eq!(found(third.get("key", Level::One).await), Some("while away".into()));
    let status = third.status().await.unwrap();
    let new = &cluster.nodes[2].peer;
    assert!(
        status.nodes.len() == 3 && status.nodes.iter().any(|node| node.peer_address == *new),
        "{status:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_may_come_back_at_other_addresses() {
    let mut cluster = Cluster::start(3, &[]).await;
    committed(cluster.nodes[0].client().put("key", "value").await);
    for node in &mut cluster.nodes {
        assert!(node.terminate());
        node.move_to_free_ports();
    }
    // As a name that stands for all of them would say.
    let seeds: Vec<String> = cluster.nodes.iter().map(|node| node.peer.clone()).collect();
    for node in &mut cluster.nodes {
        while let Some(at) = node.arguments.iter().position(|argument| argument == "--seed") {
            node.arguments.drain(at..at + 2);
        }
        node.arguments.extend(["--seed".to_owned(), seeds.join(",")]);
        node.start();
    }
    cluster.wait_until_up().await;
    let mut third = cluster.nodes[2].client();
    assert_eq!(found(third.get("key", Level::All).await), Some("value".into()));
    let status = third.status().await.unwrap();
    assert!(
        seeds.iter().all(|seed| status.nodes.iter().any(|node| node.peer_address == *seed)),
        "{status:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_nodes_without_gossip_bear_two_that_are_gone() {
    let mut cluster = Cluster::start(5, &["--gossip", "off"]).await;
    let mut first = cluster.nodes[0].client();
    for key in 0..100 {
        committed(first.put(spread(key), "value").await);
    }
    cluster.nodes[3].kill();
    cluster.nodes[4].kill();
    // Arcs that had both of them wait; the others go on, and so does the register: three of five voters are there.
    let mut written = 0;
    for key in 100..200 {
        let reply = first.put(spread(key), "value").await.expect("an answer");
        written +=
            u32::from(matches!(reply.outcome, Some(god_proto::v1::write_reply::Outcome::Committed(_))));
    }
    assert!(written > 30, "{written} of 100 writes were acknowledged");
    let keyspace = god_proto::v1::CreateKeyspaceRequest { name: "another".to_owned(), ..Default::default() };
    let made = first.cluster.create_keyspace(keyspace).await.unwrap().into_inner();
    assert!(made.failed.is_none(), "{made:?}");
    for node in &mut cluster.nodes[3..] {
        node.start();
    }
    cluster.wait_until_up().await;
    for key in 0..100 {
        assert_eq!(found(first.get(spread(key), Level::All).await), Some("value".into()));
    }
}

/// Keys that lie in all parts of the order.
fn spread(key: u8) -> Vec<u8> {
    vec![key.wrapping_mul(37), key]
}
