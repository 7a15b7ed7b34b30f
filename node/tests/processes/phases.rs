//! `kill -9` and cancels at each phase of operations, under load.
//!
//! An operation stays in a phase while a node that it needs is frozen (SIGSTOP): so phases are met, not hoped for.

use crate::{
    client::{Client, committed},
    cluster::{Cluster, Process, wait_for},
    load::Load,
    ring::{another, begin, judge, leave, operations, settled},
};
use god_proto::v1::{CancelOperationRequest, JoinWish, OperationPhase, OperationStatus, wish};
use std::{collections::BTreeMap, time::Duration};

use OperationPhase::{Cancelling, Cleaning, Moving, Waiting};

/// Slow enough that arcs of [`FILLED`] are met while they move; and quick to see that a node is away.
const SLOW: [&str; 4] = ["--transfer-rate", "64KiB", "--ping-interval", "200ms"];
/// As [`SLOW`], and only told to join.
const NEW: [&str; 6] = ["--join", "manual", SLOW[0], SLOW[1], SLOW[2], SLOW[3]];
/// Keys beside those of the load, and the bytes of their values.
const FILLED: (u32, usize) = (1_000, 400);
/// Between two requests of a client: what moves stays about as much throughout.
const REST: Duration = Duration::from_millis(10);

/// Strikes that met their phase.
type Hits = BTreeMap<OperationPhase, usize>;

async fn status_of(client: &Client, id: &str) -> Result<Option<OperationStatus>, String> {
    let list = operations(client).await?;
    let mine = |it: &OperationStatus| it.operation.as_ref().is_some_and(|operation| operation.id == id);
    Ok(list.operations.into_iter().find(mine))
}

/// Waits until an operation is in a phase, and far enough in it. Its end before that is a failure.
async fn seen(
    client: &Client,
    id: &str,
    phase: OperationPhase,
    enough: fn(&OperationStatus) -> bool,
) -> OperationStatus {
    wait_for("an operation to be in a phase", || async {
        let list = operations(client).await?;
        assert!(
            list.ended.iter().all(|ended| ended.id != id),
            "{id} ended before {phase:?} was seen: {list:?}"
        );
        let status = status_of(client, id).await?.ok_or_else(|| format!("there is no {id}"))?;
        let now = status.operation.as_ref().unwrap().phase();
        match now == phase && enough(&status) {
            true => Ok(status),
            false => Err(format!("{id} is in {now:?}, {} of {} arcs", status.arcs_done, status.arcs_total)),
        }
    })
    .await
}

fn any(_: &OperationStatus) -> bool {
    true
}

/// A load on nodes that hold something else, too.
async fn loaded(clients: &[Client]) -> Load {
    let mut first = clients[0].clone();
    for key in 0..FILLED.0 {
        committed(first.put(format!("filled/{key:04}"), vec![b'x'; FILLED.1]).await);
    }
    let load = Load::paced(4, clients, REST);
    wait_for("the load to begin", || async {
        if load.acknowledged() > 50 { Ok(()) } else { Err(load.acknowledged().to_string()) }
    })
    .await;
    load
}

/// The number of a process.
pub async fn number_of(client: &Client, node: &Process) -> u32 {
    wait_for("a node to be a member", || async {
        let status = client.clone().status().await?;
        let found = status.nodes.iter().find(|it| it.grpc_address == node.grpc).map(|it| it.number);
        found.ok_or_else(|| format!("{} is not", node.grpc))
    })
    .await
}

/// Which process drives: the first voter.
pub async fn driver(cluster: &Cluster, client: &Client) -> usize {
    let voter = wait_for("voters that are up", || async {
        let nodes = client.clone().status().await?.nodes;
        let first = nodes.into_iter().filter(|it| it.voter && it.state == "up").min_by_key(|it| it.number);
        first.ok_or_else(|| "there is none".to_owned())
    })
    .await;
    cluster.nodes.iter().position(|node| node.grpc == voter.grpc_address).unwrap()
}

/// Whom a kill is for.
#[derive(Clone, Copy, Debug)]
enum Victim {
    /// Who takes the steps. It stays away until somebody else takes them.
    Driver,
    /// Who joins or leaves.
    Subject,
    /// Who only holds copies.
    Bystander,
}

/// A cluster in which operations on the newest process are struck.
struct Struck {
    cluster: Cluster,
    hits: Hits,
    /// Drivers that somebody else followed on while they were away.
    followed: usize,
}

impl Struck {
    fn subject(&self) -> usize {
        self.cluster.nodes.len() - 1
    }

    /// Begins an operation, kills a node when it is in a phase, and starts that node again.
    async fn strike(&mut self, id: &str, wish: wish::Wish, victim: Victim, phase: OperationPhase) {
        let anybody = self.cluster.nodes[1].client();
        let subject = self.subject();
        let driver = driver(&self.cluster, &anybody).await;
        let drives = number_of(&anybody, &self.cluster.nodes[driver]).await;
        let mut others = (0..subject).filter(|at| *at != driver);
        let (bystander, asked) = (others.next().unwrap(), others.next().unwrap());
        let client = self.cluster.nodes[asked].client();
        let at = match victim {
            Victim::Driver => driver,
            Victim::Subject => subject,
            Victim::Bystander => bystander,
        };
        // Who plans waits a while for all to say what they hold; and who is to hand over, or to take back, does not.
        let frozen = match phase {
            Waiting => Some(bystander),
            Cleaning | Cancelling => Some(subject),
            Moving => None,
        };
        if phase == Waiting {
            self.cluster.nodes[bystander].freeze();
        }
        begin(&client, id, wish).await;
        if matches!(phase, Cleaning | Cancelling) {
            seen(&client, id, Moving, |it| it.arcs_done > 0).await;
            self.cluster.nodes[subject].freeze();
        }
        if phase == Cancelling {
            let request = CancelOperationRequest { id: id.to_owned() };
            wait_for("a cancel to be taken up", || {
                let (mut cluster, request) = (client.cluster.clone(), request.clone());
                async move {
                    let reply =
                        cluster.cancel_operation(request).await.map_err(|status| status.to_string())?;
                    reply.into_inner().failed.map_or(Ok(()), |failed| Err(failed.message))
                }
            })
            .await;
        }
        let enough: fn(&OperationStatus) -> bool =
            if phase == Moving { |it| it.arcs_moving > 0 } else { any };
        seen(&client, id, phase, enough).await;
        self.cluster.nodes[at].kill();
        *self.hits.entry(phase).or_default() += 1;
        // Two voters of three decide; with another one away they would not.
        if phase == Waiting && bystander != at {
            self.cluster.nodes[bystander].thaw();
        }
        if let Victim::Driver = victim {
            self.followed += usize::from(follows(&client, id, drives).await);
        }
        self.cluster.nodes[at].start();
        if let Some(frozen) = frozen.filter(|frozen| *frozen != at && phase != Waiting) {
            self.cluster.nodes[frozen].thaw();
        }
    }
}

/// Waits until somebody else drives. Says whether that was seen: what has ended meanwhile names nobody.
pub async fn follows(client: &Client, id: &str, gone: u32) -> bool {
    wait_for("another node to drive", || async {
        match status_of(client, id).await? {
            Some(status) if status.driver == gone => Err(format!("node {gone} drives")),
            Some(_) => Ok(true),
            None => Ok(false),
        }
    })
    .await
}

/// Kills it at every phase of a join, of a leave and of a cancel.
async fn dies(victim: Victim) {
    let cluster = Cluster::start(3, &SLOW).await;
    let clients: Vec<Client> = cluster.nodes.iter().map(Process::client).collect();
    let load = loaded(&clients).await;
    let mut struck = Struck { cluster, hits: Hits::new(), followed: 0 };
    let (mut ended, mut cancelled) = (0, 0);
    for (joins, leaves, cancels) in [(Moving, Cleaning, true), (Waiting, Moving, false)] {
        another(&mut struck.cluster, &NEW);
        let node = number_of(&clients[1], struck.cluster.nodes.last().unwrap()).await;
        let join = wish::Wish::Join(JoinWish { node });
        struck.strike(&format!("join-{node}"), join, victim, joins).await;
        ended += 1;
        settled(&clients[1], ended).await;
        struck.cluster.wait_until_up().await;
        if cancels {
            struck.strike(&format!("cancel-{node}"), leave(node), victim, Cancelling).await;
            (ended, cancelled) = (ended + 1, cancelled + 1);
            settled(&clients[1], ended).await;
            struck.cluster.wait_until_up().await;
        }
        struck.strike(&format!("leave-{node}"), leave(node), victim, leaves).await;
        ended += 1;
        let list = settled(&clients[1], ended).await;
        assert!(list.ended.iter().all(|it| it.refused.is_empty()), "{list:?}");
        assert_eq!(list.ended.iter().filter(|it| it.cancelled).count(), cancelled, "{list:?}");
        struck.cluster.nodes.pop().unwrap().kill();
        struck.cluster.wait_until_up().await;
    }
    let hits = &struck.hits;
    assert_eq!(*hits, Hits::from([(Waiting, 1), (Moving, 2), (Cleaning, 1), (Cancelling, 1)]));
    let least = if matches!(victim, Victim::Driver) { 3 } else { 0 };
    assert!(struck.followed >= least, "only {} drivers were followed on while away", struck.followed);
    judge(&clients[0], load.stop().await.history).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_driver_may_die_at_any_phase_of_a_join_of_a_leave_and_of_a_cancel() {
    dies(Victim::Driver).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_or_leaves_may_die_at_any_phase_of_a_join_of_a_leave_and_of_a_cancel() {
    dies(Victim::Subject).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_only_holds_copies_may_die_at_any_phase_of_a_join_of_a_leave_and_of_a_cancel() {
    dies(Victim::Bystander).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_and_a_leave_may_be_cancelled_at_any_phase() {
    let mut cluster = Cluster::start(4, &SLOW).await;
    let clients: Vec<Client> = cluster.nodes.iter().map(Process::client).collect();
    // Nobody asks the one that will be frozen.
    let load = loaded(&clients[..3]).await;
    another(&mut cluster, &NEW);
    let new = number_of(&clients[0], &cluster.nodes[4]).await;
    let leaver = number_of(&clients[0], &cluster.nodes[3]).await;
    let mut hits = Hits::new();
    let mut ended = 0;
    let cancel = async |id: &str| {
        let request = CancelOperationRequest { id: id.to_owned() };
        let reply = clients[1].cluster.clone().cancel_operation(request).await.unwrap();
        assert_eq!(reply.into_inner().failed, None, "{id}");
    };
    let join = wish::Wish::Join(JoinWish { node: new });
    // One waits for the other, which moves.
    for (first, then) in [("join", "leave"), ("leave", "join")] {
        let wish = |which: &str| if which == "join" { join.clone() } else { leave(leaver) };
        let (moves, waits) = (format!("{first}-that-moves"), format!("{then}-that-waits"));
        begin(&clients[0], &moves, wish(first)).await;
        begin(&clients[0], &waits, wish(then)).await;
        seen(&clients[0], &moves, Moving, |it| it.arcs_moving > 0).await;
        for (id, phase) in [(&waits, Waiting), (&moves, Moving)] {
            seen(&clients[0], id, phase, any).await;
            cancel(id).await;
            *hits.entry(phase).or_default() += 1;
        }
        ended += 2;
        all_there(&clients[0], ended, &[leaver, new]).await;
    }
    begin(&clients[0], "leave-that-cleans", leave(leaver)).await;
    seen(&clients[0], "leave-that-cleans", Moving, |it| it.arcs_done > 0).await;
    cluster.nodes[3].freeze();
    seen(&clients[0], "leave-that-cleans", Cleaning, any).await;
    cancel("leave-that-cleans").await;
    *hits.entry(Cleaning).or_default() += 1;
    // Once more, while it is being undone: that is once.
    seen(&clients[0], "leave-that-cleans", Cancelling, any).await;
    cancel("leave-that-cleans").await;
    *hits.entry(Cancelling).or_default() += 1;
    cluster.nodes[3].thaw();
    all_there(&clients[0], ended + 1, &[leaver, new]).await;
    assert_eq!(hits, Hits::from([(Waiting, 2), (Moving, 2), (Cleaning, 1), (Cancelling, 1)]));
    judge(&clients[0], load.stop().await.history).await;
}

/// Waits for the end of operations, all of which were cancelled, so that nobody has left.
async fn all_there(client: &Client, ended: usize, nodes: &[u32]) {
    let list = settled(client, ended).await;
    // Nodes that have grown uneven meanwhile make themselves even.
    let asked = list.ended.iter().filter(|it| !it.id.starts_with("rebalance-"));
    assert_eq!(asked.clone().count(), ended, "{list:?}");
    assert!(asked.clone().all(|it| it.cancelled && it.refused.is_empty()), "{list:?}");
    let status = client.clone().status().await.unwrap();
    for number in nodes {
        let node = status.nodes.iter().find(|node| node.number == *number);
        assert!(node.is_some_and(|node| node.state != "leaving"), "node {number}: {status:?}");
    }
}
