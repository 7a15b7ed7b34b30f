use super::net::{Net, SkewedWall, address_of, ring_of, seams, until, uuid_of};
use crate::{
    membership::{Gossip, GossipIdentity, GossipSettings, Liveness, NewerRing, PeerState},
    stop::{Stopper, stop},
};
use god_proto::{ids::NodeId, peer::Gossip as Datagram};
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

type Learned = Arc<Mutex<BTreeMap<NodeId, String>>>;

fn start(net: &Arc<Net>, me: u32, address: &str, late_ms: i64) -> (Arc<Liveness>, Learned, Stopper) {
    let (stopper, stop) = stop();
    let ring = ring_of(6);
    let liveness = Arc::new(Liveness::default());
    let learned = Learned::default();
    let seams = seams(u64::from(me), SkewedWall::ahead(Instant::now(), late_ms));
    let now_ms = seams.wall.now_ms();
    let seen = Arc::clone(&learned);
    let gossip = Gossip {
        settings: GossipSettings {
            interval: Duration::from_millis(200),
            fan_out: 3,
            probe: Duration::from_secs(1),
        },
        identity: GossipIdentity::new(uuid_of(me), me, address.to_owned(), now_ms),
        newer: NewerRing::new(ring.clone()),
        ring,
        transport: net.port(me),
        liveness: Arc::clone(&liveness),
        on_address: Arc::new(move |node, address| {
            seen.lock().insert(node, address.to_owned());
        }),
        seams,
    };
    net.gossips.lock().insert(me, gossip.start(stop));
    (liveness, learned, stopper)
}

fn everyone(net: &Arc<Net>) -> Vec<(Arc<Liveness>, Learned, Stopper)> {
    (1..=6).map(|me| start(net, me, &address_of(me), 0)).collect()
}

async fn all_met(nodes: &[(Arc<Liveness>, Learned, Stopper)]) {
    until("all met", || nodes.iter().all(|(_, learned, _)| learned.lock().len() == 5)).await;
}

#[tokio::test(start_paused = true)]
async fn gossiping_nodes_see_each_other_and_a_silent_one_goes_and_returns() {
    let net = Arc::new(Net::default());
    let nodes = everyone(&net);
    all_met(&nodes).await;
    let say = |state| {
        let nodes = &nodes;
        move || nodes[..5].iter().all(|(seen, ..)| seen.state(NodeId(6)) == state)
    };
    assert!(say(PeerState::Up)());
    net.silence(6, true);
    until("one suspects", || nodes.iter().any(|(seen, ..)| seen.state(NodeId(6)) == PeerState::Suspect))
        .await;
    until("all take it for dead", say(PeerState::Down)).await;
    assert!(nodes[..5].iter().all(|(seen, ..)| seen.state(NodeId(5)) == PeerState::Up));
    net.silence(6, false);
    until("all see it again", say(PeerState::Up)).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_starts_again_elsewhere_with_its_clock_set_back_is_found() {
    let net = Arc::new(Net::default());
    let mut nodes = everyone(&net);
    all_met(&nodes).await;
    // Nobody hears its farewell, as if it had been killed.
    net.silence(6, true);
    drop(nodes.pop());
    net.gossips.lock().remove(&6);
    sleep(Duration::from_secs(1)).await;
    net.silence(6, false);
    let moved = start(&net, 6, "elsewhere:1", -3_600_000);
    let at = |learned: &Learned| learned.lock().get(&NodeId(6)).cloned();
    until("all know where", || nodes.iter().all(|(_, l, _)| at(l).as_deref() == Some("elsewhere:1"))).await;
    until("all see it", || nodes.iter().all(|(seen, ..)| seen.state(NodeId(6)) == PeerState::Up)).await;
    assert_eq!(net.gossips.lock()[&1].address_of(NodeId(6)).as_deref(), Some("elsewhere:1"));
    drop(moved);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_says_so() {
    let net = Arc::new(Net::default());
    let mut nodes = everyone(&net);
    all_met(&nodes).await;
    drop(nodes.pop());
    until("all know", || nodes.iter().all(|(seen, ..)| seen.state(NodeId(6)) == PeerState::Down)).await;
}

#[tokio::test(start_paused = true)]
async fn nonsense_is_dropped_and_gossip_goes_on() {
    let net = Arc::new(Net::default());
    let nodes = everyone(&net);
    let handle = net.gossips.lock()[&1].clone();
    for length in 0..1_000usize {
        let data = vec![(length * 31 % 251) as u8; length].into();
        handle.receive(None, Datagram { data, epoch: u64::MAX });
    }
    all_met(&nodes).await;
}
