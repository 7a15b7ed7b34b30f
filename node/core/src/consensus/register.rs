//! The ring's register: compare-and-set on the epoch.
//!
//! The document of epoch e + 1 is decided by one Paxos instance among the voters that the document of epoch e names.
//! Since each instance decides once, so does each epoch, and the documents form a chain; voters change by being named.

use super::newest::Confirming;
use crate::{
    engine::{Batch, Engine, EngineError, Table},
    peer::{Call, CallError, Target, Transport, failure},
    ring::{ChangeError, CurrentRing},
    seam::Seams,
};
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use god_proto::{
    answer::NO_CLUSTER,
    ids::{Epoch, NodeId},
    peer::{self, Cause, Failure, PaxosDone, RingDone, request, response},
    ring::Ring,
    v1::RingDocument,
};
use god_rules::{
    paxos::{Acceptor, Ballot, Promise, RoundStep, Rounds, majority, must_propose},
    ring::{is_same_change, stamp_arcs},
};
use metrics::{counter, gauge};
use prost::Message;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::{Instant, sleep, timeout_at},
};
use uuid::Uuid;

const DECIDED_KEY: &[u8] = b"ring/decided";
const ACCEPTOR_KEY: &[u8] = b"ring/acceptor";
/// How far a ring may be ahead of the one that is known. What a node missed in years fits, and one word too many leaves
/// room for all epochs to come.
const MAX_AHEAD: u64 = 1 << 40;
/// How long one voter is waited for.
pub(super) const VOTER_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// Why the ring did not change.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The wish was refused.
    #[error(transparent)]
    Refused(#[from] ChangeError),
    /// There is no ring yet.
    #[error("{NO_CLUSTER}")]
    NoRing,
    /// There is a ring already.
    #[error("this node is in cluster {0} already")]
    Founded(Uuid),
    /// Too few voters answered; nothing was decided by this call.
    #[error("too few of the ring's voters {voters:?} are reachable to change it")]
    NoQuorum {
        /// Numbers of the voters.
        voters: Vec<u32>,
    },
    /// A voter may have accepted the change; it may be decided yet.
    #[error(
        "the change may or may not take place: too few of the ring's voters answered; look at the ring again"
    )]
    Unknown,
    /// This node's changes before this one have not ended; this one was not begun.
    #[error("changes of the ring that this node was asked for before have not ended; try again")]
    Busy,
    /// The disk failed.
    #[error(transparent)]
    Storage(#[from] EngineError),
}

/// What is kept for the instance that decides the epoch after the current one.
#[derive(Default)]
struct Instance {
    epoch: u64,
    acceptor: Acceptor<RingDocument>,
}

/// A target that is being asked for its ring.
#[derive(Default)]
struct Fetching {
    turn: Mutex<()>,
    /// How often it was asked to the end.
    ended: AtomicU64,
}

/// A node's part in the register: acceptor, proposer and learner.
pub struct Register {
    pub(super) me: Uuid,
    engine: Arc<dyn Engine>,
    pub(super) current: CurrentRing,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) seams: Seams,
    /// Whoever writes votes or rings to the disk takes the lock with it: a call that is cancelled must not let the next
    /// write overtake its own.
    instance: Arc<Mutex<Instance>>,
    /// Held by the one change that this node proposes: two would only outbid one another.
    proposing: Mutex<()>,
    /// Targets that are being asked for a newer ring.
    fetching: parking_lot::Mutex<BTreeMap<Target, Arc<Fetching>>>,
    pub(super) confirming: Confirming,
}

impl Register {
    /// Reads what was kept, and shows the newest ring known in `current`. Blocks on the disk.
    pub fn open(
        me: Uuid,
        engine: Arc<dyn Engine>,
        current: CurrentRing,
        transport: Arc<dyn Transport>,
        seams: Seams,
    ) -> Result<Register, EngineError> {
        if let Some(bytes) = engine.get(Table::System, DECIDED_KEY)? {
            let document = RingDocument::decode(bytes).map_err(|error| corrupt("ring", &error))?;
            let ring = Ring::new(document).map_err(|error| corrupt("ring", &error))?;
            current.advance(Arc::new(ring));
        }
        let instance = match engine.get(Table::System, ACCEPTOR_KEY)? {
            None => Instance::default(),
            Some(bytes) => {
                let kept = PaxosDone::decode(bytes).map_err(|error| corrupt("promise", &error))?;
                let epoch = kept.decided.as_ref().map_or(0, |document| document.epoch);
                let accepted = kept.accepted.zip(kept.ring).map(|(at, value)| (ballot(at), value));
                let promised = kept.promised.map(ballot).unwrap_or_default();
                Instance { epoch, acceptor: Acceptor::restore(promised, accepted) }
            }
        };
        Ok(Register {
            me,
            engine,
            current,
            transport,
            seams,
            instance: Arc::new(Mutex::new(instance)),
            proposing: Mutex::default(),
            fetching: parking_lot::Mutex::default(),
            confirming: Confirming::default(),
        })
    }

    /// Decides epoch 1 alone: the founder is its only voter.
    pub async fn found(&self, ring: Ring) -> Result<Arc<Ring>, RegisterError> {
        let guard = Arc::clone(&self.instance).lock_owned().await;
        if let Some(ring) = self.current.get() {
            return Err(RegisterError::Founded(ring.cluster()));
        }
        let ring = Arc::new(ring);
        let guard = self.keep_decided(guard, &ring).await?;
        self.current.advance(Arc::clone(&ring));
        drop(guard);
        Ok(ring)
    }

    /// Changes the ring: `edit` makes the next one from the newest, or `None` where nothing is left to do. It is
    /// called again whenever somebody else's change came first. Ends by `timeout`.
    pub async fn change(
        &self,
        timeout: Duration,
        edit: impl Fn(&Ring) -> Result<Option<Ring>, ChangeError>,
    ) -> Result<Arc<Ring>, RegisterError> {
        let deadline = Instant::now() + timeout;
        let _turn = timeout_at(deadline, self.proposing.lock()).await.map_err(|_| RegisterError::Busy)?;
        let asked = AtomicBool::new(false);
        match timeout_at(deadline, self.change_in_turn(deadline, edit, &asked)).await {
            Ok(changed) => changed,
            // Cut in the middle of an attempt: what voters were asked to accept may be decided by whoever finishes it.
            Err(_) if asked.load(Relaxed) => Err(RegisterError::Unknown),
            Err(_) => Err(self.no_quorum()),
        }
    }

    pub(super) fn no_quorum(&self) -> RegisterError {
        let voters = self.current.get().map_or_else(Vec::new, |ring| ring.document().voters.clone());
        RegisterError::NoQuorum { voters }
    }

    /// The same while no other change of this node is under way. `asked` is set once voters are asked to accept one.
    async fn change_in_turn(
        &self,
        deadline: Instant,
        edit: impl Fn(&Ring) -> Result<Option<Ring>, ChangeError>,
        asked: &AtomicBool,
    ) -> Result<Arc<Ring>, RegisterError> {
        let mut open: Vec<RingDocument> = Vec::new();
        let mut rounds: Option<(Epoch, Rounds)> = None;
        let mut pause = Duration::from_millis(4);
        loop {
            let ring = self.current.get().ok_or(RegisterError::NoRing)?;
            // A change of ours that was decided after all, by whoever finished it.
            if open.iter().any(|document| is_same_change(document, ring.document())) {
                return Ok(ring);
            }
            // Another one was decided in the place of this one.
            open.retain(|document| document.epoch != ring.epoch().0);
            let refused = |error: ChangeError| match open.is_empty() {
                true => RegisterError::Refused(error),
                false => RegisterError::Unknown,
            };
            let next = match edit(&ring) {
                Ok(Some(next)) => stamp_arcs(&ring, &next).map_err(|error| refused(error.into()))?,
                Ok(None) => return Ok(ring),
                Err(error) => return Err(refused(error)),
            };
            if let Err(error) = self.voters_answer(&ring, &next).await {
                // Who is silent answers the next time, or is known by then not to.
                if Instant::now() + VOTER_TIMEOUT + pause >= deadline {
                    return Err(refused(error));
                }
                self.pause(&mut pause, MAX_PAUSE).await;
                continue;
            }
            let proposed = next.document().clone();
            let known = match rounds.take() {
                Some((epoch, known)) if epoch == ring.epoch() => known,
                // Above what this node promised: what others of its attempts used, at least where it has a vote.
                _ => Rounds::new(ring.voters().count(), self.promised(&ring).await),
            };
            let (_, known) = rounds.insert((ring.epoch(), known));
            match self.propose(&ring, proposed.clone(), known, asked).await? {
                Proposal::Decided(decided) => {
                    let is_ours = is_same_change(decided.document(), &proposed);
                    self.learn(Arc::clone(&decided)).await?;
                    self.announce(&ring, &decided);
                    if is_ours {
                        return Ok(decided);
                    }
                    continue;
                }
                Proposal::Open => open.push(proposed),
                Proposal::Lost => {}
            }
            counter!("god_consensus_retries_total").increment(1);
            if Instant::now() >= deadline {
                return Err(if open.is_empty() { self.no_quorum() } else { RegisterError::Unknown });
            }
            self.pause(&mut pause, MAX_PAUSE).await;
        }
    }

    /// A random pause, so that two who contend do not do so for ever, and the next one twice as long, up to a bound.
    pub(super) async fn pause(&self, pause: &mut Duration, longest: Duration) {
        let drawn = self.seams.entropy.below(pause.as_micros() as u64);
        sleep(*pause / 2 + Duration::from_micros(drawn)).await;
        *pause = (*pause * 2).min(longest);
    }

    /// One attempt at the instance after `ring`.
    async fn propose(
        &self,
        ring: &Arc<Ring>,
        own: RingDocument,
        rounds: &mut Rounds,
        asked: &AtomicBool,
    ) -> Result<Proposal, RegisterError> {
        let me = ring.node_by_uuid(self.me).ok_or(RegisterError::NoRing)?.number;
        let epoch = ring.epoch().0 + 1;
        let voters: Vec<NodeId> = ring.voters().collect();
        let at = |round| Ballot { round, node: me };
        let ballot = loop {
            match rounds.step() {
                RoundStep::Attempt(round) => break at(round),
                RoundStep::Lift(round, lagging) => {
                    let lagging: Vec<NodeId> = lagging.into_iter().map(NodeId).collect();
                    if let Err(decided) = self.promises(ring, &lagging, at(round), rounds).await {
                        return Ok(Proposal::Decided(decided));
                    }
                }
            }
        };
        let promises = match self.promises(ring, &voters, ballot, rounds).await {
            Ok(promises) if promises.len() >= majority(voters.len()) => promises,
            Ok(_) => return Ok(Proposal::Lost),
            Err(decided) => return Ok(Proposal::Decided(decided)),
        };

        let value = must_propose(promises, own);
        asked.store(true, Relaxed);
        let accept = peer::Accept { epoch, ballot: Some(message(ballot)), ring: Some(value.clone()) };
        let mut answers = self.ask(ring, &voters, request::Body::Accept(accept));
        let mut accepted = 0;
        while let Some((voter, answer)) = answers.next().await {
            let Ok(done) = answer else { continue };
            if let Some(decided) = valid(done.decided, epoch) {
                return Ok(Proposal::Decided(decided));
            }
            rounds.told(voter.0, done.promised.map(self::ballot).unwrap_or_default());
            accepted += usize::from(done.granted);
            if accepted == majority(voters.len()) {
                let ring = Ring::new(value).map_err(ChangeError::from)?;
                return Ok(Proposal::Decided(Arc::new(ring)));
            }
        }
        Ok(Proposal::Open)
    }

    /// Phase 1 with some voters of the instance after `ring`: what those had accepted that granted the ballot, as soon
    /// as they are a majority of all; or what is decided.
    async fn promises(
        &self,
        ring: &Arc<Ring>,
        voters: &[NodeId],
        at: Ballot,
        rounds: &mut Rounds,
    ) -> Result<Vec<Option<(Ballot, RingDocument)>>, Arc<Ring>> {
        let epoch = ring.epoch().0 + 1;
        let prepare = peer::Prepare { epoch, ballot: Some(message(at)) };
        let mut promises = Vec::new();
        let mut answers = self.ask(ring, voters, request::Body::Prepare(prepare));
        while let Some((voter, answer)) = answers.next().await {
            let Ok(done) = answer else { continue };
            if let Some(decided) = valid(done.decided, epoch) {
                return Err(decided);
            }
            rounds.told(voter.0, done.promised.map(ballot).unwrap_or_default());
            if done.granted {
                promises.push(done.accepted.zip(done.ring).map(|(at, value)| (ballot(at), value)));
            }
            if promises.len() == majority(ring.voters().count()) {
                break;
            }
        }
        Ok(promises)
    }

    /// What this node has promised in the instance after `ring`.
    async fn promised(&self, ring: &Ring) -> Ballot {
        let instance = self.instance.lock().await;
        let is_this = instance.epoch == ring.epoch().0 + 1;
        if is_this { instance.acceptor.promised() } else { Ballot::default() }
    }

    /// Asks these voters at once.
    pub(super) fn ask(
        &self,
        ring: &Arc<Ring>,
        voters: &[NodeId],
        body: request::Body,
    ) -> FuturesUnordered<impl Future<Output = (NodeId, Result<PaxosDone, CallError>)> + use<>> {
        let each = voters.iter().map(|&voter| {
            let asked = ask_one(Arc::clone(&self.transport), Arc::clone(ring), voter, body.clone());
            asked.map(move |answer| (voter, answer))
        });
        each.collect()
    }

    /// Tells everyone of the old and the new ring. Who misses it hears of the epoch by gossip or by ping.
    fn announce(&self, old: &Ring, new: &Ring) {
        let nodes: BTreeSet<u32> = old.nodes().iter().chain(new.nodes()).map(|node| node.number).collect();
        for node in nodes {
            let decided = peer::Decided { ring: Some(new.document().clone()) };
            self.transport.tell(Target::Node(NodeId(node)), 0, request::Body::Decided(decided));
        }
    }

    /// Takes a decided ring, durably, if it is newer.
    pub async fn learn(&self, ring: Arc<Ring>) -> Result<(), EngineError> {
        let guard = Arc::clone(&self.instance).lock_owned().await;
        if ring.epoch() > self.current.epoch() {
            let _guard = self.keep_decided(guard, &ring).await?;
            if self.current.advance(Arc::clone(&ring)) {
                gauge!("god_consensus_epoch").set(ring.epoch().0 as f64);
                tracing::info!(epoch = %ring.epoch(), nodes = ring.nodes().len(), "the ring changed");
            }
        }
        Ok(())
    }

    /// Asks a node for its ring, and takes it if it is newer. Who comes while that node is being asked waits for it.
    pub async fn fetch_newer(&self, from: Target) {
        let fetch = Arc::clone(self.fetching.lock().entry(from.clone()).or_default());
        let ended = fetch.ended.load(Relaxed);
        {
            // Whoever is cancelled lets the next one ask.
            let _turn = fetch.turn.lock().await;
            if fetch.ended.load(Relaxed) == ended {
                self.fetch(from).await;
                fetch.ended.fetch_add(1, Relaxed);
            }
        }
        drop(fetch);
        self.fetching.lock().retain(|_, fetch| Arc::strong_count(fetch) > 1);
    }

    async fn fetch(&self, from: Target) {
        let call = Call {
            epoch: 0,
            arcs: 0,
            timeout: VOTER_TIMEOUT,
            body: request::Body::GetRing(peer::GetRing {}),
        };
        if let Ok(response::Body::Ring(RingDone { ring: Some(document) })) =
            self.transport.call(from, call).await
            && let Some(ring) = self.fits(document)
            && let Err(error) = self.learn(ring).await
        {
            tracing::warn!(%error, "cannot keep the newer ring");
        }
    }

    /// A ring of this cluster, or, where there is none yet, of any; not further ahead than it can be (EPOCH-BOUNDED).
    fn fits(&self, document: RingDocument) -> Option<Arc<Ring>> {
        let ring = Ring::new(document)
            .inspect_err(|error| tracing::warn!(%error, "a peer's ring is refused"))
            .ok()?;
        let is_ours = self.current.get().is_none_or(|current| current.cluster() == ring.cluster());
        let ahead = ring.epoch().0.saturating_sub(self.current.epoch().0);
        (is_ours && ahead <= MAX_AHEAD).then(|| Arc::new(ring))
    }

    /// Answers [`peer::GetRing`].
    pub fn get_ring(&self) -> Result<response::Body, Failure> {
        match self.current.get() {
            Some(ring) => Ok(response::Body::Ring(RingDone { ring: Some(ring.document().clone()) })),
            None => Err(failure(Cause::NotMember, RegisterError::NoRing.to_string())),
        }
    }

    /// Answers [`peer::Decided`].
    pub async fn decided(&self, message: peer::Decided) -> Result<response::Body, Failure> {
        // A node without a ring takes its first one by joining, where it checks whose it is.
        if self.current.get().is_none() {
            return Err(failure(Cause::NotMember, RegisterError::NoRing.to_string()));
        }
        let ring = message.ring.and_then(|document| self.fits(document));
        let ring = ring.ok_or_else(|| failure(Cause::Invalid, "this is no ring of this cluster"))?;
        self.learn(ring).await.map_err(|error| failure(Cause::Storage, error.to_string()))?;
        self.get_ring()
    }

    /// Answers [`peer::Prepare`]. The promise is on disk before it is given; where none is asked for, nothing changes.
    pub async fn prepare(&self, message: peer::Prepare) -> Result<response::Body, Failure> {
        let mut instance = Arc::clone(&self.instance).lock_owned().await;
        let at = message.ballot.map(ballot).unwrap_or_default();
        if let Some(done) = self.enter(&mut instance, message.epoch)? {
            return Ok(response::Body::Paxos(done));
        }
        let promise = instance.acceptor.prepare(at);
        let mut done =
            PaxosDone { promised: Some(self::message(instance.acceptor.promised())), ..PaxosDone::default() };
        match promise {
            Promise::Granted(accepted) => {
                self.keep_instance(instance).await?;
                done.granted = true;
                (done.accepted, done.ring) = accepted.map(|(at, ring)| (self::message(at), ring)).unzip();
            }
            Promise::Refused(_) => {
                done.accepted = instance.acceptor.accepted().map(|(at, _)| self::message(*at));
                done.tells_accepted = true;
            }
        }
        Ok(response::Body::Paxos(done))
    }

    /// Answers [`peer::Accept`]. The acceptance is on disk before it is said.
    pub async fn accept(&self, message: peer::Accept) -> Result<response::Body, Failure> {
        let mut instance = Arc::clone(&self.instance).lock_owned().await;
        let at = message.ballot.map(ballot).unwrap_or_default();
        if let Some(done) = self.enter(&mut instance, message.epoch)? {
            return Ok(response::Body::Paxos(done));
        }
        let document = message.ring.and_then(|document| self.fits(document));
        let document = document.filter(|ring| ring.epoch() == Epoch(message.epoch));
        let document = document.ok_or_else(|| failure(Cause::Invalid, "this is no ring of that epoch"))?;
        let granted = instance.acceptor.accept(at, document.document().clone());
        let promised = Some(self::message(instance.acceptor.promised()));
        if granted {
            self.keep_instance(instance).await?;
        }
        Ok(response::Body::Paxos(PaxosDone { granted, promised, ..PaxosDone::default() }))
    }

    /// Readies the acceptor for the instance of an epoch; answers for it where that is decided already.
    fn enter(&self, instance: &mut Instance, epoch: u64) -> Result<Option<PaxosDone>, Failure> {
        let Some(ring) = self.current.get() else {
            return Err(failure(Cause::NotMember, RegisterError::NoRing.to_string()));
        };
        let known = ring.epoch().0;
        if known >= epoch {
            return Ok(Some(PaxosDone { decided: Some(ring.document().clone()), ..PaxosDone::default() }));
        }
        if known + 1 < epoch {
            let message = format!(
                "this node knows epoch {known}, and cannot vote on {epoch} before it knows the one before"
            );
            return Err(Failure { epoch: known, ..failure(Cause::StaleEpoch, message) });
        }
        let number = ring.node_by_uuid(self.me).map(|node| NodeId(node.number));
        if !number.is_some_and(|number| ring.voters().any(|voter| voter == number)) {
            return Err(failure(Cause::Invalid, format!("this node has no vote on epoch {epoch}")));
        }
        if instance.epoch > epoch {
            let message =
                format!("this node has voted on epoch {}, and knows only epoch {known}", instance.epoch);
            return Err(failure(Cause::Invalid, message));
        }
        if instance.epoch < epoch {
            *instance = Instance { epoch, acceptor: Acceptor::default() };
        }
        Ok(None)
    }

    async fn keep_decided(&self, guard: Guard, ring: &Ring) -> Result<Guard, EngineError> {
        self.keep(guard, DECIDED_KEY, ring.document().encode_to_vec()).await
    }

    async fn keep_instance(&self, instance: Guard) -> Result<(), Failure> {
        let (accepted, ring) =
            instance.acceptor.accepted().map(|(at, ring)| (message(*at), ring.clone())).unzip();
        let kept = PaxosDone {
            granted: true,
            promised: Some(message(instance.acceptor.promised())),
            accepted,
            ring,
            // Only its epoch: which instance this is about.
            decided: Some(RingDocument { epoch: instance.epoch, ..RingDocument::default() }),
            ..PaxosDone::default()
        };
        let kept = self.keep(instance, ACCEPTOR_KEY, kept.encode_to_vec()).await;
        kept.map(|_| ()).map_err(|error| failure(Cause::Storage, error.to_string()))
    }

    /// Writes a row, and gives the lock back that it was written under. Where nobody waits any more, the lock is held
    /// until it is written nevertheless (invariant EPOCH-DECIDED-ONCE).
    async fn keep(&self, guard: Guard, key: &'static [u8], value: Vec<u8>) -> Result<Guard, EngineError> {
        let engine = Arc::clone(&self.engine);
        let write = move || {
            let mut batch = Batch::default();
            batch.put(Table::System, key, value);
            engine.commit(batch).and_then(|()| engine.sync()).map(|()| guard)
        };
        self.seams.offload.run_apart(write).await
    }
}

/// The lock on votes. It goes into the write itself, so that it is held until that has ended (invariant
/// LOCK-WITH-WRITE).
type Guard = OwnedMutexGuard<Instance>;

/// What came of an attempt.
enum Proposal {
    /// The instance is decided: so.
    Decided(Arc<Ring>),
    /// Nobody was asked to accept: nothing of ours can be decided.
    Lost,
    /// Some may have accepted: it may be decided yet.
    Open,
}

/// Asks a voter; where it does not know the ring yet, tells it, and asks once more.
async fn ask_one(
    transport: Arc<dyn Transport>,
    ring: Arc<Ring>,
    voter: NodeId,
    body: request::Body,
) -> Result<PaxosDone, CallError> {
    let to = Target::Node(voter);
    let call = |body| Call { epoch: 0, arcs: 0, timeout: VOTER_TIMEOUT, body };
    let mut answer = transport.call(to.clone(), call(body.clone())).await;
    if let Err(CallError::Refused(failure)) = &answer
        && failure.cause() == Cause::StaleEpoch
    {
        let decided = peer::Decided { ring: Some(ring.document().clone()) };
        transport.call(to.clone(), call(request::Body::Decided(decided))).await?;
        answer = transport.call(to, call(body)).await;
    }
    match answer? {
        response::Body::Paxos(done) => Ok(done),
        _ => Err(CallError::Lost("the answer is to another question".to_owned())),
    }
}

pub(super) fn valid(document: Option<RingDocument>, least: u64) -> Option<Arc<Ring>> {
    let ring = Ring::new(document?).ok()?;
    (ring.epoch().0 >= least).then(|| Arc::new(ring))
}

pub(super) fn ballot(message: peer::Ballot) -> Ballot {
    Ballot { round: message.round, node: message.node }
}

fn message(ballot: Ballot) -> peer::Ballot {
    peer::Ballot { round: ballot.round, node: ballot.node }
}

fn corrupt(what: &str, error: &dyn std::fmt::Display) -> EngineError {
    EngineError::Corrupt(format!("the {what} that was kept cannot be read: {error}"))
}
