//! Sessions: a program reads what it wrote, and never something older than it has read.

use crate::{Client, Consistency, Keyspace, Written};
use bytes::Bytes;
use god_proto::version::Version;
use parking_lot::Mutex;
use std::{collections::HashMap, fmt, mem, sync::Arc};

/// Keys of which a session remembers versions. Half of them at least are those that were used last.
const REMEMBERED: usize = 4_096;

/// A session. A read through its keyspaces ([`Session::keyspace`]) is at least as new as what the session has written
/// and read of that key before, whichever node answers and whatever the read consistency; where no node can answer so,
/// the read is refused as stale.
///
/// It remembers up to 4,096 keys. What it forgets it makes up for: from then on reads of keys it does not remember ask
/// for so many replicas that one of them must hold what was forgotten.
///
/// Clones are the same session.
#[derive(Clone)]
pub struct Session {
    client: Client,
    seen: Arc<Mutex<SeenVersions>>,
}

/// A keyspace, by its name and its id (one that is made anew under its name is another one), and a key of it.
type Key = (Arc<str>, u32, Bytes);

#[derive(Clone, Copy)]
struct Mark {
    version: Version,
    /// Replicas that hold it, at least.
    holders: u32,
}

/// Two halves: when the younger is full, the older is forgotten.
#[derive(Default)]
struct SeenVersions {
    young: HashMap<Key, Mark>,
    old: HashMap<Key, Mark>,
    /// The fewest replicas that hold something in the half.
    young_holders: Option<u32>,
    old_holders: Option<u32>,
    /// The fewest replicas that hold something which was forgotten.
    forgotten: Option<u32>,
}

impl SeenVersions {
    fn note(&mut self, key: Key, mark: Mark) {
        let known = self.young.get(&key).or_else(|| self.old.get(&key));
        let mark = match known {
            Some(known) if known.version > mark.version => *known,
            Some(known) if known.version == mark.version => {
                Mark { version: mark.version, holders: known.holders.max(mark.holders) }
            }
            _ => mark,
        };
        if self.young.len() >= REMEMBERED / 2 && !self.young.contains_key(&key) {
            self.forgotten = least(self.forgotten, self.old_holders);
            self.old = mem::take(&mut self.young);
            self.old_holders = self.young_holders.take();
        }
        self.young_holders = least(self.young_holders, Some(mark.holders));
        self.young.insert(key, mark);
    }

    fn forget(&mut self, key: &Key) {
        self.young.remove(key);
        self.old.remove(key);
    }

    fn version(&self, key: &Key) -> Option<Version> {
        self.young.get(key).or_else(|| self.old.get(key)).map(|mark| mark.version)
    }
}

fn least(a: Option<u32>, b: Option<u32>) -> Option<u32> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

impl Session {
    pub(crate) fn new(client: Client) -> Session {
        Session { client, seen: Arc::default() }
    }

    /// A keyspace within the session.
    pub fn keyspace(&self, name: impl Into<Arc<str>>) -> Keyspace {
        Keyspace::new(self.client.clone(), name.into(), Some(self.clone()))
    }

    /// How new a read must be, and how many replicas it has to ask.
    pub(crate) fn asks(&self, keyspace: &Keyspace, key: &Bytes) -> (Option<Version>, Consistency) {
        let seen = self.seen.lock();
        match seen.version(&of(keyspace, key.clone())) {
            Some(version) => (Some(version), keyspace.reads),
            None => match seen.forgotten {
                None => (None, keyspace.reads),
                Some(holders) => (None, meeting(keyspace, holders)),
            },
        }
    }

    /// Notes an acknowledged write.
    pub(crate) fn wrote(&self, keyspace: &Keyspace, key: Bytes, written: Written) {
        let mark = Mark { version: written.version, holders: written.acks };
        self.seen.lock().note(of(keyspace, key), mark);
    }

    /// Notes that what it has seen of a key is purged on all replicas: none finds anything older any more.
    pub(crate) fn purged(&self, keyspace: &Keyspace, key: Bytes) {
        self.seen.lock().forget(&of(keyspace, key));
    }

    /// Notes what was read: stale replicas are repaired before the answer, so that all that were asked hold it.
    pub(crate) fn read(&self, keyspace: &Keyspace, key: Bytes, version: Version, reads: Consistency) {
        let routes = keyspace.client.inner.routes.load();
        let holders =
            routes.keyspace(&keyspace.name).map_or(1, |known| reads.count(known.replicas, known.read_quorum));
        self.seen.lock().note(of(keyspace, key), Mark { version, holders });
    }
}

fn of(keyspace: &Keyspace, key: Bytes) -> Key {
    let routes = keyspace.client.inner.routes.load();
    (Arc::clone(&keyspace.name), routes.keyspace(&keyspace.name).map_or(0, |known| known.id), key)
}

/// So many replicas that one of them is among any `holders` ones, and no fewer than the keyspace is read with.
fn meeting(keyspace: &Keyspace, holders: u32) -> Consistency {
    let routes = keyspace.client.inner.routes.load();
    let Some(known) = routes.keyspace(&keyspace.name) else { return Consistency::All };
    let needed = (known.replicas + 1).saturating_sub(holders).max(1);
    Consistency::Count(needed.max(keyspace.reads.count(known.replicas, known.read_quorum)))
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use god_proto::ids::NodeId;

    fn key(number: usize) -> Key {
        (Arc::from("k"), 1, Bytes::from(number.to_string()))
    }

    fn mark(ms: u64, holders: u32) -> Mark {
        Mark { version: Version::new(ms, 0, NodeId(1)), holders }
    }

    #[test]
    fn an_older_version_does_not_take_the_place_of_a_newer_one() {
        let mut seen = SeenVersions::default();
        seen.note(key(1), mark(5, 2));
        seen.note(key(1), mark(3, 3));
        assert_eq!(seen.version(&key(1)), Some(mark(5, 2).version));
    }

    #[test]
    fn the_memory_is_bounded_and_tells_what_was_forgotten() {
        let mut seen = SeenVersions::default();
        for number in 0..REMEMBERED {
            seen.note(key(number), mark(1, 2));
        }
        assert_eq!(seen.forgotten, None, "nothing is forgotten before it is full");
        assert!(seen.version(&key(0)).is_some());
        for number in REMEMBERED..3 * REMEMBERED {
            seen.note(key(number), mark(1, 3));
        }
        assert!(seen.young.len() + seen.old.len() <= REMEMBERED);
        assert_eq!(seen.version(&key(0)), None);
        assert_eq!(seen.forgotten, Some(2), "the fewest holders of all that was forgotten");
    }
}
