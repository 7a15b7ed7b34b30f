//! Who decides the ring while nodes are down.
#![allow(clippy::unwrap_used)]

use god_core::{doors::Service as _, membership::PeerState};
use god_history::{Ask, Told};
use god_proto::{
    ids::NodeId,
    v1::{BeginOperationRequest, LeaveWish, MemberState, Wish, wish},
};
use god_sim::calm::{cluster, within};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_while_another_one_is_down_votes_until_that_one_can_take_its_vote() {
    let clients = cluster(1, 4).await.unwrap();
    let world = Arc::clone(&clients.world);
    let told = clients.perform(1, 0, 1, Ask::Put(1), Duration::from_secs(2)).await;
    assert!(matches!(told, Told::Committed(_)), "{told:?}");
    let numbers: Vec<NodeId> =
        (0..4).map(|at| world.running(at).unwrap().node.member().unwrap().number).collect();
    let voters = || world.ring().unwrap().voters().collect::<BTreeSet<_>>();
    let idle = (0..4).find(|at| !voters().contains(&numbers[*at])).unwrap();
    let up: Vec<usize> = (0..4).filter(|at| *at != idle).collect();
    world.crash(idle, None);
    let seen = || {
        let state = |at: &usize| world.running(*at).unwrap().node.liveness().state(numbers[idle]);
        up.iter().all(|at| state(at) == PeerState::Down)
    };
    within(PATIENCE, seen).await.unwrap();

    let leaver = numbers[up[2]];
    let wish = Wish { wish: Some(wish::Wish::Leave(LeaveWish { node: leaver.0, lost: false })) };
    let request = BeginOperationRequest { id: "leave".to_owned(), wish: Some(wish) };
    assert_eq!(world.running(up[0]).unwrap().client.begin_operation(request).await.failed, None);
    let is_leaving = || {
        let ring = world.ring().unwrap();
        ring.node(leaver).is_some_and(|node| node.state() == MemberState::Leaving)
    };
    let before = voters();
    within(PATIENCE, is_leaving).await.unwrap();
    assert_eq!(voters(), before, "of three one may fail; of two, or of one, none might");

    world.start(idle);
    let whole: BTreeSet<NodeId> = numbers.iter().copied().filter(|node| *node != leaver).collect();
    within(PATIENCE, || world.ring().unwrap().operations().is_empty() && voters() == whole).await.unwrap();
}
