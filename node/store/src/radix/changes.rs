//! What a group of changes does to the tree, and to the rows of its buckets.

use super::{
    Summary,
    grow::{Misfit, partition},
    nibbles::{Path, agree, range_end, range_start, row_key},
    tree::{Limits, Tree},
};
use bytes::Bytes;

/// What happens at one position.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) position: Bytes,
    /// What stands there now; nothing where its `entries` is 0.
    pub(super) before: Summary,
    /// What will stand there.
    pub(super) after: Summary,
}

/// What a row of the index table is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    /// The bucket holds this.
    Sum(Summary),
    /// The bucket holds what the data say.
    Open,
    /// There is no such bucket.
    Gone,
}

/// Changes the tree, and appends to `rows` what changes in the index table, by key; later ones overrule earlier ones.
/// That is no more than a row for each bucket touched, but where buckets split or merge. `changes` are sorted and at
/// different positions. `scan` gives what stands between two positions, sorted, as it was before the changes; `None`
/// where not all of it can be read: then a bucket that should be split stays as large as it is. After an error the tree
/// is to be thrown away.
pub(super) fn apply_changes<E: From<Misfit>>(
    tree: &mut Tree,
    limits: Limits,
    changes: &[Change],
    mut scan: impl FnMut(&[u8], &[u8]) -> Result<Option<Vec<(Bytes, Summary)>>, E>,
    rows: &mut Vec<(Bytes, Row)>,
) -> Result<(), E> {
    let mut left = changes;
    while let Some(first) = left.first() {
        let depth = tree.bucket_depth(&first.position);
        let len = left.iter().take_while(|next| agree(&next.position, &first.position, depth)).count();
        let (mine, others) = left.split_at(len);
        left = others;

        let mut delta = Summary::default();
        for change in mine {
            delta += &change.after;
            delta -= &change.before;
        }
        let touched = tree.add(&first.position, &delta, limits.open_limit(tree.open));
        assert_eq!(touched.depth, depth, "BUCKET-FOUND: a bucket is made where it was looked for");
        let key = row_key(&first.position, depth);
        let split = match limits.too_much(&touched.sum) {
            true => scan(&range_start(&first.position, depth), &range_end(&first.position, depth))?,
            false => None,
        };
        if let Some(stored) = split {
            let start = range_start(&first.position, depth);
            // Not only mine: the bucket may just have merged with others that were changed before.
            let from = changes.partition_point(|change| *change.position < *start);
            let done = changes.len() - left.len();
            let entries = merged(stored, &changes[from..done]);
            let pieces = partition(&entries, depth, limits);
            tree.split(depth, &entries, &pieces)?;
            if !touched.new {
                rows.push((key, Row::Gone));
            }
            rows.extend(pieces.iter().map(|piece| {
                let (position, _) = &entries[piece.first];
                (row_key(position, piece.depth), Row::Sum(piece.sum))
            }));
            continue;
        }
        if !touched.was_open {
            rows.push((key, if touched.open { Row::Open } else { Row::Sum(touched.sum) }));
        }
        if mine.iter().any(|change| change.after.entries < change.before.entries) {
            let done = tree.restructure(&first.position, limits);
            rows.extend(done.gone.iter().map(|path| (path.encode(), Row::Gone)));
            rows.extend(
                done.merged.iter().map(|(path, sum): &(Path, Summary)| (path.encode(), Row::Sum(*sum))),
            );
        }
    }
    Ok(())
}

/// What stands in a bucket after the changes to it.
fn merged(stored: Vec<(Bytes, Summary)>, changes: &[Change]) -> Vec<(Bytes, Summary)> {
    let mut out = Vec::with_capacity(stored.len() + changes.len());
    let mut changes = changes.iter().peekable();
    let put = |out: &mut Vec<_>, change: &Change| {
        if change.after.entries > 0 {
            out.push((change.position.clone(), change.after));
        }
    };
    for (position, sum) in stored {
        while let Some(change) = changes.next_if(|change| change.position < position) {
            put(&mut out, change);
        }
        match changes.next_if(|change| change.position == position) {
            Some(change) => put(&mut out, change),
            None => out.push((position, sum)),
        }
    }
    changes.for_each(|change| put(&mut out, change));
    out
}
