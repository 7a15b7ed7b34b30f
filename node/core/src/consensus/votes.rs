//! Whether those who are to decide from the next ring on are there to do so.

use super::register::{Register, VOTER_TIMEOUT};
use crate::{
    peer::{Call, Target},
    ring::{ChangeError, may_fail, most_failures},
};
use futures::{StreamExt, stream::FuturesUnordered};
use god_proto::{
    ids::NodeId,
    peer::{Ping, request, response},
    ring::Ring,
    v1::MemberState,
};
use std::{collections::BTreeSet, time::Duration};

impl Register {
    /// Whether a majority of the voters of `next` answer a question that is asked now, and may as many of them fail as
    /// of those of `ring` that answer it, where they are others. What was known of them before may be of a time before
    /// their disks were lost, or before they were heard of; and with one of them as the only voter nothing would be
    /// decided any more (invariant VOTES-LIVE). Not asked is this node, nor who asks at this moment to join the ring.
    /// At most [`VOTER_TIMEOUT`].
    ///
    /// # Errors
    ///
    /// `TooFew`: who does not answer, or is not ready to decide; or who answers, and would decide no more.
    pub(super) async fn voters_answer(&self, ring: &Ring, next: &Ring) -> Result<(), ChangeError> {
        let (old, new): (BTreeSet<NodeId>, BTreeSet<NodeId>) =
            (ring.voters().collect(), next.voters().collect());
        if old == new {
            return Ok(());
        }
        let is_asked = |node: &NodeId| ring.node(*node).is_some_and(|it| it.uuid != self.me.as_bytes()[..]);
        let (asked, mut there): (BTreeSet<NodeId>, BTreeSet<NodeId>) =
            old.union(&new).copied().partition(is_asked);
        let bears = |voters: &BTreeSet<NodeId>, there: &BTreeSet<NodeId>| {
            may_fail(voters.len(), voters.intersection(there).count())
        };
        let most = most_failures(counted(ring, next)) as isize;
        let mut answers: FuturesUnordered<_> = asked
            .iter()
            .map(|voter| async move { (*voter, self.is_ready(*voter, VOTER_TIMEOUT).await) })
            .collect();
        // Whoever of the old ones is yet to answer, no more than all of them are there.
        let enough = bears(&old, &old).clamp(0, most);
        while bears(&new, &there) < enough
            && let Some((voter, is_ready)) = answers.next().await
        {
            there.extend(is_ready.then_some(voter));
        }
        drop(answers);
        let new_bear = bears(&new, &there);
        if new_bear >= bears(&old, &there).clamp(0, most) {
            return Ok(());
        }
        let named =
            |nodes: Vec<&NodeId>| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Err(ChangeError::TooFew(match new_bear < 0 {
            true => format!(
                "nodes {} are to decide what the ring is, and do not answer, or are not ready to; the ring can change \
                 so once they are, or are known not to be",
                named(new.difference(&there).collect())
            ),
            false => format!(
                "nodes {} answer, and would decide no more what the ring is, so that fewer might fail; the ring can \
                 change so once it is known what answers",
                named(old.difference(&new).filter(|node| there.contains(node)).collect())
            ),
        }))
    }

    /// Whether a node answers now, and is ready to decide.
    pub async fn is_ready(&self, node: NodeId, timeout: Duration) -> bool {
        let body = request::Body::Ping(Ping { sent_us: 0, epoch: 0 });
        let call = Call { epoch: 0, arcs: 0, timeout, body };
        let answer = self.transport.call(Target::Node(node), call).await;
        matches!(answer, Ok(response::Body::Pong(pong)) if pong.ready)
    }
}

/// Of how many nodes the next voters are chosen: where one is retired, others that leave are not waited for.
fn counted(ring: &Ring, next: &Ring) -> usize {
    let active = || next.nodes().iter().filter(|node| node.state() == MemberState::Active).count();
    if next.nodes().len() < ring.nodes().len() { active() } else { next.nodes().len() }
}
