//! Clients that list and count whole keyspaces.

use crate::{
    client::{Clients, SET, SLACK, consistency, place},
    world::Running,
};
use bytes::Bytes;
use god_core::doors::Service;
use god_history::Survey;
use god_proto::v1::{Consistency, CountRequest, ScanRequest};
use std::time::Duration;
use tokio::time::timeout;

/// Keys a page: few, so that listings have several.
const PAGE: u32 = 50;

impl Clients {
    /// What a call comes to, if its node lives so long; notes a call that takes longer than it may.
    async fn in_time<T>(
        &self,
        running: &Running,
        limit: Duration,
        what: &str,
        call: impl Future<Output = T>,
    ) -> Result<T, String> {
        tokio::select! {
            biased;
            () = running.ended() => Err("the node went away".to_owned()),
            answer = timeout(limit + SLACK, call) => answer.map_err(|_| {
                self.hung.lock().push(format!("{what} had {limit:?} and did not end"));
                format!("{what} did not end")
            }),
        }
    }

    /// All keys of a key's keyspace, in the order of the listing.
    pub async fn list(
        &self,
        running: &Running,
        of: u32,
        level: Consistency,
        limit: Duration,
        reverse: bool,
    ) -> Result<Vec<u32>, String> {
        let (keyspace, _) = place(of);
        let mut keys = Vec::new();
        let mut continuation = Bytes::new();
        loop {
            let request = ScanRequest {
                keyspace: keyspace.clone(),
                limit: PAGE,
                keys_only: true,
                reverse,
                continuation,
                consistency: Some(level),
                timeout_ms: limit.as_millis() as u32,
                ..ScanRequest::default()
            };
            let page = self.in_time(running, limit, "a listing", running.client.scan(request)).await?;
            if let Some(failed) = page.failed {
                return Err(failed.message);
            }
            let number = |key: &Bytes| std::str::from_utf8(key).ok()?.parse::<u32>().ok();
            keys.extend(page.entries.iter().filter_map(|entry| number(&entry.key)));
            continuation = page.continuation;
            if continuation.is_empty() {
                return Ok(keys);
            }
        }
    }

    /// The number of keys of a key's keyspace.
    pub async fn count(
        &self,
        running: &Running,
        of: u32,
        level: Consistency,
        limit: Duration,
    ) -> Result<u64, String> {
        let request = CountRequest {
            keyspace: place(of).0,
            consistency: Some(level),
            timeout_ms: limit.as_millis() as u32,
            ..CountRequest::default()
        };
        let counted = self.in_time(running, limit, "a count", running.client.count(request)).await?;
        counted.failed.map_or(Ok(counted.count), |failed| Err(failed.message))
    }

    /// Lists or counts the set while it changes, as evidence.
    pub async fn survey(&self, client: u32, node: usize, limit: Duration, kind: u64) {
        let Some(running) = self.world.running(node) else { return };
        let (level, called) = (consistency(self.level), self.world.now_us());
        let keys = match kind {
            0 => self.count(&running, SET, level, limit).await.map(Err),
            1 => self.list(&running, SET, level, limit, false).await.map(Ok),
            _ => self.list(&running, SET, level, limit, true).await.map(|mut keys| {
                keys.reverse();
                Ok(keys)
            }),
        };
        if let Ok(keys) = keys {
            let answered = self.world.now_us();
            self.surveys.lock().push(Survey { client, called, answered, keys });
        }
    }
}
