//! The node's clock: stamps within a durable promise, refuses versions from too far ahead.

use super::{ClockError, FAR_MS, trust::Trust};
use crate::{
    engine::{Batch, Engine, EngineError, Table},
    seam::{Offload, Wall},
};
use god_proto::{MAX_AHEAD_MS, ids::NodeId, version::Version};
use god_rules::version::{Eras, Hlc, MOST_ERAS};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Mutex as AsyncMutex,
    time::{self, Instant},
};

/// How far the durable mark leads the clock. Below [`MAX_AHEAD_MS`]: a node that starts again at its mark is still
/// believed by the others.
const LEAD_MS: u64 = 400;
/// With less than this left, the mark is moved on in the background.
const REFILL_MS: u64 = 200;
/// Where the mark is kept in [`Table::System`].
const MARK_KEY: &[u8] = b"clock/mark";
/// Where the eras are kept in [`Table::System`].
const ERAS_KEY: &[u8] = b"clock/eras";
/// How long a write waits for a clock that is not compared yet.
const DOUBT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a write may wait for the mark to become durable.
const MARK_TIMEOUT: Duration = Duration::from_secs(5);

/// So long after a record's time is up, no clock that is trusted says otherwise: each is within [`MAX_AHEAD_MS`] of
/// the middle, and a hybrid one no further ahead of its wall.
pub const SURE_MS: u64 = 4 * MAX_AHEAD_MS;

fn check(version: Version, now_ms: u64) -> Result<(), ClockError> {
    match version.ms().saturating_sub(now_ms) {
        0..=MAX_AHEAD_MS => Ok(()),
        ahead_ms => Err(ClockError::TooFarAhead { ahead_ms, node: version.node }),
    }
}

const fn in_ms(us: u64) -> u64 {
    us / 1_000
}

struct State {
    hlc: Hlc,
    /// Nothing above is stamped: up to here the promise is on disk.
    durable_ms: u64,
    /// When this node stamped.
    eras: Eras,
}

/// Stamps versions. Shared by all rooms; a lock that is held for some nanoseconds.
pub struct Clock {
    wall: Arc<dyn Wall>,
    engine: Arc<dyn Engine>,
    offload: Offload,
    node: AtomicU32,
    state: Mutex<State>,
    trust: Trust,
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
        let eras = match engine.get(Table::System, ERAS_KEY)? {
            None => Eras::before(mark_ms.saturating_sub(LEAD_MS), mark_ms),
            Some(bytes) => Eras::decode(&bytes, mark_ms).ok_or_else(|| {
                EngineError::Corrupt(format!(
                    "the clock's eras have {} bytes, no multiple of 16",
                    bytes.len()
                ))
            })?,
        };
        Ok(Clock {
            wall,
            engine,
            offload,
            node: AtomicU32::new(0),
            state: Mutex::new(State { hlc: Hlc::past(mark_ms), durable_ms: mark_ms, eras }),
            trust: Trust::new(),
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

    /// What records' times are judged by: milliseconds on the wall or, where that is later, those of the newest version
    /// that this node stamped or saw.
    pub fn hybrid_ms(&self) -> u64 {
        self.hybrid_at(self.wall.now_ms())
    }

    /// The same, for a time that [`Clock::trusted`] gave.
    pub fn hybrid_at(&self, now_ms: u64) -> u64 {
        let last_ms = self.state.lock().hlc.last_ms();
        // Further ahead is what a wrong clock left.
        if last_ms > now_ms + MAX_AHEAD_MS { now_ms } else { last_ms.max(now_ms) }
    }

    /// The same, where this node's wall may be gone by as it is now; what a client's time begins with.
    pub fn trusted_hybrid_ms(&self) -> Option<u64> {
        self.trusted_ms().map(|now_ms| self.hybrid_at(now_ms))
    }

    /// What was over by this millisecond is over by every clock that is trusted. 0 while this one is not.
    pub fn sure_ms(&self) -> u64 {
        self.trusted_ms().map_or(0, |now_ms| now_ms.saturating_sub(SURE_MS))
    }

    /// From now on somebody compares this clock with the others' and tells [`Clock::judge`]: until that was done, and
    /// after each time that the wall was set, nothing is stamped (invariant CLOCK-TRUSTED).
    pub fn watch(&self) {
        self.trust.watch();
    }

    /// How often the wall was set so far, as far as was looked: before clocks are measured, for [`Clock::judge`].
    pub fn steps(&self) -> u64 {
        self.trust.steps(&*self.wall)
    }

    /// All clocks were measured after so many steps: this one is so many milliseconds ahead of the middle one or, with
    /// an even number of clocks, of the two middle ones, the nearer first. `None`: no other one was measured. `alone`:
    /// there is no other one.
    pub fn judge(&self, steps: u64, ahead_ms: Option<(i64, i64)>, alone: bool) {
        self.trust.judge(&*self.wall, steps, ahead_ms, alone);
    }

    /// Whether this node's wall may be gone by, as far as is known.
    pub fn is_trusted(&self) -> bool {
        self.trusted_ms().is_some()
    }

    /// What the wall shows, in milliseconds since 1970, if it may be gone by.
    fn trusted_ms(&self) -> Option<u64> {
        self.trust.now_us(&*self.wall).map(in_ms)
    }

    /// What the wall shows, in milliseconds since 1970. Waits for a comparison where the wall was set and not compared
    /// since, `patience` and a second at most. Whoever would take in what is stamped asks first.
    pub async fn trusted(&self, patience: Duration) -> Result<u64, ClockError> {
        if let Some(now_ms) = self.trusted_ms() {
            return Ok(now_ms);
        }
        let until = Instant::now() + patience.min(DOUBT_TIMEOUT);
        self.trust.trusted_us(&*self.wall, until).await.map(in_ms)
    }

    /// The highest version, in milliseconds, that may be no wrong clock's; any where this one's own may be wrong.
    pub fn ceiling_ms(&self) -> u64 {
        self.trusted_ms().map_or(u64::MAX, |now_ms| now_ms + FAR_MS)
    }

    /// Stamps `count` versions, each above all that this node stamped or observed before (CLOCK-NEVER-BACK,
    /// VERSION-UNIQUE). Waits only where the durable mark must be moved first.
    pub async fn stamp(self: &Arc<Self>, count: usize) -> Result<Stamps, ClockError> {
        let node = NodeId(self.node.load(Ordering::Relaxed));
        if node.0 == 0 {
            return Err(ClockError::NoNumber);
        }
        loop {
            // Each time: the wall may be set while the mark is written.
            let now_ms = self.trusted(DOUBT_TIMEOUT).await?;
            let wanted_ms = {
                let mut state = self.state.lock();
                state.give_up_far_mark(now_ms);
                let (hlc, first_ms, reach_ms) = state.beyond_eras(now_ms, count as u64);
                if reach_ms > now_ms + MAX_AHEAD_MS {
                    return Err(ClockError::Behind(reach_ms - now_ms));
                }
                state.hlc = hlc;
                state.eras.begin(first_ms);
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
        self.observe_at(version, self.wall.now_ms())
    }

    /// The same, by a time that [`Clock::trusted`] gave.
    pub fn observe_at(&self, version: Version, now_ms: u64) -> Result<(), ClockError> {
        check(version, now_ms)?;
        self.state.lock().hlc.observe(version.time);
        Ok(())
    }

    /// Refuses a version from too far ahead of this node's wall (CLOCK-BOUND).
    pub fn check(&self, version: Version) -> Result<(), ClockError> {
        check(version, self.wall.now_ms())
    }

    /// Why this node cannot stamp, if it cannot: its wall is behind what it stamped or saw.
    pub fn trouble(&self) -> Option<ClockError> {
        if let Some(trouble) = self.trust.trouble(&*self.wall) {
            return Some(trouble);
        }
        let behind_ms = self.state.lock().hlc.last_ms().saturating_sub(self.wall.now_ms());
        // Beyond that it is given up with the next stamp.
        (behind_ms > MAX_AHEAD_MS && behind_ms <= FAR_MS).then_some(ClockError::Behind(behind_ms))
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
        let eras = {
            let state = self.state.lock();
            if state.durable_ms >= to_ms {
                return Ok(());
            }
            state.eras.encode()
        };
        let engine = Arc::clone(&self.engine);
        let written = self.offload.run_apart(move || {
            let mut batch = Batch::default();
            batch.put(Table::System, MARK_KEY, to_ms.to_be_bytes().to_vec());
            batch.put(Table::System, ERAS_KEY, eras);
            engine.commit(batch).and_then(|()| engine.sync()).map(|()| turn)
        });
        let _turn = written.await.map_err(|error| ClockError::Mark(error.to_string()))?;
        let mut state = self.state.lock();
        state.durable_ms = state.durable_ms.max(to_ms);
        self.extensions.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl State {
    /// The mark of a clock that was far ahead is no promise to wait for: what was stamped up to it is an era, in which
    /// nothing is stamped again (VERSION-UNIQUE), and stamps go on with the wall.
    fn give_up_far_mark(&mut self, now_ms: u64) {
        let ahead_ms = self.hlc.last_ms().saturating_sub(now_ms);
        if ahead_ms <= FAR_MS {
            return;
        }
        tracing::warn!(
            ahead_ms,
            "this node stamped by a clock that was ahead; it goes on with the one it has now"
        );
        let end_ms = self.hlc.last_ms().max(self.durable_ms);
        // Where the node just started, the era ended with the one before.
        self.eras.end(end_ms);
        self.hlc = Hlc::past(now_ms);
        self.durable_ms = 0;
    }

    /// A clock beyond the eras that so many stamps would meet, the millisecond that they would begin with, and the one
    /// that they would reach.
    fn beyond_eras(&self, now_ms: u64, count: u64) -> (Hlc, u64, u64) {
        let mut hlc = self.hlc;
        for _ in 0..=MOST_ERAS {
            let (first_ms, reach_ms) = (hlc.would_begin_ms(now_ms), hlc.would_reach_ms(now_ms, count));
            match self.eras.over_in(first_ms, reach_ms) {
                Some(end_ms) => hlc.observe(end_ms << 16 | 0xffff),
                None => return (hlc, first_ms, reach_ms),
            }
        }
        // Eras that no clock of ours made: as if it were for ever.
        (hlc, u64::MAX, u64::MAX)
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
        open_by(disk, Arc::clone(wall) as Arc<dyn Wall>)
    }

    fn open_by(disk: &SimulatedDisk, wall: Arc<dyn Wall>) -> Arc<Clock> {
        let clock = Clock::open(disk.open(), wall, Offload::Inline).unwrap();
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

    /// A wall that is set ahead by an hour after so many looks.
    struct SetLater(AtomicU64);

    impl Wall for SetLater {
        fn now_us(&self) -> u64 {
            let before = self.0.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            (10_000 + if before.is_ok() { 0 } else { HOUR_MS }) * 1_000
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_judged_by_the_wall_is_judged_by_the_look_that_was_trusted() {
        for looks in 0..6 {
            let wall = Arc::new(SetLater(AtomicU64::new(u64::MAX)));
            let disk = SimulatedDisk::new();
            let clock =
                Clock::open(disk.open(), Arc::clone(&wall) as Arc<dyn Wall>, Offload::Inline).unwrap();
            let clock = Arc::new(clock);
            clock.set_node(NodeId(1));
            clock.watch();
            let right = || {
                wall.0.store(u64::MAX, Ordering::Relaxed);
                clock.judge(clock.steps(), Some((0, 0)), false);
                assert!(clock.is_trusted());
                wall.0.store(looks, Ordering::Relaxed);
            };
            right();
            assert!(clock.sure_ms() < 10_000, "after {looks} looks");
            right();
            assert!([10_000 + FAR_MS, u64::MAX].contains(&clock.ceiling_ms()), "after {looks} looks");
            right();
            let judging = clock.trusted(Duration::ZERO).await.map(|ms| clock.hybrid_at(ms) == 10_000);
            assert!(judging.unwrap_or(looks == 0), "after {looks} looks");
            right();
            if let Ok(mut stamps) = clock.stamp(1).await {
                let stamped = stamps.next().unwrap();
                assert!(stamped.ms() < 11_000, "{stamped} after {looks} looks");
            }
        }
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

    const HOUR_MS: u64 = 3_600_000;

    #[tokio::test(start_paused = true)]
    async fn a_wall_that_jumped_stamps_nothing_until_it_was_compared() {
        let (disk, wall) = (SimulatedDisk::new(), Arc::new(Set(AtomicU64::new(10_000))));
        let clock = open(&disk, &wall);
        clock.watch();
        assert!(matches!(clock.stamp(1).await, Err(ClockError::Doubted)), "the node has just started");
        clock.judge(clock.steps(), Some((3, 3)), false);
        let before = stamp(&clock).await;
        time::advance(Duration::from_secs(1)).await;
        wall.0.fetch_add(1_000, Ordering::Relaxed);
        stamp(&clock).await;

        let measured_before = clock.steps();
        wall.0.fetch_add(HOUR_MS, Ordering::Relaxed);
        assert!(!clock.is_trusted());
        clock.judge(measured_before, Some((0, 0)), false);
        assert!(
            matches!(clock.stamp(1).await, Err(ClockError::Doubted)),
            "that was measured before the jump"
        );
        assert!(matches!(clock.trusted(Duration::from_secs(1)).await, Err(ClockError::Doubted)));
        wall.0.fetch_add(1_000, Ordering::Relaxed);
        let hour = HOUR_MS as i64;
        clock.judge(clock.steps(), Some((0, hour)), false);
        assert!(matches!(clock.stamp(1).await, Err(ClockError::Doubted | ClockError::Apart(_))));
        clock.judge(clock.steps(), Some((hour, hour)), false);
        assert!(matches!(clock.stamp(1).await, Err(ClockError::Off(_))));
        assert!(clock.trouble().is_some_and(|trouble| trouble.to_string().contains("ahead of the others'")));

        wall.0.fetch_sub(HOUR_MS, Ordering::Relaxed);
        assert!(matches!(clock.stamp(1).await, Err(ClockError::Doubted)));
        clock.judge(clock.steps(), Some((0, 0)), false);
        let after = stamp(&clock).await;
        assert!(after > before && after.ms() < HOUR_MS, "{after}");
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_clocks_the_one_that_was_not_set_is_believed() {
        let (disk, wall) = (SimulatedDisk::new(), Arc::new(Set(AtomicU64::new(10_000))));
        let clock = open(&disk, &wall);
        clock.watch();
        clock.judge(clock.steps(), Some((0, 10)), false);
        clock.judge(clock.steps(), Some((0, -3_000)), false);
        stamp(&clock).await;
        // One that drifts is off all the same.
        clock.judge(clock.steps(), Some((-600, -3_000)), false);
        assert!(matches!(clock.stamp(1).await, Err(ClockError::Off(-600))));
        clock.watch();
        clock.judge(clock.steps(), Some((0, -3_000)), false);
        assert!(matches!(clock.stamp(1).await, Err(ClockError::Apart(3_000))));
        clock.watch();
        clock.judge(clock.steps(), None, true);
        stamp(&clock).await;
    }

    #[tokio::test]
    async fn the_mark_of_a_clock_that_was_an_hour_ahead_keeps_nobody_from_writing_and_no_version_comes_twice()
    {
        let (disk, wall) = (SimulatedDisk::new(), Arc::new(Set(AtomicU64::new(10_000))));
        let mut seen = std::collections::BTreeSet::new();
        for at_ms in [10_000, HOUR_MS, HOUR_MS + 60_000] {
            wall.0.store(at_ms, Ordering::Relaxed);
            let clock = open(&disk, &wall);
            for _ in 0..50 {
                assert!(seen.insert(stamp(&clock).await));
                wall.0.fetch_add(1, Ordering::Relaxed);
            }
            if at_ms == HOUR_MS {
                // Without a restart as well.
                wall.0.store(20_000, Ordering::Relaxed);
                assert!(seen.insert(stamp(&clock).await));
            }
            disk.crash_machine(0);
        }
        // The clock is right again; then its time comes to what was stamped ahead of it.
        let mut refused = 0;
        for at_ms in [30_000, HOUR_MS - 3, HOUR_MS, HOUR_MS + 1_000, HOUR_MS + 60_010, HOUR_MS + 61_000] {
            wall.0.store(at_ms, Ordering::Relaxed);
            let clock = open(&disk, &wall);
            for _ in 0..50 {
                match clock.stamp(1).await {
                    Ok(stamps) => assert!(stamps.into_iter().all(|version| seen.insert(version))),
                    Err(ClockError::Behind(ms)) => refused += ms.min(1),
                    Err(error) => panic!("{error}"),
                }
                wall.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        assert!(seen.len() as u64 + refused == 451, "{} stamped, {refused} refused", seen.len());
        assert!(refused < 200, "{refused} refused");
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
