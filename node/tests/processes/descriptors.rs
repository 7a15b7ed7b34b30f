//! Descriptors that do not do their part: whoever reads has gone, or a disk is full.

use crate::{
    chance::{closed, full},
    client::committed,
    cluster::{Cluster, wait_for},
};
use god_proto::v1::{InitRequest, PutRequest};
use std::{
    io::{BufRead as _, BufReader, pipe},
    process::{Child, Command, Stdio},
};

#[test]
fn what_is_printed_is_printed_or_said_not_to_be() {
    // What it ends with where the reader has gone, and where the disk is full.
    for (arguments, gone, full_disk) in [
        (&["--print-config"][..], 0, 2),
        (&["--generate", "man"], 0, 2),
        (&["--generate", "fish"], 0, 2),
        (&["--help"], 0, 0),
        (&["--version"], 0, 0),
        (&["--nonsense"], 2, 2),
        (&["--memory", "1KiB"], 2, 2),
        (&["--data", "/dev/null/nowhere"], 1, 1),
    ] {
        let run = |stdout: Stdio, stderr: Stdio| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_god-node"));
            command.env_clear().args(arguments).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
            command.status().unwrap().code()
        };
        assert_eq!(run(closed(), closed()), Some(gone), "{arguments:?}");
        assert_eq!(run(full(), closed()), Some(full_disk), "{arguments:?}");
        assert_eq!(run(full(), full()), Some(full_disk), "{arguments:?}");
    }
}

/// A process that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Nobody reads its log any more: that is no reason to lose a task, nor to end badly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_log_reader_leaves_goes_on() {
    let cluster = Cluster::prepare(1, &["--log", "trace"]).await;
    let (reader, writer) = pipe().unwrap();
    let mut command = cluster.nodes[0].command();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
    let mut child = Killed(command.spawn().unwrap());
    // It holds the other end.
    drop(command);
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line).unwrap();
    assert!(!line.is_empty());
    let first = cluster.nodes[0].client();
    let init = InitRequest { replicas: 1, write_quorum: 1, read_quorum: 1, ..InitRequest::default() };
    wait_for("the cluster to be founded", || {
        let mut first = first.clone();
        async move { first.init(init).await }
    })
    .await;
    for key in 0..100 {
        let put =
            PutRequest { keyspace: "default".to_owned(), key: vec![key].into(), ..PutRequest::default() };
        let written = first.store.clone().put(put).await;
        committed(written.map(tonic::Response::into_inner).map_err(|status| status.to_string()));
    }
    let pid = rustix::process::Pid::from_child(&child.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ended = child.0.wait().unwrap();
    assert!(ended.success(), "{ended}");
}
