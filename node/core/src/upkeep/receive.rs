//! This node becomes a replica of arcs: it copies what the old replicas have, and says when it has enough.
//!
//! Enough (invariant BARRIER): all that one more of the old replicas had than a write may have missed, each asked
//! after every write that it admitted under an older ring was applied. An acknowledged write of before the transition
//! is on one of them at least; one of since then needs a quorum of the new set itself.
//!
//! First of all it takes over the promise of one of them: what that refuses is refused here as well, and before that no
//! write is taken at all (invariant PROMISE-INHERITED). All of them have promised alike whatever a floor was decided
//! on.

use super::{
    Upkeep,
    pull::{PullError, PullRequest, exact_to},
};
use crate::{
    membership::PeerState,
    replica::Floor,
    ring::{given_up, sources_needed},
};
use futures::{StreamExt, stream::FuturesUnordered};
use god_proto::{
    ids::{ArcId, NodeId},
    peer::{self, ArcProgress, MovingDone, Summarize, Summary, request, response},
    position::PositionRange,
    ring::{Ring, RingArc},
    version::Version,
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::Semaphore, time::sleep};

/// How often it is looked for arcs to receive, where the ring has not changed.
const LOOK: Duration = Duration::from_millis(50);
/// How long a session waits after it could not go on.
const PAUSE: Duration = Duration::from_millis(200);

/// The session of an arc's transition.
type Session = (ArcId, u64);

/// How far this node's sessions are.
#[derive(Default)]
pub(super) struct Receiving {
    sessions: Mutex<BTreeMap<Session, Arc<SessionProgress>>>,
    bytes_per_second: AtomicU64,
}

/// How far one session is.
#[derive(Default)]
pub(super) struct SessionProgress {
    entries_done: AtomicU64,
    entries_total: AtomicU64,
    bytes_done: AtomicU64,
    bytes_total: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ready: bool,
    blocked: String,
}

impl Receiving {
    pub(super) fn report(&self) -> MovingDone {
        let sessions = self.sessions.lock();
        let arcs = sessions.iter().map(|((arc, since), progress)| {
            let state = progress.state.lock();
            ArcProgress {
                arc: arc.0,
                since: *since,
                ready: state.ready,
                entries_done: progress.entries_done.load(Relaxed),
                entries_total: progress.entries_total.load(Relaxed),
                bytes_done: progress.bytes_done.load(Relaxed),
                bytes_total: progress.bytes_total.load(Relaxed),
                blocked: state.blocked.clone(),
            }
        });
        let bytes_per_second = self.bytes_per_second.load(Relaxed);
        MovingDone { arcs: arcs.collect(), bytes_per_second, ..MovingDone::default() }
    }
}

impl Upkeep {
    /// Starts a session for each arc that this node is about to hold, and forgets those that are over.
    pub(super) async fn receive(&self) {
        let copying = Semaphore::new(self.settings.receiving_arcs);
        let mut running = FuturesUnordered::new();
        let mut active: BTreeSet<Session> = BTreeSet::new();
        let mut changes = self.ring.changes();
        loop {
            self.receiving.bytes_per_second.store(self.pace.rate(), Relaxed);
            let wanted = self.ring.get().map(|ring| sessions(&ring, self.me)).unwrap_or_default();
            self.receiving.sessions.lock().retain(|session, _| wanted.contains(session));
            for session in wanted {
                if self.is_ready(session) || !active.insert(session) {
                    continue;
                }
                let progress = Arc::clone(self.receiving.sessions.lock().entry(session).or_default());
                let copying = &copying;
                running.push(async move {
                    self.session(session, &progress, copying).await;
                    session
                });
            }
            tokio::select! {
                biased;
                Some(session) = running.next(), if !running.is_empty() => {
                    active.remove(&session);
                }
                _ = changes.changed() => {}
                () = sleep(LOOK) => {}
            }
        }
    }

    fn is_ready(&self, session: Session) -> bool {
        self.receiving.sessions.lock().get(&session).is_some_and(|progress| progress.state.lock().ready)
    }

    /// The arc of a session, while it lasts.
    fn in_session(&self, (arc, since): Session) -> Option<(Arc<Ring>, RingArc)> {
        let ring = self.ring.get()?;
        let found = ring.arc(arc).filter(|arc| arc.next.is_some() && arc.since.0 == since)?.clone();
        Some((ring, found))
    }

    /// Copies one arc, until it is ready or the session is over.
    async fn session(&self, session: Session, progress: &SessionProgress, copying: &Semaphore) {
        // What is being removed here, because it was somebody else's, is gone before anything is compared.
        self.replica.drained().await;
        if self.in_session(session).is_some_and(|(_, arc)| !arc.replicas.contains(&self.me)) {
            self.inherit(session, progress).await;
        }
        let Ok(_turn) = copying.acquire().await else { return };
        while let Some((ring, arc)) = self.in_session(session) {
            let lapse = self.replica.lapse();
            let lapses = lapse.additions();
            // What is lapsed here is none of those that a write is on.
            let stays = arc.replicas.contains(&self.me);
            let own = usize::from(stays && !lapse.meets(&arc.range));
            let needed = sources_needed(&ring, arc.keyspace, &arc.replicas).saturating_sub(own);
            let copied = match self.copy_from_needed(session, (&ring, &arc), needed, progress).await {
                // What the old replicas have on their disks must not be in this one's memory only.
                Ok(()) => self.store.sync().await.map_err(|error| PullError::Own(error.to_string())),
                failed => failed,
            };
            match copied {
                Ok(()) => {
                    // One that stays may hold what was purged elsewhere: it goes on to compare.
                    if !stays {
                        lapse.mend(&arc.range, lapses);
                    }
                    // What was damaged here was overwritten by what one source has, and another one, or this node
                    // itself, may have had a newer one there.
                    if lapse.added_in(&arc.range, lapses) {
                        continue;
                    }
                    *progress.state.lock() = State { ready: true, blocked: String::new() };
                    return;
                }
                Err(PullError::Over) => return,
                Err(error) => {
                    progress.state.lock().blocked = error.to_string();
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Takes over the promise of one of the old replicas, whichever gives it first, or waits until the session is over.
    async fn inherit(&self, session: Session, progress: &SessionProgress) {
        while let Some((ring, arc)) = self.in_session(session) {
            match self.inherit_from(session, &self.by_liveness(&ring, &arc), &arc).await {
                Ok(()) => {
                    progress.state.lock().blocked.clear();
                    let under_way = self.ring.get().map(|ring| sessions(&ring, self.me));
                    self.replica.inherit(session.0, session.1, &under_way.unwrap_or_default());
                    return;
                }
                Err(error) => progress.state.lock().blocked = error.to_string(),
            }
            sleep(LOOK).await;
        }
    }

    /// One that is lapsed may have lost its promise with its data: what it says counts only beside what all others say.
    pub(super) async fn inherit_from(
        &self,
        session: Session,
        olds: &[NodeId],
        arc: &RingArc,
    ) -> Result<(), PullError> {
        let still = || self.in_session(session).is_some();
        let (mut of_lapsed, mut problem) = (Vec::new(), None);
        for from in olds {
            match self.floors_of(*from, &arc.range, &still).await {
                Ok((floors, false)) => return self.take_promises(&floors).await,
                Ok((floors, true)) => of_lapsed.extend(floors),
                Err(error) => problem = Some(error),
            }
        }
        match problem {
            Some(error) => Err(error),
            // Where the data of all are gone, so are their promises.
            None => self.take_promises(&of_lapsed).await,
        }
    }

    /// Promises what other replicas have promised, a part of an arc each.
    pub(super) async fn take_promises(&self, floors: &[(PositionRange, Floor)]) -> Result<(), PullError> {
        let promised = |(part, floor): &(PositionRange, Floor)| {
            (part.clone(), Floor { repaired: Version::ZERO, ..*floor })
        };
        let promised: Vec<_> = floors.iter().map(promised).collect();
        let raised = self.replica.floors().raise_parts(&promised).await;
        raised.map_err(|error| PullError::Own(error.to_string()))
    }

    /// The old replicas of an arc, those first that seem to be up. Of different arcs another one comes first: most of
    /// an arc is copied from one of them, and one alone would answer for all.
    fn by_liveness(&self, ring: &Ring, arc: &RingArc) -> Vec<NodeId> {
        let gone = given_up(ring);
        let others = arc.replicas.iter().copied().filter(|node| *node != self.me && !gone.contains(node));
        let mut olds: Vec<NodeId> = others.collect();
        let first = arc.id.0 % olds.len().max(1) as u64;
        olds.sort_unstable();
        olds.rotate_left(first as usize);
        olds.sort_by_key(|node| self.liveness.state(*node) != PeerState::Up);
        olds
    }

    /// Copies from as many old replicas as are needed, the others where those cannot be copied from; those whose data
    /// are given up are none of them, as [`sources_needed`] does not count them. Once is enough (BARRIER): after the
    /// fence, a source has all that it admitted under older rings, and a copy lacks nothing that its source had when it
    /// began (PULL-COVERS); unless something was found damaged here meanwhile. The progress that is told is that of the
    /// first: most is copied from one replica, and then compared with the others.
    async fn copy_from_needed(
        &self,
        session: Session,
        (ring, arc): (&Ring, &RingArc),
        needed: usize,
        progress: &SessionProgress,
    ) -> Result<(), PullError> {
        let still = || self.in_session(session).is_some();
        let sources = self.by_liveness(ring, arc);
        let (mut complete, mut problems) = (0, Vec::new());
        for from in sources {
            if complete >= needed {
                break;
            }
            match self.copy(from, arc, &still, progress, complete == 0).await {
                Ok(()) => {
                    complete += 1;
                    progress.state.lock().blocked.clear();
                }
                Err(error @ (PullError::Source(..) | PullError::Unreadable(..))) => {
                    problems.push(error.to_string());
                }
                // Nobody else can help with what is wrong here.
                Err(error) => return Err(error),
            }
        }
        if complete >= needed {
            return Ok(());
        }
        if problems.is_empty() {
            problems.push("no other node holds the arc".to_owned());
        }
        Err(PullError::Own(format!(
            "{complete} of {needed} old replicas needed could be copied from ({}): start those that are down; of one \
             whose data are gone say so by `god ring change --leave N --lost`",
            problems.join("; ")
        )))
    }

    async fn copy(
        &self,
        from: NodeId,
        arc: &RingArc,
        still: &(dyn Fn() -> bool + Send + Sync),
        progress: &SessionProgress,
        counts: bool,
    ) -> Result<(), PullError> {
        self.fence(from, still).await?;
        let ask = |body| async move { self.ask(from, still, body).await };
        let (floors, _) = self.floors_of(from, &arc.range, still).await?;
        if counts {
            let total = sum(from, ask(asks_sum(&arc.range)).await?)?;
            progress.entries_total.store(total.entries, Relaxed);
            progress.bytes_total.store(total.bytes, Relaxed);
            progress.entries_done.store(0, Relaxed);
            progress.bytes_done.store(0, Relaxed);
        }
        let done = |entries: u64, bytes: u64| {
            if counts {
                progress.entries_done.fetch_add(entries, Relaxed);
                progress.bytes_done.fetch_add(bytes, Relaxed);
            }
        };
        let stays = arc.replicas.contains(&self.me);
        for (part, floor) in &floors {
            let wanted = PullRequest {
                range: part.clone(),
                from,
                as_stored: false,
                votes: true,
                // A new one takes what comes whatever its age. One that stays may have what the other one lacks.
                exact_to: if stays { Version::ZERO } else { exact_to(floor.repaired) },
                still,
                done: &done,
                is_awaited: false,
                background: true,
            };
            self.pull(&wanted).await?;
        }
        if !stays {
            let raised = self.replica.floors().raise_parts(&floors).await;
            raised.map_err(|error| PullError::Own(error.to_string()))?;
        }
        Ok(())
    }
}

fn asks_sum(range: &PositionRange) -> request::Body {
    let ranges = vec![peer::Range::from(range)];
    request::Body::Summarize(Summarize { ranges, background: true, ..Summarize::default() })
}

fn sum(node: NodeId, answer: response::Body) -> Result<Summary, PullError> {
    match answer {
        response::Body::Summarize(done) => Ok(done.summaries.into_iter().next().unwrap_or_default()),
        _ => Err(PullError::Source(node, "its answer is not that to a comparison".to_owned())),
    }
}

/// The arcs of which a node must copy before their next set takes over.
fn sessions(ring: &Ring, me: NodeId) -> BTreeSet<Session> {
    let arrives = |arc: &&RingArc| arc.copiers().any(|node| node == me);
    ring.arcs().iter().filter(arrives).map(|arc| (arc.id, arc.since.0)).collect()
}
