//! The ring as it is on the wire, and as plans know it.

use crate::controller::world::ring::{
    Copies, Ended, MemberHealth, Operation, OperationPhase, Progress, Report, Ring, RingArc, RingKeyspace,
    RingMember, Wish,
};
use god_proto::v1::{self, MemberState, wish::Wish as WishKind};
use std::collections::BTreeMap;
use uuid::Uuid;

fn uuid(bytes: &[u8]) -> Result<Uuid, String> {
    Uuid::from_slice(bytes).map_err(|_| format!("a UUID has 16 bytes, and not {}", bytes.len()))
}

fn thousandths(weight: f64) -> u32 {
    (weight * 1_000.0).round() as u32
}

/// The ring of a document, with what its members say of themselves. An error says what cannot be understood.
pub(super) fn ring(
    document: &v1::RingDocument,
    status: &v1::StatusReply,
    progress: &[v1::OperationStatus],
) -> Result<Ring, String> {
    let said: BTreeMap<u32, &v1::NodeStatus> = status.nodes.iter().map(|node| (node.number, node)).collect();
    let mut members = BTreeMap::new();
    for node in &document.nodes {
        let status = said.get(&node.number).filter(|status| status.uuid == node.uuid);
        let report = status.and_then(|status| status.report.as_ref());
        let state = match (status.map(|status| status.state.as_str()), report) {
            // One that leaves answers, or does not.
            (Some("leaving"), Some(report)) if report.ready => MemberHealth::Up,
            (Some("leaving"), Some(_)) | (Some("unready"), _) => MemberHealth::Unready,
            (Some("up"), _) => MemberHealth::Up,
            (Some("down"), _) => MemberHealth::Down,
            _ => MemberHealth::Suspect,
        };
        let member = RingMember {
            number: node.number,
            zone: node.zone.clone(),
            weight: thousandths(node.weight),
            leaving: node.state() == MemberState::Leaving,
            version: node.version.clone(),
            state,
            report: report.map(|report| Report {
                epoch: report.epoch,
                bytes: report.bytes,
                disk_free: report.disk_free_bytes,
                hints: report.hints_pending,
                suspect_arcs: report.suspect_arcs.saturating_add(report.lapsed_arcs),
                misplaced: report.misplaced_entries,
                reasons: report.reasons.clone(),
            }),
        };
        members.insert(uuid(&node.uuid)?, member);
    }
    Ok(Ring {
        cluster: uuid(&document.cluster)?,
        epoch: document.epoch,
        members,
        retired: document.retired.iter().map(|bytes| uuid(bytes)).collect::<Result<_, _>>()?,
        voters: document.voters.iter().copied().collect(),
        keyspaces: document.keyspaces.iter().map(keyspace).collect(),
        arcs: document.arcs.iter().map(arc).collect::<Result<_, _>>()?,
        operations: document
            .operations
            .iter()
            .map(|operation| {
                let status = progress
                    .iter()
                    .find(|status| status.operation.as_ref().is_some_and(|it| it.id == operation.id));
                self::operation(operation, status)
            })
            .collect::<Result<_, _>>()?,
        ended: document
            .ended
            .iter()
            .map(|ended| Ended {
                id: ended.id.clone(),
                cancelled: ended.cancelled,
                refused: ended.refused.clone(),
                epoch: ended.epoch,
            })
            .collect(),
    })
}

fn keyspace(keyspace: &v1::Keyspace) -> RingKeyspace {
    RingKeyspace {
        id: keyspace.id,
        name: keyspace.name.clone(),
        copies: Copies {
            replicas: keyspace.replicas,
            write_quorum: keyspace.write_quorum,
            read_quorum: keyspace.read_quorum,
        },
        live: keyspace.live,
        ordered: keyspace.partitioner() == v1::Partitioner::Ordered,
    }
}

fn arc(arc: &v1::Arc) -> Result<RingArc, String> {
    let keyspace = arc.start.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes));
    Ok(RingArc {
        keyspace: keyspace.ok_or_else(|| format!("arc {} starts in no keyspace", arc.id))?,
        replicas: arc.replicas.clone(),
        next: arc.transition.as_ref().map(|transition| transition.next.clone()),
    })
}

fn operation(operation: &v1::Operation, status: Option<&v1::OperationStatus>) -> Result<Operation, String> {
    let asked = operation.wish.as_ref().and_then(|wish| wish.wish.as_ref());
    let wish = match asked.ok_or_else(|| format!("operation {} asks for nothing known", operation.id))? {
        WishKind::Join(wish) => Wish::Join(wish.node),
        WishKind::Leave(wish) => Wish::Leave { node: wish.node, lost: wish.lost },
        WishKind::Replace(wish) => Wish::Replace { old: wish.old, new: wish.new, lost: wish.lost },
        WishKind::Reweight(wish) => Wish::Reweight(wish.node, thousandths(wish.weight)),
        WishKind::Rezone(wish) => Wish::Rezone(wish.node, wish.zone.clone()),
        WishKind::Replicas(wish) => Wish::Replicas(
            wish.keyspace,
            Copies {
                replicas: wish.replicas,
                write_quorum: wish.write_quorum,
                read_quorum: wish.read_quorum,
            },
        ),
        WishKind::Rebalance(_) => Wish::Rebalance,
    };
    let phase = match operation.phase() {
        v1::OperationPhase::Waiting => OperationPhase::Waiting,
        v1::OperationPhase::Moving => OperationPhase::Moving,
        v1::OperationPhase::Cleaning => OperationPhase::Cleaning,
        v1::OperationPhase::Cancelling => OperationPhase::Cancelling,
    };
    let figures = status.map(|status| Progress {
        arcs_done: status.arcs_done,
        arcs_total: status.arcs_total,
        bytes_done: status.bytes_done,
        bytes_total: status.bytes_total,
        eta_ms: status.eta_ms,
    });
    Ok(Operation {
        id: operation.id.clone(),
        wish,
        phase,
        progress: figures.unwrap_or_default(),
        blocked: status.map(|status| status.blocked.clone()).unwrap_or_default(),
    })
}

/// A wish as it is asked for.
pub(super) fn wish(wish: &Wish) -> v1::Wish {
    let asked = match wish {
        Wish::Join(node) => WishKind::Join(v1::JoinWish { node: *node }),
        Wish::Leave { node, lost } => WishKind::Leave(v1::LeaveWish { node: *node, lost: *lost }),
        Wish::Replace { old, new, lost } => {
            WishKind::Replace(v1::ReplaceWish { old: *old, new: *new, lost: *lost })
        }
        Wish::Reweight(node, weight) => {
            WishKind::Reweight(v1::ReweightWish { node: *node, weight: f64::from(*weight) / 1_000.0 })
        }
        Wish::Rezone(node, zone) => WishKind::Rezone(v1::RezoneWish { node: *node, zone: zone.clone() }),
        Wish::Replicas(keyspace, copies) => WishKind::Replicas(v1::ReplicasWish {
            keyspace: *keyspace,
            replicas: copies.replicas,
            write_quorum: copies.write_quorum,
            read_quorum: copies.read_quorum,
        }),
        Wish::Rebalance => WishKind::Rebalance(v1::RebalanceWish {}),
    };
    v1::Wish { wish: Some(asked) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_comes_back_as_it_was_sent() {
        let copies = Copies { replicas: 5, write_quorum: 3, read_quorum: 3 };
        for sent in [
            Wish::Join(4),
            Wish::Leave { node: 4, lost: true },
            Wish::Replace { old: 1, new: 2, lost: false },
            Wish::Reweight(3, 2_500),
            Wish::Rezone(3, "z".to_owned()),
            Wish::Replicas(1, copies),
            Wish::Rebalance,
        ] {
            let row =
                v1::Operation { id: "x".to_owned(), wish: Some(wish(&sent)), ..v1::Operation::default() };
            assert_eq!(operation(&row, None).unwrap().wish, sent);
        }
    }

    #[test]
    fn a_ring_that_cannot_be_understood_is_an_error_and_no_empty_ring() {
        let document = v1::RingDocument { cluster: vec![1, 2].into(), ..v1::RingDocument::default() };
        assert!(ring(&document, &v1::StatusReply::default(), &[]).is_err());
    }

    #[test]
    fn a_member_that_nobody_reports_on_is_not_taken_for_down() {
        let node = v1::Member { number: 1, uuid: vec![7; 16].into(), ..v1::Member::default() };
        let document = v1::RingDocument {
            cluster: vec![1; 16].into(),
            nodes: vec![node],
            ..v1::RingDocument::default()
        };
        let ring = ring(&document, &v1::StatusReply::default(), &[]).unwrap();
        assert_eq!(ring.members.values().next().unwrap().state, MemberHealth::Suspect);
        assert!(!ring.is_acknowledged());
    }
}
