//! The tree above the buckets: a path-compressed radix tree of immutable, shared nodes.
//!
//! A *bucket* stands for all stored positions that begin with its path. Buckets do not overlap. Inner nodes have two
//! branches or more (the root any number), one for each symbol with which positions go on after their common path.
//! A bucket's path is one symbol longer than its parent's (invariant BUCKET-SHORT): nothing else lives there.
//!
//! A clone shares all nodes; a change copies the nodes on its way that are shared, once. Nothing here recurses: a
//! path may be as long as a position, 16 thousand symbols.

use super::{Summary, nibbles::symbol};
use std::sync::Arc;

/// When buckets split and merge. Smaller ones make edge scans shorter and the index larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A bucket with more entries splits.
    pub split_above: usize,
    /// A bucket of more bytes splits too, unless it has one entry: scans of a bucket read its values along.
    pub split_bytes: u64,
    /// Buckets of one parent with fewer entries together become one. A good deal lower than the other, so that a
    /// store which shrinks and grows does not do it over and over.
    pub merge_below: usize,
    /// How many buckets' rows may be *open*: say no more than that the bucket must be counted anew at the next start.
    /// Writes to a bucket with an open row leave the row alone, which makes them a good deal cheaper; a start after a
    /// crash reads the data of as many buckets.
    pub most_open: usize,
    /// Of how many positions the writer remembers what it wrote there last. Overwriting those reads nothing; each
    /// takes 32 bytes.
    pub remembered: usize,
}

impl Default for Limits {
    /// What is used in production: 1,024 and a quarter of it, and what reads about 2 M entries after a crash.
    fn default() -> Limits {
        Limits {
            split_above: 1024,
            split_bytes: 1 << 20,
            merge_below: 256,
            most_open: 8192,
            remembered: 1 << 18,
        }
    }
}

impl Limits {
    /// Whether a bucket with so much splits.
    pub(super) fn too_much(&self, sum: &Summary) -> bool {
        sum.entries > self.split_above.max(1) as u64 || sum.bytes > self.split_bytes && sum.entries > 1
    }

    /// Whether buckets with so much together become one.
    pub(super) fn too_little(&self, sum: &Summary) -> bool {
        sum.entries < self.merge_below as u64 && sum.bytes < self.split_bytes / 4
    }

    /// Buckets of fewer bytes may be open. A row costs little beside large values, counting them anew costs much.
    pub(super) fn open_limit(&self, open: usize) -> u64 {
        if open < self.most_open { self.split_bytes / 4 } else { 0 }
    }
}

/// The tree, and what it holds altogether.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    pub(super) root: Arc<Inner>,
    pub(super) sum: Summary,
    /// How many buckets are open.
    pub(super) open: usize,
}

/// An inner node.
#[derive(Clone, Debug, Default)]
pub(super) struct Inner {
    /// In the order of their symbols.
    pub(super) branches: Vec<Branch>,
}

/// A way down from an inner node.
#[derive(Clone, Debug)]
pub(super) struct Branch {
    /// The first symbol of what is below.
    pub(super) symbol: u8,
    /// The symbols after it that all below have in common. Empty for a bucket.
    pub(super) rest: Box<[u8]>,
    /// The sum of all below.
    pub(super) sum: Summary,
    /// `None`: this is a bucket.
    pub(super) below: Option<Arc<Inner>>,
    /// Whether this is a bucket whose stored row is open (INDEX-WITH-DATA: a row that is not is exact).
    pub(super) open: bool,
}

/// What stands below a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PrefixSum {
    /// The sum of all buckets wholly below the position.
    pub(super) before: Summary,
    /// The depth and the sum of the bucket that begins as the position does.
    pub(super) bucket: Option<(usize, Summary)>,
}

/// A bucket after a change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Touched {
    /// Length of its path.
    pub(super) depth: usize,
    /// What it holds.
    pub(super) sum: Summary,
    /// Whether it was made just now.
    pub(super) new: bool,
    /// Whether its row was open before.
    pub(super) was_open: bool,
    /// Whether its row is open now.
    pub(super) open: bool,
}

impl Inner {
    #[inline]
    pub(super) fn find(&self, symbol: u8) -> Result<usize, usize> {
        // At most 17: a search by halves is no faster.
        match self.branches.iter().position(|branch| branch.symbol >= symbol) {
            Some(at) if self.branches[at].symbol == symbol => Ok(at),
            Some(at) => Err(at),
            None => Err(self.branches.len()),
        }
    }
}

impl Drop for Inner {
    /// Frees what is below without recursion: a chain may be deeper than a thread's stack.
    fn drop(&mut self) {
        let mut below: Vec<Arc<Inner>> = self.branches.iter_mut().filter_map(|b| b.below.take()).collect();
        while let Some(inner) = below.pop() {
            if let Some(mut inner) = Arc::into_inner(inner) {
                below.extend(inner.branches.iter_mut().filter_map(|branch| branch.below.take()));
            }
        }
    }
}

impl Branch {
    pub(super) fn bucket(symbol: u8, sum: Summary, open: bool) -> Branch {
        Branch { symbol, rest: Box::default(), sum, below: None, open }
    }

    /// How many symbols of `rest` a position has at `depth`; `None` if it has them all.
    #[inline]
    pub(super) fn leaves_at(&self, position: &[u8], depth: usize) -> Option<usize> {
        (0..self.rest.len()).find(|&at| self.rest[at] != symbol(position, depth + at))
    }

    /// Cuts `rest` after `kept` symbols: the lower part moves into a new inner node, beside `other`.
    pub(super) fn fork(&mut self, kept: usize, other: Branch) {
        let lower = Branch {
            symbol: self.rest[kept],
            rest: self.rest[kept + 1..].into(),
            sum: self.sum,
            below: self.below.take(),
            open: std::mem::take(&mut self.open),
        };
        self.rest = self.rest[..kept].into();
        self.sum += &other.sum;
        let mut branches = vec![lower, other];
        branches.sort_by_key(|branch| branch.symbol);
        self.below = Some(Arc::new(Inner { branches }));
    }
}

impl Tree {
    /// The depth of the bucket that a position is in, or would be in. Cost: O(depth), and the symbols on the way.
    pub(super) fn bucket_depth(&self, position: &[u8]) -> usize {
        let mut inner = &*self.root;
        let mut depth = 0;
        loop {
            let found = inner.find(symbol(position, depth));
            depth += 1;
            let Some(branch) = found.ok().map(|at| &inner.branches[at]) else { return depth };
            let Some(below) = &branch.below else { return depth };
            if let Some(kept) = branch.leaves_at(position, depth) {
                return depth + kept + 1;
            }
            depth += branch.rest.len();
            inner = below;
        }
    }

    /// Bytes of the bucket that a position is in; 0: there is none. A value there takes no more. Cost: O(depth).
    pub(super) fn bytes_at(&self, position: &[u8]) -> u64 {
        let mut inner = &*self.root;
        let mut depth = 0;
        loop {
            let found = inner.find(symbol(position, depth));
            depth += 1;
            let Some(branch) = found.ok().map(|at| &inner.branches[at]) else { return 0 };
            if branch.leaves_at(position, depth).is_some() {
                return 0;
            }
            depth += branch.rest.len();
            match &branch.below {
                Some(below) => inner = below,
                None => return branch.sum.bytes,
            }
        }
    }

    /// Adds to the bucket that a position is in; makes it if there is none. Cost: O(depth), and a copy of each node
    /// on the way that is shared. If the bucket then has fewer bytes than `open_limit`, it is open.
    pub(super) fn add(&mut self, position: &[u8], delta: &Summary, open_limit: u64) -> Touched {
        let touched = self.add_below(position, delta, open_limit);
        self.sum += delta;
        self.open += usize::from(touched.open && !touched.was_open);
        touched
    }

    fn add_below(&mut self, position: &[u8], delta: &Summary, open_limit: u64) -> Touched {
        let open = delta.bytes < open_limit;
        let new = |depth| Touched { depth, sum: *delta, new: true, was_open: false, open };
        let mut inner = Arc::make_mut(&mut self.root);
        let mut depth = 0;
        loop {
            let symbol_here = symbol(position, depth);
            depth += 1;
            let at = match inner.find(symbol_here) {
                Ok(at) => at,
                Err(at) => {
                    inner.branches.insert(at, Branch::bucket(symbol_here, *delta, open));
                    return new(depth);
                }
            };
            let branch = &mut inner.branches[at];
            if let Some(kept) = branch.leaves_at(position, depth) {
                depth += kept;
                branch.fork(kept, Branch::bucket(symbol(position, depth), *delta, open));
                return new(depth + 1);
            }
            branch.sum += delta;
            depth += branch.rest.len();
            let Some(below) = &mut branch.below else {
                let was_open = branch.open;
                branch.open |= branch.sum.bytes < open_limit;
                return Touched { depth, sum: branch.sum, new: false, was_open, open: branch.open };
            };
            inner = Arc::make_mut(below);
        }
    }

    /// What stands below a position, or below a bound that may be shorter. Cost: O(depth).
    pub(super) fn locate(&self, position: &[u8]) -> PrefixSum {
        let mut before = Summary::default();
        let mut inner = &*self.root;
        let mut depth = 0;
        loop {
            let symbol_here = symbol(position, depth);
            depth += 1;
            let (at, here) = match inner.find(symbol_here) {
                Ok(at) => (at, true),
                Err(at) => (at, false),
            };
            before += &inner.branches[..at].iter().map(|branch| &branch.sum).sum();
            if !here {
                return PrefixSum { before, bucket: None };
            }
            let branch = &inner.branches[at];
            if let Some(kept) = branch.leaves_at(position, depth) {
                // All of the branch is on one side.
                if branch.rest[kept] < symbol(position, depth + kept) {
                    before += &branch.sum;
                }
                return PrefixSum { before, bucket: None };
            }
            depth += branch.rest.len();
            match &branch.below {
                Some(below) => inner = below,
                None => return PrefixSum { before, bucket: Some((depth, branch.sum)) },
            }
        }
    }
}
