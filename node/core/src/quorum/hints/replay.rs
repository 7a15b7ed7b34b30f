//! Sends hints when their target is there again.

use super::{
    Hints,
    row::{Row, decode_key, decode_value, range_of},
};
use crate::{
    engine::{Batch, Direction, EngineError, Table},
    membership::{Liveness, PeerState},
    peer::{Call, CallError, Target, Transport},
};
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
    /// One hint at a time, to find the one that is refused.
    single: bool,
    /// How many were set aside since the target was last left alone.
    aside: u64,
}

/// What came of some rows.
enum Replayed {
    /// Nothing waits.
    Nothing,
    /// So many bytes of them may go.
    Sent(u64),
    /// One of them is refused for what it is, or for its time.
    Refused,
    /// The only one was refused for its time, and waits behind the others now.
    Aside,
}

impl Hints {
    pub(super) async fn replay(&self, transport: &dyn Transport, liveness: &Liveness) {
        let mut paces: BTreeMap<NodeId, Pace> = BTreeMap::new();
        loop {
            let mut sent = 0;
            let targets: Vec<NodeId> = self.state.lock().loads.keys().copied().collect();
            paces.retain(|target, _| targets.contains(target));
            for target in targets {
                let Some(ring) = self.ring.get() else { continue };
                // What waits for a node that left goes to those who hold its arcs now.
                let up = ring.node(target).is_none() || liveness.state(target) == PeerState::Up;
                let fresh =
                    || Pace { next: Instant::now(), delay: SHORTEST, up: false, single: false, aside: 0 };
                let pace = paces.entry(target).or_insert_with(fresh);
                if up && !pace.up {
                    (pace.next, pace.delay) = (Instant::now(), SHORTEST);
                }
                pace.up = up;
                if !up || pace.next > Instant::now() {
                    continue;
                }
                match self.replay_some(transport, &ring, target, pace.single).await {
                    Ok(Replayed::Nothing) => {}
                    Ok(Replayed::Sent(bytes)) => {
                        sent += bytes;
                        (pace.delay, pace.single) = (SHORTEST, false);
                    }
                    Ok(Replayed::Refused) => {
                        sent += 1;
                        pace.single = true;
                    }
                    Ok(Replayed::Aside) => {
                        sent += 1;
                        pace.aside += 1;
                        let waiting = self.state.lock().loads.get(&target).map_or(0, |load| load.rows);
                        if pace.aside >= waiting {
                            // All that waits was tried, or as many.
                            pace.next = Instant::now() + pace.delay;
                            pace.delay = (pace.delay * 2).min(LONGEST);
                            (pace.single, pace.aside) = (false, 0);
                        }
                    }
                    Err(problem) => {
                        tracing::debug!(%target, problem, "hints are kept for later");
                        pace.next = Instant::now() + pace.delay;
                        pace.delay = (pace.delay * 2).min(LONGEST);
                    }
                }
            }
            // The rate holds over all targets.
            let rate = self.settings.replay_bytes_per_second.max(1);
            let pause = Duration::from_secs_f64(sent as f64 / rate as f64);
            sleep(if sent == 0 { LOOK } else { pause.max(Duration::from_millis(1)) }).await;
        }
    }

    /// Sends the oldest hints of a target, and removes those that are delivered.
    async fn replay_some(
        &self,
        transport: &dyn Transport,
        ring: &Ring,
        target: NodeId,
        single: bool,
    ) -> Result<Replayed, String> {
        let limit = if single { 1 } else { ROWS };
        let rows = self.oldest(target, limit).await.map_err(|error| error.to_string())?;
        if rows.is_empty() {
            return Ok(Replayed::Nothing);
        }
        let entries: Vec<Option<Entry>> = rows.iter().map(|row| decode_value(&row.value)).collect();
        let Delivered { owing, invalid, untimely } = deliver(transport, ring, target, &entries).await;
        if untimely && single {
            for row in rows {
                self.set_aside(row).await.map_err(|error| error.to_string())?;
            }
            return Ok(Replayed::Aside);
        }
        let gone: Vec<(Row, bool)> = rows
            .into_iter()
            .enumerate()
            .map(|(at, row)| (row, !owing.contains(&at) && entries.get(at).is_some_and(Option::is_some)))
            .enumerate()
            .filter(|(at, _)| !owing.contains(at) || (invalid && single))
            .map(|(_, row)| row)
            .collect();
        if gone.is_empty() {
            return if invalid || untimely {
                Ok(Replayed::Refused)
            } else {
                Err("it did not take them".to_owned())
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
                tracing::warn!(%target, "a damaged hint is dropped");
            }
        }
        state.show();
        drop(state);
        self.work.notify_one();
        Ok(Replayed::Sent(bytes))
    }

    /// Puts a hint behind all others of its target.
    async fn set_aside(&self, row: Row) -> Result<(), EngineError> {
        let (Some((target, _)), Some(entry)) = (decode_key(&row.key), decode_value(&row.value)) else {
            return Ok(());
        };
        let sequence = {
            let mut state = self.state.lock();
            state.sequence += 1;
            state.sequence
        };
        let last = Row::new(target, sequence, &entry);
        let mut batch = Batch::default();
        batch.delete(Table::Hints, row.key);
        batch.put(Table::Hints, last.key, last.value);
        let engine = Arc::clone(&self.engine);
        self.offload.run(move || engine.commit(batch)).await
    }

    async fn oldest(&self, target: NodeId, limit: usize) -> Result<Vec<Row>, EngineError> {
        let engine = Arc::clone(&self.engine);
        let work = move || {
            let (start, end) = range_of(target);
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
    /// Whether a message was refused for what it is.
    invalid: bool,
    /// Whether one was refused because a version is ahead of its time.
    untimely: bool,
}

/// Sends each entry to its target or, where that holds no copy any more, to all who do.
async fn deliver(
    transport: &dyn Transport,
    ring: &Ring,
    target: NodeId,
    entries: &[Option<Entry>],
) -> Delivered {
    let mut messages: BTreeMap<NodeId, Vec<usize>> = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        // What is damaged, or of a keyspace that is gone, is sent to nobody.
        let Some(arc) = entry.as_ref().and_then(|entry| ring.arc_at(&entry.position)) else { continue };
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
        let chosen = which.iter().filter_map(|at| entries.get(*at).cloned().flatten());
        let message = peer::Write { entries: chosen.map(peer::Entry::from).collect() };
        let call = Call { epoch: ring.epoch().0, timeout: TIMEOUT, body: request::Body::Write(message) };
        match transport.call(Target::Node(node), call).await {
            // Applied or superseded: it needs the hint no more.
            Ok(response::Body::Write(done)) if done.verdicts.len() == which.len() => {}
            reply => {
                if let Err(CallError::Refused(failure)) = &reply {
                    delivered.invalid |= failure.cause() == Cause::Invalid;
                    // With a time to wait it is the target's own clock that is off.
                    delivered.untimely |= failure.cause() == Cause::Clock && failure.retry_after_ms == 0;
                }
                delivered.owing.extend(which);
            }
        }
    }
    delivered
}
