//! Replicas in memory, and a scripted network between them and one coordinator.

use crate::{
    budget::Budget,
    engine::SimulatedDisk,
    membership::{Liveness, PeerState},
    peer::{Call, CallError, Target, Transport, failure, weight},
    quorum::{Coordinator, HintSettings, Hints, Parts, QuorumSettings, RingSync},
    radix::{CommitterSettings, Limits, Store, StoreSettings},
    replica::{Floors, Lapse, Replica},
    ring::CurrentRing,
    seam::{Offload, Wall},
    version::Clock,
};
use futures::{FutureExt, future::BoxFuture};
use god_proto::{
    ids::{KeyspaceId, NodeId},
    peer::{Cause, PaxosDone, request, response},
    position::Position,
    record::{Entry, Record},
    ring::{RING_FORMAT, Ring},
    v1::{
        Answer, Arc as ArcMessage, Call as ClientCall, Consistency, DeleteRequest, GetRequest, Keyspace,
        Member, Partitioner, PutRequest, RingDocument, Transition, answer, call, consistency, get_reply,
        write_reply,
    },
    version::Version,
};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::{sleep, timeout};

/// Milliseconds since 1970, on every wall.
pub const NOW_MS: u64 = 1_700_000_000_000;
pub const ORDERED: &str = "ordered";
pub const ORDERED_ID: KeyspaceId = KeyspaceId(2);

/// A wall that a test moves.
#[derive(Default)]
pub struct TestWall(Mutex<u64>);

impl TestWall {
    pub fn pass(&self, ms: u64) {
        *self.0.lock() += ms;
    }
}

impl Wall for TestWall {
    fn now_us(&self) -> u64 {
        (NOW_MS + *self.0.lock()) * 1_000
    }
}

/// What happens to calls of one node.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    pub delay: Duration,
    pub does: Does,
    /// Only to writes.
    pub writes_only: bool,
    /// Only to reads that want values however large.
    pub whole_only: bool,
}

#[derive(Clone, Debug, Default)]
pub enum Does {
    #[default]
    Answer,
    /// Never acts, never answers.
    Hang,
    /// Acts, and the answer is lost.
    ActAndHang,
    /// Cannot be reached.
    Unreachable,
    Refuse(Cause),
}

pub struct Node {
    pub store: Arc<Store>,
    pub disk: SimulatedDisk,
    pub ring: CurrentRing,
    pub replica: Arc<Replica>,
    pub manner: Mutex<Manner>,
}

/// All nodes; the network between them; and the keepers of the ring.
pub struct World {
    pub nodes: BTreeMap<NodeId, Node>,
    /// The coordinator's.
    pub ring: CurrentRing,
    pub liveness: Arc<Liveness>,
    pub wall: Arc<TestWall>,
    pub hints: Arc<Hints>,
    pub disk: SimulatedDisk,
    /// Whether those who keep the ring do not answer.
    pub stuck: AtomicBool,
    /// Reads of whole values that other nodes than the first were asked for.
    pub wholes: AtomicUsize,
    /// Bytes of values that other nodes than the first answered with.
    pub carried: AtomicUsize,
    /// Calls by node and kind.
    pub log: Arc<Mutex<Vec<(u32, &'static str)>>>,
}

pub struct Cluster {
    pub world: Arc<World>,
    pub coordinator: Coordinator,
}

struct Wire(Arc<World>);

/// A ring of nodes 1 to `nodes`, all holding everything, up to three: keyspace `default`, hashed, one arc; keyspace
/// `ordered`, three arcs.
pub fn document(nodes: u32, epoch: u64) -> RingDocument {
    let member = |number: u32| Member {
        number,
        uuid: vec![number as u8; 16].into(),
        weight: 1.0,
        ..Member::default()
    };
    let keyspace = |id: u32, name: &str, partitioner: Partitioner| Keyspace {
        id,
        name: name.to_owned(),
        partitioner: partitioner.into(),
        replicas: 3,
        write_quorum: 2,
        read_quorum: 2,
        live: true,
        ..Keyspace::default()
    };
    let held: Vec<u32> = (1..=nodes.min(3)).collect();
    let arc = |id: u64, start: Position| ArcMessage {
        id,
        start: start.into_bytes(),
        replicas: held.clone(),
        transition: None,
        changed: 0,
    };
    let bound = |key: &[u8]| Position::of_ordered_bound(ORDERED_ID, key);
    RingDocument {
        format: RING_FORMAT,
        cluster: vec![9; 16].into(),
        epoch,
        voters: vec![1],
        keyspaces: vec![
            keyspace(1, "default", Partitioner::Hashed),
            keyspace(2, ORDERED, Partitioner::Ordered),
        ],
        nodes: (1..=nodes).map(member).collect(),
        arcs: vec![
            arc(1, Position::keyspace_start(KeyspaceId(1))),
            arc(2, Position::keyspace_start(ORDERED_ID)),
            arc(3, bound(b"k2")),
            arc(4, bound(b"k6")),
        ],
        next_node: nodes + 1,
        next_keyspace: 3,
        next_arc: 5,
        virtual_nodes: 1,
        ..RingDocument::default()
    }
}

pub fn ring(document: RingDocument) -> Arc<Ring> {
    Arc::new(Ring::new(document).unwrap())
}

/// A ring in which the arc of `default` goes from nodes 1, 2, 3 to nodes 3, 4, 5.
pub fn joint(epoch: u64) -> Arc<Ring> {
    let mut document = document(5, epoch);
    document.arcs[0].transition = Some(Transition { next: vec![3, 4, 5], since: epoch });
    ring(document)
}

/// Shorter times than a node's: tests name the bounds that follow.
fn settings(budget: &Budget) -> QuorumSettings {
    QuorumSettings {
        default_timeout: Duration::from_secs(2),
        hedge_delay: Duration::from_millis(10),
        budget: budget.clone(),
        ..QuorumSettings::default()
    }
}

pub fn store(disk: &SimulatedDisk) -> Arc<Store> {
    let settings = StoreSettings {
        committer: CommitterSettings::default(),
        offload: Offload::Inline,
        threaded: false,
        // So that each write meets what is stored.
        limits: Limits { remembered: 1, ..Limits::default() },
    };
    Arc::new(Store::open(disk.open(), [9; 16], settings).unwrap())
}

impl Cluster {
    pub fn new(nodes: u32) -> Cluster {
        Cluster::with(&ring(document(nodes, 5)), HintSettings::default())
    }

    pub fn with(ring: &Arc<Ring>, hint_settings: HintSettings) -> Cluster {
        Cluster::paid_from(&Budget::default(), ring, hint_settings)
    }

    /// One whose first node's requests are paid from this: its coordinator's, and what its replica is asked for.
    pub fn paid_from(budget: &Budget, ring: &Arc<Ring>, hint_settings: HintSettings) -> Cluster {
        let wall = Arc::new(TestWall::default());
        let current = |ring: &Arc<Ring>| {
            let current = CurrentRing::default();
            current.advance(Arc::clone(ring));
            current
        };
        let clock = |node: NodeId| {
            let clock =
                Clock::open(SimulatedDisk::new().open(), Arc::clone(&wall) as Arc<dyn Wall>, Offload::Inline);
            let clock = clock.unwrap();
            clock.set_node(node);
            Arc::new(clock)
        };
        let mut nodes = BTreeMap::new();
        for member in ring.nodes() {
            let id = NodeId(member.number);
            let disk = SimulatedDisk::new();
            let (store, ring) = (store(&disk), current(ring));
            let floors = Arc::new(Floors::open(Arc::clone(store.engine()), Offload::Inline).unwrap());
            let lapse = Lapse::open(SimulatedDisk::new().open(), Offload::Inline, None, true).unwrap();
            let mut replica = Replica::new(
                id,
                Arc::clone(&store),
                ring.clone(),
                clock(id),
                floors,
                Arc::new(lapse),
                Offload::Inline,
            );
            if id == NodeId(1) {
                replica = replica.paid_from(budget.clone());
            }
            let transitions = ring.get().unwrap();
            let transitions = transitions.arcs().iter().map(|arc| (arc.id, arc.since.0));
            for (arc, since) in transitions.clone() {
                replica.inherit(arc, since, &transitions.clone().collect());
            }
            let replica = Arc::new(replica);
            nodes.insert(id, Node { store, disk, ring, replica, manner: Mutex::default() });
        }
        let (mine, disk) = (current(ring), SimulatedDisk::new());
        let hints = Hints::open(disk.open(), mine.clone(), Offload::Inline, hint_settings).unwrap();
        let world = Arc::new(World {
            nodes,
            ring: mine.clone(),
            liveness: Arc::default(),
            wall: Arc::clone(&wall),
            hints: Arc::new(hints),
            disk,
            stuck: AtomicBool::new(false),
            carried: AtomicUsize::new(0),
            wholes: AtomicUsize::new(0),
            log: Arc::default(),
        });
        let parts = Parts {
            ring: mine,
            transport: Cluster::wire(&world),
            clock: clock(NodeId(1)),
            liveness: Arc::clone(&world.liveness),
            hints: Arc::clone(&world.hints),
            sync: Arc::new(Wire(Arc::clone(&world))),
        };
        Cluster { coordinator: Coordinator::new(NodeId(1), parts, settings(budget)), world }
    }

    /// Another coordinator of the same nodes, whose wall is so far ahead.
    pub fn coordinator(&self, ahead_ms: u64) -> (Coordinator, Arc<TestWall>) {
        let wall = Arc::new(TestWall::default());
        wall.pass(*self.world.wall.0.lock() + ahead_ms);
        let clock =
            Clock::open(SimulatedDisk::new().open(), Arc::clone(&wall) as Arc<dyn Wall>, Offload::Inline);
        let clock = clock.unwrap();
        clock.set_node(NodeId(2));
        let parts = Parts {
            ring: self.world.ring.clone(),
            transport: Cluster::wire(&self.world),
            clock: Arc::new(clock),
            liveness: Arc::clone(&self.world.liveness),
            hints: Arc::clone(&self.world.hints),
            sync: Arc::new(Wire(Arc::clone(&self.world))),
        };
        (Coordinator::new(NodeId(2), parts, settings(&Budget::default())), wall)
    }

    pub fn wire(world: &Arc<World>) -> Arc<dyn Transport> {
        Arc::new(Wire(Arc::clone(world)))
    }

    pub fn keeper(world: &Arc<World>) -> Arc<dyn RingSync> {
        Arc::new(Wire(Arc::clone(world)))
    }

    pub fn node(&self, node: u32) -> &Node {
        &self.world.nodes[&NodeId(node)]
    }

    pub fn does(&self, node: u32, does: Does) {
        self.node(node).manner.lock().does = does;
    }

    pub fn slow(&self, node: u32, ms: u64) {
        self.node(node).manner.lock().delay = Duration::from_millis(ms);
    }

    pub fn state(&self, node: u32, state: PeerState) {
        self.world.liveness.update(NodeId(node), |peer| peer.state = state);
    }

    /// Writes to one replica past the coordinator; `ms` after [`NOW_MS`], perhaps below 0.
    pub async fn seed(&self, node: u32, entry: Entry) {
        self.node(node).store.write(vec![entry]).await.unwrap();
    }

    /// What a replica holds.
    pub async fn held(&self, node: u32, position: &Position) -> Option<Record> {
        self.node(node).store.get(position).await.unwrap()
    }

    pub async fn one(&self, call: ClientCall) -> Answer {
        let mut answers = self.coordinator.batch(vec![call]).await;
        assert_eq!(answers.len(), 1);
        answers.remove(0)
    }

    pub async fn write(&self, call: ClientCall) -> write_reply::Outcome {
        written(self.one(call).await)
    }

    pub async fn read(&self, call: ClientCall) -> get_reply::Outcome {
        got(self.one(call).await)
    }

    pub fn sent(&self, kind: &str) -> usize {
        self.world.log.lock().iter().filter(|(_, sent)| *sent == kind).count()
    }
}

pub fn written(answer: Answer) -> write_reply::Outcome {
    match answer.answer {
        Some(answer::Answer::Write(reply)) => reply.outcome.unwrap(),
        other => panic!("not a write's answer: {other:?}"),
    }
}

pub fn got(answer: Answer) -> get_reply::Outcome {
    match answer.answer {
        Some(answer::Answer::Get(reply)) => reply.outcome.unwrap(),
        other => panic!("not a read's answer: {other:?}"),
    }
}

pub fn put(key: &str, value: &str) -> ClientCall {
    put_request(PutRequest {
        keyspace: "default".to_owned(),
        key: key.as_bytes().to_vec().into(),
        value: value.as_bytes().to_vec().into(),
        timeout_ms: 300,
        ..PutRequest::default()
    })
}

pub fn put_request(request: PutRequest) -> ClientCall {
    ClientCall { call: Some(call::Call::Put(request)) }
}

pub fn delete(key: &str) -> ClientCall {
    let request = DeleteRequest {
        keyspace: "default".to_owned(),
        key: key.as_bytes().to_vec().into(),
        timeout_ms: 300,
        ..DeleteRequest::default()
    };
    ClientCall { call: Some(call::Call::Delete(request)) }
}

pub fn get(key: &str) -> ClientCall {
    get_request(key, None, None)
}

pub fn get_request(key: &str, count: Option<u32>, at_least: Option<Version>) -> ClientCall {
    let request = GetRequest {
        keyspace: "default".to_owned(),
        key: key.as_bytes().to_vec().into(),
        timeout_ms: 300,
        consistency: count.map(|count| Consistency { level: Some(consistency::Level::Count(count)) }),
        at_least: at_least.map(Into::into),
    };
    ClientCall { call: Some(call::Call::Get(request)) }
}

pub fn position(key: &str) -> Position {
    Position::of_key(KeyspaceId(1), Partitioner::Hashed, key.as_bytes()).unwrap()
}

pub fn ordered(key: &str) -> Position {
    Position::of_key(ORDERED_ID, Partitioner::Ordered, key.as_bytes()).unwrap()
}

/// A version of node 9, so many milliseconds after [`NOW_MS`], or before.
pub fn version(ms: i64) -> Version {
    Version::new(NOW_MS.saturating_add_signed(ms), 0, NodeId(9))
}

pub fn value(position: &Position, ms: i64, value: &str) -> Entry {
    Entry { position: position.clone(), record: Record::value(version(ms), value.as_bytes().to_vec()) }
}

pub fn tombstone(position: &Position, ms: i64) -> Entry {
    Entry { position: position.clone(), record: Record::tombstone(version(ms)) }
}

impl Transport for Wire {
    fn call(&self, to: Target, call: Call) -> BoxFuture<'static, Result<response::Body, CallError>> {
        let world = Arc::clone(&self.0);
        async move {
            let Target::Node(id) = to else {
                return Err(CallError::NotSent("no address is known".to_owned()));
            };
            let (kind, writes) = match &call.body {
                request::Body::Write(_) => ("write", true),
                request::Body::Read(_) => ("read", false),
                request::Body::Scan(_) => ("scan", false),
                request::Body::Summarize(_) => ("summarize", false),
                request::Body::Split(_) => ("split", false),
                request::Body::Select(_) => ("select", false),
                _ => ("other", false),
            };
            world.log.lock().push((id.0, kind));
            if matches!(&call.body, request::Body::Read(read) if read.largest_bytes == 0) && id != NodeId(1) {
                // It is sent whether anybody waits for it or not.
                world.wholes.fetch_add(1, Ordering::Relaxed);
            }
            let Some(node) = world.nodes.get(&id) else {
                return Err(CallError::NotSent("no such node".to_owned()));
            };
            let mut manner = node.manner.lock().clone();
            let whole = matches!(&call.body, request::Body::Read(read) if read.largest_bytes == 0);
            if manner.writes_only && !writes || manner.whole_only && !whole {
                manner = Manner::default();
            }
            let limit = call.timeout;
            let work = async {
                sleep(manner.delay).await;
                match manner.does {
                    Does::Answer => match call.body {
                        // As a voter that has accepted nothing.
                        request::Body::Prepare(ask) => {
                            let decided = node.ring.get().filter(|ring| ring.epoch().0 >= ask.epoch);
                            let decided = decided.map(|ring| ring.document().clone());
                            Ok(response::Body::Paxos(PaxosDone { decided, ..PaxosDone::default() }))
                        }
                        _ => node.replica.handle(call).await.map_err(CallError::Refused),
                    },
                    Does::Hang => std::future::pending().await,
                    Does::ActAndHang => {
                        let _acted = node.replica.handle(call).await;
                        std::future::pending().await
                    }
                    Does::Unreachable => Err(CallError::NotSent("connection refused".to_owned())),
                    Does::Refuse(cause) => Err(CallError::Refused(failure(cause, "as the test says"))),
                }
            };
            let done = timeout(limit, work).await.unwrap_or(Err(CallError::TimedOut));
            if let (Ok(answer), true) = (&done, id != NodeId(1)) {
                world.carried.fetch_add(weight(answer), Ordering::Relaxed);
            }
            done
        }
        .boxed()
    }

    fn tell(&self, _: Target, _: u64, _: request::Body) {}
}

impl RingSync for Wire {
    fn fetch(&self, from: Target) -> BoxFuture<'static, ()> {
        let world = Arc::clone(&self.0);
        async move {
            world.log.lock().push((0, "fetch"));
            if world.stuck.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            if let Target::Node(node) = from
                && let Some(newer) = world.nodes[&node].ring.get()
            {
                world.ring.advance(newer);
            }
        }
        .boxed()
    }

    fn push(&self, to: NodeId, ring: Arc<Ring>) -> BoxFuture<'static, ()> {
        let world = Arc::clone(&self.0);
        async move {
            world.log.lock().push((to.0, "push"));
            world.nodes[&to].ring.advance(ring);
        }
        .boxed()
    }

    fn confirm(&self) -> BoxFuture<'static, Result<(), String>> {
        let world = Arc::clone(&self.0);
        async move {
            world.log.lock().push((0, "confirm"));
            if world.stuck.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            Ok(())
        }
        .boxed()
    }

    fn make_live(&self, keyspace: KeyspaceId) -> BoxFuture<'static, Result<(), String>> {
        let world = Arc::clone(&self.0);
        async move {
            world.log.lock().push((0, "make_live"));
            if world.stuck.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            let mut document = world.ring.get().unwrap().document().clone();
            document.epoch += 1;
            for known in document.keyspaces.iter_mut().filter(|known| known.id == keyspace.0) {
                known.live = true;
            }
            world.ring.advance(ring(document));
            Ok(())
        }
        .boxed()
    }
}
