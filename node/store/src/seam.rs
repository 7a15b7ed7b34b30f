//! What the node takes from the world: wall-clock time, randomness, and threads that may block.
//!
//! Storage ([`crate::engine::Engine`]) and the network ([`crate::peer::Transport`]) are the other two seams.
//! Monotonic time and timers come from tokio, which the simulation pauses and advances by itself. Everything that
//! decides something takes its inputs through these, so that a simulated cluster repeats itself from a seed.

use parking_lot::Mutex;
use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};
use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
    thread,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::oneshot;

/// The clock on the wall. It may step and drift; nothing but versions and expiry depends on it.
pub trait Wall: Send + Sync {
    /// Microseconds since 1970.
    fn now_us(&self) -> u64;

    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64 {
        self.now_us() / 1_000
    }
}

/// The machine's own clock.
#[derive(Debug, Default)]
pub struct SystemWall;

impl Wall for SystemWall {
    fn now_us(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
    }
}

/// Randomness from one seed. Cheap and not for secrets.
#[derive(Debug)]
pub struct Entropy(Mutex<SmallRng>);

impl Entropy {
    /// The same seed gives the same numbers.
    pub fn seeded(seed: u64) -> Entropy {
        Entropy(Mutex::new(SmallRng::seed_from_u64(seed)))
    }

    /// Seeded by the machine.
    pub fn from_machine() -> Entropy {
        Entropy::seeded(rand::random())
    }

    /// A number below `bound`; 0 where `bound` is 0.
    pub fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.0.lock().random_range(0..bound) }
    }

    /// A random (version 4) UUID.
    pub fn uuid(&self) -> uuid::Uuid {
        let mut bytes = [0; 16];
        self.0.lock().fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// A generator of its own, seeded from this one.
    pub fn fork(&self) -> SmallRng {
        SmallRng::from_rng(&mut *self.0.lock())
    }
}

/// Where work that may block on the disk is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// On tokio's blocking threads.
    Threads,
    /// On the spot: for the simulation, whose disk never blocks and whose order must not depend on threads.
    Inline,
}

impl Offload {
    /// Runs `work` and waits for it without blocking the caller's thread (unless inline).
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Offload::Inline => work(),
            Offload::Threads => match tokio::task::spawn_blocking(work).await {
                Ok(value) => value,
                Err(stopped) => match stopped.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The runtime is shutting down: nobody is left to hear an answer.
                    Err(_) => std::future::pending().await,
                },
            },
        }
    }
}

impl Offload {
    /// As [`Offload::run`], on a thread of its own: for the little that a node cannot go on without, such as its
    /// clock's mark. Blocking threads are bounded, and may all be waiting for the disk. Cost: a thread. Callers see to
    /// it that there is one at a time. Where no thread can be had, it is done on the spot.
    pub async fn run_apart<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Offload::Inline => work(),
            Offload::Threads => {
                apart(work, |work| thread::Builder::new().name("apart".to_owned()).spawn(work).map(drop))
                    .await
            }
        }
    }
}

/// What runs on a thread of its own.
type Work = Box<dyn FnOnce() + Send>;

/// Runs `work` on the thread that `start` makes.
async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
    start: impl FnOnce(Work) -> std::io::Result<()>,
) -> T {
    let (done, answered) = oneshot::channel();
    let work = Arc::new(Mutex::new(Some(work)));
    let lent = Arc::clone(&work);
    let lent = move || {
        let work = lent.lock().take();
        drop(work.map(|work| done.send(catch_unwind(AssertUnwindSafe(work)))));
    };
    if let Err(error) = start(Box::new(lent)) {
        // This thread may wait for the disk then, which is better than that all who need this wait for ever.
        tracing::error!(%error, "there is no thread for what must be written; it is written without");
        let work = work.lock().take();
        if let Some(work) = work {
            return work();
        }
    }
    match answered.await {
        Ok(Ok(value)) => value,
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => std::future::pending().await,
    }
}

/// Names this run of the machine: another one follows when it stops and starts again. `None` where that cannot be told.
pub fn run_of_machine() -> Option<uuid::Uuid> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().parse().ok()
}

/// The seams that have no room of their own, together.
#[derive(Clone)]
pub struct Seams {
    /// The clock on the wall.
    pub wall: Arc<dyn Wall>,
    /// Randomness.
    pub entropy: Arc<Entropy>,
    /// Where blocking work is done.
    pub offload: Offload,
}

impl Seams {
    /// The real ones.
    pub fn of_machine() -> Seams {
        Seams {
            wall: Arc::new(SystemWall),
            entropy: Arc::new(Entropy::from_machine()),
            offload: Offload::Threads,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn what_runs_apart_does_not_wait_for_those_who_wait_for_the_disk() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        let (go_on, hangs) = mpsc::channel::<()>();
        let hung = runtime.spawn_blocking(move || hangs.recv());
        let (said, says) = mpsc::channel();
        thread::spawn(move || {
            said.send(runtime.block_on(Offload::Threads.run_apart(|| 7))).unwrap();
            // Not before: its end waits for all blocking threads.
            drop(runtime);
        });
        // Longer than it takes.
        assert_eq!(says.recv_timeout(std::time::Duration::from_secs(20)), Ok(7));
        go_on.send(()).unwrap();
        drop(hung);
    }

    #[test]
    fn what_runs_apart_is_done_and_answered_where_there_is_no_thread() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let none = |_: Work| Err(std::io::Error::from(std::io::ErrorKind::WouldBlock));
        let done = runtime.block_on(async {
            tokio::time::timeout(std::time::Duration::from_secs(9), apart(|| 7, none)).await
        });
        assert_eq!(done, Ok(7));
    }
}
