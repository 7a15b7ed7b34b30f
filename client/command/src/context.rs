//! The cluster as the commands see it: the client, and the options that every command knows.

use crate::{
    failure::Failure,
    options::{Global, Output},
    text::Encoding,
};
use god_client::{Client, Error, Keyspace};
use std::{ops::Deref, time::Duration};

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// What a call may take that names no time. A put, delete or get tells the node what is left of it.
const CALL: Duration = Duration::from_secs(15);
/// Calls in flight; commands that make many have a lower bound of their own.
const IN_FLIGHT: u32 = 4_096;

/// A client, and how to use it. It stands for the keyspace that the command reads and writes.
pub struct Context {
    global: Global,
    client: Client,
    keyspace: Keyspace,
}

impl Context {
    /// Connects to the first server that answers.
    pub async fn connect(global: &Global) -> Result<Context, Failure> {
        let timeout = global.timeout.unwrap_or(CALL);
        let connected = Client::builder()
            .servers(global.servers())
            .timeout(timeout)
            .connect_timeout(CONNECT.min(timeout))
            .in_flight(IN_FLIGHT)
            .connect()
            .await;
        let client = connected.map_err(|error| match error {
            Error::Unreachable(why) => Failure::Unreachable(format!(
                "{why} (is it running? name others with --server or GOD_SERVER)"
            )),
            Error::Invalid(why) => Failure::Usage(format!("--server: {why}")),
            error => error.into(),
        })?;
        let consistency = global.consistency.unwrap_or_default();
        let keyspace = client.keyspace(&*global.keyspace).with_reads(consistency).with_writes(consistency);
        Ok(Context { global: global.clone(), client, keyspace })
    }

    /// For what is not about one keyspace.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The name of the keyspace.
    pub fn name(&self) -> &str {
        &self.global.keyspace
    }

    /// How answers are printed.
    pub fn output(&self) -> Output {
        self.global.output
    }

    /// How keys and values are written.
    pub fn encodings(&self) -> (Encoding, Encoding) {
        (self.global.key_format, self.global.value_format)
    }
}

impl Deref for Context {
    type Target = Keyspace;

    fn deref(&self) -> &Keyspace {
        &self.keyspace
    }
}
