//! Operations step by step, without a cluster.

use super::{
    change::{self, Founding, Joiner, found},
    keyspaces::mark_live,
    names::Hearing,
    next::ChangeError,
    parts::{merge, split},
    planner::{Plan, Sizes, Wish as Planned, plan},
    transition::{self, *},
    wishes::current,
};
use god_proto::{
    ids::{ArcId, Epoch, KeyspaceId, NodeId},
    ring::{Ring, quorums},
    v1::{
        DeletedKeyspace, JoinWish, LeaveWish, MemberState, OperationPhase, ReplaceWish, ReplicasWish, Wish,
        wish,
    },
};
use std::collections::BTreeSet;
use uuid::Uuid;

pub(super) static NOBODY: BTreeSet<NodeId> = BTreeSet::new();
static NO_ARC: BTreeSet<ArcId> = BTreeSet::new();
/// All nodes are up and clean, and nothing has come of anything yet.
pub(super) static NOTHING: Evidence<'static> = Evidence {
    ready: &NO_ARC,
    clean: false,
    seen_clean: false,
    budget: 3,
    unclean: &NOBODY,
    away: &NOBODY,
    hearing: &HEARING,
};
static HEARING: Hearing = Hearing { epoch: Epoch(0), by: BTreeSet::new() };

pub(super) fn join(ring: &Ring, joiner: &Joiner) -> Result<Option<Ring>, ChangeError> {
    change::join(ring, joiner, &NOBODY, &NOBODY)
}

pub(super) fn begin(ring: &Ring, id: &str, wish: &Wish) -> Result<Option<Ring>, ChangeError> {
    transition::begin(ring, id, wish, &NOBODY)
}

pub(super) fn start(ring: &Ring, id: &str, plan: &Plan) -> Result<Option<Ring>, ChangeError> {
    transition::start(ring, id, plan, &NOBODY)
}

pub(super) fn cancel(ring: &Ring, id: &str) -> Result<Option<Ring>, ChangeError> {
    transition::cancel(ring, id, &NOBODY)
}

pub(super) fn joiner(number: u128) -> Joiner {
    Joiner {
        uuid: Uuid::from_u128(number),
        peer_address: format!("node-{number}:7100"),
        grpc_address: String::new(),
        http_address: String::new(),
        zone: String::new(),
        weight: 1.0,
        version: "1".to_owned(),
        takes_part: true,
    }
}

/// A ring of so many nodes whose one keyspace holds data.
pub(super) fn live(nodes: u128) -> Ring {
    let founding =
        Founding { replicas: 3, write_quorum: 2, read_quorum: 2, virtual_nodes: 4, under_replicated: false };
    let mut ring = found(Uuid::from_u128(9), &joiner(1), founding).unwrap();
    for number in 2..=nodes {
        ring = join(&ring, &joiner(number)).unwrap().unwrap();
    }
    mark_live(&ring, KeyspaceId(1)).unwrap().unwrap()
}

pub(super) fn wish(wish: wish::Wish) -> Wish {
    Wish { wish: Some(wish) }
}

pub(super) fn leave(node: u32) -> Wish {
    wish(wish::Wish::Leave(LeaveWish { node, lost: false }))
}

pub(super) fn planned(ring: &Ring, wish: &Planned) -> Plan {
    let mut document = ring.document().clone();
    document.operations.clear();
    plan(&Ring::new(document).unwrap(), wish, &Sizes::default()).unwrap()
}

/// Takes steps as if every copy were made at once, until there is nothing left to do; gives all rings on the way.
pub(super) fn drive(ring: Ring) -> Vec<Ring> {
    let mut rings = vec![ring];
    for _ in 0..1_000 {
        let ring = rings.last().unwrap();
        let ready: BTreeSet<ArcId> =
            ring.arcs().iter().filter(|arc| arc.next.is_some()).map(|arc| arc.id).collect();
        let evidence = Evidence { ready: &ready, clean: true, seen_clean: true, ..NOTHING };
        match step(ring, evidence).unwrap() {
            Some(next) => rings.push(next),
            None => return rings,
        }
    }
    panic!("it does not end");
}

fn holds(ring: &Ring, node: u32) -> usize {
    ring.arcs().iter().filter(|arc| arc.replicas.contains(&NodeId(node))).count()
}

#[test]
fn a_node_that_joins_a_live_ring_takes_its_part_and_no_arc_skips_being_joint() {
    let ring = join(&live(3), &joiner(4)).unwrap().unwrap();
    assert_eq!(holds(&ring, 4), 0, "it holds nothing before it has copied anything");
    let plan = planned(&ring, &Planned::Join(NodeId(4)));
    let rings = drive(start(&ring, "join-4", &plan).unwrap().unwrap());
    for [before, after] in rings.array_windows() {
        for arc in after.arcs() {
            let was = before.arc(arc.id).unwrap();
            let new = arc.replicas.iter().any(|node| !was.replicas.contains(node));
            assert!(!new || was.next.as_ref() == Some(&arc.replicas), "{arc} changed hands at once");
        }
        let moving = after.arcs().iter().filter(|arc| arc.next.is_some()).count();
        assert!(moving <= 3, "{moving} arcs change hands at the same time");
    }
    let last = rings.last().unwrap();
    assert!(last.operations().is_empty() && holds(last, 4) >= last.arcs().len() / 2);
    assert_eq!(last.document().ended[0].id, "join-4");
}

#[test]
fn no_arc_begins_to_move_to_a_node_that_holds_what_it_should_not() {
    let ring = join(&live(3), &joiner(4)).unwrap().unwrap();
    let plan = planned(&ring, &Planned::Join(NodeId(4)));
    let ring = start(&ring, "join-4", &plan).unwrap().unwrap();
    let unclean = BTreeSet::from([NodeId(4)]);
    assert_eq!(step(&ring, Evidence { unclean: &unclean, ..NOTHING }), Ok(None));
}

#[test]
fn a_node_that_leaves_is_retired_when_it_has_handed_over_and_not_before() {
    let ring = begin(&live(4), "away", &leave(2)).unwrap().unwrap();
    let plan = planned(&ring, &Planned::Leave(NodeId(2)));
    let mut ring = start(&ring, "away", &plan).unwrap().unwrap();
    assert_eq!(ring.node(NodeId(2)).unwrap().state(), MemberState::Leaving);
    assert!(!ring.voters().any(|voter| voter == NodeId(2)));
    loop {
        let ready: BTreeSet<ArcId> = ring.arcs().iter().map(|arc| arc.id).collect();
        match step(&ring, Evidence { ready: &ready, budget: 8, ..NOTHING }).unwrap() {
            Some(next) => ring = next,
            None => break,
        }
    }
    assert_eq!(holds(&ring, 2), 0);
    assert_eq!(ring.operations()[0].phase(), OperationPhase::Cleaning);
    assert!(ring.node(NodeId(2)).is_some(), "it still has what it did not hand over");
    let ring = drive(ring).pop().unwrap();
    assert!(ring.node(NodeId(2)).is_none() && ring.is_retired(Uuid::from_u128(2)));
    let departure = &ring.document().departures[0];
    assert_eq!(departure.uuid[..], Uuid::from_u128(2).as_bytes()[..]);
    assert!(departure.handed_over && departure.epoch == ring.epoch().0);
    assert!(join(&ring, &joiner(2)).is_err(), "a retired node is refused for ever");
}

#[test]
fn an_operation_that_is_cancelled_at_any_step_leaves_the_ring_as_it_was() {
    let before = live(4);
    let ring = begin(&before, "away", &leave(2)).unwrap().unwrap();
    let plan = planned(&ring, &Planned::Leave(NodeId(2)));
    let ring = start(&ring, "away", &plan).unwrap().unwrap();
    for at in drive(ring).iter().take_while(|ring| !ring.operations().is_empty()) {
        let cancelled = cancel(at, "away").unwrap().unwrap();
        assert_eq!(cancel(&cancelled, "away"), Ok(None), "twice is once");
        let after = drive(cancelled).pop().unwrap();
        let replicas = |ring: &Ring| ring.arcs().iter().map(|arc| arc.replicas.clone()).collect::<Vec<_>>();
        assert_eq!(replicas(&after), replicas(&before));
        assert_eq!(after.node(NodeId(2)).unwrap().state(), MemberState::Active);
        assert!(after.document().ended[0].cancelled);
    }
}

/// The numbers of those that decide.
fn voters(ring: &Ring) -> Vec<u32> {
    ring.document().voters.clone()
}

/// The ring once a node is out, while these are down.
fn left(ring: &Ring, node: u32, lost: bool, away: &BTreeSet<NodeId>) -> Ring {
    let id = format!("leave-{node}");
    let ring =
        transition::begin(ring, &id, &wish(wish::Wish::Leave(LeaveWish { node, lost })), away).unwrap();
    let ring = ring.unwrap();
    let plan = planned(&ring, &Planned::Leave(NodeId(node)));
    let mut ring = transition::start(&ring, &id, &plan, away).unwrap().unwrap();
    loop {
        let ready: BTreeSet<ArcId> = ring.arcs().iter().map(|arc| arc.id).collect();
        let evidence = Evidence {
            ready: &ready,
            clean: true,
            seen_clean: !lost,
            budget: 99,
            unclean: &NOBODY,
            away,
            hearing: &HEARING,
        };
        match step(&ring, evidence).unwrap() {
            Some(next) => ring = next,
            None => return ring,
        }
    }
}

#[test]
fn a_vote_that_is_left_goes_to_a_node_that_is_up_and_comes_back_to_one_that_is() {
    let ring = live(4);
    assert_eq!(voters(&ring), [1, 2, 3]);
    assert_eq!(voters(&left(&ring, 3, false, &NOBODY)), [1, 2, 4]);
    // The one that has no vote is down, and so is the one that leaves: one alone decides, who may not fail, where
    // neither of two might.
    let away = BTreeSet::from([NodeId(3), NodeId(4)]);
    assert_eq!(voters(&left(&ring, 3, true, &away)), [1]);
    // A voter is down while another one leaves, and while that is called off.
    let away = BTreeSet::from([NodeId(2)]);
    assert_eq!(voters(&left(&ring, 3, false, &away)), [1, 2, 4], "nobody else could take its vote");
    let begun = transition::begin(&ring, "away", &leave(3), &away).unwrap().unwrap();
    let plan = planned(&begun, &Planned::Leave(NodeId(3)));
    let leaving = transition::start(&begun, "away", &plan, &away).unwrap().unwrap();
    let back = transition::cancel(&leaving, "away", &away).unwrap().unwrap();
    let all: BTreeSet<ArcId> = back.arcs().iter().map(|arc| arc.id).collect();
    let evidence = Evidence {
        ready: &all,
        clean: true,
        seen_clean: true,
        budget: 99,
        unclean: &NOBODY,
        away: &away,
        hearing: &HEARING,
    };
    let back = step(&back, evidence).unwrap().unwrap();
    assert_eq!(voters(&back), [1, 2, 4], "who has a vote keeps it");
}

#[test]
fn a_node_whose_vote_nobody_is_known_to_be_able_to_take_votes_until_then_and_leaves_later() {
    let ring = begin(&live(4), "away", &leave(1)).unwrap().unwrap();
    let plan = planned(&ring, &Planned::Leave(NodeId(1)));
    let nobody_else = BTreeSet::from([2, 3, 4].map(NodeId));
    let mut ring = transition::start(&ring, "away", &plan, &nobody_else).unwrap().unwrap();
    assert_eq!(voters(&ring), [1, 2, 3]);
    let all: BTreeSet<ArcId> = ring.arcs().iter().map(|arc| arc.id).collect();
    let seen = Evidence { ready: &all, clean: true, seen_clean: true, budget: 99, ..NOTHING };
    let refused = loop {
        match step(&ring, Evidence { away: &nobody_else, ..seen }) {
            Ok(next) => ring = next.unwrap(),
            Err(refused) => break refused,
        }
    };
    assert!(
        matches!(&refused, ChangeError::TooFew(why) if why.contains("node 1 goes on to vote")),
        "{refused}"
    );
    // Nor while only one of them could decide alone, where one of three may fail now.
    let away = BTreeSet::from([4].map(NodeId));
    assert!(matches!(step(&ring, Evidence { away: &away, ..seen }), Err(ChangeError::TooFew(_))));
    let away = BTreeSet::from([2].map(NodeId));
    let without = step(&ring, Evidence { away: &away, ..seen }).unwrap().unwrap();
    assert_eq!((without.node(NodeId(1)), voters(&without)), (None, vec![2, 3, 4]));
}

#[test]
fn a_node_that_went_silently_is_not_retired_while_the_name_of_a_deleted_keyspace_waits_for_it() {
    let ring = begin(&live(4), "away", &leave(4)).unwrap().unwrap();
    let plan = planned(&ring, &Planned::Leave(NodeId(4)));
    let mut ring = start(&ring, "away", &plan).unwrap().unwrap();
    while current(&ring).unwrap().phase() != OperationPhase::Cleaning {
        let all: BTreeSet<ArcId> = ring.arcs().iter().map(|arc| arc.id).collect();
        ring = step(&ring, Evidence { ready: &all, budget: 99, ..NOTHING }).unwrap().unwrap();
    }
    let silent = Evidence { clean: true, ..NOTHING };
    assert!(step(&ring, silent).unwrap().unwrap().node(NodeId(4)).is_none());
    let mut document = ring.document().clone();
    document.deleted.push(DeletedKeyspace {
        name: "gone".to_owned(),
        epoch: document.epoch,
        replicas: vec![2, 3, 4],
        least_quorum: 2,
    });
    let ring = Ring::new(document).unwrap();
    assert!(matches!(step(&ring, silent), Err(ChangeError::Unheard(why)) if why.contains("node 4")));
    let heard = Hearing { epoch: ring.epoch(), by: [2, 3].map(NodeId).into() };
    assert!(step(&ring, Evidence { hearing: &heard, ..silent }).is_ok(), "it alone has not: no quorum");
    let seen = Evidence { seen_clean: true, ..silent };
    assert!(step(&ring, seen).unwrap().unwrap().node(NodeId(4)).is_none(), "it said so under this ring");
}

#[test]
fn two_disks_lost_one_after_the_other_leave_the_votes_to_nodes_that_are_up() {
    // Of seven, 4 went first, and nobody has asked for anything to be done about it when 5 goes.
    let ring = live(7);
    assert_eq!(voters(&ring), [1, 2, 3, 4, 5]);
    let away = BTreeSet::from([NodeId(4), NodeId(5)]);
    let up = |ring: &Ring| voters(ring).iter().filter(|voter| !away.contains(&NodeId(**voter))).count();
    let ring = left(&ring, 5, true, &away);
    assert_eq!((voters(&ring), up(&ring)), (vec![1, 2, 3, 4, 6], 4));
    let ring = left(&ring, 4, true, &away);
    assert_eq!(voters(&ring), [1, 2, 3, 6, 7]);
    // Of four, the one without a vote went first, and then a voter.
    let away = BTreeSet::from([NodeId(3), NodeId(4)]);
    let ring = left(&live(5), 5, false, &NOBODY);
    assert_eq!(voters(&ring), [1, 2, 3]);
    let begun =
        transition::begin(&ring, "lost", &wish(wish::Wish::Leave(LeaveWish { node: 3, lost: true })), &away);
    let begun = begun.unwrap().unwrap();
    let plan = planned(&begun, &Planned::Lost(NodeId(3)));
    let ring = transition::start(&begun, "lost", &plan, &away).unwrap().unwrap();
    assert_eq!(
        voters(&ring),
        [1],
        "a vote at 4 would leave nobody who may fail, and nothing would be decided"
    );
}

#[test]
fn the_same_id_twice_is_once_and_another_wish_under_it_is_refused() {
    let ring = begin(&live(4), "away", &leave(2)).unwrap().unwrap();
    assert_eq!(begin(&ring, "away", &leave(2)), Ok(None));
    assert!(begin(&ring, "away", &leave(3)).unwrap_err().to_string().contains("another end"));
    assert!(begin(&ring, "other", &leave(2)).unwrap_err().to_string().contains("god ring cancel away"));
    assert!(begin(&ring, "no way", &leave(3)).unwrap_err().to_string().contains("operation id"));
    assert!(begin(&ring, "nobody", &leave(9)).unwrap_err().to_string().contains("no node 9"));
}

#[test]
fn a_new_replica_copies_from_one_more_than_a_write_may_have_missed() {
    let ring = live(5);
    let old = [1, 2, 3].map(NodeId);
    assert_eq!(sources_needed(&ring, KeyspaceId(1), &old), 2, "N 3, W 2");
    let wider = ReplicasWish { keyspace: 1, replicas: 5, write_quorum: 3, read_quorum: 3 };
    let wish = wish(wish::Wish::Replicas(wider));
    let ring = begin(&ring, "wider", &wish).unwrap().unwrap();
    let asked = Planned::Replicas { keyspace: KeyspaceId(1), replicas: 5, write_quorum: 3, read_quorum: 3 };
    let ring = start(&ring, "wider", &planned(&ring, &asked)).unwrap().unwrap();
    assert_eq!(ring.keyspaces()[0].write_quorum, 3);
    assert_eq!(sources_needed(&ring, KeyspaceId(1), &old), 2, "what was written at W 2 counts on");
    let last = drive(ring).pop().unwrap();
    assert!(last.arcs().iter().all(|arc| arc.replicas.len() == 5));
}

#[test]
fn too_few_old_replicas_are_left_to_be_read_by_who_does_not_know_the_new_ones() {
    // With W 3 and R 1 one of the old three would do, had it not to be known by all who may answer a read alone.
    let ring = changed(&live(5), "reads", (3, 3, 2));
    assert_eq!(sources_needed(&ring, KeyspaceId(1), &[1, 2, 3].map(NodeId)), 2);
    let ring = changed(&live(5), "five", (5, 5, 1));
    assert_eq!(sources_needed(&ring, KeyspaceId(1), &[1, 2, 3, 4, 5].map(NodeId)), 5);
}

#[test]
fn parts_of_an_arc_are_one_again_when_they_are_merged() {
    let ring = live(4);
    let arc = ring.arcs()[1].clone();
    let inner = god_proto::position::Position::of_hash(KeyspaceId(1), (3 << 60) + 7);
    let ring_with = ring.arc_at(&inner).unwrap().id;
    let cut = split(&ring, ring_with, &inner).unwrap().unwrap();
    assert_eq!(cut.arcs().len(), ring.arcs().len() + 1);
    let upper = cut.arc_at(&inner).unwrap();
    assert_eq!(upper.replicas, cut.arc(ring_with).unwrap().replicas);
    let merged = merge(&cut, &BTreeSet::from([upper.id])).unwrap().unwrap();
    assert_eq!(merged.document().arcs, ring.document().arcs);
    assert_eq!(split(&ring, arc.id, &arc.range.start), Ok(None), "there is nothing before its start");
}

#[test]
fn a_join_that_was_asked_for_is_an_operation_of_its_own() {
    let ring = join(&live(3), &joiner(4)).unwrap().unwrap();
    let operation = current(&ring).unwrap();
    assert_eq!(operation.wish, Some(wish(wish::Wish::Join(JoinWish { node: 4 }))));
    let manual = Joiner { takes_part: false, ..joiner(5) };
    assert_eq!(join(&ring, &manual).unwrap().unwrap().operations().len(), 1);
}

#[test]
fn a_leave_ends_only_when_no_arc_is_left_on_its_node() {
    let ring = live(4);
    let mut plan = planned(&ring, &Planned::Leave(NodeId(1)));
    let forgotten = plan.moves.pop().unwrap();
    let ring = begin(&ring, "leave-1", &leave(1)).unwrap().unwrap();
    let ring = start(&ring, "leave-1", &plan).unwrap().unwrap();
    let rings = drive(ring);
    let waits = rings.last().unwrap();
    assert_eq!(current(waits).unwrap().phase(), OperationPhase::Waiting, "it is planned anew");
    assert!(waits.arc(forgotten.arc).unwrap().replicas.contains(&NodeId(1)));
    let plan = planned(waits, &Planned::Leave(NodeId(1)));
    let rings = drive(start(waits, "leave-1", &plan).unwrap().unwrap());
    assert!(rings.last().unwrap().node(NodeId(1)).is_none());
}

#[test]
fn a_leave_that_cannot_go_on_after_it_made_way_is_refused_and_its_node_stays() {
    let ring = live(5);
    let plan = planned(&ring, &Planned::Leave(NodeId(1)));
    let ring = begin(&ring, "leave-1", &leave(1)).unwrap().unwrap();
    let ring = start(&ring, "leave-1", &plan).unwrap().unwrap();
    let lost = wish(wish::Wish::Leave(LeaveWish { node: 2, lost: true }));
    let ring = begin(&ring, "lost-2", &lost).unwrap().unwrap();
    let plan = planned(&ring, &Planned::Leave(NodeId(2)));
    let ring = drive(start(&ring, "lost-2", &plan).unwrap().unwrap()).pop().unwrap();
    assert_eq!(ring.node(NodeId(1)).unwrap().state(), MemberState::Leaving);
    let ring = refuse(&ring, "leave-1", "too few nodes would be left", &NOBODY).unwrap().unwrap();
    assert_eq!(ring.node(NodeId(1)).unwrap().state(), MemberState::Active);
    assert_eq!(ring.document().ended.last().unwrap().refused, "too few nodes would be left");
}

pub(super) fn replicas(replicas: u32, write_quorum: u32, read_quorum: u32) -> Wish {
    wish(wish::Wish::Replicas(ReplicasWish { keyspace: 1, replicas, write_quorum, read_quorum }))
}

/// The ring in which such a change was asked for, started and carried out.
pub(super) fn changed(ring: &Ring, id: &str, to: (u32, u32, u32)) -> Ring {
    let asked =
        Planned::Replicas { keyspace: KeyspaceId(1), replicas: to.0, write_quorum: to.1, read_quorum: to.2 };
    let begun = begin(ring, id, &replicas(to.0, to.1, to.2)).unwrap().unwrap();
    drive(start(&begun, id, &planned(ring, &asked)).unwrap().unwrap()).pop().unwrap()
}

#[test]
fn reads_after_a_change_of_quorums_meet_writes_of_before_it() {
    let ring = live(5);
    // Writes of before are on 2 of 3. Where the number of copies changes, all of the new set copy.
    for (wish, allowed) in [
        (replicas(3, 3, 1), false),
        (replicas(3, 2, 2), true),
        (replicas(3, 1, 3), true),
        (replicas(5, 5, 1), true),
        (replicas(5, 3, 3), true),
    ] {
        assert_eq!(begin(&ring, "replicas", &wish).is_ok(), allowed, "{wish:?}");
    }
}

#[test]
fn a_write_quorum_that_was_raised_says_nothing_of_writes_of_before() {
    let ring = changed(&live(5), "one", (3, 1, 3));
    let ring = changed(&ring, "two", (3, 2, 3));
    assert_eq!(ring.keyspaces()[0].least_write_quorum, 1);
    assert_eq!(sources_needed(&ring, KeyspaceId(1), &[1, 2, 3].map(NodeId)), 3);
    assert!(begin(&ring, "three", &replicas(3, 2, 2)).unwrap_err().to_string().contains("as few as 1 of 3"));
    // With another number of copies every one of them has all that was acknowledged.
    let ring = changed(&ring, "four", (5, 3, 3));
    assert_eq!(sources_needed(&ring, KeyspaceId(1), &[1, 2, 3, 4, 5].map(NodeId)), 3);
}

#[test]
fn quorums_that_were_asked_for_one_after_the_other_are_checked_when_their_turn_comes() {
    let ring = begin(&live(5), "a", &replicas(3, 1, 3)).unwrap().unwrap();
    let ring = begin(&ring, "b", &replicas(3, 3, 2)).unwrap().unwrap();
    let asked = |write_quorum, read_quorum| Planned::Replicas {
        keyspace: KeyspaceId(1),
        replicas: 3,
        write_quorum,
        read_quorum,
    };
    let ring = drive(start(&ring, "a", &planned(&ring, &asked(1, 3))).unwrap().unwrap()).pop().unwrap();
    assert_eq!(current(&ring).unwrap().id, "b");
    let ring = start(&ring, "b", &planned(&ring, &asked(3, 2))).unwrap().unwrap();
    assert!(ring.document().ended.last().unwrap().refused.contains("as few as 1 of 3"));
    assert_eq!(ring.keyspaces()[0].read_quorum, 3);
}

#[test]
fn arcs_keep_the_quorums_of_their_number_of_copies_however_a_change_of_it_ends() {
    let asked = Planned::Replicas { keyspace: KeyspaceId(1), replicas: 5, write_quorum: 3, read_quorum: 3 };
    let ring = begin(&live(6), "wider", &replicas(5, 3, 3)).unwrap().unwrap();
    let rings = drive(start(&ring, "wider", &planned(&ring, &asked)).unwrap().unwrap());
    let sound = |ring: &Ring| {
        for arc in ring.arcs() {
            for set in std::iter::once(&arc.replicas).chain(&arc.next) {
                let terms = quorums(&ring.keyspaces()[0], set.len());
                let size = set.len() as u32;
                let [write, read] = [terms.write_quorum, terms.read_quorum].map(|quorum| quorum.min(size));
                assert!(write + read > size, "{arc}: {terms:?}");
            }
        }
    };
    let mut mixed = 0;
    for ring in rings.iter().filter(|ring| !ring.operations().is_empty()) {
        sound(ring);
        let back = drive(cancel(ring, "wider").unwrap().unwrap());
        back.iter().for_each(sound);
        let after = &back.last().unwrap().keyspaces()[0];
        assert_eq!((after.replicas, after.write_quorum, after.former.len()), (3, 2, 0));
        // A disk is lost on the way back, and the moves that name its node are forgotten.
        let ring = cancel(ring, "wider").unwrap().unwrap();
        let lost = wish(wish::Wish::Leave(LeaveWish { node: 6, lost: true }));
        let Ok(Some(ring)) = begin(&ring, "lost", &lost) else { continue };
        let ring = match start(&ring, "lost", &planned(&ring, &Planned::Leave(NodeId(6)))) {
            Ok(Some(ring)) => drive(ring).pop().unwrap(),
            _ => continue,
        };
        sound(&ring);
        mixed += usize::from(!ring.keyspaces()[0].former.is_empty());
    }
    assert!(mixed > 0, "arcs of either number of copies were left in none of them");
}

#[test]
fn all_of_a_set_of_another_size_copy_and_else_only_who_is_new() {
    let ring = live(5);
    let mut arc = ring.arcs()[0].clone();
    arc.replicas = [1, 2, 3].map(NodeId).to_vec();
    for (next, copies) in
        [(vec![1, 2, 4], vec![4]), (vec![1, 2], vec![1, 2]), (vec![1, 2, 3, 4], vec![1, 2, 3, 4])]
    {
        arc.next = Some(next.into_iter().map(NodeId).collect());
        assert_eq!(arc.copiers().map(|node| node.0).collect::<Vec<_>>(), copies);
    }
    arc.next = None;
    assert_eq!(arc.copiers().count(), 0);
}

#[test]
fn a_leave_that_made_way_and_is_cancelled_gives_its_node_back() {
    let ring = live(5);
    let plan = planned(&ring, &Planned::Leave(NodeId(1)));
    let ring = begin(&ring, "leave-1", &leave(1)).unwrap().unwrap();
    let ring = start(&ring, "leave-1", &plan).unwrap().unwrap();
    let lost = wish(wish::Wish::Leave(LeaveWish { node: 2, lost: true }));
    let ring = begin(&ring, "lost-2", &lost).unwrap().unwrap();
    let ring = cancel(&ring, "leave-1").unwrap().unwrap();
    assert_eq!(ring.node(NodeId(1)).unwrap().state(), MemberState::Active);
    let ended = ring.document().ended.iter().find(|ended| ended.id == "leave-1").unwrap();
    assert!(ended.cancelled && ended.refused.contains("stays where it is"), "{ended:?}");
}

#[test]
fn a_node_stays_whose_replacement_is_lost_before_it_took_over() {
    let ring = live(5);
    let replace = wish(wish::Wish::Replace(ReplaceWish { old: 1, new: 5, lost: false }));
    let plan = planned(&ring, &Planned::Leave(NodeId(1)));
    let ring = begin(&ring, "replace-1", &replace).unwrap().unwrap();
    let ring = start(&ring, "replace-1", &plan).unwrap().unwrap();
    assert_eq!(ring.node(NodeId(1)).unwrap().state(), MemberState::Leaving);
    let lost = wish(wish::Wish::Leave(LeaveWish { node: 5, lost: true }));
    let ring = begin(&ring, "lost-5", &lost).unwrap().unwrap();
    assert_eq!(ring.node(NodeId(1)).unwrap().state(), MemberState::Active);
    let ended = ring.document().ended.iter().find(|ended| ended.id == "replace-1").unwrap();
    assert!(ended.refused.contains("node 5 are gone"));
}

#[test]
fn an_arc_all_of_whose_replicas_are_gone_is_waited_for_by_nobody() {
    let mut ring = live(5);
    for node in [1, 2] {
        let lost = wish(wish::Wish::Leave(LeaveWish { node, lost: true }));
        ring = begin(&ring, &format!("lost-{node}"), &lost).unwrap().unwrap();
    }
    let old = [1, 2, 3].map(NodeId);
    assert_eq!(sources_needed(&ring, KeyspaceId(1), &old), 2, "it may be unsaid until it begins");
    let plan = planned(&ring, &Planned::Lost(NodeId(2)));
    let ring = start(&ring, "lost-2", &plan).unwrap().unwrap();
    assert_eq!(sources_needed(&ring, KeyspaceId(1), &[1, 2].map(NodeId)), 0);
    assert_eq!(sources_needed(&ring, KeyspaceId(1), &old), 1, "the one that is left");
}

#[test]
fn what_goes_back_ends_where_it_is_when_a_disk_is_lost() {
    let ring = begin(&live(5), "away", &leave(2)).unwrap().unwrap();
    let plan = planned(&ring, &Planned::Leave(NodeId(2)));
    let rings = drive(start(&ring, "away", &plan).unwrap().unwrap());
    let back = cancel(&rings[rings.len() / 2], "away").unwrap().unwrap();
    assert_eq!(current(&back).unwrap().phase(), OperationPhase::Cancelling);
    // Node 2 is wanted for what makes up for node 3, which what goes back may be waiting for.
    let replace = wish(wish::Wish::Replace(ReplaceWish { old: 3, new: 2, lost: true }));
    let ring = begin(&back, "lost", &replace).unwrap().unwrap();
    assert_eq!(ring.operations().iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["lost"]);
    assert_eq!(ring.node(NodeId(2)).unwrap().state(), MemberState::Active);
    // It is said that its arcs are not all where they were.
    let ended = ring.document().ended.last().unwrap();
    assert!(ended.cancelled && ended.refused.contains("stopped where it was"), "{ended:?}");
    assert!(ended.refused.contains("node 3"));
    assert_eq!(cancel(&ring, "away"), Ok(None), "twice is once");
}
