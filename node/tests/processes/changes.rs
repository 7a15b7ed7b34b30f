//! Changes of the ring with all nodes alive: a replace, other weights and zones, a cluster that grows from one node.

use crate::{
    client::{Client, KEYSPACE, committed, found},
    cluster::{Cluster, Process, wait_for},
    load::Load,
    ring::{another, begin, judge, settled},
};
use god_proto::v1::{
    CreateKeyspaceRequest, InitRequest, Level, Partitioner, ReplaceWish, ReweightWish, RezoneWish,
    RingDocument, RingRequest, wish,
};
use std::collections::BTreeSet;

async fn ring(client: &Client) -> Result<RingDocument, String> {
    let reply = client.cluster.clone().ring(RingRequest {}).await.map_err(|status| status.to_string())?;
    let reply = reply.into_inner();
    reply.ring.ok_or_else(|| format!("{:?}", reply.failed))
}

/// The replicas of each arc of the tests' keyspace.
fn replicas(ring: &RingDocument) -> Vec<&[u32]> {
    let id = ring.keyspaces.iter().find(|keyspace| keyspace.name == KEYSPACE).unwrap().id;
    let mine = ring.arcs.iter().filter(|arc| arc.start.starts_with(&id.to_be_bytes()));
    mine.map(|arc| &*arc.replicas).collect()
}

async fn number_of(client: &Client, node: &Process) -> u32 {
    wait_for("a node to be a member", || async {
        let status = client.clone().status().await?;
        let member = status.nodes.iter().find(|it| it.grpc_address == node.grpc);
        member.map(|it| it.number).ok_or_else(|| format!("{} is not", node.grpc))
    })
    .await
}

async fn loaded(load: &Load) {
    wait_for("the load to begin", || async {
        if load.acknowledged() > 300 { Ok(()) } else { Err(load.acknowledged().to_string()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn six_nodes_all_come_to_name_the_epoch_of_a_changed_ring() {
    let cluster = Cluster::start(6, &[]).await;
    let clients: Vec<Client> = cluster.nodes.iter().map(Process::client).collect();
    committed(clients[5].clone().put("live", "from now on").await);
    let before = ring(&clients[0]).await.unwrap().epoch;
    begin(&clients[3], "heavier", wish::Wish::Reweight(ReweightWish { node: 1, weight: 2.0 })).await;
    let ended = settled(&clients[0], 1).await.ended.remove(0);
    assert!(ended.refused.is_empty() && ended.epoch > before, "{ended:?}");
    for client in &clients {
        let known = wait_for("a node to know the changed ring", || async {
            let known = ring(client).await?;
            if known.epoch >= ended.epoch { Ok(known) } else { Err(known.epoch.to_string()) }
        })
        .await;
        let weight = known.nodes.iter().find(|node| node.number == 1).unwrap().weight;
        assert!((weight - 2.0).abs() < 1e-9, "{} has it at {weight}", client.server());
    }
    let judged = clients[0].clone().status().await.unwrap();
    let epochs: BTreeSet<u64> =
        judged.nodes.iter().map(|node| node.report.as_ref().map_or(0, |report| report.epoch)).collect();
    assert!(epochs.iter().all(|epoch| *epoch >= ended.epoch), "{epochs:?} after {}", ended.epoch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_up_is_replaced_under_load_and_hands_all_over() {
    let mut cluster = Cluster::start(3, &[]).await;
    let clients: Vec<Client> = cluster.nodes.iter().map(Process::client).collect();
    let load = Load::start(4, &clients);
    loaded(&load).await;
    another(&mut cluster, &["--join", "manual"]);
    let new = number_of(&clients[0], &cluster.nodes[3]).await;
    let old = number_of(&clients[0], &cluster.nodes[2]).await;
    begin(&clients[0], "replace", wish::Wish::Replace(ReplaceWish { old, new, lost: false })).await;
    let list = settled(&clients[0], 1).await;
    assert!(list.ended[0].refused.is_empty() && !list.ended[0].cancelled, "{list:?}");
    let status = clients[0].clone().status().await.unwrap();
    let members: BTreeSet<u32> = status.nodes.iter().map(|node| node.number).collect();
    assert!(members.contains(&new) && !members.contains(&old) && members.len() == 3, "{members:?}");
    assert!(status.departed.iter().all(|node| node.handed_over), "{:?}", status.departed);
    assert_eq!(status.departed.len(), 1);
    judge(&clients[0], load.stop().await.history).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_moved_to_another_zone_under_load_and_copies_stay_in_three() {
    let mut cluster = Cluster::prepare(4, &[]).await;
    for (node, zone) in cluster.nodes.iter_mut().zip(["a", "b", "c", "c"]) {
        node.arguments.extend(["--zone", zone].map(str::to_owned));
    }
    cluster.found().await;
    let clients: Vec<Client> = cluster.nodes.iter().map(Process::client).collect();
    let load = Load::start(4, &clients);
    loaded(&load).await;
    let mut numbers = Vec::new();
    for node in &cluster.nodes {
        numbers.push(number_of(&clients[0], node).await);
    }
    let &[first, second, third, fourth] = &numbers[..] else { panic!("{numbers:?}") };
    let before = ring(&clients[0]).await.unwrap();
    let beside = |ring: &RingDocument| {
        replicas(ring).iter().filter(|all| all.contains(&first) && all.contains(&fourth)).count()
    };
    assert!(beside(&before) > 0, "nothing would have to move: {:?}", replicas(&before));
    begin(&clients[0], "rezone", wish::Wish::Rezone(RezoneWish { node: fourth, zone: "a".to_owned() })).await;
    let list = settled(&clients[0], 1).await;
    assert!(list.ended[0].refused.is_empty() && !list.ended[0].cancelled, "{list:?}");
    let after = ring(&clients[0]).await.unwrap();
    assert_eq!(after.nodes.iter().find(|node| node.number == fourth).unwrap().zone, "a");
    assert_eq!(beside(&after), 0, "two copies are in one zone: {:?}", replicas(&after));
    let all = replicas(&after);
    assert!(all.iter().all(|arc| arc.contains(&second) && arc.contains(&third)), "{all:?}");
    judge(&clients[0], load.stop().await.history).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_keyspace_that_had_one_copy_gets_three_by_itself_when_two_nodes_join() {
    let mut cluster = Cluster::prepare(3, &[]).await;
    cluster.nodes[0].start();
    let mut first = cluster.nodes[0].client();
    let init = InitRequest {
        replicas: 3,
        write_quorum: 1,
        read_quorum: 3,
        virtual_nodes: 4,
        under_replicated: true,
    };
    wait_for("the cluster to be founded", || {
        let mut first = first.clone();
        async move { first.init(init).await }
    })
    .await;
    let keyspace = CreateKeyspaceRequest {
        name: KEYSPACE.to_owned(),
        partitioner: Partitioner::Ordered.into(),
        replicas: 3,
        write_quorum: 1,
        read_quorum: 3,
        under_replicated: true,
        ..CreateKeyspaceRequest::default()
    };
    let created = first.cluster.clone().create_keyspace(keyspace).await.unwrap().into_inner();
    assert!(created.failed.is_none(), "{created:?}");
    for key in 0..500 {
        committed(first.put(format!("alone/{key:04}"), "one copy").await);
    }
    let alone = ring(&first).await.unwrap();
    assert!(replicas(&alone).iter().all(|arc| arc.len() == 1), "{:?}", replicas(&alone));
    // It is written to while its copies are made.
    let others = cluster.nodes[1..].iter_mut();
    others.for_each(Process::start);
    let mut meanwhile = BTreeSet::new();
    let grown = wait_for("all arcs to have three copies", || {
        let key = format!("meanwhile/{:06}", meanwhile.len());
        meanwhile.insert(key.clone());
        let first = &first;
        async move {
            committed(first.clone().put(key, "while copies are made").await);
            let grown = ring(first).await?;
            let few = replicas(&grown).iter().filter(|arc| arc.len() < 3).count();
            let rests = grown.operations.is_empty();
            if few == 0 && rests { Ok(grown) } else { Err(format!("{few} arcs have not")) }
        }
    })
    .await;
    assert_eq!(grown.nodes.len(), 3);
    assert!(grown.keyspaces.iter().any(|keyspace| keyspace.name == KEYSPACE && keyspace.live));
    cluster.wait_until_up().await;
    for node in &cluster.nodes {
        let mut client = node.client();
        assert_eq!(client.count("alone/", Level::All).await, Ok(500), "{}", node.grpc);
        let listed = client.keys("meanwhile/", Level::All).await.unwrap();
        assert!(listed.iter().eq(meanwhile.iter()), "{}: {listed:?} are not {meanwhile:?}", node.grpc);
    }
    assert!(found(first.get("alone/0499", Level::All).await).is_some());
    // No node is needed any more to read what it took alone.
    cluster.nodes[0].kill();
    let mut second = cluster.nodes[1].client();
    for key in [0, 250, 499] {
        let read = found(second.get(format!("alone/{key:04}"), Level::One).await);
        assert!(read.is_some(), "alone/{key:04} was on the first node only");
    }
}
