//! The ring changes under load: nodes join, leave, and are replaced.

use crate::{
    client::{Client, committed, found},
    cluster::{Cluster, Process, wait_for},
    load::{Load, of_set, read_all, set_members},
};
use god_history::{Event, check_register, check_set};
use god_proto::v1::{
    BeginOperationRequest, CancelOperationRequest, LeaveWish, Level, ListOperationsReply,
    ListOperationsRequest, OperationPhase, RecoverRequest, ReplaceWish, Wish, wish,
};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// How many nodes were added to clusters.
static NAMES: AtomicUsize = AtomicUsize::new(1);

/// Asks for an operation, until some node takes it up.
pub async fn begin(client: &Client, id: &str, wish: wish::Wish) {
    let request = BeginOperationRequest { id: id.to_owned(), wish: Some(Wish { wish: Some(wish) }) };
    wait_for("an operation to be taken up", || {
        let (mut cluster, request) = (client.cluster.clone(), request.clone());
        async move {
            let reply = cluster.begin_operation(request).await.map_err(|status| status.to_string())?;
            reply.into_inner().failed.map_or(Ok(()), |failed| Err(failed.message))
        }
    })
    .await;
}

pub async fn operations(client: &Client) -> Result<ListOperationsReply, String> {
    let listed = client.cluster.clone().list_operations(ListOperationsRequest {}).await;
    Ok(listed.map_err(|status| status.to_string())?.into_inner())
}

/// Waits until nothing is under way, and no node holds what it should not.
pub async fn settled(client: &Client, ended: usize) -> ListOperationsReply {
    wait_for("operations to end, and misplaced data to go", || async {
        let list = operations(client).await?;
        if list.ended.len() < ended || !list.operations.is_empty() {
            return Err(format!("under way: {:?}; ended {:?}", list.operations, list.ended));
        }
        let status = client.clone().status().await?;
        let misplaced: Vec<u64> = status
            .nodes
            .iter()
            .map(|node| node.report.as_ref().map_or(u64::MAX, |report| report.misplaced_entries))
            .collect();
        match misplaced.iter().all(|entries| *entries == 0) {
            true => Ok(list),
            false => Err(format!("misplaced: {misplaced:?}")),
        }
    })
    .await
}

pub fn another(cluster: &mut Cluster, arguments: &[&str]) {
    let seed = cluster.nodes[1].peer.clone();
    another_of(cluster, &seed, arguments);
}

pub fn another_of(cluster: &mut Cluster, seed: &str, arguments: &[&str]) {
    // Never the name of one that left: its directory is refused.
    let name = format!("node-at-{}", cluster.nodes.len() + NAMES.fetch_add(1, Relaxed));
    let mut node = Process::new(cluster.path().join(&name), cluster.path().join(format!("{name}.log")));
    node.arguments.extend(["--memory", "64MiB", "--seed", seed].map(str::to_owned));
    node.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    node.start();
    cluster.nodes.push(node);
}

/// All that was acknowledged is there, at all replicas, and nothing else is.
pub async fn judge(client: &Client, mut history: Vec<Event>) {
    let mut client = client.clone();
    read_all(&mut client, &mut history, Level::All).await;
    check_register(&history).unwrap_or_else(|violation| panic!("{violation}"));
    let listed = client.keys("set/", Level::All).await.unwrap();
    check_set(&of_set(&history), &set_members(&listed)).unwrap_or_else(|violation| panic!("{violation}"));
    assert_eq!(client.count("set/", Level::All).await.unwrap(), listed.len() as u64);
    assert!(history.len() > 400, "{} operations prove little", history.len());
}

pub fn leave(node: u32) -> wish::Wish {
    wish::Wish::Leave(LeaveWish { node, lost: false })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_become_six_and_three_others_under_load_while_the_driver_is_killed() {
    let mut cluster = Cluster::start(3, &[]).await;
    let clients: Vec<Client> = cluster.nodes.iter().map(Process::client).collect();
    let load = Load::start(4, &clients);
    for _ in 0..3 {
        another(&mut cluster, &[]);
    }
    // The first voter drives; another one takes over.
    let last = cluster.nodes[5].client();
    wait_for("a join to move arcs", || async {
        let list = operations(&last).await?;
        let moves = |phase: OperationPhase| phase == OperationPhase::Moving;
        let phases: Vec<_> =
            list.operations.iter().filter_map(|it| it.operation.as_ref()).map(|it| it.phase()).collect();
        match phases.iter().any(|phase| moves(*phase)) || !list.ended.is_empty() {
            true => Ok(()),
            false => Err(format!("{phases:?}")),
        }
    })
    .await;
    cluster.nodes[0].kill();
    cluster.nodes[0].start();
    cluster.wait_until_up().await;
    settled(&last, 3).await;
    let status = last.clone().status().await.unwrap();
    assert!(status.nodes.iter().all(|node| node.share > 0.1), "not all hold a share: {status:?}");

    for (at, node) in [("first", 1), ("second", 2), ("third", 3)] {
        begin(&last, at, leave(node)).await;
    }
    let list = settled(&last, 6).await;
    assert!(list.ended.iter().all(|ended| ended.refused.is_empty()), "{list:?}");
    let status = last.clone().status().await.unwrap();
    let mut numbers: Vec<u32> = status.nodes.iter().map(|node| node.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [4, 5, 6]);
    judge(&last, load.stop().await.history).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_is_lost_is_replaced_under_load() {
    let mut cluster = Cluster::start(3, &[]).await;
    let clients: Vec<Client> = cluster.nodes.iter().map(Process::client).collect();
    let load = Load::start(4, &clients[..2]);
    wait_for("the load to begin", || async {
        if load.acknowledged() > 300 { Ok(()) } else { Err(load.acknowledged().to_string()) }
    })
    .await;
    // Nodes have their numbers in the order in which they joined.
    let status = clients[0].clone().status().await.unwrap();
    let victim = status.nodes.iter().find(|node| node.grpc_address == cluster.nodes[2].grpc).unwrap().number;
    // A number that was mistyped must not cost the data of a node that is there.
    let alive = wish::Wish::Leave(LeaveWish { node: victim, lost: true });
    let request = BeginOperationRequest { id: "mistyped".to_owned(), wish: Some(Wish { wish: Some(alive) }) };
    let refused = clients[0].cluster.clone().begin_operation(request).await.unwrap().into_inner().failed;
    assert!(refused.unwrap().message.contains("answers, so its data are not lost"));
    cluster.nodes[2].kill();
    std::fs::remove_dir_all(&cluster.nodes[2].data).unwrap();
    another(&mut cluster, &["--join", "manual"]);
    wait_for("the new node to be a member", || async {
        match clients[0].clone().status().await?.nodes.iter().any(|node| node.number == 4) {
            true => Ok(()),
            false => Err("it is not".to_owned()),
        }
    })
    .await;
    begin(&clients[0], "replace", wish::Wish::Replace(ReplaceWish { old: victim, new: 4, lost: true })).await;
    let list = settled(&clients[0], 1).await;
    assert!(list.ended.iter().all(|ended| ended.refused.is_empty() && !ended.cancelled), "{list:?}");
    judge(&clients[0], load.stop().await.history).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_lost_most_of_its_voters_is_recovered_and_filled_up_again() {
    let mut cluster = Cluster::start(3, &[]).await;
    let mut survivor = cluster.nodes[2].client();
    for key in 0..200 {
        committed(survivor.put(format!("kept/{key}"), "value").await);
    }
    for key in 0..200 {
        // A read at all replicas leaves them alike: nothing acknowledged is on the lost ones alone.
        assert!(found(survivor.get(format!("kept/{key}"), Level::All).await).is_some());
    }
    let status = survivor.status().await.unwrap();
    let number = |grpc: &str| status.nodes.iter().find(|node| node.grpc_address == *grpc).unwrap().number;
    let lost: Vec<u32> = cluster.nodes[..2].iter().map(|node| number(&node.grpc)).collect();
    for node in &mut cluster.nodes[..2] {
        node.kill();
        std::fs::remove_dir_all(&node.data).unwrap();
    }
    let recover = async |lost: &[u32], dry_run| {
        let request = RecoverRequest { lost: lost.to_vec(), dry_run };
        survivor.cluster.clone().recover(request).await.unwrap().into_inner()
    };
    let refused = recover(&lost[..1], false).await.failed.unwrap();
    assert!(refused.message.contains("do not answer"), "{refused:?}");
    let planned = recover(&lost, true).await;
    assert_eq!((planned.failed, planned.taken_by), (None, vec![]));
    assert!(planned.risks[0].arcs_at_risk > 0 && planned.risks[0].arcs_gone == 0, "{:?}", planned.risks);
    let done = recover(&lost, false).await;
    assert_eq!((done.failed, done.taken_by.len()), (None, 1));

    let seed = cluster.nodes[2].peer.clone();
    let mut new = Vec::new();
    for _ in 0..2 {
        another_of(&mut cluster, &seed, &["--join", "manual"]);
        let grpc = &cluster.nodes.last().unwrap().grpc;
        let number = wait_for("a new node to be a member", || async {
            let status = survivor.clone().status().await?;
            let member = status.nodes.iter().find(|node| node.grpc_address == *grpc);
            member.map(|node| node.number).ok_or_else(|| "it is not".to_owned())
        });
        new.push(number.await);
    }
    assert!(
        new.iter().all(|number| *number > 1_000),
        "what the lost voters may have given is not given: {new:?}"
    );
    for (old, new) in lost.iter().zip(new) {
        let replace = ReplaceWish { old: *old, new, lost: true };
        begin(&survivor, &format!("replace-{old}"), wish::Wish::Replace(replace)).await;
    }
    let list = settled(&survivor, 2).await;
    assert!(list.ended.iter().all(|ended| ended.refused.is_empty() && !ended.cancelled), "{list:?}");
    wait_for("all nodes to be there", || async {
        let status = survivor.clone().status().await?;
        let states: Vec<&str> = status.nodes.iter().map(|node| node.state.as_str()).collect();
        if states == ["up"; 3] { Ok(()) } else { Err(format!("{states:?}")) }
    })
    .await;
    assert_eq!(survivor.count("kept/", Level::All).await.unwrap(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leave_that_is_cancelled_leaves_all_as_it_was() {
    let cluster = Cluster::start(4, &[]).await;
    let clients: Vec<Client> = cluster.nodes.iter().map(Process::client).collect();
    let load = Load::start(4, &clients);
    wait_for("the load to begin", || async {
        if load.acknowledged() > 300 { Ok(()) } else { Err(load.acknowledged().to_string()) }
    })
    .await;
    begin(&clients[0], "leave", leave(2)).await;
    let request = CancelOperationRequest { id: "leave".to_owned() };
    let failed = clients[1].cluster.clone().cancel_operation(request).await.unwrap().into_inner().failed;
    let list = settled(&clients[0], 1).await;
    // It may have ended before it was cancelled; then it is refused.
    assert_eq!(list.ended[0].cancelled, failed.is_none(), "{failed:?} {list:?}");
    let status = clients[0].clone().status().await.unwrap();
    assert_eq!(status.nodes.len(), if failed.is_none() { 4 } else { 3 }, "{status:?}");
    assert!(status.nodes.iter().all(|node| node.state != "leaving"), "{status:?}");
    judge(&clients[0], load.stop().await.history).await;
}
