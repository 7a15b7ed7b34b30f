//! Count, rank and selection, as clients ask for them.

use super::{
    Coordinator, Shared,
    admit::{find, invalid, need},
    count::{LIST_BELOW, MAX_CUTS, Sum},
    fan::{QuorumError, QuorumScope, strange},
    read::is_unsure,
    refusal::{differ_too_much, gone_each_time, none_could_select, not_initialised, ring_moves, undecodable},
};
use futures::{StreamExt, stream};
use god_proto::{
    ids::KeyspaceId,
    peer::{self, request, response},
    position::{Position, PositionRange},
    record::Record,
    ring::partitioner,
    v1::{
        CountReply, CountRequest, KeyValue, Partitioner, RankReply, RankRequest, Rejected, SelectReply,
        SelectRequest,
    },
    version::Version,
};
use god_rules::quorum::{Need, Use};
use tokio::time::Instant;

/// Arcs that are counted at the same time while one is looked for.
const AT_ONCE: usize = 8;
/// How often a key is looked for that is gone or expired by the time it is read.
const MAX_TRIES: u64 = 16;

/// What a question about order is about.
struct OrderQuery {
    keyspace: KeyspaceId,
    partitioner: Partitioner,
    need: Need,
    deadline: Instant,
}

impl Coordinator {
    /// The number of keys in a range. Keys that have expired count until they are read, listed or
    /// swept.
    pub async fn count(&self, request: CountRequest) -> CountReply {
        match self.0.count(request).await {
            Ok(count) => CountReply { count, failed: None },
            Err(rejected) => CountReply { count: 0, failed: Some(rejected) },
        }
    }

    /// The number of keys before a key, and whether it is there.
    pub async fn rank(&self, request: RankRequest) -> RankReply {
        match self.0.rank(request).await {
            Ok((rank, exists)) => RankReply { rank, exists, failed: None },
            Err(rejected) => RankReply { failed: Some(rejected), ..RankReply::default() },
        }
    }

    /// The key that has a number of keys before it; where that one has expired, the next that has not.
    pub async fn select(&self, request: SelectRequest) -> SelectReply {
        match self.0.select(request).await {
            Ok(entry) => SelectReply { entry, failed: None },
            Err(rejected) => SelectReply { entry: None, failed: Some(rejected) },
        }
    }
}

impl Shared {
    async fn asked(
        &self,
        keyspace: &str,
        consistency: Option<&god_proto::v1::Consistency>,
        timeout_ms: u32,
    ) -> Result<OrderQuery, Rejected> {
        let ring = self.ring.get().ok_or_else(not_initialised)?;
        let keyspace = find(&ring, keyspace)?;
        let need = need(keyspace, consistency, Use::Read)?;
        let deadline = Instant::now() + self.settings.timeout(timeout_ms);
        if !keyspace.live {
            self.confirm(deadline).await?;
        }
        Ok(OrderQuery {
            keyspace: KeyspaceId(keyspace.id),
            partitioner: partitioner(keyspace),
            need,
            deadline,
        })
    }

    async fn count(&self, request: CountRequest) -> Result<u64, Rejected> {
        let asked = self.asked(&request.keyspace, request.consistency.as_ref(), request.timeout_ms).await?;
        let keys = request.range.unwrap_or_default();
        let range = PositionRange::of_keys(asked.keyspace, asked.partitioner, &keys);
        let range = range.map_err(|error| invalid(&error))?;
        if range.is_empty() { Ok(0) } else { self.count_range(range, asked.need, asked.deadline).await }
    }

    async fn rank(&self, request: RankRequest) -> Result<(u64, bool), Rejected> {
        let asked = self.asked(&request.keyspace, request.consistency.as_ref(), request.timeout_ms).await?;
        let position = Position::of_key(asked.keyspace, asked.partitioner, &request.key);
        let position = position.map_err(|error| invalid(&error))?;
        let before = PositionRange { start: Position::keyspace_start(asked.keyspace), end: position.clone() };
        let rank = self.count_range(before, asked.need, asked.deadline).await?;
        let record = self.read_one(&asked, &position).await?;
        Ok((rank, record.is_some_and(|record| record.is_live())))
    }

    async fn select(&self, request: SelectRequest) -> Result<Option<KeyValue>, Rejected> {
        let asked = self.asked(&request.keyspace, request.consistency.as_ref(), request.timeout_ms).await?;
        let mut expired = 0;
        for _ in 0..MAX_TRIES {
            let Some(rank) = request.rank.checked_add(expired) else { return Ok(None) };
            let Some(position) = self.find_ranked(&asked, rank).await? else { return Ok(None) };
            let record = self.read_one(&asked, &position).await?;
            let counts = record
                .as_ref()
                .is_some_and(|record| record.version.is_expiry() && !is_unsure(record, self.clock.sure_ms()));
            // One that expired just now, or was deleted, counts no more: another has its rank now.
            let Some(record) = record.filter(Record::is_live) else {
                expired += u64::from(counts);
                continue;
            };
            let decoded = position.decode(asked.partitioner);
            let (_, key, _) = decoded.map_err(|error| undecodable(&error))?;
            return Ok(Some(KeyValue {
                key,
                value: record.value,
                version: Some(record.version.into()),
                expires_at_ms: record.expires_at_ms.unwrap_or(0),
            }));
        }
        Err(gone_each_time())
    }

    /// What a quorum holds at a position.
    async fn read_one(&self, asked: &OrderQuery, position: &Position) -> Result<Option<Record>, Rejected> {
        for _ in 0..super::batch::MAX_RINGS {
            let ring = self.ring.get().ok_or_else(not_initialised)?;
            let Some(arc) = ring.arc_at(position) else { return Ok(None) };
            let scope = QuorumScope::new(&ring, arc, asked.need, asked.deadline);
            match self.read(&scope, &[], &[(position.clone(), Version::ZERO)]).await {
                Ok((got, _paid)) => return got.into_iter().next().unwrap_or(Ok(None)),
                Err(QuorumError::Moved) => {}
                Err(QuorumError::Failed(rejected)) => return Err(rejected),
            }
        }
        Err(ring_moves())
    }

    /// The live key with so many before it in its keyspace.
    async fn find_ranked(&self, asked: &OrderQuery, rank: u64) -> Result<Option<Position>, Rejected> {
        for _ in 0..super::batch::MAX_RINGS {
            match self.find_under_ring(asked, rank).await {
                Ok(found) => return Ok(found),
                Err(QuorumError::Moved) => {}
                Err(QuorumError::Failed(rejected)) => return Err(rejected),
            }
        }
        Err(ring_moves())
    }

    async fn find_under_ring(&self, asked: &OrderQuery, rank: u64) -> Result<Option<Position>, QuorumError> {
        let ring = self.ring.get().ok_or_else(not_initialised)?;
        let arcs = ring.arcs_in(&PositionRange::of_keyspace(asked.keyspace));
        let counts: Vec<_> = arcs
            .iter()
            .map(|arc| {
                let scope = QuorumScope::new(&ring, arc, asked.need, asked.deadline);
                async move {
                    let count = self.count_arc(&scope, arc.range.clone()).await;
                    count.map(|count| (count, scope, arc.range.clone()))
                }
            })
            .collect();
        let mut counts = stream::iter(counts).buffered(AT_ONCE);
        let mut left = rank;
        while let Some(counted) = counts.next().await {
            let (count, scope, range) = counted?;
            if left < count {
                return self.find_in_arc(&scope, range, left).await;
            }
            left -= count;
        }
        Ok(None)
    }

    /// The live key with `left` others before it in a part of an arc.
    async fn find_in_arc(
        &self,
        scope: &QuorumScope,
        mut range: PositionRange,
        mut left: u64,
    ) -> Result<Option<Position>, QuorumError> {
        for _ in 0..MAX_CUTS {
            let sum = self.compare(scope, std::slice::from_ref(&range)).await?.pop();
            let (member, entries) = match sum {
                Some(Sum::Alike { members, .. }) => {
                    return self.ask_rank(scope, &members, &range, left).await;
                }
                Some(Sum::Differ { member, entries }) => (member, entries),
                None => return Ok(None),
            };
            let cut = if entries > LIST_BELOW { self.cut(scope, &range, member).await? } else { None };
            let Some((low, high)) = cut else {
                let keys = self.list(scope, &range).await?;
                return Ok(usize::try_from(left).ok().and_then(|left| keys.into_iter().nth(left)));
            };
            let below = self.count_arc(scope, low.clone()).await?;
            if left < below {
                range = low;
            } else {
                left -= below;
                range = high;
            }
        }
        Err(differ_too_much().into())
    }

    /// Asks the members, which are alike, one after the other.
    async fn ask_rank(
        &self,
        scope: &QuorumScope,
        members: &[usize],
        range: &PositionRange,
        rank: u64,
    ) -> Result<Option<Position>, QuorumError> {
        let mut last = None;
        for member in members {
            let body = request::Body::Select(peer::SelectIn { range: Some(peer::Range::from(range)), rank });
            let decode = |reply| match reply {
                response::Body::Select(done) => Ok(Position::from_bytes(done.position)),
                _ => Err(strange("is not that to a selection")),
            };
            match self.ask_one(scope, *member, body, decode).await {
                Ok(position) if position.as_bytes().is_empty() => return Ok(None),
                Ok(position) if range.contains(&position) => return Ok(Some(position)),
                Ok(_) => last = Some(strange("is beyond what was asked").to_string()),
                Err(error) => last = Some(error.to_string()),
            }
        }
        if self.ring.epoch() > scope.ring.epoch() {
            return Err(QuorumError::Moved);
        }
        Err(none_could_select(&last.unwrap_or_default()).into())
    }
}
