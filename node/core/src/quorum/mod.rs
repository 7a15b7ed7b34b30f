//! The coordinator: carries what clients ask to enough replicas, and says truly what came of it.
//!
//! - [`Coordinator`]: what the doors ask: batches of reads and writes, and questions about order.
//! - [`Hints`]: writes that wait for a replica to come back.
//! - [`RingSync`]: what a coordinator asks of those who keep the ring.
//! - [`AnswerSink`]: who hears of the answers to a batch, as they come.
//! - `admit`: what a call asks for, or why it is refused: pure.
//! - `stages`: which calls of a batch wait for which: pure.
//! - `god_rules::quorum`: when some replicas are enough, what a write came to, whom to ask next.
//! - `poll`: what replicas' answers to a read come to, and what must be written before they are told: pure.
//! - `fit`: what is given up of replicas' words where memory is short.
//! - `merge`: what replicas' pages say together: pure.
//! - `batch`, `write`, `read`, `scan`, `count`, `order`: the effects, thin, over `fan`, which asks replicas.
//! - `refusal`: what a client is told when its request is not done: pure.

mod admit;
mod batch;
mod count;
mod fan;
mod fit;
mod hints;
mod merge;
mod order;
mod poll;
mod read;
mod refusal;
mod scan;
mod settings;
mod sink;
mod stages;
mod sync;
mod withheld;
mod write;

#[cfg(test)]
pub(crate) mod tests;

pub use hints::{HintSettings, Hints};
pub(crate) use refusal::no_memory;
pub use settings::QuorumSettings;
pub use sink::{AnswerSink, Collected};
pub use sync::RingSync;

use crate::{
    membership::Liveness,
    peer::Transport,
    ring::CurrentRing,
    stop::{Stop, Stopper, stop},
    version::Clock,
};
use god_proto::ids::NodeId;
use std::{sync::Arc, time::Duration};
use tokio::{sync::Semaphore, time::timeout};

/// Coordinates clients' requests. Clones are the same coordinator.
#[derive(Clone)]
pub struct Coordinator(Arc<Shared>);

/// What coordinating takes.
struct Shared {
    me: NodeId,
    ring: CurrentRing,
    transport: Arc<dyn Transport>,
    clock: Arc<Clock>,
    liveness: Arc<Liveness>,
    hints: Arc<Hints>,
    sync: Arc<dyn RingSync>,
    settings: QuorumSettings,
    /// Room for writes that go on after their clients were answered, in kibibytes.
    background: Arc<Semaphore>,
    /// A place for each group of writes that is under way, from its first message to its last hint.
    writes: Arc<Semaphore>,
    /// Tells those writes to end.
    closing: (Stopper, Stop),
}

/// More groups of writes than can be under way.
const MAX_WRITES: u32 = 1 << 20;
/// How long the end of a node waits for those whose requests are still being dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The rooms that a coordinator works with.
#[derive(Clone)]
pub struct Parts {
    /// The newest ring.
    pub ring: CurrentRing,
    /// The network.
    pub transport: Arc<dyn Transport>,
    /// Stamps versions.
    pub clock: Arc<Clock>,
    /// Who seems to be there.
    pub liveness: Arc<Liveness>,
    /// Keeps writes for those who are not.
    pub hints: Arc<Hints>,
    /// Keeps the ring.
    pub sync: Arc<dyn RingSync>,
}

impl Coordinator {
    /// A coordinator on the node of this number.
    pub fn new(me: NodeId, parts: Parts, settings: QuorumSettings) -> Coordinator {
        let Parts { ring, transport, clock, liveness, hints, sync } = parts;
        let settings = QuorumSettings { budget: settings.budget.for_clients(), ..settings };
        let background_kib = u32::try_from(settings.background_bytes >> 10).unwrap_or(u32::MAX);
        let background = Arc::new(Semaphore::new(background_kib as usize));
        Coordinator(Arc::new(Shared {
            me,
            ring,
            transport,
            clock,
            liveness,
            hints,
            sync,
            settings,
            background,
            writes: Arc::new(Semaphore::new(MAX_WRITES as usize)),
            closing: stop(),
        }))
    }

    /// Ends the writes that go on after their clients were answered, or left: replicas that have not answered yet get a
    /// hint (invariant NOTHING-OWED-IS-FORGOTTEN). When it returns, hints are on the disk. Once, when no more requests
    /// come.
    pub async fn close(&self) {
        self.0.closing.0.stop();
        // Each gives its place back when its hints are queued, which waits for nothing.
        if timeout(CLOSE_TIMEOUT, self.0.writes.acquire_many(MAX_WRITES)).await.is_err() {
            tracing::warn!(
                "some writes are still under way; what their replicas lack is for comparing to find"
            );
        }
        self.0.hints.flush().await;
    }
}
