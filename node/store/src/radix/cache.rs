//! Remembers what stands at positions that were written lately, so that overwriting them reads nothing.

use god_proto::{ids::NodeId, record::Kind, version::Version};
use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;

/// What the writer must know of a record that it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CachedVersion {
    pub version: Version,
    pub kind: Kind,
    /// Bytes of the encoded record.
    pub len: u32,
}

/// Where a position is looked for, and what tells it from others there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag(u128);

/// A table of fixed slots, of which each holds the last one that came there: nothing to keep in order, and a slot
/// costs 32 bytes. Positions are told apart by 128 bits of a hash (SipHash-1-3, keyed by the cluster's id), which
/// are the same for two of them with a chance of 2^-128, as in the digests.
///
/// Invariant CACHE-TRUE: what is remembered is what the engine would say. The writer is the only one that changes the
/// data; it takes note of each batch after its commit, and forgets everything when a commit fails.
pub(super) struct VersionCache {
    hasher: SipHasher13,
    slots: Vec<CacheSlot>,
    used: usize,
    most: usize,
}

/// A tag, and what is known under it. Free where it is of no bytes: no record is so short.
#[derive(Clone, Copy, Default)]
struct CacheSlot {
    tag: [u64; 2],
    time: u64,
    node: u32,
    /// Twice the length, and one for a tombstone.
    len_and_kind: u32,
}

impl CacheSlot {
    fn new(tag: Tag, known: CachedVersion) -> CacheSlot {
        CacheSlot {
            tag: tag.halves(),
            time: known.version.time,
            node: known.version.node.0,
            len_and_kind: known.len << 1 | u32::from(known.kind == Kind::Tombstone),
        }
    }

    fn is_free(&self) -> bool {
        self.len_and_kind == 0
    }

    fn known(&self) -> CachedVersion {
        CachedVersion {
            version: Version { time: self.time, node: NodeId(self.node) },
            kind: if self.len_and_kind & 1 == 0 { Kind::Value } else { Kind::Tombstone },
            len: self.len_and_kind >> 1,
        }
    }
}

impl Tag {
    fn halves(self) -> [u64; 2] {
        [(self.0 >> 64) as u64, self.0 as u64]
    }
}

/// Places at the start; there are twice as many whenever half of them are taken.
const FIRST: usize = 1 << 10;

impl VersionCache {
    /// An empty table of up to `most` slots (a power of two).
    pub fn new(key: &[u8; 16], most: usize) -> VersionCache {
        let most = most.next_power_of_two();
        VersionCache {
            hasher: SipHasher13::new_with_key(key),
            slots: vec![CacheSlot::default(); most.min(FIRST)],
            used: 0,
            most,
        }
    }

    /// What a position goes by. Cost: a hash.
    pub fn tag(&self, position: &[u8]) -> Tag {
        let mut hasher = self.hasher;
        hasher.write(position);
        Tag(hasher.finish128().as_u128())
    }

    fn slot(&self, tag: Tag) -> usize {
        tag.0 as usize & (self.slots.len() - 1)
    }

    /// What stands there, if that is remembered.
    pub fn get(&self, tag: Tag) -> Option<CachedVersion> {
        let slot = self.slots.get(self.slot(tag))?;
        (!slot.is_free() && slot.tag == tag.halves()).then(|| slot.known())
    }

    /// Takes note of what stands there now; `None`: nothing.
    pub fn set(&mut self, tag: Tag, known: Option<CachedVersion>) {
        let at = self.slot(tag);
        let Some(slot) = self.slots.get_mut(at) else { return };
        match known {
            None if !slot.is_free() && slot.tag == tag.halves() => {
                *slot = CacheSlot::default();
                self.used -= 1;
            }
            None => {}
            Some(known) => {
                self.used += usize::from(slot.is_free());
                *slot = CacheSlot::new(tag, known);
                if self.used > self.slots.len() / 2 && self.slots.len() < self.most {
                    self.grow();
                }
            }
        }
    }

    fn grow(&mut self) {
        let old = std::mem::take(&mut self.slots);
        self.slots = vec![CacheSlot::default(); old.len() * 2];
        self.used = 0;
        for slot in old.into_iter().filter(|slot| !slot.is_free()) {
            let [high, low] = slot.tag;
            self.set(Tag(u128::from(high) << 64 | u128::from(low)), Some(slot.known()));
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.slots.fill(CacheSlot::default());
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// CACHE-TRUE: it may forget, and never says what is not so.
        #[test]
        fn what_is_remembered_is_what_was_noted_last(
            notes in prop::collection::vec((0u16..3_000, prop::option::of(1u64..1_000)), 0..4_000)
        ) {
            let mut cache = VersionCache::new(&[7; 16], 1 << 11);
            let mut truth = BTreeMap::new();
            for (position, version) in notes {
                let known = version.map(|ms| CachedVersion { version: Version::new(ms, 0, NodeId(1)), kind: Kind::Value, len: 9 });
                let tag = cache.tag(&position.to_be_bytes());
                cache.set(tag, known);
                prop_assert_eq!(cache.get(tag), known);
                truth.insert(position, known);
            }
            let mut remembered = 0;
            for (position, known) in &truth {
                if let Some(said) = cache.get(cache.tag(&position.to_be_bytes())) {
                    prop_assert_eq!(Some(said), *known);
                    remembered += 1;
                }
            }
            let there = truth.values().flatten().count();
            prop_assert!(remembered * 3 >= there, "{} of {} are remembered", remembered, there);
            cache.clear();
            prop_assert!(truth.keys().all(|position| cache.get(cache.tag(&position.to_be_bytes())).is_none()));
        }
    }
}
