//! From some quorums to others, of the same copies.

use super::{
    planner::Wish as Planned,
    transition::{step, unheard_of},
    transition_tests::{NOTHING, begin, cancel, changed, drive, live, planned, replicas, start},
};
use god_proto::{
    ids::{KeyspaceId, NodeId},
    ring::Ring,
    v1::{OperationPhase, Terms},
};
use std::collections::BTreeSet;

/// A ring whose three copies have these quorums, and data.
fn with_quorums(copies: u32, write_quorum: u32, read_quorum: u32) -> Ring {
    let mut document = changed(&live(5), "copies", (copies, copies, copies)).document().clone();
    let keyspace = &mut document.keyspaces[0];
    (keyspace.write_quorum, keyspace.read_quorum, keyspace.least_write_quorum) =
        (write_quorum, read_quorum, 0);
    Ring::new(document).unwrap()
}

/// The ring in which such a change was asked for and started, and nobody is known to have heard of it.
fn begun(ring: &Ring, to: (u32, u32, u32)) -> Option<Ring> {
    let asked =
        Planned::Replicas { keyspace: KeyspaceId(1), replicas: to.0, write_quorum: to.1, read_quorum: to.2 };
    let begun = begin(ring, "quorums", &replicas(to.0, to.1, to.2)).ok()??;
    let mut ring = start(&begun, "quorums", &planned(ring, &asked)).unwrap()?;
    while let Some(next) = step(&ring, NOTHING).unwrap() {
        ring = next;
    }
    Some(ring)
}

fn quorums_of(ring: &Ring) -> (u32, u32) {
    (ring.keyspaces()[0].write_quorum, ring.keyspaces()[0].read_quorum)
}

#[test]
fn what_holds_on_the_way_to_other_quorums_meets_those_before_and_those_after() {
    let mut apart = 0;
    for copies in 1..=4 {
        let pairs = || (1..=copies).flat_map(move |w| (1..=copies).map(move |r| (w, r)));
        let meet = |(w, _): (u32, u32), (_, r): (u32, u32)| w + r > copies;
        for (old, new) in pairs().flat_map(|old| pairs().map(move |new| (old, new))) {
            // Those who ask for less than that are told nothing.
            if !meet(old, old) || !meet(new, new) || old == new {
                continue;
            }
            let Some(ring) = begun(&with_quorums(copies, old.0, old.1), (copies, new.0, new.1)) else {
                continue;
            };
            let between = quorums_of(&ring);
            for (a, b) in [(old, between), (between, old), (between, new), (new, between)] {
                assert!(meet(a, b), "{copies} copies: {old:?} -> {between:?} -> {new:?}");
            }
            apart += u32::from(!meet(new, old));
            assert_eq!(quorums_of(drive(ring).last().unwrap()), new);
        }
    }
    assert!(apart > 0, "old and new ones need something between");
}

#[test]
fn other_quorums_hold_once_the_old_ones_are_reached_nowhere() {
    let nodes = |numbers: &[u32]| numbers.iter().copied().map(NodeId).collect::<BTreeSet<NodeId>>();
    // Who has not heard reads one copy: all three must.
    let ring = begun(&with_quorums(3, 3, 1), (3, 2, 2)).unwrap();
    assert_eq!(quorums_of(&ring), (3, 2));
    let arc = &ring.arcs()[0].replicas;
    assert_eq!(
        unheard_of(&ring, &BTreeSet::new()),
        ring.arcs().iter().flat_map(|arc| arc.replicas.clone()).collect()
    );
    assert!(unheard_of(&ring, &nodes(&[arc[0].0, arc[1].0])).contains(&arc[2]));
    assert_eq!(unheard_of(&ring, &nodes(&[1, 2, 3, 4, 5])), nodes(&[]));
    // It can be taken back meanwhile.
    let back = drive(cancel(&ring, "quorums").unwrap().unwrap()).pop().unwrap();
    assert_eq!(quorums_of(&back), (3, 1));
    // Who has not heard reads two: two must.
    let ring = begun(&with_quorums(3, 2, 2), (3, 1, 3)).unwrap();
    assert_eq!(quorums_of(&ring), (2, 3));
    let two: BTreeSet<NodeId> = ring.arcs().iter().flat_map(|arc| arc.replicas[..2].to_vec()).collect();
    assert_eq!(unheard_of(&ring, &two), nodes(&[]));
    let one: BTreeSet<NodeId> = nodes(&[ring.arcs()[0].replicas[0].0]);
    assert!(!unheard_of(&ring, &one).is_empty());
    // What needs nothing between waits for nobody.
    assert!(begun(&with_quorums(3, 2, 2), (3, 3, 2)).unwrap().operations().is_empty());
}

#[test]
fn arcs_that_had_the_number_of_copies_already_are_heard_of_where_that_changes() {
    let with = |left: bool| {
        let mut document = live(5).document().clone();
        let arc = &mut document.arcs[0];
        if left {
            // From a change to four copies that was called off: writes to all of these, reads of one.
            arc.replicas.push((1..=5).find(|node| !arc.replicas.contains(node)).unwrap());
            let former = Terms { replicas: 4, write_quorum: 4, read_quorum: 1, least_write_quorum: 4 };
            document.keyspaces[0].former.push(former);
        }
        Ring::new(document).unwrap()
    };
    let waits = |ring: Ring| {
        let asked =
            Planned::Replicas { keyspace: KeyspaceId(1), replicas: 4, write_quorum: 4, read_quorum: 2 };
        let begun = begin(&ring, "four", &replicas(4, 4, 2)).unwrap().unwrap();
        let rings = drive(start(&begun, "four", &planned(&ring, &asked)).unwrap().unwrap());
        assert_eq!(quorums_of(rings.last().unwrap()), (4, 2));
        assert!(rings.last().unwrap().operations().is_empty());
        rings.iter().any(|ring| ring.operations().iter().any(|it| it.phase() == OperationPhase::Cleaning))
    };
    assert!(waits(with(true)), "who has not heard reads one of the four of the first arc");
    assert!(!waits(with(false)), "no arc had four copies");
}

#[test]
fn reads_of_more_hold_at_once_and_are_over_once_fewer_are_read_nowhere() {
    let nodes = |numbers: &[u32]| numbers.iter().copied().map(NodeId).collect::<BTreeSet<NodeId>>();
    // Who has not heard reads one copy. The next change, from three that are read, would wait for two nodes.
    let ring = begun(&with_quorums(3, 3, 1), (3, 3, 3)).unwrap();
    assert_eq!((quorums_of(&ring), ring.operations().len()), ((3, 3), 1));
    assert!(!unheard_of(&ring, &nodes(&[1, 2, 3, 4])).is_empty());
    assert!(unheard_of(&ring, &nodes(&[1, 2, 3, 4, 5])).is_empty());
    let back = drive(cancel(&ring, "quorums").unwrap().unwrap()).pop().unwrap();
    assert_eq!((quorums_of(&back), back.operations().len()), ((3, 1), 0));
    let over = drive(ring).pop().unwrap();
    assert_eq!((quorums_of(&over), over.operations().len()), ((3, 3), 0));
    assert!(!over.document().ended.last().unwrap().cancelled);
    // A keyspace without data waits for nobody.
    let mut empty = with_quorums(3, 3, 1).document().clone();
    empty.keyspaces[0].live = false;
    assert!(begun(&Ring::new(empty).unwrap(), (3, 3, 3)).unwrap().operations().is_empty());
}
