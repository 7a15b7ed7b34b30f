//! Where a keyspace is cut into arcs.

use bytes::Bytes;
use god_proto::{ids::KeyspaceId, position::Position};

/// The starts of `arcs` arcs of the same width, in a keyspace in the order of hashes.
pub(super) fn hashed(keyspace: KeyspaceId, arcs: usize) -> Vec<Bytes> {
    let mut starts = vec![Position::keyspace_start(keyspace).into_bytes()];
    for at in 1..arcs {
        let hash = ((at as u128) << 64) / arcs as u128;
        starts.push(Position::of_hash(keyspace, hash as u64).into_bytes());
    }
    starts
}

/// The starts of about `arcs` arcs, in a keyspace in the order of keys: at the given keys, which are sorted and
/// distinct, and between them evenly, by the first two bytes in which neighbours differ.
pub(super) fn ordered(keyspace: KeyspaceId, splits: &[Bytes], arcs: usize) -> Vec<Bytes> {
    let pieces = arcs.div_ceil(splits.len() + 1).max(1);
    let mut keys: Vec<Vec<u8>> = vec![Vec::new()];
    for upper in splits.iter().map(Some).chain([None]) {
        between(&mut keys, upper, pieces);
        keys.extend(upper.map(|key| key.to_vec()));
    }
    let start = |key: &Vec<u8>| match key.is_empty() {
        true => Position::keyspace_start(keyspace).into_bytes(),
        false => Position::of_ordered_bound(keyspace, key).into_bytes(),
    };
    keys.iter().map(start).collect()
}

/// Adds up to `pieces - 1` keys above the last one and below `upper`.
fn between(keys: &mut Vec<Vec<u8>>, upper: Option<&Bytes>, pieces: usize) {
    let lower = keys.last().cloned().unwrap_or_default();
    let common = upper.map_or(0, |upper| lower.iter().zip(upper).take_while(|(a, b)| a == b).count());
    let number = |key: &[u8]| {
        let mut bytes = [0; 8];
        key.iter().skip(common).zip(&mut bytes).for_each(|(from, to)| *to = *from);
        u128::from(u64::from_be_bytes(bytes))
    };
    let from = number(&lower);
    let to = upper.map_or(1 << 64, |upper| number(upper));
    for piece in 1..pieces {
        let at = from + to.saturating_sub(from) * piece as u128 / pieces as u128;
        let bytes = u64::try_from(at).unwrap_or(u64::MAX).to_be_bytes();
        // Two bytes read best; all eight where two do not tell neighbours apart.
        for digits in [2, 8] {
            let mut key = lower.get(..common).unwrap_or(&[]).to_vec();
            key.extend_from_slice(&bytes[..digits]);
            while key.len() > common && key.last() == Some(&0) {
                key.pop();
            }
            let above = keys.last().is_none_or(|last| key > *last);
            if above && upper.is_none_or(|upper| key[..] < upper[..]) {
                keys.push(key);
                break;
            }
        }
    }
}
