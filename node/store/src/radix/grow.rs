//! How the tree changes its shape: buckets split, merge, vanish, and are put in from their rows.

use super::{
    Summary,
    nibbles::{Path, common, symbol},
    tree::{Branch, Inner, Limits, Tree},
    walk::buckets_below,
};
use bytes::Bytes;
use std::{ops::Range, sync::Arc};

/// Buckets that do not fit together, or not with the data.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub(super) struct Misfit(pub(super) String);

/// A bucket to be: its path is the first `depth` symbols of the entry at `first`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) first: usize,
    pub(super) depth: usize,
    pub(super) sum: Summary,
}

/// What became of a bucket after entries were taken out of it.
#[derive(Debug, Default)]
pub(super) struct Restructured {
    /// Paths that are no buckets any more.
    pub(super) gone: Vec<Path>,
    /// A bucket that took their place.
    pub(super) merged: Option<(Path, Summary)>,
    /// How many of those that are gone were open.
    open: usize,
}

/// Cuts the entries of a bucket, sorted by position, into buckets that are not too much. All agree on the first
/// `depth` symbols. Entries with a long common path cost nothing by its length but one comparison a cut.
pub(super) fn partition(entries: &[(Bytes, Summary)], depth: usize, limits: Limits) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut waiting: Vec<(Range<usize>, usize)> = vec![(0..entries.len(), depth)];
    while let Some((range, depth)) = waiting.pop() {
        let all = &entries[range.clone()];
        // Many are too much whatever they sum up to; summing them at each cut of a deep chain would cost its square.
        let sum = (all.len() <= limits.split_above).then(|| all.iter().map(|(_, sum)| sum).sum());
        let ([(first, _), .., (last, _)], None) = (all, sum.filter(|sum| !limits.too_much(sum))) else {
            let sum = sum.unwrap_or_else(|| all.iter().map(|(_, sum)| sum).sum());
            pieces.push(Piece { first: range.start, depth, sum });
            continue;
        };
        // Sorted: what the first and the last have in common, all have.
        let fork = common(first, last, depth);
        let groups_from = waiting.len();
        let mut start = range.start;
        while start < range.end {
            let here = symbol(&entries[start].0, fork);
            let rest = &entries[start..range.end];
            let len = rest.partition_point(|(position, _)| symbol(position, fork) <= here);
            waiting.push((start..start + len, fork + 1));
            start += len;
        }
        waiting[groups_from..].reverse();
    }
    pieces
}

impl Tree {
    /// Puts in a bucket with its path, as it was stored. It is an error if it overlaps another.
    pub(super) fn graft(&mut self, path: &Path, sum: Summary, open: bool) -> Result<(), Misfit> {
        let overlap = || Misfit(format!("bucket {path:?} overlaps another"));
        let mut inner = Arc::make_mut(&mut self.root);
        let mut depth = 0;
        loop {
            if depth == path.depth() {
                return Err(overlap());
            }
            let here = path.symbol(depth);
            depth += 1;
            let branch = |symbol, depth| Branch {
                symbol,
                rest: (depth..path.depth()).map(|at| path.symbol(at)).collect(),
                sum,
                below: None,
                open,
            };
            let at = match inner.find(here) {
                Ok(at) => at,
                Err(at) => {
                    inner.branches.insert(at, branch(here, depth));
                    break;
                }
            };
            let found = &mut inner.branches[at];
            let left = path.depth() - depth;
            let kept =
                (0..found.rest.len()).find(|&at| at == left || found.rest[at] != path.symbol(depth + at));
            if let Some(kept) = kept {
                if kept == left {
                    return Err(overlap());
                }
                found.fork(kept, branch(path.symbol(depth + kept), depth + kept + 1));
                break;
            }
            found.sum += &sum;
            depth += found.rest.len();
            inner = match &mut found.below {
                Some(below) => Arc::make_mut(below),
                None => return Err(overlap()),
            };
        }
        self.sum += &sum;
        self.open += usize::from(open);
        Ok(())
    }

    /// Puts several buckets in the place of one. `entries` are what [`partition`] cut; the bucket's path is the
    /// first `depth` symbols of each.
    pub(super) fn split(
        &mut self,
        depth: usize,
        entries: &[(Bytes, Summary)],
        pieces: &[Piece],
    ) -> Result<(), Misfit> {
        let mut young = Tree::default();
        for piece in pieces {
            young.graft(&Path::of(&entries[piece.first].0, piece.depth), piece.sum, false)?;
        }
        let (Some(position), Some(grown)) =
            (entries.first().map(|(position, _)| position), young.root.branches.first())
        else {
            return Err(Misfit("a bucket to be split has no entries".to_owned()));
        };
        let branch = self.branch_mut(position, depth);
        let branch = branch.filter(|branch| branch.below.is_none() && branch.sum == grown.sum);
        let (Some(branch), true) = (branch, young.root.branches.len() == 1 && pieces.len() > 1) else {
            return Err(Misfit(format!(
                "bucket {:?} does not sum up its entries",
                Path::of(position, depth)
            )));
        };
        // The young tree stands on the root: what it has above the bucket is the bucket's own path.
        branch.rest = grown.rest.get(depth - 1..).unwrap_or_default().into();
        branch.below.clone_from(&grown.below);
        let was_open = std::mem::take(&mut branch.open);
        self.open -= usize::from(was_open);
        Ok(())
    }

    /// The branch at the end of the first `depth` symbols of a position.
    fn branch_mut(&mut self, position: &[u8], depth: usize) -> Option<&mut Branch> {
        let mut inner = Arc::make_mut(&mut self.root);
        let mut at = 0;
        loop {
            let found = inner.find(symbol(position, at)).ok()?;
            let branch = &mut inner.branches[found];
            at += 1;
            if at == depth {
                return Some(branch);
            }
            at += branch.rest.len();
            inner = Arc::make_mut(branch.below.as_mut()?);
        }
    }

    /// Merges, or takes out, the bucket that a position is in, after entries were taken out of it.
    pub(super) fn restructure(&mut self, position: &[u8], limits: Limits) -> Restructured {
        let done = self.restructure_below(position, limits);
        self.open -= done.open;
        done
    }

    fn restructure_below(&mut self, position: &[u8], limits: Limits) -> Restructured {
        let mut done = Restructured::default();
        let mut depth = 0;
        let mut inner = Arc::make_mut(&mut self.root);
        loop {
            let Ok(found) = inner.find(symbol(position, depth)) else { return done };
            depth += 1;
            if inner.branches[found].below.is_none() {
                // Only below the root: deeper down, the step above looks one node ahead.
                if inner.branches[found].sum.entries == 0 {
                    done.open += usize::from(inner.branches.remove(found).open);
                    done.gone.push(Path::of(position, depth));
                }
                return done;
            }
            let branch = &mut inner.branches[found];
            if limits.too_little(&branch.sum) {
                // The highest node that is small enough takes all below it.
                let path = Path::of(position, depth);
                branch.gather(&path, &mut done);
                if branch.sum.entries == 0 {
                    inner.branches.remove(found);
                    done.merged = None;
                }
                return done;
            }
            if branch.leaves_at(position, depth).is_some() {
                return done;
            }
            let here = depth;
            depth += branch.rest.len();
            let Some(below) = branch.below.as_mut().map(Arc::make_mut) else { return done };
            let Ok(next) = below.find(symbol(position, depth)) else { return done };
            let bucket = &below.branches[next];
            if bucket.below.is_none() && bucket.sum.entries == 0 {
                done.open += usize::from(below.branches.remove(next).open);
                done.gone.push(Path::of(position, depth + 1));
                branch.straighten(&Path::of(position, here), &mut done);
                return done;
            }
            inner = match &mut inner.branches[found].below {
                Some(below) => Arc::make_mut(below),
                None => return done,
            };
        }
    }

    /// Closes all open buckets that have something; gives them as they are now. A row says nothing of an empty one.
    pub(super) fn close(&mut self) -> Vec<(Path, Summary)> {
        if self.open == 0 {
            return Vec::new();
        }
        let mut open: Vec<(Path, Summary)> =
            self.buckets().filter(|bucket| bucket.open).map(|bucket| (bucket.path, bucket.sum)).collect();
        assert_eq!(open.len(), self.open, "INDEX-WITH-DATA: open buckets are counted");
        open.retain(|(_, sum)| sum.entries > 0);
        for (path, _) in &open {
            if let Some(branch) = self.branch_mut(path.bytes(), path.depth()) {
                branch.open = false;
            }
        }
        self.open -= open.len();
        open
    }

    /// Opens a bucket again. Says whether there is such a bucket.
    pub(super) fn reopen(&mut self, path: &Path) -> bool {
        let branch = self.branch_mut(path.bytes(), path.depth()).filter(|branch| branch.below.is_none());
        let Some(branch) = branch else { return false };
        let was_open = std::mem::replace(&mut branch.open, true);
        self.open += usize::from(!was_open);
        true
    }

    /// Whether every bucket's path is as short as it can be (BUCKET-SHORT), inner nodes have branches enough, and
    /// sums add up.
    pub(super) fn check_shape(&self) -> Result<(), Misfit> {
        let mut waiting = vec![(&*self.root, self.sum, 0)];
        while let Some((inner, expected, least)) = waiting.pop() {
            let sum: Summary = inner.branches.iter().map(|branch| &branch.sum).sum();
            if sum != expected {
                return Err(Misfit("an inner node's sum is not that of its branches".to_owned()));
            }
            if inner.branches.len() < least {
                return Err(Misfit("an inner node has fewer than two branches".to_owned()));
            }
            for branch in &inner.branches {
                match &branch.below {
                    Some(below) => waiting.push((below, branch.sum, 2)),
                    None if !branch.rest.is_empty() => {
                        return Err(Misfit("a bucket's path is longer than it need be".to_owned()));
                    }
                    None => {}
                }
            }
        }
        Ok(())
    }
}

impl Branch {
    /// Turns all below into one bucket.
    fn gather(&mut self, path: &Path, done: &mut Restructured) {
        let mut whole = path.clone();
        whole.extend(&self.rest);
        if let Some(below) = self.below.take() {
            for bucket in buckets_below(&below, whole) {
                done.open += usize::from(bucket.open);
                done.gone.push(bucket.path);
            }
        }
        self.rest = Box::default();
        done.merged = Some((path.clone(), self.sum));
    }

    /// Takes the place of the node below if that has one branch left. `path` ends with this branch's symbol.
    fn straighten(&mut self, path: &Path, done: &mut Restructured) {
        let only = match self.below.as_deref() {
            Some(Inner { branches }) if branches.len() == 1 => &branches[0],
            _ => return,
        };
        if only.below.is_none() {
            self.gather(path, done);
            return;
        }
        let (rest, below) = (&only.rest, only.below.clone());
        self.rest = self.rest.iter().copied().chain([only.symbol]).chain(rest.iter().copied()).collect();
        self.below = below;
    }
}
