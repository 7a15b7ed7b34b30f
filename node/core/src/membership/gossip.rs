//! Gossip on who is there, after SWIM (Das et al., 2002), by the crate `foca`.
//!
//! Gossip carries liveness, addresses and epochs, never the ring. It finds the others by the ring's addresses, so it
//! starts once a node has joined.

use super::{GossipIdentity, Liveness, NewerRing, PeerState};
use crate::{
    peer::{Target, Transport},
    ring::CurrentRing,
    seam::Seams,
    stop::Stop,
};
use bytes::Bytes;
use foca::{
    AccumulatingRuntime, Config, Foca, OwnedNotification, PeriodicParams, PostcardCodec, State, Timer,
};
use god_proto::{
    ids::{Epoch, NodeId},
    peer::{Gossip as Datagram, request},
};
use metrics::{Counter, counter};
use parking_lot::RwLock;
use rand::rngs::SmallRng;
use std::{
    collections::BTreeMap,
    num::{NonZeroU8, NonZeroUsize},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{self, Instant},
};

/// Datagrams that wait to be read; more are dropped, as a network would.
const INBOX: usize = 256;
/// The largest datagram, in bytes. It travels in a stream, so it need not fit a packet.
const DATAGRAM: NonZeroUsize = NonZeroUsize::new(32 << 10).expect("not zero");
/// How often one piece of news is passed on: enough for hundreds of nodes.
const RETELLINGS: NonZeroU8 = NonZeroU8::new(10).expect("not zero");
/// How long a dead node is remembered; afterwards nothing is left of those that left the cluster.
const REMEMBER: Duration = Duration::from_hours(1);

/// How often and how widely.
#[derive(Clone, Copy, Debug)]
pub struct GossipSettings {
    /// Between two rounds of passing news on. Shorter spreads it faster and costs a message a target each time there
    /// is news.
    pub interval: Duration,
    /// Nodes told in each round, and asked to try a node in this one's place.
    pub fan_out: usize,
    /// Between two probes, each of one other node. A silent node is suspect after about one, and down after about
    /// four more.
    pub probe: Duration,
}

impl GossipSettings {
    fn config(self) -> Config {
        let fan_out = NonZeroUsize::new(self.fan_out).unwrap_or(NonZeroUsize::MIN);
        let each = |frequency, num_members| Some(PeriodicParams { frequency, num_members });
        Config {
            probe_period: self.probe,
            // The rest of the period is for asking through others.
            probe_rtt: self.probe / 3,
            num_indirect_probes: fan_out,
            max_transmissions: RETELLINGS,
            suspect_to_down_after: self.probe * 4,
            remove_down_after: Some(REMEMBER),
            max_packet_size: DATAGRAM,
            notify_down_members: true,
            periodic_announce: each(self.probe * 10, NonZeroUsize::MIN),
            periodic_announce_to_down_members: each(self.probe * 3, fan_out),
            periodic_gossip: each(self.interval, fan_out),
        }
    }
}

/// Told where nodes are, as gossip learns it.
pub type AddressListener = Arc<dyn Fn(NodeId, &str) + Send + Sync>;

/// What gossip needs.
pub struct Gossip {
    /// How often and how widely.
    pub settings: GossipSettings,
    /// Who this node is.
    pub identity: GossipIdentity,
    /// Whom to look for.
    pub ring: CurrentRing,
    /// The way to them.
    pub transport: Arc<dyn Transport>,
    /// What comes of it.
    pub liveness: Arc<Liveness>,
    /// Told of newer rings.
    pub newer: NewerRing,
    /// Called when a node comes up or moves, with its address: for the transport to learn.
    pub on_address: AddressListener,
    /// The world.
    pub seams: Seams,
}

/// The running gossip, for those who have something for it. Clones share it.
#[derive(Clone)]
pub struct GossipHandle {
    inbox: mpsc::Sender<Bytes>,
    newer: NewerRing,
    addresses: Arc<RwLock<BTreeMap<NodeId, String>>>,
    received: Counter,
    dropped: Counter,
}

impl GossipHandle {
    /// Takes a datagram from another node; drops it where too many wait.
    pub fn receive(&self, from: Option<NodeId>, datagram: Datagram) {
        self.received.increment(1);
        if let Some(node) = from {
            self.newer.heard(Target::Node(node), Epoch(datagram.epoch));
        }
        if self.inbox.try_send(datagram.data).is_err() {
            self.dropped.increment(1);
        }
    }

    /// Where gossip saw a node last.
    pub fn address_of(&self, node: NodeId) -> Option<String> {
        self.addresses.read().get(&node).cloned()
    }
}

impl Gossip {
    /// Gossips until the node stops.
    pub fn start(self, stop: Stop) -> GossipHandle {
        let (inbox, received) = mpsc::channel(INBOX);
        let datagrams = |way: &'static str| counter!("god_membership_gossip_total", "datagrams" => way);
        let handle = GossipHandle {
            inbox,
            newer: self.newer.clone(),
            addresses: Arc::default(),
            received: datagrams("received"),
            dropped: datagrams("dropped"),
        };
        let foca = Foca::new(
            self.identity.clone(),
            self.settings.config(),
            self.seams.entropy.fork(),
            PostcardCodec,
        );
        let task = Task {
            foca,
            runtime: AccumulatingRuntime::new(),
            timers: BTreeMap::new(),
            scheduled: 0,
            addresses: Arc::clone(&handle.addresses),
            sent: datagrams("sent"),
            refused: datagrams("refused"),
            gossip: self,
        };
        tokio::spawn(task.run(received, stop));
        handle
    }
}

/// Owns the protocol's state; everything goes through it, one thing at a time.
struct Task {
    gossip: Gossip,
    foca: Foca<GossipIdentity, PostcardCodec, SmallRng, foca::NoCustomBroadcast>,
    runtime: AccumulatingRuntime<GossipIdentity>,
    /// By time, then in the protocol's own order, then in the order in which they were asked for.
    timers: BTreeMap<(Instant, TimerOrder, u64), Timer<GossipIdentity>>,
    scheduled: u64,
    addresses: Arc<RwLock<BTreeMap<NodeId, String>>>,
    sent: Counter,
    refused: Counter,
}

/// The end of a probe must be seen before the next one begins, even where both are late.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum TimerOrder {
    EndOfProbe,
    Probe,
    Other,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Bytes>, stop: Stop) {
        let stopped = stop.stopped();
        tokio::pin!(stopped);
        let mut look = time::interval(self.gossip.settings.probe);
        look.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            let due = self.timers.first_key_value().map(|((at, _, _), _)| *at);
            let timer = async {
                match due {
                    Some(at) => time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = &mut stopped => break,
                () = timer => self.fire(),
                _ = look.tick() => self.look_around(),
                datagram = inbox.recv() => match datagram {
                    Some(data) => {
                        if let Err(error) = self.foca.handle_data(&data, &mut self.runtime) {
                            self.refused.increment(1);
                            tracing::debug!(%error, "a gossip datagram was not understood");
                        }
                    }
                    // Nobody is left who could hand one in.
                    None => break,
                },
            }
            self.carry_out();
        }
        // Said once, so that the others need not find out.
        if let Err(error) = self.foca.leave_cluster(&mut self.runtime) {
            tracing::debug!(%error, "gossip could not take its leave");
        }
        self.carry_out();
    }

    fn fire(&mut self) {
        if let Some((_, timer)) = self.timers.pop_first()
            && let Err(error) = self.foca.handle_timer(timer, &mut self.runtime)
        {
            tracing::debug!(%error, "gossip went on after a timer out of order");
        }
    }

    /// Greets a few nodes of the ring that gossip does not know to be there, so that halves of a cluster that lost
    /// sight of each other meet again; and passes on who is suspect, which the protocol does not announce.
    fn look_around(&mut self) {
        let Some(ring) = self.gossip.ring.get() else { return };
        let me = self.foca.identity().uuid;
        let members: Vec<(GossipIdentity, State)> =
            self.foca.iter_members().map(|member| (member.id().clone(), member.state())).collect();
        let mut strangers: Vec<GossipIdentity> = ring
            .nodes()
            .iter()
            .filter_map(|node| {
                let uuid = uuid::Uuid::from_slice(&node.uuid).ok()?;
                let known = uuid == me || members.iter().any(|(member, _)| member.uuid == uuid);
                // Which incarnation it is, nobody knows yet; a greeting is taken by any.
                (!known).then(|| GossipIdentity::new(uuid, node.number, node.peer_address.clone(), 0))
            })
            .collect();
        for _ in 0..self.gossip.settings.fan_out.max(1).min(strangers.len()) {
            let at = self.gossip.seams.entropy.below(strangers.len() as u64) as usize;
            let stranger = strangers.swap_remove(at);
            if let Err(error) = self.foca.announce(stranger, &mut self.runtime) {
                tracing::debug!(%error, "gossip could not greet a node");
            }
        }
        for (member, state) in members {
            let state = if state == State::Suspect { PeerState::Suspect } else { PeerState::Up };
            self.tell(&member, state);
        }
    }

    fn tell(&self, member: &GossipIdentity, state: PeerState) {
        if let Some(node) = self.number_of(member) {
            self.gossip.liveness.rumour(node, state);
        }
    }

    /// By the ring's word rather than by its own, where the ring knows it.
    fn number_of(&self, member: &GossipIdentity) -> Option<NodeId> {
        let ring = self.gossip.ring.get();
        let known = ring.as_ref().and_then(|ring| ring.node_by_uuid(member.uuid));
        Some(NodeId(known?.number))
    }

    /// Does what the protocol asks for: sends, sets timers, passes news on.
    fn carry_out(&mut self) {
        while let Some((to, data)) = self.runtime.to_send() {
            self.sent.increment(1);
            let target = match self.number_of(&to) {
                Some(node) => Target::Node(node),
                None => Target::Address(to.peer_address),
            };
            let epoch = self.gossip.ring.epoch().0;
            self.gossip.transport.tell(target, 0, request::Body::Gossip(Datagram { data, epoch }));
        }
        let now = Instant::now();
        while let Some((after, timer)) = self.runtime.to_schedule() {
            let rank = match timer {
                Timer::SendIndirectProbe { .. } => TimerOrder::EndOfProbe,
                Timer::ProbeRandomMember(_) => TimerOrder::Probe,
                _ => TimerOrder::Other,
            };
            self.scheduled += 1;
            self.timers.insert((now + after, rank, self.scheduled), timer);
        }
        while let Some(news) = self.runtime.to_notify() {
            match news {
                OwnedNotification::MemberUp(member) => {
                    self.tell(&member, PeerState::Up);
                    self.seen(&member);
                }
                OwnedNotification::Rename(_, member) => self.seen(&member),
                OwnedNotification::MemberDown(member) => self.tell(&member, PeerState::Down),
                OwnedNotification::Rejoin(_) => {
                    tracing::info!("others took this node for dead; it told them that it is not");
                }
                OwnedNotification::Active | OwnedNotification::Idle | OwnedNotification::Defunct => {}
            }
        }
    }

    fn seen(&self, member: &GossipIdentity) {
        if let Some(node) = self.number_of(member) {
            self.addresses.write().insert(node, member.peer_address.clone());
            (self.gossip.on_address)(node, &member.peer_address);
        }
    }
}
