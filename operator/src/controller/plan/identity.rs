//! Which cluster this is, and whose data are on which volume.

use super::{Blocked, Decision, Step, VolumeRef, blocked};
use crate::controller::world::{Desired, Observed, RingView, Said, Volume};
use uuid::Uuid;

/// Nothing goes on where the ring, the volumes and the record are of different clusters.
pub(super) fn conflict(observed: &Observed, desired: &Desired) -> Decision {
    let Some(cluster) = observed.cluster() else {
        let of_several = observed.volumes.iter().any(|volume| volume.cluster.is_some());
        if of_several && observed.recorded.cluster.is_none() {
            return Decision::Stop(blocked(
                "SeveralClusters",
                "there are volumes of more than one cluster under this name",
                "set spec.clusterId to the one that is meant, and delete the volume claims of the others",
            ));
        }
        return Decision::Pass;
    };
    if let RingView::Known(ring) = &observed.ring
        && ring.cluster != cluster
    {
        return Decision::Stop(blocked(
            "WrongCluster",
            format!("the pods are of cluster {}, and this object is of cluster {cluster}", ring.cluster),
            "set spec.clusterId of a new GodCluster to the cluster that the volumes belong to",
        ));
    }
    let foreign = observed
        .volumes
        .iter()
        .find_map(|volume| Some((volume, volume.cluster.filter(|other| *other != cluster)?)));
    if let Some((volume, other)) = foreign {
        let claim = desired.volume_name(&volume.place);
        return Decision::Stop(blocked(
            "ForeignVolume",
            format!("volume claim {claim} is of cluster {other}, and this object is of cluster {cluster}"),
            format!(
                "delete {claim} if its data are not needed; else make a GodCluster of this name with \
                 spec.clusterId: {other} in place of this one, whose volumes stay"
            ),
        ));
    }
    if let Some(named) =
        desired.named.filter(|named| observed.recorded.cluster.is_some_and(|it| it != *named))
    {
        return Decision::Blocked(blocked(
            "ClusterFixed",
            format!("spec.clusterId names cluster {named}, and this object is of cluster {cluster} already"),
            "make another GodCluster for that cluster; this one goes on as it is",
        ));
    }
    Decision::Pass
}

/// Which cluster this is, is written down before anything else is: what is found, what the spec names, or a new one.
pub(super) fn record(observed: &Observed, desired: &Desired) -> Decision {
    match observed.recorded.cluster {
        Some(_) => Decision::Pass,
        None => Decision::Do(Step::RecordCluster(observed.cluster().unwrap_or(desired.cluster))),
    }
}

/// Whose data are on a volume is written on the volume, in the node's own words. A node is on one volume: where it
/// would be on two, one is a copy, or somebody answers in another's place.
pub(super) fn mark(observed: &Observed, desired: &Desired) -> Decision {
    let two = observed.volumes.iter().find_map(|volume| {
        let node = volume.node?;
        let other = observed.volumes.iter().find(|it| it.uid != volume.uid && it.node == Some(node))?;
        Some((node, volume, other))
    });
    if let Some((node, one, other)) = two {
        return Decision::Stop(several_volumes(desired, node, one, other));
    }
    for volume in observed.volumes.iter().filter(|volume| !volume.terminating) {
        let Some(pod) = observed.pod_at(&volume.place).filter(|pod| !pod.terminating) else { continue };
        let (node, cluster) = match pod.said {
            Said::Nothing => continue,
            Said::Fresh(node) => (node, None),
            Said::Member { node, cluster } => (node, Some(cluster)),
        };
        if volume.node.is_some_and(|known| known != node) {
            return Decision::Stop(blocked(
                "VolumeChanged",
                format!(
                    "on the volume of {}-{} was node {}, and now there is node {node}: its data were removed by hand",
                    volume.place.pool,
                    volume.place.ordinal,
                    volume.node.unwrap_or_default()
                ),
                "delete that pod's volume claim, then the pod: the node is replaced by a new one",
            ));
        }
        if volume.node.is_none()
            && let Some(other) = observed.volume_of(node)
        {
            return Decision::Stop(several_volumes(desired, node, other, volume));
        }
        if volume.node.is_none() || (volume.cluster.is_none() && cluster.is_some()) {
            return Decision::Do(Step::Mark { volume: VolumeRef::to(volume), node, cluster });
        }
    }
    Decision::Pass
}

fn several_volumes(desired: &Desired, node: Uuid, one: &Volume, other: &Volume) -> Blocked {
    let (one, other) = (desired.volume_name(&one.place), desired.volume_name(&other.place));
    blocked(
        "SeveralVolumes",
        format!("volume claims {one} and {other} are both said to hold node {node}"),
        "see which of them is a copy, and delete that one, or its annotation god-db.io/node",
    )
}
