//! One run: a cluster, its clients, what goes wrong, and the verdict. Everything follows from the seed.

use crate::{
    client::{COPIED, Clients, LOOSE, ORDERED},
    faults::{Fault, FaultSettings, draw, happen},
    finale::{heal, judge, ready},
    lies::{Lie, liar},
    panics,
    world::{World, WorldSettings},
};
use god_core::{doors::Service, engine::Durability, seam::Entropy};
use god_history::{Event, Told};
use god_proto::v1::{CreateKeyspaceRequest, InitRequest, Level, Partitioner};
use std::{
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

const CLIENTS: u32 = 6;

/// A promise that is broken on purpose, to see that the checkers notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Nothing.
    Nothing,
    /// Clients take one replica's word, and are judged as if they had asked a quorum.
    Quorum,
    /// Nothing is synced, and machines go down.
    Sync,
    /// Replicas say that they wrote what they did not.
    Lies(Lie),
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct RunReport {
    /// The seed it followed from.
    pub seed: u64,
    /// What was drawn from it, in words.
    pub setting: String,
    /// What went wrong on purpose, in order, with true time in microseconds.
    pub faults: Vec<(u64, Fault)>,
    /// What the clients did and saw.
    pub history: Vec<Event>,
    /// Listings and counts that were answered.
    pub surveys: usize,
    /// Promises that were broken, each with the events that show it.
    pub problems: Vec<String>,
    /// Stands for the whole run, disks and all: the same for the same seed.
    pub fingerprint: u64,
}

impl RunReport {
    /// How many operations were told so.
    pub fn count(&self, told: impl Fn(&Event) -> bool) -> usize {
        self.history.iter().filter(|event| told(event)).count()
    }

    /// Writes that were acknowledged.
    pub fn committed(&self) -> usize {
        self.count(|event| matches!(event.told, Told::Committed(_)))
    }

    /// Writes whose outcome nobody knows.
    pub fn unknown(&self) -> usize {
        self.count(|event| event.told == Told::Unknown)
    }

    /// Operations that were refused.
    pub fn rejected(&self) -> usize {
        self.count(|event| event.told == Told::Rejected)
    }

    /// Reads that were answered.
    pub fn read(&self) -> usize {
        self.count(|event| matches!(event.told, Told::Found(..) | Told::Missing(_)))
    }
}

/// Runs a seed from beginning to end. Takes a second or two, whatever the simulated time.
pub fn run(seed: u64, broken: Broken) -> RunReport {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    match runtime {
        Ok(runtime) => {
            panics::watch();
            let mut outcome = runtime.block_on(simulate(seed, broken));
            drop(runtime);
            outcome.problems.extend(panics::seen().into_iter().map(|panic| format!("PANIC: {panic}")));
            outcome
        }
        Err(error) => RunReport {
            seed,
            setting: String::new(),
            faults: vec![],
            history: vec![],
            surveys: 0,
            problems: vec![format!("there is no runtime to simulate in: {error}")],
            fingerprint: 0,
        },
    }
}

/// What is drawn before a run begins.
struct Setting {
    world: WorldSettings,
    faults: FaultSettings,
    /// Whether nodes join while there are writes already, rather than before.
    joins_late: bool,
    length: Duration,
}

fn setting(entropy: &Entropy, broken: Broken) -> Setting {
    let synced = entropy.below(2) == 0;
    let durability = match broken {
        Broken::Sync => Durability::None,
        _ if synced => Durability::Always,
        _ if entropy.below(2) == 0 => Durability::Interval(Duration::from_millis(100)),
        _ => Durability::None,
    };
    let world = WorldSettings {
        nodes: 3 + entropy.below(3) as usize,
        durability,
        gossip: entropy.below(4) > 0,
        compares: broken == Broken::Nothing,
        careful: broken != Broken::Sync,
        threads: false,
    };
    let wild_clocks = entropy.below(3) == 0;
    let machines = match broken {
        Broken::Sync => true,
        // Below `always` a machine takes longer to start than clocks are apart, and compares itself then.
        Broken::Nothing if !wild_clocks => true,
        _ => durability == Durability::Always,
    };
    Setting {
        faults: FaultSettings {
            machines,
            wild_clocks,
            changes: entropy.below(2) == 0 && broken == Broken::Nothing,
        },
        joins_late: entropy.below(4) == 0 && broken == Broken::Nothing,
        length: Duration::from_secs(8 + entropy.below(12)),
        world,
    }
}

async fn simulate(seed: u64, broken: Broken) -> RunReport {
    let entropy = Entropy::seeded(seed);
    let setting = setting(&entropy, broken);
    let world = World::new(entropy.below(u64::MAX), setting.world);
    let level = if broken == Broken::Quorum { Level::One } else { Level::Quorum };
    let shared = Arc::new(Clients::new(Arc::clone(&world), level));
    let words = format!(
        "{} nodes, {:?}, gossip {}, clocks off by {}, joins {} writes, ring {}, {:?} of faults",
        setting.world.nodes,
        setting.world.durability,
        if setting.world.gossip { "on" } else { "off" },
        if setting.faults.wild_clocks { "2.2 s" } else { "0.2 s" },
        if setting.joins_late { "among" } else { "before" },
        if setting.faults.changes { "changes" } else { "stays" },
        setting.length,
    );
    let mut outcome = RunReport {
        seed,
        setting: words,
        faults: vec![],
        history: vec![],
        surveys: 0,
        problems: vec![],
        fingerprint: 0,
    };
    let result = async {
        found(&world, &setting, &entropy).await?;
        if let Broken::Lies(lie) = broken {
            world.network.forge(Some(liar(lie, &world)));
        }
        let renewing = Arc::clone(&world);
        let renewer = tokio::spawn(async move {
            loop {
                sleep(Duration::from_millis(200)).await;
                renewing.renew();
            }
        });
        trouble(&shared, &setting, &entropy, &mut outcome.faults).await;
        heal(&world).await?;
        renewer.abort();
        Ok(judge(&shared).await)
    };
    let problems = result.await.unwrap_or_else(|problem: String| vec![problem]);
    outcome.history = std::mem::take(&mut *shared.history.lock());
    outcome.surveys = shared.surveys.lock().len();
    outcome.problems = problems;
    outcome.fingerprint = fingerprint(&world, &outcome);
    outcome
}

/// Starts the nodes, and founds the cluster.
async fn found(world: &Arc<World>, setting: &Setting, entropy: &Entropy) -> Result<(), String> {
    world.start(0);
    let first = world.running(0).ok_or("the first node does not start")?;
    let founded = first.client.init(InitRequest::default()).await;
    if let Some(failed) = founded.failed {
        return Err(format!("the cluster cannot be founded: {}", failed.message));
    }
    let keyspace = CreateKeyspaceRequest {
        name: ORDERED.to_owned(),
        partitioner: Partitioner::Ordered.into(),
        splits: vec!["00300000".into(), "00400000".into()],
        ..CreateKeyspaceRequest::default()
    };
    let quorums = |name: &str, write_quorum, read_quorum| CreateKeyspaceRequest {
        name: name.to_owned(),
        partitioner: Partitioner::Ordered.into(),
        write_quorum,
        read_quorum,
        ..CreateKeyspaceRequest::default()
    };
    for keyspace in [keyspace, quorums(COPIED, 3, 1), quorums(LOOSE, 1, 1)] {
        if let Some(failed) = first.client.create_keyspace(keyspace).await.failed {
            return Err(format!("the keyspace cannot be made: {}", failed.message));
        }
    }
    if setting.joins_late {
        for at in 1..world.size() {
            let (world, after) = (Arc::clone(world), Duration::from_millis(entropy.below(1_500)));
            tokio::spawn(async move {
                sleep(after).await;
                world.start(at);
            });
        }
        return Ok(());
    }
    (1..world.size()).for_each(|at| world.start(at));
    ready(world).await
}

/// Clients work while things go wrong, one after the other and several at once.
async fn trouble(
    shared: &Arc<Clients>,
    setting: &Setting,
    entropy: &Entropy,
    happened: &mut Vec<(u64, Fault)>,
) {
    let until = Instant::now() + setting.length;
    let mut clients = JoinSet::new();
    for client in 1..=CLIENTS {
        let own = Entropy::seeded(entropy.below(u64::MAX));
        clients.spawn(Arc::clone(shared).work(client, own, until));
    }
    let mut faults = JoinSet::new();
    while Instant::now() < until {
        sleep(Duration::from_millis(entropy.below(1_200))).await;
        let fault: Fault = draw(entropy, shared.world.size(), setting.faults);
        shared.world.trace.note(vec![], fault.to_string());
        happened.push((shared.world.now_us(), fault.clone()));
        faults.spawn(happen(Arc::clone(&shared.world), fault));
    }
    // In the order of their start: which task ends first must not matter.
    while clients.join_next().await.is_some() {}
    while faults.join_next().await.is_some() {}
}

fn fingerprint(world: &World, outcome: &RunReport) -> u64 {
    #[allow(deprecated)]
    let mut hasher = std::hash::SipHasher::new();
    world.fingerprint().hash(&mut hasher);
    for (at, fault) in &outcome.faults {
        (at, fault.to_string()).hash(&mut hasher);
    }
    for event in &outcome.history {
        event.to_string().hash(&mut hasher);
    }
    hasher.finish()
}
