//! Clients that ask one node after the other, and record what they were told.

use crate::world::{REPLICAS, Running, World};
use bytes::Bytes;
use god_core::{doors::Service, seam::Entropy};
use god_history::{Ask, Event, Survey, Token, Told};
use god_proto::{
    ids::KeyspaceId,
    position::PositionRange,
    v1::{
        Answer, Call, Consistency, DeleteRequest, GetRequest, Level, PutRequest, answer, call, consistency,
        get_reply, write_reply,
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

/// Keys from here on are in keyspace [`COPIED`], each put at most once.
pub const ALL: u32 = 10_000_000;
/// Keys from here on are in keyspace [`LOOSE`], each put at most once.
pub const ONE: u32 = 20_000_000;
/// Keys below are registers: few, and fought over. From here on each key is put at most once and deleted at most once.
pub const SET: u32 = 1_000;
const REGISTERS: u64 = 6;
/// The longest time to live of what expires.
const LONGEST_MS: u64 = 2_000;
/// The ordered keyspace in which the set is.
pub const ORDERED: &str = "ordered";
/// The keyspace of W 3 and R 1.
pub const COPIED: &str = "copied";
/// The keyspace of W 1 and R 1.
pub const LOOSE: &str = "loose";
/// What a call may take beyond its time: an answer's way through a storm.
pub const SLACK: Duration = Duration::from_millis(400);

/// What all clients of a run share.
pub struct Clients {
    /// The cluster.
    pub world: Arc<World>,
    /// Reads and writes, in the order of their answers.
    pub history: Mutex<Vec<Event>>,
    /// Calls that did not end in time.
    pub hung: Mutex<Vec<String>>,
    /// Listings and counts of the set.
    pub surveys: Mutex<Vec<Survey>>,
    /// Makes values distinct.
    pub tokens: AtomicU64,
    /// How many replicas clients ask to answer.
    pub level: Level,
}

/// As a call says it.
pub fn consistency(level: Level) -> Consistency {
    Consistency { level: Some(consistency::Level::Named(level.into())) }
}

/// As many as there are replicas of every key of a key's keyspace.
pub fn copies(running: &Running, key: u32) -> Consistency {
    let (keyspace, _) = place(key);
    let ring = running.node.current_ring().get();
    let fewest = ring.and_then(|ring| {
        let id = KeyspaceId(ring.keyspace(&keyspace)?.id);
        ring.arcs_in(&PositionRange::of_keyspace(id)).iter().map(|arc| arc.replicas.len() as u32).min()
    });
    Consistency { level: Some(consistency::Level::Count(fewest.unwrap_or(REPLICAS))) }
}

/// Where a key is, and how it is called.
pub fn place(key: u32) -> (String, Bytes) {
    match key {
        0..SET => ("default".to_owned(), format!("register/{key}").into()),
        SET..ALL => (ORDERED.to_owned(), format!("{key:08}").into()),
        ALL..ONE => (COPIED.to_owned(), format!("{key:08}").into()),
        ONE.. => (LOOSE.to_owned(), format!("{key:08}").into()),
    }
}

/// The number of the key whose record stands at a position: the digits that the key ends in.
pub fn key_at(position: &[u8]) -> Option<u32> {
    let end = position.iter().rposition(u8::is_ascii_digit)? + 1;
    let text = position.get(..end)?;
    let start = text.iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |at| at + 1);
    std::str::from_utf8(text.get(start..)?).ok()?.parse().ok()
}

/// After how long the client of a call hangs up: one in twenty does so within 30 ms. By the call's number, so that
/// nothing else that is drawn depends on it.
fn patience(token: Token) -> Option<Duration> {
    let spread = token.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    spread.is_multiple_of(20).then(|| Duration::from_micros(spread / 20 % 30_000))
}

impl Clients {
    /// Clients of a cluster who have done nothing yet.
    pub fn new(world: Arc<World>, level: Level) -> Clients {
        Clients {
            world,
            history: Mutex::default(),
            hung: Mutex::default(),
            surveys: Mutex::default(),
            tokens: AtomicU64::new(1),
            level,
        }
    }

    /// Works until `until`.
    pub async fn work(self: Arc<Self>, client: u32, entropy: Entropy, until: Instant) {
        let mut own: Vec<u32> = Vec::new();
        let mut next = SET + client * 100_000;
        let mut once = client * 100_000;
        while Instant::now() < until {
            let token: Token = self.tokens.fetch_add(1, Relaxed);
            let node = entropy.below(self.world.size() as u64) as usize;
            let limit = Duration::from_millis([150, 500, 2_000][entropy.below(3) as usize]);
            let (key, ask) = match entropy.below(10) {
                _ if entropy.below(25) == 0 => {
                    self.survey(client, node, limit, entropy.below(3)).await;
                    continue;
                }
                _ if entropy.below(25) == 0 => {
                    once += 1;
                    let base = if entropy.below(2) == 0 { ALL } else { ONE };
                    (base + once, Ask::Put(token))
                }
                0 => (entropy.below(REGISTERS) as u32, Ask::Lend(token, 1 + entropy.below(LONGEST_MS))),
                1..3 => (entropy.below(REGISTERS) as u32, Ask::Put(token)),
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
            self.perform_unless(client, node, key, ask, limit, patience(token)).await;
            sleep(Duration::from_micros(entropy.below(20_000))).await;
        }
    }

    /// One operation, into the history.
    pub async fn perform(&self, client: u32, node: usize, key: u32, ask: Ask, limit: Duration) -> Told {
        self.perform_unless(client, node, key, ask, limit, None).await
    }

    /// The same; its client hangs up after `patience`, whatever has come of it.
    async fn perform_unless(
        &self,
        client: u32,
        node: usize,
        key: u32,
        ask: Ask,
        limit: Duration,
        patience: Option<Duration>,
    ) -> Told {
        let called = self.world.now_us();
        let told = match self.world.running(node) {
            None => Told::Rejected,
            Some(running) => {
                let answered = self.ask(&running, key, ask, limit);
                match patience {
                    None => answered.await,
                    Some(patience) => match timeout(patience, answered).await {
                        Ok(told) => told,
                        Err(_) if ask == Ask::Get => Told::Rejected,
                        Err(_) => Told::Unknown,
                    },
                }
            }
        };
        let event = Event { client, key, ask, called, answered: self.world.now_us(), told };
        self.world.trace.note(vec![key], format!("at {}: {event}", self.world.address(node)));
        self.history.lock().push(event);
        told
    }

    async fn ask(&self, running: &Running, key: u32, ask: Ask, limit: Duration) -> Told {
        // Keyspaces of other quorums are written by theirs, and read, at the end, from all.
        let level = match (key, ask) {
            (..ALL, _) => Some(consistency(self.level)),
            (_, Ask::Get) => Some(copies(running, key)),
            _ => None,
        };
        let (keyspace, key) = place(key);
        let timeout_ms = limit.as_millis() as u32;
        let call = match ask {
            Ask::Put(token) | Ask::Lend(token, _) => call::Call::Put(PutRequest {
                keyspace,
                key,
                value: token.to_string().into(),
                ttl_ms: if let Ask::Lend(_, ms) = ask { ms } else { 0 },
                consistency: level,
                timeout_ms,
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

    /// Reads a key from all its replicas, which levels them. No evidence.
    pub async fn read_all(&self, running: &Running, key: u32) -> Result<(), String> {
        let consistency = Some(copies(running, key));
        let (keyspace, bytes) = place(key);
        let get =
            GetRequest { keyspace, key: bytes, consistency, timeout_ms: 5_000, ..GetRequest::default() };
        let calls = vec![Call { call: Some(call::Call::Get(get)) }];
        match running.client.batch(calls).await.into_iter().next().map(told) {
            None | Some(Told::Rejected) => {
                Err(format!("AVAILABLE: all is healed, and key {key} cannot be read from all its replicas"))
            }
            Some(_) => Ok(()),
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
