//! Data directories that are not this node's to open.

use crate::cluster::{Cluster, Process};
use std::fs;
use tempfile::TempDir;

async fn says(process: &mut Process, words: &[&str]) {
    process.start();
    let status = process.ended().await;
    assert!(!status.success());
    let log = process.log();
    for word in words {
        assert!(log.contains(word), "it does not say {word:?}:\n{log}");
    }
}

fn node(directory: &TempDir) -> Process {
    Process::new(directory.path().join("data"), directory.path().join("log"))
}

#[tokio::test]
async fn a_directory_that_is_in_use_is_refused_by_the_name_of_the_process() {
    let cluster = Cluster::start(1, &[]).await;
    let directory = TempDir::new().unwrap();
    let mut second = node(&directory);
    second.data.clone_from(&cluster.nodes[0].data);
    let data = second.data.display().to_string();
    says(&mut second, &["is in use by process", &data]).await;
}

#[tokio::test]
async fn a_directory_of_another_cluster_is_refused_by_both_names() {
    let mut cluster = Cluster::start(1, &[]).await;
    assert!(cluster.nodes[0].terminate());
    let other = "11111111-1111-4111-8111-111111111111";
    cluster.nodes[0].arguments.extend(["--cluster".to_owned(), other.to_owned()]);
    says(&mut cluster.nodes[0], &["belongs to cluster", other, "remove the directory to start afresh"]).await;
}

#[tokio::test]
async fn a_directory_of_a_newer_version_is_refused() {
    let mut cluster = Cluster::start(1, &[]).await;
    assert!(cluster.nodes[0].terminate());
    let file = cluster.nodes[0].data.join("god.json");
    let newer = fs::read_to_string(&file).unwrap().replace("\"format\":1", "\"format\":7");
    assert!(newer.contains("\"format\":7"), "{newer}");
    fs::write(&file, newer).unwrap();
    says(&mut cluster.nodes[0], &["has format 7", "run a newer god-node"]).await;
}

#[tokio::test]
async fn a_damaged_identity_is_refused() {
    let mut cluster = Cluster::start(1, &[]).await;
    assert!(cluster.nodes[0].terminate());
    let file = cluster.nodes[0].data.join("god.json");
    let whole = fs::read_to_string(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    says(&mut cluster.nodes[0], &["is damaged", "god.json"]).await;
    fs::remove_file(&file).unwrap();
    says(&mut cluster.nodes[0], &["god.json is missing"]).await;
}

#[tokio::test]
async fn a_directory_of_somebody_else_is_refused() {
    let directory = TempDir::new().unwrap();
    let mut process = node(&directory);
    fs::create_dir(&process.data).unwrap();
    fs::write(process.data.join("thesis.tex"), "years of work").unwrap();
    says(&mut process, &["is not empty and not a node's", "thesis.tex"]).await;
    assert_eq!(fs::read_to_string(process.data.join("thesis.tex")).unwrap(), "years of work");
}

#[tokio::test]
async fn a_door_that_is_taken_is_named() {
    let cluster = Cluster::start(1, &[]).await;
    let directory = TempDir::new().unwrap();
    let mut second = node(&directory);
    second.grpc.clone_from(&cluster.nodes[0].grpc);
    let taken = second.grpc.clone();
    says(&mut second, &["cannot listen for clients", &taken]).await;
}
