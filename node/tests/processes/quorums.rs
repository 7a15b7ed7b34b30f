//! Quorums alone change: the copies stay where they are.

use crate::{
    client::{Client, KEYSPACE, committed},
    cluster::{Cluster, Process, wait_for},
    load::{Load, read_all},
    phases::{driver, follows, number_of},
    ring::{begin, judge, operations, settled},
};
use god_history::check_register;
use god_proto::v1::{Level, ListKeyspacesRequest, ReplicasWish, get_reply, wish, write_reply};

/// Reads that wait for a frozen node, so that it answers some of them before it hears of anything new.
const WAITING: usize = 64;

/// The number and the quorums of the tests' keyspace.
pub async fn quorums(client: &Client) -> (u32, (u32, u32)) {
    let listed = client.cluster.clone().list_keyspaces(ListKeyspacesRequest {}).await.unwrap().into_inner();
    let found = listed.keyspaces.into_iter().find(|keyspace| keyspace.name == KEYSPACE).unwrap();
    (found.id, (found.write_quorum, found.read_quorum))
}

/// A node that reads one copy, and is frozen, has yet to hear that more are read from now on, and fewer written later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fewer_acknowledge_is_read_by_who_was_frozen_while_quorums_changed_and_the_driver_was_killed() {
    let mut cluster = Cluster::prepare(3, &["--ping-interval", "200ms"]).await;
    cluster.found_with(3, 1).await;
    let clients: Vec<Client> = cluster.nodes.iter().map(Process::client).collect();
    let (keyspace, before) = quorums(&clients[0]).await;
    assert_eq!(before, (3, 1));
    let drives = driver(&cluster, &clients[0]).await;
    let [stays, late] = [1, 2].map(|next| (drives + next) % 3);
    let anybody = &clients[stays];
    let gone = number_of(anybody, &cluster.nodes[drives]).await;
    let mut reader = clients[late].clone();
    committed(reader.put("key", "old").await);
    // Nobody of the load asks the one that will be frozen.
    let load = Load::start(4, &[clients[drives].clone(), anybody.clone()]);
    wait_for("the load to begin", || async {
        if load.acknowledged() > 200 { Ok(()) } else { Err(load.acknowledged().to_string()) }
    })
    .await;

    cluster.nodes[late].freeze();
    for (id, write_quorum, read_quorum) in [("more-read", 3, 2), ("fewer-written", 2, 2)] {
        let wish = ReplicasWish { keyspace, replicas: 3, write_quorum, read_quorum };
        begin(anybody, id, wish::Wish::Replicas(wish)).await;
    }
    let waits = wait_for("a change to wait for who must hear, or to end", || async {
        let list = operations(anybody).await?;
        match list.operations.first() {
            Some(first) if first.blocked.contains("must hear of the new quorums") => Ok(true),
            Some(first) => Err(format!("{first:?}")),
            None => Ok(false),
        }
    })
    .await;
    let told = anybody.clone().put("key", "new").await;
    cluster.nodes[drives].kill();
    let reads: Vec<_> = (0..WAITING)
        .map(|_| {
            let mut reader = reader.clone();
            tokio::spawn(async move { reader.get("key", Level::Default).await })
        })
        .collect();
    cluster.nodes[late].thaw();
    let is_acknowledged =
        matches!(told.map(|told| told.outcome), Ok(Some(write_reply::Outcome::Committed(_))));
    for read in reads {
        // Whoever cannot say says nothing wrong.
        if let Ok(Some(get_reply::Outcome::Found(found))) = read.await.unwrap().map(|read| read.outcome) {
            assert!(!is_acknowledged || found.value == "new", "{found:?}, and \"new\" was acknowledged");
        }
    }
    assert!(waits, "it ended, and a node had not heard of it");

    // All must hear, who is away too, and somebody else asks them.
    follows(anybody, "more-read", gone).await;
    let list = operations(anybody).await.unwrap();
    assert!(list.ended.is_empty() && list.operations.len() == 2, "{list:?}");
    cluster.nodes[drives].start();
    let list = settled(anybody, 2).await;
    assert!(list.ended.iter().all(|ended| ended.refused.is_empty() && !ended.cancelled), "{list:?}");
    cluster.wait_until_up().await;
    for client in &clients {
        wait_for("a node to know the new quorums", || async {
            let (_, known) = quorums(client).await;
            if known == (2, 2) { Ok(()) } else { Err(format!("{known:?}")) }
        })
        .await;
    }
    let acknowledged = load.acknowledged();
    wait_for("the load to go on", || async {
        let more = load.acknowledged() - acknowledged;
        if more > 200 { Ok(()) } else { Err(more.to_string()) }
    })
    .await;
    let mut history = load.stop().await.history;
    // As few as are read now have what was acknowledged under any of the quorums.
    cluster.nodes[late].kill();
    read_all(&mut anybody.clone(), &mut history, Level::Default).await;
    check_register(&history).unwrap_or_else(|violation| panic!("{violation}"));
    cluster.nodes[late].start();
    cluster.wait_until_up().await;
    judge(anybody, history).await;
}
