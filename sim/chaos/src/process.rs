//! A node's process: started, signalled, looked at.

use crate::{
    figures::{Descriptors, Memory},
    hull,
    plan::Node,
};
use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, OpenOptions},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

/// For storage.
pub const MEMORY_MIB: u64 = 64;
/// For requests.
pub const REQUEST_MEMORY_MIB: u64 = 32;
/// What the unit and the image set for nodes, too (docs/decisions/0007-the-systems-allocator.md).
const ALLOCATOR: [&str; 2] = ["MALLOC_MMAP_THRESHOLD_=262144", "MALLOC_TRIM_THRESHOLD_=1048576"];
/// How much of their log nodes print where something went wrong.
const TAIL: usize = 15;

const LIBRARY: &str = "libfaketimeMT.so.1";
const LIBRARY_PLACES: [&str; 3] =
    ["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime", "/usr/lib/faketime"];

/// Where Debian's package `faketime` has the library that sets a process's wall clock.
///
/// # Errors
/// Where it is not installed.
pub fn faketime() -> anyhow::Result<PathBuf> {
    let mut places = LIBRARY_PLACES.iter().map(|place| Path::new(place).join(LIBRARY));
    let found = places.find(|path| path.exists());
    found.with_context(|| format!("{LIBRARY} is in none of {LIBRARY_PLACES:?}: install the package faketime"))
}

/// A node's process, and what it was given.
pub struct Process {
    node: Node,
    program: PathBuf,
    faketime: PathBuf,
    log: PathBuf,
    child: Option<Child>,
    /// The most memory that any of its processes took.
    pub most: Memory,
    /// The most sockets that its present process had.
    pub most_sockets: usize,
    /// Whether its present process had clients that do not read.
    pub had_unread: bool,
}

impl Process {
    /// One that is not started yet.
    pub fn new(node: Node, program: &Path, faketime: &Path, logs: &Path) -> Process {
        let log = logs.join(format!("{}.log", hull::name(node)));
        let (program, faketime) = (program.to_owned(), faketime.to_owned());
        Process {
            node,
            program,
            faketime,
            log,
            child: None,
            most: Memory::default(),
            most_sockets: 0,
            had_unread: false,
        }
    }

    fn command(&self) -> Command {
        let variable = |name: &str, value: &Path| format!("{name}={}", value.display());
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", hull::name(self.node)));
        command.args(["--", "env", "--ignore-environment", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
        command.arg(variable("LD_PRELOAD", &self.faketime));
        command.arg(variable("FAKETIME_TIMESTAMP_FILE", &hull::clock(self.node)));
        // The file is looked at once a second. The clock that only counts stays as it is.
        command.args(["FAKETIME_CACHE_DURATION=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1"]);
        command.args(ALLOCATOR).arg(&self.program).arg("--data").arg(hull::disk(self.node).join("data"));
        let address = hull::address(self.node);
        command.args([
            "--grpc-address",
            &format!("{address}:7000"),
            "--peer-address",
            &format!("{address}:7100"),
        ]);
        command.args(["--http-address", &format!("{address}:7200")]);
        if self.node > 0 {
            command.args(["--seed", &format!("{}:7100", hull::address(0))]);
        }
        command.args(["--memory", &format!("{MEMORY_MIB}MiB")]);
        command.args(["--request-memory", &format!("{REQUEST_MEMORY_MIB}MiB")]);
        // So that what takes a while elsewhere happens within a round.
        command.args(["--disk-reserve", "16MiB", "--unread-timeout", "2s", "--handshake-timeout", "2s"]);
        command.args(["--compare-interval", "5s", "--tombstone-age", "30s"]);
        command
    }

    /// Starts it, unless it runs.
    ///
    /// # Errors
    /// Where there is no such program.
    pub fn start(&mut self) -> anyhow::Result<()> {
        if self.child.is_none() {
            let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
            let mut command = self.command();
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
            (self.most_sockets, self.had_unread) = (0, false);
            self.child = Some(command.spawn().context("cannot run nsenter (Debian's util-linux)")?);
        }
        Ok(())
    }

    /// Its id while it runs.
    pub fn pid(&self) -> Option<Pid> {
        self.child.as_ref().map(Pid::from_child)
    }

    /// Sends it a signal, if it runs.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.pid().map_or(Ok(()), |pid| kill_process(pid, signal)).context("cannot signal a node")
    }

    /// kill -9.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.look();
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// How it ended, if it did. It may be started again then.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let ended = match &mut self.child {
            Some(child) => child.try_wait()?,
            None => None,
        };
        if ended.is_some() {
            self.child = None;
        }
        Ok(ended)
    }

    /// The memory that it takes, which is noted too. One that ended a moment ago has no figures.
    pub fn look(&mut self) -> Option<Memory> {
        let memory = Memory::of(self.pid()?).ok()?;
        self.most.peak = self.most.peak.max(memory.peak);
        self.most.own = self.most.own.max(memory.own);
        self.most_sockets = self.most_sockets.max(self.descriptors()?.sockets);
        Some(memory)
    }

    /// Its descriptors, while it runs.
    pub fn descriptors(&self) -> Option<Descriptors> {
        self.pid().and_then(|pid| Descriptors::of(pid).ok())
    }

    /// The end of its log.
    pub fn tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    /// The first line of its log that tells of a panic.
    pub fn panic(&self) -> Option<String> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().find(|line| line.contains("panicked at")).map(str::to_owned)
    }
}

/// How a process ended, for people.
pub fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended by itself with {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
