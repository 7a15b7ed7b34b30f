//! The worked example of docs/FORMAT.md, byte for byte.

use god_proto::{
    ids::{KeyspaceId, NodeId},
    position::Position,
    record::Record,
    v1::Partitioner,
    version::Version,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_example_in_format_md_is_what_is_written() {
    let at =
        |partitioner, key: &[u8]| hex(Position::of_key(KeyspaceId(7), partitioner, key).unwrap().as_bytes());
    assert_eq!(at(Partitioner::Ordered, b"cat"), "00 00 00 07 63 61 74 00 01 00");
    assert_eq!(at(Partitioner::Ordered, b"a\0b"), "00 00 00 07 61 00 ff 62 00 01 00");
    assert_eq!(at(Partitioner::Hashed, b"cat"), "00 00 00 07 42 54 8a 8a 11 1c 54 ee 63 61 74 00 01 00");

    // 2020-01-01 00:00:00.005 UTC, the third stamp of that millisecond, by node 2.
    let version = Version::new(1_577_836_800_005, 2, NodeId(2));
    assert_eq!(hex(&version.encode()), "01 6f 5e 66 e8 05 00 02 00 00 00 02");
    let value = Record::value(version, &b"meow"[..]);
    assert_eq!(hex(&value.encode()), "00 01 6f 5e 66 e8 05 00 02 00 00 00 02 6d 65 6f 77");
    let expiring = Record { expires_at_ms: Some(1_577_836_860_005), ..value };
    assert_eq!(
        hex(&expiring.encode()),
        "80 01 6f 5e 66 e8 05 00 02 00 00 00 02 00 00 01 6f 5e 67 d2 65 6d 65 6f 77"
    );
    assert_eq!(hex(&Record::tombstone(version).encode()), "01 01 6f 5e 66 e8 05 00 02 00 00 00 02");
}
