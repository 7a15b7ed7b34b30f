//! Nodes that were put back from a backup, or whose records were damaged: what they may know is old, and so may their
//! ring and their floors be.

use super::*;
use god_proto::peer::{Verdict, Write, WriteDone};
use std::collections::BTreeMap;

/// By a ring of this epoch, which 2, 3 and 4 decide, these hold the arc of `default`.
fn held_by(replicas: &[u32], epoch: u64) -> Arc<Ring> {
    let mut document = document(4, epoch);
    document.voters = vec![2, 3, 4];
    document.arcs[0].replicas = replicas.to_vec();
    ring(document)
}

async fn write(cluster: &Cluster, node: u32, entry: Entry) -> Verdict {
    let body = request::Body::Write(Write { entries: vec![entry.into()] });
    let call = Call { epoch: 5, arcs: 0, timeout: Duration::from_secs(1), body };
    match cluster.node(node).replica.handle(call).await {
        Ok(response::Body::Write(WriteDone { mut verdicts })) => verdicts.remove(0),
        other => panic!("not a write's answer: {other:?}"),
    }
}

/// The backup is of a time before the node held a copy of the arc, or before others held one too.
#[tokio::test(start_paused = true)]
async fn by_an_old_ring_nothing_is_whole() {
    for before in [&[2, 3, 4][..], &[1]] {
        let cluster = Cluster::with(&held_by(before, 5), HintSettings::default());
        for node in 2..=4 {
            cluster.node(node).ring.advance(held_by(&[1, 2, 3], 6));
        }
        let upkeep = upkeep(&cluster, 1);
        let at = position("acknowledged by 1, which lost it, and by 3");
        cluster.seed(3, value(&at, -50, "there")).await;
        let lapse = Arc::clone(cluster.node(1).replica.lapse());
        lapse.add(std::slice::from_ref(&at)).await.unwrap();
        let recalls = begins(&upkeep, |upkeep| async move { upkeep.recall().await });
        sleep(Duration::from_secs(10)).await;
        assert!(lapse.is_whole());
        assert_eq!(cluster.held(1, &at).await, Some(value(&at, -50, "there").record), "{before:?}");
        recalls.abort();
    }
}

/// Who decides the ring may have moved the arc away, or to more replicas.
#[tokio::test(start_paused = true)]
async fn while_it_is_not_known_which_ring_is_the_newest_nothing_is_taken_for_whole_unasked() {
    let cluster = Cluster::with(&held_by(&[1], 5), HintSettings::default());
    let upkeep = upkeep(&cluster, 1);
    for node in 2..=3 {
        cluster.does(node, Does::Unreachable);
    }
    let lapse = Arc::clone(cluster.node(1).replica.lapse());
    lapse.add(&[position("k")]).await.unwrap();
    let recalls = begins(&upkeep, |upkeep| async move { upkeep.recall().await });
    sleep(Duration::from_secs(30)).await;
    assert!(!lapse.is_whole());
    cluster.does(2, Does::Answer);
    sleep(Duration::from_secs(30)).await;
    assert!(lapse.is_whole());
    recalls.abort();
}

#[tokio::test(start_paused = true)]
async fn the_promise_of_a_lapsed_replica_counts_only_beside_those_of_all_others() {
    let ring = joint(6);
    let arc = &ring.arcs()[0];
    let cluster = Cluster::with(&ring, HintSettings::default());
    let upkeep = upkeep(&cluster, 4);
    let (at, floor, _) = with_a_floor_of_one_half(&cluster, 2..=3).await;
    let lapse = |node: u32| Arc::clone(cluster.node(node).replica.lapse());
    lapse(1).add(&at[..1]).await.unwrap();
    let inherits =
        async |olds: [u32; 3]| upkeep.inherit_from((arc.id, arc.since.0), &olds.map(NodeId), arc).await;
    let promised = || cluster.node(4).replica.floors().at(&at[0]).promised;
    for node in 2..=3 {
        cluster.does(node, Does::Unreachable);
    }
    assert!(inherits([1, 2, 3]).await.is_err());
    // Nobody has lost less.
    for node in 2..=3 {
        cluster.does(node, Does::Answer);
        lapse(node).add(&at[..1]).await.unwrap();
    }
    assert_eq!(promised(), Version::ZERO);
    inherits([1, 2, 3]).await.unwrap();
    assert_eq!(promised(), floor.promised);
    let cluster = Cluster::with(&ring, HintSettings::default());
    let (at, floor, _) = with_a_floor_of_one_half(&cluster, 2..=3).await;
    cluster.node(1).replica.lapse().add(&at[..1]).await.unwrap();
    let upkeep = super::upkeep(&cluster, 4);
    let olds = [1, 2, 3].map(NodeId);
    upkeep.inherit_from((arc.id, arc.since.0), &olds, arc).await.unwrap();
    assert_eq!(cluster.node(4).replica.floors().at(&at[0]).promised, floor.promised);
}

/// A hint that waited for hours comes in while the arc is compared.
#[tokio::test(start_paused = true)]
async fn what_others_refuse_as_too_old_is_refused_while_it_is_recalled() {
    let cluster = Cluster::new(3);
    let upkeep = upkeep(&cluster, 1);
    let (at, _, _) = with_a_floor_of_one_half(&cluster, 2..=3).await;
    cluster.node(1).replica.lapse().add(&at[..1]).await.unwrap();
    for node in 2..=3 {
        cluster.slow(node, 500);
    }
    let recalls = begins(&upkeep, |upkeep| async move { upkeep.recall().await });
    sleep(Duration::from_millis(700)).await;
    assert!(!cluster.node(1).replica.lapse().is_whole(), "it is compared still");
    let verdict = write(&cluster, 1, value(&at[0], -30_000, "deleted and purged")).await;
    assert!(verdict.superseded_by.is_some(), "{verdict:?}");
    recalls.abort();
}

/// All of them have it, as is noted by their floors; one cannot read it, and the floor keeps it from being overwritten.
#[tokio::test(start_paused = true)]
async fn what_is_damaged_below_a_floor_is_compared_past_it() {
    // Others may have missed that it is noted.
    for (is_written, noted) in [(false, 3), (true, 3), (true, 1)] {
        let cluster = Cluster::new(3);
        let upkeep = upkeep(&cluster, 1);
        let (at, _, _) = with_a_floor_of_one_half(&cluster, 1..=noted).await;
        let old = value(&at[0], -30_000, "old");
        for node in 1..=3 {
            cluster.seed(node, old.clone()).await;
        }
        damage(&cluster, 1, &at[0]);
        match is_written {
            // As by a read that found it missing here.
            true => assert!(write(&cluster, 1, old.clone()).await.damaged),
            false => {
                let arc = cluster.world.ring.get().unwrap().arc_at(&at[0]).unwrap().range.clone();
                let pulled = pull_from(&upkeep, 2, arc, false).await;
                assert!(matches!(pulled, Err(PullError::Damaged(1))), "{pulled:?}");
            }
        }
        assert!(cluster.node(1).replica.lapse().holds(&at[0]));
        let recalls = begins(&upkeep, |upkeep| async move { upkeep.recall().await });
        sleep(Duration::from_secs(10)).await;
        assert!(cluster.node(1).replica.lapse().is_whole());
        assert_eq!(cluster.held(1, &at[0]).await, Some(old.record));
        recalls.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_is_not_ready_gives_its_vote_away_as_one_that_is_down() {
    let mut document = document(4, 5);
    document.voters = vec![1, 2, 3];
    let ring = ring(document);
    let cluster = Cluster::with(&ring, HintSettings::default());
    let upkeep = upkeep(&cluster, 1);
    let mut idle = BTreeMap::new();
    // One that was not heard of yet, one that is ready, and one that says that it is not.
    for (node, is_ready) in [(2, true), (3, false)] {
        cluster.world.liveness.update(NodeId(node), |peer| peer.is_ready = Some(is_ready));
    }
    assert_eq!(upkeep.long_idle(&ring, &mut idle), None, "it may be so for a moment");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(upkeep.long_idle(&ring, &mut idle), Some(NodeId(3)));
    cluster.world.liveness.update(NodeId(3), |peer| peer.is_ready = None);
    assert_eq!(upkeep.long_idle(&ring, &mut idle), None);
    cluster.state(2, PeerState::Down);
    assert_eq!(upkeep.long_idle(&ring, &mut idle), None);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(upkeep.long_idle(&ring, &mut idle), Some(NodeId(2)));
}

/// Who leaves does not wait for a replica to be mended: what is as old as that is on all others.
#[tokio::test(start_paused = true)]
async fn what_is_damaged_below_a_promise_is_noted_and_holds_up_no_hand_over() {
    let cluster = Cluster::new(3);
    let upkeep = upkeep(&cluster, 1);
    let (at, _, _) = with_a_floor_of_one_half(&cluster, 1..=3).await;
    for node in 1..=2 {
        cluster.seed(node, value(&at[0], -30_000, "old")).await;
    }
    cluster.seed(2, value(&at[1], -10, "newer there")).await;
    damage(&cluster, 1, &at[0]);
    pull(&upkeep, 2).await.unwrap();
    assert!(cluster.node(1).replica.lapse().holds(&at[0]));
}

/// It was deleted, and the deletion purged here; one that was put back has neither, nor the floor that says so.
#[tokio::test(start_paused = true)]
async fn what_a_lapsed_replica_has_below_a_floor_is_recalled_from_nobody() {
    let cluster = Cluster::new(3);
    let upkeep = upkeep(&cluster, 1);
    let (at, _, _) = with_a_floor_of_one_half(&cluster, 1..=1).await;
    cluster.seed(2, value(&at[0], -30_000, "deleted and purged")).await;
    for node in 1..=2 {
        cluster.node(node).replica.lapse().add(&at[..1]).await.unwrap();
    }
    let recalls = begins(&upkeep, |upkeep| async move { upkeep.recall().await });
    sleep(Duration::from_secs(10)).await;
    assert_eq!(cluster.held(1, &at[0]).await, None);
    recalls.abort();
}
