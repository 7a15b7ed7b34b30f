//! Upkeep of one node, over replicas in memory.
#![allow(clippy::unwrap_used)]

mod arrive;
mod fair;
mod lost;
mod restored;

use super::{
    pull::{PullError, PullRequest, Pulled},
    *,
};
use crate::{
    engine::{SimulatedDisk, Table},
    quorum::HintSettings,
    quorum::tests::world::{
        Cluster, Does, NOW_MS, document, joint, ordered, position, ring, tombstone, value, version,
    },
    replica::Floor,
    seam::{Entropy, Offload},
};
use god_proto::{
    ids::KeyspaceId,
    peer::{ArcSizes, ArcSizesDone},
    position::{Position, PositionRange},
    record::{Entry, Record},
    v1::{self, LeaveWish, Operation, OperationPhase, wish::Wish},
};
use std::{collections::BTreeMap, sync::atomic::AtomicBool};
use tokio::{task::JoinHandle, time::sleep};
use uuid::Uuid;

fn upkeep(cluster: &Cluster, node: u32) -> Arc<Upkeep> {
    let (world, at) = (&cluster.world, cluster.node(node));
    let seams = Seams {
        wall: Arc::clone(&world.wall) as _,
        entropy: Arc::new(Entropy::seeded(1)),
        offload: Offload::Inline,
    };
    let transport = Cluster::wire(world);
    let engine = SimulatedDisk::new().open();
    let register =
        Register::open(Uuid::nil(), engine, at.ring.clone(), Arc::clone(&transport), seams.clone());
    let parts = Parts {
        me: NodeId(node),
        ring: at.ring.clone(),
        store: Arc::clone(&at.store),
        replica: Arc::clone(&at.replica),
        hints: Arc::clone(&world.hints),
        transport,
        liveness: Arc::clone(&world.liveness),
        starts: Arc::default(),
        register: Arc::new(register.unwrap()),
        keeper: Cluster::keeper(world),
        seams,
        change_timeout: Duration::from_secs(5),
        longest_read: Duration::from_secs(5),
    };
    Arc::new(Upkeep::new(parts, UpkeepSettings::default()))
}

/// Begins one of the things that upkeep does for as long as its node runs.
fn begins<F: Future<Output = ()> + Send + 'static>(
    upkeep: &Arc<Upkeep>,
    task: impl FnOnce(Arc<Upkeep>) -> F,
) -> JoinHandle<()> {
    tokio::spawn(task(Arc::clone(upkeep)))
}

/// All that a node stores.
fn everything() -> PositionRange {
    PositionRange { start: Position::default(), end: Position::from_bytes(&[0xff; 8][..]) }
}

async fn pull(upkeep: &Upkeep, from: u32) -> Result<Pulled, PullError> {
    pull_from(upkeep, from, everything(), true).await
}

/// As it hands over, or as a replica of the range.
async fn pull_from(
    upkeep: &Upkeep,
    from: u32,
    range: PositionRange,
    as_stored: bool,
) -> Result<Pulled, PullError> {
    let wanted = PullRequest {
        range,
        from: NodeId(from),
        as_stored,
        votes: false,
        exact_to: Version::ZERO,
        still: &|| true,
        done: &|_, _| {},
        is_awaited: false,
        background: true,
    };
    upkeep.pull(&wanted).await
}

fn damage(cluster: &Cluster, node: u32, at: &Position) {
    cluster.node(node).disk.corrupt(Table::Data, at.clone().into_bytes());
}

/// Positions of `default`, in their order.
fn positions(count: usize) -> Vec<Position> {
    let mut positions: Vec<Position> = (0..count).map(|at| position(&format!("k{at}"))).collect();
    positions.sort();
    positions
}

#[tokio::test(start_paused = true)]
async fn a_pull_is_not_complete_where_what_it_brings_cannot_be_written() {
    let cluster = Cluster::new(3);
    let upkeep = upkeep(&cluster, 1);
    let at = positions(4);
    for at in &at {
        cluster.seed(1, value(at, -50, "old")).await;
    }
    for at in [&at[0], &at[3]] {
        cluster.seed(2, value(at, -10, "new")).await;
    }
    // Beside what cannot be read either, nothing is overwritten.
    damage(&cluster, 1, &at[0]);
    damage(&cluster, 1, &at[1]);
    let pulled = pull(&upkeep, 2).await;
    assert!(matches!(pulled, Err(PullError::Damaged(1))), "{pulled:?}");
    assert_eq!(
        cluster.held(1, &at[3]).await,
        Some(value(&at[3], -10, "new").record),
        "what is beside it is taken"
    );
    // It is once all of it can be.
    cluster.seed(2, value(&at[1], -10, "new")).await;
    assert_eq!(pull(&upkeep, 2).await.unwrap().entries, 2);
    for at in [&at[0], &at[1]] {
        assert_eq!(cluster.held(1, at).await, Some(value(at, -10, "new").record));
    }
}

/// Positions of which node 1 has something old and node 2 something new.
async fn all_newer_at_another(cluster: &Cluster) -> Vec<Position> {
    let at = positions(3_000);
    for at in &at {
        cluster.seed(1, value(at, -50, "old")).await;
        cluster.seed(2, value(at, -10, "new")).await;
    }
    at
}

#[tokio::test(start_paused = true)]
async fn copies_that_differ_all_over_are_listed_in_full_pages() {
    let cluster = Cluster::new(3);
    let upkeep = upkeep(&cluster, 1);
    all_newer_at_another(&cluster).await;
    assert_eq!(pull(&upkeep, 2).await.unwrap().entries, 3_000);
    let pages = cluster.sent("scan");
    assert!(pages <= 12, "{pages} pages of up to 4,096 entries");
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_was_cut_short_goes_on_where_it_was() {
    for has_some in [false, true] {
        let cluster = Cluster::new(3);
        let upkeep = upkeep(&cluster, 1);
        let at = positions(30_000);
        for (place, at) in at.iter().enumerate() {
            cluster.seed(2, value(at, -10, "new")).await;
            if has_some && place % 10 == 0 {
                cluster.seed(1, value(at, -10, "new")).await;
            }
        }
        let is_cut_short = AtomicBool::new(false);
        let wanted = PullRequest {
            range: everything(),
            from: NodeId(2),
            as_stored: true,
            votes: false,
            exact_to: Version::ZERO,
            still: &|| !is_cut_short.load(Relaxed),
            done: &|_, bytes| is_cut_short.store(bytes > 100_000, Relaxed),
            is_awaited: false,
            background: true,
        };
        let first = upkeep.pull(&wanted).await;
        assert!(matches!(first, Err(PullError::Over)), "{has_some}: {first:?}");
        let rest = pull(&upkeep, 2).await.unwrap();
        assert!(rest.entries > 20_000, "{has_some}: {rest:?}");
        // Not what it took before; and what it had is listed together with what it lacks.
        let most = if has_some { rest.bytes * 5 / 4 } else { rest.bytes * 11 / 10 };
        assert!(rest.compared < most, "{has_some}: {rest:?}");
        assert_eq!(pull(&upkeep, 2).await.unwrap().entries, 0);
    }
}

fn expired(at: &Position, bytes: usize) -> Entry {
    let record = Record::value(version(-60_000), vec![7; bytes]);
    Entry { position: at.clone(), record: Record { expires_at_ms: Some(NOW_MS - 30_000), ..record } }
}

/// DAMAGE-APART: what the other one cannot read holds up what shares a leaf's list with it, and nothing before it nor
/// behind it.
#[tokio::test(start_paused = true)]
async fn what_another_node_cannot_read_holds_up_little_beside_it() {
    let cluster = Cluster::new(3);
    let upkeep = upkeep(&cluster, 1);
    let at = all_newer_at_another(&cluster).await;
    damage(&cluster, 2, &at[1_500]);
    let arc = upkeep.ring.get().unwrap().arc_at(&at[0]).unwrap().range.clone();
    let pulled = pull_from(&upkeep, 2, arc, false).await;
    assert!(matches!(pulled, Err(PullError::Unreadable(NodeId(2), _))), "{pulled:?}");
    let mut left = 0;
    for (n, at) in at.iter().enumerate() {
        if cluster.held(1, at).await != Some(value(at, -10, "new").record) {
            assert!(n.abs_diff(1_500) < 200, "{n} was not taken");
            left += 1;
        }
    }
    assert!(left <= 64, "{left} were not taken");
}

#[tokio::test(start_paused = true)]
async fn a_sweep_goes_on_under_another_ring() {
    let cluster = Cluster::new(3);
    let upkeep = upkeep(&cluster, 1);
    let (first, last) = (position("k"), ordered("k"));
    // Of which the sweep rests for an eighth of a second.
    cluster.seed(1, expired(&first, 1 << 20)).await;
    cluster.seed(1, expired(&last, 9)).await;
    let interval = upkeep.settings.sync_interval;
    let sweeps = begins(&upkeep, |upkeep| async move { upkeep.sweep().await });
    sleep(interval + Duration::from_millis(50)).await;
    assert!(!cluster.held(1, &first).await.unwrap().is_live());
    assert!(cluster.held(1, &last).await.unwrap().is_live());
    cluster.node(1).ring.advance(ring(document(3, 6)));
    sleep(Duration::from_millis(200)).await;
    assert!(!cluster.held(1, &last).await.unwrap().is_live());
    sweeps.abort();
}

/// PAGE-EPOCH. While a cluster changes there is a new ring every few milliseconds, and a page takes longer.
#[tokio::test(start_paused = true)]
async fn a_page_is_listed_anew_only_where_its_arc_has_changed_meanwhile() {
    for changes in [false, true] {
        let cluster = Cluster::new(3);
        let upkeep = upkeep(&cluster, 1);
        let at = positions(4);
        cluster.seed(2, value(&at[1], -10, "new")).await;
        let arc = upkeep.ring.get().unwrap().arc_at(&at[0]).unwrap().clone();
        cluster.slow(2, 100);
        let advances = async {
            for epoch in 6..9 {
                sleep(Duration::from_millis(70)).await;
                let mut next = document(3, epoch);
                for (number, other) in next.arcs.iter_mut().enumerate() {
                    other.changed = if changes || number > 0 { epoch } else { 5 };
                }
                let next = ring(next);
                for node in 1..=3 {
                    cluster.node(node).ring.advance(Arc::clone(&next));
                }
            }
        };
        let (pulled, ()) = tokio::join!(pull_from(&upkeep, 2, arc.range, false), advances);
        assert_eq!(pulled.unwrap().entries, 1);
        assert_eq!(cluster.held(1, &at[1]).await, Some(value(&at[1], -10, "new").record));
        assert_eq!(cluster.sent("scan") > 1, changes, "{} pages", cluster.sent("scan"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_expired_behind_a_damaged_record_is_ended() {
    let cluster = Cluster::new(3);
    let upkeep = upkeep(&cluster, 1);
    let at = positions(3);
    for at in &at {
        cluster.seed(1, expired(at, 9)).await;
    }
    damage(&cluster, 1, &at[1]);
    let sweeps = begins(&upkeep, |upkeep| async move { upkeep.sweep().await });
    sleep(2 * upkeep.settings.sync_interval).await;
    for at in [&at[0], &at[2]] {
        assert!(!cluster.held(1, at).await.unwrap().is_live());
    }
    sweeps.abort();
}

#[tokio::test(start_paused = true)]
async fn tombstones_behind_a_damaged_record_are_purged() {
    let cluster = Cluster::new(3);
    let upkeep = upkeep(&cluster, 1);
    let at = positions(3);
    for at in &at {
        cluster.seed(1, tombstone(at, -50_000)).await;
    }
    damage(&cluster, 1, &at[1]);
    let ring = upkeep.ring.get().unwrap();
    upkeep.purge(&ring.arcs()[0], version(-40_000)).await.unwrap();
    for at in [&at[0], &at[2]] {
        assert_eq!(cluster.held(1, at).await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_deleted_keyspace_nothing_stays_not_even_where_it_is_damaged_or_empty() {
    let mut deleted = document(3, 5);
    deleted.next_keyspace = 5;
    let cluster = Cluster::with(&ring(deleted), HintSettings::default());
    let upkeep = upkeep(&cluster, 1);
    let of = |keyspace: u32| PositionRange {
        start: Position::keyspace_start(KeyspaceId(keyspace)),
        end: Position::keyspace_start(KeyspaceId(keyspace + 1)),
    };
    let floor = Floor { promised: version(-30_000), repaired: version(-30_000) };
    for keyspace in 1..=4 {
        cluster.node(1).replica.floors().raise(&of(keyspace), floor).await.unwrap();
    }
    let at: Vec<Position> = (1..9).map(|hash| Position::of_hash(KeyspaceId(3), hash << 32)).collect();
    for at in &at {
        cluster.seed(1, value(at, -10, "left behind")).await;
    }
    let kept = position("k");
    cluster.seed(1, value(&kept, -10, "kept")).await;
    damage(&cluster, 1, &at[3]);
    let cleans = begins(&upkeep, |upkeep| async move { upkeep.clean().await });
    sleep(Duration::from_secs(5)).await;
    for at in &at {
        assert_eq!(cluster.held(1, at).await, None);
    }
    assert!(cluster.held(1, &kept).await.is_some());
    let floors = cluster.node(1).replica.floors();
    for keyspace in 1..=4 {
        let expected = if keyspace < 3 { floor } else { Floor::default() };
        assert_eq!(floors.lowest(&of(keyspace)), expected, "keyspace {keyspace}");
    }
    // And where nothing was stored of it.
    floors.raise(&of(4), floor).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(floors.lowest(&of(4)), Floor::default());
    cleans.abort();
}

/// It is read for each arc of all nodes before a change of the ring.
#[tokio::test(start_paused = true)]
async fn the_middle_of_an_arc_is_looked_for_where_hashes_do_not_tell_it() {
    let mut cut = document(3, 5);
    for quarter in 1..4u64 {
        let start = Position::of_hash(KeyspaceId(1), quarter << 62).into_bytes();
        cut.arcs.insert(quarter as usize, v1::Arc { id: 4 + quarter, start, ..cut.arcs[0].clone() });
    }
    cut.next_arc = 8;
    let cluster = Cluster::with(&ring(cut), HintSettings::default());
    let upkeep = upkeep(&cluster, 1);
    let mut left = BTreeMap::from([(1, 4), (5, 4), (6, 40), (7, 4)]);
    for at in positions(400) {
        let arc = upkeep.ring.get().unwrap().arc_at(&at).unwrap().id.0;
        if let Some(left) = left.get_mut(&arc).filter(|left| **left > 0) {
            *left -= 1;
            cluster.seed(1, value(&at, -10, "v")).await;
        }
    }
    for key in ["k0", "k1"] {
        cluster.seed(1, value(&ordered(key), -10, "v")).await;
    }
    let done = upkeep.sizes(ArcSizes { middles: true, misplaced_only: false }).await.unwrap();
    let halved: Vec<u64> = done.arcs.iter().filter(|arc| !arc.middle.is_empty()).map(|arc| arc.arc).collect();
    assert_eq!(halved, [6, 2]);
}

const MISPLACED: ArcSizes = ArcSizes { middles: false, misplaced_only: true };

#[tokio::test(start_paused = true)]
async fn who_is_asked_what_is_misplaced_says_that_alone_and_all_of_it() {
    let cluster = Cluster::new(4);
    let upkeep = upkeep(&cluster, 1);
    let at = positions(10);
    for at in &at {
        cluster.seed(1, value(at, -10, "its own")).await;
    }
    let all = upkeep.sizes(ArcSizes::default()).await.unwrap();
    let only = upkeep.sizes(MISPLACED).await.unwrap();
    let arcs = |said: &ArcSizesDone| said.arcs.iter().map(|arc| arc.arc).collect::<Vec<_>>();
    assert_eq!(all.arcs.iter().map(|arc| arc.entries).sum::<u64>(), 10);
    assert_eq!(
        only.arcs.iter().map(|arc| arc.entries).sum::<u64>(),
        0,
        "nothing is counted that nobody asks for"
    );
    assert_eq!(arcs(&only), arcs(&all));
    // Of another ring, by which none of it is its own.
    let mut others = document(4, 6);
    others.arcs.iter_mut().for_each(|arc| arc.replicas = vec![2, 3, 4]);
    cluster.node(1).ring.advance(ring(others));
    for asked in [ArcSizes::default(), MISPLACED] {
        let said = upkeep.sizes(asked).await.unwrap();
        assert_eq!((said.arcs.len(), said.misplaced_entries), (0, 10));
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_says_why_it_keeps_what_it_should_not_hold() {
    let cluster = Cluster::new(4);
    let upkeep = upkeep(&cluster, 4);
    let left = position("k");
    cluster.seed(4, value(&left, -10, "its owners are nodes 1 to 3")).await;
    let cleans = begins(&upkeep, |upkeep| async move { upkeep.clean().await });
    let why = async || {
        sleep(Duration::from_secs(3)).await;
        let said = upkeep.sizes(MISPLACED).await.unwrap();
        said.kept.map(|kept| (kept.owners, kept.error))
    };
    cluster.does(1, Does::Refuse(Cause::DiskFull));
    assert_eq!(why().await, Some((vec![1], "refused: as the test says".to_owned())));
    for node in 1..=3 {
        cluster.does(node, Does::Unreachable);
        cluster.state(node, PeerState::Down);
    }
    let all = "2 of its 3 owners have to take it, and 0 can".to_owned();
    assert_eq!(why().await, Some((vec![1, 2, 3], all)));
    assert!(cluster.held(4, &left).await.is_some(), "OWNERS-FIRST");
    // Once it is in place, nothing is in its way.
    let mut mine = document(4, 6);
    mine.arcs[0].replicas = vec![2, 3, 4];
    cluster.node(4).ring.advance(ring(mine));
    assert_eq!(why().await, None);
    // What has just come into the way may be gone in a moment, and is not told.
    cluster.node(4).ring.advance(ring(document(4, 7)));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(upkeep.sizes(MISPLACED).await.unwrap().kept, None);
    assert_eq!(upkeep.sizes(MISPLACED).await.unwrap().misplaced_entries, 1);
    assert!(why().await.is_some());
    cleans.abort();
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_recalled_is_tried_seldom_and_holds_up_nothing_beside_it() {
    let cluster = Cluster::new(3);
    let upkeep = upkeep(&cluster, 1);
    let at = positions(3);
    for at in &at {
        cluster.seed(1, value(at, -50, "old")).await;
    }
    for node in 2..=3 {
        cluster.seed(node, value(&at[0], -10, "new")).await;
    }
    damage(&cluster, 1, &at[0]);
    damage(&cluster, 1, &at[1]);
    let lapse = Arc::clone(cluster.node(1).replica.lapse());
    // As after a start that could not read all.
    let others = (0..1_100).map(|n| position(&format!("lapsed {n}")));
    let all: Vec<Position> = at.iter().cloned().chain(others).collect();
    lapse.add(&all).await.unwrap();
    assert!(at.iter().all(|at| lapse.holds(at)));
    let recalls = begins(&upkeep, |upkeep| async move { upkeep.recall().await });
    sleep(Duration::from_secs(60)).await;
    assert!(lapse.holds(&at[0]) && !lapse.holds(&at[1]) && !lapse.holds(&at[2]));
    let before = cluster.world.log.lock().len();
    sleep(Duration::from_secs(60)).await;
    let asked = cluster.world.log.lock().len() - before;
    assert!((1..=100).contains(&asked), "{asked} questions in a minute");
    // It is compared soon once it can be.
    for node in 2..=3 {
        cluster.seed(node, value(&at[1], -10, "new")).await;
    }
    sleep(Duration::from_secs(30)).await;
    assert!(lapse.is_whole());
    recalls.abort();
}

#[tokio::test(start_paused = true)]
async fn where_there_is_no_other_replica_nothing_stays_lapsed() {
    let cluster = Cluster::new(1);
    let upkeep = upkeep(&cluster, 1);
    let at = positions(2);
    for at in &at {
        cluster.seed(1, value(at, -50, "old")).await;
    }
    damage(&cluster, 1, &at[0]);
    let lapse = Arc::clone(cluster.node(1).replica.lapse());
    lapse.add(&at).await.unwrap();
    let recalls = begins(&upkeep, |upkeep| async move { upkeep.recall().await });
    sleep(Duration::from_secs(1)).await;
    assert!(lapse.is_whole());
    recalls.abort();
}

#[tokio::test(start_paused = true)]
async fn an_arc_whose_edge_is_damaged_is_made_equal_all_the_same() {
    for damaged_at in 1..=2 {
        let cluster = Cluster::new(3);
        let upkeep = upkeep(&cluster, 1);
        // The arc's neighbour shares a bucket with it.
        let at: Vec<Position> = ["k2", "k3", "k4"].map(ordered).into();
        for node in 1..=3 {
            for at in [&ordered("k1"), &at[0], &at[1]] {
                cluster.seed(node, value(at, -50, "old")).await;
            }
        }
        cluster.seed(3, value(&at[2], -10, "newer there")).await;
        damage(&cluster, damaged_at, &at[0]);
        let ring = cluster.world.ring.get().unwrap();
        let arc = ring.arc_at(&at[0]).unwrap().clone();
        let leveled = upkeep.level(&ring, &arc).await;
        assert!(matches!(leveled, Ok(false)), "nobody knows what that was: {leveled:?}");
        let taken = cluster.held(1, &at[2]).await;
        assert_eq!(taken, Some(value(&at[2], -10, "newer there").record), "damaged at {damaged_at}");
    }
}

/// A position in each half of `default`'s only arc, on all nodes the floor of the first half, and that half.
async fn with_a_floor_of_one_half(
    cluster: &Cluster,
    nodes: impl Iterator<Item = u32>,
) -> ([Position; 2], Floor, PositionRange) {
    let start = Position::keyspace_start(KeyspaceId(1));
    let half = PositionRange { start, end: Position::of_hash(KeyspaceId(1), 1 << 63) };
    let floor = Floor { promised: version(-20_000), repaired: version(-20_000) };
    for node in nodes {
        cluster.node(node).replica.floors().raise(&half, floor).await.unwrap();
    }
    ([1 << 62, 3 << 62].map(|hash| Position::of_hash(KeyspaceId(1), hash)), floor, half)
}

/// Two arcs that became one have a floor each: what holds in one half must not be told by that of the other.
#[tokio::test(start_paused = true)]
async fn a_new_replica_takes_over_the_floors_of_each_part_of_an_arc() {
    let cluster = Cluster::with(&joint(6), HintSettings::default());
    let upkeep = upkeep(&cluster, 4);
    let (at, floor, half) = with_a_floor_of_one_half(&cluster, 1..=3).await;
    // Deleted and purged where the floor is. In the other half nothing was ever purged: whoever has it has it.
    for at in &at {
        cluster.seed(4, value(at, -30_000, "left behind")).await;
    }
    for node in 1..=2 {
        cluster.seed(node, value(&at[1], -25_000, "newer")).await;
    }
    let receives = begins(&upkeep, |upkeep| async move { upkeep.receive().await });
    sleep(Duration::from_secs(5)).await;
    assert!(upkeep.receiving.report().arcs[0].ready);
    let floors = cluster.node(4).replica.floors();
    assert_eq!(floors.lowest(&half), floor);
    assert_eq!(floors.at(&at[1]), Floor::default());
    assert_eq!(cluster.held(4, &at[0]).await, None, "what was deleted and purged elsewhere stays so");
    assert_eq!(cluster.held(4, &at[1]).await, Some(value(&at[1], -25_000, "newer").record));
    receives.abort();
}

#[tokio::test(start_paused = true)]
async fn what_was_purged_in_one_part_of_an_arc_is_not_recalled() {
    let cluster = Cluster::new(3);
    let upkeep = upkeep(&cluster, 1);
    let (at, floor, half) = with_a_floor_of_one_half(&cluster, 2..=3).await;
    for at in &at {
        cluster.seed(1, value(at, -30_000, "here alone")).await;
    }
    cluster.node(1).replica.lapse().add(&at[..1]).await.unwrap();
    let recalls = begins(&upkeep, |upkeep| async move { upkeep.recall().await });
    sleep(Duration::from_secs(5)).await;
    assert!(cluster.node(1).replica.lapse().is_whole());
    assert_eq!(cluster.held(1, &at[0]).await, None, "it was deleted, and the others know it");
    assert!(cluster.held(1, &at[1]).await.is_some(), "the others only lack it");
    assert_eq!(cluster.node(1).replica.floors().lowest(&half), floor);
    recalls.abort();
}

/// Clients wait for the same processors: nobody is asked who is not needed, and nothing counted that is not compared.
#[tokio::test(start_paused = true)]
async fn a_new_replica_copies_from_as_many_as_it_needs_and_from_others_where_those_are_away() {
    for away in [None, Some(1), Some(2), Some(3)] {
        let cluster = Cluster::with(&joint(6), HintSettings::default());
        let upkeep = upkeep(&cluster, 4);
        let at = positions(20);
        for node in 1..=3 {
            for at in &at {
                cluster.seed(node, value(at, -25_000, "there")).await;
            }
        }
        if let Some(away) = away {
            cluster.does(away, Does::Unreachable);
        }
        let receives = begins(&upkeep, |upkeep| async move { upkeep.receive().await });
        sleep(Duration::from_secs(5)).await;
        assert!(upkeep.receiving.report().arcs[0].ready);
        for at in &at {
            assert!(cluster.held(4, at).await.is_some());
        }
        let mut asked: Vec<u32> = cluster.world.log.lock().iter().map(|(node, _)| *node).collect();
        asked.sort_unstable();
        asked.dedup();
        asked.retain(|node| Some(*node) != away);
        assert_eq!(asked.len(), 2, "{away:?}: {asked:?}");
        // One sum is for the progress. From the first of two sources all is copied, the second is compared with.
        assert_eq!((cluster.sent("summarize"), cluster.sent("scan")), (2, 1), "{away:?}");
        receives.abort();
    }
}
