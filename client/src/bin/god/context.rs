//! The cluster as the commands see it: one call each, and a [`Failure`] that says what happened, to what.

use crate::{
    cli::{Global, Output},
    failure::Failure,
    text::Encoding,
};
use bytes::Bytes;
use god_proto::{
    MAX_MESSAGE,
    v1::{
        self, Committed, CountRequest, CreateKeyspaceRequest, DeleteRequest, Found, GetRequest, InitRequest,
        KeyRange, KeyValue, ListKeyspacesRequest, PutRequest, RankRequest, Rejected, RingDocument,
        RingRequest, ScanReply, ScanRequest, SelectRequest, StatusReply, StatusRequest, WriteReply,
        cluster_client::ClusterClient, get_reply, store_client::StoreClient, write_reply,
    },
};
use std::time::Duration;
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint},
};

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// What a call may take beyond its own time, for the way there and back.
const WAY: Duration = Duration::from_millis(500);
/// What a call may take that names no time.
const CALL: Duration = Duration::from_secs(15);

/// A connection, and the options that every command knows.
pub struct Context {
    global: Global,
    store: StoreClient<Channel>,
    cluster: ClusterClient<Channel>,
    server: String,
}

impl Context {
    /// Connects to the first server that answers.
    pub async fn connect(global: &Global) -> Result<Context, Failure> {
        let mut problems = Vec::new();
        for server in &global.server {
            let endpoint = Endpoint::from_shared(format!("http://{server}"))
                .map_err(|error| Failure::Usage(format!("--server {server}: {error}")))?;
            let call = global.timeout.map_or(CALL, |timeout| timeout + WAY);
            match endpoint.connect_timeout(CONNECT).timeout(call).tcp_nodelay(true).connect().await {
                Ok(channel) => {
                    let store = StoreClient::new(channel.clone())
                        .max_decoding_message_size(MAX_MESSAGE)
                        .max_encoding_message_size(MAX_MESSAGE);
                    let cluster = ClusterClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
                    return Ok(Context { global: global.clone(), store, cluster, server: server.clone() });
                }
                Err(error) => problems.push(format!("{server}: {}", chain(&error))),
            }
        }
        Err(Failure::Unreachable(format!(
            "no server answers: {} (is it running? name others with --server or GOD_SERVER)",
            problems.join("; ")
        )))
    }

    /// How answers are printed.
    pub fn output(&self) -> Output {
        self.global.output
    }

    /// How keys and values are written.
    pub fn encodings(&self) -> (Encoding, Encoding) {
        (self.global.key_format, self.global.value_format)
    }

    /// The keyspace that is read and written.
    pub fn keyspace(&self) -> &str {
        &self.global.keyspace
    }

    fn timeout_ms(&self) -> u32 {
        self.global.timeout.map_or(0, |timeout| u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1))
    }

    /// The cluster as the server sees it.
    pub async fn status(&self) -> Result<StatusReply, Failure> {
        let mut reply = self.read(self.cluster.clone().status(StatusRequest {}).await)?;
        ok(reply.failed.take())?;
        Ok(reply)
    }

    /// The ring as the server knows it.
    pub async fn ring(&self) -> Result<RingDocument, Failure> {
        let reply = self.read(self.cluster.clone().ring(RingRequest {}).await)?;
        ok(reply.failed)?;
        reply.ring.ok_or_else(|| self.misspoke("no ring"))
    }

    /// Founds a cluster; gives its id.
    pub async fn init(&self, request: InitRequest) -> Result<Bytes, Failure> {
        let reply = self.read(self.cluster.clone().init(request).await)?;
        ok(reply.failed)?;
        Ok(reply.cluster)
    }

    /// Makes a keyspace.
    pub async fn create_keyspace(&self, request: CreateKeyspaceRequest) -> Result<v1::Keyspace, Failure> {
        let reply = self.read(self.cluster.clone().create_keyspace(request).await)?;
        ok(reply.failed)?;
        reply.keyspace.ok_or_else(|| self.misspoke("no keyspace"))
    }

    /// All keyspaces.
    pub async fn keyspaces(&self) -> Result<Vec<v1::Keyspace>, Failure> {
        let reply = self.read(self.cluster.clone().list_keyspaces(ListKeyspacesRequest {}).await)?;
        ok(reply.failed)?;
        Ok(reply.keyspaces)
    }

    /// Writes a key.
    pub async fn put(&self, key: Bytes, value: Bytes, ttl: Option<Duration>) -> Result<Committed, Failure> {
        let request = PutRequest {
            keyspace: self.global.keyspace.clone(),
            key,
            value,
            consistency: self.global.consistency,
            ttl_ms: ttl.map_or(0, |ttl| ttl.as_millis() as u64),
            timeout_ms: self.timeout_ms(),
        };
        self.written(self.store.clone().put(request).await)
    }

    /// Deletes a key.
    pub async fn delete(&self, key: Bytes) -> Result<Committed, Failure> {
        let request = DeleteRequest {
            keyspace: self.global.keyspace.clone(),
            key,
            consistency: self.global.consistency,
            timeout_ms: self.timeout_ms(),
        };
        self.written(self.store.clone().delete(request).await)
    }

    /// Reads a key.
    pub async fn get(&self, key: Bytes) -> Result<Option<Found>, Failure> {
        let request = GetRequest {
            keyspace: self.global.keyspace.clone(),
            key,
            consistency: self.global.consistency,
            timeout_ms: self.timeout_ms(),
            at_least: None,
        };
        match self.read(self.store.clone().get(request).await)?.outcome {
            Some(get_reply::Outcome::Found(found)) => Ok(Some(found)),
            Some(get_reply::Outcome::Missing(_)) => Ok(None),
            Some(get_reply::Outcome::Failed(failed)) => Err(Failure::Rejected(failed)),
            None => Err(self.misspoke("no outcome")),
        }
    }

    /// Reads a page of keys.
    pub async fn page(
        &self,
        range: KeyRange,
        reverse: bool,
        limit: u32,
        continuation: Bytes,
        keys_only: bool,
    ) -> Result<ScanReply, Failure> {
        let request = ScanRequest {
            keyspace: self.global.keyspace.clone(),
            range: Some(range),
            reverse,
            limit,
            continuation,
            consistency: self.global.consistency,
            timeout_ms: self.timeout_ms(),
            keys_only,
        };
        let mut reply = self.read(self.store.clone().scan(request).await)?;
        ok(reply.failed.take())?;
        Ok(reply)
    }

    /// Counts the keys of a range.
    pub async fn count(&self, range: KeyRange) -> Result<u64, Failure> {
        let request = CountRequest {
            keyspace: self.global.keyspace.clone(),
            range: Some(range),
            consistency: self.global.consistency,
            timeout_ms: self.timeout_ms(),
        };
        let reply = self.read(self.store.clone().count(request).await)?;
        ok(reply.failed)?;
        Ok(reply.count)
    }

    /// How many keys are before a key, and whether it is there.
    pub async fn rank(&self, key: Bytes) -> Result<(u64, bool), Failure> {
        let request = RankRequest {
            keyspace: self.global.keyspace.clone(),
            key,
            consistency: self.global.consistency,
            timeout_ms: self.timeout_ms(),
        };
        let reply = self.read(self.store.clone().rank(request).await)?;
        ok(reply.failed)?;
        Ok((reply.rank, reply.exists))
    }

    /// The key that has so many keys before it.
    pub async fn select(&self, rank: u64) -> Result<Option<KeyValue>, Failure> {
        let request = SelectRequest {
            keyspace: self.global.keyspace.clone(),
            rank,
            consistency: self.global.consistency,
            timeout_ms: self.timeout_ms(),
        };
        let reply = self.read(self.store.clone().select(request).await)?;
        ok(reply.failed)?;
        Ok(reply.entry)
    }

    /// A call that writes no key: without an answer nothing is lost.
    fn read<T>(&self, answer: Result<Response<T>, Status>) -> Result<T, Failure> {
        answer.map(Response::into_inner).map_err(|status| {
            self.refused(&status).unwrap_or_else(|| {
                Failure::Unreachable(format!("{} does not answer: {}", self.server, status.message()))
            })
        })
    }

    /// A write: without an answer nobody knows.
    fn written(&self, answer: Result<Response<WriteReply>, Status>) -> Result<Committed, Failure> {
        let reply = answer.map(Response::into_inner).map_err(|status| {
            self.refused(&status).unwrap_or_else(|| {
                Failure::Unknown(format!(
                    "outcome unknown: {} did not answer; the write may surface later: {}",
                    self.server,
                    status.message()
                ))
            })
        })?;
        match reply.outcome {
            Some(write_reply::Outcome::Committed(committed)) => Ok(committed),
            Some(write_reply::Outcome::Rejected(rejected)) => Err(Failure::Rejected(rejected)),
            Some(write_reply::Outcome::Unknown(unknown)) => Err(Failure::Unknown(format!(
                "outcome unknown: on {} replicas for sure; the write may surface later: {}",
                unknown.acks, unknown.message
            ))),
            None => Err(self.misspoke("no outcome")),
        }
    }

    /// A status by which the server says that it did nothing.
    fn refused(&self, status: &Status) -> Option<Failure> {
        let refused = matches!(
            status.code(),
            Code::InvalidArgument
                | Code::Unimplemented
                | Code::ResourceExhausted
                | Code::OutOfRange
                | Code::PermissionDenied
                | Code::Unauthenticated
        );
        refused.then(|| Failure::Refused(format!("{} refused the call: {}", self.server, status.message())))
    }

    fn misspoke(&self, what: &str) -> Failure {
        Failure::Refused(format!(
            "the answer of {} has {what}; are its version and this one's the same?",
            self.server
        ))
    }
}

fn ok(failed: Option<Rejected>) -> Result<(), Failure> {
    failed.map_or(Ok(()), |rejected| Err(Failure::Rejected(rejected)))
}

/// An error with its causes: the outermost alone says `transport error`.
fn chain(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
