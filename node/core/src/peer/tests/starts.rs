//! What is known of nodes' starts, and what becomes of it (ONE-START).

use crate::{
    engine::{Batch, SimulatedDisk},
    peer::starts::{Meeting, Starts, Way, heard, told},
    seam::{Entropy, Offload},
};
use god_proto::{ids::NodeId, peer};
use god_rules::starts::{LEAP, MAX_REFUSED, MOST_AHEAD, Start};
use std::{net::IpAddr, sync::Arc};
use uuid::Uuid;

const NODE: NodeId = NodeId(2);

fn start(count: u64, id: u128, before: u128) -> Start {
    Start { count, id: Uuid::from_u128(id), before: Uuid::from_u128(before) }
}

fn open(disk: &SimulatedDisk, seed: u64) -> Arc<Starts> {
    Arc::new(Starts::open(disk.open(), Offload::Inline, &Entropy::seeded(seed), None).unwrap())
}

/// Lets what nobody waits for be written.
async fn settle() {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_directory_that_was_refused_is_refused_at_its_next_start_until_it_is_said_to_be_restored() {
    let disk = SimulatedDisk::new();
    let first = open(&disk, 1);
    assert_eq!(first.own_refusal(), None);
    first.refuse_own("it is a copy");
    settle().await;
    disk.crash_machine(0);
    let second = open(&disk, 2);
    assert_eq!(second.own_refusal(), Some("it is a copy"));
    let restored =
        Starts::open(disk.open(), Offload::Inline, &Entropy::seeded(3), Some(Batch::default())).unwrap();
    assert_eq!(restored.own_refusal(), None);
    assert_eq!(open(&disk, 4).own_refusal(), None);
}

#[tokio::test]
async fn what_is_restored_is_the_node_whatever_others_remember() {
    let disk = SimulatedDisk::new();
    let backup = open(&disk, 1).own();
    let starts = open(&SimulatedDisk::new(), 2);
    // Others knew later starts when they were backed up themselves, and refused one.
    for (at, id) in [(backup.count + 1, 2), (backup.count + 2, 3)] {
        starts.meet(NODE, &start(at, id, id - 1), Way::Answerer);
    }
    let plain = open(&disk, 3).own();
    assert!(matches!(starts.meet(NODE, &plain, Way::Answerer), Meeting::Refused(_)));
    let restored = Starts::open(disk.open(), Offload::Inline, &Entropy::seeded(4), Some(Batch::default()))
        .unwrap()
        .own();
    assert_eq!(starts.meet(NODE, &restored, Way::Answerer), Meeting::Taken);
    let next = open(&disk, 5).own();
    assert_eq!(starts.meet(NODE, &next, Way::Answerer), Meeting::Taken);
    assert!(matches!(starts.meet(NODE, &plain, Way::Answerer), Meeting::Refused(_)));
}

#[tokio::test]
async fn who_has_this_nodes_uuid_and_another_start_is_a_copy() {
    let starts = open(&SimulatedDisk::new(), 1);
    starts.is_own(&starts.own()).unwrap();
    let copy = start(1, 77, 0);
    assert!(starts.is_own(&copy).unwrap_err().contains("is a copy"));
    assert!(starts.is_own(&Start::default()).is_err(), "it counts its starts");
}

#[tokio::test]
async fn a_connection_that_breaks_hands_the_node_to_nobody_who_calls_before_it_was_looked_for() {
    let starts = open(&SimulatedDisk::new(), 1);
    let (a, copy) = (start(5, 5, 4), start(6, 60, 5));
    assert_eq!(starts.meet(NODE, &a, Way::Answerer), Meeting::Taken);
    drop(starts.answers(NODE, &a));
    assert!(matches!(starts.meet(NODE, &copy, Way::Caller), Meeting::Waits(_)));
    let found_again = starts.answers(NODE, &a);
    assert!(matches!(starts.meet(NODE, &copy, Way::Caller), Meeting::Waits(_)));
    drop(found_again);
    starts.looked_for(NODE);
    assert_eq!(starts.meet(NODE, &copy, Way::Caller), Meeting::Taken, "nobody was there");
}

#[tokio::test]
async fn rows_are_written_in_order_and_survive_a_stop_of_the_machine() {
    let disk = SimulatedDisk::new();
    let starts = open(&disk, 1);
    for count in 1..20 {
        starts.meet(NODE, &start(count, count.into(), (count - 1).into()), Way::Answerer);
    }
    settle().await;
    disk.crash_machine(0);
    assert_eq!(open(&disk, 2).latest(NODE), Uuid::from_u128(19));
}

#[tokio::test]
async fn starts_are_counted_and_each_names_the_one_before() {
    let disk = SimulatedDisk::new();
    let first = open(&disk, 1).own();
    assert_eq!((first.count, first.before), (1, Uuid::nil()));
    disk.crash_machine(0);
    let second = open(&disk, 2).own();
    assert_eq!((second.count, second.before), (2, first.id));
    assert_ne!(second.id, first.id);
    assert_eq!(heard(told(&second).as_ref()), second);
    assert_eq!(heard(None), Start::default());
}

#[tokio::test]
async fn the_next_start_is_taken_once_the_known_one_answers_no_more() {
    let starts = open(&SimulatedDisk::new(), 1);
    let (a, b) = (start(5, 5, 4), start(6, 6, 5));
    assert_eq!(starts.meet(NODE, &a, Way::Caller), Meeting::Taken, "nothing was known");
    let first = starts.answers(NODE, &a);
    let second = starts.answers(NODE, &a);
    assert!(matches!(starts.meet(NODE, &b, Way::Caller), Meeting::Waits(_)));
    assert!(matches!(starts.meet(NODE, &b, Way::Answerer), Meeting::Waits(_)), "at another address");
    drop(first);
    let changes = starts.changes();
    assert!(matches!(starts.meet(NODE, &b, Way::Caller), Meeting::Waits(_)), "one answers still");
    drop(second);
    assert!(starts.changes() > changes, "whoever waits is judged anew");
    starts.looked_for(NODE);
    assert_eq!(starts.meet(NODE, &b, Way::Caller), Meeting::Taken);
    assert!(matches!(starts.meet(NODE, &a, Way::Answerer), Meeting::Refused(_)), "it was the node before");
}

#[tokio::test]
async fn a_copy_that_the_node_outlived_is_refused_for_ever_and_by_the_next_start_of_this_node() {
    let disk = SimulatedDisk::new();
    let starts = open(&disk, 1);
    let (a, copy) = (start(5, 5, 4), start(6, 60, 5));
    assert_eq!(starts.meet(NODE, &a, Way::Answerer), Meeting::Taken);
    let there = starts.answers(NODE, &a);
    assert!(matches!(starts.meet(NODE, &copy, Way::Caller), Meeting::Waits(_)));
    assert!(starts.outlived(NODE, a.id, &copy).is_some());
    drop(there);
    settle().await;
    let starts = open(&disk, 2);
    assert!(matches!(starts.meet(NODE, &copy, Way::Caller), Meeting::Refused(_)));
    let again = start(7, 70, 60);
    assert!(matches!(starts.meet(NODE, &again, Way::Caller), Meeting::Refused(_)));
    // This node has just started itself: it looks before it believes a caller.
    starts.keep_only(|node| node == NODE);
    let next = start(6, 6, 5);
    assert!(matches!(starts.meet(NODE, &next, Way::Caller), Meeting::Waits(_)));
    starts.looked_for(NODE);
    assert_eq!(starts.meet(NODE, &next, Way::Caller), Meeting::Taken);
    assert_eq!(starts.outlived(NODE, a.id, &copy), None, "another start is known by now");
    starts.keep_only(|_| false);
    settle().await;
    assert_eq!(open(&disk, 3).latest(NODE), Uuid::nil(), "it left");
}

/// Whether a start is taken for the node, by whoever is called.
fn is_taken(starts: &Starts, theirs: &Start) -> bool {
    starts.looked_for(NODE);
    starts.meet(NODE, theirs, Way::Caller) == Meeting::Taken
}

#[tokio::test]
async fn who_says_nothing_of_its_start_is_the_node_only_while_none_is_known() {
    let starts = open(&SimulatedDisk::new(), 1);
    let untold = Start::default();
    assert!(is_taken(&starts, &untold), "a program that does not count its starts");
    assert_eq!(starts.meet(NODE, &start(5, 5, 4), Way::Answerer), Meeting::Taken);
    for way in [Way::Caller, Way::Answerer] {
        let Meeting::Unclear(why) = starts.meet(NODE, &untold, way) else {
            panic!("it is no start of the node")
        };
        assert!(
            why.contains("node 2") && why.contains("start 5 (") && why.contains("run the version"),
            "{why}"
        );
    }
    assert!(is_taken(&starts, &start(6, 6, 5)), "nothing is held against the node");
}

#[tokio::test]
async fn what_cannot_be_a_start_pushes_no_refusal_out_and_keeps_no_restored_node_away() {
    let starts = open(&SimulatedDisk::new(), 1);
    let (a, copy) = (start(5, 5, 4), start(5, 50, 4));
    assert_eq!(starts.meet(NODE, &a, Way::Answerer), Meeting::Taken);
    assert!(matches!(starts.meet(NODE, &copy, Way::Caller), Meeting::Refused(_)));
    for at in 1..=2 * MAX_REFUSED as u64 {
        for other in [Start::default(), start(at, 0, 0), start(u64::MAX - at, at.into(), 5)] {
            assert!(!is_taken(&starts, &other), "{other:?}");
        }
    }
    assert!(!is_taken(&starts, &start(6, 60, 50)), "the copy was forgotten");
    assert!(is_taken(&starts, &start(1 + LEAP, 70, 0)), "the node was put back, and names none before");
}

#[tokio::test]
async fn what_a_stranger_draws_pushes_out_no_refusal_of_a_second_process() {
    let (second, stranger) = (IpAddr::from([192, 0, 2, 2]), IpAddr::from([192, 0, 2, 9]));
    let disk = SimulatedDisk::new();
    let starts = open(&disk, 1);
    let (a, copy) = (start(5, 5, 4), start(6, 60, 5));
    assert_eq!(starts.meet(NODE, &a, Way::Answerer), Meeting::Taken);
    let refuse = |starts: &Starts, other: &Start, address| {
        starts.heard_from(other, address);
        assert!(matches!(starts.meet(NODE, other, Way::Caller), Meeting::Waits(_)));
        assert!(starts.outlived(NODE, a.id, other).is_some());
    };
    // It names what the node itself tells to all who ask, or a start that cannot be the next.
    let draw = |starts: &Starts, first: u128| {
        for at in first..=first + MAX_REFUSED as u128 {
            refuse(starts, &start(6, at, 5), stranger);
            let other = start(5, 1_000 + at, 4);
            starts.heard_from(&other, stranger);
            assert!(matches!(starts.meet(NODE, &other, Way::Caller), Meeting::Refused(_)));
        }
    };
    let there = starts.answers(NODE, &a);
    refuse(&starts, &copy, second);
    draw(&starts, 100);
    drop(there);
    assert!(!is_taken(&starts, &copy), "it was forgotten");
    assert!(!is_taken(&starts, &start(7, 70, 60)), "its next start is taken");
    settle().await;
    // Where it was met is not known after a start.
    let starts = open(&disk, 2);
    let there = starts.answers(NODE, &a);
    draw(&starts, 200);
    drop(there);
    assert!(!is_taken(&starts, &copy) && !is_taken(&starts, &start(8, 80, 60)));
    assert!(is_taken(&starts, &start(6, 6, 5)), "the node itself starts again");
}

#[tokio::test]
async fn a_count_that_no_node_comes_to_is_not_taken_and_the_next_start_is() {
    let starts = open(&SimulatedDisk::new(), 1);
    assert!(!is_taken(&starts, &start(u64::MAX, 9, 8)), "nothing is known");
    assert_eq!(starts.meet(NODE, &start(5, 5, 4), Way::Answerer), Meeting::Taken);
    let Meeting::Unclear(why) = starts.meet(NODE, &start(6 + MOST_AHEAD, 9, 8), Way::Answerer) else {
        panic!("it is taken for a start of the node")
    };
    assert!(why.contains("start 5 (") && why.contains("--replace"), "{why}");
    assert!(is_taken(&starts, &start(6, 6, 5)));
    assert!(is_taken(&starts, &start(6 + MOST_AHEAD, 7, 0)), "it was put back as often as that");
}

#[test]
fn what_is_malformed_counts_as_untold() {
    let whole = told(&start(5, 5, 4)).unwrap();
    assert_eq!(heard(Some(&whole)), start(5, 5, 4));
    let id = |bytes: &[u8]| peer::Start { id: bytes.to_vec().into(), ..whole.clone() };
    for malformed in [id(&[]), id(&[5; 15]), id(&[0; 16]), peer::Start { count: 0, ..whole.clone() }] {
        assert_eq!(heard(Some(&malformed)), Start::default(), "{malformed:?}");
    }
}
