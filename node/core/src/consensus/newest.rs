//! Whether the ring that a node knows is the newest: a question to the voters that changes nothing.
//!
//! A later ring is decided once a majority of the voters have accepted it, and each majority meets each other. So where
//! a majority have accepted nothing beyond the ring that is known, none can have been decided before the first of them
//! was asked (invariant EMPTY-CONFIRMED).

use super::register::{Register, RegisterError, valid};
use god_proto::{
    peer::{self, request},
    ring::Ring,
};
use god_rules::paxos::majority;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout_at},
};

/// How often voters are asked before what some of them have accepted, and nobody finished, is finished here.
const PATIENCE: u32 = 3;
/// The longest pause between two questions.
const MAX_PAUSE: Duration = Duration::from_millis(200);

/// Questions whether the ring is the newest: one at a time.
#[derive(Default)]
pub(super) struct Confirming {
    /// The last one that was answered with yes, by its number. Held while one is asked.
    confirmed: Mutex<u64>,
    /// How many were begun.
    begun: AtomicU64,
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
    /// Some have accepted one; it may be decided.
    Accepted,
    /// Too few answered.
    Silent,
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
        let turn = timeout_at(deadline, self.confirming.confirmed.lock()).await;
        let mut confirmed = turn.map_err(|_| self.no_quorum())?;
        // One that began after this call.
        if *confirmed >= next {
            return Ok(());
        }
        let this = self.confirming.begun.fetch_add(1, SeqCst) + 1;
        timeout_at(deadline, self.until_newest(deadline)).await.map_err(|_| self.no_quorum())??;
        *confirmed = this;
        Ok(())
    }

    async fn until_newest(&self, deadline: Instant) -> Result<(), RegisterError> {
        let (mut pause, mut unfinished) = (Duration::from_millis(4), 0);
        loop {
            let ring = self.current.get().ok_or(RegisterError::NoRing)?;
            match self.beyond(&ring).await {
                Beyond::Nothing => return Ok(()),
                Beyond::Decided(newer) => {
                    self.learn(newer).await?;
                    continue;
                }
                Beyond::Accepted => unfinished += 1,
                Beyond::Silent => {}
            }
            if unfinished >= PATIENCE {
                self.finish(&ring, deadline).await?;
                unfinished = 0;
            }
            sleep(pause / 2 + Duration::from_micros(self.seams.entropy.below(pause.as_micros() as u64)))
                .await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Asks all voters of a ring what they know beyond it. A ballot that is absent asks for no promise.
    async fn beyond(&self, ring: &Arc<Ring>) -> Beyond {
        let epoch = ring.epoch().0 + 1;
        let voters: Vec<_> = ring.voters().collect();
        let mut answers =
            self.ask(ring, &voters, request::Body::Prepare(peer::Prepare { epoch, ballot: None }));
        let (mut without, mut accepted) = (0, false);
        while let Some((_, answer)) = futures::StreamExt::next(&mut answers).await {
            let Ok(done) = answer else { continue };
            if let Some(newer) = valid(done.decided, epoch) {
                return Beyond::Decided(newer);
            }
            if done.accepted.is_some() {
                accepted = true;
                continue;
            }
            without += 1;
            if without == majority(voters.len()) {
                return Beyond::Nothing;
            }
        }
        if accepted { Beyond::Accepted } else { Beyond::Silent }
    }

    /// Has something decided after a ring: what voters have accepted, or the same ring once more.
    async fn finish(&self, ring: &Ring, deadline: Instant) -> Result<(), RegisterError> {
        let known = ring.epoch();
        let left = deadline.saturating_duration_since(Instant::now());
        let changed = self.change(left, |ring| {
            if ring.epoch() > known {
                return Ok(None);
            }
            let mut same = ring.document().clone();
            same.epoch += 1;
            Ok(Some(Ring::new(same)?))
        });
        changed.await.map(|_| ())
    }
}
