//! What may be concluded from what was seen. Everything that destroys rests on these, and each of them needs a ring
//! that a majority of its members acknowledges: not knowing is never evidence (invariants VOLUME-KEPT, LOST-IS-LOST).

use super::{Observed, Pod, Ring, RingView, Said, Volume};
use uuid::Uuid;

impl Observed {
    /// The ring, if it is known and is this cluster's.
    pub fn ring(&self) -> Option<&Ring> {
        match &self.ring {
            RingView::Known(ring) if self.cluster().is_none_or(|cluster| cluster == ring.cluster) => {
                Some(ring)
            }
            _ => None,
        }
    }

    /// The ring, if a majority of its members knows it too, and none knows a newer one.
    pub fn agreed_ring(&self) -> Option<&Ring> {
        // Without a record of which cluster this is, nothing is concluded from any ring.
        self.cluster()?;
        self.ring().filter(|ring| ring.is_acknowledged() && ring.is_newest())
    }

    /// The node left for good: the agreed ring says so.
    pub fn has_left(&self, node: Uuid) -> bool {
        self.agreed_ring()
            .is_some_and(|ring| ring.retired.contains(&node) && !ring.members.contains_key(&node))
    }

    /// The volume's node left for good.
    pub fn is_retired(&self, volume: &Volume) -> bool {
        volume.node.is_some_and(|node| self.has_left(node))
    }

    /// The volume's node never became a member: the agreed ring does not have it, or has nobody that is not on another
    /// volume.
    pub fn is_nobodys(&self, volume: &Volume) -> bool {
        let Some(ring) = self.agreed_ring() else { return false };
        match volume.node {
            // One that said it was a member, and is neither that nor retired, is a riddle: it is kept.
            Some(node) => {
                volume.cluster.is_none() && !ring.members.contains_key(&node) && !ring.retired.contains(&node)
            }
            None => ring.members.keys().all(|member| {
                self.volumes.iter().any(|other| other.uid != volume.uid && other.node == Some(*member))
            }),
        }
    }

    /// The volume is, or may be, needed.
    pub fn is_held(&self, volume: &Volume) -> bool {
        !self.is_retired(volume) && !self.is_nobodys(volume)
    }

    /// The member's volume is gone: every volume there is belongs to somebody else, and no pod is, or may be, its. A
    /// node whose claim is not there, or is not labelled, has its data for as long as it runs.
    pub fn is_homeless(&self, node: Uuid) -> bool {
        self.agreed_ring().is_some_and(|ring| ring.members.contains_key(&node))
            && self.volumes.iter().all(|volume| volume.node.is_some_and(|other| other != node))
            && self.pods.iter().all(|pod| match pod.said.node() {
                Some(said) => said != node,
                None => pod.pending || self.volume_at(&pod.place).is_some(),
            })
    }

    /// What runs in a pod without a volume is, or may be, a member: nobody says that it is not.
    pub fn may_be_member(&self, pod: &Pod) -> bool {
        let Some(ring) = self.agreed_ring() else { return true };
        match pod.said {
            Said::Fresh(node) => ring.members.contains_key(&node),
            // As with volumes: one that is neither a member nor retired is a riddle.
            Said::Member { node, .. } => !self.has_left(node),
            // Without a volume it cannot have started.
            Said::Nothing if pod.pending => false,
            Said::Nothing => {
                let is_elsewhere =
                    |member: &Uuid| self.place_of(*member).is_some_and(|place| *place != pod.place);
                !ring.members.keys().all(is_elsewhere)
            }
        }
    }

    /// The pod keeps data that go with it: its node is, or may be, a member, and no volume of its is there.
    pub fn is_irreplaceable(&self, pod: &Pod) -> bool {
        self.volume_at(&pod.place).is_none() && self.may_be_member(pod)
    }

    /// Pods that a pool's set must keep, so that every volume that is or may be needed has one.
    pub fn held(&self, pool: &str) -> u32 {
        let of_pool = self.volumes.iter().filter(|volume| volume.place.pool == pool);
        of_pool
            .filter(|volume| self.is_held(volume))
            .map(|volume| volume.place.ordinal + 1)
            .max()
            .unwrap_or(0)
    }
}
