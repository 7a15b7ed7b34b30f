//! The way to the nodes: who they are, what their ring is like, what it is asked for.
//!
//! Every call has a deadline, and every fan-out a bound. What was not answered is not guessed.

mod wire;

use super::world::{KeyspaceWish, RingView, Said, ring::Wish};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use god_proto::{
    MAX_MESSAGE, PEER_PROTOCOL,
    peer::{Frame, Hello, peer_client::PeerClient},
    v1::{self, Rejected, cluster_client::ClusterClient},
};
use std::{net::IpAddr, time::Duration};
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

/// How long a node may take to say who it is, or what its ring is. A look waits as long for one that keeps silent, and
/// people are told what is in the way within five seconds (invariant TOLD-SOON).
const TIMEOUT: Duration = Duration::from_secs(1);
/// How long it may take to say how all of them are: it asks them itself, and gives each a second.
const REPORTS_TIMEOUT: Duration = Duration::from_millis(1_500);
/// The longest that a look takes while one node keeps silent: who they are, and how they are. (A node that says who it
/// is answers for its ring at once.)
pub const LOOK: Duration = Duration::from_secs(2);
/// How long a change of the ring may take: nodes themselves give up after ten seconds.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(15);
/// Nodes asked at the same time.
const AT_ONCE: usize = 16;
/// Members asked for the ring, of which the newest counts.
const RING_FROM: usize = 5;
/// How often the ring is asked for anew when it changed while it was looked at.
const LOOKS: usize = 3;

/// Why the nodes did not do what they were asked for.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// It says why.
    #[error("the ring refuses: {0}")]
    Refused(String),
    /// A node says why it is not to be had now.
    #[error("the ring does not take it now: {0}")]
    Later(String),
    /// It may be asked again.
    #[error("no node could be asked: {0}")]
    Unavailable(String),
}

impl NodeError {
    fn of(rejected: &Rejected) -> NodeError {
        match rejected.reason() {
            v1::Reason::Invalid | v1::Reason::Exists => NodeError::Refused(rejected.message.clone()),
            _ => NodeError::Later(rejected.message.clone()),
        }
    }
}

/// A pod and where it is.
#[derive(Clone, Debug)]
pub struct Address {
    /// Its address.
    pub ip: IpAddr,
    /// Port of the door for clients.
    pub grpc: u16,
    /// Port of the door for nodes.
    pub peer: u16,
}

async fn connect(ip: IpAddr, port: u16) -> Result<Channel, tonic::transport::Error> {
    let host = match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    Endpoint::from_shared(format!("http://{host}:{port}"))?
        .connect_timeout(TIMEOUT)
        .timeout(CHANGE_TIMEOUT)
        .connect()
        .await
}

/// Who runs at each address, in their order.
pub async fn introduce(addresses: &[Option<Address>]) -> Vec<Said> {
    let asked = stream::iter(addresses.iter().cloned()).map(|address| async move {
        match address {
            Some(address) => hello(&address).await.unwrap_or_default(),
            None => Said::Nothing,
        }
    });
    asked.buffered(AT_ONCE).collect().await
}

/// A node says who it is before anything else is said to it. `None`: it did not.
async fn hello(address: &Address) -> Option<Said> {
    let asked = async {
        let channel = connect(address.ip, address.peer).await.ok()?;
        let mine = Hello {
            protocol: PEER_PROTOCOL,
            uuid: Uuid::nil().as_bytes().to_vec().into(),
            ..Hello::default()
        };
        let first = Frame { hello: Some(mine), ..Frame::default() };
        // The stream stays open until the answer is there, and ends then, or when nobody waits for it any more: one
        // that is left open keeps its connection for as long as the node does.
        let (heard, until) = oneshot::channel::<()>();
        let frames = stream::iter([first]).chain(stream::once(until).filter_map(async |_| None));
        let mut answers = PeerClient::new(channel).exchange(frames).await.ok()?.into_inner();
        let hello = answers.message().await.ok()??.hello;
        drop(heard);
        hello
    };
    let hello = tokio::time::timeout(TIMEOUT, asked).await.ok()??;
    let node = Uuid::from_slice(&hello.uuid).ok().filter(|node| !node.is_nil())?;
    Some(match Uuid::from_slice(&hello.cluster) {
        Ok(cluster) => Said::Member { node, cluster },
        Err(_) => Said::Fresh(node),
    })
}

/// The ring, as the members at these addresses tell of it.
pub async fn look(members: &[Address]) -> RingView {
    if members.is_empty() {
        return RingView::Unknown("no pod says that it is a member yet".to_owned());
    }
    let mut why = String::new();
    for _ in 0..LOOKS {
        match look_once(members).await {
            Ok(ring) if ring.is_newest() => return RingView::Known(Box::new(ring)),
            // It changes: what is known of it is good enough to wait for it.
            Ok(ring) => {
                if !ring.operations.is_empty() {
                    return RingView::Known(Box::new(ring));
                }
                "the ring changes".clone_into(&mut why);
            }
            Err(error) => why = error,
        }
    }
    RingView::Unknown(why)
}

async fn look_once(members: &[Address]) -> Result<super::world::Ring, String> {
    let members: Vec<Address> = members.iter().take(RING_FROM).cloned().collect();
    let asked = stream::iter(members).map(|address| async move {
        let work = async {
            let mut client = cluster_at(&address).await?;
            let reply =
                client.ring(v1::RingRequest {}).await.map_err(|status| status.to_string())?.into_inner();
            let ring = reply.ring.ok_or_else(|| reply.failed.unwrap_or_default().message)?;
            Ok::<_, String>((ring, client))
        };
        tokio::time::timeout(TIMEOUT, work).await.unwrap_or_else(|_| Err("a node took too long".to_owned()))
    });
    let answers: Vec<_> = asked.buffer_unordered(AT_ONCE).collect().await;
    let mut why = "no node answered".to_owned();
    let mut newest: Option<(v1::RingDocument, ClusterClient<Channel>)> = None;
    for answer in answers {
        match answer {
            Ok(answer) if newest.as_ref().is_none_or(|(ring, _)| ring.epoch < answer.0.epoch) => {
                newest = Some(answer);
            }
            Ok(_) => {}
            Err(error) => why = error,
        }
    }
    let Some((ring, mut client)) = newest else { return Err(why) };
    // Reports are asked for after the ring: one of its epoch says that the ring was known then.
    let mut other = client.clone();
    let reports = async { Ok::<_, tonic::Status>(client.status(v1::StatusRequest {}).await?.into_inner()) };
    let operations = async {
        if ring.operations.is_empty() {
            return Ok(Vec::new());
        }
        Ok(other.list_operations(v1::ListOperationsRequest {}).await?.into_inner().operations)
    };
    let both = futures::future::try_join(reports, operations);
    let asked = tokio::time::timeout(REPORTS_TIMEOUT, both).await;
    let asked = asked.map_err(|_| "a node took too long to say how the others are".to_owned())?;
    let (status, operations) = asked.map_err(|status| status.to_string())?;
    if let Some(failed) = status.failed {
        return Err(failed.message);
    }
    wire::ring(&ring, &status, &operations)
}

async fn cluster_at(address: &Address) -> Result<ClusterClient<Channel>, String> {
    let channel = connect(address.ip, address.grpc).await.map_err(|error| error.to_string())?;
    Ok(ClusterClient::new(channel).max_decoding_message_size(MAX_MESSAGE))
}

/// Asks one member after the other, until one can be asked and takes it: one that does not now may be cut off from the
/// others. The same operation id twice is once, so an unanswered call may be repeated.
async fn ask<T>(
    members: &[Address],
    call: impl Fn(ClusterClient<Channel>) -> BoxFuture<'static, Result<T, tonic::Status>>,
    failed: impl Fn(&T) -> Option<&Rejected>,
) -> Result<T, NodeError> {
    let mut error = NodeError::Unavailable("there is none".to_owned());
    for address in members.iter().take(RING_FROM) {
        let mut silent = |why: String| {
            // What one has answered says more.
            if !matches!(error, NodeError::Later(_)) {
                error = NodeError::Unavailable(why);
            }
        };
        let client = match cluster_at(address).await {
            Ok(client) => client,
            Err(why) => {
                silent(why);
                continue;
            }
        };
        match call(client).await {
            Ok(reply) => match failed(&reply).map(NodeError::of) {
                Some(later @ NodeError::Later(_)) => error = later,
                Some(refused) => return Err(refused),
                None => return Ok(reply),
            },
            Err(status) => silent(status.message().to_owned()),
        }
    }
    Err(error)
}

/// Tells one node to found the cluster that it was configured for.
pub async fn init(node: &Address, wish: &KeyspaceWish, virtual_nodes: u32) -> Result<(), NodeError> {
    let request = v1::InitRequest {
        replicas: wish.copies.replicas,
        write_quorum: wish.copies.write_quorum,
        read_quorum: wish.copies.read_quorum,
        virtual_nodes,
        under_replicated: false,
    };
    let call = |mut client: ClusterClient<Channel>| {
        async move { Ok(client.init(request).await?.into_inner()) }.boxed()
    };
    ask(std::slice::from_ref(node), call, |reply: &v1::InitReply| reply.failed.as_ref()).await?;
    Ok(())
}

/// Asks for an operation.
pub async fn begin(members: &[Address], id: &str, wish: &Wish) -> Result<(), NodeError> {
    let request = v1::BeginOperationRequest { id: id.to_owned(), wish: Some(wire::wish(wish)) };
    let call = |mut client: ClusterClient<Channel>| {
        let request = request.clone();
        async move { Ok(client.begin_operation(request).await?.into_inner()) }.boxed()
    };
    ask(members, call, |reply: &v1::BeginOperationReply| reply.failed.as_ref()).await?;
    Ok(())
}

/// Undoes an operation.
pub async fn cancel(members: &[Address], id: &str) -> Result<(), NodeError> {
    let request = v1::CancelOperationRequest { id: id.to_owned() };
    let call = |mut client: ClusterClient<Channel>| {
        let request = request.clone();
        async move { Ok(client.cancel_operation(request).await?.into_inner()) }.boxed()
    };
    ask(members, call, |reply: &v1::CancelOperationReply| reply.failed.as_ref()).await?;
    Ok(())
}

/// Makes a keyspace.
pub async fn create_keyspace(members: &[Address], wish: &KeyspaceWish) -> Result<(), NodeError> {
    let partitioner = if wish.ordered { v1::Partitioner::Ordered } else { v1::Partitioner::Hashed };
    let request = v1::CreateKeyspaceRequest {
        name: wish.name.clone(),
        partitioner: partitioner.into(),
        replicas: wish.copies.replicas,
        write_quorum: wish.copies.write_quorum,
        read_quorum: wish.copies.read_quorum,
        mode: v1::Mode::Lww.into(),
        default_ttl_ms: wish.ttl_ms,
        splits: vec![],
        under_replicated: false,
    };
    let call = |mut client: ClusterClient<Channel>| {
        let request = request.clone();
        async move { Ok(client.create_keyspace(request).await?.into_inner()) }.boxed()
    };
    ask(members, call, |reply: &v1::CreateKeyspaceReply| reply.failed.as_ref()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use god_proto::peer::peer_server::{Peer, PeerServer};
    use std::net::Ipv4Addr;
    use tokio::sync::mpsc;
    use tonic::{Request, Response, Status, Streaming};

    /// A node that says when it was let go.
    struct Door(mpsc::Sender<()>);

    #[tonic::async_trait]
    impl Peer for Door {
        type ExchangeStream = stream::BoxStream<'static, Result<Frame, Status>>;

        async fn exchange(
            &self,
            request: Request<Streaming<Frame>>,
        ) -> Result<Response<Self::ExchangeStream>, Status> {
            let (mut frames, gone) = (request.into_inner(), self.0.clone());
            tokio::spawn(async move {
                while let Ok(Some(_)) = frames.message().await {}
                let _ = gone.send(()).await;
            });
            let hello = Hello { uuid: vec![7; 16].into(), ..Hello::default() };
            let first = Frame { hello: Some(hello), ..Frame::default() };
            // As a node does, it keeps its side open.
            Ok(Response::new(stream::iter([Ok(first)]).chain(stream::pending()).boxed()))
        }
    }

    #[tokio::test]
    async fn a_node_is_let_go_once_it_has_said_who_it_is() {
        let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = free.local_addr().unwrap();
        drop(free);
        let (gone, mut let_go) = mpsc::channel(1);
        let serving = tonic::transport::Server::builder().add_service(PeerServer::new(Door(gone))).serve(at);
        let address = Address { ip: at.ip(), grpc: at.port(), peer: at.port() };
        let asked = async {
            let said = loop {
                if let Some(said) = hello(&address).await {
                    break said;
                }
                tokio::task::yield_now().await;
            };
            assert_eq!(said, Said::Fresh(Uuid::from_bytes([7; 16])));
            let_go.recv().await
        };
        tokio::select! {
            heard = tokio::time::timeout(Duration::from_secs(60), asked) => {
                assert!(heard.unwrap().is_some(), "its stream has ended");
            }
            served = serving => panic!("the door closed: {served:?}"),
        }
    }

    /// What comes of asking two members that answer so (the last one more often, if need be) and one that is silent.
    async fn asked(answers: &[Option<v1::Reason>]) -> (Result<(), NodeError>, usize) {
        let door = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = door.local_addr().unwrap();
        let (gone, _let_go) = mpsc::channel(1);
        let serving = tonic::transport::Server::builder()
            .add_service(PeerServer::new(Door(gone)))
            .serve_with_incoming(tonic::transport::server::TcpIncoming::from(door));
        let serving = tokio::spawn(serving);
        let there = Address { ip: at.ip(), grpc: at.port(), peer: at.port() };
        let silent = Address { ip: at.ip(), grpc: 1, peer: 1 };
        let times = std::sync::atomic::AtomicUsize::new(0);
        let call = |_| {
            let time = times.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let answer = answers.get(time).or(answers.last()).copied().flatten();
            async move { Ok(answer.map(|reason| Rejected::of(reason, "why".to_owned()))) }.boxed()
        };
        let members = [there.clone(), there, silent];
        let told = ask(&members, call, |reply: &Option<Rejected>| reply.as_ref()).await;
        serving.abort();
        (told.map(|_| ()), times.into_inner())
    }

    #[tokio::test]
    async fn what_one_member_does_not_do_now_another_may_and_what_it_answered_is_told() {
        let later = v1::Reason::Unavailable;
        assert!(matches!(asked(&[Some(later), None]).await, (Ok(()), 2)));
        let (told, times) = asked(&[Some(later)]).await;
        assert!(matches!(&told, Err(NodeError::Later(why)) if why == "why"), "{told:?}");
        assert_eq!(times, 2);
        let (told, times) = asked(&[Some(v1::Reason::Invalid)]).await;
        assert!(matches!(&told, Err(NodeError::Refused(_))), "{told:?}");
        assert_eq!(times, 1);
    }
}
