//! The bounds and times of node-to-node calls.

use crate::{budget::Budget, connections::Times};
use god_proto::MAX_VALUE;
use std::time::Duration;

/// From this size on, in bytes, what is asked or answered goes the way of what is big, by default.
pub(crate) const BULK_BYTES: usize = 64 << 10;

/// Each has a default that suits a cluster in one region.
#[derive(Clone, Debug)]
pub struct PeerSettings {
    /// Connections to each peer. The last one takes what is big, so at least two keep small calls from waiting
    /// behind an 8 MiB value.
    pub connections: usize,
    /// Calls that may wait to be sent on one connection.
    pub queue_requests: usize,
    /// Bytes that may wait to be sent on one connection.
    pub queue_bytes: usize,
    /// The most requests or responses in one frame.
    pub frame_requests: usize,
    /// Where a frame is cut, in bytes. A single larger request travels alone.
    pub frame_bytes: usize,
    /// Requests of one stream that may be worked on at once. Beyond that the stream is not read.
    pub in_flight: usize,
    /// From this size on, in bytes, a request goes to the last connection.
    pub bulk_bytes: usize,
    /// How long connecting and saying hello may take.
    pub connect_timeout: Duration,
    /// The first wait after a failed connect; it doubles at each further one. Meanwhile calls fail at once.
    pub backoff_min: Duration,
    /// The longest wait after a failed connect.
    pub backoff_max: Duration,
    /// How often a silent connection is pinged.
    pub keep_alive: Duration,
    /// How long an answer to such a ping may take before the connection counts as broken.
    pub keep_alive_timeout: Duration,
    /// How long what is told, rather than asked, is worth sending.
    pub tell_timeout: Duration,
    /// After how long without a call a connection to a node of the ring is dropped.
    pub node_idle: Duration,
    /// After how long without a call a connection to a bare address is dropped.
    pub address_idle: Duration,
    /// The most bare addresses to keep connections to.
    pub addresses: usize,
    /// Connections from other nodes that are served at a time.
    pub served_connections: usize,
    /// How long those may take for what.
    pub served_times: Times,
    /// What the requests of other nodes, and the answers to them, are paid from.
    pub budget: Budget,
    /// How long streams may take to finish when the node stops.
    pub grace: Duration,
}

impl Default for PeerSettings {
    fn default() -> Self {
        PeerSettings {
            connections: 2,
            queue_requests: 16_384,
            queue_bytes: 64 << 20,
            frame_requests: 1_024,
            frame_bytes: 1 << 20,
            in_flight: 4_096,
            bulk_bytes: BULK_BYTES,
            connect_timeout: Duration::from_secs(1),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(2),
            keep_alive: Duration::from_secs(5),
            keep_alive_timeout: Duration::from_secs(5),
            tell_timeout: Duration::from_secs(1),
            node_idle: Duration::from_mins(15),
            address_idle: Duration::from_mins(1),
            addresses: 64,
            served_connections: 4_096,
            served_times: Times::default(),
            budget: Budget::default(),
            grace: Duration::from_secs(5),
        }
    }
}

/// What both ends of HTTP/2 are told: windows that hold a largest value, so that one round trip does not cut it up.
pub(super) const STREAM_WINDOW: u32 = MAX_VALUE as u32;
/// The same for a whole connection.
pub(super) const CONNECTION_WINDOW: u32 = 16 << 20;
/// HTTP/2's own frames; larger ones save work on large values.
pub(super) const HTTP2_FRAME: u32 = 256 << 10;
/// Bytes of a message that are not the request: its frame, number, epoch and time.
pub(super) const ENVELOPE: usize = 256;
