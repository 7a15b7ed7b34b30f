//! A disk without room.

use crate::{
    client::{committed, found},
    cluster::{Cluster, Disk, wait_for},
};
use god_proto::v1::Level;
use std::{fs, io::Write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_said_and_the_others_go_on() {
    let mut cluster = Cluster::prepare(3, &["--disk-reserve", "8MiB"]).await;
    let disk = cluster.path().join("disk");
    fs::create_dir(&disk).unwrap();
    cluster.nodes[2].data = disk.join("node-3");
    cluster.nodes[2].disk = Some(Disk::Memory("96m"));
    cluster.found().await;
    let mut first = cluster.nodes[0].client();
    let value = "value".repeat(200);
    for key in 0..200 {
        committed(first.put(format!("k{key:05}"), value.clone()).await);
    }

    // Somebody else fills the disk, up to its last byte.
    let ballast = cluster.nodes[2].data_inside().with_file_name("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    while file.write_all(&[7; 4 << 10]).is_ok() {}
    let peer = cluster.nodes[2].peer.clone();
    wait_for("the node to say that its disk is full", || {
        let (mut first, peer) = (first.clone(), peer.clone());
        async move {
            let status = first.status().await?;
            let node = status.nodes.iter().find(|node| node.peer_address == peer).ok_or("no such node")?;
            let says = node
                .reasons
                .iter()
                .any(|reason| reason.contains("disk is full") && reason.contains("make room"));
            if says && node.state == "unready" {
                Ok(())
            } else {
                Err(format!("{} {:?}", node.state, node.reasons))
            }
        }
    })
    .await;
    for key in 200..400 {
        committed(first.put(format!("k{key:05}"), value.clone()).await);
    }
    // It still reads what it has, and coordinates for others.
    let mut third = cluster.nodes[2].client();
    for key in 0..400 {
        assert_eq!(
            found(third.get(format!("k{key:05}"), Level::Quorum).await),
            Some(value.clone().into()),
            "key {key}"
        );
    }

    // Room again: it takes writes again, and what it missed.
    fs::remove_file(&ballast).unwrap();
    drop(file);
    cluster.wait_until_up().await;
    cluster.wait_for_hints().await;
    for key in 0..400 {
        assert_eq!(
            found(first.get(format!("k{key:05}"), Level::All).await),
            Some(value.clone().into()),
            "key {key}"
        );
    }
    assert_eq!(third.count("k", Level::One).await.unwrap(), 400);
}
