//! Groups of writes become one batch of data and rows.

use super::{
    Summary,
    cache::{CachedVersion, Tag, VersionCache},
    changes::{Change, Row, apply_changes},
    committer::Apply,
    gaps::Gaps,
    mend::{Counted, Noted, Stored, count_around, count_within, read_each},
    nibbles::{Path, row_key},
    rows::{push_rows, weighed},
    summary::Scale,
    tree::{Limits, Tree},
};
use crate::engine::{Batch, Direction, Engine, EngineError, Snapshot, Table};
use bytes::Bytes;
use god_proto::{
    position::{Position, PositionRange},
    record::{Entry, Kind, Record},
    version::Version,
};
use metrics::counter;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What reads begin from, as the writer left it.
pub(super) struct Published {
    pub tree: Tree,
    /// The data to the tree; `None`: the engine's present, as nobody writes meanwhile.
    pub data: Option<Arc<dyn Snapshot>>,
}

/// What came of one entry of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stands.
    Applied,
    /// It stood already: the same version is there.
    Equal,
    /// A newer version is there, and nothing was written.
    Superseded(Version),
    /// What is there cannot be read, so that nobody knows its version. Nothing was written.
    Damaged,
}

/// What is asked of the writer.
#[derive(Debug)]
pub enum Job {
    /// See [`super::Store::write_below`].
    Write {
        entries: Arc<Vec<Entry>>,
        /// What stands above this millisecond stands in nobody's way.
        ceiling_ms: u64,
        /// What cannot be read stands in nobody's way either, where these are all others of its bucket that cannot.
        over_damage: Option<Arc<BTreeSet<Position>>>,
    },
    /// See [`super::Store::forget`].
    Forget(Vec<(Position, Version)>),
    /// See [`super::Store::drop_part`].
    Drop(PositionRange, Arc<BTreeSet<Position>>),
    /// Writes all open rows as they are.
    Close,
}

/// The only one that changes data and index. It reads what stands at the positions of a group, decides, and commits
/// data and rows as one batch; the tree is changed aside and takes the place of the old one with the commit.
pub struct Writer {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) published: Arc<Mutex<Published>>,
    pub(super) scale: Scale,
    pub(super) cache: VersionCache,
    pub(super) limits: Limits,
    /// Where what is read was not counted.
    pub(super) gaps: Gaps,
    /// Whether others read while this writes: not in the simulation, whose engine copies what changes while it is held
    /// still.
    pub(super) threaded: bool,
    /// Rows written since as many were open as may be.
    pub(super) written_through: usize,
}

/// One entry of a group. Without a record: to be forgotten if it has this very version.
struct Item<'a> {
    position: &'a Position,
    version: Version,
    record: Option<&'a Record>,
    ceiling_ms: u64,
    over_damage: bool,
}

/// What the positions of a group hold, in their order.
struct LookedUp<'a> {
    /// What is remembered of each.
    known: Vec<(Tag, Option<CachedVersion>)>,
    /// Those of which nothing is.
    unread: Vec<&'a [u8]>,
    /// What was found at these.
    read: Vec<Stored>,
}

/// What stands at a position while a group is decided. Stored bytes are there where it may matter what they say.
enum Current<'a> {
    Nothing,
    Stored(Version, Option<&'a Bytes>),
    /// It cannot be read; whether it may be overwritten.
    Damaged(bool),
    Written(&'a Record),
}

impl Apply for Writer {
    type Job = Job;
    type Answer = Vec<Verdict>;

    fn apply(&mut self, jobs: Vec<Job>, synced: bool) -> Result<Vec<Vec<Verdict>>, EngineError> {
        let mut answers = Vec::with_capacity(jobs.len());
        // What is dropped is dropped between what was written before and after.
        for run in jobs.chunk_by(|a, b| !matches!(a, Job::Drop(..)) && !matches!(b, Job::Drop(..))) {
            match run {
                [Job::Drop(range, noted)] => answers.push(self.drop_range(range, noted, synced)?),
                run => answers.extend(self.write(run, synced)?),
            }
        }
        Ok(answers)
    }

    fn makes_room(job: &Job) -> bool {
        match job {
            Job::Write { entries, .. } => entries.iter().all(|entry| entry.record.kind == Kind::Tombstone),
            Job::Forget(_) | Job::Drop(..) | Job::Close => true,
        }
    }

    fn weight(job: &Job) -> usize {
        match job {
            Job::Write { entries, .. } => entries
                .iter()
                .map(|entry| entry.position.as_bytes().len() + entry.record.encoded_len() + ENTRY_OVERHEAD)
                .sum(),
            Job::Forget(which) => {
                which.iter().map(|(position, _)| position.as_bytes().len() + ENTRY_OVERHEAD).sum()
            }
            Job::Drop(..) | Job::Close => 0,
        }
    }
}

/// Bytes that an entry costs besides its own: it stands in a few lists while its group is decided.
const ENTRY_OVERHEAD: usize = 64;

/// All rows are closed when so many times the open ones were written through.
const CLOSE_AFTER: usize = 4;

impl Writer {
    fn write(&mut self, jobs: &[Job], synced: bool) -> Result<Vec<Vec<Verdict>>, EngineError> {
        let items = items(jobs);
        let mut order: Vec<u32> = (0..items.len() as u32).collect();
        // Stable: at one position, entries stay in the order in which they came.
        order.sort_by(|a, b| items[*a as usize].position.cmp(items[*b as usize].position));
        let (looked_up, Counted { sums, whole }) = self.look(&items, &order, &noted(jobs))?;
        let plan = plan(&self.scale, &items, &order, looked_up, sums);
        let close = jobs.iter().any(|job| matches!(job, Job::Close));
        // CACHE-TRUE: where it is open what was written, nothing is known.
        self.commit(plan.batch, &plan.changes, &whole, close, synced).inspect_err(|_| self.cache.clear())?;
        for (tag, after) in plan.notes {
            self.cache.set(tag, after);
        }
        count(&plan.verdicts, plan.overwritten);
        let mut verdicts = plan.verdicts.into_iter();
        Ok(jobs.iter().map(|job| verdicts.by_ref().take(job.len()).collect()).collect())
    }

    /// What stands at the positions of a group, and what each damaged record counts for that is to be overwritten.
    fn look<'a>(
        &mut self,
        items: &[Item<'a>],
        order: &[u32],
        noted: &Noted<'_>,
    ) -> Result<(LookedUp<'a>, Counted), EngineError> {
        let mut looked_up = self.look_up(items, order)?;
        if !items.iter().any(|item| item.over_damage) {
            return Ok((looked_up, Counted::default()));
        }
        if looked_up.read.iter().any(|found| matches!(found, Stored::Damaged)) {
            // CACHE-TRUE: of a bucket that is counted anew, only what can be read counts (DAMAGE-APART). What is
            // remembered may be of records that cannot be.
            self.cache.clear();
            looked_up = self.look_up(items, order)?;
        }
        let sums = self.damaged_sums(items, order, noted, &looked_up)?;
        Ok((looked_up, sums))
    }

    /// What is not remembered is read, and so is what may be the same again: then its content matters.
    fn look_up<'a>(&self, items: &[Item<'a>], order: &[u32]) -> Result<LookedUp<'a>, EngineError> {
        let of = |at: &u32| &items[*at as usize];
        let mut known = Vec::with_capacity(items.len());
        let mut unread = Vec::new();
        for run in order.chunk_by(|a, b| of(a).position == of(b).position) {
            let position = of(&run[0]).position.as_bytes();
            let tag = self.cache.tag(position);
            let is_again = |known: &CachedVersion| run.iter().any(|at| of(at).version == known.version);
            let remembered = self.cache.get(tag).filter(|known| !is_again(known));
            if remembered.is_none() {
                unread.push(position);
            }
            known.push((tag, remembered));
        }
        let mut read = if unread.is_empty() { vec![] } else { read_each(&*self.engine, &unread)? };
        if !self.gaps.is_empty() {
            // What is read of it was not counted.
            let apart = unread.iter().zip(&mut read).filter(|(position, _)| self.gaps.holds(position));
            apart.for_each(|(_, found)| *found = Stored::Damaged);
        }
        Ok(LookedUp { known, unread, read })
    }

    /// What each damaged record that is to be overwritten counts for, all of a bucket at once. `order` sorts the items.
    /// Cost: a scan of each such bucket.
    fn damaged_sums(
        &self,
        items: &[Item<'_>],
        order: &[u32],
        noted: &Noted<'_>,
        LookedUp { unread, read, .. }: &LookedUp<'_>,
    ) -> Result<Counted, EngineError> {
        let of = |at: &u32| &items[*at as usize];
        let damaged = unread.iter().zip(read).filter(|(_, found)| matches!(found, Stored::Damaged));
        let mut damaged = damaged.map(|(position, _)| *position).peekable();
        let mut over = Vec::new();
        for run in order.chunk_by(|a, b| of(a).position == of(b).position) {
            let position = of(&run[0]).position.as_bytes();
            if damaged.next_if_eq(&position).is_some() && run.iter().any(|at| of(at).over_damage) {
                over.push(position);
            }
        }
        if over.is_empty() {
            return Ok(Counted::default());
        }
        let tree = self.published.lock().tree.clone();
        count_around(&*self.engine, &self.scale, &tree, noted, &over)
    }

    /// Cost: a scan of the range; what is removed is one record of the engine.
    fn drop_range(
        &mut self,
        range: &PositionRange,
        noted: &BTreeSet<Position>,
        synced: bool,
    ) -> Result<Vec<Verdict>, EngineError> {
        let (start, end) = (range.start.as_bytes(), range.end.as_bytes());
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let all = weighed(&*self.engine, &self.scale, start, end, Direction::Forward).map(|entry| {
            entry.map(|(position, before)| Change { position, before, after: Summary::default() })
        });
        let (changes, damaged) = match all.collect::<Result<Vec<Change>, EngineError>>() {
            Ok(changes) if !self.gaps.meets(start, end) => (changes, false),
            Ok(_) | Err(EngineError::Corrupt(_)) => {
                let tree = self.published.lock().tree.clone();
                let known = (&self.gaps, &Noted(vec![noted]));
                let changes = count_within(&*self.engine, &self.scale, &tree, known, start, end)?;
                let Some(changes) = changes else {
                    counter!("god_radix_damaged_total", "what" => "refused").increment(1);
                    return Ok(vec![Verdict::Damaged]);
                };
                counter!("god_radix_damaged_total", "what" => "dropped").increment(1);
                (changes, true)
            }
            Err(error) => return Err(error),
        };
        if changes.is_empty() && !damaged {
            return Ok(Vec::new());
        }
        let mut batch = Batch::default();
        batch.delete_range(Table::Data, range.start.clone().into_bytes(), range.end.clone().into_bytes());
        let whole = [(start.to_vec(), end.to_vec())];
        self.commit(batch, &changes, &whole, false, synced).inspect_err(|_| self.cache.clear())?;
        if damaged {
            // Nobody knows which positions these were.
            self.cache.clear();
        }
        for change in &changes {
            let tag = self.cache.tag(&change.position);
            self.cache.set(tag, None);
        }
        let entries: u64 = changes.iter().map(|change| change.before.entries).sum();
        counter!("god_radix_entries_dropped_total").increment(entries);
        Ok(Vec::new())
    }

    /// `whole` are ranges that are counted as they are read once this is done, and have no gaps.
    fn commit(
        &mut self,
        mut batch: Batch,
        changes: &[Change],
        whole: &[(Vec<u8>, Vec<u8>)],
        close: bool,
        synced: bool,
    ) -> Result<(), EngineError> {
        if batch.is_empty() && !close {
            return Ok(());
        }
        let mut tree = self.published.lock().tree.clone();
        let mut rows = Vec::with_capacity(changes.len());
        let mut gaps = self.gaps.clone();
        whole.iter().for_each(|(start, end)| gaps.close(start, end));
        let scan = |start: &[u8], end: &[u8]| {
            if gaps.meets(start, end) {
                return Ok(None);
            }
            let all = weighed(&*self.engine, &self.scale, start, end, Direction::Forward);
            match all.collect::<Result<Vec<_>, _>>() {
                Ok(all) => Ok(Some(all)),
                // It stays as it is until what is damaged is overwritten.
                Err(EngineError::Corrupt(problem)) => {
                    tracing::debug!(problem, "a bucket is not split");
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        };
        apply_changes::<EngineError>(&mut tree, self.limits, changes, scan, &mut rows)?;
        // Once all that may be open are, rows are written through. Buckets that are written to no more would stay
        // open for ever, so now and then all are closed: seldom enough to cost little.
        if tree.open >= self.limits.most_open {
            self.written_through += rows.len();
        }
        if close || self.written_through > CLOSE_AFTER * self.limits.most_open {
            self.written_through = 0;
            rows.extend(tree.close().into_iter().map(|(path, sum)| (path.encode(), Row::Sum(sum))));
        }
        if !gaps.is_empty() {
            // A start is to find them again: in an open bucket, be it empty.
            let gone =
                rows.iter().filter(|(_, row)| *row == Row::Gone).filter_map(|(key, _)| Path::decode(key));
            let gone: Vec<Path> = gone.filter(|path| gaps.meets(path.bytes(), &path.end())).collect();
            for path in gone.iter().map(Path::bytes) {
                if tree.locate(path).bucket.is_none() {
                    let kept = tree.add(path, &Summary::default(), u64::MAX);
                    rows.push((row_key(path, kept.depth), Row::Open));
                }
            }
            for (key, row) in rows.iter_mut().filter(|(_, row)| matches!(row, Row::Sum(_))) {
                let path = Path::decode(key).filter(|path| gaps.meets(path.bytes(), &path.end()));
                if path.is_some_and(|path| tree.reopen(&path)) {
                    *row = Row::Open;
                }
            }
        }
        counter!("god_radix_rows_written_total").increment(rows.len() as u64);
        push_rows(&mut batch, rows);

        // A view is of before or of after, in data and tree alike (VIEW-CONSISTENT), and nobody waits for the disk
        // meanwhile: reads of all kinds are of the data as they were held still before, so that none sees what
        // another may not see yet. READ-SYNCED: they never are of what is not synced, where it must be.
        if !self.threaded {
            self.published.lock().data = None;
        }
        if synced {
            self.engine.commit_synced(batch)?;
        } else {
            self.engine.commit(batch)?;
        }
        let data = self.threaded.then(|| Arc::from(self.engine.snapshot()));
        let old = std::mem::replace(&mut *self.published.lock(), Published { tree, data });
        drop(old);
        self.gaps = gaps;
        Ok(())
    }
}

impl Job {
    fn len(&self) -> usize {
        match self {
            Job::Write { entries, .. } => entries.len(),
            Job::Forget(which) => which.len(),
            Job::Drop(..) | Job::Close => 0,
        }
    }
}

fn noted(jobs: &[Job]) -> Noted<'_> {
    let noted = jobs.iter().filter_map(|job| match job {
        Job::Write { over_damage, .. } => over_damage.as_deref(),
        Job::Forget(_) | Job::Drop(..) | Job::Close => None,
    });
    Noted(noted.collect())
}

fn items(jobs: &[Job]) -> Vec<Item<'_>> {
    let mut items = Vec::with_capacity(jobs.iter().map(Job::len).sum());
    for job in jobs {
        match job {
            Job::Write { entries, ceiling_ms, over_damage } => {
                items.extend(entries.iter().map(|Entry { position, record }| Item {
                    position,
                    version: record.version,
                    record: Some(record),
                    ceiling_ms: *ceiling_ms,
                    over_damage: over_damage.is_some(),
                }));
            }
            Job::Forget(which) => items.extend(which.iter().map(|(position, version)| Item {
                position,
                version: *version,
                record: None,
                ceiling_ms: u64::MAX,
                over_damage: false,
            })),
            Job::Drop(..) | Job::Close => {}
        }
    }
    items
}

/// What a group comes to.
struct GroupPlan {
    /// Of each item.
    verdicts: Vec<Verdict>,
    batch: Batch,
    changes: Vec<Change>,
    /// What is remembered afterwards of positions that change.
    notes: Vec<(Tag, Option<CachedVersion>)>,
    /// Damaged records that are.
    overwritten: u64,
}

/// Decides a group, position by position. `order` sorts the items, and `sums` has what each damaged record counts for
/// that may be overwritten. Pure.
fn plan(
    scale: &Scale,
    items: &[Item<'_>],
    order: &[u32],
    looked_up: LookedUp<'_>,
    mut sums: BTreeMap<Vec<u8>, Summary>,
) -> GroupPlan {
    let same = |a: &u32, b: &u32| items[*a as usize].position == items[*b as usize].position;
    let LookedUp { known, read, .. } = looked_up;
    let mut read = read.iter();
    let mut plan = GroupPlan {
        verdicts: vec![Verdict::Equal; items.len()],
        batch: Batch::default(),
        changes: Vec::with_capacity(known.len()),
        notes: Vec::with_capacity(known.len()),
        overwritten: 0,
    };
    plan.batch.ops.reserve(2 * known.len());
    for (run, (tag, known)) in order.chunk_by(same).zip(known) {
        let position = items[run[0] as usize].position;
        let weigh = |known: CachedVersion| {
            scale.weigh(position.as_bytes(), known.version, known.kind, known.len as usize)
        };
        let found = if known.is_none() { read.next() } else { None };
        let (mut current, before) = match (known, found) {
            (Some(known), _) => (Current::Stored(known.version, None), Some(weigh(known))),
            (None, Some(Stored::Record(head, bytes))) => {
                let known = CachedVersion { version: head.version, kind: head.kind, len: bytes.len() as u32 };
                (Current::Stored(known.version, Some(bytes)), Some(weigh(known)))
            }
            (None, Some(Stored::Damaged)) => {
                let sum = sums.remove(position.as_bytes());
                (Current::Damaged(sum.is_some()), sum)
            }
            (None, Some(Stored::Nothing) | None) => (Current::Nothing, None),
        };
        for &at in run {
            plan.verdicts[at as usize] = decide(&items[at as usize], &mut current);
        }
        let after = match current {
            Current::Stored(..) | Current::Damaged(_) => continue,
            Current::Nothing if before.is_none() => continue,
            Current::Nothing => {
                plan.batch.delete(Table::Data, position.clone().into_bytes());
                None
            }
            Current::Written(record) => {
                let encoded = record.encode();
                let len = encoded.len() as u32;
                plan.batch.put(Table::Data, position.clone().into_bytes(), encoded);
                Some(CachedVersion { version: record.version, kind: record.kind, len })
            }
        };
        plan.overwritten += u64::from(matches!(found, Some(Stored::Damaged)));
        plan.changes.push(Change {
            position: position.clone().into_bytes(),
            before: before.unwrap_or_default(),
            after: after.map(weigh).unwrap_or_default(),
        });
        plan.notes.push((tag, after));
    }
    plan
}

fn count(verdicts: &[Verdict], overwritten: u64) {
    let applied = verdicts.iter().filter(|verdict| **verdict == Verdict::Applied).count();
    let damaged = verdicts.iter().filter(|verdict| **verdict == Verdict::Damaged).count();
    counter!("god_radix_written_total", "verdict" => "applied").increment(applied as u64);
    counter!("god_radix_written_total", "verdict" => "not needed")
        .increment((verdicts.len() - applied) as u64);
    counter!("god_radix_damaged_total", "what" => "refused").increment(damaged as u64);
    counter!("god_radix_damaged_total", "what" => "overwritten").increment(overwritten);
}

fn decide<'a>(item: &Item<'a>, current: &mut Current<'a>) -> Verdict {
    let there = match current {
        Current::Nothing => None,
        Current::Damaged(true) if item.over_damage => None,
        Current::Damaged(_) => return Verdict::Damaged,
        Current::Stored(version, _) => Some(*version),
        Current::Written(record) => Some(record.version),
    };
    match (item.record, there) {
        (Some(record), Some(there)) if record.version == there => {
            check_same_content(item.position, record, current);
            Verdict::Equal
        }
        (Some(record), Some(there)) if record.version < there && there.ms() <= item.ceiling_ms => {
            Verdict::Superseded(there)
        }
        (Some(record), _) => {
            *current = Current::Written(record);
            Verdict::Applied
        }
        (None, Some(there)) if item.version == there => {
            *current = Current::Nothing;
            Verdict::Applied
        }
        (None, Some(there)) => Verdict::Superseded(there),
        (None, None) => Verdict::Equal,
    }
}

/// VERSION-UNIQUE: whoever stamps a version does it once. Where it does not hold, the copies of this position differ
/// and no digest shows it; all that is left is to say so.
fn check_same_content(position: &Position, record: &Record, current: &Current<'_>) {
    let same = match current {
        Current::Nothing | Current::Damaged(_) => true,
        // Not read, because it was known to have another version.
        Current::Stored(_, None) => false,
        Current::Stored(_, Some(bytes)) => Record::decode(bytes).is_ok_and(|stored| stored == *record),
        Current::Written(written) => *written == record,
    };
    if !same {
        counter!("god_radix_version_clashes_total").increment(1);
        tracing::error!(
            ?position,
            version = %record.version,
            "VERSION-UNIQUE is broken: two different records have the same version; the first is kept"
        );
    }
}
