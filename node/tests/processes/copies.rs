//! Data directories that were copied, or put back from an old copy.

use crate::{
    client::{committed, found},
    cluster::{Cluster, Process, wait_for},
    doors::http,
};
use god_proto::v1::{Level, StatusReply, get_reply::Outcome};
use std::{fs, path::Path};
use tokio::net::TcpStream;

/// Copies a directory as `cp -r` would, the lock of a running node among it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// A process beside the nodes, on a copy of the directory of one of them.
fn beside(cluster: &Cluster, of: usize, name: &str) -> Process {
    let mut process = Process::new(cluster.path().join(name), cluster.path().join(format!("{name}.log")));
    process.arguments.clone_from(&cluster.nodes[of].arguments);
    copy(&cluster.nodes[of].data, &process.data);
    process
}

async fn is_refused(process: &Process) {
    wait_for("the process to be refused", || async {
        // It may not be open yet.
        TcpStream::connect(&process.http).await.map_err(|error| error.to_string())?;
        let said = http(&process.http, "/readyz").await;
        match said.starts_with("HTTP/1.1 503") && said.contains("is refused, since its data directory") {
            true => Ok(()),
            false => Err(said),
        }
    })
    .await;
    let mut client = process.client();
    let answer = client.get("key", Level::One).await.map(|reply| reply.outcome);
    let Ok(Some(Outcome::Failed(why))) = answer else {
        panic!("it answers for a node that it is not: {answer:?}")
    };
    assert!(why.message.contains("is refused, since"), "{why:?}");
}

fn is_where_it_was(status: &StatusReply, node: &Process) -> bool {
    status.nodes.iter().any(|known| known.peer_address == node.peer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_running_nodes_directory_is_refused_and_the_node_goes_on() {
    let mut cluster = Cluster::start(3, &[]).await;
    let mut first = cluster.nodes[0].client();
    committed(first.put("key", "before").await);
    // Taken while it runs: the copy begins to count where the node does.
    let mut later = beside(&cluster, 1, "later");
    // Taken between two starts: both have the same count.
    assert!(cluster.nodes[1].terminate());
    let mut twin = beside(&cluster, 1, "twin");
    cluster.nodes[1].start();
    cluster.wait_until_up().await;
    for copy in [&mut twin, &mut later] {
        copy.start();
        is_refused(copy).await;
        committed(first.put("key", "meanwhile").await);
        let status = first.status().await.unwrap();
        assert!(is_where_it_was(&status, &cluster.nodes[1]), "the ring was led astray: {status:?}");
        assert!(status.nodes.iter().all(|node| node.state == "up"), "{status:?}");
    }
    // However often it is started, and where the node is gone for a while.
    later.kill();
    cluster.nodes[1].kill();
    later.start();
    is_refused(&later).await;
    drop((twin, later));
    cluster.nodes[1].start();
    cluster.wait_until_up().await;
    cluster.wait_for_hints().await;
    let mut second = cluster.nodes[1].client();
    assert_eq!(found(second.get("key", Level::All).await), Some("meanwhile".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_was_put_back_from_an_old_copy_is_refused() {
    let mut cluster = Cluster::start(3, &[]).await;
    let mut first = cluster.nodes[0].client();
    committed(first.put("key", "old").await);
    assert!(cluster.nodes[2].terminate());
    let old = cluster.path().join("old");
    copy(&cluster.nodes[2].data, &old);
    cluster.nodes[2].start();
    cluster.wait_until_up().await;
    committed(first.put("key", "new").await);
    assert!(cluster.nodes[2].terminate());
    // The others forget nothing of it when they are started anew.
    assert!(cluster.nodes[0].terminate());
    cluster.nodes[0].start();
    assert!(cluster.nodes[1].terminate());
    cluster.nodes[1].start();
    fs::remove_dir_all(&cluster.nodes[2].data).unwrap();
    copy(&old, &cluster.nodes[2].data);
    cluster.nodes[2].start();
    is_refused(&cluster.nodes[2]).await;
    let first = cluster.nodes[0].client();
    wait_for("the two that are left to answer", || {
        let mut first = first.clone();
        async move {
            match first.get("key", Level::Quorum).await?.outcome {
                Some(Outcome::Found(found)) if found.value == "new" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        }
    })
    .await;
}
