//! Operations that nothing came of: cancelled, refused, or stopped by another one.

use super::{
    change::{Joiner, has_wrong_copies},
    keyspaces::{create_keyspace, mark_live},
    planner::{Plan, Sizes, Wish as Planned, plan},
    transition::*,
    transition_tests::{
        NOBODY, NOTHING, begin, cancel, drive, join, joiner, leave, live, planned, replicas, start, wish,
    },
    wishes::{current, given_up},
};
use god_proto::{
    ids::{KeyspaceId, NodeId},
    ring::{Ring, RingArc},
    v1::{
        EndedOperation, JoinWish, Keyspace, LeaveWish, MemberState, OperationPhase, ReplaceWish, Wish, wish,
    },
};
use std::collections::BTreeSet;

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
fn who_waits_is_dealt_nothing_of_a_new_keyspace_unless_there_are_too_few_others() {
    let arcs = |ring: &Ring, name: &str, node: u32| {
        let id = KeyspaceId(ring.keyspace(name).unwrap().id);
        ring.arcs().iter().filter(|arc| arc.keyspace == id && Ring::holds(arc, NodeId(node))).count()
    };
    let ring = with_one_that_waits(3);
    let new = |name: &str, replicas| Keyspace { name: name.to_owned(), replicas, ..Keyspace::default() };
    let made = create_keyspace(&ring, &new("three", 3), &[]).unwrap();
    let made = create_keyspace(&made, &new("four", 4), &[]).unwrap();
    assert_eq!(arcs(&made, "three", 4), 0);
    assert!(arcs(&made, "three", 3) > 0 && arcs(&made, "four", 4) > 0);
    let asked = begin(&made, "join-4", &joins(4)).unwrap().unwrap();
    let plan = planned(&asked, &Planned::Join(NodeId(4)));
    let joined = drive(start(&asked, "join-4", &plan).unwrap().unwrap()).pop().unwrap();
    assert!(arcs(&joined, "three", 4) > 0, "it takes its part");
    // One that holds data, though it waits, is one like the others.
    let four = KeyspaceId(made.keyspace("four").unwrap().id);
    let holds = mark_live(&made, four).unwrap().unwrap();
    let more = create_keyspace(&holds, &new("more", 3), &[]).unwrap();
    assert!(waits(&more, 4) && arcs(&more, "more", 4) > 0);
}

/// What is empty may be written to the moment after.
#[test]
fn a_node_whose_join_is_cancelled_before_its_turn_keeps_nothing_of_an_empty_keyspace() {
    let new = Keyspace { name: "empty".to_owned(), replicas: 3, ..Keyspace::default() };
    let ring = create_keyspace(&live(4), &new, &[]).unwrap();
    let ring = begin(&ring, "leave-3", &leave(3)).unwrap().unwrap();
    let ring = join(&ring, &joiner(5)).unwrap().unwrap();
    assert!(ring.arcs().iter().any(|arc| Ring::holds(arc, NodeId(5))), "it is dealt its part");
    assert!(is_left_alone(&cancel(&ring, "join-5").unwrap().unwrap(), 5));
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

#[test]
fn what_makes_up_for_lost_data_waits_where_it_cannot_be_planned_anew() {
    let ring = begin(&live(6), "first", &lost(1)).unwrap().unwrap();
    let plan = planned(&ring, &Planned::Lost(NodeId(1)));
    let ring = step(&start(&ring, "first", &plan).unwrap().unwrap(), NOTHING).unwrap().unwrap();
    let ring = begin(&ring, "second", &lost(2)).unwrap().unwrap();
    let plan = planned(&ring, &Planned::Lost(NodeId(2)));
    let ring = drive(start(&ring, "second", &plan).unwrap().unwrap()).pop().unwrap();
    assert_eq!(current(&ring).unwrap().id, "first");
    // Others copied without node 1: that is not taken back for want of room.
    assert_eq!(refuse(&ring, "first", "there is no room", &NOBODY), Ok(None), "nor is there another epoch");
    assert_eq!(given_up(&ring), [NodeId(1)].into());
    assert_eq!(ring.node(NodeId(1)).unwrap().state(), MemberState::Leaving);
    let plan = planned(&ring, &Planned::Lost(NodeId(1)));
    let ring = drive(start(&ring, "first", &plan).unwrap().unwrap()).pop().unwrap();
    assert!(ring.node(NodeId(1)).is_none() && ring.operations().is_empty());
    // One that has not begun is refused.
    let ring = begin(&live(4), "lost", &lost(1)).unwrap().unwrap();
    let ring = refuse(&ring, "lost", "there is no room", &NOBODY).unwrap().unwrap();
    assert_eq!(ring.document().ended[0].refused, "there is no room");
}

#[test]
fn a_lost_node_whose_successor_was_given_copies_of_the_same_arcs_is_made_up_for_by_all() {
    let replace = wish(wish::Wish::Replace(ReplaceWish { old: 1, new: 6, lost: true }));
    let ring = join(&live(5), &Joiner { takes_part: false, ..joiner(6) }).unwrap().unwrap();
    let ring = begin(&ring, "replace", &replace).unwrap().unwrap();
    let plan = planned(&ring, &Planned::Replace { old: NodeId(1), new: NodeId(6) });
    let ring = start(&ring, "replace", &plan).unwrap().unwrap();
    let ring = begin(&ring, "other", &lost(2)).unwrap().unwrap();
    // Where it could take over, and has no room now, it is waited for; or somebody asks for another way.
    let waiting = cancel(&ring, "other").unwrap().unwrap();
    assert_eq!(refuse(&waiting, "replace", "there is no room", &NOBODY), Ok(None));
    let by_all = begin(&waiting, "by-all", &lost(1)).unwrap().unwrap();
    assert_eq!((by_all.operations().len(), given_up(&by_all)), (1, [NodeId(1)].into()));
    // Of what node 2 held node 6 gets a part, and that was on node 1 as well.
    let plan = planned(&ring, &Planned::Lost(NodeId(2)));
    let ring = drive(start(&ring, "other", &plan).unwrap().unwrap()).pop().unwrap();
    let both = |arc: &&RingArc| [1, 6].iter().all(|node| Ring::holds(arc, NodeId(*node)));
    assert!(ring.arcs().iter().any(|arc| both(&arc)));
    let ring = refuse(&ring, "replace", "both hold copies", &NOBODY).unwrap().unwrap();
    assert_eq!(current(&ring).unwrap().wish, Some(lost(1)));
    assert_eq!((given_up(&ring), ring.document().ended.len()), ([NodeId(1)].into(), 1));
    assert_eq!(refuse(&ring, "replace", "there is no room", &NOBODY), Ok(None), "that is done once");
    let plan = planned(&ring, &Planned::Lost(NodeId(1)));
    let ring = drive(start(&ring, "replace", &plan).unwrap().unwrap()).pop().unwrap();
    assert!(ring.node(NodeId(1)).is_none() && ring.operations().is_empty());
}

#[test]
fn an_id_under_which_nothing_came_about_does_not_stand_for_what_has_begun() {
    let said = |ring: &Ring| begin(ring, "away", &leave(2)).map_err(|error| error.to_string());
    let asked = begin(&live(4), "away", &leave(2)).unwrap().unwrap();
    let plan = planned(&asked, &Planned::Leave(NodeId(2)));
    let started = start(&asked, "away", &plan).unwrap().unwrap();
    assert_eq!(said(&started), Ok(None), "it goes on");
    assert_eq!(said(drive(started.clone()).last().unwrap()), Ok(None), "it has ended well");
    let back = cancel(&drive(started)[4], "away").unwrap().unwrap();
    assert_eq!(current(&back).unwrap().phase(), OperationPhase::Cancelling);
    let why = said(&back).unwrap_err();
    assert!(why.contains("away is being undone") && why.contains("another id"), "{why}");
    let why = said(drive(back).last().unwrap()).unwrap_err();
    assert!(why.contains("away was cancelled") && why.contains("another id"), "{why}");
    let refused = refuse(&asked, "away", "too few nodes would be left", &NOBODY).unwrap().unwrap();
    let why = said(&refused).unwrap_err();
    assert!(why.contains("refused (too few nodes would be left)") && why.contains("another id"), "{why}");
    assert!(begin(&refused, "away-2", &leave(2)).unwrap().is_some());
    assert_eq!(refused.node(NodeId(2)).unwrap().state(), MemberState::Active);
}

#[test]
fn copies_that_a_stopped_change_of_their_number_left_are_made_as_many_as_they_should_be() {
    let copies = |ring: &Ring| ring.arcs().iter().map(|arc| arc.replicas.len()).collect::<BTreeSet<_>>();
    let wider = Planned::Replicas { keyspace: KeyspaceId(1), replicas: 5, write_quorum: 3, read_quorum: 3 };
    let ring = begin(&live(6), "wider", &replicas(5, 3, 3)).unwrap().unwrap();
    let rings = drive(start(&ring, "wider", &planned(&ring, &wider)).unwrap().unwrap());
    let half = rings.iter().find(|ring| copies(ring).len() > 1).unwrap();
    let back = cancel(half, "wider").unwrap().unwrap();
    let ring = begin(&back, "lost", &lost(6)).unwrap().unwrap();
    let plan = planned(&ring, &Planned::Lost(NodeId(6)));
    let ring = drive(start(&ring, "lost", &plan).unwrap().unwrap()).pop().unwrap();
    assert!(copies(&ring).last() > Some(&3) && ring.keyspaces()[0].replicas == 3);
    assert!(has_wrong_copies(&ring));
    let mended = begin(&ring, "even", &rebalance()).unwrap().unwrap();
    let plan = planned(&mended, &Planned::Rebalance);
    let mended = drive(start(&mended, "even", &plan).unwrap().unwrap()).pop().unwrap();
    assert_eq!(copies(&mended), [3].into());
    assert!(!has_wrong_copies(&mended));
}

#[test]
fn copies_that_a_lost_node_left_missing_are_missed_once_there_is_a_node_for_them() {
    let ring = begin(&live(3), "lost", &lost(3)).unwrap().unwrap();
    let plan = planned(&ring, &Planned::Lost(NodeId(3)));
    let two = drive(start(&ring, "lost", &plan).unwrap().unwrap()).pop().unwrap();
    assert!(!has_wrong_copies(&two), "there is nobody for a third");
    let waits = join(&two, &Joiner { takes_part: false, ..joiner(4) }).unwrap().unwrap();
    assert!(!has_wrong_copies(&waits), "it waits until it is told");
    let told = begin(&waits, "join-4", &joins(4)).unwrap().unwrap();
    let told = start(&told, "join-4", &Plan::default()).unwrap().unwrap();
    assert!(has_wrong_copies(&told));
}
