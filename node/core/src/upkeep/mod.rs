//! What keeps a cluster right without being asked: arcs change hands, copies are made equal, what is misplaced goes
//! where it belongs.
//!
//! - [`Upkeep`]: the loops, and the answers that other nodes need from them.
//! - `pull`: brings this node's copy of a range up to another node's. Everything else is made of it.
//! - `receive`: this node becomes a replica of arcs.
//! - `drive`: takes the steps of operations; one node does so at a time, any one can.
//! - `heard`: who has heard of a ring, and what waits for that.
//! - `blocked`: why they cannot be taken, in words.
//! - `recall`: after a stop of the machine, fetches what this node may have lost.
//! - `clean`: hands over what this node holds and should not, and forgets it.
//! - `sync`: compares replicas, makes them equal, raises floors and purges tombstones.
//! - `losses`: has others do so where this node lost hints of theirs.
//! - `sweep`: puts deletions in the place of records whose time is up.
//! - `migrate`: cuts and joins arcs as they grow and shrink, and asks for a rebalance when nodes grow uneven.
//! - `sizes`: what this node holds of each arc.

mod asked;
mod blocked;
mod clean;
mod drive;
mod heard;
mod lateness;
mod lists;
mod losses;
mod migrate;
mod pace;
mod pull;
mod purges;
mod recall;
mod receive;
mod sizes;
mod sweep;
mod sync;

#[cfg(test)]
mod tests;

pub use drive::Driven;
pub use sizes::gather_sizes;

use crate::{
    consensus::Register,
    engine::EngineError,
    membership::{Liveness, PeerState},
    peer::{Call, CallError, Starts, Target, Transport, failure, no_cluster},
    quorum::{Hints, RingSync},
    radix::{Store, View},
    replica::{Replica, not_all_of_range},
    ring::CurrentRing,
    seam::Seams,
    stop::Stop,
};
use god_proto::{
    ids::NodeId,
    peer::{Cause, Failure, Kept, MovingDone, request, response},
    position::PositionRange,
    ring::Ring,
    version::Version,
};
use metrics::counter;
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep, sleep_until};

/// How upkeep goes about it.
#[derive(Clone, Debug)]
pub struct UpkeepSettings {
    /// Bytes a second that this node takes from others, all together; 0: as many as there are.
    pub transfer_bytes_per_second: u64,
    /// Arcs that change hands at the same time, in the whole cluster; half as many while clients call: each write to
    /// one of them needs a quorum more.
    pub moving_arcs: usize,
    /// Of those, the ones that this node receives at the same time.
    pub receiving_arcs: usize,
    /// Between two comparisons of all arcs with other replicas, when nothing is suspect.
    pub sync_interval: Duration,
    /// Whether replicas are compared at all. Off only where it is to be seen what that is for.
    pub compares: bool,
    /// How old tombstones must be before they are purged. Floors lie so far in the past.
    pub tombstone_age: Duration,
    /// Between two looks at how evenly data lies.
    pub migrate_interval: Duration,
    /// Whether data moves by itself when nodes have grown uneven.
    pub migrates: bool,
    /// Between two looks at which arcs have become too small.
    pub merge_interval: Duration,
    /// How long a voter may be away before another node decides in its place.
    pub vote_after: Duration,
    /// For how long nodes must be uneven before data moves.
    pub cool_off: Duration,
    /// By how much the fullest node must be above its share before data moves.
    pub uneven: f64,
}

impl Default for UpkeepSettings {
    fn default() -> UpkeepSettings {
        UpkeepSettings {
            transfer_bytes_per_second: 0,
            moving_arcs: 8,
            receiving_arcs: 4,
            sync_interval: Duration::from_secs(30),
            compares: true,
            tombstone_age: Duration::from_secs(3_600),
            migrate_interval: Duration::from_secs(2),
            migrates: true,
            merge_interval: Duration::from_secs(60),
            vote_after: Duration::from_secs(10),
            cool_off: Duration::from_secs(3),
            uneven: 1.2,
        }
    }
}

/// What upkeep works on.
pub struct Parts {
    /// This node.
    pub me: NodeId,
    /// The ring it knows.
    pub ring: CurrentRing,
    /// Its data.
    pub store: Arc<Store>,
    /// What admits writes to them.
    pub replica: Arc<Replica>,
    /// Writes for others.
    pub hints: Arc<Hints>,
    /// The way to others.
    pub transport: Arc<dyn Transport>,
    /// What it believes about them.
    pub liveness: Arc<Liveness>,
    /// Which process each of them is.
    pub starts: Arc<Starts>,
    /// Decides rings.
    pub register: Arc<Register>,
    /// Exchanges rings.
    pub keeper: Arc<dyn RingSync>,
    /// Time and chance.
    pub seams: Seams,
    /// How long a change of the ring may take.
    pub change_timeout: Duration,
    /// How long a read may take, whoever coordinates it.
    pub longest_read: Duration,
}

/// The loops. Share it behind an `Arc`; one task does [`Upkeep::run`].
pub struct Upkeep {
    me: NodeId,
    ring: CurrentRing,
    store: Arc<Store>,
    replica: Arc<Replica>,
    hints: Arc<Hints>,
    transport: Arc<dyn Transport>,
    liveness: Arc<Liveness>,
    starts: Arc<Starts>,
    register: Arc<Register>,
    keeper: Arc<dyn RingSync>,
    seams: Seams,
    change_timeout: Duration,
    longest_read: Duration,
    settings: UpkeepSettings,
    pace: pace::Pace,
    lateness: lateness::Lateness,
    receiving: receive::Receiving,
    suspects: sync::Suspects,
    heard: heard::Heard,
    misplaced: AtomicU64,
    /// Why what is misplaced stays here, and why the operation that this node drives does not go on.
    kept: blocked::Obstacle<Kept>,
    stuck: blocked::Obstacle<String>,
}

impl Upkeep {
    /// Nothing runs until [`Upkeep::run`].
    pub fn new(parts: Parts, settings: UpkeepSettings) -> Upkeep {
        let Parts { me, ring, store, replica, hints, transport, liveness, starts, register, keeper, .. } =
            parts;
        Upkeep {
            me,
            ring,
            store,
            replica,
            hints,
            transport,
            liveness,
            starts,
            register,
            keeper,
            seams: parts.seams,
            change_timeout: parts.change_timeout,
            longest_read: parts.longest_read,
            pace: pace::Pace::new(settings.transfer_bytes_per_second),
            lateness: lateness::Lateness::default(),
            settings,
            receiving: receive::Receiving::default(),
            suspects: sync::Suspects::default(),
            heard: heard::Heard::default(),
            misplaced: AtomicU64::new(0),
            kept: blocked::Obstacle::default(),
            stuck: blocked::Obstacle::default(),
        }
    }

    /// Runs all loops until it is told to stop.
    pub async fn run(self: Arc<Self>, stop: Stop) {
        let loops = async {
            tokio::join!(
                self.receive(),
                self.drive(),
                self.clean(),
                self.sync(),
                self.ask_about_losses(),
                self.migrate(),
                self.recall(),
                self.sweep()
            );
        };
        // In a task of its own: what these do between two waits would make it late, and is no lateness of others.
        let (watch, stopped) = (Arc::clone(&self), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stopped.stopped() => {}
                () = watch.watch_lateness() => {}
            }
        });
        tokio::select! {
            biased;
            () = stop.stopped() => {}
            () = loops => {}
        }
    }

    /// Notes how late tasks are woken, while clients wait for this node.
    async fn watch_lateness(&self) {
        loop {
            let due = Instant::now() + lateness::TICK;
            sleep_until(due).await;
            self.lateness.note(Instant::now().saturating_duration_since(due), self.replica.loads().calls());
            self.seams.offload.behind_rests(self.lateness.is_waited_for());
        }
    }

    /// How late tasks are woken, while clients wait for this node, in microseconds; else 0.
    pub fn late_us(&self) -> u32 {
        self.lateness.get().as_micros().try_into().unwrap_or(u32::MAX)
    }

    /// How long to give way to clients, after a page that took so long; `late_us` is what the node says that it came
    /// from.
    fn rest_after(&self, took: Duration, late_us: u32) -> Duration {
        lateness::rest(took, self.lateness.get().max(Duration::from_micros(late_us.into())))
    }

    async fn rest(&self, rest: Duration) {
        if !rest.is_zero() {
            counter!("god_upkeep_rests_total").increment(1);
            sleep(rest).await;
        }
    }

    /// Entries that this node stores and should not, as of the last look.
    pub fn misplaced_entries(&self) -> u64 {
        self.misplaced.load(Relaxed)
    }

    /// Bytes a second at which a node takes data over; a guess where that has no bound.
    pub fn transfer_rate(&self) -> u64 {
        match self.settings.transfer_bytes_per_second {
            0 => 64 << 20,
            bound => bound,
        }
    }

    /// Looks at what this node has; `background`: on threads that stand back where others have work.
    async fn look<T: Send + 'static>(
        &self,
        background: bool,
        look: impl FnOnce(&View) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let offload = if background { self.seams.offload.behind() } else { self.seams.offload };
        let store = Arc::clone(&self.store);
        // Not before there is a thread: storage keeps what was overwritten for as long as somebody looks at it.
        offload.run(move || look(&store.view())).await
    }

    /// Answers what other nodes ask of upkeep.
    pub async fn handle(&self, call: Call) -> Result<response::Body, Failure> {
        // THREADS-BOUNDED; how far this node is it says all the same.
        if !matches!(call.body, request::Body::Moving(_)) && self.seams.offload.behind().is_crowded() {
            return Err(failure(Cause::Busy, "too many wait for this node's disk"));
        }
        match call.body {
            request::Body::Pull(ask) => self.pull_for(ask, call.timeout).await,
            request::Body::Suspect(told) => {
                let range = PositionRange::from(told.range.unwrap_or_default());
                if told.answer {
                    return self.level_for(&range, call.timeout).await.map(response::Body::Suspect);
                }
                self.suspect(&range);
                // Nobody waits for this.
                Err(failure(Cause::Invalid, "a suspicion that is told is not answered"))
            }
            request::Body::Moving(_) => {
                let stuck = self.stuck.why().unwrap_or_default();
                Ok(response::Body::Moving(MovingDone { stuck, ..self.receiving.report() }))
            }
            request::Body::Sizes(ask) => self.sizes(ask).await.map(response::Body::Sizes),
            _ => Err(failure(Cause::Invalid, "this is no question about upkeep")),
        }
    }

    /// Somebody else compares a range and finds this node behind.
    async fn pull_for(
        &self,
        ask: god_proto::peer::Pull,
        timeout: Duration,
    ) -> Result<response::Body, Failure> {
        let range = PositionRange::from(ask.range.unwrap_or_default());
        let from = NodeId(ask.from);
        let Some(ring) = self.ring.get() else {
            return Err(no_cluster());
        };
        let mine = |ring: &Ring| {
            let arcs = ring.arcs_in(&range);
            !range.is_empty() && !arcs.is_empty() && arcs.iter().all(|arc| Ring::holds(arc, self.me))
        };
        if !mine(&ring) {
            return Err(not_all_of_range(self.me));
        }
        let arcs = ring.arcs_in(&range).to_vec();
        let still = || self.ring.get().is_some_and(|ring| ring.arcs_in(&range) == arcs);
        // What is being removed here, because it was somebody else's, is gone before it is compared.
        self.replica.drained().await;
        let wanted = pull::PullRequest {
            range: range.clone(),
            from,
            as_stored: ask.as_stored,
            votes: false,
            exact_to: Version::ZERO,
            still: &still,
            done: &|_, _| {},
            is_awaited: true,
            background: !ask.is_awaited,
        };
        let pull = async {
            let pulled = self.pull(&wanted).await?;
            // Whoever hands over forgets what it had.
            if ask.as_stored {
                self.store.sync().await.map_err(|error| pull::PullError::Own(error.to_string()))?;
            }
            Ok::<_, pull::PullError>(pulled)
        };
        match tokio::time::timeout(timeout, pull).await {
            Ok(Ok(pulled)) => Ok(response::Body::Pull(god_proto::peer::PullDone {
                entries: pulled.entries,
                bytes: pulled.bytes,
            })),
            Ok(Err(error)) => Err(failure(Cause::Busy, error.to_string())),
            Err(_) => {
                Err(failure(Cause::Deadline, "the pull did not end in time; it goes on when asked again"))
            }
        }
    }

    /// Asks another node, under this node's ring where the answer depends on it.
    async fn ask_node(
        &self,
        node: NodeId,
        epoch: u64,
        timeout: Duration,
        body: request::Body,
    ) -> Result<response::Body, CallError> {
        self.transport.call(Target::Node(node), Call { epoch, arcs: 0, timeout, body }).await
    }

    /// Another node has the ring of another epoch: it or this one gets the newer one.
    async fn meet(&self, node: NodeId, epoch: u64, ring: &Arc<Ring>) {
        match epoch > ring.epoch().0 {
            true => self.keeper.fetch(Target::Node(node)).await,
            false => self.keeper.push(node, Arc::clone(ring)).await,
        }
    }

    fn is_down(&self, node: NodeId) -> bool {
        node != self.me && self.liveness.state(node) == PeerState::Down
    }

    /// Those of a ring that are not known to be up.
    fn away(&self, ring: &Ring) -> BTreeSet<NodeId> {
        self.liveness.away(ring, |node| node.number == self.me.0)
    }
}
