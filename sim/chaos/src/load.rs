//! Clients that write, delete, read, scan and count, and remember everything.

use crate::{diary::Diary, large::Came};
use anyhow::Context as _;
use futures::StreamExt as _;
use god_client::{Client, Consistency, Entry, Error, Keyspace, Lookup, Range};
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
/// The keyspace of large values: a hashed one.
pub const LARGE: &str = "large";
/// Keys that others than these clients write: nobody's history has them.
pub const FOREIGN: [&str; 3] = [crate::cluster::PROBE, crate::hostile::READ, crate::hostile::WRITTEN];
/// Clients, each with keys of its own in the set.
const CLIENTS: u32 = 12;
/// Keys below are registers: few, and fought over. From here on they are large ones, of [`LARGE_BYTES`], which are put
/// once.
pub const FIRST_OF_LARGE: u32 = 900;
/// How many of those there are.
pub const LARGE_COUNT: u32 = 4;
/// Bytes of a large value.
pub const LARGE_BYTES: usize = 1 << 20;
/// From here on each key is put once at most, and deleted once at most.
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
    /// The run's log and clock.
    pub diary: Arc<Diary>,
    stop: AtomicBool,
    /// Held by whoever makes a call, and wholly by who wants no call under way.
    pub gate: RwLock<()>,
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
    /// Pairs of the set that scans gave and that are not checked yet, each as a read that found it.
    pub scanned: Mutex<Vec<Event>>,
    /// What came of large values that were asked for at once.
    pub large: Mutex<Came>,
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

/// The keyspace of a key, and its name there.
pub fn place(key: u32) -> (&'static str, String) {
    match key {
        0..FIRST_OF_LARGE => (REGISTERS, format!("register/{key}")),
        FIRST_OF_LARGE..FIRST_OF_SET => (LARGE, format!("large/{key}")),
        FIRST_OF_SET.. => (SET, format!("{key:010}")),
    }
}

/// The key of a name. What is nobody's key is [`u32::MAX`].
fn number(name: &[u8]) -> u32 {
    let name = std::str::from_utf8(name).unwrap_or_default();
    let number = name.rsplit('/').next().and_then(|number| number.parse().ok());
    number.filter(|number| place(*number).1 == name).unwrap_or(u32::MAX)
}

/// Whether a key is of the set.
pub fn is_of_set(event: &Event) -> bool {
    event.key >= FIRST_OF_SET
}

/// The value of a token at a key: the token, and what makes it longer, all of which follows from the two.
pub fn value(key: u32, token: Token) -> Vec<u8> {
    let length = match key {
        FIRST_OF_LARGE..FIRST_OF_SET => LARGE_BYTES,
        _ if token.is_multiple_of(100) => 32 << 10,
        _ => (token.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % 300,
    };
    let mut value = format!("{token} ").into_bytes();
    let mut state = token;
    while value.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // What is left of the last word is cut off; the upper bytes are those that do not repeat.
        let word = state.to_be_bytes();
        value.extend_from_slice(&word[..word.len().min(length - value.len())]);
    }
    value
}

/// The token of a value that was read at a key. One that no client wrote so, to its last byte, has a token that no
/// client has.
pub fn token(key: u32, read: &[u8]) -> Token {
    let text = read.split(|byte| *byte == b' ').next().and_then(|word| std::str::from_utf8(word).ok());
    let token = text.and_then(|text| text.parse().ok());
    token.filter(|token| value(key, *token) == read).unwrap_or(Token::MAX)
}

/// What a page of a scan shows that was asked for and answered at such times, in microseconds: each pair as a read that
/// found it, in the order of the page. Keys that are [`FOREIGN`] are left out.
fn pairs(client: u32, (called, answered): (u64, u64), page: &[Entry]) -> Vec<Event> {
    let known = page.iter().filter(|entry| FOREIGN.iter().all(|name| entry.key != name.as_bytes()));
    let pair = |entry: &Entry| {
        let key = number(&entry.key);
        let told = Told::Found(token(key, &entry.value), entry.version);
        Event { client, key, ask: Ask::Get, called, answered, told }
    };
    known.map(pair).collect()
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
            scanned: Mutex::default(),
            large: Mutex::default(),
            hung: Mutex::default(),
        }
    }

    /// Lets them work. Each uses one of the given connections to the cluster, of which there is one for each node. One
    /// more asks for much at once.
    pub fn start(self: &Arc<Load>, seed: u64, cluster: &[Client]) -> Clients {
        let start = |(client, cluster): (u32, &Client)| {
            tokio::spawn(Arc::clone(self).work(client, cluster.clone(), seed))
        };
        let mut clients: Vec<_> = (1..=CLIENTS).zip(cluster.iter().cycle()).map(start).collect();
        let large = Arc::clone(self).ask_for_much(CLIENTS + 1, cluster.len(), seed);
        clients.push(tokio::spawn(large));
        Clients(clients)
    }

    /// Tells them to stop.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Whether they were told to.
    pub fn is_over(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// A token that nobody has yet.
    pub fn next_token(&self) -> Token {
        self.tokens.fetch_add(1, Relaxed)
    }

    /// Waits until no call is under way; none begins until what is given is dropped.
    pub async fn pause(&self) -> impl Drop {
        self.gate.write().await
    }

    async fn work(self: Arc<Load>, client: u32, cluster: Client, seed: u64) {
        let mut chance = SmallRng::seed_from_u64(seed ^ u64::from(client) << 40);
        let first = FIRST_OF_SET + client * OWN;
        let (mut next, mut own) = (first, Vec::new());
        while !self.is_over() {
            sleep(Duration::from_micros(chance.random_range(0..40_000))).await;
            let open = self.gate.read().await;
            let token = self.next_token();
            let limit = Duration::from_millis([500, 1_500, 4_000][chance.random_range(0..3)]);
            let register = chance.random_range(0..COUNT);
            let (key, ask) = match chance.random_range(0..100) {
                0 => {
                    match chance.random_range(0..4) {
                        0 => self.count(client, &cluster).await,
                        1 => drop(self.scan(client, &cluster, REGISTERS, true).await),
                        kind => drop(self.scan(client, &cluster, SET, kind == 2).await),
                    }
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
            self.perform(client, &cluster, key, ask, limit).await;
            drop(open);
        }
    }

    /// Makes a call, and remembers what came of it.
    pub async fn perform(&self, client: u32, cluster: &Client, key: u32, ask: Ask, limit: Duration) {
        let (keyspace, name) = place(key);
        let keyspace = cluster.keyspace(keyspace).with_timeout(limit);
        let called = self.diary.now_us();
        let call = async {
            match ask {
                Ask::Put(token) => written(keyspace.put(name, value(key, token)).await),
                Ask::Lend(token, ms) => {
                    let ttl = Duration::from_millis(ms);
                    written(keyspace.put_with_ttl(name, value(key, token), ttl).await)
                }
                Ask::Delete(_) => written(keyspace.delete(name).await),
                Ask::Get => read(&keyspace, key).await,
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

    /// Counts the set. Where that fails there is nothing to judge.
    async fn count(&self, client: u32, cluster: &Client) {
        let called = self.diary.now_us();
        if let Ok(count) = cluster.keyspace(SET).count(Range::all()).await {
            let answered = self.diary.now_us();
            self.surveys.lock().push(Survey { client, called, answered, keys: Err(count) });
        }
    }

    /// Scans a keyspace, with or without values, and gives its keys in their order. Pairs are remembered as reads that
    /// found them, from the pages that came before one failed, too; and of the set which keys there are.
    ///
    /// # Errors
    /// Where a page fails.
    async fn scan(
        &self,
        client: u32,
        cluster: &Client,
        name: &str,
        values: bool,
    ) -> anyhow::Result<Vec<u32>> {
        let keyspace = cluster.keyspace(name);
        let scan = keyspace.scan(Range::all());
        let mut scan = if values { scan } else { scan.keys_only() };
        let (mut keys, began) = (Vec::new(), self.diary.now_us());
        loop {
            let called = self.diary.now_us();
            let Some(page) = scan.next_page().await? else { break };
            keys.extend(page.iter().map(|entry| number(&entry.key)));
            if values {
                let pairs = pairs(client, (called, self.diary.now_us()), &page);
                // Keys of the set have one value each, registers many: of those a later read must not see an older one.
                let seen = if name == SET { &self.scanned } else { &self.history };
                seen.lock().extend(pairs);
            }
        }
        if name == SET {
            let answered = self.diary.now_us();
            self.surveys.lock().push(Survey { client, called: began, answered, keys: Ok(keys.clone()) });
        }
        Ok(keys)
    }

    /// Reads all keys that were ever asked about from all their replicas, as the end of the history; and lists the
    /// set.
    ///
    /// # Errors
    /// Where one cannot be read: nothing is wrong with the cluster any more.
    pub async fn read_back(&self, cluster: &Client) -> anyhow::Result<Vec<u32>> {
        let listed = self.scan(0, cluster, SET, true).await.context("cannot list the set at the end")?;
        let keys: BTreeSet<u32> = self.history.lock().iter().map(|event| event.key).collect();
        let one = |key| async move {
            let keyspace = cluster.keyspace(place(key).0).with_reads(Consistency::All);
            let called = self.diary.now_us();
            let mut told = read(&keyspace, key).await;
            for _ in 0..10 {
                if told != Told::Rejected {
                    break;
                }
                sleep(Duration::from_millis(200)).await;
                told = read(&keyspace, key).await;
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

fn written(outcome: god_client::Result<god_client::Written>) -> Told {
    match outcome {
        Ok(written) => Told::Committed(written.version),
        Err(Error::Unknown { .. }) => Told::Unknown,
        Err(_) => Told::Rejected,
    }
}

async fn read(keyspace: &Keyspace, key: u32) -> Told {
    match keyspace.look_up(place(key).1).await {
        Ok(Lookup::Found(found)) => Told::Found(token(key, &found.value), found.version),
        Ok(Lookup::Missing { deleted }) => Told::Missing(deleted),
        Err(_) => Told::Rejected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use god_client::{Version, proto};
    use god_history::check_register;

    fn at(ms: u64) -> Version {
        proto::Version { time: ms << 16, node: 1 }.into()
    }

    fn entry(key: u32, value: Vec<u8>, version: Version) -> Entry {
        Entry { key: place(key).1.into(), value: value.into(), version, expires_at: None }
    }

    #[test]
    fn a_value_has_its_token_however_long_it_is_and_with_any_other_byte_it_is_nobodys() {
        for number in (1..500).chain([u64::MAX - 1]) {
            for key in [3, FIRST_OF_SET + 3] {
                let right = value(key, number);
                assert_eq!(token(key, &right), number);
                for byte in 0..right.len().min(400) {
                    let mut wrong = right.clone();
                    wrong[byte] ^= 1;
                    assert_ne!(token(key, &wrong), number);
                }
                assert_ne!(token(key, &right[..right.len() - 1]), number);
            }
        }
        assert_eq!(token(3, b"another's"), Token::MAX);
        let large = value(FIRST_OF_LARGE, 7);
        assert_eq!((large.len(), token(FIRST_OF_LARGE, &large)), (LARGE_BYTES, 7));
        assert_eq!(token(3, &large), Token::MAX);
    }

    #[test]
    fn keys_of_all_clients_fit_and_keep_apart() {
        let last = FIRST_OF_SET + CLIENTS * OWN + OWN;
        assert_eq!(place(last).1.len(), 10);
        assert!(place(last).1 > place(FIRST_OF_SET).1, "the order of bytes is the order of numbers");
        assert_ne!(place(FIRST_OF_LARGE - 1).0, place(FIRST_OF_LARGE).0);
        assert_ne!(place(FIRST_OF_SET - 1).0, place(FIRST_OF_SET).0);
        for key in [0, COUNT - 1, FIRST_OF_LARGE, FIRST_OF_LARGE + LARGE_COUNT - 1, FIRST_OF_SET, last] {
            assert_eq!(number(place(key).1.as_bytes()), key);
        }
        for name in ["register/", "register/900", "large/1", "1000", "probe", ""] {
            assert_eq!(number(name.as_bytes()), u32::MAX, "{name}");
        }
    }

    #[test]
    fn a_pair_of_a_scan_that_is_wrong_anothers_or_older_than_what_was_seen_is_found() {
        let (set, register) = (FIRST_OF_SET + 1, 3);
        let put = |key, token, span: (u64, u64), version| {
            let (ask, told) = (Ask::Put(token), Told::Committed(version));
            Event { client: 1, key, ask, called: span.0, answered: span.1, told }
        };
        let history = [
            put(set, 1, (0, 10), at(1)),
            put(register, 2, (0, 10), at(2)),
            put(register, 3, (20, 30), at(3)),
            put(set + 1, 4, (20, 30), at(4)),
        ];
        let says = |page: &[Entry], span| {
            let seen: Vec<Event> = history.into_iter().chain(pairs(2, span, page)).collect();
            check_register(&seen).map_err(|violation| violation.problem)
        };
        let found = |page: &[Entry], span, what: &str| {
            let problem = says(page, span).expect_err("the checker should object");
            assert!(problem.contains(what), "{problem}");
        };
        let right = entry(set, value(set, 1), at(1));
        let (old, new) =
            (entry(register, value(register, 2), at(2)), entry(register, value(register, 3), at(3)));
        let foreign = Entry { key: FOREIGN[0].into(), ..right.clone() };
        assert_eq!(says(&[right.clone(), foreign, new], (40, 50)), Ok(()));
        assert_eq!(says(std::slice::from_ref(&old), (25, 50)), Ok(()), "the newer one was under way");
        found(&[old], (40, 50), "older than an acknowledged write");
        let mut wrong = value(set, 1);
        wrong[0] ^= 8;
        found(&[entry(set, wrong, at(1))], (40, 50), "nobody wrote");
        found(&[entry(set, value(set, 4), at(4))], (40, 50), "nobody wrote");
        found(&[entry(set, value(set, 1), at(9))], (40, 50), "read as");
        found(&[Entry { key: "stranger".into(), ..right }], (40, 50), "nobody wrote");
        // What a scan saw no later read unsees.
        let scanned = pairs(2, (24, 26), &[entry(register, value(register, 3), at(3))]);
        let later = pairs(3, (27, 28), &[entry(register, value(register, 2), at(2))]);
        let seen: Vec<Event> = history.into_iter().chain(scanned).chain(later).collect();
        let problem = check_register(&seen).expect_err("the checker should object").problem;
        assert!(problem.contains("older than a read before it"), "{problem}");
    }
}
