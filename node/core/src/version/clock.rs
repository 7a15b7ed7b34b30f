//! The node's clock: stamps within a durable promise, refuses versions from too far ahead.

use super::MAX_AHEAD_MS;
use crate::{
    engine::{Batch, Engine, EngineError, Table},
    seam::{Offload, Wall},
};
use god_proto::{ids::NodeId, version::Version};
use god_rules::version::Hlc;
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Mutex as AsyncMutex, time};

/// How far the durable mark leads the clock. Below [`MAX_AHEAD_MS`]: a node that starts again at its mark is still
/// believed by the others.
const LEAD_MS: u64 = 400;
/// With less than this left, the mark is moved on in the background.
const REFILL_MS: u64 = 200;
/// Where the mark is kept in [`Table::System`].
const MARK_KEY: &[u8] = b"clock/mark";
/// How long a write may wait for the mark to become durable.
const MARK_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the clock does not do as asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClockError {
    /// Somebody's clock is too far ahead.
    #[error(
        "a version is {ahead_ms} ms ahead of this node's clock, and {MAX_AHEAD_MS} ms is the most; \
         check the clocks of this node and of node {node}"
    )]
    TooFarAhead {
        /// How far.
        ahead_ms: u64,
        /// Whose stamp it is.
        node: NodeId,
    },
    /// The node has no number yet, so its stamps would not be its own.
    #[error("this node has not joined a cluster; it cannot write")]
    NoNumber,
    /// The mark cannot be made durable.
    #[error("the clock's mark cannot be written: {0}")]
    Mark(String),
    /// The wall is behind what was promised before a restart by more than others would accept.
    #[error(
        "this node's clock is {0} ms behind what it stamped before; set the clock, or wait until it has caught up"
    )]
    Behind(u64),
}

struct State {
    hlc: Hlc,
    /// Nothing above is stamped: up to here the promise is on disk.
    durable_ms: u64,
}

/// Stamps versions. Shared by all rooms; a lock that is held for some nanoseconds.
pub struct Clock {
    wall: Arc<dyn Wall>,
    engine: Arc<dyn Engine>,
    offload: Offload,
    node: AtomicU32,
    state: Mutex<State>,
    /// One extension of the mark at a time.
    extending: Arc<AsyncMutex<()>>,
    extensions: AtomicU64,
}

impl Clock {
    /// Starts above what was promised before: reads the mark. Blocks on the disk.
    pub fn open(
        engine: Arc<dyn Engine>,
        wall: Arc<dyn Wall>,
        offload: Offload,
    ) -> Result<Clock, EngineError> {
        let mark_ms = match engine.get(Table::System, MARK_KEY)? {
            None => 0,
            Some(bytes) => match bytes.first_chunk::<8>() {
                Some(mark) if bytes.len() == 8 => u64::from_be_bytes(*mark),
                _ => {
                    return Err(EngineError::Corrupt(format!(
                        "the clock's mark has {} bytes, not 8",
                        bytes.len()
                    )));
                }
            },
        };
        Ok(Clock {
            wall,
            engine,
            offload,
            node: AtomicU32::new(0),
            state: Mutex::new(State { hlc: Hlc::past(mark_ms), durable_ms: mark_ms }),
            extending: Arc::default(),
            extensions: AtomicU64::new(0),
        })
    }

    /// Says whose stamps they are. Once, after joining.
    pub fn set_node(&self, node: NodeId) {
        self.node.store(node.0, Ordering::Relaxed);
    }

    /// Milliseconds on the wall.
    pub fn now_ms(&self) -> u64 {
        self.wall.now_ms()
    }

    /// Stamps `count` versions, each above all that this node stamped or observed before (CLOCK-NEVER-BACK,
    /// VERSION-UNIQUE). Waits only where the durable mark must be moved first.
    pub async fn stamp(self: &Arc<Self>, count: usize) -> Result<Stamps, ClockError> {
        let node = NodeId(self.node.load(Ordering::Relaxed));
        if node.0 == 0 {
            return Err(ClockError::NoNumber);
        }
        loop {
            let wanted_ms = {
                let now_ms = self.wall.now_ms();
                let mut state = self.state.lock();
                let reach_ms = state.hlc.would_reach_ms(now_ms, count as u64);
                if reach_ms > now_ms + MAX_AHEAD_MS {
                    return Err(ClockError::Behind(reach_ms - now_ms));
                }
                if reach_ms < state.durable_ms {
                    let first = state.hlc.stamp(now_ms, count as u64);
                    assert!(
                        state.hlc.last_ms() < state.durable_ms,
                        "CLOCK-NEVER-BACK: a stamp passed the mark"
                    );
                    if reach_ms + REFILL_MS > state.durable_ms {
                        self.refill(reach_ms + LEAD_MS);
                    }
                    return Ok(Stamps { next: first, left: count, node });
                }
                reach_ms + LEAD_MS
            };
            match time::timeout(MARK_TIMEOUT, self.extend(wanted_ms)).await {
                Ok(result) => result?,
                Err(_) => return Err(ClockError::Mark(format!("the disk took more than {MARK_TIMEOUT:?}"))),
            }
        }
    }

    /// Moves past a version that was seen elsewhere, unless it is too far ahead.
    pub fn observe(&self, version: Version) -> Result<(), ClockError> {
        self.check(version)?;
        self.state.lock().hlc.observe(version.time);
        Ok(())
    }

    /// Refuses a version from too far ahead of this node's wall (CLOCK-BOUND).
    pub fn check(&self, version: Version) -> Result<(), ClockError> {
        let ahead_ms = version.ms().saturating_sub(self.wall.now_ms());
        if ahead_ms > MAX_AHEAD_MS {
            return Err(ClockError::TooFarAhead { ahead_ms, node: version.node });
        }
        Ok(())
    }

    /// Why this node cannot stamp, if it cannot: its wall is behind what it stamped or saw.
    pub fn trouble(&self) -> Option<ClockError> {
        let behind_ms = self.state.lock().hlc.last_ms().saturating_sub(self.wall.now_ms());
        (behind_ms > MAX_AHEAD_MS).then_some(ClockError::Behind(behind_ms))
    }

    /// How often the mark was written.
    pub fn extensions(&self) -> u64 {
        self.extensions.load(Ordering::Relaxed)
    }

    /// Moves the mark on in the background, unless that is being done.
    fn refill(self: &Arc<Self>, to_ms: u64) {
        if self.extending.try_lock().is_ok() {
            let clock = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(error) = clock.extend(to_ms).await {
                    tracing::warn!(%error, "cannot move the clock's mark on; writes will wait for it");
                }
            });
        }
    }

    async fn extend(&self, to_ms: u64) -> Result<(), ClockError> {
        // The write keeps its turn where nobody waits for it any more: a lower mark must not follow a higher one.
        let turn = Arc::clone(&self.extending).lock_owned().await;
        if self.state.lock().durable_ms >= to_ms {
            return Ok(());
        }
        let engine = Arc::clone(&self.engine);
        let written = self.offload.run(move || {
            let mut batch = Batch::default();
            batch.put(Table::System, MARK_KEY, to_ms.to_be_bytes().to_vec());
            engine.commit(batch).and_then(|()| engine.sync()).map(|()| turn)
        });
        let _turn = written.await.map_err(|error| ClockError::Mark(error.to_string()))?;
        let mut state = self.state.lock();
        state.durable_ms = state.durable_ms.max(to_ms);
        self.extensions.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Versions that were stamped together.
#[derive(Clone, Debug)]
pub struct Stamps {
    next: u64,
    left: usize,
    node: NodeId,
}

impl Iterator for Stamps {
    type Item = Version;

    fn next(&mut self) -> Option<Version> {
        self.left = self.left.checked_sub(1)?;
        let time = self.next;
        self.next += 1;
        Some(Version { time, node: self.node })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::SimulatedDisk;

    struct Set(AtomicU64);

    impl Wall for Set {
        fn now_us(&self) -> u64 {
            self.0.load(Ordering::Relaxed) * 1_000
        }
    }

    fn open(disk: &SimulatedDisk, wall: &Arc<Set>) -> Arc<Clock> {
        let clock = Clock::open(disk.open(), Arc::clone(wall) as Arc<dyn Wall>, Offload::Inline).unwrap();
        clock.set_node(NodeId(1));
        Arc::new(clock)
    }

    async fn stamp(clock: &Arc<Clock>) -> Version {
        clock.stamp(1).await.unwrap().next().unwrap()
    }

    #[tokio::test]
    async fn after_a_crash_of_the_machine_with_its_clock_set_back_stamps_still_grow() {
        let (disk, wall) = (SimulatedDisk::new(), Arc::new(Set(AtomicU64::new(10_000))));
        let mut newest = Version::ZERO;
        for restart in 0..5 {
            let clock = open(&disk, &wall);
            for _ in 0..300 {
                let version = stamp(&clock).await;
                assert!(version > newest, "{version} after {newest}, start {restart}");
                newest = version;
                wall.0.fetch_add(3, Ordering::Relaxed);
            }
            disk.crash_machine(0);
            wall.0.store(newest.ms() - 50, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn a_version_more_than_half_a_second_ahead_is_refused_and_changes_nothing() {
        let (disk, wall) = (SimulatedDisk::new(), Arc::new(Set(AtomicU64::new(10_000))));
        let clock = open(&disk, &wall);
        let ahead = |ms: u64| Version::new(10_000 + ms, 0, NodeId(2));
        assert!(matches!(clock.observe(ahead(501)), Err(ClockError::TooFarAhead { ahead_ms: 501, .. })));
        assert!(stamp(&clock).await < ahead(400));
        clock.observe(ahead(400)).unwrap();
        assert!(stamp(&clock).await > ahead(400));
    }

    #[tokio::test]
    async fn a_wall_set_far_back_stops_the_stamps_and_says_so() {
        let (disk, wall) = (SimulatedDisk::new(), Arc::new(Set(AtomicU64::new(10_000))));
        let clock = open(&disk, &wall);
        stamp(&clock).await;
        wall.0.store(8_000, Ordering::Relaxed);
        assert!(matches!(clock.stamp(1).await, Err(ClockError::Behind(2_000))));
        assert!(clock.trouble().is_some_and(|trouble| trouble.to_string().contains("behind")));
    }

    #[tokio::test]
    async fn a_node_without_a_number_stamps_nothing() {
        let wall = Arc::new(Set(AtomicU64::new(10_000)));
        let clock = Arc::new(Clock::open(SimulatedDisk::new().open(), wall, Offload::Inline).unwrap());
        assert!(matches!(clock.stamp(1).await, Err(ClockError::NoNumber)));
    }

    #[tokio::test]
    async fn stamps_of_one_call_are_distinct_and_grow() {
        let (disk, wall) = (SimulatedDisk::new(), Arc::new(Set(AtomicU64::new(10_000))));
        let clock = open(&disk, &wall);
        let versions: Vec<Version> = clock.stamp(1_000).await.unwrap().collect();
        assert_eq!(versions.len(), 1_000);
        assert!(versions.is_sorted_by(|a, b| a < b));
    }
}
