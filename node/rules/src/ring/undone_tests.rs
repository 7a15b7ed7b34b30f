//! Operations that nothing came of: cancelled, refused, or stopped by another one.

use super::{
    change::Joiner,
    planner::{Sizes, Wish as Planned, plan},
    transition::*,
    transition_tests::{NOBODY, begin, cancel, drive, join, joiner, live, planned, start, wish},
};
use god_proto::{
    ids::NodeId,
    ring::Ring,
    v1::{EndedOperation, JoinWish, LeaveWish, ReplaceWish, Wish, wish},
};

fn joins(node: u32) -> Wish {
    wish(wish::Wish::Join(JoinWish { node }))
}

fn replaces(old: u32, new: u32) -> Wish {
    wish(wish::Wish::Replace(ReplaceWish { old, new, lost: false }))
}

fn lost(node: u32) -> Wish {
    wish(wish::Wish::Leave(LeaveWish { node, lost: true }))
}

/// A ring of so many nodes that hold data, and one that waits to be told to take its part.
fn with_one_that_waits(nodes: u128) -> Ring {
    join(&live(nodes), &Joiner { takes_part: false, ..joiner(nodes + 1) }).unwrap().unwrap()
}

fn waits(ring: &Ring, node: u32) -> bool {
    ring.node(NodeId(node)).unwrap().waits
}

/// Whether it waits, holds nothing, and would get nothing by evening out.
fn is_left_alone(ring: &Ring, node: u32) -> bool {
    let holds = ring.arcs().iter().any(|arc| Ring::holds(arc, NodeId(node)));
    let gets = planned(ring, &Planned::Rebalance).moves.iter().any(|step| step.to.contains(&NodeId(node)));
    waits(ring, node) && !holds && !gets
}

fn last_ended(ring: &Ring) -> &EndedOperation {
    ring.document().ended.last().unwrap()
}

#[test]
fn a_node_whose_join_is_cancelled_waits_until_it_is_told_to_again() {
    let told = begin(&with_one_that_waits(3), "join-4", &joins(4)).unwrap().unwrap();
    let by_itself = join(&live(3), &joiner(4)).unwrap().unwrap();
    for asked in [told, by_itself] {
        let plan = planned(&asked, &Planned::Join(NodeId(4)));
        let mut rings = drive(start(&asked, "join-4", &plan).unwrap().unwrap());
        assert!(!waits(&rings.pop().unwrap(), 4), "it has joined");
        for at in std::iter::once(asked).chain(rings) {
            let back = drive(cancel(&at, "join-4").unwrap().unwrap()).pop().unwrap();
            assert!(last_ended(&back).cancelled && last_ended(&back).refused.is_empty());
            assert!(is_left_alone(&back, 4));
            let again = begin(&back, "again", &joins(4)).unwrap().unwrap();
            let again = start(&again, "again", &planned(&again, &Planned::Join(NodeId(4)))).unwrap().unwrap();
            assert!(!waits(drive(again).last().unwrap(), 4));
        }
    }
}

#[test]
fn a_node_that_is_no_successor_any_more_waits_and_may_be_one_later() {
    let asked = begin(&with_one_that_waits(4), "replace", &replaces(1, 5)).unwrap().unwrap();
    let replace = Planned::Replace { old: NodeId(1), new: NodeId(5) };
    let started = start(&asked, "replace", &planned(&asked, &replace)).unwrap().unwrap();
    let mut rings = drive(started.clone());
    assert!(rings.pop().unwrap().node(NodeId(1)).is_none());
    for at in std::iter::once(asked).chain(rings) {
        let back = drive(cancel(&at, "replace").unwrap().unwrap()).pop().unwrap();
        assert!(is_left_alone(&back, 5));
        assert!(plan(&back, &replace, &Sizes::default()).is_ok(), "it holds nothing of what node 1 holds");
        assert!(begin(&back, "again", &replaces(1, 5)).is_ok());
    }
    // Another disk is lost, and then it cannot be planned anew.
    let away = begin(&started, "lost", &lost(2)).unwrap().unwrap();
    let gone = cancel(&away, "lost").unwrap().unwrap();
    let refused = refuse(&gone, "replace", "there is no room", &NOBODY).unwrap().unwrap();
    assert!(is_left_alone(&refused, 5) && last_ended(&refused).refused == "there is no room");
    // The data of the node that was to be replaced are lost, and all others take what it held.
    let lost = begin(&started, "lost", &lost(1)).unwrap().unwrap();
    assert!(waits(&lost, 5));
    // One that holds data is no such node, whatever was asked of it.
    let ring = begin(&live(5), "replace", &replaces(1, 5)).unwrap().unwrap();
    let ring = start(&ring, "replace", &planned(&ring, &Planned::Leave(NodeId(1)))).unwrap().unwrap();
    assert!(!waits(&drive(cancel(&ring, "replace").unwrap().unwrap()).pop().unwrap(), 5));
}
