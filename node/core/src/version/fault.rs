//! Why the clock does not do as asked.

use god_proto::MAX_AHEAD_MS;
use god_proto::ids::NodeId;

/// Why the clock does not do as asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClockError {
    /// Somebody's clock is too far ahead.
    #[error(
        "a version is {ahead_ms} ms ahead of this node's clock, and {MAX_AHEAD_MS} ms is the most; \
         check the clocks of this node and of node {node}"
    )]
    TooFarAhead {
        /// How far.
        ahead_ms: u64,
        /// Whose stamp it is.
        node: NodeId,
    },
    /// The node has no number yet, so its stamps would not be its own.
    #[error("this node has not joined a cluster; it cannot write")]
    NoNumber,
    /// The mark cannot be made durable.
    #[error("the clock's mark cannot be written: {0}")]
    Mark(String),
    /// The wall is behind what was promised before a restart by more than others would accept.
    #[error(
        "this node's clock is {0} ms behind what it stamped before; set the clock, or wait until it has caught up"
    )]
    Behind(u64),
    /// This node's clock is too far from the others'.
    #[error("this node's clock is {}, and {MAX_AHEAD_MS} ms is the most; set its clock", how_far(*.0))]
    Off(i64),
    /// Of two clocks one is off.
    #[error(
        "this node's clock and the others' are {0} ms apart, and {MAX_AHEAD_MS} ms is the most; which of them is off \
         cannot be told until more nodes answer"
    )]
    Apart(u64),
    /// It was set, or the node was started, and no other clock was measured since.
    #[error("this node's clock is not compared with the others' yet")]
    Doubted,
}

fn how_far(ahead_ms: i64) -> String {
    let side = if ahead_ms > 0 { "ahead of" } else { "behind" };
    format!("{} ms {side} the others'", ahead_ms.unsigned_abs())
}

impl ClockError {
    /// Whether it says something of this node's clock, whatever the version is.
    pub fn is_own(&self) -> bool {
        matches!(
            self,
            ClockError::Off(_) | ClockError::Apart(_) | ClockError::Doubted | ClockError::Behind(_)
        )
    }
}
