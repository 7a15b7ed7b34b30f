//! Buckets' rows in the index table: opening, rebuilding and checking the tree.

use super::{
    Summary,
    around::Around,
    changes::{Change, Row, apply_changes},
    gaps::Gaps,
    grow::Misfit,
    nibbles::{Path, TOP},
    summary::Scale,
    tree::{Limits, Tree},
    walk::Bucket,
};
use crate::engine::{Batch, Direction, Engine, EngineError, Reader, Table};
use bytes::Bytes;
use god_proto::record::RecordError;

/// How many entries a rebuild takes in at once.
const REBUILD_STEP: usize = 4096;

impl From<Misfit> for EngineError {
    fn from(misfit: Misfit) -> EngineError {
        EngineError::Corrupt(format!("the radix index: {misfit} (rebuild it from the data)"))
    }
}

/// The error for stored bytes that are no record.
pub(super) fn bad_record(position: &[u8], error: &RecordError) -> EngineError {
    let at = god_proto::position::Position::from_bytes(Bytes::copy_from_slice(position));
    EngineError::Corrupt(format!("the record at {at:?} is {error}"))
}

/// What stands between two positions, and what each record adds.
pub(super) fn weighed<'a>(
    reader: &'a dyn Reader,
    scale: &'a Scale,
    start: &[u8],
    end: &[u8],
    direction: Direction,
) -> impl Iterator<Item = Result<(Bytes, Summary), EngineError>> + 'a {
    reader.scan(Table::Data, start, end, direction).map(|pair| {
        let (position, record) = pair?;
        let sum = scale.weigh_stored(&position, &record).map_err(|error| bad_record(&position, &error))?;
        Ok((position, sum))
    })
}

/// As [`weighed`], without what is no record (counted as nothing, see `mend`); `lost` has where that stands.
pub(super) fn readable<'a>(
    reader: &'a dyn Reader,
    scale: &'a Scale,
    start: &[u8],
    end: &[u8],
    lost: &'a mut Vec<Bytes>,
) -> impl Iterator<Item = Result<(Bytes, Summary), EngineError>> + 'a {
    reader.scan(Table::Data, start, end, Direction::Forward).filter_map(|pair| match pair {
        Ok((position, record)) => match scale.weigh_stored(&position, &record) {
            Ok(sum) => Some(Ok((position, sum))),
            Err(error) => {
                tracing::error!(error = %bad_record(&position, &error), "a record is not counted");
                lost.push(position);
                None
            }
        },
        Err(error) => Some(Err(error)),
    })
}

/// What a start finds.
pub(super) struct Loaded {
    pub(super) tree: Tree,
    /// Where it is not known what stands there.
    pub(super) gaps: Gaps,
    /// How much could not be read of what was to be counted: the tree is so much short of what was written.
    pub(super) damaged: u64,
}

/// Reads the tree from its rows. Cost: one pass over the index table, and over the data of buckets with open rows. What
/// cannot be read there is passed over (DAMAGE-APART).
pub(super) fn load(reader: &dyn Reader, scale: &Scale) -> Result<Loaded, EngineError> {
    let mut loaded = Loaded { tree: Tree::default(), gaps: Gaps::default(), damaged: 0 };
    for row in reader.scan(Table::Index, &[], &TOP, Direction::Forward) {
        let (key, value) = row?;
        let path = Path::decode(&key);
        let path =
            path.ok_or_else(|| Misfit(format!("a row's key is {} bytes that name no bucket", key.len())))?;
        if value.is_empty() {
            // An empty one too, of which nothing can be read, or nothing is left: its row is there.
            let sum = count(reader, scale, &path, &mut loaded)?;
            loaded.tree.graft(&path, sum, true)?;
            continue;
        }
        let sum = Summary::decode(&value)
            .filter(|sum| sum.entries > 0)
            .ok_or_else(|| Misfit(format!("the row of bucket {path:?} is no summary")))?;
        loaded.tree.graft(&path, sum, false)?;
    }
    loaded.tree.check_shape()?;
    let first = reader.scan(Table::Data, &[], &TOP, Direction::Forward).next();
    let is_record = match &first {
        None | Some(Err(EngineError::Corrupt(_))) => false,
        Some(Err(error)) => return Err(error.clone()),
        Some(Ok((position, record))) => scale.weigh_stored(position, record).is_ok(),
    };
    match (first, loaded.tree.sum.entries) {
        (Some(_), 0) if is_record && loaded.gaps.is_empty() => {
            Err(Misfit("there are data and no rows".to_owned()).into())
        }
        (None, 1..) => Err(Misfit("there are rows and no data".to_owned()).into()),
        _ => Ok(loaded),
    }
}

/// What can be read in a bucket. An engine that finds a block damaged says so once for all that is in it.
fn count(
    reader: &dyn Reader,
    scale: &Scale,
    path: &Path,
    loaded: &mut Loaded,
) -> Result<Summary, EngineError> {
    let (mut sum, none) = (Summary::default(), Tree::default());
    let mut pairs = Around::new(reader, &none, path.bytes(), &path.end()).noting(&mut loaded.gaps);
    while let Some(pair) = pairs.next() {
        let (position, record) = pair?;
        match scale.weigh_stored(&position, &record) {
            Ok(one) => sum += &one,
            Err(error) => {
                tracing::error!(error = %bad_record(&position, &error), "a record is not counted");
                pairs.pass();
            }
        }
    }
    let passed = pairs.passed();
    if passed > 0 {
        tracing::error!(bucket = ?path, places = passed, "damaged records are not counted");
    }
    loaded.damaged += passed;
    Ok(sum)
}

/// Computes the tree from the data, and its rows. Cost: about two passes over the data.
pub(super) fn compute(
    reader: &dyn Reader,
    scale: &Scale,
    limits: Limits,
) -> Result<(Tree, Vec<(Bytes, Row)>), EngineError> {
    let (mut tree, mut lost) = (Tree::default(), Vec::new());
    let mut entries = readable(reader, scale, &[], &TOP, &mut lost);
    loop {
        let step = entries.by_ref().take(REBUILD_STEP).map(|entry| {
            entry.map(|(position, after)| Change { position, before: Summary::default(), after })
        });
        let step: Vec<Change> = step.collect::<Result<_, _>>()?;
        let Some(first) = step.first().map(|change| change.position.clone()) else { break };
        let scan = |start: &[u8], end: &[u8]| {
            let mut again = Vec::new();
            // Only what was taken in already.
            let end = end.min(&first).max(start);
            let all = readable(reader, scale, start, end, &mut again);
            all.collect::<Result<Vec<_>, EngineError>>().map(Some)
        };
        apply_changes(&mut tree, limits, &step, scan, &mut Vec::new())?;
    }
    let rows = tree.buckets().map(|bucket| (bucket.path.encode(), Row::Sum(bucket.sum))).collect();
    Ok((tree, rows))
}

/// Replaces all rows by what the data say.
pub(super) fn rebuild(engine: &dyn Engine, scale: &Scale, limits: Limits) -> Result<Summary, EngineError> {
    let (tree, rows) = compute(engine, scale, limits)?;
    let mut batch = Batch::default();
    batch.delete_range(Table::Index, Bytes::new(), &TOP[..]);
    push_rows(&mut batch, rows);
    engine.commit(batch)?;
    engine.sync()?;
    Ok(tree.sum)
}

/// Appends rows to a batch. Rows are set, not merged: there is one writer, and the tree in memory knows the sums. And
/// most are not even set: while a row is open, the data alone say what its bucket holds.
pub(super) fn push_rows(batch: &mut Batch, rows: Vec<(Bytes, Row)>) {
    for (key, row) in rows {
        match row {
            Row::Sum(sum) => batch.put(Table::Index, key, sum.encode().to_vec()),
            Row::Open => batch.put(Table::Index, key, Bytes::new()),
            Row::Gone => batch.delete(Table::Index, key),
        }
    }
}

/// Compares the tree with the data and with its rows, all of them. Cost: one pass over the data.
pub(super) fn verify(reader: &dyn Reader, scale: &Scale, tree: &Tree) -> Result<(), EngineError> {
    tree.check_shape()?;
    let mut entries = weighed(reader, scale, &[], &TOP, Direction::Forward).peekable();
    let mut rows = reader.scan(Table::Index, &[], &TOP, Direction::Forward);
    let mut stored = std::collections::BTreeMap::new();
    rows.try_for_each(|row| row.map(|(key, value)| drop(stored.insert(key, value))))?;
    for Bucket { path, sum, open } in tree.buckets() {
        let (start, end) = (path.bytes(), path.end());
        let mut found = Summary::default();
        while let Some(entry) = entries.next_if(|entry| match entry {
            Ok((position, _)) => position.as_ref() >= start && position.as_ref() < end.as_slice(),
            Err(_) => true,
        }) {
            found += &entry?.1;
        }
        if found != sum {
            return Err(Misfit(format!("bucket {path:?} says {sum:?}, its data say {found:?}")).into());
        }
        let row = stored.remove(&path.encode());
        let right = row.is_some_and(|row| if open { row.is_empty() } else { *row == sum.encode() });
        if !right {
            return Err(Misfit(format!("the row of bucket {path:?} is not what the tree says")).into());
        }
    }
    match (entries.next().transpose()?, stored.pop_first()) {
        (Some((position, _)), _) => {
            let at = god_proto::position::Position::from_bytes(position);
            Err(Misfit(format!("the record at {at:?} is in no bucket")).into())
        }
        (None, Some((key, _))) => Err(Misfit(format!("row {key:?} is of no bucket")).into()),
        (None, None) => Ok(()),
    }
}
