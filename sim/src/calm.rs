//! Clusters to which nothing happens but what a test does to them.

use crate::{
    client::Clients,
    world::{World, WorldSettings},
};
use god_core::{doors::Service as _, engine::Durability};
use god_proto::v1::{InitRequest, Level};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// Waits until something is so; says how long that took.
///
/// # Errors
///
/// It is not so after `most`.
pub async fn within(most: Duration, mut is_so: impl FnMut() -> bool) -> Result<Duration, String> {
    let began = Instant::now();
    while !is_so() {
        if began.elapsed() > most {
            return Err(format!("it is not so after {most:?}"));
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(began.elapsed())
}

/// A world of so many nodes in which nothing is left out, and nothing is lost.
pub fn settings(nodes: usize) -> WorldSettings {
    WorldSettings {
        nodes,
        durability: Durability::Always,
        gossip: true,
        compares: true,
        careful: true,
        threads: false,
    }
}

/// Starts so many nodes at the same time; the first one founds their cluster.
pub async fn start(seed: u64, nodes: usize) -> Arc<World> {
    start_with(seed, settings(nodes)).await
}

/// The same with other settings.
pub async fn start_with(seed: u64, settings: WorldSettings) -> Arc<World> {
    let world = World::new(seed, settings);
    (0..settings.nodes).for_each(|at| world.start(at));
    if let Some(first) = world.running(0) {
        first.client.init(InitRequest::default()).await;
    }
    world
}

/// Whether all nodes are ready, and their rings are the same and name all of them.
pub fn agree(world: &World) -> bool {
    let rings = (0..world.size()).map(|at| world.running(at)?.node.current_ring().get());
    let Some(rings) = rings.collect::<Option<Vec<_>>>() else { return false };
    world.all_ready().is_ok()
        && rings.iter().all(|ring| ring.nodes().len() == world.size())
        && rings.array_windows().all(|[a, b]| a.epoch() == b.epoch())
}

/// So many nodes that are one cluster, and clients of theirs.
///
/// # Errors
///
/// They are not one after a minute.
pub async fn cluster(seed: u64, nodes: usize) -> Result<Clients, String> {
    let world = start(seed, nodes).await;
    let waits = Arc::clone(&world);
    within(Duration::from_secs(60), || agree(&waits)).await?;
    Ok(Clients::new(world, Level::Quorum))
}
