//! Clients that cost a node something and give nothing.

use crate::{hull, load::REGISTERS, plan::Node};
use futures::StreamExt as _;
use god_client::proto::{
    Call, GetRequest, NumberedCall, PipelineReply, PipelineRequest, PutRequest, call,
    store_client::StoreClient,
};
use std::{
    io,
    time::{Duration, Instant},
};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{sleep, timeout},
};
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

/// The doors of a node.
const DOORS: [u16; 3] = [7000, 7100, 7200];
/// Connections that say nothing, at each door.
pub const SILENT: usize = 3_000;
/// How many are made at a time.
const AT_ONCE: usize = 64;
/// How long one may take to be made.
const CONNECT: Duration = Duration::from_secs(2);
/// Clients that do not read.
pub const UNREAD: usize = 8;
/// What they ask for: a value of so many bytes, so many times a frame.
const VALUE: usize = 1_100;
const GETS: u64 = 1_000;
/// The key that they read.
pub const READ: &str = "unread/read";
/// The key that they write.
pub const WRITTEN: &str = "unread/written";

/// A client of one node that connects when it is first used.
pub fn client(node: Node) -> anyhow::Result<StoreClient<Channel>> {
    Ok(StoreClient::new(endpoint(node)?.connect_lazy()))
}

/// Where a node's door for clients is.
pub fn endpoint(node: Node) -> anyhow::Result<Endpoint> {
    Ok(Endpoint::from_shared(format!("http://{}:7000", hull::address(node)))?.connect_timeout(CONNECT))
}

fn is_gone(stream: &TcpStream) -> bool {
    match stream.try_read(&mut [0; 64]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

/// Holds [`SILENT`] connections at each door, as far as the node lets it: new ones in the place of those that it ends.
/// Gives how many it made. Connections that the node turns away at once are as good as any.
pub async fn say_nothing(node: Node, until: Instant) -> usize {
    let mut open: Vec<(u16, TcpStream)> = Vec::new();
    let mut made = 0;
    while Instant::now() < until {
        open.retain(|(_, stream)| !is_gone(stream));
        let missing = DOORS.into_iter().flat_map(|door| {
            let there = open.iter().filter(|(of, _)| *of == door).count();
            std::iter::repeat_n(door, SILENT.saturating_sub(there))
        });
        let missing: Vec<u16> = missing.collect();
        let connect = |door| async move {
            let stream = timeout(CONNECT, TcpStream::connect((hull::address(node), door))).await;
            Some((door, stream.ok()?.ok()?))
        };
        let mut connecting = futures::stream::iter(missing).map(connect).buffer_unordered(AT_ONCE);
        while let Some(connected) = connecting.next().await {
            if let Some(connected) = connected {
                made += 1;
                open.push(connected);
            }
            if Instant::now() >= until {
                break;
            }
        }
        sleep(Duration::from_millis(200)).await;
    }
    made
}

fn frame() -> PipelineRequest {
    let numbered = |id, call| NumberedCall { id, call: Some(Call { call: Some(call) }) };
    let get = |id| {
        let get = GetRequest { keyspace: REGISTERS.to_owned(), key: READ.into(), ..GetRequest::default() };
        numbered(id, call::Call::Get(get))
    };
    let put = PutRequest {
        keyspace: REGISTERS.to_owned(),
        key: WRITTEN.into(),
        value: "by one that does not read".into(),
        ..PutRequest::default()
    };
    let mut calls: Vec<NumberedCall> = (0..GETS).map(get).collect();
    calls.push(numbered(GETS, call::Call::Put(put)));
    PipelineRequest { calls }
}

/// A stream whose answers nobody reads, and the way to ask for more.
struct Unread {
    frames: mpsc::Sender<PipelineRequest>,
    _answers: Streaming<PipelineReply>,
}

async fn unread(node: Node) -> anyhow::Result<Unread> {
    // What the node may send ahead of what is read.
    let narrow = endpoint(node)?.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
    let (frames, outgoing) = mpsc::channel(4);
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
    let answers = timeout(CONNECT, StoreClient::new(narrow.connect_lazy()).pipeline(outgoing)).await??;
    Ok(Unread { frames, _answers: answers.into_inner() })
}

/// Asks for much and reads nothing, on [`UNREAD`] connections, anew where the node ends one. Gives how many it made.
pub async fn read_nothing(node: Node, until: Instant) -> usize {
    let put = PutRequest {
        keyspace: REGISTERS.to_owned(),
        key: READ.into(),
        value: vec![b'v'; VALUE].into(),
        ..PutRequest::default()
    };
    if let Ok(mut client) = client(node) {
        // Where it is not written, less is read.
        let _ = timeout(CONNECT, client.put(put)).await;
    }
    let mut streams: Vec<Unread> = Vec::new();
    let mut made = 0;
    while Instant::now() < until {
        streams.retain(|stream| !stream.frames.is_closed());
        while streams.len() < UNREAD
            && let Ok(stream) = unread(node).await
        {
            made += 1;
            streams.push(stream);
        }
        for stream in &streams {
            // A full queue has enough.
            let _ = stream.frames.try_send(frame());
        }
        sleep(Duration::from_millis(200)).await;
    }
    made
}
