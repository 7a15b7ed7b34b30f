//! Clocks that disagree. The library libfaketime sets a process's wall clock, and leaves the one that only counts.

use crate::{
    client::{committed, found},
    cluster::{Cluster, wait_for},
    load::{Load, read_all},
};
use god_history::check_register;
use god_proto::v1::{Level, write_reply};
use std::path::Path;

const LIBRARY: &str = "libfaketimeMT.so.1";

/// Where Debian's package `faketime` has it.
fn library() -> String {
    let places =
        ["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime", "/usr/lib/faketime"];
    let path = places.iter().map(|place| Path::new(place).join(LIBRARY)).find(|path| path.exists());
    path.expect("install the package faketime (.ci/setup test)").to_string_lossy().into_owned()
}

/// Puts a node's clock so many seconds ahead.
fn set_ahead(cluster: &mut Cluster, node: usize, seconds: &str) {
    let variables = [
        ("LD_PRELOAD", library()),
        ("FAKETIME", seconds.to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    cluster.nodes[node].variables = variables.map(|(name, value)| (name.to_owned(), value)).to_vec();
}

/// Some key is written through one node and then another in turn: the later write must win, whatever the clocks say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_400_ms_apart_order_writes_by_cause() {
    let mut cluster = Cluster::prepare(3, &[]).await;
    set_ahead(&mut cluster, 0, "+0.2");
    set_ahead(&mut cluster, 1, "-0.2");
    cluster.found().await;
    let mut clients: Vec<_> = cluster.nodes.iter().map(|node| node.client()).collect();
    let mut last = None;
    for turn in 0..300 {
        let version = committed(clients[turn % 3].put("key", turn.to_string()).await);
        assert!(last < Some(version), "write {turn} has version {version}, after {last:?}");
        last = Some(version);
        let value = found(clients[(turn + 1) % 3].get("key", Level::Quorum).await);
        assert_eq!(value, Some(turn.to_string().into()), "a write was silently lost");
    }
    let load = Load::start(6, &clients);
    wait_for("the load", || async {
        if load.acknowledged() > 1_000 { Ok(()) } else { Err("few".to_owned()) }
    })
    .await;
    let mut evidence = load.stop().await;
    read_all(&mut clients[0], &mut evidence.history, Level::All).await;
    check_register(&evidence.history).unwrap_or_else(|violation| panic!("{violation}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_clock_is_2_s_ahead_says_so_and_is_not_ready() {
    for ahead in ["+2", "-2"] {
        let mut cluster = Cluster::start(3, &[]).await;
        let mut first = cluster.nodes[0].client();
        committed(first.put("key", "before").await);
        assert!(cluster.nodes[2].terminate());
        set_ahead(&mut cluster, 2, ahead);
        cluster.nodes[2].start();
        let third = cluster.nodes[2].peer.clone();
        let side = if ahead == "+2" { "ahead of" } else { "behind" };
        wait_for("the node to say that its clock is off", || {
            let (mut first, third) = (first.clone(), third.clone());
            async move {
                let status = first.status().await?;
                let third =
                    status.nodes.iter().find(|node| node.peer_address == third).ok_or("no such node")?;
                let says = third
                    .reasons
                    .iter()
                    .any(|reason| reason.contains(side) && reason.contains("set its clock"));
                match says && third.state == "unready" {
                    true => Ok(()),
                    false => Err(format!("{} {:?}", third.state, third.reasons)),
                }
            }
        })
        .await;
        let ready = crate::doors::http(&cluster.nodes[2].http, "/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains(side), "{ready}");
        // The two others are ready, and serve; what they acknowledge is not shadowed by the one that is off.
        for turn in 0..50 {
            let client = &mut cluster.nodes[turn % 2].client();
            committed(client.put("key", turn.to_string()).await);
            assert_eq!(found(client.get("key", Level::Quorum).await), Some(turn.to_string().into()));
        }
        let ready = crate::doors::http(&cluster.nodes[0].http, "/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_clock_is_an_hour_ahead_poisons_no_key_and_writes_once_it_is_right() {
    let mut cluster = Cluster::start(3, &[]).await;
    committed(cluster.nodes[0].client().put("key", "before").await);
    assert!(cluster.nodes[2].terminate());
    set_ahead(&mut cluster, 2, "+3600");
    cluster.nodes[2].start();
    let mut clients: Vec<_> = cluster.nodes.iter().map(|node| node.client()).collect();
    wait_for("the node to read", || {
        let mut third = clients[2].clone();
        async move { third.get("key", Level::Quorum).await.map(|_| ()) }
    })
    .await;
    for turn in 0..10 {
        let told = clients[2].put("key", "ahead of its time").await;
        let outcome = told.as_ref().ok().and_then(|reply| reply.outcome.as_ref());
        assert!(!matches!(outcome, Some(write_reply::Outcome::Committed(_))), "{told:?}");
        committed(clients[turn % 2].put("key", turn.to_string()).await);
        for client in &mut clients {
            assert_eq!(found(client.get("key", Level::Quorum).await), Some(turn.to_string().into()));
        }
    }
    assert!(cluster.nodes[2].terminate());
    cluster.nodes[2].variables.clear();
    cluster.nodes[2].start();
    cluster.wait_until_up().await;
    let mut clients: Vec<_> = cluster.nodes.iter().map(|node| node.client()).collect();
    committed(clients[2].put("key", "after").await);
    for client in &mut clients {
        assert_eq!(found(client.get("key", Level::Quorum).await), Some("after".into()));
    }
}
