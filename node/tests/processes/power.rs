//! A machine that loses power: what its kernel had not written to the disk is gone.
//!
//! The node's directory lies in an ext4 of its own, which is kept in a file. While the process is frozen that file is
//! copied: it has what was synced, and nothing of what only the kernel's memory holds. The process is killed then, and
//! started on the copy by another name of the machine's run. The file system is mounted where that process alone sees
//! it: it ends with it, and its loop device does, too.

use crate::{
    client::{Client, committed, found},
    cluster::{Cluster, Disk, wait_for},
    quorums::quorums,
};
use god_proto::{
    ids::KeyspaceId,
    position::Position,
    record::Record,
    v1::{GetReply, Level, Partitioner, get_reply::Outcome},
    version::Version,
};
use god_rocks::{RocksEngine, RocksSettings};
use god_store::engine::{Reader as _, Table};
use std::{
    env,
    fs::{self, File},
    path::Path,
    process::Command,
};

/// The size of the file system; next to nothing of it is taken.
const DISK: u64 = 256 << 20;
/// How often a deletion is tried to lose: other things are synced, too, and take with them what was written before.
const ATTEMPTS: u32 = 8;
/// Reads of what those who answer cannot know.
const READS: usize = 20;

/// Runs a program; says why that came to nothing.
fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let path = "/usr/sbin:/usr/bin:/sbin:/bin";
    let output = Command::new(program).args(arguments).env("PATH", path).output();
    let output = output.map_err(|error| format!("cannot run {program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{program}: {}", said.trim())) }
}

/// Runs a line of shell where the file system of an image is mounted at `place`, and nobody else sees it.
fn run_within(image: &Path, place: &Path, line: &str) -> Result<(), String> {
    fs::create_dir_all(place).unwrap();
    let script = format!("mount -o loop {} {} && {line}", image.display(), place.display());
    run("unshare", &["--mount", "sh", "-c", &script])
}

/// Makes a file system in a file. Where this machine does not let it be mounted, says why.
fn make_disk(image: &Path) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root may mount a file system that is in a file".to_owned());
    }
    File::create(image).unwrap().set_len(DISK).unwrap();
    // No thread of the kernel's is to write to it on its own, later.
    run("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0", &image.to_string_lossy()])?;
    run_within(image, &image.with_extension("tried"), "true")
}

/// Where it cannot be tried, CI must know.
fn cannot(why: &str) {
    assert!(env::var("CI").as_deref() != Ok("true"), "no power was cut: {why}");
    eprintln!("no power was cut: {why}");
}

/// Copies what has been written to a file, with its holes.
fn copy(from: &Path, to: &Path) {
    run("cp", &["--sparse=always", &from.to_string_lossy(), &to.to_string_lossy()]).unwrap();
}

/// What a start on an image would find of a key: the file system's journal is replayed for that, and RocksDB's log. The
/// image itself stays as it is.
fn stored(image: &Path, position: &Position) -> Option<Record> {
    let (same, database) = (image.with_extension("same"), image.with_extension("database"));
    copy(image, &same);
    let _ = fs::remove_dir_all(&database);
    let place = image.with_extension("seen");
    let line = format!("cp -r {}/node-1/rocksdb {}", place.display(), database.display());
    run_within(&same, &place, &line).unwrap();
    let settings = RocksSettings { memory: 16 << 20, disk_reserve: 0 };
    let engine = RocksEngine::open(&database, &settings).unwrap();
    let found = engine.get(Table::Data, position.as_bytes()).unwrap();
    found.map(|found| Record::decode(&found).unwrap())
}

/// A and B acknowledge a deletion that C, which is down, does not hear of, and that is not on the disk of A, of which
/// `copy_to` is a copy then: both hold the value still. Gives the key, and the deletion's version. A is frozen.
async fn lose_a_deletion(cluster: &mut Cluster, disk: &Path, copy_to: &Path) -> (String, Version) {
    let mut b = cluster.nodes[1].client();
    let (keyspace, _) = quorums(&b).await;
    for attempt in 0..ATTEMPTS {
        let key = format!("k{attempt}");
        committed(b.put(key.clone(), "deleted").await);
        wait_for("all three to hold the value", || {
            let (mut b, key) = (b.clone(), key.clone());
            async move {
                match b.get(key, Level::All).await?.outcome {
                    Some(Outcome::Found(_)) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            }
        })
        .await;
        // As at the end of an interval.
        rustix::fs::syncfs(File::open(cluster.nodes[0].data_inside()).unwrap()).unwrap();
        // One that is frozen would find it in its sockets.
        cluster.nodes[2].kill();
        let deletion = committed(b.delete(key.clone()).await);
        cluster.nodes[0].freeze();
        copy(disk, copy_to);
        let position = Position::of_key(KeyspaceId(keyspace), Partitioner::Ordered, key.as_bytes()).unwrap();
        let lies_there = stored(copy_to, &position).expect("what was synced is on the disk");
        if lies_there.is_live() {
            assert_eq!(lies_there.value, "deleted");
            return (key, deletion);
        }
        cluster.nodes[0].thaw();
        cluster.nodes[2].start();
        cluster.wait_until_up().await;
    }
    panic!("{ATTEMPTS} deletions were each on the disk at once: no power cut takes them");
}

/// Why a read told nothing. What was deleted it must not tell.
fn nothing_told(read: Result<GetReply, String>) -> String {
    match read.map(|read| read.outcome) {
        Ok(Some(Outcome::Found(found))) => panic!("a deleted value came back: {found:?}"),
        Ok(Some(Outcome::Failed(failed))) => failed.message,
        Ok(other) => format!("{other:?}"),
        Err(why) => why,
    }
}

/// What a node says of nodes whose machines stopped.
async fn stopped(client: &Client) -> Result<Vec<String>, String> {
    let mut warnings = client.clone().status().await?.warnings;
    warnings.retain(|warning| warning.contains("its machine stopped without a clean end"));
    Ok(warnings)
}

/// LAPSED-IS-NO-VOTE
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_one_machine_lost_with_its_power_and_one_never_heard_of_holds() {
    let interval = ["--durability", "interval", "--sync-interval", "60s", "--ping-interval", "200ms"];
    let mut cluster = Cluster::prepare(3, &interval).await;
    let (disk, left) = (cluster.path().join("disk.ext4"), cluster.path().join("left.ext4"));
    if let Err(why) = make_disk(&disk) {
        return cannot(&why);
    }
    let folder = cluster.path().join("disk");
    fs::create_dir(&folder).unwrap();
    cluster.nodes[0].data = folder.join("node-1");
    cluster.nodes[0].disk = Some(Disk::Image(disk.clone()));
    cluster.found().await;
    let (key, deletion) = lose_a_deletion(&mut cluster, &disk, &left).await;

    let boot_id = cluster.path().join("boot_id");
    fs::write(&boot_id, "0dd0b007-0000-4000-8000-000000000002\n").unwrap();
    cluster.nodes[0].kill();
    cluster.nodes[1].kill();
    cluster.nodes[0].disk = Some(Disk::Image(left));
    cluster.nodes[0].boot_id = Some(boot_id);
    cluster.nodes[0].start();
    cluster.nodes[2].start();
    let clients: Vec<Client> = cluster.nodes.iter().map(|node| node.client()).collect();
    let quorum_of = |at: usize| {
        let mut client = clients[at].clone();
        let key = key.clone();
        async move { client.get(key, Level::Quorum).await }
    };
    for at in [0, 2] {
        wait_for("A and C to say that they cannot know", || async {
            let why = nothing_told(quorum_of(at).await);
            if why.contains("the machine of node") { Ok(()) } else { Err(why) }
        })
        .await;
    }
    for turn in 0..READS {
        nothing_told(quorum_of(turn % 2 * 2).await);
    }
    // It is there to come back.
    let one = clients[2].clone().get(key.clone(), Level::One).await;
    assert_eq!(found(one), Some("deleted".into()), "C has heard of the deletion: nothing was tried");
    let said = stopped(&clients[0]).await.unwrap();
    assert!(matches!(&said[..], [one] if one.contains("counts for writes and not for reads")), "{said:?}");
    committed(clients[2].clone().put("meanwhile", "taken").await);

    // What A lost comes back from B, and A takes part again.
    cluster.nodes[1].start();
    cluster.wait_until_up().await;
    wait_for("A to have compared what it may have lost", || async {
        let said = stopped(&clients[0]).await?;
        if said.is_empty() { Ok(()) } else { Err(said.join("; ")) }
    })
    .await;
    cluster.nodes[1].kill();
    for at in [0, 2] {
        let Some(Outcome::Missing(missing)) = quorum_of(at).await.unwrap().outcome else {
            panic!("A and C do not know that it was deleted");
        };
        assert_eq!(missing.version.map(Version::from), Some(deletion));
        let meanwhile = clients[at].clone().get("meanwhile", Level::Quorum).await;
        assert_eq!(found(meanwhile), Some("taken".into()));
    }
}
