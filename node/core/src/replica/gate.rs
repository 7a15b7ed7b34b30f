//! Who writes, who removes alone, and who waits for those that began before.

use parking_lot::Mutex;
use std::collections::VecDeque;
use tokio::sync::{Notify, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Held shared from the check of a write's epoch until the write is applied (invariant FENCED). Whoever waits for what
/// began before keeps nobody from beginning.
#[derive(Default)]
pub(super) struct Gate {
    apart: RwLock<()>,
    turns: Mutex<Turns>,
    ended: Notify,
}

/// How many are at work, by how many had waited when they began.
struct Turns {
    /// The number of the earliest turn that is not over.
    first: u64,
    /// Of it and of those after it, the last of which goes on; never empty.
    at_work: VecDeque<u64>,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns { first: 0, at_work: VecDeque::from([0]) }
    }
}

/// Part of a turn, until it is dropped.
struct Turn<'a> {
    gate: &'a Gate,
    number: u64,
}

/// A write is under way.
pub struct Admitted<'a> {
    _turn: Turn<'a>,
    _beside_others: RwLockReadGuard<'a, ()>,
}

/// A removal is under way, and no write.
pub(super) struct Alone<'a> {
    _turn: Turn<'a>,
    _apart: RwLockWriteGuard<'a, ()>,
}

impl Gate {
    /// For a write: waits for a removal that is under way.
    pub(super) async fn admit(&self) -> Admitted<'_> {
        let beside_others = self.apart.read().await;
        Admitted { _turn: self.begin(), _beside_others: beside_others }
    }

    /// For a removal: waits for the writes that are under way, and keeps others waiting.
    pub(super) async fn alone(&self) -> Alone<'_> {
        let apart = self.apart.write().await;
        Alone { _turn: self.begin(), _apart: apart }
    }

    /// Waits for the writes and the removal that began before.
    pub(super) async fn drained(&self) {
        let until = self.turns.lock().end_of_those_before();
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // Before the look: what ends after it wakes this.
            ended.as_mut().enable();
            if self.turns.lock().first >= until {
                return;
            }
            ended.await;
        }
    }

    fn begin(&self) -> Turn<'_> {
        let mut turns = self.turns.lock();
        if let Some(at_work) = turns.at_work.back_mut() {
            *at_work += 1;
        }
        Turn { gate: self, number: turns.last() }
    }
}

impl Turns {
    fn last(&self) -> u64 {
        self.first + self.at_work.len() as u64 - 1
    }

    /// The first turn that none of those has part in who are at work now.
    fn end_of_those_before(&mut self) -> u64 {
        if self.at_work.back().is_some_and(|at_work| *at_work > 0) {
            self.at_work.push_back(0);
        }
        self.last()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut turns = self.gate.turns.lock();
        let at = (self.number - turns.first) as usize;
        turns.at_work[at] -= 1;
        let mut is_over = false;
        while turns.at_work.len() > 1 && turns.at_work[0] == 0 {
            turns.at_work.pop_front();
            turns.first += 1;
            is_over = true;
        }
        drop(turns);
        if is_over {
            self.gate.ended.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test]
    async fn who_waits_for_those_before_keeps_no_one_waiting_and_waits_for_no_one_after() {
        let gate = Gate::default();
        gate.drained().now_or_never().expect("nobody is at work");
        let first = gate.admit().await;
        let mut waits = Box::pin(gate.drained());
        assert!(waits.as_mut().now_or_never().is_none());
        let second = gate.admit().now_or_never().expect("no removal is under way");
        let mut waits_for_both = Box::pin(gate.drained());
        assert!(waits_for_both.as_mut().now_or_never().is_none());
        let third = gate.admit().now_or_never().expect("no removal is under way");
        drop(second);
        assert!(waits.as_mut().now_or_never().is_none());
        assert!(waits_for_both.as_mut().now_or_never().is_none());
        drop(first);
        waits.now_or_never().expect("the first is over");
        waits_for_both.now_or_never().expect("the first and the second are over");
        let mut waits = Box::pin(gate.drained());
        assert!(waits.as_mut().now_or_never().is_none());
        drop(third);
        waits.now_or_never().expect("all are over");
        assert_eq!(gate.turns.lock().at_work.len(), 1, "what is over is forgotten");
    }

    #[tokio::test]
    async fn a_removal_waits_for_writes_and_is_waited_for() {
        let gate = Gate::default();
        let write = gate.admit().await;
        let mut removal = Box::pin(gate.alone());
        assert!(removal.as_mut().now_or_never().is_none());
        drop(write);
        let alone = removal.now_or_never().expect("the write is over");
        assert!(gate.admit().now_or_never().is_none());
        let mut waits = Box::pin(gate.drained());
        assert!(waits.as_mut().now_or_never().is_none());
        drop(alone);
        waits.now_or_never().expect("the removal is over");
        gate.admit().now_or_never().expect("the removal is over");
    }
}
