//! Whether those who are to decide from the next ring on are there to do so.

use super::register::{Register, VOTER_TIMEOUT};
use crate::{
    peer::{Call, Target},
    ring::ChangeError,
};
use futures::{StreamExt, stream::FuturesUnordered};
use god_proto::{
    ids::NodeId,
    peer::{Ping, request, response},
    ring::Ring,
};
use god_rules::paxos::majority;

impl Register {
    /// Whether a majority of the voters of `next` answer a question that is asked now, where they are others than those
    /// of `ring`. What was known of them before may be of a time before their disks were lost, and with one of them as
    /// the only voter nothing would be decided any more (invariant VOTES-LIVE). Who is not in `ring` asks to join it at
    /// this moment. At most [`VOTER_TIMEOUT`].
    ///
    /// # Errors
    ///
    /// `TooFew`: who does not answer, or is not ready to decide.
    pub(super) async fn voters_answer(&self, ring: &Ring, next: &Ring) -> Result<(), ChangeError> {
        if ring.document().voters == next.document().voters {
            return Ok(());
        }
        let (mut silent, mut there) = (Vec::new(), 0);
        for voter in next.voters() {
            let is_me = next.node(voter).is_some_and(|node| node.uuid == self.me.as_bytes()[..]);
            match is_me || ring.node(voter).is_none() {
                true => there += 1,
                false => silent.push(voter),
            }
        }
        let needed = majority(next.voters().count());
        let asked = silent.iter().map(|voter| async move { (*voter, self.is_ready(*voter).await) });
        let mut answers: FuturesUnordered<_> = asked.collect();
        let mut heard = Vec::new();
        while there + heard.len() < needed
            && let Some((voter, is_ready)) = answers.next().await
        {
            heard.extend(is_ready.then_some(voter));
        }
        drop(answers);
        if there + heard.len() >= needed {
            return Ok(());
        }
        silent.retain(|voter| !heard.contains(voter));
        let silent: Vec<String> = silent.iter().map(ToString::to_string).collect();
        Err(ChangeError::TooFew(format!(
            "nodes {} are to decide what the ring is, and do not answer, or are not ready to; the ring can change so \
             once they are, or are known not to be",
            silent.join(", ")
        )))
    }

    async fn is_ready(&self, node: NodeId) -> bool {
        let body = request::Body::Ping(Ping { sent_us: 0, epoch: 0 });
        let call = Call { epoch: 0, arcs: 0, timeout: VOTER_TIMEOUT, body };
        let answer = self.transport.call(Target::Node(node), call).await;
        matches!(answer, Ok(response::Body::Pong(pong)) if pong.ready)
    }
}
