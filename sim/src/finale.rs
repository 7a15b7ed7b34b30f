//! After the faults: the cluster must come back, lose nothing, and be of one mind.

use crate::{
    client::{ALL, Clients, ONE, SET, consistency, copies},
    network::Weather,
    world::World,
};
use god_core::{
    doors::Service,
    node::PeerHandler,
    peer::{Call, Handler},
};
use god_history::{Ask, Event, Told, Violation, check_register, check_set, check_surveys};
use god_proto::peer::{Range, Summarize, Summary, request, response};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// How long a cluster that was healed may take until all its nodes are ready, and no more write waits for a node.
pub const RECOVERY: Duration = Duration::from_secs(60);
/// How long a call may take when all is well.
const CALM: Duration = Duration::from_secs(5);
/// How many events of the trace are shown with a broken promise.
const SHOWN: usize = 50;

/// Waits until all nodes are ready and know of each other.
pub async fn ready(world: &World) -> Result<(), String> {
    recover(world, |world| {
        world.all_ready().map_err(|problem| format!("{problem}; {}", under_way(world)))?;
        let knows_all = |at: usize| {
            let ring = world.running(at).and_then(|running| running.node.current_ring().get());
            ring.is_some_and(|ring| ring.nodes().len() == world.size())
        };
        match (0..world.size()).all(knows_all) {
            true => Ok(()),
            false => Err(format!("some node does not know all the others; {}", under_way(world))),
        }
    })
    .await
}

/// What the newest ring says of operations.
fn under_way(world: &World) -> String {
    let Some(ring) = world.ring() else { return "no node has a ring".to_owned() };
    let nodes: Vec<u32> = ring.nodes().iter().map(|node| node.number).collect();
    let operations: Vec<String> = ring
        .operations()
        .iter()
        .map(|operation| {
            format!("{} {:?} of {} arcs", operation.id, operation.phase(), operation.moves.len())
        })
        .collect();
    let moving = ring.arcs().iter().filter(|arc| arc.next.is_some()).count();
    let ended: Vec<String> = ring
        .document()
        .ended
        .iter()
        .map(|ended| format!("{} cancelled {} {}", ended.id, ended.cancelled, ended.refused))
        .collect();
    let nobody = BTreeSet::new();
    let evidence = god_core::ring::Evidence {
        ready: &BTreeSet::new(),
        clean: true,
        seen_clean: true,
        budget: 1,
        unclean: &nobody,
        away: &nobody,
        hearing: &god_core::ring::Hearing::default(),
    };
    let refused = god_core::ring::step(&ring, evidence).err().map(|error| format!(", refused: {error}"));
    let refused = refused.unwrap_or_default();
    let voters: Vec<u32> = ring.voters().map(|voter| voter.0).collect();
    format!(
        "nodes {nodes:?}, voters {voters:?}{refused}, {moving} arcs move, under way {operations:?}, ended {ended:?}"
    )
}

async fn recover(world: &World, is_so: impl Fn(&World) -> Result<(), String>) -> Result<(), String> {
    let deadline = Instant::now() + RECOVERY;
    loop {
        match is_so(world) {
            Ok(()) => return Ok(()),
            Err(problem) if Instant::now() >= deadline => {
                let events = world.trace.last(&[], SHOWN).join("\n");
                return Err(format!("RECOVERY: {RECOVERY:?} after all was healed, {problem}\n{events}"));
            }
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Mends everything, and waits for the cluster to notice.
pub async fn heal(world: &World) -> Result<(), String> {
    world.trace.note(vec![], "all is healed");
    world.network.heal();
    world.network.set_weather(Weather::default());
    for at in 0..world.size() {
        world.network.release(&world.address(at));
        if let (Some(wall), Some(disk)) = (world.wall(at), world.disk(at)) {
            wall.set_ahead(0);
            wall.set_drift(0);
            disk.set_pressure(None);
            disk.fail_writes(None);
        }
        world.start(at);
    }
    // What was stamped by a clock that was ahead becomes the past.
    sleep(Duration::from_secs(4)).await;
    ready(world).await?;
    recover(world, |world| {
        let nodes: Vec<_> = (0..world.size()).filter_map(|at| world.running(at)).collect();
        let epochs: BTreeSet<u64> = nodes.iter().map(|running| running.client.epoch()).collect();
        if epochs.len() > 1 {
            return Err(format!("the nodes' rings are of epochs {epochs:?}"));
        }
        let ring = world.ring().ok_or("no node has a ring")?;
        if let Some(operation) = ring.operations().first() {
            return Err(format!("operation {} is under way; {}", operation.id, under_way(world)));
        }
        let lapsed: usize =
            nodes.iter().filter_map(|running| Some(running.node.member()?.upkeep.lapsed_arcs())).sum();
        if lapsed > 0 {
            return Err(format!("{lapsed} arcs were not compared since a machine stopped"));
        }
        let misplaced: Vec<u64> = nodes
            .iter()
            .filter_map(|running| Some(running.node.member()?.upkeep.misplaced_entries()))
            .collect();
        if misplaced.iter().any(|entries| *entries > 0) {
            return Err(format!("the nodes hold {misplaced:?} misplaced entries"));
        }
        let pending: Vec<u64> =
            nodes.iter().filter_map(|running| Some(running.node.member()?.hints.pending())).collect();
        match pending.iter().all(|pending| *pending == 0) {
            true => Ok(()),
            false => Err(format!("the nodes keep {pending:?} hints")),
        }
    })
    .await
}

/// Reads everything once more, and lets the checkers judge.
pub async fn judge(shared: &Arc<Clients>) -> Vec<String> {
    let mut problems: Vec<String> =
        shared.hung.lock().iter().map(|hung| format!("DEADLINE: {hung}")).collect();
    let nodes = shared.world.size();
    for key in shared.keys() {
        let node = key as usize % nodes;
        let told = shared.perform(0, node, key, Ask::Get, CALM).await;
        if matches!(told, Told::Rejected | Told::Unknown) {
            problems.push(format!("AVAILABLE: all is healed, and node {} cannot read key {key}", node + 1));
        }
    }
    let lost = shared.world.losses() > 0;
    // What one replica acknowledged alone may have been on a disk that was lost.
    let counts = |event: &&Event| !(lost && event.key >= ONE);
    let history: Vec<Event> = shared.history.lock().iter().filter(counts).copied().collect();
    let within = |from: u32, to: u32| -> Vec<Event> {
        history.iter().filter(|event| (from..to).contains(&event.key)).copied().collect()
    };
    let tell = |violation: Violation| with_events(shared, &violation);
    problems.extend(check_register(&history).err().map(tell));
    let set = within(SET, ALL);
    problems.extend(check_surveys(&set, &shared.surveys.lock()).err().map(tell));
    for (from, to) in [(SET, ALL), (ALL, ONE), (ONE, u32::MAX)] {
        if from == ONE && lost {
            continue;
        }
        list_everywhere(shared, from, &within(from, to), &mut problems).await;
    }
    if problems.is_empty() {
        // Comparisons make equal what was not read either.
        let deadline = Instant::now() + RECOVERY;
        while let Err(problem) = level(shared).await {
            if Instant::now() >= deadline {
                problems.push(problem);
                break;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
    problems
}

/// A violation, with what the trace says of its keys.
fn with_events(shared: &Clients, violation: &Violation) -> String {
    let keys: Vec<u32> = violation.events.iter().map(|event| event.key).collect();
    let events = shared.world.trace.last(&keys, SHOWN);
    format!("{violation}the last events around it:\n  {}", events.join("\n  "))
}

/// Lists and counts a keyspace by each node.
async fn list_everywhere(shared: &Clients, keyspace: u32, history: &[Event], problems: &mut Vec<String>) {
    for node in 0..shared.world.size() {
        let who = node + 1;
        let Some(running) = shared.world.running(node) else { continue };
        let level = if keyspace == SET { consistency(shared.level) } else { copies(&running, keyspace) };
        let reverse = node % 2 == 1;
        let listed = shared.list(&running, keyspace, level, CALM, reverse).await;
        let counted = shared.count(&running, keyspace, level, CALM).await;
        match (listed, counted) {
            (Ok(keys), Ok(count)) => {
                let broken = check_set(history, &keys).err();
                problems.extend(
                    broken.map(|broken| format!("listed by node {who}: {}", with_events(shared, &broken))),
                );
                if count != keys.len() as u64 {
                    problems.push(format!("COUNT: node {who} lists {} keys and counts {count}", keys.len()));
                }
            }
            (Err(problem), _) | (_, Err(problem)) => problems
                .push(format!("AVAILABLE: all is healed, and node {who} cannot list or count: {problem}")),
        }
    }
}

/// Whether the replicas of each arc hold the same, now that hints were sent and everything was read from a quorum.
/// Reads at all replicas come first, as hints may have been dropped and a quorum does not see everybody.
async fn level(shared: &Clients) -> Result<(), String> {
    let world = &shared.world;
    let Some(first) = world.running(0) else { return Err("the first node does not run".to_owned()) };
    let Some(ring) = first.node.current_ring().get() else {
        return Err("the first node has no ring".to_owned());
    };
    for key in shared.keys() {
        shared.read_all(&first, key).await?;
    }
    for arc in ring.arcs() {
        let mut sums: Vec<(u32, Summary)> = Vec::new();
        for number in &arc.replicas {
            let at = (0..world.size())
                .find(|at| ring.node(*number).is_some_and(|node| node.peer_address == world.address(*at)));
            let Some(running) = at.and_then(|at| world.running(at)) else { continue };
            let (start, end) = (arc.range.start.clone(), arc.range.end.clone());
            let range = Range { start: start.into_bytes(), end: end.into_bytes() };
            let body = request::Body::Summarize(Summarize { ranges: vec![range], ..Summarize::default() });
            let call = Call { epoch: ring.epoch().0, arcs: 0, timeout: CALM, body };
            match PeerHandler(running.node).handle(Some(*number), call).await {
                Ok(response::Body::Summarize(done)) => {
                    sums.extend(done.summaries.into_iter().next().map(|sum| (number.0, sum)));
                }
                other => return Err(format!("LEVEL: node {number} cannot sum up an arc: {other:?}")),
            }
        }
        if let Some([(one, left), (other, right)]) = sums.array_windows().find(|[a, b]| a.1 != b.1) {
            return Err(format!(
                "LEVEL: after everything was read, nodes {one} and {other} differ in an arc of keyspace {}: \
                 {left:?}, {right:?}",
                arc.keyspace
            ));
        }
    }
    Ok(())
}
