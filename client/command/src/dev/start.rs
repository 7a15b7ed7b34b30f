//! Starting the nodes of a directory, founding their cluster, and watching over them.

use super::{
    cluster::{self, Founded},
    process::{self, NodeExit},
    state::{DevNode, DevState},
};
use crate::{failure::Failure, output::say};
use god_proto::v1::{InitRequest, StatusReply};
use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

/// How long the cluster may take to be there.
const START: Duration = Duration::from_secs(30);
/// How long arcs may take to find their replicas after that; a cluster without is usable.
const REPLICATE: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// How often a node may be given other ports because its own were taken as it started.
const MOVES: u32 = 3;

/// The nodes of a directory, and their processes.
pub struct Nodes {
    pub dir: PathBuf,
    pub state: DevState,
    program: PathBuf,
    options: Vec<OsString>,
    ended: mpsc::Receiver<NodeExit>,
    tell_ended: mpsc::Sender<NodeExit>,
    /// Where in its log a node's run begins.
    log_starts: BTreeMap<u32, u64>,
    moves: u32,
}

impl Nodes {
    pub fn new(program: PathBuf, dir: PathBuf, options: Vec<OsString>, state: DevState) -> Nodes {
        let (tell_ended, ended) = mpsc::channel(64);
        Nodes { dir, state, program, options, ended, tell_ended, log_starts: BTreeMap::new(), moves: 0 }
    }

    /// Starts all, founds the cluster if there is none, and waits until all are members and ready.
    pub async fn start(&mut self) -> Result<StatusReply, Failure> {
        let deadline = Instant::now() + START;
        for at in 0..self.state.nodes.len() {
            self.launch(at)?;
            // New ones join one by one, so that the cluster numbers them as the directory does.
            if !self.state.nodes.get(at).is_some_and(|node| node.member) {
                if self.state.cluster.is_none() {
                    self.found(deadline).await?;
                }
                self.wait_for(deadline, |reply, nodes| {
                    let node = nodes.get(at);
                    node.filter(|node| !reply.nodes.iter().any(|seen| seen.peer_address == node.peer))
                        .map(|node| vec![(node.id, "has not joined".to_owned())])
                        .unwrap_or_default()
                })
                .await?;
                if let Some(node) = self.state.nodes.get_mut(at) {
                    node.member = true;
                }
                self.state.save(&self.dir)?;
            }
        }
        let status = self
            .wait_for(deadline, |reply, nodes| {
                nodes.iter().filter_map(|node| Some((node.id, cluster::lacking(reply, node)?))).collect()
            })
            .await?;
        let replicated = Instant::now() + REPLICATE;
        let mut status = status;
        while status.under_replicated_arcs > 0 && Instant::now() < replicated {
            sleep(LOOK).await;
            if let Some(newer) = self.ask().await {
                status = newer;
            }
        }
        Ok(status)
    }

    /// Starts one process.
    fn launch(&mut self, at: usize) -> Result<(), Failure> {
        let Some(node) = self.state.nodes.get(at).cloned() else { return Ok(()) };
        // Before there is a cluster the first node has nobody to join.
        let first = self.state.cluster.is_none();
        let others = self.state.nodes.iter().filter(|other| other.id != node.id && !first);
        let seeds: Vec<String> = others.map(|other| other.peer.clone()).collect();
        // They share the machine's processors.
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (processors / self.state.nodes.len().max(1)).max(1);
        let (pid, log_start) = process::start(
            &self.program,
            &self.dir,
            &node,
            &seeds,
            &self.options,
            threads,
            self.tell_ended.clone(),
        )?;
        self.log_starts.insert(node.id, log_start);
        if let Some(node) = self.state.nodes.get_mut(at) {
            node.pid = Some(pid);
        }
        self.state.save(&self.dir)
    }

    /// Founds the cluster on the first node.
    async fn found(&mut self, deadline: Instant) -> Result<(), Failure> {
        let replicas = 3.min(self.state.nodes.len() as u32);
        // Quorums follow from the copies.
        let request = InitRequest { replicas, ..InitRequest::default() };
        loop {
            let Some(first) = self.state.nodes.first().cloned() else { return Ok(()) };
            let problem = match cluster::init(&first, request).await {
                Founded::Yes(id) => {
                    self.state.cluster = Some(id.to_string());
                    return self.state.save(&self.dir);
                }
                // An earlier start was cut short before it could remember.
                Founded::Before => match cluster::status(&first).await {
                    Some(reply) => {
                        self.state.cluster = Some(id_text(&reply.cluster));
                        return self.state.save(&self.dir);
                    }
                    None => "it does not say which cluster it belongs to".to_owned(),
                },
                Founded::Refused(why) => {
                    return Err(self.blame(first.id, &format!("refused to be founded on: {why}")));
                }
                Founded::NoAnswer(problem) => problem,
            };
            self.check_ended()?;
            if Instant::now() >= deadline {
                return Err(self.blame(first.id, &format!("does not answer on {}: {problem}", first.grpc)));
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until `lacking` names no node any more.
    async fn wait_for(
        &mut self,
        deadline: Instant,
        lacking: impl Fn(&StatusReply, &[DevNode]) -> Vec<(u32, String)>,
    ) -> Result<StatusReply, Failure> {
        loop {
            self.check_ended()?;
            let mut left = match self.ask().await {
                Some(reply) => {
                    let left = lacking(&reply, &self.state.nodes);
                    if left.is_empty() {
                        return Ok(reply);
                    }
                    left
                }
                None => vec![(1, "does not answer".to_owned())],
            };
            if Instant::now() >= deadline {
                let (id, why) = left.remove(0);
                let others: Vec<String> =
                    left.into_iter().map(|(id, why)| format!("\nnode {id} {why}")).collect();
                let why = format!("{why} after {} s{}", START.as_secs(), others.concat());
                return Err(self.blame(id, &why));
            }
            sleep(LOOK).await;
        }
    }

    /// The cluster as the first node that answers sees it.
    async fn ask(&self) -> Option<StatusReply> {
        for node in self.state.nodes.iter().filter(|node| node.pid.is_some()) {
            let Some(reply) = cluster::status(node).await else { continue };
            // Not a stranger that took a port.
            if self.state.cluster.as_ref().is_none_or(|ours| *ours == id_text(&reply.cluster)) {
                return Some(reply);
            }
        }
        None
    }

    /// A node that ends while the cluster starts: on other ports if its own were taken meanwhile, else it is to blame.
    fn check_ended(&mut self) -> Result<(), Failure> {
        while let Ok(NodeExit { id, status }) = self.ended.try_recv() {
            let Some(at) = self.state.nodes.iter().position(|node| node.id == id) else { continue };
            let taken = self.state.nodes.get(at).is_some_and(|node| !node.ports_are_free());
            if !taken || self.moves >= MOVES {
                return Err(self.blame(id, &format!("ended by itself ({})", process::how_it_ended(status))));
            }
            self.moves += 1;
            say(&format!("a port of node {id} was taken meanwhile; trying others"));
            if let Some(node) = self.state.nodes.get_mut(at) {
                let mut moved = DevState::new();
                moved.assign_ports(1, None)?;
                if let Some(fresh) = moved.nodes.pop() {
                    *node = DevNode { grpc: fresh.grpc, peer: fresh.peer, http: fresh.http, ..node.clone() };
                }
            }
            self.launch(at)?;
        }
        Ok(())
    }

    /// A failure that shows the node's last words.
    fn blame(&self, id: u32, why: &str) -> Failure {
        Failure::Refused(format!("node {id} {why}\n{}", self.last_words(id)))
    }

    fn last_words(&self, id: u32) -> String {
        let node = self.state.nodes.iter().find(|node| node.id == id);
        let from = self.log_starts.get(&id).copied().unwrap_or_default();
        node.map(|node| process::log_tail(&node.log(&self.dir), from)).unwrap_or_default()
    }

    /// Tells of nodes that end by themselves; returns when none is left.
    pub async fn watch(&mut self) {
        let mut left = self.state.nodes.len();
        while left > 0 {
            let Some(NodeExit { id, status }) = self.ended.recv().await else { return };
            left -= 1;
            say(&format!(
                "node {id} ended by itself ({})\n{}",
                process::how_it_ended(status),
                self.last_words(id)
            ));
        }
    }

    /// Stops all that still run.
    pub async fn stop(&mut self) -> Result<(), Failure> {
        for id in process::stop(&self.dir, &self.state.nodes).await {
            say(&format!("node {id} did not end when asked, and was killed"));
        }
        for node in &mut self.state.nodes {
            node.pid = None;
        }
        self.state.save(&self.dir)
    }
}

/// A cluster's id as it is shown.
pub fn id_text(cluster: &[u8]) -> String {
    uuid::Uuid::from_slice(cluster).map_or_else(|_| hex::encode(cluster), |id| id.to_string())
}
