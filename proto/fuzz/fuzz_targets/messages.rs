//! What the doors read: messages of clients and of nodes, and the entries within. The first byte chooses.
#![no_main]

use bytes::Bytes;
use god_proto::{
    ids::KeyspaceId,
    peer,
    position::PositionRange,
    record::{Entry, Record},
    v1,
};
use libfuzzer_sys::fuzz_target;
use prost::Message;

/// A message that was read is written so that it reads back as the same: compared by its bytes, since a number
/// that is none (NaN) is not equal to itself.
fn again<M: Message + Default>(bytes: Bytes) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    let written = message.encode_to_vec();
    let read = M::decode(written.as_slice()).expect("what was written can be read");
    assert!(read.encode_to_vec() == written, "it reads back as something else");
    Some(message)
}

fn entry(message: peer::Entry) {
    if let Ok(entry) = Entry::try_from(message.clone()) {
        let back = Entry::try_from(peer::Entry::from(entry.clone()));
        assert_eq!(back.as_ref(), Ok(&entry));
        let stored = Record::decode(&entry.record.encode());
        assert_eq!(stored, Ok(entry.record));
    }
    let _ = Option::<Record>::try_from(message);
}

fn range(keys: &v1::KeyRange) {
    let keyspace = KeyspaceId(9);
    let whole = PositionRange::of_keyspace(keyspace);
    for partitioner in [v1::Partitioner::Hashed, v1::Partitioner::Ordered] {
        if let Ok(range) = PositionRange::of_keys(keyspace, partitioner, keys) {
            assert!(range.is_empty() || whole.intersect(&range) == range, "a range leaves its keyspace");
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((which, bytes)) = data.split_first() else { return };
    let bytes = Bytes::copy_from_slice(bytes);
    match which % 8 {
        0 => drop(again::<v1::PipelineRequest>(bytes)),
        1 => drop(again::<v1::BatchRequest>(bytes)),
        2 => {
            if let Some(scan) = again::<v1::ScanRequest>(bytes) {
                range(&scan.range.unwrap_or_default());
            }
        }
        3 => drop(again::<v1::CreateKeyspaceRequest>(bytes)),
        4 => drop(again::<v1::InitRequest>(bytes)),
        5 => drop(again::<peer::Frame>(bytes)),
        6 => {
            if let Some(write) = again::<peer::Write>(bytes) {
                write.entries.into_iter().for_each(entry);
            }
        }
        _ => {
            if let Some(done) = again::<peer::ScanDone>(bytes) {
                done.entries.into_iter().for_each(entry);
            }
        }
    }
});
