//! The `god` command against real nodes: what it says when some of them are gone.

use crate::{
    client::{KEYSPACE, committed},
    cluster::{Cluster, wait_for},
    doors::http,
};
use serde_json::Value;
use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

/// The command's program: compiled beside the node's, with the workspace.
pub fn god(cluster: &Cluster, arguments: &[&str]) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_god-node")).with_file_name("god");
    assert!(program.is_file(), "{} is not there: cargo build --release --bins", program.display());
    let servers: Vec<&str> = cluster.nodes.iter().map(|node| node.grpc.as_str()).collect();
    Command::new(program)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("GOD_SERVER", servers.join(","))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// What `god doctor` ends with, and the checks that found something worse than a note, with where.
fn doctor(cluster: &Cluster) -> (Option<i32>, Vec<(String, String)>) {
    let ended = god(cluster, &["doctor", "-o", "json"]);
    let said: Value = serde_json::from_slice(&ended.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&ended.stderr)));
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
    let findings = said["findings"].as_array().unwrap().iter();
    // How much room and how many open files this machine has is no matter of the test.
    let findings =
        findings.filter(|it| it["severity"] != "note" && it["check"] != "disk" && it["check"] != "files");
    (ended.status.code(), findings.map(|it| (text(it, "check"), text(it, "where"))).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_finds_what_is_down_and_what_that_means() {
    let mut cluster = Cluster::start(3, &[]).await;
    let (code, found) = doctor(&cluster);
    assert_eq!(found, [], "nothing is wrong");
    assert_ne!(code, Some(5));
    cluster.nodes[2].kill();
    let mut first = cluster.nodes[0].client();
    committed(first.put("colour", "blue").await);
    wait_for("the doctor to find the node that is down", || async {
        let (code, found) = doctor(&cluster);
        let has = |check: &str, place: &str| found.iter().any(|it| it.0 == check && it.1.contains(place));
        let all = has("reach", &cluster.nodes[2].grpc)
            && has("voters", "the ring")
            && has("quorums", "keyspace")
            && has("hints", "node ");
        // All can be read and written: nothing is worse than a warning.
        if all && code == Some(6) { Ok(()) } else { Err(format!("{code:?}: {found:?}")) }
    })
    .await;
    // What is read of all replicas is refused, not unreachable: the cluster answers.
    let export = god(&cluster, &["export", "-k", KEYSPACE, "--consistency", "all"]);
    let said = String::from_utf8_lossy(&export.stderr);
    assert_eq!(export.status.code(), Some(3), "{said}");
    assert!(export.stdout.is_empty() && said.contains("refused"), "{said}");

    cluster.nodes[1].kill();
    wait_for("the doctor to find that nothing can be written", || async {
        let ended = god(&cluster, &["doctor"]);
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        let all = said.contains("1 of 3 voters are up") && said.contains("god recover --lost ");
        let lost = said.contains("too few replicas are up to write to");
        if all && lost && ended.status.code() == Some(7) {
            assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
            return Ok(());
        }
        Err(format!("{:?}: {said}", ended.status.code()))
    })
    .await;
    for arguments in [&["ring", "change", "--rebalance"][..], &["ring", "cancel", "nothing"]] {
        let change = god(&cluster, arguments);
        let said = String::from_utf8_lossy(&change.stderr);
        assert!(matches!(change.status.code(), Some(3 | 4)), "{arguments:?}: {said}");
        if arguments.contains(&"change") {
            assert!(said.contains("voters are up") && said.contains("god recover --lost "), "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_left_says_so_and_nothing_of_founding_a_cluster() {
    let mut cluster = Cluster::start(4, &[]).await;
    let gone = cluster.place_of(4).await;
    let left = god(&cluster, &["ring", "change", "--leave", "4", "--wait"]);
    assert_eq!(left.status.code(), Some(0), "{}", String::from_utf8_lossy(&left.stderr));
    for again in [false, true] {
        if again {
            assert!(cluster.nodes[gone].terminate());
            cluster.nodes[gone].start();
        }
        let door = &cluster.nodes[gone].http;
        wait_for("the node to say that it left", || async {
            // It listens a little later than it starts.
            let Ok(_) = tokio::net::TcpStream::connect(door).await else {
                return Err("no answer".to_owned());
            };
            let said = http(door, "/readyz").await;
            let reasons: Vec<&str> = said.lines().filter(|line| line.starts_with("- ")).collect();
            match reasons[..] {
                [only] if only.contains("has left its cluster for good") => Ok(()),
                _ => Err(said),
            }
        })
        .await;
        let asked = god(&cluster, &["get", "k", "--server", &cluster.nodes[gone].grpc]);
        let said = String::from_utf8_lossy(&asked.stderr);
        assert!(!said.contains("god init"), "{said}");
    }
}
