//! One node: its lanes for single keys, and a channel for everything else.

use crate::{
    lane::{Lane, Shared, State, Waiting},
    settings::Settings,
    transport,
};
use god_proto::{
    MAX_MESSAGE,
    v1::{cluster_client::ClusterClient, store_client::StoreClient},
};
use std::sync::Arc;
use tonic::transport::Channel;

/// Calls leave the first lane for another one when it is this much busier: apart, they share fewer frames.
const SPILL: usize = 64;
/// From this many bytes on a call takes the last lane, where it holds up no small one.
const BULK: usize = 64 << 10;

/// See the module.
pub(crate) struct Node {
    address: String,
    rank: u32,
    lanes: Vec<Arc<Lane>>,
    channel: Channel,
}

impl Node {
    /// Connects when it is wanted.
    pub fn new(address: &str, settings: &Settings, shared: &Arc<Shared>) -> Result<Node, String> {
        let channel = transport::endpoint(address, settings.connect_timeout)?.connect_lazy();
        let lanes =
            (0..settings.connections.max(1)).map(|_| Lane::start(address, Arc::clone(shared))).collect();
        let is_nearest = settings.nearest.as_deref() == Some(address);
        let rank = if is_nearest { 0 } else { rand::random_range(1..=u32::MAX) };
        Ok(Node { address: address.to_owned(), rank, lanes, channel })
    }

    /// Where it is.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where it stands among the nodes of this client; the lowest goes first.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// How it does: as its first lane.
    pub fn state(&self) -> State {
        self.lanes.first().map_or(State::Down, |lane| lane.state())
    }

    /// Calls that have no answer yet.
    pub fn load(&self) -> usize {
        self.lanes.iter().map(|lane| lane.load()).sum()
    }

    /// Connects, if it never was.
    pub fn want(&self) {
        if let Some(lane) = self.lanes.first() {
            lane.want();
        }
    }

    /// The lane for a call of so many bytes.
    pub fn lane(&self, bytes: usize) -> Option<&Lane> {
        let (first, others) = self.lanes.split_first()?;
        if bytes >= BULK {
            return Some(others.last().unwrap_or(first));
        }
        let mut best = first;
        for lane in others {
            if lane.load() + SPILL < best.load() {
                best = lane;
            }
        }
        Some(best)
    }

    /// Queues a call.
    pub fn push(&self, call: Waiting) -> Result<(), crate::lane::Lost> {
        match self.lane(call.bytes) {
            Some(lane) => lane.push(call),
            None => Err(crate::lane::Lost::NotSent("no connection".to_owned())),
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
        for lane in &self.lanes {
            lane.close();
        }
    }
}
