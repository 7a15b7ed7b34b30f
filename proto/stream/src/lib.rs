//! Many calls over one stream: they wait until it can take a frame, travel together under numbers, and are answered in
//! any order, or lost. Nodes call each other this way, and clients call nodes.
//!
//! - [`Protocol`]: what a user says of its calls.
//! - [`Calls`]: the calls of one connection, and what its task waits for.
//! - [`Frames`]: what one session of it sends.
//!
//! Connecting, reading answers, and what follows on a failure are the user's. Nothing here opens a socket or knows a
//! message.

mod calls;
mod queue;
#[cfg(test)]
mod tests;

pub use calls::{Calls, Frames, unless};

use std::time::Duration;
use tokio::time::Instant;

/// Deadlines are looked after this often at most, which is how late a call may end.
pub const SWEEP: Duration = Duration::from_millis(5);
/// A session that lasted this long was a good one: what failed before it does not count any more.
pub const GOOD_SESSION: Duration = Duration::from_secs(1);
/// Calls leave the first connection for another one when it is this much busier: apart, they share fewer frames.
const SPILL: usize = 64;

/// What is particular to the calls of one kind of connection.
pub trait Protocol: Send + Sync + 'static {
    /// What is asked.
    type Call: Send;
    /// Who waits for the answer; given back with what became of the call.
    type Caller: Send;
    /// A call on the wire.
    type Request;

    /// Whether others go first once before a frame is taken. Where calls come in bursts the first of them wakes whoever
    /// sends, who would send that one alone.
    const STANDS_BACK: bool;

    /// A call as it is sent, with the time that is left for it. The number is 0 where nobody waits for an answer.
    fn request(id: u64, call: Self::Call, left: Duration) -> Self::Request;

    /// Whether a call need not be sent, as its caller has gone.
    fn is_abandoned(caller: &Self::Caller) -> bool;

    /// How busy that makes a connection, for [`Calls::load`]. Told of each change, under a lock.
    fn load(&self, backlog: &Backlog) -> usize;

    /// These calls have no answer. No lock is held.
    fn lost(&self, lost: Vec<(Self::Caller, Lost)>);
}

/// A call that was not sent yet.
pub struct Waiting<P: Protocol> {
    /// What is asked.
    pub call: P::Call,
    /// What it takes of a frame, in bytes.
    pub bytes: usize,
    /// When its caller gives up.
    pub deadline: Instant,
    /// None: nobody wants an answer.
    pub caller: Option<P::Caller>,
}

/// How much may wait, and travel together. A single call that is larger than the bytes waits, or travels, alone.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Calls that may wait to be sent.
    pub calls: usize,
    /// Bytes that may wait to be sent.
    pub bytes: usize,
    /// The most calls in one frame.
    pub frame_calls: usize,
    /// Where a frame is cut, in bytes.
    pub frame_bytes: usize,
}

/// What a connection has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Calls that wait to be sent.
    pub waiting: usize,
    /// Bytes that wait to be sent.
    pub bytes: usize,
    /// Calls that have no answer yet, whether they were sent or not.
    pub unanswered: usize,
    /// No deadline of a call is before this one. A lower bound: calls that ended do not move it.
    pub earliest: Option<Instant>,
    /// Since when nothing was heard while answers are due.
    pub silent_since: Option<Instant>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It never left: nothing happened.
    NotSent(String),
    /// It never left, as too much waits already.
    Full,
    /// It was sent, and the session ended.
    Broke(String),
    /// It was sent, and its time is up.
    TimedOut,
    /// It was sent, and given up before its time, as the other side is silent.
    Stalled,
}

/// Which of some connections takes a call: of big ones the last, where they hold up no small one, and else the first
/// that is not much busier than another.
pub fn pick<C>(connections: &[C], is_big: bool, load: impl Fn(&C) -> usize) -> Option<&C> {
    let (mut best, others) = connections.split_first()?;
    for other in others {
        if is_big || load(other) + SPILL < load(best) {
            best = other;
        }
    }
    Some(best)
}

/// How long to wait after so many failures in a row, from 1: twice as long each time, within bounds.
pub fn backoff(min: Duration, max: Duration, failures: u32) -> Duration {
    min.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(max)
}
