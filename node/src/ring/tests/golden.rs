//! A request, and the ring before and after it, one file a story. `UPDATE_GOLDEN=1` writes them anew.

use super::{first, joiner};
use crate::ring::{create_keyspace, join, mark_live};
use god_proto::{
    ids::{ArcId, KeyspaceId},
    position::{Part, Position},
    ring::{Ring, partitioner},
    v1::{Keyspace, Partitioner, RingDocument},
};
use std::{fmt::Write as _, path::Path};

fn describe(ring: &Ring) -> String {
    let mut text = format!("epoch {}, voters {:?}\n", ring.epoch(), ring.document().voters);
    for node in ring.nodes() {
        writeln!(text, "  node {} zone {} weight {}", node.number, node.zone, node.weight).unwrap();
    }
    for keyspace in ring.keyspaces() {
        let kind = partitioner(keyspace);
        let live = if keyspace.live { "live" } else { "empty" };
        writeln!(text, "  keyspace {} {kind:?} N={} {live}", keyspace.name, keyspace.replicas).unwrap();
        for arc in ring.arcs().iter().filter(|arc| arc.keyspace.0 == keyspace.id) {
            let replicas: Vec<u32> = arc.replicas.iter().map(|node| node.0).collect();
            let ArcId(id) = arc.id;
            writeln!(text, "    arc {id:>3} from {:<18} {replicas:?}", start(&arc.range.start, kind))
                .unwrap();
        }
    }
    text
}

fn start(position: &Position, kind: Partitioner) -> String {
    let rest = &position.as_bytes()[4..];
    match kind {
        _ if rest.is_empty() => "the start".to_owned(),
        Partitioner::Hashed => rest.iter().map(|byte| format!("{byte:02x}")).collect(),
        Partitioner::Ordered => {
            let own = [position.as_bytes(), &[0]].concat();
            let (_, key, part) = Position::from_bytes(own).decode(kind).unwrap();
            assert_eq!(part, Part::Own);
            format!("\"{}\"", key.escape_ascii())
        }
    }
}

struct Story(String, Ring);

impl Story {
    fn begin(ring: Ring) -> Story {
        Story(format!("before\n{}", describe(&ring)), ring)
    }

    fn then(mut self, request: &str, change: impl FnOnce(&Ring) -> RingDocument) -> Story {
        self.1 = Ring::new(change(&self.1)).unwrap();
        write!(self.0, "\n{request}\n{}", describe(&self.1)).unwrap();
        self
    }

    fn is_as_in(self, file: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ring/testdata").join(file);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &self.0).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(self.0, expected, "{file} says otherwise; UPDATE_GOLDEN=1 writes it anew");
    }
}

#[test]
fn three_nodes_join_and_the_fourth_comes_after_the_first_write() {
    Story::begin(first("a", 1.0, 2))
        .then("join: node 2 in zone b", |ring| join(ring, &joiner(2, "b", 1.0)).unwrap().unwrap())
        .then("join: node 3 in zone c, twice as large", |ring| {
            join(ring, &joiner(3, "c", 2.0)).unwrap().unwrap()
        })
        .then("first write to keyspace default", |ring| mark_live(ring, &[KeyspaceId(1)]).unwrap())
        .then("join: node 4 in zone a", |ring| join(ring, &joiner(4, "a", 1.0)).unwrap().unwrap())
        .is_as_in("joins.txt");
}

#[test]
fn an_ordered_keyspace_is_cut_where_asked_and_evenly_between() {
    let spec = Keyspace {
        name: "users".to_owned(),
        partitioner: Partitioner::Ordered.into(),
        replicas: 2,
        write_quorum: 1,
        read_quorum: 2,
        ..Keyspace::default()
    };
    let even = Keyspace { name: "even".to_owned(), ..spec.clone() };
    Story::begin(first("a", 1.0, 2))
        .then("join: node 2 in zone a", |ring| join(ring, &joiner(2, "a", 1.0)).unwrap().unwrap())
        .then("create keyspace users, split at \"m\"", |ring| {
            create_keyspace(ring, &spec, &["m".into()]).unwrap()
        })
        .then("create keyspace even", |ring| create_keyspace(ring, &even, &[]).unwrap())
        .then("join: node 3 in zone a", |ring| join(ring, &joiner(3, "a", 1.0)).unwrap().unwrap())
        .is_as_in("ordered.txt");
}
