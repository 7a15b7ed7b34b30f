//! Clients that ask one node after the other, and record what they were told.

use crate::{
    history::{Ask, Event, Token, Told},
    world::{Running, World},
};
use bytes::Bytes;
use god_node::{doors::Service, seam::Entropy};
use god_proto::{
    v1::{
        Answer, Call, Consistency, CountRequest, DeleteRequest, GetRequest, Level, PutRequest, ScanRequest,
        answer, call, consistency, get_reply, write_reply,
    },
    version::Version,
};
use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

/// Keys below are registers: few, and fought over. From here on each key is put at most once and deleted at most once.
pub const SET: u32 = 1_000;
const REGISTERS: u64 = 6;
/// The ordered keyspace in which the set is.
pub const ORDERED: &str = "ordered";
/// What a call may take beyond its time: an answer's way through a storm.
const SLACK: Duration = Duration::from_millis(400);

/// What all clients of a run share.
pub struct Shared {
    pub world: Arc<World>,
    pub history: Mutex<Vec<Event>>,
    /// Calls that did not end in time.
    pub hung: Mutex<Vec<String>>,
    pub tokens: AtomicU64,
    /// How many replicas clients ask to answer.
    pub level: Level,
}

fn consistency(level: Level) -> Consistency {
    Consistency { level: Some(consistency::Level::Named(level.into())) }
}

/// Where a key is, and how it is called.
fn place(key: u32) -> (String, Bytes) {
    match key {
        0..SET => ("default".to_owned(), format!("register/{key}").into()),
        _ => (ORDERED.to_owned(), format!("{key:08}").into()),
    }
}

impl Shared {
    /// Works until `until`.
    pub async fn work(self: Arc<Self>, client: u32, entropy: Entropy, until: Instant) {
        let mut own: Vec<u32> = Vec::new();
        let mut next = SET + client * 100_000;
        while Instant::now() < until {
            let token: Token = self.tokens.fetch_add(1, Relaxed);
            let (key, ask) = match entropy.below(10) {
                0..3 => (entropy.below(REGISTERS) as u32, Ask::Put(token)),
                3 => (entropy.below(REGISTERS) as u32, Ask::Delete(token)),
                4..7 => (entropy.below(REGISTERS) as u32, Ask::Get),
                7 if own.len() > 5 => {
                    let at = entropy.below(own.len() as u64) as usize;
                    (own.swap_remove(at), Ask::Delete(token))
                }
                _ => {
                    next += 1;
                    own.push(next);
                    (next, Ask::Put(token))
                }
            };
            let node = entropy.below(self.world.len() as u64) as usize;
            let limit = Duration::from_millis([150, 500, 2_000][entropy.below(3) as usize]);
            self.perform(client, node, key, ask, limit).await;
            sleep(Duration::from_micros(entropy.below(20_000))).await;
        }
    }

    /// One operation, into the history.
    pub async fn perform(&self, client: u32, node: usize, key: u32, ask: Ask, limit: Duration) -> Told {
        let called = self.world.now_us();
        let told = match self.world.running(node) {
            None => Told::Rejected,
            Some(running) => self.ask(&running, key, ask, limit).await,
        };
        let event = Event { client, key, ask, called, answered: self.world.now_us(), told };
        self.history.lock().push(event);
        told
    }

    async fn ask(&self, running: &Running, key: u32, ask: Ask, limit: Duration) -> Told {
        let ((keyspace, key), level) = (place(key), Some(consistency(self.level)));
        let timeout_ms = limit.as_millis() as u32;
        let call = match ask {
            Ask::Put(token) => call::Call::Put(PutRequest {
                keyspace,
                key,
                value: token.to_string().into(),
                consistency: level,
                timeout_ms,
                ..PutRequest::default()
            }),
            Ask::Delete(_) => {
                call::Call::Delete(DeleteRequest { keyspace, key, consistency: level, timeout_ms })
            }
            Ask::Get => call::Call::Get(GetRequest {
                keyspace,
                key,
                consistency: level,
                timeout_ms,
                ..GetRequest::default()
            }),
        };
        let what = format!("{call:?}");
        // A crash takes the connection with it: whether the call was carried out is not known.
        let answered = tokio::select! {
            biased;
            () = running.ended() => None,
            answers = timeout(limit + SLACK, running.client.batch(vec![Call { call: Some(call) }])) => match answers {
                Ok(answers) => answers.into_iter().next(),
                Err(_) => {
                    self.hung.lock().push(format!("{what} had {limit:?} and did not end"));
                    None
                }
            },
        };
        match answered {
            None if ask == Ask::Get => Told::Rejected,
            None => Told::Unknown,
            Some(answer) => told(answer),
        }
    }

    /// All keys of the set by one node, at a level; and their number, as it counts them.
    pub async fn list(&self, node: usize, level: Level) -> Result<(Vec<u32>, u64), String> {
        let Some(running) = self.world.running(node) else { return Err("it does not run".to_owned()) };
        let mut keys = Vec::new();
        let mut continuation = Bytes::new();
        loop {
            let request = ScanRequest {
                keyspace: ORDERED.to_owned(),
                limit: 200,
                keys_only: true,
                continuation,
                consistency: Some(consistency(level)),
                timeout_ms: 5_000,
                ..ScanRequest::default()
            };
            let page = running.client.scan(request).await;
            if let Some(failed) = page.failed {
                return Err(failed.message);
            }
            let number = |key: &Bytes| std::str::from_utf8(key).ok()?.parse::<u32>().ok();
            keys.extend(page.entries.iter().filter_map(|entry| number(&entry.key)));
            continuation = page.continuation;
            if continuation.is_empty() {
                break;
            }
        }
        let request = CountRequest {
            keyspace: ORDERED.to_owned(),
            consistency: Some(consistency(level)),
            timeout_ms: 5_000,
            ..CountRequest::default()
        };
        let counted = running.client.count(request).await;
        match counted.failed {
            Some(failed) => Err(failed.message),
            None => Ok((keys, counted.count)),
        }
    }

    /// All keys that were ever asked about.
    pub fn keys(&self) -> BTreeSet<u32> {
        self.history.lock().iter().map(|event| event.key).collect()
    }
}

fn told(answer: Answer) -> Told {
    let version = |version: Option<god_proto::v1::Version>| version.map(Version::from);
    match answer.answer {
        Some(answer::Answer::Write(write)) => match write.outcome {
            Some(write_reply::Outcome::Committed(done)) => {
                version(done.version).map_or(Told::Unknown, Told::Committed)
            }
            Some(write_reply::Outcome::Rejected(_)) => Told::Rejected,
            _ => Told::Unknown,
        },
        Some(answer::Answer::Get(get)) => match get.outcome {
            Some(get_reply::Outcome::Found(found)) => {
                let token = std::str::from_utf8(&found.value).ok().and_then(|text| text.parse().ok());
                // A value that no client wrote has a token that no client has.
                Told::Found(token.unwrap_or(Token::MAX), version(found.version).unwrap_or(Version::ZERO))
            }
            Some(get_reply::Outcome::Missing(missing)) => Told::Missing(version(missing.version)),
            _ => Told::Rejected,
        },
        None => Told::Unknown,
    }
}
