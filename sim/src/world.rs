//! The nodes of a simulated cluster: starting them on their disks, and making an end of them.

use crate::{
    clock::SimulatedWall,
    network::{Network, Port},
    trace::Trace,
};
use god_core::{
    doors::Service,
    engine::{Durability, Engine, Reader as _, SimulatedDisk, SimulatedIdentity, Table},
    membership::{AsGiven, GossipSettings},
    node::{ClientService, Ground, Node, NodeSettings, PeerHandler},
    peer::Handler,
    quorum::{HintSettings, QuorumSettings},
    radix::CommitterSettings,
    ring::{CurrentRing, Founding, Joiner},
    seam::{Entropy, Offload, Seams},
    upkeep::UpkeepSettings,
};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};
use uuid::Uuid;

/// Copies of each key.
pub const REPLICAS: u32 = 3;

/// What a node is, for as long as its process lives.
#[derive(Clone)]
pub struct Running {
    /// The node itself.
    pub node: Arc<Node>,
    /// How clients reach it.
    pub client: Arc<ClientService>,
    /// Keeps the door for nodes open.
    _peer: Arc<PeerHandler>,
    end: Arc<End>,
}

/// The end of a process. Not a `watch`: that wakes those who wait in an order drawn from the machine's randomness.
#[derive(Default)]
struct End {
    is_here: AtomicBool,
    heard: Notify,
}

impl Running {
    /// Waits until the process has ended.
    pub async fn ended(&self) {
        let heard = self.end.heard.notified();
        tokio::pin!(heard);
        heard.as_mut().enable();
        if !self.end.is_here.load(Ordering::Relaxed) {
            heard.await;
        }
    }
}

/// A machine: what outlives a node's process.
struct Machine {
    address: String,
    uuid: Uuid,
    disk: SimulatedDisk,
    identity: Arc<SimulatedIdentity>,
    wall: Arc<SimulatedWall>,
    incarnation: u64,
    /// How often it stopped.
    stops: u128,
    /// Whether its node takes its part by itself when it joins, and the one that follows on it does.
    takes_part: bool,
    next_takes_part: bool,
    running: Option<Running>,
}

/// What all nodes are set to.
#[derive(Clone, Copy, Debug)]
pub struct WorldSettings {
    /// How many there are.
    pub nodes: usize,
    /// When they sync.
    pub durability: Durability,
    /// Whether they gossip.
    pub gossip: bool,
    /// Whether they compare replicas: not where it is to be seen that checkers notice what that would mend.
    pub compares: bool,
    /// Whether machines go down one at a time where that costs the last writes.
    pub careful: bool,
    /// Whether nodes have threads for what may block, as real ones do: then disks may hang, and no run repeats itself.
    pub threads: bool,
}

/// All machines and the network between them.
pub struct World {
    /// What is between them.
    pub network: Arc<Network>,
    /// What happened.
    pub trace: Arc<Trace>,
    settings: WorldSettings,
    began: Instant,
    entropy: Entropy,
    machines: Mutex<Vec<Machine>>,
    /// Whether a disk was lost that is not made up for yet, and how many were lost.
    losing: AtomicBool,
    losses: AtomicUsize,
    /// Whether some clock is off by more than several may be.
    far: AtomicBool,
    wrong: AtomicUsize,
}

impl World {
    /// Machines on which nothing runs yet.
    pub fn new(seed: u64, settings: WorldSettings) -> Arc<World> {
        let began = Instant::now();
        let entropy = Entropy::seeded(seed);
        let machine = |at: usize| {
            let uuid = entropy.uuid();
            Machine {
                address: format!("node-{}:7100", at + 1),
                uuid,
                disk: SimulatedDisk::new(),
                identity: Arc::new(SimulatedIdentity::new(uuid)),
                wall: SimulatedWall::new(began),
                incarnation: 0,
                stops: 0,
                takes_part: true,
                next_takes_part: true,
                running: None,
            }
        };
        let machines = Mutex::new((0..settings.nodes).map(machine).collect());
        let trace = Arc::new(Trace::new());
        Arc::new(World {
            network: Network::seeded(entropy.below(u64::MAX), Arc::clone(&trace)),
            trace,
            settings,
            began,
            entropy,
            machines,
            losing: AtomicBool::new(false),
            losses: AtomicUsize::new(0),
            far: AtomicBool::new(false),
            wrong: AtomicUsize::new(0),
        })
    }

    /// True time since the beginning, in microseconds.
    pub fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    /// How many machines there are.
    pub fn size(&self) -> usize {
        self.settings.nodes
    }

    /// Starts a node on what its machine has.
    pub fn start(&self, at: usize) {
        let mut machines = self.machines.lock();
        let seeds = machines.iter().map(|machine| machine.address.clone()).collect();
        let Some(machine) = machines.get_mut(at) else { return };
        if machine.running.is_some() {
            return;
        }
        machine.incarnation += 1;
        let ring = CurrentRing::default();
        let port =
            Port::new(Arc::clone(&self.network), machine.address.clone(), machine.incarnation, ring.clone());
        let ground = Ground {
            identity: Arc::clone(&machine.identity) as _,
            run: Some(Uuid::from_u128(machine.stops)),
            engine: machine.disk.open() as Arc<dyn Engine>,
            transport: Arc::new(port),
            starts: Arc::default(),
            ring,
            resolver: Arc::new(AsGiven),
            seams: Seams {
                wall: Arc::clone(&machine.wall) as _,
                entropy: Arc::new(Entropy::seeded(self.entropy.below(u64::MAX))),
                offload: if self.settings.threads { Offload::threads() } else { Offload::Inline },
            },
            on_address: Arc::new(|_, _| {}),
        };
        // The founder has nobody to look for; what starts on its machine when that has lost its disk has.
        let founds = at == 0 && machine.incarnation == 1;
        let settings = self.settings_of(machine, if founds { vec![] } else { seeds });
        let node = match Node::start(settings, ground) {
            Ok(node) => node,
            // A disk that fails right away: the process ends, and somebody starts it again later.
            Err(error) => {
                self.trace.note(vec![], format!("{} does not start: {error}", machine.address));
                return;
            }
        };
        let peer = Arc::new(PeerHandler(Arc::clone(&node)));
        let door: Weak<dyn Handler> = Arc::downgrade(&(Arc::clone(&peer) as Arc<dyn Handler>));
        self.network.listen(&machine.address, machine.incarnation, door);
        self.trace.note(vec![], format!("{} starts", machine.address));
        let client = Arc::new(ClientService(Arc::clone(&node)));
        machine.running = Some(Running { node, client, _peer: peer, end: Arc::default() });
    }

    fn settings_of(&self, machine: &Machine, seeds: Vec<String>) -> NodeSettings {
        // To every other node most of what is written here is large (SIZES-FIRST).
        let is_frugal = machine.uuid.as_bytes().first().is_some_and(|byte| byte % 2 == 0);
        let largest_unpaid = if is_frugal { 1 } else { QuorumSettings::default().largest_unpaid };
        NodeSettings {
            own: Joiner {
                uuid: machine.uuid,
                peer_address: machine.address.clone(),
                grpc_address: String::new(),
                http_address: String::new(),
                zone: String::new(),
                weight: 1.0,
                version: "simulated".to_owned(),
                takes_part: machine.takes_part,
            },
            seeds,
            cluster: None,
            founding: Founding {
                replicas: REPLICAS,
                write_quorum: 2,
                read_quorum: 2,
                virtual_nodes: 2,
                under_replicated: false,
            },
            committer: CommitterSettings {
                durability: self.settings.durability,
                ..CommitterSettings::default()
            },
            threaded: self.settings.threads,
            // Tombstones are purged when the longest read has ended: often, here.
            quorum: QuorumSettings {
                max_timeout: Duration::from_secs(5),
                largest_unpaid,
                ..QuorumSettings::default()
            },
            hints: HintSettings::default(),
            gossip: self.settings.gossip.then_some(GossipSettings {
                interval: Duration::from_millis(100),
                fan_out: 3,
                probe: Duration::from_millis(500),
            }),
            upkeep: UpkeepSettings {
                compares: self.settings.compares,
                sync_interval: Duration::from_secs(3),
                tombstone_age: Duration::from_secs(3),
                merge_interval: Duration::from_secs(2),
                vote_after: Duration::from_secs(2),
                ..UpkeepSettings::default()
            },
            ping_interval: Duration::from_millis(300),
            change_timeout: Duration::from_secs(5),
        }
    }

    /// The node on a machine, if one runs there.
    pub fn running(&self, at: usize) -> Option<Running> {
        self.machines.lock().get(at)?.running.clone()
    }

    /// Ends a node's process without a word to anyone; gives whether one ran. With `keep`, the machine goes down with
    /// it: of what was not synced, only so many batches survive.
    pub fn crash(&self, at: usize, keep: Option<usize>) -> bool {
        let mut machines = self.machines.lock();
        let Some(machine) = machines.get_mut(at) else { return false };
        let Some(running) = machine.running.take() else { return false };
        self.network.hang_up(&machine.address);
        match keep {
            None => machine.disk.crash_process(),
            Some(keep) => {
                machine.disk.crash_machine(keep);
                machine.stops += 1;
            }
        }
        self.trace.note(vec![], format!("{} crashes", machine.address));
        running.end.is_here.store(true, Ordering::Relaxed);
        running.end.heard.notify_waiters();
        // Its loops would go on over a dead disk and a closed door: nobody would notice, but they cost time.
        running.node.stop();
        true
    }

    /// A disk may be lost now: none is that is not made up for.
    pub fn begin_loss(&self) -> bool {
        let may = !self.losing.swap(true, Ordering::Relaxed);
        self.losses.fetch_add(usize::from(may), Ordering::Relaxed);
        may
    }

    /// A lost disk is made up for.
    pub fn end_loss(&self) {
        self.losing.store(false, Ordering::Relaxed);
    }

    /// Whether a stop of a machine costs nothing that was acknowledged.
    pub fn is_synced(&self) -> bool {
        self.settings.durability == Durability::Always
    }

    /// Whether one machine goes down at a time only, and no other until it has compared what it may have lost.
    pub fn is_careful(&self) -> bool {
        self.settings.careful
    }

    /// A clock may be set off now by more than histories are judged by, or `far`: so that the others can tell, one that
    /// is far off at a time, and of several that are off fewer than half of the ring's. What is acknowledged by most
    /// clocks, or by that of a node that is alone, is right by these.
    pub fn begin_wrong(&self, far: bool) -> bool {
        let nodes = self.ring().map_or(0, |ring| ring.nodes().len());
        let wrong = self.wrong.load(Ordering::Relaxed);
        let is_minority = if wrong == 0 { nodes >= 2 || !far } else { 2 * (wrong + 1) < nodes };
        if !is_minority || (far && self.far.swap(true, Ordering::Relaxed)) {
            return false;
        }
        self.wrong.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// It is right again.
    pub fn end_wrong(&self, far: bool) {
        self.wrong.fetch_sub(1, Ordering::Relaxed);
        if far {
            self.far.store(false, Ordering::Relaxed);
        }
    }

    /// How many disks were lost.
    pub fn losses(&self) -> usize {
        self.losses.load(Ordering::Relaxed)
    }

    /// Who the node on a machine is.
    pub fn uuid(&self, at: usize) -> Option<Uuid> {
        self.machines.lock().get(at).map(|machine| machine.uuid)
    }

    /// A machine's disk is lost with all that was on it: what starts there next is another node.
    pub fn lose(&self, at: usize, takes_part: bool) {
        self.crash(at, None);
        let mut machines = self.machines.lock();
        let Some(machine) = machines.get_mut(at) else { return };
        machine.uuid = self.entropy.uuid();
        machine.identity = Arc::new(SimulatedIdentity::new(machine.uuid));
        machine.disk = SimulatedDisk::new();
        machine.takes_part = takes_part;
        self.trace.note(vec![], format!("{} loses its disk", machine.address));
    }

    /// Whether the node that follows on the one of a machine, once that is retired, takes its part by itself.
    pub fn set_next(&self, at: usize, takes_part: bool) {
        if let Some(machine) = self.machines.lock().get_mut(at) {
            machine.next_takes_part = takes_part;
        }
    }

    /// Starts nodes anew, and empty, that were retired: their machines go on serving the cluster.
    pub fn renew(&self) {
        let rings: Vec<_> =
            (0..self.size()).filter_map(|at| self.running(at)?.node.current_ring().get()).collect();
        for at in 0..self.size() {
            let retired = |uuid| rings.iter().any(|ring| ring.is_retired(uuid));
            if self.uuid(at).is_some_and(retired) {
                let takes_part = self.machines.lock().get(at).is_none_or(|machine| machine.next_takes_part);
                self.lose(at, takes_part);
                self.start(at);
            }
        }
    }

    /// The newest ring that a running node has.
    pub fn ring(&self) -> Option<Arc<god_proto::ring::Ring>> {
        (0..self.size())
            .filter_map(|at| self.running(at)?.node.current_ring().get())
            .max_by_key(|ring| ring.epoch())
    }

    /// Whether all nodes run, and would send nobody away.
    pub fn all_ready(&self) -> Result<(), String> {
        (0..self.size()).try_for_each(|at| match self.running(at) {
            None => Err(format!("node {} does not run", at + 1)),
            Some(running) => {
                let readiness = running.client.readiness();
                match readiness.ready {
                    true => Ok(()),
                    false => Err(format!("node {} is not ready: {:?}", at + 1, readiness.reasons)),
                }
            }
        })
    }

    /// Where a node listens.
    pub fn address(&self, at: usize) -> String {
        self.machines.lock().get(at).map(|machine| machine.address.clone()).unwrap_or_default()
    }

    /// The disk of a machine.
    pub fn disk(&self, at: usize) -> Option<SimulatedDisk> {
        self.machines.lock().get(at).map(|machine| machine.disk.clone())
    }

    /// The clock of a machine.
    pub fn wall(&self, at: usize) -> Option<Arc<SimulatedWall>> {
        self.machines.lock().get(at).map(|machine| Arc::clone(&machine.wall))
    }

    /// Everything on all disks, as one number: two runs that end alike have the same.
    pub fn fingerprint(&self) -> u64 {
        use std::hash::{Hash, Hasher};
        #[allow(deprecated)]
        let mut hasher = std::hash::SipHasher::new();
        self.network.messages().hash(&mut hasher);
        self.trace.fingerprint().hash(&mut hasher);
        for machine in self.machines.lock().iter() {
            let engine = machine.disk.open();
            for table in Table::ALL {
                for pair in
                    engine.scan(table, b"", &[0xff; 16], god_core::engine::Direction::Forward).flatten()
                {
                    pair.hash(&mut hasher);
                }
            }
        }
        hasher.finish()
    }
}
