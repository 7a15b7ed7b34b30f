//! Two rings of one cluster, and what they take for the same.

use super::{
    epochs::{common_epoch, is_same_change, stamp_arcs},
    keyspaces::{create_keyspace, delete_keyspace, mark_live},
    parts::{merge, split},
    planner::{Sizes, Wish as Planned, plan},
    recover::recover,
    transition_tests::{begin, cancel, drive, join, joiner, leave, live, replicas, start},
    wishes::current,
};
use god_proto::{
    ids::{Epoch, KeyspaceId, NodeId},
    position::Position,
    ring::{MAX_RING_BYTES, Ring, RingArc, ring_bytes},
    v1::{Keyspace, wish},
};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// A history of rings, each made from the one before.
struct History(Vec<Ring>);

impl History {
    fn last(&self) -> &Ring {
        self.0.last().unwrap()
    }

    fn push(&mut self, next: &Ring) {
        self.0.push(stamp_arcs(self.last(), next).unwrap());
    }

    /// Plans the operation whose turn it is; takes so many of its steps, and may cancel it then.
    fn carry_out(&mut self, steps: usize, cancels: bool) {
        let Some(operation) = current(self.last()).cloned() else { return };
        let node = |number: u32| NodeId(number);
        let asked = match operation.wish.as_ref().and_then(|wish| wish.wish.as_ref()) {
            Some(wish::Wish::Join(join)) => Planned::Join(node(join.node)),
            Some(wish::Wish::Leave(leave)) => Planned::Leave(node(leave.node)),
            Some(wish::Wish::Replicas(wish)) => Planned::Replicas {
                keyspace: KeyspaceId(wish.keyspace),
                replicas: wish.replicas,
                write_quorum: wish.write_quorum,
                read_quorum: wish.read_quorum,
            },
            _ => return,
        };
        let mut document = self.last().document().clone();
        document.operations.clear();
        let Ok(plan) = plan(&Ring::new(document).unwrap(), &asked, &Sizes::default()) else { return };
        let Ok(Some(started)) = start(self.last(), &operation.id, &plan) else { return };
        self.push(&started);
        for next in drive(started).iter().skip(1).take(steps) {
            self.push(next);
        }
        if cancels && let Ok(Some(turned)) = cancel(self.last(), &operation.id) {
            self.push(&turned);
            drive(turned).iter().skip(1).for_each(|next| self.push(next));
        }
    }

    fn happens(&mut self, event: &Event) {
        let ring = self.last();
        let number = ring.document().next_node;
        let keyspace = |at: usize| ring.keyspaces().get(at % ring.keyspaces().len().max(1));
        let next = match event {
            Event::Join => join(ring, &joiner(number.into())),
            Event::Leave(at) => {
                let node = ring.nodes()[at % ring.nodes().len()].number;
                begin(ring, &format!("leave-{}", ring.epoch()), &leave(node))
            }
            Event::Replicas(n, w, r) => {
                begin(ring, &format!("replicas-{}", ring.epoch()), &replicas(*n, *w.min(n), *r.min(n)))
            }
            Event::Create => {
                let name = format!("keyspace-{}", ring.epoch());
                let wish = Keyspace { name, replicas: 3, ..Keyspace::default() };
                create_keyspace(ring, &wish, &[]).map(Some)
            }
            Event::Live(at) => match keyspace(*at) {
                Some(keyspace) => mark_live(ring, KeyspaceId(keyspace.id)),
                None => Ok(None),
            },
            Event::Delete(at) => match keyspace(*at) {
                Some(keyspace) => delete_keyspace(ring, &keyspace.name, KeyspaceId(keyspace.id)),
                None => Ok(None),
            },
            Event::Cut(hash) => {
                let at = Position::of_hash(KeyspaceId(1), *hash);
                ring.arc_at(&at).map_or(Ok(None), |arc| split(ring, arc.id, &at))
            }
            Event::Merge(at) => match ring.arcs().get(at % ring.arcs().len().max(1)) {
                Some(arc) => merge(ring, &BTreeSet::from([arc.id])),
                None => Ok(None),
            },
            Event::Steps(steps, cancels) => return self.carry_out(*steps, *cancels),
        };
        if let Ok(Some(next)) = next {
            self.push(&next);
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Join,
    Leave(usize),
    Replicas(u32, u32, u32),
    Create,
    Live(usize),
    Delete(usize),
    Cut(u64),
    Merge(usize),
    /// Of the operation whose turn it is, and whether it is cancelled then.
    Steps(usize, bool),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        2 => Just(Event::Join),
        1 => any::<usize>().prop_map(Event::Leave),
        2 => (1u32..5, 1u32..4, 1u32..4).prop_map(|(n, w, r)| Event::Replicas(n, w, r)),
        1 => Just(Event::Create),
        2 => any::<usize>().prop_map(Event::Live),
        1 => any::<usize>().prop_map(Event::Delete),
        1 => any::<u64>().prop_map(Event::Cut),
        1 => any::<usize>().prop_map(Event::Merge),
        4 => (0usize..30, any::<bool>()).prop_map(|(steps, cancels)| Event::Steps(steps, cancels)),
    ];
    prop::collection::vec(event, 1..12)
}

/// Who asks about an arc by one ring is answered by another.
fn is_answered(asked: &Ring, arcs: Epoch, ring: &Ring, at: &Position) -> bool {
    common_epoch(ring, asked.epoch(), arcs)
        .is_some_and(|common| ring.arc_at(at).is_some_and(|arc| arc.changed <= common))
}

/// Whether both rings mean the same by what is at a position.
fn is_same(a: &Ring, b: &Ring, at: &Position) -> bool {
    let (Some(mine), Some(theirs)) = (a.arc_at(at), b.arc_at(at)) else { return false };
    RingArc { changed: mine.changed, ..theirs.clone() } == *mine
        && a.keyspace_by_id(mine.keyspace) == b.keyspace_by_id(theirs.keyspace)
}

/// Pairs of rings, and arcs of the first, about which the second answers though it means something else.
fn misunderstandings(rings: &[Ring], answers: impl Fn(&Ring, Epoch, &Ring, &Position) -> bool) -> usize {
    let pairs = rings.iter().flat_map(|asked| rings.iter().map(move |ring| (asked, ring)));
    pairs
        .flat_map(|(asked, ring)| asked.arcs().iter().map(move |arc| (asked, arc, ring)))
        .filter(|(asked, arc, ring)| {
            let at = &arc.range.start;
            answers(asked, arc.changed, ring, at) && !is_same(asked, ring, at)
        })
        .count()
}

/// Three nodes with data, which become four and then have two copies.
fn history() -> History {
    let mut history = History(vec![live(3)]);
    for event in [
        Event::Join,
        Event::Steps(100, false),
        Event::Create,
        Event::Live(1),
        Event::Replicas(2, 2, 1),
        Event::Steps(100, false),
    ] {
        history.happens(&event);
    }
    assert!(history.0.len() > 12, "{} rings", history.0.len());
    history
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn who_is_answered_by_another_ring_meant_the_same(events in events()) {
        let mut history = History(vec![live(4)]);
        events.iter().for_each(|event| history.happens(event));
        prop_assert_eq!(misunderstandings(&history.0, is_answered), 0);
    }
}

#[test]
fn a_step_of_one_arc_disturbs_no_request_for_another() {
    let rings = history().0;
    let mut undisturbed = 0;
    for [before, after] in rings.array_windows() {
        for arc in before.arcs().iter().filter(|arc| is_same(before, after, &arc.range.start)) {
            let at = &arc.range.start;
            assert!(is_answered(before, arc.changed, after, at), "{arc}: by the newer ring");
            assert!(is_answered(after, after.arc_at(at).unwrap().changed, before, at), "{arc}: by the older");
            undisturbed += 1;
        }
    }
    assert!(undisturbed > rings.len() * 4, "{undisturbed} arcs stood still in {} rings", rings.len());
}

/// What each part of the rule is for.
#[test]
fn half_of_the_rule_is_not_enough() {
    let rings = history().0;
    assert_eq!(misunderstandings(&rings, is_answered), 0);
    // The one who answers does not look at its own note: it may be the newer one.
    let unnoted = |asked: &Ring, arcs, ring: &Ring, at: &Position| {
        common_epoch(ring, asked.epoch(), arcs).is_some() && ring.arc_at(at).is_some()
    };
    assert!(misunderstandings(&rings, unnoted) > 0);
    // The one who asks does not say when its arcs changed: the other may have the older ring.
    let untold = |asked: &Ring, _, ring: &Ring, at: &Position| is_answered(asked, Epoch(1), ring, at);
    assert!(misunderstandings(&rings, untold) > 0);
    // Another quorum is asked of the same nodes.
    let quorums: Vec<Ring> = rings
        .iter()
        .map(|ring| {
            let mut document = ring.document().clone();
            document.arcs.iter_mut().for_each(|arc| arc.changed = 1);
            Ring::new(document).unwrap()
        })
        .collect();
    assert!(misunderstandings(&quorums, is_answered) > 0, "with arcs that note no change");
}

#[test]
fn after_a_recovery_no_arc_is_that_of_those_who_did_not_hear_of_it() {
    let ring = stamp_arcs(&live(3), &join(&live(3), &joiner(4)).unwrap().unwrap()).unwrap();
    let lost = BTreeSet::from([NodeId(2), NodeId(3)]);
    let answering = BTreeSet::from([NodeId(1), NodeId(4)]);
    let recovered = recover(&ring, NodeId(1), &answering, &lost).unwrap().ring;
    let arc = &ring.arcs()[0];
    // Those who were lost decide an epoch of their own, in which the arc changes hands.
    let mut document = ring.document().clone();
    document.epoch += 1;
    document.arcs[0].replicas = vec![2, 3];
    let zombie = stamp_arcs(&ring, &Ring::new(document).unwrap()).unwrap();
    let at = &arc.range.start;
    assert!(!is_answered(&zombie, zombie.arcs()[0].changed, &recovered, at));
    assert!(!is_answered(&recovered, recovered.arcs()[0].changed, &zombie, at));
    assert!(!is_answered(&ring, arc.changed, &recovered, at), "nor what was known before");
}

#[test]
fn a_ring_that_has_no_room_for_epochs_of_arcs_has_none() {
    let before = live(3);
    let mut document = join(&before, &joiner(4)).unwrap().unwrap().document().clone();
    let each = 18;
    document.retired = vec![vec![7; 16].into(); (MAX_RING_BYTES - ring_bytes(&document)) / each];
    let full = Ring::new(document).unwrap();
    assert!(ring_bytes(full.document()) + 2 * full.arcs().len() > MAX_RING_BYTES);
    let stamped = stamp_arcs(&before, &full).unwrap();
    assert_eq!(stamped.document(), full.document());
    assert!(stamped.arcs().iter().all(|arc| arc.changed == stamped.epoch()), "all of it changed");
}

#[test]
fn a_change_that_an_older_program_took_the_epochs_from_is_the_same_one() {
    let before = live(3);
    let change = stamp_arcs(&before, &join(&before, &joiner(4)).unwrap().unwrap()).unwrap();
    let mut document = change.document().clone();
    document.arcs.iter_mut().for_each(|arc| arc.changed = 0);
    assert!(document != *change.document() && is_same_change(&document, change.document()));
    document.arcs[0].replicas.reverse();
    assert!(!is_same_change(&document, change.document()));
}
