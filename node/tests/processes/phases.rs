//! `kill -9` and cancels at each phase of operations, under load.

use crate::{
    client::Client,
    cluster::{Cluster, PATIENCE, Process, wait_for},
    load::Load,
    ring::{another, begin, judge, leave, operations, settled},
};
use god_proto::v1::{CancelOperationRequest, JoinWish, OperationPhase, OperationStatus, wish};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Waits for an operation that is in a phase. `None`: so many have ended before it was seen there.
async fn seen(client: &Client, phase: OperationPhase, ended: usize) -> Option<OperationStatus> {
    let deadline = Instant::now() + PATIENCE;
    let mut last = None;
    while Instant::now() < deadline {
        if let Ok(list) = operations(client).await {
            let in_phase = |it: &&OperationStatus| {
                it.operation.as_ref().is_some_and(|operation| operation.phase() == phase)
            };
            if let Some(found) = list.operations.iter().find(in_phase) {
                return Some(found.clone());
            }
            if list.ended.len() >= ended {
                return None;
            }
            last = Some(list);
        }
        sleep(Duration::from_millis(2)).await;
    }
    panic!("nothing is in the phase {phase:?}, and nothing ended, for {PATIENCE:?}: {last:?}");
}

/// Which process a node is.
async fn process_of(cluster: &Cluster, client: &Client, number: u32) -> usize {
    let status = client.clone().status().await.unwrap();
    let address = &status.nodes.iter().find(|node| node.number == number).unwrap().grpc_address;
    cluster.nodes.iter().position(|node| node.grpc == *address).unwrap()
}

/// Whom a kill is for.
#[derive(Clone, Copy, Debug)]
enum Victim {
    /// Who takes the steps.
    Driver,
    /// Who joins or leaves.
    Subject,
    /// Who only holds copies.
    Bystander,
}

/// Kills a node when an operation on the newest process is in a phase, and starts it again. Says whether it was seen.
async fn strike(cluster: &mut Cluster, victim: Victim, phase: OperationPhase, ended: usize) -> bool {
    let subject = cluster.nodes.len() - 1;
    let client = cluster.nodes[1].client();
    let Some(found) = seen(&client, phase, ended).await else { return false };
    let driver = process_of(cluster, &client, found.driver).await;
    let at = match victim {
        Victim::Driver => driver,
        Victim::Subject => subject,
        Victim::Bystander => (0..subject).find(|at| *at != driver).unwrap(),
    };
    cluster.nodes[at].kill();
    cluster.nodes[at].start();
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_may_die_at_any_phase_of_a_join_and_of_a_leave() {
    use OperationPhase::{Cleaning, Moving, Waiting};
    let mut cluster = Cluster::start(3, &[]).await;
    let clients: Vec<Client> = cluster.nodes.iter().map(Process::client).collect();
    let load = Load::start(4, &clients);
    let (mut ended, mut moving, mut others) = (0, 0, 0);
    for (joining, leaving) in [(Moving, Moving), (Waiting, Cleaning)] {
        for victim in [Victim::Driver, Victim::Subject, Victim::Bystander] {
            another(&mut cluster, &[]);
            let mut hits = vec![(joining, strike(&mut cluster, victim, joining, ended + 1).await)];
            ended += 1;
            settled(&clients[1], ended).await;
            let joined = cluster.nodes.last().unwrap().grpc.clone();
            let status = clients[1].clone().status().await.unwrap();
            let number = status.nodes.iter().find(|node| node.grpc_address == joined).unwrap().number;

            begin(&clients[1], &format!("leave-{number}"), leave(number)).await;
            hits.push((leaving, strike(&mut cluster, victim, leaving, ended + 1).await));
            ended += 1;
            let list = settled(&clients[1], ended).await;
            assert!(list.ended.iter().all(|it| it.refused.is_empty() && !it.cancelled), "{list:?}");
            cluster.nodes.pop().unwrap().kill();
            for (phase, hit) in hits {
                *(if phase == Moving { &mut moving } else { &mut others }) += usize::from(hit);
            }
        }
    }
    assert!(moving >= 5, "only {moving} of 6 kills met arcs that moved");
    assert!(others >= 2, "only {others} of 6 kills met an operation that waited or cleaned");
    cluster.wait_until_up().await;
    judge(&clients[0], load.stop().await.history).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_and_a_leave_may_be_cancelled_at_any_phase() {
    use OperationPhase::{Cleaning, Moving, Waiting};
    // So slow that a cancel comes before the end.
    let mut cluster = Cluster::start(4, &["--transfer-rate", "64KiB"]).await;
    let clients: Vec<Client> = cluster.nodes.iter().map(Process::client).collect();
    let load = Load::start(4, &clients);
    wait_for("the load to begin", || async {
        if load.acknowledged() > 300 { Ok(()) } else { Err(load.acknowledged().to_string()) }
    })
    .await;
    another(&mut cluster, &["--join", "manual", "--transfer-rate", "64KiB"]);
    let new = cluster.nodes[4].grpc.clone();
    let number = wait_for("the new node to be a member", || async {
        let status = clients[0].clone().status().await?;
        let found = status.nodes.iter().find(|node| node.grpc_address == new).map(|node| node.number);
        found.ok_or_else(|| "it is not".to_owned())
    })
    .await;
    let join = wish::Wish::Join(JoinWish { node: number });
    let wishes = [
        (Waiting, join.clone()),
        (Moving, join),
        (Waiting, leave(2)),
        (Moving, leave(2)),
        (Cleaning, leave(2)),
    ];
    let mut cancelled = 0;
    for (at, (phase, wish)) in wishes.into_iter().enumerate() {
        let id = format!("{phase:?}-{at}").to_lowercase();
        begin(&clients[0], &id, wish).await;
        let met = seen(&clients[0], phase, at + 1).await.is_some();
        let mut asked = clients[1].cluster.clone();
        let reply = asked.cancel_operation(CancelOperationRequest { id: id.clone() }).await.unwrap();
        let list = settled(&clients[0], at + 1).await;
        let last = list.ended.iter().find(|ended| ended.id == id).unwrap();
        assert_eq!(last.cancelled, reply.into_inner().failed.is_none(), "met {met}: {list:?}");
        cancelled += usize::from(last.cancelled);
        let status = clients[0].clone().status().await.unwrap();
        if last.cancelled {
            let active = |number: u32| {
                let node = status.nodes.iter().find(|node| node.number == number);
                node.is_some_and(|node| node.state != "leaving")
            };
            assert!(active(2) && active(number), "{status:?}");
        } else if !status.nodes.iter().any(|node| node.number == 2) {
            break;
        }
    }
    assert!(cancelled >= 2, "only {cancelled} cancels came before the end");
    judge(&clients[0], load.stop().await.history).await;
}
