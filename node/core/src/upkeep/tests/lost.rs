//! Nodes whose data are said to be lost.

use super::*;
use god_proto::v1::RingDocument;

/// With an operation that makes up for the data of node 2.
fn with(document: &RingDocument, phase: OperationPhase) -> Arc<Ring> {
    let wish = v1::Wish { wish: Some(Wish::Leave(LeaveWish { node: 2, lost: true })) };
    let lost =
        Operation { id: "lost".to_owned(), phase: phase.into(), wish: Some(wish), ..Operation::default() };
    ring(RingDocument { operations: vec![lost], ..document.clone() })
}

/// It may be up, and is counted by nobody: it stands for none of those that were acknowledged.
#[tokio::test(start_paused = true)]
async fn a_replica_whose_data_are_said_to_be_lost_is_not_copied_from() {
    let ring = with(joint(6).document(), OperationPhase::Moving);
    let cluster = Cluster::with(&ring, HintSettings::default());
    let upkeep = upkeep(&cluster, 4);
    let at = position("acknowledged by 1, and by 2 whose data are lost");
    cluster.seed(1, value(&at, -25_000, "there")).await;
    let receives = begins(&upkeep, |upkeep| async move { upkeep.receive().await });
    sleep(Duration::from_secs(5)).await;
    assert!(upkeep.receiving.report().arcs[0].ready);
    assert_eq!(cluster.held(4, &at).await, Some(value(&at, -25_000, "there").record));
    receives.abort();
}

/// What it says may be called off until then: the node comes back, and may be the only other one that has a write which
/// this one lost.
#[tokio::test(start_paused = true)]
async fn a_lapsed_replica_waits_for_one_that_is_said_to_be_lost_until_that_has_begun() {
    let cluster = Cluster::with(&with(&document(3, 6), OperationPhase::Waiting), HintSettings::default());
    let upkeep = upkeep(&cluster, 1);
    let at = position("acknowledged by 1, which lost it, and by 2");
    cluster.seed(2, value(&at, -50, "there")).await;
    let lapse = Arc::clone(cluster.node(1).replica.lapse());
    lapse.add(&[at]).await.unwrap();
    cluster.does(2, Does::Unreachable);
    let recalls = begins(&upkeep, |upkeep| async move { upkeep.recall().await });
    sleep(Duration::from_secs(30)).await;
    assert!(!lapse.is_whole());
    cluster.node(1).ring.advance(with(&document(3, 7), OperationPhase::Moving));
    sleep(Duration::from_secs(30)).await;
    assert!(lapse.is_whole(), "nobody waits for it any more");
    recalls.abort();
}

/// With their data all that was newer is gone, and what is left may be what a copy of the arc begins with.
#[tokio::test(start_paused = true)]
async fn what_all_owners_lost_is_not_held_back_from_who_still_has_it() {
    let of_node_2 = |epoch| {
        let mut document = document(3, epoch);
        document.arcs[0].replicas = vec![2];
        document
    };
    let cluster = Cluster::with(&with(&of_node_2(6), OperationPhase::Waiting), HintSettings::default());
    let upkeep = upkeep(&cluster, 1);
    let at = position("left behind");
    cluster.seed(1, value(&at, -50, "old")).await;
    cluster.does(2, Does::Unreachable);
    let cleans = begins(&upkeep, |upkeep| async move { upkeep.clean().await });
    sleep(Duration::from_secs(5)).await;
    assert_eq!(upkeep.misplaced_entries(), 1, "its owner may come back");
    cluster.node(1).ring.advance(with(&of_node_2(7), OperationPhase::Moving));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(upkeep.misplaced_entries(), 0);
    assert!(cluster.held(1, &at).await.is_some());
    cleans.abort();
}

/// What is wrong with its own storage is no reason to call others lost.
#[tokio::test(start_paused = true)]
async fn a_new_replica_that_cannot_store_says_so_and_asks_no_other_one() {
    let cluster = Cluster::with(&joint(6), HintSettings::default());
    let upkeep = upkeep(&cluster, 4);
    let at = position("there");
    for node in 1..=3 {
        cluster.seed(node, value(&at, -25_000, "there")).await;
    }
    cluster.node(4).disk.fail_writes(Some(EngineError::Failed("no space left".to_owned())));
    let receives = begins(&upkeep, |upkeep| async move { upkeep.receive().await });
    sleep(Duration::from_secs(5)).await;
    let told = upkeep.receiving.report().arcs[0].blocked.clone();
    assert!(!told.is_empty() && !told.contains("--lost") && !told.contains("old replicas"), "{told}");
    receives.abort();
}

#[tokio::test(start_paused = true)]
async fn why_the_driver_cannot_decide_the_next_step_is_told_once_it_lasts() {
    let voters = RingDocument { voters: vec![1, 2, 3], ..document(3, 6) };
    let cluster = Cluster::with(&with(&voters, OperationPhase::Waiting), HintSettings::default());
    let upkeep = upkeep(&cluster, 1);
    for voter in [2, 3] {
        cluster.does(voter, Does::Unreachable);
    }
    let blocked = || async { upkeep.list_operations().await.unwrap().operations[0].blocked.clone() };
    assert_eq!(blocked().await, "");
    let drives = begins(&upkeep, |upkeep| async move { upkeep.drive().await });
    sleep(Duration::from_secs(30)).await;
    let told = blocked().await;
    assert!(told.starts_with("node 1, which drives it, cannot take the next step: "), "{told}");
    drives.abort();
}

/// It has begun, and cannot be called off.
#[tokio::test(start_paused = true)]
async fn why_what_makes_up_for_lost_data_cannot_be_planned_is_told_and_it_is_tried_seldom() {
    let mut document = with(&document(3, 6), OperationPhase::Waiting).document().clone();
    let operation = &mut document.operations[0];
    let wish = v1::Wish { wish: Some(Wish::Leave(LeaveWish { node: 9, lost: true })) };
    (operation.wish, operation.undo) = (Some(wish.clone()), Some(wish));
    let cluster = Cluster::with(&ring(document), HintSettings::default());
    let upkeep = upkeep(&cluster, 1);
    let drives = begins(&upkeep, |upkeep| async move { upkeep.drive().await });
    sleep(Duration::from_secs(30)).await;
    let told = upkeep.list_operations().await.unwrap().operations[0].blocked.clone();
    assert!(told.contains("there is no node 9"), "{told}");
    let asked = cluster.sent("other");
    assert!((2..=100).contains(&asked), "{asked} questions in half a minute");
    drives.abort();
}
