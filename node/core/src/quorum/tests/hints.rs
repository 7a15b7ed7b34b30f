//! Hints: kept, bounded, delivered.

use super::world::{Cluster, Does, document, joint, ordered, position, put, ring, value};
use crate::{
    engine::{Batch, Direction, Engine as _, Reader as _, Table},
    membership::PeerState,
    quorum::{HintSettings, Hints},
    replica::Floor,
    seam::Offload,
    stop::{Stopper, stop},
};
use bytes::Bytes;
use god_proto::{
    ids::{KeyspaceId, NodeId},
    peer::Cause,
    position::PositionRange,
};
use std::{sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};

/// The replayer at work.
fn run(cluster: &Cluster) -> Stopper {
    let (stopper, stopped) = stop();
    let world = &cluster.world;
    let work = Arc::clone(&world.hints).run(Cluster::wire(world), Arc::clone(&world.liveness), stopped);
    tokio::spawn(work);
    stopper
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(timeout(Duration::from_mins(1), wait).await.is_ok(), "never: {what}");
}

#[tokio::test(start_paused = true)]
async fn hints_wait_for_their_target_and_are_delivered_when_it_returns() {
    let cluster = Cluster::new(3);
    let _stopper = run(&cluster);
    cluster.state(3, PeerState::Down);
    let calls = (0..600).map(|at| put(&format!("k{at}"), "v")).collect();
    cluster.coordinator.batch(calls).await;
    assert_eq!(cluster.world.hints.pending(), 600);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(cluster.world.hints.pending(), 600, "it is still down");
    cluster.state(3, PeerState::Up);
    until("all are delivered", || cluster.world.hints.pending() == 0).await;
    assert_eq!(cluster.world.hints.replayed(), 600);
    for at in 0..600 {
        let position = position(&format!("k{at}"));
        assert_eq!(cluster.held(3, &position).await, cluster.held(1, &position).await);
    }
}

#[tokio::test(start_paused = true)]
async fn hints_survive_a_restart_of_the_node() {
    let cluster = Cluster::new(3);
    let stopper = run(&cluster);
    cluster.state(3, PeerState::Down);
    cluster.write(put("k", "v")).await;
    stopper.stop();
    sleep(Duration::from_secs(1)).await;
    let reopened = Hints::open(
        cluster.world.disk.open(),
        cluster.world.ring.clone(),
        Offload::Inline,
        HintSettings::default(),
    );
    assert_eq!(reopened.unwrap().pending(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_dropped_and_its_arc_is_suspect_for_good() {
    let settings = HintSettings { max_bytes_per_target: 1_000, ..HintSettings::default() };
    let cluster = Cluster::with(&ring(document(3, 5)), settings.clone());
    let stopper = run(&cluster);
    let entries: Vec<_> = (0..100).map(|at| value(&position(&format!("k{at}")), -10, "v")).collect();
    cluster.world.hints.add(NodeId(3), &entries);
    let (kept, dropped) = (cluster.world.hints.pending(), cluster.world.hints.dropped());
    assert!(kept > 0 && dropped > 0 && kept + dropped == 100, "{kept} and {dropped}");
    assert_eq!(cluster.world.hints.suspect_arcs(), 1);
    cluster.world.hints.add(NodeId(2), &entries[..1]);
    assert_eq!(cluster.world.hints.pending(), kept + 1, "another target has room of its own");
    stopper.stop();
    sleep(Duration::from_secs(1)).await;
    let reopened =
        Hints::open(cluster.world.disk.open(), cluster.world.ring.clone(), Offload::Inline, settings)
            .unwrap();
    assert_eq!(reopened.suspect_arcs(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_lost_is_forgiven_where_it_lay_and_only_if_it_was_lost_before() {
    let settings = HintSettings { max_bytes_per_target: 0, ..HintSettings::default() };
    let cluster = Cluster::with(&ring(document(3, 5)), settings.clone());
    let stopper = run(&cluster);
    let hints = &cluster.world.hints;
    let entry = [value(&position("k"), -10, "v")];
    hints.add(NodeId(3), &entry);
    let arc = cluster.world.ring.get().unwrap().arc_at(&entry[0].position).unwrap().range.clone();
    let elsewhere = PositionRange::of_position(&arc.end);
    hints.forgive(&elsewhere, hints.losses());
    assert_eq!(hints.suspect_arcs(), 1, "something else was compared");
    let before = hints.losses();
    hints.add(NodeId(3), &entry);
    hints.forgive(&arc, before);
    assert_eq!(hints.suspect_arcs(), 1, "one was lost since it was compared");
    // Arcs that were joined since are compared as one.
    let all = PositionRange::of_keyspace(arc.start.keyspace().unwrap());
    hints.forgive(&all, hints.losses());
    assert_eq!(hints.suspect_arcs(), 0);
    stopper.stop();
    sleep(Duration::from_secs(1)).await;
    let (disk, ring) = (cluster.world.disk.open(), cluster.world.ring.clone());
    assert_eq!(Hints::open(disk, ring, Offload::Inline, settings).unwrap().suspect_arcs(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_hint_stays_while_its_target_refuses() {
    let cluster = Cluster::new(3);
    let _stopper = run(&cluster);
    cluster.does(3, Does::Refuse(Cause::Busy));
    cluster.world.hints.add(NodeId(3), &[value(&position("k"), -10, "v")]);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(cluster.world.hints.pending(), 1);
    cluster.does(3, Does::Answer);
    until("it is delivered", || cluster.world.hints.pending() == 0).await;
    assert!(cluster.held(3, &position("k")).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn one_hint_that_can_never_be_taken_does_not_hold_up_the_others() {
    let cluster = Cluster::new(3);
    let _stopper = run(&cluster);
    let mut bad = value(&position("bad"), -10, "v");
    bad.record.kind = god_proto::record::Kind::Tombstone;
    cluster.world.hints.add(NodeId(3), &[bad, value(&position("good"), -10, "v")]);
    until("none waits", || cluster.world.hints.pending() == 0).await;
    assert!(cluster.held(3, &position("good")).await.is_some());
    assert_eq!((cluster.world.hints.dropped(), cluster.world.hints.suspect_arcs()), (1, 1));
}

/// The arc of a joint ring has changed hands: nodes 3, 4 and 5 hold it.
fn move_on(cluster: &Cluster) {
    let mut moved = document(5, 6);
    moved.arcs[0].replicas = vec![3, 4, 5];
    cluster.world.ring.advance(ring(moved.clone()));
    for node in 1..=5 {
        cluster.node(node).ring.advance(ring(moved.clone()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_for_a_node_that_holds_the_arc_no_more_goes_to_those_who_do() {
    let cluster = Cluster::with(&joint(5), HintSettings::default());
    let _stopper = run(&cluster);
    move_on(&cluster);
    cluster.world.hints.add(NodeId(1), &[value(&position("k"), -10, "v")]);
    until("it is delivered", || cluster.world.hints.pending() == 0).await;
    for node in 3..=5 {
        assert!(cluster.held(node, &position("k")).await.is_some());
    }
    assert_eq!(cluster.held(1, &position("k")).await, None);
}

#[tokio::test(start_paused = true)]
async fn hints_from_ahead_of_their_time_do_not_hold_up_the_others() {
    const HOUR_MS: u64 = 3_600_000;
    let cluster = Cluster::new(3);
    let _stopper = run(&cluster);
    let far = |at: usize| value(&position(&format!("far{at}")), HOUR_MS as i64, "v");
    let good = |at: usize| value(&position(&format!("good{at}")), -10, "v");
    cluster.world.hints.add(NodeId(3), &[far(0), far(1), good(0), far(2), good(1)]);
    until("only they wait", || cluster.world.hints.pending() == 3).await;
    for at in 0..2 {
        assert!(cluster.held(3, &good(at).position).await.is_some());
    }
    assert_eq!(cluster.world.hints.dropped(), 0);
    cluster.world.wall.pass(HOUR_MS);
    until("their time has come", || cluster.world.hints.pending() == 0).await;
    assert!(cluster.held(3, &far(2).position).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn more_hints_than_a_message_holds_may_be_ahead_of_their_time() {
    const HOUR_MS: i64 = 3_600_000;
    let cluster = Cluster::new(3);
    let _stopper = run(&cluster);
    let mut entries: Vec<_> =
        (0..300).map(|at| value(&position(&format!("far{at}")), HOUR_MS, "v")).collect();
    let good = value(&position("good"), -10, "v");
    entries.push(good.clone());
    cluster.world.hints.add(NodeId(3), &entries);
    until("only they wait", || cluster.world.hints.pending() == 300).await;
    assert!(cluster.held(3, &good.position).await.is_some());
    cluster.world.wall.pass(HOUR_MS as u64);
    until("their time has come", || cluster.world.hints.pending() == 0).await;
    assert_eq!(cluster.world.hints.dropped(), 0);
}

#[tokio::test(start_paused = true)]
async fn hints_that_a_third_node_must_take_do_not_hold_up_the_others() {
    let cluster = Cluster::with(&joint(5), HintSettings::default());
    let _stopper = run(&cluster);
    move_on(&cluster);
    cluster.does(5, Does::Unreachable);
    let mut entries: Vec<_> = (0..300).map(|at| value(&position(&format!("k{at}")), -10, "v")).collect();
    let own = value(&ordered("own"), -10, "v");
    entries.push(own.clone());
    cluster.world.hints.add(NodeId(1), &entries);
    until("only they wait", || cluster.world.hints.pending() == 300).await;
    assert!(cluster.held(1, &own.position).await.is_some());
    cluster.does(5, Does::Answer);
    until("all are delivered", || cluster.world.hints.pending() == 0).await;
    assert!(cluster.held(5, &entries[0].position).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_hint_for_a_record_that_cannot_be_overwritten_does_not_hold_up_the_others() {
    let cluster = Cluster::new(3);
    let _stopper = run(&cluster);
    let old: Vec<_> = (0..20).map(|at| value(&position(&format!("k{at}")), -1_000, "old")).collect();
    cluster.node(3).store.write(old.clone()).await.unwrap();
    // Nor can what is beside it be read: its bucket cannot be counted.
    for entry in &old[3..5] {
        cluster.node(3).disk.corrupt(Table::Data, entry.position.clone().into_bytes());
    }
    let new: Vec<_> = (0..20).filter(|at| *at != 4).map(|at| value(&old[at].position, -10, "new")).collect();
    cluster.world.hints.add(NodeId(3), &new);
    until("only it waits", || cluster.world.hints.pending() == 1).await;
    assert_eq!(cluster.world.hints.dropped(), 0);
    assert_eq!(cluster.held(3, &old[19].position).await.unwrap(), new[18].record);
    // What is beside it can be read again.
    cluster
        .node(3)
        .replica
        .take(vec![value(&old[3].position, -5, "x"), value(&old[4].position, -5, "y")], u64::MAX)
        .await
        .unwrap();
    until("it is delivered", || cluster.world.hints.pending() == 0).await;
}

/// It was written before the target promised to take nothing so old, and may be nowhere there.
#[tokio::test(start_paused = true)]
async fn a_hint_at_or_below_what_its_target_promised_leaves_its_arc_to_be_compared() {
    let cluster = Cluster::new(3);
    let _stopper = run(&cluster);
    cluster.state(3, PeerState::Down);
    cluster.write(put("k", "v")).await;
    let promised = cluster.held(1, &position("k")).await.unwrap().version;
    let all = PositionRange::of_keyspace(KeyspaceId(1));
    let floor = Floor { promised, ..Floor::default() };
    cluster.node(3).replica.floors().raise(&all, floor).await.unwrap();
    cluster.state(3, PeerState::Up);
    until("it was sent", || cluster.world.hints.pending() == 0).await;
    assert_eq!(cluster.held(3, &position("k")).await, None);
    assert_eq!((cluster.world.hints.replayed(), cluster.world.hints.suspect_arcs()), (0, 1));
}

/// The keys of what waits for a node, on the disk.
fn stored(cluster: &Cluster, target: u32) -> Vec<Bytes> {
    let (start, end) = (target.to_be_bytes(), (target + 1).to_be_bytes());
    let engine = cluster.world.disk.open();
    let rows = engine.scan(Table::Hints, &start, &end, Direction::Forward);
    rows.map(|row| row.unwrap().0).collect()
}

/// Nodes 2 and 3 have three hints each, on the disk.
async fn hinted(cluster: &Cluster) {
    for target in [2, 3] {
        cluster.state(target, PeerState::Down);
        let entries: Vec<_> = (0..3).map(|at| value(&position(&format!("k{at}")), -10, "v")).collect();
        cluster.world.hints.add(NodeId(target), &entries);
    }
    until("they are written", || stored(cluster, 2).len() + stored(cluster, 3).len() == 6).await;
}

fn arcs(cluster: &Cluster) -> usize {
    cluster.world.ring.get().unwrap().arcs().len()
}

#[tokio::test(start_paused = true)]
async fn hints_that_cannot_be_read_are_dropped_with_their_targets_and_all_arcs_are_suspect() {
    let cluster = Cluster::new(3);
    let _stopper = run(&cluster);
    hinted(&cluster).await;
    cluster.world.disk.corrupt(Table::Hints, stored(&cluster, 2)[1].clone());
    let hints = &cluster.world.hints;
    cluster.state(2, PeerState::Up);
    until("none waits for node 2", || hints.pending() == 3).await;
    assert_eq!((hints.dropped(), hints.suspect_arcs()), (3, arcs(&cluster)));
    assert!(stored(&cluster, 2).is_empty());
    cluster.world.hints.add(NodeId(2), &[value(&position("later"), -10, "v")]);
    until("it is delivered", || hints.pending() == 3).await;
    assert!(cluster.held(2, &position("later")).await.is_some());
    cluster.state(3, PeerState::Up);
    until("those of node 3 are delivered", || hints.pending() == 0).await;
    assert_eq!(hints.replayed(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_log_of_hints_that_cannot_be_read_is_opened_without() {
    // In the midst of a target's, before all others, and of all.
    for (damaged, kept) in [
        (vec![(2, 1)], vec![3]),
        (vec![(2, 0)], vec![3]),
        (vec![(3, 2)], vec![2]),
        (vec![(2, 2), (3, 0)], vec![]),
    ] {
        let cluster = Cluster::new(3);
        let stopper = run(&cluster);
        hinted(&cluster).await;
        stopper.stop();
        for (target, at) in damaged {
            cluster.world.disk.corrupt(Table::Hints, stored(&cluster, target)[at].clone());
        }
        let open = || {
            let (disk, ring) = (cluster.world.disk.open(), cluster.world.ring.clone());
            Arc::new(Hints::open(disk, ring, Offload::Inline, HintSettings::default()).unwrap())
        };
        let (hints, (stopper, stopped)) = (open(), stop());
        tokio::spawn(Arc::clone(&hints).run(
            Cluster::wire(&cluster.world),
            Arc::clone(&cluster.world.liveness),
            stopped,
        ));
        until("the damaged ones are given up", || hints.suspect_arcs() == arcs(&cluster)).await;
        assert_eq!(hints.pending(), 3 * kept.len() as u64);
        stopper.stop();
        sleep(Duration::from_secs(1)).await;
        let hints = open();
        assert_eq!((hints.pending(), hints.suspect_arcs()), (3 * kept.len() as u64, arcs(&cluster)));
        assert!(kept.iter().all(|target| stored(&cluster, *target).len() == 3));
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_that_is_none_is_dropped_and_all_arcs_are_suspect() {
    let cluster = Cluster::new(3);
    let _stopper = run(&cluster);
    hinted(&cluster).await;
    let mut batch = Batch::default();
    batch.put(Table::Hints, stored(&cluster, 2)[1].clone(), vec![77]);
    cluster.world.disk.open().commit(batch).unwrap();
    cluster.state(2, PeerState::Up);
    until("none waits for node 2", || cluster.world.hints.pending() <= 3).await;
    assert_eq!(cluster.world.hints.suspect_arcs(), arcs(&cluster));
    assert!(cluster.held(2, &position("k0")).await.is_some());
}
