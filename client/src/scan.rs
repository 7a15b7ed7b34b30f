//! Keys in order, a page at a time.

use crate::{Entry, Error, Keyspace, Result, node::Node};
use bytes::Bytes;
use futures::{FutureExt, Stream, future::BoxFuture};
use god_proto::{
    DEFAULT_PAGE, MAX_PAGE,
    v1::{ScanReply, ScanRequest},
};
use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

/// A page, and the node that gave it.
type PageReply = (Result<ScanReply>, Option<Arc<Node>>);

/// A scan: a [`Stream`] of entries in order. It holds one page at a time, and asks for the next when that is used up;
/// each page has the keyspace's time limit for itself. Entries that are written meanwhile may be in it or not.
#[must_use = "a scan asks for nothing until it is read"]
pub struct Scan {
    keyspace: Keyspace,
    request: ScanRequest,
    page: u32,
    left: u64,
    ended: bool,
    at: Option<Arc<Node>>,
    entries: VecDeque<Entry>,
    asked: Option<BoxFuture<'static, PageReply>>,
}

impl Scan {
    pub(crate) fn new(keyspace: Keyspace, range: crate::Range) -> Scan {
        let request = ScanRequest {
            keyspace: keyspace.name.to_string(),
            range: Some(range.wire()),
            consistency: keyspace.reads.wire(),
            ..ScanRequest::default()
        };
        Scan {
            keyspace,
            request,
            page: DEFAULT_PAGE,
            left: u64::MAX,
            ended: false,
            at: None,
            entries: VecDeque::new(),
            asked: None,
        }
    }

    /// From the last key down.
    pub fn reverse(mut self) -> Scan {
        self.request.reverse = true;
        self
    }

    /// At most so many entries.
    pub fn limit(mut self, entries: u64) -> Scan {
        self.left = entries;
        self
    }

    /// Without values.
    pub fn keys_only(mut self) -> Scan {
        self.request.keys_only = true;
        self
    }

    /// So many entries a page, 1 to 10,000: with another number the first page is [`Error::Invalid`]. Default: 1,000.
    pub fn page(mut self, entries: u32) -> Scan {
        self.page = entries;
        self
    }

    /// The next page; `None` at the end. A page may be empty.
    pub async fn next_page(&mut self) -> Result<Option<Vec<Entry>>> {
        std::future::poll_fn(|cx| self.poll_page(cx)).await?;
        if self.entries.is_empty() && self.ended {
            return Ok(None);
        }
        Ok(Some(self.entries.drain(..).collect()))
    }

    /// Ready once there are entries, an empty page came, or there are no more.
    fn poll_page(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if !self.entries.is_empty() || self.ended {
            return Poll::Ready(Ok(()));
        }
        if !(1..=MAX_PAGE).contains(&self.page) {
            self.ended = true;
            return Poll::Ready(Err(Error::Invalid(format!("page {} is not 1 to {MAX_PAGE}", self.page))));
        }
        if self.left == 0 {
            self.ended = true;
            return Poll::Ready(Ok(()));
        }
        if self.asked.is_none() {
            self.request.limit = u64::from(self.page).min(self.left) as u32;
            let (keyspace, request, mut at) = (self.keyspace.clone(), self.request.clone(), self.at.take());
            let ask = async move {
                let reply = keyspace.client.inner.ask(&request, keyspace.timeout, &mut at).await;
                (reply, at)
            };
            self.asked = Some(ask.boxed());
        }
        let Some(asked) = &mut self.asked else { return Poll::Pending };
        let (reply, at) = ready!(asked.poll_unpin(cx));
        self.asked = None;
        self.at = at;
        let page = match reply {
            Ok(page) => page,
            Err(error) => {
                self.ended = true;
                return Poll::Ready(Err(error));
            }
        };
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        self.entries.extend(page.entries.into_iter().take(most).map(Entry::from));
        self.left -= self.entries.len() as u64;
        self.request.continuation = page.continuation;
        self.ended = self.request.continuation.is_empty() || self.left == 0;
        Poll::Ready(Ok(()))
    }

    pub(crate) async fn first(mut self) -> Result<Option<Entry>> {
        while let Some(page) = self.next_page().await? {
            if let Some(entry) = page.into_iter().next() {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// Where the scan goes on, should it be taken up by another process; empty at the end and before the first page.
    pub fn continuation(&self) -> &Bytes {
        &self.request.continuation
    }

    /// Goes on from where another scan of the same range and direction was.
    pub fn continue_from(mut self, continuation: impl Into<Bytes>) -> Scan {
        self.request.continuation = continuation.into();
        self
    }
}

impl Stream for Scan {
    type Item = Result<Entry>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Entry>>> {
        let this = &mut *self;
        loop {
            if let Some(entry) = this.entries.pop_front() {
                return Poll::Ready(Some(Ok(entry)));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            if let Err(error) = ready!(this.poll_page(cx)) {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan").field("request", &self.request).finish_non_exhaustive()
    }
}
