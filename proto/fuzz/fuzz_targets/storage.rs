//! What is read from disk: records and positions.
#![no_main]

use bytes::Bytes;
use god_proto::{
    position::{Part, Position},
    record::{Head, Record},
    v1::Partitioner,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(record) = Record::decode(&bytes) {
        assert_eq!(record.encode(), bytes, "a record is stored in one way only");
        let head = Head::decode(&bytes);
        assert!(head.is_ok_and(|head| head.version == record.version && head.kind == record.kind));
    }
    let position = Position::from_bytes(bytes);
    for partitioner in [Partitioner::Hashed, Partitioner::Ordered] {
        let Ok((keyspace, key, part)) = position.decode(partitioner) else { continue };
        assert_eq!(position.keyspace(), Some(keyspace));
        if part != Part::Own {
            continue;
        }
        assert!(position.is_own());
        if let Ok(made) = Position::of_key(keyspace, partitioner, &key) {
            let same = made == position;
            // A stored hash may be any; a key stands at its own.
            assert!(same || partitioner == Partitioner::Hashed, "a key stands at two places");
        }
    }
});
