//! Hearing that there is a newer ring than this node's.

use crate::{peer::Target, ring::CurrentRing};
use god_proto::ids::Epoch;
use tokio::sync::watch;

/// Collects what pings, gossip and refusals say about epochs. However many say it, one thing waits to be done: to
/// fetch the newest. Clones share it.
#[derive(Clone)]
pub struct NewerRing {
    ring: CurrentRing,
    heard: watch::Sender<Option<(Target, Epoch)>>,
}

impl NewerRing {
    /// Compares with the ring that this node knows.
    pub fn new(ring: CurrentRing) -> NewerRing {
        NewerRing { ring, heard: watch::Sender::new(None) }
    }

    /// Somebody is at an epoch. Cheap where it is not a newer one.
    pub fn heard(&self, from: Target, epoch: Epoch) {
        if epoch <= self.ring.epoch() {
            return;
        }
        self.heard.send_if_modified(|newest| {
            // The same epoch from somebody else counts: the first one may be gone before it could be asked.
            let news = newest.as_ref().is_none_or(|(_, known)| epoch >= *known);
            if news {
                *newest = Some((from, epoch));
            }
            news
        });
    }

    /// Where to hear of it: one task fetches.
    pub fn listen(&self) -> NewerRingListener {
        NewerRingListener { ring: self.ring.clone(), told: self.heard.clone(), heard: self.heard.subscribe() }
    }
}

/// The fetching end.
pub struct NewerRingListener {
    ring: CurrentRing,
    told: watch::Sender<Option<(Target, Epoch)>>,
    heard: watch::Receiver<Option<(Target, Epoch)>>,
}

impl NewerRingListener {
    /// Whom to ask for the newest ring; waits until there is a newer one. What was told is forgotten then: an epoch
    /// that nobody is at keeps no other from being heard. `None`: nobody can say any more.
    pub async fn next(&mut self) -> Option<(Target, Epoch)> {
        loop {
            self.heard.changed().await.ok()?;
            let mut newest = None;
            self.told.send_if_modified(|told| {
                newest = told.take();
                false
            });
            if let Some((from, epoch)) = newest
                && epoch > self.ring.epoch()
            {
                return Some((from, epoch));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use god_proto::ids::NodeId;

    #[tokio::test]
    async fn of_many_who_speak_of_newer_rings_the_newest_is_asked() {
        let newer = NewerRing::new(CurrentRing::default());
        let mut listener = newer.listen();
        for (node, epoch) in [(1, 3), (2, 5), (3, 4), (4, 0)] {
            newer.heard(Target::Node(NodeId(node)), Epoch(epoch));
        }
        assert_eq!(listener.next().await, Some((Target::Node(NodeId(2)), Epoch(5))));
        newer.heard(Target::Node(NodeId(3)), Epoch(5));
        assert_eq!(listener.next().await, Some((Target::Node(NodeId(3)), Epoch(5))));
    }

    #[tokio::test]
    async fn an_epoch_that_nobody_is_at_keeps_no_other_from_being_heard() {
        let newer = NewerRing::new(CurrentRing::default());
        let mut listener = newer.listen();
        newer.heard(Target::Node(NodeId(1)), Epoch(u64::MAX));
        assert_eq!(listener.next().await, Some((Target::Node(NodeId(1)), Epoch(u64::MAX))));
        newer.heard(Target::Node(NodeId(2)), Epoch(2));
        assert_eq!(listener.next().await, Some((Target::Node(NodeId(2)), Epoch(2))));
    }
}
