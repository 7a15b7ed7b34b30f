//! Which nodes decide the next ring.

use god_proto::v1::{Member, MemberState};
use std::collections::BTreeMap;

/// The voters among these nodes: one below three nodes, three below five, else five. Spread over as many zones as
/// there are, then those that vote already, then the lowest numbers. Nodes that leave are not chosen while others are.
/// Cost: O(nodes).
pub fn choose_voters(nodes: &[Member], present: &[u32]) -> Vec<u32> {
    let leaving = i32::from(MemberState::Leaving);
    let mut candidates: Vec<&Member> = nodes.iter().filter(|node| node.state != leaving).collect();
    if candidates.is_empty() {
        candidates = nodes.iter().collect();
    }
    let wanted = match candidates.len() {
        0..3 => 1,
        3..5 => 3,
        _ => 5,
    };
    let mut in_zone: BTreeMap<&str, usize> = BTreeMap::new();
    let mut voters = Vec::with_capacity(wanted);
    while voters.len() < wanted {
        let best = candidates.iter().enumerate().min_by_key(|(_, node)| {
            let crowd = in_zone.get(node.zone.as_str()).copied().unwrap_or(0);
            (crowd, !present.contains(&node.number), node.number)
        });
        let Some((at, _)) = best else { break };
        let node = candidates.swap_remove(at);
        *in_zone.entry(&node.zone).or_default() += 1;
        voters.push(node.number);
    }
    voters.sort_unstable();
    voters
}
