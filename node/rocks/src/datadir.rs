//! The data directory: whose it is, and that nobody else has it open.
//!
//! ```text
//! DIR/LOCK       locked while a node runs; holds its process id
//! DIR/god.json   {"format":1,"node":UUID,"cluster":UUID|null,"number":N|null,"check":CRC}
//! DIR/rocksdb/   the database
//! ```

use god_proto::ids::NodeId;
use god_store::engine::{EngineError, Identity, IdentityStore};
use parking_lot::Mutex;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

/// The layout of data directories that this program makes, and the newest it opens.
pub const FORMAT: u32 = 1;
const IDENTITY: &str = "god.json";
const LOCK: &str = "LOCK";
const DATABASE: &str = "rocksdb";
/// The file without which RocksDB takes a database for a new one.
const CURRENT: &str = "CURRENT";
/// An identity file is some two hundred bytes; a longer one is something else.
const MAX_IDENTITY: u64 = 64 << 10;

/// Why a data directory is not opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another node runs on it.
    #[error(
        "data directory {path} is in use by process {pid}; stop that node, or give this one another directory"
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Who has it.
        pid: String,
    },
    /// A later program made it.
    #[error(
        "data directory {path} has format {format}, this program knows up to {FORMAT}; run a newer god-node"
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its format.
        format: u64,
    },
    /// The identity file is not as it was written.
    #[error(
        "the identity in {path} is damaged: {problem}; restore it from a copy, or remove the whole data directory \
         to start afresh as a new node"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// It is another cluster's.
    #[error(
        "data directory {path} belongs to cluster {is}, this node was told to join {wanted}; remove the directory \
         to start afresh, or name the right cluster"
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        is: Uuid,
        /// Whose it should be.
        wanted: Uuid,
    },
    /// There is something in it that no node put there.
    #[error(
        "directory {path} is not empty and not a node's: it holds {found}; give an empty or a new directory"
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// One of its entries.
        found: String,
    },
    /// The node is a member and has lost what it held. Made anew, its database would answer for what it acknowledged
    /// (invariant NEVER-EMPTY-AGAIN).
    #[error(
        "data directory {path} is that of node {node} of cluster {cluster}, and its database is gone: there is no \
         {DATABASE}/{CURRENT}; put it back as it was, or start a new node on an empty directory and let it replace this \
         one (god ring change --replace OLD:NEW --lost)"
    )]
    DatabaseGone {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        node: Uuid,
        /// Of which cluster.
        cluster: Uuid,
    },
    /// There is a database but nothing that says whose.
    #[error(
        "data directory {path} holds a database, but {IDENTITY} is missing; restore it from a copy, or remove the \
         directory to start afresh as a new node"
    )]
    NoIdentity {
        /// The directory.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {doing} {path}: {error}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// The identity file. `check` is over the other fields, so that a damaged one is told from a foreign one.
#[derive(Serialize, Deserialize)]
struct IdentityFile {
    format: u32,
    node: Uuid,
    cluster: Option<Uuid>,
    number: Option<u32>,
    check: String,
}

impl IdentityFile {
    fn check_of(identity: &Identity) -> String {
        let Identity { node, cluster, number } = identity;
        let number = number.map(|number| number.0);
        format!("{:016x}", xxh3_64(format!("{FORMAT} {node} {cluster:?} {number:?}").as_bytes()))
    }
}

/// How many foreign entries of a directory are named.
const MAX_STRAYS: usize = 8;

/// A data directory, locked for as long as this lives (invariant IDENTITY-ONCE).
pub struct DataDir {
    path: PathBuf,
    strays: Vec<String>,
    identity: Mutex<Identity>,
    /// Closing the file gives the lock back.
    _lock: File,
}

impl DataDir {
    /// Opens a directory, or makes one for a new node whose UUID `draw` gives. With `cluster`, one that belongs to
    /// another cluster is refused.
    pub fn open(
        path: &Path,
        cluster: Option<Uuid>,
        draw: impl FnOnce() -> Uuid,
    ) -> Result<DataDir, DataDirError> {
        let failed = |doing, path: &Path| {
            let path = path.to_owned();
            move |error| DataDirError::Io { doing, path, error }
        };
        fs::create_dir_all(path).map_err(failed("make data directory", path))?;
        let mut is_new = true;
        let mut strays: Vec<String> = Vec::new();
        for entry in fs::read_dir(path).map_err(failed("read data directory", path))? {
            let name = entry.map_err(failed("read data directory", path))?.file_name();
            match name.to_str() {
                Some(IDENTITY | DATABASE) => is_new = false,
                // A lock may be left where a first start was cut short; file systems make their own folder.
                Some(LOCK | "lost+found") => {}
                Some(temporary) if temporary.starts_with(IDENTITY) => {}
                _ if strays.len() < MAX_STRAYS => strays.push(name.to_string_lossy().into_owned()),
                _ => {}
            }
        }
        strays.sort();
        // Where a node is at home already, what somebody else left there is in nobody's way.
        if let Some(found) = strays.first()
            && !path.join(IDENTITY).exists()
        {
            return Err(DataDirError::NotOurs { path: path.to_owned(), found: found.clone() });
        }
        let lock = lock(path)?;
        let file = path.join(IDENTITY);
        let identity = match read_identity(&file)? {
            Some(identity) => identity,
            None if !is_new => return Err(DataDirError::NoIdentity { path: path.to_owned() }),
            None => {
                let identity = Identity { node: draw(), cluster: None, number: None };
                write_identity(path, &identity).map_err(failed("write", &file))?;
                identity
            }
        };
        if let (Some(is), Some(wanted)) = (identity.cluster, cluster)
            && is != wanted
        {
            return Err(DataDirError::Foreign { path: path.to_owned(), is, wanted });
        }
        if let Some(cluster) = identity.cluster
            && !path.join(DATABASE).join(CURRENT).exists()
        {
            return Err(DataDirError::DatabaseGone { path: path.to_owned(), node: identity.node, cluster });
        }
        Ok(DataDir { path: path.to_owned(), strays, identity: Mutex::new(identity), _lock: lock })
    }

    /// Entries of the directory that no node puts there: a few, by name.
    pub fn strays(&self) -> &[String] {
        &self.strays
    }

    /// Where the database is.
    pub fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }
}

impl IdentityStore for DataDir {
    fn load(&self) -> Identity {
        *self.identity.lock()
    }

    fn save(&self, identity: Identity) -> Result<(), EngineError> {
        let mut current = self.identity.lock();
        write_identity(&self.path, &identity).map_err(|error| {
            EngineError::Failed(format!("cannot write {}: {error}", self.path.join(IDENTITY).display()))
        })?;
        *current = identity;
        Ok(())
    }
}

fn lock(directory: &Path) -> Result<File, DataDirError> {
    let path = directory.join(LOCK);
    let failed = |doing| {
        let path = path.clone();
        move |error| DataDirError::Io { doing, path, error }
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed("open lock"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let _ = Read::by_ref(&mut file).take(32).read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "(unknown)".to_owned() } else { pid.trim().to_owned() };
            return Err(DataDirError::Locked { path: directory.to_owned(), pid });
        }
        Err(error) => return Err(failed("lock")(error.into())),
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(failed("write lock"))?;
    Ok(file)
}

fn read_identity(path: &Path) -> Result<Option<Identity>, DataDirError> {
    let damaged = |problem: String| DataDirError::Damaged { path: path.to_owned(), problem };
    let mut text = String::new();
    match File::open(path) {
        Ok(file) => match file.take(MAX_IDENTITY).read_to_string(&mut text) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(damaged("it is not text".to_owned()));
            }
            Err(error) => return Err(DataDirError::Io { doing: "read", path: path.to_owned(), error }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DataDirError::Io { doing: "open", path: path.to_owned(), error }),
    }
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    // Before anything else: a later format may have other fields.
    if let Some(format) = json.get("format").and_then(serde_json::Value::as_u64)
        && format > u64::from(FORMAT)
    {
        let path = path.parent().unwrap_or(path).to_owned();
        return Err(DataDirError::Newer { path, format });
    }
    let written: IdentityFile = serde_json::from_value(json).map_err(|error| damaged(error.to_string()))?;
    let identity =
        Identity { node: written.node, cluster: written.cluster, number: written.number.map(NodeId) };
    if written.check != IdentityFile::check_of(&identity) {
        return Err(damaged("its check does not fit".to_owned()));
    }
    Ok(Some(identity))
}

/// Replaces the identity file as a whole: a crash leaves the old one or the new one.
fn write_identity(directory: &Path, identity: &Identity) -> io::Result<()> {
    let Identity { node, cluster, number } = *identity;
    let written = IdentityFile {
        format: FORMAT,
        node,
        cluster,
        number: number.map(|number| number.0),
        check: IdentityFile::check_of(identity),
    };
    let temporary = directory.join(format!("{IDENTITY}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(serde_json::to_string(&written)?.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&temporary, directory.join(IDENTITY))?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, cluster: Option<u128>) -> Result<DataDir, DataDirError> {
        DataDir::open(path, cluster.map(Uuid::from_u128), || Uuid::from_u128(7))
    }

    fn refusal(path: &Path, cluster: Option<u128>) -> String {
        open(path, cluster).map(|_| ()).expect_err("it should be refused").to_string()
    }

    #[test]
    fn a_node_finds_itself_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/too");
        let first = open(&path, None).unwrap();
        let mut identity = first.load();
        assert_eq!(identity, Identity { node: Uuid::from_u128(7), cluster: None, number: None });
        identity.cluster = Some(Uuid::from_u128(9));
        identity.number = Some(NodeId(3));
        first.save(identity).unwrap();
        drop(first);
        make_database(&path);
        let again = DataDir::open(&path, Some(Uuid::from_u128(9)), || unreachable!()).unwrap();
        assert_eq!(again.load(), identity);
    }

    fn make_database(path: &Path) {
        fs::create_dir_all(path.join(DATABASE)).unwrap();
        fs::write(path.join(DATABASE).join(CURRENT), "MANIFEST-000001\n").unwrap();
    }

    #[test]
    fn a_member_whose_database_is_gone_does_not_begin_anew() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), None).unwrap();
        first.save(Identity { cluster: Some(Uuid::from_u128(9)), ..first.load() }).unwrap();
        drop(first);
        assert!(refusal(dir.path(), None).contains("its database is gone"));
        make_database(dir.path());
        open(dir.path(), None).unwrap();
        fs::remove_file(dir.path().join(DATABASE).join(CURRENT)).unwrap();
        assert!(refusal(dir.path(), None).contains("god ring change --replace"));
    }

    #[test]
    fn what_others_leave_in_a_nodes_directory_does_not_stop_it() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), None).unwrap());
        fs::write(dir.path().join("core.1234"), "…").unwrap();
        assert_eq!(open(dir.path(), None).unwrap().strays(), ["core.1234"]);
        fs::remove_file(dir.path().join(IDENTITY)).unwrap();
        assert!(refusal(dir.path(), None).contains("core.1234"), "without an identity it is somebody else's");
    }

    #[test]
    fn a_directory_in_use_is_refused_by_the_process_that_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let held = open(dir.path(), None).unwrap();
        assert!(refusal(dir.path(), None).contains(&format!("in use by process {}", std::process::id())));
        drop(held);
        open(dir.path(), None).unwrap();
    }

    #[test]
    fn a_foreign_newer_damaged_or_unknown_directory_is_refused_by_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), None).unwrap();
        first.save(Identity { cluster: Some(Uuid::from_u128(9)), ..first.load() }).unwrap();
        drop(first);
        assert!(refusal(dir.path(), Some(8)).contains("remove the directory to start afresh"));

        let file = dir.path().join(IDENTITY);
        let good = fs::read_to_string(&file).unwrap();
        fs::write(&file, good.replace("\"format\":1", "\"format\":2")).unwrap();
        assert!(refusal(dir.path(), None).contains("has format 2, this program knows up to 1"));
        fs::write(&file, good.replace('9', "8")).unwrap();
        assert!(refusal(dir.path(), None).contains("damaged"));
        fs::write(&file, &good[..good.len() / 2]).unwrap();
        assert!(refusal(dir.path(), None).contains("damaged"));
        fs::write(&file, [0xff; 40]).unwrap();
        assert!(refusal(dir.path(), None).contains("not text"));

        fs::remove_file(&file).unwrap();
        fs::create_dir(dir.path().join(DATABASE)).unwrap();
        assert!(refusal(dir.path(), None).contains("god.json is missing"));

        let strangers = tempfile::tempdir().unwrap();
        fs::write(strangers.path().join("thesis.tex"), "…").unwrap();
        assert!(refusal(strangers.path(), None).contains("thesis.tex"));
        assert!(!strangers.path().join(LOCK).exists(), "a refused directory was written to");
    }
}
