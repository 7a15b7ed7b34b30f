//! Data that are said to be lost, and operations that make up for them.

use super::{
    planner::Wish as Planned,
    transition::*,
    transition_tests::{NOTHING, begin, cancel, leave, live, planned, start, wish},
    wishes::{current, given_up},
};
use god_proto::{
    ids::{KeyspaceId, NodeId},
    v1::{LeaveWish, MemberState, ReplaceWish, wish},
};

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
    assert!(given_up(&ring).is_empty() && cancel(&ring, "lost").is_ok(), "it has not begun");
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
fn who_is_lost_stays_so_though_its_operation_is_asked_for_again_or_its_successor_is_lost() {
    let lost = |node| wish(wish::Wish::Leave(LeaveWish { node, lost: true }));
    let replace = wish(wish::Wish::Replace(ReplaceWish { old: 1, new: 6, lost: true }));
    let ring = begin(&live(6), "replace", &replace).unwrap().unwrap();
    let plan = planned(&ring, &Planned::Lost(NodeId(1)));
    let ring = start(&ring, "replace", &plan).unwrap().unwrap();
    let again = begin(&ring, "again", &lost(1)).unwrap().unwrap();
    assert_eq!((current(&again).unwrap().id.as_str(), again.operations().len()), ("again", 1));
    assert!(cancel(&again, "again").unwrap_err().to_string().contains("cannot be undone"));
    // The one that was to replace it is lost as well: then all others take what is gone of both, in turn.
    let both = begin(&ring, "both", &lost(6)).unwrap().unwrap();
    let found: Vec<_> =
        both.operations().iter().map(|it| (it.id.as_str(), it.wish.clone().unwrap())).collect();
    assert_eq!(found, [("both", lost(6)), ("replace", lost(1))]);
    assert_eq!(given_up(&both), [NodeId(1)].into());
    assert_eq!(both.node(NodeId(1)).unwrap().state(), MemberState::Leaving);
    // A leave that has begun, of a node that is lost then, is not called off with that.
    let ring = begin(&live(4), "leave", &leave(2)).unwrap().unwrap();
    let ring = start(&ring, "leave", &planned(&ring, &Planned::Leave(NodeId(2)))).unwrap().unwrap();
    let ring = begin(&ring, "lost", &lost(2)).unwrap().unwrap();
    assert!(cancel(&ring, "lost").is_err());
}
