//! A cluster in memory: enough of the protocol for the client and the command to be tested from outside.
//!
//! Its nodes replicate nothing: each answers from its own map, so that a test sees who was asked. Keys in any keyspace
//! share one map. Three keys are special: `refused` is refused, `unknown` has an unknown
//! outcome, and `busy` is refused as busy the first time.

// A reply holds its version in an option. Not every test uses all of it.
#![allow(clippy::unnecessary_wraps, dead_code)]

mod knobs;

use bytes::Bytes;
use futures::StreamExt as _;
use god_proto::{
    ids::KeyspaceId,
    position::Position,
    v1::{
        self, Answer, Arc as RingArc, BatchReply, BatchRequest, Committed, CountReply, CountRequest,
        CreateKeyspaceReply, CreateKeyspaceRequest, DeleteKeyspaceReply, DeleteKeyspaceRequest,
        DeleteRequest, Found, GetReply, GetRequest, InitReply, InitRequest, KeyRange, KeyValue, Keyspace,
        ListKeyspacesReply, ListKeyspacesRequest, Member, Missing, NodeReport, NodeStatus, NumberedAnswer,
        PipelineReply, PipelineRequest, PutRequest, RankReply, RankRequest, Reason, Rejected, RingDocument,
        RingReply, RingRequest, ScanReply, ScanRequest, SelectReply, SelectRequest, StatusReply,
        StatusRequest, Unknown, Version, WriteReply, call, cluster_server, get_reply, key_range,
        store_server, write_reply,
    },
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, atomic::Ordering},
};
use tonic::{Request, Response, Status, Streaming, transport::server::TcpIncoming};

pub use knobs::Knobs;

type Pairs = BTreeMap<Bytes, Bytes>;
type Reply<T> = Result<Response<T>, Status>;

/// A node; clones are the same one.
#[derive(Clone)]
pub struct Fake {
    pub address: SocketAddr,
    pub knobs: Arc<Knobs>,
    pairs: Arc<Mutex<Pairs>>,
    world: Arc<Mutex<World>>,
    was_busy: Arc<Mutex<bool>>,
}

/// What the nodes have in common.
struct World {
    keyspaces: Vec<Keyspace>,
    addresses: Vec<String>,
    epoch: u64,
    /// Numbers of the nodes that hold all keys.
    replicas: Vec<u32>,
}

/// A cluster of one.
pub fn start() -> Fake {
    let [fake] = start_many();
    fake
}

/// Nodes 1 and up, each on a thread of its own, which ends with the test's process. All hold all keys.
pub fn start_many<const N: usize>() -> [Fake; N] {
    let replicas: Vec<u32> = (1..=N as u32).collect();
    let world = World { keyspaces: Vec::new(), addresses: Vec::new(), epoch: 1, replicas };
    let world = Arc::new(Mutex::new(world));
    let fakes: [Fake; N] = std::array::from_fn(|_| start_one(Arc::clone(&world)));
    let mut shared = world.lock().unwrap();
    shared.keyspaces.push(keyspace(1, "default", N as u32));
    shared.addresses = fakes.iter().map(|fake| fake.address.to_string()).collect();
    drop(shared);
    fakes
}

fn start_one(world: Arc<Mutex<World>>) -> Fake {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpIncoming::bind(([127, 0, 0, 1], 0).into()).unwrap();
            let fake = Fake {
                address: listener.local_addr().unwrap(),
                knobs: Arc::default(),
                pairs: Arc::default(),
                world,
                was_busy: Arc::default(),
            };
            tell.send(fake.clone()).unwrap();
            tonic::transport::Server::builder()
                .add_service(store_server::StoreServer::new(fake.clone()).max_decoding_message_size(16 << 20))
                .add_service(cluster_server::ClusterServer::new(fake))
                .serve_with_incoming(listener)
                .await
                .unwrap();
        });
    });
    told.recv().unwrap()
}

fn keyspace(id: u32, name: &str, replicas: u32) -> Keyspace {
    Keyspace {
        id,
        name: name.to_owned(),
        replicas,
        write_quorum: replicas / 2 + 1,
        read_quorum: replicas / 2 + 1,
        ..Keyspace::default()
    }
}

fn version() -> Option<Version> {
    Some(Version { time: 7 << 16, node: 1 })
}

fn rejected(reason: Reason, message: &str) -> Rejected {
    Rejected { reason: reason.into(), message: message.to_owned(), retry_after_ms: 1 }
}

fn within(range: Option<&KeyRange>, key: &Bytes) -> bool {
    let Some(range) = range else { return true };
    let above = match &range.lower {
        None => true,
        Some(key_range::Lower::From(low)) => key >= low,
        Some(key_range::Lower::After(low)) => key > low,
    };
    let below = match &range.upper {
        None => true,
        Some(key_range::Upper::Before(high)) => key < high,
        Some(key_range::Upper::Through(high)) => key <= high,
    };
    above && below && range.prefix.as_ref().is_none_or(|prefix| key.starts_with(prefix))
}

impl Fake {
    /// What it holds.
    pub fn pairs(&self) -> Pairs {
        self.pairs.lock().unwrap().clone()
    }

    /// Puts a pair where only this node sees it.
    pub fn holds(&self, key: &'static str, value: &'static str) {
        self.pairs.lock().unwrap().insert(key.into(), value.into());
    }

    /// The next epoch, in which these nodes hold all keys.
    pub fn move_to(&self, replicas: &[u32]) {
        let mut world = self.world.lock().unwrap();
        world.epoch += 1;
        world.replicas = replicas.to_vec();
    }

    /// The ring says that the nodes are at these addresses.
    pub fn claim_addresses(&self, addresses: &[String]) {
        self.world.lock().unwrap().addresses = addresses.to_vec();
    }

    fn refusal(&self, name: &str) -> Option<Rejected> {
        if self.knobs.busy.load(Ordering::SeqCst) {
            return Some(rejected(Reason::Busy, "too much is waiting"));
        }
        let known = self.world.lock().unwrap().keyspaces.iter().any(|keyspace| keyspace.name == name)
            && !self.knobs.ignorant.load(Ordering::SeqCst);
        (!known).then(|| rejected(Reason::NoSuchKeyspace, &format!("keyspace {name} is not there")))
    }

    fn write(&self, keyspace: &str, key: &Bytes, value: Option<Bytes>) -> WriteReply {
        let committed = write_reply::Outcome::Committed(Committed { version: version(), acks: 1 });
        let outcome = if let Some(refusal) = self.refusal(keyspace) {
            write_reply::Outcome::Rejected(refusal)
        } else if key == "refused" {
            write_reply::Outcome::Rejected(rejected(Reason::Invalid, "this key is refused"))
        } else if key == "unknown" {
            let message = "too few answered".to_owned();
            write_reply::Outcome::Unknown(Unknown { version: version(), acks: 1, message })
        } else if key == "busy" && !std::mem::replace(&mut *self.was_busy.lock().unwrap(), true) {
            write_reply::Outcome::Rejected(rejected(Reason::Busy, "too much is waiting"))
        } else {
            let mut pairs = self.pairs.lock().unwrap();
            match value {
                Some(value) => pairs.insert(key.clone(), value),
                None => pairs.remove(key),
            };
            committed
        };
        WriteReply { outcome: Some(outcome) }
    }

    fn read(&self, keyspace: &str, key: &Bytes, at_least: Option<Version>) -> GetReply {
        let outcome = match (self.refusal(keyspace), self.pairs.lock().unwrap().get(key)) {
            (Some(refusal), _) => get_reply::Outcome::Failed(refusal),
            (None, Some(value)) => get_reply::Outcome::Found(Found {
                value: value.clone(),
                version: version(),
                expires_at_ms: 0,
            }),
            (None, None) if at_least.is_some() => {
                get_reply::Outcome::Failed(rejected(Reason::Stale, "no answer is as new as asked"))
            }
            (None, None) => {
                let version = if key == "deleted" { version() } else { None };
                get_reply::Outcome::Missing(Missing { version })
            }
        };
        GetReply { outcome: Some(outcome) }
    }

    fn answer(&self, call: Option<v1::Call>) -> Answer {
        let answer = match call.and_then(|call| call.call) {
            Some(call::Call::Put(put)) => {
                Some(v1::answer::Answer::Write(self.write(&put.keyspace, &put.key, Some(put.value))))
            }
            Some(call::Call::Delete(delete)) => {
                Some(v1::answer::Answer::Write(self.write(&delete.keyspace, &delete.key, None)))
            }
            Some(call::Call::Get(get)) => {
                Some(v1::answer::Answer::Get(self.read(&get.keyspace, &get.key, get.at_least)))
            }
            None => None,
        };
        Answer { answer }
    }
}

#[tonic::async_trait]
impl store_server::Store for Fake {
    async fn put(&self, request: Request<PutRequest>) -> Reply<WriteReply> {
        let put = request.into_inner();
        Ok(Response::new(self.write(&put.keyspace, &put.key, Some(put.value))))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Reply<WriteReply> {
        let delete = request.into_inner();
        Ok(Response::new(self.write(&delete.keyspace, &delete.key, None)))
    }

    async fn get(&self, request: Request<GetRequest>) -> Reply<GetReply> {
        let get = request.into_inner();
        Ok(Response::new(self.read(&get.keyspace, &get.key, get.at_least)))
    }

    async fn batch(&self, request: Request<BatchRequest>) -> Reply<BatchReply> {
        let calls = request.into_inner().calls;
        let answers = calls.into_iter().map(|call| self.answer(Some(call))).collect();
        Ok(Response::new(BatchReply { answers }))
    }

    type PipelineStream = Pin<Box<dyn futures::Stream<Item = Result<PipelineReply, Status>> + Send>>;

    async fn pipeline(&self, request: Request<Streaming<PipelineRequest>>) -> Reply<Self::PipelineStream> {
        if self.knobs.down.load(Ordering::SeqCst) {
            return Err(Status::unavailable("this node is down"));
        }
        let fake = self.clone();
        let replies = request.into_inner().map(move |request| {
            let fake = fake.clone();
            async move {
                let request = request?;
                fake.knobs.sees(&request);
                fake.knobs.answers().await;
                let mut calls = request.calls;
                if fake.knobs.backwards.load(Ordering::SeqCst) {
                    calls.reverse();
                }
                let answers = calls
                    .into_iter()
                    .map(|numbered| NumberedAnswer {
                        id: numbered.id,
                        answer: Some(fake.answer(numbered.call)),
                    })
                    .collect();
                let epoch = fake.world.lock().unwrap().epoch;
                Ok(PipelineReply { answers, epoch })
            }
        });
        let replies = replies.buffer_unordered(1_024).take_until(Box::pin(self.knobs.is_cut()));
        Ok(Response::new(Box::pin(replies)))
    }

    /// Two keys a page, so that every scan of a test has several.
    async fn scan(&self, request: Request<ScanRequest>) -> Reply<ScanReply> {
        let scan = request.into_inner();
        if let failed @ Some(_) = self.refusal(&scan.keyspace) {
            return Ok(Response::new(ScanReply { failed, ..ScanReply::default() }));
        }
        let mut pairs: Vec<_> =
            self.pairs().into_iter().filter(|(key, _)| within(scan.range.as_ref(), key)).collect();
        if scan.reverse {
            pairs.reverse();
        }
        if !scan.continuation.is_empty() {
            let at = pairs.iter().position(|(key, _)| *key == scan.continuation).unwrap();
            pairs.drain(..=at);
        }
        let most = if scan.limit == 0 { 2 } else { 2.min(scan.limit as usize) };
        let more = pairs.len() > most;
        pairs.truncate(most);
        let continuation = pairs.last().filter(|_| more).map(|(key, _)| key.clone()).unwrap_or_default();
        let entries = pairs
            .into_iter()
            .map(|(key, value)| KeyValue {
                key,
                value: if scan.keys_only { Bytes::new() } else { value },
                version: version(),
                expires_at_ms: 0,
            })
            .collect();
        Ok(Response::new(ScanReply { entries, continuation, failed: None }))
    }

    async fn count(&self, request: Request<CountRequest>) -> Reply<CountReply> {
        let count = request.into_inner();
        let failed = self.refusal(&count.keyspace);
        let count = self.pairs().keys().filter(|key| within(count.range.as_ref(), key)).count() as u64;
        Ok(Response::new(CountReply { count, failed }))
    }

    async fn rank(&self, request: Request<RankRequest>) -> Reply<RankReply> {
        let key = request.into_inner().key;
        let pairs = self.pairs();
        let rank = pairs.range(..key.clone()).count() as u64;
        Ok(Response::new(RankReply { rank, exists: pairs.contains_key(&key), failed: None }))
    }

    async fn select(&self, request: Request<SelectRequest>) -> Reply<SelectReply> {
        let rank = request.into_inner().rank as usize;
        let entry = self.pairs().into_iter().nth(rank);
        let entry = entry.map(|(key, value)| KeyValue { key, value, version: version(), expires_at_ms: 0 });
        Ok(Response::new(SelectReply { entry, failed: None }))
    }
}

#[tonic::async_trait]
impl cluster_server::Cluster for Fake {
    async fn init(&self, _: Request<InitRequest>) -> Reply<InitReply> {
        let failed = Some(rejected(Reason::Exists, "this node belongs to a cluster already"));
        Ok(Response::new(InitReply { cluster: Bytes::new(), failed }))
    }

    async fn ring(&self, _: Request<RingRequest>) -> Reply<RingReply> {
        if self.knobs.keeps_ring.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let world = self.world.lock().unwrap();
        let keyspaces = world.keyspaces.clone();
        let arc = |keyspace: &Keyspace| RingArc {
            id: u64::from(keyspace.id),
            start: Position::keyspace_start(KeyspaceId(keyspace.id)).into_bytes(),
            replicas: world.replicas.clone(),
            transition: None,
            changed: 0,
        };
        let node = |(at, address): (usize, &String)| Member {
            number: at as u32 + 1,
            uuid: vec![at as u8 + 1; 16].into(),
            grpc_address: address.clone(),
            peer_address: address.clone(),
            http_address: address.clone(),
            weight: 1.0,
            ..Member::default()
        };
        let ring = RingDocument {
            format: 1,
            cluster: vec![9; 16].into(),
            epoch: world.epoch,
            voters: vec![1],
            arcs: keyspaces.iter().map(arc).collect(),
            next_node: world.addresses.len() as u32 + 1,
            next_keyspace: keyspaces.len() as u32 + 1,
            next_arc: keyspaces.len() as u64 + 1,
            virtual_nodes: 4,
            nodes: world.addresses.iter().enumerate().map(node).collect(),
            keyspaces,
            ..RingDocument::default()
        };
        Ok(Response::new(RingReply { ring: Some(ring), failed: None }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Reply<StatusReply> {
        let node = NodeStatus {
            number: 1,
            uuid: vec![1; 16].into(),
            grpc_address: self.address.to_string(),
            state: "up".to_owned(),
            weight: 1.0,
            share: 1.0,
            arcs: 1,
            voter: true,
            version: "0.1.0".to_owned(),
            report: Some(NodeReport {
                keys: self.pairs().len() as u64,
                ready: true,
                ..NodeReport::default()
            }),
            ..NodeStatus::default()
        };
        Ok(Response::new(StatusReply {
            cluster: vec![9; 16].into(),
            epoch: 1,
            nodes: vec![node],
            arcs: 1,
            ..StatusReply::default()
        }))
    }

    async fn create_keyspace(&self, request: Request<CreateKeyspaceRequest>) -> Reply<CreateKeyspaceReply> {
        let asked = request.into_inner();
        let mut world = self.world.lock().unwrap();
        let id = world.keyspaces.len() as u32 + 1;
        let replicas = world.replicas.len() as u32;
        let made = Keyspace { partitioner: asked.partitioner, ..keyspace(id, &asked.name, replicas) };
        world.keyspaces.push(made.clone());
        world.epoch += 1;
        Ok(Response::new(CreateKeyspaceReply { keyspace: Some(made), failed: None }))
    }

    async fn delete_keyspace(&self, request: Request<DeleteKeyspaceRequest>) -> Reply<DeleteKeyspaceReply> {
        let asked = request.into_inner();
        let mut world = self.world.lock().unwrap();
        world.keyspaces.retain(|keyspace| keyspace.id != asked.id);
        world.epoch += 1;
        Ok(Response::new(DeleteKeyspaceReply { failed: None }))
    }

    async fn list_keyspaces(&self, _: Request<ListKeyspacesRequest>) -> Reply<ListKeyspacesReply> {
        self.knobs.listed.fetch_add(1, Ordering::SeqCst);
        let all = self.world.lock().unwrap().keyspaces.clone();
        let keyspaces = if self.knobs.ignorant.load(Ordering::SeqCst) { Vec::new() } else { all };
        Ok(Response::new(ListKeyspacesReply { keyspaces, failed: None }))
    }

    async fn plan_operation(&self, _: Request<v1::PlanOperationRequest>) -> Reply<v1::PlanOperationReply> {
        Ok(Response::new(v1::PlanOperationReply::default()))
    }

    async fn begin_operation(
        &self,
        request: Request<v1::BeginOperationRequest>,
    ) -> Reply<v1::BeginOperationReply> {
        Ok(Response::new(v1::BeginOperationReply { id: request.into_inner().id, failed: None }))
    }

    async fn cancel_operation(
        &self,
        _: Request<v1::CancelOperationRequest>,
    ) -> Reply<v1::CancelOperationReply> {
        Ok(Response::new(v1::CancelOperationReply::default()))
    }

    async fn list_operations(&self, _: Request<v1::ListOperationsRequest>) -> Reply<v1::ListOperationsReply> {
        Ok(Response::new(self.knobs.operations()))
    }

    async fn recover(&self, _: Request<v1::RecoverRequest>) -> Reply<v1::RecoverReply> {
        Ok(Response::new(v1::RecoverReply::default()))
    }
}
