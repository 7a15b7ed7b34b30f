//! Data that are said to be lost, and operations that make up for them.

use super::{
    planner::Wish as Planned,
    transition::{self, *},
    transition_tests::{NOBODY, NOTHING, begin, cancel, leave, live, planned, start, wish},
    wishes::{current, given_up, lost},
};
use god_proto::{
    ids::{KeyspaceId, NodeId},
    ring::Ring,
    v1::{LeaveWish, MemberState, OperationPhase, RebalanceWish, ReplaceWish, wish},
};
use std::collections::BTreeSet;

#[test]
fn a_lost_disk_comes_before_what_is_under_way() {
    let ring = begin(&live(5), "away", &leave(2)).unwrap().unwrap();
    let plan = planned(&ring, &Planned::Leave(NodeId(2)));
    let ring = start(&ring, "away", &plan).unwrap().unwrap();
    let ring = step(&ring, NOTHING).unwrap().unwrap();
    assert!(ring.arcs().iter().any(|arc| arc.next.is_some()));
    let lost_disk = wish(wish::Wish::Replace(ReplaceWish { old: 3, new: 5, lost: true }));
    let ring = begin(&ring, "lost", &lost_disk).unwrap().unwrap();
    assert_eq!(current(&ring).unwrap().id, "lost");
    assert!(ring.arcs().iter().all(|arc| arc.next.is_none()));
    assert_eq!(lost(&ring), BTreeSet::from([NodeId(3)]));
    assert!(cancel(&ring, "lost").is_ok(), "it has not begun");
}

#[test]
fn that_data_are_lost_is_not_unsaid_once_anybody_copied_without_them() {
    let lost_disk = |node| wish(wish::Wish::Leave(LeaveWish { node, lost: true }));
    let ring = begin(&live(6), "first", &lost_disk(1)).unwrap().unwrap();
    assert!(given_up(&ring).is_empty() && cancel(&ring, "first").is_ok(), "it has not begun");
    // Another disk is lost before that, and comes first: who copies waits for neither.
    let ring = begin(&ring, "second", &lost_disk(2)).unwrap().unwrap();
    assert_eq!((current(&ring).unwrap().id.as_str(), given_up(&ring).len()), ("second", 0));
    let plan = planned(&ring, &Planned::Lost(NodeId(2)));
    let ring = start(&ring, "second", &plan).unwrap().unwrap();
    assert_eq!(sources_needed(&ring, KeyspaceId(1), &[1, 2, 3].map(NodeId)), 1);
    assert_eq!(given_up(&ring), [1, 2].map(NodeId).into());
    for id in ["first", "second"] {
        assert!(cancel(&ring, id).unwrap_err().to_string().contains("cannot be undone"), "{id}");
    }
    // One that has begun and waits again has begun.
    let ring = begin(&ring, "third", &lost_disk(3)).unwrap().unwrap();
    assert_eq!(given_up(&ring), [1, 2].map(NodeId).into());
    assert!(cancel(&ring, "second").unwrap_err().to_string().contains("cannot be undone"));
    assert!(cancel(&ring, "third").is_ok());
}

#[test]
fn an_operation_that_took_data_for_lost_stays_though_it_cannot_be_carried_out() {
    let ring = live(6);
    let lost = wish(wish::Wish::Replace(ReplaceWish { old: 1, new: 6, lost: true }));
    let ring = begin(&ring, "lost", &lost).unwrap().unwrap();
    let refused = |ring: &Ring| transition::refuse(ring, "lost", "there is no room", &NOBODY).unwrap();
    assert!(refused(&ring).unwrap().operations().is_empty(), "it has not begun");
    let plan = planned(&ring, &Planned::Lost(NodeId(1)));
    let mut ring = start(&ring, "lost", &plan).unwrap().unwrap();
    let mut document = ring.document().clone();
    document.operations[0].phase = OperationPhase::Waiting.into();
    ring = Ring::new(document).unwrap();
    assert_eq!(refused(&ring), None);
    // Where another one may make room, that is first.
    let other = begin(&ring, "other", &wish(wish::Wish::Rebalance(RebalanceWish {}))).unwrap().unwrap();
    let other = refused(&other).unwrap();
    assert_eq!((current(&other).unwrap().id.as_str(), given_up(&other)), ("other", [NodeId(1)].into()));
    // The one that was to replace it is lost as well.
    let both = wish(wish::Wish::Leave(LeaveWish { node: 6, lost: true }));
    let both = begin(&ring, "both", &both).unwrap().unwrap();
    let ids: Vec<&str> = both.operations().iter().map(|operation| operation.id.as_str()).collect();
    assert_eq!((ids, given_up(&both)), (vec!["both", "lost-1"], [NodeId(1)].into()));
    assert_eq!(both.node(NodeId(1)).unwrap().state(), MemberState::Leaving);
}
