//! Ring documents: those that are taken keep every rule of rings, whatever they looked like.
#![no_main]

use god_proto::{ids::NodeId, position::PositionRange, ring::Ring, v1::RingDocument};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|data: &[u8]| {
    let Ok(document) = RingDocument::decode(data) else { return };
    let Ok(ring) = Ring::new(document.clone()) else { return };
    assert_eq!(ring.epoch().0, document.epoch);
    let numbers: Vec<u32> = ring.nodes().iter().map(|node| node.number).collect();
    assert!(ring.voters().all(|voter| numbers.contains(&voter.0)), "RING-WELL-FORMED: a voter is no node");
    for keyspace in ring.keyspaces() {
        let whole = PositionRange::of_keyspace(god_proto::ids::KeyspaceId(keyspace.id));
        let arcs = ring.arcs_in(&whole);
        let (Some(first), Some(last)) = (arcs.first(), arcs.last()) else {
            panic!("RING-WELL-FORMED: keyspace {} has no arcs", keyspace.id)
        };
        assert!(
            first.range.start == whole.start && last.range.end == whole.end,
            "RING-WELL-FORMED: uncovered"
        );
        assert!(
            arcs.windows(2).all(|pair| pair[0].range.end == pair[1].range.start),
            "RING-WELL-FORMED: a gap"
        );
        for arc in arcs {
            assert!(ring.arc_at(&arc.range.start).is_some_and(|found| found.range == arc.range));
            for number in &numbers {
                // Asked of every node: it must not fall over.
                let _ = Ring::holds(arc, NodeId(*number));
            }
        }
    }
});
