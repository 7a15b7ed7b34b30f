//! What processes use, as Linux counts it.

use crate::{dev::DevState, failure::Failure};
use std::{fs, path::Path, time::Duration};

/// A process.
#[derive(Clone, Debug)]
pub struct Process {
    pid: String,
}

/// The nodes of a `god dev` directory.
#[derive(Clone, Debug, Default)]
pub struct MeasuredNodes {
    pub servers: Vec<String>,
    pub processes: Vec<Process>,
}

impl MeasuredNodes {
    /// Reads which nodes run on a directory.
    pub fn of(dir: &Path) -> Result<MeasuredNodes, Failure> {
        let usage = |what: &str| {
            Failure::Usage(format!("{what} on {}; start some with: god dev --data {0}", dir.display()))
        };
        let state = DevState::read(dir)?.ok_or_else(|| usage("no nodes were ever started"))?;
        let mut nodes = MeasuredNodes::default();
        for node in &state.nodes {
            let Some(pid) = node.pid else { return Err(usage("not all nodes run")) };
            let process = Process { pid: pid.to_string() };
            if process.cpu().is_none() {
                return Err(usage("not all nodes run"));
            }
            nodes.servers.push(node.grpc.clone());
            nodes.processes.push(process);
        }
        Ok(nodes)
    }

    /// Processor time of all of them together; none, where it cannot be read.
    pub fn cpu(&self) -> Option<Duration> {
        if self.processes.is_empty() {
            return None;
        }
        self.processes.iter().map(Process::cpu).sum()
    }

    /// When the nodes count a write as stored: what they were started with.
    pub fn durability(&self) -> String {
        self.processes.first().and_then(Process::durability).unwrap_or_else(|| "not known".to_owned())
    }
}

impl Process {
    /// This one.
    pub fn this() -> Process {
        Process { pid: "self".to_owned() }
    }

    /// Processor time so far, in user and kernel mode, of all its threads.
    pub fn cpu(&self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        ticks(&stat).map(|ticks| Duration::from_secs(ticks) / rustix::param::clock_ticks_per_second() as u32)
    }

    /// Bytes of memory that are its own or mapped by it, in core.
    pub fn memory(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
    }

    fn durability(&self) -> Option<String> {
        let read = |what: &str| {
            let bytes = fs::read(format!("/proc/{}/{what}", self.pid)).ok()?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        let line = read("cmdline")?;
        let mut words = line.split('\0');
        while let Some(word) = words.next() {
            if word == "--durability" {
                return words.next().map(str::to_owned);
            }
            if let Some(value) = word.strip_prefix("--durability=") {
                return Some(value.to_owned());
            }
        }
        let variables = read("environ")?;
        let set = variables.split('\0').find_map(|pair| pair.strip_prefix("GOD_DURABILITY="));
        let set = set.filter(|value| !value.is_empty());
        Some(set.unwrap_or(DEFAULT_DURABILITY).to_owned())
    }
}

/// Of a god-node that is told nothing.
const DEFAULT_DURABILITY: &str = "interval";

/// `utime` and `stime` together. The program's name, in brackets, may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_ascii_whitespace().skip(11);
    let (user, system) = (fields.next()?, fields.next()?);
    Some(user.parse::<u64>().ok()? + system.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn processor_time_is_found_whatever_the_program_is_called() {
        let stat = "17 (a) R (b) S 1 1 1 0 -1 4194304 98 0 0 0 250 50 0 0 20 0 1 0 2677476 3133440 358 1 9 4";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("17 (a"), None);
    }

    #[test]
    fn a_process_sees_its_own_memory_and_time() {
        assert!(Process::this().memory().unwrap() > 0);
        assert!(Process::this().cpu().is_some());
        assert!(Process { pid: "none".to_owned() }.cpu().is_none());
    }
}
