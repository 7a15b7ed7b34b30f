//! Replicas that say they wrote what they did not: to see that the checkers notice.

use crate::{network::Forge, world::World};
use god_core::seam::Wall;
use god_proto::{
    peer::{Kind, Verdict, Write, WriteDone, request, response},
    version::Version,
};
use std::sync::Arc;

/// Which writes are acknowledged and thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Values, on two of the nodes.
    Values,
    /// Deletions.
    Deletions,
    /// What comes late: repairs by reads, and hints.
    Repairs,
}

/// What is late: longer than any message of a first round takes in fair weather, in milliseconds.
const LATE_MS: u64 = 60;

/// Tells this lie.
pub fn liar(lie: Lie, world: &Arc<World>) -> Forge {
    let walls: Vec<_> = (0..world.size()).filter_map(|at| world.wall(at)).collect();
    let liars: Vec<String> = (1..3).map(|at| world.address(at)).collect();
    Arc::new(move |to, body| {
        let request::Body::Write(write) = body else { return None };
        let is_thrown_away = match lie {
            Lie::Values => liars.iter().any(|liar| liar == to) && all(write, Kind::Value),
            Lie::Deletions => all(write, Kind::Tombstone),
            Lie::Repairs => {
                let now_ms = walls.iter().map(|wall| wall.now_ms()).min().unwrap_or(0);
                write.entries.iter().all(|entry| {
                    let version: Version = entry.version.unwrap_or_default().into();
                    version.ms() + LATE_MS < now_ms
                })
            }
        };
        is_thrown_away.then(|| {
            let verdicts = vec![Verdict::default(); write.entries.len()];
            response::Body::Write(WriteDone { verdicts })
        })
    })
}

fn all(write: &Write, kind: Kind) -> bool {
    write.entries.iter().all(|entry| entry.kind() == kind)
}
