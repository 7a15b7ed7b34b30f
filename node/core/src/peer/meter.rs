//! Rate, errors and duration of calls, one set a peer.

use super::{CallError, Target};
use god_proto::peer::{Frame, Response};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use std::time::Duration;

/// Calls of which the duration is taken: one in this many. A clock read and a histogram entry on each one would cost
/// as much as the queue itself.
pub(super) const SAMPLE: u64 = 16;

/// The handles are looked up once: a lookup by labels costs more than a call's share of a frame.
pub(super) struct Meter {
    pub calls: Counter,
    pub frames: Counter,
    pub seconds: Histogram,
    peer: String,
    not_sent: Counter,
    queue_full: Counter,
    lost: Counter,
    timed_out: Counter,
    refused: Counter,
}

impl Meter {
    /// Bare addresses share one label, so that the number of series stays bounded.
    pub fn new(target: &Target) -> Meter {
        let peer = match target {
            Target::Node(node) => node.to_string(),
            Target::Address(_) => "address".to_owned(),
        };
        let error =
            |kind: &'static str| counter!("god_peer_errors_total", "peer" => peer.clone(), "kind" => kind);
        Meter {
            calls: counter!("god_peer_calls_total", "peer" => peer.clone()),
            frames: counter!("god_peer_frames_total", "peer" => peer.clone()),
            seconds: histogram!("god_peer_call_seconds", "peer" => peer.clone()),
            not_sent: error("not_sent"),
            queue_full: error("queue_full"),
            lost: error("lost"),
            timed_out: error("timed_out"),
            refused: error("refused"),
            peer,
        }
    }

    /// Calls that wait to be sent on a connection.
    pub fn waiting(&self, number: usize) -> Gauge {
        gauge!("god_peer_queue_requests", "peer" => self.peer.clone(), "connection" => number.to_string())
    }

    /// Counts an error by its kind.
    pub fn error(&self, error: &CallError) {
        match error {
            CallError::NotSent(_) => self.not_sent.increment(1),
            CallError::QueueFull => self.queue_full.increment(1),
            CallError::Lost(_) => self.lost.increment(1),
            CallError::TimedOut => self.timed_out.increment(1),
            CallError::Refused(_) => self.refused.increment(1),
        }
    }

    /// Counts an answered call of known duration.
    pub fn took(&self, duration: Duration) {
        self.seconds.record(duration);
    }
}

/// What the answering side counts.
pub(super) struct ServerMeter {
    pub requests: Counter,
    pub frames: Counter,
    pub late: Counter,
}

impl ServerMeter {
    pub fn new() -> ServerMeter {
        ServerMeter {
            requests: counter!("god_peer_served_requests_total"),
            frames: counter!("god_peer_served_frames_total"),
            late: counter!("god_peer_served_late_total"),
        }
    }
}

/// A frame that only answers.
pub(super) fn answers(responses: Vec<Response>) -> Frame {
    Frame { responses, ..Frame::default() }
}
