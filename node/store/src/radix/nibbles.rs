//! Paths of half bytes: how the tree reads positions, and the names of buckets.
//!
//! A position is read as a sequence of *symbols*: 1 to 16 for its half bytes, high half first, then 0 for ever after
//! its end. So the end sorts below every half byte, and the tree holds whatever bytes come: it does not rely on
//! positions being free of prefixes, although well-formed ones are.

use bytes::Bytes;
use std::{cmp::Ordering, fmt};

/// What a position is read as after its last half byte.
pub(super) const END: u8 = 0;

/// Above every position that may be stored; see [`super::Store::write`].
pub(super) const TOP: [u8; 4] = [0xff; 4];

/// The symbol at an index of a position.
#[inline]
pub(super) fn symbol(position: &[u8], index: usize) -> u8 {
    match position.get(index / 2) {
        Some(byte) if index.is_multiple_of(2) => (byte >> 4) + 1,
        Some(byte) => (byte & 0x0f) + 1,
        None => END,
    }
}

/// How many symbols two different positions have in common at their start. Both must agree on the first `known`.
pub(super) fn common(a: &[u8], b: &[u8], known: usize) -> usize {
    let skip = (known / 2).min(a.len()).min(b.len());
    let same = a.iter().zip(b).skip(skip).take_while(|(a, b)| a == b).count() + skip;
    2 * same + usize::from(symbol(a, 2 * same) == symbol(b, 2 * same))
}

/// Whether two positions agree on their first `depth` symbols.
#[inline]
pub(super) fn agree(a: &[u8], b: &[u8], depth: usize) -> bool {
    let whole = depth / 2;
    match (a.get(..whole), b.get(..whole)) {
        (Some(a_start), Some(b_start)) => {
            a_start == b_start && (depth.is_multiple_of(2) || symbol(a, depth - 1) == symbol(b, depth - 1))
        }
        _ => a == b,
    }
}

/// The first `depth` symbols of something: the name of a bucket.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Path {
    /// Packed, the last low half zero if `depth` is odd. `depth` is one more than twice the length if it ends in END.
    bytes: Vec<u8>,
    depth: usize,
}

impl Path {
    /// The first `depth` symbols of a position; no more than one END among them.
    pub(super) fn of(position: &[u8], depth: usize) -> Path {
        let mut bytes = position.get(..depth.div_ceil(2)).unwrap_or(position).to_vec();
        if depth < 2 * bytes.len()
            && let Some(last) = bytes.last_mut()
        {
            *last &= 0xf0;
        }
        Path { bytes, depth }
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Packed half bytes: as a position, the lowest that begins with this path.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn symbol(&self, index: usize) -> u8 {
        symbol(&self.bytes, index)
    }

    pub(super) fn push(&mut self, symbol: u8) {
        if symbol != END {
            let half = symbol - 1;
            match self.bytes.last_mut() {
                Some(last) if !self.depth.is_multiple_of(2) => *last |= half,
                _ => self.bytes.push(half << 4),
            }
        }
        self.depth += 1;
    }

    pub(super) fn extend(&mut self, symbols: &[u8]) {
        for &symbol in symbols {
            self.push(symbol);
        }
    }

    pub(super) fn truncate(&mut self, depth: usize) {
        self.bytes.truncate(depth.div_ceil(2));
        if !depth.is_multiple_of(2)
            && depth < 2 * self.bytes.len()
            && let Some(last) = self.bytes.last_mut()
        {
            *last &= 0xf0;
        }
        self.depth = depth;
    }

    /// The key of the bucket's row: the packed half bytes, then one byte that says how the path ends.
    pub(super) fn encode(&self) -> Bytes {
        row_key(&self.bytes, self.depth)
    }

    /// The inverse of [`Path::encode`]; `None` for bytes that name no bucket.
    pub(super) fn decode(row: &[u8]) -> Option<Path> {
        let (&how, packed) = row.split_last()?;
        let depth = match how {
            EVEN => 2 * packed.len(),
            ODD if packed.last()?.trailing_zeros() >= 4 => 2 * packed.len() - 1,
            ENDED => 2 * packed.len() + 1,
            _ => return None,
        };
        (depth > 0).then(|| Path { bytes: packed.to_vec(), depth })
    }

    /// The lowest position above all that begin with this path.
    pub(super) fn end(&self) -> Vec<u8> {
        range_end(&self.bytes, self.depth)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for index in 0..self.depth.min(64) {
            match self.symbol(index) {
                END => f.write_str("$")?,
                half => write!(f, "{:x}", half - 1)?,
            }
        }
        if self.depth > 64 { write!(f, "…({} symbols)", self.depth) } else { Ok(()) }
    }
}

const EVEN: u8 = 0;
const ODD: u8 = 1;
const ENDED: u8 = 2;

/// [`Path::encode`] of the path to a position's bucket.
pub(super) fn row_key(position: &[u8], depth: usize) -> Bytes {
    let packed = position.get(..depth.div_ceil(2)).unwrap_or(position);
    let mut key = Vec::with_capacity(packed.len() + 1);
    key.extend_from_slice(packed);
    let how = match depth.cmp(&(2 * packed.len())) {
        Ordering::Greater => ENDED,
        Ordering::Equal => EVEN,
        Ordering::Less => {
            if let Some(last) = key.last_mut() {
                *last &= 0xf0;
            }
            ODD
        }
    };
    key.push(how);
    key.into()
}

/// The lowest position of a position's bucket.
pub(super) fn range_start(position: &[u8], depth: usize) -> Vec<u8> {
    Path::of(position, depth).bytes
}

/// The lowest position above a position's bucket.
pub(super) fn range_end(position: &[u8], depth: usize) -> Vec<u8> {
    let Path { mut bytes, .. } = Path::of(position, depth);
    if depth > 2 * bytes.len() {
        bytes.push(0);
        return bytes;
    }
    // One more in the last half byte of the path, carrying over.
    let mut step = if depth.is_multiple_of(2) { 0x01 } else { 0x10 };
    while let Some(last) = bytes.last_mut() {
        let (sum, carry) = last.overflowing_add(step);
        if !carry {
            *last = sum;
            return bytes;
        }
        bytes.pop();
        step = 0x01;
    }
    TOP.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*, sample::select};

    fn positions() -> impl Strategy<Value = Vec<u8>> {
        vec(select(vec![0u8, 1, 0x10, 0x1f, 0xf0, 0xff]), 0..5)
    }

    fn symbols(position: &[u8]) -> Vec<u8> {
        (0..=2 * position.len()).map(|index| symbol(position, index)).collect()
    }

    proptest! {
        #[test]
        fn positions_sort_as_their_symbols(a in positions(), b in positions()) {
            prop_assert_eq!(a.cmp(&b), symbols(&a).cmp(&symbols(&b)));
        }

        #[test]
        fn common_counts_the_symbols_that_agree(a in positions(), b in positions()) {
            prop_assume!(a != b);
            let same = symbols(&a).iter().zip(symbols(&b)).take_while(|(a, b)| *a == b).count();
            for known in 0..=same {
                prop_assert_eq!(common(&a, &b, known), same);
            }
            for depth in 0..12 {
                prop_assert_eq!(agree(&a, &b, depth), depth <= same, "{}", depth);
            }
        }

        #[test]
        fn a_path_survives_its_row_key_and_being_built_by_symbols(a in positions(), cut in 1usize..12) {
            let depth = cut.min(2 * a.len() + 1);
            let path = Path::of(&a, depth);
            prop_assert_eq!(path.encode(), row_key(&a, depth));
            prop_assert_eq!(Path::decode(&path.encode()), Some(path.clone()));
            let mut built = Path::default();
            built.extend(&symbols(&a));
            built.truncate(depth);
            prop_assert_eq!(built, path);
        }

        #[test]
        fn a_bucket_holds_just_the_positions_between_its_bounds(a in positions(), b in positions(), cut in 1usize..12) {
            let depth = cut.min(2 * a.len() + 1);
            prop_assume!(b.as_slice() < &TOP[..]);
            let within = b >= range_start(&a, depth) && b < range_end(&a, depth);
            prop_assert_eq!(within, agree(&a, &b, depth));
        }

        #[test]
        fn different_paths_have_different_row_keys(a in positions(), b in positions(), i in 1usize..12, j in 1usize..12) {
            let (a, b) = (Path::of(&a, i.min(2 * a.len() + 1)), Path::of(&b, j.min(2 * b.len() + 1)));
            prop_assert_eq!(a.encode() == b.encode(), a == b);
        }

        #[test]
        fn any_bytes_are_a_row_key_or_refused(bytes: Vec<u8>) {
            if let Some(path) = Path::decode(&bytes) {
                prop_assert_eq!(path.encode(), bytes);
            }
        }
    }
}
