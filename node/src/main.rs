//! `god-node`: a node's process. Settings, disk, doors; the node itself is a library.

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches};
use god_core::{
    budget::Budget,
    connections::{DoorConnections, raise, share},
    doors::{Metrics, install_recorder, serve_grpc, serve_http},
    engine::{Engine, IdentityStore},
    membership::{Dns, GossipSettings},
    node::{ClientService, Ground, Node, NodeSettings, PeerHandler},
    peer::{GrpcTransport, Identity, PeerDoor, PeerSettings, Starts},
    quorum::{HintSettings, QuorumSettings},
    radix::CommitterSettings,
    replica::Lapse,
    ring::{CurrentRing, Founding, Joiner},
    seam::{DISK_THREADS, LARGE_THREADS, Seams},
    stop::stop,
    upkeep::UpkeepSettings,
};
use god_manual::variables;
use god_node::settings::{Cli, Door, Generated, LogFormat, Settings, host_name, load};
use god_rocks::{DataDir, RocksEngine, RocksSettings};
use std::{
    io::{self, IsTerminal, Write as _},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tracing_subscriber::EnvFilter;

/// Connections of people and monitors at a time.
const HTTP_CONNECTIONS: usize = 256;
/// Blocking threads for what is not for the disk: names that are looked up, the start.
const OTHER_BLOCKING_THREADS: usize = 32;
/// How long a change of the ring may take.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let command = Cli::command();
    let own = variables::read_by(&command);
    let matches = variables::without_empty(command).get_matches();
    let cli = Cli::from_arg_matches(&matches);
    if let Some(what) = cli.as_ref().ok().and_then(|cli| cli.generate) {
        return match generated(what) {
            Ok(text) => print(&text),
            Err(error) => end(2, &format!("cannot make it: {error}")),
        };
    }
    let settings = match load(&matches, &host_name()) {
        Ok(settings) => settings,
        Err(error) => return end(2, &error.to_string()),
    };
    for warning in variables::misspelt("god-node", &own, std::env::vars_os().map(|(name, _)| name)) {
        say(&warning);
    }
    if cli.as_ref().is_ok_and(|cli| cli.print_config) {
        return print(settings.effective().as_bytes());
    }
    match run(settings, cli.is_ok_and(|cli| cli.restored)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => end(1, &format!("{error:#}")),
    }
}

/// Says something to whoever still reads of it: nothing is worse for not being heard.
fn say(what: &str) {
    let _ = io::stderr().write_all(format!("god-node: {what}\n").as_bytes());
}

/// Says why the process ends.
fn end(code: u8, why: &str) -> ExitCode {
    say(why);
    ExitCode::from(code)
}

/// What was asked to be printed. A reader who has gone has read enough; a full disk is said.
fn print(text: &[u8]) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            end(2, &format!("cannot write the output: {error}"))
        }
        _ => ExitCode::SUCCESS,
    }
}

fn generated(what: Generated) -> io::Result<Vec<u8>> {
    let shell = match what {
        Generated::Man => {
            let pages = god_manual::pages(Cli::command(), "8", "GoD")?;
            return Ok(pages.into_iter().flat_map(|page| page.text).collect());
        }
        Generated::Bash => god_manual::Shell::Bash,
        Generated::Zsh => god_manual::Shell::Zsh,
        Generated::Fish => god_manual::Shell::Fish,
    };
    Ok(god_manual::completion(Cli::command(), shell).into_bytes())
}

fn run(settings: Settings, restored: bool) -> anyhow::Result<()> {
    start_log(&settings)?;
    let recorder = install_recorder().context("cannot collect metrics")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.worker_threads)
        // THREADS-BOUNDED: what is not for the disk has some that a hung disk cannot hold.
        .max_blocking_threads(DISK_THREADS + LARGE_THREADS + OTHER_BLOCKING_THREADS)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let seams = Seams::of_machine();
    let offload = seams.offload;
    let result = runtime.block_on(serve(settings, restored, recorder, seams));
    // What still blocks on a disk that does not answer must not hold the end up.
    let patience = Duration::from_secs(5);
    runtime.shutdown_timeout(patience);
    offload.end_behind(patience);
    result
}

fn start_log(settings: &Settings) -> anyhow::Result<()> {
    let filter =
        EnvFilter::try_new(&settings.log).with_context(|| format!("log {:?} is no filter", settings.log))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // It would tell of a log that is not taken on the very descriptor that does not take it, and panic.
        .log_internal_errors(false);
    match settings.log_format {
        LogFormat::Json => log.json().init(),
        LogFormat::Text => log.with_target(false).init(),
    }
    Ok(())
}

async fn listen(what: &str, door: &Door) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(door.listen).await;
    listener
        .with_context(|| format!("cannot listen for {what} on {}; is another process there?", door.listen))
}

async fn serve(
    settings: Settings,
    restored: bool,
    recorder: metrics_exporter_prometheus::PrometheusHandle,
    seams: Seams,
) -> anyhow::Result<()> {
    let wish = DoorConnections {
        grpc: settings.connections,
        peer: PeerSettings::default().served_connections,
        http: HTTP_CONNECTIONS,
    };
    let descriptors = raise();
    let places = share(descriptors, wish);
    if places != wish {
        tracing::warn!(
            descriptors,
            clients = places.grpc,
            nodes = places.peer,
            http = places.http,
            "the system permits too few open files for all connections: there will be fewer (see ulimit -n)"
        );
    }
    let directory = DataDir::open(&settings.data, settings.cluster, || seams.entropy.uuid())?;
    if !directory.strays().is_empty() {
        tracing::warn!(entries = ?directory.strays(), "the data directory holds what no node puts there; it is let be");
    }
    let listening = (
        listen("clients", &settings.grpc).await?,
        listen("nodes", &settings.peer).await?,
        listen("HTTP", &settings.http).await?,
    );
    let rocks = RocksSettings { memory: settings.memory, disk_reserve: settings.disk_reserve };
    let database = directory.database();
    let engine = seams.offload.run(move || RocksEngine::open(&database, &rocks)).await?;
    let uuid = directory.load().node;
    let ring = CurrentRing::default();
    let (counted, offload, entropy) = (Arc::clone(&engine), seams.offload, Arc::clone(&seams.entropy));
    let starts = seams
        .offload
        .run(move || Starts::open(counted, offload, &entropy, restored.then(Lapse::of_all)))
        .await?;
    let starts = Arc::new(starts);
    let identity = Identity::new(uuid, ring.clone(), Arc::clone(&starts));
    let times = settings.times;
    let budget = Budget::new(settings.request_memory);
    let peers = PeerSettings {
        served_connections: places.peer,
        served_times: times,
        budget: budget.clone(),
        ..PeerSettings::default()
    };
    let transport =
        Arc::new(GrpcTransport::new(peers.clone(), Arc::clone(&identity), Arc::clone(&seams.entropy)));
    let seen = Arc::clone(&transport);
    let ground = Ground {
        identity: Arc::new(directory),
        run: god_store::seam::run_of_machine(),
        engine: Arc::clone(&engine) as Arc<dyn Engine>,
        transport: Arc::clone(&transport) as Arc<dyn god_core::peer::Transport>,
        starts,
        ring,
        resolver: Arc::new(Dns),
        seams,
        on_address: Arc::new(move |node, address| {
            seen.learn(node, address.to_owned());
            seen.heard_from(node);
        }),
    };
    let node_settings = node_settings(&settings, uuid, budget.clone());
    let node = tokio::task::spawn_blocking(move || Node::start(node_settings, ground)).await??;
    let handler = Arc::new(PeerHandler(Arc::clone(&node)));
    transport.set_local(Arc::clone(&handler) as Arc<dyn god_core::peer::Handler>);

    let (stopper, stop) = stop();
    let (refreshing, shown_budget, budget) = (Arc::clone(&node), budget.clone(), budget.for_clients());
    let metrics = Arc::new(Metrics::new(
        recorder,
        Arc::new(move || {
            refreshing.refresh_metrics();
            shown_budget.show();
        }),
    ));
    let (grpc, peer, http) = listening;
    let heard = Arc::clone(&transport);
    let mut doors: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let peer_door =
        PeerDoor::new(peers, identity, handler, stop.clone()).on_hello(move |node| heard.heard_from(node));
    doors.spawn(async move {
        peer_door.serve(peer).await;
        Ok(())
    });
    let clients = Arc::new(ClientService(Arc::clone(&node)));
    doors.spawn(serve_grpc(
        grpc,
        Arc::clone(&clients) as _,
        places.grpc,
        times,
        budget.clone(),
        stop.clone(),
    ));
    let shown = Arc::clone(&metrics);
    let http_stop = stop.clone();
    doors.spawn(async move {
        serve_http(http, clients, shown, places.http, times, budget, http_stop).await;
        Ok(())
    });
    tokio::spawn(async move { metrics.upkeep().await });
    tracing::info!(
        node = %uuid,
        grpc = %settings.grpc.listen,
        peer = %settings.peer.listen,
        http = %settings.http.listen,
        "the node is open"
    );

    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    let failed = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        ended = doors.join_next() => ended,
    };
    tracing::info!("the node is closing");
    stopper.stop();
    while doors.join_next().await.is_some() {}
    node.close().await;
    match failed {
        Some(ended) => ended.context("a door crashed")?,
        None => Ok(()),
    }
}

fn node_settings(settings: &Settings, uuid: uuid::Uuid, budget: Budget) -> NodeSettings {
    NodeSettings {
        own: Joiner {
            uuid,
            peer_address: settings.peer.advertise.clone(),
            grpc_address: settings.grpc.advertise.clone(),
            http_address: settings.http.advertise.clone(),
            zone: settings.zone.clone(),
            weight: settings.weight,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            takes_part: settings.takes_part,
        },
        seeds: settings.seeds.clone(),
        cluster: settings.cluster,
        founding: Founding {
            under_replicated: false,
            replicas: settings.founding.replicas,
            write_quorum: settings.founding.write_quorum,
            read_quorum: settings.founding.read_quorum,
            virtual_nodes: settings.founding.virtual_nodes,
        },
        committer: CommitterSettings { durability: settings.durability, ..CommitterSettings::default() },
        threaded: true,
        quorum: QuorumSettings {
            default_timeout: settings.request_timeout,
            hedge_delay: settings.hedge_delay,
            budget,
            ..QuorumSettings::default()
        },
        hints: HintSettings { max_bytes_per_target: settings.hint_limit, ..HintSettings::default() },
        gossip: settings.gossip.on.then_some(GossipSettings {
            interval: settings.gossip.interval,
            fan_out: settings.gossip.fan_out,
            probe: settings.gossip.ping_interval,
        }),
        upkeep: UpkeepSettings {
            transfer_bytes_per_second: settings.upkeep.transfer_rate,
            sync_interval: settings.upkeep.compare_interval,
            tombstone_age: settings.upkeep.tombstone_age,
            migrates: settings.upkeep.migrate,
            ..UpkeepSettings::default()
        },
        ping_interval: settings.gossip.ping_interval,
        change_timeout: CHANGE_TIMEOUT,
    }
}
