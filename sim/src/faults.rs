//! What goes wrong, when: drawn from a seed.

use crate::{
    network::Weather,
    world::{Running, World},
};
use god_core::{
    doors::Service as _,
    engine::{EngineError, Pressure},
    seam::Entropy,
};
use god_history::SKEW_US;
use god_proto::{
    ids::NodeId,
    ring::Ring,
    v1::{
        BeginOperationRequest, CancelOperationRequest, JoinWish, LeaveWish, RebalanceWish, ReplaceWish,
        ReplicasWish, ReweightWish, RezoneWish, Wish, wish,
    },
};
use std::{fmt, sync::Arc, time::Duration};
use tokio::time::sleep;

/// One thing that goes wrong. The variants' sentences name their fields.
#[allow(missing_docs)]
#[derive(Clone, Debug)]
pub enum Fault {
    /// A process ends and starts again after so many milliseconds. With a number, its machine goes down with it, and
    /// so many of the batches that were not synced survive.
    Crash { node: usize, keep: Option<usize>, down_ms: u64 },
    /// Two groups of nodes do not reach each other.
    Partition { group: Vec<usize>, ms: u64 },
    /// Nothing passes from one node to another; the way back is open.
    OneWay { from: usize, to: usize, ms: u64 },
    /// A node neither sends nor receives, and loses nothing: its process is stopped, and goes on later.
    Hang { node: usize, ms: u64 },
    /// Messages are lost, slow, or very late.
    Storm { weather: Weather, ms: u64 },
    /// A clock is set.
    Clock { node: usize, ahead_us: i64, drift_ppm: i64, ms: u64 },
    /// A disk has no room.
    FullDisk { node: usize, ms: u64 },
    /// A disk is slow.
    BusyDisk { node: usize, ms: u64 },
    /// A disk fails writes, until its node is started again.
    FailedDisk { node: usize, ms: u64 },
    /// A node is asked to leave, and comes back as another one.
    Leave { node: usize },
    /// A node's disk is lost; a new node takes its place.
    Lost { node: usize },
    /// A node that is up is replaced by another one, which left and came back to wait for that.
    Replace { node: usize, by: usize },
    /// A node is given another weight.
    Reweight { node: usize, tenths: u64 },
    /// A node is moved to another zone.
    Rezone { node: usize, zone: u64 },
    /// What is uneven is made even.
    Rebalance,
    /// A keyspace is to have another number of copies, or other quorums of as many; quorums that meet.
    Replicas { keyspace: u32, replicas: u32 },
    /// The operation under way is undone.
    Cancel,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Crash { node, keep: None, down_ms } => {
                write!(f, "process {} ends for {down_ms} ms", node + 1)
            }
            Fault::Crash { node, keep: Some(keep), down_ms } => {
                write!(
                    f,
                    "machine {} goes down for {down_ms} ms, keeping {keep} batches that were not synced",
                    node + 1
                )
            }
            Fault::Partition { group, ms } => {
                let group: Vec<usize> = group.iter().map(|node| node + 1).collect();
                write!(f, "nodes {group:?} are cut off for {ms} ms")
            }
            Fault::OneWay { from, to, ms } => {
                write!(f, "nothing passes from {} to {} for {ms} ms", from + 1, to + 1)
            }
            Fault::Hang { node, ms } => write!(f, "node {} hangs for {ms} ms", node + 1),
            Fault::Storm { weather, ms } => write!(
                f,
                "for {ms} ms of 1000 messages {} are lost and {} late, others take up to {:?} more",
                weather.lost_per_mille, weather.late_per_mille, weather.jitter
            ),
            Fault::Clock { node, ahead_us, drift_ppm, ms } => {
                write!(f, "clock {} is {ahead_us} µs ahead, gaining {drift_ppm} µs/s, for {ms} ms", node + 1)
            }
            Fault::FullDisk { node, ms } => write!(f, "disk {} is full for {ms} ms", node + 1),
            Fault::BusyDisk { node, ms } => write!(f, "disk {} is busy for {ms} ms", node + 1),
            Fault::FailedDisk { node, ms } => write!(f, "disk {} fails for {ms} ms", node + 1),
            Fault::Leave { node } => write!(f, "node {} is to leave", node + 1),
            Fault::Lost { node } => write!(f, "disk {} is lost, and its node replaced", node + 1),
            Fault::Replace { node, by } => {
                write!(f, "node {} is to leave, come back, and replace node {}", by + 1, node + 1)
            }
            Fault::Rezone { node, zone } => write!(f, "node {} is to be in zone {zone}", node + 1),
            Fault::Reweight { node, tenths } => {
                write!(f, "node {} is to have weight {}", node + 1, *tenths as f64 / 10.0)
            }
            Fault::Rebalance => write!(f, "the cluster is to be made even"),
            Fault::Replicas { keyspace, replicas } => {
                write!(f, "keyspace {keyspace} is to have {replicas} copies")
            }
            Fault::Cancel => write!(f, "what is under way is to be undone"),
        }
    }
}

impl Fault {
    /// A word for its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Fault::Crash { keep: None, .. } => "processes killed",
            Fault::Crash { keep: Some(_), .. } => "machines down",
            Fault::Partition { .. } => "partitions",
            Fault::OneWay { .. } => "one-way cuts",
            Fault::Hang { .. } => "hangs",
            Fault::Storm { .. } => "storms",
            Fault::Clock { .. } => "clocks set",
            Fault::FullDisk { .. } => "full disks",
            Fault::BusyDisk { .. } => "busy disks",
            Fault::FailedDisk { .. } => "failed disks",
            Fault::Leave { .. } => "leaves",
            Fault::Lost { .. } => "lost disks",
            Fault::Replace { .. } => "replaces",
            Fault::Rezone { .. } => "re-zones",
            Fault::Reweight { .. } => "re-weights",
            Fault::Rebalance => "rebalances",
            Fault::Replicas { .. } => "numbers of copies",
            Fault::Cancel => "cancels",
        }
    }
}

/// Which faults a run may draw.
#[derive(Clone, Copy, Debug)]
pub struct FaultSettings {
    /// Machines may go down. Below durability `always` one at a time, but to show what happens if not.
    pub machines: bool,
    /// Clocks may be off by two seconds, and one at a time by an hour, rather than by what the store bears.
    pub wild_clocks: bool,
    /// The ring may be asked to change.
    pub changes: bool,
}

/// Zones that nodes are moved to; each begins in none of them.
const ZONES: u64 = 3;
const HOUR_US: i64 = 3_600_000_000;

/// Draws a fault.
pub fn draw(entropy: &Entropy, nodes: usize, settings: FaultSettings) -> Fault {
    let node = entropy.below(nodes as u64) as usize;
    let ms = 100 + entropy.below(3_000);
    if settings.changes && entropy.below(3) == 0 {
        return match entropy.below(10) {
            0 | 1 => Fault::Leave { node },
            2 => Fault::Replace { node, by: (node + 1 + ms as usize % (nodes - 1)) % nodes },
            3 | 4 => Fault::Lost { node },
            5 => match (5 + entropy.below(16), ms % 2) {
                (tenths, 0) => Fault::Reweight { node, tenths },
                (_, _) => Fault::Rezone { node, zone: ms / 2 % ZONES },
            },
            6 => Fault::Rebalance,
            7 | 8 => Fault::Replicas {
                keyspace: 1 + entropy.below(3) as u32,
                replicas: 2 + entropy.below(nodes as u64 - 1) as u32,
            },
            _ => Fault::Cancel,
        };
    }
    match entropy.below(12) {
        0..3 => {
            let keep = (settings.machines && entropy.below(2) == 0).then(|| entropy.below(20) as usize);
            Fault::Crash { node, keep, down_ms: 20 + entropy.below(3_000) }
        }
        3 | 4 => {
            let group: Vec<usize> = (0..nodes).filter(|_| entropy.below(2) == 0).collect();
            Fault::Partition { group, ms }
        }
        5 => Fault::OneWay {
            from: node,
            to: (node + 1 + entropy.below(nodes as u64 - 1) as usize) % nodes,
            ms,
        },
        6 => Fault::Hang { node, ms },
        7 | 8 => {
            let weather = Weather {
                delay: Duration::from_micros(entropy.below(2_000)),
                jitter: Duration::from_micros(entropy.below(50_000)),
                lost_per_mille: entropy.below(150),
                late_per_mille: entropy.below(50),
            };
            Fault::Storm { weather, ms }
        }
        9 => {
            if settings.wild_clocks && entropy.below(2) == 0 {
                let ahead_us = if entropy.below(3) == 0 { -HOUR_US } else { HOUR_US };
                return Fault::Clock { node, ahead_us, drift_ppm: 0, ms };
            }
            let most: i64 = if settings.wild_clocks { 2_200_000 } else { 200_000 };
            let ahead_us = entropy.below(2 * most as u64) as i64 - most;
            Fault::Clock { node, ahead_us, drift_ppm: entropy.below(400) as i64 - 200, ms }
        }
        10 => match entropy.below(2) {
            0 => Fault::FullDisk { node, ms },
            _ => Fault::BusyDisk { node, ms },
        },
        _ => Fault::FailedDisk { node, ms },
    }
}

/// Lets a fault happen, and mends it when its time is over.
pub async fn happen(world: Arc<World>, fault: Fault) {
    let cut_both = |world: &World, a: usize, b: usize| {
        world.network.cut(&world.address(a), &world.address(b));
        world.network.cut(&world.address(b), &world.address(a));
    };
    match fault {
        Fault::Crash { node, keep, down_ms } => {
            if keep.is_some() && !world.is_synced() && world.is_careful() {
                return stop_machine(&world, node, keep, down_ms).await;
            }
            if world.crash(node, keep) {
                sleep(Duration::from_millis(down_ms)).await;
                world.start(node);
            }
        }
        Fault::Partition { group, ms } => {
            for a in 0..world.size() {
                for b in (0..world.size()).filter(|b| group.contains(&a) != group.contains(b)) {
                    cut_both(&world, a, b);
                }
            }
            sleep(Duration::from_millis(ms)).await;
            world.network.heal();
        }
        Fault::OneWay { from, to, ms } => {
            world.network.cut(&world.address(from), &world.address(to));
            sleep(Duration::from_millis(ms)).await;
            world.network.heal();
        }
        Fault::Hang { node, ms } => {
            world.network.hold(&world.address(node));
            sleep(Duration::from_millis(ms)).await;
            world.network.release(&world.address(node));
        }
        Fault::Storm { weather, ms } => {
            world.network.set_weather(weather);
            sleep(Duration::from_millis(ms)).await;
            world.network.set_weather(Weather::default());
        }
        Fault::Clock { node, ahead_us, drift_ppm, ms } => {
            let Some(wall) = world.wall(node) else { return };
            let (far, wrong) = (ahead_us.abs() == HOUR_US, ahead_us.unsigned_abs() > SKEW_US);
            if wrong && !world.begin_wrong(far) {
                return;
            }
            wall.set_ahead(ahead_us);
            wall.set_drift(drift_ppm);
            sleep(Duration::from_millis(ms)).await;
            wall.set_ahead(0);
            wall.set_drift(0);
            if wrong {
                world.end_wrong(far);
            }
        }
        Fault::FullDisk { node, ms } => {
            // With room for deletions, or without.
            let pressure = if ms % 2 == 0 { Pressure::DiskFull } else { Pressure::DiskSpent };
            pressed(&world, node, pressure("it is full".to_owned()), ms).await
        }
        Fault::BusyDisk { node, ms } => {
            pressed(&world, node, Pressure::Busy(Duration::from_millis(20)), ms).await
        }
        Fault::FailedDisk { node, ms } => {
            let Some(disk) = world.disk(node) else { return };
            disk.fail_writes(Some(EngineError::Failed("the disk does not answer".to_owned())));
            sleep(Duration::from_millis(ms)).await;
            // What failed is not used again before its node has started anew.
            world.crash(node, None);
            disk.fail_writes(None);
            world.start(node);
        }
        Fault::Leave { node } => {
            change(&world, |ring| leave(&world, ring, node)).await;
        }
        Fault::Lost { node } => replace_lost(&world, node).await,
        Fault::Replace { node, by } => replace(&world, node, by).await,
        Fault::Rezone { node, zone } => {
            change(&world, |ring| {
                let node = number(&world, ring, node)?;
                Some(wish::Wish::Rezone(RezoneWish { node, zone: format!("zone-{zone}") }))
            })
            .await;
        }
        Fault::Reweight { node, tenths } => {
            change(&world, |ring| {
                let node = number(&world, ring, node)?;
                Some(wish::Wish::Reweight(ReweightWish { node, weight: tenths as f64 / 10.0 }))
            })
            .await;
        }
        Fault::Replicas { keyspace, replicas } => {
            change(&world, |ring| Some(copies(ring, keyspace, replicas))).await;
        }
        Fault::Rebalance => {
            change(&world, |_| Some(wish::Wish::Rebalance(RebalanceWish {}))).await;
        }
        Fault::Cancel => {
            let Some(id) = world.ring().and_then(|ring| Some(ring.operations().first()?.id.clone())) else {
                return;
            };
            for running in (0..world.size()).filter_map(|at| world.running(at)) {
                let asked = running.client.cancel_operation(CancelOperationRequest { id: id.clone() });
                if tokio::time::timeout(ASKING, asked).await.is_ok_and(|done| done.failed.is_none()) {
                    return;
                }
            }
        }
    }
}

/// How long a node may take to take up an operation.
const ASKING: Duration = Duration::from_secs(6);
/// How often, and how often at most, it is asked again for what replaces a lost node.
const AGAIN: Duration = Duration::from_millis(500);
const MAX_ASKED: usize = 200;

/// The number of the node on a machine.
fn number(world: &World, ring: &Ring, at: usize) -> Option<u32> {
    Some(ring.node_by_uuid(world.uuid(at)?)?.number)
}

/// A node may leave where enough stay.
fn leave(world: &World, ring: &Ring, at: usize) -> Option<wish::Wish> {
    let node = number(world, ring, at)?;
    let most = ring.keyspaces().iter().map(|keyspace| keyspace.replicas as usize).max()?;
    (ring.nodes().len() > most).then_some(wish::Wish::Leave(LeaveWish { node, lost: false }))
}

/// The wish for another number of copies. Who read one of all goes on to do so, the others a majority. Where there are
/// as many copies as that, the other of the two is wished for (QUORUMS-HEARD).
fn copies(ring: &Ring, keyspace: u32, replicas: u32) -> wish::Wish {
    let found = ring.keyspaces().iter().find(|found| found.id == keyspace);
    let one_of_all =
        found.is_some_and(|found| found.write_quorum == found.replicas && found.read_quorum == 1);
    let as_many = found.is_some_and(|found| found.replicas == replicas);
    let one_of_all = one_of_all != as_many;
    let majority = replicas / 2 + 1;
    let (write_quorum, read_quorum) = if one_of_all { (replicas, 1) } else { (majority, majority) };
    wish::Wish::Replicas(ReplicasWish { keyspace, replicas, write_quorum, read_quorum })
}

/// Asks some node for an operation. Whether it was taken up.
async fn change(world: &World, wish: impl Fn(&Ring) -> Option<wish::Wish>) -> bool {
    match world.ring().and_then(|ring| wish(&ring)) {
        Some(wish) => ask(world, String::new(), wish).await,
        None => false,
    }
}

/// Asks some node for an operation of that name. Whether it was taken up.
async fn ask(world: &World, id: String, wish: wish::Wish) -> bool {
    for running in (0..world.size()).filter_map(|at| world.running(at)) {
        let request = BeginOperationRequest { id: id.clone(), wish: Some(Wish { wish: Some(wish.clone()) }) };
        let asked = running.client.begin_operation(request);
        // Another node would refuse it as well, or begin it twice.
        if let Ok(done) = tokio::time::timeout(ASKING, asked).await {
            if let Some(failed) = &done.failed {
                world.trace.note(vec![], format!("it is refused: {}", failed.message));
            }
            return done.failed.is_none();
        }
    }
    false
}

/// A node leaves, comes back to wait, and replaces one that is up. Where nothing came of that, it takes its part as
/// any other.
async fn replace(world: &World, at: usize, by: usize) {
    let Some(left) = world.ring().and_then(|ring| number(world, &ring, by)) else { return };
    world.set_next(by, false);
    let is_asked = change(world, |ring| leave(world, ring, by)).await;
    let is_back = |ring: &Ring| number(world, ring, by).filter(|number| *number != left);
    for _ in 0..MAX_ASKED {
        let Some(ring) = world.ring() else { break };
        // Somebody may have cancelled it.
        let is_over = ring.operations().is_empty() && ring.node(NodeId(left)).is_some();
        if !is_asked || is_over || is_back(&ring).is_some() {
            break;
        }
        sleep(AGAIN).await;
    }
    world.set_next(by, true);
    let Some(ring) = world.ring() else { return };
    let Some(new) = is_back(&ring) else { return };
    let id = format!("replace-by-{new}");
    if let Some(old) = number(world, &ring, at)
        && ask(world, id.clone(), wish::Wish::Replace(ReplaceWish { old, new, lost: false })).await
        && has_taken_place(world, &id).await
    {
        return world.trace.note(vec![], format!("node {new} replaced node {old}"));
    }
    for _ in 0..MAX_ASKED {
        if ask(world, String::new(), wish::Wish::Join(JoinWish { node: new })).await {
            return;
        }
        sleep(AGAIN).await;
    }
}

/// Waits until an operation has ended; whether it did so by itself.
async fn has_taken_place(world: &World, id: &str) -> bool {
    for _ in 0..MAX_ASKED {
        sleep(AGAIN).await;
        let Some(ring) = world.ring() else { continue };
        if let Some(ended) = ring.document().ended.iter().find(|ended| ended.id == id) {
            return !ended.cancelled;
        }
    }
    false
}

/// A disk is lost, and the node that starts on the machine takes the place of the one that was there. Only one at a
/// time, and only where the others have all that was acknowledged, and the ring by which they can decide without it.
async fn replace_lost(world: &Arc<World>, at: usize) {
    let Some(ring) = world.ring() else { return };
    let Some(old) = number(world, &ring, at) else { return };
    let settled = ring.operations().is_empty() && ring.arcs().iter().all(|arc| arc.replicas.len() >= 3);
    let known = (0..world.size()).all(|at| number(world, &ring, at).is_some());
    let decides = |other: &usize| {
        let known = world.running(*other).and_then(|running| running.node.current_ring().get());
        known.is_some_and(|ring| ring.voters().count() >= 3)
    };
    if !settled
        || !known
        || ring.nodes().len() != world.size()
        || ring.voters().count() < 3
        || (0..world.size()).filter(|other| *other != at).filter(decides).count() < 2
        || !world.begin_loss()
    {
        return;
    }
    world.lose(at, false);
    world.start(at);
    let (id, since) = (format!("replace-{old}"), ring.epoch());
    for _ in 0..MAX_ASKED {
        sleep(AGAIN).await;
        // Those that are up may not have heard of it, and so of the node, yet.
        let Some(ring) = world.ring().filter(|ring| ring.epoch() >= since) else { continue };
        if ring.node(NodeId(old)).is_none() {
            break;
        }
        let Some(new) = number(world, &ring, at) else { continue };
        let wish = Wish { wish: Some(wish::Wish::Replace(ReplaceWish { old, new, lost: true })) };
        let known = ring.operations().iter().any(|operation| operation.id.starts_with(&id));
        // One that was cancelled is asked for anew: nobody can do without it.
        let cancelled = ring.document().ended.iter().filter(|ended| ended.id.starts_with(&id)).count();
        if known {
            continue;
        }
        let request = BeginOperationRequest { id: format!("{id}-{cancelled}"), wish: Some(wish) };
        // The new one may have been given some of the same arcs meanwhile: then all others take what is gone.
        let leave = Wish { wish: Some(wish::Wish::Leave(LeaveWish { node: old, lost: true })) };
        let other = BeginOperationRequest { id: format!("{id}-all-{cancelled}"), wish: Some(leave) };
        'asked: for request in [request, other] {
            for running in (0..world.size()).filter_map(|at| world.running(at)) {
                let asked = running.client.begin_operation(request.clone());
                match tokio::time::timeout(ASKING, asked).await.ok().and_then(|done| done.failed) {
                    None => break 'asked,
                    Some(failed) => {
                        world.trace.note(vec![], format!("{} is refused: {}", request.id, failed.message));
                    }
                }
            }
        }
    }
    world.end_loss();
}

/// A machine goes down that loses what it acknowledged last. It takes longer to start than clocks are apart. Only
/// one at a time, and no disk is lost meanwhile: what it lost is on the others until it has compared itself with them.
async fn stop_machine(world: &World, node: usize, keep: Option<usize>, down_ms: u64) {
    // What was acknowledged while there was one node is on that one only.
    let copied = |ring: Arc<Ring>| ring.arcs().iter().all(|arc| arc.replicas.len() > 1);
    if !world.ring().is_some_and(copied) || !world.begin_loss() {
        return;
    }
    if world.crash(node, keep) {
        sleep(Duration::from_millis(3_000 + down_ms)).await;
        world.start(node);
    }
    for _ in 0..MAX_ASKED {
        let whole = |running: Running| {
            let member = running.node.member()?;
            member.replica.lapse().is_whole().then_some(())
        };
        if world.running(node).and_then(whole).is_some() {
            return world.end_loss();
        }
        sleep(AGAIN).await;
    }
}

async fn pressed(world: &World, node: usize, pressure: Pressure, ms: u64) {
    let Some(disk) = world.disk(node) else { return };
    disk.set_pressure(Some(pressure));
    sleep(Duration::from_millis(ms)).await;
    disk.set_pressure(None);
}
