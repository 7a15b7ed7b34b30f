//! The store: data and index behind one writer.

use super::{
    Summary, View,
    cache::VersionCache,
    committer::{CommitError, Committer, CommitterSettings},
    mend::{lost_beside, lost_outside},
    nibbles::TOP,
    rows::{Loaded, bad_record, load, rebuild},
    summary::Scale,
    tree::{Limits, Tree},
    writer::{Job, Published, Verdict, Writer},
};
use crate::{
    engine::{Cached, Durability, Engine, EngineError, Reader, Snapshot, Table},
    seam::Offload,
};
use bytes::Bytes;
use god_proto::{
    position::{Position, PositionRange},
    record::{Entry, Record},
    version::Version,
};
use parking_lot::Mutex;
use std::{collections::BTreeSet, sync::Arc};

/// About how many entries, and bytes, are removed at once.
const DROP_STEP: u64 = 4_096;
const DROP_BYTES: u64 = 4 << 20;

/// A value that takes more is large. A bucket of more holds one entry ([`Limits`]), so that the index says which are.
const LARGE_BYTES: u64 = 1 << 20;

/// How a store works.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// How writes are grouped, and when they are synced.
    pub committer: CommitterSettings,
    /// Where reads that must touch the disk are done.
    pub offload: Offload,
    /// Whether the writer has a thread of its own; not in the simulation.
    pub threaded: bool,
    /// When buckets of the index split and merge. A store may be opened with other limits than before.
    pub limits: Limits,
}

/// Figures about the index in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// What the store holds.
    pub total: Summary,
    /// Buckets that the positions are divided into.
    pub buckets: usize,
    /// Bytes of memory that the tree takes.
    pub memory: usize,
}

/// Data and index, changed by one writer in groups. Share it behind an `Arc`.
pub struct Store {
    engine: Arc<dyn Engine>,
    published: Arc<Mutex<Published>>,
    committer: Committer<Writer>,
    scale: Scale,
    offload: Offload,
    is_short: bool,
}

impl Store {
    /// Opens what an engine holds. `key` is the cluster's id: digests are keyed by it, and rows made with another key
    /// do not compare. Under [`Durability::Always`] it syncs first what was not (READ-SYNCED). Reads the index's
    /// rows, and after a crash the data of some buckets: see [`Limits::most_open`]. Records that cannot be read there
    /// are passed over: see [`Store::is_short`]. Damaged rows, or missing ones, are an error; [`Store::rebuild`] makes
    /// them anew.
    pub fn open(
        engine: Arc<dyn Engine>,
        key: [u8; 16],
        settings: StoreSettings,
    ) -> Result<Store, EngineError> {
        let scale = Scale::new(&key);
        let synced = settings.committer.durability == Durability::Always;
        if synced {
            engine.sync()?;
        }
        let Loaded { tree, gaps, damaged } = load(&*engine, &scale)?;
        let data = Some(Arc::from(engine.snapshot()));
        let published = Arc::new(Mutex::new(Published { tree, data }));
        let writer = Writer {
            engine: Arc::clone(&engine),
            published: Arc::clone(&published),
            scale,
            cache: VersionCache::new(&key, settings.limits.remembered),
            limits: settings.limits,
            gaps,
            threaded: settings.threaded,
            written_through: 0,
        };
        let committer = if settings.threaded {
            Committer::threaded(Arc::clone(&engine), writer, settings.committer)
        } else {
            Committer::inline(Arc::clone(&engine), writer, settings.committer)
        };
        Ok(Store { engine, published, committer, scale, offload: settings.offload, is_short: damaged > 0 })
    }

    /// Whether some of what was written is not counted, as it could not be read when the store was opened: nobody may
    /// take this store for one that has it, until it was compared.
    pub fn is_short(&self) -> bool {
        self.is_short
    }

    /// Computes all rows from the data and replaces those that are there; gives the sum of all. Nobody else may use
    /// the engine meanwhile. Cost: about two passes over the data.
    pub fn rebuild(engine: &dyn Engine, key: [u8; 16]) -> Result<Summary, EngineError> {
        rebuild(engine, &Scale::new(&key), Limits::default())
    }

    /// As [`Store::write_below`], where nothing that stands is a wrong clock's.
    pub async fn write(&self, entries: Vec<Entry>) -> Result<Vec<Verdict>, CommitError> {
        self.write_below(entries, u64::MAX).await
    }

    /// Writes entries; the newest version at a position stands, within one call too. One verdict for each entry, in
    /// the same order. When it returns, the writes are as durable as the settings ask; all of one call become
    /// visible together. Positions must be below those of keyspace `u32::MAX`. A version above `ceiling_ms`, in
    /// milliseconds since 1970, gives way to any (invariant FAR-IS-NOT-THERE).
    pub async fn write_below(
        &self,
        entries: impl Into<Arc<Vec<Entry>>>,
        ceiling_ms: u64,
    ) -> Result<Vec<Verdict>, CommitError> {
        self.submit(entries.into(), ceiling_ms, None).await
    }

    /// As [`Store::write_below`], and what cannot be read gives way too, where the rest of its bucket can be: what it
    /// was is lost here, and the caller must see to it that nobody takes this store for one that has it. Nor for one
    /// that has what is damaged beside it, which is not counted any more: `noted` are those of which that is seen to,
    /// see [`Store::damaged_beside`]. Else its verdict is `Damaged`. Cost: a scan of the bucket of each damaged record.
    pub async fn write_over_damage(
        &self,
        entries: impl Into<Arc<Vec<Entry>>>,
        noted: impl Into<Arc<BTreeSet<Position>>>,
        ceiling_ms: u64,
    ) -> Result<Vec<Verdict>, CommitError> {
        self.submit(entries.into(), ceiling_ms, Some(noted.into())).await
    }

    /// What is no record beside some positions: what is in the same buckets, for [`Store::write_over_damage`]. Cost: a
    /// scan of each bucket.
    pub async fn damaged_beside(&self, positions: &[Position]) -> Result<BTreeSet<Position>, EngineError> {
        let mut positions = positions.to_vec();
        positions.sort();
        self.look(move |reader, scale, tree| {
            let positions: Vec<&[u8]> = positions.iter().map(Position::as_bytes).collect();
            lost_beside(reader, scale, tree, &positions)
        })
        .await
    }

    /// What is no record just outside of a range: in buckets that are partly in it, for [`Store::drop_part`]. Cost: a
    /// scan of two buckets.
    pub async fn damaged_outside(&self, range: &PositionRange) -> Result<BTreeSet<Position>, EngineError> {
        let range = range.clone();
        self.look(move |reader, scale, tree| {
            lost_outside(reader, scale, tree, range.start.as_bytes(), range.end.as_bytes())
        })
        .await
    }

    async fn look(
        &self,
        work: impl FnOnce(&dyn Reader, &Scale, &Tree) -> Result<Vec<Bytes>, EngineError> + Send + 'static,
    ) -> Result<BTreeSet<Position>, EngineError> {
        let (data, tree) = {
            let mut published = self.published.lock();
            (self.held(&mut published), published.tree.clone())
        };
        let scale = self.scale;
        let lost = self.offload.run(move || work(&*data, &scale, &tree)).await?;
        Ok(lost.into_iter().map(Position::from_bytes).collect())
    }

    async fn submit(
        &self,
        entries: Arc<Vec<Entry>>,
        ceiling_ms: u64,
        over_damage: Option<Arc<BTreeSet<Position>>>,
    ) -> Result<Vec<Verdict>, CommitError> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(entry) = entries.iter().find(|entry| entry.position.as_bytes() >= &TOP[..]) {
            let problem = format!("position {:?} is above all keyspaces; it was not written", entry.position);
            return Err(EngineError::Corrupt(problem).into());
        }
        self.committer.submit(Job::Write { entries, ceiling_ms, over_damage }).await
    }

    /// Removes records as if they had never been, each only if it has just this version: for tombstones below the
    /// repaired floor and for what this node does not hold any more, never for a deletion. `Applied`: it is gone.
    /// `Equal`: nothing was there. `Superseded`: another version is there, and stays. `Damaged`: nobody knows which is.
    pub async fn forget(&self, which: Vec<(Position, Version)>) -> Result<Vec<Verdict>, CommitError> {
        if which.is_empty() {
            return Ok(Vec::new());
        }
        self.committer.submit(Job::Forget(which)).await
    }

    /// The first part of a range that is little enough to be dropped at once: whole buckets, but at the range's ends.
    /// Cost: O(depth).
    pub fn first_part(&self, range: &PositionRange) -> PositionRange {
        let tree = self.published.lock().tree.clone();
        let before = tree.locate(range.start.as_bytes()).before;
        let ends = [
            tree.bucket_at(before.entries.saturating_add(DROP_STEP), |sum| sum.entries),
            tree.bucket_at(before.bytes.saturating_add(DROP_BYTES), |sum| sum.bytes),
        ];
        let ends = ends.into_iter().flatten().map(|(path, _)| Position::from_bytes(path.end()));
        let end = ends.fold(range.end.clone(), Position::min);
        PositionRange { start: range.start.clone(), end }
    }

    /// Removes what stands in a range, as if it had never been: for what this node does not hold any more, never for a
    /// deletion. What cannot be read goes too, as nobody will ever read it. Says whether all is gone: nothing is, where
    /// something damaged shares its bucket with what is outside of the range, and that cannot be read either, or is
    /// damaged and not among those `noted`, see [`Store::damaged_outside`]: it is not counted any more. Cost: a scan of
    /// what is removed.
    pub async fn drop_part(
        &self,
        range: PositionRange,
        noted: &Arc<BTreeSet<Position>>,
    ) -> Result<bool, CommitError> {
        let verdicts = self.committer.submit(Job::Drop(range, Arc::clone(noted))).await?;
        Ok(verdicts.is_empty())
    }

    /// Everything that was written before is synced when this returns, whatever the durability.
    pub async fn sync(&self) -> Result<(), EngineError> {
        let engine = Arc::clone(&self.engine);
        self.offload.run(move || engine.sync()).await
    }

    /// What stands at a position. Waits for the disk only where it must, and not where too many do. What may be large
    /// is read by few at a time, wherever it is.
    pub async fn get(&self, position: &Position) -> Result<Option<Record>, EngineError> {
        let (data, bytes) = {
            let mut published = self.published.lock();
            (self.held(&mut published), published.tree.bytes_at(position.as_bytes()))
        };
        let is_large = bytes > LARGE_BYTES;
        let cached = match is_large {
            true => Cached::Miss,
            false => data.get_cached(Table::Data, position.as_bytes())?,
        };
        let found = match cached {
            Cached::Hit(found) => found,
            Cached::Miss => {
                let key = position.clone();
                let offload = if is_large { self.offload.large() } else { self.offload };
                offload.run_if_free(move || data.get(Table::Data, key.as_bytes())).await??
            }
        };
        decode(position, found)
    }

    /// What stands at each of the first of some positions, in the same order: of as many as are surely no more than
    /// `most` bytes together, but for the last one; of one in any case. What is in memory is looked at one by one, but
    /// for what may be large, and what must be read from the disk as many at a time as the index says that they cannot
    /// be too much. Cost: for each a look at the index, and a read of many where their buckets together are not larger.
    pub async fn get_many(
        &self,
        positions: &[Position],
        most: usize,
    ) -> Result<Vec<Option<Record>>, EngineError> {
        let (data, tree) = {
            let mut published = self.published.lock();
            (self.held(&mut published), published.tree.clone())
        };
        let mut out = Vec::with_capacity(positions.len());
        let (mut missed, mut room, mut any_large) = (Vec::new(), most, false);
        for (at, position) in positions.iter().enumerate() {
            let is_large = tree.bytes_at(position.as_bytes()) > LARGE_BYTES;
            any_large |= is_large;
            let cached = match is_large {
                true => Cached::Miss,
                false => data.get_cached(Table::Data, position.as_bytes())?,
            };
            match cached {
                Cached::Hit(found) => {
                    room = room.saturating_sub(found.as_ref().map_or(0, Bytes::len));
                    out.push(decode(position, found)?);
                    if room == 0 {
                        break;
                    }
                }
                Cached::Miss => {
                    missed.push((at, position.clone()));
                    out.push(None);
                }
            }
        }
        if !missed.is_empty() {
            let work = move || read_first(&*data, &tree, missed, room);
            // What is small among them is not refused for what is large: that waits as long as it may take.
            let (found, unread) = match any_large {
                true => self.offload.large().run(work).await?,
                false => self.offload.run_if_free(work).await??,
            };
            for (at, position, found) in found {
                if let Some(slot) = out.get_mut(at) {
                    *slot = decode(&position, found)?;
                }
            }
            out.truncate(unread.unwrap_or(out.len()));
        }
        Ok(out)
    }

    /// Data and index as they are now. Cost: none, and no wait for the disk.
    pub fn view(&self) -> View {
        let mut published = self.published.lock();
        View::new(self.held(&mut published), published.tree.clone(), self.scale)
    }

    /// What reads are of: the same as a view of this moment.
    fn held(&self, published: &mut Published) -> Arc<dyn Snapshot> {
        Arc::clone(published.data.get_or_insert_with(|| Arc::from(self.engine.snapshot())))
    }

    /// What the whole store holds. Cost: none.
    pub fn summary(&self) -> Summary {
        self.published.lock().tree.sum
    }

    /// Figures about the index. Cost: one pass over the tree.
    pub fn figures(&self) -> Figures {
        let tree = self.published.lock().tree.clone();
        let (buckets, memory) = tree.measure();
        Figures { total: tree.sum, buckets, memory }
    }

    /// The engine below.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Writes out what the index holds back, then stops. Nothing is lost without; the next start takes longer.
    pub async fn close(&self) -> Result<(), CommitError> {
        let closed = self.committer.submit(Job::Close).await;
        self.stop();
        closed.map(|_| ())
    }

    /// Ends the writer, when it has done what it was asked before. Later writes are refused.
    pub fn stop(&self) {
        self.committer.stop();
    }
}

/// Positions that were read, each by its index, and what was found there.
type Found = Vec<(usize, Position, Option<Bytes>)>;

/// Reads the first of some positions: as many as have room, and the one whose index is 0 in any case. And the index of
/// the first that was not read. A value takes no more than the index says of its bucket, which is of the same moment.
fn read_first(
    data: &dyn Snapshot,
    tree: &Tree,
    missed: Vec<(usize, Position)>,
    mut room: usize,
) -> Result<(Found, Option<usize>), EngineError> {
    let mut out = Vec::with_capacity(missed.len());
    let mut rest = missed.into_iter().peekable();
    loop {
        let (mut part, mut left) = (Vec::new(), room);
        while let Some((at, position)) = rest.peek() {
            let bytes = tree.bytes_at(position.as_bytes()) as usize;
            if bytes > left && *at > 0 {
                break;
            }
            left = left.saturating_sub(bytes);
            part.extend(rest.next().map(|(at, position)| (position, at)));
        }
        if part.is_empty() {
            return Ok((out, rest.next().map(|(at, _)| at)));
        }
        part.sort_unstable();
        let keys: Vec<&[u8]> = part.iter().map(|(position, _)| position.as_bytes()).collect();
        let found = data.multi_get(Table::Data, &keys)?;
        for ((position, at), found) in part.into_iter().zip(found) {
            room = room.saturating_sub(found.as_ref().map_or(0, Bytes::len));
            out.push((at, position, found));
        }
    }
}

fn decode(position: &Position, stored: Option<Bytes>) -> Result<Option<Record>, EngineError> {
    let record = stored.map(|bytes| Record::decode(&bytes)).transpose();
    record.map_err(|error| bad_record(position.as_bytes(), &error))
}
