//! A node that answers pings and nothing else keeps no arcs waiting but its own.

use super::*;
use crate::{membership::PeerState, quorum::tests::world::ORDERED_ID};
use futures::{FutureExt, future::BoxFuture};
use std::collections::BTreeMap;

#[tokio::test(start_paused = true)]
async fn arcs_of_a_node_that_hangs_keep_the_others_from_no_purge() {
    let mut document = document(4, 5);
    document.arcs[0].replicas = vec![1, 2, 4];
    // Of node 3 more than are compared in one look.
    document.arcs.truncate(2);
    for n in 1..20_u64 {
        let start = Position::of_ordered_bound(ORDERED_ID, format!("k{n:02}").as_bytes()).into_bytes();
        let arc = document.arcs[1].clone();
        document.arcs.push(v1::Arc { id: 2 + n, start, ..arc });
    }
    document.next_arc = 22;
    let cluster = Cluster::with(&ring(document), HintSettings::default());
    let upkeep = upkeep(&cluster, 1);
    let syncs = begins(&upkeep, |upkeep| async move { upkeep.sync().await });
    sleep(Duration::from_secs(1)).await;
    let (old, of_node_3) = (position("k"), ordered("k05"));
    for node in [1, 2, 4] {
        cluster.seed(node, tombstone(&old, -3_700_000)).await;
    }
    for node in 1..=3 {
        cluster.seed(node, tombstone(&of_node_3, -3_700_000)).await;
    }
    cluster.does(3, Does::Hang);
    // Others tell of hints that do not get through, again and again.
    for _ in 0..600 {
        upkeep.suspect(&PositionRange::of_keyspace(ORDERED_ID));
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(cluster.held(1, &old).await, None);
    assert!(cluster.held(1, &of_node_3).await.is_some(), "PURGE-FLOOR");
    // It is asked again, and what others tell of is then compared as before.
    cluster.does(3, Does::Answer);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(cluster.held(1, &of_node_3).await, None);
    syncs.abort();
}

/// What a node is asked about upkeep, others' upkeep answers, where it is there; else nobody does.
struct Peers {
    wire: Arc<dyn Transport>,
    upkeeps: BTreeMap<NodeId, Arc<Upkeep>>,
}

impl Transport for Peers {
    fn call(&self, to: Target, call: Call) -> BoxFuture<'static, Result<response::Body, CallError>> {
        if !matches!(call.body, request::Body::Suspect(_) | request::Body::Pull(_)) {
            return self.wire.call(to, call);
        }
        let asked = match to {
            Target::Node(node) => self.upkeeps.get(&node).cloned(),
            _ => None,
        };
        async move {
            let limit = call.timeout;
            let answer = async {
                match asked {
                    Some(upkeep) => upkeep.handle(call).await.map_err(CallError::Refused),
                    None => std::future::pending().await,
                }
            };
            tokio::time::timeout(limit, answer).await.unwrap_or(Err(CallError::TimedOut))
        }
        .boxed()
    }

    fn tell(&self, _: Target, _: u64, _: request::Body) {}
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_asked_about_losses_and_hangs_holds_up_neither_other_losses_nor_comparing() {
    let mut document = document(5, 5);
    document.arcs[0].replicas = vec![3, 1, 2];
    document.arcs[1].replicas = vec![1, 2, 5];
    document.arcs[2].replicas = vec![4, 1, 2];
    let no_room = HintSettings { max_bytes_per_target: 0, ..HintSettings::default() };
    let cluster = Cluster::with(&ring(document), no_room);
    let upkeeps = [1, 2, 5].map(|node| (NodeId(node), upkeep(&cluster, node)));
    let mut asking = upkeep(&cluster, 4);
    let peers = Peers { wire: Cluster::wire(&cluster.world), upkeeps: BTreeMap::from(upkeeps) };
    Arc::get_mut(&mut asking).unwrap().transport = Arc::new(peers);
    let hints = &cluster.world.hints;
    for at in [position("k"), ordered("k1")] {
        hints.add(NodeId(2), &[value(&at, -10, "lost")]);
    }
    assert_eq!(hints.suspect_arcs(), 2);
    let own = ordered("k3");
    cluster.seed(1, value(&own, -10, "newer there")).await;
    cluster.does(3, Does::Hang);
    let syncs = begins(&asking, |upkeep| async move {
        tokio::join!(upkeep.sync(), upkeep.ask_about_losses());
    });
    sleep(Duration::from_secs(5)).await;
    assert!(cluster.held(4, &own).await.is_some(), "its own arcs are compared meanwhile");
    sleep(Duration::from_secs(25)).await;
    assert_eq!(hints.suspect_arcs(), 1, "the other one was compared");
    // It is there again, but for who asks about losses: another replica is asked.
    cluster.does(3, Does::Answer);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(hints.suspect_arcs(), 0);
    syncs.abort();
}

/// Somebody waits for the change that is planned by what they hold.
#[tokio::test(start_paused = true)]
async fn nodes_that_are_silent_keep_no_other_waiting_to_say_what_it_holds() {
    let cluster = Cluster::with(&ring(document(5, 5)), HintSettings::default());
    let upkeep = upkeep(&cluster, 1);
    for node in 2..=5 {
        cluster.does(node, Does::Hang);
        cluster.state(node, PeerState::Down);
    }
    let began = Instant::now();
    gather_sizes(&upkeep, &upkeep.ring.get().unwrap(), true, 1).await;
    assert_eq!(began.elapsed(), Duration::from_secs(3), "how long one may take");
}

#[tokio::test(start_paused = true)]
async fn fewer_arcs_change_hands_at_a_time_while_clients_call() {
    let cluster = Cluster::new(3);
    let upkeep = upkeep(&cluster, 1);
    assert_eq!(upkeep.moving_arcs(), 8);
    upkeep.lateness.note(Duration::ZERO, 1);
    assert_eq!(upkeep.moving_arcs(), 4);
}
