//! `dev.json`: what a directory of nodes remembers between two starts.

use crate::failure::Failure;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    net::TcpListener,
    path::{Path, PathBuf},
};

const FORMAT: u32 = 1;
const FILE: &str = "dev.json";

/// Everything that is remembered.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct DevState {
    pub format: u32,
    /// Set once the cluster is founded.
    pub cluster: Option<String>,
    pub nodes: Vec<DevNode>,
    pub loaded: Vec<Loaded>,
}

/// A node of the directory.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct DevNode {
    pub id: u32,
    /// While it runs.
    pub pid: Option<u32>,
    pub grpc: String,
    pub peer: String,
    pub http: String,
    /// The RESP door, which nodes of this version do not have.
    pub resp: Option<String>,
    /// Whether the cluster has taken it in.
    pub member: bool,
}

/// A file that was loaded to its end.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Loaded {
    pub file: PathBuf,
    pub keyspace: String,
    pub keys: u64,
}

impl DevState {
    /// Reads what a directory remembers; nothing, where it is new.
    pub fn read(dir: &Path) -> Result<Option<DevState>, Failure> {
        let path = dir.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::Usage(format!("cannot read {}: {error}", path.display()))),
        };
        let wrong = |problem: String| {
            Failure::Usage(format!(
                "cannot use {}: {problem} (remove the directory to start afresh)",
                path.display()
            ))
        };
        let state: DevState = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        if state.format != FORMAT {
            return Err(wrong(format!("its format is {}, this program knows {FORMAT}", state.format)));
        }
        Ok(Some(state))
    }

    /// Nothing to remember yet.
    pub fn new() -> DevState {
        DevState { format: FORMAT, cluster: None, nodes: Vec::new(), loaded: Vec::new() }
    }

    /// Writes it all or nothing.
    pub fn save(&self, dir: &Path) -> Result<(), Failure> {
        let path = dir.join(FILE);
        let fresh = dir.join(format!("{FILE}.new"));
        let write = || {
            fs::write(&fresh, serde_json::to_vec_pretty(self)?)?;
            fs::rename(&fresh, &path)
        };
        write().map_err(|error| Failure::Usage(format!("cannot write {}: {error}", path.display())))
    }

    /// Gives each of `count` nodes its three addresses: those it had, unless someone else has taken one since.
    /// `first_port`: what to try for a node that has none yet; else any free ports.
    pub fn assign_ports(&mut self, count: u32, first_port: Option<u16>) -> Result<(), Failure> {
        // Held until all are chosen, so that no two are the same.
        let mut held = Vec::new();
        let mut nodes = std::mem::take(&mut self.nodes);
        nodes.resize_with(count as usize, DevNode::default);
        for (at, node) in nodes.iter_mut().enumerate() {
            node.id = at as u32 + 1;
            for (door, address) in [&mut node.grpc, &mut node.peer, &mut node.http].into_iter().enumerate() {
                let wish = if address.is_empty() {
                    let base = first_port.and_then(|port| port.checked_add(100 * door as u16));
                    base.and_then(|base| base.checked_add(at as u16)).map(|port| format!("127.0.0.1:{port}"))
                } else {
                    Some(address.clone())
                };
                let listener = wish.and_then(|wish| TcpListener::bind(wish).ok());
                let listener = match listener {
                    Some(listener) => listener,
                    None => TcpListener::bind("127.0.0.1:0").map_err(|error| no_port(&error))?,
                };
                *address = listener.local_addr().map_err(|error| no_port(&error))?.to_string();
                held.push(listener);
            }
        }
        self.nodes = nodes;
        Ok(())
    }
}

fn no_port(error: &io::Error) -> Failure {
    Failure::Usage(format!("cannot find a free port on 127.0.0.1: {error}"))
}

impl DevNode {
    /// Whether all its ports are free.
    pub fn ports_are_free(&self) -> bool {
        [&self.grpc, &self.peer, &self.http].into_iter().all(|address| TcpListener::bind(address).is_ok())
    }

    /// Its data directory.
    pub fn data(&self, dir: &Path) -> PathBuf {
        dir.join(format!("node-{}", self.id))
    }

    /// Its log.
    pub fn log(&self, dir: &Path) -> PathBuf {
        dir.join(format!("node-{}.log", self.id))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ports_stay_the_same_until_someone_takes_one() {
        let mut state = DevState::new();
        state.assign_ports(3, None).unwrap();
        let all: BTreeSet<_> =
            state.nodes.iter().flat_map(|node| [&node.grpc, &node.peer, &node.http]).cloned().collect();
        assert_eq!(all.len(), 9);

        let before = state.nodes.clone();
        let taken = TcpListener::bind(&state.nodes[1].peer).unwrap();
        assert!(!state.nodes[1].ports_are_free());
        state.assign_ports(3, None).unwrap();
        assert_ne!(state.nodes[1].peer, before[1].peer);
        assert_eq!(state.nodes[0], before[0]);
        assert_eq!(state.nodes[1].grpc, before[1].grpc);
        drop(taken);
    }

    #[test]
    fn what_is_saved_is_read_back_and_anything_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(DevState::read(dir.path()).unwrap(), None);
        let mut state = DevState::new();
        state.assign_ports(2, None).unwrap();
        state.loaded.push(Loaded { file: "a.tsv".into(), keyspace: "a".into(), keys: 7 });
        state.save(dir.path()).unwrap();
        assert_eq!(DevState::read(dir.path()).unwrap(), Some(state));

        fs::write(dir.path().join(FILE), r#"{"format":2,"cluster":null,"nodes":[],"loaded":[]}"#).unwrap();
        let refusal = DevState::read(dir.path()).unwrap_err().to_string();
        assert!(refusal.contains("format is 2") && refusal.contains("start afresh"), "{refusal}");
    }
}
