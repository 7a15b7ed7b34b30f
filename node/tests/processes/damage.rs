//! Damaged files: what is wrong is said, nothing wrong is served, and the other nodes go on.

use crate::{
    client::{Client, committed, found},
    cluster::Cluster,
};
use god_proto::v1::Level;
use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// The largest file of the database that ends so.
fn largest(data: &Path, suffix: &str) -> PathBuf {
    let files = fs::read_dir(data.join("rocksdb")).unwrap().map(|entry| entry.unwrap().path());
    let candidates = files.filter(|path| path.to_string_lossy().ends_with(suffix));
    candidates.max_by_key(|path| fs::metadata(path).unwrap().len()).expect("such a file")
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
}

async fn write(client: &mut Client, keys: std::ops::Range<u32>, value: &str) {
    for key in keys {
        committed(client.put(format!("k{key:05}"), value.to_owned()).await);
    }
}

async fn reads_at_quorum(client: &mut Client, keys: std::ops::Range<u32>, value: &str) {
    for key in keys {
        let read = found(client.get(format!("k{key:05}"), Level::Quorum).await);
        assert_eq!(read.as_deref(), Some(value.as_bytes()), "key {key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_end_of_the_log_is_cut_off_and_the_node_starts() {
    let mut cluster = Cluster::start(3, &[]).await;
    let mut first = cluster.nodes[0].client();
    write(&mut first, 0..400, "value").await;
    cluster.nodes[2].kill();
    // What a machine's crash leaves of the last writes: half a record.
    let log = largest(&cluster.nodes[2].data, ".log");
    let file = OpenOptions::new().write(true).open(&log).unwrap();
    file.set_len(file.metadata().unwrap().len() - 300).unwrap();
    cluster.nodes[2].start();
    cluster.wait_until_up().await;
    reads_at_quorum(&mut cluster.nodes[2].client(), 0..400, "value").await;
    for key in 0..400 {
        found(first.get(format!("k{key:05}"), Level::All).await);
    }
    assert_eq!(cluster.nodes[2].client().count("k", Level::One).await.unwrap(), 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_damaged_before_its_end_stops_the_start_and_is_named() {
    let mut cluster = Cluster::start(3, &[]).await;
    let mut first = cluster.nodes[0].client();
    write(&mut first, 0..400, &"value".repeat(100)).await;
    cluster.nodes[2].kill();
    let log = largest(&cluster.nodes[2].data, ".log");
    let middle = fs::metadata(&log).unwrap().len() / 2;
    for at in middle..middle + 64 {
        flip(&log, at);
    }
    cluster.nodes[2].start();
    assert!(!cluster.nodes[2].ended().await.success());
    let said = cluster.nodes[2].log();
    let data = cluster.nodes[2].data.display().to_string();
    for words in ["damaged", &data, "replace this node's data directory"] {
        assert!(said.contains(words), "the log does not say {words:?}:\n{said}");
    }
    reads_at_quorum(&mut first, 0..400, &"value".repeat(100)).await;
    write(&mut first, 400..420, "goes on").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_in_a_table_is_never_served() {
    // Values that do not compress, so that they fill tables.
    let value = |key: u32| {
        let mut state = u64::from(key) + 1;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            format!("{state:016x}")
        };
        (0..6_000).map(|_| next()).collect::<String>()
    };
    let mut cluster = Cluster::start(3, &[]).await;
    let mut first = cluster.nodes[0].client();
    for key in 0..300 {
        committed(first.put(format!("k{key:05}"), value(key)).await);
    }
    assert!(cluster.nodes[2].terminate());
    let table = largest(&cluster.nodes[2].data, ".sst");
    let size = fs::metadata(&table).unwrap().len();
    assert!(size > 1 << 20, "the table {} is too small to be the data's", table.display());
    for part in 1..10 {
        flip(&table, size * part / 10);
    }
    cluster.nodes[2].start();
    cluster.wait_until_up().await;
    // For keys that the third node cannot read itself it asks others.
    let mut third = cluster.nodes[2].client();
    for key in 0..300 {
        for at in [Level::One, Level::Quorum] {
            let read = found(third.get(format!("k{key:05}"), at).await);
            assert!(read.is_some_and(|read| read == value(key)), "key {key} at {at:?}");
        }
    }
    let said = cluster.nodes[2].log();
    assert!(
        said.contains("checksum") && said.contains("replace this node's data directory"),
        "its log:\n{said}"
    );
    let ready = crate::doors::http(&cluster.nodes[2].http, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("damaged"), "{ready}");
    write(&mut first, 1_000..1_020, "goes on").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lost_its_database_does_not_come_back_empty() {
    let mut cluster = Cluster::start(3, &[]).await;
    let mut first = cluster.nodes[0].client();
    write(&mut first, 0..20, "value").await;
    assert!(cluster.nodes[2].terminate());
    fs::remove_dir_all(cluster.nodes[2].data.join("rocksdb")).unwrap();
    cluster.nodes[2].start();
    assert!(!cluster.nodes[2].ended().await.success());
    let said = cluster.nodes[2].log();
    assert!(said.contains("its database is gone") && said.contains("--replace"), "its log:\n{said}");
    reads_at_quorum(&mut first, 0..20, "value").await;
}
