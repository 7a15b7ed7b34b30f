//! What the node takes from the world: wall-clock time, randomness, and threads that may block.
//!
//! Storage ([`crate::engine::Engine`]) and the network ([`crate::peer::Transport`]) are the other two seams.
//! Monotonic time and timers come from tokio, which the simulation pauses and advances by itself. Everything that
//! decides something takes its inputs through these, so that a simulated cluster repeats itself from a seed.

mod rest;
#[cfg(test)]
mod tests;

use self::rest::Spent;
use metrics::counter;
use parking_lot::Mutex;
use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};
use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{Semaphore, SemaphorePermit, oneshot},
    time::timeout,
};

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

/// The most blocking threads that work for the disk at one time. A runtime should have some more, for what else blocks,
/// such as looking up names: a disk that hangs holds these, and no others.
pub const DISK_THREADS: usize = 256;
/// How many may wait for one of those threads. Who comes then, and answers somebody, is refused ([`Crowded`]).
const MAX_WAITING: usize = 4_096;
/// As [`DISK_THREADS`], beside those, for what no client waits for.
const THREADS_BEHIND: usize = 2;
/// How many of [`DISK_THREADS`] read large values at one time, beside the others: each takes memory and processors as
/// thousands of small ones do.
pub const LARGE_THREADS: usize = 4;
/// How many may wait for one of those to read one value, and for how long: who is refused can mostly ask another
/// replica in time, and what nobody can hold is not read at all.
const LARGE_WAITING: usize = 1_024;
const LARGE_PATIENCE: Duration = Duration::from_secs(1);
/// How nice those threads are: each gets a thirtieth of what another thread beside it (of its control group) does that
/// has work, so that they always go on.
#[cfg(target_os = "linux")]
const NICE: i32 = 15;

/// Where work that may block on the disk is done.
#[derive(Clone, Copy, Debug)]
pub enum Offload {
    /// On tokio's blocking threads, within bounds.
    Threads(&'static Threads),
    /// On the spot: for the simulation, whose disk never blocks and whose order must not depend on threads.
    Inline,
}

/// So many wait for a thread that no more may: the disk is behind. Nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} reads wait for the disk already; try again a little later")]
pub struct Crowded(usize);

/// Threads that may block, and who waits for one (invariant THREADS-BOUNDED).
#[derive(Debug)]
pub struct Threads {
    /// Who waits leaves the queue when it is dropped, as at its deadline.
    free: Semaphore,
    waiting: AtomicUsize,
    most_waiting: usize,
    /// Set where what is done is large: how long others wait for a turn, which lasts until what was done is taken. Else
    /// it ends when it is done.
    patience: Option<Duration>,
    /// Whose threads they are, where not those of whoever asks.
    runtime: Option<Runtime>,
    /// Those that stand back.
    behind: Option<&'static Threads>,
    /// Whether a thread rests after what it did while others wanted its processor.
    rests: AtomicBool,
    /// Those that read large values.
    large: Option<&'static Threads>,
}

impl Threads {
    /// For as long as the process runs: once for a node.
    fn new(count: usize, most_waiting: usize) -> Threads {
        let free = Semaphore::new(count);
        let waiting = AtomicUsize::new(0);
        let rests = AtomicBool::new(false);
        Threads {
            free,
            waiting,
            most_waiting,
            patience: None,
            runtime: None,
            behind: None,
            rests,
            large: None,
        }
    }

    fn leak(self) -> &'static Threads {
        Box::leak(Box::new(self))
    }

    /// Threads that stand back where others have work; `None` where there can be none.
    fn standing_back() -> Option<&'static Threads> {
        let runtime = Builder::new_current_thread()
            .thread_name("behind")
            .enable_time()
            .max_blocking_threads(THREADS_BEHIND)
            // Kept: where the system gives no new one, there is one already.
            .thread_keep_alive(Duration::from_secs(u32::MAX.into()))
            .on_thread_start(stand_back)
            .build();
        match runtime {
            Ok(runtime) => {
                let threads = Threads::new(THREADS_BEHIND, MAX_WAITING);
                Some(Threads { runtime: Some(runtime), ..threads }.leak())
            }
            Err(error) => {
                tracing::warn!(%error, "there are no threads that stand back: upkeep takes those of clients");
                None
            }
        }
    }

    /// The right to a thread; `None` never, as nobody closes the queue.
    async fn turn(&'static self) -> Option<SemaphorePermit<'static>> {
        if let Ok(permit) = self.free.try_acquire() {
            return Some(permit);
        }
        if self.runtime.is_none() {
            counter!("god_engine_offload_waits_total").increment(1);
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiter = Waiter(&self.waiting);
        self.free.acquire().await.ok()
    }

    /// Refuses where no thread is free and too many wait. Approximate by as many as ask at the same moment.
    fn admit(&self) -> Result<(), Crowded> {
        let waiting = self.waiting.load(Ordering::Relaxed);
        if self.free.available_permits() > 0 || waiting < self.most_waiting {
            return Ok(());
        }
        Err(self.crowded())
    }

    fn crowded(&self) -> Crowded {
        counter!("god_engine_offload_refused_total").increment(1);
        Crowded(self.waiting.load(Ordering::Relaxed))
    }
}

/// Lets all others of this machine go first.
fn stand_back() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{getpriority_process, setpriority_process};
        let done = getpriority_process(None).and_then(|now| setpriority_process(None, now.max(NICE)));
        if let Err(error) = done {
            tracing::debug!(%error, "a thread does not stand back");
        }
    }
}

/// One that waits.
struct Waiter(&'static AtomicUsize);

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Offload {
    /// On threads, with bounds of their own: [`DISK_THREADS`] at work, and 4,096 that wait. Once for a process: what it
    /// takes stays until its end.
    pub fn threads() -> Offload {
        let behind = Threads::standing_back();
        let large =
            Threads { patience: Some(LARGE_PATIENCE), ..Threads::new(LARGE_THREADS, LARGE_WAITING) }.leak();
        let threads = Threads { behind, large: Some(large), ..Threads::new(DISK_THREADS, MAX_WAITING) };
        Offload::Threads(threads.leak())
    }

    /// The same, for what reads a large value: few at a time, and not many more that wait.
    #[must_use]
    pub fn large(self) -> Offload {
        match self {
            Offload::Threads(Threads { large: Some(large), .. }) => Offload::Threads(large),
            here => here,
        }
    }

    /// The same, on threads that stand back where others have work: for what no client waits for, and nobody who holds
    /// what a client waits for.
    #[must_use]
    pub fn behind(self) -> Offload {
        match self {
            Offload::Threads(Threads { behind: Some(behind), .. }) => Offload::Threads(behind),
            here => here,
        }
    }

    /// Whether threads that stand back rest after what they did while others wanted their processor, where the system
    /// says so: however many look for something at a time, they take no more of it together. Standing back alone does
    /// not do it: where there is more work than processors, whoever has one keeps it for a few milliseconds.
    pub fn behind_rests(self, rests: bool) {
        if let Offload::Threads(Threads { behind: Some(behind), .. }) = self {
            behind.rests.store(rests, Ordering::Relaxed);
        }
    }

    /// Waits, for so long at most, until nothing is done on threads that stand back: they end with the process, and an
    /// engine must not be read meanwhile. Blocks.
    pub fn end_behind(self, patience: Duration) {
        let Offload::Threads(Threads { behind: Some(behind), .. }) = self else { return };
        let Some(runtime) = &behind.runtime else { return };
        let all = THREADS_BEHIND as u32;
        let ended =
            runtime.block_on(async { timeout(patience, behind.free.acquire_many(all)).await.is_ok() });
        if !ended {
            tracing::warn!("what was looked for in the background has not ended");
        }
    }

    /// Runs `work` and waits for it without blocking the caller's thread (unless inline). Waits for a thread however
    /// many do: for the node's own loops, of which there are few.
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Offload::Inline => work(),
            Offload::Threads(threads) => threads.blocking(threads.turn().await, work).await,
        }
    }

    /// Whether too many wait for what somebody asks for to be let in.
    pub fn is_crowded(self) -> bool {
        match self {
            Offload::Inline => false,
            Offload::Threads(threads) => threads.admit().is_err(),
        }
    }

    /// As [`Offload::run`], for what somebody asked for, of whom there may be any number: refused where too many wait.
    pub async fn run_if_free<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Crowded> {
        match self {
            Offload::Inline => Ok(work()),
            Offload::Threads(threads) => {
                threads.admit()?;
                let turn = match threads.patience {
                    None => threads.turn().await,
                    Some(patience) => match timeout(patience, threads.turn()).await {
                        Ok(turn) => turn,
                        Err(_) => return Err(threads.crowded()),
                    },
                };
                Ok(threads.blocking(turn, work).await)
            }
        }
    }
}

impl Threads {
    /// Does it on a blocking thread, which is its own until it ends, whether anybody waits for it or not.
    async fn blocking<T: Send + 'static>(
        &self,
        turn: Option<SemaphorePermit<'static>>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        if let Some(runtime) = &self.runtime {
            let rests = self.rests.load(Ordering::Relaxed);
            let rest = Arc::new(OnceLock::new());
            let measured = Arc::clone(&rest);
            // Before the answer is sent: who waits for it may go on at once, in this thread's place.
            let work = move || {
                let before = rests.then(Spent::now);
                let done = work();
                if let Some(before) = before {
                    measured.get_or_init(|| Spent::now().since(before).rest());
                }
                done
            };
            return apart(work, |work| {
                runtime.spawn_blocking(move || {
                    work();
                    if let Some(rest) = rest.get().filter(|rest| !rest.is_zero()) {
                        counter!("god_engine_offload_rests_total").increment(1);
                        thread::sleep(*rest);
                    }
                    drop(turn);
                });
                Ok(())
            })
            .await;
        }
        let until_taken = self.patience.is_some();
        let work = move || {
            let done = work();
            (done, turn.filter(|_| until_taken))
        };
        match tokio::task::spawn_blocking(work).await {
            Ok((value, _turn)) => value,
            Err(stopped) => match stopped.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // The runtime is shutting down: nobody is left to hear an answer.
                Err(_) => std::future::pending().await,
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
            Offload::Threads(_) => {
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
            offload: Offload::threads(),
        }
    }
}
