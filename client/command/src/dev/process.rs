//! Node processes: finding the program, starting, watching and stopping them by their process ids.

use super::state::DevNode;
use crate::failure::Failure;
use god_manual::variables;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{process::Command, sync::mpsc, time::Instant};

const PROGRAM: &str = "god-node";
/// The variable that names it.
pub const NODE: &str = "GOD_NODE";
/// What a node holds locked in its directory.
const LOCK: &str = "LOCK";
/// Between SIGTERM and SIGKILL: what a node gives its clients to end, its writes to land and its store to close.
const PATIENCE: Duration = Duration::from_secs(20);
/// What the unit and the image set for nodes, too (docs/decisions/0007-the-systems-allocator.md).
const ALLOCATOR: [(&str, &str); 2] =
    [("MALLOC_MMAP_THRESHOLD_", "262144"), ("MALLOC_TRIM_THRESHOLD_", "1048576")];
/// What of a log is shown.
const TAIL_LINES: usize = 15;
const TAIL_BYTES: u64 = 16 << 10;

/// Finds the node program: `GOD_NODE`, else beside this one, else on the path.
pub fn find_program() -> Result<PathBuf, Failure> {
    if let Some(named) = variables::set(NODE) {
        let named = PathBuf::from(named);
        return if is_program(&named) {
            Ok(named)
        } else {
            Err(Failure::Usage(format!("GOD_NODE names {}, which is no program", named.display())))
        };
    }
    let beside = env::current_exe().ok().and_then(|me| Some(me.parent()?.join(PROGRAM)));
    let on_path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&on_path).map(|folder| folder.join(PROGRAM));
    beside.into_iter().chain(on_path).find(|path| is_program(path)).ok_or_else(|| {
        Failure::Usage(format!(
            "cannot find {PROGRAM} beside this program or on the path; build it, or name it in GOD_NODE"
        ))
    })
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// A node that ended by itself.
pub struct NodeExit {
    pub id: u32,
    pub status: ExitStatus,
}

/// Starts a node. Its output goes to its log; `ended` hears of its end. Gives its process id and where in the log
/// this run begins.
pub fn start(
    program: &Path,
    dir: &Path,
    node: &DevNode,
    seeds: &[String],
    more: &[OsString],
    threads: usize,
    ended: mpsc::Sender<NodeExit>,
) -> Result<(u32, u64), Failure> {
    let cannot = |error: &io::Error| {
        Failure::Usage(format!("cannot start node {} ({}): {error}", node.id, program.display()))
    };
    let log = OpenOptions::new().create(true).append(true).open(node.log(dir));
    let log = log.map_err(|error| {
        Failure::Usage(format!("cannot write the log {}: {error}", node.log(dir).display()))
    })?;
    let log_start = log.metadata().map_or(0, |meta| meta.len());
    let mut command = Command::new(program);
    command.arg("--data").arg(node.data(dir));
    command.args(["--grpc-address", &node.grpc, "--peer-address", &node.peer, "--http-address", &node.http]);
    for seed in seeds {
        command.args(["--seed", seed]);
    }
    if variables::set("GOD_WORKER_THREADS").is_none() {
        command.env("GOD_WORKER_THREADS", threads.to_string());
    }
    for (name, value) in ALLOCATOR.into_iter().filter(|(name, _)| env::var_os(name).is_none()) {
        command.env(name, value);
    }
    command.args(more);
    command.stdin(Stdio::null());
    command.stdout(log.try_clone().map_err(|error| cannot(&error))?).stderr(log);
    // A group of its own: a Ctrl-C at the terminal is for `god dev`, which then stops the nodes in order.
    command.process_group(0);
    let mut child = command.spawn().map_err(|error| cannot(&error))?;
    let pid = child.id().ok_or_else(|| cannot(&io::Error::other("it has no process id")))?;
    let id = node.id;
    tokio::spawn(async move {
        if let Ok(status) = child.wait().await {
            // Nobody listens once the command ends.
            let _ = ended.send(NodeExit { id, status }).await;
        }
    });
    Ok((pid, log_start))
}

/// Whether this process is the node of this directory: a process id may have been given to another one since.
pub fn is_node(pid: u32, data: &Path) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    is_node_line(&line, data)
}

fn is_node_line(line: &[u8], data: &Path) -> bool {
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let named = |word: &[u8]| {
        let name = Path::new(OsStr::from_bytes(word)).file_name();
        name.is_some_and(|name| name.as_bytes().starts_with(PROGRAM.as_bytes()))
    };
    // A program named by GOD_NODE may be a script: then its name comes after its interpreter's.
    words.iter().take(3).any(|word| named(word))
        && words.windows(2).any(|pair| *pair == [b"--data", data.as_os_str().as_bytes()])
}

/// Whether a node's directory is in use. A process that ends is seen to be no node any more some time before the system
/// has given back what it held.
fn is_in_use(data: &Path) -> bool {
    let Ok(lock) = File::open(data.join(LOCK)) else { return false };
    matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// Stops these nodes: asks, waits, and makes an end of those that stay. Gives the ids of those that had to be killed.
pub async fn stop(dir: &Path, nodes: &[DevNode]) -> Vec<u32> {
    let running = |node: &&DevNode| node.pid.is_some_and(|pid| is_node(pid, &node.data(dir)));
    let mut left: Vec<&DevNode> = nodes.iter().filter(running).collect();
    signal(&left, Signal::TERM);
    wait_for_end(&mut left, running).await;
    let mut ending: Vec<&DevNode> =
        nodes.iter().filter(|node| node.pid.is_some() && !running(node)).collect();
    let killed = left.iter().map(|node| node.id).collect();
    if !left.is_empty() {
        signal(&left, Signal::KILL);
        ending.append(&mut left);
    }
    wait_for_end(&mut ending, |node| is_in_use(&node.data(dir))).await;
    killed
}

fn signal(nodes: &[&DevNode], signal: Signal) {
    for pid in nodes.iter().filter_map(|node| node.pid) {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // It may have ended in between: then there is nothing to signal.
            let _ = kill_process(pid, signal);
        }
    }
}

async fn wait_for_end<'a>(left: &mut Vec<&'a DevNode>, running: impl Fn(&&'a DevNode) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        left.retain(&running);
        if left.is_empty() || Instant::now() >= deadline {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The last lines of a log, from where this run begins, indented.
pub fn log_tail(log: &Path, from: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(end.saturating_sub(TAIL_BYTES))))?;
        let mut text = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut text)?;
        Ok(text)
    };
    let text = match read() {
        Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) => return format!("  (cannot read {}: {error})", log.display()),
    };
    let lines: Vec<&str> = text.lines().collect();
    if lines.is_empty() {
        return format!("  ({} has nothing of this run)", log.display());
    }
    let skipped = lines.len().saturating_sub(TAIL_LINES);
    let shown: Vec<String> = lines.iter().skip(skipped).map(|line| format!("  | {line}")).collect();
    format!("  the last lines of {}:\n{}", log.display(), shown.join("\n"))
}

/// `exit code 1`, `signal 9`.
pub fn how_it_ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_a_node_of_that_very_directory_is_taken_for_it() {
        let data = Path::new("/d/node-1");
        let line = |words: &[&str]| words.join("\0").into_bytes();
        assert!(is_node_line(&line(&["/bin/god-node", "--data", "/d/node-1", "--seed", "x", ""]), data));
        assert!(is_node_line(&line(&["/bin/sh", "/tmp/god-node.sh", "--data", "/d/node-1"]), data));
        assert!(!is_node_line(&line(&["/bin/god-node", "--data", "/d/node-10"]), data));
        assert!(!is_node_line(&line(&["/bin/vi", "--data", "/d/node-1"]), data));
        assert!(!is_node_line(b"", data));
    }

    #[test]
    fn a_process_that_is_no_node_is_neither_taken_for_one_nor_stopped() {
        assert!(!is_node(std::process::id(), Path::new("/d/node-1")));
        assert!(!is_node(u32::MAX, Path::new("/d/node-1")));
    }

    #[tokio::test]
    async fn a_node_has_ended_once_its_directory_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let address = String::new;
        let (grpc, peer, http) = (address(), address(), address());
        let node = DevNode { id: 1, pid: Some(u32::MAX), grpc, peer, http, resp: None, member: false };
        let data = node.data(dir.path());
        fs::create_dir_all(&data).unwrap();
        assert!(!is_in_use(&data), "there is no lock");
        let lock = File::create(data.join(LOCK)).unwrap();
        lock.lock().unwrap();
        let freed = tokio::task::spawn_blocking(move || {
            std::thread::sleep(Duration::from_millis(200));
            drop(lock);
        });
        assert!(is_in_use(&data));
        assert!(stop(dir.path(), &[node]).await.is_empty());
        assert!(!is_in_use(&data));
        freed.await.unwrap();
    }

    #[test]
    fn a_log_shows_its_last_lines_of_this_run_only() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs::write(&log, "old\nnew\n").unwrap();
        assert!(log_tail(&log, 4).ends_with(":\n  | new"));
        assert!(log_tail(&log, 8).contains("nothing of this run"));
        let many: Vec<String> = (0..100).map(|n| format!("line {n}")).collect();
        fs::write(&log, many.join("\n")).unwrap();
        let tail = log_tail(&log, 0);
        assert!(tail.contains("line 99") && tail.contains("line 85") && !tail.contains("line 84"));
    }
}
