//! Data directories that were copied, or put back from an old copy.

use crate::{
    client::{Client, committed, found},
    cluster::{Cluster, Process, wait_for},
    doors::http,
};
use god_proto::v1::{InitRequest, Level, StatusReply, get_reply::Outcome};
use std::{fs, path::Path, time::Duration};
use tokio::{net::TcpStream, time::sleep};

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

/// What a process says of itself, which may not be open yet.
async fn readyz(process: &Process) -> Result<String, String> {
    TcpStream::connect(&process.http).await.map_err(|error| error.to_string())?;
    Ok(http(&process.http, "/readyz").await)
}

async fn until_read(client: &Client, key: &str, value: &str) {
    wait_for("a quorum to answer", || {
        let mut client = client.clone();
        async move {
            match client.get(key.to_owned(), Level::Quorum).await?.outcome {
                Some(Outcome::Found(found)) if found.value == value => Ok(()),
                other => Err(format!("{other:?}")),
            }
        }
    })
    .await;
}

async fn is_refused(process: &Process) {
    wait_for("the process to be refused", || async {
        let said = readyz(process).await?;
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
async fn a_clone_of_a_directory_that_was_in_no_cluster_yet_is_no_second_node() {
    let mut cluster = Cluster::prepare(1, &[]).await;
    cluster.nodes[0].start();
    wait_for("the node to be open", || readyz(&cluster.nodes[0])).await;
    cluster.nodes[0].kill();
    let mut clone = beside(&cluster, 0, "clone");
    clone.arguments.extend(["--seed".to_owned(), cluster.nodes[0].peer.clone()]);
    cluster.found().await;
    clone.start();
    is_refused(&clone).await;
    let mut client = cluster.nodes[0].client();
    committed(client.put("key", "value").await);
    let status = client.status().await.unwrap();
    assert!(status.nodes.len() == 1 && is_where_it_was(&status, &cluster.nodes[0]), "{status:?}");
    // It knows what it is by itself now, whoever is there.
    clone.kill();
    cluster.nodes[0].kill();
    clone.start();
    is_refused(&clone).await;
    let changed = clone.client().init(InitRequest { replicas: 1, ..InitRequest::default() }).await;
    assert!(changed.as_ref().is_err_and(|why| why.contains("is refused, since")), "{changed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_was_put_back_from_a_rolling_backup_runs_once_it_is_told_so() {
    let mut cluster = Cluster::start(3, &[]).await;
    let mut client = cluster.nodes[0].client();
    committed(client.put("before", "value").await);
    let backup = |at: usize| format!("backup-{at}");
    for at in 0..3 {
        assert!(cluster.nodes[at].terminate());
        copy(&cluster.nodes[at].data, &cluster.path().join(backup(at)));
        cluster.nodes[at].start();
        cluster.wait_until_up().await;
    }
    for at in 0..3 {
        cluster.nodes[at].kill();
        fs::remove_dir_all(&cluster.nodes[at].data).unwrap();
        copy(&cluster.path().join(backup(at)), &cluster.nodes[at].data);
    }
    cluster.nodes.iter_mut().for_each(Process::start);
    // Each later backup knows of a start that came after the earlier one.
    is_refused(&cluster.nodes[0]).await;
    for node in &mut cluster.nodes {
        node.terminate();
        node.arguments.push("--restored".to_owned());
        node.start();
    }
    cluster.wait_until_up().await;
    let mut client = cluster.nodes[1].client();
    until_read(&client, "before", "value").await;
    committed(client.put("after", "value").await);
    for node in &mut cluster.nodes {
        assert!(node.terminate());
        node.arguments.retain(|argument| argument != "--restored");
        node.start();
    }
    cluster.wait_until_up().await;
    let mut client = cluster.nodes[2].client();
    until_read(&client, "after", "value").await;
    committed(client.put("after", "another").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_give_one_address_do_not_change_the_ring_without_end() {
    let mut cluster = Cluster::start(3, &[]).await;
    let mut first = cluster.nodes[0].client();
    assert!(cluster.nodes[2].terminate());
    let taken = cluster.nodes[1].peer.clone();
    cluster.nodes[2].arguments.extend(["--advertise-peer".to_owned(), taken]);
    cluster.nodes[2].start();
    wait_for("one of the two to say why", || async {
        let (one, other) = (readyz(&cluster.nodes[1]).await?, readyz(&cluster.nodes[2]).await?);
        match [&one, &other].iter().any(|said| said.contains("an address of its own")) {
            true => Ok(()),
            false => Err(format!("{one}; {other}")),
        }
    })
    .await;
    let before = first.status().await.unwrap().epoch;
    sleep(Duration::from_secs(5)).await;
    let after = first.status().await.unwrap().epoch;
    assert!(after - before < 10, "{} changes in 5 s", after - before);
    committed(first.put("key", "value").await);
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
    until_read(&first, "key", "new").await;
}
