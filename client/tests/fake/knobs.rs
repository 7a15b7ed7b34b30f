//! What can be made to go wrong at one node, and what it has seen.

use god_proto::v1::{self, call};
use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use tokio::sync::watch;

/// The knobs of one node.
pub struct Knobs {
    /// Calls are taken in and not answered, until it is turned off.
    hung: watch::Sender<bool>,
    /// Counts how often all streams were cut.
    cuts: watch::Sender<u64>,
    /// No stream is taken.
    pub down: AtomicBool,
    /// Every call is refused as busy.
    pub busy: AtomicBool,
    /// It has not heard of any keyspace.
    pub ignorant: AtomicBool,
    /// Who asks for the ring gets no answer.
    pub keeps_ring: AtomicBool,
    /// Of the calls in one frame, the last one is done first: calls that are under way together have no order.
    pub backwards: AtomicBool,
    pub frames: AtomicUsize,
    /// How often it was asked for all keyspaces.
    pub listed: AtomicUsize,
    /// What it says of operations, one answer after the other; the last one stays.
    operations: Mutex<VecDeque<v1::ListOperationsReply>>,
    seen: Mutex<Vec<call::Call>>,
}

impl Default for Knobs {
    fn default() -> Knobs {
        Knobs {
            hung: watch::Sender::new(false),
            cuts: watch::Sender::new(0),
            down: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            ignorant: AtomicBool::new(false),
            keeps_ring: AtomicBool::new(false),
            backwards: AtomicBool::new(false),
            frames: AtomicUsize::new(0),
            listed: AtomicUsize::new(0),
            operations: Mutex::default(),
            seen: Mutex::default(),
        }
    }
}

impl Knobs {
    /// Stops answering, or goes on.
    pub fn hang(&self, hung: bool) {
        self.hung.send_replace(hung);
    }

    /// Ends all streams.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Ends all streams, and takes no more.
    pub fn go_down(&self) {
        self.down.store(true, Ordering::SeqCst);
        self.cut();
    }

    /// Sets what it says of operations, one answer after the other; the last one stays.
    pub fn tell_operations(&self, answers: impl IntoIterator<Item = v1::ListOperationsReply>) {
        *self.operations.lock().unwrap() = answers.into_iter().collect();
    }

    pub(super) fn operations(&self) -> v1::ListOperationsReply {
        let mut answers = self.operations.lock().unwrap();
        let next = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        next.unwrap_or_default()
    }

    /// The calls about single keys that came, in their order.
    pub fn seen(&self) -> Vec<call::Call> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn sees(&self, frame: &v1::PipelineRequest) {
        self.frames.fetch_add(1, Ordering::SeqCst);
        let calls = frame.calls.iter().filter_map(|numbered| numbered.call.as_ref()?.call.clone());
        self.seen.lock().unwrap().extend(calls);
    }

    /// Returns once it answers.
    pub(super) async fn answers(&self) {
        let _ = self.hung.subscribe().wait_for(|hung| !hung).await;
    }

    /// Returns at the next cut.
    pub(super) fn is_cut(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut cuts = self.cuts.subscribe();
        cuts.mark_unchanged();
        async move {
            let _ = cuts.changed().await;
        }
    }
}
