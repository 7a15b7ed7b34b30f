//! Whether the ring that a node knows is the newest: a question to the voters that changes nothing.
//!
//! A later ring is decided once a majority of the voters have accepted it, and each majority meets each other. So where
//! a majority have accepted nothing beyond the ring that is known, none can have been decided before the first of them
//! was asked (invariant EMPTY-CONFIRMED).

use super::register::{Register, RegisterError, ballot, valid};
use crate::ring::next;
use god_proto::{
    ids::Epoch,
    peer::{self, request},
    ring::Ring,
};
use god_rules::paxos::{Ballot, majority};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};

/// How long what some voters have accepted may go unfinished until it is finished here: its proposer is at it.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest pause between two questions.
const MAX_PAUSE: Duration = Duration::from_millis(200);

/// Questions whether the ring is the newest: one at a time.
#[derive(Default)]
pub(super) struct Confirming {
    /// Held while one is asked.
    turn: Mutex<Turn>,
    /// How many were begun.
    begun: AtomicU64,
}

#[derive(Default)]
struct Turn {
    /// The last question that was answered with yes, by its number.
    confirmed: u64,
    /// The epoch after which something was found accepted, and when it was first. It outlives calls that end early.
    unfinished: Option<(Epoch, Instant)>,
}

#[cfg(test)]
impl Confirming {
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(SeqCst)
    }
}

/// What voters know beyond a ring.
enum Beyond {
    /// No later one had been decided when they were asked.
    Nothing,
    Decided(Arc<Ring>),
    /// Some accepted one long ago; it may be decided.
    Unfinished,
    /// Too few said that they had accepted none.
    Open,
}

impl Register {
    /// Makes sure that the current ring was the newest one at some moment since the call. Ends by `timeout`. Cost: a
    /// message to each voter, shared by all who call before it is sent; nothing is written, but where a proposer was
    /// lost in the middle of a change: that is finished then.
    ///
    /// # Errors
    /// Too few voters answered in time.
    pub async fn confirm(&self, timeout: Duration) -> Result<(), RegisterError> {
        let deadline = Instant::now() + timeout;
        let next = self.confirming.begun.load(SeqCst) + 1;
        let turn = timeout_at(deadline, self.confirming.turn.lock()).await;
        let mut turn = turn.map_err(|_| self.no_quorum())?;
        // One that began after this call.
        if turn.confirmed >= next {
            return Ok(());
        }
        let this = self.confirming.begun.fetch_add(1, SeqCst) + 1;
        let asked = timeout_at(deadline, self.until_newest(deadline, &mut turn.unfinished)).await;
        asked.map_err(|_| self.no_quorum())??;
        *turn = Turn { confirmed: this, unfinished: None };
        Ok(())
    }

    async fn until_newest(
        &self,
        deadline: Instant,
        unfinished: &mut Option<(Epoch, Instant)>,
    ) -> Result<(), RegisterError> {
        let mut pause = Duration::from_millis(4);
        loop {
            let ring = self.current.get().ok_or(RegisterError::NoRing)?;
            match self.beyond(&ring, unfinished).await {
                Beyond::Nothing => return Ok(()),
                Beyond::Decided(newer) => {
                    self.learn(newer).await?;
                    continue;
                }
                Beyond::Unfinished => {
                    self.finish(&ring, deadline).await?;
                    continue;
                }
                Beyond::Open => {}
            }
            self.pause(&mut pause, MAX_PAUSE).await;
        }
    }

    /// Asks all voters of a ring what they know beyond it. A ballot that is absent asks for no promise. Whoever has
    /// promised nothing has accepted nothing; of others, those tell that know the question.
    async fn beyond(&self, ring: &Arc<Ring>, unfinished: &mut Option<(Epoch, Instant)>) -> Beyond {
        let epoch = ring.epoch().0 + 1;
        let voters: Vec<_> = ring.voters().collect();
        let mut answers =
            self.ask(ring, &voters, request::Body::Prepare(peer::Prepare { epoch, ballot: None }));
        let mut without = 0;
        while let Some((_, answer)) = futures::StreamExt::next(&mut answers).await {
            let Ok(done) = answer else { continue };
            if let Some(newer) = valid(done.decided, epoch) {
                return Beyond::Decided(newer);
            }
            let has_promised = done.promised.map(ballot).unwrap_or_default() != Ballot::default();
            if done.accepted.is_none() && (done.tells_accepted || !has_promised) {
                without += 1;
                if without == majority(voters.len()) {
                    return Beyond::Nothing;
                }
                continue;
            }
            let now = Instant::now();
            let since =
                unfinished.filter(|(after, _)| *after == ring.epoch()).map_or(now, |(_, since)| since);
            *unfinished = Some((ring.epoch(), since));
            if now.duration_since(since) >= PATIENCE {
                return Beyond::Unfinished;
            }
        }
        Beyond::Open
    }

    /// Has something decided after a ring: what voters have accepted, or the same ring once more.
    async fn finish(&self, ring: &Ring, deadline: Instant) -> Result<(), RegisterError> {
        let known = ring.epoch();
        let left = deadline.saturating_duration_since(Instant::now());
        let changed = self.change(left, |ring| {
            if ring.epoch() > known {
                return Ok(None);
            }
            Ok(Some(Ring::new(next(ring))?))
        });
        changed.await.map(|_| ())
    }
}
