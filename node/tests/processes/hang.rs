//! A node that is there and does nothing.

use crate::{
    client::TIMEOUT,
    cluster::{Cluster, wait_for},
    doors::http,
    load::{Load, read_all},
};
use god_history::check_register;
use god_proto::v1::Level;
use std::time::Duration;

/// DEADLINE: a frozen node costs a deadline, never a hang; and the others go on without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_end_by_their_deadline_while_a_node_is_frozen() {
    let mut cluster = Cluster::prepare_alone(3, &[]).await;
    cluster.found().await;
    let others: Vec<_> = cluster.nodes[..2].iter().map(|node| node.client()).collect();
    let load = Load::start(8, &others);
    let until = async |load: &Load, more: u64| {
        let goal = load.acknowledged() + more;
        wait_for("writes", || async {
            if load.acknowledged() >= goal { Ok(()) } else { Err(load.acknowledged().to_string()) }
        })
        .await;
    };
    until(&load, 200).await;
    cluster.nodes[2].freeze();
    until(&load, 500).await;
    cluster.nodes[2].thaw();
    until(&load, 200).await;
    cluster.nodes[2].freeze();
    until(&load, 200).await;
    cluster.nodes[2].thaw();
    let mut evidence = load.stop().await;
    // The deadline, and what a busy machine adds; far below what a hang would be cut at.
    let limit = TIMEOUT + Duration::from_secs(1);
    let longest = Duration::from_micros(evidence.longest_us);
    assert!(longest < limit, "a call took {longest:?}, and was told to end by {TIMEOUT:?}");
    cluster.wait_for_hints().await;
    read_all(&mut others[0].clone(), &mut evidence.history, Level::All).await;
    check_register(&evidence.history).unwrap_or_else(|violation| panic!("{violation}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_calls_say_so_by_their_deadline() {
    let mut cluster = Cluster::prepare_alone(3, &[]).await;
    cluster.found().await;
    cluster.nodes[1].freeze();
    cluster.nodes[2].freeze();
    let mut first = cluster.nodes[0].client();
    for key in 0..4 {
        let began = std::time::Instant::now();
        let write = first.put(format!("k{key}"), "value").await.expect("an answer, if not a good one");
        let outcome = write.outcome.expect("an outcome");
        assert!(
            !matches!(outcome, god_proto::v1::write_reply::Outcome::Committed(_)),
            "one of three acknowledged for two"
        );
        let read = first.get(format!("k{key}"), Level::Quorum).await.expect("an answer, if not a good one");
        assert!(matches!(read.outcome, Some(god_proto::v1::get_reply::Outcome::Failed(_))), "{read:?}");
        assert!(began.elapsed() < 2 * TIMEOUT + Duration::from_secs(1));
    }
    let says = async |word: &str| {
        wait_for("the node to say whether it can serve", || async {
            let said = http(&cluster.nodes[0].http, "/readyz").await;
            if said.contains(word) { Ok(()) } else { Err(said) }
        })
        .await;
    };
    says("no quorum answers for any arc of this node: node 2, node 3 cannot be reached").await;
    cluster.nodes[1].thaw();
    says("HTTP/1.1 200").await;
    cluster.nodes[2].thaw();
}
