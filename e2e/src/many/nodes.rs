//! Stand-ins for nodes: they say who they are, found clusters, are admitted to them, and hold nothing.

use futures::{StreamExt as _, stream};
use god_operator::controller::build::{GRPC_PORT, PEER_PORT};
use god_proto::{
    PEER_PROTOCOL,
    peer::{Frame, Hello, peer_server},
    v1::{self, cluster_server},
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::TcpConnectInfo},
};
use uuid::Uuid;

/// Namespace and name of a cluster.
pub type Key = (String, String);
/// Where stand-ins are: every address of these is this machine's own (`.ci/bench-operator`).
const FIRST: u32 = u32::from_be_bytes([10, 210, 0, 1]);
/// The most of them.
const MOST: usize = 60_000;
/// Each copy may be had from there.
const FREE: u64 = 1 << 40;

struct Node {
    cluster: Key,
    uuid: Uuid,
    /// The name of its pod.
    pod: String,
}

struct Cluster {
    id: Uuid,
    /// UUIDs of all its nodes, in the order in which they came.
    nodes: Vec<Uuid>,
    /// What it was founded with.
    founded: Option<v1::InitRequest>,
}

#[derive(Default)]
struct State {
    nodes: HashMap<IpAddr, Node>,
    clusters: HashMap<Key, Cluster>,
    asked: BTreeMap<&'static str, u64>,
}

/// All of them.
#[derive(Clone, Default)]
pub struct StandIns(Arc<Mutex<State>>);

impl StandIns {
    /// The cluster that an object stands for, if it has nodes.
    pub fn id_of(&self, cluster: &Key) -> Option<Uuid> {
        self.0.lock().clusters.get(cluster).map(|cluster| cluster.id)
    }

    /// A node runs in a pod: it is who it was before, at another address.
    ///
    /// # Errors
    /// Where there are too many of them.
    pub fn start(&self, cluster: &Key, id: Uuid, pod: &str) -> anyhow::Result<Ipv4Addr> {
        let state = &mut *self.0.lock();
        anyhow::ensure!(state.nodes.len() < MOST, "there are {MOST} stand-ins already");
        let address = Ipv4Addr::from_bits(FIRST + state.nodes.len() as u32);
        let there = state.clusters.entry(cluster.clone());
        let there = there.or_insert_with(|| Cluster { id, nodes: Vec::new(), founded: None });
        let before = state.nodes.values().find(|node| node.cluster == *cluster && node.pod == pod);
        let uuid = before.map_or_else(|| Uuid::from_u128(rand::random()), |node| node.uuid);
        if !there.nodes.contains(&uuid) {
            there.nodes.push(uuid);
        }
        state.nodes.insert(address.into(), Node { cluster: cluster.clone(), uuid, pod: pod.to_owned() });
        Ok(address)
    }

    /// Answers at every address of this machine, for as long as it is asked.
    ///
    /// # Errors
    /// Where a port is taken.
    pub async fn serve(self) -> anyhow::Result<()> {
        let at = |port: u16| (Ipv4Addr::UNSPECIFIED, port).into();
        let cluster = Server::builder().add_service(cluster_server::ClusterServer::new(self.clone()));
        let peer = Server::builder().add_service(peer_server::PeerServer::new(self));
        tokio::try_join!(cluster.serve(at(GRPC_PORT)), peer.serve(at(PEER_PORT)))?;
        Ok(())
    }

    /// Counts from nothing again.
    pub fn forget(&self) {
        self.0.lock().asked.clear();
    }

    /// Prints what was asked.
    pub fn print(&self, when: &str) {
        println!("{when}: nodes were asked {:?}", self.0.lock().asked);
    }

    /// What somebody at the address that was asked says.
    fn at<T, R>(
        &self,
        what: &'static str,
        request: &Request<T>,
        say: impl FnOnce(&Node, &mut Cluster) -> R,
    ) -> Result<R, Status> {
        let address = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::local_addr);
        let address = address.ok_or_else(|| Status::internal("nobody knows where it was asked"))?.ip();
        let state = &mut *self.0.lock();
        *state.asked.entry(what).or_default() += 1;
        let node = state.nodes.get(&address).ok_or_else(|| Status::unavailable("nobody is there"))?;
        let cluster = state.clusters.get_mut(&node.cluster);
        Ok(say(node, cluster.ok_or_else(|| Status::unavailable("it is in no cluster"))?))
    }
}

impl Cluster {
    fn id(&self) -> bytes::Bytes {
        self.id.as_bytes().to_vec().into()
    }

    /// Epochs count who was admitted: the founder in the first one.
    fn epoch(&self) -> u64 {
        self.nodes.len() as u64
    }

    fn ring(&self) -> Option<v1::RingDocument> {
        let founded = self.founded?;
        let numbers: Vec<u32> = (1..=self.nodes.len() as u32).collect();
        let member = |(number, uuid): (&u32, &Uuid)| v1::Member {
            number: *number,
            uuid: uuid.as_bytes().to_vec().into(),
            weight: 1.0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..v1::Member::default()
        };
        let keyspace = v1::Keyspace {
            id: 1,
            name: "default".to_owned(),
            replicas: founded.replicas,
            write_quorum: founded.write_quorum,
            read_quorum: founded.read_quorum,
            ..v1::Keyspace::default()
        };
        let copies = (founded.replicas as usize).min(numbers.len());
        let arcs = founded.virtual_nodes as usize * numbers.len();
        let arc = |number: usize| v1::Arc {
            id: number as u64,
            start: [1_u32.to_be_bytes(), (number as u32).to_be_bytes()].concat().into(),
            replicas: (0..copies)
                .filter_map(|step| numbers.get((number + step) % numbers.len()).copied())
                .collect(),
            transition: None,
            changed: 0,
        };
        Some(v1::RingDocument {
            cluster: self.id(),
            epoch: self.epoch(),
            voters: numbers.iter().copied().take(if numbers.len() < 3 { 1 } else { 3 }).collect(),
            keyspaces: vec![keyspace],
            nodes: numbers.iter().zip(&self.nodes).map(member).collect(),
            arcs: (0..arcs).map(arc).collect(),
            ..v1::RingDocument::default()
        })
    }

    fn status(&self) -> v1::StatusReply {
        let Some(ring) = self.ring() else { return v1::StatusReply::default() };
        let node = |member: &v1::Member| v1::NodeStatus {
            number: member.number,
            uuid: member.uuid.clone(),
            weight: member.weight,
            state: "up".to_owned(),
            version: member.version.clone(),
            report: Some(v1::NodeReport {
                epoch: ring.epoch,
                disk_free_bytes: FREE,
                ready: true,
                version: member.version.clone(),
                ..v1::NodeReport::default()
            }),
            ..v1::NodeStatus::default()
        };
        v1::StatusReply {
            cluster: self.id(),
            epoch: ring.epoch,
            nodes: ring.nodes.iter().map(node).collect(),
            ..v1::StatusReply::default()
        }
    }
}

#[tonic::async_trait]
impl peer_server::Peer for StandIns {
    type ExchangeStream = stream::BoxStream<'static, Result<Frame, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let hello = self.at("who they are", &request, |node, cluster| Hello {
            protocol: PEER_PROTOCOL,
            cluster: if cluster.founded.is_some() { cluster.id() } else { bytes::Bytes::new() },
            uuid: node.uuid.as_bytes().to_vec().into(),
            ..Hello::default()
        })?;
        let first = Frame { hello: Some(hello), ..Frame::default() };
        let mut incoming = request.into_inner();
        // Open until the other side has heard enough.
        let until = async move {
            while let Ok(Some(_)) = incoming.message().await {}
            None
        };
        let until = stream::once(until).filter_map(async |ended: Option<Result<Frame, Status>>| ended);
        Ok(Response::new(stream::iter([Ok(first)]).chain(until).boxed()))
    }
}

/// What nobody asks a stand-in for.
macro_rules! unasked {
    ($($name:ident: $request:ident, $reply:ident;)*) => {
        /// The doors' trait, with all that is not answered.
        #[tonic::async_trait]
        impl cluster_server::Cluster for StandIns {
            async fn init(&self, request: Request<v1::InitRequest>) -> Result<Response<v1::InitReply>, Status> {
                let reply = self.at("to found", &request, |node, cluster| {
                    // Who founds is the first.
                    cluster.nodes.sort_by_key(|uuid| *uuid != node.uuid);
                    cluster.founded = Some(*request.get_ref());
                    v1::InitReply { cluster: cluster.id(), failed: None }
                });
                reply.map(Response::new)
            }

            async fn ring(&self, request: Request<v1::RingRequest>) -> Result<Response<v1::RingReply>, Status> {
                let ring = self.at("for the ring", &request, |_, cluster| cluster.ring())?;
                let ring = ring.ok_or_else(|| Status::unavailable("there is no ring yet"))?;
                Ok(Response::new(v1::RingReply { ring: Some(ring), failed: None }))
            }

            async fn status(
                &self,
                request: Request<v1::StatusRequest>,
            ) -> Result<Response<v1::StatusReply>, Status> {
                self.at("how they are", &request, |_, cluster| cluster.status()).map(Response::new)
            }

            $(async fn $name(&self, _: Request<v1::$request>) -> Result<Response<v1::$reply>, Status> {
                Err(Status::unimplemented("a stand-in holds nothing"))
            })*
        }
    };
}

unasked! {
    create_keyspace: CreateKeyspaceRequest, CreateKeyspaceReply;
    list_keyspaces: ListKeyspacesRequest, ListKeyspacesReply;
    delete_keyspace: DeleteKeyspaceRequest, DeleteKeyspaceReply;
    plan_operation: PlanOperationRequest, PlanOperationReply;
    begin_operation: BeginOperationRequest, BeginOperationReply;
    cancel_operation: CancelOperationRequest, CancelOperationReply;
    list_operations: ListOperationsRequest, ListOperationsReply;
    recover: RecoverRequest, RecoverReply;
}
