//! A way to a service from outside: `kubectl port-forward`, begun anew whenever its pod goes.

use anyhow::Context as _;
use std::{process::Stdio, time::Duration};
use tokio::{net::TcpListener, process::Command, task::JoinHandle};

/// Between the end of one and the next.
const PAUSE: Duration = Duration::from_millis(200);

/// A port on this machine that leads to a service, until it is dropped.
pub struct Forward {
    /// Where it listens.
    pub address: String,
    task: JoinHandle<()>,
}

impl Forward {
    /// Opens a way to the gRPC door of a service.
    ///
    /// # Errors
    /// Where no port is free.
    pub async fn open(namespace: &str, service: &str) -> anyhow::Result<Forward> {
        // A port that was free a moment ago, so that it stays the same whoever is behind it.
        let free = TcpListener::bind("127.0.0.1:0").await.context("no port is free")?;
        let port = free.local_addr()?.port();
        drop(free);
        let (namespace, service) = (namespace.to_owned(), format!("service/{service}"));
        let task = tokio::spawn(async move {
            loop {
                let ports = format!("{port}:7000");
                let ran = Command::new("kubectl")
                    .args([
                        "--namespace",
                        &namespace,
                        "port-forward",
                        "--address=127.0.0.1",
                        &service,
                        &ports,
                    ])
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .kill_on_drop(true)
                    .status();
                // Whoever waits for an answer says what came of it.
                let _ = ran.await;
                tokio::time::sleep(PAUSE).await;
            }
        });
        Ok(Forward { address: format!("127.0.0.1:{port}"), task })
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}
