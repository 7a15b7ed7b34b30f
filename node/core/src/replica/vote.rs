//! Whether what a replica holds counts for a quorum's read (LAPSED-IS-NO-VOTE).

use super::{Lapse, Replica};
use crate::peer::failure;
use god_proto::{
    peer::{Cause, Failure},
    position::Position,
};

/// See [`Replica::vote`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Vote {
    /// How often something had lapsed before.
    additions: u64,
}

impl Replica {
    /// Whether this replica may say what it holds: asked before it looks, and again with [`Replica::still`] afterwards.
    pub(super) fn vote(&self, meets: impl FnOnce(&Lapse) -> bool) -> Result<Vote, Failure> {
        let additions = self.lapse.count();
        if meets(&self.lapse) { Err(self.no_vote()) } else { Ok(Vote { additions }) }
    }

    /// Whether what was seen since is a vote. Something that lapsed meanwhile may have been seen, even if it was
    /// compared by now. What lapsed elsewhere was not: before a record is overwritten, its own position is noted.
    pub(super) fn still(&self, vote: Vote, touches: impl Fn(&Position) -> bool) -> Result<(), Failure> {
        if self.lapse.added_since(vote.additions, touches) { Err(self.no_vote()) } else { Ok(()) }
    }

    fn no_vote(&self) -> Failure {
        let message = format!(
            "the machine of node {} stopped, or a record there is damaged, and what that may have cost is not compared \
             with the other replicas yet",
            self.me
        );
        failure(Cause::Lapsed, message)
    }
}
