//! Plans that a person can read, and refusals. The ring before, what is asked, the steps, and the ring after are in
//! `testdata/plan_*.txt`.

use super::{ArcSize, EVEN, Move, Plan, Share, Sizes, Wish, plan, shares, small_arcs, words::bytes};
use god_proto::{
    ids::{ArcId, KeyspaceId, NodeId},
    position::Position,
    ring::{RING_FORMAT, Ring},
    v1::{
        Arc, Keyspace, LeaveWish, Member, MemberState, Operation, Partitioner, RingDocument, Transition,
        Wish as Message, wish::Wish as WishKind,
    },
};
use std::fmt::Write;

const MIB: u64 = 1 << 20;

/// A ring for tests, made part by part.
pub(super) struct Built(RingDocument);

impl Built {
    pub fn new(virtual_nodes: u32) -> Built {
        Built(RingDocument {
            format: RING_FORMAT,
            cluster: vec![7; 16].into(),
            epoch: 1,
            voters: vec![1],
            next_node: 1,
            next_keyspace: 1,
            next_arc: 1,
            virtual_nodes,
            ..RingDocument::default()
        })
    }

    pub fn node(mut self, zone: &str, weight: f64) -> Built {
        let number = self.0.next_node;
        self.0.next_node += 1;
        let uuid = uuid::Uuid::from_u128(u128::from(number)).as_bytes().to_vec().into();
        self.0.nodes.push(Member { number, uuid, zone: zone.to_owned(), weight, ..Member::default() });
        self
    }

    /// The node that came last waits to be told to take its part.
    pub fn waits(mut self) -> Built {
        if let Some(node) = self.0.nodes.last_mut() {
            node.waits = true;
        }
        self
    }

    /// A hashed keyspace with as many arcs as there are sets.
    pub fn keyspace(mut self, name: &str, replicas: u32, sets: &[Vec<u32>]) -> Built {
        let id = self.0.next_keyspace;
        self.0.next_keyspace += 1;
        self.0.keyspaces.push(Keyspace {
            id,
            name: name.to_owned(),
            replicas,
            write_quorum: 1,
            read_quorum: 1,
            live: true,
            ..Keyspace::default()
        });
        for (at, set) in sets.iter().enumerate() {
            let start = match at {
                0 => Position::keyspace_start(KeyspaceId(id)),
                _ => {
                    Position::of_hash(KeyspaceId(id), ((at as u128 * (1 << 64)) / sets.len() as u128) as u64)
                }
            };
            let number = self.0.next_arc;
            self.0.next_arc += 1;
            self.0.arcs.push(Arc {
                id: number,
                start: start.into_bytes(),
                replicas: set.clone(),
                transition: None,
                changed: 0,
            });
        }
        self
    }

    pub fn ring(self) -> Ring {
        Ring::new(self.0).unwrap()
    }
}

/// The ring once a plan is carried out, and the wish granted.
pub(super) fn granted(ring: &Ring, wish: &Wish, plan: &Plan) -> Ring {
    let mut document = plan.apply(ring.document());
    document.epoch += 1;
    for node in &mut document.nodes {
        match wish {
            Wish::Reweight { node: id, weight } if id.0 == node.number => node.weight = *weight,
            Wish::Rezone { node: id, zone } if id.0 == node.number => node.zone.clone_from(zone),
            _ => {}
        }
    }
    if let Some(old) = wish.gives_all() {
        document.nodes.retain(|node| node.number != old.0);
        document.voters = vec![document.nodes[0].number];
    }
    if let Wish::Replicas { keyspace, replicas, .. } = wish {
        let found = document.keyspaces.iter_mut().find(|found| found.id == keyspace.0).unwrap();
        found.replicas = *replicas;
    }
    Ring::new(document).unwrap()
}

/// The sizes of arcs once a plan's cuts are made: halves.
pub(super) fn sizes_after(sizes: &Sizes, plan: &Plan) -> Sizes {
    let mut sizes = sizes.clone();
    for split in &plan.splits {
        let whole = sizes.arcs.remove(&split.arc).unwrap_or_default();
        let part = |half: fn(u64) -> u64| ArcSize {
            bytes: half(whole.bytes),
            entries: half(whole.entries),
            load: whole.load / 2.0,
            middle: None,
        };
        sizes.arcs.insert(split.arc, part(|all| all - all / 2));
        sizes.arcs.insert(split.new, part(|all| all / 2));
    }
    sizes
}

/// Gives all arcs this size, but for some, by their place.
fn sized(ring: &Ring, all: u64, but: &[(usize, u64)]) -> Sizes {
    let mut sizes = Sizes::default();
    for (at, arc) in ring.arcs().iter().enumerate() {
        let bytes = but.iter().find(|(but, _)| *but == at).map_or(all, |(_, bytes)| *bytes);
        sizes.arcs.insert(arc.id, ArcSize { bytes, entries: bytes / 100, ..ArcSize::default() });
    }
    sizes
}

fn numbers(nodes: &[NodeId]) -> Vec<u32> {
    nodes.iter().map(|node| node.0).collect()
}

fn show(out: &mut String, ring: &Ring, sizes: &Sizes) {
    for share in shares(ring, sizes) {
        let node = ring.node(share.node).unwrap();
        writeln!(
            out,
            "node {}  zone {}  weight {}  {:>9}, {:.2} of its share  {:2} arcs, leads {}",
            node.number,
            node.zone,
            node.weight,
            bytes(share.bytes),
            share.ratio(),
            share.arcs,
            share.leads
        )
        .unwrap();
    }
    for keyspace in ring.keyspaces() {
        writeln!(out, "keyspace {}  N {}", keyspace.name, keyspace.replicas).unwrap();
        for arc in ring.arcs().iter().filter(|arc| arc.keyspace.0 == keyspace.id) {
            let size = sizes.arcs.get(&arc.id).cloned().unwrap_or_default();
            let (start, on) = (&arc.range.start, numbers(&arc.replicas));
            writeln!(out, "  arc {:2}  from {start:?}  {:>9}  on {on:?}", arc.id.0, bytes(size.bytes))
                .unwrap();
        }
    }
}

/// Plans, and compares all that there is to see of it with a file.
fn golden(name: &str, asked: &str, ring: &Ring, wish: &Wish, sizes: &Sizes) -> Plan {
    let made = plan(ring, wish, sizes).unwrap();
    let mut shown = "# before\n".to_owned();
    show(&mut shown, ring, sizes);
    writeln!(shown, "\n# {asked}").unwrap();
    for split in &made.splits {
        writeln!(shown, "cut arc {} at {:?}: arc {}  ({})", split.arc, split.at, split.new, split.reason)
            .unwrap();
    }
    for step in &made.moves {
        let (from, to) = (numbers(&step.from), numbers(&step.to));
        writeln!(
            shown,
            "move arc {:2}  {from:?} -> {to:?}  {:>9}  ({})",
            step.arc.0,
            bytes(step.bytes),
            step.reason
        )
        .unwrap();
    }
    let (copied, ideal) = (bytes(made.bytes), bytes(made.ideal_bytes));
    writeln!(shown, "copies {copied} of at least {ideal}, unevenness {:.2}", made.unevenness).unwrap();
    made.notes.iter().for_each(|note| writeln!(shown, "note: {note}").unwrap());
    shown.push_str("\n# after\n");
    show(&mut shown, &granted(ring, wish, &made), &sizes_after(sizes, &made));

    crate::testing::golden(&format!("ring/testdata/plan_{name}.txt"), &shown);
    made
}

fn three_nodes() -> Built {
    Built::new(2).node("a", 1.0).node("b", 1.0).node("c", 1.0)
}

/// Each arc on the nodes from one on, one after the other.
fn around(arcs: u32, nodes: u32, copies: u32) -> Vec<Vec<u32>> {
    (0..arcs).map(|arc| (0..copies).map(|copy| 1 + (arc + copy) % nodes).collect()).collect()
}

#[test]
fn who_joins_takes_its_part_and_nothing_else_moves() {
    let ring = three_nodes().node("d", 1.0).keyspace("default", 3, &around(6, 3, 3)).ring();
    let sizes = sized(&ring, 64 * MIB, &[]);
    let made = golden("join", "node 4 joins", &ring, &Wish::Join(NodeId(4)), &sizes);
    let gains =
        |from: &[NodeId], to: &[NodeId]| to.iter().any(|node| *node != NodeId(4) && !from.contains(node));
    assert!(!made.moves.iter().any(|step| gains(&step.from, &step.to)));
}

#[test]
fn who_leaves_gives_what_it_holds_and_nothing_else_moves() {
    let ring = three_nodes().node("a", 1.0).keyspace("default", 2, &around(8, 4, 2)).ring();
    let sizes = sized(&ring, 64 * MIB, &[]);
    let made = golden("leave", "node 4 leaves", &ring, &Wish::Leave(NodeId(4)), &sizes);
    assert_eq!(made.bytes, 4 * 64 * MIB);
}

#[test]
fn who_replaces_another_takes_its_very_places() {
    let ring = three_nodes().node("c", 1.0).keyspace("default", 3, &around(6, 3, 3)).ring();
    let sizes = sized(&ring, 64 * MIB, &[]);
    let wish = Wish::Replace { old: NodeId(3), new: NodeId(4) };
    let made = golden("replace", "node 4 replaces node 3", &ring, &wish, &sizes);
    let place = |nodes: &[NodeId], id| nodes.iter().position(|node| *node == NodeId(id));
    assert!(made.moves.iter().all(|step| place(&step.from, 3) == place(&step.to, 4)));
}

#[test]
fn a_node_of_twice_the_weight_takes_from_all_others() {
    let ring = Built::new(3).node("", 1.0).node("", 1.0).node("", 1.0).node("", 1.0);
    let ring = ring.keyspace("default", 2, &around(12, 4, 2)).ring();
    let sizes = sized(&ring, 64 * MIB, &[]);
    let wish = Wish::Reweight { node: NodeId(2), weight: 2.0 };
    golden("reweight", "node 2 is to have the weight 2", &ring, &wish, &sizes);
}

#[test]
fn a_third_zone_holds_a_copy_of_each_key() {
    let ring = Built::new(2).node("a", 1.0).node("a", 1.0).node("b", 1.0).node("b", 1.0);
    let ring = ring.keyspace("default", 3, &around(8, 4, 3)).ring();
    let sizes = sized(&ring, 64 * MIB, &[]);
    let wish = Wish::Rezone { node: NodeId(4), zone: "c".to_owned() };
    golden("rezone", "node 4 is to be in zone c", &ring, &wish, &sizes);
}

fn replicas(replicas: u32) -> Wish {
    Wish::Replicas { keyspace: KeyspaceId(1), replicas, write_quorum: 2, read_quorum: 2 }
}

fn six_nodes(copies: u32) -> Ring {
    let six = three_nodes().node("a", 1.0).node("b", 1.0).node("c", 1.0);
    six.keyspace("default", copies, &around(12, 6, copies)).ring()
}

#[test]
fn more_copies_are_dealt_out_evenly() {
    let ring = six_nodes(3);
    let made =
        golden("replicas_up", "5 copies instead of 3", &ring, &replicas(5), &sized(&ring, 64 * MIB, &[]));
    assert_eq!(made.bytes, made.ideal_bytes);
}

#[test]
fn fewer_copies_are_given_up_evenly_and_nothing_is_copied() {
    let ring = six_nodes(5);
    let made =
        golden("replicas_down", "3 copies instead of 5", &ring, &replicas(3), &sized(&ring, 64 * MIB, &[]));
    assert_eq!(made.bytes, 0);
}

#[test]
fn an_arc_that_holds_most_is_cut_and_dealt_out() {
    let ring = six_nodes(3);
    // Of 3,520 MiB arc 5 has 80 %.
    let sizes = sized(&ring, 64 * MIB, &[(4, 2_816 * MIB)]);
    let made = golden("rebalance", "evenness", &ring, &Wish::Rebalance, &sizes);
    assert!(made.unevenness <= 1.05);
}

#[test]
fn an_ordered_arc_is_cut_where_its_middle_is_known_and_only_there() {
    let mut document = six_nodes(3).document().clone();
    document.keyspaces[0].partitioner = Partitioner::Ordered.into();
    for (at, arc) in document.arcs.iter_mut().enumerate().skip(1) {
        arc.start = Position::of_ordered_bound(KeyspaceId(1), &[b'a' + at as u8]).into_bytes();
    }
    let ring = Ring::new(document).unwrap();
    let mut sizes = sized(&ring, 64 * MIB, &[(4, 2_816 * MIB)]);
    let blind = plan(&ring, &Wish::Rebalance, &sizes).unwrap();
    assert!(blind.splits.is_empty());
    assert!(blind.notes.iter().any(|note| note.contains("arc 5 is heavy")), "{:?}", blind.notes);

    let heavy = &ring.arcs()[4];
    let middle = Position::of_ordered_bound(KeyspaceId(1), b"em");
    sizes.arcs.get_mut(&heavy.id).unwrap().middle = Some(middle.clone());
    let made = plan(&ring, &Wish::Rebalance, &sizes).unwrap();
    assert_eq!(
        made.splits.iter().map(|split| (split.arc, &split.at)).collect::<Vec<_>>(),
        [(heavy.id, &middle)]
    );
}

#[test]
fn what_cannot_be_is_refused_with_a_way_out() {
    let ring = three_nodes().node("a", 1.0).keyspace("default", 3, &around(6, 3, 3)).ring();
    let mut sizes = sized(&ring, 64 * MIB, &[]);
    let says = |ring: &Ring, wish: Wish, sizes: &Sizes| plan(ring, &wish, sizes).unwrap_err().to_string();
    let leave = |node| Wish::Leave(NodeId(node));
    let reweight = |weight| Wish::Reweight { node: NodeId(1), weight };
    let replace = |old, new| Wish::Replace { old: NodeId(old), new: NodeId(new) };
    assert_eq!(says(&ring, Wish::Join(NodeId(9)), &sizes), "there is no node 9; `god status` lists them");
    assert!(
        says(&ring, reweight(0.0), &sizes).contains("the weight 0 of node 1 is not above 0 and up to 1000")
    );
    assert!(says(&ring, reweight(f64::NAN), &sizes).contains("NaN"));
    assert!(says(&ring, replace(1, 1), &sizes).contains("cannot replace itself"));
    assert!(says(&ring, replace(1, 2), &sizes).contains("both hold copies of 6 arcs, arc 1 is one"));
    assert!(says(&ring, replicas(17), &sizes).contains("replicas 17"));
    sizes.free.insert(NodeId(4), 100 * MIB);
    assert_eq!(
        says(&ring, leave(3), &sizes),
        "node 4 would have to take 128.0 MiB or more, and its disk has room for 100.0 MiB; add a node, or give it a \
         larger disk, first"
    );
    let small = three_nodes().keyspace("default", 3, &around(6, 3, 3)).ring();
    assert_eq!(
        says(&small, leave(3), &Sizes::default()),
        "node 3 cannot leave: 2 nodes would be left, and keyspace default keeps 3 copies of each key; add a node \
         first, or lower its replicas"
    );
}

#[test]
fn an_operation_on_the_node_comes_first_unless_it_is_this_one() {
    let mut document = six_nodes(3).document().clone();
    let wish = Some(Message { wish: Some(WishKind::Leave(LeaveWish { node: 6, ..LeaveWish::default() })) });
    document.operations.push(Operation { id: "shrink".to_owned(), wish, ..Operation::default() });
    let ring = Ring::new(document).unwrap();
    let wish = Wish::Reweight { node: NodeId(6), weight: 2.0 };
    let refused = plan(&ring, &wish, &Sizes::default()).unwrap_err().to_string();
    assert!(refused.contains("operation shrink on node 6 comes first"), "{refused}");
    assert!(plan(&ring, &Wish::Leave(NodeId(6)), &Sizes::default()).is_ok());
}

#[test]
fn what_changes_hands_already_is_left_alone_and_who_leaves_is_given_nothing() {
    let mut document = six_nodes(3).document().clone();
    document.nodes[5].state = MemberState::Leaving.into();
    document.arcs[0].transition = Some(Transition { next: vec![1, 2, 4], since: 1 });
    let ring = Ring::new(document).unwrap();
    let sizes = sized(&ring, 64 * MIB, &[(0, 640 * MIB)]);
    let made = plan(&ring, &Wish::Rebalance, &sizes).unwrap();
    assert!(!made.moves.is_empty());
    for step in &made.moves {
        let is_given = step.to.contains(&NodeId(6)) && !step.from.contains(&NodeId(6));
        assert!(step.arc.0 != 1 && !is_given, "{step:?}");
    }
}

#[test]
fn a_disk_without_room_takes_no_more_than_it_has_room_for() {
    let ring = three_nodes().node("a", 1.0).keyspace("default", 3, &around(6, 3, 3)).ring();
    let mut sizes = sized(&ring, 64 * MIB, &[]);
    sizes.free.insert(NodeId(4), 130 * MIB);
    let made = plan(&ring, &Wish::Join(NodeId(4)), &sizes).unwrap();
    assert!((100 * MIB..=130 * MIB).contains(&made.bytes), "{}", made.bytes);
    assert!(made.notes.iter().any(|note| note.contains("room for 130.0 MiB")), "{:?}", made.notes);
}

#[test]
fn what_is_busy_weighs_as_much_as_what_is_large() {
    let sets: Vec<Vec<u32>> = (0..12).map(|at| (0..3).map(|copy| (at + copy) % 6 + 1).collect()).collect();
    let ring = (0..6).fold(Built::new(2), |built, _| built.node("", 1.0)).keyspace("k", 3, &sets).ring();
    let even = sized(&ring, 1_000_000, &[]);
    let quiet = plan(&ring, &Wish::Rebalance, &even).unwrap();
    let mut busy = sizes_after(&even, &quiet);
    let ring = Ring::new(quiet.apply(ring.document())).unwrap();
    for (at, size) in busy.arcs.values_mut().enumerate() {
        size.load = if at == 0 { 5_000.0 } else { 50.0 };
    }
    let made = plan(&ring, &Wish::Rebalance, &busy).unwrap();
    assert!(!made.moves.is_empty(), "the replicas of the busy arc give others away: {made:?}");
    let (after, sizes) = (Ring::new(made.apply(ring.document())).unwrap(), sizes_after(&busy, &made));
    let worst = shares(&after, &sizes).iter().map(Share::ratio).fold(0.0, f64::max);
    assert!(worst <= 1.0 + EVEN, "{worst}");
    let again = plan(&after, &Wish::Rebalance, &sizes).unwrap();
    assert_eq!((again.splits, again.moves), (vec![], vec![]), "a load that lasts moves data once");

    // A tenth of that troubles nobody.
    let mut calm = busy.clone();
    calm.arcs.values_mut().for_each(|size| size.load /= 10.0);
    assert!(plan(&ring, &Wish::Rebalance, &calm).unwrap().moves.is_empty());
}

#[test]
fn arcs_that_were_cut_and_are_small_again_are_merged_and_then_left_alone() {
    let sets: Vec<Vec<u32>> = (0..40).map(|at| vec![at / 10 % 4 + 1]).collect();
    let ring = (0..4).fold(Built::new(4), |built, _| built.node("", 1.0)).keyspace("k", 1, &sets).ring();
    // One large arc for each node; the others are next to nothing.
    let large: Vec<(usize, u64)> = [0, 10, 20, 30].map(|at| (at, 4 * MIB)).to_vec();
    let sizes = sized(&ring, 1_000, &large);
    let small = small_arcs(&ring, &sizes);
    assert_eq!(small.len(), 40 - 16, "as many stay as there were at the start: {small:?}");
    let merged = crate::ring::merge(&ring, &small).unwrap().unwrap();
    assert_eq!(merged.arcs().len(), 16);
    let again = small_arcs(&merged, &sizes);
    assert!(again.is_empty(), "{again:?}");
    // What is as large as all others is not small, however many there are.
    assert!(small_arcs(&ring, &sized(&ring, MIB, &[])).is_empty());
}

#[test]
fn who_waits_to_be_told_to_join_is_given_nothing_by_evening_out() {
    let sets: Vec<Vec<u32>> = (0..8).map(|at| vec![at % 2 + 1, (at + 1) % 2 + 1]).collect();
    let three = || (0..3).fold(Built::new(2), |built, _| built.node("", 1.0));
    let ring = three().waits().keyspace("k", 2, &sets).ring();
    let sizes = sized(&ring, MIB, &[]);
    let made = plan(&ring, &Wish::Rebalance, &sizes).unwrap();
    assert_eq!(made.moves, vec![]);
    let told = three().keyspace("k", 2, &sets).ring();
    assert!(
        !plan(&told, &Wish::Rebalance, &sizes).unwrap().moves.is_empty(),
        "who does not wait gets its part"
    );
    assert!(shares(&ring, &sizes).iter().all(|share| share.ratio() < 1.01));
    for node in [1, 3].map(NodeId) {
        for wish in [Wish::Reweight { node, weight: 0.5 }, Wish::Rezone { node, zone: "z".to_owned() }] {
            let gets = |made: Plan| made.moves.iter().any(|step| step.to.contains(&NodeId(3)));
            assert!(!gets(plan(&ring, &wish, &sizes).unwrap()), "{wish:?}");
        }
    }
    assert!(!plan(&ring, &Wish::Join(NodeId(3)), &sizes).unwrap().moves.is_empty());
}

#[test]
fn who_waits_to_be_told_to_join_takes_over_only_what_there_are_too_few_others_for() {
    let sets: Vec<Vec<u32>> = (0..8).map(|at| (0..2).map(|copy| (at + copy) % 3 + 1).collect()).collect();
    let built = || (0..4).fold(Built::new(2), |built, _| built.node("", 1.0)).waits();
    let gets = |ring: &Ring, wish: Wish| {
        let made = plan(ring, &wish, &sized(ring, MIB, &[])).unwrap();
        made.moves.iter().any(|step| step.to.contains(&NodeId(4)))
    };
    let replicas = |replicas| {
        let (write_quorum, read_quorum) = (2, replicas - 1);
        Wish::Replicas { keyspace: KeyspaceId(1), replicas, write_quorum, read_quorum }
    };
    let ring = built().keyspace("k", 2, &sets).ring();
    for wish in [Wish::Leave(NodeId(3)), Wish::Lost(NodeId(3)), replicas(3)] {
        assert!(!gets(&ring, wish.clone()), "{wish:?}");
    }
    assert!(gets(&ring, replicas(4)));
    assert!(gets(&ring, Wish::Replace { old: NodeId(3), new: NodeId(4) }));
    let sets: Vec<Vec<u32>> = (0..8).map(|at| (0..3).map(|copy| (at + copy) % 3 + 1).collect()).collect();
    let ring = built().keyspace("k", 3, &sets).ring();
    for wish in [Wish::Leave(NodeId(3)), Wish::Lost(NodeId(3))] {
        assert!(gets(&ring, wish.clone()), "{wish:?}");
    }
    // Nor does it with another one that is told.
    let ring = built().node("", 1.0).keyspace("k", 3, &sets).ring();
    assert!(!gets(&ring, Wish::Join(NodeId(5))));
}

#[test]
fn who_waits_takes_over_nothing_of_a_keyspace_for_which_there_are_others_and_room_on_them() {
    let sets = |nodes: u32, copies: u32| -> Vec<Vec<u32>> {
        (0..8).map(|at| (0..copies).map(|copy| (at + copy) % nodes + 1).collect()).collect()
    };
    let ring = (0..5)
        .fold(Built::new(2), |built, _| built.node("", 1.0))
        .waits()
        .keyspace("few", 2, &sets(4, 2))
        .keyspace("many", 4, &sets(4, 4))
        .ring();
    let made = plan(&ring, &Wish::Lost(NodeId(4)), &sized(&ring, MIB, &[])).unwrap();
    let gets = |name: &str| {
        let id = KeyspaceId(ring.keyspace(name).unwrap().id);
        let mut arcs = ring.arcs().iter().filter(|arc| arc.keyspace == id).map(|arc| arc.id);
        arcs.any(|arc| made.moves.iter().any(|step| step.arc == arc && step.to.contains(&NodeId(5))))
    };
    assert!(gets("many") && !gets("few"));
}

#[test]
fn who_waits_takes_copies_for_which_others_have_too_little_room_and_none_of_what_they_hold() {
    let sets: Vec<Vec<u32>> = (0..8).map(|at| (0..2).map(|copy| (at + copy) % 3 + 1).collect()).collect();
    let built = (0..4).fold(Built::new(2), |built, _| built.node("", 1.0));
    let ring = built.waits().keyspace("small", 2, &sets).keyspace("large", 2, &sets).ring();
    let large = KeyspaceId(ring.keyspace("large").unwrap().id);
    let is_large = |arc: ArcId| ring.arc(arc).unwrap().keyspace == large;
    let replicas = Wish::Replicas { keyspace: large, replicas: 3, write_quorum: 2, read_quorum: 2 };
    let wishes =
        [(Wish::Lost(NodeId(3)), vec![1, 2]), (Wish::Leave(NodeId(3)), vec![1, 2]), (replicas, vec![1])];
    for (wish, full) in wishes {
        for is_full in [false, true] {
            let mut sizes = sized(&ring, MIB, &[]);
            let heavy = sizes.arcs.iter_mut().filter(|(arc, _)| is_large(**arc));
            heavy.for_each(|(_, size)| size.bytes = 1 << 30);
            let free = |node| if is_full && full.contains(&node) { 1 << 27 } else { 1 << 40 };
            sizes.free = (1..=4).map(|node| (NodeId(node), free(node))).collect();
            let made = plan(&ring, &wish, &sizes).unwrap();
            let gets: Vec<&Move> = made.moves.iter().filter(|step| step.to.contains(&NodeId(4))).collect();
            assert_eq!(!gets.is_empty(), is_full, "{wish:?}: {gets:?}");
            assert!(gets.iter().all(|step| is_large(step.arc)), "{wish:?}: {gets:?}");
            let gives =
                |step: &&Move| step.from.iter().any(|node| !step.to.contains(node) && *node != NodeId(3));
            assert!(!gets.iter().any(gives), "{wish:?}: {gets:?}");
        }
    }
}

#[test]
fn copies_of_a_lost_node_for_which_there_is_no_other_are_made_when_there_is_one() {
    let sets: Vec<Vec<u32>> = (0..8).map(|at| (0..3).map(|copy| (at + copy) % 3 + 1).collect()).collect();
    let ring = three_nodes().keyspace("k", 3, &sets).ring();
    let sizes = sized(&ring, MIB, &[]);
    assert!(matches!(
        plan(&ring, &Wish::Leave(NodeId(3)), &sizes),
        Err(crate::ring::Refused::TooFewNodes { .. })
    ));
    let lost = Wish::Lost(NodeId(3));
    let made = plan(&ring, &lost, &sizes).unwrap();
    assert!(made.moves[0].reason.contains("no other node"), "{}", made.moves[0].reason);
    let after = granted(&ring, &lost, &made);
    assert!(after.arcs().iter().all(|arc| arc.replicas.len() == 2 && !arc.replicas.contains(&NodeId(3))));
    let mut document = after.document().clone();
    let number = document.next_node;
    let uuid = uuid::Uuid::from_u128(u128::from(number)).as_bytes().to_vec().into();
    document.nodes.push(Member { number, uuid, weight: 1.0, ..Member::default() });
    document.next_node += 1;
    let ring = Ring::new(document).unwrap();
    let made = plan(&ring, &Wish::Rebalance, &sizes).unwrap();
    let after = granted(&ring, &Wish::Rebalance, &made);
    assert!(after.arcs().iter().all(|arc| arc.replicas.len() == 3));
}
