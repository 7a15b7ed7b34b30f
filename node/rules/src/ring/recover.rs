//! A ring whose voters are lost for good, made decidable again by those that are left. Pure.
//!
//! The register decides each epoch by a majority of voters, so without one it decides nothing, and nothing here can
//! prove what the lost ones decided last. So this is no step of the register but a person's word: that the named nodes
//! never come back. The ring that follows has an epoch above any that they can have decided, and one that no two
//! survivors can give it at once.

use super::{change::choose_voters, next::ChangeError};
use god_proto::{
    ids::{MAX_NODE, NodeId},
    ring::{Ring, quorums},
    v1::{Member, MemberState, RecoveryRisk},
};
use std::collections::BTreeSet;

/// Epochs that a recovery skips: more than the lost voters can have decided unseen.
const LEAP: u64 = 1_000_000;

/// Numbers that it skips, of nodes and of keyspaces: each is given once and for ever, and the lost voters may have
/// given some unseen (GONE-BY-ID). Small enough for as many recoveries as a cluster may live to see.
const LEAP_NUMBERS: u32 = 1 << 12;
/// Numbers of arcs that it skips.
const LEAP_ARCS: u64 = 1 << 32;

/// What a recovery does.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// The ring that follows.
    pub ring: Ring,
    /// What may be gone, a keyspace each.
    pub risks: Vec<RecoveryRisk>,
}

/// Plans the recovery of a ring, the newest one that any survivor knows, from the loss of nodes. `by` carries it out;
/// `answering` are the nodes that answer it, itself among them.
///
/// # Errors
///
/// `Invalid`: a majority of voters answers, so that nothing needs to be recovered; a node said to be lost answers or is
/// unknown; a voter that does not answer is not said to be lost.
pub fn recover(
    ring: &Ring,
    by: NodeId,
    answering: &BTreeSet<NodeId>,
    lost: &BTreeSet<NodeId>,
) -> Result<Recovery, ChangeError> {
    let refuse = |message: String| Err(ChangeError::Invalid(message));
    if let Some(unknown) = lost.iter().find(|node| ring.node(**node).is_none()) {
        return refuse(format!("there is no node {unknown}; `god status` lists them"));
    }
    if let Some(here) = lost.iter().find(|node| answering.contains(node)) {
        return refuse(format!("node {here} answers: it is not lost"));
    }
    let voters: Vec<NodeId> = ring.voters().collect();
    let there = voters.iter().filter(|voter| answering.contains(voter)).count();
    if 2 * there > voters.len() {
        return refuse(format!(
            "{there} of {} voters answer, so the ring can change: use `god ring change --leave N --lost` or \
             `--replace OLD:NEW --lost`",
            voters.len()
        ));
    }
    if let Some(silent) = voters.iter().find(|voter| !answering.contains(voter) && !lost.contains(voter)) {
        return refuse(format!(
            "voter {silent} does not answer and is not said to be lost: start it, or name it as well if it never \
             comes back"
        ));
    }
    let mut document = ring.document().clone();
    document.epoch = (document.epoch / LEAP + 1) * LEAP + u64::from(by.0);
    document.next_node = leap(document.next_node, LEAP_NUMBERS)?;
    document.next_keyspace = leap(document.next_keyspace, LEAP_NUMBERS)?;
    document.next_arc = document.next_arc.saturating_add(LEAP_ARCS);
    // Those who did not hear of this may go on with another ring of an epoch between: no arc is the same as in theirs
    // (but for those who recover the ring apart, at the same time).
    document.arcs.iter_mut().for_each(|arc| arc.changed = 0);
    for node in document.nodes.iter_mut().filter(|node| lost.contains(&NodeId(node.number))) {
        node.state = MemberState::Leaving.into();
    }
    let present: Vec<u32> = answering.iter().map(|node| node.0).collect();
    let active = |node: &&Member| node.state() == MemberState::Active && present.contains(&node.number);
    let left: Vec<Member> = document.nodes.iter().filter(active).cloned().collect();
    // All of these are up, so that there are voters if there is one of them.
    let Some(voters) = choose_voters(&left, &document.voters, &BTreeSet::new()) else {
        return refuse("no active node answers".to_owned());
    };
    document.voters = voters;
    Ok(Recovery { ring: Ring::new(document)?, risks: risks(ring, lost) })
}

fn leap(number: u32, by: u32) -> Result<u32, ChangeError> {
    let beyond = number.checked_add(by).filter(|number| *number <= MAX_NODE);
    beyond.ok_or_else(|| ChangeError::Invalid("the cluster has no numbers left to skip".to_owned()))
}

/// What the loss of nodes may have taken with it.
fn risks(ring: &Ring, lost: &BTreeSet<NodeId>) -> Vec<RecoveryRisk> {
    let risk = |keyspace: &god_proto::v1::Keyspace| {
        let mut risk = RecoveryRisk { keyspace: keyspace.name.clone(), ..RecoveryRisk::default() };
        for arc in ring.arcs().iter().filter(|arc| arc.keyspace.0 == keyspace.id) {
            let gone = arc.replicas.iter().filter(|node| lost.contains(node)).count();
            risk.arcs += 1;
            if gone == arc.replicas.len() {
                risk.arcs_gone += 1;
            } else if gone >= quorums(keyspace, arc.replicas.len()).least_write_quorum as usize {
                risk.arcs_at_risk += 1;
            }
        }
        risk
    };
    ring.keyspaces().iter().filter(|keyspace| keyspace.live).map(risk).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::{Founding, Joiner, found, join, mark_live};
    use god_proto::ids::KeyspaceId;
    use uuid::Uuid;

    fn live(nodes: u128) -> Ring {
        let joiner = |number: u128| Joiner {
            uuid: Uuid::from_u128(number),
            peer_address: format!("node-{number}:7100"),
            grpc_address: String::new(),
            http_address: String::new(),
            zone: String::new(),
            weight: 1.0,
            version: "1".to_owned(),
            takes_part: true,
        };
        let founding = Founding {
            replicas: 3,
            write_quorum: 2,
            read_quorum: 2,
            virtual_nodes: 4,
            under_replicated: false,
        };
        let mut ring = found(Uuid::from_u128(9), &joiner(1), founding).unwrap();
        for number in 2..=nodes {
            ring = join(&ring, &joiner(number), &BTreeSet::new(), &BTreeSet::new()).unwrap().unwrap();
        }
        mark_live(&ring, KeyspaceId(1)).unwrap().unwrap()
    }

    fn nodes(numbers: &[u32]) -> BTreeSet<NodeId> {
        numbers.iter().map(|number| NodeId(*number)).collect()
    }

    #[test]
    fn what_is_left_can_decide_and_what_may_be_lost_is_said() {
        let ring = live(5);
        let made = recover(&ring, NodeId(4), &nodes(&[4, 5]), &nodes(&[1, 2, 3])).unwrap();
        assert_eq!(made.ring.epoch().0, LEAP + 4);
        assert_eq!(
            made.ring.voters().collect::<Vec<_>>(),
            [NodeId(4)],
            "one of two: neither is needed by the other"
        );
        let lost = made.ring.nodes().iter().filter(|node| node.state() == MemberState::Leaving).count();
        assert_eq!(lost, 3);
        let [risk] = &made.risks[..] else { panic!("{:?}", made.risks) };
        assert_eq!(risk.arcs as usize, ring.arcs().len());
        assert!(risk.arcs_gone > 0 && risk.arcs_at_risk > 0, "{risk:?}");
        let (before, after) = (ring.document(), made.ring.document());
        assert!(after.next_node >= before.next_node + 1_000, "the lost ones may have taken in others");
        assert!(after.next_keyspace >= before.next_keyspace + 1_000 && after.next_arc >= 1 << 32);
        let again = recover(&made.ring, NodeId(4), &nodes(&[4, 5]), &nodes(&[1, 2, 3]));
        assert!(again.is_err(), "its voters answer now");
    }

    #[test]
    fn nothing_is_recovered_that_is_not_lost() {
        let ring = live(3);
        let refused = |answering: &[u32], lost: &[u32], word: &str| {
            let error = recover(&ring, NodeId(1), &nodes(answering), &nodes(lost)).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        };
        refused(&[1, 2], &[3], "the ring can change");
        refused(&[1], &[2], "voter 3 does not answer");
        refused(&[1, 2], &[2, 3], "node 2 answers");
        refused(&[1], &[2, 3, 9], "no node 9");
    }
}
