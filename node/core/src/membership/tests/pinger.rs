use super::net::{Net, SkewedWall, ring_of, seams, until};
use crate::{
    engine::SimulatedDisk,
    membership::{Liveness, NewerRing, PeerState, Pinger},
    peer::Target,
    seam::{Offload, Wall},
    stop::{Stop, Stopper, stop},
    version::{Clock, Offsets},
};
use god_proto::ids::{Epoch, NodeId};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

struct Node {
    liveness: Arc<Liveness>,
    offsets: Arc<Offsets>,
    clock: Arc<Clock>,
    newer: NewerRing,
}

fn start(net: &Arc<Net>, me: u32, nodes: u32, ahead_ms: i64, began: Instant, stop: Stop) -> Node {
    let seams = seams(u64::from(me), SkewedWall::ahead(began, ahead_ms));
    net.walls.lock().insert(me, Arc::clone(&seams.wall) as Arc<dyn Wall>);
    let ring = ring_of(nodes);
    let newer = NewerRing::new(ring.clone());
    let (liveness, offsets) = (Arc::new(Liveness::default()), Arc::new(Offsets::default()));
    let clock =
        Clock::open(SimulatedDisk::new().open(), Arc::clone(&seams.wall) as Arc<dyn Wall>, Offload::Inline);
    let clock = Arc::new(clock.expect("the disk is empty"));
    clock.watch();
    let pinger = Pinger {
        interval: Duration::from_millis(500),
        me: NodeId(me),
        ring,
        transport: net.port(me),
        liveness: Arc::clone(&liveness),
        offsets: Arc::clone(&offsets),
        clock: Arc::clone(&clock),
        newer: newer.clone(),
        seams,
    };
    tokio::spawn(pinger.run(stop));
    Node { liveness, offsets, clock, newer }
}

fn cluster(net: &Arc<Net>, ahead_ms: &[i64]) -> (Vec<Node>, Stopper) {
    let (stopper, stop) = stop();
    let (began, count) = (Instant::now(), ahead_ms.len() as u32);
    let nodes = (1..=count)
        .zip(ahead_ms)
        .map(|(me, ahead)| start(net, me, count, *ahead, began, stop.clone()))
        .collect();
    (nodes, stopper)
}

#[tokio::test(start_paused = true)]
async fn a_node_that_hangs_is_found_out_and_delays_no_other() {
    let net = Arc::new(Net::default());
    let (nodes, _stopper) = cluster(&net, &[0, 0, 0]);
    let seen = &nodes[0].liveness;
    until("both answered", || seen.all().iter().filter(|(_, peer)| peer.is_ready == Some(true)).count() == 2)
        .await;
    net.silence(3, true);
    until("it is suspect", || seen.state(NodeId(3)) == PeerState::Suspect).await;
    until("it is down", || seen.state(NodeId(3)) == PeerState::Down).await;
    let before = net.pings.lock()[&2];
    until("the other one is pinged on", || net.pings.lock()[&2] > before + 4).await;
    assert_eq!(seen.state(NodeId(2)), PeerState::Up);
    assert_eq!(seen.peer(NodeId(2)).round_trip, Some(Duration::from_millis(2)));
    net.silence(3, false);
    until("it is back", || seen.state(NodeId(3)) == PeerState::Up).await;
}

#[tokio::test(start_paused = true)]
async fn of_three_nodes_the_one_that_is_two_seconds_off_says_so() {
    let net = Arc::new(Net::default());
    let (nodes, _stopper) = cluster(&net, &[0, 2_000, 1]);
    until("it knows", || nodes[1].offsets.trouble().is_some()).await;
    assert!(nodes[1].offsets.trouble().unwrap().contains("ahead"));
    until("it stamps nothing by it", || nodes[1].clock.trouble().is_some()).await;
    assert!(!nodes[1].clock.is_trusted());
    let measured = |node: &Node| node.liveness.peer(NodeId(2)).clock_ahead_us.is_some();
    until("the others measured it", || measured(&nodes[0]) && measured(&nodes[2])).await;
    assert_eq!(nodes[0].liveness.peer(NodeId(2)).clock_ahead_us, Some(2_000_000));
    assert_eq!((nodes[0].offsets.trouble(), nodes[2].offsets.trouble()), (None, None));
    assert!(nodes[0].clock.is_trusted() && nodes[2].clock.is_trusted());
}

#[tokio::test(start_paused = true)]
async fn a_newer_ring_is_heard_of_by_ping() {
    let net = Arc::new(Net::default());
    net.epochs.lock().insert(2, 7);
    let (nodes, _stopper) = cluster(&net, &[0, 0, 0]);
    let heard = nodes[0].newer.listen().next().await;
    assert_eq!(heard, Some((Target::Node(NodeId(2)), Epoch(7))));
}

#[tokio::test(start_paused = true)]
async fn of_a_large_cluster_every_node_gets_its_turn() {
    let net = Arc::new(Net::default());
    let (_stopper, stop) = stop();
    let node = start(&net, 1, 100, 0, Instant::now(), stop);
    until("all were asked", || node.liveness.all().len() == 99).await;
    assert!(node.liveness.all().iter().all(|(_, peer)| peer.state == PeerState::Up));
}
