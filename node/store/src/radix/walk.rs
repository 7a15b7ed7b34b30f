//! Ways through the tree: all buckets in order, and the bucket at a rank.

use super::{
    Summary,
    nibbles::Path,
    tree::{Inner, Tree},
};

/// A bucket, as a walk finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) path: Path,
    pub(super) sum: Summary,
    pub(super) open: bool,
}

/// The buckets below a node, in order.
pub(super) struct Buckets<'a> {
    /// The nodes on the way down, the next branch of each, and the length of its path.
    stack: Vec<(&'a Inner, usize, usize)>,
    path: Path,
}

/// The buckets below a node with a path, in order. Cost: a copy of its path for each.
pub(super) fn buckets_below(inner: &Inner, path: Path) -> Buckets<'_> {
    Buckets { stack: vec![(inner, 0, path.depth())], path }
}

impl Iterator for Buckets<'_> {
    type Item = Bucket;

    fn next(&mut self) -> Option<Bucket> {
        while let Some((inner, next, depth)) = self.stack.last_mut() {
            let Some(branch) = inner.branches.get(*next) else {
                self.stack.pop();
                continue;
            };
            *next += 1;
            self.path.truncate(*depth);
            self.path.push(branch.symbol);
            self.path.extend(&branch.rest);
            match &branch.below {
                None => {
                    return Some(Bucket { path: self.path.clone(), sum: branch.sum, open: branch.open });
                }
                Some(below) => self.stack.push((below, 0, self.path.depth())),
            }
        }
        None
    }
}

impl Tree {
    /// All buckets, in order.
    pub(super) fn buckets(&self) -> Buckets<'_> {
        buckets_below(&self.root, Path::default())
    }

    /// The bucket that holds the record with `rank` others before it, and how many of them are in the bucket.
    /// `count` says which records are counted. Cost: O(depth).
    pub(super) fn bucket_at(&self, rank: u64, count: fn(&Summary) -> u64) -> Option<(Path, u64)> {
        let mut left = rank;
        let mut path = Path::default();
        let mut inner = &*self.root;
        loop {
            let branch = inner.branches.iter().find(|branch| {
                let here = count(&branch.sum);
                let found = left < here;
                if !found {
                    left -= here;
                }
                found
            })?;
            path.push(branch.symbol);
            path.extend(&branch.rest);
            match &branch.below {
                None => return Some((path, left)),
                Some(below) => inner = below,
            }
        }
    }

    /// The bucket that a position is in, or the first one above it. Cost: O(depth).
    pub(super) fn bucket_from(&self, position: &[u8]) -> Option<Path> {
        let prefix = self.locate(position);
        match prefix.bucket {
            Some((depth, _)) => Some(Path::of(position, depth)),
            None => self.bucket_at(prefix.before.entries, |sum| sum.entries).map(|(path, _)| path),
        }
    }

    /// Number of buckets, and bytes of memory that the tree takes. Cost: one pass.
    pub(super) fn measure(&self) -> (usize, usize) {
        let (mut buckets, mut bytes) = (0, 0);
        let mut waiting = vec![&*self.root];
        while let Some(inner) = waiting.pop() {
            // Two counters of an `Arc`, the node, and its branches as allocated.
            bytes += 2 * size_of::<usize>() + size_of::<Inner>();
            bytes += inner.branches.capacity() * size_of::<super::tree::Branch>();
            for branch in &inner.branches {
                bytes += branch.rest.len();
                match &branch.below {
                    Some(below) => waiting.push(below),
                    None => buckets += 1,
                }
            }
        }
        (buckets, bytes)
    }
}
