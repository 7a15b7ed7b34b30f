//! A keyspace as an order: what stands where, and how much of it there is.

use crate::{Entry, Keyspace, Range, Rank, Result, Scan};
use bytes::Bytes;
use god_proto::v1::{CountRequest, RankRequest, SelectRequest};

impl Keyspace {
    /// Entries in order, as a [`Stream`](futures::Stream) that asks for one page after the other.
    ///
    /// ```no_run
    /// # async fn f(users: god_client::Keyspace) -> god_client::Result<()> {
    /// use futures::TryStreamExt;
    /// use god_client::Range;
    ///
    /// let mut last_ten = users.scan(Range::prefix("user/")).reverse().limit(10);
    /// while let Some(entry) = last_ten.try_next().await? {
    ///     println!("{:?}", entry.key);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn scan(&self, range: impl Into<Range>) -> Scan {
        Scan::new(self.clone(), range.into())
    }

    /// The number of keys in a range, exact at the read consistency. Its cost does not grow with the number.
    pub async fn count(&self, range: impl Into<Range>) -> Result<u64> {
        let request = CountRequest {
            keyspace: self.name.to_string(),
            range: Some(range.into().wire()),
            consistency: self.reads.wire(),
            timeout_ms: 0,
        };
        let reply = self.client.inner.ask(&request, self.timeout, &mut None).await?;
        Ok(reply.count)
    }

    /// How many keys are before a key, and whether it is there.
    pub async fn rank(&self, key: impl Into<Bytes>) -> Result<Rank> {
        let request = RankRequest {
            keyspace: self.name.to_string(),
            key: key.into(),
            consistency: self.reads.wire(),
            timeout_ms: 0,
        };
        let reply = self.client.inner.ask(&request, self.timeout, &mut None).await?;
        Ok(Rank { rank: reply.rank, exists: reply.exists })
    }

    /// The entry that has so many keys before it; `None`: there are not so many.
    pub async fn select(&self, rank: u64) -> Result<Option<Entry>> {
        let request = SelectRequest {
            keyspace: self.name.to_string(),
            rank,
            consistency: self.reads.wire(),
            timeout_ms: 0,
        };
        let reply = self.client.inner.ask(&request, self.timeout, &mut None).await?;
        Ok(reply.entry.map(Entry::from))
    }

    /// The first entry.
    pub async fn first(&self) -> Result<Option<Entry>> {
        self.scan(..).limit(1).first().await
    }

    /// The last entry.
    pub async fn last(&self) -> Result<Option<Entry>> {
        self.scan(..).reverse().limit(1).first().await
    }

    /// The entry after a key, whether the key is there or not.
    pub async fn next(&self, key: impl Into<Bytes>) -> Result<Option<Entry>> {
        self.scan(Range::all().after(key)).limit(1).first().await
    }

    /// The entry before a key, whether the key is there or not.
    pub async fn previous(&self, key: impl Into<Bytes>) -> Result<Option<Entry>> {
        self.scan(Range::all().before(key)).reverse().limit(1).first().await
    }
}
