//! Rings that grow, shrink and refuse: golden files in `testdata/`.

use super::{
    change::{self, *},
    keyspaces::{create_keyspace, delete_keyspace, deleted, mark_live},
    names::{Hearing, check_unheard, free_names, names_wait_for},
    next::{ChangeError, next},
    transition,
};
use crate::testing::golden;
use god_proto::{
    ids::{KeyspaceId, NodeId},
    position::{Position, PositionRange},
    ring::{MAX_DELETED, MAX_SPLIT, MAX_SPLITS, ROOMY_RING_BYTES, Ring, ring_bytes},
    time::MAX_TTL_MS,
    v1::{
        Keyspace, LeaveWish, Member, MemberState, Mode, OperationPhase, Partitioner, Reason, ReplaceWish,
        RingDocument, Wish, wish,
    },
};
use std::{collections::BTreeSet, fmt::Write};
use uuid::Uuid;

fn joiner(number: u128, zone: &str, weight: f64) -> Joiner {
    Joiner {
        uuid: Uuid::from_u128(number),
        peer_address: format!("node-{number}:7100"),
        grpc_address: format!("node-{number}:7000"),
        http_address: format!("node-{number}:7200"),
        zone: zone.to_owned(),
        weight,
        version: "1".to_owned(),
        takes_part: false,
    }
}

fn founded() -> Ring {
    let founding =
        Founding { replicas: 3, write_quorum: 2, read_quorum: 2, virtual_nodes: 2, under_replicated: false };
    found(Uuid::from_u128(9), &joiner(1, "a", 1.0), founding).unwrap()
}

/// All are up.
fn join(ring: &Ring, joiner: &Joiner) -> Result<Option<Ring>, ChangeError> {
    change::join(ring, joiner, &BTreeSet::new(), &BTreeSet::new())
}

fn joined(ring: &Ring, joiner: &Joiner) -> Ring {
    join(ring, joiner).unwrap().expect("the ring should change")
}

fn show(ring: &Ring) -> String {
    let mut out = format!("epoch {}  voters {:?}\n", ring.epoch(), ring.document().voters);
    for node in ring.nodes() {
        writeln!(
            out,
            "node {}  zone {}  weight {}  {}",
            node.number, node.zone, node.weight, node.peer_address
        )
        .unwrap();
    }
    for keyspace in ring.keyspaces() {
        let live = if keyspace.live { "live" } else { "empty" };
        writeln!(out, "keyspace {}  {live}  N {}", keyspace.name, keyspace.replicas).unwrap();
        for arc in ring.arcs().iter().filter(|arc| arc.keyspace.0 == keyspace.id) {
            let replicas: Vec<u32> = arc.replicas.iter().map(|node| node.0).collect();
            writeln!(out, "  arc {:2}  from {:?}  on {replicas:?}", arc.id.0, arc.range.start).unwrap();
        }
    }
    out
}

#[test]
fn a_cluster_grows_from_one_node_to_five_over_three_zones() {
    let mut ring = founded();
    let mut shown = format!("# founded by node 1\n{}", show(&ring));
    for (number, zone, weight) in [(2, "a", 1.0), (3, "b", 1.0), (4, "c", 2.0), (5, "c", 1.0)] {
        ring = joined(&ring, &joiner(number, zone, weight));
        write!(shown, "\n# node {number} of weight {weight} joins from zone {zone}\n{}", show(&ring))
            .unwrap();
    }
    golden("ring/testdata/growing.txt", &shown);
}

#[test]
fn a_voter_that_is_gone_gives_its_vote_to_a_node_that_is_up() {
    let mut ring = founded();
    for (number, zone) in [(2, "a"), (3, "b"), (4, "b"), (5, "a")] {
        ring = joined(&ring, &joiner(number, zone, 1.0));
    }
    // Of five all decide. With four, one does not.
    assert_eq!(replace_voter(&ring, NodeId(2), |_| true), Ok(None), "nobody is left who could");
    let mut document = next(&ring);
    document.voters = vec![1, 2, 3];
    let ring = Ring::new(document).unwrap();
    let voters = |gone, is_up: &dyn Fn(NodeId) -> bool| {
        replace_voter(&ring, NodeId(gone), is_up).unwrap().map(|ring| ring.document().voters.clone())
    };
    assert_eq!(voters(3, &|_| true), Some(vec![1, 2, 4]), "its zone has no other one");
    assert_eq!(voters(1, &|_| true), Some(vec![2, 3, 4]));
    assert_eq!(voters(1, &|node| node.0 != 4), Some(vec![2, 3, 5]));
    assert_eq!(voters(1, &|_| false), None);
    assert_eq!(voters(4, &|_| true), None, "it is no voter");
}

/// Subsets of the numbers 1 to `nodes`.
fn subsets(nodes: u32) -> impl Iterator<Item = BTreeSet<u32>> {
    (0u32..1 << nodes).map(move |mask| (1..=nodes).filter(|node| mask & 1 << (node - 1) != 0).collect())
}

/// So many nodes, of which one leaves (0: none).
fn members_of(nodes: u32, leaver: u32) -> Vec<Member> {
    let member = |number| Member {
        number,
        zone: (number % 3).to_string(),
        state: if number == leaver { MemberState::Leaving } else { MemberState::Active }.into(),
        ..Member::default()
    };
    (1..=nodes).map(member).collect()
}

/// Calls `check` with every number of nodes up to a bound, voters, a majority of whom is up, nodes that are down, and
/// one that leaves (0: none).
fn with_each_change(most: u32, mut check: impl FnMut(u32, &BTreeSet<u32>, &BTreeSet<u32>, u32)) {
    for nodes in 1..=most {
        for voters in subsets(nodes).filter(|voters| matches!(voters.len(), 1 | 3 | 5)) {
            for down in subsets(nodes).filter(|down| lives(&voters, down)) {
                (0..=nodes).for_each(|leaver| check(nodes, &voters, &down, leaver));
            }
        }
    }
}

fn lives(voters: &BTreeSet<u32>, down: &BTreeSet<u32>) -> bool {
    2 * voters.difference(down).count() > voters.len()
}

fn chosen(nodes: &[Member], present: &BTreeSet<u32>, away: &BTreeSet<u32>) -> BTreeSet<u32> {
    let present: Vec<u32> = present.iter().copied().collect();
    let away = away.iter().map(|node| NodeId(*node)).collect();
    choose_voters(nodes, &present, &away).unwrap_or(present).into_iter().collect()
}

#[test]
fn a_majority_of_voters_is_up_after_a_change_if_one_was_before_it() {
    let (mut tried, mut kept) = (0, 0);
    with_each_change(7, |nodes, present, down, leaver| {
        let chosen = chosen(&members_of(nodes, leaver), present, down);
        let up = (1..=nodes).filter(|node| !down.contains(node) && *node != leaver);
        let (up, case) = (up.collect::<BTreeSet<_>>(), (nodes, present, down, leaver, &chosen));
        assert!(lives(&chosen, down), "{case:?}");
        let may_fail = |voters: &BTreeSet<u32>| voters.difference(down).count() - voters.len().div_ceil(2);
        let most = [0, 0, 0, 1, 1, 2, 2, 2][nodes as usize];
        assert!(may_fail(&chosen) >= may_fail(present).min(most), "{case:?}");
        if &chosen == present {
            kept += 1;
            return;
        }
        assert!(!chosen.len().is_multiple_of(2) && !chosen.contains(&leaver), "{case:?}");
        assert!(chosen.difference(present).all(|new| up.contains(new)), "{case:?}");
        let keeps = |voter: &u32| chosen.contains(voter) || chosen.is_subset(&up);
        assert!(present.intersection(&up).all(keeps), "{case:?}");
        tried += 1;
    });
    assert!(tried > 10_000 && kept > 1_000, "{tried} {kept}");
}

#[test]
fn it_is_so_too_where_nodes_that_are_up_are_not_known_to_be() {
    let mut tried = 0;
    with_each_change(6, |nodes, present, down, leaver| {
        let members = members_of(nodes, leaver);
        for unseen in subsets(nodes).filter(|unseen| unseen.is_disjoint(down)) {
            let away = down | &unseen;
            let chosen = chosen(&members, present, &away);
            let case = (nodes, present, down, &unseen, leaver, &chosen);
            assert!(lives(&chosen, down), "{case:?}");
            assert!(chosen.difference(present).all(|new| !away.contains(new)), "{case:?}");
            tried += 1;
        }
    });
    assert!(tried > 10_000, "{tried}");
    // 1 leaves, and does not hear of 3: 2, whose disk was lost, must not be the one that decides.
    let kept = chosen(&members_of(4, 1), &[1, 2, 3].into(), &[2, 3, 4].into());
    assert_eq!(kept, [1, 2, 3].into());
    // Nor where 2 is taken to be up still, and 4 is not heard of yet: three decide, and stay three.
    let kept = chosen(&members_of(4, 1), &[1, 2, 3].into(), &[4].into());
    assert_eq!(kept, [1, 2, 3].into());
}

#[test]
fn a_vote_is_passed_on_to_voters_of_whom_as_many_may_fail_or_to_nobody() {
    let left = |nodes: u32, present: &[u32], away: &[u32]| {
        let mut nodes = members_of(nodes, 0);
        nodes.retain(|node| node.number != 1);
        let mut document = RingDocument { nodes, voters: present.to_vec(), ..RingDocument::default() };
        let away = away.iter().map(|node| NodeId(*node)).collect();
        pass_vote_on(&mut document, NodeId(1), &away).map(|()| document.voters)
    };
    assert_eq!(left(4, &[1, 2, 3], &[]), Ok(vec![2, 3, 4]));
    assert!(matches!(left(4, &[1, 2, 3], &[4]), Err(ChangeError::TooFew(_))), "one alone would decide");
    assert_eq!(left(4, &[1, 2, 3], &[1, 4]), Ok(vec![2]), "no more of them may fail as it is");
    assert_eq!(left(3, &[1, 2, 3], &[]), Ok(vec![2]), "there are no more than two");
    assert_eq!(left(3, &[1, 2, 3], &[2]), Ok(vec![3]));
    assert_eq!(left(6, &[1, 2, 3, 4, 5], &[]), Ok(vec![2, 3, 4, 5, 6]));
    assert!(matches!(left(6, &[1, 2, 3, 4, 5], &[6]), Err(ChangeError::TooFew(_))));
    assert_eq!(left(4, &[2, 3, 4], &[2, 3, 4]), Ok(vec![2, 3, 4]), "it has no vote");
}

#[test]
fn who_joins_while_others_are_down_gets_the_vote_and_those_get_theirs_when_they_are_back() {
    let none = BTreeSet::new();
    let (first, second, third) = (NodeId(1), BTreeSet::from([NodeId(2)]), BTreeSet::from([NodeId(3)]));
    let two = joined(&founded(), &joiner(2, "b", 1.0));
    // Three, of which one is down: two that decide would both have to be up.
    let ring = change::join(&two, &joiner(3, "c", 1.0), &second, &second).unwrap().unwrap();
    assert_eq!(ring.voters().collect::<Vec<_>>(), [first]);
    // Of one that was not heard of yet nothing is known against it, and two of three are up.
    let unheard = change::join(&two, &joiner(3, "c", 1.0), &none, &second).unwrap().unwrap();
    assert_eq!(unheard.document().voters, [1, 2, 3]);
    assert_eq!(add_voters(&ring, &second), Ok(None));
    let whole = add_voters(&ring, &none).unwrap().unwrap();
    assert_eq!(whole.document().voters, [1, 2, 3]);
    assert_eq!(add_voters(&whole, &third), Ok(None), "they are enough");
    // Five, of which a voter and one that is none are down.
    let down = BTreeSet::from([NodeId(3), NodeId(4)]);
    let four = joined(&whole, &joiner(4, "d", 1.0));
    assert_eq!(four.document().voters, [1, 2, 3]);
    let five = change::join(&four, &joiner(5, "e", 1.0), &down, &down).unwrap().unwrap();
    assert_eq!(five.document().voters, [1, 2, 5]);
    let unheard = BTreeSet::from([2, 3, 4].map(NodeId));
    let five_unheard = change::join(&four, &joiner(5, "e", 1.0), &none, &unheard).unwrap().unwrap();
    assert_eq!(five_unheard.document().voters, [1, 2, 5], "two of five would be known to be up");
    assert_eq!(add_voters(&five, &third).unwrap(), None, "an even number bears no more of them down");
    assert_eq!(add_voters(&five, &none).unwrap().unwrap().document().voters, [1, 2, 3, 4, 5]);
}

#[test]
fn one_that_leaves_passes_its_vote_on_as_soon_as_somebody_is_known_to_be_up() {
    let mut ring = founded();
    for node in 2..=4 {
        ring = joined(&ring, &joiner(node, "", 1.0));
    }
    let mut document = next(&ring);
    document.nodes[0].state = MemberState::Leaving.into();
    for (present, away, expected) in [
        (vec![1], vec![2, 3, 4], None),
        (vec![1], vec![], Some(vec![2, 3, 4])),
        (vec![1], vec![3, 4], Some(vec![2])),
        (vec![1, 2, 3], vec![], Some(vec![2, 3, 4])),
        (vec![1, 2, 3], vec![4], None),
        (vec![2, 3, 4], vec![], None),
    ] {
        document.voters = present.clone();
        let ring = Ring::new(document.clone()).unwrap();
        let away = away.into_iter().map(NodeId).collect();
        let voters = add_voters(&ring, &away).unwrap().map(|ring| ring.document().voters.clone());
        assert_eq!(voters, expected, "{present:?} {away:?}");
    }
}

#[test]
fn a_keyspace_goes_live_on_as_many_nodes_as_it_has_copies() {
    let alone = founded();
    let why = mark_live(&alone, KeyspaceId(1)).unwrap_err();
    assert_eq!(why.reason(), Reason::Unavailable);
    assert!(why.to_string().contains("nodes for 3 copies, and there is 1 node"), "{why}");
    let two = joined(&alone, &joiner(2, "a", 1.0));
    assert!(matches!(mark_live(&two, KeyspaceId(1)), Err(ChangeError::TooFew(_))));

    // One that was made so takes as many as acknowledge a write, and no fewer.
    let named =
        Keyspace { name: "hasty".to_owned(), replicas: 3, under_replicated: true, ..Keyspace::default() };
    let hasty = create_keyspace(&alone, &named, &[]).unwrap();
    let why = mark_live(&hasty, KeyspaceId(2)).unwrap_err().to_string();
    assert!(why.contains("nodes for 2 of its 3 copies, and there is 1 node"), "{why}");
    let hasty = joined(&hasty, &joiner(2, "a", 1.0));
    assert!(mark_live(&hasty, KeyspaceId(2)).unwrap().is_some());

    let three = joined(&two, &joiner(3, "a", 1.0));
    assert!(mark_live(&three, KeyspaceId(1)).unwrap().is_some());
}

#[test]
fn a_live_keyspace_stays_where_it_is_and_an_empty_one_is_dealt_anew() {
    let ring = joined(&founded(), &joiner(2, "a", 1.0));
    let ring = joined(&ring, &joiner(3, "b", 1.0));
    let ring = mark_live(&ring, KeyspaceId(1)).unwrap().unwrap();
    let wish = Keyspace {
        name: "names".to_owned(),
        replicas: 2,
        partitioner: Partitioner::Ordered.into(),
        ..Keyspace::default()
    };
    let ring = create_keyspace(&ring, &wish, &[b"m".to_vec(), b"c".to_vec()]).unwrap();
    let mut shown = format!("# `default` is live, `names` is cut at c and m\n{}", show(&ring));
    let ring = joined(&ring, &Joiner { takes_part: true, ..joiner(4, "b", 1.0) });
    write!(shown, "\n# node 4 joins\n{}", show(&ring)).unwrap();
    golden("ring/testdata/live_and_empty.txt", &shown);
}

#[test]
fn a_member_that_comes_back_with_other_addresses_keeps_its_number_and_arcs() {
    let ring = joined(&founded(), &joiner(2, "a", 1.0));
    assert_eq!(join(&ring, &joiner(2, "a", 1.0)), Ok(None));
    let moved =
        Joiner { peer_address: "elsewhere:1".to_owned(), zone: "z".to_owned(), ..joiner(2, "a", 9.0) };
    let after = joined(&ring, &moved);
    assert_eq!(after.document().arcs, ring.document().arcs);
    let node = after.node(NodeId(2)).unwrap();
    assert_eq!((node.peer_address.as_str(), node.zone.as_str(), node.weight), ("elsewhere:1", "a", 1.0));
}

#[test]
fn an_address_belongs_to_whoever_claimed_it_last() {
    let ring = joined(&founded(), &joiner(2, "a", 1.0));
    let taken = Joiner { peer_address: "node-2:7100".to_owned(), ..joiner(3, "a", 1.0) };
    let after = joined(&ring, &taken);
    assert_eq!(after.node(NodeId(2)).unwrap().peer_address, "");
    assert_eq!(after.node(NodeId(3)).unwrap().peer_address, "node-2:7100");
}

#[test]
fn what_cannot_be_is_refused_by_its_name() {
    let ring = founded();
    let wish = |name: &str, replicas, write_quorum| Keyspace {
        name: name.to_owned(),
        replicas,
        write_quorum,
        ..Keyspace::default()
    };
    let says =
        |wish: Keyspace, splits: &[Vec<u8>]| create_keyspace(&ring, &wish, splits).unwrap_err().to_string();
    assert!(says(wish("default", 3, 2), &[]).contains("exists already"));
    assert!(says(wish("x", 3, 4), &[]).contains("write-quorum 4 exceeds replicas 3"));
    assert!(says(wish("x", 3, 2), &[b"a".to_vec()]).contains("ordered"));
    assert!(
        says(Keyspace { mode: Mode::Linearizable.into(), ..wish("x", 3, 2) }, &[]).contains("linearizable")
    );
    for name in ["a b", ".", "..", "-a"] {
        assert!(says(wish(name, 3, 2), &[]).contains("the first one a letter"));
    }
    let long = Keyspace { default_ttl_ms: MAX_TTL_MS + 1, ..wish("x", 3, 2) };
    assert!(says(long, &[]).contains("the longest time is 1,000 years"));
    assert!(join(&ring, &joiner(2, "", f64::INFINITY)).unwrap_err().to_string().contains("weight"));
}

#[test]
fn a_keyspace_is_deleted_once_and_its_name_comes_free_but_not_its_id() {
    let named = |replicas| Keyspace { name: "names".to_owned(), replicas, ..Keyspace::default() };
    let ring = create_keyspace(&founded(), &named(3), &[]).unwrap();
    let delete = |ring: &Ring, id| delete_keyspace(ring, "names", KeyspaceId(id));
    let refusal = |ring: &Ring, id| delete(ring, id).unwrap_err();
    assert_eq!(refusal(&ring, 3).reason(), Reason::NoSuchKeyspace, "it was never given");
    assert_eq!(refusal(&ring, 1).to_string(), "keyspace 1 is default, not names");
    assert_eq!(deleted(&ring), []);

    let gone = delete(&ring, 2).unwrap().expect("the ring should change");
    assert!(gone.keyspace("names").is_none());
    assert!(gone.arcs().iter().all(|arc| arc.keyspace == KeyspaceId(1)));
    let bound = |id| Position::keyspace_start(KeyspaceId(id));
    assert_eq!(deleted(&gone), [PositionRange { start: bound(2), end: bound(3) }]);

    let again = create_keyspace(&gone, &named(1), &[]).unwrap();
    assert_eq!(again.keyspace("names").unwrap().id, 3);
    assert_eq!(delete(&again, 2), Ok(None), "the one that was meant is gone already");
    assert_eq!(deleted(&again), deleted(&gone));
    let all = delete_keyspace(&again, "default", KeyspaceId(1)).unwrap().unwrap();
    let all = delete(&all, 3).unwrap().unwrap();
    assert_eq!(deleted(&all), [PositionRange { start: bound(1), end: bound(4) }]);
}

/// NAME-HEARD.
#[test]
fn the_name_of_what_was_deleted_comes_free_once_no_quorum_is_left_that_has_not_heard() {
    let mut ring = founded();
    for node in 2..=5 {
        ring = joined(&ring, &joiner(node, "", 1.0));
    }
    let wish = |replicas, write_quorum, read_quorum| Keyspace {
        name: "names".to_owned(),
        replicas,
        write_quorum,
        read_quorum,
        ..Keyspace::default()
    };
    let hearing = |ring: &Ring, by: &[u32]| Hearing {
        epoch: ring.epoch(),
        by: by.iter().map(|node| NodeId(*node)).collect(),
    };
    // How many of five may be away: fewer than the least that answers a call without the others.
    for (wish, away) in [(wish(3, 2, 2), 1), (wish(5, 3, 3), 2), (wish(3, 3, 1), 0), (wish(3, 1, 3), 0)] {
        let made = create_keyspace(&ring, &wish, &[]).unwrap();
        let id = KeyspaceId(made.keyspace("names").unwrap().id);
        let live = mark_live(&made, id).unwrap().unwrap();
        let gone = delete_keyspace(&live, "names", id).unwrap().unwrap();
        let again =
            |by: &[u32]| create_keyspace(&free_names(&gone, &hearing(&gone, by)).unwrap(), &wish, &[]);
        let all = [1, 2, 3, 4, 5];
        let made = again(&all[away..]).unwrap();
        assert!(made.document().deleted.is_empty() && made.keyspace("names").is_some());
        let refused = again(&all[away + 1..]).unwrap_err();
        assert_eq!(refused.reason(), Reason::Unavailable);
        assert!(refused.to_string().contains("a keyspace names was deleted"), "{refused}");
        assert!(create_keyspace(&gone, &Keyspace { name: "other".to_owned(), ..wish.clone() }, &[]).is_ok());
        // Who is taken for lost is waited for by nobody; what was heard before the deletion is none of it.
        let lost = wish::Wish::Leave(LeaveWish { node: 5, lost: true });
        let lost = transition::begin(&gone, "lost", &Wish { wish: Some(lost) }, &BTreeSet::new());
        let mut lost = lost.unwrap().unwrap();
        let waits = |ring: &Ring, by: &[u32]| names_wait_for(ring, Some("names"), &hearing(ring, by));
        assert!(waits(&lost, &all[away..4]).contains(&NodeId(5)), "that may be called off yet");
        let mut document = lost.document().clone();
        document.operations[0].phase = OperationPhase::Moving.into();
        lost = Ring::new(document).unwrap();
        assert!(waits(&lost, &all[away..4]).is_empty());
        assert_eq!(waits(&lost, &all[away + 1..4]), (1..=away as u32 + 1).map(NodeId).collect());
        // Who is silent and not lost is waited for, and for that it must stay a node.
        let retired = |ring: &Ring, by: &[u32]| check_unheard(ring, NodeId(5), &hearing(ring, by));
        let refused = retired(&gone, &all[away + 1..4]);
        assert!(matches!(refused, Err(ChangeError::Unheard(why)) if why.contains("node 5")));
        assert!(retired(&lost, &[]).is_ok() && retired(&live, &[]).is_ok());
        assert_eq!(retired(&gone, &all[..4]).is_ok(), away > 0, "all others have heard");
    }
    // Nobody wrote into one that is not live.
    let made = create_keyspace(&ring, &wish(3, 2, 2), &[]).unwrap();
    let id = KeyspaceId(made.keyspace("names").unwrap().id);
    let gone = delete_keyspace(&made, "names", id).unwrap().unwrap();
    assert!(create_keyspace(&gone, &wish(3, 2, 2), &[]).is_ok());
}

#[test]
fn names_that_are_not_free_are_bounded_in_number() {
    let mut ring = founded();
    let wish = |at| Keyspace { name: format!("k{at}"), replicas: 1, ..Keyspace::default() };
    let step = |ring: &Ring, at| {
        let made = create_keyspace(ring, &wish(at), &[])?;
        let id = KeyspaceId(made.keyspace(&format!("k{at}")).unwrap().id);
        let live = mark_live(&made, id)?.unwrap();
        Ok::<Ring, ChangeError>(delete_keyspace(&live, &format!("k{at}"), id)?.unwrap())
    };
    for at in 0..MAX_DELETED {
        ring = step(&ring, at).unwrap();
    }
    let full = step(&ring, MAX_DELETED).unwrap_err();
    assert_eq!(full.reason(), Reason::Unavailable);
    let hearing = Hearing { epoch: ring.epoch(), by: BTreeSet::from([NodeId(1)]) };
    assert!(names_wait_for(&ring, None, &hearing).is_empty());
    assert!(step(&free_names(&ring, &hearing).unwrap(), MAX_DELETED).is_ok());
}

#[test]
fn a_ring_never_grows_beyond_what_a_message_carries() {
    let ordered = |at: usize| Keyspace {
        name: format!("k{at}"),
        replicas: 3,
        partitioner: Partitioner::Ordered.into(),
        ..Keyspace::default()
    };
    // Zeros are the dearest: each takes two bytes of a position.
    let split = |at: usize, long: usize| {
        let mut key = vec![0; long];
        key[..2].copy_from_slice(&(at as u16 + 1).to_be_bytes());
        key
    };
    let splits = |count, long| (0..count).map(|at| split(at, long)).collect::<Vec<_>>();
    let says = |splits: &[Vec<u8>]| create_keyspace(&founded(), &ordered(0), splits).unwrap_err().to_string();
    assert!(says(&splits(MAX_SPLITS + 1, 2)).contains("the most is 4096"));
    assert!(says(&splits(1, MAX_SPLIT + 1)).contains("the most is 1024"));

    let mut ring = founded();
    let full = (0..).find_map(|at| match create_keyspace(&ring, &ordered(at), &splits(512, MAX_SPLIT)) {
        Ok(next) => {
            ring = next;
            None
        }
        Err(why) => Some(why),
    });
    let full = full.unwrap();
    assert_eq!(full.reason(), Reason::Unavailable, "once some are deleted there is room");
    assert!(full.to_string().contains("delete keyspaces"), "{full}");
    assert!(ring_bytes(ring.document()) <= ROOMY_RING_BYTES);
    // What must go on goes on.
    let moved = Joiner { peer_address: "elsewhere:1".to_owned(), ..joiner(1, "a", 1.0) };
    assert!(join(&ring, &moved).unwrap().is_some());
    // So do lost nodes and those that take their place, to a bound that leaves room for the steps.
    let with = join(&ring, &joiner(40, "a", 1.0)).unwrap().unwrap();
    let number = with.nodes().iter().map(|node| node.number).max().unwrap();
    let wish = wish::Wish::Replace(ReplaceWish { old: 1, new: number, lost: true });
    let begun = transition::begin(&with, "replace", &Wish { wish: Some(wish) }, &BTreeSet::new());
    assert!(begun.unwrap().is_some());
    let long = Joiner { http_address: "h".repeat(257), ..joiner(1, "a", 1.0) };
    assert!(join(&ring, &long).unwrap_err().to_string().contains("HTTP address"));
    let gone = delete_keyspace(&ring, "k0", KeyspaceId(2)).unwrap().unwrap();
    assert!(create_keyspace(&gone, &ordered(0), &splits(512, MAX_SPLIT)).is_ok());
}

#[test]
fn a_retired_node_is_refused() {
    let mut document = founded().document().clone();
    document.retired.push(Uuid::from_u128(5).as_bytes().to_vec().into());
    let ring = Ring::new(document).unwrap();
    assert_eq!(join(&ring, &joiner(5, "", 1.0)), Err(ChangeError::Retired(Uuid::from_u128(5))));
}

#[test]
fn a_cluster_smaller_than_n_says_which_arcs_lack_copies() {
    let ring = joined(&founded(), &joiner(2, "a", 1.0));
    let lacking = under_replicated(&ring, |_| true);
    assert_eq!(lacking.len(), ring.arcs().len());
    assert!(lacking.iter().all(|(_, up, wanted)| (*up, *wanted) == (2, 3)));
    let ring = joined(&ring, &joiner(3, "a", 1.0));
    assert_eq!(under_replicated(&ring, |_| true), []);
    assert!(!under_replicated(&ring, |node| node != NodeId(2)).is_empty());
}
