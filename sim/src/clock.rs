//! Clocks on simulated walls: they run with simulated time, and step and drift when told to.

use god_core::seam::Wall;
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};
use tokio::time::Instant;

/// Where simulated time begins, in microseconds since 1970: a day in 2020.
const BEGINNING_US: u64 = 1_577_836_800_000_000;

/// A node's clock.
pub struct SimulatedWall {
    began: Instant,
    ahead_us: AtomicI64,
    drift_ppm: AtomicI64,
}

impl SimulatedWall {
    /// A clock that is right; `began` is when the simulation began.
    pub fn new(began: Instant) -> Arc<SimulatedWall> {
        Arc::new(SimulatedWall { began, ahead_us: AtomicI64::new(0), drift_ppm: AtomicI64::new(0) })
    }

    /// Sets how far it is ahead (or, below zero, behind) of true time.
    pub fn set_ahead(&self, microseconds: i64) {
        self.ahead_us.store(microseconds, Ordering::Relaxed);
    }

    /// Sets how many microseconds it gains a second.
    pub fn set_drift(&self, ppm: i64) {
        self.drift_ppm.store(ppm, Ordering::Relaxed);
    }
}

impl Wall for SimulatedWall {
    fn now_us(&self) -> u64 {
        let elapsed = self.began.elapsed().as_micros() as i64;
        let drifted = elapsed + elapsed * self.drift_ppm.load(Ordering::Relaxed) / 1_000_000;
        BEGINNING_US.saturating_add_signed(drifted + self.ahead_us.load(Ordering::Relaxed))
    }
}
