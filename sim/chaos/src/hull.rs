//! What a run happens in: namespaces of network, mounts and processes of its own. All that is made here (links, file
//! systems, processes) is seen by nobody outside, and ends with the run however that ends.

use crate::plan::{Fault, Node};
use anyhow::Context as _;
use std::{
    env, fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

/// Says that this process is within the hull.
const WITHIN: &str = "GOD_CHAOS_WITHIN";
/// What a link has at the other end of which nobody is.
const NOBODY: &str = "02:00:00:00:ff:ff";
/// Where everything is kept that ends with the run.
const PLACE: &str = "/run/god-chaos";
/// The disk of a node, in `tmpfs`' words: a file system in memory.
const DISK: &str = "256m";

/// Goes into the hull: the same program again, within namespaces of its own. Returns there.
///
/// # Errors
/// Where the system does not let it.
pub fn enter() -> anyhow::Result<()> {
    if env::var_os(WITHIN).is_some() {
        return Ok(());
    }
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    command.arg(env::current_exe().context("cannot tell which program this is")?);
    let error = command.args(env::args_os().skip(1)).env(WITHIN, "yes").exec();
    Err(error).context("cannot run unshare (Debian's util-linux)")
}

/// The address of a node, without port.
pub fn address(node: Node) -> String {
    format!("10.77.0.{}", 11 + node)
}

fn hardware(node: Node) -> String {
    format!("02:00:00:00:00:{:02x}", 11 + node)
}

/// The name of a node's network namespace, and of its link's near end.
pub fn name(node: Node) -> String {
    format!("node{}", node + 1)
}

/// Where a node's disk is.
pub fn disk(node: Node) -> PathBuf {
    Path::new(PLACE).join(name(node))
}

/// The file that says how far a node's clock is off.
pub fn clock(node: Node) -> PathBuf {
    Path::new(PLACE).join(format!("{}.clock", name(node)))
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let said = || format!("{program} {}", arguments.join(" "));
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("cannot run {}", said()))?;
    let problem = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{}: {}", said(), problem.trim());
    Ok(())
}

fn ip(words: &str) -> anyhow::Result<()> {
    run("ip", &words.split_whitespace().collect::<Vec<_>>())
}

/// Makes disks and links for so many nodes. This process reaches all of them over a bridge.
///
/// # Errors
/// Where the system does not let it.
pub fn prepare(nodes: usize) -> anyhow::Result<()> {
    anyhow::ensure!(env::var_os(WITHIN).is_some(), "it is not within the hull");
    run("mount", &["-t", "tmpfs", "tmpfs", "/run"])?;
    // libfaketime keeps semaphores there, and a process that is killed leaves them.
    run("mount", &["-t", "tmpfs", "tmpfs", "/dev/shm"])?;
    ip("link set lo up")?;
    ip("link add god0 type bridge")?;
    ip("addr add 10.77.0.1/24 dev god0")?;
    ip("link set god0 up")?;
    for node in 0..nodes {
        let (name, address, hardware) = (name(node), address(node), hardware(node));
        let folder = disk(node);
        fs::create_dir_all(&folder)?;
        let size = format!("size={DISK}");
        run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &folder.to_string_lossy()])?;
        set_clock(node, 0)?;
        ip(&format!("netns add {name}"))?;
        ip(&format!("link add {name} type veth peer name eth0 address {hardware} netns {name}"))?;
        ip(&format!("link set {name} master god0 up"))?;
        ip(&format!("-n {name} addr add {address}/24 dev eth0"))?;
        ip(&format!("-n {name} link set lo up"))?;
        ip(&format!("-n {name} link set eth0 up"))?;
    }
    for from in 0..nodes {
        for to in (0..nodes).filter(|to| *to != from) {
            pass(from, to, true)?;
        }
    }
    Ok(())
}

/// Begins or ends a fault of disks, clocks or links.
///
/// # Errors
/// Where the system does not let it, or the fault is another one.
pub fn set(fault: Fault, begins: bool) -> anyhow::Result<()> {
    match fault {
        Fault::Disk(node) => fill(node, begins),
        Fault::Clock(node, ms) => set_clock(node, if begins { ms } else { 0 }),
        Fault::Cut(node) => link(node, !begins),
        Fault::Part(one, other) => pass(one, other, !begins).and_then(|()| pass(other, one, !begins)),
        Fault::OneWay(from, to) => pass(from, to, !begins),
        _ => anyhow::bail!("the hull knows nothing of it: {fault}"),
    }
}

/// Whether what a node sends another one arrives. Where it does not, it is lost without a word: it goes to a hardware
/// address that nobody has.
///
/// # Errors
/// Where `ip` fails.
fn pass(from: Node, to: Node, arrives: bool) -> anyhow::Result<()> {
    let hardware = if arrives { hardware(to) } else { NOBODY.to_owned() };
    ip(&format!("-n {} neigh replace {} lladdr {hardware} nud permanent dev eth0", name(from), address(to)))
}

/// Whether a node's link is up.
///
/// # Errors
/// Where `ip` fails.
fn link(node: Node, up: bool) -> anyhow::Result<()> {
    ip(&format!("link set {} {}", name(node), if up { "up" } else { "down" }))
}

/// Steps a node's wall clock, so many milliseconds ahead of the machine's. The node sees it within a second.
///
/// # Errors
/// Where the file cannot be written.
fn set_clock(node: Node, ahead_ms: i64) -> anyhow::Result<()> {
    let path = clock(node);
    let next = path.with_extension("next");
    // Put in place as a whole: it is read at any time.
    fs::write(&next, format!("{:+}\n", ahead_ms as f64 / 1e3))?;
    fs::rename(&next, &path)?;
    Ok(())
}

/// Fills a node's disk up to its last byte, or makes room again.
///
/// # Errors
/// Where that is not how it comes.
fn fill(node: Node, full: bool) -> anyhow::Result<()> {
    use std::io::Write as _;
    let ballast = disk(node).join("ballast");
    if !full {
        return fs::remove_file(&ballast).context("cannot make room again");
    }
    let mut file = fs::File::create(&ballast)?;
    let block = [7; 4 << 10];
    loop {
        match file.write_all(&block) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(error).context("cannot fill the disk"),
        }
    }
}
