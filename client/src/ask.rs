//! The way of a call that is not about one key: scans, counts and ranks. None of them writes, so that each may be sent
//! again.

use crate::{Error, Result, client::Inner, node::Node, retry, settings::check_timeout, transport};
use god_proto::v1::{
    CountReply, CountRequest, RankReply, RankRequest, Reason, Rejected, ScanReply, ScanRequest, SelectReply,
    SelectRequest, store_client::StoreClient,
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Request, Response, Status, transport::Channel};

/// Of what two nodes said, what tells more: a refusal is the cluster's answer, and that another node cannot be reached
/// does not make it unreachable.
fn telling(before: Option<Error>, now: Error) -> Error {
    match before {
        Some(refused @ Error::Refused { .. }) if matches!(now, Error::Unreachable(_)) => refused,
        _ => now,
    }
}

/// A request and how it is sent.
pub(crate) trait Ask: Clone + Send {
    type Reply: Send;

    fn send(
        self,
        to: StoreClient<Channel>,
        left: Duration,
    ) -> impl Future<Output = Result<Response<Self::Reply>, Status>> + Send;

    fn keyspace(&self) -> &str;

    fn failed(reply: &mut Self::Reply) -> Option<Rejected>;
}

macro_rules! ask {
    ($($request:ident $reply:ident $method:ident),*) => {
        $(impl Ask for $request {
            type Reply = $reply;

            async fn send(
                self,
                mut to: StoreClient<Channel>,
                left: Duration,
            ) -> Result<Response<$reply>, Status> {
                let mut request = Request::new(self);
                // The node leaves a part of it for the answer's way back.
                request.set_timeout(left);
                to.$method(request).await
            }

            fn keyspace(&self) -> &str {
                &self.keyspace
            }

            fn failed(reply: &mut $reply) -> Option<Rejected> {
                reply.failed.take()
            }
        })*
    };
}

ask!(
    ScanRequest ScanReply scan,
    CountRequest CountReply count,
    RankRequest RankReply rank,
    SelectRequest SelectReply select
);

impl Inner {
    /// Asks one node after the other, until one answers. `at` is the node that is asked first, if it does well, and
    /// afterwards the one that answered.
    pub async fn ask<A: Ask>(
        &self,
        request: &A,
        timeout: Duration,
        at: &mut Option<Arc<Node>>,
    ) -> Result<A::Reply> {
        check_timeout("with_timeout", timeout)?;
        let deadline = Instant::now() + timeout;
        self.budget.call();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut tried: Vec<Arc<Node>> = Vec::new();
        let mut attempts = 0;
        let mut last = None;
        loop {
            let node = at.take().or_else(|| self.routes.load().in_turn(turn, &tried).cloned());
            let Some(node) = node else {
                return Err(
                    last.unwrap_or_else(|| Error::Unreachable("there is no server to ask".to_owned()))
                );
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let asked = timeout_at(deadline, request.clone().send(node.store(), left)).await;
            let (error, wait) = match asked {
                Err(_) => {
                    let late = format!("{} did not answer within {timeout:?}", node.address());
                    return Err(telling(last, Error::Unreachable(late)));
                }
                Ok(Ok(reply)) => {
                    let mut reply = reply.into_inner();
                    let Some(rejected) = A::failed(&mut reply) else {
                        *at = Some(node);
                        return Ok(reply);
                    };
                    let error = Error::from(rejected);
                    if !self.elsewhere(request.keyspace(), &error, deadline).await {
                        return Err(error);
                    }
                    (error, true)
                }
                Ok(Err(status)) => match transport::failed(node.address(), &status) {
                    transport::Failed::Refused(error) => return Err(error),
                    transport::Failed::NotSent(why) | transport::Failed::Open(why) => {
                        (Error::Unreachable(why), false)
                    }
                },
            };
            let error = telling(last.take(), error);
            attempts += 1;
            tried.push(node);
            if attempts > self.settings.retries || !self.budget.take() {
                return Err(error);
            }
            if wait {
                let asked = if let Error::Refused { retry_after, .. } = &error { *retry_after } else { None };
                let wait = retry::wait(attempts, asked);
                if Instant::now() + wait >= deadline {
                    return Err(error);
                }
                sleep(wait).await;
            }
            if error.reason() == Some(Reason::Busy) && self.routes.load().in_turn(turn, &tried).is_none() {
                tried.clear();
            }
            last = Some(error);
        }
    }

    /// Whether another node may answer what one refused, as far as that is known by the deadline.
    pub async fn elsewhere(&self, keyspace: &str, refused: &Error, deadline: Instant) -> bool {
        match refused.reason() {
            Some(Reason::NoSuchKeyspace) => {
                // A node that has just not heard of it, or this client?
                if self.routes.load().keyspace(keyspace).is_none() {
                    let _in_time = timeout_at(deadline, self.refresh()).await;
                }
                self.routes.load().keyspace(keyspace).is_some()
            }
            Some(
                Reason::Busy
                | Reason::Unavailable
                | Reason::Clock
                | Reason::Stale
                | Reason::Storage
                | Reason::NotInitialised,
            ) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_an_answer_even_where_another_node_gives_none() {
        let refused = |message: &str| Error::Refused {
            reason: Reason::Unavailable,
            message: message.to_owned(),
            retry_after: None,
        };
        let gone = || Error::Unreachable("nobody is there".to_owned());
        assert_eq!(telling(None, gone()), gone());
        assert_eq!(telling(Some(refused("2 of 3")), gone()), refused("2 of 3"));
        assert_eq!(telling(Some(gone()), refused("2 of 3")), refused("2 of 3"));
        assert_eq!(telling(Some(refused("older")), refused("newer")), refused("newer"));
    }
}
