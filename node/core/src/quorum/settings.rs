//! What a coordinator may be told.

use crate::{budget::Budget, peer::BULK_BYTES};
use god_proto::MAX_TIMEOUT;
use std::time::Duration;

/// How a coordinator works. The defaults are those of a node.
#[derive(Clone, Debug)]
pub struct QuorumSettings {
    /// How long a request may take that does not say. Longer rides out slow replicas; shorter tells clients sooner.
    pub default_timeout: Duration,
    /// The longest that any request may take, whatever it says.
    pub max_timeout: Duration,
    /// After this long without an answer, another replica is asked as well; three smoothed round trips to the slow
    /// one where that is longer. Lower cuts the tail of reads, and asks more replicas for nothing.
    pub hedge_delay: Duration,
    /// Bytes of writes that may still be under way to the last replicas after their clients were answered. Beyond
    /// it, those replicas get hints instead.
    pub background_bytes: usize,
    /// Values of more bytes are sent by other nodes only once they are paid for (SIZES-FIRST), which takes one more
    /// round trip. At least one.
    pub largest_unpaid: u32,
    /// The node's; what replicas answer to clients' reads is paid from the clients' part of it, while it is held.
    pub budget: Budget,
}

impl Default for QuorumSettings {
    fn default() -> QuorumSettings {
        QuorumSettings {
            default_timeout: Duration::from_secs(5),
            max_timeout: MAX_TIMEOUT,
            hedge_delay: Duration::from_millis(20),
            background_bytes: 64 << 20,
            largest_unpaid: BULK_BYTES as u32,
            budget: Budget::default(),
        }
    }
}

impl QuorumSettings {
    /// How long a request may take that asks for `timeout_ms`; 0 asks for nothing.
    pub fn timeout(&self, timeout_ms: u32) -> Duration {
        let asked = match timeout_ms {
            0 => self.default_timeout,
            ms => Duration::from_millis(ms.into()),
        };
        asked.min(self.max_timeout)
    }
}
