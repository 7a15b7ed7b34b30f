//! What a client is told before it connects, and connecting.

use crate::{Client, Error, Result};
use god_proto::MAX_TIMEOUT;
use std::time::Duration;

/// What can be set; [`Client::builder`] makes one.
#[derive(Clone, Debug)]
pub struct Builder {
    servers: Vec<String>,
    settings: ClientSettings,
}

/// The settings as the rooms use them.
#[derive(Clone, Debug)]
pub(crate) struct ClientSettings {
    pub timeout: Duration,
    pub connect_timeout: Duration,
    pub connections: usize,
    pub in_flight: u32,
    pub retries: u32,
    pub retry_ratio: f64,
    pub retry_burst: u32,
    pub stall: Duration,
    pub nearest: Option<String>,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            servers: Vec::new(),
            settings: ClientSettings {
                timeout: Duration::from_secs(5),
                connect_timeout: Duration::from_secs(2),
                connections: 1,
                in_flight: 1_024,
                retries: 4,
                retry_ratio: 0.1,
                retry_burst: 64,
                stall: Duration::from_millis(500),
                nearest: None,
            },
        }
    }
}

impl Builder {
    /// Nodes to begin with, as `host:port` of their gRPC doors. Any of them; the others are found by themselves, and
    /// these stay as what to fall back to.
    #[must_use]
    pub fn servers<S: Into<String>>(mut self, servers: impl IntoIterator<Item = S>) -> Builder {
        self.servers = servers.into_iter().map(Into::into).collect();
        self
    }

    /// How long a call may take in all, tries and waits together; [`MAX_TIMEOUT`](crate::MAX_TIMEOUT), 30 s, at most.
    /// Default: 5 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Builder {
        self.settings.timeout = timeout;
        self
    }

    /// How long to wait for a connection. Default: 2 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Builder {
        self.settings.connect_timeout = timeout;
        self
    }

    /// Connections to each node, 1 to 16. More of them carry more values of many kilobytes; small calls are cheaper
    /// on few, where more of them share a frame. Default: 1.
    #[must_use]
    pub fn connections_per_node(mut self, connections: usize) -> Builder {
        self.settings.connections = connections;
        self
    }

    /// Calls in flight at once over all connections, 1 to 65,536; one of many kilobytes counts as one for each 16 KiB.
    /// Beyond that calls wait for their turn. Default: 1,024.
    #[must_use]
    pub fn in_flight(mut self, calls: u32) -> Builder {
        self.settings.in_flight = calls;
        self
    }

    /// How often one call is sent again at most; one about a key goes to 16 nodes at most. Default: 4.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Builder {
        self.settings.retries = retries;
        self
    }

    /// Tries again that all calls may cause together: a share of all calls, from 0 to 1 in steps of a thousandth, and a
    /// number at once. Keeps a cluster in trouble from being sent many times its load. Default: 0.1 and 64.
    #[must_use]
    pub fn retry_budget(mut self, share: f64, at_once: u32) -> Builder {
        self.settings.retry_ratio = share;
        self.settings.retry_burst = at_once;
        self
    }

    /// A connection that has been silent for so long while answers are due counts as stalled: other nodes are asked
    /// first, and reads that wait on it are sent to them. Default: 500 ms.
    #[must_use]
    pub fn stall_after(mut self, stall: Duration) -> Builder {
        self.settings.stall = stall;
        self
    }

    /// The node to ask first for the keys that it holds, as the ring has its address: one on the same machine, or in
    /// the same zone. Default: each client draws a ranking of the nodes, so that many of them use all nodes alike.
    #[must_use]
    pub fn nearest(mut self, server: impl Into<String>) -> Builder {
        self.settings.nearest = Some(server.into());
        self
    }

    /// Connects: asks the servers one after the other, until one answers, for the ring.
    ///
    /// # Errors
    /// [`Error::Invalid`] names an invalid setting; [`Error::Unreachable`] names what is wrong with each
    /// server.
    pub async fn connect(self) -> Result<Client> {
        let Builder { servers, settings } = self;
        let wrong = |text: String| Err(Error::Invalid(text));
        if servers.is_empty() {
            return wrong("no server is named; a client needs at least one host:port".to_owned());
        }
        if !(1..=16).contains(&settings.connections) {
            return wrong(format!("connections_per_node {} is not 1 to 16", settings.connections));
        }
        if !(1..=65_536).contains(&settings.in_flight) {
            return wrong(format!("in_flight {} is not 1 to 65536", settings.in_flight));
        }
        if !(0.0..=1.0).contains(&settings.retry_ratio) {
            return wrong(format!("the share of retries {} is not 0 to 1", settings.retry_ratio));
        }
        for (what, time) in [
            ("timeout", settings.timeout),
            ("connect_timeout", settings.connect_timeout),
            ("stall_after", settings.stall),
        ] {
            if time.is_zero() {
                return wrong(format!("{what} is 0"));
            }
        }
        check_timeout("timeout", settings.timeout)?;
        Client::connect(servers, settings).await
    }
}

/// No node gives a call longer: one that asked for more would end sooner than it says, by no fault of anybody.
pub(crate) fn check_timeout(what: &str, timeout: Duration) -> Result<()> {
    if timeout > MAX_TIMEOUT {
        return Err(Error::Invalid(format!("{what} {timeout:?} is above the most, {MAX_TIMEOUT:?}")));
    }
    Ok(())
}
