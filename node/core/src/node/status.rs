//! What a node says of itself, and of the cluster.

use super::{
    Node,
    join::{displaced, displaces},
};
use crate::{
    engine::Pressure,
    membership::PeerState,
    peer::{Call, Target},
    ring::{shares, under_replicated},
};
use futures::future::join_all;
use god_proto::{
    answer::{NO_CLUSTER, STORAGE_FAILED},
    ids::NodeId,
    peer::{Report, request, response},
    ring::Ring,
    v1::{self, DepartedNode, Departure, MemberState, NodeReport, NodeStatus, StatusReply},
};
use metrics::gauge;
use parking_lot::Mutex;
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// How long a node may take to report.
const REPORT_TIMEOUT: Duration = Duration::from_millis(800);
/// Over how long the rate of requests is taken.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// Requests over the last seconds.
#[derive(Default)]
pub(super) struct Rate(Mutex<VecDeque<(Instant, u64)>>);

impl Rate {
    /// Counts requests. Cost: a lock, once a frame.
    pub fn add(&self, requests: usize) {
        let now = Instant::now();
        let mut slots = self.0.lock();
        match slots.back_mut() {
            Some((since, count)) if now - *since < Duration::from_secs(1) => *count += requests as u64,
            _ => slots.push_back((now, requests as u64)),
        }
        while slots.front().is_some_and(|(since, _)| now - *since > RATE_WINDOW) {
            slots.pop_front();
        }
    }

    fn per_second(&self) -> f64 {
        let now = Instant::now();
        let recent = |(since, _): &&(Instant, u64)| now - *since <= RATE_WINDOW;
        let count: u64 = self.0.lock().iter().filter(recent).map(|(_, count)| count).sum();
        count as f64 / RATE_WINDOW.as_secs_f64()
    }
}

const LEFT: &str = "this node has left its cluster for good; stop it, and delete its data";

impl Node {
    /// Why clients should go elsewhere; nothing where they need not.
    pub(super) fn obstacles(&self) -> Vec<String> {
        let mut obstacles = self.troubles();
        obstacles.extend(self.alone());
        obstacles
    }

    fn has_left(&self) -> bool {
        self.ring.get().is_some_and(|ring| ring.is_retired(self.settings.own.uuid))
    }

    /// Why this node is in no cluster, with what to do: one thing, and not what another state would need.
    pub(super) fn outside(&self) -> String {
        match self.refused.get() {
            _ if self.has_left() => LEFT.to_owned(),
            Some(why) => why.clone(),
            None => NO_CLUSTER.to_owned(),
        }
    }

    /// What clients are told who ask it for something of a cluster.
    pub(super) fn outsider(&self) -> v1::Rejected {
        // One that was refused, or that left, never will be: nobody need ask it again.
        let retry_after_ms = if self.has_left() || self.refused.get().is_some() { 0 } else { 500 };
        v1::Rejected::later(v1::Reason::NotInitialised, self.outside(), retry_after_ms)
    }

    /// What is wrong with this node itself.
    pub(super) fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        if self.member().is_none() || self.has_left() || self.refused.get().is_some() {
            troubles.push(self.outside());
        }
        if let Some(ring) = self.ring.get() {
            troubles.extend(
                displaces(&ring, &self.settings.own).map(|other| displaced(other, &self.settings.own)),
            );
        }
        let clock = self.clock.trouble().map(|trouble| trouble.to_string());
        troubles.extend(clock.or_else(|| self.offsets.trouble()));
        match self.engine.pressure() {
            Pressure::Fine | Pressure::Busy(_) => {}
            Pressure::DiskFull(problem) | Pressure::DiskSpent(problem) => {
                troubles.push(format!("the disk is full: {problem}"));
            }
            Pressure::Failed(problem) => {
                troubles.push(format!("{STORAGE_FAILED}, restart the node: {problem}"));
            }
        }
        troubles.extend(self.engine.damage().map(|damage| format!("storage is damaged: {damage}")));
        troubles
    }

    /// What this node says of itself.
    pub(super) fn report(&self) -> NodeReport {
        let mut reasons = self.troubles();
        let ready = reasons.is_empty();
        reasons.extend(self.alone());
        let figure = |name: &str| {
            self.engine
                .figures()
                .into_iter()
                .find(|(found, _)| *found == name)
                .map_or(0, |(_, value)| value as u64)
        };
        let member = self.member();
        let total = member.map(|member| member.store.summary());
        NodeReport {
            keys: total.as_ref().map_or(0, |total| total.live_keys),
            bytes: total.as_ref().map_or(0, |total| total.bytes),
            epoch: self.ring.epoch().0,
            uptime_ms: self.began.elapsed().as_millis() as u64,
            requests_per_second: self.rate.per_second(),
            clock_offset_us: self.offsets.own_ahead_us(),
            hints_pending: member.map_or(0, |member| member.hints.pending()),
            hints_dropped: member.map_or(0, |member| member.hints.dropped()),
            suspect_arcs: member.map_or(0, |member| member.hints.suspect_arcs() as u32),
            lapsed_arcs: member.map_or(0, |member| member.upkeep.lapsed_arcs() as u32),
            misplaced_entries: member.map_or(0, |member| member.upkeep.misplaced_entries()),
            memory_bytes: memory_bytes(),
            disk_free_bytes: figure("disk_free_bytes"),
            ready,
            reasons,
            version: self.settings.own.version.clone(),
        }
    }

    /// Everybody's report, as far as they answer.
    pub(super) async fn cluster_status(&self) -> StatusReply {
        let ring = match self.known_ring() {
            Ok(ring) => ring,
            Err(why) => return StatusReply { failed: Some(why), ..StatusReply::default() },
        };
        let reports = join_all(ring.nodes().iter().map(|node| self.ask_report(NodeId(node.number)))).await;
        let shares = shares(&ring);
        let nodes: Vec<NodeStatus> = ring
            .nodes()
            .iter()
            .zip(reports)
            .map(|(node, report)| {
                let number = NodeId(node.number);
                let (arcs, share) = shares.get(&number).copied().unwrap_or_default();
                let state = match (&report, node.state(), self.liveness.state(number)) {
                    (_, MemberState::Leaving, _) => "leaving",
                    (Some(report), ..) if report.ready => "up",
                    (Some(_), ..) => "unready",
                    (None, _, PeerState::Down) => "down",
                    (None, ..) => "suspect",
                };
                NodeStatus {
                    number: node.number,
                    uuid: node.uuid.clone(),
                    peer_address: node.peer_address.clone(),
                    grpc_address: node.grpc_address.clone(),
                    http_address: node.http_address.clone(),
                    zone: node.zone.clone(),
                    weight: node.weight,
                    state: state.to_owned(),
                    reasons: report.as_ref().map_or_else(Vec::new, |report| report.reasons.clone()),
                    version: node.version.clone(),
                    arcs,
                    share,
                    voter: ring.voters().any(|voter| voter == number),
                    report,
                }
            })
            .collect();
        let is_up = |number: NodeId| nodes.iter().any(|node| node.number == number.0 && node.state == "up");
        let lacking = under_replicated(&ring, is_up);
        let warnings = warnings(&ring, &nodes);
        let departed = departed(&ring, &nodes);
        StatusReply {
            cluster: ring.cluster().as_bytes().to_vec().into(),
            epoch: ring.epoch().0,
            under_replicated_arcs: lacking.len() as u32,
            arcs: ring.arcs().len() as u32,
            nodes,
            warnings,
            departed,
            failed: None,
        }
    }

    async fn ask_report(&self, node: NodeId) -> Option<NodeReport> {
        let call =
            Call { epoch: 0, arcs: 0, timeout: REPORT_TIMEOUT, body: request::Body::Report(Report {}) };
        match self.transport.call(Target::Node(node), call).await {
            Ok(response::Body::Report(report)) => Some(report),
            _ => None,
        }
    }

    /// Sets the gauges that are cheaper to read than to keep: before each scrape.
    pub fn refresh_metrics(&self) {
        for (name, value) in self.engine.figures() {
            gauge!("god_engine_figure", "name" => name).set(value);
        }
        self.liveness.show();
        gauge!("god_node_ready").set(if self.obstacles().is_empty() { 1.0 } else { 0.0 });
        gauge!("god_consensus_epoch").set(self.ring.epoch().0 as f64);
        gauge!("god_version_clock_ahead_seconds").set(self.offsets.own_ahead_us() as f64 / 1e6);
        gauge!("god_node_memory_bytes").set(memory_bytes() as f64);
        if let Some(member) = self.member() {
            let figures = member.store.figures();
            gauge!("god_radix_buckets").set(figures.buckets as f64);
            gauge!("god_radix_memory_bytes").set(figures.memory as f64);
            gauge!("god_radix_entries").set(figures.total.entries as f64);
            gauge!("god_radix_live_keys").set(figures.total.live_keys as f64);
            gauge!("god_quorum_hints_pending").set(member.hints.pending() as f64);
        }
    }
}

/// Who left, and who knows of it.
fn departed(ring: &Ring, nodes: &[NodeStatus]) -> Vec<DepartedNode> {
    let knows = |node: &&NodeStatus, epoch| node.report.as_ref().is_some_and(|report| report.epoch >= epoch);
    let of = |departure: &Departure| {
        let by: Vec<&NodeStatus> = nodes.iter().filter(|node| knows(node, departure.epoch)).collect();
        let voters = by.iter().filter(|node| node.voter).count();
        DepartedNode {
            uuid: departure.uuid.clone(),
            epoch: departure.epoch,
            handed_over: departure.handed_over,
            acknowledged: 2 * by.len() > nodes.len() && 2 * voters > ring.voters().count(),
            acknowledged_by: by.iter().map(|node| node.number).collect(),
        }
    };
    ring.document().departures.iter().map(of).collect()
}

/// What an operator should know beyond the figures.
fn warnings(ring: &Ring, nodes: &[NodeStatus]) -> Vec<String> {
    let mut warnings = Vec::new();
    for keyspace in ring.keyspaces() {
        if ring.nodes().len() < keyspace.replicas as usize {
            warnings.push(format!(
                "keyspace {} asks for {} copies, and the cluster has {} nodes: it is under-replicated",
                keyspace.name,
                keyspace.replicas,
                ring.nodes().len()
            ));
        }
    }
    for node in nodes {
        if let Some(report) = &node.report {
            warnings.extend(report.reasons.iter().map(|reason| format!("node {}: {reason}", node.number)));
            if report.lapsed_arcs > 0 {
                warnings.push(format!(
                    "node {}: its machine stopped without a clean end, or records there are damaged; it counts for \
                     writes and not for reads of {} arcs until it has compared them with the other replicas",
                    node.number, report.lapsed_arcs
                ));
            }
            if report.suspect_arcs > 0 {
                warnings
                    .push(format!("node {} had to drop hints for {} arcs", node.number, report.suspect_arcs));
            }
        } else {
            warnings.push(format!("node {} at {} does not answer", node.number, node.peer_address));
        }
    }
    warnings
}

/// Resident memory of this process, as Linux tells it; 0 elsewhere.
fn memory_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}
