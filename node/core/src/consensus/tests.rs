//! Many proposers, lost messages, crashes: each epoch is decided once, and nothing acknowledged is lost.

#![allow(clippy::unwrap_used)]

mod ballots;
mod newest;
mod survivors;
mod votes;

use super::*;
use crate::{
    engine::{Batch, Direction, Engine, EngineError, Pressure, Reader, SimulatedDisk, Snapshot, Table},
    peer::{Call, CallError, Target, Transport, failure},
    ring::{CurrentRing, Founding, Joiner, create_keyspace, found, join},
    seam::{Entropy, Offload, Seams, SystemWall},
};
use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use god_proto::{
    peer::{self, Cause, request, response},
    ring::Ring,
    v1::{Keyspace, RingDocument},
};
use god_rules::paxos::majority;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

struct World {
    /// Nodes to whom all messages are lost without a word.
    mute: Mutex<BTreeSet<u32>>,
    /// Nodes that take so long to answer.
    slow: Mutex<BTreeMap<u32, Duration>>,
    /// Nodes of a version that does not say what it has accepted where it grants nothing.
    older: Mutex<BTreeSet<u32>>,
    entropy: Arc<Entropy>,
    lost_per_mille: u64,
    nodes: Mutex<BTreeMap<u32, Arc<Register>>>,
    disks: Mutex<BTreeMap<u32, SimulatedDisk>>,
    /// Every document that any node held to be decided, by epoch.
    decided: Mutex<BTreeMap<u64, RingDocument>>,
    /// Epochs that were decided twice.
    twice: Mutex<Vec<u64>>,
    /// Whether an acceptor forgets its promises when it starts again: a defect, to see that it is found.
    forgetful: bool,
}

struct Wire(Weak<World>);

impl Transport for Wire {
    fn call(&self, to: Target, call: Call) -> BoxFuture<'static, Result<response::Body, CallError>> {
        let world = self.0.upgrade();
        Box::pin(async move {
            let Some(world) = world else { return Err(CallError::NotSent("the end".to_owned())) };
            match timeout(call.timeout, world.carry(to, call.body)).await {
                Ok(result) => result,
                Err(_) => Err(CallError::TimedOut),
            }
        })
    }

    fn tell(&self, to: Target, _: u64, body: request::Body) {
        let Some(world) = self.0.upgrade() else { return };
        tokio::spawn(async move { timeout(Duration::from_secs(2), world.carry(to, body)).await });
    }
}

impl World {
    fn new(seed: u64, lost_per_mille: u64, forgetful: bool) -> Arc<World> {
        Arc::new(World {
            entropy: Arc::new(Entropy::seeded(seed)),
            lost_per_mille,
            mute: Mutex::default(),
            slow: Mutex::default(),
            older: Mutex::default(),
            nodes: Mutex::default(),
            disks: Mutex::default(),
            decided: Mutex::default(),
            twice: Mutex::default(),
            forgetful,
        })
    }

    async fn travel(&self) {
        sleep(Duration::from_micros(self.entropy.below(20_000))).await;
        if self.entropy.below(1_000) < self.lost_per_mille {
            std::future::pending::<()>().await;
        }
    }

    async fn carry(&self, to: Target, body: request::Body) -> Result<response::Body, CallError> {
        let Target::Node(node) = to else { return Err(CallError::NotSent("no address".to_owned())) };
        self.travel().await;
        if self.mute.lock().contains(&node.0) {
            std::future::pending::<()>().await;
        }
        let register = self.nodes.lock().get(&node.0).cloned();
        let Some(register) = register else { return Err(CallError::NotSent("down".to_owned())) };
        let slow = self.slow.lock().get(&node.0).copied().unwrap_or_default();
        sleep(slow).await;
        let result = match body {
            request::Body::Prepare(message) => register.prepare(message).await,
            request::Body::Accept(message) => register.accept(message).await,
            request::Body::Decided(message) => register.decided(message).await,
            request::Body::GetRing(_) => register.get_ring(),
            request::Body::Ping(_) => {
                Ok(response::Body::Pong(peer::Pong { ready: true, ..peer::Pong::default() }))
            }
            _ => Err(failure(Cause::Invalid, "not asked here")),
        };
        self.travel().await;
        let result = match result {
            Ok(response::Body::Paxos(done)) if self.older.lock().contains(&node.0) && !done.granted => {
                let done = peer::PaxosDone { accepted: None, tells_accepted: false, ..done };
                Ok(response::Body::Paxos(done))
            }
            result => result,
        };
        result.map_err(CallError::Refused)
    }

    /// Starts a node on its disk.
    fn start(self: &Arc<Self>, number: u32) -> Arc<Register> {
        let disk = self.disks.lock().entry(number).or_default().clone();
        let engine = disk.open();
        if self.forgetful {
            let mut batch = crate::engine::Batch::default();
            batch.delete(crate::engine::Table::System, &b"ring/acceptor"[..]);
            crate::engine::Engine::commit(&*engine, batch).unwrap();
            crate::engine::Engine::sync(&*engine).unwrap();
        }
        let seams = Seams {
            wall: Arc::new(SystemWall),
            entropy: Arc::clone(&self.entropy),
            offload: Offload::Inline,
        };
        let wire = Arc::new(Wire(Arc::downgrade(self)));
        let current = CurrentRing::default();
        let register = Register::open(uuid(number), engine, current.clone(), wire, seams).unwrap();
        let register = Arc::new(register);
        self.nodes.lock().insert(number, Arc::clone(&register));
        let (world, mut changes) = (Arc::downgrade(self), current.changes());
        tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                let (Some(world), Some(ring)) = (world.upgrade(), current.get()) else { return };
                world.note(&ring);
            }
        });
        register
    }

    /// EPOCH-DECIDED-ONCE. Kept rather than asserted: a watching task's panic would be nobody's.
    fn note(&self, ring: &Ring) {
        let mut decided = self.decided.lock();
        let first = decided.entry(ring.epoch().0).or_insert_with(|| ring.document().clone());
        if first != ring.document() {
            self.twice.lock().push(ring.epoch().0);
        }
    }

    fn check(&self, seed: u64) {
        let twice = self.twice.lock();
        assert!(twice.is_empty(), "EPOCH-DECIDED-ONCE: seed {seed}: epochs {twice:?} were decided twice");
    }

    fn crash(&self, number: u32) {
        self.nodes.lock().remove(&number);
        self.disks.lock()[&number].crash_machine(0);
    }
}

fn uuid(number: u32) -> Uuid {
    Uuid::from_u128(u128::from(number))
}

fn joiner(number: u32) -> Joiner {
    Joiner {
        uuid: uuid(number),
        peer_address: format!("node-{number}"),
        grpc_address: String::new(),
        http_address: String::new(),
        zone: String::new(),
        weight: 1.0,
        takes_part: false,
        version: String::new(),
    }
}

/// A cluster of so many nodes, all joined.
async fn cluster(world: &Arc<World>, nodes: u32) -> Vec<Arc<Register>> {
    let founding =
        Founding { replicas: 3, write_quorum: 2, read_quorum: 2, virtual_nodes: 1, under_replicated: false };
    let mut registers = vec![world.start(1)];
    let ring = found(uuid(99), &joiner(1), founding).unwrap();
    registers[0].found(ring).await.unwrap();
    for number in 2..=nodes {
        let joined = registers[0]
            .change(Duration::from_secs(60), |ring| {
                join(ring, &joiner(number), &BTreeSet::new(), &BTreeSet::new())
            })
            .await
            .unwrap();
        let register = world.start(number);
        register.learn(joined).await.unwrap();
        registers.push(register);
    }
    registers
}

fn keyspace(name: String) -> Keyspace {
    Keyspace { name, replicas: 3, ..Keyspace::default() }
}

#[tokio::test(start_paused = true)]
async fn changes_from_all_sides_at_once_all_take_place_one_after_the_other() {
    for seed in 0..20 {
        let world = World::new(seed, 30, false);
        let registers = cluster(&world, 5).await;
        let changes = registers.iter().enumerate().map(|(at, register)| async move {
            let name = format!("from-{at}");
            let create = |ring: &Ring| match ring.keyspace(&name) {
                Some(_) => Ok(None),
                None => create_keyspace(ring, &keyspace(name.clone()), &[]).map(Some),
            };
            register.change(Duration::from_secs(120), create).await.unwrap()
        });
        let rings = join_all(changes).await;
        let last = rings.into_iter().max_by_key(|ring| ring.epoch()).unwrap();
        world.check(seed);
        for at in 0..5 {
            assert!(last.keyspace(&format!("from-{at}")).is_some(), "seed {seed}: a change was lost");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_ends_by_its_time_while_voters_are_silent() {
    let world = World::new(1, 0, false);
    let registers = cluster(&world, 3).await;
    world.mute.lock().extend([2, 3]);
    let limit = Duration::from_millis(300);
    let began = tokio::time::Instant::now();
    let create = |ring: &Ring| create_keyspace(ring, &keyspace("k".to_owned()), &[]).map(Some);
    let error = registers[0].change(limit, create).await.unwrap_err();
    assert!(matches!(error, RegisterError::NoQuorum { .. }), "{error}");
    assert!(began.elapsed() <= limit, "it took {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_minority_of_voters_down_holds_nothing_up_and_a_majority_down_is_said() {
    let world = World::new(1, 0, false);
    let registers = cluster(&world, 5).await;
    world.crash(4);
    world.crash(5);
    let create = |name: &str| {
        let name = name.to_owned();
        move |ring: &Ring| create_keyspace(ring, &keyspace(name.clone()), &[]).map(Some)
    };
    registers[0].change(Duration::from_secs(10), create("a")).await.unwrap();
    world.crash(3);
    let error = registers[0].change(Duration::from_secs(10), create("b")).await.unwrap_err();
    assert!(matches!(error, RegisterError::NoQuorum { .. }), "{error}");
    world.start(3);
    registers[0].change(Duration::from_secs(10), create("c")).await.unwrap();
}

/// EPOCH-BOUNDED.
#[tokio::test(start_paused = true)]
async fn a_ring_that_is_further_ahead_than_a_cluster_can_have_come_is_refused() {
    let world = World::new(1, 0, false);
    let registers = cluster(&world, 2).await;
    let known = registers[0].change(Duration::from_secs(1), |_| Ok(None)).await.unwrap();
    let far = RingDocument { epoch: u64::MAX, ..known.document().clone() };
    let refused = registers[0].decided(peer::Decided { ring: Some(far) }).await.unwrap_err();
    assert_eq!(refused.cause(), Cause::Invalid);
    let create = |ring: &Ring| create_keyspace(ring, &keyspace("after".to_owned()), &[]).map(Some);
    let next = registers[0].change(Duration::from_secs(60), create).await.unwrap();
    assert_eq!(next.epoch().0, known.epoch().0 + 1);
}

/// A vote that a disk kept is not forgotten where the ring that it followed is.
#[tokio::test(start_paused = true)]
async fn who_voted_on_a_later_epoch_than_it_can_know_of_votes_on_none_before() {
    let world = World::new(1, 0, false);
    cluster(&world, 1).await;
    let engine = world.disks.lock()[&1].open();
    let vote = peer::PaxosDone {
        granted: true,
        promised: Some(peer::Ballot { round: 3, node: 1 }),
        decided: Some(RingDocument { epoch: 5, ..RingDocument::default() }),
        ..peer::PaxosDone::default()
    };
    let mut batch = Batch::default();
    batch.put(Table::System, &b"ring/acceptor"[..], prost::Message::encode_to_vec(&vote));
    engine.commit(batch).and_then(|()| engine.sync()).unwrap();
    drop(engine);
    let register = world.start(1);
    let ballot = Some(peer::Ballot { round: 9, node: 1 });
    let refused = register.prepare(peer::Prepare { epoch: 2, ballot }).await.unwrap_err();
    assert_eq!(refused.cause(), Cause::Invalid, "{}", refused.message);
    let kept = world.disks.lock()[&1].open().get(Table::System, b"ring/acceptor").unwrap().unwrap();
    assert_eq!(kept, prost::Message::encode_to_vec(&vote), "the vote is kept");
}

/// Many changes by one node at once, with crashes: its ballots repeat, and yet each epoch is decided once.
#[tokio::test(start_paused = true)]
async fn changes_of_one_node_at_once_all_take_place() {
    for seed in 0..20 {
        let world = World::new(seed, 50, false);
        let registers = cluster(&world, 3).await;
        let changes = (0..6).map(|at| {
            let register = Arc::clone(&registers[at % 2]);
            let name = format!("k{at}");
            async move {
                let create = |ring: &Ring| match ring.keyspace(&name) {
                    Some(_) => Ok(None),
                    None => create_keyspace(ring, &keyspace(name.clone()), &[]).map(Some),
                };
                register.change(Duration::from_secs(120), create).await.unwrap()
            }
        });
        let rings = join_all(changes).await;
        let last = rings.into_iter().max_by_key(|ring| ring.epoch()).unwrap();
        world.check(seed);
        for at in 0..6 {
            assert!(last.keyspace(&format!("k{at}")).is_some(), "seed {seed}: change {at} was lost");
        }
    }
}

#[test]
fn a_ballot_used_again_gets_no_second_majority() {
    // Node 1 proposed 7 under (1, 1) to a majority, forgot that, and tries (1, 1) again with another value.
    let ballot = Ballot { round: 1, node: 1 };
    let mut voters = [Acceptor::<u32>::default(), Acceptor::default(), Acceptor::default()];
    for voter in &mut voters[..2] {
        assert_eq!(voter.prepare(ballot), Promise::Granted(None));
    }
    let granted = voters.iter_mut().filter_map(|voter| match voter.prepare(ballot) {
        Promise::Granted(accepted) => Some(accepted),
        Promise::Refused(_) => None,
    });
    assert!(granted.count() < majority(3), "two proposals under one ballot");
}

/// Changes by all, while nodes crash and start again. Says how many were acknowledged.
async fn storm(seed: u64, forgetful: bool) {
    let world = World::new(seed, 150, forgetful);
    let registers = cluster(&world, 3).await;
    drop(registers);
    // As long as changes go on; spaced like the messages' ways, so that crashes come in the midst of attempts.
    let crashes = async {
        loop {
            let number = world.entropy.below(3) as u32 + 1;
            world.crash(number);
            sleep(Duration::from_millis(world.entropy.below(10))).await;
            world.start(number);
            sleep(Duration::from_millis(world.entropy.below(120))).await;
        }
    };
    let changes = join_all((0..3u32).map(|at| {
        let world = Arc::clone(&world);
        async move {
            let mut acknowledged = Vec::new();
            for count in 0..8 {
                let name = format!("k{at}-{count}");
                let register = loop {
                    let register = world.nodes.lock().get(&(at + 1)).cloned();
                    if let Some(register) = register {
                        break register;
                    }
                    sleep(Duration::from_millis(1)).await;
                };
                let create = |ring: &Ring| create_keyspace(ring, &keyspace(name.clone()), &[]).map(Some);
                if let Ok(ring) = register.change(Duration::from_secs(2), create).await {
                    world.note(&ring);
                    acknowledged.push((ring.epoch().0, name));
                }
            }
            acknowledged
        }
    }));
    let acknowledged = tokio::select! {
        biased;
        acknowledged = changes => acknowledged,
        () = crashes => Vec::new(),
    };
    world.check(seed);
    let decided = world.decided.lock();
    let last = decided.values().next_back().unwrap();
    for (epoch, name) in acknowledged.into_iter().flatten() {
        let is_there = last.keyspaces.iter().any(|keyspace| keyspace.name == name);
        assert!(is_there, "seed {seed}: {name}, acknowledged in epoch {epoch}, is lost");
    }
}

#[tokio::test(start_paused = true)]
async fn crashes_and_lost_messages_never_decide_an_epoch_twice() {
    for seed in 0..40 {
        storm(seed, false).await;
    }
}

/// The check above can fail: an acceptor that forgets its promises at a crash decides an epoch twice.
#[test]
fn an_acceptor_that_forgets_its_promises_is_found_out() {
    let found_out = (0..2_000).any(|seed| {
        let storm = std::panic::AssertUnwindSafe(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            runtime.unwrap().block_on(storm(seed, true));
        });
        std::panic::catch_unwind(storm).is_err()
    });
    assert!(found_out, "2,000 storms over forgetful acceptors, and nothing was noticed");
}

/// An engine one of whose commits waits until it is let go.
struct Held {
    inner: Arc<dyn Engine>,
    hold: Mutex<Hold>,
    changed: parking_lot::Condvar,
}

#[derive(Clone, Copy, PartialEq)]
enum Hold {
    Nothing,
    TheNext,
    One,
}

impl Held {
    fn set(&self, hold: Hold) {
        *self.hold.lock() = hold;
        self.changed.notify_all();
    }

    async fn until_one_waits(&self) {
        let waits = async {
            while *self.hold.lock() != Hold::One {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(30), waits).await.unwrap();
    }
}

impl Reader for Held {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.inner.get(table, key)
    }

    fn scan<'a>(
        &'a self,
        table: Table,
        start: &[u8],
        end: &[u8],
        direction: Direction,
    ) -> Box<dyn Iterator<Item = Result<(Bytes, Bytes), EngineError>> + 'a> {
        self.inner.scan(table, start, end, direction)
    }
}

impl Engine for Held {
    fn multi_get(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        self.inner.multi_get(table, keys)
    }

    fn snapshot(&self) -> Box<dyn Snapshot> {
        self.inner.snapshot()
    }

    fn commit(&self, batch: Batch) -> Result<(), EngineError> {
        let mut hold = self.hold.lock();
        if *hold == Hold::TheNext {
            *hold = Hold::One;
            while *hold == Hold::One {
                self.changed.wait(&mut hold);
            }
        }
        drop(hold);
        self.inner.commit(batch)
    }

    fn commit_synced(&self, batch: Batch) -> Result<(), EngineError> {
        self.inner.commit_synced(batch)
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.inner.sync()
    }

    fn pressure(&self) -> Pressure {
        self.inner.pressure()
    }

    fn checkpoint(&self, to: std::path::PathBuf) -> Result<(), EngineError> {
        self.inner.checkpoint(to)
    }

    fn ingest(&self, table: Table, pairs: Vec<(Bytes, Bytes)>) -> Result<(), EngineError> {
        self.inner.ingest(table, pairs)
    }

    fn figures(&self) -> Vec<(&'static str, f64)> {
        self.inner.figures()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vote_that_nobody_waits_for_any_more_is_written_before_the_next_one() {
    let inner: Arc<dyn Engine> = SimulatedDisk::new().open();
    let engine =
        Arc::new(Held { inner, hold: Mutex::new(Hold::Nothing), changed: parking_lot::Condvar::new() });
    let world = World::new(1, 0, false);
    let open = || {
        let seams = Seams {
            wall: Arc::new(SystemWall),
            entropy: Arc::clone(&world.entropy),
            offload: Offload::threads(),
        };
        let wire = Arc::new(Wire(Arc::downgrade(&world)));
        let engine: Arc<dyn Engine> = engine.clone();
        Arc::new(Register::open(uuid(1), engine, CurrentRing::default(), wire, seams).unwrap())
    };
    let register = open();
    let founding =
        Founding { replicas: 3, write_quorum: 2, read_quorum: 2, virtual_nodes: 1, under_replicated: false };
    register.found(found(uuid(99), &joiner(1), founding).unwrap()).await.unwrap();
    let prepare = |register: Arc<Register>, round| async move {
        let ballot = Some(god_proto::peer::Ballot { round, node: 1 });
        match register.prepare(god_proto::peer::Prepare { epoch: 2, ballot }).await.unwrap() {
            response::Body::Paxos(done) => (done.granted, done.promised.unwrap().round),
            other => panic!("{other:?}"),
        }
    };

    engine.set(Hold::TheNext);
    let first = tokio::spawn(prepare(Arc::clone(&register), 1));
    engine.until_one_waits().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let mut second = tokio::spawn(prepare(Arc::clone(&register), 2));
    assert!(timeout(Duration::from_millis(100), &mut second).await.is_err(), "it overtook the first one");
    engine.set(Hold::Nothing);
    assert_eq!(second.await.unwrap(), (true, 2));
    assert_eq!(prepare(open(), 1).await, (false, 2), "what is on the disk is the newer vote");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_was_cancelled_does_not_keep_others_from_asking() {
    let world = World::new(3, 0, false);
    let registers = cluster(&world, 2).await;
    let newer = registers[0]
        .change(Duration::from_secs(60), |ring| join(ring, &joiner(3), &BTreeSet::new(), &BTreeSet::new()))
        .await
        .unwrap();
    let behind = world.start(2);
    assert!(behind.change(Duration::ZERO, |_| Ok(None)).await.unwrap().epoch() < newer.epoch());
    let from = Target::Node(god_proto::ids::NodeId(1));
    assert!(timeout(Duration::from_micros(1), behind.fetch_newer(from.clone())).await.is_err());
    let (one, other) = (behind.fetch_newer(from.clone()), behind.fetch_newer(from));
    tokio::join!(one, other);
    assert_eq!(behind.change(Duration::ZERO, |_| Ok(None)).await.unwrap().epoch(), newer.epoch());
}
