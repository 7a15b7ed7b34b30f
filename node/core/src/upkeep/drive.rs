//! Takes the steps of operations.
//!
//! One node does so at a time: the first voter that seems to be up. Where two believe to be it, they contend for the
//! epoch and one of them finds the step taken. Nothing is lost with a driver: what has been done is in the ring.

use super::{
    Upkeep,
    blocked::{blocked, handing_over, in_short, unheard},
    sizes::{ALL, few, gather_sizes},
};
use crate::{
    consensus::RegisterError,
    peer::{CallError, failure},
    ring::{
        ChangeError, Evidence, Hearing, Wish, add_voters, current, given_up, has_terms, plan, refuse,
        replace_voter, retires, start, stays, step,
    },
};
use futures::future::{OptionFuture, join_all, join5};
use god_proto::{
    ids::{ArcId, KeyspaceId, NodeId},
    peer::{ArcProgress, ArcSizes, ArcSizesDone, Cause, Moving, MovingDone, request, response},
    ring::{Ring, RingArc},
    v1::{self, ListOperationsReply, OperationPhase, OperationStatus, wish},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// How often the next step is looked for; while arcs move, so often that those who receive them need not wait.
const LOOK: Duration = Duration::from_millis(100);
const LOOK_MOVING: Duration = Duration::from_millis(50);
/// How long before it is planned again what could not be: all nodes are asked what they hold.
const REST: Duration = Duration::from_secs(2);
/// How long a node may take to say how far it is.
pub(super) const TIMEOUT: Duration = Duration::from_secs(1);
/// How long a node that leaves may be silent before the others end its leave without it.
const GONE_AFTER: Duration = Duration::from_secs(10);

/// What came of asking for an operation.
#[derive(Debug, thiserror::Error)]
pub enum Driven {
    /// It is refused for what it asks.
    #[error("{0}")]
    Refused(String),
    /// The ring did not change.
    #[error(transparent)]
    Ring(#[from] RegisterError),
}

/// The node that leaves and is silent, and since when.
type Silent = Option<(NodeId, Instant)>;

/// What those who receive arcs say of them; who does not answer is not in it.
pub(super) type Answers = BTreeMap<NodeId, MovingDone>;

/// What an operation is seen to wait for.
struct Waits {
    progress: Answers,
    /// To whom no arc may begin to move, or who has to hear of other quorums.
    unclean: BTreeMap<NodeId, Unclean>,
    /// What a node says that leaves and hands over what is left.
    leaver: Option<Result<ArcSizesDone, CallError>>,
    /// Who has heard of keyspaces that were deleted, where that node is down.
    hearing: Hearing,
    /// Why the node that drives cannot go on.
    stuck: String,
}

/// Why no arc may begin to move to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unclean {
    /// It holds so many records that it should not.
    Holds(u64),
    /// It does not answer.
    Silent,
    /// It speaks of an older ring, or refuses to speak of this one.
    Behind,
}

/// What is known of a node that leaves, once all its arcs are elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaver {
    /// It holds something that the others should have, or does not say.
    Holds,
    /// It says that it holds nothing.
    Clean,
    /// Nobody waits for it.
    Gone,
}

impl Upkeep {
    /// Drives, while it is this node's turn.
    pub(super) async fn drive(&self) {
        let mut silent: Silent = None;
        let mut idle: BTreeMap<NodeId, Instant> = BTreeMap::new();
        loop {
            let moving = self.ring.get().is_some_and(|ring| ring.is_moving());
            sleep(if moving { LOOK_MOVING } else { LOOK }).await;
            let Some(ring) = self.ring.get() else { continue };
            self.mind_voters(&ring, &mut idle).await;
            self.find_voters(&ring).await;
            if ring.operations().is_empty() || self.driver(&ring) != Some(self.me) {
                silent = None;
                self.stuck.is(None);
                continue;
            }
            let advanced = self.advance(&ring, &mut silent).await;
            self.stuck.is(advanced.as_ref().err().map(in_short));
            if let Err(error) = advanced {
                tracing::debug!(%error, "a step of an operation is tried again");
                sleep(if matches!(error, Driven::Refused(_)) { REST } else { LOOK }).await;
            }
        }
    }

    /// Whether a voter may decide nothing: it is down, or answers and says that it is not ready, as its storage may
    /// have failed, and with it each vote.
    fn is_idle(&self, voter: NodeId) -> bool {
        voter != self.me && (self.is_down(voter) || self.liveness.peer(voter).is_ready == Some(false))
    }

    /// A voter that has been idle for long; `idle`: which ones are, and since when.
    pub(super) fn long_idle(&self, ring: &Ring, idle: &mut BTreeMap<NodeId, Instant>) -> Option<NodeId> {
        let now = Instant::now();
        let voters: BTreeSet<NodeId> = ring.voters().filter(|voter| self.is_idle(*voter)).collect();
        idle.retain(|voter, _| voters.contains(voter));
        for voter in voters {
            idle.entry(voter).or_insert(now);
        }
        let mut long =
            idle.iter().filter(|(_, since)| now.duration_since(**since) >= self.settings.vote_after);
        long.next().map(|(voter, _)| *voter)
    }

    /// Has another node decide in place of a voter that has not been up and ready for long. Otherwise one more that
    /// goes could leave too few to decide anything, and with them the way to make up for either.
    async fn mind_voters(&self, ring: &Arc<Ring>, idle: &mut BTreeMap<NodeId, Instant>) {
        let Some(voter) = self.long_idle(ring, idle) else { return };
        if self.driver(ring) != Some(self.me) {
            return;
        }
        let up = |node: NodeId| node == self.me || self.liveness.is_there(node);
        // Tried again after as long, whatever comes of it.
        idle.insert(voter, Instant::now());
        // One that is back by the time of its turn keeps its vote.
        let change =
            |ring: &Ring| if self.is_idle(voter) { replace_voter(ring, voter, up) } else { Ok(None) };
        match self.register.change(self.change_timeout, change).await {
            Ok(_) => {
                tracing::info!(%voter, "a voter is away or not ready: another node decides in its place, if there is one")
            }
            Err(error) => {
                tracing::debug!(%voter, %error, "a voter that is away or not ready was not replaced")
            }
        }
    }

    /// Has more nodes decide, where too few were up for it when the ring last changed.
    async fn find_voters(&self, ring: &Arc<Ring>) {
        if self.driver(ring) != Some(self.me) {
            return;
        }
        let down = self.liveness.down(ring, |node| node.number == self.me.0);
        if !matches!(add_voters(ring, &down), Ok(Some(_))) {
            return;
        }
        let mut away = self.away(ring);
        self.meet_anew(&mut away).await;
        if !matches!(add_voters(ring, &away), Ok(Some(_))) {
            return;
        }
        match self.register.change(self.change_timeout, |ring| add_voters(ring, &away)).await {
            Ok(_) => tracing::info!("more nodes are up: more of them decide what the ring is"),
            Err(error) => tracing::debug!(%error, "more nodes are up, and could not be given votes"),
        }
    }

    /// Asks those that are not known to be up, and not known to be gone: a cluster that was made a moment ago, or a
    /// driver that was started then, need not wait for the next round of pings.
    async fn meet_anew(&self, away: &mut BTreeSet<NodeId>) {
        let asked = away
            .iter()
            .copied()
            .filter(|node| !self.is_down(*node))
            .map(|node| async move { self.register.is_ready(node, LOOK).await.then_some(node) });
        for node in join_all(asked).await.into_iter().flatten() {
            away.remove(&node);
        }
    }

    /// Whose turn it is to drive, as this node sees it.
    pub(super) fn driver(&self, ring: &Ring) -> Option<NodeId> {
        let mut voters: Vec<NodeId> = ring.voters().collect();
        voters.sort_unstable();
        // One whose disk is full answers, and decides nothing: another one takes over.
        let ready = |node: &NodeId| *node == self.me || self.liveness.peer(*node).is_ready == Some(true);
        let there = || voters.iter().copied().filter(|node| !self.is_down(*node));
        there().find(ready).or_else(|| there().next())
    }

    async fn advance(&self, ring: &Arc<Ring>, silent: &mut Silent) -> Result<(), Driven> {
        let Some(operation) = current(ring) else { return Ok(()) };
        if operation.phase() == OperationPhase::Waiting {
            return self.plan_and_start(ring, operation).await;
        }
        let ready = if ring.is_moving() { self.ready_arcs(ring).await } else { BTreeSet::new() };
        let leaver = match operation.phase() {
            OperationPhase::Cleaning => match hands_over(ring, operation) {
                Some(node) => self.has_handed_over(node, ring, silent).await,
                None if self.unheard(ring).await.is_empty() => Leaver::Gone,
                None => Leaver::Holds,
            },
            _ => Leaver::Holds,
        };
        let (clean, seen_clean) = (leaver != Leaver::Holds, leaver == Leaver::Clean);
        // Only who leaves without a word is waited for by names.
        let hearing = match hands_over(ring, operation) {
            Some(_) if leaver == Leaver::Gone => self.names_heard(None, TIMEOUT).await,
            _ => Hearing::default(),
        };
        let (epoch, budget) = (ring.epoch(), self.moving_arcs());
        // Where none can begin, nobody is asked whether it could.
        let moving = ring.arcs().iter().filter(|arc| arc.next.is_some()).count();
        let none_ends = operation.phase() == OperationPhase::Moving && ready.is_empty();
        let is_full = none_ends && moving >= budget.max(1);
        let unclean = if is_full { BTreeMap::new() } else { self.unclean(ring, operation).await };
        let unclean: BTreeSet<NodeId> = unclean.into_keys().collect();
        self.register
            .change(self.change_timeout, |ring| {
                // Seen under this epoch; under another one it is looked at again.
                if ring.epoch() != epoch {
                    return Ok(None);
                }
                let away = self.away(ring);
                let (ready, unclean, away, hearing) = (&ready, &unclean, &away, &hearing);
                step(ring, Evidence { ready, clean, seen_clean, budget, unclean, away, hearing })
            })
            .await?;
        Ok(())
    }

    /// How many arcs may change hands at the same time now.
    pub(super) fn moving_arcs(&self) -> usize {
        match self.lateness.is_waited_for() {
            true => self.settings.moving_arcs.div_ceil(2),
            false => self.settings.moving_arcs,
        }
    }

    /// Refused, where it cannot be planned and yet not called off.
    async fn plan_and_start(&self, ring: &Arc<Ring>, operation: &v1::Operation) -> Result<(), Driven> {
        let now = self.plan_by(ring, operation, few(ring)).await?;
        let waits = current(&now).filter(|it| {
            it.id == operation.id && it.phase() == OperationPhase::Waiting && now.epoch() != ring.epoch()
        });
        if let Some(operation) = waits {
            // The ring changed while nodes measured: before it does once more.
            self.plan_by(&now, operation, ALL).await?;
        }
        Ok(())
    }

    /// Plans by what nodes hold, so many of which are asked at a time, and starts; nothing is done where the ring
    /// changes meanwhile.
    async fn plan_by(
        &self,
        ring: &Arc<Ring>,
        operation: &v1::Operation,
        at_once: usize,
    ) -> Result<Arc<Ring>, Driven> {
        let sizes = gather_sizes(self, ring, true, at_once).await;
        let id = &operation.id;
        let planned = match operation.wish.as_ref().and_then(Wish::of) {
            // Who waits must not be refused because of its own operation.
            Some(wish) => plan(&to_plan(ring), &wish, &sizes).map_err(|refused| refused.to_string()),
            None => Err("this version does not know such an operation".to_owned()),
        };
        let epoch = ring.epoch();
        let change = |ring: &Ring| {
            if ring.epoch() != epoch {
                return Ok(None);
            }
            match &planned {
                Ok(plan) => start(ring, id, plan, &self.away(ring)),
                Err(why) => refuse(ring, id, why, &self.away(ring)),
            }
        };
        let now = self.register.change(self.change_timeout, change).await?;
        match planned {
            Err(why) if now.epoch() == epoch => Err(Driven::Refused(why)),
            _ => Ok(now),
        }
    }

    /// Arcs whose new replicas all say that they are ready.
    async fn ready_arcs(&self, ring: &Ring) -> BTreeSet<ArcId> {
        let progress = self.progress(ring).await;
        let ready = |arc: &&RingArc| {
            let mut new = arc.copiers().peekable();
            arc.next.is_some()
                && (new.peek().is_none()
                    || new.all(|node| {
                        progress.get(&node).is_some_and(|said| {
                            said.arcs
                                .iter()
                                .any(|it| it.arc == arc.id.0 && it.since == arc.since.0 && it.ready)
                        })
                    }))
        };
        ring.arcs().iter().filter(ready).map(|arc| arc.id).collect()
    }

    /// Of the nodes that arcs are yet to begin to move to: those that hold what they should not, or do not answer.
    async fn unclean(&self, ring: &Ring, operation: &v1::Operation) -> BTreeMap<NodeId, Unclean> {
        let back = operation.phase() == OperationPhase::Cancelling;
        let mut nodes = BTreeSet::new();
        for step in &operation.moves {
            let target = if back { &step.from } else { &step.to };
            if let Some(arc) = ring.arc(ArcId(step.arc)).filter(|arc| arc.next.is_none()) {
                nodes.extend(
                    target.iter().map(|node| NodeId(*node)).filter(|node| !arc.replicas.contains(node)),
                );
            }
        }
        let asked = nodes.into_iter().map(|node| async move {
            let why = match self.what_it_holds(node, ring).await {
                Ok(said) if said.misplaced_entries > 0 => Unclean::Holds(said.misplaced_entries),
                Ok(_) => return None,
                Err(CallError::Refused(_)) => Unclean::Behind,
                Err(_) => Unclean::Silent,
            };
            Some((node, why))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// What those who receive arcs say of them.
    async fn progress(&self, ring: &Ring) -> Answers {
        let receivers: BTreeSet<NodeId> = ring.arcs().iter().flat_map(RingArc::copiers).collect();
        let asked = receivers.into_iter().map(|node| async move { Some((node, self.how_far(node).await?)) });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// What a node says of the arcs that it receives, and of the operation that it drives.
    async fn how_far(&self, node: NodeId) -> Option<MovingDone> {
        match self.ask_node(node, 0, TIMEOUT, request::Body::Moving(Moving {})).await {
            Ok(response::Body::Moving(said)) => Some(said),
            _ => None,
        }
    }

    /// Whether a node that leaves has nothing left that the others should have. One that has been silent for long is
    /// gone: what was acknowledged at a quorum is on the new replicas.
    async fn has_handed_over(&self, node: NodeId, ring: &Ring, silent: &mut Silent) -> Leaver {
        match self.what_it_holds(node, ring).await {
            Ok(said) => {
                *silent = None;
                match said.misplaced_entries == 0 && said.arcs.is_empty() {
                    true => Leaver::Clean,
                    false => Leaver::Holds,
                }
            }
            _ if self.is_down(node) => {
                // Since when this one is, not one that left before it.
                let since = match silent.filter(|(of, _)| *of == node) {
                    Some((_, since)) => since,
                    None => silent.insert((node, Instant::now())).1,
                };
                if since.elapsed() >= GONE_AFTER { Leaver::Gone } else { Leaver::Holds }
            }
            _ => {
                *silent = None;
                Leaver::Holds
            }
        }
    }

    /// Which arcs a node holds by this ring, and how much that it should not. Refused where it speaks of another ring.
    async fn what_it_holds(&self, node: NodeId, ring: &Ring) -> Result<ArcSizesDone, CallError> {
        let ask = request::Body::Sizes(ArcSizes { middles: false, misplaced_only: true });
        match self.ask_node(node, ring.epoch().0, TIMEOUT, ask).await? {
            response::Body::Sizes(said) if said.epoch == ring.epoch().0 => Ok(said),
            response::Body::Sizes(said) => {
                let why = format!("it speaks of epoch {}, and is asked about {}", said.epoch, ring.epoch());
                Err(CallError::Refused(failure(Cause::StaleEpoch, why)))
            }
            _ => Err(CallError::Lost("its answer is not what it holds".to_owned())),
        }
    }

    /// The operations, and how far they are.
    pub async fn list_operations(&self) -> Result<ListOperationsReply, Driven> {
        let ring = self.ring.get().ok_or(RegisterError::NoRing)?;
        let cleaning = current(&ring).filter(|it| it.phase() == OperationPhase::Cleaning);
        let leaver = cleaning.and_then(|operation| hands_over(&ring, operation));
        let unclean = async {
            match current(&ring) {
                Some(_) if leaver.is_some() => BTreeMap::new(),
                Some(_) if cleaning.is_some() => self.unheard(&ring).await,
                Some(operation) => self.unclean(&ring, operation).await,
                None => BTreeMap::new(),
            }
        };
        let hearing = async {
            match leaver.is_some_and(|node| self.is_down(node)) {
                true => self.names_heard(None, TIMEOUT).await,
                false => Hearing::default(),
            }
        };
        let leaver = OptionFuture::from(leaver.map(|node| self.what_it_holds(node, &ring)));
        let driver = self.driver(&ring).filter(|_| !ring.operations().is_empty());
        let stuck = OptionFuture::from(driver.map(|node| self.stuck_at(node)));
        let (progress, unclean, leaver, hearing, stuck) =
            join5(self.progress(&ring), unclean, leaver, hearing, stuck).await;
        let waits = Waits { progress, unclean, leaver, hearing, stuck: stuck.flatten().unwrap_or_default() };
        let driver = driver.map_or(0, |node| node.0);
        let operations = ring
            .operations()
            .iter()
            .map(|operation| self.status_of(&ring, operation, driver, &waits))
            .collect();
        Ok(ListOperationsReply {
            operations,
            ended: ring.document().ended.clone(),
            epoch: ring.epoch().0,
            failed: None,
        })
    }

    /// Why a node that drives cannot go on, if it says so.
    async fn stuck_at(&self, node: NodeId) -> Option<String> {
        let stuck = match node == self.me {
            true => self.stuck.why(),
            false => self.how_far(node).await.map(|said| said.stuck),
        };
        let stuck = stuck.filter(|stuck| !stuck.is_empty())?;
        Some(format!("node {node}, which drives it, cannot take the next step: {stuck}"))
    }

    /// Why an operation would not end, were nothing left to hand over, as was seen or not, or to hear.
    fn end_is_refused(&self, ring: &Ring, seen_clean: bool, hearing: &Hearing) -> Option<String> {
        let away = self.away(ring);
        let (ready, unclean, away) = (&BTreeSet::new(), &BTreeSet::new(), &away);
        let seen = Evidence { ready, clean: true, seen_clean, budget: 0, unclean, away, hearing };
        step(ring, seen).err().map(|error| error.to_string())
    }

    fn status_of(
        &self,
        ring: &Ring,
        operation: &v1::Operation,
        driver: u32,
        waits: &Waits,
    ) -> OperationStatus {
        let Waits { progress, unclean, leaver, hearing, stuck } = waits;
        let back = operation.phase() == OperationPhase::Cancelling;
        let moves: BTreeMap<u64, &Vec<u32>> =
            operation.moves.iter().map(|step| (step.arc, if back { &step.from } else { &step.to })).collect();
        let mine = || ring.arcs().iter().filter(|arc| moves.contains_key(&arc.id.0));
        let done = mine().filter(|arc| {
            arc.next.is_none()
                && moves
                    .get(&arc.id.0)
                    .is_some_and(|to| arc.replicas.iter().map(|node| node.0).eq(to.iter().copied()))
        });
        let moving: Vec<&RingArc> = mine().filter(|arc| arc.next.is_some()).collect();
        let said: Vec<(NodeId, &ArcProgress)> = moving
            .iter()
            .flat_map(|arc| arc.copiers().map(move |node| (*arc, node)))
            .filter_map(|(arc, node)| {
                let said = progress.get(&node)?.arcs.iter();
                Some((node, said.clone().find(|it| it.arc == arc.id.0 && it.since == arc.since.0)?))
            })
            .collect();
        let sum = |what: fn(&ArcProgress) -> u64| said.iter().map(|(_, it)| what(it)).sum::<u64>();
        let (bytes_done, bytes_total) = (sum(|it| it.bytes_done), sum(|it| it.bytes_total));
        let bytes_per_second = progress.values().map(|said| said.bytes_per_second).sum();
        let arcs_done = done.count() as u32;
        let arcs_total = mine().count() as u32;
        // What has not begun is taken to be as large as what is moving.
        let left = bytes_total.saturating_sub(bytes_done)
            + u64::from(arcs_total.saturating_sub(arcs_done + moving.len() as u32)) * bytes_total
                / (moving.len().max(1) as u64);
        let phase = operation.phase();
        let blocked = match phase {
            OperationPhase::Waiting if current(ring).is_some_and(|first| first.id != operation.id) => {
                "it waits for the operations before it".to_owned()
            }
            OperationPhase::Cleaning => {
                let (waits, is_down) = match (hands_over(ring, operation), leaver) {
                    (Some(node), Some(said)) => {
                        let is_down = self.is_down(node);
                        (handing_over(&operation.id, node, is_down, said), is_down)
                    }
                    _ => (unheard(&operation.id, unclean, holds(ring, operation)), false),
                };
                // A silent node is retired without its word, unless this is in the way.
                let refused = (is_down || waits.is_empty())
                    .then(|| self.end_is_refused(ring, matches!(leaver, Some(Ok(_))), hearing));
                refused.flatten().unwrap_or(waits)
            }
            // What goes back, or makes up for what is gone, is not called off.
            _ => {
                let may_end = !back && !stays(operation);
                blocked(may_end.then_some(&*operation.id), &moving, &said, progress, unclean)
            }
        };
        let blocked = if blocked.is_empty() { stuck.clone() } else { blocked };
        OperationStatus {
            operation: Some(operation.clone()),
            driver,
            arcs_done,
            arcs_total,
            arcs_moving: moving.len() as u32,
            entries_done: sum(|it| it.entries_done),
            entries_total: sum(|it| it.entries_total),
            bytes_done,
            bytes_total,
            bytes_per_second,
            eta_ms: (left * 1_000).checked_div(bytes_per_second).unwrap_or(0),
            blocked,
        }
    }
}

/// The node that an operation retires, and that has to hand over what it holds before: not one whose data are gone.
fn hands_over(ring: &Ring, operation: &v1::Operation) -> Option<NodeId> {
    operation.wish.as_ref().and_then(retires).filter(|node| !given_up(ring).contains(node))
}

/// Whether a keyspace has the quorums by now that an operation asks for.
fn holds(ring: &Ring, operation: &v1::Operation) -> bool {
    let Some(wish::Wish::Replicas(wish)) = operation.wish.as_ref().and_then(|wish| wish.wish.as_ref()) else {
        return false;
    };
    ring.keyspace_by_id(KeyspaceId(wish.keyspace)).is_some_and(|keyspace| has_terms(keyspace, wish))
}

/// What of a ring is planned: what holds data, as if nobody had asked for anything. (EMPTY-MOVES-FREE: the rest is
/// dealt out anew.)
pub(super) fn to_plan(ring: &Ring) -> Ring {
    let mut document = ring.document().clone();
    document.operations.clear();
    document.keyspaces.retain(|keyspace| keyspace.live);
    let live: BTreeSet<u64> = ring
        .arcs()
        .iter()
        .filter(|arc| ring.keyspace_by_id(arc.keyspace).is_some_and(|keyspace| keyspace.live))
        .map(|arc| arc.id.0)
        .collect();
    document.arcs.retain(|arc| live.contains(&arc.id));
    // A document with fewer keyspaces and operations breaks no rule that it kept with them.
    Ring::new(document).unwrap_or_else(|_| ring.clone())
}

/// The error of an operation's change, for clients.
impl Driven {
    /// Whether the wish itself is at fault.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Driven::Refused(_)
                | Driven::Ring(RegisterError::Refused(ChangeError::Invalid(_) | ChangeError::Exists(_)))
        )
    }
}
