//! One connection to one node: a stream of numbered calls, many to a frame, with deadlines and an end to waiting.

mod calls;
mod task;

pub(crate) use calls::{CallResult, Caller, Waiting};
pub(crate) use god_stream::Lost;
pub(crate) use task::{Connection, ConnectionState};

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::sync::{Notify, Semaphore};

/// What all connections of a client share.
pub(crate) struct ConnectionContext {
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// After how much silence a connection counts as stalled.
    pub stall: Duration,
    /// Places for calls in flight; a connection gives back what its calls took.
    pub places: Semaphore,
    /// Rings, and what is heard of them.
    pub news: News,
}

impl ConnectionContext {
    /// Nothing is in flight and nothing known.
    pub fn new(connect_timeout: Duration, stall: Duration, in_flight: usize) -> ConnectionContext {
        ConnectionContext { connect_timeout, stall, places: Semaphore::new(in_flight), news: News::default() }
    }
}

/// What connections hear about the ring.
#[derive(Default)]
pub(crate) struct News {
    known: AtomicU64,
    heard: AtomicU64,
    arrived: Notify,
}

impl News {
    /// A node told its epoch. Cost: one load where it is nothing new.
    pub fn heard(&self, epoch: u64) {
        if epoch > self.known.load(Ordering::Relaxed)
            && self.heard.fetch_max(epoch, Ordering::Relaxed) < epoch
        {
            self.arrived.notify_one();
        }
    }

    /// The ring of this epoch is in use.
    pub fn knows(&self, epoch: u64) {
        self.known.fetch_max(epoch, Ordering::Relaxed);
    }

    /// Whether there is a newer ring than the one in use.
    pub fn is_behind(&self) -> bool {
        self.heard.load(Ordering::Relaxed) > self.known.load(Ordering::Relaxed)
    }

    /// The ring may have changed: a node cannot be reached, or the client ends.
    pub fn look(&self) {
        self.arrived.notify_one();
    }

    /// Waits for a reason to ask for the ring.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }
}
