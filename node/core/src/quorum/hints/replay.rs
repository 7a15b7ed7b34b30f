//! Sends hints when their target is there again.

use super::{
    Hints,
    row::{Row, decode_value, range_of},
};
use crate::{
    engine::{Batch, Direction, EngineError, Table},
    membership::{Liveness, PeerState},
    peer::{Call, CallError, Target, Transport},
};
use bytes::Bytes;
use god_proto::{
    ids::NodeId,
    peer::{self, Cause, request, response},
    record::Entry,
    ring::Ring,
};
use metrics::counter;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// How often targets are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// The most hints in one message.
const ROWS: usize = 256;
/// The most bytes in one message, but for a larger single hint.
const BYTES: u64 = 1 << 20;
/// How long a target may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long a target that failed is left alone; doubled up to [`LONGEST`].
const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// What is remembered of a target between messages.
struct Pace {
    next: Instant,
    delay: Duration,
    /// Whether it was there when it was last looked at.
    up: bool,
    /// So many hints are sent one at a time, to find those that are refused.
    single: usize,
    /// Hints up to this key are set aside until the others were tried.
    past: Option<Bytes>,
}

impl Pace {
    fn fresh() -> Pace {
        Pace { next: Instant::now(), delay: SHORTEST, up: false, single: 0, past: None }
    }

    /// The target is left alone for a while; then all that waits is tried again.
    fn rest(&mut self) {
        self.next = Instant::now() + self.delay;
        self.delay = (self.delay * 2).min(LONGEST);
    }
}

/// What came of some rows.
enum Replayed {
    /// Nothing waits, but for what is set aside.
    Nothing,
    /// So many bytes of them may go.
    Sent(u64),
    /// One or more of so many are refused for what they are, or for their time.
    Refused(usize),
    /// The only one was refused: it waits until the others were tried.
    Aside(Bytes),
}

impl Hints {
    pub(super) async fn replay(&self, transport: &dyn Transport, liveness: &Liveness) {
        let mut paces: BTreeMap<NodeId, Pace> = BTreeMap::new();
        loop {
            let mut sent = 0;
            if let Some(ring) = self.ring.get() {
                self.give_up_broken(&ring).await;
            }
            let targets: Vec<NodeId> = self.state.lock().counts.keys().copied().collect();
            paces.retain(|target, _| targets.contains(target));
            for target in targets {
                let Some(ring) = self.ring.get() else { continue };
                // What waits for a node that left goes to those who hold its arcs now.
                let up = ring.node(target).is_none() || liveness.state(target) == PeerState::Up;
                let pace = paces.entry(target).or_insert_with(Pace::fresh);
                if up && !pace.up {
                    (pace.next, pace.delay) = (Instant::now(), SHORTEST);
                }
                pace.up = up;
                if !up || pace.next > Instant::now() {
                    continue;
                }
                match self.replay_some(transport, liveness, &ring, target, pace).await {
                    Ok(Replayed::Nothing) => {
                        // All were tried: those that are set aside are, after a while.
                        if pace.past.take().is_some() {
                            pace.single = 0;
                            pace.rest();
                        }
                    }
                    Ok(Replayed::Sent(bytes)) => {
                        sent += bytes;
                        pace.delay = SHORTEST;
                        pace.single = pace.single.saturating_sub(1);
                    }
                    Ok(Replayed::Refused(count)) => {
                        sent += 1;
                        pace.single = count;
                    }
                    Ok(Replayed::Aside(key)) => {
                        sent += 1;
                        counter!("god_quorum_hints_set_aside_total").increment(1);
                        pace.single = pace.single.saturating_sub(1);
                        pace.past = Some(key);
                    }
                    Err(problem) => {
                        tracing::debug!(%target, problem, "hints are kept for later");
                        pace.rest();
                    }
                }
            }
            // The rate holds over all targets.
            let rate = self.settings.replay_bytes_per_second.max(1);
            let pause = Duration::from_secs_f64(sent as f64 / rate as f64);
            sleep(if sent == 0 { LOOK } else { pause.max(Duration::from_millis(1)) }).await;
        }
    }

    /// Sends the oldest hints of a target that are not set aside, and removes those that are delivered.
    async fn replay_some(
        &self,
        transport: &dyn Transport,
        liveness: &Liveness,
        ring: &Ring,
        target: NodeId,
        pace: &Pace,
    ) -> Result<Replayed, String> {
        let single = pace.single > 0;
        let limit = if single { 1 } else { ROWS };
        let rows = match self.oldest(target, pace.past.clone(), limit).await {
            Err(EngineError::Corrupt(problem)) => {
                tracing::error!(%target, problem, "hints cannot be read: all those of this node are dropped");
                let given_up = self.give_up(ring, &(target.0..=target.0)).await;
                return given_up.map(|()| Replayed::Nothing).map_err(|error| error.to_string());
            }
            rows => rows.map_err(|error| error.to_string())?,
        };
        let count = rows.len();
        let Some(last) = rows.last().map(|row| row.key.clone()) else { return Ok(Replayed::Nothing) };
        let entries: Vec<Option<Entry>> = rows.iter().map(|row| decode_value(&row.value)).collect();
        let Delivered { owing, floored, invalid, apart } =
            deliver(transport, liveness, ring, target, &entries).await;
        let is_delivered = |at: usize| {
            !owing.contains(&at) && !floored.contains(&at) && entries.get(at).is_some_and(Option::is_some)
        };
        let gone: Vec<(Row, bool)> = rows
            .into_iter()
            .enumerate()
            .map(|(at, row)| (row, is_delivered(at)))
            .enumerate()
            .filter(|(at, _)| !owing.contains(at) || (invalid && single))
            .map(|(_, row)| row)
            .collect();
        if gone.is_empty() {
            return match invalid || apart {
                true if single => Ok(Replayed::Aside(last)),
                true => Ok(Replayed::Refused(count)),
                false => Err("it did not take them".to_owned()),
            };
        }
        let mut batch = Batch::default();
        for (row, _) in &gone {
            batch.delete(Table::Hints, row.key.clone());
        }
        let engine = Arc::clone(&self.engine);
        self.offload.run(move || engine.commit(batch)).await.map_err(|error| error.to_string())?;
        let mut bytes = 0;
        let mut state = self.state.lock();
        for (row, delivered) in &gone {
            bytes += row.bytes();
            state.release(row);
            if *delivered {
                state.replayed += 1;
                counter!("god_quorum_hints_replayed_total").increment(1);
            } else if let Some(entry) = decode_value(&row.value) {
                // What is lost must be found by comparison.
                self.lose(&mut state, &entry.position);
            } else {
                // Of which arc it was nobody knows.
                tracing::warn!(%target, "a damaged hint is dropped");
                counter!("god_quorum_hints_damaged_total").increment(1);
                ring.arcs().iter().for_each(|arc| state.suspect(arc.range.start.clone().into_bytes()));
            }
        }
        state.show();
        drop(state);
        self.work.notify_one();
        Ok(Replayed::Sent(bytes))
    }

    async fn oldest(
        &self,
        target: NodeId,
        past: Option<Bytes>,
        limit: usize,
    ) -> Result<Vec<Row>, EngineError> {
        let engine = Arc::clone(&self.engine);
        let work = move || {
            let (first, end) = range_of(target);
            let start = past.map_or(first, |past| [&past[..], &[0]].concat().into());
            let (mut rows, mut bytes) = (Vec::new(), 0);
            for pair in engine.scan(Table::Hints, &start, &end, Direction::Forward) {
                let (key, value) = pair?;
                let row = Row { key, value };
                bytes += row.bytes();
                if !rows.is_empty() && bytes > BYTES {
                    break;
                }
                rows.push(row);
                if rows.len() >= limit {
                    break;
                }
            }
            Ok(rows)
        };
        self.offload.run(work).await
    }
}

/// What came of sending some entries.
#[derive(Default)]
struct Delivered {
    /// Those that somebody still lacks.
    owing: BTreeSet<usize>,
    /// Those that somebody may still lack, and takes in no other way than by comparing itself: they lie at or below
    /// what it promised (PURGE-FLOOR).
    floored: BTreeSet<usize>,
    /// Whether a message was refused for what it is.
    invalid: bool,
    /// Whether something failed that says nothing of the target's other hints: a version ahead of its time, a damaged
    /// record in the way, one of those who hold the target's arcs now.
    apart: bool,
}

/// Sends each entry to its target or, where that holds no copy any more, to all who do.
async fn deliver(
    transport: &dyn Transport,
    liveness: &Liveness,
    ring: &Ring,
    target: NodeId,
    entries: &[Option<Entry>],
) -> Delivered {
    let mut messages: BTreeMap<NodeId, Vec<usize>> = BTreeMap::new();
    // The latest epoch in which one of their arcs changed.
    let mut arcs = 0;
    for (at, entry) in entries.iter().enumerate() {
        // What is damaged, or of a keyspace that is gone, is sent to nobody.
        let Some(arc) = entry.as_ref().and_then(|entry| ring.arc_at(&entry.position)) else { continue };
        arcs = arcs.max(arc.changed.0);
        if Ring::holds(arc, target) {
            messages.entry(target).or_default().push(at);
        } else {
            for node in arc.all_replicas() {
                messages.entry(node).or_default().push(at);
            }
        }
    }
    let mut delivered = Delivered::default();
    for (node, which) in messages {
        if node != target && liveness.state(node) == PeerState::Down {
            delivered.owing.extend(which);
            delivered.apart = true;
            continue;
        }
        let chosen = which.iter().filter_map(|at| entries.get(*at).cloned().flatten());
        let message = peer::Write { entries: chosen.map(peer::Entry::from).collect() };
        let body = request::Body::Write(message);
        let call = Call { epoch: ring.epoch().0, arcs, timeout: TIMEOUT, body };
        match transport.call(Target::Node(node), call).await {
            // Applied or superseded: it needs the hint no more.
            Ok(response::Body::Write(done)) if done.verdicts.len() == which.len() => {
                for (at, verdict) in which.iter().zip(&done.verdicts) {
                    if verdict.damaged {
                        delivered.owing.insert(*at);
                        delivered.apart = true;
                    } else if verdict.floored {
                        delivered.floored.insert(*at);
                    }
                }
            }
            reply => {
                if let Err(CallError::Refused(failure)) = &reply {
                    delivered.invalid |= failure.cause() == Cause::Invalid;
                    delivered.apart |= match failure.cause() {
                        // With a time to wait it is the target's own clock that is off.
                        Cause::Clock => failure.retry_after_ms == 0,
                        Cause::Corrupt | Cause::NotReplica => true,
                        _ => false,
                    };
                }
                delivered.apart |= node != target;
                delivered.owing.extend(which);
            }
        }
    }
    delivered
}
