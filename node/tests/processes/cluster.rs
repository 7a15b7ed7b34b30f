//! A cluster of processes.

use crate::client::{Client, KEYSPACE};
use god_proto::v1::{CreateKeyspaceRequest, InitRequest, ListKeyspacesRequest, Partitioner, StatusReply};
use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    future::Future,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex as StdMutex,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep},
};

/// How long anything may take that a test waits for. Far more than it takes: a busy machine is no failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// So many clusters at a time: most of a test is waiting, and more would take the processors from each other.
const AT_ONCE: u32 = 3;
static TURNS: Semaphore = Semaphore::const_new(AT_ONCE as usize);
/// Ports that were given to a node of any cluster before.
static PORTS: StdMutex<BTreeSet<u16>> = StdMutex::new(BTreeSet::new());

/// A free port that no other node of this run has; none of those that the system gives connections (ip(7),
/// `ip_local_port_range`), so that it is free while a node is down.
fn port() -> u16 {
    const FIRST: u32 = 10_000;
    const PAST: u32 = 32_768;
    // Runs beside each other begin in different places.
    let start = std::process::id().wrapping_mul(101) % (PAST - FIRST);
    let is_free =
        |port: &u16| PORTS.lock().unwrap().insert(*port) && TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let mut all = (start..PAST - FIRST).chain(0..start).map(|at| (FIRST + at) as u16);
    all.find(is_free).expect("a free port")
}

/// The turn of whoever has a cluster by other means than [`Cluster`].
pub async fn turn() -> SemaphorePermit<'static> {
    TURNS.acquire().await.unwrap()
}

/// Waits until `holds` gives something.
pub async fn wait_for<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    mut holds: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match holds().await {
            Ok(found) => return found,
            Err(problem) => assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}: {problem}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// A file system of its own, that only the process sees and that ends with it.
pub enum Disk {
    /// In memory: its size, in `tmpfs`' words.
    Memory(&'static str),
    /// What is in this file, an ext4, which only root may mount. It writes back what somebody syncs and else nothing,
    /// not every few seconds.
    Image(PathBuf),
}

/// A node's process and what it was given.
pub struct Process {
    pub data: PathBuf,
    pub grpc: String,
    pub peer: String,
    pub http: String,
    pub arguments: Vec<String>,
    pub variables: Vec<(String, String)>,
    pub log: PathBuf,
    /// What the folder is that its data directory lies in, where that is not as it is for everybody.
    pub disk: Option<Disk>,
    /// A file that it reads in place of the kernel's name for this run of the machine: only root may do that.
    pub boot_id: Option<PathBuf>,
    /// How many files it may have open.
    pub descriptors: Option<u32>,
    child: Option<Child>,
}

impl Process {
    /// A node that is not started yet, on free ports.
    pub fn new(data: PathBuf, log: PathBuf) -> Process {
        let address = || format!("127.0.0.1:{}", port());
        Process {
            data,
            grpc: address(),
            peer: address(),
            http: address(),
            arguments: vec![],
            variables: vec![],
            log,
            disk: None,
            boot_id: None,
            descriptors: None,
            child: None,
        }
    }

    /// Other addresses for the next start, as a machine that was replaced under the same disk has.
    pub fn move_to_free_ports(&mut self) {
        assert!(self.child.is_none(), "it runs");
        for address in [&mut self.grpc, &mut self.peer, &mut self.http] {
            *address = format!("127.0.0.1:{}", port());
        }
    }

    pub fn command(&self) -> Command {
        let program = env!("CARGO_BIN_EXE_god-node");
        let parent = self.data.parent().unwrap().display();
        let disk = self.disk.as_ref().map(|disk| match disk {
            Disk::Memory(size) => format!("mount -t tmpfs -o size={size} tmpfs {parent}"),
            Disk::Image(image) => format!("mount -o loop,commit=300 {} {parent}", image.display()),
        });
        let bind =
            |file: &PathBuf| format!("mount --bind {} /proc/sys/kernel/random/boot_id", file.display());
        let mut steps: Vec<String> = disk.into_iter().chain(self.boot_id.as_ref().map(bind)).collect();
        let has_mounts = !steps.is_empty();
        steps.extend(self.descriptors.map(|most| format!("ulimit -n {most}")));
        let mut command = Command::new(match (has_mounts, steps.is_empty()) {
            (true, _) => "unshare",
            (false, false) => "sh",
            (false, true) => program,
        });
        if has_mounts {
            // A mount namespace of its own: the file system ends with the process.
            if !rustix::process::geteuid().is_root() {
                command.args(["--user", "--map-root-user"]);
            }
            command.args(["--mount", "sh"]);
        }
        if !steps.is_empty() {
            let script = format!("{} && exec {program} \"$@\"", steps.join(" && "));
            command.args(["-c", &script, "god-node"]);
        }
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").arg("--data").arg(&self.data);
        command.args(["--grpc-address", &self.grpc, "--peer-address", &self.peer]);
        command.args(["--http-address", &self.http]).args(&self.arguments);
        command.envs(self.variables.iter().cloned());
        command
    }

    pub fn start(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log: File = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let child = self.child.as_ref().expect("it runs");
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGSTOP: the process is there, its connections are open, and it does nothing.
    pub fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    /// SIGTERM, and waits for the end. Whether it went well.
    pub fn terminate(&mut self) -> bool {
        self.signal(rustix::process::Signal::TERM);
        self.child.take().expect("it runs").wait().unwrap().success()
    }

    /// Waits for a process that ends by itself.
    pub async fn ended(&mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        let child = self.child.as_mut().expect("it was started");
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                self.child = None;
                return status;
            }
            assert!(Instant::now() < deadline, "the node did not end; its log:\n{}", self.log());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The data directory as the process sees it.
    pub fn data_inside(&self) -> PathBuf {
        let pid = self.child.as_ref().expect("it runs").id();
        PathBuf::from(format!("/proc/{pid}/root{}", self.data.display()))
    }

    /// The most memory that it ever had resident, in bytes.
    pub fn resident(&self) -> usize {
        let pid = self.child.as_ref().expect("it runs").id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    pub fn client(&self) -> Client {
        Client::of(&self.grpc)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // A stopped process is killed as any other.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(15)..];
            eprintln!("--- the end of the log of {}:\n{}", self.data.display(), tail.join("\n"));
        }
    }
}

/// Some nodes that are one cluster.
pub struct Cluster {
    pub nodes: Vec<Process>,
    directory: TempDir,
    _turn: SemaphorePermit<'static>,
}

impl Cluster {
    /// Nodes that are not started yet; all but the first are told to join it.
    pub async fn prepare(nodes: usize, arguments: &[&str]) -> Cluster {
        Cluster::prepare_in(turn().await, nodes, arguments)
    }

    /// As [`Cluster::prepare`], for who judges by the time that something takes: no other cluster is there.
    pub async fn prepare_alone(nodes: usize, arguments: &[&str]) -> Cluster {
        Cluster::prepare_in(TURNS.acquire_many(AT_ONCE).await.unwrap(), nodes, arguments)
    }

    fn prepare_in(turn: SemaphorePermit<'static>, nodes: usize, arguments: &[&str]) -> Cluster {
        let directory = TempDir::new().unwrap();
        let at = |name: String| directory.path().join(name);
        let mut nodes: Vec<Process> = (1..=nodes)
            .map(|id| Process::new(at(format!("node-{id}")), at(format!("node-{id}.log"))))
            .collect();
        let first = nodes[0].peer.clone();
        for (index, node) in nodes.iter_mut().enumerate() {
            node.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
            node.arguments.extend(["--memory", "64MiB"].map(str::to_owned));
            if index > 0 {
                node.arguments.extend(["--seed".to_owned(), first.clone()]);
            }
        }
        Cluster { nodes, directory, _turn: turn }
    }

    /// Nodes that are up and have founded a cluster, with N = 3, W = 2, R = 2.
    pub async fn start(nodes: usize, arguments: &[&str]) -> Cluster {
        let mut cluster = Cluster::prepare(nodes, arguments).await;
        cluster.found().await;
        cluster
    }

    /// Starts all nodes, and founds the cluster. The second joins last, so that no test takes a node's place here for
    /// its number in the ring.
    pub async fn found(&mut self) {
        self.found_with(0, 0).await;
    }

    /// As [`Cluster::found`]; the keyspace has such quorums. 0: those that go without saying.
    pub async fn found_with(&mut self, write_quorum: u32, read_quorum: u32) {
        for (at, node) in self.nodes.iter_mut().enumerate() {
            if at != 1 {
                node.start();
            }
        }
        let replicas = self.nodes.len().min(3) as u32;
        let init = InitRequest { replicas, virtual_nodes: 4, ..InitRequest::default() };
        let first = self.nodes[0].client();
        wait_for("the cluster to be founded", || {
            let mut first = first.clone();
            async move { first.init(init).await }
        })
        .await;
        if self.nodes.len() > 2 {
            wait_for("all others to join before the second", || {
                let mut first = first.clone();
                let others = self.nodes.len() - 1;
                async move {
                    let there = first.status().await?.nodes.len();
                    if there == others { Ok(()) } else { Err(format!("there are {there}")) }
                }
            })
            .await;
        }
        if let Some(second) = self.nodes.get_mut(1) {
            second.start();
        }
        self.wait_until_up().await;
        let keyspace = CreateKeyspaceRequest {
            name: KEYSPACE.to_owned(),
            partitioner: Partitioner::Ordered.into(),
            write_quorum,
            read_quorum,
            ..CreateKeyspaceRequest::default()
        };
        let created = first.cluster.clone().create_keyspace(keyspace).await.unwrap().into_inner();
        assert!(created.failed.is_none(), "{created:?}");
        self.wait_until_up().await;
        self.wait_for_keyspace().await;
    }

    /// Waits until every node has heard of the keyspace: whoever made it answers before the others have.
    async fn wait_for_keyspace(&self) {
        for node in &self.nodes {
            let client = node.client();
            wait_for("all nodes to know the keyspace", || {
                let mut client = client.clone();
                async move {
                    let listed = client.cluster.list_keyspaces(ListKeyspacesRequest {}).await;
                    let listed = listed.map_err(|status| status.to_string())?.into_inner();
                    match listed.keyspaces.iter().any(|keyspace| keyspace.name == KEYSPACE) {
                        true => Ok(()),
                        false => Err(format!("{} does not", client.server())),
                    }
                }
            })
            .await;
        }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Where the node of a number is among [`Cluster::nodes`]: those that start together are numbered as they come.
    pub async fn place_of(&self, number: u32) -> usize {
        let nodes = self.nodes[0].client().status().await.unwrap().nodes;
        let address = nodes.into_iter().find(|node| node.number == number).unwrap().grpc_address;
        self.nodes.iter().position(|node| node.grpc == address).unwrap()
    }

    /// Waits until every node says of every node that it is up and ready.
    pub async fn wait_until_up(&mut self) {
        let count = self.nodes.len();
        for node in &self.nodes {
            let client = node.client();
            wait_for("all nodes to be up", || {
                let mut client = client.clone();
                async move {
                    let status = client.status().await?;
                    let states: Vec<String> = status.nodes.iter().map(|node| node.state.clone()).collect();
                    match states.len() == count && states.iter().all(|state| state == "up") {
                        true => Ok(()),
                        false => Err(format!("{} says {states:?}", client.server())),
                    }
                }
            })
            .await;
        }
    }

    /// Waits until no node keeps hints for another.
    pub async fn wait_for_hints(&self) {
        let client = self.nodes[0].client();
        let pending = |status: StatusReply| {
            let reports: Vec<_> = status.nodes.into_iter().map(|node| node.report).collect();
            match reports.iter().all(|report| report.as_ref().is_some_and(|report| report.hints_pending == 0))
            {
                true => Ok(()),
                false => Err(format!(
                    "pending: {:?}",
                    reports
                        .iter()
                        .map(|report| report.as_ref().map(|it| it.hints_pending))
                        .collect::<Vec<_>>()
                )),
            }
        };
        wait_for("hints to be replayed", || {
            let mut client = client.clone();
            async move { pending(client.status().await?) }
        })
        .await;
    }
}
