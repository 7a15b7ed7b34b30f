//! A plain client of one node: each call once, with a deadline, and the answer as it is.

use bytes::Bytes;
use god_proto::{
    MAX_MESSAGE,
    v1::{
        self, Consistency, CountRequest, DeleteRequest, GetReply, GetRequest, InitRequest, KeyRange, Level,
        PutRequest, ScanRequest, StatusReply, StatusRequest, WriteReply, cluster_client::ClusterClient,
        consistency, store_client::StoreClient,
    },
};
use std::time::Duration;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

/// The keyspace that tests use: an ordered one.
pub const KEYSPACE: &str = "test";
/// What a request is told it may take.
pub const TIMEOUT: Duration = Duration::from_secs(2);
/// What it may take before the client gives up on the connection too.
const CUT: Duration = Duration::from_secs(4);

pub fn level(level: Level) -> Option<Consistency> {
    Some(Consistency { level: Some(consistency::Level::Named(level.into())) })
}

#[derive(Clone)]
pub struct Client {
    server: String,
    pub store: StoreClient<Channel>,
    pub cluster: ClusterClient<Channel>,
}

impl Client {
    /// A client that connects when it is first used, and again after its connection breaks.
    pub fn of(server: &str) -> Client {
        let endpoint = Endpoint::from_shared(format!("http://{server}")).unwrap();
        let channel = endpoint.connect_timeout(TIMEOUT).tcp_nodelay(true).connect_lazy();
        let store = StoreClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        Client { server: server.to_owned(), store, cluster: ClusterClient::new(channel) }
    }

    pub fn server(&self) -> &str {
        &self.server
    }

    async fn call<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, String> {
        match timeout(CUT, call).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(format!("{}: {status}", self.server)),
            Err(_) => Err(format!("{}: no answer", self.server)),
        }
    }

    pub async fn init(&mut self, request: InitRequest) -> Result<(), String> {
        let mut cluster = self.cluster.clone();
        match self.call(cluster.init(request)).await?.failed {
            Some(failed) if failed.reason() != v1::Reason::Exists => Err(failed.message),
            _ => Ok(()),
        }
    }

    pub async fn status(&mut self) -> Result<StatusReply, String> {
        let reply = self.call(self.cluster.clone().status(StatusRequest {})).await?;
        match reply.failed {
            Some(failed) => Err(failed.message),
            None => Ok(reply),
        }
    }

    pub async fn put(
        &mut self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<WriteReply, String> {
        let request = PutRequest {
            keyspace: KEYSPACE.to_owned(),
            key: key.into(),
            value: value.into(),
            timeout_ms: TIMEOUT.as_millis() as u32,
            ..PutRequest::default()
        };
        self.call(self.store.clone().put(request)).await
    }

    pub async fn delete(&mut self, key: impl Into<Bytes>) -> Result<WriteReply, String> {
        let request = DeleteRequest {
            keyspace: KEYSPACE.to_owned(),
            key: key.into(),
            timeout_ms: TIMEOUT.as_millis() as u32,
            ..DeleteRequest::default()
        };
        self.call(self.store.clone().delete(request)).await
    }

    pub async fn get(&mut self, key: impl Into<Bytes>, at: Level) -> Result<GetReply, String> {
        let request = GetRequest {
            keyspace: KEYSPACE.to_owned(),
            key: key.into(),
            consistency: level(at),
            timeout_ms: TIMEOUT.as_millis() as u32,
            ..GetRequest::default()
        };
        self.call(self.store.clone().get(request)).await
    }

    /// All keys under a prefix, in order.
    pub async fn keys(&mut self, prefix: &str, at: Level) -> Result<Vec<Bytes>, String> {
        let mut keys = Vec::new();
        let mut continuation = Bytes::new();
        loop {
            let request = ScanRequest {
                keyspace: KEYSPACE.to_owned(),
                range: range(prefix),
                keys_only: true,
                continuation,
                consistency: level(at),
                ..ScanRequest::default()
            };
            let page = self.call(self.store.clone().scan(request)).await?;
            if let Some(failed) = page.failed {
                return Err(failed.message);
            }
            keys.extend(page.entries.into_iter().map(|entry| entry.key));
            continuation = page.continuation;
            if continuation.is_empty() {
                return Ok(keys);
            }
        }
    }

    pub async fn count(&mut self, prefix: &str, at: Level) -> Result<u64, String> {
        let request = CountRequest {
            keyspace: KEYSPACE.to_owned(),
            range: range(prefix),
            consistency: level(at),
            ..CountRequest::default()
        };
        let reply = self.call(self.store.clone().count(request)).await?;
        match reply.failed {
            Some(failed) => Err(failed.message),
            None => Ok(reply.count),
        }
    }
}

fn range(prefix: &str) -> Option<KeyRange> {
    Some(KeyRange { prefix: Some(prefix.to_owned().into()), ..KeyRange::default() })
}

/// That a write was acknowledged.
pub fn committed(reply: Result<WriteReply, String>) -> god_proto::version::Version {
    match reply.map(|reply| reply.outcome) {
        Ok(Some(v1::write_reply::Outcome::Committed(committed))) => committed.version.unwrap().into(),
        other => panic!("the write was not acknowledged: {other:?}"),
    }
}

/// What a read found.
pub fn found(reply: Result<GetReply, String>) -> Option<Bytes> {
    match reply.map(|reply| reply.outcome) {
        Ok(Some(v1::get_reply::Outcome::Found(found))) => Some(found.value),
        Ok(Some(v1::get_reply::Outcome::Missing(_))) => None,
        other => panic!("the read failed: {other:?}"),
    }
}
