//! One node: its connections for single keys, and a channel for everything else.

use crate::{
    connection::{Connection, ConnectionContext, ConnectionState, Lost, Waiting},
    settings::ClientSettings,
    transport,
};
use god_proto::{
    MAX_MESSAGE,
    v1::{cluster_client::ClusterClient, store_client::StoreClient},
};
use god_stream::pick;
use std::sync::Arc;
use tonic::transport::Channel;

/// From this many bytes on a call takes the last connection, where it holds up no small one.
const BULK: usize = 64 << 10;

/// See the module.
pub(crate) struct Node {
    address: String,
    rank: u32,
    connections: Vec<Arc<Connection>>,
    channel: Channel,
}

impl Node {
    /// Connects when it is wanted.
    pub fn new(
        address: &str,
        settings: &ClientSettings,
        shared: &Arc<ConnectionContext>,
    ) -> Result<Node, String> {
        let channel = transport::endpoint(address, settings.connect_timeout)?.connect_lazy();
        let connections = (0..settings.connections.max(1))
            .map(|_| Connection::start(address, Arc::clone(shared)))
            .collect();
        let is_nearest = settings.nearest.as_deref() == Some(address);
        let rank = if is_nearest { 0 } else { rand::random_range(1..=u32::MAX) };
        Ok(Node { address: address.to_owned(), rank, connections, channel })
    }

    /// Where it is.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where it stands among the nodes of this client; the lowest goes first.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// How it does: as its first connection.
    pub fn state(&self) -> ConnectionState {
        self.connections.first().map_or(ConnectionState::Down, |connection| connection.state())
    }

    /// Calls that have no answer yet.
    pub fn load(&self) -> usize {
        self.connections.iter().map(|connection| connection.calls.load()).sum()
    }

    /// Connects, if it never was.
    pub fn want(&self) {
        if let Some(connection) = self.connections.first() {
            connection.want();
        }
    }

    /// Queues a call; its outcome arrives by its deadline.
    pub fn push(&self, call: Waiting) -> Result<(), Lost> {
        match pick(&self.connections, call.bytes >= BULK, |connection| connection.calls.load()) {
            Some(connection) => connection.calls.push(call),
            None => Err(Lost::NotSent("no connection".to_owned())),
        }
    }

    /// For calls that are not single keys.
    pub fn store(&self) -> StoreClient<Channel> {
        StoreClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// For what operators ask.
    pub fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for connection in &self.connections {
            connection.calls.close();
        }
    }
}
