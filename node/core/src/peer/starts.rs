//! Which process of each node this node takes for it (invariant ONE-START; the rule is [`god_rules::starts`]).
//!
//! A node tells its start in each hello, and in each request to be taken in. What this node knows of others' starts is
//! kept, so that a directory that was put back from an old copy is known after this node's own restart too.

use crate::{
    engine::{Batch, Direction, Engine, EngineError, Table},
    seam::{Entropy, Offload},
};
use bytes::{Buf, BufMut};
use god_proto::{ids::NodeId, peer};
use god_rules::starts::{
    Heard, Known, LEAP, MAX_REFUSED, Source, Standing, Start, in_order, judge, refuse, remember,
};
use metrics::counter;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use uuid::Uuid;

/// This node's own start, in [`Table::System`].
const OWN: &[u8] = b"starts/own";
/// Why this directory is no node's any more, where others said so.
const REFUSED: &[u8] = b"starts/refused";
/// What is known of others' starts: by their numbers (4 bytes, big endian).
const OF: &[u8] = b"starts/of/";
const OF_END: &[u8] = b"starts/of0";

/// Of how many starts it is remembered where they were heard of.
const MAX_HEARD: usize = 64;

/// How a start was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It called.
    Caller,
    /// It answered where the node is known to be.
    Answerer,
}

/// What came of meeting one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meeting {
    /// It is the node.
    Taken,
    /// It may be, once the one that is known is no more, or was looked for. Why not now.
    Waits(String),
    /// What it says is no start that the node can have come to. Nothing follows for its directory, and nothing is
    /// remembered. Why.
    Unclear(String),
    /// It is not, and never will be. Why.
    Refused(String),
}

#[derive(Default)]
struct NodeStarts {
    known: Known,
    /// Connections to it, where it is known to be, whose other end is the latest start.
    answering: usize,
    /// Whether it was looked for since this node's own start, and since it answered last: a connection to it was made,
    /// or failed.
    looked_for: bool,
}

/// Where all of it is kept.
struct Kept {
    engine: Arc<dyn Engine>,
    offload: Offload,
    /// What is to be written. Whoever adds the first begins to write; the rest goes with the next batch.
    dirty: Arc<Mutex<Dirty>>,
}

/// Rows that differ from those on the disk.
#[derive(Default)]
struct Dirty {
    nodes: BTreeSet<NodeId>,
    own_refusal: Option<Vec<u8>>,
    is_written: bool,
}

/// This node's own start, and what it knows of others'.
#[derive(Default)]
pub struct Starts {
    own: Start,
    /// Why this directory is no node's any more.
    own_refusal: Option<String>,
    kept: Option<Kept>,
    nodes: Arc<Mutex<BTreeMap<NodeId, NodeStarts>>>,
    /// Where starts were heard of that others told of themselves, the latest of each address.
    heard: Mutex<Vec<Heard>>,
    changes: AtomicU64,
}

impl Starts {
    /// Counts this start, durably, and reads what is known of others. Once a start, before the node calls or is called.
    /// `restored`: somebody says that the directory was put back from a backup and is the node all the same, whatever
    /// others remember; and what must be noted with that, in one. Blocks on the disk.
    pub fn open(
        engine: Arc<dyn Engine>,
        offload: Offload,
        entropy: &Entropy,
        restored: Option<Batch>,
    ) -> Result<Starts, EngineError> {
        let damaged = |what: &str| EngineError::Corrupt(format!("{what} is malformed"));
        let before = match engine.get(Table::System, OWN)? {
            Some(row) => {
                read_start(&mut &row[..]).ok_or_else(|| damaged("the count of this node's starts"))?
            }
            None => Start::default(),
        };
        let id = entropy.uuid();
        let is_restored = restored.is_some();
        let mut batch = restored.unwrap_or_default();
        let (own, own_refusal) = if is_restored {
            batch.delete(Table::System, REFUSED);
            (Start { count: before.count.saturating_add(LEAP), id, before: Uuid::nil() }, None)
        } else {
            let refusal = engine.get(Table::System, REFUSED)?;
            let refusal = refusal.map(|why| String::from_utf8_lossy(&why).into_owned());
            (Start { count: before.count.saturating_add(1), id, before: before.id }, refusal)
        };
        let mut row = Vec::new();
        write_start(&mut row, &own);
        batch.put(Table::System, OWN, row);
        engine.commit(batch)?;
        engine.sync()?;
        let mut nodes = BTreeMap::new();
        for pair in engine.scan(Table::System, OF, OF_END, Direction::Forward) {
            let (key, value) = pair?;
            let number = key.get(OF.len()..).and_then(|number| number.try_into().ok());
            let known = read_known(&value);
            let (Some(number), Some(known)) = (number.map(u32::from_be_bytes), known) else {
                return Err(damaged("what is known of another node's starts"));
            };
            nodes.insert(NodeId(number), NodeStarts { known, ..NodeStarts::default() });
        }
        let (nodes, changes) = (Arc::new(Mutex::new(nodes)), AtomicU64::new(0));
        let kept = Some(Kept { engine, offload, dirty: Arc::default() });
        Ok(Starts { own, own_refusal, kept, nodes, heard: Mutex::default(), changes })
    }

    /// This node's own.
    pub fn own(&self) -> Start {
        self.own
    }

    /// Why this directory is no node's any more, where a start before this one was told so.
    pub fn own_refusal(&self) -> Option<&str> {
        self.own_refusal.as_deref()
    }

    /// Remembers, durably, that this directory is no node's any more: so it is not taken for one by those who did not
    /// meet it before. Must be called within the runtime.
    pub fn refuse_own(&self, why: &str) {
        self.write(|dirty| dirty.own_refusal = Some(why.as_bytes().to_vec()));
    }

    /// Whether a start of this very node's UUID is this process; else why not.
    pub fn is_own(&self, theirs: &Start) -> Result<(), String> {
        let own = &self.own;
        if own == theirs {
            return Ok(());
        }
        Err(format!(
            "start {} ({}) is refused, since its data directory is a copy of the one that this node runs on, with start \
             {} ({}). Stop it, and start a new node on an empty directory",
            theirs.count, theirs.id, own.count, own.id
        ))
    }

    /// Grows whenever what waits may be judged otherwise. Cost: an atomic load.
    pub fn changes(&self) -> u64 {
        self.changes.load(Relaxed)
    }

    /// Somebody at this address says of itself that it is this start. To be told before it is met: of what one address
    /// tells, no more is remembered than others leave room for. Cost: a lock, and a look at a bounded list.
    pub fn heard_from(&self, theirs: &Start, address: IpAddr) {
        let heard = Heard { id: theirs.id, from: address.into() };
        let mut all = self.heard.lock();
        if !heard.id.is_nil() && !all.contains(&heard) {
            remember(&mut all, heard, MAX_HEARD);
        }
    }

    /// Where a start was heard of, last.
    pub(super) fn source(&self, start: &Start) -> Source {
        let heard = self.heard.lock();
        heard.iter().rfind(|heard| heard.id == start.id).map_or(Source::Untold, |heard| heard.from)
    }

    /// Meets a start of a node of the ring. One that follows on the known one is taken for the node if that one does
    /// not answer where the node is known to be. Must be called within the runtime. Cost: a lock, and a write that
    /// nobody waits for where something new is known.
    pub fn meet(&self, node: NodeId, theirs: &Start, way: Way) -> Meeting {
        let mut nodes = self.nodes.lock();
        let entry = nodes.entry(node).or_default();
        let latest = entry.known.latest;
        match judge(&entry.known, theirs) {
            Standing::Same => return Meeting::Taken,
            Standing::Next if entry.answering > 0 => {
                return Meeting::Waits(format!(
                    "node {node} runs already: its start {} ({}) answers where it is known to be, and this is start {} \
                     ({}) on a copy of its data directory; stop one of them",
                    latest.count, latest.id, theirs.count, theirs.id
                ));
            }
            Standing::Next if way == Way::Caller && latest.count > 0 && !entry.looked_for => {
                return Meeting::Waits(format!("node {node} was not looked for yet where it is known to be"));
            }
            Standing::Untold => return Meeting::Unclear(untold(node, &latest)),
            Standing::Far => return Meeting::Unclear(far(node, &latest, theirs)),
            Standing::Next => {
                entry.known.latest = *theirs;
                entry.looked_for = true;
            }
            verdict => {
                let is_new = !entry.known.is_refused(&theirs.id);
                refuse(&mut entry.known, theirs, self.source(theirs));
                if is_new {
                    self.keep(node);
                    counter!("god_peer_refused_starts_total").increment(1);
                }
                return Meeting::Refused(sentence(node, verdict, &latest, theirs));
            }
        }
        self.keep(node);
        self.changes.fetch_add(1, Relaxed);
        Meeting::Taken
    }

    /// The known start of a node answered what it was asked after another one was met: that one is a copy, for good.
    /// Gives the reason; `None`: another start is known by now.
    pub fn outlived(&self, node: NodeId, known: Uuid, other: &Start) -> Option<String> {
        let mut nodes = self.nodes.lock();
        let entry = nodes.get_mut(&node)?;
        let latest = entry.known.latest;
        if latest.id != known || other.id == known {
            return None;
        }
        refuse(&mut entry.known, other, self.source(other));
        self.keep(node);
        self.changes.fetch_add(1, Relaxed);
        counter!("god_peer_refused_starts_total").increment(1);
        Some(sentence(node, Standing::Copy, &latest, other))
    }

    /// The start that is taken for a node; nil where none is known.
    pub fn latest(&self, node: NodeId) -> Uuid {
        self.nodes.lock().get(&node).map_or_else(Uuid::nil, |entry| entry.known.latest.id)
    }

    /// A connection to where a node is known to be could not be made, or broke.
    pub fn looked_for(&self, node: NodeId) {
        let mut nodes = self.nodes.lock();
        let entry = nodes.entry(node).or_default();
        if !std::mem::replace(&mut entry.looked_for, true) {
            self.changes.fetch_add(1, Relaxed);
        }
    }

    /// A connection to where a node is known to be is there, and its other end is this start; until the guard goes.
    pub fn answers(self: &Arc<Self>, node: NodeId, start: &Start) -> Answering {
        let mut nodes = self.nodes.lock();
        let entry = nodes.entry(node).or_default();
        let counts = start.count > 0 && start.id == entry.known.latest.id;
        if counts {
            entry.answering += 1;
            entry.looked_for = true;
        }
        Answering(counts.then(|| (Arc::clone(self), node, start.id)))
    }

    /// Forgets nodes that are no more in the ring: their numbers are never given again. Must be called within the
    /// runtime. Cost: a lock; a write that nobody waits for where one goes.
    pub fn keep_only(&self, is_there: impl Fn(NodeId) -> bool) {
        let gone: Vec<NodeId> =
            self.nodes.lock().extract_if(.., |node, _| !is_there(*node)).map(|(node, _)| node).collect();
        if !gone.is_empty() {
            self.write(|dirty| dirty.nodes.extend(gone));
        }
    }

    fn gone(&self, node: NodeId, start: Uuid) {
        let mut nodes = self.nodes.lock();
        if let Some(entry) = nodes.get_mut(&node).filter(|entry| entry.known.latest.id == start) {
            entry.answering = entry.answering.saturating_sub(1);
            // A connection that breaks says little of the process at its end: who calls instead of it waits until it
            // was looked for again.
            entry.looked_for = entry.answering > 0;
            self.changes.fetch_add(1, Relaxed);
        }
    }

    fn keep(&self, node: NodeId) {
        self.write(|dirty| dirty.nodes.extend([node]));
    }

    /// Has something written, durably. Nobody waits for it: what a crash takes of it is learned again.
    fn write(&self, add: impl FnOnce(&mut Dirty)) {
        let Some(Kept { engine, offload, dirty }) = &self.kept else { return };
        {
            let mut dirty = dirty.lock();
            add(&mut dirty);
            if std::mem::replace(&mut dirty.is_written, true) {
                return;
            }
        }
        let (engine, offload) = (Arc::clone(engine), *offload);
        let (dirty, nodes) = (Arc::clone(dirty), Arc::clone(&self.nodes));
        tokio::spawn(async move {
            while let Some(batch) = fill(&dirty, &nodes) {
                let engine = Arc::clone(&engine);
                let written = offload.run(move || engine.commit(batch).and_then(|()| engine.sync())).await;
                if let Err(error) = written {
                    tracing::warn!(%error, "what is known of nodes' starts is not kept");
                }
            }
        });
    }
}

/// What is to be written, as it is known now; `None`: nothing, and whoever adds to it writes it.
fn fill(dirty: &Mutex<Dirty>, nodes: &Mutex<BTreeMap<NodeId, NodeStarts>>) -> Option<Batch> {
    let (changed, own_refusal) = {
        let mut dirty = dirty.lock();
        (std::mem::take(&mut dirty.nodes), dirty.own_refusal.take())
    };
    let mut batch = Batch::default();
    let nodes = nodes.lock();
    changed.iter().for_each(|node| put(&mut batch, *node, &nodes));
    drop(nodes);
    if let Some(why) = own_refusal {
        batch.put(Table::System, REFUSED, why);
    }
    if batch.is_empty() {
        let mut dirty = dirty.lock();
        dirty.is_written = !dirty.nodes.is_empty() || dirty.own_refusal.is_some();
        return dirty.is_written.then_some(batch);
    }
    Some(batch)
}

/// The row of a node as it is known now.
fn put(batch: &mut Batch, node: NodeId, nodes: &BTreeMap<NodeId, NodeStarts>) {
    let Some(NodeStarts { known, .. }) = nodes.get(&node) else {
        return batch.delete(Table::System, row_of(node));
    };
    let mut row = Vec::new();
    write_start(&mut row, &known.latest);
    in_order(&known.refused).iter().for_each(|id| row.put_slice(id.as_bytes()));
    batch.put(Table::System, row_of(node), row);
}

/// See [`Starts::answers`].
pub struct Answering(Option<(Arc<Starts>, NodeId, Uuid)>);

impl Answering {
    /// Of one whose start does not matter.
    pub const fn nobody() -> Answering {
        Answering(None)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some((starts, node, start)) = self.0.take() {
            starts.gone(node, start);
        }
    }
}

fn row_of(node: NodeId) -> Vec<u8> {
    [OF, &node.0.to_be_bytes()].concat()
}

fn sentence(node: NodeId, verdict: Standing, latest: &Start, theirs: &Start) -> String {
    let what = match verdict {
        Standing::Old => "its data directory was put back from an old copy",
        _ => "its data directory is a copy of one that ran, or runs, elsewhere",
    };
    format!(
        "start {} ({}) of node {node} is refused, since {what}: start {} ({}) is known. Stop it; where the node itself is \
         gone, start a new one on an empty directory and let it replace node {node} (god ring change --replace), or \
         start this one once with --restored, and it is the node",
        theirs.count, theirs.id, latest.count, latest.id
    )
}

fn untold(node: NodeId, latest: &Start) -> String {
    format!(
        "who says that it is node {node} does not say which start of it this is, and start {} ({}) is known: it is not \
         taken for the node. If it is, run the version that ran on its data directory before, or a later one",
        latest.count, latest.id
    )
}

fn far(node: NodeId, latest: &Start, theirs: &Start) -> String {
    let known = match latest.count {
        0 => "none of it is known".to_owned(),
        count => format!("start {count} ({}) is known", latest.id),
    };
    format!(
        "start {} ({}) of node {node} is further ahead than a node comes, as {known}: it is not taken for the node. If \
         it is, its data directory is damaged: start a new node on an empty one and let it replace node {node} (god ring \
         change --replace)",
        theirs.count, theirs.id
    )
}

/// As told on the wire.
pub fn told(start: &Start) -> Option<peer::Start> {
    (start.count > 0).then(|| peer::Start {
        count: start.count,
        id: start.id.as_bytes().to_vec().into(),
        before: start.before.as_bytes().to_vec().into(),
    })
}

/// As heard on the wire; what is malformed counts as untold.
pub fn heard(start: Option<&peer::Start>) -> Start {
    let read = |start: &peer::Start| {
        let (id, before) = (Uuid::from_slice(&start.id).ok()?, Uuid::from_slice(&start.before).ok()?);
        (start.count > 0 && !id.is_nil()).then_some(Start { count: start.count, id, before })
    };
    start.and_then(read).unwrap_or_default()
}

fn write_start(row: &mut Vec<u8>, start: &Start) {
    row.put_u64(start.count);
    row.put_slice(start.id.as_bytes());
    row.put_slice(start.before.as_bytes());
}

fn read_uuid(row: &mut &[u8]) -> Option<Uuid> {
    let id = Uuid::from_slice(row.get(..16)?).ok()?;
    row.advance(16);
    Some(id)
}

fn read_start(row: &mut &[u8]) -> Option<Start> {
    let count = row.try_get_u64().ok()?;
    Some(Start { count, id: read_uuid(row)?, before: read_uuid(row)? })
}

fn read_known(mut row: &[u8]) -> Option<Known> {
    let mut known = Known { latest: read_start(&mut row)?, refused: vec![] };
    while !row.is_empty() && known.refused.len() < MAX_REFUSED {
        known.refused.push(Heard { id: read_uuid(&mut row)?, from: Source::Kept });
    }
    row.is_empty().then_some(known)
}
