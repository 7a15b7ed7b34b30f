//! The nodes: founded, troubled, healed, looked at.

use crate::{
    diary::Diary,
    figures::{Descriptors, Memory},
    hostile, hull,
    large::AT_ONCE,
    load::{LARGE, LARGE_BYTES, REGISTERS, SET},
    plan::{Fault, Node},
    process::{Process, ending, faketime},
};
use anyhow::{Context as _, bail, ensure};
use god_client::{
    Client,
    proto::{
        CreateKeyspaceRequest, GetRequest, InitRequest, Partitioner, PutRequest, StatusReply, StatusRequest,
        cluster_client::ClusterClient, get_reply, write_reply,
    },
};
use rustix::process::Signal;
use std::{
    collections::BTreeSet,
    fs, io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::transport::Channel;

/// How long it may take until a cluster is as it was, once nothing is wrong any more. Far more than it takes.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// How often it is said what is waited for.
const SAY: Duration = Duration::from_secs(5);
/// How long a question about the cluster's state may take.
const ASK: Duration = Duration::from_secs(5);
/// A key that nobody's history has.
pub const PROBE: &str = "probe";
/// What a node is given, for storage and for requests.
const GIVEN: u64 = (crate::process::MEMORY_MIB + crate::process::REQUEST_MEMORY_MIB) << 20;
/// The most that it may ever have resident, its code included.
const MOST_RESIDENT: u64 = GIVEN + (150 << 20);
/// What its replica reads of large values that are asked for at once, before whoever asks pays for them or drops them.
const READ_AHEAD: u64 = AT_ONCE * LARGE_BYTES as u64;
/// The most of it that is no file's, without connections: what it is given, and what the budget counts too late.
const MOST_OWN: u64 = GIVEN + READ_AHEAD;
/// What clients that do not read make a node hold beside either: HTTP/2 lets each send 4 MiB ahead, which the budget of
/// requests does not count (docs/ARCHITECTURE.md, "What is not there yet").
const SENT_AHEAD: u64 = (hostile::UNREAD as u64) * (4 << 20);
/// What a connection may add to that. No setting of the node counts it; the number of connections has a bound.
const A_CONNECTION: u64 = 8 << 10;
/// Sockets of a node that are no connections: its doors, and what signals come by.
const STANDING: usize = 6;
/// Connections of a node with another one: two each way, and one to or from an address that is no node's yet.
const OF_A_PEER: usize = 5;
/// Connections of a client with a node: one for keys, one for questions.
const OF_A_CLIENT: usize = 2;
/// Files of a node that are not its data: its logs, its directories, what sets its clock.
const OTHER_FILES: usize = 20;
/// What a node waits for events with, and the like.
const EVENTS: usize = 8;

/// All nodes of a run.
pub struct Cluster {
    diary: Arc<Diary>,
    processes: Vec<Process>,
    states: Vec<ClusterClient<Channel>>,
    hostile: JoinSet<String>,
    /// Who was told to stop, and may have ended.
    stopping: BTreeSet<Node>,
}

impl Cluster {
    /// Starts nodes, and founds a cluster of them: three copies of each key, of which two are written and read.
    ///
    /// # Errors
    /// Where they do not come up.
    pub async fn found(
        nodes: usize,
        program: &Path,
        logs: &Path,
        diary: Arc<Diary>,
    ) -> anyhow::Result<Cluster> {
        let faketime = faketime()?;
        let processes = (0..nodes).map(|node| Process::new(node, program, &faketime, logs)).collect();
        let state = |node| Ok(ClusterClient::new(hostile::endpoint(node)?.connect_lazy()));
        let states = (0..nodes).map(state).collect::<anyhow::Result<_>>()?;
        let hostile = JoinSet::new();
        let mut cluster = Cluster { diary, processes, states, hostile, stopping: BTreeSet::new() };
        for process in &mut cluster.processes {
            process.start()?;
        }
        let until = Instant::now() + PATIENCE;
        let first = loop {
            match connect(&[0]).await {
                Ok(first) => break first,
                Err(error) => ensure!(Instant::now() < until, "the first node does not answer: {error}"),
            }
            cluster.look()?;
            sleep(LOOK).await;
        };
        let init = InitRequest {
            replicas: 3,
            write_quorum: 2,
            read_quorum: 2,
            virtual_nodes: 4,
            ..InitRequest::default()
        };
        first.init(init).await.context("the cluster cannot be founded")?;
        cluster.wait("all nodes to be up", Cluster::all_up).await?;
        let hashed = [REGISTERS, LARGE].map(|name| (name, Partitioner::Hashed));
        for (name, partitioner) in hashed.into_iter().chain([(SET, Partitioner::Ordered)]) {
            let request = CreateKeyspaceRequest {
                name: name.to_owned(),
                partitioner: partitioner.into(),
                ..CreateKeyspaceRequest::default()
            };
            first.create_keyspace(request).await.with_context(|| format!("cannot make keyspace {name}"))?;
        }
        cluster.wait("all nodes to be up", Cluster::all_up).await?;
        Ok(cluster)
    }

    /// Connections to the cluster, each of which asks another node first.
    ///
    /// # Errors
    /// Where a node does not answer.
    pub async fn connect(&self) -> anyhow::Result<Vec<Client>> {
        let nodes = self.processes.len();
        let mut clients = Vec::new();
        for first in 0..nodes {
            let servers: Vec<Node> = (0..nodes).map(|node| (first + node) % nodes).collect();
            clients.push(connect(&servers).await?);
        }
        Ok(clients)
    }

    /// Lets a fault begin.
    ///
    /// # Errors
    /// Where it cannot.
    pub fn begin(&mut self, fault: Fault, lasts: Duration) -> anyhow::Result<()> {
        self.diary.note(format_args!("{fault}"));
        let until = Instant::now() + lasts;
        match fault {
            Fault::Kill(node) => self.processes[node].kill()?,
            Fault::KillAll => self.processes.iter_mut().try_for_each(Process::kill)?,
            Fault::Stop(node) => {
                self.stopping.insert(node);
                self.processes[node].signal(Signal::TERM)?;
            }
            Fault::Freeze(node) => self.processes[node].signal(Signal::STOP)?,
            Fault::Disk(_) | Fault::Clock(..) | Fault::Cut(_) | Fault::Part(..) | Fault::OneWay(..) => {
                hull::set(fault, true)?;
            }
            Fault::Unread(node) => {
                self.processes[node].had_unread = true;
                self.hostile.spawn(async move {
                    format!(
                        "{} connections were made whose answers were not read",
                        hostile::read_nothing(node, until).await
                    )
                });
            }
            Fault::Silent(node) => {
                self.hostile.spawn(async move {
                    format!(
                        "{} connections were made that said nothing",
                        hostile::say_nothing(node, until).await
                    )
                });
            }
        }
        Ok(())
    }

    /// Undoes a fault.
    ///
    /// # Errors
    /// Where it cannot be undone.
    pub async fn end(&mut self, fault: Fault) -> anyhow::Result<()> {
        self.diary.note(format_args!("no more: {fault}"));
        match fault {
            Fault::Kill(node) => self.processes[node].start()?,
            Fault::KillAll => self.processes.iter_mut().try_for_each(Process::start)?,
            Fault::Stop(node) => {
                let until = Instant::now() + PATIENCE;
                let status = loop {
                    match self.processes[node].ended()? {
                        Some(status) => break status,
                        None => ensure!(Instant::now() < until, "node {} does not stop", node + 1),
                    }
                    sleep(LOOK).await;
                };
                ensure!(status.success(), "node {} was told to stop and {}", node + 1, ending(status));
                self.stopping.remove(&node);
                self.processes[node].start()?;
            }
            Fault::Freeze(node) => self.processes[node].signal(Signal::CONT)?,
            Fault::Disk(_) | Fault::Clock(..) | Fault::Cut(_) | Fault::Part(..) | Fault::OneWay(..) => {
                hull::set(fault, false)?;
            }
            Fault::Unread(_) | Fault::Silent(_) => {
                if let Some(said) = self.hostile.join_next().await {
                    self.diary.note(said.context("a hostile client failed")?);
                }
            }
        }
        Ok(())
    }

    /// Notes what memory nodes take.
    ///
    /// # Errors
    /// Where one takes too much, or ended without being told to.
    pub fn look(&mut self) -> anyhow::Result<()> {
        for (node, process) in self.processes.iter_mut().enumerate() {
            let Some(memory) = process.look() else { continue };
            bears(memory, process.most_sockets, if process.had_unread { SENT_AHEAD } else { 0 })
                .with_context(|| format!("node {}", node + 1))?;
        }
        Ok(())
    }

    /// Sees to it that every process runs that was not told to end.
    ///
    /// # Errors
    /// Where one does not.
    pub fn all_run(&mut self) -> anyhow::Result<()> {
        for (node, process) in self.processes.iter_mut().enumerate() {
            if !self.stopping.contains(&node)
                && let Some(status) = process.ended()?
            {
                bail!("node {} {}; its log ends:\n{}", node + 1, ending(status), process.tail());
            }
            if let Some(line) = process.panic() {
                bail!("node {}: {line}", node + 1);
            }
        }
        Ok(())
    }

    /// Waits until all is as it was before: every node is up and ready and says so of all others, takes a write, and
    /// reads it; and none holds more descriptors than it does without trouble.
    ///
    /// # Errors
    /// Says what is not.
    pub async fn heal(&mut self) -> anyhow::Result<()> {
        self.wait("all nodes to be up", Cluster::all_up).await?;
        self.wait("all nodes to write and read", Cluster::all_serve).await?;
        self.wait("descriptors to come back", async |cluster| cluster.descriptors()).await
    }

    /// Waits until no node keeps anything for another one.
    ///
    /// # Errors
    /// Where that does not come.
    pub async fn wait_for_hints(&mut self) -> anyhow::Result<()> {
        self.wait("hints to be replayed", Cluster::no_hints).await
    }

    /// What each node took.
    pub fn summary(&self) {
        for (node, process) in self.processes.iter().enumerate() {
            let Memory { peak, own } = process.most;
            let (peak, own) = (peak as f64 / f64::from(1 << 20), own as f64 / f64::from(1 << 20));
            let open = process.descriptors().unwrap_or_default();
            self.diary.note(format_args!(
                "node {}: {peak:.1} MiB resident at most (VmHWM; may have {}, or {} where clients did not read), {own:.1} \
                 MiB of it its own (RssAnon); open: {open:?}",
                node + 1,
                MOST_RESIDENT >> 20,
                (MOST_RESIDENT + SENT_AHEAD) >> 20
            ));
        }
    }

    async fn wait(
        &mut self,
        what: &str,
        holds: impl AsyncFn(&mut Cluster) -> Result<(), String>,
    ) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        let mut said = Instant::now();
        loop {
            self.look()?;
            self.all_run()?;
            if let Err(problem) = holds(self).await {
                ensure!(Instant::now() < until, "waited {PATIENCE:?} for {what}: {problem}");
                if said.elapsed() >= SAY {
                    self.diary.note(format_args!("waiting for {what}: {problem}"));
                    said = Instant::now();
                }
            } else {
                return Ok(());
            }
            sleep(LOOK).await;
        }
    }

    async fn status(&mut self, node: Node) -> Result<StatusReply, String> {
        let asked = timeout(ASK, self.states[node].status(StatusRequest {})).await;
        let said = |problem: String| format!("node {} says {problem}", node + 1);
        let reply = match asked {
            Ok(Ok(reply)) => reply.into_inner(),
            Ok(Err(status)) => return Err(said(status.to_string())),
            Err(_) => return Err(said("nothing".to_owned())),
        };
        match reply.failed {
            Some(failed) => Err(said(failed.message)),
            None => Ok(reply),
        }
    }

    async fn all_up(&mut self) -> Result<(), String> {
        let count = self.processes.len();
        for node in 0..count {
            let status = self.status(node).await?;
            let troubled: Vec<String> = status
                .nodes
                .iter()
                .filter(|of| of.state != "up")
                .map(|of| format!("{} {} {:?}", of.grpc_address, of.state, of.reasons))
                .collect();
            if status.nodes.len() != count || !troubled.is_empty() {
                return Err(format!("node {} says of {} nodes: {troubled:?}", node + 1, status.nodes.len()));
            }
        }
        Ok(())
    }

    async fn all_serve(&mut self) -> Result<(), String> {
        for node in 0..self.processes.len() {
            let mut client = hostile::client(node).map_err(|error| error.to_string())?;
            let (keyspace, key) = (REGISTERS.to_owned(), PROBE.into());
            let put = PutRequest { keyspace, key, value: "probe".into(), ..PutRequest::default() };
            let written =
                timeout(ASK, client.put(put)).await.map(|reply| reply.map(|it| it.into_inner().outcome));
            if !matches!(&written, Ok(Ok(Some(write_reply::Outcome::Committed(_))))) {
                return Err(format!("node {} was told to write: {written:?}", node + 1));
            }
            let (keyspace, key) = (REGISTERS.to_owned(), PROBE.into());
            let get = GetRequest { keyspace, key, ..GetRequest::default() };
            let read =
                timeout(ASK, client.get(get)).await.map(|reply| reply.map(|it| it.into_inner().outcome));
            if !matches!(&read, Ok(Ok(Some(get_reply::Outcome::Found(_))))) {
                return Err(format!("node {} was told to read: {read:?}", node + 1));
            }
        }
        Ok(())
    }

    async fn no_hints(&mut self) -> Result<(), String> {
        let status = self.status(0).await?;
        let pending = |report: &god_client::proto::NodeReport| report.hints_pending;
        let pending: Vec<_> = status.nodes.iter().map(|node| node.report.as_ref().map(pending)).collect();
        if pending.iter().all(|pending| *pending == Some(0)) { Ok(()) } else { Err(format!("{pending:?}")) }
    }

    /// What a node may hold while all is well: it follows from how many there are, not from what happened.
    fn descriptors(&self) -> Result<(), String> {
        let nodes = self.processes.len();
        // This one asks for the state, besides the clients: one for each node.
        // And so many large values are asked for over one more.
        let sockets = STANDING + OF_A_PEER * (nodes - 1) + OF_A_CLIENT * nodes + 2;
        for (node, process) in self.processes.iter().enumerate() {
            let open = process.descriptors().ok_or("a node does not run")?;
            let data = files(&hull::disk(node)).map_err(|error| error.to_string())?;
            let Descriptors { sockets: now, files, deleted, others } = open;
            if now > sockets || files > data + OTHER_FILES || deleted > 0 || others > EVENTS {
                return Err(format!(
                    "node {} has {open:?} open, and may have {sockets} sockets, a deleted file never, {data} files of \
                     data and {OTHER_FILES} others, and {EVENTS} others",
                    node + 1
                ));
            }
        }
        Ok(())
    }
}

/// Whether a node may take so much memory, which has had so many sockets at most, and to which clients may have sent so
/// many bytes ahead.
///
/// # Errors
/// Says what is too much.
fn bears(Memory { peak, own }: Memory, sockets: usize, ahead: u64) -> anyhow::Result<()> {
    let mib = |bytes: u64| bytes >> 20;
    let (most_resident, most) = (MOST_RESIDENT + ahead, MOST_OWN + ahead + A_CONNECTION * sockets as u64);
    ensure!(
        peak < most_resident,
        "it had {} MiB resident (VmHWM), and may have {}",
        mib(peak),
        mib(most_resident)
    );
    ensure!(
        own < most,
        "it has {} MiB of its own (RssAnon), and may have {} after {sockets} sockets",
        mib(own),
        mib(most)
    );
    Ok(())
}

/// Files in a folder and the folders in it.
fn files(folder: &Path) -> io::Result<usize> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() { files(&entry.path())? } else { 1 };
    }
    Ok(sum)
}

async fn connect(servers: &[Node]) -> god_client::Result<Client> {
    let address = |node: &Node| format!("{}:7000", hull::address(*node));
    let nearest = servers.first().map(address).unwrap_or_default();
    Client::builder().servers(servers.iter().map(address)).nearest(nearest).connect().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_takes_too_much_memory_is_found() {
        let says =
            |peak, own, sockets| bears(Memory { peak, own }, sockets, 0).map_err(|error| error.to_string());
        assert_eq!(says(MOST_RESIDENT - 1, MOST_OWN - 1, 0), Ok(()));
        assert!(says(MOST_RESIDENT, 0, 0).unwrap_err().contains("VmHWM"));
        assert!(says(0, MOST_OWN, 0).unwrap_err().contains("RssAnon"));
        assert_eq!(says(0, MOST_OWN, 1), Ok(()), "a connection takes something");
        let ahead = Memory { peak: MOST_RESIDENT, own: MOST_OWN };
        assert!(bears(ahead, 0, 1).is_ok() && bears(ahead, 0, 0).is_err(), "it is not what is sent ahead");
    }
}
