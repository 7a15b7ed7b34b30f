//! What waits to be sent, and what waits for its answer. No I/O and no clock: both are handed in.

use crate::{Backlog, Bounds, Lost, Protocol, Waiting};
use std::{collections::VecDeque, mem, task::Waker};
use tokio::time::Instant;

/// A place for a call that was sent. Its number is part of the call's id, so that no answer has to be searched for;
/// the count of its uses, from 1, is the other part, so that a late answer meets nobody else's call and no id is 0.
struct Slot<C> {
    uses: u32,
    /// By when it has to be answered, and to whom.
    sent: Option<(Instant, C)>,
}

/// Slots that stay where none is in use.
const SLOTS_KEPT: usize = 1_024;

/// Callers to be told, once the lock is released.
pub(crate) type Losses<P> = Vec<(<P as Protocol>::Caller, Lost)>;

/// The state of a connection, behind its lock.
pub(crate) struct Queue<P: Protocol> {
    waiting: VecDeque<Waiting<P>>,
    bytes: usize,
    slots: Vec<Slot<P::Caller>>,
    /// Uses that a new slot is taken to have had: those of slots that were given up may have been as many.
    former_uses: u32,
    free: Vec<u32>,
    in_use: usize,
    earliest: Option<Instant>,
    silent_since: Option<Instant>,
    /// Why calls fail at once, while they do.
    pub down: Option<String>,
    /// Whether frames may be taken from it.
    pub open: bool,
    /// Counts sessions, so that the frames of an earlier one end.
    pub session: u64,
    /// Who waits for something to send.
    pub writer: Option<Waker>,
}

/// What became of a call that was queued.
pub(crate) struct Pushed {
    /// Whoever sends frames, if it has to be woken.
    pub writer: Option<Waker>,
    /// The call's deadline is before all others: whoever looks after deadlines must know.
    pub sooner: bool,
}

impl<P: Protocol> Queue<P> {
    pub fn new() -> Queue<P> {
        Queue {
            waiting: VecDeque::new(),
            bytes: 0,
            slots: Vec::new(),
            former_uses: 0,
            free: Vec::new(),
            in_use: 0,
            earliest: None,
            silent_since: None,
            down: None,
            open: false,
            session: 0,
            writer: None,
        }
    }

    pub fn backlog(&self) -> Backlog {
        Backlog {
            waiting: self.waiting.len(),
            bytes: self.bytes,
            unanswered: self.waiting.len() + self.in_use,
            earliest: self.earliest,
            silent_since: self.silent_since,
        }
    }

    /// Takes a call, or says why not.
    pub fn push(&mut self, bounds: &Bounds, call: Waiting<P>) -> Result<Pushed, Lost> {
        if let Some(why) = &self.down {
            return Err(Lost::NotSent(why.clone()));
        }
        let full = self.waiting.len() >= bounds.calls
            || (!self.waiting.is_empty() && self.bytes + call.bytes > bounds.bytes);
        if full {
            return Err(Lost::Full);
        }
        let sooner = self.earliest.is_none_or(|earliest| call.deadline < earliest);
        if sooner {
            self.earliest = Some(call.deadline);
        }
        self.bytes += call.bytes;
        self.waiting.push_back(call);
        Ok(Pushed { writer: if self.open { self.writer.take() } else { None }, sooner })
    }

    /// Takes out what goes into the next frame, oldest first.
    pub fn take_frame(&mut self, bounds: &Bounds, now: Instant, lost: &mut Losses<P>) -> Vec<P::Request> {
        if !self.open {
            return Vec::new();
        }
        let mut requests = Vec::with_capacity(self.waiting.len().min(bounds.frame_calls));
        let mut bytes = 0;
        while requests.len() < bounds.frame_calls {
            let fits =
                |call: &mut Waiting<P>| requests.is_empty() || bytes + call.bytes <= bounds.frame_bytes;
            let Some(waiting) = self.waiting.pop_front_if(fits) else { break };
            self.bytes -= waiting.bytes;
            let left = waiting.deadline.saturating_duration_since(now);
            if left.is_zero() || waiting.caller.as_ref().is_some_and(P::is_abandoned) {
                lost.extend(waiting.caller.map(|caller| (caller, unsent())));
                continue;
            }
            bytes += waiting.bytes;
            let deadline = waiting.deadline;
            let id = waiting.caller.map_or(0, |caller| self.keep(deadline, caller, now));
            requests.push(P::request(id, waiting.call, left));
        }
        requests
    }

    fn keep(&mut self, deadline: Instant, caller: P::Caller, now: Instant) -> u64 {
        if self.in_use == 0 {
            self.silent_since = Some(now);
        }
        self.in_use += 1;
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { uses: self.former_uses, sent: None });
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[at as usize];
        slot.uses = slot.uses.checked_add(1).unwrap_or(1);
        slot.sent = Some((deadline, caller));
        u64::from(slot.uses) << 32 | u64::from(at)
    }

    /// Who waits for the answer to this call, if anybody does yet.
    pub fn answered(&mut self, id: u64) -> Option<P::Caller> {
        let at = id as u32;
        let slot = self.slots.get_mut(at as usize).filter(|slot| slot.uses == (id >> 32) as u32)?;
        let (_, caller) = slot.sent.take()?;
        self.free.push(at);
        self.in_use -= 1;
        Some(caller)
    }

    /// The other side said something.
    pub fn heard(&mut self, now: Instant) {
        self.silent_since = (self.in_use > 0).then_some(now);
    }

    /// Ends the calls whose time is up, and those that were sent and are given up. Worth calling at `earliest`, not
    /// before. Cost: O(calls that wait, and the most that were ever sent and unanswered).
    pub fn expire(&mut self, now: Instant, given_up: impl Fn(&P::Caller) -> bool, lost: &mut Losses<P>) {
        let mut earliest: Option<Instant> = None;
        let mut stays = |deadline: Instant| {
            let stays = deadline > now;
            if stays && earliest.is_none_or(|earliest| deadline < earliest) {
                earliest = Some(deadline);
            }
            stays
        };
        for (at, slot) in self.slots.iter_mut().enumerate() {
            let Some((deadline, caller)) = &slot.sent else { continue };
            let why = match given_up(caller) {
                true => Lost::Stalled,
                false if !stays(*deadline) => Lost::TimedOut,
                false => continue,
            };
            lost.extend(slot.sent.take().map(|(_, caller)| (caller, why)));
            self.free.push(at as u32);
            self.in_use -= 1;
        }
        self.waiting.retain_mut(|call| {
            let stays = stays(call.deadline);
            if !stays {
                self.bytes -= call.bytes;
                lost.extend(call.caller.take().map(|caller| (caller, unsent())));
            }
            stays
        });
        if self.in_use == 0 {
            self.silent_since = None;
            self.shrink();
        }
        self.earliest = earliest;
    }

    #[cfg(test)]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Gives up slots where none is in use, if they are many: whoever looks for deadlines looks at each.
    fn shrink(&mut self) {
        if self.slots.len() > SLOTS_KEPT {
            self.former_uses = self.slots.iter().map(|slot| slot.uses).fold(self.former_uses, u32::max);
            self.slots = Vec::new();
            self.free = Vec::new();
        }
    }

    /// Ends a session, and with it all calls: those that were sent are lost, the others never left.
    pub fn end(&mut self, why: &str, lost: &mut Losses<P>) -> Option<Waker> {
        self.open = false;
        self.session += 1;
        self.bytes = 0;
        self.in_use = 0;
        self.earliest = None;
        self.silent_since = None;
        for (at, slot) in self.slots.iter_mut().enumerate() {
            let Some((_, caller)) = slot.sent.take() else { continue };
            self.free.push(at as u32);
            lost.push((caller, Lost::Broke(why.to_owned())));
        }
        self.shrink();
        for call in mem::take(&mut self.waiting) {
            lost.extend(call.caller.map(|caller| (caller, Lost::NotSent(why.to_owned()))));
        }
        self.writer.take()
    }
}

fn unsent() -> Lost {
    Lost::NotSent("the time was up before it could be sent".to_owned())
}
