//! A ring whose voters are lost for good, made decidable again by those that are left. Pure.
//!
//! The register decides each epoch by a majority of voters, so without one it decides nothing, and nothing here can
//! prove what the lost ones decided last. So this is no step of the register but a person's word: that the named nodes
//! never come back. The ring that follows has an epoch above any that they can have decided, and so have all that
//! follow on it: of survivors that recover it apart, each goes on in epochs of its own (invariant RECOVERED-APART).

use super::{carry::deal_empty, change::choose_voters, next::ChangeError};
use god_proto::{
    ids::{MAX_NODE, NodeId},
    ring::{Ring, quorums},
    v1::{Member, MemberState, RecoveryRisk, RingDocument},
};
use std::collections::BTreeSet;

/// Epochs from one recovery to the next, at the least: as many for each of so many survivors, by its number.
const LEAP: u64 = EPOCHS << 16;
/// More than are decided unseen: by the lost voters before, and after it by a survivor that recovers the ring apart.
const EPOCHS: u64 = 1 << 20;

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
/// unknown; a node that does not answer is not said to be lost, and its ring may be a newer one, by which arcs have
/// moved and what was deleted is gone.
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
             `--replace OLD:NEW --lost`; where one of them answers and cannot write, stop it and name it as well",
            voters.len()
        ));
    }
    let all = ring.nodes().iter().map(|node| NodeId(node.number));
    let silent: Vec<String> = all
        .filter(|node| !answering.contains(node) && !lost.contains(node))
        .map(|node| node.to_string())
        .collect();
    if !silent.is_empty() {
        return refuse(format!(
            "nodes {} do not answer and are not said to be lost; what they know of the ring may be newer: start them, \
             or name those as well that never come back",
            silent.join(", ")
        ));
    }
    let mut document = ring.document().clone();
    document.epoch = (document.epoch / LEAP + 1) * LEAP + u64::from(by.0) % (LEAP / EPOCHS) * EPOCHS;
    document.next_node = leap(document.next_node, LEAP_NUMBERS)?;
    document.next_keyspace = leap(document.next_keyspace, LEAP_NUMBERS)?;
    document.next_arc = document.next_arc.saturating_add(LEAP_ARCS);
    // Those who did not hear of this may go on with another ring of an epoch between: no arc is the same as in theirs.
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
    // What is empty needs none of those that are lost.
    deal_empty(ring, &mut document);
    Ok(Recovery { ring: Ring::new(document)?, risks: risks(ring, lost) })
}

/// Whether a ring is what a recovery made, or follows on that: nobody else decides epochs of its own.
pub fn follows(recovered: &Ring, ring: &RingDocument) -> bool {
    let first = recovered.epoch().0;
    (first..first + EPOCHS).contains(&ring.epoch)
}

fn leap(number: u32, by: u32) -> Result<u32, ChangeError> {
    let beyond = number.checked_add(by).filter(|number| *number <= MAX_NODE);
    beyond.ok_or_else(|| ChangeError::Invalid("the cluster has no numbers left to skip".to_owned()))
}

/// What the loss of nodes may have taken with it.
fn risks(ring: &Ring, lost: &BTreeSet<NodeId>) -> Vec<RecoveryRisk> {
    let risk = |keyspace: &god_proto::v1::Keyspace| {
        let mut risk = RecoveryRisk { keyspace: keyspace.name.clone(), ..RecoveryRisk::default() };
        let gone = |set: &&Vec<NodeId>| set.iter().filter(|node| lost.contains(node)).count();
        let is_gone = |set: &&Vec<NodeId>| gone(set) == set.len();
        let at_risk =
            |set: &&Vec<NodeId>| gone(set) >= quorums(keyspace, set.len()).least_write_quorum as usize;
        for arc in ring.arcs().iter().filter(|arc| arc.keyspace.0 == keyspace.id) {
            // One that changes hands may have done so unseen: the worse of both sets counts.
            let sets = || std::iter::once(&arc.replicas).chain(&arc.next);
            risk.arcs += 1;
            if sets().any(|set| is_gone(&set)) {
                risk.arcs_gone += 1;
            } else if sets().any(|set| at_risk(&set)) {
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
    use crate::ring::{Founding, Joiner, create_keyspace, found, join, mark_live};
    use god_proto::{
        ids::KeyspaceId,
        v1::{Keyspace, Transition},
    };
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
        assert_eq!(made.ring.epoch().0, LEAP + 4 * EPOCHS);
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
        refused(&[1], &[2], "nodes 3 do not answer");
        refused(&[1, 2], &[2, 3], "node 2 answers");
        refused(&[1], &[2, 3, 9], "no node 9");
    }

    #[test]
    fn who_decides_nothing_may_know_a_newer_ring_all_the_same() {
        let error = recover(&live(6), NodeId(4), &nodes(&[4]), &nodes(&[1, 2, 3])).unwrap_err().to_string();
        assert!(error.contains("nodes 5, 6 do not answer"), "{error}");
    }

    #[test]
    fn who_recovers_apart_decides_no_epoch_of_the_others() {
        let ring = live(6);
        let one = recover(&ring, NodeId(4), &nodes(&[4, 6]), &nodes(&[1, 2, 3, 5])).unwrap().ring;
        let other = recover(&ring, NodeId(5), &nodes(&[5]), &nodes(&[1, 2, 3, 4, 6])).unwrap().ring;
        assert!(follows(&one, one.document()) && !follows(&one, other.document()));
        assert!(one.epoch().0 + 1_000_000 < other.epoch().0, "{} and {}", one.epoch(), other.epoch());
        // Nor does who recovers what one of them made of it.
        let next = recover(&one, NodeId(6), &nodes(&[6]), &nodes(&[1, 2, 3, 4, 5])).unwrap().ring;
        assert!(next.epoch().0 > other.epoch().0 + 1_000_000, "{} and {}", next.epoch(), other.epoch());
    }

    #[test]
    fn of_an_arc_that_changes_hands_the_worse_set_counts() {
        let mut document = live(6).document().clone();
        for arc in &mut document.arcs {
            arc.replicas = vec![4, 5, 6];
            arc.transition = None;
        }
        document.arcs[0].transition = Some(Transition { next: vec![1, 2, 3], since: document.epoch });
        let ring = Ring::new(document).unwrap();
        let made = recover(&ring, NodeId(4), &nodes(&[4, 5, 6]), &nodes(&[1, 2, 3])).unwrap();
        assert_eq!((made.risks[0].arcs_gone, made.risks[0].arcs_at_risk), (1, 0));
    }

    #[test]
    fn what_is_empty_is_dealt_to_those_who_are_left() {
        let keyspace = Keyspace { name: "empty".to_owned(), replicas: 3, ..Keyspace::default() };
        let ring = create_keyspace(&live(5), &keyspace, &[]).unwrap();
        let made = recover(&ring, NodeId(4), &nodes(&[4, 5]), &nodes(&[1, 2, 3])).unwrap().ring;
        let empty = made.keyspace("empty").unwrap().id;
        let mut arcs = made.arcs().iter().filter(|arc| arc.keyspace.0 == empty);
        assert!(arcs.all(|arc| arc.replicas.iter().all(|node| node.0 >= 4)));
    }
}
