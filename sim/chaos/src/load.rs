//! Clients that write, delete, read, list and count, and remember everything.

use crate::diary::Diary;
use anyhow::Context as _;
use futures::StreamExt as _;
use god_client::{Client, Consistency, Error, Keyspace, Lookup, Range};
use god_history::{Ask, Event, Survey, Token, Told};
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::RwLock, task::JoinHandle, time::sleep};

/// The keyspace of the registers: a hashed one.
pub const REGISTERS: &str = "registers";
/// The keyspace of the set: an ordered one.
pub const SET: &str = "set";
/// Clients, each with keys of its own in the set.
const CLIENTS: u32 = 12;
/// Keys below are registers: few, and fought over. From here on each key is put once at most, and deleted once at most.
const FIRST_OF_SET: u32 = 1_000;
/// How many registers there are.
const COUNT: u32 = 12;
/// Keys of the set that a client can put.
const OWN: u32 = 10_000_000;
/// Keys of the set that a client leaves there, more or less.
const KEPT: usize = 150;
/// A call that takes longer than its time by so much hangs.
const HANGS: Duration = Duration::from_secs(30);
/// How many keys are read back at a time.
const READ_BACK: usize = 32;

/// The load: what its clients share.
pub struct Load {
    diary: Arc<Diary>,
    stop: AtomicBool,
    /// Held by whoever makes a call, and wholly by who wants no call under way.
    gate: RwLock<()>,
    tokens: AtomicU64,
    /// Writes that were acknowledged.
    pub written: AtomicU64,
    /// Reads that were answered.
    pub read: AtomicU64,
    /// Calls that were refused.
    pub refused: AtomicU64,
    /// Writes of unknown outcome.
    pub unknown: AtomicU64,
    /// All reads and writes, in the order of their answers.
    pub history: Mutex<Vec<Event>>,
    /// Listings and counts that are not checked yet.
    pub surveys: Mutex<Vec<Survey>>,
    /// Calls that did not end.
    pub hung: Mutex<Vec<String>>,
}

/// The clients' tasks.
pub struct Clients(Vec<JoinHandle<()>>);

impl Clients {
    /// Waits until each has ended.
    ///
    /// # Errors
    /// Where one failed.
    pub async fn ended(self) -> anyhow::Result<()> {
        for client in self.0 {
            client.await.context("a client failed")?;
        }
        Ok(())
    }
}

fn place(key: u32) -> (&'static str, String) {
    match key {
        0..FIRST_OF_SET => (REGISTERS, format!("register/{key}")),
        FIRST_OF_SET.. => (SET, format!("{key:010}")),
    }
}

/// Whether a key is of the set.
pub fn is_of_set(event: &Event) -> bool {
    event.key >= FIRST_OF_SET
}

/// The value of a token, and something to make it longer.
fn value(token: Token, chance: &mut SmallRng) -> Vec<u8> {
    let longer = match chance.random_range(0..100) {
        0 => 32 << 10,
        _ => chance.random_range(0..300),
    };
    format!("{token} {:x>longer$}", "").into_bytes()
}

fn token(value: &[u8]) -> Token {
    let text = value.split(|byte| *byte == b' ').next().and_then(|word| std::str::from_utf8(word).ok());
    // A value that no client wrote has a token that no client has.
    text.and_then(|text| text.parse().ok()).unwrap_or(Token::MAX)
}

impl Load {
    /// Clients who have done nothing yet.
    pub fn new(diary: Arc<Diary>) -> Load {
        Load {
            diary,
            stop: AtomicBool::new(false),
            gate: RwLock::default(),
            tokens: AtomicU64::new(1),
            written: AtomicU64::new(0),
            read: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            history: Mutex::default(),
            surveys: Mutex::default(),
            hung: Mutex::default(),
        }
    }

    /// Lets them work. Each uses one of the given connections to the cluster.
    pub fn start(self: &Arc<Load>, seed: u64, cluster: &[Client]) -> Clients {
        let start = |(client, cluster): (u32, &Client)| {
            tokio::spawn(Arc::clone(self).work(client, cluster.clone(), seed))
        };
        Clients((1..=CLIENTS).zip(cluster.iter().cycle()).map(start).collect())
    }

    /// Tells them to stop.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Waits until no call is under way; none begins until what is given is dropped.
    pub async fn pause(&self) -> impl Drop {
        self.gate.write().await
    }

    async fn work(self: Arc<Load>, client: u32, cluster: Client, seed: u64) {
        let mut chance = SmallRng::seed_from_u64(seed ^ u64::from(client) << 40);
        let first = FIRST_OF_SET + client * OWN;
        let (mut next, mut own) = (first, Vec::new());
        while !self.stop.load(Relaxed) {
            sleep(Duration::from_micros(chance.random_range(0..40_000))).await;
            let open = self.gate.read().await;
            let token: Token = self.tokens.fetch_add(1, Relaxed);
            let limit = Duration::from_millis([500, 1_500, 4_000][chance.random_range(0..3)]);
            let register = chance.random_range(0..COUNT);
            let (key, ask) = match chance.random_range(0..100) {
                0 => {
                    self.survey(client, &cluster, chance.random_bool(0.7)).await;
                    continue;
                }
                1..30 => (register, Ask::Put(token)),
                30..38 => (register, Ask::Delete(token)),
                38..68 => (register, Ask::Get),
                // What was deleted long ago as well as what is there.
                68..80 if next > first => (chance.random_range(first + 1..=next), Ask::Get),
                80.. if own.len() >= KEPT => {
                    (own.swap_remove(chance.random_range(0..own.len())), Ask::Delete(token))
                }
                _ => {
                    next += 1;
                    own.push(next);
                    (next, Ask::Put(token))
                }
            };
            self.perform(client, &cluster, key, ask, limit, &mut chance).await;
            drop(open);
        }
    }

    async fn perform(
        &self,
        client: u32,
        cluster: &Client,
        key: u32,
        ask: Ask,
        limit: Duration,
        chance: &mut SmallRng,
    ) {
        let (keyspace, name) = place(key);
        let keyspace = cluster.keyspace(keyspace).with_timeout(limit);
        let called = self.diary.now_us();
        let call = async {
            match ask {
                Ask::Put(token) => written(keyspace.put(name, value(token, chance)).await),
                Ask::Lend(token, ms) => {
                    let ttl = Duration::from_millis(ms);
                    written(keyspace.put_with_ttl(name, value(token, chance), ttl).await)
                }
                Ask::Delete(_) => written(keyspace.delete(name).await),
                Ask::Get => read(&keyspace, name).await,
            }
        };
        let told = match tokio::time::timeout(limit + HANGS, call).await {
            Ok(told) => told,
            Err(_) => {
                self.hung.lock().push(format!("client {client}: {ask:?} of key {key} had {limit:?}"));
                if ask == Ask::Get { Told::Rejected } else { Told::Unknown }
            }
        };
        let count = match told {
            Told::Committed(_) => &self.written,
            Told::Found(..) | Told::Missing(_) => &self.read,
            Told::Rejected => &self.refused,
            Told::Unknown => &self.unknown,
        };
        count.fetch_add(1, Relaxed);
        let answered = self.diary.now_us();
        self.history.lock().push(Event { client, key, ask, called, answered, told });
    }

    /// Lists or counts the set. Where that fails there is nothing to judge.
    async fn survey(&self, client: u32, cluster: &Client, lists: bool) {
        let set = cluster.keyspace(SET);
        let called = self.diary.now_us();
        let keys = match lists {
            true => list(&set).await.ok().map(Ok),
            false => set.count(Range::all()).await.ok().map(Err),
        };
        if let Some(keys) = keys {
            let answered = self.diary.now_us();
            self.surveys.lock().push(Survey { client, called, answered, keys });
        }
    }

    /// Reads all keys that were ever asked about from all their replicas, as the end of the history; and lists the
    /// set.
    ///
    /// # Errors
    /// Where one cannot be read: nothing is wrong with the cluster any more.
    pub async fn read_back(&self, cluster: &Client) -> anyhow::Result<Vec<u32>> {
        let listed = list(&cluster.keyspace(SET)).await.context("cannot list the set at the end")?;
        let keys: BTreeSet<u32> = self.history.lock().iter().map(|event| event.key).collect();
        let one = |key| async move {
            let (keyspace, name) = place(key);
            let keyspace = cluster.keyspace(keyspace).with_reads(Consistency::All);
            let called = self.diary.now_us();
            let mut told = read(&keyspace, name.clone()).await;
            for _ in 0..10 {
                if told != Told::Rejected {
                    break;
                }
                sleep(Duration::from_millis(200)).await;
                told = read(&keyspace, name.clone()).await;
            }
            Event { client: 0, key, ask: Ask::Get, called, answered: self.diary.now_us(), told }
        };
        let mut reads = futures::stream::iter(keys).map(one).buffer_unordered(READ_BACK);
        while let Some(event) = reads.next().await {
            let all_answer = event.told != Told::Rejected;
            anyhow::ensure!(
                all_answer,
                "all is healed, and key {} cannot be read from all replicas",
                event.key
            );
            self.history.lock().push(event);
        }
        Ok(listed)
    }
}

async fn list(set: &Keyspace) -> anyhow::Result<Vec<u32>> {
    let mut scan = set.scan(Range::all()).keys_only();
    let mut keys = Vec::new();
    while let Some(page) = scan.next_page().await? {
        // What is no number is nobody's key.
        let number =
            |key: &[u8]| std::str::from_utf8(key).ok().and_then(|key| key.parse().ok()).unwrap_or(u32::MAX);
        keys.extend(page.iter().map(|entry| number(&entry.key)));
    }
    Ok(keys)
}

fn written(outcome: god_client::Result<god_client::Written>) -> Told {
    match outcome {
        Ok(written) => Told::Committed(written.version),
        Err(Error::Unknown { .. }) => Told::Unknown,
        Err(_) => Told::Rejected,
    }
}

async fn read(keyspace: &Keyspace, name: String) -> Told {
    match keyspace.look_up(name).await {
        Ok(Lookup::Found(found)) => Told::Found(token(&found.value), found.version),
        Ok(Lookup::Missing { deleted }) => Told::Missing(deleted),
        Err(_) => Told::Rejected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_its_token_however_long_it_is() {
        let mut chance = SmallRng::seed_from_u64(1);
        for number in 1..500 {
            assert_eq!(token(&value(number, &mut chance)), number);
        }
        assert_eq!(token(b"another's"), Token::MAX);
    }

    #[test]
    fn keys_of_all_clients_fit_and_keep_apart() {
        let last = FIRST_OF_SET + CLIENTS * OWN + OWN;
        assert_eq!(place(last).1.len(), 10);
        assert!(place(last).1 > place(FIRST_OF_SET).1, "the order of bytes is the order of numbers");
        assert_ne!(place(FIRST_OF_SET - 1).0, place(FIRST_OF_SET).0);
    }
}
